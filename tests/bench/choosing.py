#!/usr/bin/env python3
"""Which faces of a person carry the identity: what consumers average, chosen in several ways.

    python tests/bench/choosing.py --data ../shared/data --npz ../shared/data/embeddings/half.npz
    python tests/bench/choosing.py --cache lib.npz --data ../shared/data --least 16
    python tests/bench/choosing.py --corpus out/facesets_swap_ready --least 16
    python tests/bench/choosing.py --sizes ../shared/models/mini

A person's photos are cut into two halves, SPLITS times at random. From the one faces are chosen;
the figure is the cosine of the mean of their raw embeddings (as roop-unleashed averages a .fsz) to
that of the whole other half, averaged over the splits. A table's figure is the mean over people
with its standard error; `- all` and `- random 8` are differences person by person.

--npz: labelled embeddings (see shared/README.md), cleaned per person as an export would do it. The
people are cut in two as well, by number: constants are chosen on the even ones, reported on the
odd. --cache: main faces of DATA/people (or a copy of it, where --data points), cleaned in the same
way. --corpus: face sets as exported, the PNGs seen again by the engine. --sizes: the people's
photos scaled until their faces are so many pixels, embedded again, against the faces as they are.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from common import SHARED, machine, print_table, sf

SPLITS = 20
LEAST = 20  # photos a person needs
MANY = 60  # and to compare bundles of 30: more than 30 in each half
FACE_SIZES = (40, 50, 60, 80)  # px
PHOTO = (250, 250)  # px; of the photos half.npz came from
PEOPLE = 24  # of data/people with about 20 photos each


@dataclass(frozen=True)
class Faces:
    """The faces of one person, best composite first; row i is one face of one photo."""

    name: str
    embedding: np.ndarray  # (n, d) raw
    quality: np.ndarray  # (n,) composite, falling

    @property
    def count(self) -> int:
        return len(self.quality)

    @property
    def length(self) -> np.ndarray:
        return np.linalg.norm(self.embedding, axis=1)

    def take(self, rows: np.ndarray) -> Faces:
        return Faces(self.name, self.embedding[rows], self.quality[rows])


Choice = Callable[[Faces, np.random.Generator], np.ndarray]


def nearest_the_mean(faces: Faces) -> np.ndarray:
    """Rows, the nearest to the mean first."""
    unit = sf.unit_rows(faces.embedding)
    return np.argsort(-(unit @ faces.embedding.mean(axis=0)), kind="stable")


CHOICES: dict[str, Choice] = {
    "all": lambda faces, _: np.arange(faces.count),
    "product top 30": lambda faces, _: np.arange(faces.count)[:30],
    "top 30 herding": lambda faces, _: sf.top_faces(faces.embedding, 30),
    "random 8": lambda faces, rng: rng.permutation(faces.count)[:8],
    "product top 8": lambda faces, _: np.arange(faces.count)[:8],
    "8 longest": lambda faces, _: np.argsort(-faces.length, kind="stable")[:8],
    "8 nearest mean": lambda faces, _: nearest_the_mean(faces)[:8],
    "top 8 herding": lambda faces, _: sf.top_faces(faces.embedding, 8),
    "core 8": lambda faces, _: sf.core_faces(faces.embedding, 8),
}
FLOORS: dict[str, Choice] = {
    f"core 8, floor {floor:g}": lambda faces, _, floor=floor: sf.core_faces(
        faces.embedding, 8, floor
    )
    for floor in (0.0, 0.1, 0.2, 0.3, 0.5)
}
NUMBERS: dict[str, Choice] = {
    f"core {number}": lambda faces, _, number=number: sf.core_faces(faces.embedding, number)
    for number in (4, 6, 8, 10, 12, 16)
}


# --- material ---------------------------------------------------------------


def labelled(npz: Path, least: int = LEAST) -> list[Faces]:
    """People of a file of embeddings, as an export would clean them."""
    told = np.load(npz)
    embedding, kps = told["embedding"].astype(np.float32), told["kps"].astype(np.float32)
    values = [told[key].astype(np.float32) for key in ("det_score", "face_short", "blur")]
    symmetry = sf.landmark_symmetry(kps, kps)
    terms = sf.quality_terms(sf.pose_from_kps(kps, PHOTO), values[0], symmetry, *values[1:])
    quality = sf.composite_quality(terms, sf.QualityWeights())
    people = {str(one): np.flatnonzero(told["person"] == one) for one in np.unique(told["person"])}
    del people["-1"]  # bystanders
    return [
        faces
        for name, rows in people.items()
        if (faces := cleaned(name, rows, embedding, quality, told["photo"], sf.Thresholds())).count
        >= least
    ]


def of_cache(cache: sf.FaceCache, people: Path, least: int = LEAST) -> list[Faces]:
    """People by the main faces of their photos, as an export would clean them."""
    from bench_people import main_face_rows

    rows, names = main_face_rows(cache, people)
    quality = sf.composite_quality(sf.cached_quality_terms(cache), sf.QualityWeights())
    limits = sf.thresholds_for(cache.meta.model)
    found = [
        cleaned(str(name), rows[names == name], cache.embedding, quality, cache.face_file, limits)
        for name in np.unique(names)
    ]
    return [faces for faces in found if faces.count >= least]


def cleaned(
    name: str, rows: np.ndarray, embedding: np.ndarray, quality: np.ndarray, photo: np.ndarray,
    limits: sf.Thresholds,
) -> Faces:  # fmt: skip
    """A person's faces, best first, without what an export would leave out. rows: theirs."""
    rows = rows[np.argsort(-quality[rows], kind="stable")]
    unit = sf.unit_rows(embedding[rows])
    chosen = sf.choose_faces(unit, photo[rows], limits.export_outlier, limits.duplicate)
    rows = rows[[not reason for reason in chosen.reason]]
    return Faces(name, embedding[rows], quality[rows])


