"""What refine's gates and its purity report find of strangers planted into face sets.

    python tests/bench/measure_purity.py                 # the half of the people to report on
    python tests/bench/measure_purity.py --choose        # the half the constants were chosen on
    python tests/bench/measure_purity.py --embeddings FILE.npz --least 12

FILE.npz holds `embedding` (n, d), `photo` (n,) and `person` (n,), -1 for people nobody knows; by
default ../shared/data/embeddings/half.npz. The people are split in two by a hash of their number.
Every set of --least faces and more gets strangers: 5, 10 or 20 % of the set, at least one face.

    random      main faces of other people, whoever they are
    nearest     of all other people's faces those most like the set (below a cosine of .6, as some
                labels of LFW are wrong)
    one         all of one other person
    look-alike  all of one other person, of those the one most like the set
    twin NN     one made person, whose faces are the set's own noise about a direction at cosine
                .NN from the set's

"gates" is what strays() takes; "sets" is what the report says of the sets that still hold a
stranger behind the gates, "no gates" the same where none was asked (--outlier-spreads 0).
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from common import SHARED, machine, print_table, sf

purity = sf.companion("purity")
SHARES = (0.05, 0.10, 0.20)
NOT_A_MISTAKE = 0.6  # cosine to the set from which a "stranger" is likely a wrong label
SPREADS = sf.RefineParams.outlier_spreads


@dataclass
class People:
    """Faces with known names; rows of everything are faces."""

    embedding: np.ndarray
    photo: np.ndarray
    person: np.ndarray  # -1 unknown
    first: np.ndarray  # (n,) int label of the group each face lies in

    @property
    def unit(self) -> np.ndarray:
        return sf.unit_rows(self.embedding)


def read_people(path: Path) -> People:
    """Faces of a file; people nobody knows are grouped by average linkage."""
    data = np.load(path)
    person = data["person"].astype(int)
    embedding = data["embedding"].astype(np.float32)
    loose = sf.average_linkage(sf.unit_rows(embedding), sf.Thresholds.cluster)
    return People(embedding, data["photo"], person, np.where(person < 0, 10**6 + loose, person))


def second_half(person: np.ndarray) -> np.ndarray:
    """(n,) bool: people to report on, by a hash of their number."""
    return (person.astype(np.int64) * 2654435761 % 2**32 // 2**16) % 2 == 1


def planted(people: People, sets: dict[int, np.ndarray], kind: str, share: float) -> People:
    """The same faces, some of them moved to sets that are not theirs."""
    rng = np.random.default_rng(1)
    first = people.first.copy()
    free = (people.person >= 0) & ~np.isin(people.person, list(sets))
    extra: list[tuple[np.ndarray, int]] = []
    unit = people.unit
    for name, rows in sets.items():
        count = max(1, round(share * len(rows) / (1 - share)))
        at = np.flatnonzero(free)
        if kind.startswith("twin"):
            extra.append((twins(people.embedding[rows], int(kind[5:]) / 100, count, rng), name))
            continue
        if kind == "random":
            taken = rng.choice(at, count, replace=False)
        elif kind == "nearest":
            cosine = unit[at] @ sf.centroid(unit[rows])
            order = np.argsort(-cosine)
            taken = at[order[cosine[order] < NOT_A_MISTAKE][:count]]
        else:
            names, sizes = np.unique(people.person[at], return_counts=True)
            names = names[sizes >= count]
            likes = [
                sf.centroid(unit[at[people.person[at] == other]]) @ sf.centroid(unit[rows])
                for other in names
            ]
            likes = np.where(np.array(likes) < NOT_A_MISTAKE, likes, -1.0)
            other = names[np.argmax(likes)] if kind == "look-alike" else rng.choice(names)
            taken = rng.choice(at[people.person[at] == other], count, replace=False)
        free[taken], first[taken] = False, name
    if not extra:
        return People(people.embedding, people.photo, people.person, first)
    made = np.concatenate([faces for faces, _ in extra])
    owner = np.concatenate([np.full(len(faces), name) for faces, name in extra])
    return People(
        np.concatenate([people.embedding, made]),
        np.concatenate([people.photo, people.photo.max() + 1 + np.arange(len(made))]),
        np.concatenate([people.person, np.full(len(made), 10**7)]),
        np.concatenate([first, owner]),
    )


def twins(embedding: np.ndarray, cosine: float, count: int, rng: np.random.Generator) -> np.ndarray:
    """`count` faces of a made person at a cosine from the owner of faces (n, d).

    The owner's space is turned so that his direction comes to lie at the twin's: the noise of the
    photos, their lengths and their likeness to each other stay as they are.
    """
    own = sf.centroid(sf.unit_rows(embedding)).astype(np.float64)
    other = rng.normal(size=len(own))
    other -= (other @ own) * own
    other /= np.linalg.norm(other)
    faces = embedding[rng.choice(len(embedding), count, replace=count > len(embedding))]
    along, across = faces @ own, faces @ other
    sine = np.sqrt(1 - cosine**2)
    turned = faces - np.outer(along, own) - np.outer(across, other)
    turned += np.outer(along * cosine - across * sine, own)
    return (turned + np.outer(along * sine + across * cosine, other)).astype(np.float32)


def judged(
    people: People, sets: dict[int, np.ndarray], spreads: float
) -> tuple[list[tuple[str, int]], Counter[str]]:
    """(verdict, strangers left) of every set behind the gates, and counts of what those took."""
    unit = people.unit
    groups = {int(people.first[rows[0]]): rows for rows in sf.groups_of(people.first)}
    figures = sf.KNOWN_FIGURES["0c845ee43af10c1e"]
    usual = sf.Usual(
        figures.strangers,
        figures.spread,
        figures.same,
        figures.length,
        sf.spread_of([sf.own_distances(unit[rows]) for rows in groups.values()]),
    )
    stray = sf.strays(unit, list(groups.values()), spreads, usual.spread)
    out = dict(zip(groups, stray, strict=True))
    kept = {name: rows[~out[name]] for name, rows in groups.items()}
    named = {str(name): kept[name] for name in sets}
    others = [rows for name, rows in kept.items() if name not in sets]
    rivals = purity.rivals_of(unit, named, others)
    length = np.linalg.norm(people.embedding, axis=1)
    verdicts, counts = [], Counter()
    for name in sets:
        foreign = people.person[groups[name]] != name
        counts["strangers"] += int(foreign.sum())
        counts["own"] += int((~foreign).sum())
        counts["caught"] += int((out[name] & foreign).sum())
        counts["lost"] += int((out[name] & ~foreign).sum())
        rows = kept[name]
        found = purity.purity_of(
            unit[rows], usual, length[rows], rivals[str(name)], 0, int(out[name].sum())
        )
        verdicts.append((found.verdict, int((people.person[rows] != name).sum())))
    return verdicts, counts


def row_of(people: People, sets: dict[int, np.ndarray], kind: str, share: float) -> dict:
    """One line of the table."""
    verdicts, counts = judged(people, sets, SPREADS)
    left = [verdict for verdict, strangers in verdicts if strangers]
    row = {"planted": kind, "share": f"{share:.0%}" if share else ""}
    row["strangers"] = counts["strangers"]
    row["caught by gates"] = counts["caught"] / max(counts["strangers"], 1) if share else None
    row["own lost"] = counts["lost"] / counts["own"]
    row["sets still mixed"] = len(left) if share else None
    row["look"], row["doubtful"] = (left.count(what) if share else None for what in verdict_names())
    free, _ = judged(people, sets, 0.0)
    told = [verdict for verdict, strangers in free if strangers or not share]
    row["no gates: sets"] = len(told)
    row["look "], row["doubtful "] = (told.count(what) for what in verdict_names())
    if not share:
        told = [verdict for verdict, _ in verdicts]
        row["look"], row["doubtful"] = (told.count(what) for what in verdict_names())
    return row


def verdict_names() -> tuple[str, str]:
    return purity.LOOK, purity.DOUBTFUL


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--embeddings", type=Path, default=SHARED / "data" / "embeddings" / "half.npz"
    )
    parser.add_argument("--choose", action="store_true")
    parser.add_argument("--least", type=int, default=5)
    options = parser.parse_args()
    people = read_people(options.embeddings)
    half = second_half(people.person) != options.choose
    sets = {
        int(people.person[rows[0]]): rows
        for rows in sf.groups_of(people.person)
        if people.person[rows[0]] >= 0 and len(rows) >= options.least and half[rows[0]]
    }
    print(f"{len(sets)} sets of {options.least} and more faces, {machine()}")
    rows = [row_of(people, sets, "nobody", 0.0)]
    kinds = ["random", "nearest", "one", "look-alike", "twin 30", "twin 50", "twin 60", "twin 70"]
    for kind in kinds:
        for share in SHARES:
            rows.append(row_of(planted(people, sets, kind, share), sets, kind, share))
    print_table("strangers planted, and found", rows)


if __name__ == "__main__":
    main()
