"""The page of the review server, in a browser: every act by mouse and by keys, and its undo.

The server is the real one, on a small library whose photos are real files; the browser is headless
Chromium. No test may leave a word on the console, or the keyboard nowhere.
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import SCRIPT, make_cache, sf
from test_review_server import Served, draw_photos

webdriver = pytest.importorskip("selenium.webdriver")
Keys = webdriver.Keys
ActionChains = webdriver.ActionChains
exceptions = pytest.importorskip("selenium.common.exceptions")
ActionBuilder = webdriver.common.actions.action_builder.ActionBuilder

BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
pytestmark = [
    pytest.mark.skipif(BROWSER is None or DRIVER is None, reason="needs chromium and chromedriver")
]
WORK = SCRIPT.parent / "work" / "review"
WIDE, PHONE = (1280, 800), (390, 844)
PATIENCE = 15.0  # seconds until a page must show what it should
HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "\u202eevil\u202c ollah",
    "W" * 200,
    "\U0001f600 Zoë 家族",
    "'; DROP TABLE--\"&amp;",
)
decisions = sf.companion("decisions")

# --- a library, its server, a browser -----------------------------------------


@pytest.fixture
def served(tmp_path) -> Iterator[Served]:
    """A server of 6 people with 9 photos each, spread so that there is something to doubt."""
    cache = draw_photos(make_cache(people=6, photos=9, spread=0.6, root=str(tmp_path / "photos")))
    sf.save_cache(tmp_path / "lib.npz", cache)
    server = Served(tmp_path / "lib.npz")
    yield server
    if server.process.poll() is None:
        server.end()


WATCH = """
window.faults = [];
addEventListener('securitypolicyviolation', e => faults.push(e.violatedDirective));
addEventListener('unhandledrejection', e => faults.push(String(e.reason)));
addEventListener('error', e => e.message && faults.push(e.message));
"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """One for all tests: each has a server on a port of its own, so nothing kept is shared."""
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for one in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "disable-gpu", "lang=en"):
        options.add_argument(f"--{one}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": WATCH})
    yield driver
    driver.quit()


class Page:
    """A page in a browser, seen as a person sees it."""

    def __init__(self, driver: Any, size: tuple[int, int], touch: bool = False) -> None:
        self.driver = driver
        shape = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": touch}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)
        wanted = {"enabled": touch, "maxTouchPoints": 2}
        self.driver.execute_cdp_cmd("Emulation.setTouchEmulationEnabled", wanted)

        self.expected: list[str] = []  # what the console may say

    def open(self, served: Served) -> Page:
        """As the command opens it; the code works once, so only for the first page."""
        self.base = f"http://127.0.0.1:{served.port}/"
        self.driver.get(f"{self.base}#{served.code}")
        self.wait(lambda: self.all(".cell"))
        return self

    def js(self, text: str, *args: Any) -> Any:
        return self.driver.execute_script(text, *args)

    def all(self, selector: str) -> list[Any]:
        return self.driver.find_elements("css selector", selector)

    def one(self, selector: str) -> Any:
        """The first that fits and can be seen; waited for."""
        found = self.wait(lambda: next((e for e in self.all(selector) if e.is_displayed()), None))
        found.again = lambda: self.one(selector)
        return found

    def text(self, selector: str) -> str:
        return self.js(
            "return [...document.querySelectorAll(arguments[0])].map(e => e.textContent).join('|')",
            selector,
        )

    def wait(self, done: Callable[[], Any], patience: float = PATIENCE) -> Any:
        """What `done` gives once it is true."""
        end = time.monotonic() + patience
        while True:
            try:
                found = done()
            except exceptions.StaleElementReferenceException:
                found = None
            if found:
                return found
            assert time.monotonic() < end, self.seen()
            time.sleep(0.03)

    def seen(self) -> str:
        return f"{self.hash}\n{self.text('main')}\n{self.driver.get_log('browser')}"

    @property
    def hash(self) -> str:
        return self.js("return location.hash")

    def go(self, where: str) -> None:
        self.js("location.hash = arguments[0]", where)
        self.wait(lambda: self.hash == where and self.all("main > section"))

    def press(self, *keys: str) -> None:
        """Keys one after another, to whatever has the keyboard; "Ctrl+a" holds Ctrl."""
        held = {"Ctrl": Keys.CONTROL, "Shift": Keys.SHIFT}
        for key in keys:
            *hold, last = key.split("+") if len(key) > 1 else [key]
            chain = ActionChains(self.driver)
            for one in hold:
                chain.key_down(held[one])
            chain.send_keys(getattr(Keys, last.upper(), last))
            for one in hold:
                chain.key_up(held[one])
            chain.perform()

    def type(self, text: str) -> None:
        """Into the dialog that asks; as input, since the driver cannot type every sign."""
        field = self.one("dialog[open] input")
        self.js(
            "arguments[0].value = arguments[1];"
            "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))",
            field,
            text,
        )
        field.send_keys(Keys.ENTER)
        self.wait(lambda: not self.all("dialog[open]"))

    def saved(self) -> None:
        """Until every act is on the server's disk."""
        self.wait(lambda: self.js("return document.querySelector('.saved').dataset.waiting") == "0")

    def focused(self) -> str:
        return self.js("return document.activeElement.tagName")

    def cells(self) -> list[str]:
        """Ids of the tiles, in order."""
        return self.js("return [...document.querySelectorAll('.cell')].map(e => e.dataset.id)")

    def chosen(self) -> list[str]:
        return self.js(
            "return [...document.querySelectorAll('.cell[aria-selected=true]')]"
            ".map(e => e.dataset.id)"
        )

    def cell(self, at: int) -> Any:
        found = self.wait(lambda: self.all(".cell")[at : at + 1])[0]
        found.again = lambda: self.cell(at)
        return found

    def click(self, element: Any, hold: str = "", double: bool = False) -> None:
        """On an element of `one` or `cell`; what was drawn anew meanwhile is found again."""
        chain = ActionChains(self.driver)
        key = {"Ctrl": Keys.CONTROL, "Shift": Keys.SHIFT}.get(hold)
        if key:
            chain.key_down(key)
        chain.double_click(element) if double else chain.click(element)
        if key:
            chain.key_up(key)
        try:
            chain.perform()
        except exceptions.StaleElementReferenceException:
            chain.reset_actions()  # a key that is held
            if not hasattr(element, "again"):
                raise
            self.click(element.again(), hold, double)

    def button(self, act: str, within: str = "main") -> Any:
        return self.one(f"{within} [data-act={act}]")

    def clean(self) -> None:
        """Nothing on the console, no rule of the policy broken, the keyboard somewhere."""
        assert self.js("return window.faults") == []
        said = [line["message"] for line in self.driver.get_log("browser")]
        assert [s for s in said if not any(re.search(e, s) for e in self.expected)] == []


