"""What `kofn allocate` prints: for people and for machines."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.plans import Allocation
from kofn.tables.allocate_arguments import AllocateArguments
from kofn.tables.allocate_reading import Call, Curves

# How many columns of levels are named in one line, items below one another, and points of the frontier.
_SHOWN, _ITEMS, _POINTS = 12, 10, 7
# Numbers of `info` that stand beside the plan's value, and what they are called.
_BESIDE = {
    "uniform": "the same for all",
    "equal": "equal amounts",
    "proportional": "in proportion to the weights",
    "by_size": "in proportion to the sizes",
    "start_value": "where the search began",
}


def answer(plan: Allocation, arguments: AllocateArguments, curves: Curves) -> dict[str, Any]:
    """The answer for machines."""
    out = {
        "method": plan.method,
        "items": plan.n,
        "value": plan.value,
        "sense": plan.sense,
        "bound": plan.bound,
        "status": plan.status,
        "used": plan.used.get("budget"),
        "budget": plan.budget.get("budget"),
        "price": plan.price,
        "seconds": plan.info["seconds"],
        "output": arguments.output,
        "report": arguments.report,
        "warnings": plan.info.get("warnings", []),
        "notes": [*_left_out(plan, curves), *plan.info.get("notes", [])],
        "amounts": plan.amounts,
        "marginal_up": plan.marginal_up,
        "marginal_down": plan.marginal_down,
        "at_bounds": plan.at_bounds,
        "uniform": plan.info.get("uniform"),
        "limits": {
            name: {"used": used, "limit": plan.budget.get(name), "price": plan.prices.get(name)}
            for name, used in plan.used.items()
            if name != "budget"
        },
    }
    if arguments.frontier:
        out["frontier"] = plan.info["frontier"]
    return out


def render(plan: Allocation, arguments: AllocateArguments, curves: Curves, call: Call) -> str:
    """The answer for people."""
    used, budget = plan.used.get("budget"), plan.budget.get("budget")
    spent = "" if used is None else f", used {_amount(used)}" + ("" if budget is None else f" of {_amount(budget)}")
    value = f", value {plan.value:.6g}" if np.isfinite(plan.value) else ""
    lines = [f"{plan.method}: {plan.n} items{value} ({plan.status}){spent}"]
    lines += [_levels(arguments, curves), *_left_out(plan, curves), *_uniform(plan)]
    lines += [
        *_price(plan),
        *_next_level(plan, curves, call),
        *_other_limits(plan),
        *_at_bounds(plan),
        *(_frontier(plan) if arguments.frontier else []),
    ]
    lines += plan.info.get("notes", [])
    if arguments.output:
        lines.append(f"amounts -> {arguments.output}")
    else:
        keys = plan.keys(np.arange(plan.n)).tolist()
        listed = list(zip(keys, plan.amounts.tolist(), strict=True))[:_ITEMS]
        lines += [f"  {key}: {_amount(amount)}" for key, amount in listed]
        if plan.n > _ITEMS:
            lines.append(f"  ... {plan.n - _ITEMS:,} more; -o writes all")
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)


def _amount(value: float | int) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:,.10g}"


def _levels(arguments: AllocateArguments, curves: Curves) -> str:
    """Which columns are the levels, and what each costs."""
    shown = [*curves.columns[:_SHOWN], *(["..."] if len(curves.columns) > _SHOWN else [])]
    if curves.word == "scores":
        return f"by the scores in column {shown[0]}"
    if "family" in arguments.options:
        return f"curves of the family {arguments.options['family']} with the parameters {', '.join(shown)}"
    if curves.levels is not None and not arguments.levels:
        named = [f"{level:g}" for level in curves.levels]
        columns = "" if named == [name.strip() for name in curves.columns] else f" (columns {', '.join(shown)})"
        return f"levels by the names of the columns: {', '.join(named)}{columns}"
    amounts = "of --levels" if arguments.levels else "0, 1, 2, .. (--levels A,B gives other amounts)"
    return f"levels {amounts}: column{'s' if len(shown) > 1 else ''} {', '.join(shown)}"


def _left_out(plan: Allocation, curves: Curves) -> list[str]:
    """How many levels no number stands for, and where the first is: nobody may have meant to forbid it."""
    if curves.word != "curves" or curves.values.ndim != 2 or len(curves.columns) != curves.values.shape[1]:
        return []
    rows, columns = np.nonzero(np.isinf(curves.values))
    if not len(rows):
        return []
    cell = f"that of item {plan.keys(rows[:1]).tolist()[0]} in column {curves.columns[columns[0]]!r}"
    if len(rows) == 1:
        return [f"one cell is empty or infinite, {cell}: the item does not get that level; fill it in if it may"]
    return [
        f"{len(rows):,} cells are empty or infinite, the first {cell}: the items do not get those levels; fill them "
        "in if they may"
    ]


def _uniform(plan: Allocation) -> list[str]:
    """What the same budget brings where every item gets the same."""
    uniform = plan.info.get("uniform")
    if not isinstance(uniform, Mapping):
        known = {text: plan.info[name] for name, text in _BESIDE.items() if name in plan.info}
        others = [f"{text}: {value:.6g}" for text, value in known.items() if np.ndim(value) == 0]
        return [f"value of {', '.join(others)}"] if others else []
    if not np.isfinite(uniform["value"]):
        return []
    amounts = np.asarray(uniform["amounts"])
    low, high = amounts.min().item(), amounts.max().item()
    each = _amount(low) if low == high else f"{_amount(low)} to {_amount(high)}"
    change = plan.value - uniform["value"]
    better = change if plan.sense == "max" else -change
    share = f" ({abs(change) / abs(uniform['value']):.1%})" if uniform["value"] else ""
    verdict = "no better" if better <= 0 else f"better by {better:.4g}{share}"
    verdict = f"it breaks {', '.join(uniform['breaks'])}" if uniform.get("breaks") else f"the allocation is {verdict}"
    same = f"uniform, {each} an item: value {uniform['value']:.6g}"
    return [f"{same}, used {_amount(uniform['used'])}; {verdict}"]


def _price(plan: Allocation) -> list[str]:
    """What more budget is worth, and of what that is the slope."""
    if plan.price is None:
        return []
    if plan.objective == "constrained_curves":
        return [f"price: {plan.price:.4g} a unit of budget, in the linear relaxation"]
    if plan.objective != "curves":
        return [f"price: one more unit of budget is worth about {plan.price:.4g}"]
    if not plan.price:
        return ["price: 0, as no larger budget brings a better plan"]
    line = f"price: more budget is worth {plan.price:.4g} a unit, the slope of the convex hull of all plans"
    frontier, budget = plan.info.get("frontier"), plan.budget["budget"]
    after = 0 if frontier is None else int(np.searchsorted(frontier["budget"], budget, side="right"))
    if frontier is None or after == len(frontier["budget"]):
        return [line]
    cost, value = frontier["budget"][after].item(), frontier["value"][after].item()
    better = abs(value - plan.value)
    return [f"{line}; the next plan on it takes {_amount(cost)}: value {value:.6g}, better by {better:.4g}"]


def _next_level(plan: Allocation, curves: Curves, call: Call) -> list[str]:
    """Who gains most by one more level, for what the level costs."""
    up = plan.marginal_up
    # Under other limits the item's own step may break one of them.
    if plan.objective == "constrained_curves" or up is None or np.isnan(up).all() or not np.nanmax(up) > 0:
        return []
    costs = _step_costs(plan, curves, call)
    with np.errstate(divide="ignore", invalid="ignore"):
        each = np.where(up > 0, up / costs, np.nan)
    item = int(np.nanargmax(each))
    brought = f"{up[item]:.4g}"
    if not (costs == 1).all():
        brought = f"{each[item]:.4g} a unit of budget ({brought} for {_amount(costs[item].item())})"
    return [f"a next step brings most at {plan.keys(np.array([item])).tolist()[0]}: {brought}"]


def _step_costs(plan: Allocation, curves: Curves, call: Call) -> NDArray[Any]:
    """(n,) what the next step of each item costs: a unit, or the next dearer level that it may have."""
    unit = np.asarray(call.options.get("sizes", call.words.get("costs", 1)))
    unit = np.broadcast_to(unit, plan.n)
    if plan.objective != "curves" or curves.values.ndim != 2:
        return unit
    levels = np.asarray(call.options.get("levels", np.arange(curves.values.shape[1])))
    steps = levels * unit[:, None] - (plan.amounts * unit)[:, None]
    ahead = np.isfinite(curves.values) & (steps > 0)
    # Whole where levels and sizes are; an item without a next level gains nothing by one.
    return np.where(ahead, steps, steps.max(initial=1) + 1).min(axis=1)


def _other_limits(plan: Allocation) -> list[str]:
    lines = []
    for name, used in plan.used.items():
        if name == "budget":
            continue
        limit, price = plan.budget.get(name), plan.prices.get(name, 0.0)
        of = "" if limit is None else f" of {_amount(limit)}"
        worth = f", price {price:.4g} in the linear relaxation" if price else ""
        lines.append(f"{name}: {_amount(used)}{of}{worth}")
    return lines


def _at_bounds(plan: Allocation) -> list[str]:
    """How many items are at the least or the most that they may have."""
    sides = plan.at_bounds
    counts = {"at their least": -1, "at their most": 1, "without a choice": 2}
    words = [f"{int((sides == side).sum()):,} {name}" for name, side in counts.items() if (sides == side).any()]
    return [f"items at their bounds: {', '.join(words)}"] if words else []


def _frontier(plan: Allocation) -> list[str]:
    frontier = plan.info.get("frontier")
    if frontier is None:
        return []
    budgets, values = np.asarray(frontier["budget"]), np.asarray(frontier["value"])
    steps = np.unique(np.linspace(0, len(budgets) - 1, _POINTS).round().astype(np.int64))
    # Minus zero is what a gain of nothing is, turned round.
    points = ", ".join(f"{_amount(budgets[i].item())}: {values[i] + 0.0:.4g}" for i in steps.tolist())
    shown = f", of which {len(steps)}" if len(steps) < len(budgets) else ""
    return [f"value by budget, {len(budgets):,} optimal plans on the convex hull{shown}: {points}"]
