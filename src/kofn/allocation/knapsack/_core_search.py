"""One level an item under several linear rows at once: prices for the rows, then a search of the items left in doubt.

The rows' prices are the duals of the LP, found on the few levels that they leave nearly tied (column generation). At
those prices each item has a best level, and whoever takes another loses at least its excess: the reduced cost. So a
program over the levels of small excess gives a plan, and all levels whose excess is above that plan's gap to the
Lagrangian bound are in no better one. Where the program already had all others, its plan is optimal. Plans that are
near the bound are found without a program: compiled code goes through all sets of levels of small excess.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.optimize
import scipy.sparse as sp
from numpy.typing import NDArray

from kofn.allocation.knapsack._core_enumeration import OPEN, Deviations, least_gap
from kofn.allocation.knapsack._core_model import Answer, Model
from kofn.core.arrays import Floats, Ints
from kofn.core.highs import linprog, milp

# The arguments that are arrays of any kind here have types of their own in SciPy's stubs.
opt: Any = scipy.optimize
# Plans that only the solver's tolerance lets pass are cut off one by one, this many at most.
_CUTS = 50
# Levels of a program that the prices are fitted on, and of the first that looks for a plan.
_PRICED, _FIRST = 400, 60
_ROUNDS = 25
# What SciPy says where there is no plan.
_NO_PLAN = 2
# Items of the sample that the first prices come from.
_SAMPLE = 300
_TIGHT = 1e-9
# Tables of so few levels are left to HiGHS; of others so many of the least excess are enumerated at most.
_SMALL, _ENUMERATED = 1_000, 1_000
# Whole numbers up to this add up exactly as floats.
_EXACT = 2.0**53


@dataclass(frozen=True)
class _Part:
    """A program's levels, one column each: item and level, and of which of its items (`core`) each is one (`of`)."""

    item: Ints
    level: Ints
    core: Ints
    of: Ints
    rest: NDArray[np.bool_]
    gain: Floats
    spread: float
    one_each: Any
    sums: Any
    low: Floats
    high: Floats


