"""Do decisions survive? They are given, then everything is done anew with other settings.

    python tests/bench/keep_word.py [--answers 40] [--later 50] [--seed 1]

On ../shared/data/people and groups with the pack mini: embed, cluster, refine, export; names for
the people of several photos and answers from the truth: half to the likest pairs of groups that are
one person, half to the likest that are not; then embed again with another detector size, cluster
and refine with another strictness, new photos, extend, export, consolidate. Every decision is
looked up in every output. Prints a table; ends with 1 where one does not hold or a named person
moved.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from common import SHARED, print_table, sf

decisions = sf.companion("decisions")
SCRIPT = Path(sf.__file__)
TREES = {"cluster": ("raw", sf.RawManifest), "refine": ("refined", sf.RefinedManifest)}


def call(*words: object, codes: tuple[int, ...] = (0,)) -> dict[str, Any]:
    """Run a command of the tool in a process of its own; what it says as JSON."""
    command = [sys.executable, str(SCRIPT), *map(str, words), "--json"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode not in codes:
        raise SystemExit(f"{' '.join(command)}\n{done.stderr}")
    return json.loads(done.stdout)


class World:
    """A library in a folder of its own, what is made of it, and the truth."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.photos, self.cache = folder, folder / "photos", folder / "lib.npz"
        self.model = SHARED / "models" / "mini"
        self.book: Any = None

    def add(self, files: list[Path]) -> None:
        """Put photos into the library."""
        for file in files:
            target = self.photos / file.parent.name / file.name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(file, target)

    def embed(self, *options: object) -> None:
        call("embed", self.photos, self.cache, "--model", self.model, *options, codes=(0, 1))

    def sort(self, *options: object) -> None:
        call("cluster", self.cache, self.folder / "raw", *options)
        call("refine", self.cache, self.folder / "refined", "--min-faces", 4, *options)

    def export(self) -> None:
        refined = self.folder / "refined" / "refine_manifest.json"
        call("export-swap", self.cache, refined, self.folder / "ready", "--model", self.model)

    def groups(self, tree: str) -> dict[str, set[int]]:
        """{folder: cache rows} of an output."""
        cache = sf.load_cache(self.cache)
        if tree == "ready":
            master = sf.read_file(self.folder / "ready" / "manifest.json", sf.SwapManifest)
            listed = {entry.id: entry.faces for entry in master.facesets}
        else:
            kind = dict(TREES.values())[tree]
            manifest = sf.read_file(self.folder / tree / kind.FILE, kind)
            listed = {entry.id: entry.faces for entry in manifest.groups}
            if tree == "raw":
                listed |= {face: [face] for face in manifest.singletons}
        return {
            name: set(sf.rows_of_faces(cache, faces).tolist()) for name, faces in listed.items()
        }

    def say(self, kind: str, faces: list[int], others: list[int] = (), **facts: Any) -> None:
        cache = sf.load_cache(self.cache)
        sides = (decisions.anchors(cache, np.array(side, int)) for side in (faces, others))
        first, second = sides
        act = decisions.act(kind, decisions.new_op(), faces=first, others=second, **facts)
        decisions.Book(self.cache).append([act])


def truth_of(cache: sf.FaceCache) -> np.ndarray:
    """(n,) the person of each face by the folder of its photo; "" for bystanders and groups."""
    person = np.array([Path(path).parent.name for path in cache.file_path])[cache.face_file]
    size = (cache.bbox[:, 2] - cache.bbox[:, 0]) * (cache.bbox[:, 3] - cache.bbox[:, 1])
    main = np.zeros(cache.faces, bool)
    for file in range(cache.files):
        rows = np.flatnonzero(cache.face_file == file)
        if len(rows):
            main[rows[size[rows].argmax()]] = True
    return np.where(main & np.char.startswith(person, "p"), person, "")


