"""Small pictures of faces and photos, made when a page asks for them and kept beside the cache.

A companion of sort_faces.py. They lie in <cache>.thumbs/ab/<mark>-<size>.jpg, named by what they
show, so a name never changes its picture. A photo is decoded once for all its faces and sizes; what
was asked for last comes first, as that is what the person looks at now.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import itertools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

import sort_faces as sf

SIZES = (96, 192, 384)  # px; a tile, the same on a dense screen, a face of a question
PHOTO_SIZE = 1600  # px; longest edge of a whole photo
PAD = 0.3  # of the box's longer edge around it on each side; as on the pages of report
QUALITY = 85  # of the JPEGs
RECIPE = f"1 {PAD} {QUALITY}"  # a picture made otherwise has another name
MOST_BYTES = 2_000_000_000  # of all kept pictures; then the oldest go
LEAVE = 0.9  # of that stay when some go
MEMORY = 64_000_000  # bytes of pictures kept in memory


class Unseen(Exception):
    """A picture that cannot be made: its photo is gone, changed or unreadable."""


Key = tuple[int, int]  # row of the face, or of the photo where the size is PHOTO_SIZE; px


def face_marks(cache: sf.FaceCache) -> list[str]:
    """The name of each face's pictures: 16 hex digits of the photo, the box and the recipe."""
    shas = [sha.encode() + RECIPE.encode() for sha in cache.file_sha256.tolist()]
    boxes = np.round(cache.bbox).astype("<i4")
    return [
        hashlib.blake2b(shas[file] + box.tobytes(), digest_size=8).hexdigest()
        for file, box in zip(cache.face_file.tolist(), boxes, strict=True)
    ]


