"""The report of a selection: how much k picks cover, where they lie, whom they stand for, and why these."""

from __future__ import annotations

import math
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from kofn.core.plans import Plan, Selection
from kofn.report import charts, groups, measures
from kofn.report.charts import Axis
from kofn.report.context import Context, Repeats
from kofn.report.lists import PAIRED, late, listing, pair, pairs, table
from kofn.report.page import MINUS, E, clean, describe, document, figure, number, percent, stat, user
from kofn.report.run import kind, outcome, quality, ran

LISTED = 1000  # picks in the list; the plan's own file has them all
AT_ONCE = 48  # picks shown before "show all"
PINNED = 80  # up to this many picks stand on the map as their images
SAMPLED = 12  # items shown with the pick that stands for them


def page(context: Context, title: str | None) -> str:
    """The whole report."""
    plan = context.plan
    assert isinstance(plan, Selection)
    picks = np.asarray(plan.indices, np.int64)
    picks = picks[picks >= 0].ravel()
    cover, space, random = None, None, None
    if context.X is not None and len(picks):
        space = measures.Space(context.X, context.metric, context.items)
        # Of rows that join others with labels nothing is said of standing for the pool: all of them together do. Nor of
        # all that near-duplicates leave.
        if not plan.info.get("labels") and not _stays(plan):
            cover = measures.coverage(space, picks, context.weights)
            random = measures.at_random(space, picks, context.weights)
    counts = None
    if cover is not None and len(cover.items) == plan.n:
        counts = np.bincount(cover.nearest, minlength=len(picks))
    charted = [
        None if _stays(plan) else _curve(context, picks, cover),
        None if space is None else _map(context, picks, space),
    ]
    repeats = None if context.repeats is None else _repeats(context.repeats, picked=not _stays(plan))
    body = [
        E("div", charted, class_="pair") if any(chart is not None for chart in charted) else None,
        [groups.chart(context, grouping, picks, index) for index, grouping in enumerate(context.groupings)],
        # Where nothing else was asked, the dropped rows are the answer, and come before a list of all others.
        repeats if _stays(plan) else None,
        _picks(context, picks, counts),
        None if cover is None else _stand_ins(context, picks, cover),
        None if _stays(plan) else repeats,
        ran(context),
    ]
    return document(
        title=title or f"{len(picks):,} of {plan.n if context.repeats is None else context.repeats.total:,}",
        eyebrow=["kofn select", " · ", kind(plan)],
        lede=_lede(context, picks, cover, random),
        stats=_stats(context, picks, cover, random),
        body=body,
    )


def _stays(plan: Plan) -> bool:
    """Whether the plan is of the rows that near-duplicates leave, and not of picks."""
    return plan.method == "near_duplicates"


def _lede(context: Context, picks: Any, cover: measures.Coverage | None, random: measures.AtRandom | None) -> list[Any]:
    n, m = context.plan.n, len(picks)
    labels = [] if context.labels is None else [f" To label: {context.labels.verdict}; {context.labels.measured}."]
    if cover is None or random is None:
        # A method keeps its name as it is typed.
        stay = "stay" if _stays(context.plan) else "were picked"
        notes = [user(f" {note if '_' in note.split()[0] else note[:1].upper() + note[1:]}.") for note in context.notes]
        if _stays(context.plan) and context.repeats is not None:
            n = context.repeats.total
        return [f"{m:,} of {n:,} items {stay}", groups.kept(context, picks), ".", *labels, *notes]
    return [
        f"These {m:,} picks stand for {n:,} items. On average an item lies {number(float(cover.mean[-1]), 3)} ",
        f"from its nearest pick; from the nearest of {m:,} items drawn at random it would be "
        f"{number(float(random.draws[0]), 3)} to {number(float(random.draws[-1]), 3)} in {len(random.draws)} draws "
        f"({context.metric} distance)",
        groups.kept(context, picks),
        ".",
        *labels,
    ]


def _stats(
    context: Context, picks: Any, cover: measures.Coverage | None, random: measures.AtRandom | None
) -> list[Element]:
    plan = context.plan
    if _stays(plan):
        total, note = plan.n, None
        if context.repeats is not None:
            total, dropped = context.repeats.total, context.repeats.dropped
            note = "1 near-duplicate was dropped" if dropped == 1 else f"{dropped:,} near-duplicates were dropped"
        return [stat([f"{len(picks):,}", E("small", f" of {total:,}")], "kept", note)]
    note = _spent(plan)
    if context.repeats is not None:
        note += f"; {context.repeats.dropped:,} near-duplicates of {context.repeats.total:,} rows were dropped"
    if again := plan.info.get("duplicate_picks"):
        different = plan.n - plan.info["duplicate_rows"]
        some = "1 pick repeats another" if again == 1 else f"{again:,} picks repeat others"
        note += f"; {some}{f', as only {different:,} rows differ' if len(picks) > different else ''}"
    out = [stat([f"{len(picks):,}", E("small", f" of {plan.n:,}")], "picked", note)]
    share = _share(context, picks, cover)
    labels = context.labels
    if labels is not None:
        out.append(stat(f"{labels.points:+.1f} points", "over random rows to label", labels.verdict))
    elif share is not None:
        value, label, note = share
        if cover is not None and random is not None and cover.typical > 0:
            low, high = (percent(1 - float(far) / cover.typical) for far in random.draws[[-1, 0]])
            note = f"as many picks at random: {low} to {high}"
        out.append(stat(percent(value), label, note))
    out.append(quality(plan))
    if "seconds" in plan.info:
        out.append(outcome(plan))
    return out


