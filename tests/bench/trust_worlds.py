"""What trust.py works on: a folder with photos, films and all that the tool makes of them.

A state is such a folder at one moment; each is made by the tool itself from the one before it, with
the offline engine, and copied afresh for every case. SCENES is the table of command lines that are
killed; a new command gets a row there.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import json
import mmap
import os
import re
import select
import shutil
import signal
import stat
import subprocess
import sys
import time
import traceback
import types
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import sf
from corpora import Face, Space, build, give_audits, picture
from material import WHEN, MemoEngine, real_engine
from quality_models import save_sharpness_model
from test_kill import content as cache_content
from video_material import film, write_video

demo_library = sf.companion("demo_library")
for name in ("worker_process", "dml_worker", "pages", "clips", "occlusion_net"):
    sf.companion(name)  # loaded once, for all that are forked

EDGE = 200  # px of the photos
PEOPLE, EACH = ("anna", "bert", "cleo", "dora"), 5
LATER = 2  # more photos of each that come when the library grows
UNSEEN = (".lock", ".holder")  # what running processes keep
JOURNAL = "lib.npz.journal"  # a part of the cache
NOT_OURS = ("photos", "outside", "films")  # nothing the tool runs may change these
LOOSE = "--min-faces 2 --min-short 20 --min-blur 0 --min-det-score 0.1"
EXPORT = "--min-face-short 20 --top-n 3 --out-size 128 --threads 1"
PASSING = re.compile(  # a hash over times, and what one call had to do of a work begun before
    rb'"(state": "[0-9a-f]{16}"|cut": \d+)'
)
EMPTY = re.compile(r"(person|faceset)_\d+")

# --- an engine that remembers -----------------------------------------------


class Remembering(MemoEngine):
    """The offline engine; a face it has seen costs nothing the second time."""

    def embed_crops(self, crops: Sequence[np.ndarray]) -> np.ndarray:
        rows = [self.row(crop) for crop in crops]
        return np.stack(rows) if rows else self.engine.embed_crops([])

    def row(self, crop: np.ndarray) -> np.ndarray:
        key = ("embed_crops", hashlib.sha256(np.ascontiguousarray(crop)).digest())
        if key not in self.known:
            self.known[key] = self.engine.embed_crops([crop])[0]
        return self.known[key]


def use_remembering_engine() -> None:
    """Let the tool of this process get the one offline engine; nothing asks the network."""
    engine, load = Remembering(real_engine("dlib").engine), sf.load_engine

    def loaded(spec: sf.EngineSpec, threads: int = 1) -> sf.Engine:
        usual = (spec.det_size or engine.det_size, spec.det_threshold)
        if spec.model == sf.DLIB_MODEL and usual == (engine.det_size, engine.det_threshold):
            return engine
        if not os.path.exists(spec.model):
            raise sf.SortFacesError(f"--model {spec.model}: not here; nothing is downloaded")
        return load(spec, threads)

    sf.load_engine = loaded


# --- processes --------------------------------------------------------------


@dataclass
class Ended:
    """How a run of the tool ended."""

    code: int
    out: str
    err: str
    peak: float  # MB
    hung: bool = False
    events: int = 0  # in the file system

    @property
    def told(self) -> str:
        """Its last line on stderr."""
        lines = self.err.strip().splitlines()
        return lines[-1][:300] if lines else ""


HOWS = ("kill", "kill", "kill", "torn", "torn", "interrupt", "full", "refused")
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink",
           "os.truncate", "os.utime", "os.chmod", "trust.append"}  # fmt: skip
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


@dataclass
class Trouble:
    """What befalls a process at its n-th change below a folder.

    kill: it is gone before that change. torn: gone in the middle of that write. interrupt: Ctrl-C.
    full: from then on no file grows. refused: that change fails, once. None: it is counted only.
    """

    root: str
    how: str = ""
    at: int = 0
    room: int = 0  # bytes still written
    seen: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 8))

    @property
    def events(self) -> int:
        return int.from_bytes(self.seen[:8], "little")

    def befall(self) -> None:
        """Lie in wait in this process, for good."""
        real = sf.AppendOnly.append

        def append(lines: sf.AppendOnly, record: dict) -> None:
            sys.audit("trust.append", str(lines.path))
            real(lines, record)

        sf.AppendOnly.append = append
        if self.how == "torn":  # else Python has this signal ignored
            signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
        sys.addaudithook(self.watch)

    def watch(self, event: str, args: tuple) -> None:
        if event in CHANGES or (event == "open" and args[2] & WRITING):
            if not isinstance(args[0], str | bytes | os.PathLike):
                return
            path = os.fsdecode(args[0])
            here = path.startswith(self.root) or not path.startswith("/")
            if here and not path.endswith(UNSEEN):
                number = self.events + 1
                self.seen[:8] = number.to_bytes(8, "little")
                if number == self.at:
                    self.strike(event, path)

    def strike(self, event: str, path: str) -> None:
        if self.how == "interrupt":
            signal.raise_signal(signal.SIGINT)
        elif self.how == "refused":
            raise OSError(5, "Input/output error", path)
        elif self.how in ("torn", "full") and event in ("open", "trust.append"):
            limit_size(self.room + (os.path.getsize(path) if os.path.isfile(path) else 0))
        elif self.how == "full":
            limit_size(0)
        else:
            os._exit(137)


def limit_size(size: int) -> None:
    """From now on no file of this process grows beyond a size; the next one that does ends it."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))


