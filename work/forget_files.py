"""How `forget` rids single files of the forgotten: the cache and what lies beside it, trees of
photos, pages, plans and logs.

Contents
    The cache
    Sidecars beside photos
    Trees of photos
    Pages, plans and logs
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

import msgspec

import sort_faces as sf

traces = sf.companion("forget_traces")
corpora = sf.companion("forget_corpus")
whom = sf.companion("forget_target")
films = sf.companion("film_source")
Change, Target, Words, Looks, Scene = (
    *(traces.Change, traces.Target, traces.Words, traces.Looks),
    whom.Scene,
)

# ============================================================================
# The cache
# ============================================================================


def cache_changes(scene: Scene, target: Target, words: Words, looks: Looks) -> Iterator[Change]:
    """What goes of the cache and of what lies beside it."""
    cache, path = scene.cache, scene.paths.cache.absolute()
    fresh = whom.reduced_cache(cache, target.faces, target.photos)
    lost = {"faces": cache.faces - fresh.faces, "photos": cache.files - fresh.files}
    if any(lost.values()) or sf.journal_path(path).exists():
        words_of = ", ".join(f"{number} {what}" for what, number in lost.items())
        yield Change(path.name, words_of, lambda target: sf.save_cache(target, fresh))
    queue = sf.queue_folder(path)
    for change in queue_changes(queue, words, looks):
        yield replace(change, path=f"{queue.name}/{change.path}")
    known, begun = films.films_path(path), films.begun_path(path)
    for change in traces.cleaned_lines(known, line_keeper(words)):
        yield replace(change, path=known.name)
    if begun.exists():
        yield Change(begun.name, "faces of a film that embed was at")


def duplicates_change(path: Path, target: Target) -> Iterator[Change]:
    """Take the faces and photos out of a duplicates report."""
    value = traces.json_of(path) if traces.kind_of(path) == "duplicates" else None
    if value is None:
        return
    bytewise = [g for g in value.get("byte_groups", []) if g.get("sha256") not in target.photo_set]
    looking = []
    for group in value.get("visual_groups", []):
        pairs = list(zip(group.get("faces", []), group.get("paths", []), strict=False))
        stay = [pair for pair in pairs if pair[0] not in target.face_set]
        if len(stay) == len(pairs):
            looking.append(group)
        elif len(stay) > 1:
            faces, paths = map(list, zip(*stay, strict=True))
            keep = group.get("keep") if group.get("keep") in faces else faces[0]
            looking.append({**group, "faces": faces, "paths": paths, "keep": keep})
    after = {**value, "byte_groups": bytewise, "visual_groups": looking}
    if after != value:
        yield Change(path.name, "lists it", traces.write_later(after))


def queue_changes(folder: Path, words: Words, looks: Looks) -> Iterator[Change]:
    """Take items and results out of the queues a killed run has left for its worker."""
    for path in sorted(folder.rglob("queue.json")):
        value, here = traces.json_of(path), path.parent.relative_to(folder).as_posix()
        items = value.get("items") if isinstance(value, dict) else None
        if not isinstance(items, list):
            continue
        stay = [item for item in items if not words.mention(traces.texts_of(item))]
        if len(stay) < len(items):
            yield Change(
                f"{here}/queue.json", "lists it", traces.write_later({**value, "items": stay})
            )
        known = {item.get("id") for item in stay if isinstance(item, dict)}
        for lines in (path.with_name("results.jsonl"), path.with_name("worker.log")):
            keep = line_keeper(words) if lines.suffix == ".log" else result_keeper(known, looks)
            for change in traces.cleaned_lines(lines, keep):
                yield replace(change, path=f"{here}/{lines.name}")


def result_keeper(known: set[str], looks: Looks) -> Callable[[bytes], bytes | None]:
    """Keeps the results of known items, without the embeddings of the forgotten."""

    def keep(line: bytes) -> bytes | None:
        value = sf.object_of(line)
        if value is None or value.get("id") not in known:
            return None
        fresh = looks.without(value)
        return line if fresh == value else sf.checked_line(fresh)

    return keep


def line_keeper(words: Words) -> Callable[[bytes], bytes | None]:
    """Keeps the lines of a log that do not tell of the forgotten."""
    return lambda line: None if words.kinds(traces.text_of(line)) else line


# ============================================================================
# Sidecars beside photos
# ============================================================================


def sidecar_places(scene: Scene, target: Target) -> Iterator[traces.Place]:
    """The folders of photos, with the sidecars of ours there that tell of what goes.

    They come before the cache, which knows where they lie.
    """
    found: dict[str, list[Change]] = {}
    for root, change in sidecar_changes(scene.cache, target):
        found.setdefault(root, []).append(change)
    for root in sorted(found):
        yield traces.Place(Path(root), "sidecars", False, found[root])


def sidecar_changes(cache: sf.FaceCache, target: Target) -> Iterator[tuple[str, Change]]:
    """(folder, what becomes of a sidecar below it)."""
    xmp = sf.companion("consumers_xmp")
    roots = sorted(cache.meta.roots, key=len, reverse=True)
    for row, sha in enumerate(map(str, cache.file_sha256)):
        if sha not in target.photo_set and sha not in target.boxes:
            continue
        for photo in cache.paths[row]:
            path = Path(photo + xmp.ENDING)
            if not xmp.is_ours(path):
                continue
            text = path.read_bytes().decode("utf-8", "replace")
            boxes, wh = target.boxes.get(sha, ()), tuple(cache.file_wh[row].tolist())
            stays = sha in target.boxes and xmp.without(text, boxes, wh, target.names)
            if stays == text:
                continue
            above = (root for root in roots if path.is_relative_to(root) and path.name != root)
            root = next(above, str(path.parent))
            inside = path.relative_to(root).as_posix()
            write = functools.partial(write_text, stays) if stays else None
            yield root, Change(inside, "tells of it beside a photo", write)


def write_text(text: str, path: Path) -> None:
    sf.write_bytes(path, text.encode())


# ============================================================================
# Trees of photos
# ============================================================================


def tree_changes(scene: Scene, root: Path, target: Target) -> list[Change]:
    """All it takes to rid a raw or refined tree of what goes."""
    manifest, kind = scene.trees[root], whom.TREES[scene.kinds[root]]
    groups = [
        g
        for g in manifest.groups
        if not (target.owns(g.faces) or g.id in target.sets.get(str(root), ()))
    ]
    gone = {group.id for group in manifest.groups} - {group.id for group in groups}
    groups = [with_less(group, target) for group in groups]
    emptied = {group.id for group in groups if not group.faces}
    groups = [group for group in groups if group.faces]
    keep = tree_keeper(manifest, groups, target)
    placed = {dst: sha for dst, sha in manifest.placed.items() if keep(dst, sha)}
    groups = [
        msgspec.structs.replace(g, images=[i for i in g.images if i in placed]) for g in groups
    ]
    fresh = tree_after(manifest, groups, placed, target)
    library = sf.Library(scene.cache, scene.paths.cache)
    changes = [
        Change(dst, "placed for it", only_copy=not library.holds(root / dst))
        for dst in manifest.placed
        if dst not in placed and os.path.lexists(root / dst)
    ]
    if fresh != manifest or gone or emptied:
        write = functools.partial(corpora.write_record, fresh)
        changes.append(Change(kind.FILE, "lists it", write))
    if os.path.lexists(root / f"{kind.FILE}{sf.PENDING}"):
        changes.append(Change(f"{kind.FILE}{sf.PENDING}", "left by a killed run"))
    if (root / sf.RUNS_FOLDER / sf.TREE_RUN).exists():
        changes.append(Change(f"{sf.RUNS_FOLDER}/{sf.TREE_RUN}", "left by a killed run"))
    for path in sorted((root / sf.REMOVED_FOLDER).rglob("*")):
        if path.is_file() and not path.is_symlink() and shown_in(path) in target.photo_set:
            dst = path.relative_to(root).as_posix()
            changes.append(Change(dst, "set aside earlier", only_copy=True))
    return changes


def shown_in(path: Path) -> str:
    """The sha256 of the photo that a file of a tree is, or of the frame it was made from."""
    return films.frame_of_picture(path) or sf.sha256_of_file(path)


def with_less(group: sf.Group, target: Target) -> sf.Group:
    """A group of somebody else without the faces that go."""
    faces = [face for face in group.faces if face not in target.face_set]
    if len(faces) == len(group.faces):
        return group
    photos = len({face.partition(":")[0] for face in faces})
    return msgspec.structs.replace(group, faces=faces, face_count=len(faces), image_count=photos)


def tree_keeper(
    manifest: sf.TreeManifest, groups: Sequence[sf.Group], target: Target
) -> Callable[[str, str], bool]:
    """Whether a placed file stays: its photo still has a face in the group of its folder."""
    before = {group.id: group.faces for group in manifest.groups}
    after = {group.id: group.faces for group in groups}
    if isinstance(manifest, sf.RawManifest):
        before["_singletons"] = manifest.singletons
        after["_singletons"] = [f for f in manifest.singletons if f not in target.face_set]
    shown = {folder: {face[:16] for face in faces} for folder, faces in after.items()}
    lost = {
        folder: {face[:16] for face in faces if face in target.face_set} - shown.get(folder, set())
        for folder, faces in before.items()
    }

    def keep(dst: str, sha: str) -> bool:
        folder = dst.split("/")[0]
        if sha in target.photo_set or (folder in before and folder not in after):
            return False
        return sha[:16] not in lost.get(folder, ())

    return keep


def tree_after(
    manifest: sf.TreeManifest, groups: list[sf.Group], placed: dict[str, str], target: Target
) -> sf.TreeManifest:
    """The manifest of a tree without what goes."""
    counts = dict(manifest.counts)
    if isinstance(manifest, sf.RawManifest):
        singles = [face for face in manifest.singletons if face not in target.face_set]
        lost = sum(face in target.face_set for face in scene_faces(manifest))
        counts |= {"persons": len(groups), "singletons": len(singles)} if counts else {}
        counts |= {"faces": counts["faces"] - lost} if "faces" in counts else {}
        return msgspec.structs.replace(
            manifest, persons=groups, singletons=singles, placed=placed, counts=counts
        )
    short = {sha[:16] for sha in target.photos}
    seen = [sha for sha in manifest.seen if sha not in short]
    if "faces_kept" in counts:
        counts["faces_kept"] = sum(len(group.faces) for group in groups)
    return msgspec.structs.replace(
        manifest, facesets=groups, seen=seen, placed=placed, counts=counts
    )


def scene_faces(manifest: sf.RawManifest) -> list[str]:
    """All faces a raw tree lists."""
    return [*(face for group in manifest.persons for face in group.faces), *manifest.singletons]


# ============================================================================
# Pages, plans and logs
# ============================================================================

ENDS = ("from", "to")  # of a move


def page_changes(root: Path, touched: Sequence[str], words: Words) -> list[Change]:
    """Pages that show or name the forgotten go with all their thumbnails; answers stay."""
    pages = sf.companion("pages")
    known = sf.read_if_sound(root / "manifest.json", pages.PageList)
    if known is None:
        return []
    files = [f for f in known.files if pages.PAGE_FILE.fullmatch(f) and (root / f).is_file()]
    about = known.of in touched or any(words.kinds(file, names=False) for file in files)
    texts = (traces.text_of((root / file).read_bytes()) for file in files if file.endswith(".html"))
    if not about and not any(words.kinds(text) for text in texts):
        return []
    changes = [Change(file, "shows or names it") for file in files]
    rest = [file for file in known.files if not pages.PAGE_FILE.fullmatch(file)]
    if rest:
        fresh = msgspec.structs.replace(known, files=rest)
        if fresh != known:
            write = functools.partial(corpora.write_record, fresh)
            changes.append(Change("manifest.json", "lists them", write))
    else:
        changes.append(Change("manifest.json", "lists them"))
    return changes


def note_changes(folder: Path, target: Target, words: Words) -> list[Change]:
    """Take the person out of plans, pairs and reports of ours that lie in a folder."""
    changes = []
    for path in sorted(folder.glob("*.json")):
        kind = "" if path.is_symlink() else traces.kind_of(path)
        value = traces.json_of(path) if kind in ("plan", "pairs", "duplicates", "forget") else None
        if kind == "duplicates":
            changes += duplicates_change(path, target)
        elif kind == "pairs":
            fresh = pairs_without(value, target, words)
            if fresh != value:
                changes.append(Change(path.name, "names it", traces.write_later(fresh)))
        elif kind in ("plan", "forget") and (is_about(value, target) or words.mention(value)):
            changes.append(Change(path.name, "is a plan about it"))
    return changes


def is_about(plan: dict[str, Any], target: Target) -> bool:
    """Whether a saved plan has moves of the person's sets."""
    ids = target.sets.get(str(plan.get("corpus")), ())
    moves = [str(move.get(key)) for move in corpora.entries_of(plan, "moves") for key in ENDS]
    found = (re.match(sf.SET_PATH, text) for text in moves)
    return any(PurePosixPath(hit[0]).name in ids for hit in found if hit)


def pairs_without(value: dict[str, Any], target: Target, words: Words) -> dict[str, Any]:
    """Pairs of face sets without those of the person."""
    ids = {name for names in target.sets.values() for name in names}
    pairs = corpora.entries_of(value, "pairs")
    stay = [p for p in pairs if not ids & {p.get("a"), p.get("b")} and not words.mention(p)]
    return {**value, "pairs": stay} if len(stay) < len(pairs) else value


def log_changes(words: Words) -> list[Change]:
    """Take the lines out of our logs that tell of the forgotten."""
    folder, changes = sf.log_folder(), []
    for path in sorted(folder.rglob("*")):
        if path.is_file() and not path.is_symlink():
            for change in traces.cleaned_lines(path, line_keeper(words)):
                changes.append(replace(change, path=path.relative_to(folder).as_posix()))
    return changes