class Thumbs:
    """The pictures of one library."""

    def __init__(self, library: sf.Library, workers: int = 2) -> None:
        """workers: threads that decode."""
        self.library, self.cache = library, library.cache
        self.folder = sf.beside(library.path, ".thumbs")
        self.marks = face_marks(self.cache)
        self.row_of = {mark: row for row, mark in enumerate(self.marks)}
        shas = self.cache.file_sha256.tolist()
        self.row_of_photo = {sha[:16]: row for row, sha in enumerate(shas)}
        order = np.argsort(self.cache.face_file, kind="stable")
        ends = np.searchsorted(self.cache.face_file[order], np.arange(self.cache.files + 1))
        self.faces_of = order, ends
        self.changed = threading.Condition()
        self.waiting: OrderedDict[int, dict[Key, list[concurrent.futures.Future]]] = OrderedDict()
        self.busy: set[int] = set()  # photos that a thread has in hand
        self.ended = False
        self.kept: OrderedDict[Key, bytes] = OrderedDict()
        self.kept_bytes = 0
        self.size: int | None = None  # bytes on disk, once counted
        self.threads = [
            threading.Thread(target=self.work, daemon=True, name=f"thumbs-{number}")
            for number in range(workers)
        ]
        for thread in self.threads:
            thread.start()

    def close(self) -> None:
        """Stop making pictures; what is being made is finished."""
        with self.changed:
            self.ended = True
            left, self.waiting = self.waiting, OrderedDict()
            self.changed.notify_all()
        for thread in self.threads:
            thread.join()
        for asked in left.values():
            give_up(itertools.chain(*asked.values()), Unseen("again"))

    def path(self, key: Key) -> Path:
        row, size = key
        mark = self.marks[row] if size in SIZES else str(self.cache.file_sha256[row])[:16]
        return self.folder / mark[:2] / f"{mark}-{size}.jpg"

    def photo_of(self, key: Key) -> int:
        """Row of the photo a picture is made from."""
        row, size = key
        return int(self.cache.face_file[row]) if size in SIZES else row

    def ready(self, key: Key) -> bytes | None:
        """The JPEG, where it has been made already."""
        with self.changed:
            if key in self.kept:
                self.kept.move_to_end(key)
                return self.kept[key]
        with contextlib.suppress(OSError):
            data = self.path(key).read_bytes()
            self.keep(key, data)
            return data
        return None

    def keep(self, key: Key, data: bytes) -> None:
        """Keep a picture in memory, and let those go that nobody has asked for the longest."""
        with self.changed:
            self.kept_bytes += len(data) - len(self.kept.pop(key, b""))
            self.kept[key] = data
            while self.kept_bytes > MEMORY:
                self.kept_bytes -= len(self.kept.popitem(last=False)[1])

    def ask(self, key: Key) -> concurrent.futures.Future:
        """The JPEG to come; the future raises Unseen where it cannot be made."""
        future: concurrent.futures.Future = concurrent.futures.Future()
        photo = self.photo_of(key)
        with self.changed:
            if self.ended:
                give_up([future], Unseen("again"))
                return future
            self.waiting.setdefault(photo, {}).setdefault(key, []).append(future)
            self.waiting.move_to_end(photo)
            self.changed.notify()
        return future

    def drop(self, key: Key, future: concurrent.futures.Future) -> None:
        """Nobody waits for this any more; work that nobody waits for is not done."""
        photo = self.photo_of(key)
        with self.changed:
            asked = self.waiting.get(photo, {})
            if future in asked.get(key, []):
                asked[key].remove(future)
            if photo in self.waiting and not any(asked.values()):
                del self.waiting[photo]

    def work(self) -> None:
        """What a thread does: the photo asked for last, again and again."""
        while True:
            with self.changed:
                while not self.ended and (photo := self.next_photo()) is None:
                    self.changed.wait()
                if self.ended:
                    return
                asked = self.waiting.pop(photo)
                self.busy.add(photo)
            try:
                self.make(photo, asked)
                error = Unseen("gone")
            except Unseen as unseen:
                error = unseen
            except Exception as bug:  # one picture must not end the thread that makes all
                sf.log.error("review: a picture cannot be made: %s", type(bug).__name__)
                error = Unseen("bug")
            with self.changed:
                self.busy.discard(photo)
                self.changed.notify_all()
            give_up(itertools.chain(*asked.values()), error)

    def next_photo(self) -> int | None:
        """The photo asked for last that no other thread has in hand."""
        return next((photo for photo in reversed(self.waiting) if photo not in self.busy), None)

    def make(self, photo: int, asked: dict[Key, list[concurrent.futures.Future]]) -> None:
        """Cut what was asked for, hand it out, then all other faces and sizes of the photo.

        Raises Unseen.
        """
        for key in asked:
            if (data := self.ready(key)) is not None:  # by another thread meanwhile
                hand_out(asked[key], data)
        todo = [
            key for key, futures in asked.items() if not all(future.done() for future in futures)
        ]
        if not todo:
            return
        order, ends = self.faces_of
        rows = order[ends[photo] : ends[photo + 1]].tolist()
        if any(size in SIZES for _, size in todo):
            todo += [key for key in itertools.product(rows, SIZES) if key not in asked]
        with sf.DECODING.work():
            image = self.read(photo, todo)
            for key in todo:
                data = jpeg(self.picture(image, key))
                self.store(key, data)
                hand_out(asked.get(key, ()), data)

    def read(self, photo: int, keys: Sequence[Key]) -> sf.Photo:
        """The photo, decoded no larger than its pictures need. Raises Unseen."""
        self.library.live.pop(photo, None)  # a drive may have been plugged in meanwhile
        path = self.library.live_path(photo)
        if not path:
            raise Unseen("gone")
        longest = int(max(self.cache.file_wh[photo]))
        scales = [self.square(row)[2] / SIZES[-1] for row, size in keys if size in SIZES]
        if any(size == PHOTO_SIZE for _, size in keys):
            scales.append(longest / PHOTO_SIZE)
        how = sf.Reading(least=int(longest / max(1.0, min(scales))))
        try:
            return sf.read_photo(path, str(self.cache.file_sha256[photo]), how)
        except sf.PhotoGone:
            raise Unseen("gone") from None
        except sf.PhotoError:
            raise Unseen("unreadable") from None

    def square(self, row: int) -> tuple[int, int, int]:
        """The part of its photo that shows a face."""
        wh = tuple(self.cache.file_wh[self.cache.face_file[row]].tolist())
        return sf.crop_square(self.cache.bbox[row], wh, PAD)

    def picture(self, photo: sf.Photo, key: Key) -> np.ndarray:
        """(h, w, 3) uint8 BGR."""
        import cv2

        row, size = key
        if size in SIZES:
            return photo.cut(self.square(row), size)
        height, width = photo.image.shape[:2]
        scale = PHOTO_SIZE / max(height, width)
        if scale >= 1:
            return photo.image
        wh = max(1, round(width * scale)), max(1, round(height * scale))
        return cv2.resize(photo.image, wh, interpolation=cv2.INTER_AREA)

    def store(self, key: Key, data: bytes) -> None:
        """Keep a picture on the disk; a full disk costs only that it is made again."""
        self.keep(key, data)
        path = self.path(key)
        with contextlib.suppress(OSError, sf.SortFacesError):
            with sf.writing(path, sync=False) as part:
                part.write_bytes(data)
            self.count(len(data))

    def count(self, more: int) -> None:
        """Note how much lies there; too much, and the oldest pictures go."""
        with self.changed:
            if self.size is not None:
                self.size += more
            full = self.size is None or self.size > MOST_BYTES
        if full:
            size = remove_oldest(self.folder)
            with self.changed:
                self.size = size


def hand_out(futures: Sequence[concurrent.futures.Future], data: bytes) -> None:
    """Give a picture to those who still wait for it."""
    for future in futures:
        if not future.done() and future.set_running_or_notify_cancel():
            future.set_result(data)


def give_up(futures: Iterable[concurrent.futures.Future], error: Unseen) -> None:
    """Tell those who still wait that there will be no picture."""
    for future in futures:
        if not future.done() and future.set_running_or_notify_cancel():
            future.set_exception(error)


def jpeg(image: np.ndarray) -> bytes:
    """A picture as the bytes of a JPEG without any facts about it."""
    import cv2

    return cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def remove_oldest(folder: Path, most: int = MOST_BYTES) -> int:
    """Bytes of the pictures in a folder; of more than `most` the oldest are removed."""
    found = []
    for entry in itertools.chain(*(os.scandir(sub) for sub in folder.iterdir() if sub.is_dir())):
        with contextlib.suppress(OSError):
            facts = entry.stat(follow_symlinks=False)
            found.append((facts.st_mtime_ns, facts.st_size, entry.path))
    size = sum(bytes_ for _, bytes_, _ in found)
    if size <= most:
        return size
    for _, bytes_, path in sorted(found):
        if size <= most * LEAVE:
            break
        with contextlib.suppress(OSError):
            os.unlink(path)
            size -= bytes_
    return size
