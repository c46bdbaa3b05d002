"""Finding photo files: what is in, what is left out, and that nothing is seen twice or lost."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

import sort_faces as sf


def put(*paths: Path, data: bytes = b"x") -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def scan(*roots: Path, include=(), exclude=()) -> tuple[list[str], sf.ScanReport]:
    """(paths found, what was passed over), as embed would see them."""
    report = sf.scan_photos(sf.source_roots(roots), include, exclude)
    return [file.path for file in report.files], report


def names(root: Path, **globs) -> set[str]:
    """What a scan of one root finds, relative to it."""
    return {Path(path).relative_to(root).as_posix() for path in scan(root, **globs)[0]}


@pytest.fixture
def library(tmp_path) -> Path:
    root = tmp_path / "photos"
    put(root / "a.jpg", root / "2019/b.png", root / "2019/rome/c.heic", root / "2020/d.jpg")
    put(root / "notes.txt", root / "2019/film.mp4", root / "noext")
    return root


ALL = {"a.jpg", "2019/b.png", "2019/rome/c.heic", "2020/d.jpg"}


def test_all_photos_below_a_root_in_path_order(library) -> None:
    paths, report = scan(library)
    assert {Path(path).relative_to(library).as_posix() for path in paths} == ALL
    assert paths == sorted(paths)
    assert report.others.total() == 2 and [Path(f.path).name for f in report.films] == ["film.mp4"]
    assert not report.unreadable and not report.skipped_outputs


def test_size_and_time_are_those_of_the_file(library) -> None:
    os.utime(library / "a.jpg", ns=(10**18 + 1, 10**18 + 7))
    (file,) = sf.scan_photos([library], ["a.jpg"]).files
    assert (file.size, file.mtime_ns) == (1, os.stat(library / "a.jpg").st_mtime_ns)


@pytest.mark.parametrize("suffix", sorted(sf.PHOTO_SUFFIXES))
def test_every_photo_suffix_counts_in_any_case(tmp_path, suffix) -> None:
    wanted = {f"low{suffix}", f"up{suffix.upper()}", f"mixed{suffix.title()}", f"two.dots{suffix}"}
    put(*(tmp_path / name for name in wanted))
    put(tmp_path / f"almost{suffix}x", tmp_path / suffix[1:], tmp_path / f"x{suffix}.part")
    assert names(tmp_path) == wanted


def test_a_folder_named_like_a_photo_is_a_folder(tmp_path) -> None:
    put(tmp_path / "album.jpg/inside.jpg")
    assert names(tmp_path) == {"album.jpg/inside.jpg"}


def test_names_in_any_alphabet_are_found(tmp_path) -> None:
    wanted = {"фото/日本 ☀️.jpg", "😀.JPG", "new\nline.jpg", "a'b\"c.jpg", "%s.jpg"}
    put(*(tmp_path / name for name in wanted))
    assert names(tmp_path) == wanted


@pytest.mark.skipif(os.name == "nt", reason="Windows names are text")
def test_names_that_are_no_utf8_are_found(tmp_path) -> None:
    raw = os.fsencode(tmp_path) + b"/f\xfcr \xff/caf\xe9.jpg"
    put(Path(os.fsdecode(raw)))
    assert [os.fsencode(path) for path in scan(tmp_path)[0]] == [raw]


# ---------------------------------------------------------------------------- roots


def test_several_roots_are_joined(tmp_path, library) -> None:
    other = tmp_path / "other"
    put(other / "e.jpg")
    paths, _ = scan(library, other)
    assert len(paths) == len(ALL) + 1
    assert str(other / "e.jpg") in paths


@pytest.mark.parametrize("order", [("", "2019"), ("2019", ""), ("", ""), ("2019/rome", "2019", "")])
def test_overlapping_roots_find_every_file_once_and_none_less(library, order) -> None:
    paths, report = scan(*(library / part for part in order))
    assert len(paths) == len(set(paths))
    assert {Path(path).relative_to(library).as_posix() for path in paths} == ALL
    assert report.others.total() == 2 and [Path(f.path).name for f in report.films] == ["film.mp4"]


def test_a_single_file_can_be_a_source(library) -> None:
    paths, report = scan(library / "a.jpg")
    assert paths == [str(library / "a.jpg")]
    assert report.unreadable == []


def test_a_file_given_beside_its_folder_is_found_once(library) -> None:
    paths, _ = scan(library / "a.jpg", library)
    assert len(paths) == len(ALL) == len(set(paths))


def test_a_relative_or_roundabout_root_gives_the_same_paths(library, monkeypatch) -> None:
    direct, _ = scan(library)
    monkeypatch.chdir(library / "2019")
    for root in ("..", "../../photos", "rome/../.."):
        assert scan(Path(root))[0] == direct


def test_a_missing_root_is_an_error(tmp_path) -> None:
    with pytest.raises(sf.SortFacesError, match="no such file or folder"):
        scan(tmp_path / "nowhere")


# ---------------------------------------------------------------------------- globs

GLOBS = {
    "a name": ({"include": ["a.jpg"]}, {"a.jpg"}),
    "a suffix": ({"include": ["*.jpg"]}, {"a.jpg", "2020/d.jpg"}),
    "a folder": ({"include": ["2019/*"]}, {"2019/b.png", "2019/rome/c.heic"}),
    "one of two": ({"include": ["*.png", "2020/*"]}, {"2019/b.png", "2020/d.jpg"}),
    "not a suffix": ({"exclude": ["*.jpg"]}, {"2019/b.png", "2019/rome/c.heic"}),
    "not a folder": ({"exclude": ["2019/*"]}, {"a.jpg", "2020/d.jpg"}),
    "a deeper folder": ({"exclude": ["*/rome/*"]}, ALL - {"2019/rome/c.heic"}),
    "exclude wins": ({"include": ["*.jpg"], "exclude": ["2020/*"]}, {"a.jpg"}),
    "nothing": ({"include": ["*.bmp"]}, set()),
    "a set of letters": ({"include": ["[ab].*"]}, {"a.jpg", "2019/b.png"}),
}


@pytest.mark.parametrize("case", GLOBS)
def test_globs_match_the_name_or_the_path_below_the_root(library, case) -> None:
    globs, expected = GLOBS[case]
    assert names(library, **globs) == expected


def test_globs_do_not_see_the_path_above_the_root(library) -> None:
    assert names(library, exclude=["*photos*", "/*"]) == ALL


def test_globs_apply_to_a_single_file_by_its_name(library) -> None:
    assert scan(library / "a.jpg", include=["a.*"])[0] == [str(library / "a.jpg")]
    assert scan(library / "a.jpg", exclude=["a.*"])[0] == []


# ---------------------------------------------------------------------------- left out


def test_hidden_and_system_folders_and_files_are_left_out(library) -> None:
    put(library / ".thumbs/x.jpg", library / "2019/.Trash/x.jpg", library / "._a.jpg")
    put(*(library / folder / "x.jpg" for folder in sf.SKIPPED_FOLDERS))
    assert names(library) == ALL


def test_a_hidden_folder_named_as_root_is_scanned(tmp_path) -> None:
    put(tmp_path / ".private/x.jpg")
    assert names(tmp_path / ".private") == {"x.jpg"}


@pytest.mark.parametrize("manifest", ["manifest.json", "refine_manifest.json"])
def test_outputs_of_the_tool_are_skipped_and_reported(library, manifest) -> None:
    out = library / "2019/sorted"
    put(out / "person_001/x.jpg", out / "y.jpg")
    sf.write_json(out / manifest, {"tool": sf.TOOL, "kind": "raw"})
    paths, report = scan(library)
    assert len(paths) == len(ALL)
    assert report.skipped_outputs == [str(out)]


def test_the_manifest_of_another_program_hides_nothing(library) -> None:
    put(library / "2019/manifest.json", data=b'{"tool": "other", "kind": "raw"}')
    put(library / "2020/manifest.json", data=b"")
    (library / "2019/rome/manifest.json").mkdir()
    assert names(library) == ALL


def test_an_output_named_as_root_is_an_error(tmp_path) -> None:
    sf.write_json(tmp_path / "out/manifest.json", {"tool": sf.TOOL, "kind": "raw"})
    with pytest.raises(sf.SortFacesError, match="output of this tool"):
        scan(tmp_path / "out")


# ---------------------------------------------------------------------------- links


def test_links_to_folders_and_files_are_followed(tmp_path, library) -> None:
    put(tmp_path / "elsewhere/e.jpg", tmp_path / "single/f.jpg")
    (library / "linked").symlink_to(tmp_path / "elsewhere")
    (library / "g.jpg").symlink_to(tmp_path / "single/f.jpg")
    assert names(library) == ALL | {"linked/e.jpg", "g.jpg"}


def test_loops_of_links_end_and_no_file_comes_twice(library) -> None:
    (library / "2019/rome/up").symlink_to(library)
    (library / "2020/self").symlink_to(library / "2020")
    (library / "again").symlink_to(library / "2019")
    found = names(library)
    assert len(found) == len(ALL)
    assert {Path(path).name for path in found} == {Path(path).name for path in ALL}


def test_a_link_to_itself_and_dangling_links_are_reported_and_survived(library) -> None:
    (library / "round.jpg").symlink_to(library / "round.jpg")
    (library / "gone.jpg").symlink_to(library / "nowhere.jpg")
    (library / "gone").symlink_to(library / "no folder")
    paths, report = scan(library)
    assert len(paths) == len(ALL)
    assert {line.split(": ")[0] for line in report.unreadable} == {
        str(library / "round.jpg"), str(library / "gone.jpg"),
    }  # fmt: skip


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes here")
def test_a_pipe_named_like_a_photo_is_no_photo(library) -> None:
    """Reading one would wait for ever."""
    os.mkfifo(library / "pipe.jpg")
    assert names(library) == ALL


@pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything"
)
def test_an_unreadable_folder_is_reported_and_the_rest_is_found(library) -> None:
    (library / "2020").chmod(0)
    try:
        paths, report = scan(library)
    finally:
        (library / "2020").chmod(0o755)
    assert len(paths) == len(ALL) - 1
    assert [line.split(": ")[0] for line in report.unreadable] == [str(library / "2020")]


def test_a_folder_that_vanishes_during_the_scan_is_reported(library, monkeypatch) -> None:
    real = os.scandir

    def vanishing(folder):
        if str(folder).endswith("2020"):
            raise FileNotFoundError(2, "No such file or directory", folder)
        return real(folder)

    monkeypatch.setattr(sf.os, "scandir", vanishing)
    paths, report = scan(library)
    assert len(paths) == len(ALL) - 1
    assert len(report.unreadable) == 1 and "2020" in report.unreadable[0]


def test_deep_folders_are_no_problem(tmp_path) -> None:
    deep = tmp_path.joinpath(*["d"] * 300)
    put(deep / "x.jpg")
    assert len(scan(tmp_path)[0]) == 1
