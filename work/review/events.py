"""What the review server tells its open pages by itself: server-sent events.

A companion of sort_faces.py. A page that was away sees by the number of the first event that it
missed some, and asks for the state anew; so nothing is kept for it here.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec

HEARTBEAT = 15.0  # seconds without an event until a comment shows that the line lives
MOST_UNREAD = 256  # events a page may leave unread; then it is let go and comes again


class Events:
    """The pages that listen, and what they are told."""

    def __init__(self) -> None:
        self.number = 0  # of the last event
        self.loop: asyncio.AbstractEventLoop | None = None  # of the server, once it runs
        self.listeners: set[asyncio.Queue[bytes | None]] = set()
        self.closed = False

    def tell(self, kind: str, **facts: Any) -> None:
        """Tell every page; from any thread."""
        if self.loop is not None:
            with contextlib.suppress(RuntimeError):  # the server has ended
                self.loop.call_soon_threadsafe(self.spread, kind, facts)

    def spread(self, kind: str, facts: dict[str, Any]) -> None:
        """Put an event before every page; one that does not read is let go."""
        self.number += 1
        line = event_text(self.number, kind, facts)
        for queue in list(self.listeners):
            if queue.qsize() < MOST_UNREAD:
                queue.put_nowait(line)
            else:
                self.listeners.discard(queue)
                queue.put_nowait(None)

    def close(self) -> None:
        """Say good-bye to every page; in the thread of the server."""
        self.closed = True
        self.spread("bye", {})
        for queue in self.listeners:
            queue.put_nowait(None)

    async def listen(self, **first: Any) -> AsyncIterator[bytes]:
        """The events from now on, as text; the first says how things stand."""
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        self.listeners.add(queue)
        try:
            yield event_text(self.number, "hello", first)
            while not self.closed or not queue.empty():
                try:
                    line = await asyncio.wait_for(queue.get(), HEARTBEAT)
                except asyncio.TimeoutError:
                    line = b":\n\n"
                if line is None:
                    return
                yield line
        finally:
            self.listeners.discard(queue)


def event_text(number: int, kind: str, facts: dict[str, Any]) -> bytes:
    """One event as it goes over the line; JSON has no line breaks of its own."""
    return b"id: %d\nevent: %s\ndata: %s\n\n" % (number, kind.encode(), msgspec.json.encode(facts))
