"""The data of a plan's pictures, shared by the notebook's view and the plot."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core.arrays import Floats
from kofn.core.plans import Allocation, Assignment, Blend, Plan, Selection
from kofn.report.page import describe, number

SHOWN = 10  # picks, groups, amounts or members that are drawn one by one


@dataclass(frozen=True)
class Curve:
    """A figure after each pick, from pick number `first` on."""

    title: str
    x: str
    y: str
    values: Floats
    first: int = 1
    share: bool = False


@dataclass(frozen=True)
class Bars:
    """A figure for each of some rows, and how far it may go (`most`, NaN where there is no limit)."""

    title: str
    names: Sequence[Any]
    values: Floats
    words: Sequence[str]
    most: Floats | None = None
    note: str = ""


def pictures(plan: Plan) -> list[Curve | Bars]:
    """The pictures of a plan, most informative first; empty if the plan has no figures."""
    if isinstance(plan, Selection):
        return _selection(plan)
    if isinstance(plan, Assignment):
        return _assignment(plan)
    if isinstance(plan, Allocation):
        return _allocation(plan)
    assert isinstance(plan, Blend)
    return _blend(plan)


def _selection(plan: Selection) -> list[Curve | Bars]:
    gains = np.asarray(plan.gains, np.float64)
    # The first pick of a spread-out selection gains nothing that could be stated.
    start = int(len(gains) > 1 and math.isnan(gains[0]))
    known = len(gains) > start and bool(np.isfinite(gains[start:]).all())
    out: list[Curve | Bars] = []
    if known and len(gains) > start + 1:
        if plan.additive and not start and gains.min() >= 0 and gains.sum() > 0:
            share = gains.cumsum() / gains.cumsum()[-1]
            out.append(Curve("What each pick adds", "picks", "share of the value", share, share=True))
        else:
            out.append(Curve("Gain of each pick", "picks", "gain", gains[start:], first=start + 1))
    shown = plan.indices[:SHOWN]
    if len(shown):
        names = [f"{rank}. {key}" for rank, key in enumerate(plan.keys(shown).tolist(), 1)]
        title, values = "First picks", gains[: len(shown)] if known else np.full(len(shown), math.nan)
        words = [number(gain) if math.isfinite(gain) else "" for gain in values.tolist()]
        title += ", with their gains" if known else ""
        out.append(Bars(title, names, values, words, note=_more(len(plan.indices) - len(shown))))
    quotas = [name for name in plan.used if name.startswith("quota ")]
    if quotas:
        used = np.array([float(plan.used[name]) for name in quotas])
        asked = {name: plan.info.get("quotas", {}).get(name, (0, plan.budget.get(name))) for name in quotas}
        most = np.array([math.nan if high is None else float(high) for _, high in asked.values()])
        ends = [_ends(*asked[name]) for name in quotas]
        words = [f"{describe(plan.used[name])}{end}" for name, end in zip(quotas, ends, strict=True)]
        names = [name.removeprefix("quota ") for name in quotas]
        out.append(_largest("Quotas", names, used, words, most, "groups"))
    return out


def _ends(low: int, high: int | None) -> str:
    """What a quota asks for, after the number that was picked."""
    parts = [f"at least {describe(low)}"] if low else []
    parts += [] if high is None else [f"at most {describe(high)}"]
    return f" of {' and '.join(parts)}" if parts else ""


def _assignment(plan: Assignment) -> list[Curve | Bars]:
    whole = bool((np.asarray(plan.weights) == 1).all())
    load = np.bincount(plan.bins, minlength=plan.k).astype(np.float64) if whole else plan.col_margin
    room = None if plan.capacity is None else np.broadcast_to(np.asarray(plan.capacity, np.float64), plan.k)
    names = [f"group {j}" if room is None else f"bin {j}" for j in range(plan.k)]
    if plan.medoids is not None and plan.ids is not None:
        names = [f"{j}. {key}" for j, key in enumerate(plan.keys(plan.medoids).tolist())]
    sizes = [number(int(size) if whole else float(size)) for size in load.tolist()]
    words = sizes if room is None else [f"{size} of {number(limit)}" for size, limit in zip(sizes, room, strict=True)]
    title = "Items in each group" if whole else "Weight in each group"
    return [_largest(title, names, load, words, room, "groups")]


def _allocation(plan: Allocation) -> list[Curve | Bars]:
    amounts = np.asarray(plan.amounts)
    total = np.asarray(amounts if amounts.ndim == 1 else amounts.sum(axis=1), np.float64)
    bounds = None if plan.bounds is None else np.asarray(plan.bounds, np.float64)
    most = bounds[:, 1] if bounds is not None and bounds.shape == (plan.n, 2) else None
    words = [describe(amount) for amount in amounts]
    keys = plan.keys(np.arange(plan.n)).tolist()
    return [_largest("Amount of each item", keys, total, words, most, "items")]


def _blend(plan: Blend) -> list[Curve | Bars]:
    if plan.form == "order":
        return _ranking(plan)
    labels = plan.info.get("members")
    out: list[Curve | Bars] = []
    for title, figures in (("Weight of each member", plan.weights), ("Distance to the blend", plan.spread)):
        if isinstance(figures, np.ndarray) and figures.ndim == 1 and len(figures):
            values = figures.astype(np.float64)
            fits = isinstance(labels, list | tuple) and len(labels) == len(values)
            names = labels if fits and labels is not None else [f"member {i}" for i in range(len(values))]
            out.append(_largest(title, names, values, [number(value) for value in values.tolist()], None, "members"))
    return out


def _ranking(plan: Blend) -> list[Curve | Bars]:
    order = np.asarray(plan.result, np.int64)
    points = plan.info.get("points")
    known = points is not None and np.size(points) == plan.n
    values = np.asarray(points, np.float64)[order] if known else np.full(len(order), math.nan)
    words = [number(value) if known else "" for value in values.tolist()]
    ranks = plan.ranks()[order].tolist()
    names = [f"{rank}. {key}" for rank, key in zip(ranks, plan.keys(order).tolist(), strict=True)]
    note = _more(len(order) - SHOWN)
    return [Bars("Best first", names[:SHOWN], values[:SHOWN], words[:SHOWN], None, note)]


def _largest(
    title: str, names: Sequence[Any], values: Floats, words: Sequence[str], most: Floats | None, noun: str
) -> Bars:
    """All rows in their order, or the largest of many."""
    if len(values) <= SHOWN:
        return Bars(title, names, values, words, most)
    rows = np.argsort(-np.nan_to_num(np.abs(values)), kind="stable")[:SHOWN]
    ends = f"from {number(np.nanmin(values))} to {number(np.nanmax(values))}"
    note = f"the {SHOWN} largest of {len(values):,} {noun}, {ends}"
    limits = None if most is None else most[rows]
    return Bars(title, [names[i] for i in rows], values[rows], [words[i] for i in rows], limits, note)


def _more(count: int) -> str:
    return f"and {count:,} more" if count > 0 else ""
