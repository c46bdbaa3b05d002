"""The overnight chain: a first run, a run that extends, a second chain at once, its status."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from conftest import ROOT
from test_worker import make_photos

import sort_faces as sf

WORK = ROOT / "work"
SCRIPTS = sorted(WORK.glob("*.sh"))
pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="needs bash and flock")


class Chain:
    """One library and the environment of its chain."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.folder, self.out, self.cache = folder, folder / "out", folder / "cache/lib.npz"
        self.logs = folder / "logs"
        clean = {k: v for k, v in os.environ.items() if k not in ("EXTEND", "WORKER", "CLUSTER")}
        self.env = {
            **clean, "SRC": str(folder / "photos"), "OUT": str(self.out), "CACHE": str(self.cache),
            "MODEL": "dlib", "MIN_FACES": "2", "PYTHON": sys.executable,
            "SORT_FACES_LOGS": str(self.logs), **settings,
        }  # fmt: skip

    def start(self, script: str = "run_photo_pipeline.sh") -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", str(WORK / script)], env=self.env, text=True, cwd=self.folder,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def run(self, *script: str) -> tuple[int, str]:
        chain = self.start(*script)
        _, err = chain.communicate()
        return chain.returncode, err

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.logs.glob("photo_pipeline-*.log")))

    def status(self, *argv: str) -> tuple[int, str, str]:
        done = subprocess.run(
            ["bash", str(WORK / "status.sh"), *argv], env=self.env, cwd=self.folder,
            capture_output=True, text=True,
        )  # fmt: skip
        return done.returncode, done.stdout, done.stderr

    def state(self) -> str:
        code, out, err = self.status()
        assert code == 0, err
        return next(line for line in out.splitlines() if line.startswith("state"))

    def snapshot(self) -> dict[str, object]:
        """Every file of the results; of manifests, which tell of the run too, who is where."""
        files = {}
        for path in self.out.rglob("*"):
            if path.is_file() and path.suffix != ".lock":
                files[str(path.relative_to(self.out))] = path.read_bytes()
        for name in [name for name in files if name.endswith("manifest.json")]:
            manifest = json.loads(files[name])
            parts = ("persons", "singletons", "facesets", "candidates", "placed")
            files[name] = {part: manifest.get(part) for part in parts}
        return files