def _spent(plan: Any) -> str:
    """The budgets that were spent; the count and the quotas have their own places."""
    budgets = [name for name in plan.budget if name in plan.used and name != "k" and not name.startswith("quota ")]
    lines = [f"{name} {describe(plan.used[name])} of {describe(plan.budget[name])}" for name in budgets]
    return "; ".join(lines) or f"{percent(len(plan.indices) / plan.n)} of the pool"


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
        share, share_name = cover.share, "covered"
        part = "" if len(cover.items) == plan.n else f", measured on {len(cover.items):,} items drawn evenly"
        caption.append(
            "Covered: 0% if one item drawn at random stood for every item, 100% if every item were picked "
            f"(1 {MINUS} mean {context.metric} distance to the nearest of the first k picks ÷ mean distance between "
            f"two items{part}). "
        )
    elif context.scores is not None and _share(context, picks, None) is not None:
        share, share_name = np.cumsum(context.scores[picks]) / float(context.scores.sum()), "of the pool's score"
        caption.append(f"The first k picks' part of the total score of all {plan.n:,} items. ")
    elif m and np.isfinite(gains).all() and (gains >= 0).all() and gains.sum() > 0:
        share, share_name = np.cumsum(gains) / gains.sum(), "of the picks' value"
        beside = " (the pool was not given)" if context.X is None else ", beside what the labelled rows bring"
        caption.append(f"The part of the final value that the first k picks already bring{beside}. ")
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
    label = f"Curve: {percent(float(share[0]))} {share_name} after 1 pick, {percent(float(share[-1]))} after {m:,}"
    mark = None if bend is None else (bend, f"knee: k = {bend:,}, {percent(float(share[bend - 1]))}")
    top = charts.line(ks, share[keep], label=label, x=x, y=Axis(low, high), form=charts.shares, mark=mark, fill=True)
    panels: list[Any] = [
        E("p", f"Share {share_name}" if cover is None else "Share of the pool covered", class_="panel"),
        top,
    ]
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
        data_what=share_name,
        data_last=m,
    )
    table = _figures(share, gains, cover, share_name)
    return figure([panels, slider, table], caption, title="What each pick adds", name="curve", class_="curve")


def _figures(share: Any, gains: Any, cover: measures.Coverage | None, share_name: str) -> Element:
    """The curve as a table, for who would rather read figures."""
    m = len(share)
    ks = [k for k in (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000) if k < m] + [m]
    columns = {
        share_name: [percent(float(share[k - 1])) for k in ks],
        "gain": [number(float(gains[k - 1])) if k <= len(gains) else "" for k in ks],
    }
    if cover is not None:
        columns["mean distance"] = [number(float(cover.mean[k - 1])) for k in ks]
    return table("k", [f"{k:,}" for k in ks], columns)


def _gain_panel(gains: Any, keep: Any, x: Axis) -> list[Element]:
    keep = keep[keep < len(gains)]
    shown = gains[keep]
    if len(shown) < 2 or not np.isfinite(shown).all():
        return []
    log = bool(shown.min() > 0 and shown.max() / shown.min() > 30)
    low, high = float(shown.min()), float(shown.max())
    floor = min(0.0, low)
    y = Axis(low / 1.15, high * 1.15, log=True) if log else Axis(floor, high if high > floor else 1.0)
    label = f"Gains: {number(float(gains[0]))} for the first pick, {number(float(gains[-1]))} for the last"
    plot = charts.line(keep + 1, shown, label=label, x=x, y=y, form=lambda v: number(v, 3), x_title="picks, k")
    plot.set("class", "plot low")
    return [E("p", "Gain of each pick", E("small", " (log scale)") if log else None, class_="panel"), plot]


def _map(context: Context, picks: Any, space: measures.Space) -> Element:
    n, m = space.n, len(picks)
    plane = measures.plane(space)
    pinned = context.images is not None and m <= PINNED
    images = [image for image in map(context.picture, picks.tolist()) if image] if pinned else None
    names = [context.name(item) for item in picks[: charts.LINKED].tolist()]
    label = f"Map: {n:,} items in two dimensions with the {m:,} picks on it"
    plot, outside, numbered = charts.plane_map(
        plane.points, space.places(picks), label=label, names=names, images=images, linked=min(m, LISTED)
    )
    dense = n - m > charts.DRAWN
    caption = [
        f"First two principal components, {percent(plane.shown, 0)} of the variance; what looks close here may be far "
        "in the directions left out. "
    ]
    if dense:
        caption.append(f"All {n - m:,} other items are drawn as density: a larger dot holds more of them. ")
    if space.sampled:
        caption.append(f"Of {context.plan.n:,} items {n:,} are drawn: the picks and a random sample. ")
    if outside:
        caption.append(f"{outside:,} far items are drawn on the edge. ")
    if numbered:
        caption.append("The numbers are the order of the first picks.")
    legend = E("p", E("span", "pool", class_="key pool"), E("span", "picks", class_="key chosen"), class_="legend")
    return figure([legend, plot], caption, title="Where they lie", name="map", class_="mapped")


