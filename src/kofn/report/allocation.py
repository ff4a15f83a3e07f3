"""The figures of an allocation: amounts beside equal ones, curves, the whole trade-off, the next step."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from kofn.core.arrays import Floats, Ints
from kofn.core.plans import Allocation
from kofn.report import charts
from kofn.report.charts import Axis, Bar
from kofn.report.context import Context
from kofn.report.page import describe, figure, number, percent, stat

SHOWN, CURVES = 40, 6  # bars of a chart, curves that are drawn
_SIDES = {-1: "at its least", 1: "at its most", 2: "without a choice"}


def parts(context: Context, plan: Allocation) -> tuple[list[Element], list[Element | None]]:
    """The headline figures and the charts."""
    figures = [_amounts(context, plan), _frontier(plan), _next_steps(context, plan), *_curves(context, plan)]
    return [*_stats(plan), *_baseline(plan)], figures


def _total(amounts: Any) -> Floats:
    array = np.asarray(amounts)
    return np.asarray(array if array.ndim == 1 else array.sum(axis=1), np.float64)


def _few(values: Floats) -> Ints:
    """Which rows a chart shows: all in their order, or the largest."""
    count = len(values)
    return np.arange(count) if count <= SHOWN else np.argsort(-np.nan_to_num(values), kind="stable")[:SHOWN]


def _rest(count: int) -> str:
    return f" The {SHOWN} largest of {count:,} items." if count > SHOWN else ""


def _stats(plan: Allocation) -> list[Element]:
    used = [
        stat(describe(used), f"{name} used", None if name not in plan.budget else f"of {describe(plan.budget[name])}")
        for name, used in plan.used.items()
    ][:2]
    if plan.price is not None:
        hull = "what more budget is worth a unit, by the hull of all plans"
        note = hull if plan.objective == "curves" else "what one more unit of budget is worth, about"
        used.append(stat(number(float(plan.price)), "price", note))
    return used


def _equal_amounts(plan: Allocation) -> Mapping[str, Any] | None:
    """The allocation of equal amounts, where the method has made one."""
    uniform = plan.info.get("uniform")
    return uniform if isinstance(uniform, Mapping) else None


def _baseline(plan: Allocation) -> list[Element]:
    """The same budget in equal amounts."""
    uniform = _equal_amounts(plan)
    if uniform is None or not np.isfinite(uniform["value"]):
        return []
    change = abs(plan.value - uniform["value"])
    share = f", {percent(change / abs(uniform['value']))} apart" if uniform["value"] else ""
    broken = uniform.get("breaks")
    note = f"breaks {', '.join(broken)}" if broken else f"here {number(plan.value)}{share}"
    return [stat(number(float(uniform["value"])), "value of equal amounts", note)]


def _amounts(context: Context, plan: Allocation) -> Element:
    amounts, values = np.asarray(plan.amounts), np.asarray(plan.values, np.float64)
    total = _total(amounts)
    uniform = _equal_amounts(plan)
    against = None if uniform is None else _total(uniform["amounts"])
    sides = plan.at_bounds if amounts.ndim == 1 else np.zeros(plan.n, np.int8)
    rows = []
    for i in _few(total).tolist():
        side = _SIDES.get(int(sides[i]))
        words = f"{describe(amounts[i])} · value {number(float(values[i]))}" + (f" · {side}" if side else "")
        rows.append(
            Bar(context.name(i), float(total[i]), words, against=None if against is None else float(against[i]))
        )
    ends = [f"{int((sides == side).sum()):,} {words}" for side, words in _SIDES.items() if (sides == side).any()]
    caption = "The amount each item gets and the value it brings." + (f" Items {', '.join(ends)}." if ends else "")
    key = [("value", "allocated"), ("against", "equal amounts")] if uniform is not None else []
    chart = charts.bars(rows, label="amount of each item", key=key)
    return figure(chart, caption + _rest(plan.n), title="How much each gets", name="amounts")


def _with_room(low: float, high: float, share: float) -> Axis:
    """From low to high, and room for the words of a mark above the highest point."""
    return Axis(low, high + share * (high - low) if high > low else low + 1.0)


def _frontier(plan: Allocation) -> Element | None:
    """The optimal plans on the convex hull, and this plan."""
    frontier = plan.info.get("frontier")
    if frontier is None or len(frontier["budget"]) < 2:
        return None
    budgets, values = np.asarray(frontier["budget"], np.float64), np.asarray(frontier["value"], np.float64)
    spot = float(plan.used["budget"])
    here = max(int(np.searchsorted(budgets, spot, side="right")) - 1, 0)
    keep = charts.steps(len(budgets), [here])
    low, high = float(values.min()), float(values.max())
    mark = (spot, f"{number(spot)}: {number(float(plan.value))}")
    plot = charts.line(
        budgets[keep],
        values[keep],
        label=f"Optimal plans from budget {number(budgets[0].item())} to {number(budgets[-1].item())}",
        x=Axis(float(budgets[0]), float(budgets[-1])),
        y=_with_room(low, high, 0.15),
        form=lambda value: number(value, 3),
        mark=mark,
        mark_at=float(plan.value),
        x_title="budget",
        above=plan.sense == "min",
    )
    price = (
        ""
        if plan.price is None
        else (
            f" To the right of the budget, {number(float(plan.budget['budget']))}, the line's slope is the price, "
            f"{number(float(plan.price))} a unit."
        )
    )
    caption = (
        f"{len(budgets):,} plans, each the optimum of its budget; between two of them the best value is on the line or "
        f"on its worse side. Marked: this plan.{price}"
    )
    return figure(plot, caption, title="What more or less budget would bring", name="frontier")


def _next_steps(context: Context, plan: Allocation) -> Element | None:
    """What one more unit buys, item by item."""
    up = plan.marginal_up
    if up is None or np.isnan(up).all() or not np.nanmax(up) > 0:
        return None
    gains = np.nan_to_num(up, nan=-np.inf)
    order = np.argsort(-gains, kind="stable")[:12]
    rows = [Bar(context.name(i), float(up[i]), number(float(up[i]))) for i in order.tolist() if gains[i] > 0]
    caption = "What the next step of an item would bring, whatever it costs; the largest first."
    return figure(charts.bars(rows, label="gain of the next step"), caption, title="What one more buys", name="next")


def _curves(context: Context, plan: Allocation) -> list[Element | None]:
    """The curves of the items that differ most from equal amounts, with the chosen points."""
    curves = context.curves
    column = plan.info.get("level")
    if curves is None or column is None:
        return []
    chosen = np.asarray(column)
    uniform = (_equal_amounts(plan) or {}).get("level", chosen)
    rows = np.arange(plan.n)
    moved = np.abs(np.nan_to_num(curves[rows, chosen] - curves[rows, np.asarray(uniform)]))
    out: list[Element | None] = []
    for i in np.argsort(-moved, kind="stable")[:CURVES].tolist():
        levels = context.levels[i] if context.levels is not None else np.arange(curves.shape[1], dtype=np.float64)
        allowed = np.flatnonzero(np.isfinite(curves[i]))
        order = allowed[np.argsort(levels[allowed], kind="stable")]
        x, y = levels[order], curves[i][order]
        if len(np.unique(x)) < 2:
            continue
        low, high = min(float(y.min()), 0.0), float(y.max())
        spot = float(levels[chosen[i]])
        plot = charts.line(
            x,
            y,
            label=f"Curve of {context.name(i)}: {number(float(y[0]))} at {number(spot)} chosen",
            x=Axis(float(x[0]), float(x[-1])),
            y=_with_room(low, high, 0.3),
            form=lambda value: number(value, 3),
            mark=(spot, f"{number(spot)}: {number(float(curves[i, chosen[i]]))}"),
            x_title="amount",
            above=plan.sense == "min",
        )
        plot.set("class", "plot low")
        caption = f"Marked: what {context.name(i)} gets."
        out.append(figure(plot, caption, title=f"Curve of {context.name(i)}", name=f"curve-{i}"))
    return out
