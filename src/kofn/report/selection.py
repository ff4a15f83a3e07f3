"""The report of a selection: how much k picks cover, where they lie, whom they stand for, and why these."""

from __future__ import annotations

import math
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from kofn.plans import Selection
from kofn.report import charts, measures
from kofn.report.charts import Axis, Bar
from kofn.report.context import Context, Quotas
from kofn.report.page import MINUS, E, describe, document, figure, number, percent, stat, user
from kofn.report.run import kind, outcome, quality, ran

LISTED = 1000  # picks in the list; the plan's own file has them all
AT_ONCE = 48  # picks shown before "show all"
PINNED = 80  # up to this many picks stand on the map as their images
SAMPLED = 12  # items shown with the pick that stands for them
GROUPS = 24  # bars of a grouping


def page(context: Context, title: str | None) -> str:
    """The whole report."""
    plan = context.plan
    assert isinstance(plan, Selection)
    picks = np.asarray(plan.indices, np.int64)
    picks = picks[picks >= 0].ravel()
    cover, space = None, None
    if context.X is not None and len(picks):
        space = measures.Space(context.X, context.metric)
        cover = measures.coverage(space, picks, context.weights)
    counts = None
    if cover is not None and len(cover.items) == plan.n:
        counts = np.bincount(cover.nearest, minlength=len(picks))
    charted = [
        _curve(context, picks, cover),
        None if space is None else _map(context, picks, space),
    ]
    body = [
        E("div", charted, class_="pair"),
        [_groups(context, grouping, picks, at) for at, grouping in enumerate(context.groupings)],
        _picks(context, picks, counts),
        None if cover is None else _stand_ins(context, picks, cover),
        ran(context),
    ]
    return document(
        title=title or f"{len(picks):,} of {plan.n:,}",
        eyebrow=["kofn select", " · ", kind(plan)],
        lede=_lede(context, picks, cover),
        stats=_stats(context, picks, cover),
        body=body,
    )


def _lede(context: Context, picks: Any, cover: measures.Coverage | None) -> list[Any]:
    n, m = context.plan.n, len(picks)
    if cover is None:
        return [f"{m:,} of {n:,} items were picked", _kept(context, picks), "."]
    return [
        f"These {m:,} picks stand for {n:,} items. On average an item lies {number(float(cover.mean[-1]), 3)} ",
        f"from its nearest pick; from one item drawn at random it would be {number(cover.typical, 3)} "
        f"({context.metric} distance)",
        _kept(context, picks),
        ".",
    ]


def _kept(context: Context, picks: Any) -> str:
    limits = sum(len(grouping.limits) for grouping in context.groupings)
    if not limits:
        return ""
    broken = sum(_breached(grouping, label, picks) for grouping in context.groupings for label in grouping.limits)
    if broken:
        return f"; {broken} of {limits} quotas not met"
    return "; the quota is met" if limits == 1 else f"; all {limits} quotas are met"


def _breached(grouping: Quotas, label: str, picks: Any) -> bool:
    low, high = grouping.limits[label]
    held = int((grouping.labels[picks] == label).sum())
    return held < low or (high is not None and held > high)


def _stats(context: Context, picks: Any, cover: measures.Coverage | None) -> list[Element]:
    plan = context.plan
    out = [stat([f"{len(picks):,}", E("small", f" of {plan.n:,}")], "picked", _spent(plan))]
    share = _share(context, picks, cover)
    if share is not None:
        value, label, note = share
        out.append(stat(percent(value), label, note))
    out.append(quality(plan))
    if "seconds" in plan.info:
        out.append(outcome(plan))
    return out


def _spent(plan: Any) -> str:
    lines = [
        f"{name} {describe(plan.used[name])} of {describe(limit)}"
        for name, limit in plan.budget.items()
        if name in plan.used and np.ndim(limit) == 0 and not isinstance(limit, dict) and name != "k"
    ]
    if lines:
        return "; ".join(lines)
    return f"{percent(len(plan.indices) / plan.n)} of the pool"


def _share(context: Context, picks: Any, cover: measures.Coverage | None) -> tuple[float, str, str] | None:
    if cover is not None:
        return float(cover.share[-1]), "covered", "how much nearer a pick is than an item drawn at random"
    if context.scores is not None and context.scores.ndim == 1 and len(picks) and context.scores.min() >= 0:
        total = float(context.scores.sum())
        if total > 0:
            return float(context.scores[picks].sum()) / total, "of the score", "the picks' part of the pool's total"
    return None


