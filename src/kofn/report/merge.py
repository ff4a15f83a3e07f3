"""The report of merged checkpoints: how far the blend goes, agreement and distances by layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from kofn.combination._sweep.measures import joint_cosine, trained
from kofn.combination.recipes._settings import counted, listed_settings
from kofn.core.plans import Blend
from kofn.report import charts
from kofn.report._merge_reach import FEW, LENGTH, Reach, Verdict, judge, reach_of
from kofn.report.charts import Bar
from kofn.report.context import Context
from kofn.report.lists import table
from kofn.report.page import E, describe, document, facts, figure, number, percent, stat, user
from kofn.report.run import kind, outcome, ran

TENSORS = 400  # rows of the table
DRAWN = 40  # layers with a bar in each chart
FARTHEST = 12  # tensors with a bar
COMPARED = 12  # members in the table of cosines
OUTPUTS = ("out", "measure", "device", "statistic")  # options that do not change the blend
GROUPS = 100  # rows of the table of settings
LISTED = 6  # members whose figures stand in one line
UNKNOWN = "\N{EN DASH}"  # in place of a figure that does not exist

Layers = Sequence[Mapping[str, Any]]


def page(context: Context, title: str | None) -> str:
    """The whole report of a blend of checkpoints, state dicts or arrays."""
    plan = context.plan
    assert isinstance(plan, Blend)
    measures = trained(plan.info.get("measures", {}))
    reach, members = reach_of(plan), _members(plan)
    layers = _by_layer(measures, reach)
    verdict = judge(plan, measures) if "measures" in plan.info else None
    drawn = [part for part in (_weights(plan, members), _spread(plan, members)) if part is not None]
    if layers:
        drawn += [_reach(layers, reach), _agreement(layers, reach), _distance(layers, members, reach)]
        drawn += [] if (cosine := _cosine(measures, members, reach)) is None else [cosine]
    body = [
        _warnings(plan),
        _blended(plan, members),
        _settings(plan),
        _adapters(plan, members),
        [E("div", drawn[low : low + 2], class_="pair") for low in range(0, len(drawn), 2)],
        _tensors(measures, reach),
        ran(context),
    ]
    stats = [stat(f"{plan.n:,}", "members" if plan.n > 1 else "member", _form(plan))]
    if isinstance(plan.result, Mapping):
        copied = len(plan.info.get("copied", ()))
        stats.append(stat(f"{len(plan.result):,}", "tensors", f"{copied:,} of them copied" if copied else None))
    if verdict is not None and verdict.value is not None:
        stats.append(_headline(verdict))
    if plan.status == "optimal":
        stats.append(stat("Nearest", "to the members", "least squared distance of weights, which is not accuracy"))
    if "seconds" in plan.info:
        stats.append(outcome(plan))
    noun = "adapter" if "families" in plan.info else "model"
    return document(
        title=title or (f"{plan.n:,} {noun}s into one" if plan.n != 1 else f"One {noun}"),
        eyebrow=["kofn combine · ", kind(plan)],
        lede=_lede(plan, verdict, layers, reach),
        stats=stats,
        body=body,
    )


def _form(plan: Blend) -> str | None:
    return f"combined as {plan.form}" if plan.form != "none" else None


def _by_layer(measures: Mapping[str, Mapping[str, Any]], reach: Reach) -> list[dict[str, Any]]:
    """The figures of each layer; `judged` is false where none of its tensors is."""
    from kofn.combination.task_vectors._layer_swap import measures_by_layer

    if not measures:
        return []
    some = {name: row for name, row in measures.items() if reach.judges(row)}
    known = {row["layer"] for row in measures_by_layer(some)} if some else set()
    return [{**row, "judged": row["layer"] in known} for row in measures_by_layer(measures)]


def _side(row: Mapping[str, Any], reach: Reach) -> str | None:
    """Which end of the range a layer passes, None where it is not judged."""
    return reach.side(row[reach.key]) if row["judged"] else None


def _members(plan: Blend) -> list[str]:
    """Names of the members: the last part of their paths, or the whole path where two would be called the same."""
    paths = plan.info.get("members")
    if paths is None:
        return [f"member {member}" for member in range(plan.n)]
    names = [Path(path).name.removesuffix(".safetensors") or path for path in paths]
    return names if len(set(names)) == len(names) else [str(path) for path in paths]


def _layer(row: Mapping[str, Any]) -> str:
    layer = row["layer"]
    words = {"before": "before the layers", "after": "after the layers"}
    return f"layer {layer}" if isinstance(layer, int) else words.get(layer, str(layer))


def _wrapped(name: str) -> list[Any]:
    """A long name of a tensor or module breaks after its dots."""
    head, *parts = name.split(".")
    return [head, *(piece for part in parts for piece in (".", E("wbr"), part))]


def _lede(plan: Blend, verdict: Verdict | None, layers: Layers, reach: Reach) -> list[Any]:
    if verdict is None and "families" in plan.info:
        return [
            "What each adapter counts for, how far its update stands from the sum, and how it was trained and saved."
        ]
    if verdict is None:
        return ["What each member counts for and how far it stands from the blend. Run with measure for more."]
    words = [verdict.finding, f" {verdict.advice}" if verdict.advice else ""]
    outside = [_layer(row) for row in layers if _side(row, reach) is not None]
    if verdict.value is not None and verdict.advice is None and outside and len(layers) > 1:
        shown = ", ".join(outside[:LISTED]) + (f" and {len(outside) - LISTED} more" if len(outside) > LISTED else "")
        words.append(f" Outside {reach.span()} by themselves: {shown}.")
    return words


def _headline(verdict: Verdict) -> Element:
    assert verdict.value is not None
    reach, side = verdict.reach, verdict.reach.side(verdict.value)
    label = "as far as the members change the base" if reach is LENGTH else "of the members' variance kept"
    return stat(
        reach.words(verdict.value),
        label,
        f"{'within' if side is None else side} {reach.span()}",
    )


def _blended(plan: Blend, members: Sequence[str]) -> Element:
    """What was blended by what: base, method, options, dtype, and the weights where they differ between tensors."""
    base = plan.info.get("base")
    rows: list[tuple[str, Any]] = [
        ("base", user(base) if base is not None else "none: figures are of the weights, not of changes"),
        ("method", user(plan.method or "a recipe")),
    ]
    rows += [
        (name, user(describe(value)))
        for name, value in sorted(plan.options.items())
        if name not in OUTPUTS and value is not None and (value is not False or name != "skip_nonfinite")
    ]
    if plan.info.get("dtype"):
        rows.append(("dtype of the blend", plan.info["dtype"]))
    if isinstance(plan.weights, Mapping) and plan.weights:
        table = np.array([np.asarray(weights, np.float64) for weights in plan.weights.values()])
        ends = zip(table.min(axis=0).tolist(), table.max(axis=0).tolist(), strict=True)
        rows += [
            ("weight of " + name, number(low) if low == high else f"{number(low)} to {number(high)}, by tensor")
            for name, (low, high) in zip(members, ends, strict=True)
        ]
    return E(
        "section", E("h2", "What was blended", id="blended"), facts(rows), class_="card", aria_labelledby="blended"
    )


def _settings(plan: Blend) -> Element | None:
    """A recipe's weights, densities and other settings, for each group of tensors that are blended alike."""
    groups = plan.info.get("settings")
    if not groups:
        return None
    head = E("tr", [E("th", name, scope="col") for name in ("tensors", "method and settings")])
    rows = [
        E(
            "tr",
            E("th", _wrapped(counted(group["tensors"])), scope="row"),
            E("td", user(listed_settings(group))),
        )
        for group in groups[:GROUPS]
    ]
    more = f" The first {GROUPS} of {len(groups):,} groups; the plan has all." if len(groups) > GROUPS else ""
    return E(
        "section",
        E("h2", "The recipe's settings", id="settings"),
        E("p", f"What each tensor was blended with; a value for each member, in their order.{more}", class_="aside"),
        E("div", E("table", E("thead", head), E("tbody", rows)), class_="figures"),
        class_="card",
        aria_labelledby="settings",
    )


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
    caption = "L2 distance of each member to the blend, in weights, over all tensors."
    return figure(chart, caption, title="How far each stands from the blend", name="spread")


