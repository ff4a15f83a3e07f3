"""Plackett and Luce's model: one strength an alternative, by which judges choose one after another."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from kofn.combination.rankings._electorate import Electorate
from kofn.combination.rankings._pairs import Listed, ballots_of
from kofn.combination.rankings._strengths import by_strengths
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.helpers import helper
from kofn.core.plans import Blend
from kofn.core.registry import method

__all__ = ["order_strengths", "plackett_luce"]


@method(
    "combine",
    draws=Draw(options={"prior": "prior", "resamples": (0, 3)}),
    cost="O(sum of r^2 over the judges, who rate r each, + n^3) for each of about ten Newton steps; 40 n^2 bytes",
    exact="the most likely strengths, to rounding; they exist where every split of the alternatives was won both ways",
    paper=("plackett1975", "breslow1974"),
    aliases=("luce", "plackett luce", "listwise", "top choice model", "exploded logit", "rank-ordered logit"),
)
def plackett_luce(
    rankings: Any,
    *,
    weights: Any = None,
    lower: str | Sequence[int] | Sequence[str] | None = None,
    prior: float = 0.0,
    resamples: int = 0,
) -> Blend:
    """Rank n alternatives by the strengths that make the rankings of m judges most likely, as choices one by one.

    A judge chooses its best alternative, then the best of the rest, and so on to the last: one of strength s is chosen
    with probability exp(s) over the sum of exp of all that are left. What a judge did not rate is in none of its
    choices. Tied alternatives are each chosen among themselves and all below them (Breslow); the k that are tied for
    the last position count (k - 1) / k of a choice each, so that a judge of r makes r - 1 choices, ties or not, and
    judges of two are comparisons as in `bradley_terry`, a tie half a win for each.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate. Only
            their order within a column counts.
        weights: (m,) weight of each judge, >= 0, one by default.
        lower: the judges for whom lower is better, by column number or, where `rankings` is a frame, by name.
        prior: comparisons added to every two alternatives, half won by each: 0 for the most likely strengths; more
            draws them together, and gives strengths where there are no most likely ones.
        resamples: how many resamples are fitted for the intervals of ranks, such as 200: draws of as many votes where
            every judge rates two alternatives alone, as those of `win_ballots` do, else panels of as many judges, drawn
            with replacement. 0 fits none: the strengths of votes vary as the curvature says, and those of 1,000 panels
            of judges are one step of Newton's method away (beyond 1,000 judges in a normal distribution of its sums).

    Returns:
        A Blend of form "order", as from `bradley_terry`.

    Raises:
        InputError: as from `bradley_terry`.

    Cost: for each of about ten steps of Newton's method O(r^2) for a judge who rates r, and O(n^3). Memory 40 n^2
    bytes, and 24 bytes a rating.

    Exact: the likelihood is concave; the strengths are its maximum to rounding.

    References:
        Plackett 1975, The analysis of permutations (Applied Statistics 24).
        Luce 1959, Individual choice behavior.
        Breslow 1974, Covariance analysis of censored survival data (Biometrics 30): ties.
        Hunter 2004, MM algorithms for generalized Bradley-Terry models (Annals of Statistics 32): when strengths exist.

    Examples:
        >>> from kofn.combination import plackett_luce
        >>> plan = plackett_luce([[3, 3, 1], [2, 1, 3], [1, 2, 2]])
        >>> plan.result.tolist(), plan.info["points"].round(2).tolist()
        ([0, 1, 2], [0.34, -0.07, -0.27])
    """
    return by_strengths(Electorate(ballots_of(rankings, lower)), weights, prior, resamples, "plackett_luce")


@helper
def order_strengths(
    orders: Any, *, ids: Sequence[Any] | None = None, weights: Any = None, prior: float = 0.0, resamples: int = 0
) -> Blend:
    """Rank by `plackett_luce` from lists of names, best first, without a table of all judges by all alternatives.

    Args:
        orders: (m,) the list of each judge: names or numbers of alternatives, the best first, each at most once.
            Lists may be of unequal length; an (m, r) array has those of equal length in its rows.
        ids: (n,) the names of all alternatives, in the order of the answer; by default those in `orders`, sorted.
        weights: (m,) weight of each judge, >= 0, one by default.
        prior: comparisons added to every two alternatives, half won by each, as for `plackett_luce`.
        resamples: how many resamples are fitted for the intervals of ranks, as for `plackett_luce`.

    Returns:
        The Blend of `kofn.combine(rankings=..., method="plackett_luce", ids=ids)` of the same ballots.

    Raises:
        InputError: no list, an empty one or one with a name twice (the list and the name), a name that is not in `ids`,
            or what `plackett_luce` refuses.

    Cost: as `plackett_luce`, without reading a table. Memory 40 n^2 bytes, and 60 bytes a rating.

    Examples:
        >>> from kofn.combination import order_strengths
        >>> plan = order_strengths([["a", "b", "c"], ["b", "a", "c"], ["c", "b"], ["a", "c"]])
        >>> plan.to_frame()["id"].to_list()
        ['a', 'b', 'c']
    """
    with checks.reading("orders", orders, "lists of names, best first"):
        lists = [list(order) for order in orders]
    if not lists:
        raise InputError("orders is empty; give at least one list, best first")
    rated = np.array([len(order) for order in lists])
    if not rated.all():
        raise InputError(f"orders at row {int(np.argmin(rated))} is empty; drop it, or list what that judge rates")
    named = list(chain.from_iterable(lists))
    with checks.reading("orders", orders, "names, or whole numbers"):
        names = sorted(set(named)) if ids is None else list(ids)
        index = {name: number for number, name in enumerate(names)}
        items = np.fromiter((index.get(name, -1) for name in named), np.int64, len(named))
    judge = np.repeat(np.arange(len(lists)), rated)
    if items.min() < 0:
        entry = int(np.argmin(items))
        raise InputError(f"orders at row {judge[entry]} has {checks.shown(named[entry])}, which is not in ids")
    cells = judge * len(names) + items
    order = np.argsort(cells)
    twice = np.flatnonzero(np.diff(cells[order]) == 0)
    if len(twice):
        entry = int(order[twice[0]])
        raise InputError(f"orders at row {judge[entry]} has {checks.shown(named[entry])} twice; list each once")
    listed = Listed(np.append(0, np.cumsum(rated)), items, np.arange(len(items)))
    if weights is not None:
        checks.same_length(len(lists), "orders", "weights", len(checks.weights(weights)))
    plan = by_strengths(Electorate(listed, len(names)), weights, prior, resamples, "plackett_luce")
    options = {"prior": float(prior), "resamples": int(resamples)}
    return dataclasses.replace(plan, method="plackett_luce", options=options, ids=np.array(names))