def _picks(context: Context, picks: Any, counts: Any) -> Element:
    assert isinstance(context.plan, Selection)
    shown = picks[:LISTED].tolist()
    rows = []
    for rank, item in enumerate(shown):
        marks = [E("span", f"{name} ", E("b", value)) for name, value in _marks(context, rank, item, counts)]
        rows.append(
            E(
                "li",
                E("p", E("b", rank + 1, class_="no"), " ", user(context.name(item), class_="id"), class_="who"),
                context.exhibit(item),
                context.traits(item),
                E("p", marks, class_="marks"),
                id=f"p{rank + 1}",
                class_=f"pick{late(rank, len(shown), AT_ONCE)}",
            )
        )
    note = None
    if len(picks) > LISTED:
        noun = "rows" if _stays(context.plan) else "picks"
        note = f"The first {LISTED:,} of {len(picks):,} {noun}; plan.to_frame() holds them all."
    gallery = context.images is not None and context.text is None and not context.columns
    form = "gallery" if gallery else ("texts" if context.text is not None else "cards")
    shown_of_each = [
        "its gain" if np.isfinite(np.asarray(context.plan.gains, np.float64)).any() else "",
        "" if counts is None else "how many items it stands for, itself included",
    ]
    each = " and ".join(filter(None, shown_of_each))
    order = "In the order of the file" if _stays(context.plan) else "In the order picked"
    return listing(
        rows,
        noun="rows" if _stays(context.plan) else "picks",
        title="The rows that stay" if _stays(context.plan) else "The picks",
        name="picks",
        intro=f"{order}{f', each with {each}' if each else ''}.",
        form=form,
        at_once=AT_ONCE,
        note=note,
    )


def _marks(context: Context, rank: int, item: int, counts: Any) -> list[tuple[str, str]]:
    plan = context.plan
    assert isinstance(plan, Selection)
    gains = np.asarray(plan.gains, np.float64).ravel()
    marks = []
    if rank < len(gains) and math.isfinite(gains[rank]):
        marks.append(("gain", number(float(gains[rank]))))
    if counts is not None:
        marks.append(("stands for", f"{int(counts[rank]):,}"))
    if plan.weights is not None:
        marks.append(("weight", number(float(plan.weights[rank]))))
    if plan.probabilities is not None:
        marks.append(("chance", percent(float(plan.probabilities[item]))))
    return marks


def _repeats(repeats: Repeats, *, picked: bool) -> Element | None:
    """Rows that were dropped because they repeat another, beside the one that stays for them."""
    if not repeats.shown:
        return None
    rows = []
    for name, text, kept, kept_text, similarity in repeats.shown:
        sides = [
            E("div", E("p", user(who, class_="id"), class_="who"), E("p", user(clean(words[:PAIRED])), class_="text"))
            for who, words in ((name, text), (kept, kept_text))
        ]
        arrow = [E("span", "at similarity ", class_="unseen"), number(similarity, 3)]
        rows.append(E("li", sides[0], E("p", arrow, class_="far"), sides[1]))
    intro = (
        f"{repeats.dropped:,} of the file's {repeats.total:,} rows were dropped"
        f"{' before anything was picked' if picked else ''}. "
        f"{len(rows)} of them (left), from the least similar to the most, and the row that stays for each."
    )
    return pairs(rows, title="Near-duplicates", name="repeats", intro=intro)


def _stand_ins(context: Context, picks: Any, cover: measures.Coverage) -> Element | None:
    chosen = measures.spaced(cover, picks, SAMPLED)
    if len(chosen) == 0:
        return None
    rows = []
    for position in chosen.tolist():
        item, rank = int(cover.items[position]), int(cover.nearest[position])
        far = number(float(cover.distance[position]), 3)
        pick = int(picks[rank])
        link = f"#p{rank + 1}" if rank < LISTED else None
        words = [E("b", rank + 1, class_="no"), " ", user(context.name(pick), class_="id")]
        arrow = [E("span", "at distance ", class_="unseen"), far]
        side = E("a" if link else "span", words, href=link)
        rows.append(pair(context, item, arrow, [E("p", side, class_="who"), context.exhibit(pick, brief=PAIRED)]))
    middle, high, most = (number(float(v), 3) for v in np.quantile(cover.distance, [0.5, 0.95, 1.0]))
    intro = (
        f"{len(rows)} items that were not picked (left), from the best covered to the worst, and the pick that stands "
        f"for each. Distance to the nearest pick: median {middle}, 95th percentile {high}, largest {most}."
    )
    return pairs(rows, title="Who stands for whom", name="stand-ins", intro=intro)
