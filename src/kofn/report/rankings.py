"""What a ranking hangs on, on its page: rule against rule, and the winner without each judge."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from kofn.combination.preferences._cycles import cycle_sentences
from kofn.core.plans import Blend
from kofn.report.page import E, figure, user

SHOWN = 40  # alternatives or judges of a table


def rule_figures(plan: Blend, name_of: Callable[[int], str], judge_of: Callable[[int], str]) -> list[Element]:
    """The sections on other rules and other judges, where the plan has them.

    Args:
        plan: a ranking, with `info["rules"]` as the command puts them there.
        name_of: what an alternative is called.
        judge_of: what a judge is called.
    """
    comparison = plan.info.get("rules")
    if not comparison:
        return []
    out = [_ranks(plan, comparison, name_of), _agreement(comparison), _pairs(plan, comparison, name_of)]
    if comparison["without"]:
        out.append(_without(plan, comparison, name_of, judge_of))
    return out


def cycles(plan: Blend, name_of: Callable[[int], str]) -> Element | None:
    """The section on preferences that go in cycles, where the plan has looked for them."""
    looked_at = plan.info.get("cycles")
    if looked_at is None:
        return None
    sentences = [f"{text[0].upper()}{text[1:]}." for text in cycle_sentences(looked_at, name_of)]
    head = E("h2", "Cycles", id="cycles")
    return E("section", head, [E("p", user(text)) for text in sentences], class_="card", aria_labelledby="cycles")


def _ranks(plan: Blend, comparison: Mapping[str, Any], name_of: Callable[[int], str]) -> Element:
    """Each alternative's rank under every rule, shaded from the first to the last."""
    items = np.asarray(plan.result, np.int64)[:SHOWN].tolist()
    names = list(comparison["ranks"])
    rows = []
    for item in items:
        cells = [_rank(comparison["ranks"][name][item], plan.n) for name in names]
        rows.append(E("tr", E("th", user(name_of(item)), scope="row"), cells))
    caption = f"The rank under every rule, darker is better, in the order of {plan.method}."
    if "kemeny" in names:
        caption += " By kemeny it is the best rank in any order that overturns the least."
    if plan.n > SHOWN:
        caption += f" The first {SHOWN} of {plan.n:,}."
    for name, reason in comparison["left_out"].items():
        caption += f" Without {name}: {reason}."
    return figure(_table("", names, rows), caption, title="Rule against rule", name="rules")


def _rank(rank: int, n: int) -> Element:
    if not rank:
        return E("td", "none")
    return _shaded(str(rank), 1 - (rank - 1) / max(n - 1, 1))


def _agreement(comparison: Mapping[str, Any]) -> Element:
    names = list(comparison["ranks"])
    rows = [
        E("tr", E("th", name, scope="row"), [_tau(value) for value in row])
        for name, row in zip(names, comparison["agreement"], strict=True)
    ]
    caption = "Kendall's tau-b of the ranks under every two rules: 1 where they agree on every pair, -1 on none."
    return figure(_table("", names, rows), caption, title="How far the rules agree", name="agreement")


def _tau(value: float | None) -> Element:
    if value is None or math.isnan(value):
        return E("td", "none")
    return _shaded(f"{value:.2f}", max(value, 0.0))


def _pairs(plan: Blend, comparison: Mapping[str, Any], name_of: Callable[[int], str]) -> Element:
    """How much of the judges' weight puts each row's alternative above each column's."""
    items = np.asarray(plan.result, np.int64)[:SHOWN].tolist()
    rows = []
    for item in items:
        shares = [comparison["pairs"][item][other] for other in items]
        cells = [E("td", "") if share is None else _shaded(f"{share:.2f}", share) for share in shares]
        rows.append(E("tr", E("th", user(name_of(item)), scope="row"), cells))
    counted = "votes between the two" if plan.of_votes else "judges who scored both, by weight,"
    caption = f"The share of the {counted} that put the row above the column, ties half; empty: never compared."
    columns = [user(name_of(item)) for item in items]
    return figure(_table("", columns, rows), caption, title="Each against each", name="pairs")


def _without(
    plan: Blend, comparison: Mapping[str, Any], name_of: Callable[[int], str], judge_of: Callable[[int], str]
) -> Element:
    """Who is first without each judge, those that change it on top."""
    own = comparison["winners"][plan.method]
    order = sorted(range(len(comparison["without"])), key=lambda judge: comparison["without"][judge] == own)
    rows = []
    for judge in order[:SHOWN]:
        first = comparison["without"][judge]
        names = "nothing ranks" if first is None else ", ".join(name_of(item) for item in first[:SHOWN])
        changed = "the same" if first == own else "another"
        rows.append(E("tr", E("th", user(judge_of(judge)), scope="row"), E("td", user(names)), E("td", changed)))
    changes = sum(first != own for first in comparison["without"])
    caption = f"Who is first by {plan.method} if one judge is left out: {changes:,} of {len(order):,} change it."
    if len(order) > SHOWN:
        caption += f" The first {SHOWN} judges."
    return figure(_table("without", ["first", ""], rows), caption, title="Without one judge", name="without")


def _shaded(text: str, share: float) -> Element:
    return E("td", text, style=f"background: color-mix(in srgb, var(--accent) {60 * share:.0f}%, transparent)")


def _table(corner: str, columns: Sequence[Any], rows: Sequence[Element]) -> Element:
    head = E("tr", [E("th", name, scope="col") for name in (corner, *columns)])
    table = E("table", E("thead", head), E("tbody", list(rows)), style="white-space: nowrap")
    return E("div", table, class_="figures", style="overflow-x: auto")
