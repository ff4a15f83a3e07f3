"""Partial optimal transport: only a given mass is sent, at most each side's totals, for the largest score; exact."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kofn.assignment.routing._scores import score_table
from kofn.assignment.transport._joint import side_totals
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import FailureError, InfeasibleError, InputError
from kofn.core.plans import Assignment
from kofn.core.registry import method

# Scores that are this many times farther below the highest than the others stand for "never".
_NEVER = 1e4


@method(
    "assign",
    cost="a linear program of n bins variables by HiGHS: 500 x 500 in seconds; memory some 200 n bins bytes",
    exact="the largest total of all plans of this mass within the totals",
    paper="caffarelli2010",
    aliases=("partial optimal transport", "partial wasserstein"),
)
def partial_transport(
    scores: Any,
    *,
    row_totals: Any = None,
    column_totals: Any = None,
    mass: float | None = None,
) -> Assignment:
    """Partial optimal transport: only a given mass is sent, at most each side's totals, for the largest score; exact.

    For costs give `scores=-costs`. What is far from everything stays out: with outliers on either side, or sides of
    different sums, this compares what has a counterpart.

    Args:
        scores: (n, bins), higher is better; -inf where an item may not go.
        row_totals: (n,) the most that each item sends, >= 0, default 1.
        column_totals: (bins,) the most that each bin receives, >= 0, default n / bins.
        mass: how much is sent in all, > 0; default as much as can be: the lesser of the sides' sums, so that the larger
            side is free, or what the entries that are listed carry.

    Returns:
        An `Assignment` whose `weights` are the plan, row by row. `value` is sum P scores, `bound` the dual value, which
        no plan exceeds; status "optimal". `u`, `v` are the prices of the totals (>= 0) and `info["price"]` what the
        last unit of mass adds: u + v + price >= scores, equal where something is sent.

    Raises:
        InputError: scores that are not (n, bins), totals of another length, a mass beyond either side's sum.
        InfeasibleError: the entries that are listed cannot carry the mass.
        FailureError: HiGHS finds no solution.

    Cost: a linear program; it cannot be stopped, so there is no time limit.

    Guarantee: `value` is optimal up to HiGHS's tolerance of 1e-7 on reduced costs; no total is exceeded by more than
    rounding.

    References:
        Caffarelli & McCann 2010, Free boundaries in optimal transport; Figalli 2010. POT's `partial_wasserstein`.

    Examples:
        >>> from kofn.assignment import partial_transport
        >>> plan = partial_transport([[-1.0, -9.0], [-9.0, -2.0], [-50.0, -60.0]], column_totals=[1, 1], mass=2)
        >>> plan.labels.tolist(), plan.value
        ([0, 1, -1], -3.0)
    """
    table = np.ascontiguousarray(score_table(scores), np.float64)
    n, bins = table.shape
    r, c = side_totals(row_totals, "row_totals", n, 1.0), side_totals(column_totals, "column_totals", bins, n / bins)
    most = min(math.fsum(r.tolist()), math.fsum(c.tolist()))
    if mass is not None and (not checks.is_number(mass) or not 0 < mass <= most * (1 + 1e-9)):
        raise InputError(f"mass={mass!r}: give a number > 0, at most {most:g}, the lesser of the sides' sums")
    sent = most if mass is None else min(float(mass), most)
    costs = np.zeros((n + 1, bins + 1))
    costs[:n, :bins] = -table
    costs[n, bins] = np.inf
    with Control(time_limit=time_limit) as control:
        vertex = _solve(costs, r, c, sent, control.stopped)
        if vertex.missed and mass is None:
            # The largest mass that the listed entries carry.
            sent -= vertex.missed * _whole_mass(r, c, sent)
            if sent <= _ROUNDING * most:
                return _of(table, None, (np.zeros(n), np.zeros(bins)), 0.0, 0.0)
            vertex = _solve(costs, r, c, sent, control.stopped)
    if vertex.missed:
        raise InfeasibleError(
            f"scores: the entries that are listed cannot carry a mass of {sent:g} within the totals; "
            "list more entries, or ask for less"
        )
    # What stays out is sent to a bin, and by an item, that are not there.
    u, v = vertex.v[bins] * -1.0 - vertex.u[:n], -vertex.u[n] - vertex.v[:bins]
    price = float(vertex.v[bins] + vertex.u[n])
    return _of(table, vertex, (u, v), price, float(r @ u + c @ v + price * sent))


def _solve(costs: Floats, r: Floats, c: Floats, mass: float, stopped: Callable[[], bool]) -> Vertex:
    """Send the mass among the items and bins, and the rest of either side to a bin, and from an item, more."""
    rest = [max(0.0, math.fsum([*side.tolist(), -mass])) for side in (c, r)]
    return solve(costs, np.append(r, rest[0]), np.append(c, rest[1]), stopped)


def _of(
    table: Floats, sent: tuple[Ints, Ints, Floats], potentials: tuple[Floats, Floats], price: float, dual: float
) -> Assignment:
    """The plan of these entries (rows, columns, masses), with its prices and the dual value."""
    n, bins = table.shape
    row, column, weights = (part[sent[2] > 0] for part in sent)
    terms = weights * table[row, column]
    value = float(terms.sum())
    bound = max(value, dual)
    near = bound - value <= 1e-6 * float(np.abs(terms).sum())
    return Assignment.from_pairs(
        row,
        column,
        weights,
        n=n,
        k=bins,
        value=value,
        sense="max",
        bound=bound,
        status="optimal" if near else "approximate",
        u=potentials[0],
        v=potentials[1],
        objective="partial_transport",
        info={"mass": math.fsum(weights.tolist()), "price": price},
    )
