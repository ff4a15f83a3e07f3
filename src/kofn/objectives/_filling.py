"""Rows that complete a search without time left: greedy search on small samples, in place of rows drawn at random."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.checks import is_sparse

# What is said of such picks, and of others.
BY_SAMPLES, AT_RANDOM = "by greedy search on a sample", "at random"
# Fewer rows are soon searched as they are.
LEAST_ROWS = 1_000
# Candidates and rows that judge them: so many, or so many times the picks that are wanted.
_LEAST, _TIMES = 1_000, 3
# Distances between them: so many a row of the pool, which take half of what facility location holds for a row, and
# no more in all than these; times features no more than these.
_OF_A_ROW, _MOST, _MOST_PRODUCTS = 56, 1 << 23, 1 << 32
# Candidates whose gains are brought up to date at once.
_AT_ONCE = 16


def filling_of(X: Any, metric: str, picks: list[int]) -> Callable[[Mask, int], Ints] | None:
    """What `finish` may ask for rows that complete a growing list of picks; None of sparse rows and of small pools."""
    if X is None or is_sparse(X) or len(X) < LEAST_ROWS:
        return None
    weights = np.ones(len(X))

    def fill(open_items: Mask, count: int) -> Ints:
        return greedy_on_samples(X, metric, weights, np.array(picks, np.int64), open_items, count, 1.0)

    return fill


def in_time(picks: int, filling: object) -> dict[str, Any]:
    """What a plan that was stopped says of its picks: how many the search made, and how the others were picked."""
    return {"found_in_time": picks, "filled_by": AT_RANDOM if filling is None else BY_SAMPLES}


def greedy_on_samples(
    X: NDArray[np.floating], metric: str, weights: Floats, picks: Ints, open_items: Mask, count: int, bandwidth: float
) -> Ints:
    """Up to `count` open rows in the order in which greedy search on samples picks them, after some picks.

    It takes a second at the most, whatever the pool. Distances are rounded: the picks are good and nothing is proven.

    Args:
        X: vectors (n, d).
        metric: "euclidean", "sqeuclidean", "cosine" or "rbf".
        weights: (n,) how much each row counts.
        picks: rows picked before.
        open_items: (n,) rows that may be picked.
        count: how many are wanted.
        bandwidth: of "rbf".
    """
    rng = np.random.default_rng(0)
    n, d = X.shape
    candidates, judges = np.flatnonzero(open_items), np.flatnonzero(weights > 0)
    entries = min(_OF_A_ROW * n, _MOST, _MOST_PRODUCTS // max(1, d))
    size = max(1, min(max(_LEAST, _TIMES * count), int(np.sqrt(entries))))
    candidates = np.sort(rng.choice(candidates, min(len(candidates), max(size, count)), replace=False))
    judges = np.sort(
        rng.choice(judges, min(len(judges), max(1, entries // max(1, len(candidates))), size), replace=False)
    )
    if not len(candidates) or not len(judges):
        return candidates[:0]
    points, served = (_scaled(X[rows], X, metric) for rows in (candidates, judges))
    squares = float(np.ldexp(bandwidth, -_exponent(X))) ** 2 if metric == "rbf" else 1.0
    table = _distances(points, served, metric, squares)
    near = np.full(len(judges), table.max(initial=0.0), table.dtype)
    for low in range(0, len(picks), len(candidates)):
        done = _scaled(X[picks[low : low + len(candidates)]], X, metric)
        np.minimum(near, _distances(done, served, metric, squares).min(axis=0), out=near)
    heavy = (weights[judges] / weights[judges].max()).astype(table.dtype)
    return candidates[_greedy(table, near, heavy, count)]


def _exponent(X: NDArray[np.floating]) -> int:
    """The power of two that brings the largest entry below 1."""
    return int(np.frexp(max(abs(float(X.max(initial=0.0))), abs(float(X.min(initial=0.0)))))[1])


def _scaled(rows: NDArray[np.floating], X: NDArray[np.floating], metric: str) -> NDArray[np.float32]:
    """The rows in float32, of length 1 for "cosine", else in the pool's unit."""
    if metric != "cosine":
        return np.ldexp(rows, -_exponent(X)).astype(np.float32)
    each = np.frexp(np.abs(rows).max(axis=1, initial=0.0))[1]
    rows = np.ldexp(rows, -each[:, None]).astype(np.float32)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)


def _distances(
    points: NDArray[np.float32], served: NDArray[np.float32], metric: str, squares: float
) -> NDArray[np.float32]:
    """(points, served) distances by the metric, up to its unit."""
    table = points @ served.T
    table *= -2
    table += np.einsum("ij,ij->i", points, points)[:, None]
    table += np.einsum("ij,ij->i", served, served)
    np.maximum(table, 0.0, out=table)
    if metric == "euclidean":
        np.sqrt(table, out=table)
    elif metric == "rbf":
        table *= np.float32(-0.5 / squares)
        np.expm1(table, out=table)
        np.negative(table, out=table)
    return table


def _greedy(table: NDArray[np.float32], near: NDArray[np.float32], weights: NDArray[np.float32], count: int) -> Ints:
    """The rows of the table that greedy search picks; stale gains are upper bounds."""
    upper = np.full(len(table), np.inf, np.float32)
    fresh = np.zeros(len(table), bool)
    for low in range(0, len(table), _AT_ONCE):
        upper[low : low + _AT_ONCE] = np.maximum(near - table[low : low + _AT_ONCE], 0.0) @ weights
    fresh[:] = True
    picks: list[int] = []
    while len(picks) < min(count, len(table)):
        best = int(upper.argmax())
        if not fresh[best]:
            # Of items that gain the same the partition may hold others.
            stale = np.append(np.argpartition(-upper, min(_AT_ONCE, len(upper) - 1))[:_AT_ONCE], best)
            stale = stale[~fresh[stale] & np.isfinite(upper[stale])]
            upper[stale] = np.maximum(near - table[stale], 0.0) @ weights
            fresh[stale] = True
            continue
        picks.append(best)
        np.minimum(near, table[best], out=near)
        upper[best] = -np.inf
        fresh[:] = False
    return np.array(picks, np.int64)
