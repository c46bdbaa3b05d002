"""XMP sidecars, read back by exiftool and turned as Immich turns them."""

from __future__ import annotations

import io
import json
import math
import re
import shutil
import subprocess
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest
from aligned_material import Shelf
from conftest import SHARED, demo_library, make_cache, sf
from corpora import assert_clean, content, copied, edit, faces_in, read, write_master
from hypothesis import given
from hypothesis import strategies as st
from material import Library, ok

xmp = sf.companion("consumers_xmp")
CORPUS = xmp.Owner("/sets/a", "2026-01-01")

exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="needs exiftool (Debian: libimage-exiftool-perl)"
)
STORED = {  # what makes an upright picture the stored one of an EXIF orientation
    2: PIL.Image.Transpose.FLIP_LEFT_RIGHT,
    3: PIL.Image.Transpose.ROTATE_180,
    4: PIL.Image.Transpose.FLIP_TOP_BOTTOM,
    5: PIL.Image.Transpose.TRANSPOSE,
    6: PIL.Image.Transpose.ROTATE_90,
    7: PIL.Image.Transpose.TRANSVERSE,
    8: PIL.Image.Transpose.ROTATE_270,
}
NAMES = {
    "a": 'Zoë & <Ann> "O\'Neil"',
    "b": "王小明 😀",
    "c": sf.UNNAMED,
}


def told(*words: object) -> list[dict]:
    """What exiftool says of files."""
    done = subprocess.run(
        ["exiftool", "-json", "-struct", "-n", *map(str, words)],
        capture_output=True, check=True, encoding="utf-8",
    )  # fmt: skip
    return json.loads(done.stdout)


def as_immich(info: dict, orientation: int) -> list[tuple[str, tuple[int, ...], tuple[int, int]]]:
    """(name, box, picture size) as applyTaggedFaces of Immich computes them: it turns regions by
    the photo's EXIF orientation, then multiplies and rounds down."""
    size = info["AppliedToDimensions"]
    width, height = size["W"], size["H"]
    if orientation >= 5:
        width, height = height, width
    found = []
    for region in info["RegionList"]:
        area = region["Area"]
        x, y, w, h = (area[key] for key in "XYWH")
        x, y = {
            1: (x, y), 2: (1 - x, y), 3: (1 - x, 1 - y), 4: (x, 1 - y),
            5: (y, x), 6: (1 - y, x), 7: (1 - y, 1 - x), 8: (y, 1 - x),
        }[orientation]  # fmt: skip
        if orientation >= 5:
            w, h = h, w
        box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
        found.append((region["Name"], tuple(map(math.floor, box)), (width, height)))
    return found


def cache_of(paths: list[Path], bbox: tuple[float, ...] = (31, 52, 118, 171)) -> sf.FaceCache:
    """A cache of one face in each of real photos, with upright sizes as the tool reads them."""
    facts = [path.stat() for path in paths]
    photos = [sf.read_photo(str(path)) for path in paths]
    return replace(
        make_cache(1, len(paths), root=str(paths[0].parent)),
        file_path=np.array(list(map(str, paths))),
        file_sha256=np.array([sf.sha256_of_file(path) for path in paths]),
        file_size=np.array([fact.st_size for fact in facts]),
        file_mtime_ns=np.array([fact.st_mtime_ns for fact in facts]),
        file_wh=np.array([photo.wh for photo in photos], np.int32),
        bbox=np.tile(np.array(bbox, np.float32), (len(paths), 1)),
    )


def write(cache: sf.FaceCache, folder: Path, names: dict[str, str] | None = None, **sets: list):
    """({sidecar: photo}, {photo: why not}) of a mirrored tree."""
    sets = sets or {"a": list(range(cache.faces))}
    left: dict[str, str] = {}
    regions = xmp.photo_regions(cache, sets, NAMES if names is None else names)
    made = xmp.sidecars(sf.Library(cache, folder / "no.npz"), regions, left)
    return xmp.write_mirror(folder, made, cache.meta.roots), left


