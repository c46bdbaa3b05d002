"""Rewrite the --help blocks of the docs: python tests/update_docs.py

A block stands between `<!-- help: NAME -->` and `<!-- /help -->`; tests/test_docs.py compares it
with what the command says today.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from pathlib import Path
from unittest import mock

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
BLOCK = re.compile(r"<!-- help: (?P<name>[\w-]+) -->\n(?P<body>.*?)<!-- /help -->\n", re.DOTALL)
sys.path.insert(0, str(ROOT))

import sort_faces as sf  # noqa: E402


def help_text(name: str) -> str:
    """`sort_faces NAME --help` at 100 columns, without the number of cores of this machine."""
    page = io.StringIO()
    settings = mock.patch.dict(os.environ, {"COLUMNS": "100", "NO_COLOR": "1"})
    with settings, contextlib.redirect_stdout(page), contextlib.suppress(SystemExit):
        sf.build_parser().parse_args([name, "--help"])
    return re.sub(r"\b\d+ here\)", "N here)", page.getvalue())


def help_blocks() -> list[tuple[Path, str, str]]:
    """(page, command, text of the block) of every help block in the docs."""
    found = []
    for page in sorted(DOCS.rglob("*.md")):
        text = page.read_text(encoding="utf-8")
        found += [(page, block["name"], block["body"]) for block in BLOCK.finditer(text)]
    return found


def fresh_block(block: re.Match[str]) -> str:
    name = block["name"]
    return f"<!-- help: {name} -->\n```text\n{help_text(name)}```\n<!-- /help -->\n"


def main() -> None:
    for page in sorted({page for page, _, _ in help_blocks()}):
        text = page.read_text(encoding="utf-8")
        page.write_text(BLOCK.sub(fresh_block, text), encoding="utf-8")


if __name__ == "__main__":
    main()
