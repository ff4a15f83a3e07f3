"""The whole trade-off curve of one budget over curves: every point on its convex hull, each an optimal plan."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kofn.allocation.knapsack import _knapsack
from kofn.allocation.knapsack._curves import Problem
from kofn.core.arrays import Ints


def frontier(problem: Problem) -> dict[str, Any]:
    """The budgets at which climbing the items' hulls stops, with the value and the price there, from least to most.

    Step t gives `item[t]` the amount `amount[t]`; the steps up to a budget give its plan, which is the optimum for
    that budget. Between two budgets the optimum lies on or inside the straight line.

    Returns:
        budget, value, price (what one more unit is worth from there), item and amount, arrays of one length; the first
        step is of no item (-1): all at their cheapest levels that no other beats.
    """
    whole = _knapsack.is_whole(problem.costs)
    menu = problem.menu(_knapsack.dearest(problem.costs))
    steps = _knapsack.hull_steps(menu)
    assert steps is not None  # nothing stops it
    ends, item, steep = steps
    order = np.argsort(-steep, kind="stable")
    item, start, end, steep = item[order], ends[order, 0], ends[order, 1], steep[order]
    run = menu.cost[item, end] - menu.cost[item, start]
    budget: Any = _sums(sum(menu.cost[:, 0].tolist()), run)
    loss = np.concatenate([[math.fsum(menu.loss[:, 0].tolist())], menu.loss[item, end] - menu.loss[item, start]])
    value = np.cumsum(loss)
    return {
        "budget": budget if whole else budget * menu.unit,
        "value": value if problem.sense == "min" else -value,
        "price": np.append(steep, 0.0),
        "item": np.append(-1, item),
        "amount": np.append(0, problem.levels[item, menu.level[item, end]]),
    }


def _sums(first: int, steps: Ints) -> Ints:
    out: Ints = np.cumsum(np.append(first, steps))
    return out
