"""Thumbnails of the review page: one decode a photo, what is wanted now first, bounded on disk."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import make_cache, sf
from test_review_server import draw_photos

thumbs = sf.companion("review/thumbs")
WAIT = 20  # seconds


def group_cache(folder: Path) -> sf.FaceCache:
    """Four faces in the first photo, one in each of the others."""
    cache = make_cache(people=4, photos=3, root=str(folder / "photos"))
    face_file, face_index = cache.face_file.copy(), cache.face_index.copy()
    face_file[:4], face_index[:4] = 0, np.arange(4)
    return draw_photos(replace(cache, face_file=face_file, face_index=face_index))


@pytest.fixture
def made(tmp_path) -> Iterator[thumbs.Thumbs]:
    made = thumbs.Thumbs(sf.Library(group_cache(tmp_path), tmp_path / "lib.npz"), workers=1)
    yield made
    made.close()


class Gate:
    """Holds the decoding of photos back, and notes which were decoded."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.open, self.begun, self.read = threading.Event(), threading.Event(), []
        real = sf.read_photo

        def gated(path: str, *more: object) -> sf.Photo:
            self.read.append(Path(path).name)
            self.begun.set()
            assert self.open.wait(WAIT)
            return real(path, *more)

        monkeypatch.setattr(sf, "read_photo", gated)


def test_a_photo_is_decoded_once_for_all_faces_and_sizes(made, monkeypatch):
    gate = Gate(monkeypatch)
    gate.open.set()
    first = made.ask((2, 96)).result(WAIT)
    asked = [made.ask((row, size)) for row in range(4) for size in thumbs.SIZES]
    data = [future.result(WAIT) for future in asked]
    assert len(gate.read) == 1 and len(set(data)) == 12
    assert data[6] == first == made.path((2, 96)).read_bytes()


def test_what_was_asked_for_last_comes_first(made, monkeypatch):
    gate = Gate(monkeypatch)
    busy = made.ask((4, 96))
    assert gate.begun.wait(WAIT)
    later = {row: made.ask((row, 96)) for row in (5, 6, 7, 8)}
    made.ask((5, 192))  # its photo is wanted again
    gate.open.set()
    for future in (busy, *later.values()):
        future.result(WAIT)
    names = [Path(made.cache.file_path[row]).name for row in (4, 5, 8, 7, 6)]
    assert gate.read == names


def test_work_that_nobody_waits_for_is_not_done(made, monkeypatch):
    gate = Gate(monkeypatch)
    made.ask((4, 96))
    assert gate.begun.wait(WAIT)
    gone, stays = made.ask((5, 96)), made.ask((6, 96))
    made.drop((5, 96), gone)
    gate.open.set()
    stays.result(WAIT)
    assert len(gate.read) == 2 and not gone.done() and not made.waiting


def test_a_photo_in_hand_is_not_decoded_by_another_thread(tmp_path, monkeypatch):
    gate = Gate(monkeypatch)
    made = thumbs.Thumbs(sf.Library(group_cache(tmp_path), tmp_path / "lib.npz"), workers=3)
    asked: list[Future] = [made.ask((0, 96))]
    assert gate.begun.wait(WAIT)
    asked += [made.ask((1, 96)), made.ask((2, 384))]
    gate.open.set()
    for future in asked:
        assert future.result(WAIT)
    made.close()
    assert len(gate.read) == 1


def test_a_photo_that_is_gone_or_broken_is_told(made):
    os.unlink(made.cache.file_path[5])
    with pytest.raises(thumbs.Unseen, match="gone"):
        made.ask((5, 96)).result(WAIT)
    kept = made.ask((6, 96)).result(WAIT)
    os.unlink(made.cache.file_path[6])
    made.kept.clear()
    assert made.ready((6, 96)) == kept  # what was made stays


def test_a_name_never_changes_its_picture(tmp_path):
    cache = group_cache(tmp_path)
    marks = thumbs.face_marks(cache)
    moved = cache.bbox.copy()
    moved[3] += 5
    other = thumbs.face_marks(replace(cache, bbox=moved))
    assert len(set(marks)) == cache.faces
    assert [row for row in range(cache.faces) if marks[row] != other[row]] == [3]


def test_the_oldest_go_where_there_is_too_much(tmp_path):
    for number in range(10):
        path = tmp_path / f"{number % 3:02d}" / f"{number}.jpg"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(bytes(1000))
        os.utime(path, (number, number))
    assert thumbs.remove_oldest(tmp_path, 10_000) == 10_000
    assert thumbs.remove_oldest(tmp_path, 6000) == 5000
    assert sorted(path.name for path in tmp_path.rglob("*.jpg")) == [
        f"{n}.jpg" for n in range(5, 10)
    ]


def test_pictures_in_memory_are_bounded(made, monkeypatch):
    monkeypatch.setattr(thumbs, "MEMORY", 2500)
    for row in range(4):
        made.keep((row, 96), bytes(1000))
    assert list(made.kept) == [(2, 96), (3, 96)] and made.kept_bytes == 2000


def test_large_photos_are_decoded_no_larger_than_needed(tmp_path, monkeypatch):
    cache = make_cache(people=2, photos=1, root=str(tmp_path / "photos"))
    big = replace(
        cache,
        file_wh=cache.file_wh * 4,
        bbox=np.tile(np.array([400, 300, 2400, 2300], np.float32), (2, 1)),
    )
    made = thumbs.Thumbs(sf.Library(draw_photos(big), tmp_path / "lib.npz"), workers=1)
    scales, real = [], sf.read_photo

    def noted(*more: object) -> sf.Photo:
        photo = real(*more)
        scales.append(photo.scale)
        return photo

    monkeypatch.setattr(sf, "read_photo", noted)
    face = made.ask((0, 384)).result(WAIT)
    whole = made.ask((1, thumbs.PHOTO_SIZE)).result(WAIT)
    made.close()
    assert scales == [8, 2]
    assert cv2.imdecode(np.frombuffer(face, np.uint8), 1).shape == (384, 384, 3)
    assert cv2.imdecode(np.frombuffer(whole, np.uint8), 1).shape == (1280, 1600, 3)