def _curve(context: Context, picks: Any, cover: measures.Coverage | None) -> Element | None:
    plan = context.plan
    assert isinstance(plan, Selection)
    m = len(picks)
    gains = np.asarray(plan.gains, np.float64).ravel()[:m]
    caption: list[Any] = []
    if cover is not None:
        share, what = cover.share, "covered"
        part = "" if len(cover.items) == plan.n else f", measured on {len(cover.items):,} items drawn evenly"
        caption.append(
            "Covered: 0% if one item drawn at random stood for every item, 100% if every item were picked "
            f"(1 {MINUS} mean {context.metric} distance to the nearest of the first k picks ÷ mean distance between two "
            f"items{part}). "
        )
    elif context.scores is not None and _share(context, picks, None) is not None:
        share, what = np.cumsum(context.scores[picks]) / float(context.scores.sum()), "of the pool's score"
        caption.append(f"The first k picks' part of the total score of all {plan.n:,} items. ")
    elif m and np.isfinite(gains).all() and (gains >= 0).all() and gains.sum() > 0:
        share, what = np.cumsum(gains) / gains.sum(), "of the picks' value"
        caption.append("The part of the final value that the first k picks already bring (the pool was not given). ")
    else:
        return None
    bend = measures.knee(share)
    if bend is not None:
        caption.append(f"The knee, k = {bend:,}, is where one more pick starts to add less than the average pick. ")
    x = Axis(1, max(m, 2))
    keep = charts.steps(m, [] if bend is None else [bend - 1])
    ks = keep + 1
    low = min(0.0, float(share.min()))
    high = min(1.0, charts.ticks(0, 1.0001 * float(share.max()) or 1.0, 4)[-1])
    high = high if high >= share.max() else float(min(1.0, 1.05 * share.max()))
    label = f"Curve: {percent(float(share[0]))} {what} after 1 pick, {percent(float(share[-1]))} after {m:,}"
    mark = None if bend is None else (bend, f"knee: k = {bend:,}, {percent(float(share[bend - 1]))}")
    top = charts.line(ks, share[keep], label=label, x=x, y=Axis(low, high), form=charts.shares, mark=mark, fill=True)
    panels: list[Any] = [E("p", f"Share {what}" if cover is None else "Share of the pool covered", class_="panel"), top]
    panels += _gain_panel(gains, keep, x)
    far = None if cover is None else " ".join(f"{v:.4g}" for v in cover.mean[keep])
    slider = E(
        "div",
        E("p", "First ", E("output", f"{m:,}"), " picks: ", E("strong", percent(float(share[-1])))),
        E(
            "input",
            type="range",
            name="first",
            min=0,
            max=len(ks) - 1,
            value=len(ks) - 1,
            step=1,
            aria_label="number of picks",
        ),
        class_="scrub",
        hidden=True,
        data_k=" ".join(map(str, ks.tolist())),
        data_share=" ".join(f"{v:.4f}" for v in share[keep]),
        data_far=far,
        data_what=what,
        data_last=m,
    )
    rows = [t for t in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if t < m] + [m]
    heads = ["k", f"{what}", "gain"] + (["mean distance"] if cover is not None else [])
    table = E(
        "details",
        E("summary", "Figures"),
        E(
            "table",
            E("thead", E("tr", [E("th", head, scope="col") for head in heads])),
            E(
                "tbody",
                [
                    E(
                        "tr",
                        E("th", f"{t:,}", scope="row"),
                        E("td", percent(float(share[t - 1]))),
                        E("td", number(float(gains[t - 1])) if t <= len(gains) else ""),
                        None if cover is None else E("td", number(float(cover.mean[t - 1]))),
                    )
                    for t in rows
                ],
            ),
        ),
        class_="figures",
    )
    return figure([panels, slider, table], caption, title="What each pick adds", name="curve", class_="curve")


