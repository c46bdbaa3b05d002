"""Splitting a person's faces by age: fragments, anchors, and the moves that make eras of them.

The reference's anchor-fragment rule; docs/corpus.md says what an era is and how it grows.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

import sort_faces as sf


@dataclass(frozen=True)
class Anchor:
    """What an era is recognised by; fixed when the era is made."""

    vector: np.ndarray  # (d,) float32 of length 1
    year: float


def era_fragments(unit: np.ndarray, years: np.ndarray, params: sf.EraParams) -> list[np.ndarray]:
    """Parts of one identity that look alike and lie close in time, largest first.

    unit: (n, d) float32 of length 1; years: (n,) float, NaN unknown. Average linkage at
    params.fragment, then each cluster is cut where its years would span more than params.years;
    undated faces stay with the nearest dated part of their cluster.
    """
    parts = []
    for rows in sf.groups_of(sf.average_linkage(unit, params.fragment)):
        dated = rows[np.isfinite(years[rows])]
        dated = dated[np.argsort(years[dated], kind="stable")]
        cuts, start = [], 0
        for at in range(1, len(dated)):
            if years[dated[at]] - years[dated[start]] > params.years:
                cuts.append(at)
                start = at
        pieces = [piece for piece in np.split(dated, cuts) if len(piece)] or [rows[:0]]
        undated = rows[~np.isfinite(years[rows])]
        if len(dated):
            index, _ = sf.nearest(unit[undated], np.stack([sf.centroid(unit[p]) for p in pieces]))
            pieces = [np.append(p, undated[index == at]) for at, p in enumerate(pieces)]
        else:
            pieces = [undated]
        parts += pieces
    return sorted(parts, key=lambda rows: (-len(rows), rows.min()))


def anchor_of(unit: np.ndarray, years: np.ndarray) -> Anchor:
    """Centroid and median year of a fragment's faces; NaN if none is dated."""
    dated = years[np.isfinite(years)]
    return Anchor(sf.centroid(unit), float(np.median(dated)) if len(dated) else math.nan)


def nearest_era(
    vector: np.ndarray, year: float, anchors: Sequence[Anchor], params: sf.EraParams
) -> int:
    """Index of the nearest anchor within params.distance and params.years; -1 if there is none.

    Without a year the nearest anchor is taken, however far.
    """
    distance = np.array([1.0 - float(vector @ anchor.vector) for anchor in anchors])
    if math.isfinite(year):
        gap = np.abs(np.array([anchor.year for anchor in anchors]) - year)
        near = (distance <= params.distance + sf.DUPLICATE_SLACK) & (gap <= params.years)
        distance = np.where(near, distance, np.inf)
    if not len(distance) or not np.isfinite(distance.min()):
        return -1
    return int(distance.argmin())


def split_eras(
    unit: np.ndarray, years: np.ndarray, params: sf.EraParams
) -> list[tuple[Anchor, np.ndarray]]:
    """Eras of one identity, by year: (anchor, rows).

    The largest fragments become anchors; a smaller one joins the nearest anchor it agrees with in
    looks and in time, else it starts an era of its own. An anchor is never moved by who joins.
    Faces (n,) without any year in the whole identity give no era.
    """
    eras: list[tuple[Anchor, list[np.ndarray]]] = []
    undated = []
    for rows in era_fragments(unit, years, params):
        anchor = anchor_of(unit[rows], years[rows])
        if not math.isfinite(anchor.year):
            undated.append((anchor, rows))
            continue
        at = nearest_era(anchor.vector, anchor.year, [era for era, _ in eras], params)
        if at < 0:
            eras.append((anchor, [rows]))
        else:
            eras[at][1].append(rows)
    for anchor, rows in undated if eras else []:
        eras[nearest_era(anchor.vector, math.nan, [era for era, _ in eras], params)][1].append(rows)
    eras.sort(key=lambda era: era[0].year)
    return [(anchor, np.sort(np.concatenate(rows))) for anchor, rows in eras]


def year_range(years: np.ndarray) -> str:
    """`2004-2009`, or `2004`, of the faces that are dated."""
    first, last = int(np.nanmin(years)), int(np.nanmax(years))
    return f"{first}-{last}" if last > first else str(first)


