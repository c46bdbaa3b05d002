"""What the review server has done by another process: previews, and bringing sets up to date.

A companion of sort_faces.py. One job at a time; it runs apply_process.py, whose words on how far it
is go to every page. A server that ends lets the job stop where nothing is half done.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import sort_faces as sf

guard = sf.companion("review/guard")
Refused = guard.Refused

MOST_PREVIEWS = 8  # results kept
STOP_WITHIN = 20.0  # seconds a job has to come to a place where it can stop, when the server ends


class Jobs:
    """The one job at work, and what came of the last ones."""

    def __init__(self, cache: Path, trees: dict[str, Path], events: Any) -> None:
        self.cache, self.trees, self.events = cache, trees, events
        self.lock = threading.RLock()
        self.process: subprocess.Popen | None = None
        self.thread: threading.Thread | None = None
        self.previews: OrderedDict[str, dict[str, Any]] = OrderedDict()
        self.now: dict[str, Any] = {"state": "idle", "step": "", "done": 0, "total": 0, "text": ""}

    def status(self) -> dict[str, Any]:
        with self.lock:
            return dict(self.now)

    def preview(self, rev: int, finish: Callable[[dict[str, Any]], dict[str, Any]]) -> str:
        """Begin to find out what would change; finish: adds to the result what is known here."""
        name = guard.new_secret()[:16].replace("-", "0")

        def done(line: dict[str, Any]) -> None:
            result = {"preview": name, "rev": rev, **line}
            if "result" in line:
                result = {"preview": name, "rev": rev, **finish(line["result"])}
            with self.lock:
                self.previews[name] = result
                while len(self.previews) > MOST_PREVIEWS:
                    self.previews.popitem(last=False)
            self.events.tell("preview", **result)

        self.start(name, "preview", ["--dry-run"], done)
        return name

    def previewed(self, name: str) -> dict[str, Any]:
        """The result of a preview. Raises Refused where there is none, or not yet."""
        with self.lock:
            if name in self.previews:
                return self.previews[name]
            if self.now.get("job") == name and self.now["state"] == "failed":  # nothing came of it
                return {"preview": name, "rev": -1, "error": self.now["text"]}
            if self.now.get("job") == name:
                raise Refused(404, "not_yet")
        raise Refused(404, "unknown")

    def apply(self, name: str, rev: int, finish: Callable[[], None]) -> str:
        """Begin to do what a preview showed; finish: called when the outputs have changed."""
        if self.previewed(name)["rev"] != rev:
            raise Refused(409, "moved", rev=rev)

        def done(_: dict[str, Any]) -> None:
            finish()

        self.start(name, "apply", [], done)
        return name

    def start(
        self, name: str, state: str, options: list[str], done: Callable[[dict[str, Any]], None]
    ) -> None:
        """Start the process of a job. Raises Refused where one runs, or there are no outputs."""
        with self.lock:
            if self.process is not None:
                raise Refused(409, "busy", job=self.now.get("job", ""))
            if not {"raw", "refined"} & set(self.trees):
                raise Refused(409, "no_outputs")
            script = Path(__file__).with_name("apply_process.py")
            command = [sys.executable, str(script), str(self.cache), *options]
            for kind, folder in self.trees.items():
                command += [f"--{kind}", str(folder)]
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                encoding="utf-8",
                errors="replace",
            )
            self.now = {"state": state, "job": name, "step": "", "done": 0, "total": 0, "text": ""}
            self.thread = threading.Thread(target=self.follow, args=(name, done), daemon=True)
            self.thread.start()

    def follow(self, name: str, done: Callable[[dict[str, Any]], None]) -> None:
        """Pass on what the process says until it ends."""
        process, last = self.process, {"error": "ended"}
        for text in process.stdout:
            line = line_of(text)
            if "step" not in line:
                last = line or last
                continue
            with self.lock:
                self.now |= line
                told = dict(self.now)
            self.events.tell("progress", **told)
        process.wait()
        last = self.finished(last, done)
        with self.lock:
            with contextlib.suppress(OSError):  # a word to stop that came after its end
                process.stdin.close()
            self.process = None
            state = "done" if "result" in last else "stopped" if "stopped" in last else "failed"
            self.now |= {"state": state, "text": last.get("error", "")}
            told = dict(self.now)
        self.events.tell("progress", **told)

    def finished(
        self, last: dict[str, Any], done: Callable[[dict[str, Any]], None]
    ) -> dict[str, Any]:
        """The last line of a job once it is taken in; an error where that fails, so that no job
        stays at work for ever."""
        try:
            done(last)
        except (sf.SortFacesError, OSError) as error:
            last = {"error": sf.one_line(error)}
        except Exception as bug:
            last = {"error": type(bug).__name__}
        else:
            return last
        sf.log.error("review: what a job did is not taken in: %s", last["error"])
        return last

    def cancel(self, name: str) -> None:
        """Let a job stop where nothing is half done. Raises Refused where it is not at work."""
        with self.lock:
            if self.process is None or self.now.get("job") != name:
                raise Refused(409, "not_running")
            self.stop()

    def stop(self) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.process.stdin.write("stop\n")
            self.process.stdin.flush()

    def close(self) -> None:
        """The server ends: the job, too, as soon as it can."""
        with self.lock:
            thread, process = self.thread, self.process
            if process is not None:
                self.stop()
        if process is not None:
            thread.join(STOP_WITHIN)
            if thread.is_alive():
                process.terminate()
                thread.join(STOP_WITHIN)


def line_of(text: str) -> dict[str, Any]:
    """What a job says in one line; of a line that is not its own (a library's), nothing."""
    return sf.object_of(text.encode()) or {}
