#!/usr/bin/env python3
"""How much a word is worth: the review page's queues answered from the truth.

    python tests/bench/bench_word.py                     # people/ and half.npz
    python tests/bench/bench_word.py --cache lib.npz     # people/, embedded before
    python tests/bench/bench_word.py --fit               # what the likelihoods rest on

A made-up operator answers the questions of work/review/questions.py, all three queues together, on
the main faces of DATA/people (the folder is the truth) and on the people of half.npz that no
constant was chosen on. `value` asks what is worth most, `even` the same with a stranger in a group
no worse than a face less in it, `likely` what is most likely wrong, and `random` any question that
is open. Printed after 0, 10, 50 and 200 answers: BCubed P R F, groups that mix people, the seconds
he would need, and of each queue how many answers put something right. A question whose answer is
not among the choices is skipped, and counts.

Then the two ways to bind *same*, by the answers of `value` and another strictness of the grouping:
`merged` starts the linkage with all members of both groups as they stood merged, `joined` groups
under the cannot-links and joins by anchors afterwards, as sort_faces.settle does. Then the toy of
two groups of 40 faces, where one yes must make one person.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from bench_people import main_face_rows
from common import SHARED, machine, print_table, sf
from grouping import MINI, Faces, is_choosing, read_faces
from metrics import bcubed_scores, mixed_groups

acts = sf.companion("review/acts")
constraints = sf.companion("constraints")
decisions = sf.companion("decisions")
people = sf.companion("review/people")
questions = sf.companion("review/questions")

ANSWERS = (0, 10, 50, 200)
ORDERS = ("value", "even", "likely", "random")
STRICTNESS = (-0.06, -0.03, 0.0, 0.03, 0.06)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=SHARED / "data", metavar="DIR",
                        help="folder with people/, groups/, portraits/, embeddings/")  # fmt: skip
    parser.add_argument("--cache", type=Path, metavar="FILE",
                        help="of people/, groups/ and portraits/, made before")  # fmt: skip
    parser.add_argument("--errors", type=float, default=0.0, metavar="SHARE",
                        help="share of wrong answers (default: %(default)s)")  # fmt: skip
    parser.add_argument("--fit", action="store_true", help="fit the likelihoods anew, and end")
    args = parser.parse_args()
    print(machine())
    if args.fit:
        fit_likelihoods(args.data / "embeddings" / "half.npz")
        return 0
    for name, cache, truth in libraries(args):
        compare(name, cache, truth, args.errors)
    print_table("two groups of 40, cosine .6 within and .2 across: after one yes", toy())
    return 0


def libraries(args: argparse.Namespace) -> Iterator[tuple[str, sf.FaceCache, np.ndarray]]:
    """Name, cache of faces whose owners are known, and their owners (n,) int."""
    cache = sf.load_cache(args.cache) if args.cache else embedded(args.data)
    rows, names = main_face_rows(cache, args.data / "people")
    yield "people", of_rows(cache, rows), np.unique(names, return_inverse=True)[1]
    faces = cache_of(args.data / "embeddings" / "half.npz", cache)
    person = read_faces(args.data / "embeddings" / "half.npz").person
    kept = np.flatnonzero((person >= 0) & ~is_choosing(person))
    yield "half.npz, report", of_rows(faces, kept), person[kept]


def embedded(data: Path) -> sf.FaceCache:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "lib.npz"
        sources = [str(data / name) for name in ("people", "groups", "portraits")]
        model = str(SHARED / "models" / "mini")
        if sf.main(["embed", *sources, str(path), "--model", model, "--quiet"]) != sf.EXIT_OK:
            sys.exit("embed failed")
        return sf.load_cache(path)


def of_rows(cache: sf.FaceCache, rows: np.ndarray) -> sf.FaceCache:
    """The same library with these faces alone."""
    return replace(cache, **{name: getattr(cache, name)[rows] for name in people.FACE_COLUMNS})


def cache_of(path: Path, like: sf.FaceCache) -> sf.FaceCache:
    """half.npz as a cache; what it does not hold is as in the first face of another one."""
    with np.load(path) as data:
        photo = np.unique(data["photo"], return_inverse=True)[1]
        count, files = len(photo), int(photo.max()) + 1
        arrays = {
            name: np.repeat(getattr(like, name)[:1], {"f": files, "n": count, "a": 0}[about.rows],
                            axis=0)
            for name, about in sf.COLUMNS.items()
        }  # fmt: skip
        for name in ("det_score", "face_short", "blur", "kps", "embedding"):
            arrays[name] = data[name].astype(np.float32)
    arrays["face_file"] = photo.astype(np.int32)
    order = np.argsort(photo, kind="stable")
    first = np.searchsorted(photo[order], photo)
    arrays["face_index"] = (np.argsort(order) - first).astype(np.int16)
    arrays["file_sha256"] = np.array([f"{at:016x}" + "0" * 48 for at in range(files)])
    arrays["file_path"] = np.array([f"/half/{at}.jpg" for at in range(files)])
    arrays["bbox"] = (np.arange(count)[:, None] * 0 + [[10.0, 10.0, 110.0, 120.0]]) + (
        200.0 * arrays["face_index"][:, None]
    )
    return replace(like, **arrays | {"bbox": arrays["bbox"].astype(np.float32)})


# ---------------------------------------------------------------------------- answering


class Operator:
    """Answers questions from the truth, some of them wrongly."""

    def __init__(self, cache: sf.FaceCache, base: np.ndarray, truth: np.ndarray, errors: float):
        self.truth, self.errors, self.rng = truth, errors, np.random.default_rng(0)
        self.folder = tempfile.TemporaryDirectory()
        self.book = decisions.Book(Path(self.folder.name) / "lib.npz")
        self.model = people.Model(cache, base)
        self.queues = questions.Queues(self.model)
        self.given, self.seconds = 0, 0.0
        self.asked: Counter[str] = Counter()  # questions of each kind, and those that put it right
        self.bound: list[np.ndarray] = []  # all members of both sides of each yes

    def next(self, order: str) -> questions.Question | None:
        """The question that comes next in an order, None where none is open."""
        ranked = {kind: self.queues.of_kind(kind) for kind in questions.KINDS}
        ranked = {kind: some for kind, some in ranked.items() if len(some)}
        if not ranked:
            return None
        if order == "random":
            counts = np.array([len(some) for some in ranked.values()])
            at = int(self.rng.integers(counts.sum()))
            kind = list(ranked)[int(np.searchsorted(np.cumsum(counts), at, "right"))]
            return self.queues.ask(kind, ranked[kind], int(self.rng.integers(len(ranked[kind]))))
        wrong = {kind: urgency(order, kind, some) for kind, some in ranked.items()}
        kind = max(wrong, key=lambda one: wrong[one].max())
        return self.queues.ask(kind, ranked[kind], int(wrong[kind].argmax()))

    def owner(self, rows: np.ndarray) -> int:
        """Whose most of the faces are."""
        return Counter(self.truth[rows].tolist()).most_common(1)[0][0]

    def answer_to(self, question: questions.Question) -> str:
        if question.kind == "whose":
            row = question.left[0]
            loose = self.queues.loose
            near = loose.label[int(np.searchsorted(loose.rows, row))]
            for label in near[near >= 0].tolist():
                if self.owner(self.model.members(label)) == self.truth[row]:
                    return self.model.pid(label)
            return "skip"
        same = self.owner(question.left) == self.owner(question.right)
        if self.rng.random() < self.errors:
            same = not same
        return "same" if same else "different"

    def answer(self, question: questions.Question) -> None:
        answer = self.answer_to(question)
        item = {"kind": "answer", "qid": question.qid, "answer": answer}
        op = f"answer-{self.given}"
        if answer == "same":
            self.bound.append(np.concatenate([question.left, question.right]))
        elif question.kind == "look":
            self.bound.append(question.right)
        elif question.kind == "whose" and answer != "skip":
            label = self.model.label_of(answer)
            self.bound.append(np.append(self.model.members(label), question.left))
        body = {"op": op, "base": self.book.rev, "tab": "", "items": [item]}
        result = acts.decide(self.model, self.book, body, self.queues.question_of)
        self.queues.update(result["change"])
        right = answer not in ("skip", "different" if question.kind == "same" else "same")
        self.asked.update([question.kind, f"{question.kind} right"][: 1 + right])
        self.given += 1
        self.seconds += float(questions.seconds(np.array(question.likelihood)))

    def scores(self) -> dict:
        labels = self.model.view.labels
        b3 = bcubed_scores(self.truth, labels)
        shown = {name: f"{getattr(b3, at):.4f}" for name, at in
                 (("b3 P", "precision"), ("b3 R", "recall"), ("b3 F", "f"))}  # fmt: skip
        impure = mixed_groups(self.truth, labels)
        asked = {kind: f"{self.asked[f'{kind} right']} of {self.asked[kind]}"
                 for kind in questions.KINDS}  # fmt: skip
        return {**shown, "impure": impure, "seconds": round(self.seconds), **asked}


def urgency(order: str, kind: str, ranked: questions.Ranked) -> np.ndarray:
    """(k,) by what an order goes."""
    if order == "likely":
        return 1.0 - ranked.believed if kind == "look" else ranked.believed
    even = order == "even" and kind == "look"
    return ranked.gain / questions.MERGE_COST if even else ranked.gain


def grouped(cache: sf.FaceCache, strictness: float, word: sf.Word | None = None) -> np.ndarray:
    """Labels (n,) as `cluster` gives them."""
    limits = sf.thresholds_for(cache.meta.model)
    how = sf.Linkage("identity", limits.cluster, limits.merge, limits.copy, strictness)
    return sf.group_faces(cache, np.arange(cache.faces), how, word).labels


def compare(name: str, cache: sf.FaceCache, truth: np.ndarray, errors: float) -> None:
    """Print what answers are worth in each order, and what is left of them afterwards."""
    for strictness in (0.0, 0.06):
        base, rows = grouped(cache, strictness), []
        for order in ORDERS:
            operator = Operator(cache, base, truth, errors)
            for count in ANSWERS:
                while operator.given < count and (question := operator.next(order)):
                    operator.answer(question)
                rows.append({"order": order, "answers": operator.given} | operator.scores())
            if order == "value":
                again = bound_ways(cache, truth, operator)
        title = f"grouped with strictness {strictness:+.2f}"
        print_table(f"{name}: {cache.faces} faces, {title}", rows)
        print_table(f"{name}: {title}, answered by `value`, and grouped again; b3 F", again)


# ---------------------------------------------------------------------------- binding


def bound_ways(cache: sf.FaceCache, truth: np.ndarray, operator: Operator) -> list[dict]:
    """What is left of the answers when the library is grouped anew, in both ways."""
    word, rows = operator.model.view.word, []
    for strictness in STRICTNESS:
        ways = {
            "no answers": grouped(cache, strictness),
            "merged": start_merged(cache, operator.bound, word, strictness),
            "joined": grouped(cache, strictness, word),
        }
        row = {"strictness": f"{strictness:+.2f}"}
        for way, labels in ways.items():
            row[way] = f"{bcubed_scores(truth, labels).f:.4f}"
            row[f"{way}: impure"] = mixed_groups(truth, labels)
            if way != "no answers":
                row[f"{way}: broken"] = broken(labels, word)
        rows.append(row)
    return rows


def broken(labels: np.ndarray, word: sf.Word) -> int:
    """Pairs of people said to be two that are in one group, and people said to be one that are in
    several."""
    left, right = labels[word.apart].T
    two = sum(len(np.unique(labels[rows])) > 1 for rows in sf.groups_of(word.person)
              if word.person[rows[0]] >= 0)  # fmt: skip
    return int((left == right).sum()) + two


def start_merged(
    cache: sf.FaceCache, bound: list[np.ndarray], word: sf.Word, strictness: float
) -> np.ndarray:
    """Labels (n,) of identity linkage that begins with these rows merged."""
    limits = sf.thresholds_for(cache.meta.model)
    how = sf.Linkage("identity", limits.cluster, limits.merge, limits.copy, strictness)
    start = sf.start_of(cache.unit, how, (), word.owner)
    figures = sf.fitting_figures(
        sf.figures_of(cache.unit, cache.length, start.rough, how.copy), cache.meta.recognizer
    )[0]
    left = np.concatenate([np.zeros(0, np.intp), *(np.full(len(rows), rows[0]) for rows in bound)])
    right = np.concatenate([np.zeros(0, np.intp), *bound])
    atom = sf.join_labels(np.arange(cache.faces), left.astype(int), right)
    inside = np.isin(np.arange(cache.faces), right)
    tight = np.where(inside, cache.faces + atom, start.tight)
    rough = sf.join_labels(sf.first_of_each(start.rough), left.astype(int), right)
    apart = word.with_photos(sf.one_photo_pairs(cache.unit, cache.face_file, how.copy))
    apart = apart[atom[apart[:, 0]] != atom[apart[:, 1]]]
    begun = replace(start, tight=tight, rough=np.unique(rough, return_inverse=True)[1])
    return sf.identity_linkage(cache.unit, cache.length, begun, apart, figures, strictness)


def toy() -> list[dict]:
    """Sizes of the groups that average linkage at distance .55 makes of one person's two ages."""
    rng, count = np.random.default_rng(0), 40
    cosine = np.where(np.repeat([0, 1], count)[:, None] == np.repeat([0, 1], count), 0.6, 0.2)
    np.fill_diagonal(cosine, 1.0)
    values, vectors = np.linalg.eigh(cosine)
    unit = sf.unit_rows(vectors * np.sqrt(np.maximum(values, 0.0)))
    shown = np.concatenate([rng.permutation(count)[:8], count + rng.permutation(count)[:8]])
    ways: dict[str, Callable[[], np.ndarray]] = {
        "merged: the two medoids": lambda: average_from(unit, [shown[[0, 8]]]),
        "merged: sixteen shown": lambda: average_from(unit, [shown]),
        "merged: all members": lambda: average_from(unit, [np.arange(2 * count)]),
        "joined by sixteen anchors": lambda: joined_toy(unit, shown),
    }
    return [{"way": way, "groups": ", ".join(str(len(rows)) for rows in sf.groups_of(labels()))}
            for way, labels in ways.items()]  # fmt: skip