@pytest.fixture
def turned(tmp_path) -> list[Path]:
    """The demo photo with each EXIF orientation; upright they are all the same."""
    upright = PIL.Image.open(io.BytesIO(demo_library.demo_photo()))
    paths = []
    for orientation in range(1, 9):
        stored = upright.transpose(STORED[orientation]) if orientation > 1 else upright
        exif = PIL.Image.Exif()
        exif[0x0112] = orientation
        paths.append(tmp_path / "photos" / f"turned_{orientation}.jpg")
        paths[-1].parent.mkdir(exist_ok=True)
        stored.save(paths[-1], exif=exif, quality=95)
    return paths


# --- regions ----------------------------------------------------------------


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turned_back_undoes_turn_upright(orientation: int):
    stored = np.zeros((60, 90, 3), np.uint8)
    stored[10:25, 20:70] = 255
    upright = sf.turn_upright(stored, orientation)[:, :, 0]
    rows, columns = np.flatnonzero(upright.any(axis=1)), np.flatnonzero(upright.any(axis=0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    region = xmp.region_of("x", box, upright.shape[::-1])
    back = np.array(xmp.turned_back(region.box, orientation)) * (90, 60, 90, 60)
    assert np.allclose(back, (20.25, 10.25, 69.75, 24.75))


@pytest.mark.parametrize(("box", "pixels"), [((-20, 10, 50, 120), (0, 10, 50, 100)),
                                             ((20.5, 10.2, 49.5, 60.7), (20, 10, 50, 61)),
                                             ((99.8, 5.1, 130, 5.3), (99, 5, 100, 6))])  # fmt: skip
def test_a_region_lies_inside_whole_pixels_of_the_picture(box, pixels):
    region = xmp.region_of("x", np.array(box), (100, 100))
    assert np.allclose(region.box, np.add(pixels, (0.25, 0.25, -0.25, -0.25)) / 100)


@given(
    st.tuples(*[st.floats(0, 1, width=32)] * 4), st.integers(40, 9000), st.integers(40, 9000),
    st.integers(1, 8),
)  # fmt: skip
def test_both_kinds_of_regions_are_the_same_pixels(shares, width, height, orientation):
    """As digiKam 7.9 reads them (QRectF::toRect of shares times the size); it took both for two."""
    x, y, w, h = shares
    edges = np.array([x, y, min(1.0, x + w), min(1.0, y + h)]) * (width, height, width, height)
    region = xmp.region_of("x", np.rint(edges * 2) / 2, (width, height))  # dlib's have halves
    told = xmp.shares_of(xmp.turned_back(region.box, orientation))
    told = {key: float(value) for key, value in told.items()}
    high = (height, width) if orientation > 4 else (width, height)

    def pixels(left, top):
        edges = np.array([left, top, left + told["w"], top + told["h"]]) * (*high, *high)
        return np.floor(edges + 0.5).astype(int).tolist()

    one = pixels(told["left"], told["top"])
    assert one == pixels(told["x"] - told["w"] / 2, told["y"] - told["h"] / 2)
    assert one[0] < one[2] and one[1] < one[3]


def test_names_have_one_spelling_and_the_unnamed_none():
    names = {"a": "anna  Müller", "b": "Anna Müller", "c": "Anna Mu\u0308ller ", "d": "unnamed",
             "e": "Bo\x07b\x00", "f": " \x00 "}  # fmt: skip
    spelled = xmp.one_spelling(names)
    assert spelled == {"a": "Anna Müller", "b": "Anna Müller", "c": "Anna Müller", "e": "Bob"}


def test_two_sets_of_a_person_are_one_region_for_each_face():
    cache = make_cache(2, 2)
    regions = xmp.photo_regions(
        cache, {"whole": [0, 1], "era": [1], "b": [2]}, {"whole": "Ann", "era": "ann", "b": "Bo"}
    )
    names = {file: [region.name for region in some] for file, some in regions.items()}
    assert names == {0: ["Ann"], 1: ["Ann"], 2: ["Bo"]}


@pytest.mark.parametrize("name", [*NAMES.values(), "]]> &amp; {0} %s", "a\nb\tc", "\ud800x"])
def test_sidecars_are_xml_whatever_the_name(name: str):
    text = xmp.sidecar([xmp.Region(xmp.plain_name(name), (0.1, 0.2, 0.3, 0.4))], (100, 50), 6)
    root = ET.fromstring(text)
    named = [part.text for part in root.iter() if part.tag.endswith(("}Name", "DisplayName"))]
    assert named == [xmp.plain_name(name)] * 2
    assert "\ud800" not in named[0] and "\n" not in named[0]


@exiftool
def test_exiftool_reads_both_spellings_without_a_warning(tmp_path, turned):
    cache = cache_of(turned[:3])
    cache = replace(cache, face_file=np.array([0, 0, 1], np.int32),
                    bbox=np.array([[5, 6, 70, 80], [200, 50, 300, 180], [31, 52, 118, 171]],
                                  np.float32))  # fmt: skip
    before = {path: sf.sha256_of_file(path) for path in turned}
    folder = tmp_path / "xmp"
    written, left = write(cache, folder, a=[0, 1], b=[2], c=[0, 1, 2])
    assert sorted(written) == ["turned_1.jpg.xmp", "turned_2.jpg.xmp"] and not left
    for name in written:
        (facts,) = told("-RegionInfo", "-RegionInfoMP", "-validate", "-warning", folder / name)
        assert "Warning" not in facts and str(facts["Validate"]).startswith(("0 0 0", "OK"))
        names = [region["Name"] for region in facts["RegionInfo"]["RegionList"]]
        assert names == ([NAMES["a"]] * 2 if "1" in name else [NAMES["b"]])
        assert {region["Type"] for region in facts["RegionInfo"]["RegionList"]} == {"Face"}
        pairs = zip(
            facts["RegionInfo"]["RegionList"], facts["RegionInfoMP"]["Regions"], strict=True
        )
        for mwg, microsoft in pairs:
            assert microsoft["PersonDisplayName"] == mwg["Name"]
            x, y, w, h = map(float, microsoft["Rectangle"].split(", "))
            area = mwg["Area"]
            assert (area["W"], area["H"], area["Unit"]) == (w, h, "normalized")
            assert x + w / 2 == pytest.approx(area["X"], abs=1e-6)
            assert y + h / 2 == pytest.approx(area["Y"], abs=1e-6)
    assert before == {path: sf.sha256_of_file(path) for path in turned}


@exiftool
def test_immich_computes_the_upright_box(tmp_path, turned):
    cache = cache_of(turned)
    written, _ = write(cache, tmp_path / "xmp")
    assert len(written) == 8
    for name, path in written.items():
        assert_upright(cache, tmp_path / "xmp" / name, path)


@exiftool
@pytest.mark.parametrize("kind", ["orientation", "heic"])
def test_immich_computes_the_upright_box_of_the_shared_photos(tmp_path, shared, kind):
    """HEIC, too: libheif has turned the picture, while its tag still tells a reader to."""
    formats = SHARED / "data" / "formats"
    found = formats.glob("*.heic") if kind == "heic" else (formats / "orientation").iterdir()
    cache = cache_of(sorted(found))
    written, left = write(cache, tmp_path / "xmp")
    assert len(written) == cache.files >= 2 and not left
    for name, path in written.items():
        assert_upright(cache, tmp_path / "xmp" / name, path)


def assert_upright(cache: sf.FaceCache, sidecar: Path, path: str) -> None:
    (facts,) = told("-RegionInfo", sidecar)
    (photo,) = told("-Orientation", "-ImageWidth", "-ImageHeight", path)
    stored = facts["RegionInfo"]["AppliedToDimensions"]
    assert (stored["W"], stored["H"]) == (photo["ImageWidth"], photo["ImageHeight"]), path
    ((name, box, wh),) = as_immich(facts["RegionInfo"], photo.get("Orientation", 1))
    row = cache.file_path.tolist().index(path)
    assert name == NAMES["a"] and wh == tuple(cache.file_wh[row].tolist())
    assert np.abs(np.array(box) - cache.bbox[row]).max() <= 2, path


@exiftool
def test_the_region_shows_the_face_in_the_pixels_as_they_are_stored(tmp_path, turned):
    """By Pillow alone: cut the stored picture, then turn the cut by the photo's tag."""
    face = (520, 180, 640, 340)
    cache = cache_of(turned, face)
    written, _ = write(cache, tmp_path / "xmp")
    upright = PIL.Image.open(io.BytesIO(demo_library.demo_photo())).convert("L").crop(face)
    for name, path in written.items():
        area = told("-RegionInfo", tmp_path / "xmp" / name)[0]["RegionInfo"]["RegionList"][0][
            "Area"
        ]
        photo = PIL.Image.open(path)
        x, y = area["X"] * photo.width, area["Y"] * photo.height
        w, h = area["W"] * photo.width / 2, area["H"] * photo.height / 2
        cut = photo.crop([round(edge) for edge in (x - w, y - h, x + w, y + h)])
        cut.getexif()[0x0112] = photo.getexif()[0x0112]
        cut = PIL.ImageOps.exif_transpose(cut).convert("L")
        assert cut.size == upright.size, path
        gap = np.asarray(cut, int) - np.asarray(upright, int)
        assert np.abs(gap).mean() < 3, path


# --- where they lie ---------------------------------------------------------


def test_a_mirrored_tree_has_every_copy_of_a_photo(tmp_path):
    library = Library(tmp_path / "lib", people=1, photos=3)
    src = library.src
    cache = replace(
        library.cache,
        alias_path=np.array([str(src / "copies" / "Ä 0.jpg")]),
        alias_file=np.zeros(1, np.int32),
        alias_size=library.cache.file_size[:1],
        alias_mtime_ns=library.cache.file_mtime_ns[:1],
    )
    written, left = write(cache, tmp_path / "xmp", a=[0, 2])
    assert not left and sorted(written) == ["0/0.jpg.xmp", "0/2.jpg.xmp", "copies/Ä 0.jpg.xmp"]
    assert all((tmp_path / "xmp" / name).is_file() for name in written)


def test_photos_of_one_name_from_two_sources_are_kept_apart():
    roots = ["/home/a/photos", "/mnt/b/photos"]
    places = [xmp.mirrored(f"{root}/2019/IMG_1.jpg", roots) for root in roots]
    assert places == ["home__a__photos/2019/IMG_1.jpg.xmp", "mnt__b__photos/2019/IMG_1.jpg.xmp"]
    assert xmp.mirrored("/home/a/photos/2019/IMG_1.jpg", roots[:1]) == "2019/IMG_1.jpg.xmp"
    assert xmp.mirrored("/else/IMG_1.jpg", roots) == "else__IMG_1.jpg.xmp"
    nested = ["/home/a", "/home/a/photos"]
    assert xmp.mirrored("/home/a/photos/x.jpg", nested) == "home__a__photos/x.jpg.xmp"


def test_a_photo_that_is_gone_has_no_sidecar(tmp_path):
    library = Library(tmp_path / "lib", people=1, photos=3)
    library.photo(1).write_bytes(b"other bytes now")
    written, left = write(library.cache, tmp_path / "xmp")
    assert len(written) == 2 and left == {str(library.photo(1)): sf.PHOTO_GONE}


def claims(*photos: object, own: object = CORPUS) -> object:
    return xmp.Claims(own, {str(photo) for photo in photos})


@pytest.mark.parametrize("ending", [".xmp", ".XMP"])
def test_beside_the_photos_only_our_own_sidecars_are_written_over(tmp_path, ending):
    library = Library(tmp_path / "lib", people=1, photos=4)
    photos = [library.photo(row) for row in range(4)]
    before = {path: sf.sha256_of_file(path) for path in photos}
    foreign = [photos[0].with_name(photos[0].name + ending), photos[1].with_suffix(ending)]
    for path in foreign:
        path.write_bytes(b"<x:xmpmeta x:xmptk='Adobe XMP Core'/>")
    left: dict[str, str] = {}
    text = xmp.sidecar([xmp.Region("Ann", (0.1, 0.2, 0.3, 0.4))], (100, 80), 1)
    link = Path(f"{photos[3]}.xmp")
    link.symlink_to(tmp_path / "on a disk that is not there")
    xmp.write_beside({str(photos[3]): text}, left, claims())
    assert link.is_symlink() and "another program's" in left.pop(str(photos[3]))
    link.unlink()
    done = xmp.write_beside(dict.fromkeys(map(str, photos), text), left, claims())
    assert done == [f"{path}.xmp" for path in photos[2:]]
    assert list(left) == [str(path) for path in photos[:2]]
    assert all("another program's" in why for why in left.values())
    assert all(b"Adobe" in path.read_bytes() for path in foreign)
    again = xmp.sidecar([xmp.Region("Bo", (0.1, 0.2, 0.3, 0.4))], (100, 80), 1)
    xmp.write_beside({str(photos[2]): again}, {}, claims())
    assert Path(f"{photos[2]}.xmp").read_bytes() == again
    assert xmp.remove_beside(map(str, photos), {}, claims(*photos)) == done
    assert foreign[0].exists() and foreign[1].exists() and not Path(done[0]).exists()
    assert before == {path: sf.sha256_of_file(path) for path in photos}


def test_a_folder_that_may_only_be_read_costs_its_own_sidecars(tmp_path):
    library = Library(tmp_path / "lib", people=2, photos=1)
    closed, other = library.photo(0), library.photo(1)
    if sf.os.geteuid() == 0:  # whom no mode stops; a folder of that name does
        closed.with_name(closed.name + ".xmp").mkdir()
    else:
        closed.parent.chmod(0o500)
    left: dict[str, str] = {}
    done = xmp.write_beside({str(closed): b"x", str(other): b"x"}, left, claims())
    assert done == [f"{other}.xmp"] and list(left) == [str(closed)]
    closed.parent.chmod(0o700)


def test_a_sidecar_that_cannot_be_removed_is_told_and_no_fault_for_ever(tmp_path, monkeypatch):
    library = Library(tmp_path / "lib", people=2, photos=1)
    photos = [str(library.photo(row)) for row in range(2)]
    own = xmp.Owner(str(tmp_path), "2026-01-01")
    text = xmp.sidecar([xmp.Region("Ann", (0.1, 0.2, 0.3, 0.4))], (100, 80), 1, own)
    xmp.write_beside(dict.fromkeys(photos, text), {}, claims(own=own))
    real = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if str(path).startswith(photos[0]):
            raise OSError(30, "Read-only file system", str(path))
        real(path, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    left: dict[str, str] = {}
    assert xmp.remove_beside(photos, left, claims(own=own)) == [photos[1] + ".xmp"]
    assert left == {photos[0]: "the sidecar beside it stays: Read-only file system"}
    cache = SimpleNamespace(paths=[[path] for path in photos], meta=SimpleNamespace(roots=["/x"]))
    corpus = SimpleNamespace(cache=cache, root=tmp_path, master=SimpleNamespace(created=own.made))
    assert xmp.fault_beside(corpus, left) == ""
    assert xmp.fault_beside(corpus, {}) == f"{photos[0]}.xmp is not in exports/xmp"


def test_an_owner_is_read_back_whatever_its_folder_is_called(tmp_path):
    own = xmp.Owner(f"""/a "b" & <c>'{"d" * 4000}é""", "2026-01-01T00:00:00+00:00")
    some = [xmp.Region("Ann", (0.1, 0.2, 0.3, 0.4))]
    path = tmp_path / "x.jpg.xmp"
    for owner in (own, xmp.NOBODY):
        path.write_bytes(xmp.sidecar(some, (100, 80), 1, owner))
        ET.fromstring(path.read_bytes())
        assert xmp.owner_in(path) == owner and xmp.is_ours(path)
    before = re.sub(rb" +xmlns:sort_faces.*\n", b"", path.read_bytes())
    path.write_bytes(before)  # as of a version that noted none
    assert xmp.owner_in(path) == xmp.NOBODY != xmp.owner_in(tmp_path / "other.xmp")
    assert not claims().is_mine(str(tmp_path / "x.jpg"))
    assert claims(tmp_path / "x.jpg").is_mine(str(tmp_path / "x.jpg"))


# --- as an export of a corpus -----------------------------------------------


@pytest.fixture(scope="module")
def shelf(tmp_path_factory) -> Shelf:
    return Shelf(tmp_path_factory.mktemp("photos"))


@pytest.fixture(scope="module")
def template(shelf, tmp_path_factory) -> Path:
    return shelf.corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def root(template, tmp_path) -> Path:
    return copied(template, tmp_path / "ready")


def names_in(folder: Path) -> dict[str, list[str]]:
    """{sidecar: the names it tells}."""
    found = {}
    for path in sorted(folder.rglob("*.xmp")):
        parts = ET.fromstring(path.read_bytes()).iter()
        names = [part.text for part in parts if part.tag.endswith("}Name")]
        found[path.relative_to(folder).as_posix()] = names
    return found


def give(root: Path, folder: str, name: str) -> None:
    (root / folder / "NAME.txt").write_text(f"{name}\n", encoding="utf-8")


def test_named_people_are_told_of_all_their_photos_and_renaming_is_followed(run, root, shelf):
    code, _, err = run("bundle", root, "--to", "xmp", "--json")
    assert code == 0 and "nobody has a name yet" in err
    give(root, "faceset_001", "Zoë & Co")
    give(root, "faceset_002", "zoë  & co")
    ok(run, "optimize", root, "--no-bytes", "--no-near", "--no-audit")
    told = names_in(root / "exports/xmp")
    assert {name for names in told.values() for name in names} == {"Zoë & Co"}
    groups = read(root.parent / "ready/manifest.json")["facesets"]
    assert len(groups) == 6
    faces = sum(
        len(read(root / name / "manifest.json")["faces"])
        + len(read(root / name / "manifest.json")["dropped"])
        for name in ("faceset_001", "faceset_002")
    )  # the near-duplicates, too: they are the person as well
    assert sum(map(len, told.values())) == faces > 4
    give(root, "faceset_002", "Otto")
    ok(run, "optimize", root, "--no-bytes", "--no-near", "--no-audit")
    told = names_in(root / "exports/xmp")
    assert {name for names in told.values() for name in names} == {"Zoë & Co", "Otto"}
    assert_clean(run, root)


def test_what_was_taken_out_by_hand_is_not_told(run, root):
    give(root, "faceset_002", "Zoë")
    ok(run, "bundle", root, "--to", "xmp")
    before = names_in(root / "exports/xmp")
    (root / "faceset_002/faces/000.png").unlink()
    ok(run, "optimize", root, "--no-bytes", "--no-near", "--no-audit")
    after = names_in(root / "exports/xmp")
    assert sum(map(len, after.values())) == sum(map(len, before.values())) - 1


def test_a_further_copy_of_a_photo_gets_its_sidecar(run, root, shelf, tmp_path):
    path = tmp_path / "lib.npz"
    sf.save_cache(path, shelf.cache)
    for manifest in [root / "manifest.json", *root.glob("faceset_*/manifest.json")]:
        edit(manifest, lambda told: told.update(cache=str(path)))
    write_master(root)
    give(root, "faceset_001", "Zoë")
    ok(run, "bundle", root, "--to", "xmp")
    before = names_in(root / "exports/xmp")
    file = int(shelf.cache.face_file[shelf.cache.row_of_face[faces_in(root, "faceset_001")[0]]])
    facts = [getattr(shelf.cache, f"file_{name}")[file] for name in ("size", "mtime_ns")]
    copied_too = replace(
        shelf.cache,
        alias_path=np.array([str(shelf.src / "again" / "x.jpg")]),
        alias_file=np.array([file], np.int32),
        alias_size=np.array(facts[:1], np.int64),
        alias_mtime_ns=np.array(facts[1:], np.int64),
    )
    sf.save_cache(path, copied_too)
    ok(run, "bundle", root)
    assert set(names_in(root / "exports/xmp")) == {*before, "again/x.jpg.xmp"}
    assert_clean(run, root)


def test_sidecars_beside_the_photos_come_and_go(run, root, shelf):
    photos = {path: sf.sha256_of_file(path) for path in shelf.src.rglob("*.*")}
    give(root, "faceset_001", "Zoë")
    ok(run, "bundle", root, "--to", "xmp", "--xmp-beside", "yes")
    beside = sorted(path.relative_to(shelf.src).as_posix() for path in shelf.src.rglob("*.xmp"))
    assert beside == sorted(names_in(root / "exports/xmp")) and beside
    assert names_in(shelf.src) == names_in(root / "exports/xmp")
    give(root, "faceset_001", "unnamed")
    give(root, "faceset_005", "Otto")
    ok(run, "optimize", root, "--no-bytes", "--no-near", "--no-audit")
    assert names_in(shelf.src) == names_in(root / "exports/xmp")
    assert {name for names in names_in(shelf.src).values() for name in names} == {"Otto"}
    (some := next(shelf.src.rglob("*.xmp"))).unlink()  # and by hand
    assert some.name in str(ok(run, "verify", root, "--no-faces", code=1)["findings"])
    ok(run, "bundle", root)
    assert names_in(shelf.src) == names_in(root / "exports/xmp")
    ok(run, "bundle", root, "--to", "xmp", "--xmp-beside", "no")
    assert not list(shelf.src.rglob("*.xmp")) and names_in(root / "exports/xmp")
    assert photos == {path: sf.sha256_of_file(path) for path in shelf.src.rglob("*.*")}


def test_sidecars_beside_the_photos_follow_what_is_undone(run, root, shelf):
    """`restore` brings exports/xmp back to the byte; what lies beside the photos is told, and then
    made like it, those of people who have no name there any more included."""
    give(root, "faceset_001", "Zoë")
    ok(run, "bundle", root, "--to", "xmp", "--xmp-beside", "yes")
    give(root, "faceset_005", "Otto")
    ok(run, "bundle", root)
    assert "Otto" in str(names_in(shelf.src))
    ok(run, "restore", root)
    give(root, "faceset_005", "unnamed")
    assert "Otto" not in str(names_in(root / "exports/xmp")) and "Otto" in str(names_in(shelf.src))
    assert ok(run, "verify", root, "--no-faces", code=1)["wrong"]
    ok(run, "bundle", root)
    assert names_in(shelf.src) == names_in(root / "exports/xmp")
    assert "Otto" not in str(names_in(shelf.src)) and "Zoë" in str(names_in(shelf.src))
    assert_clean(run, root)
    ok(run, "bundle", root, "--to", "xmp", "--xmp-beside", "no")


@pytest.fixture
def others(template, tmp_path, shelf) -> Path:
    """A second corpus of the same cache, not begun at the same time."""
    other = copied(template, tmp_path / "other")
    edit(other / "manifest.json", lambda told: told.update(created="2020-01-01T00:00:00+00:00"))
    yield other
    for path in shelf.src.rglob("*.xmp"):
        path.unlink()


BESIDE = ("--to", "xmp", "--xmp-beside")


def test_two_corpora_of_one_cache_leave_each_others_sidecars(run, root, others, shelf):
    give(root, "faceset_006", "Zoë")  # who is not in all photos
    ok(run, "bundle", root, *BESIDE, "yes")
    first = content(shelf.src)
    give(others, "faceset_006", "Ann")
    for number in range(1, 6):
        give(others, f"faceset_00{number}", "Otto")
    ours = [path for path in first if path.endswith(".xmp")]
    told = f"beside {len(ours)} photos the sidecars are of the corpus {root}, and stay"
    result = ok(run, "bundle", others, *BESIDE, "yes", warned=told)
    now = content(shelf.src)
    assert ours and {path: now[path] for path in first} == first
    both = {path for path, names in names_in(shelf.src).items() if "Otto" in names}
    assert both and both.isdisjoint(ours)
    assert f"of the corpus {root}" in result["exports"][0]["because"]
    for corpus in (root, others):  # and nobody has anything to mend
        assert_clean(run, corpus)
        assert ok(run, "bundle", corpus)["run"].startswith("none")
    ok(run, "bundle", others, *BESIDE, "no")
    assert content(shelf.src) == first
    ok(run, "bundle", others, *BESIDE, "yes", warned=told)
    ok(run, "bundle", root, *BESIDE, "no")
    assert set(content(shelf.src)) == {*now} - {*ours}
    assert ok(run, "bundle", others)["run"] != "none"  # now there is room for all of its own
    assert names_in(shelf.src) == names_in(others / "exports/xmp")
    assert_clean(run, others)


def test_a_corpus_that_was_moved_knows_its_sidecars_and_a_copy_of_it_does_not(run, root, shelf):
    give(root, "faceset_001", "Zoë")
    ok(run, "bundle", root, *BESIDE, "yes")
    first = content(shelf.src)
    twin = copied(root, root.parent / "twin")
    give(twin, "faceset_001", "Ann")
    ok(run, "bundle", twin, warned="the sidecars are of the corpus")
    assert content(shelf.src) == first
    moved = root.rename(root.parent / "moved")
    assert ok(run, "verify", moved, "--no-faces", code=1)["wrong"] == 1  # they name another place
    give(moved, "faceset_001", "Bo")
    ok(run, "bundle", moved)
    assert names_in(shelf.src) == names_in(moved / "exports/xmp") and "Bo" in str(names_in(moved))
    ok(run, "bundle", moved, *BESIDE, "no")
    assert not list(shelf.src.rglob("*.xmp"))


def test_what_lies_beside_the_photos_is_asked_once_a_run(run, root, shelf, monkeypatch):
    give(root, "faceset_001", "Zoë")
    ok(run, "bundle", root, *BESIDE, "yes")
    real, asked = xmp.fault_beside, []
    monkeypatch.setattr(xmp, "fault_beside", lambda *told: asked.append(1) or real(*told))
    ok(run, "bundle", root)
    assert len(asked) == 1
    next(shelf.src.rglob("*.xmp")).unlink()
    ok(run, "bundle", root)
    assert len(asked) == 3  # the run that mends it, and a look at what that has left
    assert names_in(shelf.src) == names_in(root / "exports/xmp")
    ok(run, "bundle", root, *BESIDE, "no")


def test_without_the_cache_the_sidecars_of_a_moved_corpus_stay_as_they_are(run, root, shelf):
    give(root, "faceset_001", "Zoë")
    ok(run, "bundle", root, "--to", "xmp,embeddings")
    told = content(root / "exports/xmp")
    moved = root.rename(root.parent / "moved")
    edit(moved / "manifest.json", lambda told: told.update(cache=str(moved / "gone.npz")))
    assert_clean(run, moved)
    ok(run, "bundle", moved, "--off", "embeddings")  # for which all that is of everybody is built
    assert told and content(moved / "exports/xmp") == told
    assert not (moved / "exports/embeddings").exists()
    assert_clean(run, moved)
