"""Limits, defaults and options that no other test pins; found by tests/bench/mutate.py."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import make_cache, sf
from corpora import (
    DIM,
    Face,
    Space,
    axis,
    build,
    edit,
    faces_in,
    files_of,
    folders,
    give_audits,
    picture,
    planned,
    read,
    rewrite,
    turned,
    wrong,
)
from material import Library, ok, refused
from test_video_core import at, make_track
from video_material import empty_picture, face_picture, shot, write_video

pytestmark = pytest.mark.usefixtures("quick_disk")


@pytest.fixture
def space() -> Space:
    return Space()


def cache_with(cache: sf.FaceCache, vectors: Sequence[np.ndarray], **values: object):
    return replace(cache, embedding=np.stack(vectors).astype(np.float32) * 20, **values)


def half(*signs: int) -> np.ndarray:
    """A direction with a cosine of exactly 0.5 to axis 0, whatever way it is computed."""
    return (axis(0) + sum(sign * axis(at) for at, sign in enumerate(signs, 1))) / 2


def below(value: float) -> float:
    return float(np.nextafter(value, -np.inf))


# --- occlusion --------------------------------------------------------------


def scored(folder: Path, *sets: Sequence[tuple[float, float]]) -> Path:
    """A corpus whose faces have these P(mask) and P(sunglasses)."""
    root = build(folder, [[Face(axis(at))] * len(own) for at, own in enumerate(sets)])
    lines = []
    for number, own in enumerate(sets, 1):
        faces = read(root / f"faceset_{number:03d}" / "manifest.json")["faces"]
        for face, scores in zip(faces, own, strict=True):
            lines.append({"sha256": face["sha256"], "error": "", "scores": scores})
    path = root / "_scores" / "occlusion-made-00000000.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return root


CLEAR = (0.0, 0.0)


@pytest.mark.parametrize("options", [(), ("--threshold", 0.25)], ids=["default", "option"])
@pytest.mark.parametrize("attribute", [0, 1], ids=["mask", "sunglasses"])
def test_a_face_at_the_threshold_is_occluded_and_one_below_is_not(
    run, tmp_path, options, attribute
):
    limit = options[1] if options else 0.7
    scores = [CLEAR] * 8
    for row, value in ((2, limit), (5, below(limit))):
        scores[row] = (value, 0.0) if attribute == 0 else (0.0, value)
    root = scored(tmp_path, scores)
    faces = faces_in(root, "faceset_001")
    said = ok(run, "occlusion", "report", root, *options)
    assert [row["verdict"] for row in said["facesets"]] == ["prune"]
    assert said["facesets"][0][("mask", "sunglasses")[attribute]] == 1
    assert ok(run, "occlusion", "apply", root, *options)["dropped"] == 1
    assert faces_in(root, "faceset_001") == faces[:2] + faces[3:]
    [gone] = read(root / "faceset_001" / "manifest.json")["dropped"]
    assert (gone["reason"], gone["score"]) == (("mask", "sunglasses")[attribute], limit)


def test_faces_at_the_threshold_dominate_a_set(run, tmp_path):
    root = scored(tmp_path, [(0.7, 0.69)] * 4 + [CLEAR] * 6)
    assert ok(run, "occlusion", "apply", root)["verdicts"] == {"masked": 1}
    [entry] = read(root / "manifest.json")["masked"]
    assert entry["reason"] == "40 % mask, 0 % sunglasses"


def test_a_face_is_dropped_for_the_likelier_attribute(run, tmp_path):
    root = scored(tmp_path, [(0.8, 0.9), (0.9, 0.8), *[CLEAR] * 6])
    ok(run, "occlusion", "apply", root)
    dropped = read(root / "faceset_001" / "manifest.json")["dropped"]
    assert [gone["reason"] for gone in dropped] == ["sunglasses", "mask"]
    assert [gone["score"] for gone in dropped] == [0.9, 0.9]


# --- era --------------------------------------------------------------------


def grown(
    run: Callable, folder: Path, early: Sequence[Face], late: Sequence[Face], *options: object
) -> tuple[Path, list[str]]:
    """A set that was split before some of its faces came: (corpus, those faces)."""
    root = build(folder, [[*early, *late]])
    own = root / "faceset_001"
    faces = list(files_of(root, "faceset_001").values())
    pngs = {face["file"]: (own / face["file"]).read_bytes() for face in faces[len(early) :]}
    for file in pngs:
        (own / file).unlink()
    rewrite(root, "faceset_001", faces[: len(early)])
    ok(run, "era", "split", root, "faceset_001", *options)
    for file, data in pngs.items():
        (own / file).write_bytes(data)
    rewrite(root, "faceset_001", faces)
    return root, [face["face"] for face in faces[len(early) :]]


@pytest.mark.parametrize(
    ("options", "cosine", "year", "joins"),
    [
        ((), 0.65, 2006, True),
        ((), 0.55, 2006, False),
        ((), 0.65, 2007, False),
        (("--distance", 0.2), 0.65, 2001, False),
        (("--distance", 0.2), 0.85, 2001, True),
        (("--distance", 0.6), 0.45, 2001, True),
        (("--years", 1), 0.9, 2004, False),
        (("--years", 1), 0.9, 2002, True),
        (("--years", 10), 0.9, 2010, True),
        (("--years", 10, "--distance", 0.6), 0.45, 2011, True),
        (("--years", 10, "--distance", 0.6), 0.45, 2012, False),
    ],
)
def test_extend_goes_by_the_rules_of_the_split(run, space, tmp_path, options, cosine, year, joins):
    """Six alike faces of 2001, so that they and nothing else make the anchor."""
    early = [Face(axis(0), year=2001)] * 6
    root, [late] = grown(run, tmp_path, early, [space.face(0, cosine, year=year)], *options)
    result = ok(run, "era", "extend", root, "faceset_001")
    assert (late in faces_in(root, "faceset_001_2001")) is joins
    assert result["of_no_era"] == (0 if joins else 1)


def test_the_plan_of_a_split_says_how_near_every_face_is(run, space, tmp_path):
    years = [2001, 2001, 2001, 2004, None, 2020]
    faces = [*[Face(axis(0), year=year) for year in years[:3]], space.face(0, 0.8, year=2004),
             space.face(0, 0.9), space.face(0, 0.95, year=2020)]  # fmt: skip
    root = build(tmp_path, [faces])
    moves = planned(run, tmp_path / "plan.json", "era", "split", root, "faceset_001")
    own = {
        move["file"]: move for move in moves if "2001" in move["to"] and "_2020" not in move["to"]
    }
    anchor = np.mean([face.vector for face in faces[:5]], axis=0)
    anchor /= np.linalg.norm(anchor)
    assert [move["file"] for move in moves] == [f"faces/{at:03d}.png" for at in range(6)]
    for row in range(5):
        numbers = own[f"faces/{row:03d}.png"]["numbers"]
        assert numbers["distance"] == pytest.approx(1 - faces[row].vector @ anchor, abs=1e-3)
        assert numbers.get("years") == {3: 3.0, 4: None}.get(row, 0.0)
        assert ("undated" in own[f"faces/{row:03d}.png"]["reason"]) is (row == 4)


def test_a_thin_era_says_how_many_faces_it_has(run, tmp_path):
    faces = [*[Face(axis(0), year=2001)] * 5, *[Face(axis(0), year=2020)] * 2]
    root = build(tmp_path, [faces])
    ok(run, "era", "split", root, "faceset_001")
    [entry] = read(root / "manifest.json")["thin_eras"]
    assert entry["reason"] == "an era of 2 faces"
    assert not read(root / "faceset_001_2001" / "manifest.json").get("reason")


@pytest.mark.parametrize(("least", "told"), [(4, 1), (5, 0)])
def test_an_era_that_is_thin_no_more_is_told_by_the_size_of_the_split(
    run, space, tmp_path, least, told
):
    """Two faces of 2020 and two more: enough where the split wanted four."""
    early = [*[Face(axis(0), year=2001)] * 5, *[Face(axis(0), year=2020)] * 2]
    late = [space.face(0, 0.9, year=2020), space.face(0, 0.9, year=2021)]
    root, _ = grown(run, tmp_path, early, late, "--min-faces", least)
    assert folders(root) == {"faceset_001", "faceset_001_2001", "_thin/faceset_001_2020"}
    back = ok(run, "era", "extend", root, "faceset_001")["thin_no_more"]
    assert back == ["_thin/faceset_001_2020: 4 faces"] * told


# --- near-duplicates --------------------------------------------------------


@pytest.mark.parametrize(("distance", "keeper"), [(0.5, [0, 0, 2]), (0.49, [0, 1, 2])])
def test_a_face_exactly_at_the_distance_of_a_better_one_is_its_duplicate(distance, keeper) -> None:
    unit = np.stack([axis(0), half(1, 1, 1), axis(5)]).astype(np.float32)
    assert sf.nearest_keeper(unit, distance).tolist() == keeper


def test_boxes_are_compared_by_their_size_wherever_they_are() -> None:
    left = np.array([[10, 20, 110, 220]] * 4, np.float32)
    right = left + np.array([[300, 50, 300, 50], [300, 50, 309, 50], [300, 50, 312, 50],
                             [300, 50, 300, 73]], np.float32)  # fmt: skip
    assert sf.same_box_size(left, right).tolist() == [True, True, False, False]
    assert sf.same_box_size(right, left).tolist() == [True, True, False, False]


# --- detections -------------------------------------------------------------


@pytest.mark.parametrize(
    ("third", "kept"),
    [
        ([42, 0, 142, 100], 2),  # an overlap of 0.41 with the first
        ([43, 0, 143, 100], 3),  # of 0.40
        ([900, 42, 1000, 142], 2),  # with the second alone
        ([900, 43, 1000, 143], 3),
        ([80, 0, 120, 40], 3),  # half of it lies in the first
        ([75, 0, 115, 40], 2),
        ([975, 0, 1015, 40], 2),
        ([980, 0, 1020, 40], 3),
    ],
)
def test_a_face_is_another_one_if_no_stronger_covers_it(third, kept) -> None:
    boxes = np.array([[0, 0, 100, 100], [900, 0, 1000, 100], third], np.float32)
    found = sf.Detections(boxes, np.float32([0.9, 0.8, 0.7]), np.zeros((3, 5, 2), np.float32))
    assert len(sf.distinct_faces(found)) == kept


# --- tracks and segments ----------------------------------------------------


def box_at(x: float) -> list[float]:
    return [x, 0.0, x + 100.0, 100.0]


@pytest.mark.parametrize(
    ("shift", "cosine", "away", "joins"),
    [
        (900, 0.46, 0.5, True),  # alike enough wherever it is
        (900, 0.44, 0.5, False),
        (53, 0.3, 0.5, True),  # an overlap of 0.31
        (55, 0.3, 0.5, False),  # of 0.29
        (0, 0.21, 0.5, True),  # in one place a face may look quite another way
        (0, 0.19, 0.5, False),
        (0, 1.0, 3.0, True),
        (0, 1.0, 3.1, False),
    ],
)
def test_what_joins_a_track_by_default(shift, cosine, away, joins) -> None:
    unit = np.stack([axis(0), turned(cosine)]).astype(np.float32)
    bbox = np.array([box_at(0), box_at(shift)], np.float32)
    labels = sf.stitch_tracks(np.array([0.0, away]), bbox, unit, sf.Reach())
    assert labels.tolist() == ([0, 0] if joins else [0, 1])


@pytest.mark.parametrize(("shift", "track"), [(0, 0), (25, 1)])
def test_who_counts_twice_as_much_as_where(shift, track) -> None:
    """Cosine 0.5 where the face was, against 0.9 far away: an overlap of 1 wins, 0.6 does not."""
    face = axis(0)
    unit = np.stack([turned(0.5), turned(0.9, 0, 2), face]).astype(np.float32)
    bbox = np.array([box_at(0), box_at(700), box_at(shift)], np.float32)
    labels = sf.stitch_tracks(np.array([0.0, 0.0, 0.5]), bbox, unit, sf.Reach())
    assert labels.tolist() == [0, 1, track]


def test_samples_are_counted_from_the_first_frame() -> None:
    pts = np.array([7, 11, 16, 17, 26, 27, 36, 40])
    assert sf.sample_times(pts, 10).tolist() == [7, 17, 27, 40]


def test_a_track_without_a_usable_frame_fails_whatever_share_is_asked_for() -> None:
    gates = sf.Gates(min_good=0.0)
    assert sf.track_fault(make_track(at(0, 4), det=0.1), gates) != ""
    assert sf.track_fault(make_track(at(0, 4), det=[0.1, 0.1, 0.1, 0.9]), gates) == ""


def test_a_segment_from_the_first_sample_to_the_last_is_the_whole_scene() -> None:
    """However far they are from the cuts; from the second sample on it is not."""
    whole = make_track(at(2, 9), scene=(0.0, 10.0), sampled=(2.0, 6.0))
    [segment] = sf.track_segments(whole, sf.Gates(), 0.5)
    assert (segment.start, segment.end) == (0.0, 10.0)
    part = make_track(at(2.5, 7), scene=(0.0, 10.0), sampled=(2.0, 6.0))
    [segment] = sf.track_segments(part, sf.Gates(), 0.5)
    assert (segment.start, segment.end) == (2.25, 5.75)


def test_a_segment_of_just_the_longest_length_is_not_made_longer() -> None:
    parts = [sf.Segment("v", 0.0, 120.0, ()), sf.Segment("v", 100.0, 130.0, ())]
    merged = sf.merge_segments(parts, sf.Gates(max_dur=120.0))
    assert [(s.start, s.end, s.reason) for s in merged] == [(0.0, 120.0, ""), (120.0, 130.0, "")]


@pytest.mark.parametrize(("gap", "count"), [(3.72, 1), (3.78, 2)])
def test_uneven_samples_are_bridged_up_to_one_and_a_half_periods_more(gap, count) -> None:
    track = make_track([0.0, 0.5, 0.5 + gap, 1.0 + gap], scene=(0.0, 20.0))
    assert len(sf.track_segments(track, sf.Gates(bridge_gap=3.0), 0.5)) == count


@pytest.mark.parametrize(
    ("spans", "merged"),
    [
        ([(100, 104), (105, 109)], [(100, 109)]),
        ([(100, 106), (105, 110)], [(100, 110)]),  # just the longest
        ([(100, 108), (105, 113)], [(100, 108), (108, 113)]),  # each fits, both do not
        ([(100, 112), (111, 113)], [(100, 113)]),  # one is too long already
        ([(100, 101), (100, 112)], [(100, 112)]),
        ([(100, 112), (112, 114)], [(100, 112), (112, 114)]),  # and does not overlap this one
        ([(100, 109), (102, 104)], [(100, 109)]),
    ],
)
def test_segments_are_fused_as_far_as_the_longest_clip_allows(spans, merged) -> None:
    gates = sf.Gates(min_dur=1.0, max_dur=10.0, merge_gap=2.0)
    parts = [sf.Segment("v", float(start), float(end), ()) for start, end in spans]
    assert [(s.start, s.end) for s in sf.merge_segments(parts, gates)] == merged


@pytest.mark.parametrize(
    ("length", "word"), [(0.95, "shorter"), (1.0, ""), (10.0, ""), (10.05, "longer")]
)
def test_a_twentieth_of_a_second_decides_over_a_segment(length, word) -> None:
    gates = sf.Gates(min_dur=1.0, max_dur=10.0)
    fault = sf.segment_fault(sf.Segment("v", 2.0, 2.0 + length, ()), gates)
    assert word in fault and bool(word) == bool(fault)


@pytest.mark.parametrize(
    ("times", "seen"),
    [
        ([[5.0]], True),
        ([[7.0]], False),  # the first moment that is no longer in it
        ([[4.9, 7.1]], False),
        ([[1.0, 2.0], [4.0, 6.0, 8.0]], True),
        ([[1.0, 2.0], [8.0, 9.0]], False),
    ],
)
def test_a_segment_holds_a_frame_that_was_looked_at(times, seen) -> None:
    tracks = tuple(make_track(some) for some in times)
    fault = sf.segment_fault(sf.Segment("v", 5.0, 7.0, tracks), sf.Gates())
    assert (fault == "") is seen


def test_a_copy_begins_at_the_last_key_frame_before_or_else_at_the_first() -> None:
    pts, key = list(range(10, 50)), [number % 10 == 0 for number in range(40)]
    for start, begin in ((35, 30), (40, 40), (10, 10), (4, 10)):
        parts = sf.companion("clip_writer").plan_clip(pts, key, start, 47, copy=True)
        assert (parts.first, parts.key) == (begin, begin)
        assert [pts[number] for number in parts.copied] == list(range(begin, 47))


# --- video score ------------------------------------------------------------


def person(folder: Path, work: Path, name: str, vector: np.ndarray) -> Path:
    """A folder of one crop whose embedding the work folder knows already."""
    picture_file = folder / name / "crop.png"
    sf.write_part(picture_file, name.encode())
    path = work / "identities.json"
    head = {"tool": "sort_faces", "kind": "identities", "recognizer": "feed"}
    value = read(path) if path.exists() else {**head, "faces": {}}
    packed = sf.pack_floats(vector.astype(np.float32))
    value["faces"][sf.sha256_of_file(picture_file)] = packed
    sf.write_json(path, value)
    return picture_file.parent


def score_of(run: Callable, work: Path, tracks: Sequence[sf.Track], *options: object) -> dict:
    """The plan that `video score` makes of these tracks of the videos v and w."""
    facts = {"fps": 25.0, "start": 0, "tick": 0.04, "scenes": 1}
    meta = {"model": "buffalo_l", "recognizer": "feed", "rate": 2.0, "det_size": 640,
            "det_threshold": 0.5, "model_source": "", "dim": tracks[0].centre.size}  # fmt: skip
    head = {"tool": "sort_faces", "kind": "tracks", "version": sf.VERSION, "period": 0.5}
    videos = {name: {**facts, "path": f"/{name}.mp4"} for name in "vw"}
    value = {**head, "meta": meta, "videos": videos}
    sf.write_json(work / "tracks.json", {**value, "tracks": [sf.track_json(t) for t in tracks]})
    code, _, err = run("video", "score", work, "-q", *options)
    plan = read(work / "plan.json")
    assert code == (0 if plan["segments"] else 1), err
    return plan


def looks(track: sf.Track, vector: np.ndarray) -> sf.Track:
    return replace(track, centre=vector.astype(np.float32))


@pytest.mark.parametrize(("distance", "named"), [(0.5, True), (0.49, False)])
def test_a_track_exactly_at_the_identity_distance_is_that_person(run, tmp_path, distance, named):
    work = tmp_path / "work"
    ada = person(tmp_path, work, "ada", axis(0))
    tracks = [looks(make_track(at(5, 9)), half(1, 1, 1))]
    options = ("--identity-distance", distance)
    plan = score_of(run, work, tracks, "--identity", ada, *options)
    assert [s["identity"] for s in plan["segments"]] == [["ada"]] * named
    assert [entry["reason"] for entry in plan["rejected"]] == ["another person"] * (not named)
    plan = score_of(run, work, tracks, "--exclude-identity", ada, *options)
    assert len(plan["segments"]) == (not named)


@pytest.mark.parametrize(
    ("moments", "video", "kept"),
    [
        ([4.25], "v", True),  # the last sample before it
        ([4.26], "v", False),
        ([9.24], "v", False),
        ([9.25], "v", True),
        ([1.0, 7.0, 12.0], "v", False),
        ([1.0, 12.0], "v", True),
        ([7.0], "w", True),
    ],
)
def test_a_segment_is_dropped_only_where_the_excluded_person_is_in_it(
    run, tmp_path, moments, video, kept
):
    """The segment goes from 4.75 to 9.25, with a sample every half second."""
    work = tmp_path / "work"
    eva = person(tmp_path, work, "eva", axis(5))
    ours = looks(make_track(at(5, 9), name="ours"), axis(0))
    hers = looks(make_track(moments, name="hers", video=video, det=0.1), axis(5))
    plan = score_of(run, work, [ours, hers], "--exclude-identity", eva)
    assert [(s["start"], s["end"]) for s in plan["segments"]] == [(4.75, 9.25)] * kept
    reasons = {entry["name"]: entry["reason"] for entry in plan["rejected"]}
    assert reasons.get("ours", "") == ("" if kept else "shows an excluded person")


def test_the_plan_describes_a_segment_by_the_samples_within_it(run, tmp_path):
    """Two tracks of one scene; poses, sizes and scores of ten samples."""
    one = make_track(at(5, 6), yaw=[-10, -10, -10, 20, 20, 20], pitch=4, short=100, det=0.8)
    two = make_track(at(6, 4), name="u", yaw=60, pitch=-8, short=200, det=0.6)
    [segment] = score_of(run, tmp_path / "work", [one, two])["segments"]
    assert (segment["start"], segment["end"], segment["tracks"]) == (4.75, 7.75, ["t", "u"])
    assert (segment["pts"], segment["frames"]) == ([119, 194], [119, 194])
    assert segment["quality"] == {"samples": 10, "yaw": 20, "pitch": 4, "short": 100, "det": 0.72}
    assert segment["strip"] == [5.0, 5.5, 6.0, 7.0, 7.5]


# --- video report -----------------------------------------------------------


def films_with_tracks(run: Callable, folder: Path, films: int, kept: int, rejected: int) -> Path:
    """A work folder of short films, scored, each with so many tracks of either kind."""
    for number in range(films):
        write_video(folder / "in" / f"{number}.mp4", list(shot(empty_picture(number), 5)))
    work = folder / "work"
    ok(run, "video", "scan", folder / "in", work)
    listed, tracks = {}, []
    for video in (entry["facts"] for entry in read(work / "videos.json")["videos"]):
        facts = {key: video[key] for key in ("path", "start")}
        listed[video["id"]] = {**facts, "fps": 25.0, "tick": 1.0, "scenes": 1}
        for number in range(max(kept, 1) + rejected):
            begin, good = 10.0 * number, number >= rejected  # by time the kept ones come last
            track = sf.Track(
                f"t{number:04d}", video["id"], (begin, begin + 2.0), (begin, begin + 1.9),
                begin + np.arange(4) * 0.5, np.array([[0.0, 0.0, 120.0, 150.0]] * 4),
                np.full(4, 0.9 if good else 0.1), np.zeros((4, 3)), axis(0).astype(np.float32),
            )  # fmt: skip
            tracks.append(sf.track_json(track))
    head = {"tool": "sort_faces", "kind": "tracks", "version": sf.VERSION, "period": 0.5}
    meta = {"model": "buffalo_l", "recognizer": "feed", "rate": 2.0, "det_size": 640,
            "det_threshold": 0.5, "dim": axis(0).size}  # fmt: skip
    value = {**head, "meta": meta, "videos": listed, "tracks": tracks}
    sf.write_json(work / "tracks.json", value)
    said = ok(run, "video", "score", work)
    assert (said["segments"], said["tracks"]) == (films * max(kept, 1), len(tracks))
    plan = read(work / "plan.json")
    plan["segments"] = plan["segments"] if kept else []  # score wants at least one
    for row in (*plan["segments"], *plan["rejected"]):
        row["strip"] = [0.0]  # the films are short: everything shows their first frame
    sf.write_json(work / "plan.json", plan)
    return work


def rows_of_page(work: Path) -> dict[str, list[bool]]:
    """Of the segments and of the rejected tracks on the page, in order: which have thumbnails."""
    page = (work / "report" / "index.html").read_text(encoding="utf-8")
    rows = [part.split("</tr>")[0] for part in page.split("<tr class=")[1:]]
    return {
        kind: ["<img" in row for row in rows if row.startswith(f'"{kind}"')]
        for kind in ("segment", "rejected")
    }


@pytest.mark.parametrize(("films", "kept", "rejected"), [(1, 0, 499), (2, 0, 501), (1, 3, 501)])
def test_five_hundred_rejected_tracks_of_a_video_have_thumbnails(
    run, tmp_path, films, kept, rejected
):
    work = films_with_tracks(run, tmp_path, films, kept, rejected)
    ok(run, "video", "report", work)
    shown = rows_of_page(work)
    first = min(rejected, 500)
    assert shown["segment"] == [True] * kept * films
    assert shown["rejected"] == ([True] * first + [False] * (rejected - first)) * films


# --- identities -------------------------------------------------------------


def plane(*degrees: float) -> np.ndarray:
    """Unit rows in one plane."""
    angles = np.radians(degrees)
    rows = np.zeros((len(degrees), 8), np.float32)
    rows[:, 0], rows[:, 1] = np.cos(angles), np.sin(angles)
    return rows


def test_a_face_exactly_at_the_outlier_threshold_stays() -> None:
    unit = np.stack([axis(0), axis(0), half(1, 1, 1), half(-1, -1, -1)]).astype(np.float32)
    rows = np.arange(4)
    assert sf.trim_outliers(unit, rows, 0.5).tolist() == [0, 1, 2, 3]
    assert sf.trim_outliers(unit, rows, 0.49).tolist() == [0, 1]


def test_two_clusters_of_one_person_are_one() -> None:
    """Two are as good as many."""
    assert len(set(sf.merge_by_centroid(plane(0, 2, 30, 32), np.array([0, 0, 1, 1]), 0.4))) == 1
    assert len(set(sf.merge_by_centroid(plane(0, 2, 80, 82), np.array([0, 0, 1, 1]), 0.4))) == 2


def library_of(folder: Path, vectors: np.ndarray, **values: object) -> Library:
    cache = make_cache(people=1, photos=len(vectors), dim=vectors.shape[1], root=str(folder / "in"))
    return Library(folder, cache_with(cache, vectors, **values))


@pytest.mark.parametrize(
    ("first", "merge", "people"), [(0.4, 0.01, 1), (0.01, 0.4, 1), (0.1, 0.05, 2)]
)
def test_the_first_clustering_and_the_merge_have_a_threshold_each(
    run, tmp_path, first, merge, people
):
    """Two bundles of faces 0.23 apart."""
    library = library_of(tmp_path, plane(0, 1, 2, 40, 41, 42))
    options = ("--initial-threshold", first, "--merge-threshold", merge, "--min-faces", 1)
    said = ok(run, "refine", library.path, library.out, *options)
    assert len(said["facesets"]) == people


def test_three_clusters_tell_the_first_threshold_from_the_second(run, tmp_path):
    """0.12 apart in a row: the first clustering alone would stop at two of the three."""
    library = library_of(tmp_path, plane(0, 28, 56))
    for first, merge, people in ((0.2, 0.01, 2), (0.01, 0.2, 2), (0.2, 0.45, 1)):
        options = ("--initial-threshold", first, "--merge-threshold", merge, "--min-faces", 1)
        said = ok(run, "refine", library.path, library.out, *options)
        assert len(said["facesets"]) == people, (first, merge)


def test_an_identity_without_faces_is_none() -> None:
    """Not even where no number of photos is asked for."""
    cache = make_cache(people=1, photos=5)
    params = sf.RefineParams(min_faces=0, min_short=1e6)
    refined = sf.refine_identities(cache, np.arange(5), params)
    assert refined.identities == [] and refined.dropped["small"] == 5


def test_a_copy_exactly_at_the_copy_threshold_stays() -> None:
    cache = cache_with(make_cache(people=1, photos=4, dim=DIM), [axis(0)] * 3 + [half(1, 1, 1)],
                       face_file=np.array([0, 1, 2, 2], np.int32))  # fmt: skip
    kept = [sf.one_face_per_photo(cache, np.arange(4), at).tolist() for at in (0.5, 0.49)]
    assert kept == [[0, 1, 2, 3], [0, 1, 2]]


def test_rows_join_the_nearest_centroid_up_to_the_threshold() -> None:
    vectors = [
        axis(0),
        axis(0),
        axis(5),
        axis(5),
        half(1, 1, 1),
        axis(6),
        0.6 * axis(5) + 0.8 * axis(7),
    ]
    cache = cache_with(make_cache(people=1, photos=7, dim=DIM), vectors)
    groups = {"a": np.array([0, 1]), "none": np.array([], int), "b": np.array([2, 3])}
    joined, rest = sf.join_centroids(cache, np.array([4, 5, 6]), groups, 0.5)
    assert {name: rows.tolist() for name, rows in joined.items()} == {"a": [4], "b": [6]}
    assert rest.tolist() == [5]
    joined, rest = sf.join_centroids(cache, np.array([4, 5]), groups, 0.49)
    assert [len(rows) for rows in joined.values()] == [0, 0] and rest.tolist() == [4, 5]


@pytest.mark.parametrize("change", ["picture", "face"])
def test_extend_knows_a_face_by_its_picture_or_by_its_name(run, tmp_path, change):
    """Retouched, or of another name since the photos were scanned anew: it is in its era."""
    root = build(tmp_path, [[Face(axis(0), year=2001)] * 6])
    ok(run, "era", "split", root, "faceset_001")
    faces = list(files_of(root, "faceset_001").values())
    if change == "picture":
        path = root / "faceset_001" / faces[2]["file"]
        path.write_bytes(picture(7))
        faces[2]["sha256"] = sf.sha256_of_file(path)
    else:
        faces[2]["face"] = f"{99:016x}:0"
    rewrite(root, "faceset_001", faces)
    give_audits(root)
    before = faces_in(root, "faceset_001_2001")
    assert ok(run, "era", "extend", root, "faceset_001")["run"].startswith("none")
    assert faces_in(root, "faceset_001_2001") == before


@pytest.mark.parametrize("era", ["2001", "2020"])
def test_one_anchor_of_another_model_stops_extend(run, tmp_path, era):
    faces = [*[Face(axis(0), year=2001)] * 5, *[Face(axis(0), year=2020)] * 5]
    root = build(tmp_path, [faces])
    ok(run, "era", "split", root, "faceset_001")
    short = sf.pack_floats(np.ones(3, np.float32))
    edit(
        root / f"faceset_001_{era}" / "manifest.json",
        lambda manifest: manifest["era"].update(anchor=short),
    )
    refused(run, "era", "extend", root, "faceset_001", word="faceset_001")


# --- consolidate ------------------------------------------------------------


def pairs_of(run: Callable, root: Path, *options: object) -> list[dict]:
    """The pairs that consolidate would show."""
    review = root.parent / "review"
    ok(run, "consolidate", root, "--review", review, "--dry-run", *options)
    return read(review / "pairs.json")["pairs"]


def test_sets_exactly_at_the_edge_are_one_person(run, tmp_path):
    root = build(tmp_path, [[Face(axis(0))], [Face(half(1, 1, 1))]])
    for edge, merged in ((0.5, 1), (0.51, 0)):
        plan = tmp_path / "plan.json"
        moves = planned(run, plan, "consolidate", root, "--edge", edge, "--review", tmp_path / "r")
        assert sum(move["action"] == "shelve" for move in moves) == merged


@pytest.mark.parametrize(("edge", "shown"), [(0.51, 1), (0.645, 1), (0.655, 0)])
def test_pairs_up_to_015_below_the_edge_are_shown(run, tmp_path, edge, shown):
    root = build(tmp_path, [[Face(axis(0))], [Face(half(1, 1, 1))]])
    assert [pair["cosine"] for pair in pairs_of(run, root, "--edge", edge)] == [0.5] * shown


def test_the_fifty_nearest_pairs_are_shown_the_nearest_first(run, space, tmp_path):
    shares = np.linspace(0.68, 0.73, 12)
    sets = [[space.face(0, float(share))] for share in shares]
    pairs = pairs_of(run, build(tmp_path, sets))
    cosines = [pair["cosine"] for pair in pairs]
    every = sorted((a * b for at, a in enumerate(shares) for b in shares[:at]), reverse=True)
    assert len(cosines) == 50 < len(every)
    assert np.allclose(cosines, every[:50], atol=1e-3)
    assert (pairs[0]["a"], pairs[0]["b"]) == ("faceset_011", "faceset_012")


@pytest.mark.parametrize(("others", "kept"), [(1, 3), (2, 2)])
def test_a_merged_set_has_outliers_from_four_faces_on(run, tmp_path, others, kept):
    """Two faces 70 degrees on either side of a third, or of two."""
    wide = [Face(turned(0.342)), Face(turned(0.342) * (1 - 2 * axis(1)))]
    near = [Face(turned(0.94, 0, 2)), Face(turned(0.94, 0, 2) * (1 - 2 * axis(2)))]
    near = near if others == 2 else [Face(axis(0))]
    root = build(tmp_path, [wide, near])
    ok(run, "consolidate", root, "--review", tmp_path / "review")
    assert folders(root) == {"faceset_001", "_merged/faceset_002"}
    assert len(faces_in(root, "faceset_001")) == kept
    reasons = [g["reason"] for g in read(root / "faceset_001" / "manifest.json")["dropped"]]
    assert len(reasons) == 4 - kept - (others == 1) and all("outlier" in r for r in reasons)


def answers(folder: Path, told: dict[tuple[int, int], str]) -> Path:
    path = folder / "answers.json"
    pairs = [{"a": f"faceset_{a:03d}", "b": f"faceset_{b:03d}", "answer": text}
             for (a, b), text in told.items()]  # fmt: skip
    path.write_text(json.dumps({"tool": "sort_faces", "kind": "pairs", "pairs": pairs}))
    return path


def test_a_yes_that_meets_a_no_is_told(run, space, tmp_path):
    """1 is 2 and 2 is 3, but 1 is not 3: one of the three stays apart, with a warning."""
    root = build(tmp_path, [space.faces(person_, 3) for person_ in range(3)])
    told = answers(tmp_path, {(1, 2): "yes", (2, 3): "yes", (1, 3): "no"})
    argv = ("consolidate", root, "--review", tmp_path / "review", "--accept", told)
    assert ok(run, *argv, warned="your yes meets a no; they stay apart")["shelved"] == 1


def test_an_empty_set_is_nobody(run, space, tmp_path):
    root = build(tmp_path, [space.faces(0, 3), [], space.faces(0, 2)])
    ok(run, "consolidate", root, "--review", tmp_path / "review")
    assert folders(root) == {"faceset_001", "_thin/faceset_002", "_merged/faceset_003"}


# --- verify -----------------------------------------------------------------


@pytest.mark.parametrize(("gate", "found"), [(0.5, 0), (0.49, 2)])
def test_a_face_exactly_at_the_gate_of_verify_is_right(run, tmp_path, gate, found):
    faces = [axis(0), axis(0), axis(0), half(1, 1, 1), half(-1, -1, -1)]
    root = build(tmp_path, [[Face(vector) for vector in faces]])
    give_audits(root)
    said = wrong(run, root, "--gate", gate)
    assert [(file, rule) for _, file, rule in said] == [
        ("faces/003.png", "identity"), ("faces/004.png", "identity"),
    ][:found]  # fmt: skip


@pytest.mark.parametrize(("number", "found"), [(3, 0), (4, 1)])
def test_verify_measures_a_centroid_from_four_faces_on(run, space, tmp_path, number, found):
    faces = [*space.faces(0, number - 1), space.face(1)]
    root = build(tmp_path, [faces])
    give_audits(root)
    assert len(wrong(run, root, "--gate", 0.55)) == found


# --- export-swap ------------------------------------------------------------


def plan_of(
    run: Callable,
    folder: Path,
    vectors: Sequence[np.ndarray],
    *options: object,
    **values: object,
) -> dict:
    """What export-swap would make of one face set with these faces: {"faces", "left_out"}."""
    library = library_of(folder, np.stack(vectors), **values)
    ok(run, "refine", library.path, library.out, "--min-faces", 1, *ALL_ONE)
    manifest = read(library.out / "refine_manifest.json")
    assert [len(entry["faces"]) for entry in manifest["facesets"]] == [len(vectors)]
    argv = ("export-swap", library.path, library.out / "refine_manifest.json", folder / "ready")
    [entry] = ok(run, *argv, "--model", "synthetic", "--dry-run", *options)["facesets"]
    return entry


ALL_ONE = ("--initial-threshold", 2, "--merge-threshold", 2, "--outlier-threshold", 2)


@pytest.mark.parametrize(("ours", "left_out"), [(2, 0), (3, 1), (4, 1)])
def test_the_outlier_gate_of_the_export_begins_with_four_faces(
    run, space, tmp_path, ours, left_out
):
    """A stranger in a set of three has to stay: there is no centroid worth measuring against."""
    stranger = axis(1)
    vectors = [face.vector for face in (space.face(0, 0.95) for _ in range(ours))]
    entry = plan_of(run, tmp_path, [*vectors, stranger])
    assert (entry["faces"], entry["left_out"]) == (ours + 1 - left_out, left_out)


@pytest.mark.parametrize(("limit", "left_out"), [(0.5, 0), (0.49, 4)])
def test_a_face_exactly_at_the_outlier_threshold_of_the_export_stays(
    run, tmp_path, limit, left_out
):
    vectors = [half(*signs) for signs in ((1, 1, 1), (1, -1, -1), (-1, 1, -1), (-1, -1, 1))]
    entry = plan_of(run, tmp_path, vectors, "--outlier-threshold", limit)
    assert entry["left_out"] == left_out


def test_a_face_exactly_of_the_least_size_is_exported(run, tmp_path):
    short = np.float32([100.0, np.nextafter(np.float32(100), np.float32(0)), 130.0])
    vectors = [turned(0.9, 0, at) for at in (1, 2, 3)]
    for least, left_out in ((100, 1), (130, 2)):
        entry = plan_of(run, tmp_path, vectors, "--min-face-short", least, face_short=short)
        assert entry["left_out"] == left_out


def test_the_export_takes_the_least_size_from_refine(run, tmp_path):
    """One meaning of one gate: what refine kept is not too small for the export."""
    short = np.float32([50.0, 70.0, 130.0])
    library = library_of(tmp_path, np.stack([turned(0.9, 0, at) for at in (1, 2, 3)]))
    library.save(replace(library.cache, face_short=short))
    refined = library.out / "refine_manifest.json"
    argv = ("export-swap", library.path, refined, tmp_path / "ready", "--model", "synthetic",
            "--dry-run")  # fmt: skip
    for least, faces in ((40, 3), (60, 2), (None, 2), (71, 1)):
        option = () if least is None else ("--min-short", least)
        said = ok(run, "refine", library.path, library.out, "--min-faces", 1, *ALL_ONE, *option)
        took = [(row["faces"], row["option"]) for row in said["gates"] if row["because"] == "small"]
        assert took == ([(3 - faces, f"--min-short {least or 60}")] if faces < 3 else [])
        [entry] = (told := ok(run, *argv))["facesets"]
        assert (entry["faces"], entry["left_out"], told["gates"]) == (faces, 0, [])
    [row] = ok(run, *argv, "--min-face-short", 131)["gates"]
    assert row == {"faces": 1, "because": "face too small", "option": "--min-face-short 131"}


# --- run --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "refine", "export"),
    [
        (("--export-outlier-threshold", 0.33), 0.40, 0.33),
        (("--outlier-threshold", 0.77), 0.77, 0.35),
    ],
)
def test_run_keeps_its_two_outlier_gates_apart(run, tmp_path, options, refine, export):
    """The two defaults are dlib's."""
    src, out = tmp_path / "photos", tmp_path / "out"
    src.mkdir()
    cv2.imwrite(str(src / "anna.png"), face_picture("anna"))
    easy = ("--min-faces", 1, "--min-short", 20, "--min-blur", 1, "--min-face-short", 20)
    ok(run, "run", src, out, "--model", "dlib", *easy, *options)
    refined = read(out / "facesets_full" / "refine_manifest.json")["params"]
    swap = read(out / "facesets_swap_ready" / "manifest.json")["params"]
    assert (refined["outlier_threshold"], swap["outlier_threshold"]) == (refine, export)
