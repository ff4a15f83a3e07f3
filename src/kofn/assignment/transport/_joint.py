"""Shared parts of the couplings: margins, the plan, and the majorisation bound."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.plans import Assignment


def margin_totals(margins: Any, n: int, bins: int) -> tuple[Floats, Floats]:
    """The totals of both sides; the columns are rescaled to the exact sum of the rows."""
    if margins is None:
        return np.ones(n), np.full(bins, n / bins)
    r, c = margins
    for side, totals, count in (("row", r, n), ("column", c, bins)):
        if len(totals) != count:
            raise InputError(
                f"margins has {len(totals)} {side} totals, scores has {count} {side}s; give one for each {side}"
            )
    return r, c * (math.fsum(r.tolist()) / math.fsum(c.tolist()))


def joint_plan(cells: dict[tuple[int, int], float], n: int, k: int, *, name: str, **fields: Any) -> Assignment:
    """The plan with these masses, row by row."""
    pairs = sorted(cells)
    rows = np.array([i for i, _ in pairs], np.int64)
    bins = np.array([j for _, j in pairs], np.int32)
    weights = np.array([cells[pair] for pair in pairs], np.float64)
    return Assignment.from_pairs(rows, bins, weights, n=n, k=k, method=name, **fields)


def majorised(p: Floats, q: Floats) -> list[float]:
    """Greatest lower bound by majorisation: differences of the elementwise minimum of the sorted partial sums."""
    size = max(len(p), len(q))
    sums = [np.cumsum(np.pad(np.sort(side)[::-1], (0, size - len(side)))) for side in (p, q)]
    return np.maximum(np.diff(np.minimum(*sums), prepend=0.0), 0.0).tolist()


def side_totals(value: Any, name: str, count: int, default: float) -> Floats:
    """The totals of one side, which need not sum to those of the other.

    Raises:
        InputError: not one finite number >= 0 for each, or all zero.
    """
    if value is None:
        return np.full(count, default)
    totals = checks.vector(value, name).astype(np.float64)
    if len(totals) != count:
        raise InputError(f"{name} has {len(totals)} values, scores asks for {count}; give one for each")
    if totals.min() < 0:
        row = int(totals.argmin())
        raise InputError(f"{name} at {row} is {totals[row]:g}; give totals >= 0")
    if not totals.any():
        raise InputError(f"{name} are all zero: there is nothing to share; give a positive total")
    return totals