def _chosen(layers: Layers, reach: Reach) -> list[Mapping[str, Any]]:
    """The layers that are drawn: all, or those with the most unusual figures, in their order."""
    if len(layers) <= DRAWN:
        return list(layers)
    order = sorted(range(len(layers)), key=lambda i: (not layers[i]["judged"], -_unusual(layers[i][reach.key])))
    return [layers[i] for i in sorted(order[:DRAWN])]


def _unusual(value: float) -> float:
    return abs(float(np.log(max(value, 1e-300))))


def _partly(layers: Layers) -> str:
    return f" Drawn are the {DRAWN} of {len(layers):,} layers farthest from 1." if len(layers) > DRAWN else ""


def _reach(layers: Layers, reach: Reach) -> Element:
    drawn = _chosen(layers, reach)
    rows = []
    for row in drawn:
        value, side = row[reach.key], _side(row, reach)
        words = reach.words(value) + (f" {side}" if side else "" if row["judged"] else ", not judged")
        rows.append(
            Bar(_wrapped(_layer(row)), value, words, least=reach.least, most=reach.most, breached=side is not None)
        )
    top = max(1.1 * reach.most, 1.02 * max(row[reach.key] for row in drawn))
    chart = charts.bars(rows, label=f"{reach.title.lower()}", top=top)
    columns = {
        reach.key: [reach.words(row[reach.key]) for row in layers],
        "signs agree": [percent(row["agreement"]) for row in layers],
        "distances": [_distances(row["relative"]) for row in layers],
    }
    figures = table("layer", [_layer(row) for row in layers], columns) if len(layers) > DRAWN else None
    return figure(
        E("div", chart, figures, class_="whole"), reach.caption + _partly(layers), title=reach.title, name="reach"
    )


