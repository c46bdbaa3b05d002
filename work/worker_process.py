"""Work on another process, usually a Windows Python with DirectML that WSL starts.

Loaded by sort_faces.py for `--worker PYTHON_EXE`. The queue and the results are files both sides
see. The worker (dml_worker.py) appends a line per item; this side reads the lines, starts the
worker again when it dies, and ends it by closing its stdin and by a `stop` file, as signals do not
cross from WSL to Windows. Paths go out as the worker's side opens them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec

import sort_faces as sf

QUEUE_SCHEMA = 1  # of queue.json; both sides must agree
WORKER_SCRIPT = sf.WORK_FOLDER / "dml_worker.py"
WORKER_POLL = 0.2  # seconds between looks at the results
WORKER_SILENCE = 300.0  # seconds without results or heartbeat until a worker is started anew
WORKER_RESTARTS = 5  # deaths in a row without a single result
WORKER_PATIENCE = 20.0  # seconds a worker gets to finish what it does after a stop
paths = sf.companion("paths_there")


@dataclass(frozen=True)
class QueueFiles:
    """The files of one queue, in a folder both sides can reach."""

    folder: Path

    @property
    def queue(self) -> Path:
        return self.folder / "queue.json"

    @property
    def results(self) -> Path:
        return self.folder / "results.jsonl"

    @property
    def heartbeat(self) -> Path:
        return self.folder / "heartbeat.json"

    @property
    def stop(self) -> Path:
        return self.folder / "stop"

    @property
    def run(self) -> Path:
        return self.folder / "run"  # id of the run whose results are wanted

    @property
    def log(self) -> Path:
        return self.folder / "worker.log"

    def state(self) -> Heartbeat:
        """The last heartbeat; an empty one where there is none that could be read."""
        with contextlib.suppress(OSError, ValueError, RecursionError, msgspec.ValidationError):
            return sf.as_record(Heartbeat, json.loads(self.heartbeat.read_text(encoding="utf-8")))
        return Heartbeat()


class Heartbeat(sf.Record, kw_only=True):
    """What a worker says every few seconds; one that dies tells so what it died on."""

    pid: int = 0
    state: str = ""  # loading, working, stopped
    doing: tuple[str, ...] = ()  # ids of items that may be in its hands
    alone: bool = False  # an item that is done alone
    deaths: dict[str, int] = msgspec.field(default_factory=dict)  # {id: workers that died on it}


class Queue(sf.OwnFile, tag="queue", kw_only=True):
    """What queue.json says to a worker."""

    version: str
    schema: int = QUEUE_SCHEMA
    task: str  # of TASKS
    run: str  # id of the run that waits for the results
    spec: sf.EngineSpec
    items: list[sf.Item]


def item_id(item: sf.Item) -> str:
    """Name of an item by all that decides its result; where the file lies does not."""
    facts = {key: value for key, value in item.items() if key not in ("path", "size", "mtime_ns")}
    text = json.dumps(facts, sort_keys=True, default=sf.json_default)
    return hashlib.sha256(text.encode()).hexdigest()[:24]


def run_on_worker(
    task: str, items: Iterable[sf.Item], crew: sf.Crew, files: QueueFiles
) -> Iterator[tuple[sf.Item, sf.Result]]:
    """Yield (item, result) as a worker process finishes them; results already there come first.

    Raises SortFacesError when the worker cannot be started or keeps dying; what it had finished
    by then stays in the results file, and the next run begins with it.
    """
    waiting = {item_id(item): item for item in items}
    if not waiting:
        return
    files.folder.mkdir(parents=True, exist_ok=True)
    run = os.urandom(8).hex()
    sf.write_bytes(files.run, run.encode())  # a worker left over from a killed run stops at this
    files.stop.unlink(missing_ok=True)
    tail = sf.ResultTail(files.results)

    def fresh() -> Iterator[tuple[sf.Item, sf.Result]]:
        for result in tail.read():
            if result["id"] in waiting:
                yield waiting.pop(result["id"]), result

    yield from fresh()
    for name, error in write_queue(task, run, waiting, crew, files):
        yield waiting.pop(name), {"failed": error}
    worker = WorkerProcess(crew, files) if waiting else None
    try:
        while waiting:
            ended = worker.process.poll()  # asked first: its last results may be on their way
            before = len(waiting)
            yield from fresh()
            if len(waiting) < before:
                worker.progressed()
            elif waiting:
                worker.watch(ended)
    finally:
        if worker is not None:
            worker.close()
    shutil.rmtree(files.folder, ignore_errors=True)
    sf.remove_empty(files.folder.parent)  # unless another queue waits there


def write_queue(
    task: str, run: str, items: dict[str, sf.Item], crew: sf.Crew, files: QueueFiles
) -> list[tuple[str, str]]:
    """Write queue.json with paths the worker can open; returns [(id, why)] of hopeless items."""
    hopeless, listed = [], []
    for name, item in items.items():
        try:
            listed.append({**paths.item_there(crew, item), "id": name})
        except sf.PhotoError as error:
            hopeless.append((name, str(error)))
    spec = paths.spec_there(crew)
    queue = Queue(version=sf.VERSION, task=task, run=run, spec=spec, items=listed)
    sf.write_file(files.queue, queue)
    return hopeless


class WorkerProcess:
    """The worker of one queue: started, watched, started again when it dies or falls silent."""

    def __init__(self, crew: sf.Crew, files: QueueFiles) -> None:
        self.crew, self.files = crew, files
        self.deaths = 0  # in a row, without a result between them
        self.start()

    def start(self) -> None:
        """Run the worker script, its words going to the queue's log."""
        files = (WORKER_SCRIPT, self.files.queue, self.files.results)
        try:
            there = [paths.path_there(self.crew, str(path)) for path in files]
        except sf.PhotoError as error:
            raise sf.SortFacesError(f"{self.files.folder}: {error}") from None
        work = self.crew.work
        numbers = {"--batch": work.batch, "--threads": work.threads, "--memory": work.memory}
        options = [*(str(part) for pair in numbers.items() for part in pair), "--with-parent"]
        try:
            with open(self.files.log, "ab") as output:
                self.process = subprocess.Popen(
                    [work.worker, *there, *options],
                    stdin=subprocess.PIPE,  # closes with us, however we end
                    stdout=output,
                    stderr=output,
                )
        except OSError as error:
            raise sf.SortFacesError(
                f"--worker {work.worker}: {error.strerror}; name the python.exe of the "
                "worker's environment (work/setup_dml_worker.ps1 makes one)"
            ) from None
        self.seen, self.heard = b"", time.monotonic()

    def progressed(self) -> None:
        self.deaths, self.heard = 0, time.monotonic()

    def watch(self, ended: int | None) -> None:
        """Called while results are awaited, with the exit code of a worker that has ended."""
        if ended is None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(WORKER_POLL)
            self.check_pulse()
        elif ended == sf.EXIT_USAGE:
            raise sf.SortFacesError(f"--worker: {self.last_words()}")
        else:
            self.revive(f"ended with code {ended}")

    def check_pulse(self) -> None:
        """Kill a worker that neither beats nor delivers."""
        with contextlib.suppress(OSError):
            beat = self.files.heartbeat.read_bytes()
            if beat != self.seen:
                self.seen, self.heard = beat, time.monotonic()
        if time.monotonic() - self.heard > WORKER_SILENCE:
            self.end()
            self.revive("fell silent")

    def revive(self, why: str) -> None:
        """Start a dead worker again, later each time, until it died too often in a row."""
        self.deaths += 1
        if self.deaths > WORKER_RESTARTS:
            raise sf.SortFacesError(
                f"--worker: {why} {self.deaths} times without a result ({self.last_words()}); "
                "finished items are kept; docs/worker.md says what to look at"
            )
        sf.log.warning("worker %s, starting it again", why)
        time.sleep(min(2 ** (self.deaths - 1), 30) * WORKER_POLL)
        self.start()

    def last_words(self) -> str:
        """The last line the worker said."""
        with contextlib.suppress(OSError):
            lines = self.files.log.read_text("utf-8", errors="replace").strip().splitlines()
            return lines[-1] if lines else "it said nothing"
        return "it said nothing"

    def close(self) -> None:
        """Let the worker finish what it does, then make sure that it is gone."""
        if self.process.poll() is None:
            self.files.stop.touch()  # in case the closed pipe does not reach it
        self.end(WORKER_PATIENCE)

    def end(self, patience: float = 0.0) -> None:
        """See a worker out, after some seconds by force."""
        self.process.stdin.close()
        try:
            self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
