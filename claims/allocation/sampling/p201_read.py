"""Recursive randomised multilevel Monte Carlo (READ) against plain nested sampling, for one and two nestings.

A random walk of Gaussian steps, and smooth functions of inner expectations along it, such as
E[cos(2 E[sin(2 Y2) | Y1])]; the truth is known by quadrature. READ draws a level at random in every place where an
expectation stands inside, and corrects by the antithetic difference of that level over its probability. It estimates,
and decides nothing: it is no method of the library. What kofn decides is how often to draw each level, by
`water_filling` over the levels' measured variances and costs; that is held against READ's geometric law. Cost is the
number of Gaussians drawn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.runs import derive

Floats = NDArray[np.float64]
Figures = dict[str, Any]

# By nestings: the functions of the inner expectations from the outside in, and of the last step.
OUTER: dict[int, tuple[Callable[[Floats], Floats], ...]] = {
    1: (lambda z: np.cos(2 * z), lambda y: np.sin(2 * y)),
    2: (lambda z: np.sin(3 * z), lambda z: np.cos(2 * z), lambda y: np.sin(2 * y)),
}
# The chance to stop at a level: 1 - 2^-1.5 outside, where two moments are needed; lower inside, where four are.
STOP = {1: (1 - 2**-1.5,), 2: (1 - 2**-1.5, 0.58)}
# Gaussians drawn in one estimate, and how many a replicate of READ takes on average, about.
COSTS = (2_000, 8_000, 32_000, 128_000)
EACH = {1: 6, 2: 34}
INNER = (0.25, 0.5, 1.0, 2.0, 4.0)
BIASED = 40_000
LEVELS = 9


@claim(
    paper=201,
    says="For one and for two nestings READ's error falls as the root of its cost, where that of tuned nested sampling "
    "falls as the cube root and the fourth root; READ is unbiased, and its law of levels is near the best",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Both estimators at four costs each; broken: no level corrects what an inner expectation's estimate is off."""
    trials = 200 if scale == "small" else 240
    measured: Figures = {}
    criteria = {}
    for nestings in OUTER:
        truth = _truth(nestings)
        read = np.array([_read_trial(number, nestings, broken) for number in derive(seed, trials, stream=nestings)])
        plain = np.array([_plain_trial(number, nestings) for number in derive(seed, trials, stream=9)])
        ours, theirs = _curve(read, truth), _best_curve(plain, truth)
        slope, plain_slope = _slope(*ours), _slope(*theirs)
        draws = _many(seed, nestings, broken)
        off = (draws.mean() - truth) / (draws.std(ddof=1) / np.sqrt(len(draws)))
        fixed = _fixed(seed, nestings)
        fixed_off = (fixed.mean() - truth) / (fixed.std(ddof=1) / np.sqrt(len(fixed)))
        name = f"{nestings} nested"
        reach = float(np.exp(np.interp(np.log(ours[0][-1]), np.log(theirs[0]), np.log(theirs[1]))))
        measured[name] = {
            "slope of log error over log cost, READ": round(slope, 3),
            "the same of tuned nested sampling": round(plain_slope, 3),
            "mean off the truth in standard errors, READ and plug-in": [
                round(float(off), 2),
                round(float(fixed_off), 1),
            ],
            "cost and error of READ": [[round(float(x), 5) for x in row] for row in zip(*ours, strict=True)],
            "cost and error of tuned nested sampling": [
                [round(float(x), 5) for x in row] for row in zip(*theirs, strict=True)
            ],
            "error of nested sampling over READ's at the largest common cost": round(reach / ours[1][-1], 3),
        }
        criteria[f"{name}: READ's slope within 0.07 of -1/2"] = abs(slope + 0.5) < 0.07
        criteria[f"{name}: nested sampling's slope within 0.07 of -1/{nestings + 2}"] = (
            abs(plain_slope + 1 / (nestings + 2)) < 0.07
        )
        criteria[f"{name}: READ within 3 standard errors of the truth, the plug-in beyond 5"] = bool(
            abs(off) < 3 and abs(fixed_off) > 5
        )
        criteria[f"{name}: READ below nested sampling at the largest common cost"] = bool(reach > ours[1][-1])
    shares, ratio = _levels(seed)
    measured["levels by water_filling, shares"] = shares
    measured["work times variance, geometric levels over those by water_filling"] = ratio
    criteria["geometric levels within 10% of the best shares"] = 1 - 1e-9 <= ratio < 1.1
    return Evidence(
        holds=all(criteria.values()),
        criteria=criteria,
        measured=measured,
        expected="log-log slopes within 0.07 of -1/2 and of -1/3 and -1/4; READ's mean within 3 standard errors of the "
        "truth and that of a plug-in of as many draws beyond 5; a smaller error at the largest common cost; variance "
        "times cost of one nesting within 10% of what the best shares of levels reach",
        baseline="nested sampling whose inner samples grow as the root of the outer ones, the best of five factors at "
        "each cost",
        kind="measured",
    )


def _truth(nestings: int) -> float:
    """By Gauss-Hermite quadrature, from the inside out, on a grid that is interpolated."""
    x, w = np.polynomial.hermite_e.hermegauss(80)
    w = w / w.sum()
    grid = np.linspace(-16, 16, 6401)
    inner: Callable[[Floats], Any] = OUTER[nestings][-1]
    for outer in OUTER[nestings][-2::-1]:
        table = outer(np.array([w @ inner(y + x) for y in grid]))
        inner = functools.partial(np.interp, xp=grid, fp=table)
    return float(w @ inner(x))