class Search:
    """The prices and programs of one model."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.n, self.width = model.loss.shape
        # Whole sums keep a limit of 4.5 where they keep 4.
        whole = np.array([row.whole for row in model.rows])
        lows, highs = (np.array([getattr(row, end) for row in model.rows], np.float64) for end in ("low", "high"))
        self.lows, self.highs = np.where(whole, np.ceil(lows), lows), np.where(whole, np.floor(highs), highs)
        self.ends = self.lows, self.highs
        tables = [row.table.astype(np.float64) for row in model.rows]
        # Rows are measured in their limits, so that no tolerance is of one unit and of millions at once.
        ends = np.where(np.isfinite(self.highs), np.abs(self.highs), self.lows)
        self.units = np.array([max(e, t.max(), 1e-300) / 1e3 for e, t in zip(ends, tables, strict=True)])
        self.tables = np.stack([t / u for t, u in zip(tables, self.units, strict=True)])
        self.lows, self.highs = self.lows / self.units, self.highs / self.units
        finite = np.where(np.isfinite(model.loss), model.loss, 0.0)
        self.scale = float(np.abs(finite).max(axis=1).sum()) or 1.0
        self.programs = self.columns = self.sets = 0

    def at_prices(self, prices: Floats) -> tuple[float, Floats, Ints]:
        """The Lagrangian bound, the excess of every level (n, L) and each item's best level."""
        reduced = self.model.loss + np.tensordot(prices, self.tables, 1)
        best = reduced.argmin(axis=1)
        least = np.take_along_axis(reduced, best[:, None], 1)
        limits = np.where(prices > 0, self.highs, self.lows)
        bound = math.fsum(least.ravel().tolist()) - math.fsum((prices[prices != 0] * limits[prices != 0]).tolist())
        return bound, reduced - least, best

    def _part(self, live: NDArray[np.bool_], best: Ints) -> _Part:
        """What a program over the live levels (n, L) is about, with every other item at its best one."""
        item, level = np.nonzero(live)
        core, of = np.unique(item, return_inverse=True)
        rest = np.ones(self.n, bool)
        rest[core] = False
        base = self.tables[:, np.flatnonzero(rest), best[rest]].sum(axis=1)
        # What an item loses beyond its best level, in the spread of these losses.
        gain = self.model.loss[item, level] - self.model.loss[item, best[item]]
        spread = float(np.abs(gain).max(initial=0.0)) or 1.0
        size = len(item)
        self.programs += 1
        self.columns += size
        return _Part(
            item=item,
            level=level,
            core=core,
            of=of,
            rest=rest,
            gain=gain / spread,
            spread=spread,
            one_each=sp.csr_array((np.ones(size), (of, np.arange(size))), shape=(len(core), size)),
            sums=sp.csr_array(self.tables[:, item, level]),
            low=self.lows - base,
            high=self.highs - base,
        )

    def relaxed(self, live: NDArray[np.bool_], best: Ints, prices: Floats, width: Floats) -> Floats:
        """The prices of the linear program over the live levels, no further than `width` from these."""
        if not live.any():
            return prices
        part = self._part(live, best)
        count = len(prices)
        upper, lower = np.isfinite(self.highs), np.isfinite(self.lows) & (self.lows > 0)
        # Who breaks a limit pays a little more than its price, and who leaves room is paid a little less, which holds
        # the prices in their box.
        sides = [(1.0, index, self.highs) for index in np.flatnonzero(upper)]
        sides += [(-1.0, index, self.lows) for index in np.flatnonzero(lower)]
        if not sides:
            return prices
        signs, of = np.array([side[0] for side in sides]), np.array([side[1] for side in sides])
        own = np.maximum(signs * prices[of], 0.0)
        over, under = own + width[of], np.maximum(own - width[of], 0.0)
        eye = sp.eye_array(len(sides))
        ends = np.where(signs > 0, part.high[of], -part.low[of])
        done = linprog(
            np.concatenate([part.gain, over / part.spread, -under / part.spread]),
            A_ub=sp.hstack([sp.csr_array(part.sums.toarray()[of] * signs[:, None]), -eye, eye], format="csc"),
            b_ub=ends,
            A_eq=sp.hstack([part.one_each, sp.csr_array((len(part.core), 2 * len(sides)))], format="csc"),
            b_eq=np.ones(len(part.core)),
            bounds=(0, None),
            stoppable=True,
        )
        if done.status != 0:
            return prices
        out = np.zeros(count)
        np.add.at(out, of, -done.ineqlin.marginals * part.spread * signs)
        return out

    def program(
        self, live: NDArray[np.bool_], best: Ints, cuts: Sequence[Ints] = (), **options: Any
    ) -> tuple[Ints | None, float, float]:
        """The best plan over the live levels (n, L), with every other item at its best one, but none of `cuts`.

        Returns:
            (levels or None, their loss, the least loss that such a plan can have).
        """
        rows = np.arange(self.n)
        if not live.any():
            # Nothing is left to choose.
            loss = math.fsum(self.model.loss[rows, best].tolist())
            return (None, math.inf, math.inf) if self.model.broken(best) else (best, loss, loss)
        part = self._part(live, best)
        item, level, core, of, spread = part.item, part.level, part.core, part.of, part.spread
        size = len(item)
        pairs, ends = self._pairs(item, level, part.rest, best)
        others = [sp.csr_array((plan[item] == level)[None].astype(float)) for plan in cuts]
        ends = np.append(ends, np.full(len(cuts), len(core) - 1.0))
        blocks = [part.one_each, part.sums, *pairs, *others]
        ones = np.ones(len(core))
        limits = opt.LinearConstraint(
            sp.vstack(blocks, format="csc"),
            np.concatenate([ones, part.low, np.full(len(ends), -np.inf)]),
            np.concatenate([ones, part.high, ends]),
        )

        def solve(**more: Any) -> Any:
            bounds, whole = opt.Bounds(0, 1), np.ones(size)
            asked = {"mip_rel_gap": 0.0, **options, **more}
            return milp(
                part.gain * 1e6, integrality=whole, bounds=bounds, constraints=limits, options=asked, stoppable=True
            )

        done = solve()
        if done.x is None and done.status == _NO_PLAN:
            # Where a limit is missed by about the tolerance, presolving may find no plan although there is one.
            done = solve(presolve=False)
        if done.x is None:
            return None, math.inf, math.inf if done.status == _NO_PLAN else -math.inf
        chosen = best.copy()
        shares = sp.csr_array((done.x, (of, np.arange(size))), shape=(len(core), size))
        top = np.zeros((len(core), self.width))
        top[of, level] = shares.data
        chosen[core] = top.argmax(axis=1)
        value = math.fsum(self.model.loss[rows, chosen].tolist())
        start = math.fsum(self.model.loss[rows, best].tolist())
        lower = start + (done.mip_dual_bound if done.mip_dual_bound is not None else -math.inf) * spread / 1e6
        return chosen, value, value if done.status == 0 else min(lower, value)

    def _pairs(self, item: Ints, level: Ints, rest: NDArray[np.bool_], best: Ints) -> tuple[list[Any], Floats]:
        """Rows of the pairs: above(first) - above(second) <= 0, or above(first) + above(second) <= 1."""
        above, out, ends = self.model.above, [], []
        up = above[item, level]
        for pair in self.model.pairs:
            sign = -1.0 if pair.together else 1.0
            row = np.where((item == pair.first) & up, 1.0, 0.0) + np.where((item == pair.second) & up, sign, 0.0)
            end = 0.0 if pair.together else 1.0
            for end_item, weight in ((pair.first, 1.0), (pair.second, sign)):
                end -= weight * float(rest[end_item] and above[end_item, best[end_item]])
            out.append(sp.csr_array(row[None]))
            ends.append(end)
        return out, np.array(ends)


