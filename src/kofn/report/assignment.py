"""The report of an assignment: its groups with their medoids, sizes, silhouettes, nearest and farthest members.

Items that were sent to bins by scores have a page of their own, `kofn.report.routing`.
"""

from __future__ import annotations

from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from kofn.core.arrays import Ints
from kofn.core.plans import Assignment
from kofn.report import charts, measures, membership, routing
from kofn.report.charts import Axis, Bar, Slab
from kofn.report.context import Context
from kofn.report.lists import PAIRED, late, listing, table
from kofn.report.membership import KINDS, Groups
from kofn.report.page import MINUS, E, document, figure, number, percent, stat, user
from kofn.report.run import kind, outcome, quality, ran

SHOWN = 40  # rows of a chart
LISTED = 150  # groups in the list
AT_ONCE = 12  # groups listed before "show all"
PINNED = 80  # up to this many groups stand on the map as pictures
MEMBERS, PICTURED = 3, 7  # nearest, and farthest, members of a group: with their words, as pictures alone


def page(context: Context, title: str | None) -> str:
    """The whole report."""
    plan = context.plan
    assert isinstance(plan, Assignment)
    if _by_scores(context, plan):
        return routing.page(context, title)
    space = None if context.X is None else measures.Space(context.X, context.metric)
    names = _names(plan)
    got = plane = colours = None
    if space is not None:
        got, plane = membership.measure(plan, space, None), measures.plane(space)
    elif context.distances is not None:
        got = membership.measure(plan, None, context.distances)
        plane = measures.plane_of_distances(context.distances)
    if got is not None and plane is not None:
        colours = charts.hues(np.nan_to_num(_marks(plane, got, plan)))
    sizes = np.bincount(plan.labels[plan.labels >= 0], minlength=plan.k)
    figures = [
        None if got is None or plane is None else _map(context, plan, got, plane, names, colours),
        _curve(plan),
        _sizes(context, plan, sizes, names, colours),
        None if got is None else _silhouettes(context, plan, got, names, colours),
        routing.prices(plan, [f"group {name}" for name in names], colours),
    ]
    drawn = [part for part in figures if part is not None]
    body = [
        [E("div", drawn[low : low + 2], class_="pair") for low in range(0, len(drawn), 2)],
        None if got is None else _members(context, plan, got, names, colours),
        ran(context),
    ]
    return document(
        title=title or f"{plan.n:,} items in {plan.k:,} {_noun(plan.k)}",
        eyebrow=["kofn assign · ", kind(plan)],
        lede=_lede(context, plan, got, sizes),
        stats=_stats(plan, got, sizes),
        body=body,
    )


def _by_scores(context: Context, plan: Assignment) -> bool:
    """Whether items were sent to bins, rather than grouped by how like they are."""
    from kofn._index import entries

    entry = entries("assign").get(plan.method)
    if entry is not None:
        return "scores" in entry.accepted
    known = (plan.medoids, plan.centers, context.X, context.distances)
    return context.scores is not None or all(value is None for value in known)


def _noun(k: int) -> str:
    return "group" if k == 1 else "groups"


def _names(plan: Assignment) -> list[str]:
    """What each group is called: its number, or the class that its labelled items have."""
    classes = plan.info.get("classes")
    if isinstance(classes, list) and len(classes) == plan.k:
        return [str(name) for name in classes]
    return [str(group) for group in range(plan.k)]


def _full(context: Context, plan: Assignment, names: list[str], group: int) -> str:
    """A group's name beside its bar: with the medoid, where it has one."""
    if plan.medoids is None:
        return f"group {names[group]}"
    return f"{names[group]} · {context.name(int(plan.medoids[group]))}"


def _limits(plan: Assignment) -> tuple[Ints | None, Any]:
    """The least and the most that each group may hold; None where that is nothing, or everything."""
    asked = plan.options.get("min_size")
    least = np.broadcast_to(np.asarray(0 if asked is None else asked, np.int64), plan.k)
    most = None if plan.capacity is None else np.broadcast_to(np.asarray(plan.capacity, np.float64), plan.k)
    return least if (least > 1).any() else None, most


