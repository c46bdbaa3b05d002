"""A small seed of the fuzz and kill bench, and that the bench sees what is planted."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs pidfd and audit hooks")
BENCH = ROOT / "tests" / "bench" / "trust.py"
END = '\nif __name__ == "__main__":\n'
PLANTS = {  # what is made worse: (code at the end of sort_faces.py, case, column that counts it)
    "no run is ever finished": (
        "recover_runs = lambda root: None",
        ("kills", 93),
        "differs",
    ),
    "the moves of a plan are not understood": (
        "def check_move(corpus, move, taken):\n    return move.nowhere",
        ("plans", 2),
        "tracebacks",
    ),
    "a photo that is read is touched": (
        "def read_photo(path, *more, _real=read_photo):\n"
        "    os.utime(path)\n"
        "    return _real(path, *more)",
        ("photos", 3),
        "lost",
    ),
    "the status never comes": (
        'COMMANDS["status"] = add_status_options, lambda args: time.sleep(999)',
        ("photos", 5),
        "hangs",
    ),
}


def bench(*options: object) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, str(BENCH), *map(str, options)],
        text=True,
        capture_output=True,
        timeout=300,
    )
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, done.stdout


def column(out: str, area: str, name: str) -> int:
    """A number of the table."""
    head = next(line.split() for line in out.splitlines() if line.split()[:2] == ["area", "cases"])
    row = re.search(rf"^  {area}  +(.*)$", out, re.M)[1].split()
    return int(row[head.index(name) - 1])


def checkout(folder: Path, code: str) -> Path:
    """A copy of the program with some code at its end."""
    source = (ROOT / "sort_faces.py").read_text(encoding="utf-8")
    assert source.count(END) == 1
    folder.mkdir()
    (folder / "sort_faces.py").write_text(source.replace(END, f"\n{code}\n{END}"), encoding="utf-8")
    shutil.copytree(ROOT / "work", folder / "work", ignore=shutil.ignore_patterns("logs"))
    return folder


def test_a_few_cases_of_every_area_do_no_harm() -> None:
    code, out = bench("--seed", 10, "--cases", 2, "--jobs", 1)
    assert column(out, "all", "cases") >= 30
    assert code == 0, out


@pytest.mark.parametrize("what", PLANTS)
def test_what_is_planted_is_found(what, tmp_path) -> None:
    code, (area, case), kind = PLANTS[what]
    planted = checkout(tmp_path / "planted", code)
    options = ("--only", area, "--case", case, "--limit", 5)
    status, out = bench(*options, "--checkout", planted)
    assert status == 1 and column(out, area, kind) == 1, out
    assert f"--only '{area}' --seed 1 --case {case}" in out
