"""report: the pages of raw, refined and swap-ready outputs, on disk and in a real browser."""

from __future__ import annotations

import html
import json
import os
import re
import shlex
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import cv2
import filelock
import numpy as np
import pytest
from conftest import make_cache, sf
from material import manifest_of, ok, refused, tree, write_photo

pages = sf.companion("pages")

PEOPLE, PHOTOS = 3, 8
EVIL = "<script>alert(1)</script>"
NAMES = {"faceset_001": EVIL, "faceset_002": "Ζωή 日本 علي"}
KINDS = ("raw", "refined", "ready")
CHROMIUM, DRIVER = (
    shutil.which("chromium") or shutil.which("google-chrome"),
    shutil.which("chromedriver"),
)


def painted_photo(row: int, bbox: np.ndarray) -> bytes:
    """A photo of its own colour with something face-like where the cache says."""
    colour = np.random.default_rng(row).integers(60, 200, 3).tolist()
    image = np.full((800, 1000, 3), colour, np.uint8)
    x1, y1, x2, y2 = bbox.round().astype(int).tolist()
    middle, axes = ((x1 + x2) // 2, (y1 + y2) // 2), ((x2 - x1) // 2, (y2 - y1) // 2)
    cv2.ellipse(image, middle, axes, 0, 0, 360, (170, 190, 230), -1)
    return cv2.imencode(".jpg", image)[1].tobytes()


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """lib.npz, photos/, raw/, refined/ and ready/ of three made people; only read."""
    folder = tmp_path_factory.mktemp("made #1 ä%")
    cache = make_cache(people=PEOPLE, photos=PHOTOS, root=str(folder / "photos"))
    facts, shas = [], []
    for row, path in enumerate(cache.file_path.tolist()):
        data = painted_photo(row, cache.bbox[row])
        facts.append(write_photo(path, data, 1_500_000_000 + row))
        shas.append(sf.hashlib.sha256(data).hexdigest())
    taken = np.full(cache.files, 1.4e9)
    taken[0] = np.nan
    sizes, times = np.array(facts, np.int64).T
    short = cache.face_short.copy()
    short[1], blur = 95.0, cache.blur.copy()  # too small for this export
    blur[2] = 41.0  # but just sharp enough
    cache = replace(
        cache, file_sha256=np.array(shas), file_size=sizes, file_mtime_ns=times,
        file_taken=taken, face_short=short, blur=blur,
    )  # fmt: skip
    sf.save_cache(folder / "lib.npz", cache)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SORT_FACES_LOGS", str(tmp_path_factory.mktemp("logs")))
        patch.setattr(sf, "judge_crop", lambda *_: ("", np.zeros((0, 4))))
        seen = {"error": "", "counts": [1, 1], "kps": [], "embedding": "", "boxes": [[], []]}
        patch.setitem(sf.TASKS, "audit", lambda _, items: [seen for _ in items])
        patch.setattr(sf, "load_engine", lambda *_: None)
        patch.setattr(sf, "check_recognizer", lambda *_: None)
        for argv in (
            ("cluster", folder / "lib.npz", folder / "raw"),
            ("refine", folder / "lib.npz", folder / "refined", "--min-faces", 4),
            ("export-swap", folder / "lib.npz", folder / "refined" / "refine_manifest.json",
             folder / "ready", "--model", "synthetic", "--min-face-short", 100),
        ):  # fmt: skip
            assert sf.main([*map(str, argv), "-q", "--json"]) == 0
    for handler in sf.log.handlers:
        handler.close()
    for name, text in NAMES.items():
        (folder / "ready" / name / "NAME.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def own(made, tmp_path) -> Path:
    """A copy of the swap-ready corpus, to be changed."""
    return Path(shutil.copytree(made / "ready", tmp_path / "ready"))


class Page(HTMLParser):
    """What a page holds, by an independent parser."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.cards: list[dict] = []
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.scripts = 0
        self.text = ""
        self.asked = False  # within the facts of a card
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list) -> None:
        given = dict(attrs)
        assert "title" not in given, "only a mouse would see it"
        assert tag != "a" or given.get("href"), "a link that leads nowhere"
        if "card" in given.get("class", "").split():
            self.cards.append({"flags": given["data-flags"].split("|"), "facts": ""})
        self.asked = given.get("class") == "facts"
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "img":
            self.pictures.append(given["src"])
        self.scripts += tag == "script"

    def handle_endtag(self, tag: str) -> None:
        self.asked &= tag != "p"

    def handle_data(self, data: str) -> None:
        self.text += data
        if self.asked:
            self.cards[-1]["facts"] += data

    def with_flag(self, flag: str) -> list[dict]:
        return [card for card in self.cards if flag in card["flags"]]


def pages_in(out: Path) -> list[Page]:
    return [Page(path) for path in sorted(out.glob("*.html"))]


def make(run: Callable, path: Path, out: Path, *options: object, **expected: object) -> dict:
    return ok(run, "report", path, "--out", out, *options, **expected)


def edit(path: Path, change: Callable[[dict], object]) -> None:
    value = json.loads(path.read_text(encoding="utf-8"))
    change(value)
    path.write_text(json.dumps(value), encoding="utf-8")


# --- what the pages hold ----------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_face_has_a_card_and_every_link_leads_somewhere(run, made, tmp_path, kind):
    before = tree(made)
    result = make(run, made / kind, tmp_path / "out")
    left_out = 1 if kind == "ready" else 0
    faces = PEOPLE * PHOTOS - left_out
    assert result["identities"] == PEOPLE and result["pages"] == PEOPLE + 1
    assert (result["faces"], result["left_out"], result["missing"]) == (faces, left_out, 0)
    assert result["thumbnails"] == result["thumbnails_made"] == faces + left_out
    index, *groups = sorted(pages_in(tmp_path / "out"), key=lambda page: page.path.stem != "index")
    assert len(index.cards) == PEOPLE
    assert sum(len(page.cards) for page in groups) == faces + left_out
    assert sum(len(page.pictures) for page in groups) == faces + left_out
    for page in [index, *groups]:
        for link in page.links + page.pictures:
            assert re.fullmatch(r"[\w./%~-]+", link, re.ASCII)
            assert (page.path.parent / unquote(link)).is_file(), link
    assert tree(made) == before


def test_faces_stand_in_rank_order_with_their_terms(run, made, tmp_path):
    make(run, made / "ready", tmp_path / "out")
    faces = manifest_of(made / "ready" / "faceset_001")["faces"]
    kept = [
        card for card in Page(tmp_path / "out/faceset_001.html").cards if "face  " in card["facts"]
    ]
    for face, card in zip(faces, kept, strict=False):
        assert f"face  {face['face']}" in card["facts"]
        assert f"kept because  {face['kept_because']}" in card["facts"]
        assert len(face["terms"]) == 5, "terms without a weight are not told"
        for term, value in face["terms"].items():
            assert f"{term.replace('_', ' ')}  {sf.plain(value)}" in card["facts"]


@pytest.mark.parametrize("kind", KINDS)
def test_flags_follow_the_thresholds(run, made, tmp_path, kind):
    make(run, made / kind, tmp_path / "out")
    cards = [card for page in pages_in(tmp_path / "out") for card in page.cards]
    faces = [card for card in cards if "face  " in card["facts"]]
    assert sum("undated" in card["flags"] for card in faces) == 1
    assert not any("blurred" in card["flags"] or "missing" in card["flags"] for card in faces)
    assert sum("face too small" in card["flags"] for card in faces) == (kind == "ready")


@pytest.mark.parametrize("flag, entry", [
    ("small", {"bbox": [0, 0, 59.9, 200]}),
    ("blurred", {"terms": {"sharpness": 0.39}}),
    ("low score", {"terms": {"det_score": 0.59}}),
    ("turned", {"terms": {"frontality": 0.49}}),
    ("far", {"distance": 0.41}),
    ("cut tight", {"pad": 0.35}),
    ("neighbours painted", {"neighbours_painted": True}),
    ("undated", {"taken": None}),
    ("undated", {"taken": 1e300}),
    ("", {"bbox": [0, 0, 60, 200], "distance": 0.4, "pad": 0.5, "taken": 0}),
    ("", {"terms": {"sharpness": 0.4, "det_score": 0.6, "frontality": 0.5}}),
    ("", {"terms": "none", "bbox": [1, None], "distance": "near", "pad": [], "taken": 5}),
])  # fmt: skip
def test_each_flag_on_both_sides_of_its_threshold(tmp_path, flag, entry):
    manifest = {"kind": "swap", "model": "buffalo_l", "params": {"pad_ratio": 0.5}}
    shown = pages.ReportRun(tmp_path, manifest, None, pages.PageFolder(tmp_path, tmp_path))
    shown.pages.have.add("")  # of a face without a file
    assert pages.face_flags(shown, shown.face({"face": "a:0", **entry})) == [flag] * bool(flag)


def test_undated_is_no_news_where_the_whole_library_is(run, own, tmp_path):
    def undate(manifest: dict) -> None:
        for face in (*manifest["faces"], *manifest["dropped"]):
            face["taken"] = None

    for folder in ("faceset_001", "faceset_002", "faceset_003"):
        make(run, own, tmp_path / "out")
        assert sum(len(page.with_flag("undated")) for page in pages_in(tmp_path / "out"))
        edit(own / folder / "manifest.json", undate)
    make(run, own, tmp_path / "out")
    assert not any(page.with_flag("undated") for page in pages_in(tmp_path / "out"))


def test_the_next_tree_comes_next_or_a_look_at_it(run, made, tmp_path):
    after = {}
    for kind in KINDS:
        make(run, made / kind, tmp_path / kind)
        text = (tmp_path / kind / "index.html").read_text(encoding="utf-8")
        [line] = re.findall(r'<pre class="command" tabindex="0">(.*?)</pre>', text)
        after[kind] = shlex.split(html.unescape(line))[2:]
    cache, manifest = made / "lib.npz", made / "refined" / "refine_manifest.json"
    assert after == {
        "raw": ["refine", str(cache), f"{made / 'raw'}-refined"],
        "refined": ["export-swap", str(cache), str(manifest), f"{made / 'refined'}-ready"],
        "ready": ["consolidate", str(made / "ready"), "--dry-run"],
    }
    shutil.copytree(made / "raw", tmp_path / "raw_full")
    (tmp_path / "facesets_full").mkdir()
    make(run, tmp_path / "raw_full", tmp_path / "seen")
    text = Page(tmp_path / "seen/index.html").text
    assert text.rstrip().split("sort_faces.py ")[1].startswith(f"report {tmp_path}/facesets_full")


def test_names_are_text(run, made, tmp_path):
    make(run, made / "ready", tmp_path / "out")
    for page in pages_in(tmp_path / "out"):
        assert page.scripts == 1 and EVIL not in page.path.read_text(encoding="utf-8")
    index = Page(tmp_path / "out" / "index.html")
    assert all(name in index.text for name in NAMES.values())
    assert Page(tmp_path / "out" / "faceset_001.html").text.count(EVIL) == 2  # title and heading


def test_an_evil_manifest_reaches_nothing_outside(run, own, tmp_path):
    secret = tmp_path / "secret.png"
    shutil.copy(next(own.glob("faceset_001/faces/*.png")), secret)

    def spoil(manifest: dict) -> None:
        manifest["facesets"][0]["id"] = "../../" + EVIL
        manifest["facesets"][1]["folder"] = str(tmp_path)
        manifest["merged"] = [{"folder": "..", "faces": 7}, "text", {"reason": EVIL}]

    edit(own / "manifest.json", spoil)
    edit(own / "faceset_003/manifest.json", lambda m: m["faces"][0].update(file="../../secret.png"))
    edit(own / "faceset_003/manifest.json", lambda m: m["faces"].append("text"))
    out = tmp_path / "out"
    make(run, own, out)
    assert {path.name for path in tmp_path.iterdir()} == {"ready", "secret.png", "out"}
    assert not any("secret" in link for page in pages_in(out) for link in page.links)
    assert all(page.scripts == 1 for page in pages_in(out))


def test_what_maintenance_set_aside_is_shown_with_its_reason(run, own, tmp_path):
    def prune(manifest: dict) -> None:
        face = manifest["faces"].pop(1)
        (folder / "faces" / "_dropped").mkdir()
        os.rename(folder / face["file"], folder / "faces" / "_dropped" / "001.png")
        pruned = {"file": "faces/_dropped/001.png", "reason": "mask 0.93", "run": "r1"}
        manifest["dropped"].append({**face, **pruned})

    def quarantine(manifest: dict) -> None:
        entry = manifest["facesets"].pop()
        aside = {"folder": f"_masked/{entry['id']}", "reason": "too many masks", "run": "r2"}
        (own / "_masked").mkdir()
        os.rename(own / entry["id"], own / aside["folder"])
        manifest["masked"].append({**entry, **aside})

    folder = own / "faceset_001"
    edit(folder / "manifest.json", prune)
    edit(own / "manifest.json", quarantine)
    shutil.copy(folder / "faces/000.png", folder / "faces/own.png")
    result = make(run, own, tmp_path / "out")
    assert (result["identities"], result["pages"], result["missing"]) == (2, 4, 0)
    aside = manifest_of(own / "_masked" / "faceset_003")
    assert result["faces_elsewhere"] == len(aside["faces"])
    page = Page(tmp_path / "out" / "faceset_001.html")
    assert "reason  mask 0.93\nrun  r1" in page.with_flag("mask")[0]["facts"]
    assert len(page.with_flag("in no manifest")) == 1
    index = Page(tmp_path / "out" / "index.html")
    assert "Set aside: masked" in index.text and "too many masks" in index.text


def test_a_threshold_is_drawn_between_cards(tmp_path):
    cards = [pages.Card("a", facts="0.9", flags=["mask"]), pages.Card("b", rule="below 0.7 <kept>")]
    folder = pages.PageFolder(tmp_path, tmp_path)
    folder.write("page.html", "cards.html", "scores", parts=[("", "", cards)])
    text = (tmp_path / "page.html").read_text()
    assert text.index("<b>a</b>") < text.index("below 0.7 &lt;kept&gt;") < text.index("<b>b</b>")
    assert pages.flag_counts(cards) == [("mask", 1), ("", 1)]


# --- missing and damaged ----------------------------------------------------


def test_missing_files_are_shown_as_missing(run, own, made, tmp_path):
    faces = len(manifest_of(own / "faceset_002")["faces"])
    shutil.rmtree(own / "faceset_002")
    (own / "faceset_001/faces/000.png").unlink()
    (own / "faceset_001/faces/001.png").write_bytes(b"no picture")
    (own / "faceset_003/manifest.json").write_text("{")
    found = len(list(own.glob("faceset_003/faces/*.png")))
    result = make(run, own, tmp_path / "out", warned="001.png")
    assert result["missing"] == 2 + faces + len(manifest_of(made / "ready")["facesets"][2]["faces"])
    assert len(Page(tmp_path / "out/faceset_001.html").with_flag("missing")) == 2
    assert len(Page(tmp_path / "out/faceset_003.html").with_flag("in no manifest")) == found
    index = Page(tmp_path / "out" / "index.html")
    assert "its folder is missing" in index.text and "missing or damaged" in index.text


def test_without_a_cache_the_corpus_is_shown_the_trees_are_not(run, own, made, tmp_path):
    edit(own / "manifest.json", lambda m: m.update(cache=str(tmp_path / "gone.npz")))
    result = make(run, own, tmp_path / "out", warned="without a picture")
    assert result["missing"] == 0 and result["thumbnails"] == result["faces"]
    raw = Path(shutil.copytree(made / "raw", tmp_path / "raw"))
    shutil.rmtree(raw / "person_002")
    edit(raw / "manifest.json", lambda m: m.update(cache=str(tmp_path / "gone.npz")))
    refused(run, "report", raw, word="gone.npz")
    assert not (tmp_path / "raw-report").exists()
    assert make(run, raw, tmp_path / "b", "--cache", made / "lib.npz")["missing"] == 0
    assert Page(tmp_path / "b" / "index.html").text.count("its folder is missing") == 1


def test_photos_that_are_gone_are_no_failure(run, made, tmp_path):
    moved = Path(shutil.copytree(made, tmp_path / "moved"))
    cache = sf.load_cache(moved / "lib.npz")
    gone = np.char.replace(cache.file_path, str(made), str(tmp_path / "nowhere"))
    sf.save_cache(moved / "lib.npz", replace(cache, file_path=gone))
    result = make(run, moved / "raw", tmp_path / "out", "--cache", moved / "lib.npz")
    assert (result["missing"], result["thumbnails"]) == (PEOPLE * PHOTOS, 0)
    assert len(Page(tmp_path / "out/person_001.html").with_flag("missing")) == PHOTOS
    ready = make(run, moved / "ready", tmp_path / "ready", "--cache", moved / "lib.npz")
    assert (ready["missing"], ready["left_out"]) == (0, 1)


@pytest.mark.parametrize("text", ["", "{", '"kind": "raw"', '{"kind": "swap"}', "[]", None])
def test_a_damaged_manifest_is_refused(run, own, tmp_path, text):
    if text is None:
        (own / "manifest.json").unlink()
    else:
        (own / "manifest.json").write_text(text)
    refused(run, "report", own, word=str(own))
    assert not (tmp_path / "ready-report").exists()


def test_the_folder_of_run_names_its_trees(run, made, tmp_path):
    shutil.copytree(made / "raw", tmp_path / "raw_full")
    assert "raw_full" in refused(run, "report", tmp_path, word="name one of its folders")


# --- the folder -------------------------------------------------------------


def test_foreign_folders_and_places_among_the_photos_are_refused(run, made, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "index.html").write_text("my page")
    for out, word in (
        (tmp_path / "mine", "other files"),
        (tmp_path / "mine" / "index.html", "is a file"),
        (made / "photos" / "report", "lies inside"),
        (made / "ready" / "report", "lies inside"),
        (made / "ready", "lies inside"),
        (made / "raw", "is no report manifest"),
    ):
        refused(run, "report", made / "ready", "--out", out, word=word)
    assert (tmp_path / "mine" / "index.html").read_text() == "my page"


def test_the_default_folder_stands_beside_and_is_no_source(run, own, tmp_path):
    result = ok(run, "report", own)
    assert Path(result["out"]) == tmp_path / "ready-report"
    assert sf.is_own_output(result["out"])  # embed passes it over
    assert Path(result["out"]).stat().st_mode & 0o077 == 0


def test_a_rerun_makes_only_what_is_new_and_removes_only_its_own(run, own, tmp_path):
    out = tmp_path / "out"
    first = make(run, own, out)
    (out / "mine.html").write_text("my page")
    cv2.imwrite(str(out / "thumbs/mum.jpg"), np.zeros((400, 300, 3), np.uint8))
    again = make(run, own, out)
    assert again["thumbnails_made"] == 0 and again["thumbnails"] == first["thumbnails"]
    page = out / "faceset_003.html"
    gone = Page(page).pictures
    edit(own / "manifest.json", lambda m: m["facesets"].pop())
    edit(out / "manifest.json", lambda m: m["files"].append("../ready/manifest.json"))
    edit(out / "manifest.json", lambda m: m["files"].extend(["mine.html", "thumbs/mum.jpg"]))
    cv2.imwrite(str(own / "faceset_001/faces/000.png"), np.zeros((512, 512, 3), np.uint8))
    third = make(run, own, out)
    assert third["thumbnails_made"] == 1 and third["pages"] == 3
    assert not page.exists() and not any((out / name).exists() for name in gone)
    mine = {"mine.html", "thumbs/mum.jpg"}
    assert all((out / name).exists() for name in mine) and (own / "manifest.json").exists()
    listed = set(manifest_of(out)["files"]) | {"manifest.json", *mine, sf.LOCK_NAME}
    assert {p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()} == listed


def test_a_run_cut_short_is_finished_by_the_next(run, own, tmp_path, monkeypatch):
    out = tmp_path / "out"

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pages, "write_index", stop)
        assert run("report", own, "--out", out)[0] == 130
    again = make(run, own, out)
    assert again["thumbnails_made"] == 0 and again["thumbnails"] == PEOPLE * PHOTOS
    with filelock.FileLock(out / sf.LOCK_NAME):
        refused(run, "report", own, "--out", out, word="wait for it")


def test_large_groups_get_several_pages(run, made, tmp_path, monkeypatch):
    monkeypatch.setattr(pages, "REPORT_FACES", 5)
    result = make(run, made / "raw", tmp_path / "out")
    assert result["pages"] == 1 + 2 * PEOPLE
    assert [len(Page(tmp_path / "out" / name).cards) for name in
            ("person_001.html", "person_001-2.html")] == [5, 3]  # fmt: skip
    told = make(run, made / "ready", tmp_path / "ready")
    groups = [page for page in pages_in(tmp_path / "ready") if page.path.stem != "index"]
    assert sum(len(page.cards) for page in groups) == told["faces"] + told["left_out"]


# --- in a browser -----------------------------------------------------------


@pytest.fixture
def browser() -> Iterator[object]:
    if not (CHROMIUM and DRIVER):
        pytest.skip("needs chromium and chromedriver")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def shown(browser: object) -> list[object]:
    return [card for card in browser.find_elements("css selector", ".card") if card.is_displayed()]


def test_the_pages_work_in_a_browser(run, own, tmp_path, browser):
    (own / "faceset_001/faces/000.png").unlink()
    out = tmp_path / "out"
    make(run, own, out)
    browser.get((out / "index.html").as_uri())
    assert [card.find_element("css selector", "b").text for card in shown(browser)] == [
        *NAMES.values(), "faceset_003"
    ]  # fmt: skip
    browser.find_element("css selector", ".card a").click()
    assert browser.title == EVIL
    cards = shown(browser)
    assert len(cards) == len(Page(out / "faceset_001.html").cards)
    widths = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert widths == [pages.PAGE_THUMBNAIL] * len(cards)  # the cache still has the missing one
    button = browser.find_element("css selector", 'button[data-flag="missing"]')
    button.click()
    assert len(shown(browser)) == 1 and button.get_attribute("aria-pressed") == "true"
    button.click()
    assert len(shown(browser)) == len(cards)
    facts = browser.find_elements("css selector", ".card .facts")
    assert not any(text.is_displayed() for text in facts)
    browser.find_element("css selector", ".card summary").send_keys(" ")  # by keyboard
    assert "kept because" in facts[0].text and not facts[1].is_displayed()
    browser.find_element("css selector", "button[data-facts]").click()
    assert all(text.is_displayed() for text in facts) and len(facts) == len(cards)
    browser.find_element("css selector", "button[data-facts]").click()
    assert not any(text.is_displayed() for text in facts)
    for scheme in ("light", "dark"):
        media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
        picture = tmp_path / f"{scheme}.png"
        assert browser.save_screenshot(str(picture))
        image = cv2.imread(str(picture))
        assert image.shape[1] >= 1000 and image.std() > 5
        assert (image[2, 2].mean() > 128) == (scheme == "light")
    assert browser.get_log("browser") == []
