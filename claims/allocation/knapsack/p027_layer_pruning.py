"""How many weights each layer of a network may keep: rate-distortion curves and the exact knapsack over them.

A trained network is pruned in stages by magnitude and tuned a little after each, as in the paper's iterative scheme.
Only the split over the layers differs: by curves of the output's distortion when a layer is pruned alone, uniform, one
magnitude threshold for all layers, or LAMP. What is compared is the output's distance to the dense network's on test
rows, as a share of its variance, and the accuracy.
"""

from __future__ import annotations

import copy
import functools
import itertools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.data import Labelled, digits, mixture, shuffled
from claims.harness.learners import Network
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

HIDDEN, STEPS, DECAY, TUNE_STEPS = (128, 64, 32), 800, 1e-3, 60
# Shares of the weights that are kept after each stage; those at 80, 90 and 95% sparsity are compared.
STAGES = (0.5, 0.3, 0.2, 0.14, 0.1, 0.07, 0.05)
COMPARED = {"80%": 0.2, "90%": 0.1, "95%": 0.05}
LEVELS, CALIBRATION, TEST = 25, 256, 600
# By how much in accuracy the curves' split must be above each other one.
MORE_ACCURATE = {"uniform": 0.01, "global": -0.005, "lamp": -0.005}

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Curves = NDArray[np.float64]
Figures = dict[str, Any]


