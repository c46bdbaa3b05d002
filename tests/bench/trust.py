"""Kill the tool and feed it damage, by a seed, and count what is lost, crashes or hangs.

    python tests/bench/trust.py                                # two minutes over all areas
    python tests/bench/trust.py --minutes 120 --seed 7 --jobs 8
    python tests/bench/trust.py --cases 100 --only kills       # counts in place of time
    python tests/bench/trust.py --only kills --seed 7 --case 41   # the one case, with its words
    python tests/bench/trust.py --checkout ../before --cases 100  # another sort_faces.py

Areas: `kills` cut every command short at a change in the file system (killed before it, killed in
the middle of a write, Ctrl-C, a full disk, an operation that fails) and call it again: the result
must be that of one undisturbed call. `starts` interrupt a process while it begins. All others
change one input (a photo, a cache, a manifest, a plan, a film ...) and run what reads it.

Columns: lost (something outside the outputs changed, or a file of the operator is gone), differs
(killed and called again, it gave something else), tracebacks (exit code 70 too), hangs (no end
within the time limit), leftovers, codes (another exit code than 0, 1 and where allowed 2; a full
disk that names no file), silent (a damaged file of ours gave exit code 0, no warning and another
result; no failure), MB (peak of one process; two photos at once). Exit code 1 where anything but
`silent` was counted. Every failure comes with the words that repeat it.

Case n of a seed is the same in every run. Nothing but this repository is needed; Linux only.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import importlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

os.environ |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
HERE = Path(__file__).resolve().parent
NOBODY = 65534  # user id; root may enter every folder
PIECE = 120  # px; edge of the photos that are damaged
KINDS = ("lost", "differs", "tracebacks", "hangs", "leftovers", "codes")


def load_checkout(folder: Path) -> None:
    """Make `sort_faces` the one of a checkout, for all that is imported from here on."""
    sys.path[:0] = [str(folder), str(HERE), str(HERE.parent)]
    importlib.import_module("sort_faces")
    for name in ("cluster.hierarchy", "spatial.distance", "sparse.csgraph", "optimize"):
        importlib.import_module(f"scipy.{name}")
    for name in ("hostile", "trust_worlds", "jinja2", "filelock", "PIL.Image", "pillow_heif", "av"):
        importlib.import_module(name)


@dataclass
class Verdict:
    """What became of one case."""

    area: str
    case: int
    what: str = ""
    failures: list[tuple[str, str]] = field(default_factory=list)  # (one of KINDS, words)
    silent: bool = False
    peak: float = 0.0
    words: str = ""  # all that was said, for a reader

    def fail(self, kind: str, text: str) -> None:
        self.failures.append((kind, text))


class Case:
    """One case at work: a world, its own random numbers, and what has been seen so far."""

    def __init__(self, world, area: str, seed: int, number: int) -> None:
        self.world, self.area, self.number = world, area, number
        self.rng = random.Random(f"{area} {seed} {number}")
        self.verdict = Verdict(area, number)

    def hostile(self):
        from hostile import Hostile

        return Hostile(self.rng, self.world.outside(), str(self.world.root))

    def run(self, line: str, codes: Sequence[int] = (0, 1, 2), **options):
        """Run a line of the tool and note how it ended."""
        ended = self.world.run(line, **options)
        self.verdict.peak = max(self.verdict.peak, ended.peak)
        self.verdict.words += f"$ {line}\n{ended.out}{ended.err}exit code {ended.code}\n"
        if ended.hung:
            self.verdict.fail("hangs", line)
        elif "Traceback (most" in ended.err or ended.code in (70, 99):
            self.verdict.fail("tracebacks", f"{line}: {last_of_traceback(ended.err, self.world)}")
        elif ended.code not in codes:
            self.verdict.fail("codes", f"{line}: exit code {ended.code}: {ended.told}")
        return ended

    def watch(self) -> Callable[[str], None]:
        """A function that says what was lost since this call."""
        before, theirs = self.world.bystanders(), self.world.theirs()

        def look(when: str) -> None:
            after = self.world.bystanders()
            names = sorted(k for k in {*before, *after} if before.get(k) != after.get(k))
            if names:
                self.verdict.fail("lost", f"{when}: changed outside the outputs: {names[:4]}")
            gone = sorted(theirs[sha] for sha in theirs.keys() - self.world.hashes())
            if gone:
                self.verdict.fail("lost", f"{when}: gone: {gone[:4]}")

        return look


def last_of_traceback(err: str, world) -> str:
    """`TypeError: what (where)`; of a bug that was only logged from the log."""
    if "Traceback (most" not in err:
        logs = sorted(world.logs.glob("*.log"))
        err += "".join(path.read_text("utf-8", "replace") for path in logs)
    places = re.findall(r'File "[^"]*?([^/"]+)", line (\d+), in (\S+)', err)
    ours = [place for place in places if place[0].endswith(".py")][-1:]
    tail = [
        line
        for line in err.strip().splitlines()
        if re.match(r"[\w.]+(Error|Exception|\w*)\b", line)
    ]
    told = tail[-1][:160] if tail else err.strip()[-160:]
    mine = [place for place in places if place[0] in WATCHED_FILES][-1:] or ours
    return told + "".join(f" ({file}:{line} {name})" for file, line, name in mine)


WATCHED_FILES = {"sort_faces.py", *(path.name for path in (HERE.parents[1] / "work").glob("*.py"))}

# --- kills ------------------------------------------------------------------


def kill(case: Case) -> None:
    """A command is cut short and called again; then all is as if nothing had happened."""
    from trust_worlds import HOWS, SCENES, Trouble

    world, rng, verdict = case.world, case.rng, case.verdict
    scene = SCENES[case.number % len(SCENES)]
    expected, events = undisturbed(world, scene)
    how = rng.choice(HOWS)
    at, room = 1 + int(rng.random() * events), rng.choice((0, 1, 50, 3000, 100_000))
    verdict.what = f"{scene.line} [{how} at {at} of {events}]"
    world.put(scene.state)
    look = case.watch()
    stopped = {"kill": (137,), "torn": (137, -signal.SIGXFSZ), "interrupt": (130,)}
    codes = (0, 1, *stopped.get(how, (2,)))
    first = case.run(scene.line, codes, trouble=Trouble(str(world.root), how, at, room))
    if how == "full" and first.code == 2 and not names_a_file(first.told, scene.line):
        verdict.fail("codes", f"a full disk names no file: {first.told}")
    look("after the kill")
    ended = first.code in (0, 1) or world.outputs() == expected
    finished = ended and scene.line.startswith("restore")  # once more is one more
    case.run(scene.line, (0, 1, 2) if finished else (0, 1))
    look("after the second call")
    told = world.outputs()
    names = sorted(k for k in {*expected, *told} if expected.get(k) != told.get(k))
    if names and not finished:
        more = "".join(f" {'+' if n not in expected else '-' if n not in told else '~'}{n}"
                       for n in names[:5])  # fmt: skip
        verdict.fail("differs", f"{len(names)} differ:{more}")
    left = world.leftovers()
    if left:
        verdict.fail("leftovers", ", ".join(left[:4]))


def undisturbed(world, scene) -> tuple[dict[str, str], int]:
    """(outputs, changes in the file system) of one call that nobody disturbs."""
    if scene not in world.known:
        world.put(scene.state)
        ended = world.run(scene.line)
        if ended.code not in (0, 1):
            raise SystemExit(f"trust: {scene.line}: {ended.code}\n{ended.err}")
        world.known[scene] = world.outputs(), ended.events
    return world.known[scene]


def names_a_file(told: str, line: str) -> bool:
    words = re.split(r"[\s:;]+", told.partition(": ")[2])
    return any("/" in word or "." in word.strip(".") or word in line.split() for word in words)


# --- inputs that are changed ------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """Files of a state, what may happen to them, and the lines that read them."""

    state: str
    files: str  # globs
    how: str  # a method of Hostile, or bytes
    lines: Sequence[Sequence[str]]  # one of these is run


EXPORT_AGAIN = (
    "export-swap lib.npz refined/refine_manifest.json ready --raw-manifest raw/manifest.json "
    "--candidates --min-face-short 20 --top-n 3 --out-size 128"
)
WORKER = "embed photos lib.npz --model dlib --worker python"
EMBED = "embed photos lib.npz --model dlib --enrich"
REFINE = "refine lib.npz refined --min-faces 2 --min-short 20 --min-blur 0 --min-det-score 0.1"
EXTEND = "extend lib.npz raw --refine-out refined"
CACHE_LINES = (
    ("status lib.npz", "cluster lib.npz raw --threshold 0.2"), (REFINE,), ("dedup lib.npz",),
    (EXTEND,), (EXPORT_AGAIN,), ("report raw",), ("verify ready",), (f"{EMBED} --prune",),
    ("enrich lib.npz --model dlib",), ("report ready", "status ready"),
)  # fmt: skip
TREE_LINES = (
    ("cluster lib.npz raw --threshold 0.2",), ("cluster lib.npz raw", "report raw"), (EXTEND,),
    (f"{REFINE} --initial-threshold 0.2",), (EXPORT_AGAIN,), ("report raw",), ("report refined",),
    ("status raw", "status refined"),
)  # fmt: skip
CORPUS_LINES = (
    ("consolidate ready --review review",), ("era split ready faceset_001 --min-faces 1",),
    ("optimize ready",), ("verify ready --fix",), ("report ready", "status ready"),
    ("occlusion apply ready",), ("occlusion report ready",),
)  # fmt: skip
RUN_LINES = (
    ("restore ready",), ("restore ready 1",), ("verify ready --no-faces",), ("optimize ready",),
    ("restore ready", "restore ready"), ("report ready",),
)  # fmt: skip
VIDEO_RUN = "video run films work clips --model dlib --min-dur 0.5"
VIDEO_LINES = (
    ("video scan films work",), ("video scenes work",), ("video stage work",),
    ("video merge work",), ("video detect work --model dlib",), ("video track work",),
    ("video report work",),
    ("video score work --min-dur 0.5", "video cut work clips"), ("video cut work clips",),
    (VIDEO_RUN,), ("status work",),
)  # fmt: skip
PLANS = ("consolidate ready --review review --threads 1", "optimize ready --threads 1",
         "era split ready Zoë --threads 1", "occlusion apply ready")  # fmt: skip
READINGS: dict[str, Sequence[Reading]] = {
    "caches": (Reading("sorted", "lib.npz", "npz", CACHE_LINES),),
    "journals": (
        Reading("torn", "lib.npz.journal", "lines",
                (("status lib.npz", EMBED), ("dedup lib.npz",), ("cluster lib.npz raw",),
                 ("enrich lib.npz --model dlib",), (REFINE,), (f"{EMBED} --prune",))),
    ),
    "manifests": (
        Reading("grown", "raw/manifest.json refined/refine_manifest.json", "json", TREE_LINES),
        Reading("sorted", "ready/manifest.json ready/*/manifest.json", "json", CORPUS_LINES),
        Reading("sorted", "ready/manifest.json ready/*/manifest.json", "json", ((EXPORT_AGAIN,),)),
        Reading("maintained", "ready/manifest.json ready/*/manifest.json ready/_*/*/manifest.json",
                "json", (*CORPUS_LINES, *RUN_LINES)),
    ),
    "bundles": (
        Reading("sorted", "ready/*/*.fsz ready/*/*.txt ready/*/faces/*.png ready/*/previews/*",
                "bytes", (*CORPUS_LINES, (EXPORT_AGAIN,))),
    ),
    "runs": (
        Reading("maintained", "ready/_runs/*/journal.json", "json", RUN_LINES),
        Reading("maintained", "ready/_runs/*/*.json ready/_runs/*/before/*/manifest.json", "json",
                RUN_LINES),
    ),
    "scores": (
        Reading("corpus", "ready/_scores/*.jsonl", "lines", CORPUS_LINES),
        Reading("scored", "ready/_scores/*.jsonl", "lines", (*CORPUS_LINES, (EXPORT_AGAIN,))),
        Reading("sorted", "lib.duplicates.json", "json", (("dedup lib.npz",), ("report ready",))),
    ),
    "reports": (
        Reading("reported", "ready-report/*.json ready-report/*.html ready-report/*/*", "bytes",
                (("report ready",), ("verify ready",), ("embed . lib.npz --model dlib",))),
    ),
    "queues": (
        Reading("queue", "lib.npz.queue/*/results.jsonl", "lines", ((WORKER,),)),
        Reading("queue", "lib.npz.queue/*/*.json lib.npz.queue/*/run", "json",
                ((WORKER,), ("dml_worker",))),
    ),
    "video work": (
        Reading("filmed", "work/*.json work/scenes/*.json", "json", VIDEO_LINES),
        Reading("filmed", "work/*.jsonl", "lines", VIDEO_LINES),
        Reading("filmed", "work/*.npz", "npz", VIDEO_LINES),
    ),
    "films": (
        Reading("films", "films/*", "bytes",
                (("video scan films work", "video scenes work"), (VIDEO_RUN,))),
    ),
}  # fmt: skip


def read(case: Case) -> None:
    """One file is changed, and what reads it is run."""
    world, rng, verdict = case.world, case.rng, case.verdict
    readings = READINGS[case.area]
    reading = readings[case.number % len(readings)]
    world.put(reading.state)
    found = {path for glob in reading.files.split(" ") for path in world.root.glob(glob)}
    path = rng.choice(sorted(path for path in found if path.is_file()))
    lines = rng.choice(reading.lines)
    name = path.relative_to(world.root).as_posix()
    verdict.what = f"{name}: {'; '.join(lines)}"
    data = path.read_bytes()
    other = changed(case, reading.how, data)
    path.write_bytes(other)
    look = case.watch()
    codes = (0, 1, 2, 130)  # 130: a worker whose run is over
    ends = [case.run(line, codes[: 4 if line == "dml_worker" else 3]) for line in lines]
    look("after reading it")
    fine = all(ended.code == 0 and not warned(ended.err) for ended in ends)
    if fine and case.area != "films" and other != data:
        told = unlike(world, [ended.out for ended in ends], {name})
        verdict.silent = told != undamaged(world, reading.state, lines, {name})


def changed(case: Case, how: str, data: bytes) -> bytes:
    """A file after damage of a kind."""
    from hostile import damaged

    if how == "bytes":
        return damaged(data, case.rng)
    return getattr(case.hostile(), how)(data)


def warned(err: str) -> bool:
    return any(re.match(r"(warning|error|sort_faces)", line) for line in err.splitlines())


def unlike(world, outs: list[str], without: set[str]) -> str:
    """All that runs gave, as a text to compare."""
    outputs = {name: what for name, what in world.outputs().items() if name not in without}
    return json.dumps(
        [[re.sub(r"\d+\.\d+ s|\d{4}-\d\d-\d\dT[\d:+]+", "", o) for o in outs], outputs]
    )


def undamaged(world, state: str, lines: Sequence[str], without: set[str]) -> str:
    key = (state, tuple(lines), tuple(without))
    if key not in world.known:
        world.put(state)
        world.known[key] = unlike(world, [world.run(line).out for line in lines], without)
    return world.known[key]


def plan(case: Case) -> None:
    """A plan, or the answers of a review, is changed and carried out."""
    world, rng, verdict = case.world, case.rng, case.verdict
    line = PLANS[case.number % len(PLANS)]
    world.put("corpus")
    answers = rng.random() < 0.3
    if answers:
        line, name = PLANS[0], "review/pairs.json"
        world.run(f"{line} --dry-run")
    else:
        name = "plan.json"
        world.run(f"{line} --dry-run --plan {name}")
    path = world.root / name
    path.write_bytes(case.hostile().json(path.read_bytes()))
    verdict.what = f"{name}: {line}"
    look = case.watch()
    case.run(f"{line} --accept {name}" if answers else f"{line} --apply {name}")
    look("after carrying it out")
    case.run("verify ready --no-faces")
    look("after looking at it")


# --- photos -----------------------------------------------------------------


def photo(case: Case) -> None:
    """A photo is damaged, claims a size, is a bomb, or was taken at no possible time."""
    from hostile import ODD_TIMES

    world, rng, verdict = case.world, case.rng, case.verdict
    world.put("few photos")
    data, suffix, what = odd_photo(case)
    name = f"photos/{2000 + case.number % 20}/odd.{suffix}"
    world.write(name, data)
    if case.number % 10 == 3:
        when = rng.choice(ODD_TIMES)
        what += f", time stamp {when}"
        with contextlib.suppress(OSError, OverflowError):  # this disk cannot say so
            os.utime(world.root / name, ns=(when, when))
    verdict.what = f"{name}: {what}"
    look = case.watch()
    case.run("embed photos lib.npz --model dlib --enrich", (0, 1))
    case.run(rng.choice(("cluster lib.npz raw", "dedup lib.npz", "status lib.npz")), (0, 1))
    if rng.random() < 0.2:
        case.run("embed photos lib.npz --model dlib", (0, 1))
    look("after embed")


def odd_photo(case: Case) -> tuple[bytes, str, str]:
    """(file, suffix, what was done to it)."""
    from hostile import FORMATS, bomb, claimed, damaged, encoded, odd_exif
    from trust_worlds import demo_group

    rng, group = case.rng, demo_group()
    if case.number % 40 == 7:
        data, suffix = bomb(rng)
        return data, suffix, f"a bomb of {len(data)} bytes"
    kind = rng.choice(FORMATS)
    left = rng.randrange(group.shape[1] - PIECE)
    exif = odd_exif(rng) if rng.random() < 0.3 else b""
    data = encoded(group[260 : 260 + PIECE, left : left + PIECE], kind, exif)
    if case.number % 10 == 3 or (exif and rng.random() < 0.5):
        return data, kind, "whole, EXIF odd" if exif else "whole"
    if rng.random() < 0.2:
        return claimed(data, kind, rng), kind, "claims another size"
    suffix = kind if rng.random() < 0.9 else rng.choice(FORMATS)
    return damaged(data, rng), suffix, f"damaged {kind}"


def prune(case: Case) -> None:
    """Photos that cannot be reached are not gone: only what was seen to be gone is forgotten."""
    import trust_worlds

    world, rng, verdict = case.world, case.rng, case.verdict
    world.put("embedded")
    known = trust_worlds.sf.known_paths(trust_worlds.sf.load_cache(world.root / "lib.npz"))
    photos = world.root / "photos"
    folder = rng.choice(sorted(path for path in photos.iterdir() if path.is_dir()))
    mode = rng.choice((0o000, 0o400, 0o600, 0o100, 0o300, 0o500))
    gone = rng.choice(sorted(path for path in photos.glob("*/*") if path.parent != folder))
    gone.unlink()
    kept = {path for path in known if path != str(gone)}
    verdict.what = f"{folder.name} has mode {mode:o}, {gone.name} is gone"
    user = 0
    if os.geteuid() == 0:
        user = NOBODY
        give_to(user, world)
    look = case.watch()
    folder.chmod(mode)
    case.run("embed photos lib.npz --model dlib --threads 1 --prune", (0, 1), user=user)
    folder.chmod(0o755)
    look("after embed")
    left = set(trust_worlds.sf.known_paths(trust_worlds.sf.load_cache(world.root / "lib.npz")))
    if kept - left:
        verdict.fail("lost", f"forgotten: {sorted(kept - left)[:3]}")
    if str(gone) in left:
        verdict.fail("differs", f"{gone} is still known")


def give_to(user: int, world) -> None:
    """Let a user own the world and its logs."""
    for place in (world.place.parent, world.place):
        place.chmod(0o755)
    for top in (world.root, world.logs):
        os.chown(top, user, user)
        for path in top.rglob("*"):
            os.chown(path, user, user, follow_symlinks=False)


# --- what lies at a place it should not -------------------------------------

LINK_LINES = (
    ("cluster lib.npz raw --threshold 0.2",), (f"{REFINE} --initial-threshold 0.2",), (EXTEND,),
    (EXPORT_AGAIN,), ("optimize ready", "verify ready --fix"), ("report ready", "report raw"),
    ("consolidate ready --review review --edge 0.1",), ("occlusion apply ready",),
    ("era split ready faceset_001 --min-faces 1", "restore ready"),
)  # fmt: skip


def link(case: Case) -> None:
    """A folder or file of an output is a link that leads outside, to the very same files."""
    world, rng, verdict = case.world, case.rng, case.verdict
    world.put("grown")
    tops = [world.root / name for name in ("raw", "refined", "ready")]
    found = sorted(p for top in tops for p in top.rglob("*") if not p.name.startswith(".sort"))
    path = rng.choice([p for p in found if p.is_dir()] if rng.random() < 0.7 else found)
    name = path.relative_to(world.root).as_posix()
    target = world.root / "outside" / f"moved {path.name}"
    shutil.move(path, target)
    path.symlink_to(os.path.relpath(target, path.parent) if rng.random() < 0.5 else target)
    lines = rng.choice(LINK_LINES)
    verdict.what = f"{name} is a link: {'; '.join(lines)}"
    listed = world.root / "theirs.json"  # some of them lie outside now
    names = [n for n in json.loads(listed.read_text()) if f"{n}/".find(f"{name}/") != 0]
    listed.write_text(json.dumps(names))
    look = case.watch()
    for line in lines:
        case.run(line)
        look(f"after {line}")


LOCKS = {
    "lib.npz.lock": "embed photos lib.npz --model dlib",
    "lib.npz.lock.holder": "enrich lib.npz --model dlib",
    "raw/.sort_faces.lock": "cluster lib.npz raw --threshold 0.2",
    "refined/.sort_faces.lock": REFINE,
    "ready/.sort_faces.lock": "optimize ready",
    "ready/.sort_faces.lock.holder": EXPORT_AGAIN,
}


def lock(case: Case) -> None:
    """Something else lies where a lock has to lie."""
    world, rng, verdict = case.world, case.rng, case.verdict
    world.put("grown")
    name = sorted(LOCKS)[case.number % len(LOCKS)]
    path = world.root / name
    path.unlink(missing_ok=True)
    what = rng.choice(("folder", "full folder", "link", "dangling", "loop", "pipe", "text"))
    if what.endswith("folder"):
        path.mkdir()
        if what == "full folder":
            (path / "mine.txt").write_text("mine\n")
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "text":
        path.write_bytes(b"\xff" * 5000)
    else:
        targets = {"link": world.root / "outside/letter.txt", "loop": path}
        path.symlink_to(targets.get(what, world.root / "outside/nowhere/file"))
    verdict.what = f"{name} is a {what}"
    look = case.watch()
    case.run(LOCKS[name], (0, 1))
    look("after the run")


# --- starts -----------------------------------------------------------------

SITE = """
import atexit, os, signal, sys
ours, at = os.environ["TRUST_SCRIPT"], int(os.environ["TRUST_AT"])
how, told = int(os.environ["TRUST_SIGNAL"]), os.environ["TRUST_TOLD"]
early = {"__future__", "signal", "_signal", "enum", "os", "sys", "types", "functools", "operator"}
begun, seen = False, 0
def watch(event, args):
    global begun, seen
    if event not in ("import", "open", "exec", "compile", "os.listdir", "os.mkdir"):
        return
    if not begun:
        if event == "import" and args[0] not in early:
            frame = sys._getframe().f_back  # none while the script is compiled
            begun = frame is not None and frame.f_code.co_filename == ours
        if not begun:
            return
    seen += 1
    if seen == at:
        os.kill(os.getpid(), how)