@pytest.fixture
def sleeping(tmp_path) -> Chain:
    """A chain whose first step sleeps."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\necho $$ >"$0.part"\nmv "$0.part" "$0.pid"\nexec sleep 300\n')
    program.chmod(0o755)
    chain = Chain(tmp_path, PYTHON=str(program))
    chain.step = Path(f"{program}.pid")  # whose number it is
    return chain


def steps(log: str) -> list[str]:
    """Names of the steps a log begins, in order."""
    begun = [line for line in log.splitlines() if line.startswith("===") and "begin" in line]
    return [line.split()[3].rstrip(":") for line in begun]


def test_first_run_then_extend(tmp_path) -> None:
    make_photos(tmp_path / "photos", 18, 420)
    chain = Chain(tmp_path)
    code, err = chain.run()
    assert (code, err) == (0, ""), chain.log()
    assert steps(chain.log()) == ["chain", "embed", "cluster", "refine", "dedup", "export-swap"]
    assert chain.state() == "state    ended"
    first = chain.snapshot()
    assert len(first["facesets_swap_ready/manifest.json"]["facesets"]) >= 3
    assert chain.run() == (0, "")
    assert steps(chain.log())[6:] == ["chain", "embed", "extend", "dedup", "export-swap"]
    assert chain.snapshot() == first


def test_a_model_that_only_the_worker_has(mini, tmp_path) -> None:
    """The chain runs to its end, the export too, without a model on this side."""
    make_photos(tmp_path / "photos", 12, 420)
    there = tmp_path / "there"
    shutil.copytree(mini, there / ".insightface/models/nightpack")
    worker = tmp_path / "python-there"
    worker.write_text(f'#!/bin/sh\nHOME="{there}" exec "{sys.executable}" "$@"\n')
    worker.chmod(0o755)
    here = tmp_path / "home"
    here.mkdir()
    chain = Chain(tmp_path, MODEL="nightpack", WORKER=str(worker), HOME=str(here))
    assert chain.run() == (0, ""), chain.log()
    assert steps(chain.log())[-1] == "export-swap"
    assert len(list((tmp_path / "out/facesets_swap_ready").glob("faceset_*/*.fsz"))) >= 2
    assert not list(here.rglob("*.onnx"))


def test_step_that_fails_ends_the_chain(tmp_path) -> None:
    chain = Chain(tmp_path)  # without photos
    code, err = chain.run()
    assert code == 2
    assert err.startswith("sort_faces embed: ") and err.count("\n") == 1, (
        "the line that explains it"
    )
    assert "embed: exit 2" in chain.log()
    assert steps(chain.log()) == ["chain", "embed"]
    code, out, _ = chain.status()
    assert code == 0
    assert "chain: exit 2" in out
    assert "state    ended" in out


@pytest.mark.parametrize("missing", ["SRC", "OUT"])
def test_settings_that_are_required(tmp_path, missing: str) -> None:
    chain = Chain(tmp_path)
    del chain.env[missing]
    code, err = chain.run()
    assert code == 2
    assert err.startswith(f"run_photo_pipeline: set {missing} to") and err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def telling(tmp_path) -> Callable[..., dict[str, list[str]]]:
    """Run a chain of a program that only tells its arguments: telling(WORKER=...) -> by step."""
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\nimport json, os, sys\ntold = open(os.environ['TOLD'], 'a')\n"
        "print(json.dumps(sys.argv[2:]), file=told)\n"
    )
    program.chmod(0o755)
    told = tmp_path / "told.jsonl"

    def tell(script: str = "run_photo_pipeline.sh", **settings: str) -> dict[str, list[str]]:
        told.unlink(missing_ok=True)
        chain = Chain(tmp_path, PYTHON=str(program), TOLD=str(told), **settings)
        assert chain.run(script) == (0, "")
        every = [json.loads(line) for line in told.read_text().splitlines()]
        return {words[0]: words[1:] for words in every}

    return tell


def test_the_worker_does_every_step_that_looks_at_pictures(telling) -> None:
    told = telling(WORKER="/mnt/c/python.exe", PATH_MAP="/mnt/e=E:")
    for step in ("embed", "export-swap"):
        assert {"--worker=/mnt/c/python.exe", "--path-map=/mnt/e=E:"} <= set(told[step])
    assert not any("--worker" in " ".join(told[step]) for step in ("cluster", "refine", "dedup"))


def test_what_is_not_set_is_left_to_the_settings_file(telling) -> None:
    bare = telling(MODEL="", MIN_FACES="")
    mine = {"--model", "--min-faces", "--top-n", "--link", "--threshold", "--initial-threshold"}
    assert mine.isdisjoint(word.split("=")[0] for words in bare.values() for word in words)
    told = telling(MODEL="dlib", MIN_FACES="3", TOP_N="9", LINK="hard", THRESHOLD="0.3")
    assert told["refine"][:-3] == ["--link=hard", "--min-faces=3", "--initial-threshold=0.3"]
    assert told["cluster"][:-3] == ["--link=hard", "--threshold=0.3"]
    assert {"--top-n=9", "--model=dlib"} <= set(told["export-swap"])


def understood(told: dict[str, list[str]], command: str) -> object:
    """What the tool makes of the arguments a step was given."""
    return sf.build_parser().parse_args([command, *told[command]])


NAMES = ("two\nlines", "ends in one\n", "-v", "--json", " blank ", "日本 ü", "a'b\"c$(d)`e`\\", "*")


def test_photo_folders_may_have_any_name(telling) -> None:
    """Two lines, a dash first, marks of the shell: each reaches the tool as it is."""
    told = telling(SRC=":".join(NAMES), OUT="-out", CACHE="-cache.npz", MODEL="-m")
    args = understood(told, "embed")
    assert [str(path) for path in args.sources] == list(NAMES)
    assert (str(args.cache), args.model) == ("-cache.npz", "-m")
    assert str(understood(told, "cluster").out) == "-out/raw_full"
    args = understood(told, "export-swap")
    assert str(args.raw_manifest) == "-out/raw_full/manifest.json"
    assert str(args.out) == "-out/facesets_swap_ready"


@pytest.mark.parametrize("name", NAMES)
def test_the_folders_of_a_video_chain_may_have_any_name(telling, name: str) -> None:
    told = telling(
        "run_video_pipeline.sh",
        **dict.fromkeys(("WORK", "INPUT_DIR", "OUTPUT_DIR", "IDENTITY", "CORPUS"), name),
    )
    args = sf.build_parser().parse_args(["video", *told["video"]])
    places = (args.input, args.work, args.out, *args.identity, args.corpus)
    assert [str(path) for path in places] == [name] * 5


def test_a_colon_in_the_name_of_a_folder_separates_nothing(telling, tmp_path) -> None:
    (tmp_path / "12:30: a").mkdir()
    for src, folders in (("12:30: a", ["12:30: a"]), (":a::b:", ["a", "b"])):
        assert [str(path) for path in understood(telling(SRC=src), "embed").sources] == folders


def test_a_name_forges_no_line_of_the_log(telling, tmp_path) -> None:
    telling(SRC="a\n=== 2026-01-01 00:00:00 chain: exit 1")
    assert Chain(tmp_path).log().count("\n=== 2026-01-01") == 0


def test_further_options_are_words_as_in_a_shell(telling, tmp_path) -> None:
    told = telling(EMBED_ARGS="--tiles\n--exclude 'a  b' --exclude=\"c d\"")
    args = understood(told, "embed")
    assert args.tiles and args.exclude == ["a  b", "c d"]
    code, err = Chain(tmp_path, EMBED_ARGS="--exclude 'a b").run()
    assert code == 2 and err.startswith("run_photo_pipeline: EMBED_ARGS=") and err.count("\n") == 1


def test_what_the_chain_makes_is_for_its_owner_alone(telling, tmp_path) -> None:
    old = os.umask(0o022)
    try:
        telling()
        telling("run_video_pipeline.sh", WORK=str(tmp_path / "work"), INPUT_DIR="i", OUTPUT_DIR="o")
    finally:
        os.umask(old)
    made = [tmp_path / name for name in ("logs", "cache", "work")]
    made += [path for folder in made for path in folder.rglob("*")]
    assert len(made) == 3 + 4
    assert [path for path in made if path.stat().st_mode & 0o077] == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"EXTEND": "maybe"}, "EXTEND=maybe is neither yes nor no"),
        ({"SRC": "::"}, "SRC='::' names no folder"),
        ({"PATH": "/no where"}, "needs flock"),
        ({"SORT_FACES_LOGS": "file/logs"}, "file"),
        ({"CACHE": "file/x.npz"}, "file"),
        ({"CACHE": "taken"}, "taken.chain.lock: cannot be written"),
    ],
    ids=lambda value: "" if isinstance(value, str) else "=".join(*value.items()),
)
def test_a_setting_that_cannot_be_is_one_line(tmp_path, settings: dict, words: str) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "taken.chain.lock").mkdir()
    if "PATH" in settings:  # everything but flock
        (tmp_path / "bin").mkdir()
        for name in ("bash", "dirname", "xargs", "mkdir", "date"):
            (tmp_path / "bin" / name).symlink_to(shutil.which(name))
        settings = {"PATH": str(tmp_path / "bin")}
    code, err = Chain(tmp_path, **settings).run()
    assert code == 2 and words in err and err.count("\n") == 1, err


def test_cdpath_of_the_operator_does_not_lead_astray(tmp_path, telling) -> None:
    """`cd work/..` prints where it went when it found that by CDPATH."""
    (tmp_path / "work").symlink_to(WORK)
    chain = Chain(tmp_path, CDPATH=str(tmp_path))
    done = subprocess.run(["bash", "work/status.sh"], env=chain.env | {"SORT_FACES_LOGS": ""},
                          cwd=tmp_path, capture_output=True, text=True)  # fmt: skip
    assert done.stderr.count("\n") <= 1


@pytest.mark.parametrize("folder", ["a=1", "-v", "two\nlines", "*"])
def test_status_of_logs_in_any_folder_and_the_youngest_of_them(
    telling, tmp_path, folder: str
) -> None:
    telling(SORT_FACES_LOGS=folder)
    [log] = (tmp_path / folder).iterdir()
    later = log.with_name("photo_pipeline-2000-01-01.log")
    shutil.copy(log, later)
    os.utime(log, (1, 1))
    code, out, err = Chain(tmp_path, SORT_FACES_LOGS=folder).status()
    assert (code, err) == (0, "") and "state    ended" in out
    assert out.startswith(f"log      {folder}/{later.name}\n")


def test_second_chain_refuses_and_a_dead_one_is_told(sleeping) -> None:
    chain = sleeping.start()
    try:
        limit = time.monotonic() + 20
        while "embed: begin" not in sleeping.log() and time.monotonic() < limit:
            time.sleep(0.05)
        assert sleeping.state() == f"state    running (process {chain.pid})"
        code, err = sleeping.run()
        assert code == 2
        assert "running already" in err
        assert err.count("\n") == 1
        assert sleeping.state().startswith("state    running")
    finally:
        os.killpg(chain.pid, signal.SIGKILL)  # the chain and its sleep: a session of their own
        chain.communicate()
    assert sleeping.state().startswith("state    dead")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_chain_that_is_told_to_stop_takes_its_step_along(
    sleeping, number: int, code: int
) -> None:
    """And says so: neither goes on unseen, nor has it ended well."""
    chain = sleeping.start()
    limit = time.monotonic() + 20
    while not sleeping.step.exists() and time.monotonic() < limit:
        time.sleep(0.05)
    step = int(sleeping.step.read_text())
    chain.send_signal(number)
    chain.communicate(timeout=90)
    assert chain.returncode == code
    with pytest.raises(ProcessLookupError):
        os.kill(step, 0)
    assert f"chain: exit {code}" in sleeping.log() and sleeping.state() == "state    ended"


def test_status_without_a_log(tmp_path) -> None:
    chain = Chain(tmp_path)
    code, out, err = chain.status()
    assert (code, out) == (2, "")
    assert "no log" in err
    assert chain.status(str(tmp_path / "none.log"))[0] == 2


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_sound(script: Path) -> None:
    subprocess.run(["bash", "-n", str(script)], check=True)
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed; bash -n is content")
    check = ["shellcheck", "-x", str(script)]
    done = subprocess.run(check, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