def exported(root: Path, least: int) -> list[Faces]:
    """The face sets of a corpus, by what their PNGs look like to its own engine."""
    corpus = sf.Corpus(root, sf.read_file(root / "manifest.json", sf.SwapManifest))
    sets = [Faces(one.id, corpus.embeddings(one.faces), np.array([f.quality for f in one.faces]))
            for one in corpus.active.values()]  # fmt: skip
    return [faces for faces in sets if faces.count >= least]


# --- tables -----------------------------------------------------------------


def halves(faces: Faces, splits: int) -> Iterable[tuple[Faces, Faces, np.random.Generator]]:
    """A person's faces cut in two at random, (one half, the other, a generator for choosing)."""
    for split in range(splits):
        rng = np.random.default_rng([split, *faces.name.encode()])
        order = rng.permutation(faces.count)
        middle = len(order) // 2
        yield faces.take(np.sort(order[:middle])), faces.take(np.sort(order[middle:])), rng


def table(
    people: Sequence[Faces], choices: dict[str, Choice] = CHOICES, splits: int = SPLITS
) -> list[dict]:
    """One row a way of choosing: its cosine, and the differences from others person by person."""
    figures = np.array([person_figures(faces, choices, splits) for faces in people])  # (p, c)
    rows = []
    for at, name in enumerate(choices):
        row = {"chosen": name, "cosine": mean_and_error(figures[:, at], "")}
        for other in ("all", "random 8"):
            if other in choices:
                less = figures[:, at] - figures[:, list(choices).index(other)]
                row[f"- {other}"] = mean_and_error(less, "+")
        rows.append(row)
    return rows


def mean_and_error(values: np.ndarray, sign: str) -> str:
    return f"{values.mean():{sign}.4f} +- {error(values):.4f}"


def person_figures(faces: Faces, choices: dict[str, Choice], splits: int) -> np.ndarray:
    """(c,) cosines of what each way chooses from one half to the mean of the other."""
    sums = np.zeros(len(choices))
    for own, other, rng in halves(faces, splits):
        for at, choose in enumerate(choices.values()):
            rows = choose(own, rng)
            some = own.embedding[rows] if len(rows) else own.embedding  # core: all are that few
            sums[at] += sf.average_cosine(some, other.embedding)
    return sums / splits


def error(values: np.ndarray) -> float:
    """Standard error of the mean; 0 for a single value."""
    return float(values.std(ddof=1) / len(values) ** 0.5) if len(values) > 1 else 0.0


def report(
    what: str, people: Sequence[Faces], choices: dict[str, Choice] = CHOICES, least: int = LEAST
) -> None:
    """Print a table of these people, and one of those with more than 30 faces in each half."""
    if not people:
        raise SystemExit(f"{what}: nobody has {least} faces and more")
    many = [faces for faces in people if faces.count >= MANY]
    for some, size in ((people, least), (many, MANY)):
        if some:
            print_table(f"{what}, {len(some)} people of {size} faces and more",
                        table(some, choices))  # fmt: skip


# --- sizes ------------------------------------------------------------------


def main_faces(cache: sf.FaceCache, people: Path) -> dict[tuple[str, str], np.ndarray]:
    """{(person, photo): raw embedding of the face nearest the middle}."""
    from bench_people import main_face_rows

    rows, names = main_face_rows(cache, people)
    files = [Path(cache.file_path[cache.face_file[row]]).stem for row in rows]
    return {
        (name, file): cache.embedding[row]
        for row, name, file in zip(rows, names, files, strict=True)
    }


