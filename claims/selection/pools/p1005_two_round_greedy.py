"""Two rounds over the parts of a pool against greedy search on all of it: how much further rows are from their picks.

The rival that needs no parts is greedy search on a random sample, of as many rows as take at least the two rounds'
distances. That it takes their processor time too is shown.

Real: diamonds by measures, cut, colour and clarity; flights by date, times and distance. Each run draws its own rows,
and a file holds them as drawn or sorted by a column, so that a part sees one corner of the pool.
"""

from __future__ import annotations

import functools
import math
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

import kofn
from claims import Evidence, claim
from claims.harness.data import diamonds
from claims.harness.paired import difference
from claims.harness.runs import derive, spread

Array = NDArray[Any]
# Rows of the pool, of a part, and picks.
ROWS, PART, K = 12_000, 1_000, 60
ORDERS = ("as drawn", "sorted")
# What may be lost against greedy search on all rows, and how much nearer to it than random rows the picks must be.
MOST, TIMES = 0.015, 10


@claim(
    paper=1005,
    says="Greedy picks of the parts, then of what the parts picked, leave rows at most 1.5% further from their pick "
    "than greedy picks of the whole pool do, also where the file is sorted, and lose a tenth of what random rows lose "
    "and less than greedy picks of a random sample do at as many distances computed",
)
def check(seed: int, scale: str, broken: bool = False) -> Evidence:
    """Two-round greedy against exact, sampled and random; broken: no second round, the best part's own picks."""
    runs, rows = (10, ROWS) if scale == "small" else (20, 4 * ROWS)
    trials = spread(functools.partial(_trial, rows=rows, broken=broken), derive(seed, runs))
    measured: dict[str, Any] = {}
    criteria: dict[str, bool] = {}
    for name in ("diamonds", "flights"):
        lost = {rule: np.array([trial[name][rule] for trial in trials]) for rule in (*ORDERS, "sample", "random")}
        measured[f"{name}, distance over exact greedy's"] = {
            rule: f"{100 * values.mean():+.2f}%, worst {100 * values.max():+.2f}%" for rule, values in lost.items()
        }
        for fact in ("processor seconds, two rounds", "processor seconds, sample"):
            measured[f"{name}, {fact}"] = round(float(np.mean([trial[name][fact] for trial in trials])), 2)
        for order in ORDERS:
            least = difference(np.full(runs, MOST), lost[order])
            times = difference(lost["random"], TIMES * lost[order])
            criteria[f"{name} {order}, within 1.5%"] = least.above(0.0)
            criteria[f"{name} {order}, ten times nearer than random"] = times.above(0.0)
            measured[f"{name} {order}, random - {TIMES} x two rounds"] = times.figures()
            ahead = difference(lost["sample"], lost[order])
            criteria[f"{name} {order}, nearer than a sample of equal work"] = ahead.above(0.0)
            measured[f"{name} {order}, sample - two rounds"] = ahead.figures()
    return Evidence(
        holds=all(criteria.values()),
        measured=measured,
        expected="upper 95% limit of the distance over exact greedy's < 1.5% and lower limit of random's - 10 times "
        "that > 0, as of greedy's on a sample less it, on each set, rows as drawn and sorted by their first column",
        baseline="lazy greedy on all rows (exact), lazy greedy on a random sample of as many rows as take the two "
        "rounds' distances or more, and as many random rows",
        kind="measured",
        criteria=criteria,
    )


@functools.cache
def _flights() -> Array:
    """336,776 flights: month, day, hours, minutes and distance, each at unit spread."""
    from kofn import datasets

    X = datasets.load("flights").X
    assert X is not None
    known = X[np.isfinite(X).all(axis=1)].astype(np.float64)
    scaled: Array = ((known - known.mean(axis=0)) / known.std(axis=0)).astype(np.float32)
    return scaled


def _trial(seed: int, *, rows: int, broken: bool) -> dict[str, dict[str, float]]:
    """What each rule's picks add to the distance of greedy picks of all rows, as a share of it."""
    rng = np.random.default_rng(seed)
    out = {}
    for name, data in (("diamonds", diamonds(5).X), ("flights", _flights())):
        X = data[rng.choice(len(data), min(rows, len(data)), replace=False)]
        exact = kofn.select(X, k=K, method="lazy_greedy").info["distance"]
        random = kofn.select(X, k=K, method="random_sample", seed=seed).indices
        out[name] = {"random": _distance(X, random) / exact - 1}
        for order in ORDERS:
            pool = X[np.argsort(X[:, 0], kind="stable")] if order == "sorted" else X
            began = time.process_time()
            plan = _two_rounds(pool, seed)
            out[name]["processor seconds, two rounds"] = time.process_time() - began
            found = _best_part(pool) if broken else float(plan.info["distance"])
            out[name][order] = found / exact - 1
        picks, out[name]["processor seconds, sample"] = _greedy_on_a_sample(X, plan.info["distance_evals"], seed)
        out[name]["sample"] = _distance(X, picks) / exact - 1
    return out


def _two_rounds(X: Array, seed: int) -> kofn.Selection:
    """No bound, which picks nothing: it would be work that greedy search on a sample does not do."""
    words: dict[str, Any] = {"method": "two_round_greedy", "part_rows": PART, "bound_rows": 0}
    return kofn.select(X, k=K, seed=seed, n_threads=1, **words)


def _greedy_on_a_sample(X: Array, pairs: int, seed: int) -> tuple[NDArray[np.int64], float]:
    """Lazy greedy picks of so many random rows that it computes `pairs` distances or more; the seconds of that run."""
    drawn, size = np.random.default_rng([seed, 1]).permutation(len(X)), math.isqrt(pairs // 4)
    while True:
        sample = np.sort(drawn[:size])
        began = time.process_time()
        plan = kofn.select(X[sample], k=K, method="lazy_greedy", n_threads=1)
        if plan.info["distance_evals"] >= pairs or size >= len(X):
            return sample[plan.indices], time.process_time() - began
        # A little more than it would take: greedy search takes three to four looks at each pair.
        size = math.ceil(1.02 * size * math.sqrt(pairs / plan.info["distance_evals"]))


def _best_part(X: Array) -> float:
    """The least distance of any part's own picks."""
    own = []
    for low in range(0, len(X), PART):
        picks = kofn.select(X[low : low + PART], k=K, method="lazy_greedy").indices
        own.append(_distance(X, low + picks))
    return min(own)


def _distance(X: Array, picks: NDArray[np.int64]) -> float:
    """Summed distance of all rows to the nearest pick."""
    near = np.full(len(X), np.inf)
    for pick in picks.tolist():
        np.minimum(near, np.linalg.norm(X - X[pick], axis=1), out=near)
    return float(near.sum(dtype=np.float64))
