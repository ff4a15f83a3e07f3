"""The multiple-choice knapsack: exact costs, the LP over lower hulls, the dynamic program on its core.

Everything here minimises a loss under one budget. Costs are int64 throughout: integers unchanged, floats as
fixed-point numbers with enough binary digits that rounding stays far below the budget's own tolerance.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError

_LARGEST = 2**60
_BYTES_PER_STATE = 64
_PROBE_FROM, _PROBE_WIDTH, _PROBE_STEPS = 4096, 2**16, 16
_FORGET_FROM = 1_000_000
# Items whose hulls are made at a time: their tables stay in the cache.
_ITEMS_AT_ONCE = 2**13
# Parents of states without a decision of their own.
_ROOT, _FILLED = -1, -2


@dataclass(frozen=True)
class Menu:
    """The levels of each item that no cheaper level beats, by cost: row i has `count[i]` of them, then padding.

    `cost` is in integer units, `unit` of the user's cost each; `loss` is minimised; `level` is the column in the
    curves. `cut` says whether the budget cannot pay some of them, which are left out; `rounding` is how many units of
    a budget that is spent whole rounded costs can leave over.
    """

    cost: Ints
    loss: Floats
    level: Ints
    count: Ints
    limit: int
    unit: float
    cut: bool
    rounding: int

    @property
    def n(self) -> int:
        """How many items."""
        return len(self.count)


@dataclass(frozen=True)
class Relaxed:
    """The LP optimum, rounded down to `choice`, with its `slack` in the budget and the `price` (loss a unit of cost).

    The price is that of the levels in the menu: the slope of their hull to the right of the budget.

    `filled` is `choice` with the later hull steps that fit into the slack. Where rounding down changed nothing the
    solution is `integral`: the optimum.
    """

    choice: Ints
    slack: int
    price: float
    filled: Ints
    integral: bool


def is_whole(values: NDArray[Any]) -> bool:
    """True where every value is a whole number that float64 and int64 both hold exactly."""
    if values.dtype.kind in "iu":
        return True
    return bool((np.abs(values) <= 2.0**53).all() and (values == np.floor(values)).all())


def in_units(costs: NDArray[Any], budget: float | int) -> tuple[Ints, int, float, bool]:
    """Costs as int64, the budget in the same units, the size of a unit, and whether costs came as whole numbers.

    Raises:
        InfeasibleError: the cheapest level of every item costs more than the budget in total.
    """
    n = len(costs)
    whole = is_whole(costs)
    cheapest = costs.min(axis=1)
    if whole:
        costs, cheapest = costs.astype(np.int64), cheapest.astype(np.int64)
        least: float | int = sum(cheapest.tolist())
        limit = Fraction(math.floor(budget))
    else:
        least = math.fsum(cheapest.tolist())
        limit = Fraction(budget) * (1 + n * Fraction(float(np.finfo(np.float64).eps)))
    if least > limit:
        raise InfeasibleError(
            f"budget={budget:.15g} is below {least:.15g}, what the cheapest level of every item costs in total; "
            f"raise it by {least - budget:.6g}"
        )
    return *_in_units(costs, limit, whole), whole


def menu(costs: NDArray[Any], losses: Floats, budget: float | int) -> Menu:
    """Drop levels that are in no optimum: those beaten by a level that costs no more, and those beyond the budget.

    Raises:
        InfeasibleError: the cheapest level of every item costs more than the budget in total.
    """
    n = len(costs)
    units, cap, unit, whole = in_units(costs, budget)
    floor = units.min(axis=1)
    spare = max(cap - sum(floor.tolist()), 0)
    # Most curves come with dearer levels to the right, each of some use: what that saves is most of the work.
    if (units[:, 1:] > units[:, :-1]).all():
        order, ranked = np.tile(np.arange(units.shape[1]), (n, 1)), losses
    else:
        order = np.lexsort((losses, units), axis=1)
        units, ranked = np.take_along_axis(units, order, 1), np.take_along_axis(losses, order, 1)
    kept = np.ones(units.shape, bool)
    kept[:, 1:] = ranked[:, 1:] < np.minimum.accumulate(ranked, axis=1)[:, :-1]
    # A level dearer than its item's cheapest plus all that is spare is in no feasible plan.
    beyond = kept & (units - floor[:, None] > spare)
    kept &= ~beyond
    count = kept.sum(axis=1)
    if not kept.all():
        width = int(count.max())
        left = np.argsort(~kept, axis=1, kind="stable")[:, :width]
        pad = np.arange(width) >= count[:, None]
        units = np.where(pad, 0, np.take_along_axis(units, left, 1))
        ranked = np.where(pad, np.inf, np.take_along_axis(ranked, left, 1))
        order = np.take_along_axis(order, left, 1)
    return Menu(
        cost=units,
        loss=ranked,
        level=order,
        count=count,
        limit=max(cap, sum(floor.tolist())),
        unit=unit,
        cut=bool(beyond.any()),
        rounding=0 if whole else math.ceil(n * (np.finfo(np.float64).eps * max(cap, 0) + 1)),
    )


def _in_units(costs: NDArray[Any], limit: Fraction, whole: bool) -> tuple[Ints, int, float]:
    """Costs as int64, the limit in the same units, and the size of a unit."""
    if whole:
        top = sum(costs.max(axis=1).tolist())
        cap = min(int(limit), top)
        if cap > _LARGEST:
            raise InputError(f"costs add up to {top:.3g}, beyond 2**60; divide sizes and budget by a common factor")
        return costs, cap, 1.0
    top = min(limit, Fraction(math.fsum(costs.max(axis=1).tolist()) * (1 + 1e-9)))
    if top == 0:
        # Nothing can be paid; whatever costs anything stays above 0, in the order of the costs.
        digits = 40 - math.frexp(float(costs.max()))[1]
        return np.ceil(np.ldexp(costs, digits)).astype(np.int64), 0, math.ldexp(1.0, -digits)
    digits = 58 - math.frexp(float(top))[1]
    scaled = np.ldexp(np.minimum(costs, 8 * float(top)), digits)
    units = np.rint(scaled).astype(np.int64)
    # The rounding error, at most half a unit an item, is taken off the limit, so that no plan can overspend.
    hidden = math.fsum((scaled - units).max(axis=1, initial=0).tolist())
    return units, math.floor(top * Fraction(2) ** digits) - math.ceil(hidden), math.ldexp(1.0, -digits)


def never() -> bool:
    """Without a limit nothing stops."""
    return False


def relax(menu: Menu, stopped: Callable[[], bool] = never) -> Relaxed | None:
    """Solve the LP: steps along each item's lower convex hull, cheapest loss first, until the next one does not fit.

    None once `stopped()`, which is not asked about few items.
    """
    stopped = stopped if menu.n > _ITEMS_AT_ONCE else never
    steps = hull_steps(menu, stopped)
    if steps is None or stopped():
        return None
    ends, item, steep = steps
    choice = np.zeros(menu.n, np.int64)
    spare = menu.limit - sum(menu.cost[:, 0].tolist())
    order = np.argsort(-steep, kind="stable")
    item, start, end, steep = item[order], ends[order, 0], ends[order, 1], steep[order]
    need = menu.cost[item, end] - menu.cost[item, start]
    taken = _prefix_that_fits(need, spare)
    # Steps of one item are taken in order, so the last one taken is where the item stands.
    choice[item[:taken]] = end[:taken]
    slack = spare - sum(need[:taken].tolist())
    price = float(steep[taken]) if taken < len(steep) else 0.0
    integral = slack == 0 or taken == len(steep)
    filled, left = choice.copy(), slack
    for step in (taken + np.flatnonzero(need[taken:] <= slack)).tolist():
        if need[step] <= left and filled[item[step]] == start[step]:
            filled[item[step]] = end[step]
            left -= int(need[step])
    return Relaxed(choice, slack, price, filled, integral)


def dearest(costs: NDArray[Any]) -> float | int:
    """What the dearest level of every item costs in total."""
    most = costs.max(axis=1).tolist()
    return sum(map(int, most)) if is_whole(costs) else math.fsum(most)


def hull_price(costs: NDArray[Any], losses: Floats, budget: float | int, paid: Menu, lp: Relaxed) -> float:
    """The loss that more budget saves a unit: the slope of the hull of all plans, to the right of the budget.

    Levels that the budget cannot pay are on that hull, though not in `paid` and the LP over it. Past its end the
    price is 0.
    """
    if not paid.cut:
        return lp.price
    whole = menu(costs, losses, min(dearest(costs), _LARGEST))
    steps = hull_steps(whole)
    assert steps is not None  # nothing stops it
    ends, item, steep = steps
    order = np.argsort(-steep, kind="stable")
    need = whole.cost[item[order], ends[order, 1]] - whole.cost[item[order], ends[order, 0]]
    # What rounding takes off a budget at the end of a step does not keep that step from fitting.
    spare = math.floor(Fraction(budget) / Fraction(whole.unit)) + whole.rounding - sum(whole.cost[:, 0].tolist())
    taken = _prefix_that_fits(need, spare)
    return float(steep[order[taken]]) if taken < len(steep) else 0.0


def hull_steps(menu: Menu, stopped: Callable[[], bool] = never) -> tuple[Ints, Ints, Floats] | None:
    """(steps, 2) columns from and to, the item, and the loss saved a user's unit of cost, item by item on its hull.

    None once `stopped()`.
    """
    parts = []
    for low in range(0, menu.n, _ITEMS_AT_ONCE):
        if stopped():
            return None
        part = slice(low, low + _ITEMS_AT_ONCE)
        ends, item, steep = _steps_of_some(menu.cost[part], menu.loss[part], menu.count[part], menu.unit)
        parts.append((ends, item + low, steep))
    ends, item, steep = (np.concatenate(each) for each in zip(*parts, strict=True))
    return ends, item, steep


def _steps_of_some(costs: Ints, losses: Floats, count: Ints, unit: float) -> tuple[Ints, Ints, Floats]:
    """The steps of some items, numbered from 0."""
    column = np.broadcast_to(np.arange(costs.shape[1]), costs.shape)
    while True:
        width = int(count.max())
        column = column[:, :width]
        cost = np.take_along_axis(costs, column, 1)
        loss = np.take_along_axis(losses, column, 1)
        real = np.arange(1, width) < count[:, None]
        run = np.where(real, np.diff(cost, axis=1), 1) * unit
        fall = -np.diff(np.where(np.arange(width) < count[:, None], loss, 0.0), axis=1)
        steep = np.where(real, fall / run, 0.0)
        # A point above the chord of its neighbours is on no lower hull, so all such points can go at once. Points on
        # the chord stay (within rounding): they are the small steps that let the greedy meet a budget exactly.
        above = steep[:, 1:] > steep[:, :-1] + 1e-12 * np.abs(steep[:, 1:])
        above &= real[:, 1:]
        if not above.any():
            break
        kept = np.arange(width) < count[:, None]
        kept[:, 1:-1] &= ~above
        count = kept.sum(axis=1)
        column = np.take_along_axis(column, np.argsort(~kept, axis=1, kind="stable"), 1)
    steep = np.minimum.accumulate(steep, axis=1)
    item, step = np.nonzero(real)
    return np.stack([column[item, step], column[item, step + 1]], axis=1), item, steep[item, step]


def _prefix_that_fits(need: Ints, spare: int) -> int:
    """How many leading terms sum to at most `spare`, exactly: in two halves of the digits, so that no sum overflows."""
    low = np.cumsum(need & (2**30 - 1))
    high = np.cumsum(need >> 30) + (low >> 30)
    over = (high > spare >> 30) | ((high == spare >> 30) & ((low & (2**30 - 1)) > (spare & (2**30 - 1))))
    return int(over.argmax()) if over.any() else len(need)


@dataclass(frozen=True)
class Solved:
    """The best choice found; `lower` bounds every plan's loss from below, None where the choice is proved optimal."""

    choice: Ints
    lower: float | None
    states: int
    widest: int