def _kept(plan: Assignment, sizes: Any) -> str:
    """Whether the sizes are within their limits, as the end of a sentence."""
    least, most = _limits(plan)
    if least is None and most is None:
        return ""
    few = np.zeros(plan.k, bool) if least is None else sizes < least
    many = np.zeros(plan.k, bool) if most is None else sizes > most
    broken = int((few | many).sum())
    if broken:
        return f" {broken} of {plan.k:,} groups {'is' if broken == 1 else 'are'} outside the limits of size."
    parts = []
    if least is not None:
        parts.append(f"at least {least[0]:,}" if (least == least[0]).all() else "at least its minimum")
    if most is not None and (most == most[0]).all():
        parts.append(f"at most {number(int(most[0]))}")
    elif most is not None:
        parts.append("at most its capacity")
    return f" Every group holds {' and '.join(parts)}, as asked."


def _lede(context: Context, plan: Assignment, got: Groups | None, sizes: Any) -> str:
    outside = plan.n - int(sizes.sum())
    placed = f"{outside:,} of the items are in no group." if outside else ""
    if got is None or not len(got.items):
        occupied = sizes[sizes > 0]
        words = (
            f"The groups hold from {occupied.min():,} to {occupied.max():,} items."
            if len(occupied)
            else "No item is placed."
        )
        return f"{words}{_kept(plan, sizes)} {placed}".strip()
    by = "" if context.X is None else f" ({context.metric} distance)"
    kind = KINDS[got.kind][0]
    words = f"On average an item lies {number(float(got.own.mean()), 3)} from the {kind} of its group{by}"
    if np.isfinite(got.other).all():
        words += f"; the nearest other {kind} is {number(float(got.other.mean()), 3)} away"
    return f"{words}.{_kept(plan, sizes)} {placed}".strip()


def _stats(plan: Assignment, got: Groups | None, sizes: Any) -> list[Element]:
    outside = plan.n - int(sizes.sum())
    note = f"from {sizes.min():,} to {sizes.max():,} items" if len(sizes) else None
    out = [stat(f"{plan.k:,}", _noun(plan.k), f"{note}; {outside:,} in none" if outside else note)]
    if got is not None and (got.sizes > 0).sum() > 1:
        wrong = int((got.silhouette < 0).sum())
        nearer = "none is nearer to another group" if not wrong else _nearer(wrong, len(got.items))
        out.append(stat(number(got.mean(), 3), "average silhouette", nearer))
    out.append(quality(plan))
    if "seconds" in plan.info:
        out.append(outcome(plan))
    return out


def _nearer(wrong: int, count: int) -> str:
    items = "item is" if wrong == 1 else "items are"
    return f"{wrong:,} {items} nearer to another group, {percent(wrong / count)}"


def _marks(plane: measures.Plane, got: Groups, plan: Assignment) -> Any:
    """(k, 2) where each group's mark stands: its medoid, its centre, or the middle of its members."""
    out = np.full((plan.k, 2), np.nan)
    occupied = np.flatnonzero(got.sizes)
    if got.centres is not None:
        out[occupied] = plane.project(got.centres)[occupied]
    else:
        out[occupied] = plane.points[got.heart[occupied]]
    return out


