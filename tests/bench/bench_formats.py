#!/usr/bin/env python3
"""What is read of every kind of photo there is: one line a file, and nothing is passed over unsaid.

    python tests/bench/bench_formats.py
    python tests/bench/bench_formats.py --model buffalo_l --model-root ../shared/models

The files: shared/data/formats and reports (broken-jpeg, rawonly, resend), where shared/ lies beside
the repository, and those that tests/odd_photos.py makes of one portrait: formats, names, depths,
pages, RAW; files of which a part is there; a film and a text. They go through `embed` as a library
of each folder does. A file is `read` (its size as looked at, its faces, what is noted about it),
`refused` with the line that was said, or `passed over` as a kind that is counted. Exit code 1 if a
file is none of these, if a made file of a readable kind is not read whole and with its one face, or
if anything is written to the terminal that is not ours.

The second table: what hearing decoders costs (work/hush.py), and what the scan costs in a folder of
files that are no photos.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, SHARED, machine, median, print_table, sf

sys.path.insert(0, str(ROOT / "tests"))
import odd_photos

FOLDERS = ("formats", "formats/invalid", "formats/orientation", "reports/broken-jpeg",
           "reports/rawonly", "reports/resend")  # fmt: skip
CUTS = (0.1, 0.5, 0.9)
OTHERS = 100_000  # files of the folder without photos


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="dlib")
    parser.add_argument("--model-root", default="")
    parser.add_argument("--others", type=int, default=OTHERS, metavar="N",
                        help="files of the folder without photos (default: 100000)")  # fmt: skip
    args = parser.parse_args()
    print(machine())
    wrong: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        sources = {f"shared {name}": SHARED / "data" / name for name in FOLDERS}
        sources |= made_folders(Path(folder))
        for title, source in sources.items():
            if not source.is_dir():
                print(f"\n{title}: not there")
                continue
            rows, faults = looked_at(source, Path(folder) / "lib.npz", args)
            print_table(title, rows)
            wrong += [f"{title}: {fault}" for fault in faults]
            if title == "made":
                wrong += [f"{title}: {row['file']}" for row in rows if is_short(row)]
        print_table("what it costs", [*cost_of_hearing(), *cost_of_scanning(folder, args.others)])
    for line in wrong:
        print("WRONG:", line)
    return 1 if wrong else 0


def is_short(row: dict[str, Any]) -> bool:
    """Whether a made photo that can be read was not, or not all of it."""
    other = row["file"] in ("film.mp4", "text.txt")
    return not other and (row["what"] != "read" or row["faces"] != 1 or "incomplete" in row["line"])


def portrait() -> np.ndarray:
    """One of the made people, (320, 240, 3) uint8 BGR."""
    demo = sf.companion("demo_library")
    group = sf.decode_photo(demo.demo_photo()).image
    x1, y1, x2, y2 = demo.DEMO_FACES["anna"]
    x, y = max(0, (x1 + x2) // 2 - 120), max(0, (y1 + y2) // 2 - 160)
    return group[y : y + 320, x : x + 240].copy()


def made_folders(folder: Path) -> dict[str, Path]:
    """{title: folder} of the files that are made of one portrait."""
    face = portrait()
    files = {"made": odd_photos.readable_files(face) | other_files(face)}
    files |= {
        f"made, {share:.0%} of the bytes": odd_photos.cut_files(face, share)
        | odd_photos.coarse_files(face, share)
        | odd_photos.other_cut_files(face, share)
        for share in CUTS
    }
    for title, some in files.items():
        (folder / title).mkdir()
        for name, data in some.items():
            (folder / title / name).write_bytes(data)
    return {title: folder / title for title in files}


def other_files(face: np.ndarray) -> dict[str, bytes]:
    """A film by PyAV, and a text."""
    import io

    import av

    stream = io.BytesIO()
    with av.open(stream, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=25)
        video.height, video.width = face.shape[:2]
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(face, format="bgr24")
            container.mux(video.encode(frame))
        container.mux(video.encode())
    return {"film.mp4": stream.getvalue(), "text.txt": b"a text"}


def looked_at(
    source: Path, cache_path: Path, args: argparse.Namespace
) -> tuple[list[dict[str, Any]], list[str]]:
    """(a row for each file of a folder, what went wrong), after an `embed` of it."""
    cache_path.unlink(missing_ok=True)
    how = ["--model-root", args.model_root] if args.model_root else []
    command = [sys.executable, ROOT / "sort_faces.py", "embed", source, cache_path, "--quiet"]
    env = {**os.environ, "SORT_FACES_LOGS": str(cache_path.parent / "logs")}
    done = subprocess.run([*map(str, command), "--model", args.model, *how], env=env, text=True,
                          capture_output=True, check=False)  # fmt: skip
    said = done.stderr.splitlines()
    ours = ("warning: ", "sort_faces embed: ")
    faults = [f"on the terminal: {line}" for line in said if not line.startswith(ours)]
    cache = sf.load_cache(cache_path) if cache_path.exists() else None
    known = sf.known_paths(cache) if cache else {}
    row_of = {sha: row for row, sha in enumerate(cache.file_sha256.tolist())} if cache else {}
    kinds, scan = sf.companion("kinds"), sf.scan_photos([source])
    found = {file.path for file in scan.files}
    films = {film.path for film in scan.films}
    counted = Counter(scan.others) + Counter({"films": len(films)})
    rows = []
    for path in sorted(file for file in source.iterdir() if file.is_file()):
        facts = {"file": path.name, "what": "", "size": "", "faces": 0, "line": ""}
        if str(path) in known:
            facts |= told_by(cache, row_of[known[str(path)][0]], said)
        elif str(path) not in found:
            kind = kinds.other_kind(str(path), path.name, kinds.read_suffixes())
            kind = kinds.absence(str(path), path.stat()) or kind
            kind = "films" if str(path) in films else kind
            counted[kind] -= 1
            facts |= {"what": "passed over", "line": kind}
        else:
            faults.append(f"{path.name}: neither read nor refused nor counted")
        rows.append(facts)
    faults += [f"{kind}: {count} counted too many" for kind, count in counted.items() if count]
    return rows, faults


def told_by(cache: sf.FaceCache, row: int, said: list[str]) -> dict[str, Any]:
    """What a cache holds of a photo; `line`: what was said of it."""
    if cache.file_status[row] == sf.STATUS_UNREADABLE:
        why = str(cache.file_error[row])
        heard = any(why in line for line in said)
        return {"what": "refused" if heard else "", "line": why}
    faces = int(np.count_nonzero(cache.face_file == row))
    size = "x".join(map(str, cache.file_wh[row]))
    return {"what": "read", "size": size, "faces": faces, "line": str(cache.file_note[row])}


def cost_of_hearing() -> list[dict[str, Any]]:
    """Microseconds that `heard` adds to decoding, alone and within a run, and by what share."""
    hushed = sf.companion("hush").hushed
    data = sf.companion("demo_library").demo_photo()
    image = np.frombuffer(data, np.uint8)
    import cv2

    def seconds(work: Any, times: int) -> float:
        rounds = []
        for _ in range(7):
            started = time.perf_counter()
            for _ in range(times):
                work()
            rounds.append((time.perf_counter() - started) / times)
        return median(rounds)

    plain = seconds(lambda: cv2.imdecode(image, 1), 20)
    alone = seconds(lambda: hushed.heard(lambda: None), 2000)
    with hushed.descriptor(sf.note):
        within = seconds(lambda: hushed.heard(lambda: None), 2000)
    return [
        {"what": f"hearing a decoder, {how}", "microseconds": extra * 1e6,
         "against": f"{extra / plain:.2%} of decoding 1280 x 886"}
        for how, extra in (("by itself", alone), ("in a run", within))
    ]  # fmt: skip


def cost_of_scanning(folder: str, count: int) -> list[dict[str, Any]]:
    """Microseconds a file that is no photo takes in the scan, with a known ending and without."""
    rows = []
    for ending in (".txt", ""):
        root = Path(folder) / f"others{ending}"
        root.mkdir()
        for number in range(count):
            (root / f"{number:06d}{ending}").write_bytes(b"no photo")
        started = time.perf_counter()
        report = sf.scan_photos([root])
        took = time.perf_counter() - started
        assert report.others.total() == count
        what = f"scanning {count} files " + (f"named *{ending}" if ending else "without an ending")
        rows.append({"what": what, "microseconds": took / count * 1e6, "against": f"{took:.1f} s"})
    return rows


if __name__ == "__main__":
    sys.exit(main())
