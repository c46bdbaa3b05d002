"""Films as a source: what is kept of them, and what becomes of it when they move, change or go."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import SCRIPT
from test_transnet import save_brightness_model
from video_material import empty_picture, face_picture, film, shot, write_video

import sort_faces as sf

demo_library = sf.companion("demo_library")
film_reading, film_pass = sf.companion("film_reading"), sf.companion("film_pass")
films = sf.companion("film_source")
choice, transnet = sf.companion("film_choice"), sf.companion("transnet")

SHOTS = (("anna", 6.0), ("", 1.6), ("dora", 5.0))  # (who, seconds)
DLIB = ("--model", "dlib")


@pytest.fixture(scope="session")
def made(tmp_path_factory) -> Path:
    """A film of two people and an empty shot, one without anybody, a damaged one."""
    folder = tmp_path_factory.mktemp("made")
    write_video(folder / "party.mp4", list(film(SHOTS)))
    write_video(folder / "sea.mp4", list(film((("", 2.0),))))
    (folder / "broken.mp4").write_bytes(b"no film at all" * 1000)
    return folder


@pytest.fixture(scope="session")
def embedded(made, tmp_path_factory) -> Path:
    """A cache of those films."""
    cache = tmp_path_factory.mktemp("cache") / "c.npz"
    assert sf.main(["embed", str(made), str(cache), "--films", *DLIB, "-q", "--json"]) == 0
    return cache


@pytest.fixture
def own(made, embedded, tmp_path) -> tuple[Path, Path]:
    """(folder of films, cache of them): copies, the cache told of the copies by one more run."""
    folder = Path(shutil.copytree(made, tmp_path / "films"))
    for path in embedded.parent.glob("c.npz*"):
        shutil.copy(path, tmp_path)
    return folder, tmp_path / "c.npz"


@pytest.fixture
def embed(run):
    """embed(folder, cache, *options) -> (code, result, stderr)."""

    def call(*args) -> tuple[int, dict, str]:
        code, out, err = run("embed", *args, *DLIB, "--json")
        return code, json.loads(out) if out else {}, err

    return call


def frames_in(cache: sf.FaceCache) -> list[tuple[str, float]]:
    """(film, s) of every frame."""
    found = (sf.FRAME_PATH.fullmatch(path) for path in cache.file_path.tolist())
    return [(Path(one[1]).name, float(one[3])) for one in found if one]


# -- what is kept ------------------------------------------------------------


def test_the_best_few_faces_of_each_shot_are_kept(embedded, made):
    cache = sf.load_cache(embedded)
    kept = frames_in(cache)
    assert {name for name, _ in kept} == {"party.mp4"}
    times = [when for _, when in kept]
    assert times == sorted(times)
    anna, dora = [t for t in times if t < 6.0], [t for t in times if t >= 7.6]
    assert 1 <= len(anna) <= 3 and 1 <= len(dora) <= 3 and len(anna) + len(dora) == len(times)
    for some in (anna, dora):
        assert all(step >= 2.0 for step in np.diff(some))
        assert len(some) == 1 or np.all(np.diff(some) > 0)
    assert cache.file_wh.tolist() == [[256, 256]] * len(times)
    assert len(set(cache.file_sha256.tolist())) == len(times)


def test_a_kept_frame_is_read_as_it_was_decoded(embedded, made):
    """The faces of the cache lie in the pictures that read_photo gives."""
    cache = sf.load_cache(embedded)
    video = film_reading.video_facts(
        str(made / "party.mp4"), *sf.facts_of(os.stat(made / "party.mp4"))
    )
    with film_reading.open_video(video.path) as opened:
        all_of_it = {
            f.pts: film_reading.upright_frame(f, video.sar) for f in film_reading.decoded(*opened)
        }
    order = np.random.default_rng(1).permutation(cache.files)  # seeks both ways
    for row in order.tolist():
        path, sha = str(cache.file_path[row]), str(cache.file_sha256[row])
        photo = sf.read_photo(path, sha)
        pts = int(sf.FRAME_PATH.fullmatch(path)[2])
        assert np.array_equal(photo.image, all_of_it[pts])


def test_frames_of_films_joined_byte_by_byte(tmp_path, embed):
    """Time begins anew in the second part; its frames are found all the same."""
    part = write_video(tmp_path / "part.ts", list(film((("anna", 3.0), ("dora", 3.0)))))
    (tmp_path / "films").mkdir()
    (tmp_path / "films/two.ts").write_bytes(part.read_bytes() * 2)
    code, _, err = embed(tmp_path / "films", tmp_path / "c.npz", "--films", "--every-frames", 30)
    assert code == 0, err
    cache = sf.load_cache(tmp_path / "c.npz")
    video = film_reading.video_facts(str(tmp_path / "films/two.ts"),
                           *sf.facts_of(os.stat(tmp_path / "films/two.ts")))  # fmt: skip
    with film_reading.open_video(video.path) as opened:
        all_of_it = {
            f.pts: film_reading.upright_frame(f, video.sar) for f in film_reading.decoded(*opened)
        }
    assert max(when for _, when in frames_in(cache)) > 6.0
    for path, sha in zip(cache.file_path.tolist(), cache.file_sha256.tolist(), strict=True):
        pts = int(sf.FRAME_PATH.fullmatch(path)[2])
        assert np.array_equal(sf.read_photo(path, sha).image, all_of_it[pts])


def test_reading_frames_in_order_decodes_the_film_once(made, monkeypatch):
    path, decoded = made / "party.mp4", []
    video = film_reading.video_facts(str(path), *sf.facts_of(os.stat(path)))
    plain = film_reading.decoded

    def counting(*args):
        for frame in plain(*args):
            decoded.append(frame.pts)
            yield frame

    monkeypatch.setattr(film_reading, "decoded", counting)
    films.reader_of.cache_clear()
    wanted = [video.start + round(at / video.tick) for at in np.arange(0.0, 12.0, 0.4)]
    for pts in wanted:
        sf.read_photo(films.frame_path(str(path), pts, 0.0))
    assert len(decoded) <= 12.7 * 25  # one key frame at the start: seeks would decode 30 times


def test_a_second_run_decodes_nothing(own, embed, monkeypatch):
    folder, cache = own
    embed(folder, cache, "--films")  # learns of the copies
    monkeypatch.setattr(film_reading, "open_video", lambda _: pytest.fail("a film was opened"))
    code, result, _ = embed(folder, cache, "--films")
    assert code == 0 and result["films"] == 3 and "films_looked_at" not in result


def test_what_is_not_taken_is_told(made, tmp_path, run):
    (tmp_path / "photos").mkdir()
    shutil.copy(made / "party.mp4", tmp_path / "photos")
    code, out, err = run("embed", tmp_path / "photos", tmp_path / "c.npz", *DLIB)
    assert code == 2 and "1 films" in err and "--films takes them" in err
    (tmp_path / "photos/a.jpg").write_bytes(demo_library.demo_photo())
    code, out, err = run("embed", tmp_path / "photos", tmp_path / "c.npz", *DLIB)
    assert code == 0 and "films passed over" in out and "1 films; --films takes them" in err
    assert err.count("--films takes them") == 1


def test_films_without_a_picture_or_a_face_are_told(made, tmp_path, run):
    code, out, err = run("embed", made, tmp_path / "c.npz", "--films", *DLIB)
    assert code == 0
    assert "sea.mp4: film: no face found" in err and "broken.mp4: film: " in err
    assert "Traceback" not in err
    assert "films faceless      1" in out


def test_frames_spoilt_by_damage_are_not_kept(made, tmp_path, embed):
    """One key frame at the start: what follows the damage is drawn from garbage."""
    data = bytearray((made / "party.mp4").read_bytes())
    middle = len(data) // 2  # of the packets, in the second half of the film
    for at in range(middle, middle + 4000, 7):
        data[at] ^= 0xFF
    (tmp_path / "films").mkdir()
    (tmp_path / "films/hurt.mp4").write_bytes(data)
    code, _, err = embed(tmp_path / "films", tmp_path / "c.npz", "--films")
    assert code == 0, err
    times = [when for _, when in frames_in(sf.load_cache(tmp_path / "c.npz"))]
    assert times
    whole, _ = decoded_pictures(made / "party.mp4")
    hurt, corrupt = decoded_pictures(tmp_path / "films/hurt.mp4")
    assert corrupt
    for when in times:
        assert np.abs(hurt[round(when * 25)].astype(int) - whole[round(when * 25)]).mean() < 1


def decoded_pictures(path: Path) -> tuple[dict[int, np.ndarray], list[int]]:
    """({number at 25 a second: picture}, numbers of the frames that say they are damaged)."""
    with film_reading.open_video(str(path)) as (container, stream):
        frames = list(film_reading.decoded(container, stream))
        numbers = [round(float(frame.pts * stream.time_base) * 25) for frame in frames]
    pictures = {n: film_reading.upright_frame(f, 1.0) for n, f in zip(numbers, frames, strict=True)}
    return pictures, [n for n, f in zip(numbers, frames, strict=True) if f.is_corrupt]


def test_every_nth_frame(made, tmp_path, embed):
    code, result, _ = embed(made, tmp_path / "c.npz", "--films", "--every-frames", 25)
    assert code == 0
    kept = sorted(when for _, when in frames_in(sf.load_cache(tmp_path / "c.npz")))
    assert kept == [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 8.0, 9.0, 10.0, 11.0, 12.0]
    assert result["films_frames_kept"] == len(kept)


def test_a_person_seen_for_long_gives_about_one_face_a_minute():
    """Ten minutes of three people, a shot of four seconds each: thirty faces, of many shots."""
    rng = np.random.default_rng(3)
    people = rng.normal(size=(3, 64))
    picks = []
    for track in range(150):
        who = people[track % 3] / np.linalg.norm(people[track % 3])
        for _ in range(2):
            unit = who + rng.normal(size=64) * 0.06
            unit = (unit / np.linalg.norm(unit)).astype(np.float32)
            centre = who.astype(np.float32)
            facts = float(rng.uniform(0.4, 0.9)), 0, track * 4.0, track, centre
            picks.append(choice.Pick(None, unit, *facts))
    groups = choice.people_among(picks, 0.55)
    assert [len(group) for group in groups] == [100, 100, 100]
    for group in groups:
        some = choice.spread(group, 10)
        assert len(some) == 10
        assert len({pick.track for pick in some}) >= 9
        units = np.stack([pick.unit for pick in some])
        far = 1.0 - units @ units.T
        assert far[~np.eye(10, dtype=bool)].min() > choice.DIFFERENT


def test_a_face_that_hardly_changes_gives_one_a_minute_too():
    """Ten minutes of somebody who talks into the camera: no two frames are far apart."""
    rng = np.random.default_rng(5)
    mean = rng.normal(size=64) / 8
    units = mean + rng.normal(size=(600, 64)) * 0.035
    units = (units / np.linalg.norm(units, axis=1, keepdims=True)).astype(np.float32)
    far = 1.0 - units @ units.T
    assert choice.ALIKE < np.median(far) < choice.DIFFERENT  # else the test says nothing
    centre = units.mean(axis=0)
    picks = [choice.Pick(None, u, 0.6, 0, float(at), 0, centre) for at, u in enumerate(units)]
    some = choice.spread(picks, 10)
    times = sorted(pick.time for pick in some)
    assert len(some) == 10 and min(np.diff(times)) >= choice.LATER


def test_poses_are_told_apart():
    yaw = np.array([0.0, 14.0, -20.0, 20.0, 60.0, -60.0, np.nan])
    assert choice.pose_bin(yaw).tolist() == [0, 0, -1, 1, 2, -2, 2]


def test_frames_have_the_time_of_their_film(made, tmp_path, embed):
    import imageio_ffmpeg

    (tmp_path / "films").mkdir()
    begun = {"a.mp4": "2014-07-04T18:30:00Z", "VID_20190512_142312.mp4": "1904-01-01T00:00:00Z"}
    for name, when in begun.items():
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(made / "party.mp4"),
                   "-c", "copy", "-metadata", f"creation_time={when}", "-metadata",
                   f"title={name}", str(tmp_path / "films" / name)]  # fmt: skip
        subprocess.run(command, check=True)
    code, _, err = embed(tmp_path / "films", tmp_path / "c.npz", "--films")
    assert code == 0, err
    cache = sf.load_cache(tmp_path / "c.npz")
    seen = set()
    for row, (name, seconds) in enumerate(frames_in(cache)):
        seen.add(name)
        if name == "a.mp4":
            assert abs(cache.file_taken[row] - (1404498600.0 + seconds)) <= 1
            assert cache.file_taken_kind[row] == "container"
        else:  # a clock that was never set; the name knows
            assert cache.file_taken[row] == 1557670992.0
            assert cache.file_taken_kind[row] == "name"
    assert seen == {*begun}


# -- films that move, change, go ---------------------------------------------


def test_a_moved_film_takes_its_frames_along(own, embed, run):
    folder, cache = own
    embed(folder, cache, "--films")
    before = sf.load_cache(cache)
    (folder / "2019").mkdir()
    (folder / "party.mp4").rename(folder / "2019/fete.mp4")
    _, result, _ = embed(folder, cache, "--films")
    after = sf.load_cache(cache)
    assert "films_looked_at" not in result
    assert after.face_ids == before.face_ids
    for some in after.paths:  # the session's own folder is the other path
        assert [path for path in some if path.startswith(f"{folder}/2019/fete.mp4#")]
        assert not [path for path in some if path.startswith(f"{folder}/party.mp4#")]
    library = sf.Library(after, cache)
    assert all(library.live_path(row) for row in range(after.files))
    _, text, _ = run("status", cache, "--json")
    assert json.loads(text)["films"] == 3


def test_a_copied_film_is_a_further_path(own, embed):
    folder, cache = own
    embed(folder, cache, "--films")
    shutil.copy(folder / "party.mp4", folder / "zcopy.mp4")
    embed(folder, cache, "--films")
    found = sf.load_cache(cache)
    for some in found.paths:
        assert {Path(sf.film_of(path)).name for path in some} == {"party.mp4", "zcopy.mp4"}


def test_another_film_under_the_old_name(own, embed):
    folder, cache = own
    embed(folder, cache, "--films")
    old = sf.load_cache(cache).file_sha256.tolist()
    write_video(folder / "party.mp4", list(film((("dora", 3.0),))))
    embed(folder, cache, "--films")
    found = sf.load_cache(cache)
    there = {
        path: sha
        for some, sha in zip(found.paths, found.file_sha256.tolist(), strict=True)
        for path in some
        if path.startswith(f"{folder}/party.mp4#")
    }
    assert there and not {*there.values()} & {*old}
    with pytest.raises(sf.PhotoGone):
        sf.read_photo(next(iter(there)), old[0])


def test_pruning_a_film_that_is_gone(own, embed, made):
    folder, cache = own
    embed(folder, cache, "--films")
    (folder / "party.mp4").unlink()
    embed(folder, cache, "--films", "--prune")
    left = sf.load_cache(cache)
    assert not [path for some in left.paths for path in some if str(folder) in path]


def test_a_kill_in_the_middle_costs_only_the_rest(made, tmp_path, embed, monkeypatch):
    """What was seen is kept; the frames chosen are those of a run without a kill."""
    folder = tmp_path / "films"
    folder.mkdir()
    shutil.copy(made / "party.mp4", folder)
    seen, plain = [], films.seen_in

    def dies(engine, image, how, border):
        seen.append(1)
        if len(seen) > 14:
            raise KeyboardInterrupt
        return plain(engine, image, how, border)

    monkeypatch.setattr(films, "seen_in", dies)
    assert sf.main(["embed", str(folder), str(tmp_path / "c.npz"), "--films", *DLIB, "-q",
                    "--threads", "1"]) == 130  # fmt: skip
    known = sum(1 for _ in sf.json_lines(films.begun_path(tmp_path / "c.npz"))) - 1
    assert known >= 10
    again = []
    monkeypatch.setattr(films, "seen_in", lambda *a: again.append(1) or plain(*a))
    code, _, _ = embed(folder, tmp_path / "c.npz", "--films")
    assert code == 0 and len(again) == 26 - known
    assert not films.begun_path(tmp_path / "c.npz").exists()
    embed(folder, tmp_path / "whole.npz", "--films")
    one, other = (sf.load_cache(tmp_path / name) for name in ("c.npz", "whole.npz"))
    assert one.file_path.tolist() == other.file_path.tolist()
    assert one.face_ids == other.face_ids


def test_other_settings_are_told_and_taken_with_rescan(own, embed, run):
    folder, cache = own
    embed(folder, cache, "--films")
    _, result, err = embed(folder, cache, "--films", "--every", 1)
    assert result["films_looked_at"] == 1 and "1 films were taken with other" in err  # of no face
    _, result, _ = embed(folder, cache, "--films", "--every-frames", 50, "--rescan")
    assert result["films_looked_at"] >= 1
    times = {w for name, w in frames_in(sf.load_cache(cache)) if name == "party.mp4"}
    assert {0.0, 2.0, 4.0} <= times


# -- transitions, close-ups, joined films -------------------------------------


def dissolve(path: Path, seconds: float = 1.5) -> Path:
    """Six seconds of anna, which go over to dora slowly from 4.5 s on."""
    shots = []
    for seed, name in enumerate(("anna", "dora"), 1):
        picture = cv2.resize(empty_picture(seed), (400, 400))
        picture[120:300, 110:290] = cv2.resize(face_picture(name), (180, 180))
        shots.append(list(shot(picture, 6 * 25)))
    one, other = shots
    length = round(seconds * 25)
    shares = [(n + 1) / (length + 1) for n in range(length)]
    pairs = zip(one[-length:], other[:length], shares, strict=True)
    mixed = [cv2.addWeighted(a, 1 - share, b, share, 0) for a, b, share in pairs]
    return write_video(path, [*one[:-length], *mixed, *other[length:]])


def test_frames_in_a_transition_give_no_face(tmp_path, embed, monkeypatch):
    dissolve(tmp_path / "films/slow.mp4")
    options = ("--films", "--every-frames", 5)
    code, _, err = embed(tmp_path / "films", tmp_path / "c.npz", *options)
    assert code == 0, err
    times = [when for _, when in frames_in(sf.load_cache(tmp_path / "c.npz"))]
    assert not [when for when in times if 4.55 < when < 5.95]
    assert [when for when in times if 3.5 < when < 4.5]
    assert [when for when in times if 6.0 < when < 7.0]
    parts, plain = [], choice.Best.choose
    monkeypatch.setattr(choice.Best, "choose", lambda s, part: parts.append(part) or plain(s, part))
    assert embed(tmp_path / "films", tmp_path / "best.npz", "--films")[0] == 0
    tick = film_reading.video_facts(str(tmp_path / "films/slow.mp4"), 1, 1).tick
    assert [(part.low * tick > 5, part.high * tick > 5) for part in parts] == [(0, 0), (1, 1)]
    assert all(not 4.55 < frame.pts * tick < 5.95 for part in parts for frame in part.frames)


def test_a_network_is_asked_about_transitions_of_films(tmp_path, embed, monkeypatch):
    dissolve(tmp_path / "films/slow.mp4", 1.0)
    model = save_brightness_model(tmp_path / "bright.onnx")
    finder, asked = sf.companion("scene_finder"), []
    plain = finder.SceneFinder.__init__

    def begun(self, video, network=None):
        asked.append(network.name if network else "")
        plain(self, video, network)

    monkeypatch.setattr(finder.SceneFinder, "__init__", begun)
    cache, source = tmp_path / "c.npz", tmp_path / "films"
    for more in ((), ("--every-frames", 9)):
        argv = (source, cache, "--films", "--rescan", *more, "--soft-cuts", model)
        assert embed(*argv)[0] == 0
        assert {*asked} == {transnet.name_of(model)}
        assert transnet.name_of(model) in films.film_lines(cache)[-1].settings
    asked.clear()
    assert embed(source, cache, "--films", "--every-frames", 9)[1]["films"] == 1
    assert asked == []  # known, and told to have been taken with other settings
    code, _, err = embed(source, cache, "--films", "--soft-cuts", tmp_path / "none.onnx")
    assert code != 0 and "none.onnx: no such file" in err


@pytest.fixture
def close_up(mini, shared, tmp_path) -> Path:
    """A film whose one face fills the picture after two seconds of nothing."""
    photo = sf.decode_photo((shared / "data/portraits/img12.jpg").read_bytes()).image
    engine = sf.load_engine(sf.EngineSpec(model=str(mini)), 1)
    x1, y1, x2, y2 = sf.detect_padded(engine, photo).bbox[0].astype(int)
    picture = cv2.resize(photo[max(0, y1) : y2, max(0, x1) : x2], (256, 256))
    frames = [*shot(empty_picture(1), 50), *shot(picture, 150)]
    return write_video(tmp_path / "films/close.mp4", frames)


def test_a_face_that_fills_the_picture_is_kept(close_up, mini, tmp_path, run, monkeypatch):
    """Whatever of it is foreseen while the film is decoded, and whoever looks."""
    kept, again, plain = [], [], films.Film.seen_again

    def counted(film, wanted):
        again.extend(wanted)
        return plain(film, wanted)

    monkeypatch.setattr(films.Film, "seen_again", counted)
    for name, *more in (("here",), ("blind",), ("there", "--worker", sys.executable)):
        if name == "blind":
            monkeypatch.setattr(films.Film, "is_probed", lambda *_: False)
        cache = tmp_path / f"{name}.npz"
        code, _, err = run("embed", close_up.parent, cache, "--films", "--model", mini, *more)
        assert code == 0, err
        kept.append(frames_in(sf.load_cache(cache)))
    assert kept[0] and min(when for _, when in kept[0]) >= 2.0
    assert kept[0] == kept[1] == kept[2]
    assert len(again) >= 12


def test_a_kill_between_two_looks_costs_only_the_rest(close_up, mini, tmp_path, run, monkeypatch):
    looks, plain = [], films.seen_in

    def dies(*args):
        looks.append(args[-1])
        if looks.count(True) == 4:
            raise KeyboardInterrupt
        return plain(*args)

    monkeypatch.setattr(films.Film, "is_probed", lambda *_: False)  # all are looked at twice
    argv = ("embed", close_up.parent, tmp_path / "c.npz", "--films", "--model", mini)
    with monkeypatch.context() as killed:
        killed.setattr(films, "seen_in", dies)
        assert run(*argv, "--threads", 1)[0] == 130
    looks.clear()
    monkeypatch.setattr(films, "seen_in", lambda *a: looks.append(a[-1]) or plain(*a))
    assert run(*argv)[0] == 0
    assert looks and all(looks) and len(looks) <= 14  # 13 to look at again, three were done
    assert run("embed", close_up.parent, tmp_path / "w.npz", *argv[3:])[0] == 0
    one, other = (sf.load_cache(tmp_path / name) for name in ("c.npz", "w.npz"))
    assert one.file_path.tolist() == other.file_path.tolist() and one.files
    assert one.face_ids == other.face_ids


@pytest.fixture
def two_parts(tmp_path) -> Path:
    """A film joined byte by byte of two that show different things at the same time stamps."""
    parts = (("anna", 6.0), ("dora", 6.0)), (("", 5.0), ("dora", 6.0))
    files = [
        write_video(tmp_path / f"{at}.ts", list(film(part)), g="25")
        for at, part in enumerate(parts)
    ]
    (tmp_path / "films").mkdir()
    path = tmp_path / "films/two.ts"
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    return path


def samples_of(path: Path) -> tuple[film_pass.VideoPass, dict[int, np.ndarray]]:
    """(a pass over a film, {pts: picture} of the frames it samples)."""
    video = film_reading.video_facts(str(path), *sf.facts_of(os.stat(path)))
    once = film_pass.VideoPass(video, 2.0, lambda _: False)
    return once, dict(once.samples())


def test_frames_of_joined_films_are_read_in_any_order(two_parts):
    _, pictures = samples_of(two_parts)
    order = np.random.default_rng(1).permutation([*pictures])
    for pts in order.tolist():
        found = sf.read_photo(films.frame_path(str(two_parts), pts, 0.0))
        assert np.array_equal(found.image, pictures[pts])


def test_a_worker_decodes_the_frames_of_joined_films(two_parts, monkeypatch):
    """A time stamp alone finds another frame, or none."""
    once, pictures = samples_of(two_parts)
    monkeypatch.setattr(films, "seen_in", lambda _, image, *how: {"image": image})
    items = []

    class Somebody:
        def run(self, _, wanted, folder):
            items.extend(wanted)
            return ((item, films.stretch_item(None, item)) for item in wanted)

    run_of = type("Run", (), {"crew": Somebody(), "path": two_parts.with_name("c.npz")})()
    looked = films.Film.__new__(films.Film)
    looked.run, looked.once, looked.video, looked.how = run_of, once, once.video, {}
    looked.file, looked.id = sf.FoundFile(str(two_parts), 1, 1), "a"
    monkeypatch.setattr(sf, "CHUNK_SAMPLES", 4)
    found = dict(looked.seen_elsewhere([*pictures], []))
    assert len(items) > 8 and [*found] == [*pictures]
    assert all(np.array_equal(found[pts].get("image"), pictures[pts]) for pts in pictures)


# -- what the other commands make of frames ----------------------------------


@pytest.fixture(scope="session")
def chained(made, tmp_path_factory) -> tuple[Path, Path]:
    """(folder of films, OUT) of a whole run over a film whose people move."""
    base = tmp_path_factory.mktemp("chained")
    (base / "films").mkdir()
    frames = [np.roll(face_picture("anna"), step, axis=1) for step in range(-20, 20)] * 8
    write_video(base / "films/anna.mp4", [*frames, *shot(empty_picture(5), 40)])
    assert sf.main(["run", str(base / "films"), str(base / "out"), "--films", *DLIB, "-q",
                    "--min-faces", "1", "--every-frames", "20", "--json"]) == 0  # fmt: skip
    return base / "films", base / "out"


def test_a_set_is_made_of_a_film_alone(chained):
    folder, out = chained
    master = json.loads((out / "facesets_swap_ready/manifest.json").read_text())
    assert len(master["facesets"]) == 1
    face = json.loads(
        (out / "facesets_swap_ready/faceset_001/manifest.json").read_text()
    )["faces"][0]  # fmt: skip
    found = sf.FRAME_PATH.fullmatch(face["source"])
    assert found[1] == str(folder / "anna.mp4")
    assert list((out / "facesets_swap_ready").glob("*/*.fsz"))


def test_trees_hold_pictures_of_the_frames(chained):
    _, out = chained
    pictures = list((out / "raw_full/person_001").glob("*.jpg"))
    assert pictures
    cache = sf.load_cache(out / "faces.npz")
    library = sf.Library(cache, out / "faces.npz")
    for path in pictures:
        assert sf.read_photo(str(path)).wh == (256, 256)
        assert films.frame_of_picture(path) in cache.file_sha256.tolist()
        assert library.holds(path)
    pictures[0].write_bytes(pictures[0].read_bytes() + b"edited")
    assert not library.holds(pictures[0])


def test_a_second_run_keeps_the_trees(chained, run):
    folder, out = chained
    code, text, _ = run("run", folder, out, "--films", *DLIB, "--min-faces", 1, "--every-frames",
                        20, "--json")  # fmt: skip
    assert code == 0
    steps = {row["step"]: row["result"] for row in json.loads(text)["steps"]}
    assert "placed" not in steps["cluster"] and "placed" not in steps["refine"], steps


def test_frames_are_no_duplicates_to_delete(chained, run):
    _, out = chained
    code, text, _ = run("dedup", out / "faces.npz", "--json")
    result = json.loads(text)
    assert code == 0 and result["byte_groups"] == 0 and result["visual_groups"] == 0


def test_status_counts_films(embedded, run):
    code, text, _ = run("status", embedded, "--json")
    told = json.loads(text)
    assert code == 0 and told["photos"] == 0
    assert told["films"] == 3 and told["films_without_face"] == 1 and told["films_unreadable"] == 1
    assert told["film_frames"] == sf.load_cache(embedded).files
    assert told["gone_or_changed"] == 0


def test_a_worker_finds_the_same_frames(made, tmp_path, embedded, run):
    code, _, err = run("embed", made, tmp_path / "c.npz", "--films", *DLIB, "--worker",
                         sys.executable, "--json")  # fmt: skip
    assert code == 0, err
    there, here = sf.load_cache(tmp_path / "c.npz"), sf.load_cache(embedded)
    assert there.file_path.tolist() == here.file_path.tolist()
    assert np.allclose(there.embedding, here.embedding, atol=1e-4)


# -- clips of photos ---------------------------------------------------------


def test_clips_belong_to_their_photos(made, tmp_path, embed, monkeypatch):
    folder = tmp_path / "phone"
    folder.mkdir()
    photo, clip = demo_library.demo_photo(), tmp_path / "clip.mp4"
    write_video(clip, list(film((("dora", 2.0),))))
    (folder / "IMG_1.jpg").write_bytes(photo)
    shutil.copy(clip, folder / "IMG_1.MOV")  # a Live Photo
    (folder / "MVIMG_2.jpg").write_bytes(photo + b"\0" + clip.read_bytes())  # a motion photo
    shutil.copy(made / "party.mp4", folder / "IMG_1.mp4")  # 12 s: a film of that name
    code, result, _ = embed(folder, tmp_path / "c.npz", "--films")
    assert code == 0 and result["films"] == 1
    code, result, _ = embed(folder, tmp_path / "c.npz", "--motion")
    assert code == 0 and result["films"] == 2
    monkeypatch.setattr(films, "clip_start", lambda _: pytest.fail("a photo was searched again"))
    code, again, _ = embed(folder, tmp_path / "c.npz", "--motion")
    assert code == 0 and again["films"] == 2 and "films_looked_at" not in again
    monkeypatch.undo()
    cache = sf.load_cache(tmp_path / "c.npz")
    assert {name for name, _ in frames_in(cache)} == {"IMG_1.mp4", "IMG_1.MOV", "MVIMG_2.jpg"}
    library = sf.Library(cache, tmp_path / "c.npz")
    for row, path in enumerate(cache.file_path.tolist()):
        assert sf.read_photo(library.live_path(row), str(cache.file_sha256[row])).wh[0] > 100, path


def test_real_motion_photos(shared):
    folder = shared / "data/formats"
    assert films.clip_start(str(folder / "samsung-one-ui-6.heic")) == 452284
    assert films.clip_start(str(folder / "IMG_2682.heic")) == 0
    with films.playable(str(folder / "samsung-one-ui-6.heic")) as clip:
        assert film_reading.video_facts(clip, *sf.facts_of(os.stat(clip))).duration > 2


# -- real films --------------------------------------------------------------


def test_the_mixtape(shared, tmp_path, run, mini):
    """Every shot with a person gives some faces, none gives many, and no two are one picture."""
    videos = shared / "data/videos"
    truth = json.loads((videos / "mixtape.truth.json").read_text())
    code, _, err = run("embed", videos / "mixtape.mp4", tmp_path / "c.npz", "--films", "--model",
                         mini, "--det-size", 320, "--json")  # fmt: skip
    assert code == 0, err
    times = [when for _, when in frames_in(sf.load_cache(tmp_path / "c.npz"))]
    for part in truth:
        inside = [at for at in times if part["start"] <= at < part["end"]]
        if part["face"] == "yes":
            assert 1 <= len(inside) <= 3, part
        elif part["face"] == "no":
            assert not inside, part
    labels = sf.near_duplicate_labels(sf.load_cache(tmp_path / "c.npz").unit, 0.03)
    assert len(set(labels.tolist())) == len(labels)


def test_a_kill_of_the_process(made, tmp_path):
    """SIGKILL while a film is looked at; the next run goes on."""
    folder = tmp_path / "films"
    folder.mkdir()
    write_video(folder / "long.mp4", list(film((("anna", 20.0), ("dora", 20.0)))))
    command = [sys.executable, str(SCRIPT), "embed", str(folder), str(tmp_path / "c.npz"),
               "--films", *DLIB, "-q"]  # fmt: skip
    process = subprocess.Popen(command)
    begun, until = films.begun_path(tmp_path / "c.npz"), time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if begun.exists() and begun.read_bytes().count(b"\n") > 12:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert begun.exists()
    assert subprocess.run(command, check=False).returncode == 0
    assert not begun.exists() and frames_in(sf.load_cache(tmp_path / "c.npz"))


# -- forgetting --------------------------------------------------------------


def test_a_forgotten_person_of_a_film_is_gone_and_stays_away(made, tmp_path, run, embed):
    """Of the cache, of the trees and of what is kept of films; a rescan does not bring her back."""
    folder, out = tmp_path / "films", tmp_path / "out"
    folder.mkdir()
    shutil.copy(made / "party.mp4", folder)
    cache = out / "faces.npz"
    code, _, err = run("run", folder, out, "--films", *DLIB, "--min-faces", 1)
    assert code in (0, 1), err
    before = sf.load_cache(cache)
    anna = [
        face
        for face, at in zip(before.face_ids, before.face_file.tolist(), strict=True)
        if float(sf.FRAME_PATH.fullmatch(str(before.file_path[at]))[3]) < 6
    ]
    assert anna and len(anna) < before.faces
    films.begun_path(cache).write_bytes(b"left by a killed run\n")
    words = [word for face in anna for word in ("--face", face)]
    code, text, err = run("forget", out, "--cache", cache, *words, "--json")
    assert code == 0, text + err
    assert not films.begun_path(cache).exists()
    after = sf.load_cache(cache)
    assert not {*anna} & {*after.face_ids} and after.faces == before.faces - len(anna)
    gone = {face[:16] for face in anna}
    for picture in out.rglob("*.jpg"):
        assert films.frame_of_picture(picture)[:16] not in gone
    _, result, _ = embed(folder, cache, "--films")
    assert "films_looked_at" not in result
    embed(folder, cache, "--films", "--every", 2.5, "--rescan")
    assert not {*anna} & {*sf.load_cache(cache).face_ids}
