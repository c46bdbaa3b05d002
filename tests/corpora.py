"""Small corpora made without an engine, what they hold, and processes that die on purpose."""

from __future__ import annotations

import builtins
import errno
import functools
import hashlib
import io
import json
import multiprocessing
import os
import re
import shutil
import signal
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import cv2
import numpy as np
import pytest
from conftest import make_cache, sf
from material import ok, tree

DIM, OWN = 160, 16  # directions; those from OWN on belong to one face each
SHARE = 0.85  # of a face's direction that is its person's; pairs of one person have cosine 0.72
TOP_N, CORE_N = 3, 2
SIZE = 128  # px; less to decode than the 512 of real exports
SHELVES = ("_masked", "_thin", "_merged")
LISTS = {"": "facesets", "_masked": "masked", "_thin": "thin_eras", "_merged": "merged"}
SET_LISTS = ("faces", "dropped", "files", "counts", "bundles")  # what is written anew
UNSEEN = ("_scores", ".sort_faces.lock", ".sort_faces.lock.holder")


# --- faces ------------------------------------------------------------------


def axis(at: int) -> np.ndarray:
    return np.eye(DIM, dtype=np.float64)[at]


def turned(cosine: float, a: int = 0, b: int = 1) -> np.ndarray:
    """A direction with this cosine to axis a, in the plane of a and b."""
    return cosine * axis(a) + (1 - cosine**2) ** 0.5 * axis(b)


@dataclass(frozen=True)
class Face:
    """A face to be made: its embedding, its capture time, its picture."""

    vector: np.ndarray
    year: int | None = None
    picture: int | None = None  # the same number gives the same bytes
    photo: str = ""  # the same name is the same photo
    quality: float | None = None  # without one it falls with the rank


class Space:
    """Gives every face a direction nobody else has, so that all cosines are known exactly."""

    def __init__(self) -> None:
        self.used = OWN

    def fresh(self) -> np.ndarray:
        self.used += 1
        return axis(self.used - 1)

    def face(self, person: int | np.ndarray, share: float = SHARE, **facts: object) -> Face:
        """A face with cosine `share` to the direction of its person."""
        way = axis(person) if isinstance(person, int) else person
        return Face(share * way + (1 - share**2) ** 0.5 * self.fresh(), **facts)

    def faces(self, person: int | np.ndarray, number: int, **facts: object) -> list[Face]:
        return [self.face(person, **facts) for _ in range(number)]

    def near(self, face: Face, cosine: float, **facts: object) -> Face:
        """Another face with exactly this cosine to one."""
        return Face(cosine * face.vector + (1 - cosine**2) ** 0.5 * self.fresh(), **facts)


@functools.cache
def picture(seed: int, size: int = SIZE) -> bytes:
    """A square 8-bit RGB PNG of a few coloured squares."""
    blocks = np.random.default_rng(seed).integers(0, 255, (4, 4, 3), dtype=np.uint8)
    image = cv2.resize(blocks, (size, size), interpolation=cv2.INTER_NEAREST)
    return cv2.imencode(".png", image)[1].tobytes()


def seconds(year: int | None) -> float:
    """The middle of a year as capture time."""
    return float("nan") if year is None else (year - 1970) * 365.2425 * 86400 + 180 * 86400


# --- corpora ----------------------------------------------------------------