class ForkedWorker:
    """A worker process as worker_process.py starts one, only without loading everything anew."""

    def __init__(self, argv: Sequence[str], **_: object) -> None:
        there, here = os.pipe()
        self.pid, self.code = os.fork(), None
        if not self.pid:
            os.close(here)
            os.dup2(there, 0)
            code = 99
            try:
                code = sf.companion("dml_worker").worker_main(argv[2:])
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(there)
        self.stdin = open(here, "wb")  # noqa: SIM115 - closed by whoever started it

    def poll(self) -> int | None:
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code

    def wait(self, timeout: float | None = None) -> int:
        end = time.monotonic() + (timeout or 1e9)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("worker", timeout)
            time.sleep(0.002)
        return self.code

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)


def tool(argv: list[str]) -> int:
    """A line of the tool, or of its worker; workers it starts share what is loaded."""
    if argv[0] == "dml_worker":
        [queue] = Path().glob("lib.npz.queue/*")
        files = str(queue / "queue.json"), str(queue / "results.jsonl")
        return sf.companion("dml_worker").worker_main([*files, "--threads", "1"])
    there = sf.companion("worker_process")
    there.WORKER_POLL = 0.01
    there.subprocess = types.SimpleNamespace(
        Popen=ForkedWorker, PIPE=subprocess.PIPE, TimeoutExpired=subprocess.TimeoutExpired
    )
    return sf.main(argv)


def heard(child: int, pipes: Sequence[int], limit: float) -> tuple[list[str], bool]:
    """(what a child said on each pipe, whether it had to be ended after `limit` seconds)."""
    texts = {pipe: bytearray() for pipe in pipes}
    over = os.pidfd_open(child)
    waiting, end = {over, *pipes}, time.monotonic() + limit
    hung = False
    while over in waiting or texts.keys() & waiting:
        left = max(0.0, end - time.monotonic()) if over in waiting else 0.0
        ready = select.select(waiting, [], [], left)[0]
        if not ready and over not in waiting:
            break  # only a worker it left behind holds them
        if not ready:
            hung = True
            os.killpg(child, signal.SIGKILL)  # the group of the child, nobody else's
            end += limit
        for descriptor in ready:
            part = os.read(descriptor, 1 << 16) if descriptor != over else b""
            if part:
                texts[descriptor] += part
            else:
                waiting.discard(descriptor)
    for descriptor in (over, *pipes):
        os.close(descriptor)
    return [text.decode("utf-8", "replace") for text in texts.values()], hung


MEMORY = 8 << 30  # bytes of address space of a run