def cheapest(menu: Menu) -> Solved:
    """Every item at its cheapest level, and as bound every item at its best: what is known without the LP."""
    rows = np.arange(menu.n)
    best = math.fsum(menu.loss[rows, menu.count - 1].tolist())
    return Solved(np.zeros(menu.n, np.int64), best, 0, 0)


def solve(menu: Menu, lp: Relaxed, *, max_memory: int, stopped: Callable[[], bool]) -> Solved:
    """Dynamic programming over the items that the LP leaves in doubt, on Pareto-optimal states pruned by bounds.

    A state is a full plan: the LP's rounded-down choice with some items changed. It is described by how much more it
    costs and loses than that choice. Items enter in the order in which the price nearly moves them, so the bound on
    what the items still outside can gain tightens quickly and the states die out.
    """
    if lp.integral:
        return Solved(lp.choice, None, 0, 0)
    rows, columns = np.arange(menu.n), np.arange(menu.cost.shape[1])
    base = lp.choice
    search = _Search(menu, lp)
    cost = menu.cost - menu.cost[rows, base][:, None]
    loss = menu.loss - menu.loss[rows, base][:, None]
    # By reduced costs: a plan with this level loses at least `excess` more than the LP does.
    excess = np.maximum(loss + lp.price * (cost * menu.unit), 0.0) - search.saved
    live = (excess < search.target) & (columns != base[:, None])
    core = np.flatnonzero(live.any(axis=1))
    with np.errstate(divide="ignore", invalid="ignore"):
        rate = -loss[core] / (cost[core] * menu.unit)
    up = np.where(live[core] & (cost[core] > 0), rate, 0.0).max(axis=1)
    down = np.where(live[core] & (cost[core] < 0), rate, np.inf).min(axis=1)
    # By turns the item that the price nearly moves up and the one that it nearly moves down, so that states on both
    # sides of the budget meet early.
    order = np.argsort(np.minimum(_rank(lp.price - up), _rank(down - lp.price)), kind="stable")
    # Of the items from step t on: their best exchange rates, and how far they can lower the cost.
    rise = np.append(np.maximum.accumulate(up[order][::-1])[::-1], 0.0)
    fall = np.append(np.minimum.accumulate(down[order][::-1])[::-1], np.inf)
    drop = np.where(live[core], -cost[core], 0).max(axis=1, initial=0)[order]
    reach = np.append(np.cumsum(drop[::-1].astype(np.float64))[::-1], 0.0)
    room = max(1000, max_memory // _BYTES_PER_STATE)
    next_probe = _PROBE_FROM
    steps = [
        _Step(int(item), levels, cost[item, levels], loss[item, levels], excess[item, levels])
        for item in core[order].tolist()
        for levels in (np.flatnonzero(live[item]),)
    ]
    for t, step in enumerate(steps):
        if search.size > next_probe:
            search.probe(steps[t:], (rise[t], fall[t], reach[t]))
            next_probe = 4 * max(search.size, _PROBE_FROM)
        if search.size == 0:
            break
        full = search.size * (len(step.levels) + 1) + search.kept > room
        if full or stopped():
            if full:
                search.probe(steps[t:], (rise[t], fall[t], reach[t]))
            return search.cut_short((rise[t], fall[t], reach[t]))
        search.expand(step.below(search.target), (rise[t + 1], fall[t + 1], reach[t + 1]))
    return search.finish()


@dataclass(frozen=True)
class _Step:
    """One item that enters: the levels it may change to, and their increases of cost, loss and the LP's bound."""

    item: int
    levels: Ints
    cost: Ints
    loss: Floats
    excess: Floats

    def below(self, target: float) -> _Step:
        """Only the levels that may still be part of a plan better than `target`."""
        kept = self.excess < target
        return _Step(self.item, self.levels[kept], self.cost[kept], self.loss[kept], self.excess[kept])

    def all_of(self, cost: Ints, loss: Floats) -> tuple[Ints, Floats]:
        """The states unchanged, then with each of the levels in turn."""
        costs = np.concatenate([cost, (cost + self.cost[:, None]).ravel()])
        return costs, np.concatenate([loss, (loss + self.loss[:, None]).ravel()])


class _Search:
    """The states of the dynamic program, and the best plan so far."""

    def __init__(self, menu: Menu, lp: Relaxed) -> None:
        rows = np.arange(menu.n)
        self.lp, self.unit, self.width = lp, menu.unit, menu.cost.shape[1]
        self.floor = math.fsum(menu.loss[rows, lp.choice].tolist())
        # No plan improves on the rounded-down LP solution by more than the worth of its slack.
        self.saved = lp.slack * menu.unit * lp.price
        self.best = math.fsum(menu.loss[rows, lp.filled].tolist()) - self.floor
        self.best_node = _FILLED
        finite = menu.loss[np.isfinite(menu.loss)]
        # Whole losses differ by at least 1; others count as different down to rounding.
        whole_losses = is_whole(finite) and float(np.abs(finite).sum()) < 2.0**40
        self.grain = 1.0 - 1e-3 if whole_losses else 1e-12 * self.saved
        self.cost, self.loss = np.zeros(1, np.int64), np.zeros(1)
        self.node = np.full(1, _ROOT, np.int64)
        # The tree of decisions: a node names an item's new level, and the node before it.
        self.parents: list[Ints] = []
        self.decisions: list[Ints] = []
        self.kept = self.collected = 0
        self.states = self.widest = 1

    @property
    def size(self) -> int:
        """How many states are alive."""
        return len(self.cost)

    @property
    def target(self) -> float:
        """A plan must lose less than this to be worth finding."""
        return self.best - self.grain

    def bound(self, cost: Ints, loss: Floats, rates: tuple[float, float, float]) -> Floats:
        """A lower bound on the loss of each state's completions: the items outside at their best exchange rates."""
        rise, fall, reach = rates
        slack = self.lp.slack - cost
        with np.errstate(invalid="ignore"):
            out = loss + np.where(slack >= 0, rise, fall) * (-slack * self.unit)
        return np.where(-slack > reach, np.inf, out)

    def expand(self, step: _Step, rates: tuple[float, float, float]) -> None:
        """Let one more item change its level: all combinations, except dominated ones and those bounded away."""
        costs, losses = step.all_of(self.cost, self.loss)
        self.states += len(costs)
        kept = np.flatnonzero(self.bound(costs, losses, rates) < self.target)
        kept = kept[_pareto_order(costs[kept], losses[kept])]
        old, change = kept % max(self.size, 1), kept // max(self.size, 1) - 1
        changed = np.flatnonzero(change >= 0)
        node = self.node[old]
        node[changed] = self._remember(node[changed], step.item * self.width + step.levels[change[changed]])
        self.cost, self.loss, self.node = costs[kept], losses[kept], node
        self.widest = max(self.widest, self.size)
        # Along the Pareto states loss falls as cost rises, so the last plan within the budget is the best one.
        within = int(np.searchsorted(self.cost, self.lp.slack, side="right"))
        if within and self.loss[within - 1] < self.target:
            self.best, self.best_node = float(self.loss[within - 1]), int(self.node[within - 1])
            self.prune(rates)
        if self.kept > 2 * self.collected + _FORGET_FROM:
            self._collect()

    def probe(self, ahead: list[_Step], rates: tuple[float, float, float]) -> None:
        """Look for a better plan by pairing every state with every combination of the next few items' levels.

        Both sides are Pareto-optimal and sorted, so the best partner of a state is found by bisection: billions of
        plans for the price of a sort. If some plan meets the bound, this often finds one, and the search is over.
        """
        cost, loss, trail = np.zeros(1, np.int64), np.zeros(1), np.zeros((1, 0), np.int64)
        price, used = self.lp.price * self.unit, []
        for step in ahead[:_PROBE_STEPS]:
            step = step.below(self.target)
            if len(cost) * (len(step.levels) + 1) > _PROBE_WIDTH:
                break
            costs, losses = step.all_of(cost, loss)
            kept = np.flatnonzero(losses + price * costs - self.saved < self.target)
            kept = kept[_pareto_order(costs[kept], losses[kept])]
            trail = np.column_stack([trail[kept % len(cost)], kept // len(cost) - 1])
            cost, loss = costs[kept], losses[kept]
            used.append(step)
        partner = np.searchsorted(cost, self.lp.slack - self.cost, side="right") - 1
        total = np.where(partner >= 0, self.loss + loss[partner], np.inf)
        best = int(total.argmin())
        if total[best] < self.target:
            node = self.node[best : best + 1]
            for step, change in zip(used, trail[partner[best]].tolist(), strict=True):
                if change >= 0:
                    node = self._remember(node, np.array([step.item * self.width + step.levels[change]]))
            self.best, self.best_node = float(total[best]), int(node[0])
            self.prune(rates)

    def _remember(self, parents: Ints, decisions: Ints) -> Ints:
        self.parents.append(parents)
        self.decisions.append(decisions)
        self.kept += len(parents)
        return np.arange(self.kept - len(parents), self.kept)

    def prune(self, rates: tuple[float, float, float]) -> None:
        """Drop the states that can no longer beat the best plan."""
        hope = self.bound(self.cost, self.loss, rates) < self.target
        self.cost, self.loss, self.node = self.cost[hope], self.loss[hope], self.node[hope]

    def _collect(self) -> None:
        """Forget the decisions that no state leads back to."""
        parent, decision = np.concatenate(self.parents), np.concatenate(self.decisions)
        used = np.zeros(self.kept, bool)
        front = np.unique(np.append(self.node, self.best_node))
        while len(front := front[front >= 0]):
            used[front] = True
            front = np.unique(parent[front])
            front = front[(front < 0) | ~used[front]]
        name = np.where(used, np.cumsum(used) - 1, 0)
        parent = parent[used]
        self.parents, self.decisions = [np.where(parent >= 0, name[parent], parent)], [decision[used]]
        self.node = np.where(self.node >= 0, name[self.node], self.node)
        self.best_node = int(name[self.best_node]) if self.best_node >= 0 else self.best_node
        self.kept = self.collected = int(used.sum())

    def finish(self) -> Solved:
        """The best plan, proved optimal: no state is left that could beat it."""
        return Solved(self._choice(), None, self.states, self.widest)

    def cut_short(self, rates: tuple[float, float, float]) -> Solved:
        """The best plan so far, with the least bound of the states left as its bound."""
        hope = float(self.bound(self.cost, self.loss, rates).min(initial=self.best))
        return Solved(self._choice(), self.floor + max(hope, -self.saved), self.states, self.widest)

    def _choice(self) -> Ints:
        if self.best_node == _FILLED:
            return self.lp.filled
        choice = self.lp.choice.copy()
        if self.parents:
            parent, decision = np.concatenate(self.parents), np.concatenate(self.decisions)
            node = self.best_node
            while node >= 0:
                item, level = divmod(int(decision[node]), self.width)
                choice[item] = level
                node = int(parent[node])
        return choice


def _rank(values: Floats) -> Ints:
    rank = np.empty(len(values), np.int64)
    rank[np.argsort(values, kind="stable")] = np.arange(len(values))
    return rank


def _pareto_order(cost: Ints, loss: Floats) -> Ints:
    """Positions of the states that no other beats, by rising cost and falling loss."""
    order = np.argsort(cost, kind="stable")
    cost, loss = cost[order], loss[order]
    kept = np.ones(len(cost), bool)
    kept[1:] = loss[1:] < np.minimum.accumulate(loss)[:-1]
    survivors = np.flatnonzero(kept)
    # Of equal costs the last survivor has the least loss.
    kept[survivors[:-1][cost[survivors[1:]] == cost[survivors[:-1]]]] = False
    return order[kept]
