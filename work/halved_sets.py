"""Face sets of which an export keeps less than half: which gate took them, and what would not."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any

import sort_faces as sf

BY_VALUE = {"face too small": "min_face_short"}  # what a face needs at least; {reason: option}


def halved(export: Any, manifests: Iterable[sf.FacesetManifest]) -> dict[str, Any]:
    """{"less_than_half": a row for each such set}, empty where there is none; says so, too."""
    rows = [row for manifest in manifests if (row := row_of(export, manifest))]
    for row in rows:
        sf.log.info(
            "%s: %d of %d faces kept; %s took %d; %s", row["id"], row["kept"], row["of"],
            row["because"], row["faces"], row["option"],
        )  # fmt: skip
    return {"less_than_half": rows} if rows else {}


def row_of(export: Any, manifest: sf.FacesetManifest) -> dict[str, Any]:
    """What is told of a set, {} where at least half of it is kept."""
    left = [one for one in manifest.dropped if one.run is sf.UNSET]  # by the export itself
    kept, whole = len(manifest.faces), len(manifest.faces) + len(left)
    if 2 * kept >= whole:
        return {}
    named = [(re.split(r" \(|:", one.reason)[0], one) for one in left]
    [(reason, took)] = Counter(name for name, _ in named).most_common(1)
    some = [one for name, one in named if name == reason]
    option = softer(export, reason, some, math.ceil(whole / 2) - kept)
    return {"id": manifest.id, "kept": kept, "of": whole, "faces": took, "because": reason,
            "option": option}  # fmt: skip


def softer(export: Any, reason: str, left: list[sf.Left], lacking: int) -> str:
    """The option that lets as many more pass as half lacks, or those that decide the gate.

    Later gates may still take some of them.
    """
    [row] = sf.export_gates(export, left)
    values = sorted((one.value for one in left if one.value is not sf.UNSET), reverse=True)
    if reason in BY_VALUE and 0 < lacking <= len(values):
        name = BY_VALUE[reason]
        option = export.names.get(name, name).replace("_", "-")
        least = math.floor(values[lacking - 1])
        return f"--{option} {least} lets {sum(value >= least for value in values)} more pass"
    return f"moved by {row['option']}" if row["option"] else "no option moves it"
