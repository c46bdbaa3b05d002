#!/usr/bin/env python3
"""One library of everything: photos, RAW pairs, a Takeout folder, tagged photos and two films.

    python tests/bench/measure_sources.py

Eight people of shared/data/people, each from another source: plain photos; RAW beside JPEG (made by
tests/odd_photos.py); RAW alone; a Google Takeout folder whose JSON names one person; photos that
digiKam or Lightroom would have tagged (exiftool writes their regions; left out without it); films
of shared/data/videos. One `run` over all of it, and a table of what came of each source. Exit code
1 where a set holds faces of two people, a tagged person has not got the name, or a source gave
nothing. The figures are in docs/analysis/sources.md.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import cv2
from common import ROOT, SHARED, print_table, sf

sys.path.insert(0, str(ROOT / "tests"))
import odd_photos

EACH = 16  # photos of a person
FILMS = ("mixtape.mp4", "rope_target-1080p.mp4")
EASY = (
    *("--min-short", 60, "--min-faces", 3, "--min-blur", 10),  # the photos have 250 px
    *("--det-size", 320, "--threads", 2),
)


def photos_of(person: str) -> list[Path]:
    """Up to EACH photos of a labelled person."""
    return sorted((SHARED / "data/people" / person).glob("*.jpg"))[:EACH]


def put_plain(folder: Path, person: str) -> None:
    """Photos as they are."""
    for photo in photos_of(person):
        shutil.copy(photo, folder)


def put_pairs(folder: Path, person: str) -> None:
    """A JPEG and the RAW it was made of, for each photo."""
    for photo in photos_of(person):
        shutil.copy(photo, folder / f"{photo.stem}.JPG")
        (folder / f"{photo.stem}.DNG").write_bytes(odd_photos.dng(cv2.imread(str(photo))))


def put_raws(folder: Path, person: str) -> None:
    """RAWs alone."""
    for photo in photos_of(person):
        image = cv2.resize(cv2.imread(str(photo)), None, fx=2, fy=2)  # it is developed at half
        (folder / f"{photo.stem}.dng").write_bytes(odd_photos.dng(image))


def put_takeout(folder: Path, person: str) -> None:
    """Photos with the JSON that Google lays beside them."""
    year = folder / "Takeout/Google Photos/Photos from 2004"
    year.mkdir(parents=True)
    for number, photo in enumerate(photos_of(person)):
        shutil.copy(photo, year)
        seconds = str(1_090_000_000 + 86400 * number)
        told = {"title": photo.name, "photoTakenTime": {"timestamp": seconds}}
        told["people"] = [{"name": NAMES[person]}]
        sidecar = year / f"{photo.name}.supplemental-metadata.json"
        sidecar.write_text(json.dumps(told), "utf-8")


def put_tagged(folder: Path, person: str) -> None:
    """Every other photo with a region that bears the name."""
    for photo in photos_of(person):
        shutil.copy(photo, folder)
    area = "{X=0.5,Y=0.5,W=0.4,H=0.45,Unit=normalized}"
    region = (
        f"{{AppliedToDimensions={{W=250,H=250,Unit=pixel}},"
        f"RegionList=[{{Area={area},Name={NAMES[person]},Type=Face}}]}}"
    )
    tagged = sorted(folder.glob("*.jpg"))[::2]
    subprocess.run(
        ["exiftool", "-q", "-overwrite_original", f"-RegionInfo={region}",
         "-XMP:CreatorTool=digiKam-8.1.0", *map(str, tagged)],
        check=True,
    )  # fmt: skip


def put_films(folder: Path, _: str) -> None:
    """Two films."""
    for name in FILMS:
        shutil.copy(SHARED / "data/videos" / name, folder)


SOURCES = {  # folder: (how it is filled, its person)
    "plain": (put_plain, "p001"),
    "pairs": (put_pairs, "p002"),
    "raw": (put_raws, "p003"),
    "takeout": (put_takeout, "p004"),
    "tagged": (put_tagged, "p005"),
    "films": (put_films, ""),
}
NAMES = {"p004": "Großmutter Zoë", "p005": "佐藤 Kenji"}


def make_library(root: Path) -> None:
    """All sources, a folder each."""
    for name, (put, person) in SOURCES.items():
        if put is put_tagged and shutil.which("exiftool") is None:
            continue
        (root / name).mkdir(parents=True)
        put(root / name, person)


def whose(source: str) -> str:
    """The folder of the library a photo came from; of the mixtape's frames the film."""
    film = sf.film_of(source)
    return Path(film).name if film else Path(source).relative_to(ROOTS[0]).parts[0]


ROOTS: list[Path] = []


def sets_of(ready: Path) -> list[dict[str, object]]:
    """Of each face set its name and where its faces come from."""
    rows = []
    for path in sorted(ready.glob("faceset_*/manifest.json")):
        faces = json.loads(path.read_bytes())["faces"]
        came = Counter(whose(face["source"]) for face in faces)
        kinds = Counter(face.get("taken_kind") or "none" for face in faces)
        rows.append(
            {
                "set": path.parent.name,
                "name": (path.parent / "NAME.txt").read_text("utf-8").strip(),
                "faces": len(faces),
                "sources": ", ".join(f"{name} {count}" for name, count in came.items()),
                "dates": ", ".join(f"{kind} {count}" for kind, count in kinds.items()),
            }
        )
    return rows


def faults(rows: list[dict[str, object]], root: Path) -> list[str]:
    """What is not as it should be."""
    found = []
    for name, (_, person) in SOURCES.items():
        own = [row for row in rows if name in str(row["sources"])]
        if name == "films" or not (root / name).exists():
            continue
        if len(own) != 1 or "," in str(own[0]["sources"]):
            found.append(f"{name}: {len(own)} sets, {[row['sources'] for row in own]}")
        elif person in NAMES and own[0]["name"] != NAMES[person]:
            found.append(f"{name}: called {own[0]['name']}, not {NAMES[person]}")
    if not any(film in str(row["sources"]) for row in rows for film in FILMS):
        found.append("films: no set has a face of one")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=str(SHARED / "models/mini"))
    parser.add_argument("--keep", type=Path, metavar="DIR", help="build it there and leave it")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = args.keep or Path(scratch)
        root, out = folder / "library", folder / "out"
        ROOTS.append(root)
        make_library(root)
        argv = ["run", root, out, "--films", "--per-minute", 10, "--model", args.model, *EASY]
        done = subprocess.run(
            [sys.executable, ROOT / "sort_faces.py", *map(str, argv), "--json"],
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        print(done.stderr, file=sys.stderr)
        if done.returncode:
            return 1
        rows = sets_of(out / "facesets_swap_ready")
        print_table("sets of a library of everything", rows)
        wrong = faults(rows, root)
        for line in wrong:
            print(f"WRONG {line}")
        return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
