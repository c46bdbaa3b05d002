"""How sure it is that a face set shows one person, without any truth: what `refine` reports.

Five questions, each with an answer in numbers and, where the answer is odd, in words: did two of
its faces stand in one photo, does it fall into two parts, does another group look nearly the same,
are its embeddings weak, do its faces hang together. Cosines are given as likeness, so that limits
serve every recogniser: 1 is usual for two faces of one person, 0 for two strangers. Which
impurities that finds, and which not: docs/analysis/purity.md.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

import sort_faces as sf

LOOKED_AT = 500  # most faces of a set that are compared with each other (1 MB of cosines)
SIDES_ROUNDS = 20  # most rounds of 2-means; it settles after two or three
SIDE = 0.15  # share of a set, and
SIDE_FACES = 3  # faces, that make a part of it a second side rather than a few odd faces

# (below this: look, below this: doubtful), measured on sets of one person: docs/analysis/purity.md.
PARTS = (0.60, 0.45)  # likeness of a few odd faces to the rest
SIDES = (0.75, 0.55)  # of two sides: their averages have less noise
TOGETHER = (0.70, 0.50)  # mean likeness of its faces
WEAK = (0.80, 0.70)  # median length of its embeddings, of what is usual
# (from this: look, from this: doubtful)
RIVAL = (sf.REACH_NEEDED - 0.04, math.inf)  # likeness of its centroid to another group's, beyond
# what strangers' spread allows for: a little less than identity linkage joins two groups at
DOUBLES = (0.05, 0.20)  # share of its photos in which it owned two faces
OUTLIERS = (0.10, 0.35)  # share of its faces that had to be taken out
FEW = 2  # so many doubles or outliers say nothing yet

CLEAN, LOOK, DOUBTFUL = "clean", "look", "doubtful"
NOT_TOLD = "too few faces to tell"


def purity_of(
    unit: np.ndarray,
    usual: sf.Usual,
    length: np.ndarray | None = None,
    rival: tuple[str, float] = ("", math.nan),
    doubles: int = 0,
    outliers: int = 0,
) -> sf.Purity:
    """The purity of one set.

    unit: (n, d) float32 of length 1; length: (n,) of the embeddings, where known; rival: the
    nearest other group and the cosine of both centroids; doubles: photos in which the set owned
    two faces; outliers: faces that were taken out of it.
    """
    if len(unit) < sf.OUTLIER_MIN_CLUSTER:
        return sf.Purity(why=[NOT_TOLD])
    some = unit[np.linspace(0, len(unit) - 1, min(len(unit), LOOKED_AT)).astype(int)]
    together, (parts, share) = likeness(within(some), usual), two_parts(some)
    rivalry = likeness(rival[1] - sf.SPREADS_NEEDED * usual.stranger_spread, usual)
    weak = float(np.median(length)) / usual.length if length is not None and usual.length else None
    limits = limits_of(share, len(some))
    odd = f"{share:.0%} of its faces look like another person's"
    if limits is SIDES:
        odd = f"it has two sides, of {1 - share:.0%} and {share:.0%} of its faces"
    findings = [
        (grade(parts, limits), f"{odd} ({parts:.2f})"),
        (grade(together, TOGETHER), f"its faces are little alike ({together:.2f})"),
        (grade(weak, WEAK), f"weak faces, embeddings {weak or 0:.2f} as long as usual"),
        (grade(rivalry, RIVAL, True), f"{rival[0]} may be the same person ({rival[1]:.2f})"),
        (many(doubles, len(unit), DOUBLES), f"owned two faces in {doubles} photos"),
        (many(outliers, len(unit) + outliers, OUTLIERS), f"{outliers} outliers were taken out"),
    ]
    worst = max(found for found, _ in findings)
    return sf.Purity(
        verdict=(CLEAN, LOOK, DOUBTFUL)[worst],
        why=[why for found, why in sorted(findings, key=lambda item: -item[0]) if found],
        together=rounded(together),
        parts=rounded(parts),
        part=rounded(share),
        rival=rival[0],
        rival_cosine=rounded(rival[1]),
        length=rounded(weak),
        doubles=doubles,
        outliers=outliers,
    )


def grade(value: float | None, limits: tuple[float, float], above: bool = False) -> int:
    """How many of two limits a value has passed, downwards or upwards; an unknown one none."""
    if value is None or math.isnan(value):
        return 0
    return sum(value >= limit if above else value < limit for limit in limits)


def many(count: int, of: int, limits: tuple[float, float]) -> int:
    """The grade of so many of so many."""
    return grade(count / of, limits, above=True) if count > FEW else 0


def rounded(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else round(float(value), 3)


def likeness(cosine: float, usual: sf.Usual) -> float:
    """A cosine as a share of the way from strangers (0) to faces of one person (1)."""
    reach = usual.same - usual.strangers
    return (cosine - usual.strangers) / reach if reach > 0 else math.nan


def within(unit: np.ndarray) -> float:
    """Mean cosine of all pairs of unit rows (n, d); NaN of fewer than two."""
    count, total = len(unit), unit.sum(axis=0, dtype=np.float64)
    return float(total @ total - count) / (count * (count - 1)) if count > 1 else math.nan


def limits_of(share: float, faces: int) -> tuple[float, float]:
    """The limits for the likeness of a part to the rest: a side of the set, or a few odd faces."""
    return SIDES if share >= SIDE and share * faces > SIDE_FACES - 0.5 else PARTS


def two_parts(unit: np.ndarray) -> tuple[float, float]:
    """The likeness of the two parts a set falls into, and the share of the smaller one.

    Looked for twice, as a few odd faces (where average linkage parts the set last) and as two
    sides (2-means); the find nearer to its limit counts. Likeness is the mean cosine across over
    that within the parts, so that it is the cosine of the people behind them, without the noise
    of their photos: 1 for one person, 0 for strangers.
    """
    found = [likeness_of_parts(unit, side) for side in (last_merge(unit), two_sides(unit))]
    return min(found, key=lambda one: one[0] - limits_of(one[1], len(unit))[0])


def likeness_of_parts(unit: np.ndarray, side: np.ndarray) -> tuple[float, float]:
    """(likeness, share of the smaller) of the rows in `side` (n,) bool and all others."""
    parts = [unit[side], unit[~side]]
    if not (len(parts[0]) and len(parts[1])):
        return 1.0, 0.0
    across = float(parts[0].mean(axis=0) @ parts[1].mean(axis=0))
    inside = [within(part) for part in parts]
    inside = [cosine for cosine in inside if not math.isnan(cosine)]  # a single face has none
    scale = math.prod(max(cosine, 1e-3) for cosine in inside) ** (1 / len(inside))
    return min(across / scale, 1.0), min(map(len, parts)) / len(unit)


def last_merge(unit: np.ndarray) -> np.ndarray:
    """Which rows (n,) lie on one side of the last merge of average linkage."""
    from scipy.cluster.hierarchy import fcluster, linkage

    above = np.triu_indices(len(unit), k=1)
    merges = linkage(np.maximum(1.0 - (unit @ unit.T)[above], 0.0), method="average")
    return fcluster(merges, 2, criterion="maxclust") == 1


def two_sides(unit: np.ndarray) -> np.ndarray:
    """Which rows (n,) lie on one side of 2-means on the sphere.

    Begun at the main axis of the set, so that it is the same in every run (Dhillon and Modha 2001,
    "Concept decompositions for large sparse text data using clustering").
    """
    off = unit - unit.mean(axis=0)
    axis = off[np.square(off).sum(axis=1).argmax()]
    for _ in range(SIDES_ROUNDS):  # power iteration: the main axis, near enough to begin with
        axis = sf.unit_rows((off.T @ (off @ axis))[None])[0]
    side = off @ axis > 0
    for _ in range(SIDES_ROUNDS):
        if side.all() or not side.any():
            break
        again = unit @ (sf.centroid(unit[side]) - sf.centroid(unit[~side])) > 0
        if (again == side).all():
            break
        side = again
    return side


def purities(
    cache: sf.FaceCache,
    sets: Mapping[str, np.ndarray],
    usual: sf.Usual,
    others: Sequence[np.ndarray] = (),
    lost: Mapping[str, sf.Counter] | None = None,
) -> dict[str, sf.Purity]:
    """The purity of the face sets of a library, {name: rows of the cache}.

    others: rows of the groups that became no set, which may be rivals, too; lost: what refine took
    out of each set, by its reason.
    """
    rivals = rivals_of(cache.unit, sets, others)
    lost = lost or {}
    return {
        name: purity_of(
            cache.unit[rows],
            usual,
            cache.length[rows],
            rivals[name],
            lost.get(name, {}).get("same_photo", 0),
            lost.get(name, {}).get(sf.OUTLIER, 0),
        )
        for name, rows in sets.items()
    }


def rivals_of(
    unit: np.ndarray,
    sets: Mapping[str, np.ndarray],
    others: Sequence[np.ndarray] = (),
    families: Mapping[str, str] | None = None,
) -> dict[str, tuple[str, float]]:
    """The nearest other group of each set, and the cosine of the centroids.

    families: sets of one family, a person and its eras, are no rivals.
    """
    named = {name: rows for name, rows in sets.items() if len(rows)}
    others = [rows for rows in others if len(rows) > 1]
    titles = [*named, *(f"a group of {len(rows)} faces" for rows in others)]
    result = dict.fromkeys(sets, ("", math.nan))
    if len(titles) < 2:
        return result
    centres = np.stack([sf.centroid(unit[rows]) for rows in (*named.values(), *others)])
    kin = np.array([(families or {}).get(title, f"{at}") for at, title in enumerate(titles)])
    for at, name in enumerate(named):
        cosine = centres @ centres[at]
        cosine[kin == kin[at]] = -np.inf
        best = int(cosine.argmax())
        if math.isfinite(cosine[best]):
            result[name] = titles[best], float(cosine[best])
    return result


def in_question(found: Mapping[str, sf.Purity]) -> list[dict[str, Any]]:
    """The sets that are not clean, the most doubtful first, for a table."""
    order = {DOUBTFUL: 0, LOOK: 1}
    odd = [(name, purity) for name, purity in found.items() if purity.verdict in order]
    odd.sort(key=lambda item: order[item[1].verdict])
    return [
        {"faceset": name, "verdict": purity.verdict, "why": "; ".join(purity.why)}
        for name, purity in odd
    ]


def totals(found: Mapping[str, sf.Purity]) -> dict[str, int]:
    """{verdict: sets} of a library."""
    verdicts = sf.Counter(purity.verdict for purity in found.values())
    return {verdict: verdicts[verdict] for verdict in (CLEAN, LOOK, DOUBTFUL)}
