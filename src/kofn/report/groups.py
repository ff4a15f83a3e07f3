"""Quotas and groups: each group's share of the pool and of the picks, and what its quota allows."""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from kofn.report import charts
from kofn.report.charts import Bar
from kofn.report.context import Context, Quotas
from kofn.report.page import figure, percent, user

GROUPS = 24  # bars of a grouping


def kept(context: Context, picks: Any) -> str:
    """Whether the quotas are met, as the end of a sentence."""
    limits = sum(len(grouping.limits) for grouping in context.groupings)
    if not limits:
        return ""
    broken = sum(_breached(grouping, label, picks) for grouping in context.groupings for label in grouping.limits)
    if broken:
        return f"; {broken} of {limits} quotas not met"
    return "; the quota is met" if limits == 1 else f"; all {limits} quotas are met"


def chart(context: Context, grouping: Quotas, picks: Any, position: int) -> Element:
    """One grouping's bars; the figure is named after its place `at`."""
    n, m = context.plan.n, max(1, len(picks))
    labels, pool = np.unique(grouping.labels, return_counts=True)
    counts = {label: int((grouping.labels[picks] == label).sum()) for label in labels.tolist()}
    ranked = sorted(
        zip(labels.tolist(), pool.tolist(), strict=True),
        key=lambda row: (row[0] not in grouping.limits, -row[1], row[0]),
    )
    shown = ranked if len(ranked) <= GROUPS else ranked[: max(GROUPS - 1, len(grouping.limits))]
    rows = []
    for label, count in sorted(shown, key=_order(shown)):
        low, high = grouping.limits.get(label, (None, None))
        limited = label in grouping.limits
        rows.append(
            Bar(
                name=label,
                value=counts[label] / m,
                against=count / n,
                words=f"{percent(count / n)} → {percent(counts[label] / m)}",
                least=None if not limited else (low or 0) / m,
                most=None if high is None else high / m,
                limits=_limits(counts[label], count, grouping.limits.get(label)),
                breached=limited and _breached(grouping, label, picks),
            )
        )
    rest = ranked[len(shown) :]
    if rest:
        of_pool, of_picks = sum(count for _, count in rest), sum(counts[label] for label, _ in rest)
        rows.append(
            Bar(
                name=f"{len(rest):,} other groups",
                value=of_picks / m,
                against=of_pool / n,
                words=f"{percent(of_pool / n)} → {percent(of_picks / m)}",
                limits=f"{of_picks:,} of {of_pool:,} picked",
            )
        )
    subject = "the groups" if grouping.name is None else grouping.name
    key = [("against", "share of the pool"), ("value", "share of the picks")]
    caption: list[Any] = ["Each group's share before and after."]
    if grouping.limits:
        key.append(("band", "quota"))
        caption = ["Each group's share before and after; the band is what its quota allows."]
        absent = [label for label in grouping.limits if label not in counts]
        if absent:
            caption += [" No item of the pool is in ", user(", ".join(absent)), "."]
    body = charts.bars(rows, label=f"{subject}: share of the pool and of the picks", key=key)
    title = "Groups before and after" if grouping.name is None else f"By {grouping.name}: before and after"
    return figure(body, caption, title=title, name=f"groups-{position + 1}", class_="grouped")


def _breached(grouping: Quotas, label: str, picks: Any) -> bool:
    low, high = grouping.limits[label]
    count = int((grouping.labels[picks] == label).sum())
    return count < low or (high is not None and count > high)


def _order(rows: list[tuple[str, int]]) -> Any:
    """Numbers in their order, other labels from the largest group to the smallest."""
    if all(label.lstrip("-").isdigit() for label, _ in rows):
        return lambda row: int(row[0])
    return lambda row: (-row[1], row[0])


def _limits(picked: int, count: int, ends: tuple[int, int | None] | None) -> str:
    words = f"{picked:,} of {count:,} picked"
    if ends is None:
        return words
    low, high = ends
    if high is None:
        return f"{words}, quota at least {low:,}"
    if low == high:
        return f"{words}, quota {low:,}"
    return f"{words}, quota {low:,} to {high:,}" if low else f"{words}, quota at most {high:,}"
