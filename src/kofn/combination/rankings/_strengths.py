"""Strengths by maximum likelihood: Newton's method over comparisons and choices, and resamples around it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.combination.rankings._electorate import MOST, MOST_RANKED, RESAMPLES, Electorate, comparisons, rank_intervals
from kofn.combination.rankings._pairs import Canonical, Listed, half_wins, overturned
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
_THIN = 20  # how many times slower products of sparse entries are than those of dense ones
_LARGEST = 1e20  # of what is added in single precision
_JITTER = 1e-12  # a share of all scatter
_MANY = 1000  # judges beyond which the sum of what each moves is taken as normal


class Choices(NamedTuple):
    """Ballots of more than two as choices of the next best among those that are left, and (ballots,) whose they are."""

    judge: Ints
    listed: Listed


@dataclasses.dataclass(frozen=True)
class Fit:
    """The most likely strengths, of mean 0, the log-likelihood there, and its curvature with `ridge` in every entry."""

    strength: Floats
    value: float
    curvature: Floats
    ridge: float

    @cached_property
    def root(self) -> Floats:
        """(n, n) R of which R.T @ R is the inverse of the curvature: normal numbers @ R scatter as strengths do."""
        from scipy.linalg import lapack

        if not len(self.curvature):  # LAPACK writes to stderr of empty tables
            return self.curvature
        half, failed = lapack.dpotrf(self.curvature, lower=1)
        if failed:  # odds so long that the curvature is singular to rounding
            size, axes = np.linalg.eigh(self.curvature)
            return (axes / np.sqrt(np.maximum(size, np.finfo(np.float64).tiny))).T
        out: Floats = lapack.dtrtri(half, lower=1)[0]
        return out

    @property
    def standard_error(self) -> Floats:
        n = max(len(self.strength), 1)
        out: Floats = np.sqrt(np.square(self.root).sum(axis=0) - 1 / (self.ridge * n**2))
        return out


def refuse_no_strengths(wins: Floats, names: Sequence[object] | None = None) -> None:
    """Refuse comparisons whose likelihood has no maximum.

    Args:
        wins: (n, n) the weight of the comparisons that the row won over the column.
        names: (n,) what the alternatives are called; their ids in the call that runs by default.

    Raises:
        InputError: nothing was compared, two parts were never compared, or one never lost to the other.
    """
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    n = len(wins)
    heard = np.flatnonzero((wins + wins.T).any(axis=1))
    wins = wins[np.ix_(heard, heard)]
    names = [checks.item_label(index) if names is None else names[index] for index in heard.tolist()]
    if not names:
        if n > 1:
            raise InputError(
                f"rankings compares no two of the {n:,} alternatives, as no judge rated more than one, "
                "so that none has a strength; give scores of at least two by one judge"
            )
        return
    won: Any = csr_array(wins > 0)
    strong, group = connected_components(won, directed=True, connection="strong")
    if strong == 1:
        return
    parts, label = connected_components(won, directed=True, connection="weak")
    if parts > 1:
        listed = "; ".join(_few(names, label == part) for part in range(min(parts, _NAMED)))
        raise InputError(
            f"rankings compares the alternatives in {parts} parts with no comparison between them, so that their "
            f"strengths have no common scale: {listed}; rank each part by itself, or give a prior such as 0.1"
        )
    beaten = np.array([(wins[group != part][:, group == part] > 0).any() for part in range(strong)])
    best = group == int(np.flatnonzero(~beaten)[0])
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


class _Likelihood(NamedTuple):
    """A log-likelihood, its slope, and (n, n) how much each two bend it, 0 on the diagonal."""

    value: float
    slope: Floats
    bend: Floats


def _of_pairs(wins: Floats, strength: Floats) -> _Likelihood:
    """The log-likelihood of comparisons."""
    if np.ptp(strength) < _MODERATE:
        odds = np.exp(strength - strength.mean())
        share = odds[:, None] / (odds[:, None] + odds)
        value = float((wins * np.log(share)).sum())
    else:
        share = _shares(strength)
        value = -float((wins * np.logaddexp(0.0, strength[None, :] - strength[:, None])).sum())
    # Each has lost as often as the other has won: (total * share) of two adds up to their total.
    expected = (wins + wins.T) * share
    return _Likelihood(value, (wins - expected).sum(axis=1), expected * share.T)


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
    paired = bool(wins.any())

    def likelihood(strength: Floats) -> _Likelihood:
        chosen = None if choices is None else _of_choices(choices, weights, strength)
        if chosen is not None and not paired:
            return chosen
        pairs = _of_pairs(wins, strength)
        if chosen is None:
            return pairs
        return _Likelihood(pairs.value + chosen.value, pairs.slope + chosen.slope, pairs.bend + chosen.bend)

    # Near the odds of each against an average rival: one or two steps fewer than from zero.
    pairs = wins if choices is None else wins + half_wins(choices.listed, weights, n)
    won = pairs.sum(axis=1)
    share = np.clip(won / (won + pairs.sum(axis=0)), 0.01, 0.99)
    strength = np.log(share / (1 - share))
    strength -= strength.mean()
    here = likelihood(strength)
    for _ in range(_STEPS):
        ridge = float(here.bend.sum()) / n**2
        curvature = np.diag(here.bend.sum(axis=1)) - here.bend + ridge
        step = _solved(curvature, here.slope)
        gain, length = float(step @ here.slope), 1.0
        # The last step is whole: what is left after it is of the order of the gain squared.
        if gain <= _RESTING * abs(here.value):
            strength = strength + step
            strength -= strength.mean()
            return Fit(strength, likelihood(strength).value, curvature, ridge)
        # Sums of many terms do not rise by less than their rounding.
        least = here.value - _ROUNDING * abs(here.value)
        while (new := likelihood(strength + length * step)).value < least + 0.25 * length * gain and length > 1e-9:
            length /= 2
        strength, here = strength + length * step, new
    raise FailureError(f"{label} did not come to rest in {_STEPS} steps; give a prior such as 0.1")


def _solved(curvature: Floats, slope: Floats) -> Floats:
    """The step of Newton's method: by Cholesky's factors where there are any, which take half the time of others."""
    from scipy.linalg import lapack

    out: Any
    _, out, failed = lapack.dposv(curvature, slope, lower=1)
    if failed:
        out = np.linalg.solve(curvature, slope)
    step: Floats = out
    return step


def _of_choices(choices: Choices, weights: Floats, strength: Floats) -> _Likelihood:
    """The log-likelihood of choices."""
    from kofn.combination.rankings import _kernels

    slope, half = np.zeros(len(strength)), np.zeros((len(strength), len(strength)))
    value = _kernels.choose(*choices.listed, weights, strength, slope, half)
    return _Likelihood(value, slope, half + half.T)


def _resampled(
    electorate: Electorate,
    weights: Floats,
    canonical: Canonical,
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
        canonical: the order in which judges are drawn.
        heard: the alternatives that have a strength, in the order of `fit`.
        choices: ballots of more than two, or None.
        fit: the most likely strengths of all.
        prior: comparisons added to every two.
        resamples: how many resamples have their own most likely strengths; 0: votes have those that the curvature
            makes likely, and resampled judges move the strengths by one step of Newton's method.
    """
    n = electorate.n
    blocks: Iterator[Floats]
    if resamples:
        panels = electorate.panels(weights, n**2, canonical, resamples)
        blocks = (_refits(electorate, panel, heard, choices, fit.strength, prior) for panel in panels)
    elif electorate.of_votes:
        blocks = iter([by_curvature(fit)])
    else:
        slopes = _slopes(electorate, heard, choices, fit.strength)
        if electorate.m > _MANY:
            blocks = iter([_by_covariance(fit, slopes, weights)])
        else:
            moves = np.linalg.solve(fit.curvature, slopes.toarray().T).T
            panels = electorate.panels(weights, n, canonical)
            blocks = (fit.strength + (panel - weights) @ moves for panel in panels)
    yield from at_their_index(blocks, heard, n)