def joined_toy(unit: np.ndarray, shown: np.ndarray) -> np.ndarray:
    """Grouped without links, then brought under the word that these rows are one person."""
    none = sf.no_word(len(unit))
    person = none.person.copy()
    person[shown] = 0
    word = replace(none, person=person, carried=[shown[:8], shown[8:]])
    return sf.settle(unit, sf.average_linkage(unit, 0.55), word)


def average_from(unit: np.ndarray, merged: list[np.ndarray], distance: float = 0.55) -> np.ndarray:
    """Average linkage (n,) of few faces that begins with some of them merged."""
    labels = np.arange(len(unit))
    for rows in merged:
        labels[rows] = rows.min()
    while True:
        names = np.unique(labels)
        means = np.stack([unit[labels == name].mean(axis=0) for name in names])
        cosine = means @ means.T
        np.fill_diagonal(cosine, -np.inf)
        left, right = np.unravel_index(int(cosine.argmax()), cosine.shape)
        if cosine[left, right] < 1.0 - distance:
            return labels
        labels[labels == names[right]] = names[left]


# ---------------------------------------------------------------------------- likelihoods


def fit_likelihoods(path: Path) -> None:
    """Print the constants of TWO_GROUPS and TWO_HALVES, and how they hold on the other half."""
    faces = read_faces(path)
    finer = {at: linked(faces, at) for at in (0.0, 0.03, 0.06)}
    coarser = {at: linked(faces, at) for at in (0.0, -0.04, -0.08, -0.14)}
    for name, ways, samples, fit in (
        ("two groups", finer, pairs_of, questions.TWO_GROUPS),
        ("two halves", coarser, halves_of, questions.TWO_HALVES),
    ):
        found = {at: samples(faces, labels) for at, labels in ways.items()}
        features, one, person = (np.concatenate(part) for part in zip(*found.values(), strict=True))
        choose = is_choosing(person)
        print(f"\n{name}: base, likeness, doubling, short, long of {choose.sum()} pairs:",
              np.round(logistic(features[choose], one[choose]), 2))  # fmt: skip
        rows = []
        for at, (features, one, person) in found.items():
            report = ~is_choosing(person)
            likeness, doubling, short, long = features[report].T
            likely = fit.of(likeness, 2.0**doubling, 1.0 - short, 1.0 - long)
            row = {"strictness": f"{at:+.2f}"}
            for low, high in (
                (0, 0.02),
                (0.02, 0.1),
                (0.1, 0.3),
                (0.3, 0.7),
                (0.7, 0.9),
                (0.9, 1.1),
            ):
                here = (likely >= low) & (likely < high)
                row[f"{low}-{min(high, 1)}"] = (
                    f"{here.sum()}: {likely[here].sum():.1f} / {one[report][here].sum()}"
                )
            rows.append(row)
        print_table(f"{name}, report: pairs: expected / true to be one, with questions.py", rows)