@pytest.fixture
def pages(browser) -> Iterator[Callable[..., Page]]:
    """Makes the page of a test; it must have stayed clean."""
    made: list[Page] = []
    first = browser.current_window_handle
    ActionBuilder(browser).clear_actions()  # a test that failed may have left a key down
    browser.get_log("browser")

    def make(size: tuple[int, int] = WIDE, touch: bool = False) -> Page:
        made.append(Page(browser, size, touch))
        return made[-1]

    yield make
    try:
        for page in made:
            page.clean()
    finally:
        for other in set(browser.window_handles) - {first}:
            browser.switch_to.window(other)
            browser.close()
        browser.switch_to.window(first)
        browser.get("about:blank")


@pytest.fixture
def page(served, pages) -> Page:
    return pages().open(served)


def standing(served: Served) -> list[Any]:
    """The lines in force, as the file has them."""
    return decisions.Book(served.cache).standing()


def kinds(served: Served) -> list[str]:
    return [line.kind for line in standing(served)]


def people_of(page: Page) -> dict[str, Any]:
    """The table of people as the server has it now."""
    return page.driver.execute_async_script(
        "fetch('/api/people').then(r => r.json()).then(arguments[0])"
    )["columns"]


def largest(page: Page) -> str:
    """Id of a person of several faces."""
    table = people_of(page)
    return max(zip(table["faces"], table["id"], strict=True))[1]


# --- people -----------------------------------------------------------------


def test_the_address_is_cleaned_and_survives_reload_and_back(page, served):
    assert served.code not in page.driver.current_url
    page.press("g", "h")
    page.wait(lambda: page.hash == "#/history")
    page.driver.refresh()
    page.wait(lambda: page.all(".history"))
    page.driver.back()
    page.wait(lambda: page.hash == "#/people" and page.all(".cell"))


def test_a_name_by_keys_and_its_undo(page, served):
    page.press("F2")
    page.type("Anna")
    page.wait(lambda: "Anna" in page.text(".cell"))
    page.saved()
    assert kinds(served) == ["name"] and page.focused() == "DIV"
    page.press("u")
    page.wait(lambda: kinds(served) == [] and "Anna" not in page.text(".cell"))
    page.press("Shift+u")
    page.wait(lambda: kinds(served) == ["name"] and "Anna" in page.text(".cell"))


def test_merge_by_mouse_says_who_stays_and_is_undone(page, served):
    before = page.cells()
    page.press("F2")
    page.type("Berta")
    page.click(page.cell(1))
    page.click(page.cell(0), "Ctrl")
    assert len(page.chosen()) == 2
    assert "Berta" in page.text(".chosen-bar .becomes")
    page.click(page.button("merge"))
    page.wait(lambda: len(page.cells()) == len(before) - 1)
    page.saved()
    assert sorted(kinds(served)) == ["name", "same"]
    assert page.focused() == "DIV" and page.chosen() == []
    page.click(page.one(".bar [data-go=undo]"))
    page.wait(lambda: len(page.cells()) == len(before))
    assert kinds(served) == ["name"]
    page.wait(lambda: len(page.chosen()) == 2)  # what the act took is chosen again


