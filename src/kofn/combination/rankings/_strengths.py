"""Strengths by maximum likelihood: Newton's method over comparisons and choices, and resamples around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.combination.rankings._electorate import MOST, MOST_RANKED, RESAMPLES, Electorate, comparisons, rank_intervals
from kofn.combination.rankings._pairs import Listed, half_wins, overturned
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import FailureError, InputError
from kofn.core.plans import Blend

_TIES = 9  # decimals of a strength below which two are alike
_STEPS = 200
_MODERATE = 30.0  # log odds whose exponentials are added without loss
_RESTING, _ROUNDING = 1e-12, 1e-13  # shares of the log-likelihood
_MOST_RESAMPLES = 10_000
_NAMED = 6
_RESTED = 1e-6  # how far a resample's strengths still move when they are ranked
_LONGEST = 3.0  # how far a resample's strength moves in one step, in log odds
_DRAWN = 1e-3  # comparisons, as a share of those of an alternative, that keep the strengths of a resample finite
_KEPT = 1 << 22  # comparisons of single judges that are held at once
_MANY = 1000  # judges beyond which the sum of what each moves is taken as normal


class Choices(NamedTuple):
    """Ballots of more than two as choices of the next best among those that are left, and (ballots,) whose they are."""

    judge: Ints
    listed: Listed


class Fit(NamedTuple):
    """The most likely strengths, of mean 0, the log-likelihood there, and its curvature with `ridge` in every entry."""

    strength: Floats
    value: float
    curvature: Floats
    ridge: float

    @property
    def standard_error(self) -> Floats:
        n = max(len(self.strength), 1)
        out: Floats = np.sqrt(np.diag(np.linalg.inv(self.curvature)) - 1 / (self.ridge * n**2))
        return out


def refuse_no_strengths(wins: Floats, names: Sequence[object] | None = None) -> None:
    """Refuse comparisons whose likelihood has no maximum.

    Args:
        wins: (n, n) the weight of the comparisons that the row won over the column.
        names: (n,) what the alternatives are called; their ids in the call that runs by default.

    Raises:
        InputError: two parts were never compared, or one never lost to the other.
    """
    from scipy.sparse.csgraph import connected_components

    heard = np.flatnonzero((wins + wins.T).any(axis=1))
    wins = wins[np.ix_(heard, heard)]
    names = [checks.item_label(index) if names is None else names[index] for index in heard.tolist()]
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


def _shares(strength: Floats) -> Floats:
    """(n, n) the probability that the row wins over the column."""
    out: Floats = 1 / (1 + np.exp(strength[None, :] - strength[:, None]))
    return out


def _of_pairs(wins: Floats, strength: Floats) -> float:
    """The log-likelihood of comparisons."""
    if np.ptp(strength) < _MODERATE:
        odds = np.exp(strength - strength.mean())
        return float(wins.sum(axis=1) @ np.log(odds) - (wins * np.log(odds[:, None] + odds)).sum())
    return -float((wins * np.logaddexp(0.0, strength[None, :] - strength[:, None])).sum())


def most_likely(wins: Floats, choices: Choices | None, weights: Floats, label: str) -> Fit:
    """The strengths of mean 0 that make comparisons and choices most likely, by Newton's method.

    The likelihood does not change where all strengths move alike: a number of the curvature's own size is added to all
    its entries, which makes it invertible.

    Args:
        wins: (n, n) the weight of the comparisons that the row won over the column.
        choices: ballots of more than two, or None.
        weights: (ballots,) of these ballots.
        label: the method's name, for the refusal.
    """
    n = len(wins)
    if not n:
        return Fit(np.zeros(0), 0.0, np.zeros((0, 0)), 1.0)
    total = wins + wins.T

    def reached(strength: Floats) -> float:
        return _of_pairs(wins, strength) + (_of_choices(choices, weights, strength)[0] if choices is not None else 0.0)

    strength = np.zeros(n)
    if choices is None:
        # Near the odds of each against an average rival: one or two steps fewer than from zero.
        share = np.clip(wins.sum(axis=1) / total.sum(axis=1), 0.01, 0.99)
        strength = np.log(share / (1 - share))
        strength -= strength.mean()
    value = reached(strength)
    for _ in range(_STEPS):
        odds = np.exp(strength)
        share = odds[:, None] / (odds[:, None] + odds) if np.ptp(strength) < _MODERATE else _shares(strength)
        slope = (wins - total * share).sum(axis=1)
        bend = total * share * share.T
        if choices is not None:
            _, more, bent = _of_choices(choices, weights, strength)
            slope, bend = slope + more, bend + bent
        ridge = float(bend.sum()) / n**2
        curvature = np.diag(bend.sum(axis=1)) - bend + ridge
        step = np.linalg.solve(curvature, slope)
        gain, length = float(step @ slope), 1.0
        # The last step is whole: what is left after it is of the order of the gain squared.
        if gain <= _RESTING * abs(value):
            strength = strength + step
            strength -= strength.mean()
            return Fit(strength, reached(strength), curvature, ridge)
        # Sums of many terms do not rise by less than their rounding.
        least = value - _ROUNDING * abs(value)
        while (new := reached(strength + length * step)) < least + 0.25 * length * gain and length > 1e-9:
            length /= 2
        strength, value = strength + length * step, new
    raise FailureError(f"{label} did not come to rest in {_STEPS} steps; give a prior such as 0.1")


def _of_choices(choices: Choices, weights: Floats, strength: Floats) -> tuple[float, Floats, Floats]:
    """The log-likelihood of choices, its slope, and (n, n) how much each two bend it, 0 on the diagonal."""
    from kofn.combination.rankings import _kernels

    slope, bend = np.zeros(len(strength)), np.zeros((len(strength), len(strength)))
    value = _kernels.choose(*choices.listed, weights, strength, slope, bend)
    return value, slope, bend


def _resampled(
    electorate: Electorate,
    weights: Floats,
    heard: Ints,
    choices: Choices | None,
    fit: Fit,
    prior: float,
    resamples: int,
) -> Iterator[Floats]:
    """(panels, n) strengths of the alternatives, in blocks, as other judges or other votes might make them.

    Args:
        electorate: the ballots.
        weights: (m,) of the judges.
        heard: the alternatives that have a strength.
        choices: ballots of more than two, or None.
        fit: the most likely strengths of all.
        prior: comparisons added to every two.
        resamples: how many resamples have their own most likely strengths; 0: votes have those that the curvature
            makes likely, and resampled judges move the strengths by one step of Newton's method.
    """
    n = electorate.n
    blocks: Iterator[Floats]
    if resamples:
        panels = electorate.panels(weights, n**2, resamples)
        blocks = (_refits(electorate, panel, heard, choices, fit.strength, prior) for panel in panels)
    elif electorate.of_votes:
        blocks = iter([by_curvature(fit)])
    else:
        slopes = _slopes(electorate, heard, choices, fit.strength)
        if electorate.m > _MANY:
            blocks = iter([_by_covariance(fit, slopes * weights[:, None])])
        else:
            moves = np.linalg.solve(fit.curvature, slopes.T).T
            blocks = (fit.strength + (panel - weights) @ moves for panel in electorate.panels(weights, n))
    yield from at_their_index(blocks, heard, n)


def at_their_index(blocks: Iterable[Floats], heard: Ints, n: int) -> Iterator[Floats]:
    """Blocks (panels, n) of the strengths of the alternatives that have one, NaN for the others."""
    for block in blocks:
        out = np.full((len(block), n), np.nan)
        out[:, heard] = block.round(_TIES)
        yield out


def _refits(
    electorate: Electorate, panels: Floats, heard: Ints, choices: Choices | None, strength: Floats, prior: float
) -> Floats:
    """(panels, h) the most likely strengths under weights (panels, m)."""
    pairwise = np.ones(electorate.m, bool)
    if choices is not None:
        pairwise[choices.judge] = False
    prefers, both = (table[:, heard][:, :, heard] for table in electorate.pairs(panels * pairwise))
    wins = prefers + (both - prefers - prefers.transpose(0, 2, 1)) / 2
    more = None if choices is None else panels[:, choices.judge] @ np.diff(choices.listed.start)
    wins = kept_finite(wins, prior, more)
    if choices is None:
        return refitted(wins, strength)
    fits = [
        most_likely(table, choices, row[choices.judge], "a resample") for table, row in zip(wins, panels, strict=True)
    ]
    return np.array([fit.strength for fit in fits])


def kept_finite(wins: Floats, prior: float, more: Floats | None = None) -> Floats:
    """Tables (panels, n, n) of wins with the prior's comparisons, and a thousandth more of what there are.

    These are half won by each of every two, and keep strengths finite that a panel never saw lose.
    """
    n = wins.shape[1]
    drawn = _DRAWN * (wins.sum(axis=(1, 2)) + (0.0 if more is None else more)) / n**2
    drawn[drawn == 0] = 1.0  # of judges without weight alone
    out: Floats = wins + (drawn + prior / 2)[:, None, None] * (1 - np.eye(n))
    return out


def by_curvature(fit: Fit) -> Floats:
    """(1000, n) strengths as the curvature of the likelihood makes them likely; the draws are the same at each call."""
    normal = np.random.default_rng(0).normal(size=(RESAMPLES, len(fit.strength)))
    try:
        moves = normal @ np.linalg.inv(np.linalg.cholesky(fit.curvature))
    except np.linalg.LinAlgError:  # odds so long that the curvature is singular to rounding
        size, axes = np.linalg.eigh(fit.curvature)
        moves = normal @ (axes / np.sqrt(np.maximum(size, np.finfo(np.float64).tiny))).T
    out: Floats = fit.strength + moves
    return out


def _by_covariance(fit: Fit, slopes: Floats) -> Floats:
    """(1000, n) strengths as sums of one step a judge scatter where judges are drawn with replacement.

    Args:
        fit: the most likely strengths of all.
        slopes: (m, n) of the judges' own log-likelihoods, by their weights.
    """
    off = slopes - slopes.mean(axis=0)
    # A step is the slope by the inverse of the curvature, so the steps need not be made one by one.
    half = np.linalg.solve(fit.curvature, off.T @ off)
    size, axes = np.linalg.eigh(np.linalg.solve(fit.curvature, half.T))
    normal = np.random.default_rng(0).normal(size=(RESAMPLES, len(fit.strength)))
    out: Floats = fit.strength + normal @ (axes * np.sqrt(np.maximum(size, 0.0))).T
    return out


def refitted(wins: Floats, strength: Floats) -> Floats:
    """(panels, n) the strengths of tables (panels, n, n) of wins, from those of all of them on."""
    n = wins.shape[1]
    total = wins + wins.transpose(0, 2, 1)
    out = np.repeat(strength[None], len(wins), axis=0)
    for _ in range(_STEPS):
        share = 1 / (1 + np.exp(out[:, None, :] - out[:, :, None]))
        slope = (wins - total * share).sum(axis=2)
        bend = total * share * share.transpose(0, 2, 1)
        curvature = -bend + (bend.sum(axis=(1, 2)) / n**2)[:, None, None]
        curvature[:, np.arange(n), np.arange(n)] += bend.sum(axis=2)
        step = np.linalg.solve(curvature, slope[:, :, None])[:, :, 0]
        far = np.abs(step).max(axis=1, keepdims=True)
        out += step * np.minimum(1.0, _LONGEST / np.maximum(far, _LONGEST))
        if far.max() <= _RESTED:
            break
    return out


def _slopes(electorate: Electorate, heard: Ints, choices: Choices | None, strength: Floats) -> Floats:
    """(m, h) the slope of each judge's own log-likelihood."""
    from kofn.combination.rankings import _kernels

    out = np.zeros((electorate.m, len(heard)))
    pairwise = np.ones(electorate.m, bool)
    if choices is not None:
        rows = np.zeros((len(choices.judge), len(heard)))
        _kernels.choose_by_judge(*choices.listed, strength, rows)
        out[choices.judge] = rows
        pairwise[choices.judge] = False
    share = _shares(strength)
    left = np.flatnonzero(pairwise)
    step = max(1, _KEPT // len(heard) ** 2)
    for low in range(0, len(left), step):
        block = electorate.ballots[left[low : low + step]][:, heard]
        lead = block[:, :, None] - block[:, None, :]
        won = (np.sign(lead) + 1) / 2 - share
        won[np.isnan(lead)] = 0.0
        own = np.arange(len(heard))
        won[:, own, own] = 0.0
        out[left[low : low + step]] = won.sum(axis=2)
    return out


def checked_prior(prior: Any) -> float:
    """A number of comparisons >= 0."""
    if not (checks.is_finite(prior) and prior >= 0):
        raise InputError(f"prior={checks.shown(prior)}: give a number of comparisons >= 0, such as 0.1")
    return float(prior)


def checked_resamples(resamples: Any) -> int:
    """A number of resamples that can be fitted."""
    count = checks.count(resamples, "resamples", least=0)
    if count > _MOST_RESAMPLES:
        raise InputError(f"resamples={count}: each is fitted anew; ask for at most {_MOST_RESAMPLES:,}")
    return count


def by_strengths(
    ballots: Floats, weights: Any, prior: float, resamples: int, name: str, choosing: NDArray[np.bool_]
) -> Blend:
    """The ranking by most likely strengths.

    Args:
        ballots: (m, n) scores, a row for each judge.
        weights: (m,) their weights, or None.
        prior: comparisons added to every two.
        resamples: how many resamples have their own strengths.
        name: the method's name, for the refusals.
        choosing: (m,) which judges choose one by one; the others compare every two.
    """
    m, n = ballots.shape
    if n > MOST:
        raise InputError(f"rankings has {n:,} alternatives; {name} compares every two of at most {MOST:,}")
    prior = checked_prior(prior)
    resamples = checked_resamples(resamples)
    given = np.ones(m) if weights is None else checks.weights(weights).astype(np.float64)
    pairs = half_wins(ballots, given)
    if not prior:
        refuse_no_strengths(pairs)
    heard = np.flatnonzero((pairs + pairs.T).any(axis=1))
    choices = None
    if choosing.any():
        rows = np.where(np.isin(np.arange(n), heard), ballots[choosing], np.nan)[:, heard]
        choices = Choices(np.flatnonzero(choosing), Listed.of(rows))
        pairs = half_wins(ballots[~choosing], given[~choosing]) if not choosing.all() else np.zeros((n, n))
    wins = pairs[np.ix_(heard, heard)] + prior / 2 * (1 - np.eye(len(heard)))
    fit = most_likely(wins, choices, given[choosing], name)
    ends: dict[str, Ints] = {}
    electorate = Electorate(ballots)
    # Without a comparison there is nothing to resample.
    if len(heard) and n <= MOST_RANKED:
        ends = rank_intervals(
            electorate.heard(given), _resampled(electorate, given, heard, choices, fit, prior, resamples)
        )
    plan = ranked(fit, heard, n, ends)
    return dataclasses.replace(
        plan,
        weights=given / given.sum(),
        spread=overturned(ballots, np.asarray(plan.result)),
        objective="comparison_likelihood" if name == "bradley_terry" else "choice_likelihood",
        info=plan.info | comparisons(ballots, given),
    )


def ranked(fit: Fit, heard: Ints, n: int, ends: Mapping[str, Ints]) -> Blend:
    """The ranking by the strengths of those that have one."""
    points, error = np.full(n, np.nan), np.full(n, np.nan)
    points[heard], error[heard] = fit.strength, fit.standard_error
    return Blend(
        n=n,
        value=fit.value,
        sense="max",
        bound=fit.value,
        status="optimal",
        result=np.argsort(-points.round(_TIES), kind="stable"),
        form="order",
        info={
            "points": points,
            "standard_error": error,
            **ends,
            "never_compared": np.flatnonzero(np.isnan(points)).tolist(),
        },
    )
