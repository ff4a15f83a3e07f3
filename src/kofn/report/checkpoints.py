"""The report of an allocation over a model's tensors."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from kofn.allocation.checkpoints._plan import BITS, CheckpointPlan, TensorLevel
from kofn.report import page
from kofn.report.charts import Axis, Bar, bars
from kofn.report.page import E, document, facts, figure, number, percent, stat, user

_SHOWN = 40  # bars of a chart
_DRAWN = 400  # curves of a chart
_LISTED = 2000  # rows of a table
_STATISTICS = {
    "none": "of the weights themselves: no statistics were given",
    "scale": "of the weights, each tensor's times a number that was given",
    "diagonal": "of the outputs, by the mean squares of the inputs",
    "gram": "of the outputs, by the mean products of the inputs",
    "curvature": "of the weights, by the curvature that was given",
}


def write_checkpoint_report(
    plan: CheckpointPlan, path: str | Path, *, command: str | Sequence[str] | None = None
) -> Path:
    """Write what each tensor of a model gets and why, as one HTML file.

    It shows the error over the mean beside that of a uniform level, every tensor's curve with the chosen point, the
    level and the error of each tensor, and what was run.

    Args:
        plan: what `kofn.allocation.allocate_checkpoint` returned.
        path: the file to write; it is replaced whole or left as it was.
        command: what was typed, as one string or as its words.

    Returns:
        The path written.

    >>> import tempfile, numpy as np
    >>> from kofn.allocation import allocate_checkpoint
    >>> from kofn.io.tensor_writer import write_arrays
    >>> folder = tempfile.mkdtemp()
    >>> write_arrays(folder + "/model.safetensors", {"a.weight": np.eye(64, dtype=np.float32)})
    >>> plan = allocate_checkpoint(folder, bits=4)
    >>> write_checkpoint_report(plan, folder + "/plan.html").read_text().count("a.weight") > 0
    True
    """
    of_bits = plan.kind == BITS
    title = f"{_mean(plan, plan.asked)} over {len(plan.tensors):,} tensors"
    saved = max(0.0, 1 - plan.error / plan.uniform) if plan.uniform > 0 else 0.0
    unit = _STATISTICS.get(plan.statistic, "weighted by statistics of several kinds")
    lede = (
        f"The predicted error is {number(plan.error)}; with one level for all at the same mean it is "
        f"{number(plan.uniform)}. Errors are {unit}."
    )
    stats = [
        stat(percent(saved), "less error than uniform", "predicted, not measured on a task"),
        stat(_mean(plan, plan.mean), "reached", f"{plan.mean_with_scales:.3f} with scales" if of_bits else None),
        stat(number(plan.weights), "weights", f"{len(plan.kept):,} tensors stay as they are"),
    ]
    if plan.next_error is not None and plan.error > 0:
        step = "one more tenth of a bit" if of_bits else "leaving out 1% less"
        less = 1 - plan.next_error / plan.error
        stats.append(stat(percent(less), "less error for", step) if less > 0 else stat("none", "fits into", step))
    body = [_frontier(plan), _curves(plan), _tensors(plan), _table(plan), _ran(plan, command)]
    text = document(title=title, eyebrow="kofn allocate · a model on disk", lede=lede, stats=stats, body=body)
    return page.write(text, path)


def _mean(plan: CheckpointPlan, mean: float) -> str:
    return f"{mean:.3g} bits a weight" if plan.kind == BITS else f"{percent(mean)} left out"


def _level(plan: CheckpointPlan, level: int) -> str:
    return f"{level} bits" if plan.kind == BITS else f"{level}% left"


def _frontier(plan: CheckpointPlan) -> Element | None:
    """The error over the mean, allocated and uniform."""
    points = np.array(plan.frontier)
    x, best, uniform = points.T
    shown = (best > 0) & (uniform > 0)
    if shown.sum() < 2:
        return None
    x, best, uniform = x[shown], best[shown], uniform[shown]
    lines = [(x, uniform, "low"), (x, best, "")]
    reached = plan.mean_with_scales if plan.counts_scales else plan.mean
    mark = (reached, plan.error, "this plan") if plan.error > 0 else None
    label = "error over the mean: allocated below uniform"
    chart = _plot(lines, label, "mean bits a weight" if plan.kind == BITS else "share left out", mark)
    caption = (
        "The summed error at every mean: the best allocation, and in grey one level for all (between two levels, a "
        "share of each). What one more step is worth is the slope."
    )
    return figure(chart, caption, title="What a larger budget buys", name="frontier")


def _curves(plan: CheckpointPlan) -> Element | None:
    """Every tensor's curve, with the point that was chosen."""
    levels = np.array(plan.levels, np.float64)
    drawn = sorted(plan.tensors, key=lambda tensor: -tensor.error)[:_DRAWN]
    lines, spots = [], []
    for tensor in drawn:
        curve = np.array([np.nan if error is None else error for error in tensor.curve])
        shown = curve > 0
        if shown.sum() > 1:
            lines.append((levels[shown], curve[shown], "low"))
        if tensor.error > 0:
            spots.append((float(tensor.level), tensor.error))
    if not lines:
        return None
    axis = "bits" if plan.kind == BITS else "percent left"
    chart = _plot(lines, "error of each tensor at each level, with the chosen points", axis, None, spots)
    rest = f" The {_DRAWN} tensors with the largest errors." if len(plan.tensors) > _DRAWN else ""
    return figure(chart, f"One curve a tensor; dots are the levels chosen.{rest}", title="Curves", name="curves")