def _map(
    context: Context, plan: Assignment, got: Groups, plane: measures.Plane, names: list[str], colours: Any
) -> Element:
    marks = _marks(plane, got, plan)
    images = None
    if context.images is not None and plan.k <= PINNED:
        images = [None if heart < 0 else context.picture(heart) for heart in got.heart.tolist()]
    kind = KINDS[got.kind][0]
    plot, outside = charts.group_map(
        plane.points,
        plan.labels.astype(np.int64),
        marks,
        label=f"Map: {plan.n:,} items in two dimensions, in the colours of their {plan.k:,} groups",
        names=names,
        colours=colours,
        images=images,
        linked=min(plan.k, LISTED),
    )
    how = "First two principal components" if context.X is not None else "Classical scaling of the distances"
    caption = [
        f"{how}, {percent(plane.shown, 0)} of the variance; what looks close here may be far in the directions left "
        f"out. {'Each picture' if images else 'Each number' if plan.k <= charts.BADGES else 'Each rimmed dot'} stands "
        f"on its group's {kind}{_standing(got, bool(images))}. "
    ]
    if plan.k > charts.HUES:
        caption.append("Groups that lie apart may share a colour. ")
    if plan.n > charts.DRAWN:
        caption.append("A larger dot holds more items and has the colour of the group that most of them are in. ")
    if outside:
        caption.append(f"{outside:,} far items are drawn on the edge. ")
    chooser = None
    if 1 < plan.k <= LISTED:
        options = [E("option", "all groups", value="")]
        options += [E("option", f"group {name}", value=group) for group, name in enumerate(names)]
        chooser = E("p", E("label", "Show ", E("select", options, name="group")), class_="chooser", hidden=True)
    return figure([chooser, plot], caption, title="Where the groups lie", name="map", class_="mapped")


def _standing(got: Groups, pictured: bool) -> str:
    """Whose picture it is, where a group's centre is no item."""
    return f" and shows the member nearest to that {KINDS[got.kind][0]}" if pictured and got.kind != "medoid" else ""


def _few(values: Any) -> Any:
    """Which groups a chart shows: all in their order, or those with the largest values."""
    return np.arange(len(values)) if len(values) <= SHOWN else np.argsort(-values, kind="stable")[:SHOWN]


def _rest(count: int, which: str) -> str:
    return f" The {SHOWN} {which} of {count:,} groups are shown." if count > SHOWN else ""


def _sizes(context: Context, plan: Assignment, sizes: Any, names: list[str], colours: Any) -> Element:
    least, most = _limits(plan)
    rows = []
    for group in _few(sizes).tolist():
        size = int(sizes[group])
        room = None if most is None else float(most[group])
        words = f"{size:,}" if room is None else f"{size:,} of {number(int(room))}"
        rows.append(
            Bar(
                _full(context, plan, names, group),
                size,
                words,
                least=None if least is None else int(least[group]),
                most=room,
                limits=None if least is None else f"at least {least[group]:,}",
                breached=(least is not None and size < least[group]) or (room is not None and size > room),
                hue=None if colours is None else colours[group],
            )
        )
    bounded = least is not None or most is not None
    allowed = {(True, True): "minimum to capacity", (False, True): "capacity", (True, False): "minimum and more"}
    key = [("band", allowed[least is not None, most is not None])] if bounded else []
    caption = "How many items each group holds."
    if bounded:
        caption = "How many items each group holds; the band is what it may hold."
    ends = [float(sizes.max(initial=0)), 0.0 if least is None else float(least.max())] + (
        [] if most is None else [float(most.max(initial=0))]
    )
    # A capacity far above what anybody holds must not press the bars flat; its band then runs off the chart.
    top = max(ends) if max(ends) <= 4 * max(ends[0], 1.0) else 2 * ends[0]
    body = charts.bars(rows, label="items in each group", key=key, top=1.04 * top or None)
    return figure(body, caption + _rest(plan.k, "largest"), title="How large the groups are", name="sizes")


