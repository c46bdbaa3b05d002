#!/usr/bin/env python3
"""Bring the outputs of a cache up to date with what was decided; or tell what that would change.

    python apply_process.py CACHE [--raw DIR] [--refined DIR] [--swap DIR] [--dry-run]

review starts this; it can be run by hand. It calls what the commands call (cluster or extend,
refine, export-swap) with the settings that the outputs themselves name, under their own locks and
journals: killed at any moment, the next run goes on. Lines of JSON on stdout tell how far it is,
the last one what came of it. A line on stdin, or its end, stops it at the next place where nothing
is half done.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib.util
import json
import logging
import os
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

tool = Path(__file__).resolve().parents[2] / "sort_faces.py"
if "sort_faces" not in sys.modules:
    spec = importlib.util.spec_from_file_location("sort_faces", tool)
    sys.modules["sort_faces"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["sort_faces"])
import sort_faces as sf  # noqa: E402

TELL_EVERY = 0.2  # seconds between two words on how far a step is


class Stopped(Exception):
    """Somebody asked to stop."""


class Teller:
    """Tells the one who started this how far it is, and hears when to stop."""

    def __init__(self, steps: int) -> None:
        self.steps, self.at, self.step = steps, 0, ""
        self.stopped = threading.Event()
        self.told = 0.0

    def listen(self) -> None:
        """Wait, in a thread, for a line on stdin or for its end."""
        threading.Thread(target=self.wait, daemon=True).start()

    def wait(self) -> None:
        sys.stdin.readline()
        self.stopped.set()

    def begin(self, step: str) -> None:
        """The next step begins. Raises Stopped."""
        self.check()
        self.at, self.step = self.at + 1, step
        self.say(step, 0, 0, "")

    def check(self) -> None:
        if self.stopped.is_set():
            raise Stopped

    def say(self, step: str, done: int, total: int, text: str) -> None:
        self.told = time.monotonic()
        more = {"number": self.at, "steps": self.steps, "text": text}
        tell({"step": step, "done": done, "total": total, **more})

    def progress(
        self, items: Iterable, total: int, label: str, unit: str = "item"
    ) -> Iterator[Any]:
        """In place of sf.progress: tells the page. Raises Stopped between two items, where sf
        leaves nothing half done."""
        for done, item in enumerate(items):
            self.check()
            if label and time.monotonic() - self.told >= TELL_EVERY:
                self.say(self.step, done, total, label)
            yield item


def tell(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line, default=sf.json_default) + "\n")
    sys.stdout.flush()


class Update:
    """The outputs of a cache and what it takes to bring them up to date."""

    def __init__(self, args: argparse.Namespace, teller: Teller) -> None:
        self.path, self.dry, self.teller = args.cache, args.dry_run, teller
        self.places = {"raw": args.raw, "refined": args.refined, "swap": args.swap}
        self.cache = sf.load_cache(self.path)
        self.manifests = {  # as they are before
            sf.tag_of(kind): sf.load_manifest(place / kind.FILE, kind, self.cache)
            for kind in (sf.RawManifest, sf.RefinedManifest)
            if (place := self.places[sf.tag_of(kind)]) is not None
        }
        self.wanted: dict[str, Any] = {}  # manifests as they are to be

    def steps(self) -> dict[str, Callable[[], dict[str, Any]]]:
        """The commands that do it, in order."""
        found: dict[str, Callable[[], dict[str, Any]]] = {}
        raw, refined = (self.manifests.get(kind) for kind in ("raw", "refined"))
        if raw is not None:
            found["extend" if raw.extended else "cluster"] = self.group
        if refined is not None:
            found["extend sets" if refined.extended else "refine"] = self.refine
        if self.places["swap"] is not None and refined is not None:
            found["export-swap"] = self.export
        return found

    def tree_options(self, kind: str) -> sf.TreeOptions:
        """Photos are placed as those that lie there were."""
        placed = (self.places[kind] / name for name in self.manifests[kind].placed)
        first = next((path for path in placed if os.path.lexists(path)), None)
        link = "copy"
        if first is not None:
            facts = os.lstat(first)
            link = "sym" if first.is_symlink() else "hard" if facts.st_nlink > 1 else "copy"
        return sf.TreeOptions(link=link, dry_run=self.dry)

    def group(self) -> dict[str, Any]:
        """Who is who, as the raw output was made: by extend if that has grown it."""
        old, tree = self.manifests["raw"], self.tree_options("raw")
        if old.extended:
            params = sf.ExtendParams(threshold=old.params["extend_threshold"])
            how = dataclasses.replace(
                sf.linkage_of(old, sf.ExtendParams(), self.cache.meta.model),
                rough=params.threshold,
            )
            library = sf.Library(self.cache, self.path)
            return sf.extend_raw(library, self.places["raw"], old, how, tree, {})
        names = {item.name for item in dataclasses.fields(sf.ClusterParams)}
        params = {name: value for name, value in old.params.items() if name in names}
        return sf.cluster_library(self.path, self.places["raw"], sf.ClusterParams(**params), tree)

    def refine(self) -> dict[str, Any]:
        old, tree = self.manifests["refined"], self.tree_options("refined")
        if old.extended:
            library = sf.Library(self.cache, self.path)
            return sf.extend_refined(library, self.places["refined"], old, tree, {})
        return sf.refine_library(self.path, self.places["refined"], old.params, tree)

    def export(self) -> dict[str, Any]:
        """Also of a dry run, of whose refine manifest a passing copy is made."""
        swap = self.places["swap"]
        argv = ["export-swap", str(self.path), "-", str(swap)]
        args = sf.build_parser(argv).parse_args(argv)
        crew = sf.crew_of(args, False)
        known = sf.read_file(swap / sf.SwapManifest.FILE, sf.SwapManifest).params
        params = sf.msgspec.convert(known, sf.ExportParams) if known else sf.ExportParams()
        raw = self.places["raw"]
        raw = raw / sf.RawManifest.FILE if raw is not None and params.candidates else None
        with tempfile.TemporaryDirectory(prefix="sort_faces-") as folder:
            refined = self.places["refined"] / sf.RefinedManifest.FILE
            if self.dry:
                refined = Path(folder) / sf.RefinedManifest.FILE
                sf.write_file(refined, self.wanted["refined"])
            paths = sf.ExportPaths(self.path, refined, raw, swap)
            return sf.export_library(paths, params, crew, self.dry)

    def run(self) -> dict[str, Any]:
        """Do every step; returns what came of it. Raises Stopped between two of them."""
        write_tree = sf.write_tree

        def noted(library: Any, out: Path, manifest: Any, *how: Any) -> Any:
            self.wanted[sf.tag_of(type(manifest))] = manifest
            return write_tree(library, out, manifest, *how)

        sf.write_tree, sf.progress = noted, self.teller.progress  # for this process alone
        results = {}
        for name, step in self.steps().items():
            self.teller.begin(name)
            results[name] = step()
        exported = results.get("export-swap", {})
        return {
            "sets": self.compared(exported.get("facesets", [])),
            "steps": [{"step": name, **counts(result)} for name, result in results.items()],
            "files": sum(files_of(result) for result in results.values()),
            "to_cut": exported.get("to_cut", 0),
        }

    def compared(self, exported: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
        """What becomes of each set; of people where there are no sets."""
        kind = "refined" if "refined" in self.wanted else "raw"
        if kind not in self.wanted:
            return []
        before = {group.id: group.faces for group in self.manifests[kind].groups}
        after = {group.id: group.faces for group in self.wanted[kind].groups}
        rows = compared_sets(before, after)
        shown = {entry.get("id"): entry for entry in exported}
        for row in rows:
            if row["id"] in shown and row["after"]:
                row["exported"] = shown[row["id"]].get("faces", 0)
        return rows


def compared_sets(
    before: dict[str, list[str]], after: dict[str, list[str]]
) -> list[dict[str, Any]]:
    """What becomes of sets {id: faces}, changed ones first.

    A set is compared with the one it comes from, by most of its faces both ways; where that had
    another number, `renumbered` tells it. A set that comes to nothing tells where its faces went.
    """
    home = {face: name for name, faces in before.items() for face in faces}
    goes = {face: name for name, faces in after.items() for face in faces}
    rows, followed = [], set()
    for name, faces in after.items():
        origin = most_of(faces, home)
        if origin and most_of(before[origin], goes) != name:
            origin = ""
        followed.add(origin)
        old = before.get(origin, [])
        rows.append(
            {
                "id": name,
                "face": faces[0] if faces else "",
                "before": len(old),
                "after": len(faces),
                "joined": len(set(faces) - set(old)),
                "left": len(set(old) - set(faces)),
                "new": not origin,
                "renumbered": origin if origin != name else "",
                "into": "",
            }
        )
    for name, faces in before.items():
        if name not in followed:
            gone = {"id": name, "face": faces[0] if faces else "", "before": len(faces), "after": 0}
            more = {"joined": 0, "left": len(faces), "new": False, "renumbered": ""}
            rows.append({**gone, **more, "into": most_of(faces, goes)})
    return sorted(rows, key=lambda row: (not (row["joined"] or row["left"] or row["renumbered"]),
                                         sf.natural(row["id"])))  # fmt: skip


def most_of(faces: Iterable[str], where: dict[str, str]) -> str:
    """Where most of some faces are, "" nowhere."""
    there = Counter(where[face] for face in faces if face in where)
    return max(sorted(there), key=there.__getitem__, default="")


def counts(result: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a command's result."""
    return {name: value for name, value in result.items() if isinstance(value, int)}


