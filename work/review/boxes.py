"""Boxes the operator draws on a photo in the review page: each becomes a face of the cache.

A companion of sort_faces.py. drawn_faces.py looks into the box; here stands what is decided with
it, and that one box after another is looked at, in a thread: the models load with the first one.
"""

from __future__ import annotations

import concurrent.futures
import threading
from typing import Any

import numpy as np

import sort_faces as sf

guard = sf.companion("review/guard")
acts = sf.companion("review/acts")
Refused = guard.Refused


class Boxes:
    """What was drawn and is not a face yet. desk: see desk.py."""

    def __init__(self, desk: Any) -> None:
        self.desk = desk
        self.lock = threading.Lock()
        self.thread = concurrent.futures.ThreadPoolExecutor(1, "boxes")
        self.at_work: set[str] = set()  # acts that are not done yet
        self.crew: sf.Crew | None = None

    def close(self) -> None:
        self.thread.shutdown(cancel_futures=True)

    def start(self, asked: Any) -> str:
        """Begin with a box; an event tells what came of it. asked: app.Box."""
        with self.lock:
            if asked.op not in self.at_work:
                self.at_work.add(asked.op)
                self.thread.submit(self.make, asked)
        return asked.op

    def make(self, asked: Any) -> None:
        """Make the face and tell every page, whatever comes."""
        face, error = "", "bug"
        try:
            face, error = self.face_of(asked), ""
        except (Refused, sf.SortFacesError, OSError) as refused:
            error = sf.one_line(refused)
        except Exception as bug:
            sf.log.error("review: a box cannot be looked at: %s", type(bug).__name__)
        finally:
            with self.lock:
                self.at_work.discard(asked.op)
            self.desk.events.tell("box", job=asked.op, face=face, error=error)

    def face_of(self, asked: Any) -> str:
        """The id of the face a box has become. Raises SortFacesError where it becomes none."""
        known = [line for line in self.desk.book.lines if line.op == asked.op]
        if known:
            return known[0].text
        drawn = sf.companion("drawn_faces")
        if self.crew is None:
            crew = sf.Crew(sf.EngineSpec(model=""), sf.WorkOptions(threads=1))
            self.crew = drawn.looking_crew(self.desk.cache, crew)
        box = drawn.Box(asked.photo, tuple(float(round(value)) for value in asked.box))
        [found] = drawn.add_drawn(self.desk.path, self.crew, [box])
        if found.error:
            raise sf.SortFacesError(found.error)
        if not found.new:
            raise sf.SortFacesError(f"is there already: {found.face}")
        self.desk.open()
        self.desk.take_box(asked, box, found.face)
        return found.face


def lines_of(model: Any, asked: Any, box: Any, face: str) -> list[Any]:
    """The decisions of a box: it is a face; the one it replaces is none, and it is whose that was.

    box: drawn_faces.Box.
    """
    draft = acts.Draft(model, asked.op, asked.tab)
    corners = ",".join(str(round(value)) for value in box.corners)
    draft.add("box", [f"{box.photo}@{corners}"], text=face)
    if asked.replaces and asked.replaces in model.cache.row_of_face:
        old, new = (draft.rows([one]) for one in (asked.replaces, face))
        label = int(model.view.labels[old[0]])
        rest = np.setdiff1d(model.members(label), [*old, *new]) if label >= 0 else old[:0]
        draft.add("not_face", old, sides=(1, 0))
        if len(rest):
            sides = (1, len(rest))
            draft.add("belongs", new, others=draft.anchors(rest), sides=sides)
    return draft.lines
