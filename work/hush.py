"""Keeps from the terminal what libraries in C write there, and lets our own lines through.

A companion of sort_faces.py, loaded where models are. onnxruntime writes to descriptor 2 whatever
sys.stderr is in Python, and prints to stdout where a provider fails; that goes to the log.
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
from typing import Any

import sort_faces as sf

COLOURS = re.compile(r"\x1b\[[\d;]*m")


class Hush:
    """Takes what is written to descriptor 2 while at least one caller holds it."""

    def __init__(self) -> None:
        self.lock, self.holders = threading.Lock(), 0
        self.stack = contextlib.ExitStack()

    @contextlib.contextmanager
    def __call__(self, take: Callable[[str], None] = sf.note) -> Iterator[None]:
        """Lines libraries write go to a function, by default to the log; ours reach the terminal.

        Of several callers at once the last to leave hands over what was said.
        """
        with self.lock:
            if not self.holders:
                self.begin(take)
            self.holders += 1
        try:
            yield
        finally:
            with self.lock:
                self.holders -= 1
                if not self.holders:
                    self.stack.close()

    def begin(self, take: Callable[[str], None]) -> None:
        """Put a file in the place of descriptor 2, and sys.stderr on what was there.

        Where that cannot be, as the disk is full or descriptor 2 is closed, stderr is as it was.
        """
        self.stack.enter_context(contextlib.redirect_stdout(sf.Lines(take)))
        if sys.stderr is None:  # what is 2 then is somebody's file
            return
        with contextlib.suppress(OSError), contextlib.ExitStack() as stack:
            terminal = os.dup(2)
            stack.callback(os.close, terminal)
            said = stack.enter_context(tempfile.TemporaryFile())
            stack.callback(hand_over, said, take)
            sys.stderr.flush()
            os.dup2(said.fileno(), 2)
            stack.callback(os.dup2, terminal, 2)
            if is_descriptor_2(sys.stderr):
                about = {"encoding": sys.stderr.encoding, "errors": "backslashreplace"}
                ours = stack.enter_context(open(terminal, "w", 1, closefd=False, **about))
                stack.enter_context(contextlib.redirect_stderr(ours))
            self.stack.push(stack.pop_all())


def hand_over(said: Any, take: Callable[[str], None]) -> None:
    """Give the lines of a file of bytes to a function, without their colours."""
    said.seek(0)
    sf.Lines(take).write(COLOURS.sub("", said.read().decode(errors="replace")))


def is_descriptor_2(stream: Any) -> bool:
    try:
        return stream.fileno() == 2
    except (AttributeError, OSError, io.UnsupportedOperation):
        return False


hushed = Hush()