@pytest.mark.parametrize(("key", "act", "kind"), [("i", "ignore", "ignore"), ("h", "hide", "hide")])
def test_ignore_and_hide_by_key_and_by_mouse_and_back(page, served, key, act, kind):
    before = page.cells()
    page.press("Space", key)
    page.wait(lambda: page.cells() == before[1:])
    page.saved()
    page.click(page.cell(1))
    page.click(page.button(act))
    page.wait(lambda: len(page.cells()) == len(before) - 2)
    page.saved()
    assert kinds(served) == [kind, kind]
    page.go(f"#/people?show={'ignored' if kind == 'ignore' else 'hidden'}")
    page.driver.refresh()
    page.wait(lambda: len(page.cells()) == 2)
    page.press("Space", key)  # the same key takes it back
    page.wait(lambda: len(page.cells()) == 1)
    page.saved()
    page.press("u", "u", "u")
    page.wait(lambda: kinds(served) == [])
    page.go("#/people")
    page.wait(lambda: sorted(page.cells()) == sorted(before))


def test_choosing_by_mouse_keys_and_band(page):
    ids = page.cells()
    page.click(page.cell(1))
    page.click(page.cell(3), "Shift")
    assert page.chosen() == ids[1:4]
    page.click(page.cell(2), "Ctrl")
    assert page.chosen() == [ids[1], ids[3]]
    page.press("Escape")
    assert page.chosen() == []
    page.press("Home", "Shift+Right", "Shift+Right")
    assert page.chosen() == ids[:3]
    page.press("Ctrl+i")
    assert page.chosen() == ids[3:]
    page.press("Ctrl+a")
    assert page.chosen() == ids
    page.press("Escape", "Home", "Ctrl+Right", "Space")
    assert page.chosen() == ids[1:2]
    first, second = page.cell(0), page.cell(1)
    chain = ActionChains(page.driver)
    chain.move_to_element_with_offset(first, 0, 70).click_and_hold()
    chain.move_to_element_with_offset(second, 0, -40).pause(0.05).release().perform()
    assert page.chosen() == ids[:2]
    chain = ActionChains(page.driver)
    chain.move_to_element_with_offset(page.cell(3), 0, 70).click_and_hold()
    chain.move_to_element_with_offset(page.cell(4), 0, -40).pause(0.05)
    chain.send_keys(Keys.ESCAPE).release().perform()
    assert page.chosen() == ids[:2]  # Esc gives the former choice back
    page.driver.refresh()
    page.wait(lambda: page.chosen() == ids[:2])


def test_search_as_you_type_and_an_empty_filter_says_so(page):
    page.press("F2")
    page.type("Zoë")
    page.press("/")
    page.one("#search").send_keys("zoe")
    page.wait(lambda: len(page.cells()) == 1)
    page.one("#search").send_keys("xx")
    page.wait(lambda: "None of" in page.text(".empty"))
    page.one(".empty button").click()
    page.wait(lambda: len(page.cells()) > 3)


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_hostile_names_are_only_text(served, pages, size):
    page = pages(size).open(served)
    for at, name in enumerate(HOSTILE):
        page.press("Home", *["Right"] * at, "F2")
        page.type(name)
        page.saved()
    for where in ("people", "same", "whose", "look", "history", "apply"):
        page.go(f"#/{where}")
        time.sleep(0.4)
        assert page.js("return document.documentElement.scrollWidth <= innerWidth"), where
        assert not page.all("main img[src='x']") and not page.all("main script")
    page.go("#/people?show=named")
    page.driver.refresh()
    page.wait(lambda: len(page.cells()) == len(HOSTILE))
    shown = page.text(".cell .name")
    assert "<img src=x onerror=alert(1)>" in shown and "\u202e" not in shown
    for cell in page.cells():
        page.go(f"#/person/{cell.replace(':', '%3A')}")
        page.wait(lambda: page.all(".person-head h1"))
        assert page.js("return document.documentElement.scrollWidth <= innerWidth")


# --- a person ---------------------------------------------------------------


@pytest.fixture
def person(page) -> str:
    """The largest person, opened; its id."""
    pid = largest(page)
    page.go(f"#/person/{pid.replace(':', '%3A')}")
    page.wait(lambda: page.all(".person .cell"))
    return pid


@pytest.mark.parametrize(
    ("key", "act", "told"),
    [
        ("x", "notThis", ["not_belongs"]),
        ("l", "split", ["not_belongs", "together"]),
        ("0", "notFace", ["not_face"]),
    ],
)
def test_faces_leave_by_key_and_by_mouse_and_come_back(page, served, person, key, act, told):
    before = page.cells()
    page.press("Home", "Space", "Right", "Space", key)
    page.wait(lambda: page.cells() == before[2:])
    page.saved()
    assert kinds(served) == told
    assert len(standing(served)[0].faces) == 2
    page.wait(lambda: page.focused() == "DIV")
    page.press("u")
    page.wait(lambda: sorted(page.cells()) == sorted(before) and kinds(served) == [])
    page.press("Escape")
    page.click(page.cell(0))
    page.click(page.button(act, ".chosen-bar"))
    page.wait(lambda: len(page.cells()) == len(before) - 1)
    page.saved()
    assert kinds(served) == told
    page.press("Ctrl+z")
    page.wait(lambda: kinds(served) == [])