def search(model: Model, *, stopped: Callable[[], bool], left: Callable[[], float | None]) -> Answer:
    """The levels of least loss that keep all rows and pairs.

    Args:
        model: what is asked.
        stopped: whether time is up.
        left: the seconds that are left, None without a limit.
    """
    work = Search(model)
    prices = _prices(work, stopped)
    bound, excess, best = work.at_prices(prices)
    settled = None if model.pairs or model.loss.size <= _SMALL else _enumerated(work, prices, excess, best, stopped)
    if settled is not None:
        value = math.fsum(model.loss[np.arange(work.n), settled].tolist())
        return Answer(settled, value, prices / work.units, True, _info(work))
    finite = np.isfinite(model.loss)
    paired = np.zeros(work.n, bool)
    for pair in model.pairs:
        paired[[pair.first, pair.second]] = True
    others = np.sort(excess[finite & (np.arange(work.width) != best[:, None])])
    size, lower = _FIRST, bound
    while True:
        reach = others[size - 1] if size <= len(others) else math.inf
        live = finite & ((excess <= reach) | paired[:, None])
        live &= (live.sum(axis=1) > 1)[:, None]
        level, value, least = _kept(work, live, best, left)
        whole = size >= len(others)
        if level is not None or whole or stopped():
            break
        size *= 8
    if level is None:
        return Answer(None, least, prices / work.units, whole and least == math.inf, _info(work))
    proved = whole and least >= value
    if not proved and not stopped():
        # Whoever takes a level of more excess than this gap is no better than the plan.
        gap = value - bound + _TIGHT * max(abs(value), work.scale * 1e-3)
        needed = finite & (excess <= gap)
        if (needed & ~live)[needed.sum(axis=1) > 1].any():
            needed |= finite & paired[:, None]
            needed &= (needed.sum(axis=1) > 1)[:, None]
            other, worth, least = _kept(work, needed, best, left)
            if other is not None and worth < value:
                level, value = other, worth
        lower = max(lower, min(least, value)) if least > -math.inf else lower
        proved = lower >= value
    elif proved:
        lower = value
    return Answer(level, lower, prices / work.units, proved, _info(work))


def _enumerated(work: Search, prices: Floats, excess: Floats, best: Ints, stopped: Callable[[], bool]) -> Ints | None:
    """The optimal levels where enumeration settles them."""
    model, items = work.model, np.arange(work.n)
    beside = np.where(np.isfinite(model.loss), excess, np.inf)
    beside[items, best] = np.inf
    flat = beside.ravel()
    count = min(_ENUMERATED, flat.size - 1)
    order = np.argpartition(flat, count)[:count]
    order = order[np.argsort(flat[order], kind="stable")]
    order = order[np.isfinite(flat[order])]
    item, level = order // work.width, order % work.width
    tables = np.stack([row.table.astype(np.float64) for row in model.rows])
    if max(tables.max(axis=2).sum(axis=1)) >= _EXACT:
        return None
    used = np.array([float(row.total(best)) for row in model.rows])
    lows, highs = work.ends
    # Sums of floats are rounded: what is a little beyond an end is looked at too, and settled by `broken`.
    size = np.maximum(used, np.where(np.isfinite(highs), np.abs(highs), 0.0))
    slack = np.where([row.whole for row in model.rows], 0.0, 8 * work.n * np.finfo(np.float64).eps * size)
    core = Deviations(
        excess=np.ascontiguousarray(flat[order]),
        item=item,
        change=np.ascontiguousarray((tables[:, item, level] - tables[:, item, best[item]]).T),
        prices=prices / work.units,
        above=np.where(np.isfinite(highs), highs - used + slack, OPEN),
        below=np.where(np.isfinite(lows), used - lows + slack, OPEN),
    )
    chosen, work.sets = least_gap(core, stopped)
    if chosen is None:
        return None
    levels = best.copy()
    levels[item[chosen]] = level[chosen]
    return None if model.broken(levels) else levels