def _gain_panel(gains: Any, keep: Any, x: Axis) -> list[Element]:
    keep = keep[keep < len(gains)]
    shown = gains[keep]
    if len(shown) < 2 or not np.isfinite(shown).all():
        return []
    log = bool(shown.min() > 0 and shown.max() / shown.min() > 30)
    low, high = float(shown.min()), float(shown.max())
    if log:
        y = Axis(low / 1.15, high * 1.15, log=True)
    else:
        y = Axis(min(0.0, low), high if high > min(0.0, low) else 1.0)
    label = f"Gains: {number(float(gains[0]))} for the first pick, {number(float(gains[-1]))} for the last"
    plot = charts.line(keep + 1, shown, label=label, x=x, y=y, form=lambda v: number(v, 3), x_title="picks, k")
    plot.set("class", "plot low")
    return [E("p", "Gain of each pick", E("small", " (log scale)") if log else None, class_="panel"), plot]


def _map(context: Context, picks: Any, space: measures.Space) -> Element:
    n, m = context.plan.n, len(picks)
    plane = measures.plane(space)
    pinned = context.images is not None and m <= PINNED
    images = [image for image in map(context.picture, picks.tolist()) if image] if pinned else None
    names = [context.name(item) for item in picks[: charts.LINKED].tolist()]
    label = f"Map: {n:,} items in two dimensions with the {m:,} picks on it"
    plot, outside, numbered = charts.plane_map(
        plane.points, picks, label=label, names=names, images=images, linked=min(m, LISTED)
    )
    dense = n - m > charts.DRAWN
    caption = [
        f"First two principal components, {percent(plane.shown, 0)} of the variance; what looks close here may be far "
        "in the directions left out. "
    ]
    if dense:
        caption.append(f"All {n - m:,} other items are drawn as density: a larger dot holds more of them. ")
    if outside:
        caption.append(f"{outside:,} far items are drawn on the edge. ")
    if numbered:
        caption.append("The numbers are the order of the first picks.")
    legend = E("p", E("span", "pool", class_="key pool"), E("span", "picks", class_="key chosen"), class_="legend")
    return figure([legend, plot], caption, title="Where they lie", name="map", class_="mapped")


def _groups(context: Context, grouping: Quotas, picks: Any, at: int) -> Element:
    n, m = context.plan.n, max(1, len(picks))
    labels, pool = np.unique(grouping.labels, return_counts=True)
    held = {label: int((grouping.labels[picks] == label).sum()) for label in labels.tolist()}
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
                value=held[label] / m,
                against=count / n,
                words=f"{percent(count / n)} → {percent(held[label] / m)}",
                least=None if not limited else (low or 0) / m,
                most=None if high is None else high / m,
                limits=_limits(held[label], count, grouping.limits.get(label)),
                breached=limited and _breached(grouping, label, picks),
            )
        )
    rest = ranked[len(shown) :]
    if rest:
        of_pool, of_picks = sum(count for _, count in rest), sum(held[label] for label, _ in rest)
        rows.append(
            Bar(
                name=f"{len(rest):,} other groups",
                value=of_picks / m,
                against=of_pool / n,
                words=f"{percent(of_pool / n)} → {percent(of_picks / m)}",
                limits=f"{of_picks:,} of {of_pool:,} picked",
            )
        )
    what = "the groups" if grouping.name is None else grouping.name
    key = [("against", "share of the pool"), ("value", "share of the picks")]
    caption: list[Any] = ["Each group's share before and after."]
    if grouping.limits:
        key.append(("band", "quota"))
        caption = ["Each group's share before and after; the band is what its quota allows."]
        absent = [label for label in grouping.limits if label not in held]
        if absent:
            caption += [" No item of the pool is in ", user(", ".join(absent)), "."]
    chart = charts.bars(rows, label=f"{what}: share of the pool and of the picks", key=key)
    title = "Groups before and after" if grouping.name is None else f"By {grouping.name}: before and after"
    return figure(chart, caption, title=title, name=f"groups-{at + 1}", class_="grouped")


def _order(rows: list[tuple[str, int]]) -> Any:
    """Numbers in their order, other labels from the largest group to the smallest."""
    if all(label.lstrip("-").isdigit() for label, _ in rows):
        return lambda row: int(row[0])
    return lambda row: (-row[1], row[0])


def _limits(held: int, count: int, ends: tuple[int, int | None] | None) -> str:
    words = f"{held:,} of {count:,} picked"
    if ends is None:
        return words
    low, high = ends
    if high is None:
        return f"{words}, quota at least {low:,}"
    if low == high:
        return f"{words}, quota {low:,}"
    return f"{words}, quota {low:,} to {high:,}" if low else f"{words}, quota at most {high:,}"


