"""FaceFusion: sources in rank order, a command to paste, and jobs with a step for each clip.

It averages what one `headless-run` or one step gets; `batch-run` would make a video of each PNG.
Two jobs a person: ID.json puts the person into every clip, ID-own.json into the clips that show the
person already, and there in place of their own face alone.
"""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

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
    clips = {out / segment.clip: segment for segment in plan.segments if segment.clip}
    if not clips:
        return {"": f"{options['clips']}: holds no clips that were cut"}
    films = Films.of(Path(options["clips"]).parent)
    owner = films.owners(subjects)
    for subject in subjects:
        write_job(folder, subject, job_id(subject), {clip: {} for clip in clips})
        own = {
            clip: selector
            for clip, segment in clips.items()
            if (selector := films.selector(segment, owner.get(subject.manifest.id, ())))
        }
        if own:
            write_job(folder, subject, f"{job_id(subject)}-own", own)
    return {}


def write_job(folder: Path, subject: Subject, name: str, clips: dict[Path, dict[str, Any]]) -> None:
    """A job with a step for each clip {its path: further arguments}."""
    sources = sources_of(subject)
    steps = [
        {
            "args": {
                "processors": ["face_swapper"],
                "source_paths": sources,
                "target_path": str(clip),
                "output_path": str(clip.with_name(f"{clip.stem}-{name}{clip.suffix}")),
                **more,
            },
            "status": "drafted",
        }
        for clip, more in clips.items()
    ]
    created = subject.corpus.master.created or sf.now_text()
    job = {"version": "1", "date_created": created, "date_updated": None, "steps": steps}
    text = json.dumps(job, indent=4)
    sf.write_part(folder / "jobs" / "drafted" / f"{name}.json", text.encode("ascii"))


# ---------------------------------------------------------------- who is in which clip


@dataclass(frozen=True)
class Films:
    """What the work folder of a plan knows of the people in its clips."""

    people: sf.People | None
    tracks: sf.Tracks | None

    @classmethod
    def of(cls, folder: Path) -> Films:
        """Nothing is known where an older run has left no people.json."""
        people = sf.read_if_sound(folder / "people.json", sf.People)
        return cls(people, sf.read_if_sound(folder / "tracks.json", sf.Tracks) if people else None)

    def owners(self, subjects: Sequence[Subject]) -> dict[str, list[sf.Person]]:
        """{id of a face set: the people of the films that it is of}.

        As `video score --corpus` told it of this corpus; else the nearest set, where the films and
        the corpus are of one recogniser.
        """
        whole = [one for one in subjects if one.manifest.era is sf.UNSET]
        if self.people is None or self.tracks is None or not whole:
            return {}
        corpus, found = whole[0].corpus, defaultdict(list)
        if self.people.corpus == str(corpus.root.resolve()):
            for person in self.people.people:
                found[person.faceset].append(person)
        elif self.people.recognizer == corpus.master.recognizer and self.people.people:
            means = {one.manifest.id: one.average() for one in whole}
            means = {name: mean for name, mean in means.items() if mean is not None}
            centres = np.stack([np.frombuffer(p.centre, "<f4") for p in self.people.people])
            if means:
                index, far = sf.nearest(centres, sf.unit_rows(np.stack([*means.values()])))
                limit = sf.thresholds_for(corpus.master.model).candidate
                for person, at, gap in zip(self.people.people, index, far, strict=True):
                    if gap <= limit:
                        found[[*means][at]].append(person)
        return dict(found)

    def selector(self, clip: sf.PlannedClip, own: Sequence[sf.Person]) -> dict[str, Any]:
        """The arguments that choose the face of these people in a clip; none if it is not theirs.

        FaceFusion is shown a frame of the clip and which of its faces, by size, is meant: the frame
        in which that face is largest beside the others.
        """
        names = {track for person in own for track in person.tracks}
        if not names.intersection(clip.tracks):
            return {}
        seen = defaultdict(list)  # s: (area, whether it is meant)
        for track in self.tracks.tracks:
            if track.video == clip.video:
                inside = (track.time >= clip.start) & (track.time < clip.end)
                sides = track.bbox[inside, 2:] - track.bbox[inside, :2]
                for time, area in zip(track.time[inside].tolist(), sides.prod(axis=1), strict=True):
                    seen[time].append((float(area), track.name in names))
        best = None
        for time, faces in seen.items():
            faces.sort(reverse=True)
            place = next((at for at, (_, meant) in enumerate(faces) if meant), None)
            if place is not None:
                worth = -place, faces[place][0] / max(a for a, m in [*faces, (1.0, False)] if not m)
                best = max(best or (worth, time, place), (worth, time, place))
        if best is None:
            return {}
        _, time, place = best
        rate = clip.checked.frames / max(clip.checked.duration, 1e-6)
        frame = round((time - clip.checked.start) * rate)
        return {
            "face_selector_mode": "reference",
            "face_selector_order": "large-small",
            "reference_face_position": place,
            "reference_frame_number": min(max(frame, 0) + 1, clip.checked.frames),  # from 1
        }
