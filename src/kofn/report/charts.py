"""Charts as inline SVG with their words in HTML on top.

The drawing stretches with the page while strokes, dots and words keep their size, so one chart serves a phone, a wide
screen and paper; colours are the page's CSS variables, so light and dark need no second drawing. A plotting library's
static SVG does neither (its words shrink with the picture, its colours are fixed) and takes some 300 bytes a dot.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.report.page import E, number, percent, user

WIDE, TALL = 1000, 1000  # the map's own units
DRAWN = 4000  # a pool larger than this is drawn as density
LINKED = 1500  # picks drawn one by one, with their names; more are one path
RINGED = 400  # picks drawn with a rim, which keeps neighbours apart
BADGES = 40  # groups whose number stands on the map
HUES = 8  # colours of groups
SLAB = 80  # steps of one group's silhouettes
STEPS = 400  # points of a curve


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round values from low to high, at most about `count` of them."""
    if not high > low:
        return [low]
    rough = (high - low) / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * nice for nice in (1, 2, 2.5, 5, 10) if power * nice >= rough * (1 - 1e-9))
    first = math.ceil(low / step - 1e-9)
    return [first * step + step * i for i in range(int((high / step + 1e-9) // 1 - first) + 1)]


@dataclass(frozen=True)
class Axis:
    """A scale from values to 0..1."""

    low: float
    high: float
    log: bool = False

    def __call__(self, value: Any) -> Any:
        low, high = (math.log10(self.low), math.log10(self.high)) if self.log else (self.low, self.high)
        value = np.log10(np.asarray(value, np.float64)) if self.log else np.asarray(value, np.float64)
        return np.clip((value - low) / ((high - low) or 1.0), 0.0, 1.0)

    def ticks(self, count: int = 5) -> list[float]:
        """Where the marks go."""
        if not self.log:
            return ticks(self.low, self.high, count)
        low, high = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        step = max(1, -(-(high - low) // count))
        marks = [10.0**power for power in range(low, high + 1, step)]
        if high - low <= 2:
            marks = sorted(mark * nice for mark in marks for nice in (1, 2, 5))
        return [mark for mark in marks if self.low * (1 - 1e-9) <= mark <= self.high * (1 + 1e-9)]


def steps(count: int, keep: Sequence[int] = ()) -> NDArray[np.int64]:
    """Positions 0..count-1 that a curve is drawn through: all, or an even choice with the ends and `keep`."""
    if count <= STEPS:
        return np.arange(count)
    even = np.linspace(0, count - 1, STEPS).round().astype(np.int64)
    early = np.arange(STEPS // 8)  # where a coverage curve bends
    return np.unique(np.concatenate([even, early, np.asarray(keep, np.int64)]))


def line(
    ks: NDArray[np.int64] | Floats,
    values: Floats,
    *,
    label: str,
    x: Axis,
    y: Axis,
    form: Any,
    mark: tuple[float, str] | None = None,
    mark_at: float | None = None,
    fill: bool = False,
    x_title: str | None = None,
    above: bool = False,
) -> Element:
    """A curve through (ks, values), with one marked place; `label` says it in words for who cannot see it.

    The mark's words stand below the curve, where one that only rises leaves room, or above it. The mark is on the
    curve, or at the value `mark_at`.
    """
    px, py = 1000 * x(ks), 1000 * (1 - y(values))
    path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(px.tolist(), py.tolist(), strict=True))
    marks_x, marks_y = [t for t in x.ticks(6) if t == int(t)], y.ticks(4)
    if x.low == 1 and marks_x and marks_x[0] >= 0.08 * x.high:
        marks_x = [1.0, *marks_x]
    drawing: list[Element] = [E("path", d=f"M0 {1000 * (1 - float(y(t))):.1f}h1000", class_="grid") for t in marks_y]
    if fill:
        drawing.append(E("path", d=f"{path}L{px[-1]:.1f} 1000L{px[0]:.1f} 1000Z", class_="area"))
    words: list[Element] = [
        E("span", form(t), class_="tick y", style=f"top:{100 * (1 - float(y(t))):.2f}%") for t in marks_y
    ]
    if x_title is not None:
        words += [E("span", number(int(t)), class_="tick x", style=f"left:{100 * float(x(t)):.2f}%") for t in marks_x]
        words.append(E("span", x_title, class_="axis"))
    drawing.append(E("path", d=path, class_="line"))
    if len(ks) <= 60:
        dots = "".join(f"M{a:.1f} {b:.1f}h.01" for a, b in zip(px.tolist(), py.tolist(), strict=True))
        drawing.append(E("path", d=dots, class_="dots"))
    if mark is not None:
        spot, text = mark
        value = values[int(np.searchsorted(ks, spot))] if mark_at is None else mark_at
        left, top = float(x(spot)), float(1 - y(value))
        drawing.append(E("path", d=f"M{1000 * left:.1f} {1000 * top:.1f}V1000", class_="drop"))
        drawing.append(E("path", d=f"M{1000 * left:.1f} {1000 * top:.1f}h.01", class_="knee"))
        side = "mark" + " above" * above + " left" * (left > 0.6)
        words.append(E("span", text, class_=side, style=f"left:{100 * left:.2f}%;top:{100 * top:.2f}%"))
    svg = E("svg", drawing, viewBox="0 0 1000 1000", preserveAspectRatio="none", aria_hidden="true", focusable="false")
    cursor = E("span", class_="cursor", hidden=True)
    kind = "plot" if x_title is None else "plot titled"
    return E("div", svg, words, cursor, class_=kind, role="img", aria_label=label)


@dataclass(frozen=True)
class Frame:
    """The map's window in the plane: the pool centred, on one scale for both axes."""

    centre: Floats
    scale: float
    outside: int

    @classmethod
    def around(cls, points: Floats) -> Frame:
        """The whole pool, or the middle 99% where a few far items would squeeze the rest together."""
        low, high = points.min(axis=0), points.max(axis=0)
        inner_low, inner_high = np.quantile(points, [0.005, 0.995], axis=0)
        if (inner_high - inner_low < 0.4 * (high - low)).any() and len(points) >= 200:
            low, high = inner_low, inner_high
        reach = np.maximum(high - low, 1e-300)
        scale = float(min(0.92 * WIDE / reach[0], 0.92 * TALL / reach[1])) if (high > low).any() else 0.0
        centre = (low + high) / 2
        half = np.array([WIDE, TALL]) / (2 * scale) if scale else np.full(2, np.inf)
        return cls(centre, scale, int((np.abs(points - centre) > half).any(axis=1).sum()))

    def __call__(self, points: Floats) -> Floats:
        """Positions in the window; points outside are moved to its edge."""
        placed = (points - self.centre) * [self.scale, -self.scale] + [WIDE / 2, TALL / 2]
        return np.clip(placed, [8, 8], [WIDE - 8, TALL - 8])


def cells(placed: Floats, cell: float = 15.0) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The pool as hexagonal bins: where each stands, its size class 1..7 by the root of its count, each item's bin."""
    half = np.array([cell, cell * math.sqrt(3)])
    near = np.round(placed / half)
    between = np.floor(placed / half) + 0.5
    closer = ((placed - near * half) ** 2).sum(axis=1) <= ((placed - between * half) ** 2).sum(axis=1)
    bins, centres, counts = np.unique(
        np.where(closer[:, None], near, between) * 2, axis=0, return_inverse=True, return_counts=True
    )
    full = np.quantile(counts, 0.99)  # a heap of duplicates must not make every other cell look empty
    size = 1 + np.floor(6.999 * np.sqrt(np.minimum(counts / full, 1.0))).astype(np.int64)
    return (bins / 2 * half).round().astype(np.int64), size, centres.reshape(-1)


def density(placed: Floats, cell: float = 15.0) -> list[tuple[int, str]]:
    """The pool as dots: per size class 1..7 a path; a dot's width grows with the root of its count."""
    spots, size, _ = cells(placed, cell)
    return [(step, scatter(spots[size == step])) for step in range(1, 8) if (size == step).any()]


def scatter(placed: NDArray[Any]) -> str:
    """Every item as a dot."""
    return "".join(f"M{x} {y}h.01" for x, y in placed.round().astype(np.int64).tolist())


def plane_map(
    points: Floats,
    picks: NDArray[np.int64],
    *,
    label: str,
    names: Sequence[str],
    images: Sequence[tuple[str, int, int]] | None = None,
    linked: int = 0,
) -> tuple[Element, int, bool]:
    """The pool with its picks on top, how many items lie outside its frame, and whether the first picks are numbered.

    The first `linked` picks lead to their place in the list below.
    """
    frame = Frame.around(points)
    pool = np.delete(points, picks, axis=0)
    drawing: list[Element] = []
    if len(pool) > DRAWN:
        for size, path in density(frame(pool)):
            drawing.append(E("path", d=path, class_=f"density s{size}"))
    elif len(pool):
        drawing.append(E("path", d=scatter(frame(pool)), class_="pool"))
    spots = frame(points[picks])
    words: list[Element] = []
    if len(picks) > LINKED:
        drawing.append(E("path", d=scatter(spots[LINKED:]), class_="pick many"))
    order = range(min(len(picks), LINKED) - 1, -1, -1)  # the first pick is drawn last, on top
    for pick in order:
        x, y = spots[pick].tolist()
        title = f"pick {pick + 1}: {names[pick]}"
        link = {"href": f"#p{pick + 1}", "tabindex": -1} if pick < linked else {}
        if images is not None:
            words.append(_pin(images[pick], x, y, title=title, data_rank=pick + 1, **link))
        else:
            stroke = f"M{x:.0f} {y:.0f}h.01"
            ring = E("path", d=stroke, class_="ring") if len(picks) <= RINGED else None
            dot = E("path", E("title", title), d=stroke, class_="pick")
            drawing.append(E("a" if link else "g", ring, dot, data_rank=pick + 1, class_="spot", **link))
    ranks = _ranks(spots) if images is None else []
    words += ranks
    svg = E("svg", drawing, viewBox=f"0 0 {WIDE} {TALL}", aria_hidden="true", focusable="false")
    crowd = " crowd" if len(picks) > RINGED else (" some" if len(picks) > 60 else "")
    return E("div", svg, words, class_=f"plot map{crowd}", role="img", aria_label=label), frame.outside, bool(ranks)


def _pin(image: tuple[str, int, int], x: float, y: float, **attributes: Any) -> Element:
    """An item's picture, standing on the map."""
    uri, tall, wide = image
    classes = f"pick pin {attributes.pop('class_', '')}".strip()
    picture = E("img", src=uri, alt="", width=wide, height=tall)
    return E("a", picture, class_=classes, style=_spot(x, y), **attributes)


def _spot(x: float, y: float) -> str:
    return f"left:{x / WIDE * 100:.2f}%;top:{y / TALL * 100:.2f}%"


def _ranks(spots: Floats, most: int = 12) -> list[Element]:
    """The numbers of the first picks, left out where they would lie on another pick or its number."""
    taken: list[tuple[float, float]] = []
    out = []
    for pick, (x, y) in enumerate(spots[:most].tolist()):
        left = x > WIDE - 70
        middle = x - 34 if left else x + 34
        near = (np.abs(spots[:, 0] - middle) < 26) & (np.abs(spots[:, 1] - y) < 20)
        if not near.any() and all(abs(middle - a) > 50 or abs(y - b) > 30 for a, b in taken):
            taken.append((middle, y))
            out.append(E("span", pick + 1, class_="rank left" if left else "rank", style=_spot(x, y)))
    return out if len(out) >= 3 else []


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart: a value, what it is held against, and the limits it must keep."""

    name: Any
    value: float
    words: str
    against: float | None = None
    least: float | None = None
    most: float | None = None
    limits: str | None = None
    breached: bool = False
    hue: int | None = None


def bars(rows: Sequence[Bar], *, label: str, top: float | None = None, key: Sequence[tuple[str, str]] = ()) -> Element:
    """Horizontal bars on one scale from 0 to `top` (default: the largest shown), hollow where the value is negative."""
    shown = [abs(v) for row in rows for v in (row.value, row.against, row.least) if v is not None and math.isfinite(v)]
    top = top or 1.06 * max([*shown, 0.0]) or 1.0

    def wide(value: float) -> str:
        return f"{100 * min(max(value, 0.0) / top, 1.0):.2f}%"

    out = []
    for row in rows:
        track: list[Element] = []
        if row.least is not None or row.most is not None:
            low, high = row.least or 0.0, math.inf if row.most is None else row.most
            over = " open" if high > top else ""
            band = f"left:{wide(low)};right:calc(100% - {wide(min(high, top))})"
            track.append(E("span", class_=f"band{over}", style=band))
        if row.against is not None:
            track.append(E("span", class_="bar against", style=f"width:{wide(row.against)}"))
        minus = " minus" if row.value < 0 else ""
        track.append(E("span", class_=f"bar value{minus}", style=f"width:{wide(abs(row.value))}"))
        both = " both" if row.against is not None else ""
        out.append(
            E(
                "li",
                E("span", user(row.name), class_="name"),
                E("span", track, class_=f"track{both}", aria_hidden="true"),
                E("span", row.words, class_="words"),
                None if row.limits is None else E("span", row.limits, class_="limits"),
                class_=_classes("breached" if row.breached else "", row.hue),
            )
        )
    legend = E("p", [E("span", text, class_=f"key {kind}") for kind, text in key], class_="legend") if key else None
    return E("div", legend, E("ul", out, class_="bars", aria_label=label))


@dataclass(frozen=True)
class Slab:
    """One row of a silhouette chart: the values of a group's members, from the largest to the least."""

    name: Any
    values: Floats
    words: str
    limits: str
    hue: int


def slabs(rows: Sequence[Slab], *, label: str) -> Element:
    """Each group's silhouettes as a shape between 0 and their values, on one scale up to 1."""
    least = min((float(row.values.min()) for row in rows if len(row.values)), default=0.0)
    axis = Axis(-1.0 if least < -0.5 else -0.5 if least < -0.25 else -0.25 if least < 0 else 0.0, 1.0)
    zero = 1000 * float(axis(0.0))
    out = []
    for row in rows:
        shown = row.values[np.linspace(0, len(row.values) - 1, min(len(row.values), SLAB)).round().astype(np.int64)]
        tall = np.linspace(0, 100, len(shown) + 1)
        steps = "".join(
            f"V{low:.1f}H{x:.1f}V{high:.1f}"
            for x, low, high in zip((1000 * axis(shown)).tolist(), tall[:-1].tolist(), tall[1:].tolist(), strict=True)
        )
        grid = [E("path", d=f"M{1000 * float(axis(t)):.1f} 0V100", class_="grid") for t in axis.ticks()]
        shape = E("path", d=f"M{zero:.1f} 0{steps}H{zero:.1f}Z", class_="shape")
        svg = E("svg", grid, shape, viewBox="0 0 1000 100", preserveAspectRatio="none", focusable="false")
        out.append(
            E(
                "li",
                E("span", user(row.name), class_="name"),
                E("span", svg, class_="track slab", aria_hidden="true"),
                E("span", row.words, class_="words"),
                E("span", row.limits, class_="limits"),
                class_=_classes("", row.hue),
            )
        )
    marks = [
        E("span", number(round(t, 2)), class_="tick x", style=f"left:{100 * float(axis(t)):.2f}%") for t in axis.ticks()
    ]
    scale = E("li", E("span", marks, class_="track scale"), class_="scales", aria_hidden="true")
    return E("ul", out, scale, class_="bars", aria_label=label)


def _classes(kind: str, hue: int | None) -> str | None:
    return " ".join([kind] * bool(kind) + ([] if hue is None else [f"h{hue}"])) or None


def hues(places: Floats) -> list[int]:
    """One of HUES colours for each group, so that groups that lie close together differ."""
    out: list[int] = []
    reach = float(np.ptp(places, axis=0).max()) or 1.0 if len(places) else 1.0
    for group in range(len(places)):
        near = 1.0 / (((places[:group] - places[group]) ** 2).sum(axis=1) / reach**2 + 1e-4)
        crowd = np.bincount(out, near, HUES) if out else np.zeros(HUES)
        out.append(int(crowd.argmin()))
    return out


def group_map(
    points: Floats,
    labels: NDArray[np.int64],
    marks: Floats,
    *,
    label: str,
    names: Sequence[str],
    colours: Sequence[int],
    images: Sequence[tuple[str, int, int] | None] | None = None,
    linked: int = 0,
) -> tuple[Element, int]:
    """The pool in the colours of its groups with a mark on each group, and how many items lie outside its frame.

    `marks` (k, 2) are where the groups' marks stand, NaN where a group has none; the first `linked` lead to the list.
    """
    frame = Frame.around(points)
    placed = frame(points)
    drawing = _crowd(placed, labels, colours) if len(points) > DRAWN else _items(placed, labels, colours)
    words: list[Element] = []
    k = len(marks)
    shown = np.flatnonzero(np.isfinite(marks).all(axis=1))[:LINKED]
    spots = frame(np.nan_to_num(marks))
    for group in shown[::-1].tolist():
        x, y = spots[group].tolist()
        title = f"group {names[group]}"
        link = {"href": f"#g{group}", "tabindex": -1} if group < linked else {}
        picture = None if images is None else images[group]
        if picture is not None:
            words.append(_pin(picture, x, y, class_=f"h{colours[group]}", title=title, data_group=group, **link))
        elif k <= BADGES:
            tag = "a" if link else "span"
            badge = {"class_": f"badge h{colours[group]}", "title": title, "data_group": group, "style": _spot(x, y)}
            words.append(E(tag, group, **badge, **link))
        else:
            stroke = f"M{x:.0f} {y:.0f}h.01"
            rim = E("path", d=stroke, class_="rim") if len(shown) <= RINGED else None
            dot = E("path", E("title", title), d=stroke, class_=f"pick h{colours[group]}")
            drawing.append(E("a" if link else "g", rim, dot, data_group=group, class_="spot", **link))
    svg = E("svg", drawing, viewBox=f"0 0 {WIDE} {TALL}", aria_hidden="true", focusable="false")
    crowd = " crowd" if k > RINGED else (" some" if k > 60 else "")
    return E("div", svg, words, class_=f"plot map{crowd}", role="img", aria_label=label), frame.outside


def _items(placed: Floats, labels: NDArray[np.int64], colours: Sequence[int]) -> list[Element]:
    """Every item in its group's colour, the groups that hold most first, those in none grey."""
    groups, counts = np.unique(labels, return_counts=True)
    out = []
    for group in groups[np.argsort(-counts, kind="stable")].tolist():
        colour = "" if group < 0 else f" h{colours[group]}"
        out.append(E("path", d=scatter(placed[labels == group]), class_=f"pool{colour}", data_group=group))
    return out


def _crowd(placed: Floats, labels: NDArray[np.int64], colours: Sequence[int]) -> list[Element]:
    """The pool as dots, each in the colour of the group that most of its items are in."""
    spots, size, cell = cells(placed)
    pairs, counts = np.unique(np.stack([cell, labels], axis=1), axis=0, return_counts=True)
    order = np.lexsort((pairs[:, 1], -counts, pairs[:, 0]))
    first = np.flatnonzero(np.diff(pairs[order, 0], prepend=-1))
    owner = pairs[order, 1][first]
    out = []
    for group in np.unique(owner).tolist():
        colour = "" if group < 0 else f" h{colours[group]}"
        for step in range(1, 8):
            mine = (owner == group) & (size == step)
            if mine.any():
                drawn = f"density s{step}{colour}"
                out.append(E("path", d=scatter(spots[mine]), class_=drawn, data_group=group))
    return out


def shares(value: float) -> str:
    """An axis label for a share."""
    return percent(value, 0 if abs(100 * value - round(100 * value)) < 1e-9 else 1)