def build(
    folder: Path, sets: Sequence[Sequence[Face]], names: dict[int, str] | None = None
) -> Path:
    """Write folder/lib.npz and folder/ready, the corpus of these face sets, numbered from 1."""
    faces = [face for own in sets for face in own]
    cache = make_cache(people=1, photos=max(len(faces), 1), dim=DIM)
    first: dict[str, int] = {}
    files, index = [], []
    for row, face in enumerate(faces):
        files.append(first.setdefault(face.photo or f"#{row}", row))
        index.append(files.count(files[-1]) - 1)
    if faces:
        scale = np.linspace(15, 25, len(faces))[:, None]
        cache = replace(
            cache,
            embedding=(np.stack([face.vector for face in faces]) * scale).astype(np.float32),
            face_file=np.array(files, np.int32),
            face_index=np.array(index, np.int16),
            file_taken=np.array([seconds(face.year) for face in faces]),
        )
    folder.mkdir(parents=True, exist_ok=True)
    sf.save_cache(folder / "lib.npz", cache)
    root = folder / "ready"
    row = 0
    for number, own in enumerate(sets, 1):
        entries = []
        name = f"faceset_{number:03d}"
        for rank, face in enumerate(own):
            png = picture(1000 + row if face.picture is None else face.picture)
            file = f"faces/{rank:03d}.png"
            sf.write_part(root / name / file, png)
            quality = 0.9 - 0.01 * rank if face.quality is None else face.quality
            entries.append(entry_of(cache, row, face, file, rank, png, quality))
            row += 1
        text = (names or {}).get(number, sf.UNNAMED)
        sf.write_part(root / name / "NAME.txt", f"{text}\n".encode())
        head = {**head_of(folder, cache), "id": name, "quality_terms": sf.QUALITY_TERMS}
        finish(root / name, head, entries, [])
    root.mkdir(exist_ok=True)
    write_master(root, {**head_of(folder, cache), "kind": "swap"})
    return root


def finish(folder: Path, head: dict, faces: list[dict], dropped: list[dict]) -> None:
    """Write bundles, contact sheet and manifest of a face set, as the tool does it."""
    value = {**head, "faces": faces, "dropped": dropped}
    sf.finish_faceset(folder, sf.as_record(sf.FacesetManifest, value))


def head_of(folder: Path, cache: sf.FaceCache, size: int = SIZE) -> dict:
    return {
        "tool": sf.TOOL, "kind": "faceset", "version": sf.VERSION,
        "created": "2026-01-02T03:04:05+00:00", "cache": str((folder / "lib.npz").resolve()),
        "model": cache.meta.model, "recognizer": cache.meta.recognizer, "rescans": 0,
        "params": {"top_n": TOP_N, "core_n": CORE_N, "out_size": size},
    }  # fmt: skip


def entry_of(
    cache: sf.FaceCache, row: int, face: Face, file: str, rank: int, png: bytes, quality: float
) -> dict:
    """What export-swap writes of one face."""
    photo = int(cache.face_file[row])
    return {
        "file": file, "rank": rank, "face": cache.face_ids[row],
        "source": str(cache.file_path[photo]), "photo_sha256": str(cache.file_sha256[photo]),
        "sha256": hashlib.sha256(png).hexdigest(), "bbox": cache.bbox[row].round(1).tolist(),
        "taken": None if face.year is None else seconds(face.year), "quality": round(quality, 4),
        "terms": dict.fromkeys(sf.QUALITY_TERMS, quality), "distance": 0.2, "pad": 0.5,
        "neighbours_painted": False, "kept_because": "passes every gate",
    }  # fmt: skip


def write_master(root: Path, head: dict | None = None) -> None:
    """The master manifest of what lies there now."""
    head = head or read(root / "manifest.json")
    corpus = sf.Corpus(root, sf.as_record(sf.SwapManifest, {"facesets": [], **head}))
    runs = [{"command": "export-swap", "at": "2026-01-02T03:04:05+00:00", "params": {}}]
    lists = sf.as_json(corpus.lists(corpus.sets, {}))
    sf.write_json(root / "manifest.json", {**head, **lists, "runs": head.get("runs", runs)})


def put_face(root: Path, folder: str, png: bytes, face: Face | None = None, **facts: object) -> str:
    """Add a PNG to a face set as if it had been exported; its file."""
    manifest = read(root / folder / "manifest.json")
    file = f"faces/{len(manifest['faces']):03d}.png"
    sf.write_part(root / folder / file, png)
    sha = hashlib.sha256(png).hexdigest()
    last = manifest["faces"][-1]
    entry = {**last, "file": file, "rank": last["rank"] + 1, "sha256": sha,
             "face": f"{sha[:16]}:0", "photo_sha256": sha,
             "quality": round(last["quality"] - 0.001, 4), **facts}  # fmt: skip
    if face is not None:
        entry["taken"] = None if face.year is None else seconds(face.year)
    rewrite(root, folder, [*manifest["faces"], entry])
    return file


def rewrite(root: Path, folder: str, faces: list[dict]) -> None:
    """Make manifests and bundles fit these faces."""
    manifest = read(root / folder / "manifest.json")
    head = {key: manifest[key] for key in manifest if key not in SET_LISTS}
    for bundle in (root / folder).glob("*.fsz"):
        bundle.unlink()
    finish(root / folder, head, faces, manifest["dropped"])
    write_master(root)


