"""`occlusion fit`: learn what hides a face from the operator's own answers.

The features are the network's (occlusion_net.py), only its last layer is fitted again: a logistic
regression per attribute whose weights are drawn towards the shipped ones, as strongly as answers
left out say. So a few answers change little, and many as much as they must.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import sort_faces as sf

net = sf.companion("occlusion_net")
COLUMNS = ("face", "attribute", "answer")
LEAST = (
    10  # answers of either kind an attribute needs; chosen, with fewer the folds have no figures
)
FOLDS = 5
PULLS = (0.3, 1.0, 3.0, 10.0, 30.0, 100.0)  # tried strengths of the pull to the shipped weights


@dataclass(frozen=True)
class Answered:
    """One attribute's answers, and what the network sees."""

    features: np.ndarray  # (n, d) float64
    shown: np.ndarray  # (n,) bool
    person: np.ndarray  # (n,) str; face set; one is never in two folds


@dataclass(frozen=True)
class Layer:
    """One attribute's weights."""

    weights: np.ndarray  # (d,) float64
    bias: float

    def chance(self, features: np.ndarray) -> np.ndarray:
        return net.sigmoid(features @ self.weights + self.bias)


def read_answers(path: Path) -> dict[str, dict[str, bool]]:
    """{face: {attribute: answer}} of a CSV with the columns face, attribute, answer.

    `clear` with yes says no to each attribute. A face asked twice keeps the last answer. Raises
    SortFacesError for any other file.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.DictReader(stream))
    except (OSError, ValueError, csv.Error) as error:
        raise sf.SortFacesError(f"{path}: no answers ({sf.one_line(error)})") from None
    answers: dict[str, dict[str, bool]] = {}
    for number, row in enumerate(rows, 2):
        face, attribute, said = ((row.get(column) or "").strip() for column in COLUMNS)
        known = (*sf.ATTRIBUTES, "clear")
        if not face or attribute not in known or said not in ("yes", "no"):
            raise sf.SortFacesError(
                f"{path}: line {number} is no answer; it needs {', '.join(COLUMNS)}: a face, "
                f"one of {', '.join(known)}, and yes or no"
            )
        own = answers.setdefault(face, {})
        if attribute != "clear":
            own[attribute] = said == "yes"
        elif said == "yes":
            own |= dict.fromkeys(sf.ATTRIBUTES, False)
    return answers


def faces_by_name(corpus: sf.Corpus) -> dict[str, tuple[str, str, str]]:
    """Path, sha256 and cache id of faces to (path, sha256, face set)."""
    found = {}
    for faceset in corpus.active.values():
        for face in faceset.faces:
            entry = (f"{faceset.folder}/{face.file}", face.sha256, faceset.folder)
            found |= dict.fromkeys((entry[0], face.sha256, face.face), entry)
    return found


def collect(
    corpus: sf.Corpus, crew: sf.Crew, answers: dict[str, dict[str, bool]]
) -> tuple[Any, dict[str, Answered], int]:
    """(the network, answers per attribute, how many answered faces could not be used)."""
    named, network = faces_by_name(corpus), net.load_scorer("net", crew)
    asked = {named[face]: told for face, told in answers.items() if face in named}
    audits = sf.Looker(corpus, crew).audits(corpus.active.values())
    root = corpus.root.resolve()

    def features(entry: tuple[str, str, str]) -> tuple[Any, np.ndarray | None]:
        item = {"path": str(root / entry[0]), "sha256": entry[1]}
        crop = net.read_crop(network, audits, item)
        return entry, network.features([crop])[0] if isinstance(crop, np.ndarray) else None

    seen = dict(sf.ordered_map(features, asked, crew.threads))
    usable = {entry: row for entry, row in seen.items() if row is not None}
    found = {}
    for attribute in sf.ATTRIBUTES:
        own = [entry for entry in usable if attribute in asked[entry]]
        found[attribute] = Answered(
            np.stack([usable[entry] for entry in own]) if own else np.zeros((0, 0)),
            np.array([asked[entry][attribute] for entry in own], bool),
            np.array([entry[2] for entry in own], str),
        )
    return network, found, len(answers) - len(usable)


def shipped_layers(facts: dict[str, str]) -> list[Layer]:
    """The last layer of the network, as its metadata has it: a row per attribute, the bias last."""
    rows = [[float(value) for value in row.split()] for row in facts["head"].split(";")]
    return [Layer(np.array(row[:-1]), row[-1]) for row in rows]


def fit_layer(answered: Answered, shipped: Layer, pull: float) -> Layer:
    """Logistic regression with a Gaussian prior around the shipped weights.

    Minimises the summed losses, yes and no weighing the same, plus pull / 2 times the squared
    distance to the shipped weights, each in spreads of its feature.
    """
    from scipy.optimize import minimize

    spread = answered.features.std(axis=0) + 1e-3
    design = np.column_stack([answered.features / spread, np.ones(len(answered.shown))])
    start = np.append(shipped.weights * spread, shipped.bias)
    yes = answered.shown.mean()
    weight = np.where(answered.shown, 0.5 / yes, 0.5 / (1 - yes))
    sign = np.where(answered.shown, -1.0, 1.0)

    def loss(layer: np.ndarray) -> tuple[float, np.ndarray]:
        logit, away = sign * (design @ layer), layer - start
        value = (weight * np.logaddexp(0, logit)).sum() + pull / 2 * away @ away
        return value, design.T @ (weight * sign * net.sigmoid(logit)) + pull * away

    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 500}).x
    return Layer(found[:-1] / spread, float(found[-1]))


def folds_of(answered: Answered) -> Iterator[np.ndarray]:
    """(n,) bool masks of what is left out in turn; face sets stay whole where there are enough."""
    _, group = np.unique(answered.person, return_inverse=True)
    if group.max(initial=0) + 1 < 2 * FOLDS:
        group = np.arange(len(group))
    order = np.random.default_rng(0).permutation(group.max() + 1)
    for fold in range(FOLDS):
        yield order[group] % FOLDS == fold


def left_out(answered: Answered, shipped: Layer, pull: float) -> np.ndarray:
    """(n,) probabilities, each by a layer that has not seen the answer."""
    chance = np.zeros(len(answered.shown))
    for out in folds_of(answered):
        rest = Answered(answered.features[~out], answered.shown[~out], answered.person[~out])
        both = rest.shown.any() and not rest.shown.all()
        layer = fit_layer(rest, shipped, pull) if both else shipped
        chance[out] = layer.chance(answered.features[out])
    return chance


def log_loss(chance: np.ndarray, shown: np.ndarray) -> float:
    """Mean of the mean losses of yes and no, in nats."""
    told = np.clip(np.where(shown, chance, 1 - chance), 1e-6, 1)
    return float(-(np.log(told[shown]).mean() + np.log(told[~shown]).mean()) / 2)


def figures(chance: np.ndarray, shown: np.ndarray) -> dict[str, float]:
    flagged = chance >= sf.VerdictRules.threshold
    return {"recall": round(float(flagged[shown].mean()), 3),
            "false": round(float(flagged[~shown].mean()), 4)}  # fmt: skip


def fit_attribute(answered: Answered, shipped: Layer) -> tuple[Layer, dict[str, Any]]:
    """(the layer to use, what is said of it); the shipped one where no fit does better."""
    before = shipped.chance(answered.features)
    tried = {pull: left_out(answered, shipped, pull) for pull in PULLS}
    best = min(tried, key=lambda pull: log_loss(tried[pull], answered.shown))
    told = {"yes": int(answered.shown.sum()), "no": int((~answered.shown).sum())}
    told["before"] = figures(before, answered.shown)
    if log_loss(tried[best], answered.shown) >= log_loss(before, answered.shown):
        return shipped, {
            **told,
            "kept": "the shipped weights: no fit does better on answers left out",
        }
    told |= {"left_out": figures(tried[best], answered.shown), "pull": best}
    return fit_layer(answered, shipped, best), told


def fit(corpus: sf.Corpus, crew: sf.Crew, answers: Path, out: Path) -> dict[str, Any]:
    """Fit, check and write; returns what is said of it. Raises SortFacesError for few answers."""
    if out.suffix != ".json":
        raise sf.SortFacesError(f"{out}: name a .json file")
    if out.exists():
        raise sf.SortFacesError(f"{out}: is there already; name another file or remove it")
    network, found, unused = collect(corpus, crew, read_answers(answers))
    layers, told = list(shipped_layers(network.facts)), {}
    for at, attribute in enumerate(sf.ATTRIBUTES):
        shown = found[attribute].shown
        fewest = min(int(shown.sum()), int((~shown).sum()))
        if fewest < LEAST:
            told[attribute] = {"kept": f"the shipped weights: {fewest} answers of one kind"}
            continue
        layers[at], told[attribute] = fit_attribute(found[attribute], layers[at])
    if not any("yes" in one for one in told.values()):
        raise sf.SortFacesError(
            f"{answers}: too few answers; an attribute needs {LEAST} yes and {LEAST} no on faces "
            "of this corpus"
        )
    sf.write_file(
        out,
        net.Head(
            base=network.digest,
            weights=[layer.weights.tolist() for layer in layers],
            bias=[layer.bias for layer in layers],
            answers={name: len(own.shown) for name, own in found.items()},
        ),
    )
    return {"out": str(out), "not_used": unused, **told}