def test_faces_move_to_a_known_person(page, served):
    page.press("F2")
    page.type("Anna")
    page.saved()
    anna = page.cells()[0]
    table = people_of(page)
    other = max((f, i) for f, i, n in zip(table["faces"], table["id"], table["name"], strict=True)
                if not n)[1]  # fmt: skip
    page.go(f"#/person/{other.replace(':', '%3A')}")
    page.wait(lambda: page.all(".person .cell"))
    count = len(page.cells())
    page.press("Home", "Space", "t")
    page.type("ann")  # part of a name: the list offers the new name first
    page.wait(lambda: len(page.cells()) == count - 1)
    page.saved()
    page.press("u")
    page.wait(lambda: len(page.cells()) == count)
    page.press("Escape", "Home", "Space")
    page.click(page.button("moveTo", ".chosen-bar"))
    page.one("dialog input").send_keys("ann")
    page.click(page.one("#name-list li:nth-child(2)"))
    page.wait(lambda: not page.all("dialog"))
    page.wait(lambda: len(page.cells()) == count - 1)
    page.saved()
    [belongs] = [line for line in standing(served) if line.kind == "belongs"]
    assert len(belongs.faces) == 1 and page.focused() != "BODY"
    assert anna


def test_best_keep_and_drop_are_toggled(page, served, person):
    page.press("Home", "b")
    page.wait(lambda: len(page.all(".star")) == 1)
    page.press("k")
    page.wait(lambda: "kept" in page.text(".cell"))
    page.press("Shift+k")
    page.wait(lambda: "dropped" in page.text(".cell"))
    page.saved()
    assert kinds(served) == ["best", "keep", "drop"]
    page.press("Shift+k")
    page.wait(lambda: "dropped" not in page.text(".cell"))
    page.saved()
    page.press("u", "u", "u", "u")
    page.wait(lambda: kinds(served) == [] and not page.all(".star"))


def test_birth_year_and_name_on_the_page_of_a_person(page, served, person):
    page.press("o")
    page.type("1994")
    page.wait(lambda: "1994" in page.text(".person-head"))
    page.click(page.one(".person-head h1 button"))
    page.type("Dora")
    page.wait(lambda: "Dora" in page.text("h1"))
    page.saved()
    assert kinds(served) == ["born", "name"]
    page.press("u", "u")
    page.wait(lambda: kinds(served) == [] and "1994" not in page.text(".person-head"))


def test_split_in_two_shows_both_halves_first(page, served, person):
    count = len(page.cells())
    page.press("w")
    page.wait(lambda: len(page.all(".side")) == 2 and page.all(".answers button"))
    assert kinds(served) == []
    page.press("Escape")
    page.wait(lambda: page.all(".person .cell"))
    page.press("w")
    page.click(page.button("different"))
    page.wait(lambda: page.all(".person .cell") and len(page.cells()) < count)
    assert kinds(served) == ["not_belongs", "together"]
    page.press("u")
    page.wait(lambda: len(page.cells()) == count or page.all(".halves"))
    page.wait(lambda: kinds(served) == [])


# --- the queues -------------------------------------------------------------


def question(page: Page) -> str | None:
    """Id of the painted question, None where there is none."""
    return page.js("return document.querySelector('.question')?.dataset.qid")


def painted(page: Page, qid: str = "") -> str:
    """Id of the painted question, once there is one; once it is `qid`."""
    return page.wait(lambda: (here := question(page)) and qid in ("", here) and here)


def moved_on(page: Page, before: str) -> None:
    page.wait(lambda: question(page) != before)


def ready(page: Page) -> str:
    """Id of the painted question, once it takes answers: not in its first 120 ms."""
    qid = painted(page)
    time.sleep(0.14)
    return qid


def answer(page: Page, key: str) -> str:
    """Answer the painted question by a key; its id."""
    before = ready(page)
    page.press(key)
    moved_on(page, before)
    return before


def test_answers_by_key_and_by_mouse_and_their_undo(page, served):
    page.go("#/same")
    first = answer(page, "n")
    page.saved()
    assert kinds(served) == ["different"]
    page.press("u")
    painted(page, first)
    page.saved()
    assert kinds(served) == []
    for act, kind in (("same", "same"), ("different", "different"), ("skip", "skip")):
        here = ready(page)
        page.click(page.button(act))
        moved_on(page, here)
        page.saved()
        assert kind in kinds(served)
        assert page.focused() != "BODY"
        page.click(page.one(".progress [data-act=undo]"))
        painted(page, here)
        page.wait(lambda: kinds(served) == [])


def test_a_held_key_and_a_key_too_early_are_no_answers(page, served):
    page.go("#/same")
    first = painted(page)
    time.sleep(0.2)
    page.js(
        "document.activeElement.dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'n', repeat: true, bubbles: true}))"
    )
    time.sleep(0.3)
    assert painted(page) == first and kinds(served) == []
    page.js(
        "const key = () => document.activeElement.dispatchEvent("
        "new KeyboardEvent('keydown', {key: 'n', bubbles: true}));"
        "key(); const id = setInterval(() => {"
        " const now = document.querySelector('.question')?.dataset.qid;"
        " if (now !== arguments[0]) { key(); clearInterval(id); } }, 1)",
        first,
    )
    time.sleep(0.6)
    page.saved()
    assert kinds(served) == ["different"]


