"""Partial optimal transport: only a given mass is sent, at most each side's totals, for the largest score; exact."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from kofn.assignment.routing._scores import score_table
from kofn.assignment.transport._joint import side_totals
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.engines.network_simplex import Vertex, cheapest_plan

# A share of the totals that rounding of their sums explains.
_ROUNDING = 2.0**-48


@method(
    "assign",
    cost="a network simplex: sqrt(n bins) entries and part of a tree a pivot, 1,000 x 1,000 in a second; 32 n bins B",
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
    time_limit: float | None = None,
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
        time_limit: seconds; the plan of this mass that is reached by then is returned, status "stopped".

    Returns:
        An `Assignment` whose `weights` are the plan, row by row. `value` is sum P scores, `bound` the dual value, which
        no plan exceeds. `u`, `v` are the prices of the totals (>= 0) and `info["price"]` what the last unit of mass
        adds: u + v + price >= scores, equal where something is sent. `info["pivots"]` counts the steps of the network
        simplex, `info["idle_pivots"]` those that moved no mass.

    Raises:
        InputError: scores that are not (n, bins), totals of another length, a mass beyond either side's sum.
        InfeasibleError: the entries that are listed cannot carry the mass.

    Cost: one more item and bin take up what stays out; an exact transport by the network simplex, as with
    `sinkhorn_newton_sparse` and `reg=0`: a second where n and bins are 2,000.

    Guarantee: `value` is optimal up to rounding; no total is exceeded by more than rounding.

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
            sent -= vertex.missed * math.fsum([*r.tolist(), *c.tolist(), -sent])
            if sent <= _ROUNDING * most:
                return _of(table, None, (np.zeros(n), np.zeros(bins)), 0.0, 0.0)
            vertex = _solve(costs, r, c, sent, control.stopped)
    if vertex.missed:
        raise InfeasibleError(
            f"scores: the entries that are listed cannot carry a mass of {sent:g} within the totals; "
            "list more entries, or ask for less"
        )
    # What stays out is sent to a bin, and by an item, that are not there.
    u, v = -vertex.v[bins] - vertex.u[:n], -vertex.u[n] - vertex.v[:bins]
    price = float(vertex.v[bins] + vertex.u[n])
    return _of(table, vertex, (u, v), price, float(r @ u + c @ v + price * sent))


def _solve(costs: Floats, r: Floats, c: Floats, mass: float, stopped: Callable[[], bool]) -> Vertex:
    """Send the mass among the items and bins, and the rest of either side to a bin, and from an item, more."""
    rest = [max(0.0, math.fsum([*side.tolist(), -mass])) for side in (c, r)]
    return cheapest_plan(costs, np.append(r, rest[0]), np.append(c, rest[1]), stopped, slack=_ROUNDING)


def _of(
    table: Floats, vertex: Vertex | None, potentials: tuple[Floats, Floats], price: float, dual: float
) -> Assignment:
    """The vertex between the items and bins of the table, with its prices and the dual value."""
    n, bins = table.shape
    row, column, weights = np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    counts, ended = {"pivots": 0, "idle_pivots": 0}, True
    if vertex is not None:
        inside = (vertex.row < n) & (vertex.column < bins)
        row, column, weights = vertex.row[inside], vertex.column[inside], vertex.mass[inside]
        counts, ended = {"pivots": vertex.pivots, "idle_pivots": vertex.idle}, vertex.optimal
    terms = weights * table[row, column]
    value = float(terms.sum())
    bound = max(value, dual)
    near = bound - value <= 1e-9 * float(np.abs(terms).sum()) + 1e-12 * abs(dual)
    return Assignment.from_pairs(
        row,
        column,
        weights,
        n=n,
        k=bins,
        value=value,
        sense="max",
        bound=bound,
        status="optimal" if near else "approximate" if ended else "stopped",
        u=potentials[0],
        v=potentials[1],
        objective="partial_transport",
        info={"mass": math.fsum(weights.tolist()), "price": price, **counts},
    )
