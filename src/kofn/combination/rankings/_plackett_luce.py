"""Plackett and Luce's model: one strength an alternative, by which judges choose one after another."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.combination.rankings._pairs import ballots_of
from kofn.combination.rankings._strengths import by_strengths
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method

__all__ = ["plackett_luce"]


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
    ballots = ballots_of(rankings, lower)
    return by_strengths(ballots, weights, prior, resamples, "plackett_luce", (~np.isnan(ballots)).sum(axis=1) > 2)