def _picks(context: Context, picks: Any, counts: Any) -> Element:
    plan = context.plan
    assert isinstance(plan, Selection)
    shown = picks[:LISTED].tolist()
    gains = np.asarray(plan.gains, np.float64).ravel()
    folded = len(shown) > AT_ONCE * 3 // 2  # a few more are not worth a button
    gallery = context.images is not None and context.text is None and not context.columns
    rows = []
    for at, item in enumerate(shown):
        gain = "" if at >= len(gains) or not math.isfinite(gains[at]) else number(float(gains[at]))
        marks = [("gain", gain)] if gain else []
        if counts is not None:
            marks.append(("stands for", f"{int(counts[at]):,}"))
        if plan.weights is not None:
            marks.append(("weight", number(float(plan.weights[at]))))
        if plan.probabilities is not None:
            marks.append(("chance", percent(float(plan.probabilities[item]))))
        head = E("p", E("b", at + 1, class_="no"), " ", user(context.name(item), class_="id"), class_="who")
        figures = E("p", [E("span", f"{name} ", E("b", value)) for name, value in marks], class_="marks")
        late = " late" if folded and at >= AT_ONCE else ""
        rows.append(
            E("li", head, context.exhibit(item), context.traits(item), figures, id=f"p{at + 1}", class_=f"pick{late}")
        )
    tools = None
    if len(shown) > 8:
        tools = E(
            "div",
            E(
                "label",
                "Search the picks",
                E("input", type="search", name="search", autocomplete="off", spellcheck="false"),
            ),
            E("p", f"{len(shown):,} picks", class_="found", role="status"),
            class_="tools",
            hidden=True,
        )
    more = E("button", f"Show all {len(shown):,}", type="button", class_="more", hidden=True) if folded else None
    note = None
    if len(picks) > LISTED:
        note = E("p", f"The first {LISTED:,} of {len(picks):,} picks; plan.to_frame() holds them all.", class_="aside")
    form = "gallery" if gallery else ("texts" if context.text is not None else "cards")
    intro = "In the order picked, each with its gain" + (
        "" if counts is None else " and how many items it stands for, itself included"
    )
    return E(
        "section",
        E("h2", "The picks", id="picks"),
        E("p", intro + ".", class_="aside"),
        tools,
        E("ol", rows, class_=f"picks {form}"),
        more,
        note,
        class_="card",
        aria_labelledby="picks",
    )


def _stand_ins(context: Context, picks: Any, cover: measures.Coverage) -> Element | None:
    chosen = measures.spaced(cover, picks, SAMPLED)
    if len(chosen) == 0:
        return None
    rows = []
    for at in chosen.tolist():
        item, pick = int(cover.items[at]), int(cover.nearest[at])
        link = f"#p{pick + 1}" if pick < LISTED else None
        rows.append(
            E(
                "li",
                E("div", E("p", user(context.name(item), class_="id"), class_="who"), context.exhibit(item, brief=110)),
                E(
                    "p",
                    E("span", number(float(cover.distance[at]), 3)),
                    class_="far",
                    aria_label=f"distance {cover.distance[at]:.3g} to",
                ),
                E(
                    "div",
                    E(
                        "p",
                        E(
                            "a" if link else "span",
                            E("b", f"{pick + 1}", class_="no"),
                            " ",
                            user(context.name(int(picks[pick])), class_="id"),
                            href=link,
                        ),
                        class_="who",
                    ),
                    context.exhibit(int(picks[pick]), brief=110),
                ),
            )
        )
    spread = np.quantile(cover.distance, [0.5, 0.95, 1.0])
    return E(
        "section",
        E("h2", "Who stands for whom", id="stand-ins"),
        E(
            "p",
            f"{len(rows)} items that were not picked (left), from the best covered to the worst, and the pick that stands for each. "
            f"Distance to the nearest pick: median {number(float(spread[0]), 3)}, 95th percentile {number(float(spread[1]), 3)}, "
            f"largest {number(float(spread[2]), 3)}.",
            class_="aside",
        ),
        E("ol", rows, class_="pairs"),
        class_="card",
        aria_labelledby="stand-ins",
    )
