#!/usr/bin/env python3
"""A person who answers Same person? as fast as the page lets him, by real key events in Chromium.

    python tests/bench/bench_answers.py LIBRARY [--answers 300]

LIBRARY: a cache or an output, for instance what bench_review.py --keep made. Its decisions are
taken away before. A key is pressed as soon as a question is painted and the page takes answers; the
page itself notes when a key came and when the next question stood. Half an hour for 1,000 answers
leaves 1.8 s for each. Prints the times, the page's memory, and what the console said.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, machine, print_table, sf
from selenium import webdriver
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By

KEY_BAR, HEAP_BAR = 50.0, 150.0  # ms from key to the next question; MB
WATCH = """
window.times = [];
addEventListener("keydown", () => { window.pressed = performance.now(); }, true);
new MutationObserver(() => {
  const now = document.querySelector("[data-qid]")?.dataset.qid;
  if (now && now !== window.seen) {
    if (window.pressed && window.seen)
      requestAnimationFrame(() => window.times.push(performance.now() - window.pressed));
    window.seen = now;
    window.stood = performance.now();
  }
}).observe(document.body, { subtree: true, childList: true, attributes: true });
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("library", type=Path)
    parser.add_argument("--answers", type=int, default=300)
    args = parser.parse_args()
    print(machine())
    for path in [
        *args.library.parent.glob("*.decisions.jsonl"),
        *args.library.glob("*.decisions.jsonl"),
    ]:
        path.unlink()
    process, url = start(args.library)
    options = webdriver.ChromeOptions()
    for flag in ("--headless=new", "--no-sandbox", "--window-size=1280,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options)
    try:
        driver.get(url)
        wait(driver, "return !!document.querySelector('[role=gridcell]')")
        driver.execute_script("location.hash = '#/same'")
        wait(driver, "return !!document.querySelector('[data-qid]')")
        driver.execute_script(WATCH)
        driver.execute_script("window.seen = document.querySelector('[data-qid]').dataset.qid")
        before, started = heap(driver), time.perf_counter()
        given = answer_all(driver, args.answers)
        took = time.perf_counter() - started
        report(driver, given, took, before)
    finally:
        driver.quit()
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
    return 0


def start(library: Path) -> tuple[subprocess.Popen, str]:
    """The server and the address of its page."""
    command = [sys.executable, str(ROOT / "sort_faces.py"), "review", str(library), "--no-browser"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stderr:
        if found := re.search(r"http://\S+", line):
            return process, found[0]
        print(line, end="")
    sys.exit("the server did not start")


def wait(driver: Any, script: str, patience: float = 60.0) -> None:
    """Until a script of the page says yes."""
    until = time.monotonic() + patience
    while not driver.execute_script(script):
        if time.monotonic() > until:
            sys.exit(f"the page never said: {script}")
        time.sleep(0.005)


def answer_all(driver: Any, most: int) -> int:
    """Press y and n in turn, each when its question stands; how often. As a person would, a key is
    pressed again where nothing came of it for two seconds."""
    body, given, again = driver.find_element(By.TAG_NAME, "body"), 0, 0
    while given < most:
        count = driver.execute_script("return window.times.length")
        until = time.monotonic() + 20
        pressed = 0.0
        while driver.execute_script("return window.times.length") <= count:
            if time.monotonic() > pressed + 2:
                again += pressed > 0
                pressed = time.monotonic()
                ActionChains(driver).send_keys_to_element(body, "ny"[given % 2]).perform()
            if time.monotonic() > until:
                said = driver.find_element(By.TAG_NAME, "main").text
                print(f"stopped after {given}, as no question followed: {said[:300]!r}")
                return given
        given += 1
        wait(driver, "return performance.now() - window.stood > 130")  # before, none is taken
    print(f"keys pressed again: {again}")
    return given


def heap(driver: Any) -> float:
    """MB of the page's own memory."""
    return driver.execute_script("return performance.memory.usedJSHeapSize") / 1e6


def report(driver: Any, given: int, took: float, before: float) -> None:
    """Print what was seen."""
    times = np.array(driver.execute_script("return window.times"))
    rows = [
        {"what": f"key to next question, p{share}", "measured": float(np.percentile(times, share)),
         "unit": "ms", "bar": KEY_BAR}
        for share in (50, 95, 100)
    ]  # fmt: skip
    rows.append(
        {"what": "an answer, all in all", "measured": took / given, "unit": "s", "bar": 1.8}
    )
    rows.append({"what": "page before", "measured": before, "unit": "MB", "bar": HEAP_BAR})
    rows.append({"what": "page after", "measured": heap(driver), "unit": "MB", "bar": HEAP_BAR})
    print_table(f"{given} answers by key", rows)
    said = [entry["message"] for entry in driver.get_log("browser")]
    print("console:", said or "silent")


if __name__ == "__main__":
    sf.log.setLevel("WARNING")
    sys.exit(main())