def _plot(
    lines: Sequence[tuple[Any, Any, str]],
    label: str,
    x_title: str,
    mark: tuple[float, float, str] | None,
    spots: Sequence[tuple[float, float]] = (),
) -> Element:
    """Curves over one logarithmic axis."""
    xs, ys = (np.concatenate([np.asarray(line[i], np.float64) for line in lines]) for i in (0, 1))
    x, y = Axis(float(xs.min()), float(xs.max())), Axis(float(ys.min()), float(ys.max()), log=True)
    marks_y = [tick for tick in y.ticks(4) if y.low <= tick <= y.high]
    drawing = [E("path", d=f"M0 {1000 * (1 - float(y(tick))):.1f}h1000", class_="grid") for tick in marks_y]
    for along, values, kind in lines:
        px, py = 1000 * x(along), 1000 * (1 - y(values))
        path = "M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in zip(px.tolist(), py.tolist(), strict=True))
        drawing.append(E("g", E("path", d=path, class_="line"), class_=kind or None))
    words: list[Element] = [
        E("span", number(tick), class_="tick y", style=f"top:{100 * (1 - float(y(tick))):.2f}%") for tick in marks_y
    ]
    words += [E("span", number(t), class_="tick x", style=f"left:{100 * float(x(t)):.2f}%") for t in x.ticks(6)]
    words.append(E("span", x_title, class_="axis"))
    if spots:
        dots = "".join(f"M{1000 * float(x(a)):.1f} {1000 * (1 - float(y(b))):.1f}h.01" for a, b in spots)
        drawing.append(E("path", d=dots, class_="dots"))
    if mark is not None:
        left, top = float(x(mark[0])), 1 - float(y(mark[1]))
        drawing.append(E("path", d=f"M{1000 * left:.1f} {1000 * top:.1f}h.01", class_="knee"))
        side = "mark above" + " left" * (left > 0.6)
        words.append(E("span", mark[2], class_=side, style=f"left:{100 * left:.2f}%;top:{100 * top:.2f}%"))
    svg = E("svg", drawing, viewBox="0 0 1000 1000", preserveAspectRatio="none", aria_hidden="true", focusable="false")
    # The axis' name stands below its marks, and the caption below that.
    return E("div", svg, words, class_="plot", style="margin-bottom:3.2rem", role="img", aria_label=label)


def _tensors(plan: CheckpointPlan) -> Element:
    """The level of each tensor."""
    shown = plan.tensors[:_SHOWN]
    rows = [Bar(tensor.module, float(tensor.level), _words(plan, tensor)) for tensor in shown]
    rest = f" The first {_SHOWN} of {len(plan.tensors):,}." if len(plan.tensors) > _SHOWN else ""
    chart = bars(rows, label="level of each tensor")
    return figure(
        chart, f"The level of each tensor, in the checkpoint's order.{rest}", title="Who gets what", name="levels"
    )


def _words(plan: CheckpointPlan, tensor: TensorLevel) -> str:
    ends = {plan.levels[0]: " · the least", plan.levels[-1]: " · the most"}
    why = " · fixed" if tensor.fixed else ends.get(tensor.level, "")
    return f"{_level(plan, tensor.level)}{why} · {number(tensor.size)} weights"


def _table(plan: CheckpointPlan) -> Element:
    """All tensors with their figures."""
    whole = plan.error or 1.0
    head = E("tr", [E("th", text, scope="col") for text in ("tensor", "shape", "level", "error", "of all")])
    rows = [
        E(
            "tr",
            E("th", user(tensor.name), scope="row"),
            E("td", " x ".join(map(str, tensor.shape))),
            E("td", _level(plan, tensor.level)),
            E("td", number(tensor.error)),
            E("td", percent(tensor.error / whole)),
        )
        for tensor in sorted(plan.tensors, key=lambda tensor: -tensor.error)[:_LISTED]
    ]
    table = E("table", E("thead", head), E("tbody", rows))
    rest = f"the {_LISTED:,} with the largest errors" if len(plan.tensors) > _LISTED else "largest errors first"
    return E("details", E("summary", f"All tensors, {rest}"), table, class_="card")


def _ran(plan: CheckpointPlan, command: str | Sequence[str] | None) -> Element:
    typed = command if command is None or isinstance(command, str) else " ".join(map(str, command))
    rows: list[tuple[str, Any]] = [
        ("checkpoint", user(plan.path)),
        ("digest", E("code", plan.digest)),
        ("errors", _STATISTICS.get(plan.statistic, "by statistics of several kinds")),
        ("added up", "relative to each tensor's own size" if plan.criterion == "relative" else "as squares"),
    ]
    if plan.kind == BITS:
        rows.append(("numbers", "symmetric" if plan.symmetric else "affine"))
        rows.append(("weights a scale", "all of an output" if plan.group_size == -1 else number(plan.group_size)))
    rows += [
        ("saved a unit by more of the mean, at first", number(plan.price)),
        (
            "as they are",
            user(", ".join(plan.kept[:12]) + (" ..." if len(plan.kept) > 12 else "")) if plan.kept else "none",
        ),
        ("status", "optimal for the measured errors"),
        ("kofn version", page.version()),
    ]
    shown = None if typed is None else E("pre", E("code", user(typed)), tabindex=0, aria_label="command")
    heading = E("h2", "What was run", id="run")
    return E("section", heading, shown, facts(rows), class_="card", aria_labelledby="run")
