#!/usr/bin/env python3
"""How fast the review server is over a large library, beside what it is meant to be.

    python tests/bench/bench_review.py
    python tests/bench/bench_review.py --faces 20000 --people 1000 --answers 100

A made library: --people people whose numbers of faces fall off as in a real one, a quarter of the
larger ones in two halves, a fifth of --faces alone, five faces of five people in a photo. The
server runs as a process of its own and is asked as the page asks it, over six lines. `ready` is
from the start of the process until it prints its address; `first picture` from opening the page
until state, everybody and the pictures of the first screen are there, with no thumbnail made before
(cold; the server makes those of the first screen when it starts) and with all of them (warm). An
answer is read, settled and on the disk when it is acknowledged; questions come twelve at once.
"""

from __future__ import annotations

import argparse
import hashlib
import http.client
import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import ROOT, machine, print_table, sf

LINES = 6  # connections that a browser opens to one host
FIRST_SCREEN = 40  # covers
IN_PHOTO = 5  # faces
WIDE, HIGH = 2000, 1500  # px of a photo
WITHIN = 0.6  # cosine of two faces of one person
BARS = {"first picture, cold": 1.0, "first picture, warm": 1.0}  # seconds
ANSWER_BAR, MEMORY_BAR = 100.0, 500.0  # ms of the 95th of 100 answers; MB


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--faces", type=int, default=100_000, help="faces (default: 100,000)")
    parser.add_argument("--people", type=int, default=5000, help="people (default: 5,000)")
    parser.add_argument("--answers", type=int, default=300, help="answers (default: 300)")
    parser.add_argument("--keep", type=Path, help="folder for the library, used again if there")
    args = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as passing:
        out = args.keep or Path(passing)
        if not (out / "faces.npz").exists():
            started = time.perf_counter()
            make_library(out, args.faces, args.people)
            print(f"library made in {time.perf_counter() - started:.0f} s")
        for beside in out.glob("faces.npz.*"):  # of a run before
            shutil.rmtree(beside) if beside.is_dir() else beside.unlink()
        measure(out, args.answers)
    return 0


# --- the library ------------------------------------------------------------