def test_whose_face_by_digit_and_by_mouse(page, served):
    page.go("#/whose")
    page.wait(lambda: page.all(".question") or page.all(".empty"))
    if page.all(".empty"):
        pytest.skip("no single face is left in this library")
    answer(page, "1")
    page.saved()
    assert kinds(served)[-1] == "belongs"
    page.press("u")
    page.wait(lambda: kinds(served) == [])
    here = ready(page)
    page.click(page.button("ignore"))
    moved_on(page, here)
    page.saved()
    assert kinds(served) == ["ignore"]


# --- photo and box ----------------------------------------------------------


def test_faces_of_a_photo_by_keys(page, served, person):
    page.press("Home", "p")
    page.wait(lambda: page.all(".photo .box"))
    page.press("0")
    page.wait(lambda: page.all(".box.off"))
    assert kinds(served) == ["not_face"]
    page.press("0")
    page.wait(lambda: not page.all(".box.off"))
    page.press("d")
    page.type("1998-07")
    page.wait(lambda: "date" in kinds(served))
    page.press("Escape")
    page.wait(lambda: page.all(".person .cell"))


def test_a_box_is_drawn_moved_and_left_by_keys_and_mouse(page, served, person):
    page.press("p")
    page.wait(lambda: page.all(".photo .box"))
    page.press("a")
    draft = page.one(".draft")
    before = draft.rect
    page.press("Right", "Right", "Shift+Down")
    page.wait(lambda: draft.rect["x"] > before["x"] and draft.rect["height"] > before["height"])
    page.press("Escape")
    page.wait(lambda: not page.all(".draft"))
    assert page.focused() != "BODY"
    page.click(page.button("add"))
    frame = page.one(".picture.big")
    chain = ActionChains(page.driver)
    chain.move_to_element_with_offset(frame, -200, -160).click_and_hold()
    chain.move_by_offset(60, 80).release().perform()
    width = page.one(".draft").rect["width"]
    assert 50 < width < 70
    page.click(page.button("leave", ".draft"))
    page.wait(lambda: not page.all(".draft"))
    page.click(page.button("add"))
    chain = ActionChains(page.driver)
    chain.move_to_element_with_offset(frame, -150, 60).click().pause(0.1)
    chain.move_to_element_with_offset(frame, -70, 150).click().perform()
    rect = page.one(".draft").rect
    assert 70 < rect["width"] < 90 and 80 < rect["height"] < 100
    page.press("Escape", "Escape")
    page.wait(lambda: page.all(".person .cell"))


# --- history, tabs, a server that goes --------------------------------------


def test_history_undoes_any_act(page, served):
    for name in ("Anna", "Berta"):
        page.press("F2")
        page.type(name)
        page.saved()
        page.press("Right")
    page.press("g", "h")
    page.wait(lambda: len(page.all(".act")) == 2)
    assert "named" in page.text(".act")
    page.wait(lambda: page.click(page.all(".act button")[1]) or True)  # the list may be drawn anew
    page.wait(lambda: len(page.all(".act.revoked")) == 1)
    assert [line.text for line in standing(served)] == ["Berta"]
    assert page.focused() != "BODY"


def test_two_tabs_do_not_overwrite_each_other(page, served):
    page.press("F2")
    page.type("Anna")
    page.saved()
    first, driver = page.driver.current_window_handle, page.driver
    driver.switch_to.new_window("tab")
    driver.get(page.base)
    page.wait(lambda: "Anna" in page.text(".cell"))
    page.press("u")  # nothing of this tab
    page.wait(lambda: "nothing to undo" in page.text("#toast"))
    page.expected.append("409")
    page.press("Home", "F2")
    page.type("Berta")
    page.wait(lambda: [line.text for line in standing(served)] == ["Anna", "Berta"])
    driver.switch_to.window(first)
    page.wait(lambda: "Berta" in page.text(".cell"))
    page.press("u")  # its own act, not the other tab's
    page.wait(lambda: [line.text for line in standing(served)] == ["Berta"])


def test_answers_wait_while_the_server_is_gone(page, served):
    page.expected.append("ERR_CONNECTION|Failed to load")
    page.wait(lambda: page.text(".saved").startswith("saved"))
    served.kill()
    before = len(page.cells())
    page.press("Space", "i")
    page.wait(lambda: len(page.cells()) == before - 1)
    page.wait(lambda: page.one(".banner") and "1 act waits" in page.text(".banner"))
    served.start()
    page.wait(lambda: kinds(served) == ["ignore"], 30)
    page.wait(lambda: not any(one.is_displayed() for one in page.all(".banner")))
    page.saved()
    page.press("u")
    page.wait(lambda: kinds(served) == [])


