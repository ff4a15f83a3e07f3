"""How many samples to collect of each group, from learning curves that a pilot shows.

Groups whose errors follow drawn power laws, seen with noise; and groups of diamonds by clarity, each with a model of
its own for the price class, whose curves a pilot of 160 rows a group shows. What is collected then is drawn and
trained on.
The sequential form spends a quarter of the budget at a time and fits anew.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.data import Labelled, diamonds
from claims.harness.learners import Network
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

LEVELS, NOISE, BUDGET = (20, 40, 80, 160), 0.05, 5000.0
COSTS = np.array([1.0, 1.0, 2.0, 4.0])
REAL_LEVELS, REAL_BUDGET, REAL_COSTS = (20, 40, 80, 160), 1600.0, np.array([1.0, 1.0, 2.0, 2.0])
AVERSIONS = (1.0, 2.0)


@claim(
    paper=225,
    says="Samples by fitted learning curves leave a lower weighted error of the groups than equal and than "
    "proportional "
    "collection, on drawn curves within 2% of the optimum that knows them, and on groups of real rows too",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Collection by curves against two rules; broken: all groups are given one curve, their mean."""
    runs = 20 if scale == "small" else 60
    measured: dict[str, Any] = {}
    criteria = {}
    for aversion in AVERSIONS:
        drawn = np.array(
            spread(
                functools.partial(_drawn, aversion=aversion, broken=broken), derive(seed, runs, stream=int(aversion))
            )
        )
        names = ("equal", "proportional", "optimum")
        gaps = {name: difference(drawn[:, 1 + i] / drawn[:, 0], np.ones(runs)) for i, name in enumerate(names)}
        criteria[f"drawn curves, power {aversion:g}: below equal"] = gaps["equal"].above(0.0)
        criteria[f"drawn curves, power {aversion:g}: below proportional"] = gaps["proportional"].above(0.0)
        criteria[f"drawn curves, power {aversion:g}: within 2% of the optimum"] = gaps["optimum"].above(-0.02)
        measured[f"drawn curves, power {aversion:g}"] = {
            f"{name} over ours, less one": gap.figures() for name, gap in gaps.items()
        }
    real = np.array(spread(functools.partial(_real, broken=broken), derive(seed, 12, stream=9)))
    for number, name in enumerate(("equal", "proportional")):
        gap = difference(real[:, 1 + number], real[:, 0])
        criteria[f"diamonds by clarity: below {name}"] = gap.above(0.0)
        measured[f"diamonds by clarity: mean squared error of groups, {name} - ours"] = gap.figures()
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="lower 95% limits over the runs: the weighted sum of errors of equal and of proportional collection "
        "over "
        "ours above 1, that of the optimum over ours above 0.98; on diamonds equal - ours and proportional - ours "
        "above 0",
        baseline="equal amounts and amounts proportional to the groups' weights, each at the same cost; and the "
        "optimum "
        "for the curves as they are",
        kind="reduced",
    )


def _bought(
    curves: Floats,
    levels: Any,
    budget: float,
    costs: Floats,
    weights: Floats,
    aversion: float,
    broken: bool,
    **more: Any,
) -> Ints:
    given = np.tile(curves.mean(axis=0), (len(curves), 1)) if broken else curves
    amounts: Ints = kofn.allocate(
        given,
        budget=budget,
        levels=levels,
        costs=np.ones(len(curves)) * costs.mean() if broken else costs,
        weights=np.ones(len(curves)) if broken else weights,
        aversion=aversion,
        method="equitable_collection",
        **more,
    ).amounts
    # What the mean curve buys at mean costs is brought to the budget at real ones.
    return (
        np.floor(amounts * min(1.0, budget / max(float(amounts @ costs), 1e-9))).astype(np.int64) if broken else amounts
    )


