"""The proof of `forget`: a scan of every file for what still tells of the forgotten.

Words are looked for in all that is text, in names of files, in archives and in what pictures carry
with them; embeddings in arrays and lines; and every picture is looked at with the cache's model.
Photos of the library itself, and copies of those of its photos that stay, are not looked at.

Contents
    What is found
    Pictures
    Files
    Telling
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

import sort_faces as sf

traces = sf.companion("forget_traces")
said, copies = sf.companion("forget_decisions"), sf.companion("forget_copies")

# ============================================================================
# What is found
# ============================================================================


@dataclass
class Left:
    """What the scan has seen, and what it found."""

    files: int = 0
    pictures: int = 0
    not_looked_at: list[str] = field(default_factory=list)
    findings: dict[str, set[str]] = field(default_factory=dict)  # file: what tells of it

    def add(self, file: str, kinds: set[str]) -> None:
        if kinds:
            self.findings.setdefault(file, set()).update(kinds)

    def summary(self) -> dict[str, Any]:
        return {
            "files_scanned": self.files,
            "pictures_looked_at": self.pictures,
            "could_not_be_read": self.not_looked_at[:20],
            "files_with_traces": len(self.findings),
        }

    def table(self) -> list[dict[str, str]]:
        return [
            {"file": file, "trace": ", ".join(sorted(kinds))}
            for file, kinds in sorted(self.findings.items())
        ]


def prove(work: Any) -> Left:
    """Scan all that was named and what lies beside it."""
    scan = Scan(work)
    scratch = scan.gallery.scratch
    shutil.rmtree(scratch, ignore_errors=True)  # of a killed run
    try:
        for folder in scan.folders():
            scan.walk(folder)
        for file in scan.files_beside():
            scan.file(file, file.parent)
        scan.decisions()
        scan.look()
        for place, change in work.refused:
            scan.left.add(str(place.root / change.path), {"leads out of its folder"})
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return scan.left


# ============================================================================
# Pictures
# ============================================================================

PICTURE_STARTS = (
    *(b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"BM", b"II*\0", b"MM\0*"),
    *(b"\0\0\0\x0cjP", b"8BPS"),
)
HEIF_BRANDS = (b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"avif", b"avis")
LOWEST_SCORE = 0.5  # of a detected face, whatever the cache was made with: what consumers take


def is_picture(head: bytes) -> bool:
    """Whether a file begins like a picture."""
    webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    heif = head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS
    return webp or heif or head.startswith(PICTURE_STARTS)


def words_of_picture(data: bytes) -> str:
    """The texts a picture carries: EXIF, comments."""
    try:
        header = sf.open_with_pillow(data)
        if header is None:
            return ""
        values = [*header.info.values(), *header.getexif().values()]
    except (sf.PhotoError, *sf.PILLOW_ERRORS):
        return ""
    texts = (v.decode("utf-8", "replace") if isinstance(v, bytes) else str(v) for v in values)
    return "\n".join(texts)


class Gallery:
    """Pictures to be looked at, each once however often it lies there."""

    def __init__(self, crew: sf.Crew, meta: sf.CacheMeta, scratch: Path) -> None:
        spec = sf.with_engine_of(crew.spec, meta)
        score = min(meta.det_threshold, LOWEST_SCORE)
        self.crew = crew.with_spec(replace(spec, det_threshold=score))
        self.scratch = scratch
        self.clear()

    def clear(self) -> None:
        self.files: dict[str, list[str]] = {}  # sha256: all that it is
        self.paths: dict[str, Path] = {}  # sha256: where to read it

    def add(self, key: str, sha: str, data: bytes, path: Path | None) -> None:
        self.files.setdefault(sha, []).append(key)
        if sha not in self.paths:
            if path is None:  # a member of an archive
                path = self.scratch / f"{sha}.png"
                sf.write_part(path, data)
            self.paths[sha] = path

    def vectors(self) -> Iterator[tuple[str, np.ndarray | None]]:
        """(sha256, (n, d) embeddings of its faces, None where it could not be read) of each."""
        faceless = []
        how = {"passes": asdict(sf.Passes(pad_retry=True)), "landmarks": False}
        for item, result in self.work("embed", self.paths, how):
            if result.get("failed") or result.get("error"):
                yield item["sha256"], None
            elif result["faces"]:
                found = [sf.unpack_floats(face["embedding"], (-1,)) for face in result["faces"]]
                yield item["sha256"], np.array(found, np.float32)
            else:
                faceless.append(item["sha256"])
        for item, result in self.work("audit", faceless, {}):  # as a consumer looks
            if result.get("embedding"):
                yield item["sha256"], sf.unpack_floats(result["embedding"], (1, -1))

    def work(self, task: str, some: Iterable[str], how: dict[str, Any]) -> Iterable[tuple]:
        """The results of a task of the crew on some of the pictures."""
        items = [{"sha256": sha, "path": str(self.paths[sha].absolute()), **how} for sha in some]
        results = self.crew.run(task, items, self.scratch / "queue") if items else ()
        return sf.progress(results, len(items), f"proof: {task}", "picture")


# ============================================================================
# Files
# ============================================================================

BLOCK = 1 << 24  # bytes of a text looked at at once
OVERLAP = 1 << 16  # bytes of it looked at twice, as a trace may lie across
ARCHIVE_START = b"PK\x03\x04"
DEEPEST = 3  # archives within archives


class Scan:
    """One look at all files."""

    def __init__(self, work: Any) -> None:
        self.scene, self.target = work.scene, work.target
        self.words, self.looks, self.kept = work.words, work.looks, work.kept
        self.gone = work.gone
        self.limit = self.looks.proof
        self.left = Left()
        self.known = {*self.kept.file_sha256.tolist(), *self.placed()}
        self.seen: set[str] = set()
        self.roots = [Path(root) for root in self.scene.cache.meta.roots]
        self.gallery = work.gallery

    def placed(self) -> Iterator[str]:
        """sha256 of the photos that trees hold for those who stay."""
        for path, before in self.scene.trees.items():
            tree = sf.read_if_sound(path / before.FILE, type(before))
            yield from tree.placed.values() if tree else ()

    def folders(self) -> list[Path]:
        """The folders named; pages, logs and copies that lie elsewhere."""
        found = {Path(out) for out in self.scene.outs} | {*self.scene.kinds}
        found |= {sf.log_folder().resolve(), sf.queue_folder(self.scene.paths.cache)}
        noted = copies.places_noted(self.scene.paths.cache, self.scene.corpora)
        found |= {self.scene.beside(said.THUMBS), *copies.folders(noted)}
        return sorted(folder for folder in found if folder.is_dir())

    def files_beside(self) -> Iterator[Path]:
        """The cache and what lies beside it under its name; our plans beside the outputs."""
        cache = self.scene.paths.cache.absolute()
        for path in sorted(cache.parent.glob(f"{sf.glob.escape(cache.stem)}*")):
            if path.is_file():
                yield path
        for root in self.scene.kinds:
            for path in sorted(root.parent.glob("*.json")):
                if path.is_file() and traces.kind_of(path):
                    yield path

    @property
    def own(self) -> set[Path]:
        """Files of this very run."""
        names = (
            traces.Target.FILE,
            ".forgotten.json",
            ".forget-report.json",
            ".lock",
            ".lock.holder",
        )
        return {self.scene.beside(name).absolute() for name in names}

    def walk(self, top: Path) -> None:
        """Every file below a folder, except the library's photos."""
        for folder, names, files in os.walk(top):
            here = Path(folder)
            skip = [*self.roots, self.gallery.scratch]
            names[:] = [name for name in names if here / name not in skip]
            for name in names:
                if (here / name).is_symlink():
                    self.file(here / name, top)
            for name in files:
                self.file(here / name, top)

    def file(self, path: Path, top: Path) -> None:
        """One file: its name, its bytes, what is in it."""
        key = os.path.abspath(path)
        if key in self.seen or Path(key) in self.own or Path(key) in self.roots:
            return
        self.seen.add(key)
        self.left.files += 1
        self.left.add(key, self.words.kinds(os.path.relpath(key, top), names=False))
        try:
            if path.is_symlink():
                self.left.add(key, self.words.kinds(os.readlink(path), names=False))
                return
            if not path.is_file():
                return
            with open(path, "rb") as stream:
                self.stream(key, stream, path, 0)
        except OSError as error:
            self.left.not_looked_at.append(f"{path}: {error.strerror}")

    def stream(self, key: str, stream: Any, path: Path | None, depth: int) -> None:
        """An open file, or a member of an archive."""
        head = stream.read(32)
        stream.seek(0)
        sha = digest(stream)
        stream.seek(0)
        if sha in self.words.hashes:
            self.left.add(key, {"the very bytes"})
        if head.startswith(ARCHIVE_START) and depth < DEEPEST:
            self.archive(key, stream, depth)
        elif is_picture(head):
            data = stream.read()
            self.left.add(key, self.words.kinds(words_of_picture(data)))
            if sha not in self.known:  # else a photo that stays
                self.gallery.add(key, sha, data, path)
        elif head[:6] == b"\x93NUMPY":
            self.array(key, stream)
        elif not (path and path.suffix.lower() in sf.VIDEO_SUFFIXES):
            self.text(key, stream, Path(key).parent)

    def archive(self, key: str, stream: Any, depth: int) -> None:
        """The members of a zip: a bundle, a cache."""
        try:
            with zipfile.ZipFile(stream) as archive:
                self.left.add(key, self.words.kinds("\n".join(archive.namelist()), names=False))
                for info in archive.infolist():
                    if not info.is_dir():
                        member = io.BytesIO(archive.read(info))
                        self.stream(f"{key}/{info.filename}", member, None, depth + 1)
        except sf.npz_errors() as error:
            self.left.not_looked_at.append(f"{key}: {sf.one_line(error)}")

    def array(self, key: str, stream: Any) -> None:
        """An array of a cache: texts, or embeddings."""
        try:
            array = np.load(stream, allow_pickle=False)
        except sf.npz_errors() as error:
            self.left.not_looked_at.append(f"{key}: {sf.one_line(error)}")
            return
        if array.dtype.kind == "U":
            self.left.add(key, self.words.kinds("\n".join(array.reshape(-1).tolist())))
        elif array.dtype.kind == "f" and array.shape[1:] == (self.looks.dim,):
            found = self.looks.alike(array, self.limit).any()
            self.left.add(key, {"embedding"} if found else set())

    def text(self, key: str, stream: Any, folder: Path) -> None:
        """Any other file, as text."""
        before = b""
        while block := stream.read(BLOCK):
            text = traces.text_of(before + block)
            is_text = "\0" not in text  # a short name stands anywhere in what is none
            self.left.add(key, self.words.kinds(text, names=is_text))
            if self.looks.in_text(text, self.limit):
                self.left.add(key, {"embedding"})
            if key.lower().endswith((".html", ".htm")):
                self.left.add(key, self.links(text, folder))
            before = block[-OVERLAP:]

    def decisions(self) -> None:
        """What the operator has decided, of faces under any number they had."""
        path = sf.decisions_path(self.scene.paths.cache.absolute())
        self.left.add(str(path), {"decision"} if said.tells(path, self.gone, self.words) else set())

    def look(self) -> None:
        """At all pictures there were, where it is known what the forgotten look like."""
        if not (self.looks.is_person and len(self.looks.shown)):
            return
        for sha, vectors in self.gallery.vectors():
            self.left.pictures += 1
            files = self.gallery.files[sha]
            if vectors is None:
                self.left.not_looked_at += files
            elif self.looks.alike(vectors, self.limit).any():
                for file in files:
                    self.left.add(file, {"looks like it"})

    def links(self, text: str, folder: Path) -> set[str]:
        """Whether a page links to a photo that goes: pages name them from where they lie."""
        for path in self.target.paths:
            link = quote(os.fsencode(os.path.relpath(path, folder).replace(os.sep, "/")))
            if f'"{link}"' in text:
                return {"path"}
        return set()


def digest(stream: Any) -> str:
    """sha256 of an open file."""
    found = hashlib.sha256()
    while block := stream.read(1 << 20):
        found.update(block)
    return found.hexdigest()


# ============================================================================
# Telling
# ============================================================================


class ForgetReport(sf.OwnFile, tag="forget-report", kw_only=True):
    """<cache>.forget-report.json: what the scan found, without naming anybody."""

    created: str
    counts: dict[str, Any]
    findings: list[dict[str, str]]


def write_report(path: Path, work: Any, left: Left) -> None:
    """Write the report; of a file whose name tells of the forgotten only a salted hash."""
    stone = sf.read_file(sf.tombstone_path(work.scene.paths.cache), sf.Tombstone)

    def masked(file: str) -> str:
        parts = Path(file).parts
        told = (f"({stone.mark(part)[:16]})" if work.words.kinds(part) else part for part in parts)
        shown = str(Path(*told))
        return f"({stone.mark(file)[:16]})" if work.words.kinds(shown) else shown

    rows = [{**row, "file": masked(row["file"])} for row in left.table()]
    counts = {key: len(v) if isinstance(v, list) else v for key, v in left.summary().items()}
    sf.write_file(path, ForgetReport(created=sf.now_text(), counts=counts, findings=rows))
