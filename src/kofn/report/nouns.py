"""The reports of allocations and rankings, on the same page."""

from __future__ import annotations

import math
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from kofn.core.arrays import Floats
from kofn.core.plans import Allocation, Blend, Plan
from kofn.report import allocation, charts, posteriors, predictions
from kofn.report.charts import Bar
from kofn.report.context import Context
from kofn.report.page import E, document, figure, number, percent, stat
from kofn.report.rankings import cycles, rule_figures
from kofn.report.run import kind, outcome, quality, ran

SHOWN = 40  # bars of a chart
# What the objectives of rankings count.
_DISAGREEMENT = {
    "borda": "The judges' points differ from the ranking's by a weighted sum of squares of",
    "overturned_preferences": "The ranking overturns preferences of the judges that weigh",
}
# The same where votes were counted, and the judges are the outcomes of pairs.
_DISAGREEMENT_OF_VOTES = {
    "borda": "The shares won in the votes differ from the ranking's by a weighted sum of squares of",
    "overturned_preferences": "The votes against the ranking come to",
}

# Those that are no disagreement: models of the votes, or of what judges prefer.
_LIKELIHOODS = ("comparison_likelihood", "choice_likelihood", "preference_likelihood")


def page(context: Context, title: str | None) -> str:
    """The whole report of an allocation, a ranking, a blend of predictions or a product of posteriors."""
    plan = context.plan
    verb, lede, stats, body = _parts(context)
    stats = [*stats, quality(plan)]
    if "seconds" in plan.info:
        stats.append(outcome(plan))
    return document(
        title=title or lede[0].upper() + lede[1:],
        eyebrow=[f"kofn {verb} · ", kind(plan)],
        lede=_value(plan),
        stats=stats,
        body=[body, ran(context)],
    )


def _parts(context: Context) -> tuple[str, str, list[Element], list[Element | None]]:
    plan = context.plan
    if isinstance(plan, Allocation):
        return "allocate", f"a budget over {plan.n:,} items", *allocation.parts(context, plan)
    assert isinstance(plan, Blend)
    if predictions.blends_predictions(plan):
        return "combine", f"predictions of {plan.n:,} models", *predictions.parts(context, plan)
    if posteriors.blends_draws(plan):
        title = posteriors.WORDS[plan.objective].title.format(n=plan.n)
        return "combine", title, *posteriors.parts(context, plan)
    return "combine", f"a ranking of {plan.n:,}", *_ranking(context, plan)


def _value(plan: Plan) -> str:
    if not math.isfinite(plan.value):
        return "This method has no single figure to optimise; what was done is below."
    if plan.objective in _LIKELIHOODS:
        whose = "votes" if isinstance(plan, Blend) and plan.of_votes else "judges' preferences"
        return (
            f"The log-likelihood of the {whose} is {number(plan.value, 6)}; the nearer to 0, the better they are told."
        )
    if isinstance(plan, Blend) and predictions.blends_predictions(plan):
        return predictions.lede(plan)
    if isinstance(plan, Blend) and plan.form == "order":
        if plan.of_votes:
            subject = _DISAGREEMENT_OF_VOTES.get(plan.objective, "The votes' disagreement with the ranking comes to")
        else:
            subject = _DISAGREEMENT.get(plan.objective, "The judges' disagreement with the ranking comes to")
        return f"{subject} {number(plan.value, 6)}; 0 is full agreement."
    noun, better = ("value", "larger") if plan.sense == "max" else ("loss", "smaller")
    return f"The {noun} is {number(plan.value, 6)}, {better} is better."


def _few(values: Any) -> Any:
    """Which rows a chart shows: all in their order, or the largest."""
    count = len(values)
    return np.arange(count) if count <= SHOWN else np.argsort(-np.nan_to_num(values), kind="stable")[:SHOWN]


def _rest(count: int, noun: str) -> str:
    return f" The {SHOWN} largest of {count:,} {noun}." if count > SHOWN else ""