def _drawn(seed: int, *, aversion: float, broken: bool) -> list[float]:
    """The true weighted errors of ours, equal, proportional, and of the optimum."""
    rng = np.random.default_rng(seed)
    scale, power, floor = rng.uniform(0.8, 3, 4), rng.uniform(0.25, 0.7, 4), rng.uniform(0.02, 0.15, 4)
    weights = rng.dirichlet(np.full(4, 2.0))

    def errors(samples: Any) -> Floats:
        return np.asarray(floor + scale * samples**-power)

    def worth(bought: Any) -> float:
        return float(weights @ errors(160.0 + np.asarray(bought)) ** aversion)

    def seen(levels: Any) -> Floats:
        exact = floor[:, None] + scale[:, None] * np.asarray(levels, float) ** -power[:, None]
        return np.asarray(exact * np.exp(NOISE * rng.normal(size=exact.shape)))

    # In four steps: what has been collected is measured, and the curves are fitted anew.
    levels = np.tile(np.array(LEVELS, float), (4, 1))
    curves, bought = seen(LEVELS), np.zeros(4, np.int64)
    for _ in range(4):
        bought = bought + _bought(
            curves, levels, BUDGET / 4, COSTS, weights, aversion, broken, collected=160.0 + bought
        )
        levels = np.column_stack([levels, 160.0 + bought])
        now = errors(160.0 + bought) * np.exp(NOISE * rng.normal(size=4))
        curves = np.column_stack([curves, now])
    exact = floor[:, None] + scale[:, None] * np.array(LEVELS, float) ** -power[:, None]
    best = kofn.allocate(
        exact,
        budget=BUDGET,
        levels=LEVELS,
        costs=COSTS,
        weights=weights,
        aversion=aversion,
        method="equitable_collection",
    ).amounts
    equal = np.full(4, BUDGET / COSTS.sum())
    share = BUDGET * weights / (COSTS @ weights)
    return [worth(bought), worth(equal), worth(share), worth(best)]


@functools.cache
def _groups() -> list[Labelled]:
    """Diamonds in four groups by clarity; the six numbers and the cut tell the price class."""
    rows = diamonds(5)
    clarity = rows.X[:, -8:].argmax(axis=1)
    merged = np.array([0, 1, 1, 2, 2, 3, 3, 3])[clarity]
    order = np.random.default_rng(0).permutation(len(rows))
    return [rows.take(order[merged[order] == group]) for group in range(4)]


def _real(seed: int, *, broken: bool) -> list[float]:
    """The weighted sum of squared test errors of ours, equal and proportional collection."""
    rng = np.random.default_rng(seed)
    groups = [group.take(rng.permutation(len(group))) for group in _groups()]
    sizes = np.array([len(group) for group in groups], float)
    weights = sizes / sizes.sum()

    def error(group: int, samples: int, draw: int) -> float:
        rows, most = groups[group], int(min(samples, len(groups[group]) - 400))
        network = Network(hidden=(16,), steps=150, rate=1e-2).fit(
            rows.X[:most], rows.y[:most], rows.classes, seed + draw
        )
        return 1 - network.accuracy(rows.X[-400:], rows.y[-400:])

    def pilot(group: int, samples: int) -> float:
        """The mean error of four models on parts of the pilot, each judged on the rest of it or, of all, by halves."""
        rows = groups[group].take(np.arange(REAL_LEVELS[-1] + 80))
        out = []
        for draw in range(4):
            order = np.random.default_rng([seed, draw]).permutation(len(rows))
            part, rest = rows.take(order[:samples]), rows.take(order[samples:])
            network = Network(hidden=(16,), steps=150, rate=1e-2).fit(part.X, part.y, rows.classes, seed + draw)
            out.append(1 - network.accuracy(rest.X, rest.y))
        return float(np.mean(out))

    curves = np.array([[pilot(group, samples) for samples in REAL_LEVELS] for group in range(4)])
    collected = REAL_LEVELS[-1] + 80
    ours = _bought(curves, REAL_LEVELS, REAL_BUDGET, REAL_COSTS, weights, 2.0, broken, collected=np.full(4, collected))
    equal = np.full(4, REAL_BUDGET / REAL_COSTS.sum())
    share = REAL_BUDGET * weights / (REAL_COSTS @ weights)
    return [
        float(weights @ np.array([error(group, collected + int(bought[group]), 0) for group in range(4)]) ** 2)
        for bought in (ours, equal, share)
    ]
