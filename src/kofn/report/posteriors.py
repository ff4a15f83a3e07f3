"""The page of a product of sub-posteriors: each parameter before and after, and how well the shards agree."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np

from kofn.core.plans import Blend
from kofn.report import charts
from kofn.report.charts import Bar
from kofn.report.context import Context
from kofn.report.page import E, figure, number, percent, stat, user

SHOWN = 40  # shards of a chart, parameters of the table


def blends_draws(plan: Blend) -> bool:
    """Whether what was blended are draws of sub-posteriors."""
    return plan.info.get("sum_of") == "draws"


def parts(context: Context, plan: Blend) -> tuple[list[Element], list[Element | None]]:
    """The headline figures, the parameters, and the charts of the shards."""
    draws = len(np.asarray(plan.result))
    stats = [
        stat(f"{draws:,}", "draws", f"of {len(plan.info['parameters'])} parameters"),
        stat(number(plan.info["ess"]), "independent draws", "that these are worth"),
    ]
    warnings = [E("p", user(text), class_="warning") for text in plan.info["warnings"]]
    body: list[Element | None] = [E("div", warnings) if warnings else None, _parameters(context, plan)]
    return stats, [*body, _distances(context, plan), _weights(context, plan)]


def _parameters(context: Context, plan: Blend) -> Element:
    """Each parameter of the product, and the means of the shards that it lies between."""
    info = plan.info
    head = E("tr", [E("th", name, scope="col") for name in ("parameter", "mean", "sd", "95% interval", "shards")])
    rows = []
    for column, name in enumerate(info["parameters"][:SHOWN]):
        means, widths = info["member_means"][:, column], info["member_sds"][:, column]
        low, high = int(means.argmin()), int(means.argmax())
        shards = f"from {number(means[low])} ± {number(widths[low], 2)} ({context.name(low)}) to "
        shards += f"{number(means[high])} ± {number(widths[high], 2)} ({context.name(high)})"
        interval = f"{number(info['low'][column])} to {number(info['high'][column])}"
        cells = [number(info["mean"][column]), number(info["sd"][column], 3), interval]
        rows.append(E("tr", E("th", user(name), scope="row"), [E("td", cell) for cell in cells], E("td", user(shards))))
    caption = "The product, and the shards with the least and the largest mean, ± their standard deviations."
    if len(info["parameters"]) > SHOWN:
        caption += f" The first {SHOWN} of {len(info['parameters']):,}."
    return figure(E("table", E("thead", head), E("tbody", rows)), caption, title="Parameters", name="parameters")


def _distances(context: Context, plan: Blend) -> Element:
    spread = np.asarray(plan.spread)
    order = np.argsort(-spread, kind="stable")[:SHOWN].tolist()
    rows = [
        Bar(
            context.name(shard),
            float(spread[shard]),
            f"{spread[shard]:.2f}, {percent(float(plan.info['chance_of_distance'][shard]))}",
        )
        for shard in order
    ]
    caption = (
        "How far each shard's mean is from the product of the others, in standard deviations a parameter, and how "
        "often a shard of the same model is at least as far. Near 1 all is well." + _rest(plan)
    )
    return figure(charts.bars(rows, label="distance of each shard"), caption, title="Agreement", name="agreement")


def _weights(context: Context, plan: Blend) -> Element:
    order = np.argsort(-plan.weights, kind="stable")[:SHOWN].tolist()
    sizes, draws = plan.info["member_ess"], plan.info["member_draws"]
    rows = [
        Bar(
            context.name(shard),
            float(plan.weights[shard]),
            f"{percent(float(plan.weights[shard]))}, {int(draws[shard]):,} draws worth {sizes[shard]:,.0f}",
        )
        for shard in order
    ]
    caption = "Each shard's part of the precision of the product, and what its draws are worth." + _rest(plan)
    return figure(charts.bars(rows, label="part of each shard"), caption, title="Shards", name="shards")


def _rest(plan: Blend) -> str:
    return f" {SHOWN} of {plan.n:,} shards." if plan.n > SHOWN else ""
