"""`export-swap --candidates`: good singletons that may belong to a face set, put up for review."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

import sort_faces as sf


def candidate_groups(
    export: sf.Export, drafts: Sequence[sf.Draft], raw: sf.RawManifest
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """{folder: (rows, centroid)} of good singletons: near a face set, or near each other.

    What a filter or the operator keeps out of sets is not put up for them either.
    """
    cache, params = export.cache, export.params
    sets = {
        draft.manifest.id: sf.rows_of_faces(cache, (face.face for face, _ in draft.faces))
        for draft in drafts
    }
    exported = {face.face for draft in drafts for face, _ in draft.faces}
    singles = sf.rows_of_faces(cache, (face for face in raw.singletons if face not in exported))
    word = export.word
    unwanted = word.no_face[singles] | (word.keep[singles] < 0)
    singles = singles[~unwanted & ~np.isin(word.person[singles], [*word.ignored])]
    good = singles[export.quality[singles] >= params.candidate_min_score]
    good = good[[not reason for reason, _ in export.faults(good)]]
    matched, rest = sf.join_centroids(cache, good, sets, params.candidate_match_threshold)
    for name, rows in matched.items():
        others = are_others(word, rows, sets[name])
        matched[name], rest = rows[~others], np.concatenate([rest, rows[others]])
    groups = {
        f"to_{name}": (rows, sf.centroid(cache.unit[sets[name]]))
        for name, rows in matched.items()
        if len(rows)
    }
    labels = sf.average_linkage(cache.unit[rest], params.candidate_match_threshold)
    new = [rest[group] for group in sf.groups_of(labels) if len(group) > 1]
    for number, rows in enumerate(new, 1):
        groups[sf.numbered("new", number)] = rows, sf.centroid(cache.unit[rows])
    return groups


def are_others(word: sf.Word, rows: np.ndarray, own: np.ndarray) -> np.ndarray:
    """(k,) bool: rows of which the operator said that they are somebody else than rows `own`."""
    his, people = word.owner[own], word.person[own]
    own = np.union1d(own, np.flatnonzero(np.isin(word.person, people[people >= 0])))
    pairs = np.concatenate([word.apart, word.apart[:, ::-1]])
    apart = pairs[np.isin(pairs[:, 1], own), 0]
    people = word.person[apart]
    named = (his >= 0).any() & (word.owner[rows] >= 0) & ~np.isin(word.owner[rows], his)
    return np.isin(rows, apart) | np.isin(word.person[rows], people[people >= 0]) | named


def stage_candidates(
    run: sf.Run,
    export: sf.Export,
    groups: dict[str, tuple[np.ndarray, np.ndarray]],
    crops: dict[int, sf.Crop],
) -> dict[str, int]:
    """Build _candidates/ where it changes; returns the counts."""
    faces, dropped, pngs = [], [], {}
    for folder, (rows, centre) in groups.items():
        for row in rows.tolist():
            crop = crops[row]
            if crop.reason:
                dropped.append(sf.left_out(export, row, crop.reason))
                continue
            away = 1.0 - float(export.cache.unit[row] @ centre)
            face = sf.face_fields(sf.face_entry(export, crop, away, "candidate"))
            name = f"{folder}/{face['quality']:.2f}_{face['face'].replace(':', '-')}.png"
            faces.append(sf.Candidate(**{**face, "file": name}))
            pngs[name] = crop.png
    counts = {"candidates": len(faces), "candidate_groups": len(groups)}
    here = export.out / "_candidates"
    old = sf.read_if_sound(here / "manifest.json", sf.CandidatesManifest)
    if old is not None and (old.faces, old.dropped) == (faces, dropped):
        return counts
    stage = run.place("_candidates")
    for name, png in pngs.items():
        sf.clone_or_copy(png, stage / name)
    manifest = sf.CandidatesManifest(
        **export.head,
        params=sf.as_json(asdict(export.params)),
        files=["manifest.json", *pngs],
        faces=faces,
        dropped=dropped,
    )
    sf.write_file(stage / "manifest.json", manifest)
    if here.is_dir():
        sf.carry_over(here, stage)
    return counts
