"""The page of posteriors that were combined: each parameter before and after, and how well the members agree."""

from __future__ import annotations

from dataclasses import dataclass
from xml.etree.ElementTree import Element

import numpy as np

from kofn.combination.posteriors._draws import FEW
from kofn.core.plans import Blend
from kofn.report import charts
from kofn.report.charts import Bar
from kofn.report.context import Context
from kofn.report.page import E, figure, number, percent, stat, user

SHOWN = 40  # shards of a chart, parameters of the table


@dataclass(frozen=True)
class Words:
    """What posteriors were made into, by the plan's `objective`, in the words of the page and of the command line."""

    title: str
    made: str
    members: str
    distance: str
    distances: str
    part: str


WORDS = {
    "product_of_draws": Words(
        "the product of {n:,} sub-posteriors",
        "draws of the product of {n} shards, worth {ess:,.0f} independent ones",
        "shards",
        "standard deviations from the others",
        "How far each shard's mean is from the product of the others, in standard deviations a parameter, and how "
        "often a shard of the same model is at least as far. Near 1 all is well.",
        "the precision",
    ),
    "draws_of_a_region": Words(
        "the posteriors of {n:,} tasks, blended by preference",
        "draws of the mixture of {n} tasks, inside its densest region",
        "tasks",
        "from the mixture",
        "The 2-Wasserstein distance of each task's posterior from a Gaussian with the mixture's moments.",
        "the preference",
    ),
    "draws_of_a_population": Words(
        "the prior of a next task, from {n:,} tasks",
        "draws of a next task's parameters, from {n} tasks",
        "tasks",
        "standard deviations between tasks from the mean of all",
        "How far each task's posterior mean is from the mean of all tasks, in standard deviations between tasks.",
        "the mean of all",
    ),
}


def tells_intervals(plan: Blend) -> bool:
    """Whether the draws are worth enough independent ones that an interval can be read off them."""
    return bool(plan.info["ess"] >= FEW)


def blends_draws(plan: Blend) -> bool:
    """Whether what was blended are posteriors."""
    return plan.objective in WORDS


def parts(context: Context, plan: Blend) -> tuple[list[Element], list[Element | None]]:
    """The headline figures, the parameters, and the charts of the members."""
    draws = len(np.asarray(plan.result))
    stats = [
        stat(f"{draws:,}", "draws", f"of {len(plan.info['parameters'])} parameters"),
        stat(number(plan.info["ess"]), "independent draws", "that these are worth"),
    ]
    warnings = [E("p", user(text), class_="warning") for text in plan.info["warnings"]]
    body: list[Element | None] = [E("div", warnings) if warnings else None, _parameters(context, plan)]
    return stats, [*body, _distances(context, plan), _weights(context, plan)]


def _parameters(context: Context, plan: Blend) -> Element:
    """Each parameter of the draws, and the means of the members that it lies between."""
    info, members = plan.info, WORDS[plan.objective].members
    head = E("tr", [E("th", name, scope="col") for name in ("parameter", "mean", "sd", "95% interval", members)])
    rows, known = [], tells_intervals(plan)
    for column, name in enumerate(info["parameters"][:SHOWN]):
        means, widths = info["member_means"][:, column], info["member_sds"][:, column]
        low, high = int(means.argmin()), int(means.argmax())
        shards = f"from {number(means[low])} ± {number(widths[low], 2)} ({context.name(low)}) to "
        shards += f"{number(means[high])} ± {number(widths[high], 2)} ({context.name(high)})"
        interval = f"{number(info['low'][column])} to {number(info['high'][column])}" if known else "too few draws"
        cells = [number(info["mean"][column]), number(info["sd"][column], 3), interval]
        rows.append(E("tr", E("th", user(name), scope="row"), [E("td", cell) for cell in cells], E("td", user(shards))))
    caption = f"The draws, and the {members} with the least and the largest mean, ± their standard deviations."
    if len(info["parameters"]) > SHOWN:
        caption += f" The first {SHOWN} of {len(info['parameters']):,}."
    return figure(E("table", E("thead", head), E("tbody", rows)), caption, title="Parameters", name="parameters")


def _distances(context: Context, plan: Blend) -> Element:
    words, spread = WORDS[plan.objective], np.asarray(plan.spread)
    chances = plan.info.get("chance_of_distance")
    order = np.argsort(-spread, kind="stable")[:SHOWN].tolist()
    rows = [
        Bar(
            context.name(member),
            float(spread[member]),
            f"{spread[member]:.2f}" + ("" if chances is None else f", {percent(float(chances[member]))}"),
        )
        for member in order
    ]
    chart = charts.bars(rows, label=f"distances of {words.members}")
    return figure(chart, words.distances + _rest(plan), title="Agreement", name="agreement")


def _weights(context: Context, plan: Blend) -> Element:
    words, order = WORDS[plan.objective], np.argsort(-plan.weights, kind="stable")[:SHOWN].tolist()
    sizes, draws = plan.info.get("member_ess"), plan.info.get("member_draws")
    rows = [
        Bar(
            context.name(member),
            float(plan.weights[member]),
            percent(float(plan.weights[member]))
            + ("" if draws is None or sizes is None else f", {int(draws[member]):,} draws worth {sizes[member]:,.0f}"),
        )
        for member in order
    ]
    caption = f"The {words.members}' parts of {words.part}, and what their draws are worth." + _rest(plan)
    chart = charts.bars(rows, label=f"parts of {words.members}")
    return figure(chart, caption, title=words.members.capitalize(), name="shards")


def _rest(plan: Blend) -> str:
    return f" {SHOWN} of {plan.n:,} {WORDS[plan.objective].members}." if plan.n > SHOWN else ""