def give(world: World, answers: int, seed: int) -> Counter:
    """Name who has several photos, then answer the likest pairs of groups; how many of what."""
    cache, rng = sf.load_cache(world.cache), np.random.default_rng(seed)
    truth, groups = truth_of(cache), world.groups("raw")
    whose = {
        name: Counter(truth[sorted(rows)].tolist()).most_common(1)[0][0]
        for name, rows in groups.items()
    }
    given: Counter = Counter()
    named: dict[str, str] = {}
    for name, rows in sorted(groups.items(), key=lambda entry: -len(entry[1])):
        if len(rows) >= 4 and whose[name] and whose[name] not in named:
            named[whose[name]] = name
            world.say("name", sorted(rows), text=f"Name of {whose[name]}")
            given["name"] += 1
    names = list(groups)
    centre = np.stack([sf.centroid(cache.unit[sorted(groups[name])]) for name in names])
    likeness = np.triu(centre @ centre.T, 1)
    order = np.dstack(np.unravel_index(np.argsort(-likeness, axis=None), likeness.shape))[0]
    known = [
        (a, b) for a, b in order.tolist() if a < b and "" not in (whose[names[a]], whose[names[b]])
    ]
    for kind, is_one in (("same", True), ("different", False)):
        pairs = (p for p in known if (whose[names[p[0]]] == whose[names[p[1]]]) == is_one)
        for a, b in itertools.islice(pairs, answers // 2):
            world.say(kind, *(sorted(groups[names[at]]) for at in (a, b)))
            given[kind] += 1
    for name in rng.choice(sorted(named.values()), 3, replace=False):
        rows = sorted(groups[name])
        world.say("not_belongs", rows[:1], rows[1:])
        given["not_belongs"] += 1
    return given


def held(world: World, *trees: str) -> list[dict[str, Any]]:
    """How many decisions of each kind hold in each output, of those that speak of faces in it."""
    cache = sf.load_cache(world.cache)
    book = decisions.Book(world.cache)
    resolved = decisions.resolve(cache, book.lines)
    overruled = {conflict.line.id for conflict in resolved.conflicts}
    table = []
    for tree in trees:
        home = {row: name for name, rows in world.groups(tree).items() for row in rows}
        counts: dict[str, list[int]] = {}
        for line in book.standing():
            if line.id in overruled or line.kind == "number":
                continue
            verdict = holds(cache, line, home, resolved.word, tree)
            if verdict is False:
                print(tree, decisions.sentence(line), line.faces[:2])
            if verdict is not None:
                counts.setdefault(line.kind, []).append(verdict)
        for kind, verdicts in sorted(counts.items()):
            table.append(
                {"output": tree, "decision": kind, "asked": len(verdicts), "hold": sum(verdicts)}
            )
    table.append({"output": "cache", "decision": "lost", "asked": 0, "hold": -len(resolved.lost)})
    return table


def holds(cache, line, home, word, tree) -> bool | None:
    """Whether a decision holds in an output; None where too few of its faces are in it."""
    rows = [decisions.rows_of_refs(cache, side).tolist() for side in (line.faces, line.others)]
    mine = lambda side: [row for row in side if row >= 0 and word.person[row] >= 0]  # noqa: E731
    first, second = ({home[row] for row in mine(side) if row in home} for side in rows)
    if line.kind == "name":
        person = Counter(int(word.person[row]) for row in mine(rows[0])).most_common(1)
        number = word.numbers.get(person[0][0], {}) if person else {}
        folder = number.get("person" if tree == "raw" else "faceset")
        return None if not first else first == {folder}
    if line.kind == "same":
        return None if not first or not second else len(first | second) == 1
    if line.kind in ("different", "not_belongs"):
        one, other = ({home[r] for r in side if r in home} for side in rows)
        return None if not one or not other else not one & other
    return None


def main() -> int:
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    p.add_argument("--answers", type=int, default=40)
    p.add_argument("--later", type=int, default=50)
    p.add_argument("--seed", type=int, default=1)
    options = p.parse_args()
    data = SHARED / "data"
    files = sorted([*data.glob("people/*/*.jpg"), *data.glob("groups/*.jpg")])
    chance = np.random.default_rng(options.seed)
    later = {files[at] for at in chance.choice(len(files), options.later, replace=False)}
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as folder:
        world = World(Path(folder))
        world.add([file for file in files if file not in later])
        world.embed("--det-size", 640)
        world.sort()
        world.export()
        print("given:", dict(give(world, options.answers, options.seed)))
        world.sort()
        world.export()
        before = folders(world)
        print_table("after the same steps", held(world, "raw", "refined", "ready"))
        world.embed("--det-size", 320, "--rescan")
        world.sort("--strictness", 0.03)
        print_table("after another detector size and strictness", held(world, "raw", "refined"))
        world.add(sorted(later))
        world.embed("--det-size", 320)
        raw, refined = world.folder / "raw", world.folder / "refined"
        call("extend", world.cache, raw, "--refine-out", refined)
        world.export()
        call("consolidate", world.folder / "ready", "--model", world.model)
        table = held(world, "raw", "refined", "ready")
        print_table(f"after {options.later} new photos, extend, export and consolidate", table)
        moved = {who: (number, folders(world).get(who)) for who, number in before.items()}
        moved = {who: both for who, both in moved.items() if both[0] != both[1]}
        print("renumbered:", moved or "nobody")
        broken = sum(row["asked"] - row["hold"] for row in table if row["decision"] != "lost")
        return int(bool(broken or moved))


def folders(world: World) -> dict[str, str]:
    """{name: folder} of the exported sets."""
    master = sf.read_file(world.folder / "ready" / "manifest.json", sf.SwapManifest)
    return {entry.name: entry.id for entry in master.facesets if entry.name != sf.UNNAMED}


if __name__ == "__main__":
    sys.exit(main())
