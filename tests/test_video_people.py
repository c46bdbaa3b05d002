"""Who is in which clip, and which clips are the best: tracks as people, names, filters, ranks."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from conftest import sf
from corpora import assert_clean, axis, copied, read
from material import ok
from test_consumers import job, stamped
from test_video_core import at
from video_material import film, write_video

people, ranking = sf.companion("video_people"), sf.companion("clip_ranking")
occlusion = sf.companion("clip_occlusion")
film_reading = sf.companion("film_reading")
DIM = 160  # as in corpora.py


def direction(person: int) -> np.ndarray:
    return axis(person).astype(np.float32)


def toward(person: int, own: int, share: float = 0.9) -> np.ndarray:
    """A direction with cosine `share` to that of a person, in a direction nobody else has."""
    mixed = share * direction(person) + (1 - share**2) ** 0.5 * direction(own)
    return mixed.astype(np.float32)


def track(name: str, times: np.ndarray, centre: np.ndarray, video: str = "v", **more) -> sf.Track:
    n = len(times)
    look = np.tile([[130.0, 300.0]], (n, 1))
    values = {"short": 120.0, "yaw": 0.0, "det": 0.9, "length": 20.0, "look": look, **more}
    short = np.broadcast_to(values["short"], n)
    bbox = np.stack([np.zeros(n), np.zeros(n), short, short * 1.3], axis=1)
    pose = np.stack([np.zeros(n), np.broadcast_to(values["yaw"], n), np.zeros(n)], axis=1)
    return sf.Track(
        name, video, (0.0, 30.0), (0.0, 29.92), times, bbox, np.broadcast_to(values["det"], n),
        pose, centre, values["look"], values["length"],
    )  # fmt: skip


def tracks_of(*tracks: sf.Track, recognizer: str = "0c845ee43af10c1e") -> sf.Tracks:
    """tracks.json of some tracks, by the recogniser of `mini`."""
    meta = sf.FrameMeta(
        rate=2.0, model="m", recognizer=recognizer, dim=DIM, det_size=640, det_threshold=0.5
    )
    videos = {t.video: sf.TrackedVideo(f"/films/{t.video}.mp4", 25.0, 0, 0.04, 1) for t in tracks}
    return sf.Tracks(period=0.5, meta=meta, videos=videos, tracks=list(tracks))


def groups(found: list[sf.Person]) -> set[frozenset[str]]:
    return {frozenset(person.tracks) for person in found}


# --- people -----------------------------------------------------------------


def test_a_person_is_one_through_scenes_and_films():
    data = tracks_of(
        track("a", at(0, 9), toward(0, 10)),
        track("b", at(20, 9), toward(1, 11)),
        track("c", at(10, 3), toward(0, 12)),
        track("d", at(0, 9), toward(0, 13), video="w"),
    )
    found = people.find_people(data, [], 0.55)
    assert groups(found) == {frozenset("acd"), frozenset("b")}
    assert [person.id for person in found] == ["person_001", "person_002"]
    assert (found[0].seconds, found[0].videos) == (10.5, 2)


def test_two_at_the_same_time_are_two_people_however_alike():
    alike = [toward(0, own, 0.85) for own in (10, 11, 12)]
    apart = [track(n, at(10 * k, 5), c) for k, (n, c) in enumerate(zip("abc", alike, strict=True))]
    assert groups(people.find_people(tracks_of(*apart), [], 0.55)) == {frozenset("abc")}
    seen = [apart[0], track("b", at(1, 5), alike[1]), apart[2]]
    found = groups(people.find_people(tracks_of(*seen), [], 0.55))
    assert not any({"a", "b"} <= group for group in found)
    mirror = [apart[0], track("b", at(1, 5), apart[0].centre)]
    assert groups(people.find_people(tracks_of(*mirror), [], 0.55)) == {frozenset("ab")}


def test_weak_tracks_alone_make_nobody_across_films():
    weak = {"length": 8.0}
    data = tracks_of(
        track("a", at(0, 1), toward(0, 10, 0.97), **weak),
        track("b", at(0, 1), toward(0, 11, 0.97), video="w", **weak),
    )
    assert len(people.find_people(data, [], 0.55)) == 2
    strong = [replace(one, length=20.0) for one in data.tracks]
    assert len(people.find_people(tracks_of(*strong), [], 0.55)) == 1


def test_a_name_goes_to_the_nearest_and_never_to_two_in_one_frame():
    data = tracks_of(
        track("a", at(0, 9), toward(0, 10)),
        track("b", at(0, 9), toward(0, 11, 0.6)),
        track("c", at(20, 3), toward(2, 12)),
    )
    named = [people.Named("Anna", direction(0)), people.Named("Ben", direction(1))]
    found = {person.name: person.tracks for person in people.find_people(data, named, 0.55)}
    assert found["Anna"] == ["a"] and sorted(found) == ["", "Anna"]


def test_the_same_tracks_give_the_same_people_in_any_order():
    rng = np.random.default_rng(3)
    some = [
        track(f"t{k}", at(float(rng.integers(0, 20)), int(rng.integers(1, 9))),
              toward(k % 4, 8 + k, 0.9), video="vw"[k % 2])
        for k in range(16)
    ]  # fmt: skip
    first = groups(people.find_people(tracks_of(*some), [], 0.55))
    for _ in range(3):
        mixed = [some[at] for at in rng.permutation(len(some))]
        assert groups(people.find_people(tracks_of(*mixed), [], 0.55)) == first


def test_no_tracks_are_no_people():
    assert people.find_people(tracks_of(), [], 0.55) == []


# --- the options ------------------------------------------------------------


@pytest.fixture
def work(tmp_path) -> Path:
    """A work folder: Anna alone, Anna with Ben, Ben with somebody; a scene each."""
    folder = tmp_path / "work"
    folder.mkdir()

    def scene(name, start, centre, k, **more):
        one = track(name, at(start, 8), centre, **more)
        return replace(one, scene=(10.0 * k, 10.0 * k + 9), sampled=(10.0 * k, 10.0 * k + 8.5))

    data = tracks_of(
        scene("anna1", 0, toward(0, 10), 0),
        scene("anna2", 10, toward(0, 11), 1, yaw=50.0),
        scene("ben2", 10, toward(1, 12), 1, yaw=50.0),
        scene("ben3", 20, toward(1, 13), 2, short=90.0),
        scene("extra3", 20, toward(2, 14), 2, short=30.0),
    )
    data.save(folder / "tracks.json")
    sf.write_file(folder / "videos.json", sf.VideoList(input=str(tmp_path), videos=[]))
    return folder


def scored(run, work: Path, *options) -> dict:
    """The plan after `video score`, which finds segments."""
    ok(run, "video", "score", work, *options)
    return read(work / "plan.json")


def starts(plan: dict) -> list[float]:
    return [segment["start"] for segment in plan["segments"]]


def test_everybody_is_told_of_a_clip(run, work):
    plan = scored(run, work)
    found = read(work / "people.json")["people"]
    assert [len(person["tracks"]) for person in found] == [2, 2, 1]
    own = {track: person["id"] for person in found for track in person["tracks"]}
    assert [set(s["people"]) for s in plan["segments"]] == [
        {own["anna1"]}, {own["anna2"], own["ben2"]}, {own["ben3"], own["extra3"]}]  # fmt: skip


def test_only_with_without_and_alone(run, work):
    scored(run, work)
    own = {t: p["id"] for p in read(work / "people.json")["people"] for t in p["tracks"]}
    anna, ben = own["anna1"], own["ben2"]
    for options, expected in (
        (("--only", anna), [0.0]),
        (("--only", anna.upper(), "--only", ben), [0.0, 10.0]),
        (("--with", ben), [10.0, 20.0]),
        (("--with", ben, "--with", anna), [10.0]),
        (("--without", ben), [0.0]),
        (("--alone",), [0.0]),
        (("--max-faces", "1"), [0.0]),
        (("--max-faces", "2"), [0.0, 10.0, 20.0]),
    ):
        plan = scored(run, work, *options)
        assert starts(plan) == expected, options
        assert len(plan["segments"]) + len(plan["rejected"]) >= 3
    told = [row["reason"] for row in scored(run, work, "--alone")["rejected"]]
    assert any(reason.startswith("shows 2 people: ") for reason in told)


def test_nobody_of_that_name_is_refused_in_one_line(run, work):
    code, out, err = run("video", "score", work, "--with", "Zoe")
    assert (code, out) == (2, "") and err.count("\n") == 1 and "--with Zoe" in err


def test_the_best_come_first_and_the_others_come_back(run, work):
    plan = scored(run, work)
    ranks = {s["start"]: s["rank"] for s in plan["segments"]}
    assert ranks == {0.0: 1, 20.0: 2, 10.0: 3}  # turned heads are worth less than small ones
    assert all(0 < s["expected"] <= 1 for s in plan["segments"])
    plan = scored(run, work, "--top", "1")
    assert starts(plan) == [0.0]
    assert [r["reason"] for r in plan["rejected"] if "rank" in r["reason"]] == [
        "rank 3 of 3; --top 1", "rank 2 of 3; --top 1"]  # fmt: skip
    length = plan["segments"][0]["end"] - plan["segments"][0]["start"]
    plan = scored(run, work, "--total", str(1.5 * length / 60))
    assert starts(plan) == [0.0]
    assert starts(scored(run, work, "--total", "1")) == [0.0, 10.0, 20.0]


def test_what_an_older_version_found_is_unknown_not_wrong(run, work):
    data = json.loads((work / "tracks.json").read_text())
    for one in data["tracks"]:
        del one["look"], one["length"]
    (work / "tracks.json").write_text(json.dumps(data))
    plan = scored(run, work)
    assert starts(plan) == [0.0, 10.0, 20.0]
    for segment in plan["segments"]:
        assert segment["envelope"]["light"] == [None, None]
        assert "light" not in segment["terms"] and "yaw" in segment["terms"]


# --- ranking ----------------------------------------------------------------


@pytest.mark.parametrize("name", [*ranking.TERMS])
def test_a_term_is_a_share_that_falls_away_from_good(name):
    values, left = ranking.TERMS[name]
    assert list(values) == sorted(values) and all(0 < share <= 1 for share in left)
    assert max(left) == 1.0
    best = left.index(1.0)
    assert list(left[: best + 1]) == sorted(left[: best + 1])
    last = len(left) - 1 - left[::-1].index(1.0)
    assert list(left[last:]) == sorted(left[last:], reverse=True)


def test_the_worst_tenth_counts_a_single_frame_does_not():
    values = np.array([0.0] * 19 + [80.0])
    assert ranking.middle_and_worst("yaw", values) == (0.0, 0.0)
    values = np.array([0.0] * 15 + [80.0] * 5)
    assert ranking.middle_and_worst("yaw", values) == (0.0, 80.0)
    assert ranking.middle_and_worst("size", np.array([100.0] * 8 + [20.0] * 2)) == (100.0, 20.0)
    assert ranking.middle_and_worst("yaw", np.array([np.nan])) == (None, None)


def test_light_and_sharpness_of_a_face():
    import cv2

    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 255, (24, 24, 3)).astype(np.uint8), (240, 240))
    box = (20.0, 20.0, 220.0, 220.0)
    light, sharp = ranking.look_of(image, box)
    dark, still_sharp = ranking.look_of(image // 3, box)
    assert abs(dark - light / 3) < 1 and still_sharp == pytest.approx(sharp, rel=0.1)
    assert ranking.look_of(cv2.blur(image, (25, 1)), box)[1] < 0.6 * sharp
    small = cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    half = ranking.look_of(small, np.array(box) / 2)
    assert half[0] == pytest.approx(light, abs=2) and half[1] == pytest.approx(sharp, rel=0.35)
    assert np.isnan(ranking.look_of(image, (500, 500, 600, 600))).all()


# --- films ------------------------------------------------------------------

SHOTS = (("anna", 1.4), ("dora", 1.4), ("", 1.2), ("anna", 1.6))


@pytest.fixture(scope="module")
def filmed(tmp_path_factory) -> Path:
    """A run over a film in which somebody returns, with dlib."""
    base = tmp_path_factory.mktemp("filmed")
    write_video(base / "films" / "film.mp4", list(film(SHOTS)))
    write_video(base / "films" / "other.mp4", list(film((("dora", 1.5), ("", 1.2)))))
    assert sf.main(["video", "run", str(base / "films"), str(base / "work"), str(base / "clips"),
                    "--model", "dlib", "-q", "--json"]) == 0  # fmt: skip
    return base


def test_who_returns_is_one_person_also_in_another_film(filmed):
    found = read(filmed / "work" / "people.json")["people"]
    assert len(found) == 2 and [len(person["tracks"]) for person in found] == [2, 2]
    plan = read(filmed / "work" / "plan.json")
    shown = [segment["people"] for segment in plan["segments"]]
    assert [len(some) for some in shown] == [1, 1, 1, 1]
    by_film = {Path(s["source"]).name + str(s["start"]): s["people"][0] for s in plan["segments"]}
    assert by_film["film.mp40.0"] == by_film["film.mp44.0"]
    assert by_film["film.mp41.4"] == by_film["other.mp40.0"]
    for segment in plan["segments"]:
        for name in ("yaw", "size", "light", "sharpness", "faces"):
            middle, worst = segment["envelope"][name]
            assert middle is not None and worst is not None
        assert segment["envelope"]["faces"] == [1.0, 1.0]


def test_the_page_has_a_grid_of_people_and_says_who_is_in_a_row(run, filmed):
    page = (filmed / "work" / "report" / "index.html").read_text()
    assert page.count('class="card" id="person_00') == 2
    assert 'href="#person_001"' in page and "rank 1" in page
    told = read(filmed / "work" / "report" / "manifest.json")["files"]
    for name in told:
        assert (filmed / "work" / "report" / name).exists()


def test_masks_are_looked_for_once_and_only_when_asked(run, filmed, tmp_path, monkeypatch):
    work = Path(shutil.copytree(filmed / "work", tmp_path / "work"))
    assert not (work / "masks.json").exists()
    plan = scored(run, work, "--occlusion", "drop", "--model", "dlib")
    kept = read(work / "masks.json")["faces"]
    assert kept and all(0 <= p <= 1 for scores in kept.values() for p in scores)
    assert all(s["envelope"]["occlusion"][0] is not None for s in plan["segments"])

    def refuse(*_):
        raise AssertionError("decoded again")

    monkeypatch.setattr(film_reading, "frames_at", refuse)
    told = scored(run, work)["segments"]
    assert all(s["envelope"]["occlusion"] == [None, None] for s in told)
    assert scored(run, work, "--occlusion", "drop", "--model", "dlib") == plan
    faces = {key: [0.99, 0.0] for key in kept}
    data = read(work / "masks.json")
    (work / "masks.json").write_text(json.dumps({**data, "faces": faces}))
    code, _, _ = run("video", "score", work, "--occlusion", "drop", "--model", "dlib")
    hidden = read(work / "plan.json")
    assert code == 1 and not hidden["segments"]
    assert any("mask or sunglasses" in row["reason"] for row in hidden["rejected"])
    assert len(scored(run, work)["segments"]) == len(plan["segments"])


# --- names ------------------------------------------------------------------

MINI = "0c845ee43af10c1e"  # a recogniser whose figures are known


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    """A corpus of Anna, Ben, and a person without a name."""
    names = {1: "Anna M\u00fcller", 2: "Ben"}
    return stamped(tmp_path_factory.mktemp("sets"), MINI, names)


@pytest.fixture
def ready(sets, tmp_path) -> Path:
    return copied(sets, tmp_path / "ready")


def test_people_have_the_names_of_the_librarys_sets(run, work, ready):
    plan = scored(run, work, "--corpus", ready)
    found = read(work / "people.json")
    assert found["corpus"] == str(ready.resolve())
    told = {person["tracks"][0]: (person["name"], person["faceset"]) for person in found["people"]}
    assert told == {
        "anna1": ("Anna Müller", "faceset_001"),
        "ben2": ("Ben", "faceset_002"),
        "extra3": ("faceset_003", "faceset_003"),
    }
    assert [s["identity"] for s in plan["segments"]] == [
        ["Anna Müller"],
        ["Anna Müller", "Ben"],
        ["Ben"],
    ]


@pytest.mark.parametrize(
    "name", ["Anna Müller", "anna mu\u0308LLER", " ANNA  MÜLLER ", "faceset_001"]
)
def test_an_identity_is_named_however_it_is_spelt(run, work, ready, name):
    plan = scored(run, work, "--corpus", ready, "--identity", name)
    assert starts(plan) == [0.0, 10.0]
    assert all(s["identity"] == ["Anna Müller"] for s in plan["segments"])
    assert plan["identities"]["Anna Müller"]["file"] == str(ready / "faceset_001")
    assert starts(scored(run, work, "--corpus", ready, "--only", name)) == [0.0]
    assert starts(scored(run, work, "--corpus", ready, "--exclude-identity", name)) == [20.0]


def test_a_path_counts_before_a_name(run, work, ready, tmp_path, monkeypatch):
    (tmp_path / "Ben").mkdir()
    monkeypatch.chdir(tmp_path)
    code, _, err = run("video", "score", work, "--corpus", ready, "--identity", "Ben")
    assert code == 2 and "no face found in it" in err


@pytest.mark.parametrize(
    ("name", "corpus", "said"),
    [("Zoe", True, "one of: Anna Müller, Ben"), ("Anna", False, "--corpus READY")],
)
def test_an_identity_nobody_has_is_refused_in_one_line(run, work, ready, name, corpus, said):
    words = ("--corpus", ready) if corpus else ()
    code, out, err = run("video", "score", work, *words, "--identity", name)
    assert (code, out) == (2, "") and err.count("\n") == 1 and said in err


def test_a_corpus_of_another_recogniser_names_nobody_and_says_so(run, work, tmp_path):
    other = stamped(tmp_path / "other", "feedfeedfeedfeed", {1: "Anna"})
    code, _, err = run("video", "score", work, "--corpus", other)
    assert code == 0 and "another recogniser" in err
    assert {person["name"] for person in read(work / "people.json")["people"]} == {""}


# --- forgetting -------------------------------------------------------------


def test_forgetting_somebody_takes_them_out_of_the_people(run, work, ready):
    scored(run, work, "--corpus", ready)
    forget, traces = sf.companion("forget_video"), sf.companion("forget_traces")
    shown = direction(0)[None]
    looks = traces.Looks("m", DIM, shown, shown[:0], shown[:0], True)
    target = traces.Target(what="person", asked="Anna", outs=[], faces=[], names=["Anna Müller"])
    folder = sf.VideoWork(work)
    seen = forget.who_is_seen(folder, looks)
    assert seen.tracks == {"anna1", "anna2"}
    words = traces.Words(target)
    (change,) = forget.people_change(folder, seen, words, looks)
    change.write(work / "people.json")
    left = read(work / "people.json")["people"]
    assert {track for person in left for track in person["tracks"]} == {"ben2", "ben3", "extra3"}
    assert "Anna Müller" not in {person["name"] for person in left}
    assert list(forget.people_change(folder, seen, words, looks)) == []


# --- FaceFusion -------------------------------------------------------------


def cut_by_hand(work: Path, folder: Path) -> Path:
    """The plan as if its clips had been cut."""
    plan = sf.read_file(work / "plan.json", sf.ClipPlan)
    done = []
    for segment in plan.segments:
        sf.write_part(folder / f"{segment.uuid}.mp4", b"a clip")
        frames = round(25 * (segment.end - segment.start))
        seconds = {"start": segment.start, "last_time": segment.end - 0.04, "duration": frames / 25}
        checked = sf.Checked(first_frame=0, frames=frames, difference=0.0, **seconds)
        done.append(segment.cut(clip=f"{segment.uuid}.mp4", mode="smart", fallback="",
                                checked=checked))  # fmt: skip
    sf.write_file(
        work / "plan.json", sf.msgspec.structs.replace(plan, segments=done, out=str(folder))
    )
    return work / "plan.json"


@pytest.mark.parametrize("by_name", [True, False])
def test_facefusion_gets_a_job_of_the_clips_that_show_the_person(
    run, work, ready, tmp_path, by_name
):
    scored(run, work, *(("--corpus", ready) if by_name else ()))
    plan = cut_by_hand(work, tmp_path / "clips")
    ok(run, "bundle", ready, "--to", "facefusion", "--clips", plan)
    jobs = ready / "exports/facefusion/jobs/drafted"
    own = {"faceset-001-own", "faceset-002-own"}
    assert {path.stem for path in jobs.iterdir()} == {f"faceset-00{n}" for n in (1, 2, 3)} | own
    clips = [str(tmp_path / "clips" / s["clip"]) for s in read(plan)["segments"]]
    assert len(job(jobs / "faceset-001.json")["steps"]) == 3
    own = [step["args"] for step in job(jobs / "faceset-001-own.json")["steps"]]
    assert [args["target_path"] for args in own] == clips[:2]
    ben = [step["args"] for step in job(jobs / "faceset-002-own.json")["steps"]]
    assert [args["target_path"] for args in ben] == clips[1:]
    tracks = sf.read_file(work / "tracks.json", sf.Tracks).tracks
    looked_at = {str(tmp_path / "clips" / s["clip"]): {
        round(25 * (t - s["start"])) for track in tracks for t in track.time if t >= s["start"]
    } for s in read(plan)["segments"]}  # fmt: skip
    for args in (*own, *ben):
        assert args["face_selector_mode"] == "reference"
        assert args["face_selector_order"] == "large-small"
        # it shows the frame before the one of that number: vision.py seeks frame_number - 1
        assert args["reference_frame_number"] - 1 in looked_at[args["target_path"]]
    assert ben[1]["reference_face_position"] == 0  # beside him somebody small


def test_jobs_follow_who_is_who_though_the_plan_stays(run, work, ready, tmp_path):
    """Scored again with the corpus that gave no names before: the clips are the same."""
    scored(run, work, "--corpus", ready)
    plan = cut_by_hand(work, tmp_path / "clips")
    people = json.loads((work / "people.json").read_text())
    told = ("bundle", ready, "--to", "facefusion", "--clips", plan)
    ok(run, *told)
    job_file = ready / "exports/facefusion/jobs/drafted/faceset-001-own.json"
    before = job_file.read_bytes()
    ok(run, *told)
    assert job_file.read_bytes() == before
    for person in people["people"]:
        person["faceset"] = {"faceset_001": "faceset_002"}.get(person["faceset"], "")
    sf.write_json(work / "people.json", people)
    ok(run, *told)
    assert not job_file.exists()
    assert_clean(run, ready)