def _agreement(layers: Layers, reach: Reach) -> Element:
    rows = [Bar(_wrapped(_layer(row)), row["agreement"], percent(row["agreement"])) for row in _chosen(layers, reach)]
    compared = "changes" if reach is LENGTH else "weights"
    caption = (
        f"Share of the members' {compared} that have the sign of their majority: all where they agree, towards half "
        "where they cancel. It did not foretell which layer costs accuracy."
    )
    chart = charts.bars(rows, label="sign agreement in each layer", top=1.06)
    return figure(E("div", chart, class_="whole"), caption, title="Signs that agree", name="agreement")


def _distance(layers: Layers, members: Sequence[str], reach: Reach) -> Element:
    rows = [
        Bar(_wrapped(_layer(row)), float(np.mean(row["relative"])), _distances(row["relative"]))
        for row in _chosen(layers, reach)
    ]
    size = "the member's own change" if reach is LENGTH else "the member's own weights"
    scale = " 0% where the blend has all of that change, 100% where it is as far from the member as the base is."
    caption = (
        f"Distance of each member to the blend, in weights, over the size of {size}: the mean as a bar, then "
        f"{_names(members)}.{scale if reach is LENGTH else ''} Distances in weights are not losses of accuracy."
    )
    chart = charts.bars(rows, label="relative distance in each layer")
    return figure(E("div", chart, class_="whole"), caption, title="What each layer lost, in weights", name="lost")


def _distances(relative: Any) -> str:
    more = " …" if len(relative) > LISTED else ""
    return " · ".join(percent(float(part), 0) for part in relative[:LISTED]) + more


def _names(members: Sequence[str]) -> str:
    return ", ".join(members[:LISTED])