def is_so_split(era: sf.Era, params: sf.EraParams) -> bool:
    """Whether an era was made with these settings."""
    made = (era.distance, era.max_years, era.min_faces)
    return made == (params.distance, params.years, params.min_faces)


def split_decision(faceset: sf.FaceSet, unit: np.ndarray, params: sf.EraParams) -> sf.Decision:
    """The eras of a face set, as copies beside it; thin ones straight into _thin."""
    years = np.array([face.year for face in faceset.faces])
    if not np.isfinite(years).any():
        raise sf.SortFacesError(
            f"{faceset.id}: none of its faces has a capture time; nothing to go by"
        )
    moves, sets, names = [], {}, Counter()
    for anchor, rows in split_eras(unit, years, params):
        span = year_range(years[rows])
        names[span] += 1
        span += f"_{names[span]}" if names[span] > 1 else ""
        shelf = "" if len(rows) >= params.min_faces else "_thin/"
        folder = f"{shelf}{faceset.id}_{span}"
        era = sf.Era(
            of=faceset.id,
            years=year_range(years[rows]),
            anchor_year=anchor.year,
            anchor=sf.pack_floats(anchor.vector),
            distance=params.distance,
            max_years=params.years,
            min_faces=params.min_faces,
        )
        sets[folder] = sf.NewSet(
            like=faceset.folder,
            name=sf.UNNAMED if faceset.name == sf.UNNAMED else f"{faceset.name} {span}",
            reason=f"an era of {len(rows)} faces" if shelf else "",
            era=era,
        )
        moves += [era_copy(faceset, faceset.faces[row], folder, unit[row], anchor) for row in rows]
    sizes = Counter(move.aim for move in moves)
    table = [{"era": folder, "faces": faces} for folder, faces in sizes.items()]
    return sf.Decision(moves, sets=sets, notes={"eras": table})


def era_copy(
    faceset: sf.FaceSet, face: sf.Face, folder: str, vector: np.ndarray, anchor: Anchor
) -> sf.Move:
    """The move that puts a face into an era, with the two numbers that decided."""
    numbers = {"distance": round(1.0 - float(vector @ anchor.vector), 4)}
    dated = math.isfinite(face.year)
    numbers |= {"years": round(abs(face.year - anchor.year), 1)} if dated else {}
    reason = "of this era" if dated else "undated, looks most like this era"
    return sf.copy_into(folder, faceset, face, reason, numbers)


def extend_era_moves(
    corpus: sf.Corpus, faceset: sf.FaceSet, unit: np.ndarray
) -> tuple[list[sf.Move], dict[str, Any]]:
    """New faces of a set go to the era whose anchor they agree with; anchors stay as they are.

    unit: (n, d) of its faces. Returns the moves and notes for the report.
    """
    eras = [era for era in corpus.eras_of(faceset) if era.shelf != "_merged"]
    if not eras:
        raise sf.SortFacesError(f"{faceset.id}: has no eras yet; run era split first")
    about = [era.manifest.era for era in eras]
    try:
        anchors = [
            Anchor(sf.unpack_floats(era.anchor, (unit.shape[1],)), float(era.anchor_year))
            for era in about
        ]
    except (TypeError, ValueError) as error:
        raise sf.SortFacesError(
            f"{faceset.id}: the anchor of an era is damaged ({sf.one_line(error)}); "
            "restore and split anew"
        ) from None
    rule = sf.EraParams(about[0].distance, about[0].max_years)
    placed = {
        key
        for era in eras
        for face in (*era.manifest.faces, *era.manifest.dropped)
        for key in (face.sha256, face.face)
    }
    moves, homeless = [], 0
    for row, face in enumerate(faceset.faces):
        if face.sha256 in placed or face.face in placed:
            continue
        at = nearest_era(unit[row], face.year, anchors, rule)
        if at < 0:
            homeless += 1
        else:
            moves.append(era_copy(faceset, face, eras[at].folder, unit[row], anchors[at]))
    grown = Counter(move.aim for move in moves)
    sizes = {era.folder: len(era.faces) + grown[era.folder] for era in eras}
    back = [
        f"{era.folder}: {sizes[era.folder]} faces"
        for era in eras
        if era.shelf == "_thin" and sizes[era.folder] >= (era.manifest.era.min_faces or math.inf)
    ]
    return moves, {"of_no_era": homeless, "thin_no_more": back}
