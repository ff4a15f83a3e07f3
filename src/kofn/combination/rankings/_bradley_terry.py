"""Bradley and Terry's model: one strength an alternative, by which the odds of each comparison are most likely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kofn.combination.rankings._electorate import Electorate
from kofn.combination.rankings._pairs import ballots_of
from kofn.combination.rankings._strengths import by_strengths
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method

__all__ = ["bradley_terry"]


@method(
    "combine",
    draws=Draw(options={"prior": "prior", "resamples": (0, 3)}),
    cost="O(m n^2) for the pairs, O(n^3) for each of about ten Newton steps; 40 n^2 bytes",
    exact="the most likely strengths, to rounding; they exist where every split of the alternatives was won both ways",
    paper="bradley1952",
    aliases=("elo", "elo rating", "logistic paired comparisons", "arena score"),
)
def bradley_terry(
    rankings: Any,
    *,
    weights: Any = None,
    lower: str | Sequence[int] | Sequence[str] | None = None,
    prior: float = 0.0,
    resamples: int = 0,
) -> Blend:
    """Rank n alternatives by the strengths that make what m judges say of every two of them most likely.

    An alternative of strength s beats one of strength t with probability 1 / (1 + exp(t - s)). Every two alternatives
    that a judge rates are a comparison, which the higher score wins; equal scores are half a win for each. Votes
    between two, one a row or counted, become judges by `vote_ballots` and `win_ballots`.

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
        A Blend of form "order". `result` (n,) holds the alternatives, best first, `info["points"]` (n,) their strengths
        in natural log odds around a mean of 0 (times 400 / ln 10 they are Elo points), `info["standard_error"]` (n,)
        how sure they are by the curvature of the likelihood, both NaN for those that no judge compared, which come
        last and are in `info["never_compared"]`. `info["rank_low"]` and `info["rank_high"]` (n,) are the ranks between
        which each stands in 95% of the `resamples`, up to 2,000 alternatives.
        `info["rated"]` (n,) says by how many judges each was rated, `info["parts"]` which were compared with one
        another. `value` is the log-likelihood (with the prior's comparisons), `spread`
        (m,) the share of its own preferences that each judge sees overturned, `weights` the judges' weights divided by
        their sum.

    Raises:
        InputError: no two alternatives that a judge compares, comparisons that fall into parts without one between
            them, or a part that never lost to the others (both are named, and have strengths with a prior); an infinite
            score, a judge who rated nothing, a negative weight or prior, more than 5,000 alternatives.

    Cost: O(m n^2) time for the pairs, less for judges of two alternatives, and O(n^3) for each of about ten steps of
    Newton's method. Memory 40 n^2 bytes.

    Exact: the likelihood is concave; the strengths are its maximum to rounding. Judges of more than two alternatives
    count as independent comparisons, which makes the standard errors too small, but not the intervals of ranks.

    References:
        Bradley & Terry 1952, Rank analysis of incomplete block designs (Biometrika 39).
        Hunter 2004, MM algorithms for generalized Bradley-Terry models (Annals of Statistics 32): when strengths exist.

    Examples:
        >>> from kofn.combination import bradley_terry, win_ballots
        >>> plan = bradley_terry(**win_ballots([[0, 3], [1, 0]]))
        >>> plan.result.tolist(), round(float(plan.info["points"][0] - plan.info["points"][1]), 6)
        ([0, 1], 1.098612)
    """
    return by_strengths(Electorate(ballots_of(rankings, lower)), weights, prior, resamples, "bradley_terry")
