"""What many threads ask of one model, in calls of few shapes.

A companion of sort_faces.py. On a GPU each new shape of the input costs a search for the fastest
kernels, up to seconds (an H100 with cuDNN: 2 s a call, the same shape again 2 ms), and a call costs
nearly the same for one face as for eight. So the faces of several photos share a call, which has
one of few sizes.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import sort_faces as sf


class Asked:
    """Things that one thread asks about, and what came of them so far."""

    def __init__(self, things: Sequence[Any]) -> None:
        self.things, self.answers = things, []  # in the order of the things
        self.taken = 0  # how many of them are being computed, or were
        self.error: BaseException | None = None

    @property
    def done(self) -> bool:
        return self.error is not None or len(self.answers) == len(self.things)


class Shared:
    """A function of lists that threads call together.

    While a call is computed, what other threads ask gathers; one of them then computes up to `most`
    of it, oldest first. So nothing waits for a list to fill up, and the busier the function is, the
    fuller are its calls. compute: k things -> k answers; its error is raised in every thread that
    asked for one of them.
    """

    def __init__(self, compute: Callable[[list[Any]], Sequence[Any]], most: int) -> None:
        self.compute, self.most = compute, most
        self.waiting: deque[Asked] = deque()  # not all of what they ask is being computed
        self.changed, self.busy = threading.Condition(), False

    def __call__(self, things: Sequence[Any]) -> list[Any]:
        """The answers to `things`, in their order."""
        asked = Asked(things)
        with self.changed:
            self.waiting.append(asked)
            while not asked.done:
                if self.busy:
                    self.changed.wait()
                    continue
                self.busy, some = True, self.take()
                self.changed.release()
                try:
                    answers, error = self.computed(some)
                finally:
                    self.changed.acquire()
                    self.busy = False
                    self.changed.notify_all()
                self.hand_out(some, answers, error)
        if asked.error is not None:
            raise asked.error
        return asked.answers

    def take(self) -> list[tuple[Asked, list[Any]]]:
        """What the next call computes: up to `most` of the things that wait."""
        some, room = [], self.most
        while self.waiting and room:
            asked = self.waiting[0]
            things = list(asked.things[asked.taken : asked.taken + room])
            asked.taken += len(things)
            room -= len(things)
            some.append((asked, things))
            if asked.taken == len(asked.things):
                self.waiting.popleft()
        return some

    def computed(self, some: list[tuple[Asked, list[Any]]]) -> tuple[Sequence[Any], Any]:
        """(answers, None), or ((), error)."""
        try:
            return self.compute([thing for _, things in some for thing in things]), None
        except BaseException as error:
            return (), error

    def hand_out(self, some: list[tuple[Asked, list[Any]]], answers: Sequence, error: Any) -> None:
        at = 0
        for asked, things in some:
            asked.answers.extend(answers[at : at + len(things)])
            at += len(things)
            asked.error = asked.error or error
            if error is not None and asked in self.waiting:
                self.waiting.remove(asked)


class Rows:
    """A model over rows, in calls of the sizes given.

    compute: (b, ...) -> (b, ...). sizes: rising; the largest that is more than half full is taken,
    as a call of 64 costs about four of 8. padded: b is always one of the sizes, else any number up
    to the largest. shared: threads that ask at the same time share calls. A size that is too much
    for the device is given up for good.
    """

    def __init__(
        self,
        compute: Callable[[np.ndarray], np.ndarray],
        sizes: Sequence[int],
        padded: bool,
        shared: bool,
    ) -> None:
        self.compute, self.sizes, self.padded = compute, tuple(sizes), padded
        self.ask = Shared(self.steps, self.sizes[-1]) if shared else self.steps

    def __call__(self, rows: Sequence[np.ndarray] | np.ndarray) -> np.ndarray:
        """The model's answers to at least one row: (n, ...)."""
        return np.stack(list(self.ask(rows)))

    def steps(self, rows: Sequence[np.ndarray]) -> list[np.ndarray]:
        """The answers to rows, by as many calls as it takes."""
        rows, found = np.asarray(rows), []
        while len(found) < len(rows):
            left = len(rows) - len(found)
            size = max((size for size in self.sizes if left > size // 2), default=self.sizes[0])
            some = rows[len(found) : len(found) + size]
            try:
                found.extend(self.call(some, size))
            except sf.engine_errors() as error:
                if size == self.sizes[0]:
                    raise
                self.sizes = self.sizes[:-1]
                sf.note(f"calls of {self.sizes[-1]} from now on: {sf.one_line(error)}")
        return found

    def call(self, rows: np.ndarray, size: int) -> np.ndarray:
        """The answers to up to `size` rows, by one call."""
        if self.padded and len(rows) < size:
            filler = np.zeros((size - len(rows), *rows.shape[1:]), rows.dtype)
            return self.compute(np.concatenate([rows, filler]))[: len(rows)]
        return self.compute(np.ascontiguousarray(rows))