def tell():
    number = seen
    with open(told, "w") as stream:
        stream.write(str(number))
if not at:
    atexit.register(tell)
sys.addaudithook(watch)
"""
START = "status lib.npz"


def start(case: Case) -> None:
    """A process is interrupted in its first moments: exit code 130 or 143, and one line."""
    world, rng, verdict = case.world, case.rng, case.verdict
    how = rng.choice((signal.SIGINT, signal.SIGTERM))
    if "start" not in world.known:
        world.put("plain")
        (world.place / "states" / "site").mkdir(exist_ok=True)
        (world.place / "states" / "site" / "sitecustomize.py").write_text(SITE)
        begin(world, 0, how)
        usual = begin(world, -1, how)
        world.known["start"] = int((world.states / "site" / "told").read_text()), usual
    world.put("plain")
    events, usual = world.known["start"]
    at = 1 + int(rng.random() ** 2 * events)
    verdict.what = f"{how.name} at moment {at} of {events}"
    code, out, err = begin(world, at, how)
    verdict.words = f"{out}{err}exit code {code}\n"
    ended_before = (code, out) == usual[:2]
    if "Traceback (most" in err or "KeyboardInterrupt" in err:
        verdict.fail("tracebacks", f"{how.name}: {last_of_traceback(err, world)}")
    elif code is None:
        verdict.fail("hangs", how.name)
    elif code != 128 + how and not ended_before:
        verdict.fail("codes", f"{how.name}: exit code {code}: {err.strip()[-200:]}")
    elif not ended_before and len(err.strip().splitlines()) != 1:
        verdict.fail("codes", f"{how.name}: not one line: {err.strip()[-200:]!r}")


def begin(world, at: int, how: int) -> tuple[int | None, str, str]:
    """(exit code, stdout, stderr) of a real process that gets a signal at a moment."""
    script = importlib.import_module("sort_faces").__file__
    site = world.states / "site"
    told = {"TRUST_SCRIPT": script, "TRUST_AT": str(at), "TRUST_SIGNAL": str(int(how)),
            "TRUST_TOLD": str(site / "told"), "PYTHONPATH": str(site),
            "SORT_FACES_LOGS": str(world.logs)}  # fmt: skip
    try:
        done = subprocess.run(
            [sys.executable, script, *START.split(" "), "-q"], cwd=world.root, text=True,
            env={**os.environ, **told}, capture_output=True, timeout=world.limit, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return None, "", ""
    return done.returncode, done.stdout, done.stderr


# --- all of it --------------------------------------------------------------

AREAS: dict[str, tuple[Callable[[Case], None], float]] = {  # (one case, share of the time)
    "kills": (kill, 6),
    "starts": (start, 1),
    "photos": (photo, 4),
    "prune": (prune, 0.5),
    "links": (link, 1),
    "locks": (lock, 0.5),
    "plans": (plan, 1),
    **dict.fromkeys(READINGS, (read, 1)),
}
worlds: dict[str, object] = {}  # the one of this process


def settle(base: str, places, limit: float) -> None:
    """Begin a process that works on cases: it gets a place of its own."""
    from trust_worlds import World

    signal.signal(signal.SIGINT, lambda *_: None)  # ignored it would be in all it starts, too
    worlds["mine"] = World(Path(base) / f"{places.get():03d}", limit)


def work(area: str, seed: int, number: int) -> dict:
    """One case; its verdict as plain values."""
    case = Case(worlds["mine"], area, seed, number)
    try:
        AREAS[area][0](case)
    except Exception as error:
        raise RuntimeError(f"the bench itself failed on --only '{area}' --case {number}") from error
    return asdict(case.verdict)


class Pool:
    """Processes that share what this one has loaded and remembers."""

    def __init__(self, base: Path, jobs: int, limit: float) -> None:
        context = multiprocessing.get_context("fork")
        places = context.SimpleQueue()
        for number in range(jobs):
            places.put(number)
        self.jobs = jobs
        self.pool = concurrent.futures.ProcessPoolExecutor(
            jobs, context, settle, (base, places, limit)
        )

    def verdicts(self, area: str, seed: int, numbers: Iterator[int]) -> Iterator[Verdict]:
        """Verdicts of cases as they come; not more are begun than can be worked on."""
        waiting: set[concurrent.futures.Future] = set()
        for number in numbers:
            waiting.add(self.pool.submit(work, area, seed, number))
            if len(waiting) > self.jobs:
                done, waiting = concurrent.futures.wait(
                    waiting, return_when=concurrent.futures.FIRST_COMPLETED
                )
                yield from (Verdict(**one.result()) for one in done)
        yield from (Verdict(**one.result()) for one in concurrent.futures.as_completed(waiting))


def counted(args: argparse.Namespace, share: float) -> Iterator[int]:
    """The numbers of the cases of an area: one, so many, or until its time is over."""
    if args.case is not None:
        yield args.case
        return
    end = time.monotonic() + args.minutes * 60 * share
    number = 0
    while number < args.cases if args.cases else time.monotonic() < end:
        yield number
        number += 1


def row(area: str, verdicts: Sequence[Verdict], seconds: float) -> dict:
    """A line of the table."""
    counts = {kind: sum(any(k == kind for k, _ in v.failures) for v in verdicts) for kind in KINDS}
    silent = sum(verdict.silent for verdict in verdicts)
    peak = round(max((verdict.peak for verdict in verdicts), default=0))
    return {"area": area, "cases": len(verdicts), **counts, "silent": silent, "MB": peak,
            "s": round(seconds)}  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    p = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    p.add_argument("--seed", type=int, default=1)
    p.add_argument("--minutes", type=float, default=2.0, help="spread over the areas")
    p.add_argument(
        "--cases", type=int, default=0, metavar="N", help="of each area, without a clock"
    )
    p.add_argument("--only", choices=list(AREAS), action="append", metavar="AREA",
                   help=f"one of {', '.join(AREAS)}; repeatable")  # fmt: skip
    p.add_argument("--case", type=int, metavar="N", help="this one alone, with its words")
    p.add_argument("--checkout", type=Path, default=HERE.parents[1], metavar="DIR",
                   help="whose sort_faces.py")  # fmt: skip
    p.add_argument("--limit", type=float, default=60.0, metavar="S", help="longer is a hang")
    p.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), metavar="N")
    args = p.parse_args(argv)
    areas = args.only or list(AREAS)
    if args.case is not None and len(areas) != 1:
        p.error("--case needs one --only AREA")
    load_checkout(args.checkout.resolve())
    base = Path(tempfile.gettempdir()) / f"trust{os.getpid():07d}"
    base.mkdir()
    try:
        return bench(args, areas, base)
    finally:
        shutil.rmtree(base, ignore_errors=True)


def bench(args: argparse.Namespace, areas: Sequence[str], base: Path) -> int:
    """Run the areas one after the other and tell."""
    from common import machine, print_table

    jobs = 1 if args.case is not None else args.jobs
    warm_up(areas if jobs > 1 else (), base)
    pool = Pool(base, jobs, args.limit)
    whole, rows = sum(AREAS[area][1] for area in areas), []
    print(f"{machine()}, seed {args.seed}, {args.checkout.resolve()}", flush=True)
    try:
        for area in areas:
            begin_at, verdicts = time.monotonic(), []
            numbers = counted(args, AREAS[area][1] / whole)
            for verdict in pool.verdicts(area, args.seed, numbers):
                verdicts.append(verdict)
                tell(verdict, args)
            rows.append(row(area, verdicts, time.monotonic() - begin_at))
    finally:
        pool.pool.shutdown(cancel_futures=True)
    rows.append(total(rows))
    print_table("what killing and damaging did", rows)
    return 1 if any(rows[-1][kind] for kind in KINDS) else 0


def tell(verdict: Verdict, args: argparse.Namespace) -> None:
    """A line for each failure, with what repeats it; of a case that was asked for, all it said."""
    again = f"--only '{verdict.area}' --seed {args.seed} --case {verdict.case}"
    for kind, text in verdict.failures:
        print(f"{kind}: {again}: {verdict.what}: {text}", flush=True)
    if args.case is not None:
        print(f"{verdict.what}\n{verdict.words}silent {verdict.silent}")


def total(rows: Sequence[dict]) -> dict:
    numbers = {key: sum(row[key] for row in rows) for key in rows[0] if key not in ("area", "MB")}
    return {"area": "all", **numbers, "MB": max(row["MB"] for row in rows)} | {"s": numbers["s"]}


def warm_up(areas: Sequence[str], base: Path) -> None:
    """Load the engine, and let it see once what several processes will ask it."""
    import trust_worlds

    trust_worlds.use_remembering_engine()
    world = trust_worlds.World(base / "warm")
    wanted = {state for area in areas for state in states_of(area)}
    for state in sorted(wanted):
        world.put(state)
    shutil.rmtree(world.place)


def states_of(area: str) -> set[str]:
    """The states an area begins in."""
    from trust_worlds import SCENES

    if area in READINGS:
        return {reading.state for reading in READINGS[area]}
    if area == "kills":
        return {scene.state for scene in SCENES}
    return {"links": {"grown"}, "locks": {"grown"}, "plans": {"corpus"}, "prune": {"embedded"},
            "photos": {"few photos"}, "starts": {"plain"}}[area]  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