def _info(work: Search) -> dict[str, Any]:
    return {"programs": work.programs, "columns": work.columns, "sets": work.sets}


def _prices(work: Search, stopped: Callable[[], bool]) -> Floats:
    """Prices of the rows near the LP's: those of a sample, then of the levels that these leave nearly tied.

    A price is sought in a box around the best one so far, which shrinks where nothing better is in it.
    """
    binding = (work.highs < work.tables.max(axis=2).sum(axis=1)) | (work.lows > work.tables.min(axis=2).sum(axis=1))
    prices = np.zeros(len(work.model.rows))
    if not binding.any():
        return prices
    finite, rows = np.isfinite(work.model.loss), np.arange(work.n)
    # Rows come to about a thousand of their units, so that this is what a unit is worth at most.
    unit = work.scale / 1e3
    if work.n > 2 * _SAMPLE:
        prices = _of_sample(work, unit)
    bound, excess, best = work.at_prices(prices)
    share = 0.5 if work.n > 2 * _SAMPLE else 100.0
    for _ in range(_ROUNDS):
        if stopped() or share < 1e-9:
            break
        beside = np.where(finite, excess, np.inf)
        beside[rows, best] = np.inf
        count = min(_PRICED, beside.size - 1)
        live = finite & (beside <= np.partition(beside.ravel(), count)[count])
        items = np.flatnonzero(live.any(axis=1))
        live[items, best[items]] = True
        width = share * np.maximum(np.abs(prices), 0.05 * unit)
        fitted = work.relaxed(live, best, prices, width)
        other, other_excess, other_best = work.at_prices(fitted)
        gained = other - bound
        at_the_edge = (np.abs(fitted - prices) >= width * (1 - 1e-6)).any()
        if gained > 0:
            prices, bound, excess, best = fitted, other, other_excess, other_best
        if gained > 0 and at_the_edge:
            share *= 3
        elif abs(gained) <= 1e-10 * abs(bound) or share < 1e-8:
            break
        else:
            share /= 10
    return prices


def _of_sample(work: Search, unit: float) -> Floats:
    """Prices at which a sample of the items, spread over them evenly, keeps its share of each row."""
    rows = np.linspace(0, work.n - 1, _SAMPLE).astype(np.int64)
    part = object.__new__(Search)
    part.__dict__ |= work.__dict__
    part.model = Model(work.model.loss[rows], work.model.rows, work.model.above[rows])
    part.n, part.tables = len(rows), work.tables[:, rows]
    # A row of a group has as many of the group's items as the sample caught.
    share = part.tables.sum(axis=(1, 2)) / np.maximum(work.tables.sum(axis=(1, 2)), 1e-300)
    part.lows, part.highs = work.lows * share, work.highs * share
    finite = np.isfinite(part.model.loss)
    best = part.model.loss.argmin(axis=1)
    count = len(work.model.rows)
    return part.relaxed(finite, best, np.zeros(count), np.full(count, 100 * unit))


def _kept(work: Search, live: NDArray[np.bool_], best: Ints, left: Callable[[], float | None]) -> Any:
    """The program's plan, exactly within the rows: one that the solver's tolerance let pass is cut off by itself."""
    seconds = left()
    options = {} if seconds is None else {"time_limit": max(seconds, 0.5)}
    cuts: list[Ints] = []
    while len(cuts) < _CUTS:
        level, value, least = work.program(live, best, cuts, **options)
        if level is None or not work.model.broken(level):
            return level, value, least
        cuts.append(level)
    return None, math.inf, -math.inf