def test_a_closed_page_sends_what_it_could_not(page, served):
    page.expected.append("ERR_CONNECTION|Failed to load")
    served.kill()
    page.press("Space", "h")
    page.wait(lambda: page.js("return document.querySelector('.saved').dataset.waiting") == "1")
    page.driver.get("about:blank")
    served.start()
    page.driver.get(page.base)
    page.wait(lambda: kinds(served) == ["hide"])
    page.saved()
    assert len(standing(served)) == 1


def test_keys_are_locked_once_twenty_acts_wait(page, served):
    page.expected.append("ERR_CONNECTION|Failed to load")
    page.go("#/people?show=all")
    page.wait(lambda: page.all(".cell"))
    served.kill()
    for _ in range(22):
        page.press("h")
    page.wait(lambda: "Nothing more is taken" in page.text("#toast"))
    assert page.js("return document.querySelector('.saved').dataset.waiting") == "20"
    served.start()
    page.wait(lambda: page.js("return document.querySelector('.saved').dataset.waiting") == "0", 30)


SLOW_PEOPLE = """
const real = window.fetch;
let asked = 0;
window.fetch = async (...about) => {
  const reply = await real(...about);
  if (!/[/]api[/]people($|[?])/.test(about[0]) || asked++) return reply;
  const text = await reply.text();
  await new Promise((resolve) => setTimeout(resolve, 3000));
  return new Response(text, { status: reply.status, headers: reply.headers });
};
"""


def test_what_changes_while_the_people_are_on_their_way_is_asked_for_again(page, served):
    before = page.cells()
    page.js(SLOW_PEOPLE)
    page.press("Space", "h")
    page.saved()
    time.sleep(0.5)  # the page has asked for what came of it
    page.press("u")
    page.saved()
    page.wait(lambda: page.cells() == before)
    time.sleep(3)  # the first answer is there, too
    assert page.cells() == before and kinds(served) == []


def test_a_warning_stays_when_an_act_before_it_is_told(page):
    told = "const done = arguments[arguments.length - 1]; import('/static/dom.js').then(({say}) => "
    told += "{ for (const [text, urgent] of arguments[0]) say(text, urgent); done(true); })"
    page.driver.execute_async_script(told, [["Stop.", True], ["1 hidden.", False]])
    assert page.text("#toast") == "Stop."
    page.driver.execute_async_script(told, [["Stop again.", True]])
    assert page.text("#toast") == "Stop again."

    def later() -> bool:
        page.driver.execute_async_script(told, [["1 hidden.", False]])
        return page.text("#toast") == "1 hidden."

    page.wait(later)


# --- apply ------------------------------------------------------------------


def test_the_sets_are_brought_up_to_date(pages, tmp_path, run):
    cache = draw_photos(make_cache(people=4, photos=8, root=str(tmp_path / "photos")))
    sf.save_cache(tmp_path / "lib.npz", cache)
    code, _, err = run("cluster", tmp_path / "lib.npz", tmp_path / "raw_full", "-q")
    assert code == 0, err
    served = Served(tmp_path / "lib.npz")
    try:
        page = pages().open(served)
        page.expected.append("ERR_CONNECTION|ERR_INCOMPLETE")  # the server ends first
        page.click(page.cell(0))
        page.click(page.cell(1), "Ctrl")
        page.click(page.button("merge"))
        page.saved()
        page.press("g", "a")
        page.click(page.button("preview"))
        page.wait(lambda: "8168" in page.text(".sets tr.changed"))
        page.driver.refresh()  # the preview is still there
        page.wait(lambda: "8168" in page.text(".sets tr.changed"))
        page.press("g", "p")
        page.wait(lambda: page.cells() and page.focused() == "DIV")  # it reads everybody first
        page.press("F2")
        page.type("Anna")
        page.saved()
        page.press("g", "a")
        page.wait(lambda: "look again" in page.text(".warn"))
        assert not page.button("apply").is_enabled()
        page.click(page.button("preview"))
        page.wait(lambda: page.button("apply").is_enabled())
        page.click(page.button("apply"))
        page.wait(lambda: "up to date" in page.text(".apply-status"), 40)
        assert page.focused() != "BODY"
    finally:
        served.end()
    raw = sf.load_manifest(tmp_path / "raw_full" / "manifest.json", sf.RawManifest, cache)
    assert len(raw.persons) == 3 and len(raw.persons[0].faces) == 16


def test_apply_without_outputs_says_what_to_run(page, served):
    page.expected.append("409")
    page.press("g", "a")
    page.click(page.button("preview"))
    page.wait(lambda: "run cluster or refine first" in page.text("#toast"))
    assert page.focused() != "BODY"


# --- settings, help, languages ----------------------------------------------


def test_single_keys_can_be_switched_off_and_changed(page, served):
    page.click(page.one("[data-go=settings]"))
    page.one("#set-ignore").send_keys("q")
    page.press("Escape")
    page.wait(lambda: not page.all("dialog"))
    before = len(page.cells())
    page.press("i")
    time.sleep(0.3)
    assert len(page.cells()) == before
    page.press("q")
    page.wait(lambda: len(page.cells()) == before - 1)
    page.click(page.one("[data-go=settings]"))
    page.one("#set-single").click()
    page.press("Escape")
    page.wait(lambda: not page.all("dialog"))
    page.press("q", "h")
    time.sleep(0.3)
    assert len(page.cells()) == before - 1
    page.press("Ctrl+z")
    page.wait(lambda: len(page.cells()) == before)


