"""The documents say what the tool says: help blocks, the command table, links, the cache schema."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from update_docs import DOCS, ROOT, help_blocks, help_text

import sort_faces as sf

README = ROOT / "README.md"
PAGES = sorted(DOCS.rglob("*.md")) + [README] * README.exists()
LINK = re.compile(r"\]\(([^)\s]+)\)")


def same_words(text: str) -> str:
    """Text without its line breaks: argparse versions wrap differently."""
    return " ".join(text.split())


def test_every_command_has_one_help_block():
    assert sorted(name for _, name, _ in help_blocks()) == sorted(sf.COMMANDS)


@pytest.mark.parametrize(("page", "name", "body"), help_blocks(), ids=lambda part: str(part)[-30:])
def test_help_blocks_are_current(page: Path, name: str, body: str):
    expected = f"```text\n{help_text(name)}```\n"
    assert same_words(body) == same_words(expected), f"{page}: python tests/update_docs.py"


@pytest.mark.parametrize("name", sf.COMMANDS)
def test_readme_has_a_row_for_every_command(name: str):
    if not README.exists():
        pytest.skip("no README.md yet")
    words = sf.COMMANDS[name][1].__doc__
    rows = [line for line in README.read_text(encoding="utf-8").splitlines() if f"`{name}`" in line]
    assert any(words in row for row in rows), f"README.md: no line with `{name}` and {words!r}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_relative_links_point_to_files(page: Path):
    links = LINK.findall(page.read_text(encoding="utf-8"))
    local = [link.split("#")[0] for link in links if "://" not in link and link[0] != "#"]
    assert [link for link in local if not (page.parent / link).exists()] == []


def test_engines_page_lists_every_distance():
    usual, dlib = sf.Thresholds(), sf.DLIB_THRESHOLDS
    expected = [
        (item.name, f"{getattr(usual, item.name):g}", f"{getattr(dlib, item.name):g}")
        for item in fields(sf.Thresholds)
    ]
    page = (DOCS / "engines.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \|", page, re.MULTILINE)
    assert rows == expected


def test_cache_page_lists_every_array():
    expected = []
    for name, about in sf.COLUMNS.items():
        sides = ", ".join([about.rows, *map(str, about.shape)])
        shape = f"({sides})" if about.shape else f"({sides},)"
        expected.append((name, shape, np.dtype(about.dtype).name, about.text))
    page = (DOCS / "cache.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(\w+)` \| (\(.*?\)) \| (\w+) \| (.*) \|$", page, re.MULTILINE)
    assert rows == expected
