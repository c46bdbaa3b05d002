"""Keeps from the terminal what libraries in C write there, and lets our own lines through.

A companion of sort_faces.py, loaded where models are and where photos are decoded. onnxruntime
writes to descriptor 2 whatever sys.stderr is in Python, and prints to stdout where a provider
fails; that goes to the log. Decoders (libjpeg, libpng, libtiff, LibRaw) write there what they think
of a photo, without its name; `heard` tells which photo it was.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import sort_faces as sf

COLOURS = re.compile(r"\x1b\[[\d;]*m")
PREFIX = re.compile(r"^\[ ?(WARN|ERROR|INFO):\d+@[\d.]+\] (global )?")  # of OpenCV's own lines

Take = Callable[[str], None]
T = TypeVar("T")


class Turns:
    """Many may work at once, or one alone."""

    def __init__(self) -> None:
        self.changed, self.working, self.sole = threading.Condition(), 0, False

    @contextlib.contextmanager
    def among_others(self) -> Iterator[None]:
        """Work while others do; waits while somebody is or wants to be alone."""
        with self.changed:
            while self.sole:
                self.changed.wait()
            self.working += 1
        try:
            yield
        finally:
            with self.changed:
                self.working -= 1
                self.changed.notify_all()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Work while nobody else does. Not for those who are among others already."""
        with self.changed:
            while self.sole:
                self.changed.wait()
            self.sole = True
            while self.working:
                self.changed.wait()
        try:
            yield
        finally:
            with self.changed:
                self.sole = False
                self.changed.notify_all()


class Shared:
    """A context that many hold at once: the first to come begins it, the last to leave ends it."""

    def __init__(self, begin: Callable[[Take], contextlib.ExitStack]) -> None:
        self.begin, self.lock, self.holders = begin, threading.Lock(), 0
        self.stack = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self, take: Take) -> Iterator[None]:
        with self.lock:
            if not self.holders:
                self.stack = self.begin(take)
            self.holders += 1
        try:
            yield
        finally:
            with self.lock:
                self.holders -= 1
                if not self.holders:
                    self.stack.close()


class Hush:
    """Takes what is written to descriptor 2 while at least one caller holds it.

    The files it needs are opened once and kept, and the stream our own lines go through meanwhile
    is never closed: another thread may be about to write to it.
    """

    def __init__(self) -> None:
        self.descriptor, self.stdout = Shared(self.catch), Shared(self.catch_stdout)
        self.turns = Turns()
        self.terminal = -1  # descriptor of what 2 was
        self.said: Any = None  # the file in its place
        self.ours: Any = None  # the stream to the terminal
        self.attributed: set[str] = set()

    @contextlib.contextmanager
    def __call__(self, take: Take = sf.note) -> Iterator[None]:
        """Lines libraries write go to a function, by default to the log; ours reach the terminal.

        Of several callers at once the last to leave hands over what was said.
        """
        with self.stdout(take), self.descriptor(take):
            yield

    def heard(self, work: Callable[[], T]) -> tuple[T, list[str]]:
        """What a function returns, and the lines that libraries wrote about it to descriptor 2.

        Several threads may be at it. Where anything was written meanwhile the function is called
        once more while nobody else is, so the lines are its own. What it raises is passed on.
        """
        with self.descriptor(sf.note):
            with self.turns.among_others():
                before = self.length()
                result = work()
                if self.length() == before:
                    return result, []
            with self.turns.alone():
                before = self.length()
                result = work()
                lines = self.since(before)
        self.attributed.update(lines)
        return result, lines

    def length(self) -> int:
        return os.fstat(self.said.fileno()).st_size if self.said is not None else 0

    def since(self, start: int) -> list[str]:
        """The lines said from an offset on, each once."""
        if self.said is None:
            return []
        self.said.seek(start)
        lines: list[str] = []
        sf.Lines(lines.append).write(plain(self.said.read()))
        self.said.seek(0, os.SEEK_END)
        return list(dict.fromkeys(lines))

    def catch_stdout(self, take: Take) -> contextlib.ExitStack:
        with contextlib.ExitStack() as stack:
            stack.enter_context(contextlib.redirect_stdout(sf.Lines(take)))
            return stack.pop_all()

    def catch(self, take: Take) -> contextlib.ExitStack:
        """Put a file in the place of descriptor 2, and sys.stderr on what was there.

        Where that cannot be, as the disk is full or descriptor 2 is closed, stderr is as it was.
        """
        if sys.stderr is None:  # what is 2 then is somebody's file
            return contextlib.ExitStack()
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            self.open_once()
            sys.stderr.flush()
            os.dup2(2, self.terminal, inheritable=False)
            self.said.seek(0)
            self.said.truncate()
            stack.callback(self.hand_over, take)
            os.dup2(self.said.fileno(), 2)
            stack.callback(os.dup2, self.terminal, 2)
            if is_descriptor_2(sys.stderr):
                stack.enter_context(contextlib.redirect_stderr(self.ours))
            return stack.pop_all()
        return contextlib.ExitStack()

    def open_once(self) -> None:
        if self.said is None:
            self.terminal = os.dup(2)
            about = {"encoding": sys.stderr.encoding or "utf-8", "errors": "backslashreplace"}
            self.ours = open(self.terminal, "w", 1, closefd=False, **about)  # noqa: SIM115
            self.said = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115

    def hand_over(self, take: Take) -> None:
        """Give a function what was said but for what is known to be of a photo."""
        for line in self.since(0):
            if line not in self.attributed:
                take(line)
        self.attributed.clear()


def plain(said: bytes) -> str:
    """What was said as text, without colours and what OpenCV puts before a line."""
    lines = COLOURS.sub("", said.decode(errors="replace")).splitlines()
    return "\n".join(PREFIX.sub("", line) for line in lines)


def hand_over(said: Any, take: Take) -> None:
    """Give the lines of a file of bytes to a function, without their colours."""
    said.seek(0)
    sf.Lines(take).write(plain(said.read()))


def is_descriptor_2(stream: Any) -> bool:
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, io.UnsupportedOperation):
        return False


hushed = Hush()
