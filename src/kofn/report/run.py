"""The run section of every report: quality of the plan, and everything needed to repeat the run."""

from __future__ import annotations

import math
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from kofn.core.checks import is_sparse
from kofn.core.plans import Plan
from kofn.report.context import Context
from kofn.report.page import MINUS, E, bytes_, describe, facts, number, percent, seconds, stat, user, version

STATUS = {
    "optimal": ("optimal", "no better answer exists"),
    # What no step improves differs by method: `note_of` has it from the plan.
    "local": ("locally optimal", "no further step of the method improves it"),
    "approximate": ("approximate", "within a proven ratio of the best"),
    "heuristic": ("heuristic", "no promise about the best possible"),
    "stopped": ("stopped early", "a valid answer, cut short"),
}
_COUNTERS = {
    "oracle_calls": "objective evaluations",
    "distance_evals": "distances computed",
    "swaps": "swaps",
}
# Figures of `info` whose names alone do not say what they are.
_FIGURES = {
    "equal": "value of equal amounts",
    "by_size": "value of amounts in proportion to the sizes",
    "proportional": "value of amounts in proportion to the weights",
    "start_value": "value where the search began",
}


def note_of(plan: Plan) -> str:
    """What the status promises, in half a line."""
    if plan.status == "local":
        return str(plan.info.get("local", STATUS["local"][1]))
    return STATUS[plan.status][1]


def kind(plan: Plan) -> Any:
    """Objective and method in words."""
    objective = plan.options.get("objective") or plan.objective
    words = [str(word).replace("_", " ") for word in (objective, plan.method) if isinstance(word, str) and word]
    return user(" · ".join(dict.fromkeys(words)) or type(plan).__name__.lower())


def quality(plan: Plan) -> Element:
    """The proven quality of the plan."""
    word, note = STATUS[plan.status][0], note_of(plan)
    bound, value = plan.bound, plan.value
    low = plan.info.get("distance_bound")
    if low is not None and plan.status != "optimal":
        away = float(plan.info["distance"])
        above = "0%" if away == low else percent(math.ceil((away / low - 1) * 1000) / 1000) if low > 0 else "?"
        note = f"summed over the pool, proven by the bound; {word}"
        return stat(f"≤ {above}", "above the least possible distance", note)
    if plan.status == "optimal":
        return stat(word.capitalize(), "quality", note)
    if bound is not None and math.isfinite(bound) and math.isfinite(value) and bound > 0 and value > 0:
        ratio = min(value / bound, bound / value)
        if plan.sense == "max":
            return stat(
                f"≥ {percent(math.floor(ratio * 1000) / 1000)}",
                "of the best possible value",
                f"proven by the bound; {word}",
            )
        return stat(
            f"≤ {percent(math.ceil((1 / ratio - 1) * 1000) / 1000)}",
            "above the best possible",
            f"proven by the bound; {word}",
        )
    return stat(word.capitalize(), "quality", note)


def outcome(plan: Plan) -> Element:
    """Time and counters of the run."""
    peak = plan.info.get("peak_bytes")
    note = f"{bytes_(float(peak))} peak memory" if isinstance(peak, int | float) and peak else None
    return stat(seconds(float(plan.info["seconds"])), "to compute", note)


def _option(plan: Plan, name: str, value: Any) -> tuple[str, Any]:
    """An option as it was given; of a ranking the judges by name."""
    judges = plan.info.get("judges")
    if name == "lower" and judges and isinstance(value, list | tuple):
        named = [str(judges[i]) if isinstance(i, int) and 0 <= i < len(judges) else describe(i) for i in value]
        return "lower is better for", user(", ".join(named))
    if name == "unlabelled" and isinstance(value, str) and not value.strip():
        return "rows without a label", "their cells are empty"
    numbers = np.asarray(value) if isinstance(value, np.ndarray | list | tuple) else np.empty(0)
    if numbers.shape == (plan.n,) and numbers.dtype.kind in "iuf" and plan.n > 12:
        ends = f"{number(numbers.min().item())} to {number(numbers.max().item())}"
        return f"{name} of each item", user(f"{plan.n:,} numbers, {ends}")
    return f"option {name}", user(describe(value))


def ran(context: Context) -> Element:
    """The last section: the command and every fact of the run."""
    plan = context.plan
    rows: list[tuple[str, Any]] = [("method", user(plan.method or "unnamed"))]
    # Sparse rows are counted words of texts, which stand in the command.
    given = {name: value for name, value in plan.options.items() if not is_sparse(value)}
    rows += [_option(plan, name, value) for name, value in sorted(given.items())]
    if context.X is not None:
        rows.append(("distance", f"cosine: 1 {MINUS} cos" if context.metric == "cosine" else context.metric))
    rows.append(("seed", user(plan.seed) if plan.seed is not None else "none: nothing was drawn"))
    # Near-duplicates are what they are: nothing was optimised.
    if plan.method != "near_duplicates":
        rows.append(("status", f"{plan.status}: {note_of(plan)}"))
    if math.isfinite(plan.value) and plan.method != "near_duplicates":
        rows.append(("value", f"{number(plan.value, 6)} ({'larger' if plan.sense == 'max' else 'smaller'} is better)"))
    if plan.bound is not None:
        rows.append(("bound on the optimum", number(float(plan.bound), 6)))
    if plan.gap is not None:
        # The share by which a value to be minimised is above the bound, as it stands at the top of the page.
        above = plan.sense == "min" and plan.bound is not None and plan.bound > 0
        gap = plan.value / plan.bound - 1 if above and plan.bound is not None else plan.gap
        rows.append(("gap", percent(gap, 2)))
    for name in sorted({*plan.used, *plan.budget}):
        limit = f" of {describe(plan.budget[name])}" if name in plan.budget else ""
        rows.append(
            (f"{name} used", user(describe(plan.used[name]) + limit if name in plan.used else "not counted" + limit))
        )
    for name, price in sorted(plan.prices.items()):
        rows.append((f"price of {name}", user(describe(price))))
    rows += _measured(plan)
    if plan.problem:
        rows.append(("problem digest", E("code", user(plan.problem))))
    rows.append(("kofn version", user(plan.info.get("version") or version())))
    command = (
        None
        if context.command is None
        else E("pre", E("code", user(context.command)), tabindex=0, aria_label="command")
    )
    return E(
        "section",
        E("h2", "What was run", id="run"),
        command,
        facts(rows),
        class_="card",
        aria_labelledby="run",
    )


def _measured(plan: Plan) -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    if plan.guarantee is not None and plan.sense == "max":
        rows.append(("guaranteed by theory", f"≥ {percent(plan.guarantee)} of the best possible"))
    for name, value in plan.info.items():
        if name in ("version", "local") or value is None:
            continue
        if name == "seconds":
            rows.append(("time", seconds(float(value))))
        elif name == "peak_bytes":
            rows.append(("peak memory", bytes_(float(value))))
        elif name in _COUNTERS:
            rows.append((_COUNTERS[name], number(value)))
        elif isinstance(value, str | bool | int | float | np.generic):
            rows.append((_FIGURES.get(name, name.replace("_", " ")), user(describe(value))))
    return rows
