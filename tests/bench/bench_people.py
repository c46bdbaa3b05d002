#!/usr/bin/env python3
"""Accuracy of the whole chain on labelled photos: embed, cluster, refine, export-swap.

    python tests/bench/bench_people.py
    python tests/bench/bench_people.py --models ../shared/models/mini --keep /tmp/people

The library is DATA/people (one folder per person, its name is the truth), DATA/groups and
DATA/portraits (no truth, they make it harder). Scores are of the main faces: in each photo of
people/ the face nearest the middle. They are given for the groups of `cluster`, and for the sets
of `refine`, where a face that was left out is a group of its own: so recall falls with what the
gates take; `refined, large` counts only the people of --min-faces photos and more, whom a set is
expected of. `pair` counts pairs, `b3` is BCubed, P R F precision, recall and F.

Then every way of grouping that grouping.py knows, and every way of choosing faces for a bundle that
choosing.py knows: the cosine of what is chosen from half of a set to the average of the others.
Below: what `refine` left out and why; sets whose main faces belong to more than one person; sets
that own two faces of one photo; what `export-swap` left out and why; and every exported PNG looked
at again by the engine at 640 and 320, where it must show exactly one face. `other engine` is how
many of the PNGs show exactly one face to the other model, for information: HOG and SCRFD miss
different faces. Exit code 1 if a PNG does not show exactly one face to its own engine, or a set
owns two faces of a group photo which are no copies of each other.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from pathlib import Path

import choosing
import numpy as np
from common import SHARED, machine, print_table, sf
from grouping import STRANGERS, Faces, few_people, methods, scored
from metrics import bcubed_scores, mixed_groups, pairwise_scores


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    mini = str(SHARED / "models" / "mini")
    parser.add_argument("--data", type=Path, default=SHARED / "data", metavar="DIR",
                        help="folder with people/, groups/ and portraits/")  # fmt: skip
    parser.add_argument("--models", nargs="+", default=[mini, sf.DLIB_MODEL], metavar="PACK",
                        help="packs to measure (default: mini and dlib)")  # fmt: skip
    parser.add_argument("--min-faces", default="10", metavar="N")
    parser.add_argument("--refine-option", action="append", default=[], metavar="OPTION",
                        help="more for refine: --refine-option=--merge-threshold=0.5")  # fmt: skip
    parser.add_argument("--keep", type=Path, metavar="DIR",
                        help="work here and leave it (a second run is faster)")  # fmt: skip
    args = parser.parse_args()
    print(machine())
    good = True
    for model in args.models:
        with contextlib.ExitStack() as stack:
            folder = args.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            os.environ["SORT_FACES_LOGS"] = str(folder / "logs")
            work = folder / sf.model_label(model)
            work.mkdir(parents=True, exist_ok=True)
            chain(args, model, work)
            good &= judge(args, model, work)
    return 0 if good else 1


def chain(args: argparse.Namespace, model: str, work: Path) -> None:
    """Run the four commands as a user would."""
    sources = [str(args.data / name) for name in ("people", "groups", "portraits")]
    cache, refined = str(work / "lib.npz"), str(work / "refined")
    engine = ["--model", model]
    rows = []
    for command in (
        ["embed", *sources, cache, *engine],
        ["cluster", cache, str(work / "raw"), "--link", "sym"],
        ["refine", cache, refined, "--link", "sym", "--min-faces", args.min_faces,
         *args.refine_option],
        ["export-swap", cache, f"{refined}/refine_manifest.json", str(work / "swap"), *engine],
    ):  # fmt: skip
        start = time.perf_counter()
        result = command_result(command)
        rows.append({
            "command": command[0], "s": time.perf_counter() - start,
            "result": ", ".join(f"{key} {value}" for key, value in result.items()
                                if isinstance(value, int) and value),
        })  # fmt: skip
    print_table(f"{sf.model_label(model)}: the chain", rows)


def command_result(argv: list[str]) -> dict:
    """Run one command in process; returns its JSON. Stops the benchmark if it fails."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = sf.main([*argv, "--json", "--quiet"])
    if code != sf.EXIT_OK:
        sys.exit(f"{argv[0]} ended with {code}: {err.getvalue().strip()[-500:]}")
    return json.loads(out.getvalue().splitlines()[-1])


