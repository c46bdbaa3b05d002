"""Tracks, segments and the plan of a clip: pure logic, no video."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sort_faces as sf

writer, clip_writer = sf.companion("clips"), sf.companion("clip_writer")

PERIOD = 0.5  # s between samples
DIM = 32


def direction(seed: int) -> np.ndarray:
    """A unit vector, orthogonal to that of every other seed."""
    return np.eye(DIM, dtype=np.float32)[seed]


def make_track(
    times,
    *,
    yaw=0.0,
    pitch=0.0,
    short=120.0,
    det=0.9,
    scene=(0.0, 20.0),
    name="t",
    video="v",
    sampled=None,
) -> sf.Track:
    """A track whose values are one for all frames or one per frame."""
    sampled = sampled or (scene[0], scene[1] - 0.08)
    n = len(times)
    short = np.broadcast_to(short, n)
    bbox = np.stack([np.zeros(n), np.zeros(n), short, short * 1.3], axis=1)
    pose = np.stack([np.broadcast_to(v, n) for v in (pitch, yaw, 0.0)], axis=1)
    return sf.Track(
        name, video, scene, sampled, np.array(times, float), bbox, np.broadcast_to(det, n), pose,
        direction(1),
    )  # fmt: skip


def at(start: float, count: int) -> np.ndarray:
    return start + np.arange(count) * PERIOD


# -- samples -----------------------------------------------------------------


def test_samples_are_the_first_frames_of_each_period():
    pts = np.array([10, 14, 19, 20, 21, 45, 46])
    assert sf.sample_times(pts, 10).tolist() == [10, 20, 45]


@given(st.lists(st.integers(1, 400), min_size=1, max_size=60), st.integers(0, 10**6))
def test_steps_pack_exactly(steps, first):
    pts = np.concatenate([[first], first + np.cumsum(steps)])
    assert sf.unpack_steps(first, sf.pack_steps(pts)).tolist() == pts.tolist()


def test_even_steps_pack_to_one_pair():
    assert sf.pack_steps(range(0, 512 * 1000, 512)) == [[512, 999]]
    assert sf.unpack_steps(7, []).tolist() == [7]


def test_frames_between_two_near_jumps_belong_to_neither_scene():
    cuts, jumps = [500, 900], [100, 480, 500, 900, 960]
    found = sf.scenes_between(0, 2000, cuts, jumps, near=100)
    assert found == [[0, 480], [500, 900], [960, 2000]]
    assert sf.scenes_between(5, 9, [], [], near=100) == [[5, 9]]


# -- tracks ------------------------------------------------------------------


def boxes(*corners: tuple[float, float]) -> np.ndarray:
    return np.array([[x, y, x + 100, y + 100] for x, y in corners], np.float32)


def test_two_people_who_change_places_keep_their_tracks():
    left, right = boxes((0, 0), (400, 0))
    a, b = direction(1), direction(2)
    time_ = np.repeat(at(0, 4), 2)
    bbox = np.array([left, right, left, right, right, left, right, left])
    unit = np.array([a, b] * 4)
    assert sf.stitch_tracks(time_, bbox, unit, sf.Reach()).tolist() == [0, 1] * 4


def test_a_poor_embedding_in_the_same_place_stays_in_the_track():
    a, odd = direction(1), direction(2)
    poor = sf.unit_rows((a * 0.4 + odd)[None])[0]  # in profile: cosine 0.37
    assert 0.2 < float(a @ poor) < 0.45
    bbox = boxes((0, 0), (20, 0), (30, 0))
    unit = np.array([a, poor, a])
    assert sf.stitch_tracks(at(0, 3), bbox, unit, sf.Reach()).tolist() == [0, 0, 0]
    far = boxes((0, 0), (900, 0), (30, 0))
    assert sf.stitch_tracks(at(0, 3), far, unit, sf.Reach()).tolist() == [0, 1, 0]


def test_somebody_else_in_the_same_place_begins_a_track():
    unit = np.array([direction(1), direction(2)])
    bbox = boxes((0, 0), (0, 0))
    assert sf.stitch_tracks(at(0, 2), bbox, unit, sf.Reach()).tolist() == [0, 1]


@pytest.mark.parametrize(("away", "tracks"), [(2.5, 1), (3.5, 2)])
def test_a_face_out_of_sight_for_too_long_begins_a_track(away, tracks):
    unit = np.array([direction(1)] * 2)
    labels = sf.stitch_tracks(np.array([0.0, away]), boxes((0, 0), (0, 0)), unit, sf.Reach())
    assert labels.max() + 1 == tracks


def test_a_track_takes_one_face_a_frame():
    unit = np.array([direction(1)] * 3)
    labels = sf.stitch_tracks(np.array([0.0, 0.5, 0.5]), boxes((0, 0), (5, 0), (0, 0)), unit,
                              sf.Reach())  # fmt: skip
    assert labels.tolist() == [0, 1, 0], "the box that overlaps most wins"


def test_no_faces_no_tracks():
    empty = sf.stitch_tracks(np.zeros(0), np.zeros((0, 4)), np.zeros((0, DIM)), sf.Reach())
    assert empty.tolist() == []


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 12))
@settings(max_examples=40, deadline=None)
def test_the_order_of_faces_in_a_frame_does_not_matter(seed, people, frames):
    rng = np.random.default_rng(seed)
    time_ = np.repeat(at(0, frames), people)
    person = np.tile(np.arange(people), frames)
    bbox = boxes(*((300.0 * p + rng.uniform(0, 20), 0.0) for p in person))
    noise = rng.normal(size=(len(person), DIM)) * 0.05
    unit = sf.unit_rows(np.array([direction(p) for p in person]) + noise)
    order = np.lexsort((rng.random(len(person)), time_))
    labels = sf.stitch_tracks(time_[order], bbox[order], unit[order], sf.Reach())
    pairs = set(zip(labels.tolist(), person[order].tolist(), strict=True))
    assert len(pairs) == people, "every person is one track"


# -- gates -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("inside", "outside", "word"),
    [
        ({"yaw": 75.0}, {"yaw": -75.1}, "yaw"),
        ({"pitch": -45.0}, {"pitch": 45.1}, "pitch"),
        ({"short": 80.0}, {"short": 79.9}, "small"),
        ({"det": 0.5}, {"det": 0.49}, "score"),
        ({"yaw": 0.0}, {"yaw": np.nan}, "yaw"),
    ],
    ids=lambda value: str(value),
)
def test_both_sides_of_each_gate(inside, outside, word):
    gates = sf.Gates()
    assert sf.track_fault(make_track(at(0, 4), **inside), gates) == ""
    fault = sf.track_fault(make_track(at(0, 4), **outside), gates)
    assert fault.startswith("0% of 4 frames usable, 70% needed") and f"{word} 4" in fault


@pytest.mark.parametrize(("bad", "passes"), [(3, True), (4, False)])
def test_seventy_percent_of_a_track_must_be_usable(bad, passes):
    yaw = [80.0] * bad + [0.0] * (10 - bad)
    assert (sf.track_fault(make_track(at(0, 10), yaw=yaw), sf.Gates()) == "") == passes


def test_the_shortest_clip_cannot_be_longer_than_the_longest():
    with pytest.raises(sf.SortFacesError, match="--min-dur 5"):
        sf.Gates(min_dur=5, max_dur=4)


# -- segments ----------------------------------------------------------------


def spans(segments) -> list[tuple[float, float]]:
    return [(segment.start, segment.end) for segment in segments]


def test_a_face_through_the_whole_scene_gives_the_whole_scene():
    track = make_track([0.02, 0.52, 1.02, 1.52], scene=(0.0, 1.6), sampled=(0.02, 1.52))
    assert spans(sf.track_segments(track, sf.Gates(), PERIOD)) == [(0.0, 1.6)]


def test_a_segment_reaches_half_a_period_beyond_its_samples():
    track = make_track(at(5, 5), scene=(0.0, 20.0))
    assert spans(sf.track_segments(track, sf.Gates(), PERIOD)) == [(4.75, 7.25)]


@pytest.mark.parametrize(("bad", "count"), [(6, 1), (7, 2)])
def test_failures_up_to_the_bridge_gap_are_bridged(bad, count):
    yaw = [0.0] * 10 + [90.0] * bad + [0.0] * 10
    track = make_track(at(0, len(yaw)), yaw=yaw, scene=(0.0, 30.0))
    segments = sf.track_segments(track, sf.Gates(), PERIOD)
    assert len(segments) == count


def test_without_a_bridge_every_failure_splits():
    track = make_track(at(0, 9), yaw=[0, 0, 0, 90, 0, 0, 90, 0, 0], scene=(0.0, 4.5),
                       sampled=(0.0, 4.0))  # fmt: skip
    segments = sf.track_segments(track, sf.Gates(bridge_gap=0), PERIOD)
    assert spans(segments) == [(0.0, 1.25), (1.75, 2.75), (3.25, 4.5)]


@pytest.mark.parametrize(("gap", "count"), [(2.0, 1), (2.1, 2)])
def test_close_segments_of_a_scene_are_fused(gap, count):
    track = make_track(at(0, 2))
    parts = [sf.Segment("v", 0.0, 5.0, (track,)), sf.Segment("v", 5.0 + gap, 12.0, (track,))]
    merged = sf.merge_segments(parts, sf.Gates())
    assert len(merged) == count and merged[0].tracks == (track,)


def test_fusing_never_makes_a_clip_too_long():
    track = make_track(at(0, 2))
    parts = [sf.Segment("v", 0, 80, (track,)), sf.Segment("v", 81, 130, (track,))]
    assert spans(sf.merge_segments(parts, sf.Gates())) == [(0, 80), (81, 130)]


@pytest.mark.parametrize(
    ("length", "word"), [(0.9, "shorter"), (1.0, ""), (120.0, ""), (121.0, "longer")]
)
def test_the_length_of_a_segment(length, word):
    (segment,) = sf.merge_segments([sf.Segment("v", 3.0, 3.0 + length, ())], sf.Gates())
    assert (word in segment.reason) and bool(word) == bool(segment.reason)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_segments_stay_in_their_scene_and_apart(data):
    end = data.draw(st.floats(1.0, 60.0))
    tracks = []
    for number in range(data.draw(st.integers(1, 4))):
        grid = np.arange(0, end, PERIOD)
        rows = data.draw(st.lists(st.booleans(), min_size=len(grid), max_size=len(grid)))
        if any(rows):
            yaw = data.draw(st.lists(st.sampled_from([0.0, 90.0]), min_size=sum(rows),
                                     max_size=sum(rows)))  # fmt: skip
            tracks.append(
                make_track(
                    grid[rows],
                    yaw=yaw,
                    scene=(0.0, end),
                    name=str(number),
                    sampled=(0.0, float(grid[-1])),
                )
            )
    gates = sf.Gates()
    parts = [s for track in tracks for s in sf.track_segments(track, gates, PERIOD)]
    merged = sf.merge_segments(parts, gates)
    assert all(0.0 <= s.start < s.end <= end for s in merged)
    assert all(b.start - a.end > 0 for a, b in itertools.pairwise(merged))
    assert merged == sf.merge_segments(reversed(parts), gates) or len(tracks) > 1
    for track in tracks:  # every usable frame is in a segment
        for moment in track.time[sf.usable_frames(track, gates)]:
            assert any(s.start <= moment < s.end for s in merged)


# -- the plan of a clip ------------------------------------------------------


def stream(*groups: str) -> tuple[list[int], list[bool]]:
    """(pts, key flags) in decode order of groups like "I0 P3 b1 b2"."""
    words = " ".join(groups).split()
    return [int(word[1:]) for word in words], [word[0] == "I" for word in words]


CLOSED = stream("I0 P3 b1 b2 P6 b4 b5 P9 b7 b8", "I10 P13 b11 b12 P16 b14 b15 P19 b17 b18")
OPEN = stream("I0 P3 b1 b2 P6 b4 b5", "I9 b7 b8 P12 b10 b11 P15 b13 b14")  # b7 b8 lead I9


def shown(parts: clip_writer.ClipParts, pts: list[int]) -> list[int]:
    return sorted(pts[at] for at in parts.copied)


def test_smart_copies_from_the_next_key_frame():
    parts = clip_writer.plan_clip(*CLOSED, start=4, end=20, copy=False)
    assert shown(parts, CLOSED[0]) == list(range(10, 20))
    assert (parts.first, parts.key, parts.tail) == (4, 10, 20)


def test_copying_ends_before_a_frame_that_needs_the_next_shot():
    parts = clip_writer.plan_clip(
        *CLOSED, start=0, end=5, copy=False
    )  # b4 needs P6, which is beyond
    assert shown(parts, CLOSED[0]) == [0, 1, 2, 3]
    assert parts.tail == 4, "frame 4 is encoded"


def test_frames_that_lead_a_key_frame_are_not_copied():
    parts = clip_writer.plan_clip(*OPEN, start=7, end=16, copy=False)
    assert shown(parts, OPEN[0]) == list(range(9, 16))
    assert (parts.first, parts.key) == (7, 9)


def test_copy_begins_at_the_key_frame_before():
    parts = clip_writer.plan_clip(*CLOSED, start=14, end=18, copy=True)
    assert shown(parts, CLOSED[0]) == [10, 11, 12, 13, 14, 15, 16]
    assert parts.first == 10


def test_without_a_key_frame_inside_all_is_encoded():
    assert clip_writer.plan_clip(*CLOSED, start=11, end=19, copy=False).copied == []


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 3)), min_size=1, max_size=12), st.data())
@settings(max_examples=150, deadline=None)
def test_a_smart_clip_shows_each_of_its_frames_once(groups, data):
    """Whatever the groups: head, copied part and tail together are the wanted frames."""
    words, at_ = ["I0"], 0
    for is_key, between in groups:
        words.append(f"{'I' if is_key else 'P'}{at_ + between + 1}")
        words += [f"b{at_ + 1 + k}" for k in range(between)]
        at_ += between + 1
    pts, keys = stream(*words)
    start = data.draw(st.integers(0, at_))
    end = data.draw(st.integers(start + 1, at_ + 1))
    parts = clip_writer.plan_clip(pts, keys, start, end, False)
    copied = shown(parts, pts)
    whole = [*range(start, parts.key), *copied, *range(parts.tail, end)]
    assert (whole if copied else list(range(start, end))) == list(range(start, end))
    if copied:  # no copied frame is predicted from one that is not there
        kept = set(parts.copied)
        first = parts.copied[0]
        assert all(n in kept or pts[n] < pts[first] for n in range(first, parts.copied[-1] + 1))


# -- scoring -----------------------------------------------------------------


def test_a_hundred_thousand_frames_are_scored_in_seconds():
    rng = np.random.default_rng(0)
    tracks = [
        make_track(at(0, 20), yaw=rng.uniform(-90, 90, 20), short=rng.uniform(60, 200, 20),
                   name=str(n), scene=(0.0, 10.0))
        for n in range(5000)
    ]  # fmt: skip
    began = time.perf_counter()
    gates = sf.Gates()
    passed = [track for track in tracks if not sf.track_fault(track, gates)]
    parts = [sf.track_segments(track, gates, PERIOD) for track in passed]
    assert len(parts) > 100
    assert time.perf_counter() - began < 5


def test_a_track_survives_its_json():
    track = make_track(at(0, 3), yaw=[1.0, np.nan, 3.0])
    again = sf.as_record(sf.Track, sf.track_json(track))
    assert again.time.tolist() == track.time.tolist()
    np.testing.assert_allclose(again.pose, track.pose, atol=0.05)
    np.testing.assert_allclose(again.centre, track.centre)


def test_folders_of_clips_keep_videos_of_one_name_apart():
    def video(number: int, path: str) -> sf.Video:
        return sf.Video(str(number), path, 1, 1, 1.0, 25.0, False, 0, 1.0, 8, 8, "h264", "yuv420p",
                        (), (1, 25), 0)  # fmt: skip

    paths = ["/in/a/clip.mp4", "/in/b/Clip.mp4", "/in/ct_src_00050.mp4", "/in/影片 1.mkv",
             "/in/what?.mp4", "/in/_removed.mp4", "/in/a__b.mp4"]  # fmt: skip
    folders = list(writer.clip_folders([video(n, p) for n, p in enumerate(paths)]).values())
    assert folders[2] == "ct_src_00050" and folders[3] == "影片 1" and folders[6] == "a__b"
    assert len({name.casefold() for name in folders}) == len(paths)
    assert "?" not in "".join(folders) and sf.REMOVED_FOLDER not in folders
