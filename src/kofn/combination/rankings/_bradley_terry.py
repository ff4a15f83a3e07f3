"""Bradley and Terry's model: one strength an alternative, by which the odds of each comparison are most likely."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination.rankings._pairs import ballots_of, compared, overturned, preferences
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import FailureError, InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method

_MOST = 5000  # alternatives, whose comparisons fill 200 MB
_STEPS = 200
_TIES = 9  # decimals of a strength below which two are alike
_NAMED = 6


@method(
    "combine",
    draws=Draw(options={"prior": "prior"}),
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

    Returns:
        A Blend of form "order". `result` (n,) holds the alternatives, best first, `info["points"]` (n,) their strengths
        in natural log odds around a mean of 0 (times 400 / ln 10 they are Elo points), `info["standard_error"]` (n,)
        how sure they are by the curvature of the likelihood, both NaN for those that no judge compared, which come
        last and are in `info["never_compared"]`. `value` is the log-likelihood (with the prior's comparisons), `spread`
        (m,) the share of its own preferences that each judge sees overturned, `weights` the judges' weights divided by
        their sum.

    Raises:
        InputError: comparisons that fall into parts without one between them, or a part that never lost to the others
            (both are named, and have strengths with a prior); an infinite score, a judge who rated nothing, a negative
            weight or prior, more than 5,000 alternatives.

    Cost: O(m n^2) time for the pairs, less for judges of two alternatives, and O(n^3) for each of about ten steps of
    Newton's method. Memory 40 n^2 bytes.

    Exact: the likelihood is concave; the strengths are its maximum to rounding. Judges of more than two alternatives
    count as independent comparisons, which makes the standard errors too small.

    References:
        Bradley & Terry 1952, Rank analysis of incomplete block designs (Biometrika 39).
        Hunter 2004, MM algorithms for generalized Bradley-Terry models (Annals of Statistics 32): when strengths exist.

    Examples:
        >>> from kofn.combination import bradley_terry, win_ballots
        >>> plan = bradley_terry(**win_ballots([[0, 3], [1, 0]]))
        >>> plan.result.tolist(), round(float(plan.info["points"][0] - plan.info["points"][1]), 6)
        ([0, 1], 1.098612)
    """
    ballots = ballots_of(rankings, lower)
    m, n = ballots.shape
    if n > _MOST:
        raise InputError(f"rankings has {n:,} alternatives; bradley_terry compares every two of at most {_MOST:,}")
    if not (checks.is_finite(prior) and prior >= 0):
        raise InputError(f"prior={prior}: give a number of comparisons >= 0, such as 0.1")
    given = np.ones(m) if weights is None else checks.weights(weights).astype(np.float64)
    wins = half_wins(ballots, given)
    if not prior:
        refuse_no_strengths(wins, range(n))
    heard = np.flatnonzero((wins + wins.T).any(axis=1))
    inner = wins[np.ix_(heard, heard)] + prior / 2 * (1 - np.eye(len(heard)))
    strength, curvature, ridge = _most_likely(inner)
    points, error = np.full(n, np.nan), np.full(n, np.nan)
    points[heard] = strength
    error[heard] = np.sqrt(np.diag(np.linalg.inv(curvature)) - 1 / (ridge * max(len(heard), 1) ** 2))
    order = np.argsort(-points.round(_TIES), kind="stable")
    value = _likelihood(inner, strength)
    return Blend(
        n=n,
        value=value,
        sense="max",
        bound=value,
        status="optimal",
        result=order,
        form="order",
        weights=given / given.sum(),
        spread=overturned(ballots, order),
        objective="comparison_likelihood",
        info={
            "points": points,
            "standard_error": error,
            "never_compared": np.flatnonzero(np.isnan(points)).tolist(),
        },
    )


def half_wins(ballots: Floats, weights: Floats) -> Floats:
    """(n, n) the weight of the comparisons that the row won over the column, ties half."""
    wins = preferences(ballots, weights)
    ties = compared(ballots, weights) - wins - wins.T
    np.fill_diagonal(ties, 0.0)
    # Sums of weights differ in their last bits, and what is no tie must be none.
    ties[ties <= 1e-9 * weights.sum()] = 0.0
    return wins + ties / 2


def refuse_no_strengths(wins: Floats, names: Sequence[object]) -> None:
    """Refuse comparisons whose likelihood has no maximum.

    Raises:
        InputError: two parts were never compared, or one never lost to the other.
    """
    from scipy.sparse.csgraph import connected_components

    heard = np.flatnonzero((wins + wins.T).any(axis=1))
    wins, names = wins[np.ix_(heard, heard)], [names[index] for index in heard.tolist()]
    if not names:
        return
    parts, label = connected_components(wins > 0, directed=True, connection="weak")
    if parts > 1:
        listed = "; ".join(_few(names, label == part) for part in range(min(parts, _NAMED)))
        raise InputError(
            f"rankings compares the alternatives in {parts} parts with no comparison between them, so that their "
            f"strengths have no common scale: {listed}; rank each part by itself, or give a prior such as 0.1"
        )
    parts, label = connected_components(wins > 0, directed=True, connection="strong")
    if parts > 1:
        beaten = np.array([(wins[label != part][:, label == part] > 0).any() for part in range(parts)])
        best = label == int(np.flatnonzero(~beaten)[0])
        raise InputError(
            f"rankings has alternatives that never lost to the others ({_few(names, best)}): perfect separation, in "
            "which no strength is the most likely; give a prior such as 0.1, or use kemeny"
        )


def _few(names: Sequence[object], chosen: NDArray[np.bool_]) -> str:
    listed = [str(names[index]) for index in np.flatnonzero(chosen).tolist()]
    return ", ".join(listed[:_NAMED]) + (f" and {len(listed) - _NAMED} more" if len(listed) > _NAMED else "")


def _likelihood(wins: Floats, strength: Floats) -> float:
    """The log-likelihood of the comparisons."""
    return -math.fsum((wins * np.logaddexp(0.0, strength[None, :] - strength[:, None])).ravel().tolist())


def _most_likely(wins: Floats) -> tuple[Floats, Floats, float]:
    """The strengths of mean 0 that make the wins most likely, by Newton's method, and the curvature there.

    The likelihood does not change where all strengths move alike: the last number, of the curvature's own size, is
    added to all its entries, which makes it invertible.
    """
    n = len(wins)
    if not n:
        return np.zeros(0), np.zeros((0, 0)), 1.0
    total = wins + wins.T
    strength = np.zeros(n)
    value = _likelihood(wins, strength)
    for _ in range(_STEPS):
        share = 1 / (1 + np.exp(strength[None, :] - strength[:, None]))
        slope = (wins - total * share).sum(axis=1)
        bend = total * share * share.T
        ridge = float(bend.sum()) / n**2
        curvature = np.diag(bend.sum(axis=1)) - bend + ridge
        step = np.linalg.solve(curvature, slope)
        gain, length = float(step @ slope), 1.0
        if gain <= 1e-15 * abs(value):
            strength = strength + step
            return strength - strength.mean(), curvature, ridge
        while (reached := _likelihood(wins, strength + length * step)) < value + 0.25 * length * gain and length > 1e-9:
            length /= 2
        strength, value = strength + length * step, reached
    raise FailureError(f"bradley_terry did not come to rest in {_STEPS} steps; give a prior such as 0.1")
