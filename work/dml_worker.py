#!/usr/bin/env python3
"""Work through a queue of sort_faces, usually on Windows with DirectML.

    python dml_worker.py queue.json results.jsonl [--batch N] [--threads N]

sort_faces.py starts this with `--worker PYTHON_EXE`; it can also be started by hand with the
queue of a run that was interrupted. The models and what is done with them are in sort_faces.py,
one folder up; here stands only the worker's life: what is left to do, what killed the one before,
a sign of life, an end in time.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import itertools
import json
import logging
import math
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# By its path: where the tool is installed the packages of its own Python lie beside it, and this
# may be another one.
tool = Path(__file__).resolve().parents[1] / "sort_faces.py"
if "sort_faces" not in sys.modules:
    spec = importlib.util.spec_from_file_location("sort_faces", tool)
    sys.modules["sort_faces"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["sort_faces"])
import sort_faces as sf  # noqa: E402

elsewhere = sf.companion("worker_process")

BEAT = 2.0  # seconds between heartbeats
FATAL_DEATHS = 3  # times a worker may die on one item alone before the item is given up


def worker_main(argv: Sequence[str] | None = None) -> int:
    """Work through a queue, append a line per item; returns the exit code."""
    p = sf.OneLineParser(prog="dml_worker", description="Work through a queue of sort_faces.")
    p.add_argument("queue", type=Path, help="queue.json")
    p.add_argument("results", type=Path, help="results.jsonl to append to")
    p.add_argument("--batch", type=sf.COUNT, default=1, metavar="N", help="photos per model call")
    p.add_argument(
        "--threads", type=sf.COUNT, default=sf.usable_cores(), metavar="N", help="at once"
    )
    p.add_argument("--memory", type=sf.COUNT, metavar="MB", help="for decoded photos, all at once")
    p.add_argument("--with-parent", action="store_true", help="end when stdin closes")
    args = p.parse_args(argv)
    if args.memory:
        sf.DECODING.limit = args.memory * 1_000_000
    sf.keep_freed_memory()
    os.umask(0o077)
    sf.log.setLevel(logging.INFO)
    sf.log.addHandler(sf.LogHandler())
    try:
        sf.load_numpy()
        queue = sf.read_file(args.queue, elsewhere.Queue)
        if (queue.schema, queue.version) != (elsewhere.QUEUE_SCHEMA, sf.VERSION):
            raise sf.SortFacesError(
                f"{args.queue}: written by version {queue.version}, this worker is {sf.VERSION}; "
                "let both run the same sort_faces.py"
            )
        return WorkerRun(queue, args).execute()
    except sf.SortFacesError as error:
        return sf.complain("dml_worker", str(error))
    except KeyboardInterrupt:
        return sf.EXIT_INTERRUPTED


class WorkerRun:
    """One life of a worker."""

    def __init__(self, queue: Any, args: argparse.Namespace) -> None:
        self.task, self.run, self.args = queue.task, queue.run, args
        self.files = elsewhere.QueueFiles(args.results.parent)
        self.last = self.files.state()  # of the worker before this one
        self.deaths: dict[str, int] = dict(self.last.deaths)
        self.results = sf.AppendOnly(args.results)
        done = {result["id"] for result in sf.ResultTail(args.results).read()}
        self.todo = {item["id"]: item for item in queue.items if item["id"] not in done}
        self.beaten = -math.inf
        self.orphaned = threading.Event()
        if args.with_parent:
            threading.Thread(target=self.outlive_nobody, daemon=True).start()
        loaded = threading.Event()
        pulse = threading.Thread(target=self.beat_until, args=(loaded,), daemon=True)
        pulse.start()
        try:
            self.engine = sf.load_models(queue.spec, args.threads)
        finally:
            loaded.set()
            pulse.join()

    def execute(self) -> int:
        """Do what is left of the queue; returns the exit code."""
        try:
            self.retry_suspects()
            items = list(self.todo.values())
            threads, batch = self.args.threads, self.args.batch
            self.beat(self.in_flight())
            for item, result in sf.run_here(self.task, items, lambda: self.engine, threads, batch):
                if self.unwanted():
                    return sf.EXIT_INTERRUPTED
                self.finish(item, result)
                self.beat(self.in_flight())
            return sf.EXIT_OK
        finally:
            self.results.close()
            if not self.superseded():  # else the heartbeat is another worker's
                self.beat([], state="stopped")

    def outlive_nobody(self) -> None:
        """Note when stdin closes: whoever started this worker has ended."""
        with contextlib.suppress(OSError):
            while os.read(0, 1):  # not through sys.stdin, whose lock would outlive the interpreter
                pass
        self.orphaned.set()

    def beat_until(self, loaded: threading.Event) -> None:
        """Keep the heart beating while models load, which may take minutes."""
        while not loaded.wait(BEAT):
            self.beat([], state="loading")

    def unwanted(self) -> bool:
        """Whether to stop: asked to, left alone, or another run has taken the queue over."""
        return self.orphaned.is_set() or self.files.stop.exists() or self.superseded()

    def superseded(self) -> bool:
        try:
            return self.files.run.read_text(errors="replace") != self.run
        except FileNotFoundError:
            return True
        except OSError:  # being replaced at this moment
            return False

    def retry_suspects(self) -> None:
        """Do alone what the last worker was doing when it died; give up what kills repeatedly."""
        if self.last.state not in ("working", "loading"):
            return
        doing = [name for name in self.last.doing if name in self.todo]
        if self.last.alone and doing:
            self.deaths[doing[0]] = self.deaths.get(doing[0], 0) + 1
        for name in doing:
            item = self.todo[name]
            self.beat([name], alone=True)
            if self.deaths.get(name, 0) >= FATAL_DEATHS:
                self.finish(item, {"failed": f"killed the worker {FATAL_DEATHS} times"})
            elif not self.unwanted():
                self.finish(item, sf.work_batch(self.task, self.engine, [item])[0])

    def finish(self, item: sf.Item, result: sf.Result) -> None:
        self.results.append({"id": item["id"], **result})
        del self.todo[item["id"]]

    def in_flight(self) -> list[str]:
        """Items that may be in somebody's hands: the first that are not done yet."""
        most = (2 * self.args.threads + 1) * self.args.batch
        return list(itertools.islice(self.todo, most))

    def beat(self, doing: list[str], alone: bool = False, state: str = "working") -> None:
        """Say what is being done; a worker that dies tells so what it died on."""
        now = time.monotonic()
        if now - self.beaten < BEAT and not alone and state == "working":
            return
        self.beaten = now
        facts = {"pid": os.getpid(), "time": time.time(), "state": state, "doing": doing}
        facts |= {"alone": alone, "deaths": self.deaths}
        if state == "loading":  # tell the next worker what this one has not forgotten either
            facts |= {"doing": self.last.doing, "alone": self.last.alone}
        with contextlib.suppress(OSError):  # the other side may be reading it, or is done
            part = self.files.heartbeat.with_suffix(".part")
            part.write_text(json.dumps(facts), encoding="utf-8")
            os.replace(part, self.files.heartbeat)


if __name__ == "__main__":
    sys.exit(worker_main())
