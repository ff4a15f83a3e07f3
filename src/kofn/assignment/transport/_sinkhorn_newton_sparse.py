"""Entropic optimal transport by Sinkhorn and sparse Newton steps: largest score plus `reg` times entropy."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.routing._flows import transport
from kofn.assignment.routing._scores import score_table
from kofn.assignment.transport._entropic import range_of
from kofn.assignment.transport._joint import margin_totals
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InfeasibleError, InputError, bin_name, item_name
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.engines.network_simplex import Vertex, cheapest_plan
from kofn.engines.threads import linear_algebra

# Default regularisation, as a share of the range of the scores.
_SOFT = 0.01
# Tables of at most so many entries are known to have room within milliseconds; scalings would not end where not.
_CHECKED_FIRST = 10_000
# Totals below this share of all are no part of any sum of doubles.
_UNSEEN = 1e-100
# From so many items of one total a bin on, a flow among the bins is faster than pivots among items and bins.
_FEW = 16
# Totals are sums of doubles up to this share of the mass.
_ROUNDING = 2.0**-50
# Below this share of the range of the scores the plan without entropy is solved first, from whose prices potentials are
# small; where there is none, below this one the doubles of two potentials cannot tell plans apart.
_LITTLE, _FINEST = 1e-6, 1e-9
# The same for tables of few entries, whose plan without entropy takes no time; and for others where so many of Newton's
# steps were not enough.
_LITTLE_OF_FEW, _FEW_ENTRIES, _MANY_STEPS = 1e-2, 1 << 10, 200
# Entries of a table that are looked at together.
_ENTRIES_AT_ONCE = 1 << 16
# Rows that share what is left of a column at a time.
_TAKERS_AT_ONCE = 1 << 12


@method(
    "assign",
    traits=("sandwich",),
    draws=Draw(units={"reg": "input"}),
    cost="O(n bins) a sweep or a Newton step, some tens of them; memory 80 n bins bytes",
    exact="the soft plan to `tol`, then rounded: margins exactly, value and bound told",
    paper=103,
)
def sinkhorn_newton_sparse(
    scores: Any,
    *,
    margins: Any = None,
    time_limit: float | None = None,
    reg: float | None = None,
    tol: float = 1e-9,
    rounded: bool = True,
    sweeps: int = 20,
    newton: bool = True,
    density: float | None = None,
    max_steps: int = 5000,
) -> Assignment:
    """Entropic optimal transport by Sinkhorn and sparse Newton steps: largest score plus `reg` times entropy.

    For costs give `scores=-costs`. Sinkhorn's scalings are coordinate ascent on the concave dual and slow down as `reg`
    falls. After a few of them the plan, hence the dual's Hessian, is nearly sparse, and Newton steps with a sparse
    Hessian and conjugate gradients finish in a handful of passes over the table.

    Args:
        scores: (n, bins), higher is better; -inf where an item may not go.
        margins: (row totals (n,), column totals (bins,)), >= 0, of one sum. By default every item has total
            1 and every bin n/bins.
        time_limit: seconds; the plan reached by then is returned, status "stopped".
        reg: the weight of the entropy, in units of the scores. Any positive number works without overflow. One below
            some 1e-12 of the scores that carry mass cannot be told from 0 in float64: the plan is then of the least
            that can, which a warning and `info["reg"]` name (`info["reg_asked"]` is what was given). 0 is transport
            without entropy, solved exactly: by a network simplex (1,000 x 1,000 in a quarter of a second), or by the
            flow of `balanced_assignment` where many items of one total go to few bins that each hold a whole number.
            Default: a hundredth of the range.
        tol: total error of the margins before rounding, as a share of the mass.
        rounded: round the plan so that the margins hold exactly. Where -inf entries leave no room, the plan stays
            within `tol` (`info["margin_error"]`).
        sweeps: Sinkhorn sweeps before the Newton steps, at each regularisation on the way.
        newton: False runs plain Sinkhorn, at most 1,000 x `max_steps` sweeps.
        density: the largest share of the plan's entries that enters the Hessian (the paper takes 2/n to 15/n). By
            default every entry that matters at the current error does.
        max_steps: most Newton steps.

    Returns:
        An `Assignment` whose `weights` are the plan, (row by row, entries that underflow to 0 left out: up to
        n x bins of them, 12 bytes each). `value` is sum P scores + reg x H(P), H(P) = -sum P log P; `bound` is the dual
        value, which no plan of these margins exceeds. `u` and `v` are potentials: the plan before rounding is
        exp((scores - u - v) / reg), the lowest v is 0, and a new item with scores s goes to the bins in proportion to
        exp((s - v) / reg), without solving again; they are infinite where a total is 0. `info` has the parts,
        `transport` = sum P scores and `entropy`, and `transport_bound`, which no plan's sum P scores exceeds,
        regularised or not; `sweeps`, `newton_steps`, `conjugate_steps`, `kept` (the largest share of entries in a
        Hessian), `margin_error` (of what is returned) and `solved_to` (before rounding). With `reg=0` it has, instead
        of sweeps and steps, `pivots` of the network simplex and `idle_pivots`, those that moved no mass.

    Raises:
        InfeasibleError: an item or bin with a total that lists nothing; items whose bins cannot hold their totals.
        InputError: scores that are not (n, bins), margins of other lengths or sums, an option out of range.

    Cost: O(n bins) a sweep or a step; one exponential of the table a regularisation. Small regularisations are
    approached through larger ones, a factor of four apart; those below a millionth of the scores' range from the plan
    without entropy, whose prices are taken off the scores first. Memory: 80 bytes an entry where the plan is full,
    less the sparser it is. With `reg=0` a pivot prices some sqrt(n bins) entries and visits a part of a tree of n +
    bins nodes; there are some 10 pivots a node, and memory is 32 bytes an entry.

    Guarantee: with `rounded` both margins hold up to the rounding of float64 sums, and value <= optimum <= bound,
    whatever `tol` is. The dual rises with every sweep and every step.

    References:
        Tang et al. 2024 (arXiv 2401.12253): few sweeps, then Newton with the largest entries of the Hessian. Here the
        rows are eliminated (a Sinkhorn half step), the diagonal is that of the whole plan, which keeps the matrix
        semidefinite, and what is left out shrinks with the error. Scaling of the regularisation and the log domain:
        Schmitzer 2019. Rounding: Altschuler, Weed & Rigollet 2017, algorithm 2. Without entropy: Cunningham 1976, A
        network simplex method; block search: Kovács 2015, Minimum-cost flow algorithms: an experimental evaluation.

    Examples:
        >>> import numpy as np
        >>> from kofn.assignment import sinkhorn_newton_sparse
        >>> plan = sinkhorn_newton_sparse([[3.0, 1.0], [2.0, 1.5], [2.0, 0.0], [1.0, 0.5]], reg=0.1)
        >>> plan.labels.tolist(), plan.row_margin.round(9).tolist(), plan.col_margin.round(9).tolist()
        ([0, 1, 0, 1], [1.0, 1.0, 1.0, 1.0], [2.0, 2.0])
    """
    scores = score_table(scores)
    tol = checks.fraction(tol, "tol", low=1e-14, high=1.0)
    checks.flag(rounded, "rounded")
    checks.flag(newton, "newton")
    if density is not None:
        density = checks.fraction(density, "density")
    table = np.ascontiguousarray(scores, np.float64)
    reg = _regularisation(table, reg)
    r, c = margin_totals(margins, *table.shape)
    total = math.fsum(r.tolist())
    _refuse_unlisted(table, r, c)
    if reg == 0:
        return _exact(table, r, c, time_limit)
    if table.size <= _CHECKED_FIRST:
        _refuse_infeasible(table, r, c)
    # Totals that no sum of doubles would notice are left aside, as totals of zero are.
    rows, columns = np.flatnonzero(r > _UNSEEN * total), np.flatnonzero(c > _UNSEEN * total)
    inner = table if len(rows) == len(r) and len(columns) == len(c) else table[np.ix_(rows, columns)]
    solved = _solve(
        inner,
        r[rows] / total,
        c[columns] / total,
        reg,
        time_limit=time_limit,
        tol=tol,
        sweeps=checks.count(sweeps, "sweeps", least=1),
        density=density,
        newton=newton,
        most=checks.count(max_steps, "max_steps", least=1) * (1 if newton else 1000),
    )
    if solved.off > max(tol, 1e-6):
        _refuse_infeasible(table, r, c)
    plan = solved.plan
    plan *= total
    top, u = _row_potentials(solved.scores, solved.moves, r[rows], solved.reg)
    v = solved.v + solved.moves
    transport_bound = float(r[rows] @ (solved.u + top) + c[columns] @ v)
    lowest = float(v.min())
    if rounded:
        _round(plan, r[rows], c[columns], inner)
    potentials = solved.u + u + lowest, v - lowest
    margins, where = (r, c), (rows, columns)
    assignment = _as_plan(inner, margins, where, potentials, solved, plan, transport_bound, met=solved.off <= tol)
    return assignment if solved.reg == reg else _as_told(assignment, reg)


@dataclass(frozen=True)
class _Solved:
    """A plan of shares, off by `off` in all, of scores less the prices u and v; `moves` are the columns' potentials of
    these, and `reg` is what was solved for."""

    scores: Floats
    u: Floats
    v: Floats
    moves: Floats
    reg: float
    plan: Floats
    off: float
    counts: Any


def _solve(scores: Floats, r: Floats, c: Floats, reg: float, *, time_limit: float | None, **how: Any) -> _Solved:
    """The plan and the columns' potentials; the longer side is eliminated."""
    from kofn.assignment.transport import _entropic, _little_entropy
    from kofn.core.runtime import Control

    c = c / math.fsum(c.tolist()) * math.fsum(r.tolist())
    turned = len(r) < len(c)
    if turned:
        scores, r, c = np.ascontiguousarray(scores.T), c, r
    u, v, used, span = np.zeros(len(r)), np.zeros(len(c)), reg, range_of(scores)
    early = 0 < reg < (_LITTLE_OF_FEW if how["newton"] and scores.size <= _FEW_ENTRIES else _LITTLE) * span
    late = not early and how["newton"] and reg < _LITTLE_OF_FEW * span
    if early:
        # What all scores of a row or column share has no part in the plan.
        u = scores.max(axis=1)
        scores = scores - u[:, None]
        v = scores.max(axis=0)
        scores -= v
        span = range_of(scores)
    # Kernel-vector products are memory-bound: a second thread only changes the order of the sums.
    with Control(time_limit=time_limit) as control, linear_algebra(1, "blas"):
        how["left"] = control.left
        used, solved, exact = max(reg, _FINEST * span), None, None
        if early and span:
            exact = _little_entropy.Reduced.of(scores, r, c, control.stopped)
        elif late:
            solved = _entropic.solve(scores, r, c, used, **{**how, "most": min(how["most"], _MANY_STEPS)})
            if solved[3] > how["tol"] and not control.stopped():
                exact, solved = _little_entropy.Reduced.of(scores, r, c, control.stopped), None
        if exact is not None:
            scores, u, v, used = exact.scores, u + exact.u, v + exact.v, max(reg, exact.finest)
            solved = _little_entropy.solve(exact, r, c, used, **how)
        elif solved is None and span:
            solved = _entropic.solve(scores, r, c, used, **how)
        elif solved is None:
            # Scores that are all the same ask for the same plan whatever `reg` is.
            used = reg
            solved = _entropic.solve(np.where(scores > -np.inf, 0.0, -np.inf), r, c, 1.0, **how)
            solved = (reg * solved[0], reg * solved[1], *solved[2:])
    rows, columns, plan, off, counts = solved
    if turned:
        return _Solved(np.ascontiguousarray(scores.T), v, u, rows, used, np.ascontiguousarray(plan.T), off, counts)
    return _Solved(scores, u, v, columns, used, plan, off, counts)