def _cosine(measures: Mapping[str, Mapping[str, Any]], members: Sequence[str], reach: Reach) -> Element | None:
    if not 2 <= len(members) <= COMPARED:
        return None
    cosine = joint_cosine(measures.values())
    head = E("tr", [E("th", user(name), scope="col") for name in ("", *members)])
    rows = [
        E("tr", E("th", user(name), scope="row"), [E("td", _or_unknown(value)) for value in cosine[position]])
        for position, name in enumerate(members)
    ]
    pair = "what two members changed" if reach is LENGTH else "two members' weights"
    return E(
        "section",
        E("h2", "Who changed alike" if reach is LENGTH else "Whose weights are alike", id="cosine"),
        E("p", f"Cosine of {pair}: 1 is the same, 0 unrelated, below 0 opposed.", class_="aside"),
        E("div", E("table", E("thead", head), E("tbody", rows)), class_="figures"),
        class_="card",
        aria_labelledby="cosine",
    )


def _or_unknown(value: float) -> str:
    return number(float(value), 3) if np.isfinite(value) else UNKNOWN


def _tensors(measures: Mapping[str, Mapping[str, Any]], reach: Reach) -> Element | None:
    """The tensors with the most unusual figures, and all of them as a table; those of few values are one row."""
    from kofn.combination.task_vectors._layer_swap import together

    if not measures:
        return None
    own = {name: row for name, row in measures.items() if reach.judges(row)}
    order = sorted(own, key=lambda name: -_unusual(own[name][reach.key]))
    rows = [(name, own[name]) for name in order[:TENSORS]]
    few = {name: row for name, row in measures.items() if name not in own}
    if few:
        rows += [(f"{len(few):,} not judged, together", together(list(few.values()))), *few.items()]
        rows = rows[:TENSORS]
    columns = {
        reach.key: [reach.words(row[reach.key]) for _, row in rows],
        "signs agree": [percent(row["agreement"]) for _, row in rows],
        "least cosine": [_least(row["cosine"]) for _, row in rows],
        "distances": [" · ".join(number(float(far), 3) for far in row["distance"][:6]) for _, row in rows],
    }
    bars = []
    for name in order[:FARTHEST]:
        value, side = own[name][reach.key], reach.side(own[name][reach.key])
        words = reach.words(value) + (f" {side}" if side else "")
        bars.append(Bar(_wrapped(name), value, words, least=reach.least, most=reach.most, breached=side is not None))
    top = max(1.1 * reach.most, 1.02 * max((bar.value for bar in bars), default=1.0))
    chart = charts.bars(bars, label=f"tensors farthest from 1 in {reach.key}", top=top) if bars else None
    more = f" In the table, the {TENSORS:,} of {len(order):,} farthest from 1." if len(order) > TENSORS else ""
    return E(
        "section",
        E("h2", "The most unusual tensors", id="tensors"),
        E("p", f"{_farthest(reach, len(few))}{more}", class_="aside"),
        None if chart is None else E("div", chart, class_="whole"),
        table("tensor", [name for name, _ in rows], columns),
        class_="card",
        aria_labelledby="tensors",
    )


def _farthest(reach: Reach, few: int) -> str:
    """What the tensors are ordered by, and which are not judged."""
    if reach is LENGTH:
        words, reason = "how far the blend goes", f"{few:,} of fewer than {FEW:,} values, whose figures are chance"
    else:
        reason = (
            f"{few:,} norms, biases and others of fewer than {FEW:,} values: norms and biases begin as equal "
            "constants, so that their variance is what training changed, and figures of few values are chance"
        )
        words = "the variance kept"
    return f"Farthest from 1 first, by {words}." + (f" Not judged by themselves: {reason}." if few else "")


def _least(cosine: Any) -> str:
    pairs = np.asarray(cosine)[np.triu_indices(len(cosine), 1)]
    pairs = pairs[np.isfinite(pairs)]
    return number(float(pairs.min()), 3) if len(pairs) else UNKNOWN