def _ranking(context: Context, plan: Blend) -> tuple[list[Element], list[Element | None]]:
    figures: list[Element | None] = []
    order = np.asarray(plan.result, np.int64)
    worth = plan.points()
    if worth is not None and np.size(worth) == plan.n:
        ranks = plan.ranks()
        ranked = [
            Bar(f"{ranks[i]}. {context.name(i)}", float(worth[i]), _standing(plan, i, worth))
            for i in order[:SHOWN].tolist()
        ]
        chart = charts.bars(ranked, label="points of each alternative, best first")
    else:
        ranks = plan.ranks()
        listed = [E("li", context.name(i), _beside(plan, i), value=str(ranks[i])) for i in order[:SHOWN].tolist()]
        chart = E("ol", listed, class_="order")
    caption = "Best first." + (f" The first {SHOWN} of {plan.n:,}." if plan.n > SHOWN else "")
    if "rank_low" in plan.info:
        drawn = "200 draws of as many votes" if plan.of_votes else "1,000 panels of as many judges"
        caption += f" Ranks: where each stands in 95% of {drawn}, drawn from these with replacement."
    if "best_rank" in plan.info and (plan.info["best_rank"] != plan.info["worst_rank"]).any():
        caption += " Ranks: where each stands in the orders that overturn as little as this one."
    count = plan.n if plan.spread is None else len(plan.spread)
    named = plan.info.get("judges")
    if named:
        more = f" and {len(named) - SHOWN:,} more" if len(named) > SHOWN else ""
        caption += f" The judges: {', '.join(named[:SHOWN])}{more}."
    figures.append(figure(chart, caption, title="The ranking", name="ranking"))
    figures.append(cycles(plan, context.name))
    figures += rule_figures(plan, context.name, lambda judge: _judge(plan, judge))
    if plan.of_votes:
        # A judge is here an outcome of a pair, which stands for all the votes that came out so.
        counts = ((plan.info["votes"], "votes"), (plan.info["ties"], "ties"), (plan.n, "alternatives"))
        return [stat(number(count, 10), label) for count, label in counts], figures
    stats = [stat(f"{count:,}", "judges", "combined as order")]
    if isinstance(plan.weights, np.ndarray) and plan.weights.ndim == 1:
        weights = np.asarray(plan.weights, np.float64)
        rows = [Bar(_judge(plan, i), float(weights[i]), number(float(weights[i]))) for i in _few(weights).tolist()]
        caption = "The weight of each judge." + _rest(len(weights), "judges")
        chart = charts.bars(rows, label="weight of each judge")
        figures.append(figure(chart, caption, title="What each counts for", name="weights"))
    if plan.spread is not None and len(plan.spread):
        spread = np.asarray(plan.spread, np.float64)
        rows = [Bar(_judge(plan, i), float(spread[i]), number(float(spread[i]))) for i in _few(spread).tolist()]
        caption = "How far each judge stands from the result: what blending cost it." + _rest(len(spread), "judges")
        chart = charts.bars(rows, label="spread of each judge")
        figures.append(figure(chart, caption, title="How far each stands from the result", name="spread"))
        if np.isfinite(spread).any():
            worst = int(np.nanargmax(spread))
            stats.append(
                stat(number(float(spread[worst])), "largest spread", f"{_judge(plan, worst)}, {_part(spread, worst)}")
            )
    return stats, figures


def _beside(plan: Blend, i: int) -> str:
    """What stands beside an alternative without points: the ranks that it has in orders that are as good."""
    if i in plan.info.get("never_compared", ()):
        return ", never compared"
    best, worst = (int(plan.info[name][i]) if name in plan.info else 0 for name in ("best_rank", "worst_rank"))
    return f", ranks {best} to {worst}" if best != worst else ""


def _standing(plan: Blend, i: int, worth: Floats) -> str:
    """The points of an alternative, the ranks that it may have, and how many judges rated it where not all did."""
    points = float(worth[i])
    if math.isnan(points):
        return "never compared"
    parts = [number(points)]
    if "rank_low" in plan.info:
        parts.append(f"ranks {int(plan.info['rank_low'][i])} to {int(plan.info['rank_high'][i])}")
    rated = plan.info.get("rated")
    if rated is not None and not plan.of_votes and plan.spread is not None and rated[i] < len(plan.spread):
        parts.append(f"{int(rated[i])} of {len(plan.spread)} scores")
    return ", ".join(parts)


def _judge(plan: Blend, i: int) -> str:
    """What a judge is called: its column where the ranking is of a table."""
    named = plan.info.get("judges")
    return named[i] if named else f"judge {i}"


def _part(spread: Any, worst: int) -> str:
    whole = float(np.nansum(spread))
    return f"{percent(float(spread[worst]) / whole)} of the whole" if whole > 0 else "all agree"