def test_every_key_has_a_text_in_both_languages_and_a_row_in_the_help(page):
    table = page.driver.execute_async_script(
        "const done = arguments[0];"
        "Promise.all([import('/static/keys.js'), import('/static/texts.js')])"
        ".then(([k, t]) => done({keys: k.KEYS, texts: t.table()}))"
    )
    assert [key["id"] for key in table["keys"] if f"act.{key['id']}" not in table["texts"]] == []
    for key, row in table["texts"].items():
        assert len(row) == 2 and all(row), key
        fields = [sorted(set(re.findall(r"{(\w+)}", text))) for text in row]
        assert fields[0] == fields[1], key
    page.press("?")
    page.wait(lambda: page.all("dialog[open]"))
    shown = page.js(
        "return [...document.querySelectorAll('[data-entry]')].map(e => e.dataset.entry)"
    )
    assert {key["id"] for key in table["keys"]} <= set(shown)
    page.press("Escape")
    page.wait(lambda: not page.all("dialog") and page.focused() != "BODY")


def test_no_two_keys_of_one_screen_are_the_same(page):
    keys = page.driver.execute_async_script(
        "const done = arguments[0]; import('/static/keys.js').then(m => done(m.KEYS))"
    )
    screens = {scope for key in keys for scope in key["scopes"]} - {"all", "grid"}
    for screen in screens:
        here = [key for key in keys if {"all", screen} & set(key["scopes"])]
        pressed = [one for key in here for one in key["keys"]]
        assert len(pressed) == len(set(pressed)), screen


def test_german(page):
    page.js("localStorage.setItem('review.lang', '\"de\"')")
    page.driver.refresh()
    page.wait(lambda: "Personen" in page.text(".bar"))
    assert page.js("return document.documentElement.lang") == "de"
    page.go("#/same")
    here = ready(page)
    page.press("j")  # ja
    moved_on(page, here)


def test_the_keys_of_the_docs_are_those_of_the_page():
    source = (WORK / "keys.js").read_text(encoding="utf-8")
    texts = (WORK / "texts.js").read_text(encoding="utf-8")
    english = dict(re.findall(r'"((?:act|scope)\.\w+)": \["([^"]*)"', texts))
    known = re.findall(r'{ id: "(\w+)", keys: (\[[^]]+\]), scopes: (\[[^]]+\])', source)
    expected = [
        f"| {' '.join(f'`{key}`' for key in json.loads(keys.replace('Arrow', '')))} "
        f"| {english[f'act.{name}']} "
        f"| {', '.join(english[f'scope.{scope}'] for scope in json.loads(scopes))} |"
        for name, keys, scopes in known
    ]
    text = (SCRIPT.parent / "docs" / "review.md").read_text(encoding="utf-8")
    table = text.partition("| key | does | where |\n|---|---|---|\n")[2].partition("\n\n")[0]
    assert len(expected) > 40 and table.splitlines() == expected


# --- a phone ----------------------------------------------------------------


def touch(page: Page, kind: str, *points: tuple[float, float]) -> None:
    wanted = {"type": kind, "touchPoints": [{"x": x, "y": y} for x, y in points]}
    page.driver.execute_cdp_cmd("Input.dispatchTouchEvent", wanted)


def middle(element: Any) -> tuple[float, float]:
    box = element.rect
    return box["x"] + box["width"] / 2, box["y"] + box["height"] / 3


def test_a_finger_opens_by_a_tap_and_chooses_by_a_hold(served, pages):
    page = pages(PHONE, touch=True).open(served)
    at = middle(page.cell(1))
    touch(page, "touchStart", at)
    time.sleep(0.7)
    touch(page, "touchEnd")
    page.wait(lambda: len(page.chosen()) == 1)
    bar = page.one(".chosen-bar").rect
    assert bar["y"] + bar["height"] <= PHONE[1] + 1
    at = middle(page.cell(2))
    touch(page, "touchStart", at)
    touch(page, "touchEnd")
    page.wait(lambda: len(page.chosen()) == 2)
    page.button("none").click()
    page.wait(lambda: not page.chosen())
    touch(page, "touchStart", at)
    touch(page, "touchEnd")
    page.wait(lambda: page.hash.startswith("#/person/"))


def test_buttons_of_a_phone_are_large_enough(served, pages):
    page = pages(PHONE, touch=True).open(served)
    for where in ("people", "same", "whose", "history", "apply"):
        page.go(f"#/{where}")
        time.sleep(0.5)
        small = page.js(
            "return [...document.querySelectorAll('main button, .bar button, main select')]"
            ".filter(e => e.offsetParent && e.getBoundingClientRect().height < 40)"
            ".map(e => e.outerHTML)"
        )
        assert small == [], where
        assert page.js("return document.documentElement.scrollWidth <= innerWidth"), where


# --- keys alone -------------------------------------------------------------


