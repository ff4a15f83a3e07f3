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
_VERDICTS = {"better": "surely better than", "worse": "surely worse than", "alike": "not surely better than"}


def blends_predictions(plan: Blend) -> bool:
    """Whether what was blended are predictions of known answers."""
    return "loss" in plan.info and "single" in plan.info


def lede(plan: Blend) -> str:
    """What the blend loses, on rows that did not choose it first, and what that says of it."""
    info, held_out = plan.info, plan.info.get("held_out")
    own = f"{info['loss']} {number(plan.value, 6)} on these rows"
    if held_out is None:
        chose = "" if "given_weights" in info else ", which chose it: on others it may be worse"
        return f"The blend has {own}{chose}."
    first, *others = verdicts(plan)
    figure = f"{info['loss']} {number(held_out['blend'])} on rows that did not choose"
    sentences = [f"Blends chosen so have {figure} and are {first.removeprefix('blends so chosen are ')}", *others]
    text = ". ".join(f"{sentence[0].upper()}{sentence[1:]}" for sentence in sentences)
    return f"{text}. This blend has {own}, which chose it."


def verdicts(plan: Blend, mean: str = "") -> list[str]:
    """What is sure of blends chosen so, on rows that did not choose them, and what to prefer, in lines.

    Args:
        plan: the blend, with `info["held_out"]`.
        mean: what follows the mean of all where it is to be preferred: how it is had.
    """
    info = plan.info
    held_out, single = info["held_out"], np.asarray(info["single"])
    best = plan.keys(np.array([single.argmax() if plan.sense == "max" else single.argmin()]))[0]
    alone = f" ({best} alone may do as well)" if held_out["over_single"] == "alike" else ""
    over_single, over_mean = _VERDICTS[held_out["over_single"]], _VERDICTS[held_out["over_mean"]]
    by = f"; by one draw of {held_out['folds']} folds, which another seed draws anew"
    lines = [
        f"blends so chosen are {over_single} the best model{alone}, {over_mean} the mean of all{_simpler(plan)}{by}",
    ]
    if preferred := [
        text
        for name, text in (("single", f"{best} alone"), ("mean", f"the mean of all{mean}"))
        if held_out[f"over_{name}"] == "worse"
    ]:
        lines.append(f"prefer {' or '.join(preferred)} to this blend")
    if held_out["behind"]:
        ahead = " and ".join(
            {"single": "the best model", "mean": "the mean of all"}[name] for name in held_out["behind"]
        )
        lines.append(f"this blend loses more than {ahead} even on the rows that chose it: prefer the simpler one")
    return lines


def given_verdict(plan: Blend, mean: str = "") -> list[str]:
    """What is sure of weights that were given, beside the best model and the mean of all on the same rows, in lines.

    Args:
        plan: the blend, with `info["on_these_rows"]`.
        mean: what follows the mean of all where it is to be preferred: how it is had.
    """
    info = plan.info
    sign, single = -1.0 if plan.sense == "max" else 1.0, np.asarray(info["single"])
    best = int((sign * single).argmin())
    name = f"{plan.keys(np.array([best]))[0]} alone"
    others = {"over_single": (name, float(single[best]))}
    if np.ptp(np.asarray(plan.weights)) > 0:
        others["over_mean"] = ("the mean of all", float(info["plain_mean"]))
    if plan.n < 2:
        return []
    verdict = info["on_these_rows"]
    line = ", ".join(f"{_VERDICTS[verdict[key]]} {other}" for key, (other, _loss) in others.items())
    ahead = [(key, other) for key, (other, loss) in others.items() if sign * loss < sign * plan.value]
    did = f"; on these rows {' and '.join(other for _key, other in ahead)} did better" if ahead else ""
    lines = [f"these weights are {line}{did}"]
    worse = [other + (mean if key == "over_mean" else "") for key, other in ahead if verdict[key] == "worse"]
    return [*lines, *([f"prefer {' or '.join(worse)} to this blend"] if worse else [])]


def _simpler(plan: Blend) -> str:
    """What did better than the blend on rows that did not choose it."""
    held_out, sign = plan.info["held_out"], -1.0 if plan.sense == "max" else 1.0
    others = {"best_single": "the best model", "plain_mean": "the mean of all"}
    ahead = [name for key, name in others.items() if sign * held_out[key] < sign * held_out["blend"]]
    return f"; on these folds {' and '.join(ahead)} did better" if ahead else ""


def parts(context: Context, plan: Blend) -> tuple[list[Element], list[Element | None]]:
    """The headline figures and the charts."""
    return _stats(plan), [_weights(context, plan), _losses(context, plan)]


def _stats(plan: Blend) -> list[Element]:
    held_out = plan.info.get("held_out")
    if held_out is None:
        chose = "" if "given_weights" in plan.info else ", which chose"
        return [stat(number(plan.info["plain_mean"]), "mean of all", f"{plan.info['loss']} on these rows{chose}")]
    where = f"{plan.info['loss']} on rows that did not choose, {held_out['folds']} folds"
    single, mean = (f"blends so chosen are {_VERDICTS[held_out[f'over_{name}']]} this" for name in ("single", "mean"))
    return [
        stat(number(held_out["blend"]), "blends chosen anew by the others", where),
        stat(number(held_out["best_single"]), "the best model", single),
        stat(number(held_out["plain_mean"]), "the mean of all", mean),
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