def linked(faces: Faces, strictness: float) -> np.ndarray:
    """Labels (n,) from 0 of identity linkage of half.npz."""
    unit, length, limits = faces.unit, np.linalg.norm(faces.embedding, axis=1), faces.limits
    how = sf.Linkage("identity", limits.cluster, limits.merge, limits.copy, strictness)
    start = sf.start_of(unit, how, ())
    figures = sf.fitting_figures(sf.figures_of(unit, length, start.rough), MINI)[0]
    apart = sf.one_photo_pairs(unit, faces.photo, limits.copy)
    labels = sf.identity_linkage(unit, length, start, apart, figures, strictness)
    return np.unique(labels, return_inverse=True)[1]


def features_of(
    cosine: np.ndarray, sizes: np.ndarray, lengths: np.ndarray
) -> np.ndarray:  # fmt: skip
    """(k, 4): likeness, doublings of the smaller, by how much both are short; sizes, lengths:
    (k, 2)."""
    usual = sf.KNOWN_FIGURES[MINI]
    doublings = np.log2(np.minimum(sizes.min(axis=1), questions.FULL_SIZE))
    short = 1.0 - np.sort(lengths, axis=1) / usual.length
    return np.column_stack([(cosine - usual.strangers) / usual.reach, doublings, short])


