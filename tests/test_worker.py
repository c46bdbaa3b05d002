"""Work on a worker process equals work here: paths, deaths, resumption, bad input.

The worker on Windows is played by an executable named python.exe, which takes Windows paths and
runs work/dml_worker.py with this interpreter.
"""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT, SCRIPT, demo_library
from test_kill import START_UP, content, size_of

import sort_faces as sf

dml_worker = sf.companion("dml_worker")
elsewhere = sf.companion("worker_process")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the stand-in is a POSIX script")
KILLS = 10
STAND_IN = f"""#!{sys.executable}
import json, os, sys
sys.path.insert(0, {str(ROOT / "tests")!r})
from windows_paths import from_windows_path
script, queue, results = map(from_windows_path, sys.argv[1:4])
here = json.load(open(queue, encoding="utf-8"))
for item in here["items"]:
    if "path" in item:
        assert item["path"].startswith("\\\\\\\\wsl.localhost\\\\Test\\\\"), item["path"]
        item["path"] = from_windows_path(item["path"])
for name, value in here["spec"].items():
    if str(value).startswith("\\\\\\\\wsl.localhost"):
        here["spec"][name] = from_windows_path(value)
mapped = os.path.join(os.path.dirname(queue), "queue.here.json")
json.dump(here, open(mapped, "w", encoding="utf-8"))
os.execv(sys.executable, [sys.executable, script, mapped, results, *sys.argv[4:]])
"""


@pytest.fixture
def stand_in(tmp_path_factory, monkeypatch) -> Path:
    """A worker that speaks Windows paths, and a distribution for it."""
    monkeypatch.setenv("WSL_DISTRO_NAME", "Test")
    sf.companion("paths_there").distro_name.cache_clear()
    return write_worker(tmp_path_factory.mktemp("worker"), STAND_IN)


def crew_of(worker: str, spec: sf.EngineSpec = sf.EngineSpec()) -> sf.Crew:  # noqa: B008
    return sf.Crew(spec, sf.WorkOptions(threads=1, worker=worker))


def write_worker(folder: Path, script: str) -> Path:
    program = folder / "python.exe"
    program.write_text(script, encoding="utf-8")
    program.chmod(0o755)
    return program


def make_photos(root: Path, number: int, edge: int = 200) -> Path:
    """Made photos of the demo's people, no two alike, with awkward names."""
    group = sf.decode_photo(demo_library.demo_photo()).image
    rng = np.random.default_rng(5)
    people = list(demo_library.DEMO_FACES.values())
    for at in range(number):
        box = np.array(people[at % len(people)], np.float32)
        image = cv2.resize(demo_library.demo_variant(group, box, rng), (edge, edge))
        sf.write_bytes(
            root / f"{at % 3} ü" / f"{at:02d}: a.jpg", demo_library.encode_jpeg(image, 90)
        )
    return root


@pytest.fixture(scope="module")
def few(tmp_path_factory) -> Path:
    """Seven files: five photos, one a copy of another, one broken."""
    root = make_photos(tmp_path_factory.mktemp("few") / "photos", 5)
    shutil.copy(root / "0 ü/00: a.jpg", root / "1 ü/copy?.jpg")
    (root / "broken.jpg").write_bytes(b"\xff\xd8\xff no picture")
    return root


@pytest.fixture(scope="module")
def many(tmp_path_factory) -> Path:
    return make_photos(tmp_path_factory.mktemp("many") / "photos", 60, 160)


def embed(run, root: Path, cache: Path, *options: object) -> dict:
    code, out, err = run("embed", root, cache, "--json", "--threads", 2, *options)
    assert code == 0, err
    return json.loads(out)


def the_queue(cache: Path) -> Path:
    """Folder of the only embed queue of a cache (which may not be there yet)."""
    return next(sf.queue_folder(cache).glob("embed-*"), sf.queue_folder(cache) / "none")


def one_line(err: str, *words: str) -> None:
    lines = [line for line in err.splitlines() if line.startswith("sort_faces ")]
    assert len(lines) == 1, err
    assert "Traceback" not in err
    assert all(word in lines[0] for word in words), err