def files_of(result: dict[str, Any]) -> int:
    """Photos that a step places, moves or takes away."""
    nested = result.get("refined") or {}
    names = ("files_placed", "files_moved", "files_removed")
    return sum(result.get(name, 0) + nested.get(name, 0) for name in names)


def apply_main(argv: Sequence[str] | None = None) -> int:
    """Do it; returns the exit code."""
    p = sf.OneLineParser(prog="apply_process", description=__doc__.partition("\n")[0])
    p.add_argument("cache", type=Path, help="the cache")
    for kind in ("raw", "refined", "swap"):
        p.add_argument(f"--{kind}", type=Path, metavar="DIR", help=f"the {kind} output")
    p.add_argument("--dry-run", action="store_true", help="only tell what would change")
    args = p.parse_args(argv)
    os.umask(0o077)
    sf.log.setLevel(logging.WARNING)
    sf.log.addHandler(sf.LogHandler())
    teller = Teller(0)
    teller.listen()
    try:
        sf.load_numpy()
        update = Update(args, teller)
        teller.steps = len(update.steps())
        tell({"result": update.run()})
    except Stopped:
        tell({"stopped": True})
    except sf.SortFacesError as error:
        tell({"error": str(error)})
        return sf.EXIT_USAGE
    except OSError as error:
        tell({"error": sf.one_line(error)})
        return sf.EXIT_USAGE
    return sf.EXIT_OK


if __name__ == "__main__":
    sys.exit(apply_main())
