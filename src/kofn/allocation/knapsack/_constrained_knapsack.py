"""Give each item one of its levels at the least summed loss, under a budget and whatever else must be kept."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping
from typing import Any, Literal, NoReturn

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.knapsack import _core_search, _knapsack, _sides
from kofn.allocation.knapsack._core_model import Answer, Model, Pair, Row
from kofn.allocation.knapsack._curves import Problem
from kofn.core.arrays import Ints
from kofn.core.checks import FailureError, InfeasibleError
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method
from kofn.core.runtime import Control

_MEMORY = 2**30


@method(
    "allocate",
    traits=("sandwich",),
    cost="O(n L rows) a round of prices, and all sets of the levels in doubt, or HiGHS on them; O(n L rows) memory",
    exact="the optimum, or the gap where time_limit stops HiGHS; whole limits held exactly",
    paper=("pisinger1995", "huangfu2018"),
    draws=Draw(silent=("duality",)),
    aliases=("side_constraints", "milp", "multi_dimensional_knapsack"),
)
def constrained_knapsack(
    curves: Any,
    *,
    budget: float | None = None,
    sizes: ArrayLike | None = None,
    levels: ArrayLike | None = None,
    sense: Literal["min", "max"] = "min",
    mean_budget: float | None = None,
    bounds: ArrayLike | None = None,
    groups: ArrayLike | None = None,
    quotas: Mapping[Any, Any] | None = None,
    k: int | None = None,
    tied: ArrayLike | None = None,
    resources: Mapping[Any, Any] | None = None,
    limits: Mapping[Any, Any] | None = None,
    precedence: ArrayLike | None = None,
    exclusions: ArrayLike | None = None,
    time_limit: float | None = None,
) -> Allocation:
    """Give each item one of its levels at the least summed loss, under a budget and whatever else must be kept.

    Prices of all limits at once (the LP's duals) leave few levels in doubt; compiled code goes through the sets of
    those, HiGHS decides where there are too many, and what the prices rule out is in no better plan.
    Items that are only tied are solved by `multiple_choice_knapsack`'s dynamic program.

    Args:
        curves: (n, L) loss of each item at each level, or its value with `sense="max"`, as of
            `multiple_choice_knapsack`.
        budget: the total cost of all items, at most.
        sizes: (n,) cost of one unit of level for each item, >= 0, default 1.
        levels: (L,) or (n, L) amounts, >= 0, in any order, default 0..L-1.
        sense: "min" for losses, "max" for values.
        mean_budget: instead of `budget`, the total over the summed sizes.
        bounds: (least, most) amount for all items, or one such pair for each.
        groups: (n,) group of each item, or several columns of them.
        quotas: {group: (least, most)} cost of each group's items in total: whole numbers, or shares of the budget
            between 0 and 1.
        k: at most so many items above zero.
        tied: (n,) labels; items of one label get the same level (by column).
        resources: {name: what each level takes of another resource}, (n, L), or (n,) for a unit of amount; for example
            milliseconds beside bytes.
        limits: {name: how much there is of it}.
        precedence: pairs (a, b): b may be above zero only where a is.
        exclusions: pairs (a, b) that may not both be above zero.
        time_limit: seconds; then the best plan so far, with its gap.

    Returns:
        An `Allocation` as from `multiple_choice_knapsack`; `used`, `budget` and `prices` name every limit: "budget",
        the resources, the groups, "k". `price` is that of the budget, in the LP.

    Raises:
        InfeasibleError: what must be kept clashes; where one limit alone does, it says by how much.
        InputError: as of `multiple_choice_knapsack`; labels, pairs or tables of the wrong shape.
        FailureError: `time_limit` ended before any plan was found.

    Cost: a few rounds of O(n L rows) and up to two million sets, or programs of some hundred columns: 0.1 to 0.2 s with
    two limits at n=2,000, L=8, 0.3 to 0.8 s with three, where HiGHS on the whole takes 2 to 21 s. Pairs that bind may
    leave much more to HiGHS.

    Guarantee: `value` and `bound` enclose the optimum, within HiGHS' tolerances (1e-9 of the losses in doubt).

    References:
        Pisinger 1995, EJOR 83 (the core); Huangfu & Hall 2018, Mathematical Programming Computation 10 (HiGHS).

    Examples:
        >>> from kofn.allocation import constrained_knapsack
        >>> loss = [[9.0, 4.0, 1.0], [5.0, 2.0, 0.0], [7.0, 6.0, 1.0]]
        >>> constrained_knapsack(loss, budget=4, groups=["a", "a", "b"], quotas={"b": (2, None)}).amounts.tolist()
        [1, 1, 2]
        >>> constrained_knapsack(loss, budget=4, k=2).amounts.tolist()
        [2, 0, 2]
        >>> both = constrained_knapsack(loss, budget=4, resources={"ms": [5, 1, 1]}, limits={"ms": 6})
        >>> both.amounts.tolist(), both.used
        ([0, 2, 2], {'budget': 4, 'ms': 4})
    """
    began = time.monotonic()
    problem = Problem.of(curves, budget, mean_budget, sizes, levels, sense, bounds)
    with Control(time_limit=time_limit) as control:
        rows = [
            _sides.budget_row(problem),
            *_sides.resource_rows(problem, resources, limits),
            *_sides.group_rows(problem, groups, quotas),
            *_sides.count_row(problem, k),
        ]
        pairs = _sides.pairs_of(problem, precedence, exclusions)
        group = _sides.tied_rows(tied, len(problem.levels))
        _knapsack.in_units(problem.costs, problem.budget)  # refuses a budget that the cheapest levels exceed
        loss = _sides.summed(np.where(problem.forbidden, np.inf, problem.losses), group)
        _refuse_no_common_level(loss)
        if len(rows) == 1 and not pairs:
            answer = _by_dynamic_program(loss, rows[0].table, group, problem, control)
        else:
            model = _model(problem, loss, rows, pairs, group)
            answer = _core_search.search(
                model,
                stopped=control.stopped,
                left=lambda: None if time_limit is None else time_limit - (time.monotonic() - began),
            )
        if answer.level is None:
            _refuse(answer, rows, time_limit)
    level = answer.level if group is None else answer.level[group]
    return _plan(problem, level, answer, rows)


def _model(problem: Problem, loss: Any, rows: list[Row], pairs: list[Pair], group: Ints | None) -> Model:
    """The program, of tied groups in place of items."""
    above = _sides.summed(_sides.above_zero(problem).astype(np.int64), group) > 0
    if group is not None:
        pairs = [dataclasses.replace(p, first=int(group[p.first]), second=int(group[p.second])) for p in pairs]
        pairs = [p for p in pairs if p.first != p.second or not p.together]
    return Model(loss, _sides.joined(rows, group), above, pairs)


def _refuse_no_common_level(loss: Any) -> None:
    nothing = ~np.isfinite(loss).any(axis=1)
    if nothing.any():
        raise InfeasibleError(
            f"tied: the items of group {int(nothing.argmax())} (in order of their labels) have no level in common; "
            "untie them, or allow one"
        )


def _by_dynamic_program(loss: Any, costs: Any, group: Ints | None, problem: Problem, control: Control) -> Answer:
    """Where there is nothing but the budget: the tied groups as items of a multiple-choice knapsack."""
    costs = _sides.summed(costs, group)
    allowed, column = np.isfinite(loss), None
    if not allowed.all():
        column = np.where(allowed, np.arange(loss.shape[1]), allowed.argmax(axis=1)[:, None])
        loss, costs = (np.take_along_axis(table, column, 1) for table in (loss, costs))
    menu = _knapsack.menu(costs, loss, problem.budget)
    lp = _knapsack.relax(menu, control.stopped)
    if lp is None:
        solved, price = _knapsack.cheapest(menu), 0.0
    else:
        solved = _knapsack.solve(menu, lp, max_memory=_MEMORY, stopped=control.stopped)
        price = _knapsack.hull_price(costs, loss, problem.budget, menu, lp)
    rows = np.arange(menu.n)
    level = menu.level[rows, solved.choice]
    if column is not None:
        level = column[rows, level]
    lower = -math.inf if solved.lower is None else solved.lower
    return Answer(level, lower, np.array([price]), solved.lower is None, {"states": solved.states})


def _refuse(answer: Answer, rows: list[Row], time_limit: float | None) -> NoReturn:
    """Say that nothing keeps all of it, or that time was too short to tell."""
    names = ", ".join(row.name for row in rows)
    if answer.proved:
        raise InfeasibleError(
            f"no amounts keep all of budget, bounds and limits together ({names}); loosen one of them"
        )
    raise FailureError(f"time_limit={time_limit}: no plan that keeps {names} was found in that time; raise it")


def _plan(problem: Problem, level: Ints, answer: Answer, rows: list[Row]) -> Allocation:
    lower = None if answer.proved else answer.lower
    price = max(float(answer.prices[0]), 0.0)
    plan = problem.plan(level, price, lower=lower, status="stopped", info=answer.info)
    sides = rows[1:]
    same = plan.info["uniform"]
    broken = [row.name for row in sides if row.excess(same["level"]) > 0]
    return dataclasses.replace(
        plan,
        objective="constrained_curves",
        info=plan.info | {"uniform": same | {"breaks": broken}},
        used=plan.used | {row.name: row.total(level) for row in sides},
        budget=plan.budget | {row.name: _limit(row) for row in sides if row.high < math.inf},
        prices={row.name: float(price) for row, price in zip(rows, answer.prices.tolist(), strict=True)},
    )


def _limit(row: Row) -> float | int:
    """The limit, a whole number where sums are."""
    return int(row.high) if row.whole and row.high == math.floor(row.high) else row.high
