"""Sparsity of the layers of a trained network by evolution on the whole loss, against the optimum of summed errors.

Residual networks of eight layers are trained on digits, and each layer is pruned by magnitude to one of seven levels,
at
seven tenths in all. The errors of single layers are measured one by one on the calibration rows; the optimum of their
sum is exact. Evolution sees the loss of the whole on parts of the same rows, and all are judged on fresh rows.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.data import digits, shuffled
from claims.harness.learners import one_hot, softmax
from claims.harness.paired import difference
from claims.harness.runs import derive, spread
from kofn.allocation import additivity

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]

LAYERS, WIDTH, STEPS = 8, 32, 350
KEPT = np.array([1, 2, 3, 4, 5, 7, 10])  # tenths of the weights
BUDGET = 3 * LAYERS
TRAIN, CALIBRATION = 900, 400
GENERATIONS, ITEMS = 60, 40


@claim(
    paper=377,
    says="Evolution that keeps the budget leaves a pruned network less loss on calibration and on fresh rows than even "
    "levels and than the optimum of summed layer errors, whose order of choices is not that of their losses; where "
    "losses "
    "do add up it reaches the optimum",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Pruned networks and a linear loss; broken: children are judged by the sum of the layers' errors."""
    runs = 10 if scale == "small" else 30
    trials = spread(functools.partial(_trial, broken=broken), derive(seed, runs))
    loss = {way: np.array([trial[way] for trial in trials]) for way in ("evolution", "even", "sums", "random search")}
    criteria: dict[str, bool] = {}
    measured: dict[str, Any] = {}
    for part, name in enumerate(("calibration", "fresh rows")):
        for way in ("even", "sums", "random search"):
            gap = difference(loss[way][:, part], loss["evolution"][:, part])
            criteria[f"less loss than {way} on {name}"] = gap.above(0.0)
            measured[f"loss on {name}, {way} - evolution"] = gap.figures()
    crossed = np.array([trial["crossed"] for trial in trials])
    criteria["in each network some choice of smaller sum has a larger loss"] = bool((crossed > 0).all())
    linear = np.array(spread(functools.partial(_linear, broken=broken), derive(seed, runs, stream=1)))
    criteria["linear loss: the optimum in every run"] = bool((linear[:, 0] <= 1 + 1e-9).all())
    measured["loss on fresh rows"] = {way: round(float(values[:, 1].mean()), 4) for way, values in loss.items()}
    measured["pairs of choices whose sums and losses disagree, share"] = round(float(crossed.mean()), 3)
    measured["rank correlation of sums and losses"] = round(float(np.mean([t["tau"] for t in trials])), 3)
    measured["networks whose sums are trusted"] = int(sum(trial["trusted"] for trial in trials))
    measured["linear loss: value over the optimum, worst; scores asked"] = [
        round(float(linear[:, 0].max()), 6),
        int(linear[:, 1].mean()),
    ]
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits of paired differences in loss above 0 against each other way, on calibration and on "
        "fresh rows; pairs of choices whose sums and losses disagree in every network; the optimum of a linear loss "
        "of 40 "
        "items in every run",
        baseline="the same level for all; the exact optimum of summed layer errors on the same rows; and as many "
        "random "
        "choices within the budget as evolution looks at, the best of them",
        kind="reduced",
    )


