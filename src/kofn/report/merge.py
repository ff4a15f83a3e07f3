"""The report of merged checkpoints: variance kept, agreement and distances by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from kofn.core.plans import Blend
from kofn.report import charts
from kofn.report.charts import Bar
from kofn.report.context import Context
from kofn.report.lists import table
from kofn.report.page import E, document, figure, number, percent, stat, user
from kofn.report.run import kind, outcome, quality, ran

TENSORS = 400  # rows of the table
WORST = 12  # tensors named
# A layer whose blend keeps this much of the members' variance, with signs that agree this often, merges well.
KEPT, AGREEING = 0.9, 0.75


def page(context: Context, title: str | None) -> str:
    """The whole report of a blend of checkpoints, state dicts or arrays."""
    plan = context.plan
    assert isinstance(plan, Blend)
    measures: Mapping[str, Mapping[str, Any]] = plan.info.get("measures", {})
    layers = _by_layer(measures)
    members = _members(plan)
    figures = [
        _weights(plan, members),
        _spread(plan, members),
        *(
            []
            if not layers
            else [_kept(layers), _agreement(layers), _distance(layers, members), _cosine(measures, members)]
        ),
    ]
    drawn = [part for part in figures if part is not None]
    body = [
        _warnings(plan),
        _adapters(plan, members),
        [E("div", drawn[low : low + 2], class_="pair") for low in range(0, len(drawn), 2)],
        _tensors(measures),
        ran(context),
    ]
    stats = [stat(f"{plan.n:,}", "members", f"combined as {plan.form}" if plan.form != "none" else None)]
    if isinstance(plan.result, Mapping):
        copied = len(plan.info.get("copied", ()))
        stats.append(stat(f"{len(plan.result):,}", "tensors", f"{copied:,} of them copied" if copied else None))
    stats += _stats(layers)
    stats.append(quality(plan))
    if "seconds" in plan.info:
        stats.append(outcome(plan))
    return document(
        title=title or f"{plan.n:,} models into one",
        eyebrow=["kofn combine · ", kind(plan)],
        lede=_lede(layers),
        stats=stats,
        body=body,
    )


def _by_layer(measures: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    from kofn.combination.task_vectors._layer_swap import measures_by_layer

    return measures_by_layer(measures) if measures else []


def _members(plan: Blend) -> list[str]:
    names = plan.info.get("members")
    return (
        [f"member {member}" for member in range(plan.n)]
        if names is None
        else [Path(name).name or name for name in names]
    )


def _resists(row: Mapping[str, Any]) -> bool:
    return bool(row["kept"] < KEPT or row["agreement"] < AGREEING)


def _layer(row: Mapping[str, Any]) -> str:
    layer = row["layer"]
    words = {"before": "before the layers", "after": "after the layers", "all": "all tensors"}
    return words.get(layer, f"layer {layer}")


def _lede(layers: Sequence[Mapping[str, Any]]) -> list[Any]:
    if not layers:
        return ["What each member counts for and how far it stands from the blend. Run with measure for more."]
    bad = [_layer(row) for row in layers if _resists(row)]
    if not bad:
        return ["Every layer merges well: the blend keeps the members' variance and their changes agree in sign."]
    shown = ", ".join(bad[:6]) + (f" and {len(bad) - 6} more" if len(bad) > 6 else "")
    return [
        f"{len(bad)} of {len(layers)} layers resist: {shown}. There the members disagree, and the blend is not one of "
        "them: keep one member's layer, align the members first, or give them other weights."
    ]


def _stats(layers: Sequence[Mapping[str, Any]]) -> list[Element]:
    if not layers:
        return []
    good = sum(not _resists(row) for row in layers)
    note = f"variance kept ≥ {percent(KEPT, 0)}, signs agree ≥ {percent(AGREEING, 0)}"
    return [stat([f"{good:,}", E("small", f" of {len(layers):,}")], "layers merge well", note)]


def _warnings(plan: Blend) -> Element | None:
    warnings = plan.info.get("warnings", ())
    if not warnings:
        return None
    rows = [E("li", user(text)) for text in warnings]
    return E(
        "section", E("h2", "Worth knowing", id="warnings"), E("ul", rows), class_="card", aria_labelledby="warnings"
    )


def _adapters(plan: Blend, members: list[str]) -> Element | None:
    """Of which trainer each adapter is, and what its factors are scaled by."""
    families = plan.info.get("families")
    if families is None:
        return None
    columns = ("family", "modules", "rank", "scale")
    head = E("tr", [E("th", name, scope="col") for name in ("adapter", *columns)])
    rows = [
        E("tr", E("th", user(member), scope="row"), [E("td", user(str(known[name]))) for name in columns])
        for member, known in zip(members, families, strict=True)
    ]
    intro = f"The members' updates are added as scale · B · A and saved as an adapter of {plan.info['family']}."
    return E(
        "section",
        E("h2", "The adapters", id="adapters"),
        E("p", intro, class_="aside"),
        E("div", E("table", E("thead", head), E("tbody", rows)), class_="figures"),
        class_="card",
        aria_labelledby="adapters",
    )


def _weights(plan: Blend, members: list[str]) -> Element | None:
    if not isinstance(plan.weights, np.ndarray) or plan.weights.ndim != 1:
        return None
    rows = [Bar(name, float(weight), number(float(weight))) for name, weight in zip(members, plan.weights, strict=True)]
    chart = charts.bars(rows, label="weight of each member")
    return figure(
        chart, "The weight of each member; hollow where it is negative.", title="What each counts for", name="weights"
    )


def _spread(plan: Blend, members: list[str]) -> Element | None:
    if plan.spread is None or not len(plan.spread):
        return None
    rows = [Bar(name, float(far), number(float(far))) for name, far in zip(members, plan.spread, strict=True)]
    chart = charts.bars(rows, label="distance of each member to the blend")
    caption = "L2 distance of each member to the blend, over all tensors: what blending cost it."
    return figure(chart, caption, title="How far each stands from the blend", name="spread")


def _kept(layers: Sequence[Mapping[str, Any]]) -> Element:
    rows = [
        Bar(_layer(row), row["kept"], percent(row["kept"]), least=KEPT, most=1.0, breached=row["kept"] < KEPT)
        for row in layers
    ]
    top = max(1.06, 1.02 * max(row["kept"] for row in layers))
    caption = (
        "The variance of what the blend changes over that of what its members change (of the weights themselves, where "
        "no base was given). Changes that do not agree cancel: below the band, much of them is gone."
    )
    chart = charts.bars(rows, label="variance kept in each layer", top=top)
    return figure(chart, caption, title="Variance kept", name="kept")


def _agreement(layers: Sequence[Mapping[str, Any]]) -> Element:
    rows = [
        Bar(
            _layer(row),
            row["agreement"],
            percent(row["agreement"]),
            least=AGREEING,
            most=1.0,
            breached=row["agreement"] < AGREEING,
        )
        for row in layers
    ]
    caption = (
        "The share of the members' changes (or weights) that have the sign of their majority: all where they agree, "
        "towards half where they cancel."
    )
    chart = charts.bars(rows, label="sign agreement in each layer", top=1.06)
    return figure(chart, caption, title="Signs that agree", name="agreement")


def _distance(layers: Sequence[Mapping[str, Any]], members: list[str]) -> Element:
    rows = [
        Bar(
            _layer(row),
            float(np.mean(row["relative"])),
            " · ".join(percent(float(part), 0) for part in row["relative"][:6]),
        )
        for row in layers
    ]
    listed = ", ".join(members[:6])
    caption = f"Distance to the blend over the size of the member's own change: the mean as a bar, then {listed}."
    return figure(
        charts.bars(rows, label="relative distance in each layer"), caption, title="What each layer lost", name="lost"
    )


def _cosine(measures: Mapping[str, Mapping[str, Any]], members: list[str]) -> Element | None:
    if len(members) < 2 or len(members) > 12:
        return None
    gram = sum(
        np.nan_to_num(row["cosine"]) * np.outer(row["norms"][:-1], row["norms"][:-1]) for row in measures.values()
    )
    size = np.sqrt(np.maximum(np.diag(gram), 1e-300))
    cosine = np.clip(gram / np.outer(size, size), -1, 1)
    head = E("tr", [E("th", user(name), scope="col") for name in ("", *members)])
    rows = [
        E("tr", E("th", user(name), scope="row"), [E("td", number(float(value), 3)) for value in cosine[position]])
        for position, name in enumerate(members)
    ]
    return E(
        "section",
        E("h2", "Who changed alike", id="cosine"),
        E(
            "p",
            "Cosine of what two members changed: 1 is the same change, 0 unrelated, below 0 opposed.",
            class_="aside",
        ),
        E("div", E("table", E("thead", head), E("tbody", rows)), class_="figures"),
        class_="card",
        aria_labelledby="cosine",
    )


def _tensors(measures: Mapping[str, Mapping[str, Any]]) -> Element | None:
    """The tensors that resist most, and all of them as a table."""
    if not measures:
        return None
    order = sorted(measures, key=lambda name: (measures[name]["kept"], measures[name]["agreement"]))
    shown = order[:TENSORS]
    columns = {
        "variance kept": [percent(measures[name]["kept"]) for name in shown],
        "signs agree": [percent(measures[name]["agreement"]) for name in shown],
        "least cosine": [_least(measures[name]["cosine"]) for name in shown],
        "distances": [" · ".join(number(float(far), 3) for far in measures[name]["distance"][:6]) for name in shown],
    }
    bars = [
        Bar(name, measures[name]["kept"], percent(measures[name]["kept"]), least=KEPT, most=1.0)
        for name in order[:WORST]
    ]
    worst = charts.bars(bars, label="variance kept in the tensors that keep least", top=1.06)
    more = f" The {TENSORS:,} of {len(order):,} that keep least." if len(order) > TENSORS else ""
    return E(
        "section",
        E("h2", "The tensors that resist most", id="tensors"),
        E("p", f"From the one that keeps the least of its members' variance.{more}", class_="aside"),
        worst,
        table("tensor", shown, columns),
        class_="card",
        aria_labelledby="tensors",
    )


def _least(cosine: Any) -> str:
    pairs = np.asarray(cosine)[np.triu_indices(len(cosine), 1)]
    pairs = pairs[np.isfinite(pairs)]
    return number(float(pairs.min()), 3) if len(pairs) else ""
