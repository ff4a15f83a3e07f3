"""What the report of a merge advises, held against accuracy: fine-tunes of small networks on five data sets.

Each network learns a little of everything; three go on, each with the rows of a third of the classes. Their blends go
too far, too short or as far as the members; each is brought to the members' length and scored again on the test rows.
Then every layer is replaced by the best member's, to see whether a figure of the layer foretells what that costs. Last,
blends without a base: extrapolations beyond the members, and networks that did not begin together, whose mean is scored
as it is and after matching units.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

SETS = ("digits", "diamonds", "cars", "diabetes", "wine")
ROWS, BINS = 6000, 6
FIGURES = ("length", "kept", "agreement", "lost")
BLENDS: dict[str, tuple[str, dict[str, Any]]] = {
    "mean of changes": ("task_arithmetic", {}),
    "sum of changes": ("task_arithmetic", {"normalize": False}),
    "0.3 of the mean": ("task_arithmetic", {"scale": 0.3}),
    "ties": ("ties", {}),
    "ties, scale 2": ("ties", {"scale": 2.0}),
    "ties, all, scale 3": ("ties", {"density": 1.0, "scale": 3.0}),
    "dare, density 0.1": ("dare", {"density": 0.1}),
    "dare, density 0.5": ("dare", {"density": 0.5}),
}

State = Mapping[str, Any]


class Task:
    """A data set split in two, a network that began to learn it, and the accuracy of a state on the test rows."""

    def __init__(self, name: str, seed: int) -> None:
        from sklearn.neural_network import MLPClassifier
        from sklearn.preprocessing import StandardScaler

        from kofn import datasets

        data, self.seed = datasets.load(name), seed
        y = np.asarray(data.y)
        many = y.dtype.kind == "f" or len(np.unique(y)) > 20
        y = np.digitize(y, np.quantile(y, np.arange(1, BINS) / BINS)) if many else np.unique(y, return_inverse=True)[1]
        chosen = np.random.default_rng(seed).permutation(len(y))[:ROWS]
        self.X, self.y = StandardScaler().fit_transform(np.asarray(data.X, float))[chosen], y[chosen]
        self.train, self.test = np.split(np.arange(len(chosen)), [int(0.6 * len(chosen))])
        self.classes = np.unique(y)
        self.fresh = MLPClassifier((64, 32), learning_rate_init=2e-3)

    def tuned(self, network: Any, rows: Any, steps: int, seed: int | None = None) -> Any:
        """The network after some passes over the rows; a fresh one where a seed is given."""
        network = copy.deepcopy(network) if seed is None else copy.deepcopy(self.fresh).set_params(random_state=seed)
        for _ in range(steps):
            network.partial_fit(self.X[rows], self.y[rows], classes=self.classes)
        return network

    def members(self) -> tuple[State, list[State]]:
        """The common start, and three fine-tunes, each with the rows of a third of the classes and a few of all."""
        self.start = self.tuned(None, self.train[: len(self.train) // 5], 11, self.seed)
        few = self.train[: len(self.train) // 6]
        parts = [part for part in np.array_split(self.classes, 3) if len(part)]
        rows = [np.concatenate([self.train[np.isin(self.y[self.train], part)], few]) for part in parts]
        return state(self.start), [state(self.tuned(self.start, part, 25)) for part in rows]

    def strangers(self) -> list[State]:
        """Three networks that learn all rows from starts of their own."""
        networks = [self.tuned(None, self.train, 40, 100 * self.seed + i) for i in range(3)]
        self.start = networks[0]
        return [state(network) for network in networks]

    def accuracy(self, weights: State) -> float:
        network = copy.deepcopy(self.start)
        count = len(network.coefs_)
        network.coefs_ = [np.asarray(weights[f"layers.{i}.weight"]).T for i in range(count)]
        network.intercepts_ = [np.asarray(weights[f"layers.{i}.bias"]) for i in range(count)]
        return float(network.score(self.X[self.test], self.y[self.test]))


def state(network: Any) -> State:
    """The weights of a scikit-learn network under the names that torch would give them."""
    layers = zip(network.coefs_, network.intercepts_, strict=True)
    return {
        f"layers.{i}.{kind}": array
        for i, (weight, bias) in enumerate(layers)
        for kind, array in (("weight", np.ascontiguousarray(weight.T)), ("bias", bias))
    }


def advised(method: str, options: dict[str, Any], length: float) -> dict[str, Any]:
    """The options that the report advises for a blend of this length."""
    density = options.get("density", 1) * length**2
    if method == "dare" and density <= 1:
        return {**options, "density": density}
    return {**options, "scale": options.get("scale", 1.0) / length}


def trial(task: Task) -> list[dict[str, Any]]:
    """Every blend of one task: its accuracy, that of the advised blend, and of each layer's replacement."""
    from kofn import combine
    from kofn.combination import measures_by_layer

    base, members = task.members()
    scores = [task.accuracy(member) for member in members]
    best, rows = members[int(np.argmax(scores))], []
    for name, (method, options) in BLENDS.items():
        given: dict[str, Any] = {"base": base, "method": method} | ({"seed": task.seed} if method == "dare" else {})
        blend = combine(members, options={**options, "measure": True}, **given)
        length, before = blend.info["length"], task.accuracy(blend.result)
        after = task.accuracy(combine(members, options=advised(method, options, length), **given).result)
        layers = measures_by_layer(blend.info["measures"])
        swaps = []
        for layer in layers:
            taken = {key: best[key] for key in best if key.startswith(f"layers.{layer['layer']}.")}
            figures = {key: layer.get(key, float(np.mean(layer["relative"]))) for key in FIGURES}
            swaps.append({**figures, "gain": task.accuracy({**blend.result, **taken}) - before})
        rows.append({"blend": name, "length": length, "before": before, "after": after, "swaps": swaps})
    return rows