def at_their_index(blocks: Iterable[Floats], heard: Ints, n: int) -> Iterator[Floats]:
    """Blocks (panels, n) of the strengths of the alternatives that have one, NaN for the others."""
    for block in blocks:
        out = np.full((len(block), n), np.nan, block.dtype)
        out[:, heard] = block
        yield out.round(_TIES, out=out)


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
    out: Floats = _scattered(fit, fit.root)
    return out


def _by_covariance(fit: Fit, slopes: Any, weights: Floats) -> Floats:
    """(1000, n) strengths as sums of one step a judge scatter where judges are drawn with replacement.

    Args:
        fit: the most likely strengths of all.
        slopes: (m, n) sparse, of the judges' own log-likelihoods.
        weights: (m,) theirs.
    """
    m, n = slopes.shape
    slopes.data *= np.repeat(weights, np.diff(slopes.indptr))
    mean = slopes.sum(axis=0) / m
    thin = _THIN * slopes.nnz < m * n
    dense = slopes if thin else slopes.toarray()
    products = dense.T @ dense
    scatter = (products.toarray() if thin else products) - m * mean[:, None] * mean
    # A step is the slope by the inverse of the curvature, so the steps need not be made one by one.
    around = fit.root @ scatter @ fit.root.T
    # All strengths moved alike are the same strengths, so there is a direction without scatter.
    half = np.linalg.cholesky(around + _JITTER * (np.trace(around) + np.finfo(np.float64).tiny) * np.eye(n))
    out: Floats = _scattered(fit, half.T @ fit.root)
    return out


