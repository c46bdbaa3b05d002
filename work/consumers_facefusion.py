"""FaceFusion: sources in rank order, a command to paste, and jobs with a step for each clip.

It averages what one `headless-run` or one step gets; `batch-run` would make a video of each PNG.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import sort_faces as sf

consumers = sf.companion("consumers")
Subject = consumers.Subject


def sources_of(subject: Subject) -> list[str]:
    """Absolute paths of the PNGs of the top bundle, the best first."""
    top = next(iter(sf.bundles_of(subject.manifest).values()))
    return [str(subject.place / file) for file in top]


def job_id(subject: Subject) -> str:
    """Its id as FaceFusion takes it: letters, digits and `-`."""
    return re.sub(r"[^A-Za-z0-9]+", "-", subject.manifest.id).strip("-")


def write_sources(folder: Path, subject: Subject, _options: dict[str, Any]) -> dict[str, str]:
    """sources.txt, one path a line, and headless-run.txt, a line to paste."""
    sources = sources_of(subject)
    odd = next((path for path in sources if not path.isprintable()), "")
    if odd:
        return {"": f"{odd!r}: FaceFusion cannot be told this path"}
    words = ["python", "facefusion.py", "headless-run", "--processors", "face_swapper",
             "-s", *sources, "-t", "TARGET.mp4", "-o", "OUTPUT.mp4"]  # fmt: skip
    line = subprocess.list2cmdline(words) if sf.os.name == "nt" else shlex.join(words)
    sf.write_part(folder / "sources.txt", "".join(f"{path}\n" for path in sources).encode())
    sf.write_part(folder / "headless-run.txt", f"{line}\n".encode())
    return {}


def write_jobs(
    folder: Path, subjects: Sequence[Subject], options: dict[str, Any]
) -> dict[str, str]:
    """jobs/drafted/ID.json for each person, a step a clip; for --jobs-path FOLDER/jobs."""
    if "clips" not in options:
        return {}
    plan = sf.read_if_sound(Path(options["clips"]), sf.ClipPlan)
    if plan is None or not plan.out:
        return {"": f"{options['clips']}: holds no clips that were cut"}
    out = Path(plan.out).resolve()
    clips = [out / segment.clip for segment in plan.segments if segment.clip]
    if not clips:
        return {"": f"{options['clips']}: holds no clips that were cut"}
    for subject in subjects:
        name, sources = job_id(subject), sources_of(subject)
        steps = [
            {
                "args": {
                    "processors": ["face_swapper"],
                    "source_paths": sources,
                    "target_path": str(clip),
                    "output_path": str(clip.with_name(f"{clip.stem}-{name}{clip.suffix}")),
                },
                "status": "drafted",
            }
            for clip in clips
        ]
        created = subject.corpus.master.created or sf.now_text()
        job = {"version": "1", "date_created": created, "date_updated": None, "steps": steps}
        text = json.dumps(job, indent=4)
        sf.write_part(folder / "jobs" / "drafted" / f"{name}.json", text.encode("ascii"))
    return {}