def _correlation(rows: Sequence[Mapping[str, Any]], figure: str) -> float:
    """Mean rank correlation, over blends, of a figure of the layers with what replacing them gains."""
    from scipy.stats import spearmanr

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of layers that are all alike
        each = [
            spearmanr([s[figure] for s in row["swaps"]], [s["gain"] for s in row["swaps"]]).statistic for row in rows
        ]
    return float(np.nanmean(each))


def _strangers(task: Task) -> dict[str, float]:
    """Networks of starts of their own: the variance that their mean keeps, and accuracies."""
    from kofn import combine

    members = task.strangers()
    blend = combine(members, options={"measure": True})
    return {
        "kept": _kept(blend),
        "members": mean(task.accuracy(member) for member in members),
        "mean": task.accuracy(blend.result),
        "matched": task.accuracy(combine(members, method="weight_matching").result),
    }


def _extrapolated(task: Task) -> dict[str, float]:
    """Three times a member less twice another, without a base: the variance that it keeps, and accuracies."""
    from kofn import combine

    _, members = task.members()
    blend = combine(members[:2], weights=[3, -2], options={"measure": True})
    return {
        "kept": _kept(blend),
        "mean": task.accuracy(combine(members[:2]).result),
        "extrapolated": task.accuracy(blend.result),
    }


def _kept(blend: Any) -> float:
    rows = list(blend.info["measures"].values())
    own, kept = np.array([row["elements"] for row in rows]) @ np.array([row["variance"] for row in rows])
    return float(kept / own)


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All trials; prints accuracies before and after the advice."""
    warnings.filterwarnings("ignore", category=UserWarning)
    names, seeds = (SETS[:2], 1) if quick else (SETS, max(5, rounds))
    trials = {name: [trial(Task(name, seed)) for seed in range(seeds)] for name in names}
    every = [row for rounds_of in trials.values() for rows in rounds_of for row in rows]
    print(f"\n{seeds} seeds of {', '.join(names)}: test accuracy before and after the length is brought to 1")
    print("blend                length  before  after  gained  lost")
    for blend in BLENDS:
        _line(blend, [row for row in every if row["blend"] == blend])
    outside = [row for row in every if not 0.5 <= row["length"] <= 1.75]
    for name in names:
        _line(f"outside, {name}", [row for rows in trials[name] for row in rows if row in outside])
    inside = [row for row in every if row not in outside]
    _line("all outside the band", outside)
    _line("all inside the band", inside)
    correlations = {figure: _correlation(every, figure) for figure in FIGURES}
    swaps = [swap["gain"] for row in every for swap in row["swaps"]]
    print(
        f"a layer replaced by the best member's: {mean(swaps):+.3f} on average over {len(swaps)}; rank correlation of "
        + ", ".join(f"{figure} {value:+.2f}" for figure, value in correlations.items())
    )
    out: dict[str, Any] = {"trials": trials, "correlations": correlations}
    for label, measure in (("extrapolated", _extrapolated), ("other starts", _strangers)):
        out[label] = {name: [measure(Task(name, seed)) for seed in range(seeds)] for name in names}
        for name, rows in out[label].items():
            means = {key: mean(row[key] for row in rows) for key in rows[0]}
            print(f"{label}, {name}: " + ", ".join(f"{key} {value:.3f}" for key, value in means.items()))
    return out


def _line(label: str, rows: Sequence[Mapping[str, Any]]) -> None:
    if not rows:
        return
    gained, lost = (sum((row["after"] - row["before"]) * sign > 0 for row in rows) for sign in (1, -1))
    before, after = mean(row["before"] for row in rows), mean(row["after"] for row in rows)
    print(
        f"{label:<20} {mean(row['length'] for row in rows):>6.2f} {before:>7.3f} {after:>6.3f} "
        f"{gained:>4} of {len(rows):<3} {lost:>3}"
    )
