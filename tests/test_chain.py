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

WORK = ROOT / "work"
SCRIPTS = sorted(WORK.glob("*.sh"))
pytestmark = pytest.mark.skipif(shutil.which("flock") is None, reason="needs bash and flock")


class Chain:
    """One library and the environment of its chain."""

    def __init__(self, folder: Path, **settings: str) -> None:
        self.out, self.cache = folder / "out", folder / "cache/lib.npz"
        self.logs = folder / "logs"
        clean = {k: v for k, v in os.environ.items() if k not in ("EXTEND", "WORKER", "CLUSTER")}
        self.env = {
            **clean, "SRC": str(folder / "photos"), "OUT": str(self.out), "CACHE": str(self.cache),
            "MODEL": "dlib", "MIN_FACES": "2", "PYTHON": sys.executable,
            "SORT_FACES_LOGS": str(self.logs), **settings,
        }  # fmt: skip

    def start(self) -> subprocess.Popen:
        return subprocess.Popen(
            ["bash", str(WORK / "run_photo_pipeline.sh")], env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def run(self) -> tuple[int, str]:
        chain = self.start()
        _, err = chain.communicate()
        return chain.returncode, err

    def log(self) -> str:
        return "".join(path.read_text() for path in sorted(self.logs.glob("photo_pipeline-*.log")))

    def status(self, *argv: str) -> tuple[int, str, str]:
        done = subprocess.run(
            ["bash", str(WORK / "status.sh"), *argv], env=self.env, capture_output=True, text=True
        )
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
    program.write_text("#!/bin/sh\nexec sleep 300\n")
    program.chmod(0o755)
    return Chain(tmp_path, PYTHON=str(program))


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
    assert chain.run()[0] == 2
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
    assert code != 0
    assert f"set {missing} to" in err
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def telling(tmp_path) -> Callable[..., dict[str, list[str]]]:
    """Run a chain of a program that only tells its arguments: telling(WORKER=...) -> by step."""
    program = tmp_path / "python"
    program.write_text('#!/bin/sh\nshift\necho "did $*"\n')
    program.chmod(0o755)

    def tell(**settings: str) -> dict[str, list[str]]:
        chain = Chain(tmp_path, PYTHON=str(program), **settings)
        assert chain.run() == (0, "")
        told = [line.split()[1:] for line in chain.log().splitlines() if line.startswith("did ")]
        return {words[0]: words[1:] for words in told}

    return tell


def test_the_worker_does_every_step_that_looks_at_pictures(telling) -> None:
    told = telling(WORKER="/mnt/c/python.exe", PATH_MAP="/mnt/e=E:")
    for step in ("embed", "export-swap"):
        assert told[step].count("/mnt/c/python.exe") == told[step].count("/mnt/e=E:") == 1
    assert not any("--worker" in told[step] for step in ("cluster", "refine", "dedup"))


def test_what_is_not_set_is_left_to_the_settings_file(telling) -> None:
    bare = telling(MODEL="", MIN_FACES="")
    mine = {"--model", "--min-faces", "--top-n", "--link", "--threshold", "--initial-threshold"}
    assert mine.isdisjoint(word for words in bare.values() for word in words)
    told = telling(MODEL="dlib", MIN_FACES="3", TOP_N="9", LINK="hard", THRESHOLD="0.3")
    assert told["refine"][2:] == [
        "--link",
        "hard",
        "--min-faces",
        "3",
        "--initial-threshold",
        "0.3",
    ]
    assert told["cluster"][2:] == ["--link", "hard", "--threshold", "0.3"]
    assert told["export-swap"][-2:] == ["--top-n", "9"] and "dlib" in told["export-swap"]


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
    done = subprocess.run(["shellcheck", str(script)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