def _scattered(fit: Fit, half: Floats) -> Any:
    """(1000, n) strengths around the most likely ones; in single precision, because only their ranks are counted."""
    normal = np.random.default_rng(0).standard_normal((RESAMPLES, len(fit.strength)), np.float32)
    # Of weights next to nothing, strengths scatter beyond what single precision holds; ranks have no unit.
    unit = max(1.0, float(np.abs(half).max(initial=0.0)) / _LARGEST)
    out = normal @ (half / unit).astype(np.float32)
    out += (fit.strength / unit).astype(np.float32)
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


def _slopes(electorate: Electorate, heard: Ints, choices: Choices | None, strength: Floats) -> Any:
    """(m, h) the slope of each judge's own log-likelihood, sparse: 0 for what it does not rate."""
    from scipy.sparse import csr_array

    from kofn.combination.rankings import _kernels

    others = np.ones(electorate.m, bool)
    parts = []
    if choices is not None:
        others[choices.judge] = False
        parts.append((_kernels.choose_by_judge, choices.judge, choices.listed))
    if others.any():
        listed = electorate.listed.among(others, heard, electorate.n)
        parts.append((_kernels.compare_by_judge, np.flatnonzero(others), listed))
    table: Any = csr_array((electorate.m, len(heard)))
    for ask, judge, listed in parts:
        own = np.zeros(len(listed.items))
        ask(*listed, strength, own)
        table += csr_array((own, (judge[listed.judge], listed.items)), shape=table.shape)
    return table


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


def by_strengths(electorate: Electorate, weights: Any, prior: float, resamples: int, name: str) -> Blend:
    """The ranking by most likely strengths.

    Args:
        electorate: the ballots.
        weights: (m,) their weights, or None.
        prior: comparisons added to every two.
        resamples: how many resamples have their own strengths.
        name: "plackett_luce", by which judges of more than two choose one by one, or "bradley_terry".
    """
    m, n = electorate.m, electorate.n
    if n > MOST:
        raise InputError(f"rankings has {n:,} alternatives; {name} compares every two of at most {MOST:,}")
    prior = checked_prior(prior)
    resamples = checked_resamples(resamples)
    given = np.ones(m) if weights is None else checks.weights(weights).astype(np.float64)
    listed = electorate.listed
    choosing = (listed.rated > 2) & (name == "plackett_luce")
    pairs = half_wins(listed, given, n)
    if not prior:
        refuse_no_strengths(pairs)
    canonical = electorate.canonical(given)
    heard = canonical.items[np.any(pairs[canonical.items] + pairs.T[canonical.items], axis=1)]
    choices = None
    if choosing.any():
        choices = Choices(np.flatnonzero(choosing), listed.among(choosing, heard, n))
        pairs = np.zeros((n, n)) if choosing.all() else half_wins(listed, np.where(choosing, 0.0, given), n)
    wins = pairs[np.ix_(heard, heard)] + prior / 2 * (1 - np.eye(len(heard)))
    fit = most_likely(wins, choices, given[choosing], name)
    ends: dict[str, Ints] = {}
    # Without a comparison there is nothing to resample.
    if len(heard) and n <= MOST_RANKED:
        blocks = _resampled(electorate, given, canonical, heard, choices, fit, prior, resamples)
        ends = rank_intervals(electorate.heard(given), canonical.alike, blocks)
    plan = ranked(fit, heard, n, ends)
    return dataclasses.replace(
        plan,
        weights=given / given.sum(),
        spread=overturned(listed, np.asarray(plan.result)),
        objective="comparison_likelihood" if name == "bradley_terry" else "choice_likelihood",
        info=plan.info | comparisons(listed, given, n),
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