def test_a_walk_over_all_screens_with_keys_alone(page, person):
    pid = person
    for keys, where in (
        ("gp", "#/people"), ("gs", "#/same"), ("gw", "#/whose"), ("gl", "#/look"),
        ("gh", "#/history"), ("ga", "#/apply"), ("gp", "#/people"),
    ):  # fmt: skip
        while page.focused() in ("INPUT", "SELECT"):
            page.press("Tab")
        page.press(*keys)
        page.wait(lambda where=where: page.hash.split("?")[0] == where)
        time.sleep(0.4)
        assert page.focused() != "BODY", where
        seen: set[str] = set()
        for _ in range(40):
            page.press("Tab")  # after the last one it passes the browser's own bar
            here = page.js(
                "const e = document.activeElement;"
                "return e.tagName + (e.dataset.go || e.dataset.act || e.dataset.id || e.id || '')"
            )
            if here in seen and len(seen) > 6:
                break
            seen.add(here)
        assert len(seen) >= 5, (where, seen)
    page.wait(lambda: page.all(".cell"))
    page.js("document.querySelector('.cell[tabindex=\"0\"]').focus()")
    page.press("Enter")
    page.wait(lambda: page.hash.startswith("#/person/"))
    page.wait(lambda: page.all(".person .cell"))
    page.press("p")
    page.wait(lambda: page.hash.startswith("#/photo/") and page.all(".box"))
    page.wait(lambda: page.focused() == "BUTTON")
    page.press("Escape")
    page.wait(lambda: page.hash.startswith("#/person/") and page.all(".person .cell"))
    page.wait(lambda: page.focused() == "DIV")
    assert pid


def test_a_grid_tells_its_shape_and_tab_leaves_it(page):
    grid = page.one("[role=grid]")
    assert int(grid.get_attribute("aria-rowcount")) >= 1
    assert len(page.all(".cell[tabindex='0']")) == 1
    assert "of" in page.cell(0).get_attribute("aria-label")
    page.press("Tab")
    assert page.js("return !document.activeElement.closest('[role=grid]')")


def test_at_most_400_tiles_are_elements(page):
    page.js("document.querySelector('.people').style.height = '700px'")
    count = page.driver.execute_async_script(
        "const done = arguments[0];"
        "const load = ['grid', 'selection'].map(name => import(`/static/${name}.js`));"
        "Promise.all(load).then(([g, s]) => {"
        " const grid = new g.Grid({label: 'x', size: 30, foot: 0, tile: () => '', name: () => '',"
        " stamp: () => '',"
        "  selection: new s.Selection('test'), open: () => 0});"
        " document.getElementById('main').replaceChildren(grid.element);"
        " grid.show([{label: '', ids: Array.from({length: 100000}, (_, n) => `f${n}`)}]);"
        " let most = 0, at = 0;"
        " const step = () => { most = Math.max(most, document.querySelectorAll('.cell').length);"
        "  grid.element.scrollTop += 5000; if (++at < 60) requestAnimationFrame(step);"
        "  else done(most); }; step(); })"
    )
    assert 20 < count <= 400


@pytest.mark.parametrize("size", [(640, 400), (844, 390)], ids=["enlarged twice", "held across"])
def test_a_low_window_shows_faces_and_answers(served, pages, size):
    page = pages(size).open(served)
    for where in ("same", "look"):
        page.go(f"#/{where}")
        painted(page)
        tops = page.js(
            "return [...document.querySelectorAll('.eight img, .answers button')]"
            ".map(e => e.getBoundingClientRect()).map(r => [r.top, r.height, r.bottom])"
        )
        first, *_, last = tops
        assert first[0] >= 0 and first[1] >= 40 and first[2] <= last[0] < last[2] <= size[1], where


# --- what a screen reader finds --------------------------------------------------

FAULTS = """
const [axe_, done] = arguments;
new Function(axe_)();
axe.run(document, {resultTypes: ['violations']}).then(found => done(found.violations.map(
  rule => `${rule.id}: ${rule.nodes.map(node => node.html.slice(0, 80)).join(' | ')}`)));
"""


@pytest.mark.parametrize("light", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_no_rule_of_accessibility_is_broken(served, pages, size, light):
    """By axe-core: names, roles, landmarks, headings and contrast of every screen."""
    axe = Path(pytest.importorskip("axe_core_python").__file__).with_name("axe.min.js")
    rules, page = axe.read_text(encoding="utf-8"), pages(size)
    scheme = {"features": [{"name": "prefers-color-scheme", "value": light}]}
    page.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", scheme)
    page.open(served)
    person = page.cells()[0].replace(":", "%3A")
    found = {}
    for where in ("people", f"person/{person}", "same", "whose", "look", "history", "apply"):
        page.go(f"#/{where}")
        time.sleep(0.4)  # until it is painted
        found[where] = page.driver.execute_async_script(FAULTS, rules)
    page.press("?")
    page.one("dialog[open] h1")
    found["keys"] = page.driver.execute_async_script(FAULTS, rules)
    assert {where: faults for where, faults in found.items() if faults} == {}