def pairs_of(faces: Faces, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Pairs of groups that are not too unlike: features (k, 4), whether they are one person (k,),
    and who the first one is."""
    size = np.bincount(labels)
    centres = sf.unit_rows(sf.direction_sums(faces.unit, labels))
    length = np.bincount(labels, np.linalg.norm(faces.embedding, axis=1)) / size
    owner = np.empty(len(size), int)
    for rows in sf.groups_of(labels):
        owner[labels[rows[0]]] = Counter(faces.person[rows].tolist()).most_common(1)[0][0]
    cosine = centres @ centres.T
    left, right = np.nonzero(np.triu(cosine >= 0.17, 1))
    known = (owner[left] >= 0) & (owner[right] >= 0)
    known &= is_choosing(owner[left]) == is_choosing(owner[right])
    left, right = left[known], right[known]
    both = np.stack([left, right], axis=1)
    features = features_of(cosine[left, right], size[both], length[both])
    return features, owner[left] == owner[right], owner[left]


def halves_of(faces: Faces, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Groups cut in two: features (k, 4) of the parts, whether it is one person, and who."""
    length, found = np.linalg.norm(faces.embedding, axis=1), []
    for rows in sf.groups_of(labels):
        owners = np.unique(faces.person[rows])
        owners = owners[owners >= 0]
        if len(rows) > 1 and len(owners):
            parts = people.halves_of_rows(faces.unit, rows)
            cosine = np.prod([sf.centroid(faces.unit[part]) for part in parts], axis=0).sum()
            lengths = [length[part].mean() for part in parts]
            found.append((cosine, *map(len, parts), *lengths, len(owners) == 1, owners[0]))
    table = np.array(found, float)
    features = features_of(table[:, 0], table[:, 1:3], table[:, 3:5])
    return features, table[:, 5].astype(bool), table[:, 6].astype(int)


def logistic(features: np.ndarray, one: np.ndarray, ridge: float = 0.01) -> np.ndarray:
    """(1 + d,) coefficients by Newton's method."""
    with_base = np.column_stack([np.ones(len(features)), features])
    weights = np.zeros(with_base.shape[1])
    pull = ridge * np.diag([0.0, *np.ones(features.shape[1])])
    for _ in range(50):
        likely = 1.0 / (1.0 + np.exp(-with_base @ weights))
        bend = with_base.T @ (with_base * (likely * (1.0 - likely))[:, None]) + pull
        weights += np.linalg.solve(bend, with_base.T @ (one - likely) - pull @ weights)
    return weights


if __name__ == "__main__":
    sys.exit(main())