def _read(rng: np.random.Generator, y: Floats, depth: int, nestings: int, broken: bool) -> tuple[Floats, int]:
    """An estimate at each place `y` of the walk, and the Gaussians drawn.

    One inner sample, and the antithetic difference of a random level over its probability.
    """
    if depth == nestings:
        return OUTER[nestings][-1](y), 0
    outer, stop = OUTER[nestings][depth], STOP[nestings][depth]
    level = np.ones(len(y), np.int64) if broken else rng.geometric(stop, len(y))
    count = 2**level
    steps = np.repeat(y, count) + rng.normal(size=int(count.sum()))
    inner, drawn = _read(rng, steps, depth + 1, nestings, broken)
    start = np.cumsum(count) - count
    half = np.stack([start, start + count // 2], axis=1).ravel()
    halves = np.add.reduceat(inner, half).reshape(-1, 2) / (count // 2)[:, None]
    base = outer(inner[start])
    difference = outer(halves.mean(axis=1)) - outer(halves).mean(axis=1)
    if broken:
        return outer(halves.mean(axis=1)), drawn + len(steps)
    return base + difference / (stop * (1 - stop) ** (level - 1)), drawn + len(steps)


def _read_trial(seed: int, nestings: int, broken: bool) -> list[tuple[float, float]]:
    """(cost, estimate) at each number of replicates."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[float, float]] = []
    for cost in COSTS:
        replicates = cost // EACH[nestings]
        values, drawn = _read(rng, rng.normal(size=replicates), 0, nestings, broken)
        rows.append((drawn + replicates, float(values.mean())))
    return rows


def _plain_trial(seed: int, nestings: int) -> list[list[tuple[float, float]]]:
    """The same of nested sampling, by the factor of the inner samples."""
    rng = np.random.default_rng(seed)
    rows = []
    for factor in INNER:
        row = []
        for cost in COSTS:
            # outside times the inner samples of each nesting is the cost.
            inside = max(1, round(factor * (cost / factor**nestings) ** (1 / (2 + nestings))))
            outside = max(1, cost // inside**nestings)
            value, drawn = _nested(rng, rng.normal(size=outside), 0, nestings, inside)
            row.append((drawn + outside, float(value.mean())))
        rows.append(row)
    return rows


def _nested(rng: np.random.Generator, y: Floats, depth: int, nestings: int, inside: int) -> tuple[Floats, int]:
    """The plug-in estimate with so many inner samples everywhere."""
    if depth == nestings:
        return OUTER[nestings][-1](y), 0
    steps = np.repeat(y, inside) + rng.normal(size=len(y) * inside)
    inner, drawn = _nested(rng, steps, depth + 1, nestings, inside)
    return OUTER[nestings][depth](inner.reshape(-1, inside).mean(axis=1)), drawn + len(steps)


def _curve(rows: Floats, truth: float) -> tuple[Floats, Floats]:
    """Mean cost and root mean squared error at each size, from (trials, sizes, 2)."""
    return rows[..., 0].mean(axis=0), np.sqrt(((rows[..., 1] - truth) ** 2).mean(axis=0))


def _best_curve(rows: Floats, truth: float) -> tuple[Floats, Floats]:
    """The least error of any factor at four costs, along each factor's own line in logs."""
    curves = [_curve(rows[:, factor], truth) for factor in range(len(INNER))]
    low, high = max(cost[0] for cost, _ in curves), min(cost[-1] for cost, _ in curves)
    costs = np.geomspace(low, high, 4)
    lines = [np.interp(np.log(costs), np.log(cost), np.log(error)) for cost, error in curves]
    return costs, np.exp(np.min(lines, axis=0))


def _slope(cost: Floats, error: Floats) -> float:
    return float(np.polyfit(np.log(cost), np.log(error), 1)[0])


def _many(seed: int, nestings: int, broken: bool) -> Floats:
    """Single replicates."""
    rng = np.random.default_rng([seed, 3])
    return np.concatenate([_read(rng, rng.normal(size=BIASED // 4), 0, nestings, broken)[0] for _ in range(4)])


def _fixed(seed: int, nestings: int) -> Floats:
    """As many plug-in replicates that draw about as many Gaussians each as READ does: four or five an expectation."""
    rng = np.random.default_rng([seed, 4])
    return _nested(rng, rng.normal(size=BIASED), 0, nestings, 4 if nestings == 1 else 5)[0]


def _levels(seed: int) -> tuple[list[float], float]:
    """Shares of levels by water-filling over their measured second moments and costs, and what they gain.

    Drawing level l with probability p_l costs sum p_l c_l and has the second moment sum v_l / p_l.
    """
    rng = np.random.default_rng([seed, 5])
    outer, last = OUTER[1]
    moments = []
    for level in range(1, LEVELS + 1):
        y = rng.normal(size=4000)
        inner = last(y[:, None] + rng.normal(size=(4000, 2**level)))
        halves = inner.reshape(4000, 2, -1).mean(axis=2)
        moments.append(float(((outer(halves.mean(axis=1)) - outer(halves).mean(axis=1)) ** 2).mean()))
    v, cost = np.array(moments), 2.0 ** np.arange(1, LEVELS + 1)
    curves = np.column_stack([v, np.ones(LEVELS)])
    plan = kofn.allocate(curves=curves, sizes=cost, budget=1.0, family="power", method="water_filling")
    best = plan.amounts / plan.amounts.sum()
    geometric = STOP[1][0] * (1 - STOP[1][0]) ** np.arange(LEVELS)
    geometric /= geometric.sum()

    def work(p: Any) -> float:
        return float((p @ cost) * (v / p).sum())

    return [round(float(share), 4) for share in best], round(work(geometric) / work(best), 4)