def audits_of(root: Path) -> Path:
    """Where what consumers see in the PNGs of a corpus is kept, for its own model."""
    corpus = sf.Corpus(root, sf.read_file(root / "manifest.json", sf.SwapManifest))
    spec = sf.as_consumer(sf.EngineSpec(model=corpus.master.model))
    return sf.scores_path(corpus, sf.audit_name(corpus, spec))


def give_audits(
    root: Path, counts: dict[str, Sequence[int]] | None = None, **vectors: np.ndarray
) -> None:
    """Note what a detector would have seen in every PNG: one face, except where `counts` says.

    counts: {path within the corpus: faces at 640 and at 320}; vectors: {sha256: embedding}.
    """
    special = {sf.sha256_of_file(root / file): list(of) for file, of in (counts or {}).items()}
    master = read(root / "manifest.json")
    cache = sf.load_cache(Path(master["cache"]))
    lines = []
    for manifest in sorted(root.rglob("faceset_*/manifest.json")):
        for face in read(manifest)["faces"]:
            sha, row = face["sha256"], cache.row_of_face.get(face["face"])
            vector = vectors.get(sha, cache.embedding[row or 0])
            lines.append({"sha256": sha, "error": "", "counts": special.get(sha, [1, 1]),
                          "kps": np.zeros((5, 2)).tolist(),
                          "embedding": sf.pack_floats(vector)})  # fmt: skip
    path = audits_of(root)
    path.parent.mkdir(exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def copied(template: Path, folder: Path) -> Path:
    """A fresh copy of a corpus; the one before it is gone."""
    shutil.rmtree(folder, ignore_errors=True)
    return Path(shutil.copytree(template, folder))


# --- what lies there --------------------------------------------------------


def read(path: Path) -> dict:
    return json.loads(path.read_text(encoding="utf-8"))


def edit(path: Path, change: Callable[[dict], object]) -> dict:
    value = read(path)
    change(value)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
    return value


def exact(root: Path) -> dict[str, str]:
    """{path: hash or "folder"} of everything but scores and the lock."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if name.split("/")[0] not in UNSEEN:
            found[name] = "folder" if path.is_dir() else sf.sha256_of_file(path)
    return found


def content(root: Path) -> dict[str, str]:
    """The same without the journals, and without the times in manifests."""
    skipped = (*UNSEEN, "_runs")
    return {name: sha for name, sha in tree(root).items() if name.split("/")[0] not in skipped}


def files_of(root: Path, folder: str) -> dict[str, dict]:
    """{file: manifest entry} of the faces of a set."""
    return {face["file"]: face for face in read(root / folder / "manifest.json")["faces"]}


def faces_in(root: Path, folder: str) -> list[str]:
    return [face["face"] for face in read(root / folder / "manifest.json")["faces"]]


def folders(root: Path) -> set[str]:
    """Folders of all face sets, shelved ones too."""
    tops = [root, *(root / shelf for shelf in SHELVES)]
    return {found.relative_to(root).as_posix() for top in tops for found in top.glob("faceset_*")}


def name_of(root: Path, folder: str) -> str:
    return (root / folder / "NAME.txt").read_text(encoding="utf-8").strip()


def assert_agrees(root: Path, foreign: Iterable[str] = ()) -> None:
    """Manifests, bundles, master and disk tell the same; `foreign` are the operator's files."""
    master = read(root / "manifest.json")
    listed = {}
    for shelf, key in LISTS.items():
        for entry in master.get(key, []):
            folder = entry.get("folder", entry["id"])
            assert PurePosixPath(folder).parent.as_posix() == (shelf or "."), entry
            assert folder not in listed
            listed[folder] = entry
    assert set(listed) == folders(root)
    for folder, entry in listed.items():
        here = root / folder
        manifest = read(here / "manifest.json")
        faces = manifest["faces"]
        assert manifest["id"] == entry["id"]
        again = "" if "/" not in folder else r"(-\d+)?"  # its name was on the shelf already
        assert re.fullmatch(re.escape(entry["id"]) + again, here.name)
        on_disk = {path.name for path in (here / "faces").glob("*") if path.is_file()}
        assert on_disk == {PurePosixPath(face["file"]).name for face in faces}, folder
        names = [face["file"] for face in faces]
        assert names == sorted(set(names)) and [face["rank"] for face in faces] == list(
            range(len(faces))
        )
        for face in faces:
            assert sf.sha256_of_file(here / face["file"]) == face["sha256"], (folder, face["file"])
        bundles = chosen_of(manifest)
        assert {path.name for path in here.glob("*.fsz")} - mine_of(foreign, folder) == set(bundles)
        for key, bundle in zip(("bundle", "full_bundle", "core_bundle"),
                               [*bundles, "", "", ""], strict=False):  # fmt: skip
            assert entry.get(key, "") == (bundle and f"{folder}/{bundle}")
        for bundle, part in bundles.items():
            if faces:
                with zipfile.ZipFile(here / bundle) as archive:
                    names = [face["file"].split("/")[1] for face in part]
                    v2 = any(one["kind"] == "fsz2" for one in manifest.get("exports", []))
                    assert archive.namelist() == names + ["metadata.json"] * v2
                    assert {info.compress_type for info in archive.infolist()} == {0}
                    for face in part:
                        data = archive.read(face["file"].split("/")[1])
                        assert hashlib.sha256(data).hexdigest() == face["sha256"]
        assert entry["face_count"] == len(faces)
        assert entry["faces"] == [face["face"] for face in faces]
        assert entry["left_out"] == len(manifest["dropped"])
        for gone in manifest["dropped"]:
            assert gone["reason"]
            assert not gone.get("file") or (here / gone["file"]).is_file()
        rest = {path.relative_to(here).as_posix() for path in here.rglob("*") if path.is_file()}
        assert rest - mine_of(foreign, folder) == set(manifest["files"]), folder
    assert not list(root.rglob(".sort_faces-*")) or list(root.rglob(".sort_faces-*")) == [
        root / ".sort_faces.lock"
    ]


def mine_of(foreign: Iterable[str], folder: str) -> set[str]:
    """The operator's files of one face set."""
    return {file.removeprefix(f"{folder}/") for file in foreign if file.startswith(f"{folder}/")}


def chosen_of(manifest: dict) -> dict[str, list[dict]]:
    """{name: its faces} of the bundles a face set must have: the best face is in the top bundle,
    the core is smaller than the set, and none holds a face twice or out of rank order."""
    faces, name = manifest["faces"], manifest["id"]
    top, core = manifest["params"]["top_n"], manifest["params"].get("core_n", 8)
    if not faces:
        return {}
    told = {one["file"]: one.get("faces") for one in manifest.get("bundles", [])}
    names = [f"{name}_top{top}.fsz", f"{name}.fsz"]
    names += [f"{name}_core.fsz"] if f"{name}_core.fsz" in told else []
    assert not told or list(told) == names
    of = {face["file"]: face for face in faces}
    first = [face["file"] for face in faces[:top]]
    parts = {one: told.get(one) or (first if one == names[0] else list(of)) for one in names}
    sizes = dict(zip(names, (min(top, len(faces)), len(faces), core), strict=False))
    for one, files in parts.items():
        assert files == sorted(set(files)) and len(files) == sizes[one] <= len(faces)
    assert parts[names[0]][0] == faces[0]["file"] and parts[names[1]] == list(of)
    return {one: [of[file] for file in files] for one, files in parts.items()}


def wrong(run: Callable, root: Path, *options: object) -> list[tuple[str, str, str]]:
    """What verify finds: (face set, file, rule); its exit code fits."""
    code, out, err = run("verify", root, *(options or ("--no-faces",)), "--json")
    assert "Traceback" not in err and code in (0, 1), err
    found = json.loads(out)["findings"]
    assert code == (1 if found else 0) and json.loads(out)["wrong"] == len(found)
    return sorted((item["faceset"], item["file"], item["rule"]) for item in found)


def assert_clean(run: Callable, root: Path, *options: object) -> None:
    assert wrong(run, root, *options) == []


def planned(run: Callable, path: Path, *argv: object) -> list[dict]:
    """The moves of a dry run."""
    ok(run, *argv, "--dry-run", "--plan", path)
    return read(path)["moves"]


def moved(moves: Iterable[dict]) -> list[tuple[str, str, str]]:
    return sorted((move["action"], move["from"], move["to"]) for move in moves)


# --- runs that are cut short ------------------------------------------------


class Death(BaseException):
    """What a kill looks like from within: nothing is tidied up any more."""


class Saboteur:
    """Strikes before the k-th change this process makes to a folder.

    death: that change and all later ones fail, tidying up too. interrupt: Ctrl-C, once.
    full: from then on nothing that needs space works.
    """

    CHANGES = ((os, "link"), (os, "mkdir"), (io, "open"), (builtins, "open"),  # these need space
               (os, "rename"), (os, "replace"), (os, "unlink"), (os, "remove"),
               (os, "rmdir"), (os, "open"))  # fmt: skip

    def __init__(self, root: Path, how: str = "count", at: int = 0) -> None:
        self.root, self.how, self.at, self.seen = str(root), how, at, 0
        self.lock = threading.Lock()  # sets are built side by side

    def __enter__(self) -> Saboteur:
        self.patch = pytest.MonkeyPatch()
        for number, (module, name) in enumerate(self.CHANGES):
            self.patch.setattr(module, name, self.watched(getattr(module, name), number < 4))
        return self

    def __exit__(self, *_: object) -> None:
        self.patch.undo()

    def watched(self, real: Callable, needs_space: bool) -> Callable:
        def call(*args: object, **options: object) -> object:
            if self.concerns(real, args, options):
                with self.lock:
                    self.seen += 1
                    self.strike(needs_space)
            return real(*args, **options)

        return call

    def concerns(self, real: Callable, args: tuple, options: dict) -> bool:
        if real.__name__ == "open":
            mode = args[1] if len(args) > 1 else options.get("mode", "r")
            if isinstance(mode, int):  # of os.open
                mode = "w" if mode & os.O_CREAT else "r"
            if not set(str(mode)) & set("wax+"):
                return False
        if options.get("dir_fd") is not None:
            return True  # within shutil.rmtree
        path = str(args[0])
        return path.startswith(self.root) and not path.endswith((".lock", ".holder"))

    def strike(self, needs_space: bool) -> None:
        if self.how == "death" and self.seen >= self.at:
            raise Death
        if self.how == "interrupt" and self.seen == self.at:
            raise KeyboardInterrupt
        if self.how == "full" and self.seen >= self.at and needs_space:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def changes_of(run: Callable, root: Path, *argv: object) -> int:
    """How many changes an undisturbed run makes."""
    with Saboteur(root) as watcher:
        ok(run, *argv)
    return watcher.seen


def recover(root: Path) -> None:
    """What every command does first."""
    with sf.opened_corpus(root):
        pass


LATE_IMPORTS = ("scipy.cluster.hierarchy", "scipy.spatial.distance", "scipy.sparse.csgraph",
                "jinja2", "filelock", "PIL.Image")  # fmt: skip


@functools.cache
def nursery() -> multiprocessing.context.ForkServerContext:
    """Processes with everything loaded; starting one takes milliseconds."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["corpora", *LATE_IMPORTS])
    return context


def life(argv: Sequence[str], note: str) -> None:
    """One run of the CLI in a process of its own; `note` appears when it begins."""
    os.sync = lambda: None  # the disk outlives these processes
    os.fsync = lambda _: None
    os.environ["SORT_FACES_LOGS"] = os.path.dirname(note)
    with open(os.devnull, "w") as sys.stdout, open(note, "w") as sys.stderr:
        os._exit(sf.main(argv))


def killed(after: float, note: Path, *argv: object) -> bool:
    """Run the CLI in another process, SIGKILL it so late; whether that came before its end."""
    note.unlink(missing_ok=True)
    process = nursery().Process(target=life, args=([str(part) for part in argv], str(note)))
    process.start()
    deadline = time.monotonic() + 60
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.0005)
    process.join(after)
    process.kill()
    process.join(60)
    assert process.exitcode in (0, -signal.SIGKILL), note.read_text()
    return process.exitcode != 0


def lasts(note: Path, *argv: object) -> float:
    """Seconds an undisturbed run takes there."""
    assert not killed(60, note, *argv)
    return time.time() - note.stat().st_ctime