def report_sizes(model: str, people: Path, work: Path) -> None:
    """Print what faces of each size are worth: the mean of a half so small, against the other."""
    folders = sorted(people.iterdir())[:PEOPLE]
    whole = main_faces(embedded(folders, work / "whole", model, 1.0), work / "whole")
    cache = sf.load_cache(work / "whole.npz")
    usual = float(np.median(cache.face_short))
    rows = []
    for size in FACE_SIZES:
        here = work / f"px{size}"
        small = main_faces(embedded(folders, here, model, size / usual), here)
        rows.append({"px": size, "found": f"{len(small)} of {len(whole)}",
                     **size_figures(whole, small)})  # fmt: skip
    print_table(f"faces of {usual:.0f} px made smaller, {len(folders)} people: the cosine of the "
                "mean of one half to that of the other as it is", rows)  # fmt: skip


def size_figures(whole: dict, small: dict) -> dict[str, str]:
    """Means over people: all as they are, all small, half of them small, and that half left out."""
    figures = []
    for person in sorted({name for name, _ in whole}):
        keys = [key for key in whole if key[0] == person and key in small]
        large, tiny = (np.stack([some[key] for key in keys]) for some in (whole, small))
        sums = np.zeros(4)
        for split in range(SPLITS):
            order = np.random.default_rng([split, *person.encode()]).permutation(len(keys))
            own, other = order[: len(keys) // 2], order[len(keys) // 2 :]
            half = own[: len(own) // 2]
            mixed = np.concatenate([large[half], tiny[own[len(own) // 2 :]]])
            for at, some in enumerate((large[own], tiny[own], mixed, large[half])):
                sums[at] += sf.average_cosine(some, large[other])
        figures.append(sums / SPLITS)
    mean = np.array(figures)
    names = ("as they are", "all small", "half small", "that half left out")
    told = {name: f"{mean[:, at].mean():.4f}" for at, name in enumerate(names)}
    less = mean[:, 1] - mean[:, 0]
    return {**told, "all small - as they are": mean_and_error(less, "+")}


def embedded(folders: Sequence[Path], out: Path, model: str, scale: float) -> sf.FaceCache:
    """The cache of these people's photos, scaled."""
    from bench_people import command_result

    for path in (path for folder in folders for path in sorted(folder.glob("*.jpg"))):
        target = out / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        if scale == 1.0:
            shutil.copyfile(path, target)
            continue
        image = cv2.imread(str(path))
        image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
        cv2.imwrite(str(target), image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    cache = out.with_name(f"{out.name}.npz")
    command_result(["embed", str(out), str(cache), "--model", model])
    return sf.load_cache(cache)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=SHARED / "data", metavar="DIR",
                        help="folder with people/, for --sizes")  # fmt: skip
    parser.add_argument("--npz", type=Path, metavar="FILE", help="labelled embeddings")
    parser.add_argument("--cache", type=Path, metavar="FILE", help="a cache of DATA/people")
    parser.add_argument("--corpus", type=Path, metavar="DIR", help="a swap-ready folder")
    parser.add_argument("--least", type=int, default=LEAST, metavar="N",
                        help="faces a person or set needs (default: %(default)s)")  # fmt: skip
    parser.add_argument("--sizes", metavar="PACK", help="measure small faces with this model")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="work here and leave it")
    args = parser.parse_args()
    print(machine())
    if args.npz:
        people = labelled(args.npz, args.least)
        even = [faces for faces in people if int(faces.name) % 2 == 0]
        odd = [faces for faces in people if int(faces.name) % 2]
        report("chosen on, floors", even, {"all": CHOICES["all"], **FLOORS}, args.least)
        report("chosen on, numbers", even, {"all": CHOICES["all"], **NUMBERS}, args.least)
        report("chosen on", even, least=args.least)
        report("reported on", odd, least=args.least)
        report("both", people, least=args.least)
    if args.cache:
        cache = sf.load_cache(args.cache)
        people = of_cache(cache, (args.data / "people").resolve(), args.least)
        report(cache.meta.model, people, least=args.least)
    if args.corpus:
        report(str(args.corpus), exported(args.corpus, args.least), least=args.least)
    if args.sizes:
        with tempfile.TemporaryDirectory() as folder:
            work = args.keep or Path(folder)
            os.environ["SORT_FACES_LOGS"] = str(work / "logs")
            report_sizes(args.sizes, args.data / "people", work)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