@claim(
    paper=27,
    says="Output distortion adds up over layers at mild rates, and the exact allocation over its curves leaves, "
    "over 80-95% sparsity, a smaller output error than uniform, global-magnitude and LAMP splits and a network no less "
    "accurate",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Curves and the knapsack against the three splits; broken: the uniform split in place of the knapsack's."""
    runs = 12 if scale == "small" else 40
    measured: Figures = {}
    met = []
    for kind in ("digits", "mixture"):
        trials = spread(functools.partial(_trial, kind=kind, broken=broken), derive(seed, runs))
        figures, holds = _additive([trial["additivity"] for trial in trials])
        measured[f"{kind}, one layer and all"] = figures
        met.append(holds)
        apart = max(trial["brute force"] for trial in trials)
        measured[f"{kind}, largest excess over brute force on small grids"] = apart
        met.append(apart <= 1e-12)
        figures, holds = _judge(trials)
        measured[f"{kind}, pruned"] = figures
        met.append(holds)
    return Evidence(
        holds=all(met),
        measured=measured,
        expected="correlation of summed and joint distortion: lower 95% limit of the mean > 0.95; the knapsack's loss "
        "as brute force's on small grids; against each split, over 80, 90 and 95%: upper limit of the mean log ratio "
        "of the output error < -0.01, lower limit of the mean accuracy difference > -0.005 (uniform: > 0.01)",
        baseline="uniform, one global magnitude threshold, LAMP: none has a number to tune, nor has ours; the same "
        "weights, stages, tuning steps and rows for all",
        kind="reduced",
    )


def _additive(pairs: list[Curves]) -> tuple[Figures, bool]:
    correlations = [float(np.corrcoef(summed, joint)[0, 1]) for summed, joint in pairs]
    mean = difference(correlations, np.zeros(len(pairs)))
    figures = {
        "correlation of summed and joint distortion": mean.figures(),
        "the least": round(min(correlations), 4),
        "joint over summed distortion": round(
            float(np.mean([joint.sum() / summed.sum() for summed, joint in pairs])), 3
        ),
    }
    return figures, mean.above(0.95)


def _judge(trials: list[dict[str, Any]]) -> tuple[Figures, bool]:
    def column(rule: str, part: int) -> Curves:
        return np.array([[trial[rule][name][part] for name in COMPARED] for trial in trials])

    rules = ("curves", *MORE_ACCURATE)
    error, accuracy = {rule: column(rule, 0) for rule in rules}, {rule: column(rule, 1) for rule in rules}
    figures: Figures = {"dense accuracy": round(float(np.mean([trial["dense"] for trial in trials])), 4)}
    for place, name in enumerate(COMPARED):
        figures[f"output error at {name}"] = {rule: round(float(error[rule][:, place].mean()), 4) for rule in rules}
        figures[f"accuracy at {name}"] = {rule: round(float(accuracy[rule][:, place].mean()), 4) for rule in rules}
    holds = True
    for rule in MORE_ACCURATE:
        logs = difference(np.log(error["curves"]).mean(axis=1), np.log(error[rule]).mean(axis=1))
        points = difference(accuracy["curves"].mean(axis=1), accuracy[rule].mean(axis=1))
        figures[f"log output error, curves - {rule}"] = logs.figures()
        figures[f"accuracy, curves - {rule}"] = points.figures()
        holds = holds and logs.high < -0.01 and points.above(MORE_ACCURATE[rule])
    return figures, holds


def _trial(seed: int, *, kind: str, broken: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    rows = shuffled(digits(), rng) if kind == "digits" else mixture(rng, 4000 + TEST)
    cut = len(rows) - TEST
    train, test = rows.take(np.arange(cut)), rows.take(np.arange(cut, len(rows)))
    dense = Network(hidden=HIDDEN, steps=STEPS, decay=DECAY).fit(
        train.X, train.y, train.classes, int(rng.integers(2**32))
    )
    out: dict[str, Any] = {"dense": dense.accuracy(test.X, test.y)}
    kept, curves = _curves(dense, train.X[:CALIBRATION])
    out["additivity"] = _joint(dense, train.X[:CALIBRATION], kept, curves, rng)
    out["brute force"] = _over_brute_force(kept, curves, rng, broken)
    tuning = int(rng.integers(2**32))
    for rule in ("curves", *MORE_ACCURATE):
        out[rule] = _prune(dense, rule, train, test, tuning, broken)
    return out


def _prune(
    dense: Network, rule: str, train: Labelled, test: Labelled, seed: int, broken: bool
) -> dict[str, tuple[float, float]]:
    """Prune in stages and tune after each; the output error and the accuracy at the compared ones."""
    network, rng = copy.deepcopy(dense), np.random.default_rng(seed)
    wanted = dense.logits(test.X)
    total = sum(weight.size for weight in dense.weights)
    found = {}
    for share in STAGES:
        counts = _split(network, rule, round(share * total), train.X[:CALIBRATION], broken)
        network.weights = [_largest(weight, int(count)) for weight, count in zip(network.weights, counts, strict=True)]
        network.train(train.X, train.y, TUNE_STEPS, rng, masked=True)
        error = float(np.square(network.logits(test.X) - wanted).mean() / wanted.var())
        found[share] = (error, network.accuracy(test.X, test.y))
    return {name: found[share] for name, share in COMPARED.items()}


def _split(network: Network, rule: str, budget: int, calibration: Floats, broken: bool) -> Ints:
    """How many weights each layer keeps, `budget` in total."""
    left = np.array([np.count_nonzero(weight) for weight in network.weights])
    if rule == "curves":
        kept, curves = _curves(network, calibration)
        return _allocate(curves, kept, budget, broken)
    if rule == "uniform":
        return left * budget // left.sum()
    scores = [np.abs(weight).ravel() if rule == "global" else _lamp(weight) for weight in network.weights]
    layer = np.repeat(np.arange(len(scores)), [len(score) for score in scores])
    best = np.argsort(-np.concatenate(scores), kind="stable")[:budget]
    return np.bincount(layer[best], minlength=len(scores))


def _allocate(curves: Curves, kept: Ints, budget: int, broken: bool) -> Ints:
    if broken:
        share = budget / kept[:, -1].sum()
        return np.array([row[np.flatnonzero(row <= row[-1] * share)[-1]] for row in kept])
    return np.asarray(kofn.allocate(curves=curves, budget=budget, levels=kept).amounts, np.int64)


def _curves(network: Network, calibration: Floats) -> tuple[Ints, Curves]:
    """For each layer numbers of weights to keep, and the output's mean squared change if it alone is pruned to them."""
    wanted = network.logits(calibration)
    left = [np.count_nonzero(weight) for weight in network.weights]
    kept = np.array([np.round(np.linspace(0, count, LEVELS)) for count in left], np.int64)
    curves = np.zeros(kept.shape)
    for layer, level in np.ndindex(*kept.shape):
        weights = list(network.weights)
        weights[layer] = _largest(weights[layer], int(kept[layer, level]))
        curves[layer, level] = np.square(network.logits(calibration, weights) - wanted).mean()
    return kept, curves


def _joint(
    network: Network, calibration: Floats, kept: Ints, curves: Curves, rng: np.random.Generator, draws: int = 40
) -> Curves:
    """(2, draws) summed and joint distortion where every layer keeps some share between 40 and 90%."""
    wanted = network.logits(calibration)
    low, high = round(0.4 * (LEVELS - 1)), round(0.9 * (LEVELS - 1))
    pairs = []
    for _ in range(draws):
        levels = rng.integers(low, high + 1, len(kept))
        counts = kept[np.arange(len(kept)), levels]
        weights = [_largest(weight, int(count)) for weight, count in zip(network.weights, counts, strict=True)]
        joint = float(np.square(network.logits(calibration, weights) - wanted).mean())
        pairs.append((float(curves[np.arange(len(kept)), levels].sum()), joint))
    return np.array(pairs).T


def _over_brute_force(kept: Ints, curves: Curves, rng: np.random.Generator, broken: bool) -> float:
    """Largest relative excess of the allocation's loss over that of trying all splits, on every fourth level."""
    kept, curves = kept[:, ::4], curves[:, ::4]
    layers = np.arange(len(kept))
    splits = np.array(list(itertools.product(range(kept.shape[1]), repeat=len(kept))))
    cost, loss = kept[layers, splits].sum(axis=1), curves[layers, splits].sum(axis=1)
    worst = 0.0
    for share in rng.uniform(0.05, 0.95, 5):
        budget = int(share * kept[:, -1].sum())
        counts = _allocate(curves, kept, budget, broken)
        if counts.sum() > budget:
            return math.inf
        found = sum(curves[layer, np.flatnonzero(kept[layer] == count)[0]] for layer, count in enumerate(counts))
        best = float(loss[cost <= budget].min())
        worst = max(worst, (float(found) - best) / max(best, 1e-30))
    return worst


def _largest(weight: Floats, count: int) -> Floats:
    """The layer with its `count` largest weights by magnitude, zeros elsewhere."""
    out = np.zeros(weight.size, np.float32)
    if count:
        best = np.argpartition(np.abs(weight).ravel(), weight.size - count)[weight.size - count :]
        out[best] = weight.ravel()[best]
    return out.reshape(weight.shape)


def _lamp(weight: Floats) -> Curves:
    """Layer-adaptive magnitude score: a weight's square over the sum of the squares that are not smaller than it."""
    squares = np.square(weight.ravel().astype(np.float64))
    order = np.argsort(squares, kind="stable")
    rest = np.cumsum(squares[order][::-1])[::-1]
    scores = np.empty(len(squares))
    scores[order] = squares[order] / np.maximum(rest, 1e-300)
    return scores
