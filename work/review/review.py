"""Let the operator set it right in the browser: what `review` does.

A companion of sort_faces.py. One server a cache, on the loopback address unless told otherwise. It
comes back on the same port with the same token, so that pages left open and answers they have not
sent yet find it again.

Contents
    What is reviewed
    Lock, port and token
    Serving
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sort_faces as sf

MOST_CONNECTIONS = 32
KEEP_ALIVE = 30  # seconds an idle line stays open
LEAVE_WITHIN = 3  # seconds that answers in the making have when the server ends
LOOPBACK = ("127.0.0.1", "::1")


class Kept(sf.OwnFile, tag="review", kw_only=True):
    """<cache>.review.json: where the review page of a cache is found again."""

    port: int
    token: str


@dataclass(frozen=True)
class Target:
    """A cache, and the outputs that were made of it."""

    cache: Path
    trees: dict[str, Path] = field(default_factory=dict)  # by kind: raw, refined, swap


def cmd_review(args: argparse.Namespace) -> sf.Outcome:
    """Serve the review page of a cache until it is interrupted."""
    target = find_target(args.path)
    with contextlib.ExitStack() as held:
        take_lock(held, target.cache)
        sockets, kept = open_line(held, target.cache, args.port, args.listen)
        address = f"http://{shown(args.listen or LOOPBACK[0])}:{kept.port}/"
        decided = serve(target, sockets, kept, address, args)
    return sf.Outcome({"cache": str(target.cache), "page": address, "decisions": decided})


# ============================================================================
# What is reviewed
# ============================================================================


def find_target(path: Path) -> Target:
    """What a cache or an output folder stands for. Raises SortFacesError."""
    if not path.is_dir():
        if not sf.cache_exists(path):
            command = sf.own_command("embed", "PHOTOS", path)
            raise sf.SortFacesError(f"{path}: no cache yet; make it: {command}")
        return Target(path, trees_of(path, [path.parent]))
    manifests = dict(manifests_in([path, path.parent]))
    named = {Path(manifest.cache) for _, manifest in manifests.values() if manifest.cache}
    caches = [cache for cache in named if sf.cache_exists(cache)] or sorted(path.glob("*.npz"))
    if not caches:
        raise sf.SortFacesError(f"{path}: neither a cache nor an output of one; name one")
    if len(caches) > 1:
        names = ", ".join(str(cache) for cache in sorted(caches))
        raise sf.SortFacesError(f"{path}: more than one cache belongs to it; name one of {names}")
    return Target(caches[0], trees_of(caches[0], [path, path.parent]))


def manifests_in(places: Sequence[Path]) -> Iterator[tuple[str, tuple[Path, Any]]]:
    """(kind, (folder, manifest)) of outputs; of one kind those of the first place come last."""
    for place in reversed(places):
        for kind, name in sf.RUN_TREES.items():
            for folder in (place / name, place):
                manifest = sf.read_if_sound(folder / kind.FILE, kind)
                if manifest is not None:
                    yield sf.tag_of(kind), (folder, manifest)


def trees_of(cache: Path, places: Sequence[Path]) -> dict[str, Path]:
    """{kind: folder} of the outputs that name this cache."""
    own = os.path.realpath(cache)
    return {
        kind: folder
        for kind, (folder, manifest) in manifests_in(places)
        if os.path.realpath(manifest.cache) == own
    }


# ============================================================================
# Lock, port and token
# ============================================================================


def take_lock(held: contextlib.ExitStack, cache: Path) -> None:
    """One server a cache. Raises SortFacesError, which says who it is and where."""
    path = sf.beside(cache, ".review.lock")
    try:
        held.enter_context(sf.locked(path, str(cache)))
    except sf.SortFacesError as error:
        kept = sf.read_if_sound(sf.beside(cache, ".review.json"), Kept)
        where = f"; its page: http://{LOOPBACK[0]}:{kept.port}/" if kept else ""
        raise sf.SortFacesError(f"{error}{where}") from None


def open_line(
    held: contextlib.ExitStack, cache: Path, port: int | None, listen: str | None
) -> tuple[list[socket.socket], Kept]:
    """The sockets to serve on, and what is remembered of port and token.

    The page of another port cannot send what an open one still holds, so a port that is taken is
    not just replaced by another. Raises SortFacesError.
    """
    path = sf.beside(cache, ".review.json")
    kept = sf.read_if_sound(path, Kept)
    wanted = kept.port if port is None and kept else port or 0
    try:
        first = held.enter_context(bound(LOOPBACK[0], wanted))
    except OSError as error:
        raise sf.SortFacesError(
            f"port {wanted}: {error.strerror}; end what uses it, or name another with --port N"
        ) from None
    sockets, port = [first], first.getsockname()[1]
    with contextlib.suppress(OSError):  # a machine without IPv6, or the port is taken there
        sockets.append(held.enter_context(bound(LOOPBACK[1], port)))
    if listen and listen not in LOOPBACK:
        try:
            sockets.append(held.enter_context(bound(listen, port)))
        except OSError as error:
            raise sf.SortFacesError(f"--listen {listen}: {error.strerror}") from None
        sf.log.warning(
            "listening on %s: the line is not encrypted, and whoever gets the address with its "
            "code sees all faces and can change what is decided",
            listen,
        )
    token = kept.token if kept else sf.companion("review/guard").new_secret()
    if kept is None or kept.port != port:
        kept = Kept(port=port, token=token)
        sf.write_file(path, kept)
        path.chmod(0o600)
    return sockets, kept


@contextlib.contextmanager
def bound(address: str, port: int) -> Iterator[socket.socket]:
    """A listening socket that no other program can bind beside us.

    Of TCP by name: only then asyncio sends small answers at once, else each waits 40 ms.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as made:
        exclusive = getattr(socket, "SO_EXCLUSIVEADDRUSE", None)  # Windows
        made.setsockopt(socket.SOL_SOCKET, exclusive or socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind((address, port))
        made.listen(MOST_CONNECTIONS)
        yield made


def shown(address: str) -> str:
    """An address as it stands in a URL."""
    return f"[{address}]" if ":" in address else address


# ============================================================================
# Serving
# ============================================================================


def serve(
    target: Target,
    sockets: list[socket.socket],
    kept: Kept,
    address: str,
    args: argparse.Namespace,
) -> int:
    """Answer until a signal ends it; returns how many decisions there are."""
    guard, events = sf.companion("review/guard"), sf.companion("review/events").Events()
    session = guard.Session(kept.port, kept.token)
    names = ["localhost", *(shown(place) for place in LOOPBACK)]
    names += [shown(args.listen)] if args.listen else []
    hosts = [f"{name}:{kept.port}" for name in names]
    desk = sf.companion("review/desk").Desk(target.cache, target.trees, events)
    try:
        app = sf.companion("review/app").application(desk, session, events, hosts)
        url = f"{address}#{session.code}"
        sys.stderr.write(f"open {url}\nCtrl-C ends it; everything decided is kept\n")
        sys.stderr.flush()
        if not args.no_browser:
            open_browser(url)
        asyncio.run(run_server(app, sockets, events))
    finally:
        desk.close()
    return desk.rev


def open_browser(url: str) -> None:
    """In a thread, as a browser on a terminal comes back only when it is closed."""
    import webbrowser

    threading.Thread(target=webbrowser.open, args=(url,), daemon=True).start()


async def run_server(app: Any, sockets: list[socket.socket], events: Any) -> None:
    """uvicorn until SIGINT or SIGTERM; pages are told before it ends."""
    import uvicorn

    config = uvicorn.Config(
        app,
        http=sf.companion("review/guard").Impatient,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="critical",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=MOST_CONNECTIONS,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=LEAVE_WITHIN,
        h11_max_incomplete_event_size=sf.companion("review/guard").MOST_HEADERS,
    )
    server = uvicorn.Server(config)
    server.capture_signals = contextlib.nullcontext
    loop = events.loop = asyncio.get_running_loop()

    def end() -> None:
        events.close()
        server.should_exit = True

    with on_signals(lambda: loop.call_soon_threadsafe(end)):
        await server.serve(sockets)


@contextlib.contextmanager
def on_signals(act: Any) -> Iterator[None]:
    """Act on SIGINT and SIGTERM, where this is the thread that hears them."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: act()) for number in numbers]
    try:
        yield
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
