"""Generalized assignment: items of unlike sizes to bins that hold so much in all, for the largest total; exact."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.means._links import Units, units_of
from kofn.assignment.routing._scores import capacities, routes, score_table
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import FailureError, InfeasibleError, InputError, bin_name, item_name
from kofn.core.draws import Draw
from kofn.core.highs import linprog, milp
from kofn.core.plans import Assignment
from kofn.core.quotas import exact_total
from kofn.core.registry import method

# Scores are scaled to this, so that what HiGHS takes for equal (1e-7) is equal to 13 digits.
_TOP = 1e6
# Entries that cost at most this share of the largest score by the relaxation's prices are looked at first.
_FIRST_WINDOW = 1e-3
# Limits are scaled to at most this, so that HiGHS, which holds them to 1e-6, holds whole numbers below it exactly.
_LARGEST_LIMIT = 1e5
# A limit that is exceeded by rounding all the same is lowered by this share, and ten times more each time.
_LOWERED, _TIMES_LOWERED = 1e-10, 5
# Bins that a refusal names.
_NAMED = 5
# What a message calls them.
_THE = {"limits": "the limits"}
# Seconds in which a placement is looked for however little time is left: no answer is worse than one a little late.
_GRACE = 0.5
# Seconds in which the limits that clash are looked for.
_SECONDS_OF_CLASH = 5.0
# SciPy's status of a programme that was solved, and of one without a solution; others were stopped.
_SOLVED, _NO_PLACEMENT = 0, 2


@dataclass
class _Programme:
    """The entries (unit, bin) that may be used, with their costs, and the sums over them that are limited.

    A unit is the items that must_link joins, most often one.
    """

    rows: Ints
    columns: Ints
    cost: Floats
    # (units, entries) each unit's entries; (sums, entries) the size that each bin holds, then the items that it holds,
    # then how many of two units that cannot_link keeps apart.
    units: Any
    loads: Any
    low: Floats
    high: Floats
    bins: int
    # (units,) items of each, and the pairs of units that are kept apart.
    counts: Ints
    apart: Ints


@dataclass
class _Solution:
    """The entries of a placement, a bound below what any costs, and whether this one is proven to cost least."""

    entries: Ints
    bound: float
    proven: bool


@method(
    "assign",
    draws=Draw(plain={"sizes": (1.0,) * 6, "limits": 100.0}, units={"reserve": "input"}),
    cost="a linear programme, and an integer one over the entries that its prices do not rule out, by HiGHS: 2 s for "
    "2,000 x 20, minutes for 10,000 x 50; hard ones (full bins, like scores) may take exponential time, which a "
    "time_limit cuts short",
    exact="the largest total within every bin's limits and the links; with a time limit a placement and a bound",
    traits=("sandwich",),
    paper="ross1975",
    aliases=("generalized assignment", "multiple knapsack", "bins by weight", "stay together", "must-link"),
)
def generalized_assignment(
    scores: Any,
    *,
    capacity: Any = None,
    min_size: Any = 0,
    reserve: float | None = None,
    sizes: Any = None,
    limits: Any = None,
    must_link: Any = None,
    cannot_link: Any = None,
    time_limit: float | None = None,
) -> Assignment:
    """Send every item to one bin, where a bin holds items of so much size in all, for the largest sum of scores.

    Tokens in context windows, hours in working weeks, gigabytes on disks: items are unlike in size, and a bin is full
    when its items' sizes add up to its limit. One bin alone is a knapsack. For costs give `scores=-costs`.

    Args:
        scores: (n, bins), higher is better; -inf where an item may not go.
        capacity: the most items that a bin holds besides, one number or (bins,).
        min_size: the least items that a bin must hold, one number or (bins,).
        reserve: value of leaving an item unassigned. An item is then assigned only if that is better. By default
            every item is assigned.
        sizes: how much each item fills, >= 0, (n,), or (n, bins) where it depends on the bin. Without sizes and limits
            items are counted alone.
        limits: how much each bin holds in all, one number or (bins,).
        must_link: pairs of rows that go to one bin, (p, 2); with a reserve they stay out together or not at all.
        cannot_link: pairs of rows that go to different bins, (p, 2), or stay out. With a reserve rows that must_link
            joins all the same stay out.
        time_limit: seconds; then the best placement so far is kept, and `bound` says how far it may be from the best.

    Returns:
        An `Assignment` with one route an item (none where it stayed out, counted in `info["unfilled"]`). `value` is the
        sum of the scores of all routes and of `reserve` for each item left out; `used["limits"]` what each bin holds.
        `prices["limits"]` is what one more unit of a bin's limit would add if items could be split.

    Raises:
        InfeasibleError: no placement keeps the limits, with the amount that is missing where sizes alone show it; an
            item that no bin takes, with the reason of each; links that contradict each other, without a reserve.
        InputError: scores, sizes or limits of other shapes, or negative; sizes or limits without the other.
        FailureError: no placement was found within the time limit.

    Cost: the linear relaxation, whose prices rule most entries out, and an integer programme over the others.

    Guarantee: whole sizes are added up exactly, others to the rounding of their sum; with status "optimal" no placement
    has a larger total, up to 13 digits of the largest score. The problem is NP-hard.

    References:
        Ross & Soland 1975. Shmoys & Tardos 1993, An approximation algorithm for the generalized assignment problem.

    Examples:
        >>> from kofn.assignment import generalized_assignment
        >>> plan = generalized_assignment([[9, 8], [7, 1], [5, 4]], sizes=[4, 3, 2], limits=[5, 5])
        >>> plan.labels.tolist(), plan.value, plan.used["limits"].tolist()
        ([1, 0, 0], 20.0, [5.0, 4.0])
    """
    began = time.monotonic()
    table = np.ascontiguousarray(score_table(scores), np.float64)
    n, bins = table.shape
    if reserve is not None and not checks.is_finite(reserve):
        raise InputError(f"reserve={reserve!r}: give a finite number, what an item is worth that stays out")
    if (sizes is None) != (limits is None):
        missing, there = ("limits", "sizes") if limits is None else ("sizes", "limits")
        raise InputError(f"{there} need {missing}: a bin's sizes add up to at most its limit; give both")
    limited = sizes is not None
    units = units_of(n, must_link, cannot_link, may_stay_out=reserve is not None)
    sizes, limits, fits, (least, room) = at_sight(table, sizes, limits, capacity, min_size, reserve)
    counts = units.sizes
    whole, sizes = units.total(table), units.total(sizes)
    fits = (whole > -np.inf) & (sizes <= limits) & (counts[:, None] <= room)
    fits[units.apart[units.apart[:, 0] == units.apart[:, 1], 0]] = False
    _refuse_units(units, fits, reserve)
    # Costs in units in which HiGHS's tolerances are far below a digit that counts.
    unit = (float(np.abs(whole[fits]).max(initial=abs(reserve or 0.0))) or 1.0) / _TOP
    share = np.maximum(limits / _LARGEST_LIMIT, 1.0) if sizes.dtype.kind == limits.dtype.kind == "i" else limits / _TOP
    share = np.where(share > 0, share, 1.0)
    out_of_all = None if reserve is None else np.asarray(counts * (reserve / unit), np.float64)
    programme = _programme(whole / unit, sizes / share, fits, out_of_all, counts, units.apart)
    links = np.ones(len(programme.high) - 2 * bins)
    programme.low = np.concatenate([np.zeros(bins), least, np.zeros(len(links))])
    programme.high = np.concatenate([limits / share, room, links])
    deadline = math.inf if time_limit is None else began + time_limit
    lowest, reduced, prices = _relaxed(programme, deadline)
    solution = _solve(programme, (lowest, reduced), (sizes, limits), deadline)
    placed = solution.entries[programme.columns[solution.entries] < bins]
    of_unit = np.full(len(counts), -1)
    of_unit[programme.rows[placed]] = programme.columns[placed]
    labels = of_unit[units.of]
    filled = [float(exact_total(sizes[of_unit == j, j])) for j in range(bins)]
    rows = np.flatnonzero(labels >= 0)
    columns = labels[rows]
    out = n - len(rows)
    value = math.fsum([*table[rows, columns].tolist(), *[reserve or 0.0] * out])
    return Assignment(
        **routes(n, bins, rows, columns, None),
        capacity=None if capacity is None else room,
        value=value,
        sense="max",
        bound=value if solution.proven else max(value, -solution.bound * unit),
        status="optimal" if solution.proven else "stopped" if time.monotonic() >= deadline else "approximate",
        prices={"limits": prices[:bins] * unit / share} if limited else {},
        used={"limits": np.array(filled)} if limited else {},
        budget={"limits": limits.astype(np.float64)} if limited else {},
        objective="placed_score",
        info={"unfilled": out},
    )


def at_sight(
    table: NDArray[Any], sizes: Any, limits: Any, capacity: Any, min_size: Any, reserve: float | None
) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.bool_], tuple[Ints, Ints]]:
    """Sizes, limits, which items fit in which bins, and the least and most items of each bin.

    Without sizes and limits every item has size 1, and every bin has room for all.

    Raises:
        InfeasibleError: sizes and counts alone show that no placement holds them.
    """
    n, bins = table.shape
    sizes = _sizes(np.ones(n, np.int64) if sizes is None else sizes, n, bins)
    limits = _limits(n if limits is None else limits, bins)
    room = np.full(bins, n) if capacity is None else capacities(capacity, bins)
    least = capacities(checks.capacity(min_size, "min_size"), bins, "min_size")
    fits = (table > -np.inf) & (sizes <= limits)
    _refuse_at_sight(table, sizes, limits, fits, (least, room), reserve)
    return sizes, limits, fits, (least, room)


def _sizes(value: Any, n: int, bins: int) -> NDArray[Any]:
    """(n, bins) what each item fills of each bin; whole numbers stay whole."""
    array = checks.as_array(value, "sizes")
    if array.shape not in ((n,), (n, bins)):
        raise InputError(f"sizes has shape {array.shape}; give one an item, ({n},), or one for each bin, ({n}, {bins})")
    flat = checks.costs(array.reshape(-1), "sizes")
    return flat.reshape(n, bins) if array.ndim == 2 else np.broadcast_to(flat[:, None], (n, bins))


def _limits(value: Any, bins: int) -> NDArray[Any]:
    array = checks.as_array(value, "limits")
    if array.ndim and array.shape != (bins,):
        raise InputError(
            f"limits has shape {array.shape}, scores has {bins} bins; give one number, or one for each bin"
        )
    return np.broadcast_to(checks.costs(array.reshape(-1), "limits"), bins)


def _refuse_at_sight(
    table: Floats,
    sizes: NDArray[Any],
    limits: NDArray[Any],
    fits: NDArray[np.bool_],
    counts: tuple[Ints, Ints],
    reserve: float | None,
) -> None:
    """Refuse what no placement can meet, where sizes and counts alone show it."""
    least, room = counts
    able = fits.sum(axis=0)
    for j in np.flatnonzero((least > room) | (least > able))[:1].tolist():
        shortage = f"{able[j]} items list it and fit in it" if least[j] > able[j] else f"can hold {room[j]} (capacity)"
        raise InfeasibleError(
            f"{bin_name(j)} must hold {least[j]} items (min_size), and {shortage}; lower its min_size"
        )
    if reserve is not None:
        return
    remedy = "or give a reserve, what an item is worth that stays out"
    alone = np.flatnonzero(~fits.any(axis=1))
    if len(alone):
        i = int(alone[0])
        if (table[i] == -np.inf).all():
            raise InfeasibleError(
                f"{item_name(i)} lists no bin, all its scores are -inf or missing: it has nowhere to go; list a bin, "
                f"{remedy}"
            )
        j = int(np.argmin(np.where(table[i] > -np.inf, sizes[i] - limits, np.inf)))
        raise InfeasibleError(
            f"{item_name(i)} has size {sizes[i, j]:g} and fits in no bin that it lists, {bin_name(j)} holds "
            f"{limits[j]:g}; raise the limit, {remedy}"
        )
    need, there = exact_total(sizes.min(axis=1)), exact_total(limits)
    if need > there * _rounding(sizes, limits):
        raise InfeasibleError(
            f"the sizes add up to {need:g}, the limits to {there:g}: {need - there:g} too little; raise them, {remedy}"
        )
    if len(table) > (total := sum(room.tolist())):
        raise InfeasibleError(
            f"{len(table)} items need a bin each, capacity holds {total}: {len(table) - total} too few; raise it, "
            f"{remedy}"
        )
    alone = np.flatnonzero(~(fits & (room > 0)).any(axis=1))
    if len(alone):
        i = int(alone[0])
        reasons = [
            "it does not list (-inf or missing)"
            if table[i, j] == -np.inf
            else f"has capacity {room[j]}"
            if not room[j]
            else f"holds {limits[j]:g}, its size is {sizes[i, j]:g}"
            for j in range(len(room))
        ]
        listed = ", ".join(f"{bin_name(j)} {reason}" for j, reason in enumerate(reasons[:_NAMED]))
        more = ", ..." if reasons[_NAMED:] else ""
        raise InfeasibleError(f"{item_name(i)} has nowhere to go: {listed}{more}; list a bin, raise one, {remedy}")


def _refuse_units(units: Units, fits: NDArray[np.bool_], reserve: float | None) -> None:
    """Refuse items that must_link joins and that no bin holds together, unless they may stay out."""
    alone = np.flatnonzero(~fits.any(axis=1) & (units.sizes > 1))
    if reserve is None and len(alone):
        rows = np.flatnonzero(units.of == alone[0]).tolist()
        few = ", ".join(map(checks.item_key, rows[:5])) + (", ..." if rows[5:] else "")
        raise InfeasibleError(
            f"must_link joins rows {few}, and no bin that all of them list holds them together; raise capacity and "
            "limits, drop a pair, or give a reserve, what an item is worth that stays out"
        )


def _programme(
    table: Floats, sizes: Floats, fits: NDArray[np.bool_], reserve: Floats | None, counts: Ints, apart: Ints
) -> _Programme:
    """One variable an entry, row by row; with a reserve one more bin, which holds anything."""
    from scipy.sparse import coo_array, vstack

    n, bins = table.shape
    if reserve is not None:
        table = np.column_stack([table, reserve])
        fits = np.column_stack([fits, np.ones(n, bool)])
    rows, columns = np.nonzero(fits)
    entry, inside = np.arange(len(rows)), columns < bins
    by_bin = (columns[inside], entry[inside])
    shape = (bins, len(rows))
    filled, counted = sizes[rows[inside], columns[inside]], counts[rows[inside]].astype(np.float64)
    parts: list[Any] = [coo_array((filled, by_bin), shape), coo_array((counted, by_bin), shape)]
    if len(apart):
        # Row p * bins + j: how many of the units of pair p go to bin j.
        pair, side = np.repeat(np.arange(len(apart)), 2), apart.ravel()
        of_pairs = coo_array((np.ones(len(pair)), (pair, side)), (len(apart), n)).tocsc()[:, rows[inside]].tocoo()
        where = of_pairs.row.astype(np.int64) * bins + columns[inside][of_pairs.col]
        ones = np.ones(len(where))
        parts.append(coo_array((ones, (where, entry[inside][of_pairs.col])), (len(apart) * bins, len(rows))))
    loads: Any = vstack(parts, format="csc")
    units = coo_array((np.ones(len(rows)), (rows, entry)), (n, len(rows))).tocsc()
    sums = np.zeros(loads.shape[0])
    return _Programme(rows, columns, -table[rows, columns], units, loads, sums, sums, bins, counts, apart)


def _relaxed(programme: _Programme, deadline: float) -> tuple[float, Floats, Floats]:
    """The least cost where items may be split, what each entry costs beyond it at least, and the limits' prices.

    Where HiGHS is stopped before it has an answer, the same at prices of 0, by which every item goes where it costs
    least.
    """
    from scipy.sparse import vstack

    # A sum whose entries all together are within its limit binds nothing, and would only keep HiGHS busy.
    binding = np.flatnonzero(np.asarray(programme.loads.sum(axis=1)).ravel() > programme.high)
    minima = np.flatnonzero(programme.low > 0)
    solution = linprog(
        programme.cost,
        A_ub=vstack([programme.loads[binding], -programme.loads[minima]], format="csc"),
        b_ub=np.concatenate([programme.high[binding], -programme.low[minima]]),
        A_eq=programme.units,
        b_eq=np.ones(programme.units.shape[0]),
        # Reducing a large programme first takes seconds in which Ctrl-C is not heard, and saves none.
        options={"presolve": False}
        | ({} if math.isinf(deadline) else {"time_limit": max(deadline - time.monotonic(), 1e-3)}),
        stoppable=True,
    )
    if solution.status not in (_SOLVED, _NO_PLACEMENT):
        least = np.full(programme.units.shape[0], np.inf)
        np.minimum.at(least, programme.rows, programme.cost)
        return math.fsum(least.tolist()), programme.cost - least[programme.rows], np.zeros(len(programme.high))
    if solution.status == _NO_PLACEMENT:
        raise _clash(programme, deadline, "no placement", "not even one of parts of items")
    prices = np.zeros(len(programme.high))
    prices[binding] = np.maximum(-solution.ineqlin.marginals[: len(binding)], 0.0)
    assert solution.fun is not None
    return float(solution.fun), np.maximum(solution.lower.marginals, 0.0), prices


def _solve(
    programme: _Programme, relaxed: tuple[float, Floats], limited: tuple[NDArray[Any], NDArray[Any]], deadline: float
) -> _Solution:
    """The placement of the least cost.

    An entry that costs more by the relaxation's prices than whole items cost beside it is in no better placement. So a
    window of cheap entries is solved, and widened to what whole items cost where that is more.
    """
    lowest, reduced = relaxed
    window, incumbent, lowered = _FIRST_WINDOW * _TOP, None, 0
    while True:
        kept = np.flatnonzero(reduced <= window)
        outside = math.inf if len(kept) == len(reduced) else lowest + window
        entries, below, finished = _whole(programme, kept, deadline)
        if entries is None:
            if incumbent is None and not finished:
                incumbent = _Solution(_in_turn(programme, *limited), lowest, False)
            if incumbent is not None:
                return incumbent
            # Entries outside the window may still hold a placement.
            if math.isinf(outside):
                raise _clash(programme, deadline, "no placement of whole items", "though one of parts would")
            window *= 10
            continue
        over = _over(programme, entries, *limited)
        if over.any():
            if (lowered := lowered + 1) > _TIMES_LOWERED:
                raise FailureError("the limits are kept to rounding only; give sizes and limits in larger units")
            programme.high[: len(over)] *= 1 - over * _LOWERED * 10**lowered
            continue
        bound = lowest if lowered else max(lowest, min(below, outside))
        cost = float(programme.cost[entries].sum())
        done = cost <= outside
        incumbent = _Solution(entries, bound, finished and done and not lowered)
        if done or not finished:
            return incumbent
        # Wider by more than the rounding of the sum, so that a placement as good lies within.
        window = (cost - lowest) * (1 + 1e-9)


def _whole(programme: _Programme, kept: Ints, deadline: float) -> tuple[Ints | None, float, bool]:
    """The best placement of these entries, a bound below all of them, and whether it is proven."""
    from scipy.optimize import Bounds, LinearConstraint

    left = deadline - time.monotonic()
    # Once the time is up, the first placement found will do.
    options: Any = {"mip_rel_gap": 0.0, "time_limit": left} if left > 0 else {"mip_rel_gap": 1e9, "time_limit": _GRACE}
    if math.isinf(left):
        del options["time_limit"]
    program: dict[str, Any] = {
        "integrality": np.ones(len(kept), np.int64),
        "bounds": Bounds(0, 1),
        "constraints": [
            LinearConstraint(programme.units[:, kept], 1, 1),
            LinearConstraint(programme.loads[:, kept], programme.low, programme.high),
        ],
        "stoppable": True,
    }
    solution = milp(programme.cost[kept], options=options, **program)
    if solution.status == _NO_PLACEMENT and len(kept) == len(programme.cost):
        # Where sizes are of very unlike scales, what HiGHS calls infeasible after its reductions may not be.
        solution = milp(programme.cost[kept], options={**options, "presolve": False}, **program)
    finished = solution.status == _NO_PLACEMENT or (solution.status == _SOLVED and left > 0)
    if solution.x is None:
        return None, -math.inf, finished
    below = -math.inf if solution.mip_dual_bound is None else float(solution.mip_dual_bound)
    return kept[solution.x > 0.5], below, finished


def _clash(programme: _Programme, deadline: float, subject: str, aside: str) -> InfeasibleError:
    """The refusal where there is no placement: which limits clash, found by leaving out each in turn."""
    bins = programme.bins
    # A sum whose entries all together are within its limit binds nothing.
    binds = np.asarray(programme.loads.sum(axis=1)).ravel() > programme.high
    parts = {"limits": slice(0, bins), "capacity": slice(bins, 2 * bins), "cannot_link": slice(2 * bins, None)}
    remedies_of = {"limits": "raise the limits", "min_size": "lower min_size", "capacity": "raise capacity"}
    remedies_of["cannot_link"] = "drop a pair of cannot_link"
    looser: dict[str, _Programme] = {}
    for name, part in parts.items():
        if binds[part].any():
            high = programme.high.copy()
            high[part] = np.inf
            looser[name] = replace(programme, high=high)
    if programme.low.any():
        looser["min_size"] = replace(programme, low=np.zeros(len(programme.low)))
    asked = [name for name in remedies_of if name in looser] or ["limits"]
    outcomes: dict[str, bool | None] = {asked[0]: None}
    if asked[1:]:
        outcomes = {name: _has_placement(looser[name], deadline) for name in asked}
    able = [name for name, outcome in outcomes.items() if outcome]
    joined = bool((programme.counts > 1).any())
    names = [*asked, *(["must_link"] if joined else [])]
    together = f"{', '.join(names[:-1])} and {names[-1]} together" if names[1:] else _THE.get(names[0], names[0])
    without = f"; without {' or without '.join(able)} there is one" if able else ""
    # Where time did not tell, either may help.
    some = any(outcome is not False for outcome in outcomes.values())
    remedies = " or ".join(remedies_of[name] for name in asked if outcomes[name] is not False or not some)
    remedies += " or drop a pair of must_link" if joined else ""
    reserve = "or give a reserve, what an item is worth that stays out"
    return InfeasibleError(f"{subject} keeps {together}, {aside}{without}; {remedies}, {reserve}")


def _has_placement(programme: _Programme, deadline: float) -> bool | None:
    """Whether whole items can be placed; None where it was not seen in time."""
    entries, _, finished = _whole(
        programme, np.arange(len(programme.cost)), min(deadline, time.monotonic() + _SECONDS_OF_CLASH)
    )
    return True if entries is not None else False if finished else None


def _in_turn(programme: _Programme, sizes: NDArray[Any], limits: NDArray[Any]) -> Ints:
    """The entries of a quick placement: items from the largest on, each where it costs least of where it still fits."""
    bins = programme.bins
    least, room = programme.low[bins : 2 * bins], programme.high[bins : 2 * bins]
    loads, counts = [0] * bins, np.zeros(bins, np.int64)
    begins = np.searchsorted(programme.rows, np.arange(len(sizes) + 1))
    apart: dict[int, list[int]] = {}
    for a, b in programme.apart.tolist():
        apart.setdefault(a, []).append(b)
        apart.setdefault(b, []).append(a)
    chosen: list[int] = []
    bin_of: dict[int, int] = {}
    for item in np.argsort(-sizes.min(axis=1), kind="stable").tolist():
        own = np.arange(begins[item], begins[item + 1])
        barred = {bin_of.get(other, -1) for other in apart.get(item, ())}
        count = int(programme.counts[item])
        for entry in own[np.argsort(programme.cost[own], kind="stable")].tolist():
            j = int(programme.columns[entry])
            free = (
                j not in barred and counts[j] + count <= room[j] and loads[j] + sizes[item, j] <= limits[j]
                if j < bins
                else True
            )
            if free:
                chosen.append(entry)
                if j < bins:
                    bin_of[item] = j
                    loads[j] += sizes[item, j]
                    counts[j] += count
                break
    if len(chosen) < len(sizes) or (counts < least).any():
        raise FailureError(
            "no placement was found within time_limit; raise it, raise the limits, or give a reserve, what an item is "
            "worth that stays out"
        )
    return np.array(chosen, np.int64)


def _over(programme: _Programme, entries: Ints, sizes: NDArray[Any], limits: NDArray[Any]) -> NDArray[np.bool_]:
    """(bins,) True where what a bin holds exceeds its limit: whole numbers exactly, others beyond their rounding."""
    rows, columns = programme.rows[entries], programme.columns[entries]
    slack = _rounding(sizes, limits)
    return np.array(
        [exact_total(sizes[rows[columns == j], j]) > limit * slack for j, limit in enumerate(limits.tolist())], bool
    )


def _rounding(sizes: NDArray[Any], limits: NDArray[Any]) -> float | int:
    """By what factor a sum of sizes may exceed a limit: whole numbers by none, others by the rounding of the sum."""
    return 1 if sizes.dtype.kind == limits.dtype.kind == "i" else 1 + len(sizes) * float(np.finfo(np.float64).eps)
