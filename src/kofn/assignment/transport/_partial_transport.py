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
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method

# Scores that are this many times farther below the highest than the others stand for "never".
_NEVER = 1e4


@method(
    "assign",
    draws=Draw(silent=("certified",)),
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
    from scipy.optimize import linprog
    from scipy.sparse import coo_array, vstack

    table = np.ascontiguousarray(score_table(scores), np.float64)
    n, bins = table.shape
    r, c = side_totals(row_totals, "row_totals", n, 1.0), side_totals(column_totals, "column_totals", bins, n / bins)
    most = min(math.fsum(r.tolist()), math.fsum(c.tolist()))
    if mass is not None and (not checks.is_number(mass) or not 0 < mass <= most * (1 + 1e-9)):
        raise InputError(f"mass={mass!r}: give a number > 0, at most {most:g}, the lesser of the sides' sums")
    row, column = np.nonzero((table > -np.inf) & (r > 0)[:, None] & (c > 0))
    entry, ones = np.arange(len(row)), np.ones(len(row))
    sums: Any = vstack(
        [coo_array((ones, (row, entry)), (n, len(row))), coo_array((ones, (column, entry)), (bins, len(row)))]
    )
    # In units of the mass, so that HiGHS's absolute tolerances are shares of it.
    within = {"A_ub": sums.tocsr(), "b_ub": np.concatenate([r, c]) / most, "method": "highs"}
    if mass is None and len(row) < n * bins:
        most *= -float(linprog(-ones, **within).fun) if len(row) else 0.0
    unit = most if mass is None else min(float(mass), most)
    if unit == 0:
        return _of(table, (row[:0], column[:0], ones[:0]), (np.zeros(n), np.zeros(bins)), 0.0, 0.0)
    within["b_ub"] = np.concatenate([r, c]) / unit
    kept = table[row, column]
    # Only where rounding made the most that can be sent unreachable is a last sliver of it left.
    shares = [1.0] if mass is not None else [1.0, 1.0 - 1e-9]
    solved = None
    for values in _as_solved(kept, n + bins):
        size = float(np.abs(values).max(initial=0.0)) or 1.0
        for share in shares if len(row) else ():
            solved = linprog(-values / size, A_eq=ones[None], b_eq=[share], **within)
            if solved.status != 2:
                break
        if solved is not None and solved.x is not None and not (solved.x[values > kept] > 0).any():
            break  # nothing is sent where the score was raised: the plan is optimal for the scores as they are
    if solved is None or solved.status == 2:
        raise InfeasibleError(
            f"scores: the entries that are listed cannot carry a mass of {unit:g} within the totals; "
            "list more entries, or ask for less"
        )
    if solved.x is None:
        raise FailureError(f"HiGHS found no plan ({' '.join(str(solved.message).split())[:80]}); rescale the scores")
    weights = np.maximum(solved.x, 0.0) * unit
    # The program holds totals to an absolute tolerance only.
    for side, totals in ((row, r), (column, c)):
        weights *= np.minimum(1.0, totals / np.maximum(np.bincount(side, weights, len(totals)), 1e-300))[side]
    prices = np.maximum(-solved.ineqlin.marginals, 0.0) * size
    u, v = prices[:n], prices[n:]
    price = float((kept - u[row] - v[column]).max())
    return _of(table, (row, column, weights), (u, v), price, float(r @ u + c @ v + price * unit))


def _as_solved(scores: Floats, longest: int) -> list[Floats]:
    """The scores as they are; before them, where some stand for "never", those raised as far as makes no difference.

    HiGHS holds costs to a share of the largest, beside which the others would be nothing. A score that is below all
    others by more than the longest exchange can win is never used where it need not be, however far below it is.
    """
    below = np.sort(float(scores.max(initial=0.0)) - scores)
    apart = np.flatnonzero((below[:-1] > 0) & (below[1:] > _NEVER * below[:-1]))
    if not len(apart):
        return [scores]
    floor = float(scores.max()) - 4.0 * longest * below[apart[0]]
    return [np.maximum(scores, floor), scores]


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
