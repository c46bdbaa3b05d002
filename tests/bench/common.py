"""What the benchmarks share: the tool as a module, tables, medians, runs in their own process."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
sys.path.insert(0, str(ROOT))

import sort_faces as sf  # noqa: E402, F401 - the benchmarks take it from here


def print_table(title: str, rows: Sequence[dict[str, Any]]) -> None:
    """Print rows with equal keys as an aligned table."""
    print(f"\n{title}")
    head = list(rows[0])
    cells = [head, *([text(row[key]) for key in head] for row in rows)]
    widths = [max(len(line[at]) for line in cells) for at in range(len(head))]
    numeric = [all(not isinstance(row[key], str) for row in rows) for key in head]
    for line in cells:
        parts = (cell.rjust(width) if right else cell.ljust(width)
                 for cell, width, right in zip(line, widths, numeric, strict=True))  # fmt: skip
        print("  " + "  ".join(parts).rstrip())
    sys.stdout.flush()


def text(value: Any) -> str:
    """A cell: floats with three to four significant digits, None as a dash."""
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
    return str(value)


def median(values: Sequence[float]) -> float:
    return float(statistics.median(values))


def run_child(script: str, *argv: object) -> dict[str, Any]:
    """Run a benchmark's own script again as a worker; returns the JSON of its last line.

    Linux hands a child its parent's peak memory as a start, so a parent that wants to read
    ru_maxrss must stay small itself.
    """
    done = subprocess.run(
        [sys.executable, script, *map(str, argv)], stdout=subprocess.PIPE, text=True, check=True
    )
    return json.loads(done.stdout.splitlines()[-1])


def peak_mb() -> float:
    """Largest memory this process has held, in MB."""
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (1e6 if sys.platform == "darwin" else 1024)


def machine() -> str:
    """One line about where the numbers come from."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{cores} cores, Python {sys.version.split()[0]}{load}"