# --- the same as here -------------------------------------------------------


def test_people_through_the_worker(run, stand_in, mini, shared, tmp_path) -> None:
    root = tmp_path / "photos"
    for at, photo in enumerate(sorted((shared / "data/people").glob("*/*.jp*g"))[::18][:38]):
        (root / f"p{at % 5}").mkdir(parents=True, exist_ok=True)
        shutil.copy(photo, root / f"p{at % 5}" / photo.name)
        if at < 2:
            shutil.copy(photo, root / f"zz copy {at}.jpg")
    here = embed(run, root, tmp_path / "here.npz", "--model", mini)
    there = embed(run, root, tmp_path / "there.npz", "--model", mini, "--worker", stand_in)
    assert {**there, "cache": ""} == {**here, "cache": ""}
    assert here["new"] == 38
    assert here["copies"] == 2
    assert content(tmp_path / "there.npz") == content(tmp_path / "here.npz")
    assert not sf.queue_folder(tmp_path / "there.npz").exists()


@pytest.mark.parametrize("native", [False, True])
def test_embed_and_enrich_through_the_worker(run, stand_in, few, tmp_path, native: bool) -> None:
    who = ["--worker", sys.executable if native else stand_in]
    result = embed(run, few, tmp_path / "here.npz", "--model", "dlib")
    assert embed(run, few, tmp_path / "there.npz", "--model", "dlib", *who) == {
        **result, "cache": str(tmp_path / "there.npz"),
    }  # fmt: skip
    assert (result["new"], result["copies"], result["unreadable"]) == (6, 1, 1)
    assert content(tmp_path / "there.npz") == content(tmp_path / "here.npz")
    for name, options in (("here", []), ("there", who)):
        code, _, err = run("enrich", tmp_path / f"{name}.npz", "--model", "dlib", *options)
        assert code == 0, err
    assert sf.load_cache(tmp_path / "here.npz").enriched.all()
    assert content(tmp_path / "there.npz") == content(tmp_path / "here.npz")


# --- kills ------------------------------------------------------------------


def lines_of(path: Path) -> int:
    with contextlib.suppress(OSError):
        return path.read_bytes().count(b"\n")
    return 0


def kill_workers(cache: Path, ended: threading.Event, killed: list[int]) -> None:
    """Kill each new worker of a cache: at once, or after it has finished a few photos more.

    Never at once twice in a row: three deaths on one photo alone would give that photo up.
    """
    rng = random.Random(7)
    seen: set[int] = set()
    while len(killed) < KILLS and not ended.is_set():
        time.sleep(0.005)
        files = elsewhere.QueueFiles(the_queue(cache))
        facts = files.state()
        if facts.state != "working" or facts.pid in seen:
            continue
        seen.add(facts.pid)
        goal = lines_of(files.results) + rng.choice([0, 1, 3, 5] if len(killed) % 2 else [1, 3, 5])
        while lines_of(files.results) < goal and not ended.is_set():
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.1))
        with contextlib.suppress(ProcessLookupError):
            os.kill(facts.pid, signal.SIGKILL)
            killed.append(facts.pid)


