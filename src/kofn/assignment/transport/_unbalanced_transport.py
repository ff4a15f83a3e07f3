"""Unbalanced optimal transport: totals may be missed at a price, one side may be free; scalings in the log domain."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.assignment.routing._scores import score_table
from kofn.assignment.transport._joint import side_totals
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Progress

# Default regularisation, as a share of the range of the scores.
_SOFT = 0.01
# Sweeps between two comparisons of the value with the bound.
_LOOK = 10
# Where terms cancel to less than this share of their sizes, the error is held to the value itself.
_CANCELLED = 50.0
# Share of the terms' sizes that rounding takes.
_ROUNDING = 1e-14


@method(
    "assign",
    draws=Draw(options={"reg_m": "reg_m"}, units={"reg": "input", "reg_m": "input"}),
    cost="O(n bins) a sweep, one exponential an entry; memory 40 n bins bytes",
    exact="value and bound, which meet up to `tol`",
    paper="chizat2018",
    aliases=("unbalanced optimal transport", "semi-relaxed transport", "free margins"),
)
def unbalanced_transport(
    scores: Any,
    *,
    row_totals: Any = None,
    column_totals: Any = None,
    time_limit: float | None = None,
    progress: Progress = None,
    reg: float | None = None,
    reg_m: Any = None,
    tol: float = 1e-11,
    max_sweeps: int = 100_000,
) -> Assignment:
    """Unbalanced optimal transport: totals may be missed at a price, one side may be free; scalings in the log domain.

    For costs give `scores=-costs`. With totals r and c, and KL(x | y) = sum x log(x / y) - x + y, it maximises

        sum P scores - reg KL(P | r c') - reg_m[0] KL(row sums | r) - reg_m[1] KL(column sums | c)

    Args:
        scores: (n, bins), higher is better; -inf where an item may not go.
        row_totals: (n,) what each item should send, >= 0, default 1.
        column_totals: (bins,) what each bin should receive, >= 0, default n / bins.
        time_limit: seconds; the plan reached by then is returned, status "stopped".
        progress: True shows how far the work is; a callable is told each step.
        reg: the weight of the entropy, > 0, in units of the scores; default a hundredth of their range.
        reg_m: what missing the totals costs, in units of the scores: a number, or one for the rows and one for the
            columns; infinity holds them exactly (on one side), 0 sets them free. Default the range of the scores, or
            the size of the largest where that is more.
        tol: ends once value and bound differ by less than this share of the terms' sizes, and by less than 50 times as
            large a share of the value, where the terms cancel.
        max_sweeps: most sweeps.

    Returns:
        An `Assignment` whose `weights` are the plan (entries that underflow to 0 left out); `value` is the sum above,
        `bound` its dual, which no plan exceeds; status "optimal" where they meet, "stopped" at a limit. `u`, `v` are
        potentials: the plan is r c' exp((scores - u - v) / reg). `info`: transport = sum P scores, mass, sweeps.

    Raises:
        InputError: scores that are not (n, bins), totals of another length, an option out of range, infinity on both
            sides (`sinkhorn_newton_sparse` holds both margins), a penalty so small that the best mass is beyond floats.
        InfeasibleError: infinity on a side some of whose totals list nothing.

    Cost: O(n bins) a sweep; the error falls by reg_m / (reg_m + reg) of each side, squared or multiplied.

    Guarantee: value <= optimum <= bound at any stop; an exact side holds up to rounding.

    References:
        Chizat, Peyre, Schmitzer & Vialard 2018, Scaling algorithms for unbalanced optimal transport problems,
        Mathematics of Computation 87.

    Examples:
        >>> from kofn.assignment import unbalanced_transport
        >>> costs = [[0.0, 4.0], [4.0, 0.0], [9.0, 9.0]]
        >>> plan = unbalanced_transport([[-x for x in row] for row in costs], reg=0.1, reg_m=1.0)
        >>> plan.row_margin.round(2).tolist()
        [1.24, 1.24, 0.0]
    """
    table = np.ascontiguousarray(score_table(scores), np.float64)
    n, bins = table.shape
    r, c = side_totals(row_totals, "row_totals", n, 1.0), side_totals(column_totals, "column_totals", bins, n / bins)
    listed = table[table > -np.inf]
    largest = float(np.abs(listed).max(initial=0.0))
    span = (float(np.ptp(listed)) if len(listed) else 0.0) or largest or 1.0
    reg = _SOFT * span if reg is None else checks.number(reg, "reg")
    if not reg > 0:
        raise InputError(f"reg={reg!r}: give a number > 0; `partial_transport` has no entropy")
    penalties = _penalties(reg_m, max(span, largest))
    tol = checks.fraction(tol, "tol", low=1e-14, high=1.0)
    checks.count(max_sweeps, "max_sweeps")
    open_ = (table > -np.inf) & (r > 0)[:, None] & (c > 0)
    rows, columns = np.flatnonzero(open_.any(axis=1)), np.flatnonzero(open_.any(axis=0))
    shut = [math.fsum(np.delete(totals, kept).tolist()) for totals, kept in ((r, rows), (c, columns))]
    for side, penalty, total in zip(("row", "column"), penalties, shut, strict=True):
        if penalty == math.inf and total > 0:
            raise InfeasibleError(f"{side}s with a total of {total:g} list no entry; list some, or give a finite reg_m")
    # What lists nothing misses all of its total, whatever the plan.
    constant = -reg * (math.fsum(r.tolist()) * math.fsum(c.tolist()) - float(r[rows].sum() * c[columns].sum()))
    constant -= sum(penalty * total for penalty, total in zip(penalties, shut, strict=True) if total > 0)
    state = _Scaling(table[np.ix_(rows, columns)], r[rows], c[columns], reg, penalties)
    done, sweeps = False, 0
    with Control(time_limit=time_limit, progress=progress, title="sweeps") as control:
        while not done and sweeps < max_sweeps:
            state.sweep()
            sweeps += 1
            if sweeps % _LOOK == 0 or sweeps == 1:
                control.step(sweeps)
                plan = state.plan()
                value, size = state.value(plan)
                done = math.isfinite(value) and _met(value, state.bound(), size, tol)
            if control.stopped():
                break
    plan = state.plan()
    value, size = state.value(plan)
    if not math.isfinite(value):
        raise InputError(
            f"reg_m={penalties!r}: scores of up to {largest:g} send a mass beyond floats at this penalty; raise reg_m, "
            "or subtract a constant from the scores"
        )
    bound = max(value, state.bound())
    met = _met(value, bound, size, max(tol, 1e-12))
    bound = value if met else bound
    i, j = np.nonzero(plan)
    u, v = np.zeros(n), np.zeros(bins)
    u[rows], v[columns] = state.f, state.g
    return Assignment.from_pairs(
        rows[i],
        columns[j],
        plan[i, j],
        n=n,
        k=bins,
        value=value + constant,
        sense="max",
        bound=bound + constant if math.isfinite(bound) else None,
        status="optimal" if met else "stopped",
        u=u,
        v=v,
        objective="unbalanced_transport",
        info={
            "reg": reg,
            "reg_m": penalties,
            "transport": float((plan[i, j] * state.scores[i, j]).sum()),
            "mass": float(plan.sum()),
            "sweeps": sweeps,
        },
    )


def _met(value: float, bound: float, size: float, tol: float) -> bool:
    """Whether value and bound are one: to a share of the terms' sizes, and of what these leave where they cancel."""
    return bound - value <= max(tol * min(size, _CANCELLED * abs(value)), _ROUNDING * size)


def _penalties(reg_m: Any, usual: float) -> tuple[float, float]:
    """What missing the totals of the rows and of the columns costs."""
    given: Any = usual if reg_m is None else reg_m
    several = (
        given.ndim > 0 if isinstance(given, np.ndarray) else isinstance(given, Sequence) and not isinstance(given, str)
    )
    pair = tuple(given) if several else (given, given)
    if len(pair) != 2 or not all(checks.is_number(part) and part >= 0 for part in pair):
        raise InputError(
            f"reg_m={checks.shown(reg_m)}: give a number >= 0, or one for the rows and one for the columns"
        )
    if min(pair) == math.inf:
        raise InputError("reg_m is infinite on both sides; method='sinkhorn_newton_sparse' holds both margins")
    return float(pair[0]), float(pair[1])


class _Scaling:
    """Potentials f of the rows and g of the columns, each the best for the other."""

    def __init__(self, scores: Floats, r: Floats, c: Floats, reg: float, penalties: tuple[float, float]) -> None:
        self.scores, self.r, self.c, self.reg, self.penalties = scores, r, c, reg, penalties
        self.f, self.g = np.zeros(len(r)), np.zeros(len(c))

    def sweep(self) -> None:
        """The columns' potentials for the rows', then the rows'; an exact side comes last, so that it holds."""
        for side in (1, 0) if self.penalties[0] >= self.penalties[1] else (0, 1):
            penalty = self.penalties[side]
            share = 1.0 if penalty == math.inf else penalty / (penalty + self.reg)
            if side:
                self.g = share * _soft_most((self.scores - self.f[:, None]).T, self.r, self.reg)
            else:
                self.f = share * _soft_most(self.scores - self.g, self.c, self.reg)

    def plan(self) -> Floats:
        """r c' exp((scores - f - g) / reg)."""
        with np.errstate(over="ignore"):
            out = np.exp((self.scores - self.f[:, None] - self.g) / self.reg)
            out *= self.r[:, None] * self.c
        return np.asarray(out)

    def value(self, plan: Floats) -> tuple[float, float]:
        """The value of a plan of these potentials, and the sum of its terms' sizes; infinite where its mass is."""
        sent = plan > 0
        if not math.isfinite(plan.sum()):
            return -math.inf, math.inf
        scored = float((plan[sent] * self.scores[sent]).sum())
        # On such a plan reg log(P / (r c')) is scores - f - g.
        moved = float((plan[sent] * (self.scores - self.f[:, None] - self.g)[sent]).sum())
        product = float(self.r.sum() * self.c.sum())
        terms = [scored, -moved, self.reg * float(plan.sum()), -self.reg * product]
        for axis, totals, penalty in ((1, self.r, self.penalties[0]), (0, self.c, self.penalties[1])):
            if penalty not in (0.0, math.inf):
                terms.append(-penalty * _divergence(plan.sum(axis=axis), totals))
        return math.fsum(terms), math.fsum(map(abs, terms))

    def bound(self) -> float:
        """The dual value of these potentials: whatever they are, no plan is worth more."""
        mass = float((self.r[:, None] * self.c * np.exp((self.scores - self.f[:, None] - self.g) / self.reg)).sum())
        terms = [self.reg * mass, -self.reg * float(self.r.sum() * self.c.sum())]
        for potential, totals, penalty in ((self.f, self.r, self.penalties[0]), (self.g, self.c, self.penalties[1])):
            if penalty == math.inf:
                terms.append(float(totals @ potential))
            elif penalty > 0:
                with np.errstate(over="ignore"):
                    terms.append(penalty * float(totals @ np.expm1(potential / penalty)))
        return math.fsum(terms) if all(map(math.isfinite, terms)) else math.inf


def _soft_most(table: Floats, weights: Floats, reg: float) -> Floats:
    """reg log of the weighted sum of exp(table / reg) along each row."""
    if table.size == 0:
        return np.zeros(len(table))
    top = table.max(axis=1)
    top = np.where(top > -np.inf, top, 0.0)
    sums = np.exp((table - top[:, None]) / reg) @ weights
    with np.errstate(divide="ignore"):
        return np.asarray(top + reg * np.log(sums))


def _divergence(x: Floats, y: Floats) -> float:
    """KL(x | y) = sum x log(x / y) - x + y."""
    sent = x > 0
    return float((x[sent] * np.log(x[sent] / y[sent])).sum() - x.sum() + y.sum())