def _as_told(plan: Assignment, reg: float) -> Assignment:
    """Say that `reg` was too small, and which one the plan is of."""
    used = plan.info["reg"]
    checks.warn(
        f"reg={reg:g} is below what float64 can tell from 0 beside these scores: the plan is that of reg={used:.3g}; "
        "give reg=0 for transport without entropy, or -inf for scores that mean never"
    )
    return replace(plan, info={**plan.info, "reg_asked": reg})


def _row_potentials(scores: Floats, v: Floats, r: Floats, reg: float) -> tuple[Floats, Floats]:
    """The rows' best potentials for these of the columns: without entropy, and with it, at which totals are exact."""
    top, u = np.empty(len(r)), np.empty(len(r))
    for part in _blocks(*scores.shape):
        table = scores[part] - v
        best = top[part] = table.max(axis=1)
        table -= best[:, None]
        with np.errstate(over="ignore"):
            table /= reg
        np.exp(table, out=table)
        u[part] = best + reg * np.log(table.sum(axis=1) / r[part])
    return top, u


def _blocks(n: int, bins: int) -> Iterator[slice]:
    """Rows at a time, so that what is computed of their entries stays in the cache."""
    step = max(1, _ENTRIES_AT_ONCE // bins)
    for low in range(0, n, step):
        yield slice(low, low + step)


def _regularisation(table: Floats, reg: Any) -> float:
    if reg is not None:
        if not checks.is_number(reg) or not math.isfinite(reg) or reg < 0:
            raise InputError(f"reg={reg!r}: give a number >= 0, in units of the scores")
        return float(reg)
    return _SOFT * range_of(table) or 1.0


def _refuse_unlisted(table: Floats, r: Floats, c: Floats) -> None:
    listed = table > -np.inf
    if listed.all():
        return
    listed &= (r > 0)[:, None] & (c > 0)
    for side, totals, empty in (("row", r, ~listed.any(axis=1)), ("column", c, ~listed.any(axis=0))):
        stuck = np.flatnonzero(empty & (totals > 0))
        if len(stuck):
            name = item_name(stuck[0]) if side == "row" else bin_name(stuck[0])
            raise InfeasibleError(
                f"the scores of {name} are all -inf where there is anything to share ({len(stuck)} such "
                f"{side}s), and its total is {totals[stuck[0]]:g}; list an entry, or set the total to 0"
            )


def _refuse_infeasible(table: Floats, r: Floats, c: Floats) -> None:
    """Refuse totals that the listed entries cannot carry, naming the rows whose bins have too little room."""
    if (table > -np.inf).all():
        return
    vertex = cheapest_plan(np.where(table > -np.inf, 0.0, np.inf), r, c)
    if vertex.missed:
        _refuse_missed(table, r, c, vertex)


def _refuse_missed(table: Floats, r: Floats, c: Floats, vertex: Vertex) -> NoReturn:
    inside = np.flatnonzero(vertex.stuck(r, c))
    bins = np.flatnonzero((table[inside] > -np.inf).any(axis=0))
    names = ", ".join(map(str, inside[:5])) + (", ..." if len(inside) > 5 else "")
    raise InfeasibleError(
        f"margins: rows {names} have {r[inside].sum():g} in total, and the bins that they list hold "
        f"{c[bins].sum():g}: {vertex.missed * math.fsum(r.tolist()):g} too little; list more bins, or change the totals"
    )


def _round(plan: Floats, r: Floats, c: Floats, table: Floats) -> None:
    """Scale down the excess and redistribute the deficit: both margins hold exactly, moving at most twice the error."""
    plan *= np.minimum(1.0, r / np.maximum(plan.sum(axis=1), np.finfo(np.float64).tiny))[:, None]
    plan *= np.minimum(1.0, c / np.maximum(plan.sum(axis=0), np.finfo(np.float64).tiny))
    want, room = np.maximum(r - plan.sum(axis=1), 0.0), np.maximum(c - plan.sum(axis=0), 0.0)
    if len(r) < len(c):
        plan, table, want, room = plan.T, table.T, room, want
    # First where the plan has mass: an entry of none may cost more than all others together.
    for carries, least in ((plan > 0, 0.0), (table > -np.inf, _ROUNDING * math.fsum(r.tolist()))):
        short = np.flatnonzero(want > least)
        for j in np.flatnonzero(room) if len(short) else ():
            for low in range(0, len(short), _TAKERS_AT_ONCE):
                takers = short[low : low + _TAKERS_AT_ONCE]
                takers = takers[carries[takers, j]]
                free = want[takers]
                given = np.clip(room[j] - (np.cumsum(free) - free), 0.0, free)
                plan[takers, j] += given
                want[takers] -= given
                room[j] -= min(room[j], float(given.sum()))
                if (given < free).any():
                    break
            short = short[want[short] > least]


def _exact(table: Floats, r: Floats, c: Floats, time_limit: float | None) -> Assignment:
    """Transport without entropy: an optimal vertex, and prices that prove it."""
    from kofn.core.runtime import Control

    n, bins = table.shape
    if time_limit is None and n >= _FEW * bins and (r == r[0]).all():
        slots = np.rint(c / r[0])
        if slots.sum() == n and np.allclose(slots * r[0], c, rtol=1e-12, atol=0.0):
            sizes = slots.astype(np.int64)
            labels, prices = transport(table, sizes, sizes)
            rows = np.arange(n)
            u = table[rows, labels] - prices[labels]
            return _vertex(table, r, c, (rows, labels.astype(np.int64), r), (u, prices), {})
    with Control(time_limit=time_limit) as control:
        vertex = cheapest_plan(-table, r, c, control.stopped)
    if vertex.missed:
        _refuse_missed(table, r, c, vertex)
    sent = vertex.row, vertex.column, vertex.mass
    counts = {"pivots": vertex.pivots, "idle_pivots": vertex.idle}
    return _vertex(table, r, c, sent, (-vertex.u, -vertex.v), counts, stopped=not vertex.optimal)


def _vertex(
    table: Floats,
    r: Floats,
    c: Floats,
    sent: tuple[NDArray[np.int64], NDArray[np.int64], Floats],
    potentials: tuple[Floats, Floats],
    counts: dict[str, Any],
    *,
    stopped: bool = False,
) -> Assignment:
    """The plan of these entries (rows, columns, masses), with the bound of these potentials."""
    n, bins = table.shape
    row, column, weights = sent
    lowest = float(potentials[1].min())
    u, v = potentials[0] + lowest, potentials[1] - lowest
    scores, kept = table[row, column], weights > 0
    value = float(weights @ scores)
    bound = max(value, float(r @ u + c @ v))
    rounding = 1e-12 * float(np.abs(r * u).sum() + np.abs(c * v).sum())
    near = bound - value <= 1e-9 * float(np.abs(weights * scores).sum()) + rounding
    error = np.abs(np.bincount(row, weights, n) - r).sum() + np.abs(np.bincount(column, weights, bins) - c).sum()
    info = {"reg": 0.0, "transport": value, "entropy": 0.0, "transport_bound": bound, "margin_error": float(error)}
    return Assignment.from_pairs(
        row[kept],
        column[kept],
        weights[kept],
        n=n,
        k=bins,
        value=value,
        sense="max",
        bound=bound,
        status="optimal" if near else "stopped" if stopped else "approximate",
        u=u,
        v=v,
        objective="entropic_transport",
        info={**info, **counts},
    )


def _as_plan(
    scores: Floats,
    margins: tuple[Floats, Floats],
    where: tuple[NDArray[np.int64], NDArray[np.int64]],
    potentials: tuple[Floats, Floats],
    solved: _Solved,
    plan: Floats,
    transport_bound: float,
    *,
    met: bool,
) -> Assignment:
    """The answer for all rows and columns, from the plan and scores of those `where` there is anything to share."""
    reg, counts = solved.reg, solved.counts
    (r, c), (rows, columns) = margins, where
    n, bins = len(r), len(c)
    u, v = np.full(n, np.inf), np.full(bins, np.inf)
    u[rows], v[columns] = potentials
    row_sums, column_sums = np.zeros(n), np.zeros(bins)
    indptr = np.zeros(n + 1, np.int64)
    row_sums[rows], indptr[rows + 1] = plan.sum(axis=1), np.count_nonzero(plan, axis=1)
    np.cumsum(indptr, out=indptr)
    listed, weights = np.empty(indptr[-1], np.int32), np.empty(indptr[-1])
    transport = entropy = size = 0.0
    for part in _blocks(*plan.shape):
        block, own = plan[part], slice(indptr[rows[part][0]], indptr[rows[part][-1] + 1])
        column_sums[columns] += block.sum(axis=0)
        mass, scored = block.ravel(), scores[part].ravel()
        if own.stop - own.start == mass.size:
            listed[own] = np.tile(columns, len(block))
        else:
            entries = np.flatnonzero(mass)
            mass, scored, listed[own] = mass[entries], scored[entries], columns[entries % len(columns)]
        weights[own] = mass
        scored, spread = mass * scored, mass * np.log(mass)
        transport, entropy = transport + float(scored.sum()), entropy - float(spread.sum())
        size += float(np.abs(scored).sum() + reg * np.abs(spread).sum())
    value = transport + reg * entropy
    # The mass of the plan at these potentials is that of the rows, which are exact there.
    dual = float(r[rows] @ u[rows] + c[columns] @ v[columns])
    exact = met and abs(dual - value) <= 1e-9 * size
    return Assignment(
        indptr=indptr,
        bins=listed,
        weights=weights,
        n=n,
        k=bins,
        value=value,
        sense="max",
        bound=value if exact else max(dual, value),
        status="optimal" if exact else "approximate" if met else "stopped",
        u=u,
        v=v,
        objective="entropic_transport",
        info={
            "reg": reg,
            "transport": transport,
            "entropy": entropy,
            "transport_bound": transport_bound,
            "margin_error": float(np.abs(row_sums - r).sum() + np.abs(column_sums - c).sum()),
            "solved_to": solved.off,
            "sweeps": counts.sweeps,
            "newton_steps": counts.newton,
            "conjugate_steps": counts.conjugate,
            "kept": max(counts.kept, default=0.0),
            "dual_falls": counts.falls,
        },
    )