def _silhouettes(context: Context, plan: Assignment, got: Groups, names: list[str], colours: Any) -> Element | None:
    occupied = np.flatnonzero(np.bincount(got.labels, minlength=plan.k))
    if len(occupied) < 2:
        return None
    rows = []
    chosen = occupied if len(occupied) <= SHOWN else occupied[np.argsort(-got.sizes[occupied], kind="stable")[:SHOWN]]
    for group in chosen.tolist():
        values = np.sort(got.silhouette[got.labels == group])[::-1]
        wrong = int((values < 0).sum())
        rows.append(
            Slab(
                _full(context, plan, names, group),
                values,
                f"mean {_two(float(values.mean()))}",
                f"{percent(wrong / len(values), 0)} below 0" if wrong else "none below 0",
                colours[group],
            )
        )
    kind, called = KINDS[got.kind]
    part = _sampled(got)
    caption = (
        f"Each item's {called}: near 1 it lies well inside its group, at 0 between two groups, below 0 nearer to the "
        f"{kind} of another group. (b {MINUS} a) / max(a, b) for the distances a to the own {kind} and b to the "
        f"nearest other one{part}; the members of a group from the largest to the least."
    )
    body = charts.slabs(rows, label="silhouettes of each group's members")
    return figure(body, caption + _rest(len(occupied), "largest"), title="How well items sit", name="silhouettes")


def _two(value: float) -> str:
    return f"{value:.2f}".replace("-", MINUS)


def _sampled(got: Groups) -> str:
    whole = int(got.sizes.sum())
    return "" if len(got.items) == whole else f", measured on {len(got.items):,} of {whole:,} items drawn evenly"


def _curve(plan: Assignment) -> Element | None:
    """Why this many groups, where the method looked for k."""
    curve = plan.info.get("curve")
    if not isinstance(curve, dict) or len(curve.get("k", ())) < 2 or "silhouette" not in curve:
        return None
    ks, value = np.asarray(curve["k"], np.int64), np.asarray(curve["silhouette"], np.float64)
    chosen = int(np.flatnonzero(ks == plan.k)[0]) if plan.k in ks else int(value.argmax())
    x = Axis(float(ks[0]), float(ks[-1]))
    low = min(0.0, float(value.min()))
    marks = charts.ticks(low, 1.0001 * float(value.max()) or 1.0, 4)
    y = Axis(low, max(float(marks[-1]), 1.2 * float(value.max())))
    average = "average medoid silhouette" if plan.objective == "medoid_silhouette" else "average silhouette width"
    label = f"Curve: {average} by number of groups, highest at {ks[chosen]}: {value[chosen]:.3f}"
    mark = (int(ks[chosen]), f"k = {ks[chosen]}: {number(float(value[chosen]), 3)}")
    top = charts.line(ks, value, label=label, x=x, y=y, form=lambda v: number(v, 3), mark=mark, fill=True, above=True)
    panels: list[Any] = [E("p", average.capitalize(), class_="panel"), top]
    columns = {"average silhouette": [number(v, 4) for v in value.tolist()]}
    loss = np.asarray(curve.get("loss", ()), np.float64)
    if len(loss) == len(ks) and np.isfinite(loss).all() and loss.max() > 0:
        ends = f"{number(loss[0], 3)} with {ks[0]} groups, {number(loss[-1], 3)} with {ks[-1]}"
        below = charts.line(
            ks,
            loss,
            label=f"Summed distance to the nearest medoid: {ends}",
            x=x,
            y=Axis(0.0, float(loss.max())),
            form=lambda v: number(v, 3),
            x_title="groups, k",
        )
        below.set("class", "plot low")
        panels += [E("p", "Summed distance to the nearest medoid", class_="panel"), below]
        columns["summed distance"] = [number(v) for v in loss.tolist()]
    caption = (
        f"With each number of groups the best silhouette that was found; k = {ks[chosen]} has the highest average. The "
        "summed distance falls with more groups anyway, so it cannot choose between them."
    )
    if (structure := plan.info.get("structure")) in ("weak", "none"):
        caption += f" Its width shows {'a weak' if structure == 'weak' else 'no'} structure: other k may serve as well."
    figures = table("k", [str(k) for k in ks.tolist()], columns)
    return figure([panels, figures], caption, title=f"Why {ks[chosen]} groups", name="curve", class_="curve")


