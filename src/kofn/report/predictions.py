"""The page of a blend of predictions: who is in it, and what it brings on rows that did not choose it."""

from __future__ import annotations

from xml.etree.ElementTree import Element

import numpy as np

from kofn.core.plans import Blend
from kofn.report import charts
from kofn.report.charts import Bar
from kofn.report.context import Context
from kofn.report.page import figure, number, stat

SHOWN = 40  # models of a chart
_VERDICTS = {"better": "surely better", "worse": "surely worse", "alike": "not surely different"}


def blends_predictions(plan: Blend) -> bool:
    """Whether what was blended are predictions of known answers."""
    return "loss" in plan.info and "single" in plan.info


def parts(context: Context, plan: Blend) -> tuple[list[Element], list[Element | None]]:
    """The headline figures and the charts."""
    return _stats(plan), [_weights(context, plan), _losses(context, plan)]


def _stats(plan: Blend) -> list[Element]:
    held_out = plan.info.get("held_out")
    if held_out is None:
        return [stat(number(plan.info["plain_mean"]), "mean of all", f"{plan.info['loss']} on these rows, which chose")]
    where = f"{plan.info['loss']} on rows that did not choose, {held_out['folds']} folds"
    single, mean = _VERDICTS[held_out["over_single"]], _VERDICTS[held_out["over_mean"]]
    return [
        stat(number(held_out["blend"]), "blends chosen anew by the others", where),
        stat(number(held_out["best_single"]), "the best model", f"blends so chosen are {single}"),
        stat(number(held_out["plain_mean"]), "the mean of all", f"blends so chosen are {mean}"),
    ]


def _weights(context: Context, plan: Blend) -> Element:
    """The weight of each model; the mean of them where they vary."""
    varies = isinstance(plan.weights, dict)
    weights = np.mean(list(plan.weights.values()), axis=0) if varies else np.asarray(plan.weights)
    order = np.argsort(-np.abs(weights), kind="stable")[:SHOWN].tolist()
    rows = [Bar(context.name(i), abs(float(weights[i])), number(float(weights[i]), 3)) for i in order]
    caption = "The weight of each model in the blend." + (" The mean over parts of the rows." if varies else "")
    return figure(
        charts.bars(rows, label="weight of each model"), caption + _rest(plan), title="Weights", name="weights"
    )


def _losses(context: Context, plan: Blend) -> Element:
    single = np.asarray(plan.info["single"], np.float64)
    order = np.argsort(-single if plan.sense == "max" else single, kind="stable")[:SHOWN].tolist()
    rows = [Bar(context.name(i), float(single[i]), number(float(single[i]))) for i in order]
    caption = (
        f"The {plan.info['loss']} of each model alone on these rows, the best first; the blend: {number(plan.value)}."
    )
    chart = charts.bars(rows, label="loss of each model alone")
    return figure(chart, caption + _rest(plan), title="Each model alone", name="alone")


def _rest(plan: Blend) -> str:
    return f" {SHOWN} of {plan.n:,} models." if plan.n > SHOWN else ""
