"""work/setup_dml_worker.ps1 without a PowerShell: what would end it early, the Python in it."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
from conftest import ROOT

SOURCE = (ROOT / "work/setup_dml_worker.ps1").read_bytes()
TEXT = SOURCE.decode("ascii")  # Windows PowerShell takes anything else for the local code page
CODE = [re.sub(r"#.*", "", re.sub(r'"[^"]*"', '""', line)).strip() for line in TEXT.splitlines()]


def test_no_stderr_is_redirected() -> None:
    """Under $ErrorActionPreference = "Stop" a line on a redirected stderr ends the script."""
    assert [line for line in CODE if ">" in line] == []


def test_programs_run_in_one_place_which_looks_at_the_exit_code() -> None:
    called = [at for at, line in enumerate(CODE) if "&" in line or re.match(r"(py|pip|cmd)", line)]
    assert [CODE[at] for at in called] == ["& $Program $Arguments"]
    above = CODE[: called[0]]
    begin = max(at for at, line in enumerate(above) if line.startswith("function Invoke-Program"))
    assert '$ErrorActionPreference = ""' in above[begin:]
    assert '$ErrorActionPreference = "Continue"' in TEXT.splitlines()[begin + 1]
    assert CODE[called[0] + 1].startswith("if ($LASTEXITCODE -ne 0) {")
    assert CODE[called[0] + 2].startswith("throw")


@pytest.mark.parametrize(
    ("provider", "code", "word"), [("cpu", 0, "cpu"), ("directml", 1, "offers")]
)
def test_the_check_at_the_end(tmp_path, provider: str, code: int, word: str) -> None:
    """It says what the models would run on, and fails where that is not DirectML."""
    check = "".join(re.search(r'\$check = "(.*)" \+\s+"(.*)"', TEXT).groups())
    assert check.count("'directml'") == 1
    check = check.replace("'directml'", repr(provider))
    done = subprocess.run([sys.executable, "-c", check, str(ROOT)], cwd=tmp_path,
                          capture_output=True, text=True)  # fmt: skip
    assert done.returncode == code, done.stderr
    assert word in done.stdout + done.stderr