def make_library(out: Path, faces: int, people: int) -> None:
    """A cache, its photos, and the raw tree that says who is who; seeded."""
    rng = np.random.default_rng(13)
    person = who_is_who(rng, faces, people)
    photos = -(-faces // IN_PHOTO)
    face_file = rng.permutation(np.arange(faces) % photos).astype(np.int32)
    order = np.argsort(face_file, kind="stable")
    person, face_file = person[order], face_file[order]
    face_index = (np.arange(faces) - np.searchsorted(face_file, face_file)).astype(np.int16)
    centres = sf.unit_rows(rng.normal(size=(person.max() + 1, 512)).astype(np.float32))
    noise = sf.unit_rows(rng.normal(size=(faces, 512)).astype(np.float32))
    embedding = centres[person] * WITHIN**0.5 + noise * (1 - WITHIN) ** 0.5
    embedding *= rng.uniform(18, 25, (faces, 1)).astype(np.float32)
    cache = cache_of(out, embedding, face_file, face_index, rng)
    sf.save_cache(out / "faces.npz", cache)
    groups = [part for rows in sf.groups_of(person) for part in split(rows)]
    persons = [rows for rows in groups if len(rows) > 1]
    library = sf.Library(cache, out / "faces.npz")
    manifest = sf.RawManifest(
        **sf.manifest_head(library),
        params={"threshold": 0.5, "linkage": "average", "strictness": 0.0},
        persons=[library.group(f"person_{at:04d}", rows) for at, rows in enumerate(persons, 1)],
        singletons=[cache.face_ids[rows[0]] for rows in groups if len(rows) == 1],
        placed={},
    )
    sf.write_file(out / "raw_full/manifest.json", manifest)


def who_is_who(rng: np.random.Generator, faces: int, people: int) -> np.ndarray:
    """(faces,) int: four fifths belong to the people, whose sizes fall off; the rest are alone."""
    together = faces * 4 // 5
    weights = 1.0 / np.arange(1, people + 1) ** 0.8
    more = rng.choice(people, together - 2 * people, p=weights / weights.sum())
    alone = people + np.arange(faces - together)
    return np.concatenate([np.repeat(np.arange(people), 2), more, alone])


def cache_of(
    out: Path,
    embedding: np.ndarray,
    face_file: np.ndarray,
    face_index: np.ndarray,
    rng: np.random.Generator,
) -> sf.FaceCache:
    """A cache of real photos, each with its faces side by side."""
    faces, photos = len(embedding), int(face_file.max()) + 1
    x, y = np.meshgrid(np.linspace(0, 255, WIDE), np.linspace(0, 255, HIGH))
    image = np.dstack([x, y, 255 - x]).astype(np.uint8)
    data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1].tobytes()
    paths, shas, facts = [], [], []
    for row in range(photos):
        path = out / f"photos/{row % 100:02d}/{row:06d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        own = data + b"%d" % row
        path.write_bytes(own)
        paths.append(str(path))
        shas.append(hashlib.sha256(own).hexdigest())
        facts.append(sf.facts_of(path.stat()))
    corner = np.column_stack([60 + 370 * (face_index % 5), 300 + 350 * (face_index // 5)])
    side = rng.uniform(150, 300, (faces, 1))
    bbox = np.hstack([corner, corner + side * (1.0, 1.25)]).astype(np.float32)
    places = np.array([[0.3, 0.4], [0.7, 0.4], [0.5, 0.6], [0.35, 0.8], [0.65, 0.8]])
    kps = (bbox[:, None, :2] + places * side[:, None]).astype(np.float32)
    values: dict[str, Any] = {
        "file_path": np.array(paths), "file_sha256": np.array(shas),
        "file_size": np.array([size for size, _ in facts]),
        "file_mtime_ns": np.array([mtime for _, mtime in facts]),
        "file_wh": np.tile(np.array([WIDE, HIGH], np.int32), (photos, 1)),
        "file_taken": rng.uniform(8e8, 1.7e9, photos),
        "file_passes": np.full(photos, "640@0.5"),
        "face_file": face_file, "face_index": face_index, "bbox": bbox, "kps": kps,
        "det_score": rng.uniform(0.7, 0.95, faces).astype(np.float32),
        "face_short": (bbox[:, 2] - bbox[:, 0]), "embedding": embedding,
        "blur": rng.uniform(60, 300, faces).astype(np.float32),
    }  # fmt: skip
    counts = {"f": photos, "a": 0, "n": faces}
    for name, about in sf.COLUMNS.items():
        if name not in values:
            values[name] = about.filled(counts[about.rows], 512)
    meta = sf.CacheMeta(
        schema=1, model="synthetic", recognizer="feedfeedfeedfeed", dim=512, det_size=640,
        det_threshold=0.5, roots=[str(out / "photos")],
    )  # fmt: skip
    return sf.FaceCache(meta=meta, **values)


def split(rows: np.ndarray) -> list[np.ndarray]:
    """Of each fourth larger person two groups, so that there is something to ask."""
    return [rows[::2], rows[1::2]] if len(rows) >= 6 and rows[0] % 4 == 0 else [rows]


# --- the server -------------------------------------------------------------


class Page:
    """What a page does, over one line to the server."""

    def __init__(self, port: int) -> None:
        self.line = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
        self.origin = f"http://127.0.0.1:{port}"
        self.headers: dict[str, str] = {}

    def again(self) -> Page:
        """Another line of the same page."""
        page = Page(self.line.port)
        page.headers = self.headers
        return page

    def get(self, target: str) -> bytes:
        self.line.request("GET", target, headers=self.headers)
        reply = self.line.getresponse()
        data = reply.read()
        if reply.status != 200:
            raise RuntimeError(f"{target}: {reply.status} {data[:200]!r}")
        return data

    def post(self, target: str, **body: Any) -> tuple[int, Any]:
        more = {"Origin": self.origin, "Content-Type": "application/json"}
        self.line.request("POST", target, json.dumps(body), headers={**self.headers, **more})
        reply = self.line.getresponse()
        self.cookie = reply.getheader("Set-Cookie")
        return reply.status, json.loads(reply.read())

    def enter(self, code: str) -> None:
        token = self.post("/api/session", code=code)[1]["token"]
        self.headers = {"X-Review-Token": token, "Cookie": self.cookie.partition(";")[0]}


def measure(out: Path, answers: int) -> None:
    """Run the server and print the table."""
    process, port, code, ready = start(out)
    try:
        page = Page(port)
        page.enter(code)
        times = {f"first picture, {how}": first_picture(page) for how in ("cold", "warm")}
        rows = [{"what": "ready", "measured": ready, "unit": "s", "bar": None}]
        rows += [
            {"what": what, "measured": value, "unit": "s", "bar": BARS[what]}
            for what, value in times.items()
        ]
        for what, taken in answer_questions(page, answers).items():
            for share in (50, 95):
                value = float(np.percentile(taken, share)) * 1000 if taken else None
                name = f"{what}, p{share} of {len(taken)}"
                rows.append({"what": name, "measured": value, "unit": "ms", "bar": ANSWER_BAR})
        rows += memory_rows(process.pid)
    finally:
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    print_table("review server", rows)


def start(out: Path) -> tuple[subprocess.Popen, int, str, float]:
    """(the server, its port, its code, seconds until it was ready)."""
    started = time.perf_counter()
    command = [sys.executable, ROOT / "sort_faces.py", "review", out, "--no-browser"]
    process = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stderr:
        if found := re.search(r"http://127.0.0.1:(\d+)/#(\S+)", line):
            return process, int(found[1]), found[2], time.perf_counter() - started
        print(line, end="")
    sys.exit("the server did not start")


def first_picture(page: Page) -> float:
    """Seconds until the first screen stands, as the page asks for it."""
    started = time.perf_counter()
    html = page.get("/").decode()
    names = re.findall(r'"(/static/[\w.-]+)"', html)
    with ThreadPoolExecutor(LINES) as lines:
        pages = [page, *(page.again() for _ in range(LINES - 1))]

        def fetch(at: int, target: str) -> bytes:
            return pages[at % LINES].get(target)

        def all_of(targets: list[str]) -> list[bytes]:
            shares = [[(at, t) for t in targets[at::LINES]] for at in range(LINES)]
            done = lines.map(lambda some: [fetch(*one) for one in some], shares)
            return [data for some in done for data in some]

        all_of(list(dict.fromkeys(names)))
        page.get("/api/state")
        columns = json.loads(page.get("/api/people"))["columns"]
        order = np.argsort(-np.array(columns["faces"]), kind="stable")[:FIRST_SCREEN]
        all_of([f"/t/{columns['cover'][at]}-192.jpg" for at in order.tolist()])
    return time.perf_counter() - started


def answer_questions(page: Page, most: int) -> dict[str, list[float]]:
    """Seconds that questions and answers took; every second question is answered yes."""
    taken: dict[str, list[float]] = {"questions": [], "answer": [], "undo": []}
    while len(taken["answer"]) < most:
        started = time.perf_counter()
        found = json.loads(page.get("/api/questions?kind=same&n=12"))
        taken["questions"].append(time.perf_counter() - started)
        if not found["questions"]:
            break
        dropped: set[str] = set()
        for at, question in enumerate(found["questions"]):
            if question["qid"] in dropped:
                continue
            word = "same" if at % 2 else "different"
            item = {"kind": "answer", "qid": question["qid"], "answer": word}
            act = {"op": uuid.uuid4().hex, "base": found["rev"], "tab": "bench", "items": [item]}
            started = time.perf_counter()
            status, reply = page.post("/api/decisions", **act)
            if status == 201:
                taken["answer"].append(time.perf_counter() - started)
                dropped |= set(reply["dropped_questions"])
    for _ in range(min(20, len(taken["answer"]))):
        started = time.perf_counter()
        page.post("/api/undo", op=uuid.uuid4().hex, tab="bench")
        taken["undo"].append(time.perf_counter() - started)
    return taken


def memory_rows(pid: int) -> list[dict[str, Any]]:
    """What the server holds, and held at most, where the system tells."""
    path = Path(f"/proc/{pid}/status")
    if not path.exists():
        return []
    text = path.read_text()
    found = {name: int(re.search(rf"{name}:\s+(\d+) kB", text)[1]) / 1024
             for name in ("RssAnon", "VmHWM")}  # fmt: skip
    names = {"RssAnon": "memory, without mapped files", "VmHWM": "memory, all, at most"}
    return [
        {"what": names[name], "measured": value, "unit": "MB", "bar": MEMORY_BAR}
        for name, value in found.items()
    ]


if __name__ == "__main__":
    sys.exit(main())
