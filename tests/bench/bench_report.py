#!/usr/bin/env python3
"""Time to make and to open a report page of thousands of faces.

    python tests/bench/bench_report.py
    python tests/bench/bench_report.py --sizes 1000 5000 --rounds 9

One made face set of --sizes faces with a 512 px PNG each (a gradient with noise). `make s` is the
first report of it, `again s` a second one that finds all thumbnails. Then the page is opened in
headless Chromium, --rounds times, each in a new tab and without a cache; the table has the
medians: `parsed s` until the page's script has run, `loaded s` until the pictures in the window
are there too (the rest loads when scrolled to), both by the browser's own clock, `seen s` until
`get` has returned and a screenshot is taken, by ours. `filter s` is a press on a filter button
until the screen is drawn again, `end s` a jump to the page's end. The goal is 2 s for 5,000 faces.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from common import machine, median, print_table, sf

pages = sf.companion("pages")

NAVIGATION = "const n = performance.getEntriesByType('navigation')[0]"
DRAWN = "requestAnimationFrame(() => requestAnimationFrame(() => done(performance.now() - t)))"
PRESS = "document.querySelector('button[data-flag=undated]').click()"
JUMP = "window.scrollTo(0, document.body.scrollHeight)"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", type=int, nargs="+", default=[500, 5000], metavar="N",
                        help="faces on the page (default: 500 5000)")  # fmt: skip
    parser.add_argument("--rounds", type=int, default=5, help="openings (default: 5)")
    args = parser.parse_args()
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        sys.exit("needs chromium and chromedriver")
    print(machine())
    sf.log.setLevel("ERROR")  # the made corpus names no cache, which report would say
    rows = []
    for faces in args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            corpus, out = Path(folder) / "ready", Path(folder) / "report"
            make_corpus(corpus, faces)
            started = time.perf_counter()
            pages.report_pages(corpus, out, None, sf.usable_cores())
            between = time.perf_counter()
            result = pages.report_pages(corpus, out, None, sf.usable_cores())
            again = time.perf_counter() - between
            assert result["thumbnails"] == faces and result["thumbnails_made"] == 0
            page = out / "faceset_001.html"
            rows.append({
                "faces": faces, "page MB": page.stat().st_size / 1e6,
                "make s": between - started, "again s": again,
                **{key: median([opening[key] for opening in openings])
                   for openings in [open_page(page, args.rounds)] for key in openings[0]},
            })  # fmt: skip
    print_table(f"one page in headless Chromium, median of {args.rounds}", rows)
    return 0


def make_corpus(out: Path, faces: int) -> None:
    """A swap-ready corpus of one face set; a hundred pictures, each there many times."""
    rng = np.random.default_rng(1)
    folder = out / "faceset_001"
    (folder / "faces").mkdir(parents=True)
    ramp = np.linspace(60, 200, 512)[:, None, None]
    pictures = [
        cv2.imencode(".png", (ramp + rng.normal(0, 8, (512, 512, 3))).clip(0, 255).astype("u1"))[1]
        for _ in range(min(100, faces))
    ]
    entries = []
    for rank in range(faces):
        file = f"faces/{rank:04d}.png"
        (folder / file).write_bytes(pictures[rank % len(pictures)].tobytes())
        entries.append({
            "file": file, "rank": rank, "face": f"{rank:016x}:0", "source": f"/photos/{rank}.jpg",
            "bbox": [10.0, 10.0, 10 + rng.uniform(80, 300), 320.0], "quality": rng.uniform(),
            "taken": None if rank % 3 else 1.5e9, "distance": rng.uniform(0.1, 0.5), "pad": 0.5,
            "terms": dict.fromkeys(sf.QUALITY_TERMS, rng.uniform()),
            "neighbours_painted": rank % 7 == 0, "kept_because": "passes every gate",
        })  # fmt: skip
    head: dict[str, Any] = {"tool": sf.TOOL, "kind": "swap", "model": "none", "params": {}}
    listed = {"id": "faceset_001", "faces": [entry["face"] for entry in entries]}
    files = {"faceset_001": {**head, "kind": "faceset", "faces": entries, "dropped": [],
                             "files": []}, ".": {**head, "facesets": [listed]}}  # fmt: skip
    for name, manifest in files.items():
        (out / name / "manifest.json").write_text(json.dumps(manifest))


def open_page(page: Path, rounds: int) -> list[dict[str, float]]:
    """Seconds of every opening, and of what a person does next."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1400,1000"):
        options.add_argument(flag)
    driver = webdriver.Chrome(
        options=options, service=webdriver.ChromeService(shutil.which("chromedriver"))
    )
    measured = []
    try:
        driver.get("about:blank")
        for _ in range(rounds):
            driver.switch_to.new_window("tab")
            driver.execute_cdp_cmd("Network.setCacheDisabled", {"cacheDisabled": True})
            started = time.perf_counter()
            driver.get(page.as_uri())
            driver.get_screenshot_as_png()
            seen = time.perf_counter() - started
            parsed, loaded = driver.execute_script(
                f"{NAVIGATION}; return [n.domContentLoadedEventEnd, n.loadEventEnd]"
            )
            press, jump = (
                driver.execute_async_script(
                    f"const done = arguments[0], t = performance.now(); {action}; {DRAWN}"
                )
                for action in (PRESS, JUMP)
            )
            measured.append({"parsed s": parsed / 1e3, "loaded s": loaded / 1e3, "seen s": seen,
                             "filter s": press / 1e3, "end s": jump / 1e3})  # fmt: skip
            driver.close()
            driver.switch_to.window(driver.window_handles[0])
    finally:
        driver.quit()
    return measured


if __name__ == "__main__":
    sys.exit(main())