class World:
    """One place where states are put and the tool is run."""

    def __init__(self, place: Path, limit: float = 60.0) -> None:
        self.place, self.limit = place, limit
        self.root, self.logs, self.states = place / "world", place / "logs", place / "states"
        self.sides = {self.root, self.logs, self.states, place / "beside.txt"}
        self.known: dict[Any, Any] = {}  # what a state gives undisturbed
        place.mkdir(parents=True)
        (place / "beside.txt").write_text("nobody has to write here\n")

    # --- running the tool ---------------------------------------------------

    def run(
        self,
        line: str,
        trouble: Trouble | None = None,
        user: int = 0,
        call: Callable[[list[str]], int] | None = None,
    ) -> Ended:
        """One command line in a process of its own, in the world's folder."""
        trouble = trouble or Trouble(str(self.root))
        pipes = [os.pipe(), os.pipe()]  # not files, whose size may be limited
        child = os.fork()
        if not child:
            self.live(line.split(" "), trouble, user, [there for _, there in pipes], call)
        for _, there in pipes:
            os.close(there)
        said, hung = heard(child, [here for here, _ in pipes], self.limit)
        _, status, usage = os.wait4(child, 0)
        code = os.waitstatus_to_exitcode(status)
        return Ended(code, *said, usage.ru_maxrss / 1024, hung, trouble.events)

    def live(
        self,
        argv: list[str],
        trouble: Trouble,
        user: int,
        pipes: Sequence[int],
        call: Callable | None,
    ) -> None:
        """The child: runs the tool and ends."""
        code = 99
        try:
            os.setpgid(0, 0)
            import resource

            resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
            resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
            for number, pipe in zip((1, 2), pipes, strict=True):
                os.dup2(pipe, number)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            sys.stdin = os.fdopen(0, closefd=False)
            sys.stdout, sys.stderr = (
                os.fdopen(number, "w", encoding="utf-8", closefd=False) for number in (1, 2)
            )
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            os.sync = lambda: None  # the disk outlives these processes
            os.fsync = lambda _: None
            os.environ["SORT_FACES_LOGS"] = str(self.logs)
            sys.argv = ["sort_faces.py", *argv]
            os.chdir(self.root)
            if user:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            trouble.befall()
            code = (call or tool)(argv)
        except SystemExit as stop:
            code = stop.code
        except BaseException:
            traceback.print_exc()
        finally:
            with contextlib.suppress(BaseException):
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code if isinstance(code, int) else 99)

    def must(self, *lines: str) -> None:
        """Command lines of a state; run here, so that the engine remembers for all that follow."""
        before = os.getcwd()
        os.environ["SORT_FACES_LOGS"] = str(self.logs)
        os.chdir(self.root)
        try:
            for line in lines:
                told = io.StringIO()
                with contextlib.redirect_stdout(told), contextlib.redirect_stderr(told):
                    code = sf.main([*line.split(" "), "-q"])
                if code not in (0, 1):
                    raise SystemExit(f"trust: {line}: exit code {code}\n{told.getvalue()}")
        finally:
            os.chdir(before)

    # --- states -------------------------------------------------------------

    def put(self, state: str) -> None:
        """Let the world be in a state, whatever happened to it."""
        template = self.states / state
        if not template.exists():
            base, make = STATES[state]
            if base:
                self.put(base)
            else:
                self.clear()
            make(self)
            (self.states / state).parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(self.root, template, symlinks=True)
        self.clear()
        shutil.rmtree(self.root)
        shutil.copytree(template, self.root, symlinks=True)

    def clear(self) -> None:
        """An empty world, and nothing beside it."""
        for path in (self.root, self.logs):
            if path.exists():
                make_removable(path)
            shutil.rmtree(path, ignore_errors=True)
            path.mkdir()
        for path in set(self.place.iterdir()) - self.sides:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def write(self, name: str, data: bytes, year: int = 2015) -> None:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        when = (year - 1970) * 31_556_952
        os.utime(path, (when, when))

    # --- what lies there ----------------------------------------------------

    def theirs(self) -> dict[str, str]:
        """{sha256: name} of files in the outputs that the tool could not make again."""
        listed = self.root / "theirs.json"
        names = json.loads(listed.read_text()) if listed.exists() else []
        paths = {name: self.root / name for name in names}
        return {sha_of(path): name for name, path in paths.items() if path.is_file()}

    def bystanders(self) -> dict[str, tuple]:
        """Everything outside the outputs: {name: (what, when)}."""
        found: dict[str, tuple] = {
            path.name: ("beside",) for path in self.place.iterdir() if path not in self.sides
        }
        for top in NOT_OURS:
            for path in sorted((self.root / top).rglob("*")):
                facts = path.lstat()
                name = path.relative_to(self.root).as_posix()
                if stat.S_ISDIR(facts.st_mode):
                    found[name] = ("folder",)
                elif path.is_symlink():
                    found[name] = ("link", os.readlink(path))
                else:
                    found[name] = (sha_of(path), facts.st_mtime_ns)
        return found

    def outside(self) -> dict[str, str]:
        """{absolute path: sha256} of files that a hostile file may name."""
        tops = [self.root / "outside", self.root / "photos"]
        files = [path for top in tops for path in sorted(top.rglob("*")) if path.is_file()]
        return {str(path): sha_of(path) for path in files[:12]}

    def hashes(self) -> set[str]:
        """sha256 of all files of the world."""
        return {
            sha_of(path)
            for path in self.root.rglob("*")
            if path.is_file() and not path.is_symlink()
        }

    def outputs(self) -> dict[str, str]:
        """{name: what is in it} of all the tool made; times and a cache's order do not count."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root).as_posix()
            if name == JOURNAL:
                found["lib.npz"] = told_of(path.with_suffix(""))
            elif name.split("/")[0] not in NOT_OURS and not name.endswith(UNSEEN):
                found[name] = told_of(path)
        return found

    def leftovers(self) -> list[str]:
        """Names of what a killed run left and the next should have removed."""
        found = []
        for path in sorted(self.root.rglob("*")):
            name = path.relative_to(self.root)
            if name.parts[0] in NOT_OURS:
                continue
            unfinished = path.name.startswith((sf.PART_PREFIX, ".sort_faces-old-"))
            empty = path.is_dir() and EMPTY.fullmatch(path.name) and not any(path.iterdir())
            if unfinished or empty:
                found.append(name.as_posix())
        return found


def make_removable(folder: Path) -> None:
    for path, folders, _ in os.walk(folder):
        for name in folders:
            if not os.path.islink(os.path.join(path, name)):
                os.chmod(os.path.join(path, name), 0o700)


def sha_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def told_of(path: Path) -> str:
    """What a file, link or folder says, without times."""
    if path.is_symlink():
        return f"-> {os.readlink(path)}"
    if path.is_dir():
        return "folder"
    data = path.read_bytes() if path.is_file() else b"special, or there is only its journal"
    if path.name == "lib.npz":
        with contextlib.suppress(Exception):
            data = repr(sorted(cache_content(path).items())).encode()
    elif path.suffix == ".npz":
        with contextlib.suppress(Exception), np.load(io.BytesIO(data)) as archive:
            data = b"".join(archive[name].tobytes() for name in sorted(archive.files))
    elif path.suffix in (".json", ".html"):
        data = PASSING.sub(b'"passing": ""', WHEN.sub(b'"when": ""', data))
    elif path.suffix == ".jsonl":
        data = b"\n".join(sorted(data.splitlines()))
    return hashlib.sha256(data).hexdigest()


# --- the states -------------------------------------------------------------


@functools.cache
def demo_group() -> np.ndarray:
    """The group photo of the demo, (h, w, 3) uint8 BGR."""
    return sf.decode_photo(demo_library.demo_photo()).image


def photo_of(group: np.ndarray, name: str, number: int) -> bytes:
    rng = np.random.default_rng([PEOPLE.index(name), number])
    box = np.array(demo_library.DEMO_FACES[name], np.float32)
    image = demo_library.demo_variant(group, box, rng)
    image = cv2.resize(image, (EDGE, EDGE), interpolation=cv2.INTER_AREA)
    return demo_library.encode_jpeg(image, 90)


def add_photos(world: World, numbers: Sequence[int]) -> None:
    for name in PEOPLE:
        for number in numbers:
            year = 2010 + number
            data = photo_of(demo_group(), name, number)
            world.write(f"photos/{year}/{name}_{year}0101_{number}.jpg", data, year)


def make_fresh(world: World) -> None:
    add_photos(world, range(EACH))
    first = (world.root / "photos/2010/anna_20100101_0.jpg").read_bytes()
    world.write("photos/backup/anna (copy).jpg", first)
    nobody = demo_library.encode_jpeg(np.full((90, 90, 3), 77, np.uint8), 90)
    world.write("photos/2011/nobody.jpg", nobody)
    world.write("photos/2011/broken.jpg", b"\xff\xd8\xff no picture")
    world.write("photos/notes.txt", b"not a photo\n")
    world.write("outside/precious.jpg", first + b"precious")
    world.write(
        "outside/2012/twin.jpg", (world.root / "photos/2011/anna_20110101_1.jpg").read_bytes()
    )
    world.write("outside/letter.txt", b"dear\n")


def make_moved(world: World) -> None:
    photos = world.root / "photos"
    for name in ("2010/bert_20100101_0.jpg", "2012/cleo_20120101_2.jpg"):
        (photos / name).unlink()
    os.rename(photos / "2013/dora_20130101_3.jpg", photos / "2013/renamed.jpg")
    add_photos(world, range(EACH, EACH + LATER))


def make_sorted(world: World) -> None:
    world.must(
        "cluster lib.npz raw",
        f"refine lib.npz refined {LOOSE}",
        "dedup lib.npz",
        f"export-swap lib.npz refined/refine_manifest.json ready --raw-manifest raw/manifest.json "
        f"--candidates --candidate-min-score 0.1 {EXPORT}",
    )
    work_by_hand(world)


def work_by_hand(world: World) -> None:
    """What an operator does to the trees: his own files, an edited photo, a name, a PNG, a gap."""
    edited = next(path for path in sorted((world.root / "raw/person_001").iterdir()))
    world.write(edited.relative_to(world.root).as_posix(), edited.read_bytes() + b"edited")
    mine = {
        "raw/person_002/my notes.txt": b"raw notes\n",
        "refined/faceset_001/mine.txt": b"refined notes\n",
        "ready/faceset_001/mine.txt": b"ready notes\n",
        "ready/faceset_001/NAME.txt": "Anna Ö\n".encode(),
        "ready/faceset_002/faces/mine.png": picture(5),
        "ready/todo.txt": b"sort out\n",
    }
    for name, data in mine.items():
        world.write(name, data)
    names = [edited.relative_to(world.root).as_posix(), *mine]
    gone = world.root / "photos/2014/bert_20140101_4.jpg"  # the trees hold its only copies now
    [copy, *_] = sorted(world.root.glob("raw/*/*bert_20140101_4.jpg"))
    gone.unlink()
    names.append(copy.relative_to(world.root).as_posix())
    (world.root / "theirs.json").write_text(json.dumps(names))


def make_grown(world: World) -> None:
    add_photos(world, range(EACH, EACH + LATER))
    world.must("embed photos lib.npz --model dlib --threads 2")


def make_torn(world: World) -> None:
    """A cache and the journal of a run that was killed."""
    add_photos(world, range(EACH, EACH + LATER))
    line = "embed photos lib.npz --model dlib --enrich --threads 1"
    events = world.run(line).events
    shutil.rmtree(world.root)
    shutil.copytree(world.states / "embedded", world.root)
    add_photos(world, range(EACH, EACH + LATER))
    world.run(line, trouble=Trouble(str(world.root), "kill", events * 3 // 4))
    assert (world.root / "lib.npz.journal").stat().st_size > 2000


def make_corpus(world: World) -> None:
    """A corpus without an engine: every cosine is known, and what a detector sees is told."""
    space = Space()
    years = [2001, 2001, 2002, 2002, 2003, 2003, *[2015] * 5, 2022, 2022, None]
    ada, eva = space.faces(0, 5), space.faces(1, 4)
    life = [space.face(2, year=year) for year in years]
    sets = [ada, [*eva, Face(ada[3].vector, picture=11), space.near(eva[0], 0.97)], life,
            space.faces(0, 3), [space.face(3), Face(space.face(3).vector, picture=11)],
            space.faces(1, 3)]  # fmt: skip
    root = build(world.root, sets, {3: "Zoë"})
    seen = {"faceset_001/faces/002.png": (2, 1), "faceset_003/faces/004.png": (0, 0)}
    give_audits(root, seen)
    [audits] = root.glob("_scores/audit-*")
    line = {**json.loads(audits.read_text().splitlines()[0]), "counts": [1, 1]}
    line["sha256"] = hashlib.sha256(picture(77)).hexdigest()  # which the operator adds
    audits.write_text(audits.read_text() + json.dumps(line) + "\n")
    mine = {
        "ready/faceset_001/mine.txt": b"of one\n",
        "ready/faceset_004/yours.txt": b"of four\n",
        "ready/faceset_003/faces/mine.png": picture(77),
        "ready/todo.txt": b"todo\n",
    }
    for name, data in mine.items():
        world.write(name, data)
    (world.root / "theirs.json").write_text(json.dumps(list(mine)))
    world.write("outside/letter.txt", b"dear\n")
    world.write("outside/precious.jpg", picture(9))
    world.write("photos/one.jpg", picture(8))
    hidden = [{"sha256": sha_of(png), "error": "", "scores": [0.99 * (at % 3 == 0), 0.0]}
              for at, png in enumerate(sorted(root.glob("faceset_*/faces/*.png")))]  # fmt: skip
    lines = "".join(json.dumps(line) + "\n" for line in hidden)
    world.write("ready/_scores/occlusion-made-00000000.jsonl", lines.encode())


def make_films(world: World) -> None:
    shots = (("anna", 1.4), ("", 0.8), ("dora", 1.4))
    (world.root / "films").mkdir()
    write_video(world.root / "films/film.mp4", list(film(shots)), audio="aac",
                **{"x264-params": "scenecut=0"})  # fmt: skip
    shots = (("bert", 1.2), ("cleo", 1.2))
    write_video(world.root / "films/second.avi", list(film(shots)), codec="mpeg4")
    world.write("outside/letter.txt", b"dear\n")
    show(world, f"video run films work clips {VIDEO}", "work", "clips")


def make_queue(world: World) -> None:
    """The queue of a worker that had finished its photos when the run was killed."""

    def unfinished(argv: list[str]) -> int:
        there = sf.companion("worker_process")
        there.shutil = types.SimpleNamespace(rmtree=lambda *_, **__: os._exit(137))
        return tool(argv)

    ended = world.run(WORKER, call=unfinished)
    assert ended.code == 137, ended.err
    for path in world.root.glob("lib.npz*"):
        if path.is_file():
            path.unlink()


def show(world: World, line: str, *made: str) -> None:
    """Let the engine see what it will be asked, and remove what that made."""
    world.must(line)
    for path in (world.root / name for name in made):
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def make_few(world: World) -> None:
    for name in ("anna", "bert"):
        world.write(f"photos/{name}.jpg", photo_of(demo_group(), name, 0))
    world.write("outside/letter.txt", b"dear\n")
    show(world, "embed photos lib.npz --model dlib --enrich --threads 2", "lib.npz")


def make_rated(world: World) -> None:
    """A cache with the scores of one quality model, and another model."""
    save_sharpness_model(world.root / "sharp.onnx")
    save_sharpness_model(world.root / "sharper.onnx", gain=2.0)
    world.must(f"{SCORE} --quality-model sharp.onnx")


def running(*lines: str) -> Callable[[World], None]:
    return lambda world: world.must(*lines)


SCORE = "enrich lib.npz --model dlib --threads 1"
WORKER = "embed photos lib.npz --model dlib --worker python"
VIDEO = "--model dlib --threads 1 --min-dur 0.5"
CORPUS_STEPS = (
    "consolidate ready --review review --threads 1",
    "era split ready Zoë --threads 1",
    "optimize ready --threads 1",
)
STATES: dict[str, tuple[str, Callable[[World], None]]] = {  # (the one before, what makes it)
    "fresh": ("", make_fresh),
    "few photos": ("", make_few),
    "queue": ("fresh", make_queue),
    "plain": ("fresh", running("embed photos lib.npz --model dlib --threads 2")),
    "embedded": ("fresh", running("embed photos lib.npz --model dlib --enrich --threads 2")),
    "rated": ("embedded", make_rated),
    "moved": ("embedded", make_moved),
    "torn": ("embedded", make_torn),
    "sorted": ("embedded", make_sorted),
    "scored": ("sorted", running("occlusion score ready --scorer landmarks --threads 1")),
    "grown": ("sorted", make_grown),
    "extended": ("grown", running("extend lib.npz raw --refine-out refined")),
    "reported": ("sorted", running("report ready --threads 1", "report raw --threads 1")),
    "corpus": ("", make_corpus),
    "merged": ("corpus", running(*CORPUS_STEPS[:2])),
    "maintained": ("corpus", running(*CORPUS_STEPS)),
    "films": ("", make_films),
    "scenes": ("films", running("video scan films work", "video scenes work")),
    "frames": ("scenes", running("video stage work", "video detect work --model dlib --threads 1")),
    "tracks": ("frames", running("video merge work", "video track work")),
    "planned": ("tracks", running("video score work --min-dur 0.5")),
    "filmed": ("planned", running("video cut work clips", "video report work")),
    "chained": ("fresh", running(f"run photos out --model dlib {LOOSE} {EXPORT}")),
    "chain grown": ("chained", make_moved),
}

# --- the table of command lines; what forget removes: tests/test_forget.py ---


@dataclass(frozen=True)
class Scene:
    """A command line and the state it begins in."""

    state: str
    line: str


EMBED = "embed photos lib.npz --model dlib --threads 1"
EXPORT_AGAIN = (
    f"export-swap lib.npz refined/refine_manifest.json ready {EXPORT} "
    "--raw-manifest raw/manifest.json --candidates"
)
SCENES: Sequence[Scene] = (
    Scene("fresh", EMBED),
    Scene("fresh", f"{EMBED} --enrich"),
    Scene("moved", f"{EMBED} --prune"),
    Scene("torn", f"{EMBED} --enrich"),
    Scene("embedded", "cluster lib.npz raw"),
    Scene("sorted", "cluster lib.npz raw --threshold 0.2"),
    Scene("embedded", f"refine lib.npz refined {LOOSE}"),
    Scene("sorted", f"refine lib.npz refined {LOOSE} --initial-threshold 0.2"),
    Scene("embedded", "dedup lib.npz"),
    Scene("grown", "extend lib.npz raw --refine-out refined"),
    Scene("plain", "enrich lib.npz --model dlib --threads 1"),
    Scene("rated", f"{SCORE} --quality-model sharper.onnx"),
    Scene("sorted", f"export-swap lib.npz refined/refine_manifest.json other {EXPORT}"),
    Scene(
        "extended",
        f"export-swap lib.npz refined/refine_manifest.json ready {EXPORT} "
        "--raw-manifest raw/manifest.json --candidates",
    ),
    Scene("sorted", "occlusion score ready --threads 1"),
    Scene("scored", "occlusion report ready --threads 1"),
    Scene("corpus", "occlusion apply ready"),
    Scene("corpus", CORPUS_STEPS[0]),
    Scene("corpus", CORPUS_STEPS[1]),
    Scene("merged", "era extend ready faceset_003 --threads 1"),
    Scene("merged", CORPUS_STEPS[2]),
    Scene("sorted", "verify ready --threads 1 --fix"),
    Scene("maintained", "restore ready"),
    Scene("maintained", "restore ready 1"),
    Scene("sorted", "report ready --threads 1"),
    Scene("reported", "report ready --threads 1"),
    Scene("sorted", "report raw --threads 1"),
    Scene("films", "video scan films work"),
    Scene("scenes", "video scenes work"),
    Scene("scenes", "video stage work"),
    Scene("scenes", f"video run films work clips {VIDEO}"),
    Scene("frames", "video detect work --model dlib --threads 1"),
    Scene("frames", "video merge work"),
    Scene("tracks", "video track work"),
    Scene("tracks", "video score work --min-dur 0.5"),
    Scene("planned", "video cut work clips"),
    Scene("planned", "video report work"),
    Scene("films", f"video run films work clips {VIDEO}"),
    Scene("fresh", f"run photos out --model dlib {LOOSE} {EXPORT}"),
    Scene("chain grown", f"run photos out --model dlib {LOOSE} {EXPORT}"),
)