def judge(args: argparse.Namespace, model: str, work: Path) -> bool:
    """Print all scores of one model; returns whether the hard demands are met."""
    cache = sf.load_cache(work / "lib.npz")
    main_faces, person = main_face_rows(cache, args.data / "people")
    raw = json.loads((work / "raw" / "manifest.json").read_text())
    refined = json.loads((work / "refined" / "refine_manifest.json").read_text())
    groups = labels_of(cache, {entry["id"]: entry["faces"] for entry in raw["persons"]})
    sets = labels_of(cache, {entry["id"]: entry["faces"] for entry in refined["facesets"]})
    people = Counter(person.tolist())
    large = np.array([people[name] >= int(args.min_faces) for name in person])
    print_table(f"{cache.meta.model}: main faces against the folders", [
        scores("cluster", person, groups[main_faces]),
        scores("refined", person, sets[main_faces]),
        scores("refined, large", person[large], sets[main_faces][large]),
    ])  # fmt: skip
    compare_methods(cache, main_faces, person)
    for group in sf.groups_of(groups[main_faces]):
        if len(set(person[group])) > 1:
            print("  a person of `cluster` mixes", dict(Counter(person[group].tolist())))
    report_sets(cache, refined, main_faces, person, sets, large)
    choosing.report(
        f"{cache.meta.model}: PNGs chosen", choosing.exported(work / "swap", 8), least=8
    )
    doubles = sets_with_two_faces(cache, refined)
    bad = report_export(model, work, [path for path in args.models if path != model])
    for line in doubles + bad:
        print("  WRONG:", line)
    print(f"  {cache.meta.model}: {'passed' if not doubles + bad else 'FAILED'}", flush=True)
    return not doubles + bad


def compare_methods(cache: sf.FaceCache, main_faces: np.ndarray, person: np.ndarray) -> None:
    """Print the main faces grouped in every way that grouping.py knows."""
    owner = np.full(cache.faces, STRANGERS)
    owner[main_faces] = np.unique(person, return_inverse=True)[1]
    meta = cache.meta
    faces = Faces(cache.embedding, cache.face_file, owner, meta.recognizer, meta.model)
    mask = owner != STRANGERS
    rows = [scored(name, faces, labels, mask) for name, labels in methods(faces)]
    print_table(f"{meta.model}: ways of grouping, main faces", rows)
    print_table(f"{meta.model}: libraries of few people, means of 30", few_people(faces))


def main_face_rows(cache: sf.FaceCache, people: Path) -> tuple[np.ndarray, np.ndarray]:
    """(m,) rows of the faces nearest the middle of each photo of people/, and whose they are."""
    folder = os.path.normpath(people.absolute())
    rows, names = [], []
    middle = (cache.bbox[:, :2] + cache.bbox[:, 2:]) / 2
    away = np.linalg.norm(middle - cache.file_wh[cache.face_file] / 2, axis=1)
    for faces in sf.groups_of(cache.face_file):
        path = Path(cache.file_path[cache.face_file[faces[0]]])
        if str(path).startswith(folder + os.sep):
            rows.append(faces[away[faces].argmin()])
            names.append(path.parent.name)
    return np.array(rows), np.array(names)


def labels_of(cache: sf.FaceCache, groups: dict[str, list[str]]) -> np.ndarray:
    """(n,) label of every cached face; a face in no group has a label of its own."""
    labels = np.arange(cache.faces) + len(groups)
    for number, faces in enumerate(groups.values()):
        labels[[cache.row_of_face[face] for face in faces]] = number
    return labels


def scores(what: str, truth: np.ndarray, labels: np.ndarray) -> dict:
    pair, cubed = pairwise_scores(truth, labels), bcubed_scores(truth, labels)
    sizes = np.unique(labels, return_counts=True)[1]
    return {
        "of": what, "faces": len(truth), "people": len(np.unique(truth)),
        "groups of 2+": int((sizes > 1).sum()), "mixed": mixed_groups(truth, labels),
        "pair P": pair.precision, "pair R": pair.recall, "pair F": pair.f,
        "b3 P": cubed.precision, "b3 R": cubed.recall, "b3 F": cubed.f,
    }  # fmt: skip