def _members(context: Context, plan: Assignment, got: Groups, names: list[str], colours: Any) -> Element:
    occupied = np.flatnonzero(got.heart >= 0)
    shown = occupied[:LISTED].tolist()
    bare = context.images is not None and context.text is None and not context.columns
    count = PICTURED if bare else MEMBERS
    rows = []
    for position, group in enumerate(shown):
        places = got.members(group)
        heart = int(got.heart[group])
        rest = places[got.items[places] != heart]
        near, away = rest[: min(count, -(-len(rest) // 2))], rest[::-1][: min(count, len(rest) // 2)]
        head = E(
            "p",
            E("b", f"group {names[group]}", class_="no"),
            [E("span", f"{name} ", E("b", value)) for name, value in _facts(context, plan, got, group)],
            class_="head",
        )
        caption = "medoid" if got.kind == "medoid" else f"nearest to the {KINDS[got.kind][0]}"
        middle = E("div", E("p", caption, class_="panel"), _item(context, heart, None))
        parts = [middle]
        for title, some in (("nearest" if got.kind == "medoid" else "next nearest", near), ("farthest", away)):
            if len(some):
                items = [_item(context, int(got.items[i]), _far(got, names, int(i))) for i in some.tolist()]
                strip = E("ol", items, class_="strip bare" if bare else "strip")
                parts.append(E("div", E("p", title, class_="panel"), strip))
        wide = "gallery-group" if bare else "words-group"
        classes = f"pick group {wide} h{colours[group]}{late(position, len(shown), AT_ONCE)}"
        rows.append(E("li", head, E("div", parts, class_="parts"), id=f"g{group}", class_=classes))
    order = (
        "Each group with its medoid, the members nearest to it and those farthest from it, and how far they are."
        if got.kind == "medoid"
        else f"Each group with the members nearest to its {KINDS[got.kind][0]} and those farthest from it."
    )
    part = _sampled(got)
    note = None
    if len(occupied) > LISTED:
        note = f"The first {LISTED:,} of {len(occupied):,} groups; plan.to_frame() holds every item's."
    return listing(
        rows,
        noun="groups",
        title="Who is in them",
        name="members",
        intro=order + (f" Nearest and farthest are{part[1:].replace(' measured', '')}." if part else ""),
        form="groups",
        at_once=AT_ONCE,
        note=note,
    )


def _facts(context: Context, plan: Assignment, got: Groups, group: int) -> list[tuple[str, str]]:
    """A group's size, how near its members are, and which label of the user's most of them have."""
    mine = got.labels == group
    out = [("items", f"{int(got.sizes[group]):,}")]
    if mine.any():
        out.append(("mean distance", number(float(got.own[mine].mean()), 3)))
        if (got.sizes > 0).sum() > 1:
            out.append(("mean silhouette", _two(float(got.silhouette[mine].mean()))))
    members = np.flatnonzero(plan.labels == group)
    for grouping in context.groupings:
        labels, counts = np.unique(grouping.labels[members], return_counts=True)
        if len(labels):
            top = int(counts.argmax())
            share = percent(int(counts[top]) / len(members), 0)
            out.append((f"mostly {grouping.name or 'label'}", f"{labels[top][:60]} ({share})"))
    return out


def _far(got: Groups, names: list[str], member: int) -> list[Any]:
    """How far a member is, and which other group is nearer."""
    far: list[Any] = [number(float(got.own[member]), 3)]
    if got.silhouette[member] < 0:
        far.append(f", nearer to group {names[int(got.next[member])]}")
    return far


def _item(context: Context, item: int, far: Any) -> Element:
    distance = None if far is None else E("span", E("span", "at distance ", class_="unseen"), far, class_="away")
    who = E("p", user(context.name(item), class_="id"), distance, class_="who")
    return E("li" if far is not None else "div", who, context.exhibit(item, brief=PAIRED), context.traits(item))