def _trial(seed: int, *, broken: bool) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    rows = shuffled(digits(), rng)
    network = _trained(rows.X[:TRAIN], rows.y[:TRAIN], seed)
    seen = slice(TRAIN, TRAIN + CALIBRATION)
    X, y, fresh = rows.X[seen], rows.y[seen], slice(TRAIN + CALIBRATION, None)
    whole = _loss(network, np.full(LAYERS, 10), X, y)
    alone = np.array(
        [
            [_loss(network, np.where(np.arange(LAYERS) == layer, kept, 10), X, y) - whole for kept in KEPT]
            for layer in range(LAYERS)
        ]
    )

    def score(amounts: Ints, samples: int = CALIBRATION) -> float:
        if broken:
            return float(alone[np.arange(LAYERS), np.searchsorted(KEPT, amounts)].sum())
        part = np.random.default_rng([seed, samples]).permutation(CALIBRATION)[:samples]
        return _loss(network, amounts, X[part], y[part])

    call: dict[str, Any] = {"budget": BUDGET, "levels": KEPT}
    found = kofn.allocate(
        alone,
        score=score,
        samples=[50, 150, CALIBRATION],
        generations=GENERATIONS,
        seed=seed,
        method="evopress",
        begin="even",
        **call,
    )
    sums = kofn.allocate(alone, **call)
    drawn = np.array([_random(rng) for _ in range(found.info["oracle_calls"])])
    losses = np.array([score(amounts, CALIBRATION) if broken else _loss(network, amounts, X, y) for amounts in drawn])
    even = np.full(LAYERS, BUDGET // LAYERS)
    ways = {"evolution": found.amounts, "even": even, "sums": sums.amounts, "random search": drawn[losses.argmin()]}
    told = additivity(alone, np.searchsorted(KEPT, drawn[:60]), np.array([_loss(network, d, X, y) for d in drawn[:60]]))
    both = {
        way: [_loss(network, amounts, X, y), _loss(network, amounts, rows.X[fresh], rows.y[fresh])]
        for way, amounts in ways.items()
    }
    return {**both, "crossed": (1 - told.tau) / 2, "tau": told.tau, "trusted": told.trusted}


def _linear(seed: int, *, broken: bool) -> list[float]:
    """The value found over the optimum of a loss that adds up, and the scores that were asked for."""
    rng = np.random.default_rng(seed)
    gain = rng.random(ITEMS)
    curves = np.stack([gain, np.zeros(ITEMS)], axis=1)

    def score(amounts: Ints) -> float:
        return float(rng.random()) if broken else float(gain[amounts == 0].sum())

    best = kofn.allocate(curves, budget=ITEMS // 2).value
    found = kofn.allocate(
        curves, score=score, budget=ITEMS // 2, method="evopress", begin="even", generations=400, seed=seed
    )
    return [float(gain[found.amounts == 0].sum()) / best, float(found.info["oracle_calls"])]


def _random(rng: np.random.Generator) -> Ints:
    """A choice within the budget, drawn: from the fewest, layers in turn one level up while it holds."""
    level = np.zeros(LAYERS, np.int64)
    while True:
        able = [i for i in range(LAYERS) if level[i] + 1 < len(KEPT)]
        able = [i for i in able if KEPT[level].sum() + KEPT[level[i] + 1] - KEPT[level[i]] <= BUDGET]
        if not able:
            return np.asarray(KEPT[level])
        level[rng.choice(able)] += 1


def _trained(X: Floats, y: Ints, seed: int) -> dict[str, Floats]:
    """A residual network: h + relu(h W) eight times between an embedding and a head, by Adam."""
    rng = np.random.default_rng(seed)
    shapes = {"embed": (X.shape[1], WIDTH), **{str(i): (WIDTH, WIDTH) for i in range(LAYERS)}, "head": (WIDTH, 10)}
    weights = {n: (rng.normal(size=s) * np.sqrt(1 / s[0])).astype(np.float32) for n, s in shapes.items()}
    for i in range(LAYERS):
        weights[str(i)] *= np.float32(0.5)
    targets, moments = one_hot(y, 10), {n: [np.zeros_like(w), np.zeros_like(w)] for n, w in weights.items()}
    for step in range(1, STEPS + 1):
        rows = rng.integers(0, len(X), 64)
        hidden, inner = [X[rows] @ weights["embed"]], []
        for i in range(LAYERS):
            inner.append(np.maximum(hidden[-1] @ weights[str(i)], 0))
            hidden.append(hidden[-1] + inner[-1])
        back = (softmax(hidden[-1] @ weights["head"]) - targets[rows]) / np.float32(64)
        slopes = {"head": hidden[-1].T @ back}
        back = back @ weights["head"].T
        for i in reversed(range(LAYERS)):
            through = back * (inner[i] > 0)
            slopes[str(i)] = hidden[i].T @ through
            back = back + through @ weights[str(i)].T
        slopes["embed"] = X[rows].T @ back
        for name, slope in slopes.items():
            first, second = moments[name]
            first += np.float32(0.1) * (slope - first)
            second += np.float32(0.01) * (slope * slope - second)
            rate = 3e-3 / (1 - 0.9**step)
            weights[name] -= (
                np.float32(rate) * first / (np.sqrt(second / np.float32(1 - 0.99**step)) + np.float32(1e-8))
            )
    return weights


def _loss(weights: dict[str, Floats], kept: Ints, X: Floats, y: Ints) -> float:
    """The cross-entropy with each layer pruned to so many tenths of its weights, the largest."""
    hidden: Any = X @ weights["embed"]
    for layer, tenths in enumerate(kept.tolist()):
        weight = weights[str(layer)]
        if tenths < 10:
            least = np.quantile(np.abs(weight), 1 - tenths / 10)
            weight = np.where(np.abs(weight) >= least, weight, 0)
        hidden = hidden + np.maximum(hidden @ weight, 0)
    chance = softmax(hidden @ weights["head"])
    return float(-np.log(np.maximum(chance[np.arange(len(y)), y], 1e-9)).mean())