def report_sets(
    cache: sf.FaceCache, refined: dict, main_faces: np.ndarray, person: np.ndarray,
    sets: np.ndarray, large: np.ndarray,
) -> None:  # fmt: skip
    """Print what the sets hold and what was left out of them."""
    owner = dict(zip(main_faces.tolist(), person.tolist(), strict=True))
    counts, split = [], defaultdict(list)
    for entry in refined["facesets"]:
        rows = [cache.row_of_face[face] for face in entry["faces"]]
        count = Counter(owner[row] for row in rows if row in owner)
        counts.append((entry["id"], count, len(rows) - sum(count.values())))
        for name in count:
            split[name].append(entry["id"])
    mixed = [(name, count) for name, count, _ in counts if len(count) > 1]
    wanted = set(person[large].tolist())
    lost = sorted(wanted - set(split))
    print(f"  sets {len(counts)}, faces {sum(len(e['faces']) for e in refined['facesets'])}, of "
          f"them main faces {int((sets[main_faces] < len(counts)).sum())}")  # fmt: skip
    print(f"  sets that mix people: {len(mixed)}", *(f"{n} {dict(c)}" for n, c in mixed), sep="; ")
    several = {name: own for name, own in split.items() if len(own) > 1}
    print("  people over several sets:", several or "none")
    print(f"  large people without a set: {len(lost)} of {len(wanted)}", ", ".join(lost))
    strange = [f"{name} ({rest} faces)" for name, count, rest in counts if not count]
    print("  sets without a main face:", ", ".join(strange) or "none")
    print("  left out by refine:", refined["counts"]["dropped"])


def sets_with_two_faces(cache: sf.FaceCache, refined: dict) -> list[str]:
    """Sets that own two faces of one photo which are no copies of each other."""
    limit = refined["params"]["copy_threshold"]
    wrong, copies = [], 0
    for entry in refined["facesets"]:
        rows = np.array([cache.row_of_face[face] for face in entry["faces"]])
        for group in sf.groups_of(cache.face_file[rows]):
            if len(group) < 2:
                break
            likeness = cache.unit[rows[group]] @ cache.unit[rows[group]].T
            apart = float(1.0 - likeness.min())
            path = Path(cache.file_path[cache.face_file[rows[group[0]]]]).name
            if apart > limit:
                wrong.append(f"{entry['id']}: {len(group)} faces of {path}, {apart:.2f} apart")
            else:
                copies += 1
    print(f"  sets with two faces of one photo: {len(wrong)}; copies allowed: {copies}")
    return wrong


def report_export(model: str, work: Path, others: list[str]) -> list[str]:
    """Print what was exported and left out; returns the PNGs that do not show one face."""
    import cv2

    reasons: Counter[str] = Counter()
    pngs = []
    for path in sorted((work / "swap").glob("faceset_*/manifest.json")):
        manifest = json.loads(path.read_text())
        pngs += [path.parent / face["file"] for face in manifest["faces"]]
        reasons.update(re.sub(r"[\d.]+", "N", face["reason"]) for face in manifest["dropped"])
    print(f"  exported faces {len(pngs)}, left out {sum(reasons.values())}:", dict(reasons))
    engine = sf.load_engine(sf.EngineSpec(model=model))
    wrong = []
    for path in pngs:
        image = cv2.imread(str(path))
        for size in sf.CONSUMER_DET_SIZES:
            found = len(engine.detect(image, size))
            if found != 1:
                wrong.append(f"{path.relative_to(work)}: {found} faces at detector size {size}")
    print(f"  PNGs looked at again: {len(pngs)}, not exactly one face: {len(wrong)}")
    for other in others:
        engine = sf.load_engine(sf.EngineSpec(model=other))
        alike = [
            [len(engine.detect(cv2.imread(str(path)), size)) for size in sf.CONSUMER_DET_SIZES]
            for path in pngs
        ]
        shown = {size: dict(sorted(Counter(counts[at] for counts in alike).items()))
                 for at, size in enumerate(sf.CONSUMER_DET_SIZES)}  # fmt: skip
        print(f"  other engine {sf.model_label(other)}, faces per PNG: {shown}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
