"""The shell blocks of README and docs: bash can read them, the tool knows their options, and those
of the README do what they say, one after the other.

SORT_FACES_RUN_PAGES="photos.md identities.md" runs those pages of docs/ after the README as well.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from itertools import takewhile
from pathlib import Path

import pytest
from conftest import ROOT, demo_library, sf

DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
COMMAND = re.compile(r"(python3?|nohup|bash|pip|dask|export|\.|\.venv/bin/\w+|[A-Z_]+=\S*)( |$)")
INSTALLS = re.compile(r"-m venv|pip install|sort_faces.py demo")
SETTINGS = """
model = "dlib"
min-faces = 2
min-short = 50
min-blur = 1
min-det-score = 0
min-face-short = 50
quiet = true
"""


def shell_blocks(page: Path) -> list[str]:
    """The blocks a reader would paste: fenced as bash, or indented and begun by a command."""
    blocks: list[list[str]] = [[]]
    fence = None
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.startswith("```"):
            fence = line[3:] if fence is None else None
            blocks.append([])
        elif fence == "bash":
            blocks[-1].append(line)
        elif fence is None and line.startswith("    "):
            blocks[-1].append(line[4:])
        else:
            blocks.append([])
    return ["\n".join(block) + "\n" for block in blocks if block and COMMAND.match(block[0])]


def own_commands(block: str) -> list[list[str]]:
    """The arguments of every call of sort_faces.py in a block."""
    calls = []
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if "sort_faces.py" in words:
            own = words[words.index("sort_faces.py") + 1 :]
            calls.append(list(takewhile(lambda word: word not in ("|", "&", ">", "2>"), own)))
    return calls


BLOCKS = [
    pytest.param(block, id=f"{page.relative_to(ROOT).as_posix()}-{number}")
    for page in PAGES
    for number, block in enumerate(shell_blocks(page), 1)
]


def test_the_blocks_are_found():
    assert len(shell_blocks(ROOT / "README.md")) == 6
    assert sum(len(own_commands(block.values[0])) for block in BLOCKS) > 45


@pytest.mark.parametrize("block", BLOCKS)
def test_bash_reads_a_block_and_the_tool_knows_its_options(block: str):
    subprocess.run(["bash", "-n", "-c", block], check=True)
    for words in own_commands(block):
        if "..." not in words:
            sf.build_parser().parse_args(words)
    for setting in re.findall(r"^([A-Z_]+)=\S+ .*work/(\w+\.sh)", block, re.MULTILINE):
        assert setting[0] in (ROOT / "work" / setting[1]).read_text()


@pytest.fixture
def clone(tmp_path) -> Path:
    """What git would clone, without what the tool writes; beside it a home with ~/Photos."""
    folder = tmp_path / "clone"
    ours = shutil.ignore_patterns("cache", "logs", "demo", "__pycache__")
    shutil.copytree(ROOT / "work", folder / "work", ignore=ours)
    shutil.copy(ROOT / "sort_faces.py", folder)
    some = re.compile(r"\d+/(anna|dora)_\d+_0[0-2]\.jpg")
    for name, data in demo_library.demo_pictures().items():
        if some.match(name):
            sf.write_bytes(tmp_path / "home" / "Photos" / name, data)
    (tmp_path / "home" / "faces.toml").write_text(SETTINGS)
    return folder


def test_the_blocks_of_the_readme_run_one_after_the_other(clone):
    """As printed, in one shell, with a settings file for a handful of photos and no download."""
    more = [DOCS / name for name in os.environ.get("SORT_FACES_RUN_PAGES", "").split()]
    blocks = [block for page in (ROOT / "README.md", *more) for block in shell_blocks(page)]
    script = "\n".join(["set -eux", *(block for block in blocks if not INSTALLS.search(block))])
    home = clone.parent / "home"
    env = {
        **os.environ, "HOME": str(home), "SORT_FACES_CONFIG": str(home / "faces.toml"),
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    done = subprocess.run(
        ["bash", "-c", script], cwd=clone, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    sets = home / "FaceSets" / "facesets_swap_ready"
    assert len(list(sets.glob("faceset_*/*.fsz"))) >= 2
    assert len(list((home / "Photos").rglob("*.jpg"))) == 6
