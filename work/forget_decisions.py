"""How `forget` rids the operator's decisions of the forgotten, and what the review page has kept.

<cache>.decisions.jsonl only grows; this is the one rewrite of it. Lines that speak only of
forgotten faces go, and all that is said of the forgotten person; others lose those faces. A face is
found as decisions find it: by photo and box, whatever number it had then.

Contents
    Faces
    Lines
    Changes
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

decisions = sf.companion("decisions")
traces = sf.companion("forget_traces")
Change, Target, Words = traces.Change, traces.Target, traces.Words

# ============================================================================
# Faces
# ============================================================================


class Gone:
    """Tells refs of faces that go from refs of those that stay."""

    def __init__(self, target: Target, kept: sf.FaceCache) -> None:
        """kept: the cache without what goes."""
        self.faces = target.face_set
        self.photos = {sha[:16] for sha in target.photos}
        self.going = {sha[:16]: np.array(boxes, float) for sha, boxes in target.boxes.items()}
        self.rows: dict[str, list[int]] = defaultdict(list)
        self.kept = kept
        for row, face in enumerate(kept.face_ids):
            if face[:16] in self.going:
                self.rows[face[:16]].append(row)

    def ref_after(self, ref: str) -> str:
        """A ref as it may stay, "" where its face goes; the number of a forgotten face goes."""
        face, _, corners = ref.partition("@")
        photo, known = face[:16], face in self.faces
        if photo in self.photos:
            return ""
        if photo not in self.going or not corners:
            return "" if known else ref
        box = np.array(corners.split(","), float)
        rows = self.rows[photo]
        overlap = sf.box_iou(box, self.kept.bbox[rows].astype(float)) if rows else np.zeros(1)
        if max(decisions.SAME_FACE_IOU, overlap.max()) <= sf.box_iou(box, self.going[photo]).max():
            return ""
        if not known:
            return ref
        stays = rows and overlap.max() >= decisions.SAME_FACE_IOU
        return f"{self.kept.face_ids[rows[overlap.argmax()]]}@{corners}" if stays else ""


class Spoken:
    """What the operator has decided about who is forgotten."""

    def __init__(self, path: Path, cache: sf.FaceCache) -> None:
        self.cache, self.lines = cache, decisions.Book(path).lines
        self.word = decisions.resolve(cache, self.lines).word

    def named(self, asked: str, listed: set[str]) -> set[str]:
        """The faces of who is called so, or of whom most are among the listed."""
        found = set()
        for person in np.unique(self.word.person[self.word.person >= 0]).tolist():
            faces = self.ids(np.flatnonzero(self.word.person == person))
            if self.word.names.get(person) == asked or 2 * len(faces & listed) > len(faces):
                found |= faces
        return found

    def denied(self, listed: set[str]) -> set[str]:
        """The faces of other people than these."""
        rows, pairs = sf.rows_of_faces(self.cache, listed), self.word.apart
        return self.ids(np.setdiff1d(pairs[np.isin(pairs, rows).any(axis=1)], rows))

    def names(self, faces: set[str]) -> set[str]:
        """The names of who has most of these faces; not those that others have, too."""
        finder, names = decisions.Finder(self.cache), {True: set(), False: set()}
        for line in decisions.standing(self.lines):
            if line.kind in ("name", "maybe") and line.text:
                shown = self.ids(finder.rows(line.faces))
                names[2 * len(shown & faces) > len(shown)].add(line.text)
        return names[True] - names[False]

    def ids(self, rows: Iterable[int]) -> set[str]:
        return {*sf.face_names(self.cache, rows)}


# ============================================================================
# Lines
# ============================================================================

SIDES = ("faces", "others")
OF_EACH = ("belongs", "not_belongs", "together", "not_face", "best", "keep", "drop", "date", "box")
# kinds whose `faces` are each spoken of; of all others they stand for a person, as `others` do


def line_after(value: dict[str, Any], gone: Gone, words: Words) -> dict[str, Any] | None:
    """A decision without the faces that go, None where nothing is left to be said."""
    fresh = dict(value)
    for side in SIDES:
        refs = [ref for ref in value.get(side) or () if isinstance(ref, str)]
        kept = [ref for ref in map(gone.ref_after, refs) if ref]
        of_person = side == "others" or value.get("kind") not in OF_EACH
        its_own = of_person and words.target.is_person and 2 * len(kept) < len(refs)
        if refs and (its_own or not kept):
            return None
        fresh |= {side: kept} if kept != refs else {}
    rest = {key: part for key, part in value.items() if key not in SIDES}
    return None if words.mention(rest) else fresh


def lines_after(lines: Sequence[bytes], gone: Gone, words: Words) -> list[bytes]:
    """The lines of the file that stay, each as it was where nothing of it goes.

    A revocation goes with the whole of the act it takes back.
    """
    pairs = []
    for line in lines:
        value = sf.object_of(line)
        if not line.endswith(b"\n"):  # of a kill; the next append would cut it off
            continue
        if value is None:  # damaged
            pairs += [] if words.kinds(traces.text_of(line)) else [({}, line)]
        elif (fresh := line_after(value, gone, words)) is not None:
            pairs.append((fresh, line if fresh == value else sf.checked_line(fresh)))
    known = {value.get("op") for value in map(sf.object_of, lines) if value}
    while True:
        acts = {value.get("op") for value, _ in pairs}
        stay = [(value, line) for value, line in pairs if not lost_act(value, known - acts)]
        if len(stay) == len(pairs):
            return [line for _, line in pairs]
        pairs = stay


def lost_act(value: dict[str, Any], lost: set[Any]) -> bool:
    """Whether a line takes back an act that is no longer there."""
    return value.get("kind") == "revoke" and value.get("text") in lost


# ============================================================================
# Changes
# ============================================================================

THUMBS, GROUPS, REVIEW_LOCK = ".thumbs", ".review.npz", ".review.lock"


def decision_changes(cache_path: Path, gone: Gone, words: Words) -> Iterator[Change]:
    """What goes of the decisions, and the pictures and groups that a review page has kept."""
    path = sf.decisions_path(cache_path)
    before = read_lines(path)
    after = lines_after(before, gone, words)
    if after != before:
        lost, changed = len(before) - len(after), len(set(after) - set(before))

        def write(target: Path) -> None:
            with decisions.held(path):  # others may have said something since
                sf.write_bytes(target, b"".join(lines_after(read_lines(path), gone, words)))
                target.chmod(0o600)

        yield Change(path.name, f"{lost} of its lines go, {changed} lose faces", write)
    for suffix, why in ((THUMBS, "pictures of faces"), (GROUPS, "groups as they were")):
        kept = sf.beside(cache_path, suffix)  # as the review finds it, also through a link
        if kept.exists():
            yield Change(kept.name, f"{why}; a review makes them anew")


def read_lines(path: Path) -> list[bytes]:
    """The lines of a file, none where there is no file."""
    try:
        return path.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return []


def tells(path: Path, gone: Gone, words: Words) -> bool:
    """Whether a file of decisions still speaks of what is gone."""
    lines = read_lines(path)
    return lines_after(lines, gone, words) != lines
