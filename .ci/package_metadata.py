"""What pyproject.toml cannot say: the dependencies stand in requirements.txt, above the tests' own.

Used by hatchling when a wheel or an sdist is made; nothing of the tool loads it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from hatchling.metadata.plugin.interface import MetadataHookInterface

TESTS_BEGIN = "# The tests"  # the line in requirements.txt below which no user needs anything


class Dependencies(MetadataHookInterface):
    """Fills in project.dependencies."""

    def update(self, metadata: dict[str, Any]) -> None:
        text = Path(self.root, "requirements.txt").read_text(encoding="utf-8")
        needed, line_there, _ = text.partition(f"\n{TESTS_BEGIN}")
        if not line_there:
            raise ValueError(f"requirements.txt: no line begins with {TESTS_BEGIN!r}")
        lines = (re.sub(r"(^|\s+)#.*", "", line) for line in needed.splitlines())
        metadata["dependencies"] = [line for line in lines if line]
