"""What a notebook's cell shows of a plan: facts beside small pictures, in under 20 kB.

Notebooks, editors and exporters disagree about style sheets, scripts and themes, so there are none: every style is
inline, text and axes have the colour of the page's own text, and the one accent is readable on white and on black.
"""

from __future__ import annotations

import math
from xml.etree.ElementTree import Element, tostring

import numpy as np

from kofn.core.plans import Plan
from kofn.report import charts
from kofn.report._pictures import Bars, Curve, pictures
from kofn.report.page import E, describe, number, percent, seconds, user
from kofn.report.run import kind, note_of

ACCENT, OPPOSITE = "#d9622b", "#4a86c5"  # of bars, and of bars of negative figures
_WIDE, _TALL = 300, 110
_POINTS = 120  # of a curve
_NAME = "overflow:hidden;text-overflow:ellipsis;white-space:nowrap"
_FAINT = "opacity:.65"


def view(plan: Plan) -> str:
    """The whole cell."""
    panels = [_facts(plan), *(_curve(item) if isinstance(item, Curve) else _bars(item) for item in pictures(plan))]
    cell = E(
        "div",
        E("p", E("b", type(plan).__name__), " ", plan.headline(), style="margin:0 0 .5em"),
        E("div", panels, style="display:flex;flex-wrap:wrap;gap:.8em 2em;align-items:flex-start"),
        class_="kofn-plan",
        style="font-size:13px;line-height:1.45",
    )
    return tostring(cell, encoding="unicode", method="html")


def _facts(plan: Plan) -> Element:
    rows: list[tuple[str, object]] = [("method", kind(plan)), ("status", f"{plan.status}, {note_of(plan)}")]
    if math.isfinite(plan.value):
        rows.append(("value", f"{number(plan.value, 6)} ({'larger' if plan.sense == 'max' else 'smaller'} is better)"))
    if plan.bound is not None:
        gap = "" if plan.gap is None else f", {percent(plan.gap, 2)} away"
        rows.append(("bound", f"{number(float(plan.bound), 6)}{gap}"))
    for name, spent in plan.used.items():
        # Counts, quotas and capacities stand in the headline and in the pictures.
        if name not in ("k", "capacity") and not name.startswith("quota "):
            limit = f" of {describe(plan.budget[name])}" if name in plan.budget else ""
            rows.append((name, user(f"{describe(spent)}{limit}")))
    if "seconds" in plan.info:
        rows.append(("time", seconds(float(plan.info["seconds"]))))
    label = f"text-align:left;font-weight:normal;{_FAINT}"
    return E(
        "table",
        [E("tr", E("th", name, style=label), E("td", value, style="text-align:left")) for name, value in rows],
        style="margin:0",
    )


def _panel(title: str, *body: Element | None) -> Element:
    return E("div", E("div", title, style=f"{_FAINT};margin-bottom:.2em"), body)


def _curve(curve: Curve) -> Element:
    """The curve over the picks, with its ends named."""
    count, last_pick = len(curve.values), curve.first + len(curve.values) - 1
    shown = np.unique(np.linspace(0, count - 1, min(count, _POINTS)).round().astype(np.int64))
    low, high = min(0.0, float(curve.values.min())), max(0.0, float(curve.values.max()))
    x, y = charts.Axis(1, max(count, 2)), charts.Axis(low, high)
    left, top, wide, tall = 40, 8, _WIDE - 60, _TALL - 30
    across, down = left + wide * x(shown + 1), top + tall * (1 - y(curve.values[shown]))
    points = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(across.tolist(), down.tolist(), strict=True))
    floor = top + tall * (1 - float(y(0.0)))
    area = f"{left},{floor:.1f} {points} {left + wide},{floor:.1f}"
    form = (lambda v: percent(v, 0)) if curve.share else (lambda v: number(v, 3))
    marks = []
    for tick in charts.ticks(low, high, 3):
        level = f"{top + tall * (1 - float(y(tick))):.1f}"
        marks.append(E("line", x1=left, x2=left + wide, y1=level, y2=level, stroke="currentColor", stroke_opacity=0.15))
        marks.append(E("text", form(tick), x=left - 5, y=level, dy=".35em", text_anchor="end"))
    ends = [
        E("text", str(curve.first), x=left, y=top + tall + 16),
        E("text", f"{last_pick:,} {curve.x}", x=left + wide, y=top + tall + 16),
    ]
    ends[1].set("text-anchor", "end")
    last = form(float(curve.values[-1]))
    drawing = E(
        "svg",
        E(
            "title",
            f"{curve.title}: {form(float(curve.values[0]))} after pick {curve.first}, {last} after {last_pick:,}",
        ),
        E("g", marks, ends, fill="currentColor", font_size=10.5),
        E("polygon", points=area, fill=ACCENT, fill_opacity=0.15),
        E("polyline", points=points, fill="none", stroke=ACCENT, stroke_width=2, stroke_linejoin="round"),
        E("circle", cx=f"{across[-1]:.1f}", cy=f"{down[-1]:.1f}", r=3, fill=ACCENT),
        width=_WIDE,
        height=_TALL,
        viewBox=f"0 0 {_WIDE} {_TALL}",
        role="img",
        style="max-width:100%;overflow:visible",
    )
    return _panel(f"{curve.title} ({curve.y})", drawing)


def _bars(bars: Bars) -> Element:
    """Rows of name, bar and figure; a line marks how far a bar may go."""
    signed = np.nan_to_num(np.asarray(bars.values, np.float64))
    values = np.abs(signed)
    limits = np.full(len(values), math.nan) if bars.most is None else np.asarray(bars.most, np.float64)
    drawn = bool(values.any())
    # A limit far beyond all values is not drawn.
    near = limits[np.isfinite(limits) & (limits <= 4 * values.max(initial=0.0))]
    top = max(float(values.max(initial=0.0)), float(near.max(initial=0.0))) or 1.0
    cells: list[Element] = []
    for name, value, limit, words in zip(bars.names, signed.tolist(), limits.tolist(), bars.words, strict=True):
        cells.append(E("span", user(name), title=str(name), style=_NAME))
        if drawn:
            cells.append(_bar(value / top, limit / top))
        cells.append(E("span", words, style="white-space:nowrap"))
    columns = "fit-content(12em) 9em max-content" if drawn else "fit-content(24em) max-content"
    grid = f"display:grid;grid-template-columns:{columns};gap:1px 8px;align-items:center"
    note = E("div", bars.note, style=_FAINT) if bars.note else None
    return _panel(bars.title, E("div", cells, style=grid), note)


def _bar(share: float, limit: float) -> Element:
    colour = ACCENT if share >= 0 else OPPOSITE
    fill = f"linear-gradient(90deg,{colour} {100 * abs(share):.1f}%,transparent 0)"
    if math.isfinite(limit) and limit <= 1:
        edge = f"{100 * limit:.1f}%"
        line = f"transparent calc({edge} - 2px),currentColor 0,currentColor {edge},transparent 0"
        fill = f"linear-gradient(90deg,{line}),{fill}"
    return E("span", style=f"height:.75em;background:{fill},rgba(128,128,128,.18)")