def test_ten_killed_workers_lose_nothing(run, stand_in, many, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(elsewhere, "WORKER_POLL", 0.05)
    here = embed(run, many, tmp_path / "here.npz", "--model", "dlib")
    killed: list[int] = []
    ended = threading.Event()
    cache = tmp_path / "there.npz"
    killer = threading.Thread(target=kill_workers, args=(cache, ended, killed))
    killer.start()
    try:
        there = embed(run, many, cache, "--model", "dlib", "--worker", stand_in)
    finally:
        ended.set()
        killer.join()
    assert len(killed) == KILLS
    assert {**there, "cache": ""} == {**here, "cache": ""}
    assert there["new"] == 60
    assert content(cache) == content(tmp_path / "here.npz")


@pytest.mark.parametrize("orphan", ["has finished", "is killed", "works on"])
def test_killed_embed_uses_what_the_worker_had_done(
    run, stand_in, many, tmp_path, orphan: str
) -> None:
    """What lies in the results is taken over; a marked result shows that it is not made anew."""
    root, cache = tmp_path / "photos", tmp_path / "lib.npz"
    for photo in sorted(many.rglob("*.jpg"))[:: 2 if orphan == "works on" else 5]:
        sf.write_bytes(root / photo.name, photo.read_bytes())
    first = subprocess.Popen(
        [sys.executable, str(SCRIPT), "embed", str(root), str(cache), "--model", "dlib",
         "--threads", "1", "--worker", str(stand_in)],
        env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    limit = time.monotonic() + START_UP
    while lines_of(the_queue(cache) / "results.jsonl") < 1 and time.monotonic() < limit:
        time.sleep(0.005)
    first.kill()
    first.wait()
    files = elsewhere.QueueFiles(the_queue(cache))
    worker = files.state().pid
    if orphan == "is killed":
        os.kill(worker, signal.SIGKILL)
    while orphan == "has finished" and files.state().state != "stopped":
        assert time.monotonic() < limit
        time.sleep(0.05)
    if orphan == "has finished":  # the rest by hand, as docs/worker.md says
        queue = files.folder / "queue.here.json"
        command = [sys.executable, elsewhere.WORKER_SCRIPT, queue, files.results, "--threads", "1"]
        assert subprocess.run(command, cwd=tmp_path, stderr=subprocess.DEVNULL).returncode == 0
    marked = 0
    if orphan != "works on":
        kept = [json.loads(line) for line in files.results.read_bytes().splitlines()]
        marks = {"dates": '{"exif_original":"2001:09:09 01:46:40"}'}
        lines = [sf.checked_line({**result, **marks}) for result in kept]
        files.results.write_bytes(b"".join(lines))
        marked = len(kept)
    result = embed(run, root, cache, "--model", "dlib", "--worker", stand_in)
    after = sf.load_cache(cache)
    assert after.files == result["photos"] == len(list(root.iterdir()))
    assert not result["failed"]
    assert np.isnan(after.file_taken).sum() >= after.files - marked
    if orphan == "has finished":
        assert np.count_nonzero(after.file_taken == 1e9) > after.files // 2
    assert not sf.queue_folder(cache).exists()
    limit = time.monotonic() + START_UP
    while is_alive(worker):
        assert time.monotonic() < limit
        time.sleep(0.1)


@pytest.mark.parametrize("tied", [True, False])
def test_a_worker_ends_with_whoever_started_it(few, tmp_path, tied: bool) -> None:
    """When its stdin closes; a worker started by hand has no stdin to wait for."""
    files = elsewhere.QueueFiles(tmp_path / "queue")
    photos = [str(path) for path in sorted(few.rglob("*.jpg")) if path.name != "broken.jpg"]
    items = [
        {"sha256": sf.sha256_of_file(path), "path": path, "passes": {}, "landmarks": False}
        for path in photos * 8
    ]
    items = [{**item, "id": str(at)} for at, item in enumerate(items)]
    spec = sf.EngineSpec(model="dlib")
    queue = elsewhere.Queue(version=sf.VERSION, task="embed", run="r", spec=spec, items=items)
    sf.write_file(files.queue, queue)
    files.run.write_text("r")
    command = [sys.executable, elsewhere.WORKER_SCRIPT, files.queue, files.results, "--threads", 1]
    command += ["--with-parent"] * tied
    worker = subprocess.Popen(
        list(map(str, command)), stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd="/"
    )
    limit = time.monotonic() + START_UP
    while not lines_of(files.results):
        assert time.monotonic() < limit
        time.sleep(0.01)
    worker.stdin.close()
    assert worker.wait(START_UP) == (130 if tied else 0)
    assert (lines_of(files.results) < len(items)) is tied
    assert files.state().state == "stopped"


def test_the_worker_script_is_one_module_with_the_program(tmp_path) -> None:
    """Called from any folder; what it catches is what sort_faces.py raises."""
    queue = tmp_path / "queue.json"
    queue.write_text("{")
    done = subprocess.run(
        [sys.executable, elsewhere.WORKER_SCRIPT, queue, tmp_path / "results.jsonl"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("dml_worker: ") and done.stderr.count("\n") == 1


def is_alive(process: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{process}/stat").read_text().split()[2] != "Z"  # nobody reaps an orphan
    return False


# --- bad input --------------------------------------------------------------


def fails(run, root: Path, cache: Path, worker: object, *words: str) -> str:
    code, out, err = run("embed", root, cache, "--model", "dlib", "--worker", worker)
    assert (code, out) == (2, ""), err
    one_line(err, *words)
    return err


def test_no_such_worker(run, few, tmp_path) -> None:
    fails(run, few, tmp_path / "x.npz", "/nowhere/python.exe", "no such program")
    assert list(tmp_path.iterdir()) == []


def test_no_distribution(run, stand_in, few, tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("WSL_DISTRO_NAME")
    sf.companion("paths_there").distro_name.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    fails(run, few, tmp_path / "x.npz", stand_in, "WSL_DISTRO_NAME")


def test_worker_that_says_why_it_cannot(run, stand_in, few, tmp_path) -> None:
    write_worker(stand_in.parent, "#!/bin/sh\necho first >&2\necho no such driver >&2\nexit 2\n")
    fails(run, few, tmp_path / "x.npz", stand_in, "--worker: no such driver")
    assert list(tmp_path.glob("x.npz")) == []


def test_worker_without_the_model(run, stand_in, few, tmp_path) -> None:
    """The worker's own line, through worker.log, for a model that is not there."""
    code, _, err = run(
        "embed", few, tmp_path / "x.npz", "--model", tmp_path / "none", "--worker", stand_in
    )
    assert code == 2
    one_line(err, "none")


def test_worker_that_always_dies(run, stand_in, few, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(elsewhere, "WORKER_RESTARTS", 2)
    starts = tmp_path / "starts"
    write_worker(stand_in.parent, f"#!/bin/sh\necho x >>{shlex.quote(str(starts))}\necho ouch\n"
                 "kill -9 $$\n")  # fmt: skip
    fails(run, few, tmp_path / "x.npz", stand_in, "3 times without a result (ouch)", "worker.md")
    assert lines_of(starts) == 3


def test_silent_worker_is_replaced(run, stand_in, few, tmp_path, monkeypatch) -> None:
    """A worker that hangs is killed; the next one does the work."""
    embed(run, few, tmp_path / "here.npz", "--model", "dlib")
    monkeypatch.setattr(elsewhere, "WORKER_SILENCE", 15.0)
    hung = tmp_path / "hung"
    first, rest = STAND_IN.split("\n", 1)
    hang = f"import os, time\nif not os.path.exists({str(hung)!r}):\n    open({str(hung)!r}, 'w')."
    hang += "write(str(os.getpid()))\n    time.sleep(600)\n"
    write_worker(stand_in.parent, f"{first}\n{hang}{rest}")
    embed(run, few, tmp_path / "x.npz", "--model", "dlib", "--worker", stand_in)
    assert content(tmp_path / "x.npz") == content(tmp_path / "here.npz")
    with pytest.raises(ProcessLookupError):
        os.kill(int(hung.read_text()), 0)


def test_name_that_windows_cannot_open(run, stand_in, few, tmp_path) -> None:
    root = tmp_path / "photos"
    shutil.copytree(few, root)
    shutil.copy(root / "1 ü/01: a.jpg", os.fsencode(root) + b"/caf\xe9.jpg")
    (root / "1 ü/01: a.jpg").unlink()
    result = embed(run, root, tmp_path / "x.npz", "--model", "dlib", "--worker", stand_in)
    assert result["new"] == 5
    assert sum("no UTF-8" in line for line in result["failed"]) == 1


def test_only_names_that_windows_cannot_open(stand_in, few, tmp_path) -> None:
    """As a program: pytest's own stderr cannot show such a name."""
    root = tmp_path / "photos"
    root.mkdir()
    shutil.copy(few / "1 ü/01: a.jpg", os.fsencode(root) + b"/caf\xe9.jpg")
    done = subprocess.run(
        [sys.executable, SCRIPT, "embed", root, tmp_path / "x.npz", "--model", "dlib",
         "--worker", stand_in], capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    one_line(done.stderr, "no UTF-8")


def test_worker_and_cluster_together(run, few, tmp_path) -> None:
    code, _, err = run("embed", few, tmp_path / "x.npz", "--model", "dlib",
                       "--worker", sys.executable, "--cluster", "tcp://127.0.0.1:1")  # fmt: skip
    assert code == 2
    one_line(err, "choose one")


# --- the worker's side, in this process -------------------------------------


class Refuses:
    """A task that doubles numbers; 13 is too much for OpenCV, 99 makes a kill look real."""

    calls: list[list[int]]

    def __init__(self) -> None:
        self.calls = []

    def __call__(self, engine: object, items: list[dict]) -> list[dict]:
        numbers = [item["n"] for item in items]
        self.calls.append(numbers)
        if 13 in numbers:
            raise cv2.error("cannot take 13")
        return [{"double": 2 * n} for n in numbers]


@pytest.fixture
def task(monkeypatch) -> Refuses:
    task = Refuses()
    monkeypatch.setitem(sf.TASKS, "double", task)
    monkeypatch.setattr(sf, "load_models", lambda spec, threads: None)
    monkeypatch.setattr(sf, "LogHandler", sf.logging.NullHandler)
    return task


def queue_of(folder: Path, numbers: list[int], **head: object) -> elsewhere.QueueFiles:
    files = elsewhere.QueueFiles(folder)
    items = [{"n": n, "id": f"id{n}"} for n in numbers]
    good = {
        "tool": sf.TOOL, "kind": "queue", "schema": elsewhere.QUEUE_SCHEMA,
        "version": sf.VERSION, "task": "double", "spec": {}, "items": items,
    }  # fmt: skip
    sf.write_json(files.queue, {**good, "run": "this one", **head})
    files.run.write_text("this one")
    return files


def work(files: elsewhere.QueueFiles, *options: object) -> int:
    argv = [files.queue, files.results, "--threads", 1, *options]
    return dml_worker.worker_main([str(part) for part in argv])


def results_of(files: elsewhere.QueueFiles) -> dict[str, dict]:
    results = list(sf.ResultTail(files.results).read())
    assert len({result["id"] for result in results}) == len(results)
    return {result.pop("id"): result for result in results}


@pytest.mark.parametrize(
    ("head", "word"),
    [
        ({"schema": 99}, "let both run the same"),
        ({"version": "9.9"}, "let both run the same"),
        ({"kind": "cache"}, "no queue file"),
        ({"tool": "other"}, "no queue file"),
    ],
)
def test_queue_of_somebody_else(task, tmp_path, capsys, head: dict, word: str) -> None:
    assert work(queue_of(tmp_path, [1], **head)) == 2
    err = capsys.readouterr().err
    assert word in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("text", ["", "{", "[]", "\x00\xff"])
def test_queue_that_is_no_json(task, tmp_path, capsys, text: str) -> None:
    files = elsewhere.QueueFiles(tmp_path)
    files.queue.write_text(text, encoding="latin-1")
    assert work(files) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_queue_without_its_parts(task, tmp_path, capsys) -> None:
    files = queue_of(tmp_path, [1])
    queue = json.loads(files.queue.read_text())
    del queue["version"]
    files.queue.write_text(json.dumps(queue))
    assert work(files) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("line", [b"{}", b'{"schema": 1}', b'{"schema":9}'])
def test_foreign_line_in_the_results(task, tmp_path, capsys, line: bytes) -> None:
    files = queue_of(tmp_path, [1])
    files.results.write_bytes(line + b"\n")
    assert work(files) == 2
    err = capsys.readouterr().err
    assert "no result of this version" in err
    assert err.count("\n") == 1
    assert files.results.read_bytes() == line + b"\n"


@pytest.mark.parametrize("line", [b"hello", b"[1]", b'{"id": "x", "schema": 2}', b"", b"\0" * 9])
def test_a_damaged_line_in_the_results_costs_that_result(task, tmp_path, line: bytes) -> None:
    files = queue_of(tmp_path, [1, 2])
    assert work(files) == 0
    whole = files.results.read_bytes().splitlines(keepends=True)
    assert len(whole) == 2
    files.results.write_bytes(line + b"\n" + whole[1])
    assert work(files) == 0
    results = list(sf.ResultTail(files.results).read())
    assert len(results) == 2 and len({result["id"] for result in results}) == 2


@pytest.mark.parametrize(
    "beat",
    [b"\xff", b"[1]", b'{"doing": true}', b'{"deaths": [1], "state": "working"}', b"[" * 99999],
)
def test_a_damaged_heartbeat_is_none(task, tmp_path, beat: bytes) -> None:
    files = queue_of(tmp_path, [1])
    files.heartbeat.write_bytes(beat)
    files.run.write_bytes(b"\xff\xfe")  # another worker's, for all one can read
    assert files.state() == elsewhere.Heartbeat()
    assert work(files) in (0, 130)


def test_foreign_line_stops_embed_and_keeps_the_file(run, stand_in, few, tmp_path) -> None:
    """The main side says the same; which queue it is follows from the models asked for."""
    cache = tmp_path / "x.npz"
    spec = sf.EngineSpec(model="dlib")
    crew = crew_of(sys.executable, spec)
    item = {"sha256": "0" * 64, "path": "/x.jpg"}
    files = elsewhere.QueueFiles(tmp_path / "queue")
    files.folder.mkdir()
    files.results.write_bytes(b'{"schema":9}\n')
    with pytest.raises(sf.SortFacesError, match="no result of this version"):
        next(elsewhere.run_on_worker("embed", [item], crew, files))
    assert files.results.read_bytes() == b'{"schema":9}\n'
    assert not size_of(cache)


def test_torn_last_line_is_repaired(task, tmp_path) -> None:
    files = queue_of(tmp_path, [1, 2, 3])
    done = json.dumps({"schema": 1, "id": "id1", "double": 2})
    files.results.write_text(f'{done}\n{{"schema": 1, "id": "id2", "dou')
    assert work(files) == 0
    assert {name: r["double"] for name, r in results_of(files).items()} == {
        "id1": 2, "id2": 4, "id3": 6,
    }  # fmt: skip
    assert task.calls == [[2], [3]]


def test_what_the_engine_refuses_fails_alone(task, tmp_path) -> None:
    files = queue_of(tmp_path, [1, 13, 2, 3])
    assert work(files, "--batch", 3) == 0
    results = results_of(files)
    assert "13" in results.pop("id13")["failed"]
    assert [r["double"] for r in results.values()] == [2, 4, 6]
    assert task.calls == [[1, 13, 2], [1], [13], [2], [3]]


def died(files: elsewhere.QueueFiles, doing: list[str], alone: bool = False, **deaths: int) -> None:
    """Leave the heartbeat of a worker that died."""
    facts = {"pid": 1, "time": 0.0, "state": "working", "doing": doing, "alone": alone}
    sf.write_json(files.heartbeat, {**facts, "deaths": deaths})


def test_suspects_of_a_death_are_done_alone(task, tmp_path) -> None:
    files = queue_of(tmp_path, [1, 2, 3, 4, 5])
    died(files, ["id4", "id2", "gone"])
    assert work(files, "--batch", 5) == 0
    assert task.calls == [[4], [2], [1, 3, 5]]
    assert files.state().state == "stopped"
    assert work(files) == 0
    assert len(task.calls) == 3


def test_deaths_alone_are_counted(task, tmp_path, monkeypatch) -> None:
    """A worker that dies while an item is done alone leaves that in its heartbeat."""
    files = queue_of(tmp_path, [1, 2])
    died(files, ["id1", "id2"])

    def die(engine: object, items: list[dict]) -> list[dict]:
        raise SystemExit(9)

    for deaths in range(3):
        monkeypatch.setitem(sf.TASKS, "double", die)
        monkeypatch.setattr(dml_worker.WorkerRun, "execute", dml_worker.WorkerRun.retry_suspects)
        with pytest.raises(SystemExit):
            work(files)
        state = files.state()
        assert (state.doing, state.alone) == (("id1",), True)
        assert state.deaths == ({"id1": deaths} if deaths else {})


@pytest.mark.parametrize("before", [dml_worker.FATAL_DEATHS - 2, dml_worker.FATAL_DEATHS - 1])
def test_deadly_item_is_given_up(task, tmp_path, before: int) -> None:
    files = queue_of(tmp_path, [1, 2])
    died(files, ["id1"], alone=True, id1=before)
    assert work(files) == 0
    results = results_of(files)
    assert ("killed the worker" in results["id1"].get("failed", "")) is (before == 2)
    assert results["id2"]["double"] == 4
    assert ([1] in task.calls) is (before == 1)


@pytest.mark.parametrize("how", ["stop file", "another run"])
def test_worker_that_is_unwanted_ends_after_the_item_in_hand(task, tmp_path, how: str) -> None:
    files = queue_of(tmp_path, list(range(20, 40)))
    if how == "stop file":
        files.stop.touch()
    else:
        files.run.write_text("another one")
    assert work(files) == 130
    assert len(results_of(files)) < 3
    assert len(task.calls) < 6
    heartbeat_is_ours = how == "stop file"
    assert (files.state().state == "stopped") is heartbeat_is_ours
    files.stop.unlink(missing_ok=True)
    files.run.write_text("this one")
    assert work(files) == 0
    assert len(results_of(files)) == 20


def test_worker_that_ends_well_is_not_started_again(tmp_path, monkeypatch) -> None:
    """The last result and the end of the worker may come between two looks at the results."""
    script = (
        f"#!{sys.executable}\nimport json, sys, time\ntime.sleep(0.5)\n"
        "ids = [item['id'] for item in json.load(open(sys.argv[2]))['items']]\n"
        "lines = [json.dumps({'schema': 1, 'id': name}) + '\\n' for name in ids]\n"
        "open(sys.argv[3], 'a').write(''.join(lines))\n"
    )
    worker = tmp_path / "worker"
    worker.write_text(script)
    worker.chmod(0o755)
    revived: list[str] = []
    monkeypatch.setattr(elsewhere.WorkerProcess, "revive", lambda self, why: revived.append(why))
    crew = crew_of(str(worker))
    for turn in range(4):
        items = [{"sha256": str(turn), "path": "/x"}]
        assert (
            len(
                list(
                    elsewhere.run_on_worker(
                        "embed", items, crew, elsewhere.QueueFiles(tmp_path / "q")
                    )
                )
            )
            == 1
        )
    assert revived == []


def test_nothing_left_to_do_starts_no_worker(tmp_path, monkeypatch) -> None:
    """All results are there already: a run was killed between the last result and its end."""
    items = [{"sha256": "0", "path": "/x"}]
    files = elsewhere.QueueFiles(tmp_path / "q")
    files.folder.mkdir()
    files.results.write_text(json.dumps({"schema": 1, "id": elsewhere.item_id(items[0])}) + "\n")
    started: list[object] = []
    monkeypatch.setattr(elsewhere.WorkerProcess, "start", lambda self: started.append(self))
    crew = crew_of(sys.executable)
    assert len(list(elsewhere.run_on_worker("embed", items, crew, files))) == 1
    assert started == []
    assert not files.folder.exists()


@pytest.mark.parametrize("path", sorted(sf.WORK_FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_companions_build_on_what_is_there(path: Path) -> None:
    """What a companion takes from sort_faces.py exists, whichever of its lines runs first."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    taken = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "sf"
    }
    builds = "import sort_faces as sf" in text  # pure numbers need nothing of it
    assert bool(taken) is builds and [name for name in taken if not hasattr(sf, name)] == []
    assert getattr(sf.companion(path.stem), "sf", sf) is sf
