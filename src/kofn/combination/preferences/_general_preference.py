"""The general preference model: strengths, and cycles as far as votes that were held out support them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from kofn.combination.preferences._skew import Scores, chance, least_penalty, log_likelihood, path, planes
from kofn.combination.rankings._electorate import Electorate, comparisons
from kofn.combination.rankings._pairs import ballots_of, half_wins, overturned
from kofn.combination.rankings._strengths import checked_prior, refuse_no_strengths
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.highs import linprog
from kofn.core.plans import Blend
from kofn.core.registry import method

# Shares of the least penalty that leaves no cyclic part.
_SHARES = (0.8, 0.5, 0.3, 0.15, 0.07)
_MOST = 500  # alternatives: singular values are taken again and again
_HELD_PRIOR = 0.1  # comparisons of every two, for folds that leave somebody without a loss
_CYCLES = 200  # alternatives of which every three are looked at
_DECIMALS = 9


@method(
    "combine",
    draws=Draw(options={"prior": "prior", "folds": (0, 2, 3), "penalty": (0.05, 0.5, 2.0)}, slow=True),
    cost="O(folds steps n^3), of at most 300 steps for each of five penalties; 80 n^2 bytes",
    exact="the penalised likelihood is convex, its maximum found to about 1e-7; the penalty is the one of the least "
    "cross-validated loss",
    paper=144,
    aliases=("gpm", "intransitive preferences", "cyclic preferences", "preference embedding", "skew-symmetric"),
)
def general_preference(
    rankings: Any,
    *,
    weights: Any = None,
    lower: str | Sequence[int] | Sequence[str] | None = None,
    prior: float = 0.0,
    penalty: float | None = None,
    folds: int = 5,
    seed: int | None = None,
) -> Blend:
    """Rank n alternatives by a model of pairs in which preferences may go in cycles, if held-out votes support that.

    Each alternative is embedded in planes, and i is preferred to j with probability 1 / (1 + exp(-s(i, j))), where
    s(i, j) is the sum over the planes of x_i y_j - y_i x_j: s(j, i) = -s(i, j) by construction. The first plane holds a
    strength and a constant, which alone is `bradley_terry`; the others hold what strengths cannot say, such as rock,
    paper and scissors. A penalty (on the nuclear norm of that part) chooses how many there are; votes that are held out
    choose the penalty.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, or the ballots of votes, as for `bradley_terry`.
        weights: (m,) weight of each judge, >= 0, one by default.
        lower: the judges for whom lower is better, by column number or, of a frame, by name.
        prior: comparisons added to every two alternatives, half won by each.
        penalty: how strongly cycles are drawn to none, as a share of the penalty that leaves none: 1 is Bradley and
            Terry's model, 0.1 nearly free; by default chosen by the folds.
        folds: parts of the votes (of the judges, where these compare more than two) by which it is chosen, and cycles
            are held against Bradley and Terry's model; 0 takes a penalty of 0.3.
        seed: draws the folds.

    Returns:
        A Blend of form "order". `info["points"]` (n,) is the probability to be preferred to an average other one, which
        orders `result`; `info["scores"]` (n, n) is s, `info["embedding"]` (n, 2 + 2 k) the planes, of which the first
        is Bradley and Terry's. `info["lottery"]` (n,) is the von Neumann winner: the mixture of alternatives that none
        beats in more than half of the cases, uniform where nothing was compared. What was never compared has NaN for
        its points and its scores against others. `info["cycles"]` says by how much a held-out vote is more likely
        than under Bradley and Terry's model ("gain", in nats, with its "error"), whether cycles are "supported" (two
        standard errors from none), the number of "planes" kept, and the "strongest" cycle of three, each preferred to
        the next with at least the probability "each". `value` is the log-likelihood of `info["scores"]`.

    Raises:
        InputError: what `bradley_terry` refuses; more than 500 alternatives.

    Cost: singular values of an (n, n) matrix in each of at most 300 steps, for each of five penalties and each fold.

    Exact: a convex problem, solved to about 1e-7. A vote is one observation; judges of more than two alternatives count
    as independent comparisons, but are held out whole.

    References:
        Zhang, Zhang, Wu, Xu & Gu 2025, General preference modeling with preference representations for
        aligning language models (ICML).

    Examples:
        >>> from kofn.combination import general_preference, win_ballots
        >>> rock_paper_scissors = [[0, 10, 90], [90, 0, 10], [10, 90, 0]]
        >>> plan = general_preference(**win_ballots(rock_paper_scissors), seed=0)
        >>> plan.info["cycles"]["supported"], plan.info["cycles"]["planes"], plan.info["lottery"].round(2).tolist()
        (True, 1, [0.33, 0.33, 0.33])
    """
    ballots = ballots_of(rankings, lower)
    m, n = ballots.shape
    if n > _MOST:
        raise InputError(f"rankings has {n:,} alternatives; general_preference takes {_MOST}: use bradley_terry")
    prior, parts = checked_prior(prior), checks.count(folds, "folds", least=0)
    if penalty is not None and not (checks.is_finite(penalty) and penalty > 0):
        raise InputError(f"penalty={checks.shown(penalty)}: give a share > 0 of the one that leaves no cycles, as 0.3")
    given = np.ones(m) if weights is None else checks.weights(weights).astype(np.float64)
    electorate = Electorate(ballots)
    pairs = half_wins(electorate.listed, given, n)
    if not prior:
        refuse_no_strengths(pairs)
    heard = np.flatnonzero((pairs + pairs.T).any(axis=1))
    inside = np.ix_(heard, heard)
    others = 1 - np.eye(len(heard))
    shares = _SHARES if penalty is None else (float(penalty),)
    rng = np.random.default_rng(seed)
    losses, evidence = _held_out(electorate, given, heard, shares, prior, parts, rng)
    scores, chosen = _fit(pairs[inside] + prior / 2 * others, shares, losses)
    table = np.full((n, n), np.nan)
    np.fill_diagonal(table, 0.0)
    table[inside] = scores.table
    likely = chance(scores.table)
    points = np.full(n, np.nan)
    points[heard] = (likely * others).sum(axis=1) / max(len(heard) - 1, 1)
    embedding = np.full((n, 2 + planes(scores.cyclic).shape[1]), np.nan)
    embedding[heard] = np.column_stack([scores.strength, np.ones(len(heard)), planes(scores.cyclic)])
    # Where nothing was compared all are even.
    lottery = np.zeros(n) if len(heard) else np.full(n, 1 / n)
    lottery[heard] = _lottery(likely)
    return Blend(
        n=n,
        value=log_likelihood(pairs[inside] + prior / 2 * others, scores.table),
        sense="max",
        status="heuristic",
        result=np.argsort(-points.round(_DECIMALS), kind="stable"),
        form="order",
        weights=given / given.sum(),
        spread=overturned(electorate.listed, np.argsort(-points.round(_DECIMALS), kind="stable")),
        objective="preference_likelihood",
        info={
            "points": points,
            "scores": table,
            "embedding": embedding,
            "lottery": lottery,
            "cycles": {
                **evidence,
                "penalty": chosen,
                "planes": (embedding.shape[1] - 2) // 2,
                **_strongest(likely, heard),
            },
            **comparisons(electorate.listed, given, n),
            "never_compared": np.flatnonzero(np.isnan(points)).tolist(),
        },
    )


def _fit(wins: Floats, shares: Sequence[float], losses: Sequence[float]) -> tuple[Scores, float]:
    """The scores under the penalty that lost least, and that penalty as a share of the one that leaves no cycle.

    Args:
        wins: (n, n) how often the row won.
        shares: the penalties, falling.
        losses: what held-out votes lost without cycles and under each penalty; empty where none were held out.
    """
    if len(wins) < 2:
        return Scores(np.zeros(len(wins)), np.zeros((len(wins), len(wins)))), 1.0
    start, most = least_penalty(wins)
    best = int(np.argmin(losses)) if losses else 1 + (shares.index(0.3) if 0.3 in shares else 0)
    if losses and len(shares) == 1:
        best = 1
    if best == 0 or shares[best - 1] >= 1:
        return start, 1.0
    tried = [share for share in shares[:best] if share < 1]
    return path(wins, [share * most for share in tried], start)[-1], shares[best - 1]


def _held_out(
    electorate: Electorate,
    given: Floats,
    heard: Any,
    shares: Sequence[float],
    prior: float,
    folds: int,
    rng: np.random.Generator,
) -> tuple[list[float], dict[str, Any]]:
    """The mean loss of held-out votes without cycles and under each penalty, and how much likelier cycles make them.

    For each fold the penalty is the one that is best on the others.
    """
    likelihoods, gains, counts = [], [], []
    inside = np.ix_(heard, heard)
    prior = max(prior, _HELD_PRIOR)
    for part in _parts(electorate, given, folds, rng):
        rest, wins = (half_wins(electorate.listed, row, electorate.n)[inside] for row in (given - part, part))
        if not rest.any() or not wins.any():
            continue
        start, most = least_penalty(rest + prior / 2 * (1 - np.eye(len(rest))))
        fits = [start, *path(rest + prior / 2 * (1 - np.eye(len(rest))), [share * most for share in shares], start)]
        logs = [np.log(chance(fit.table)) for fit in fits]
        likelihoods.append([float((wins * log).sum()) for log in logs])
        gains.append([log - logs[0] for log in logs[1:]])
        counts.append(wins)
    if len(likelihoods) < 2:
        return [], {"gain": None, "error": None, "supported": None}
    table = np.array(likelihoods)
    chosen = [int(np.argmax(np.delete(table, fold, axis=0).sum(axis=0)[1:])) for fold in range(len(table))]
    total = float(sum(wins.sum() for wins in counts))
    each = [(wins, gain[index]) for wins, gain, index in zip(counts, gains, chosen, strict=True)]
    mean = sum(float((wins * gain).sum()) for wins, gain in each) / total
    spread = sum(float((wins * np.square(gain - mean)).sum()) for wins, gain in each) / total
    error = float(np.sqrt(spread / total))
    return (-table.sum(axis=0) / total).tolist(), {
        "gain": mean,
        "error": error,
        "supported": bool(mean > 2 * error and mean > 0),
    }


def _parts(electorate: Electorate, given: Floats, folds: int, rng: np.random.Generator) -> Iterator[Floats]:
    """(m,) what each fold takes of the judges' weights: votes one by one, judges of more than two whole."""
    if folds < 2:
        return
    whole = bool((given == np.rint(given)).all()) and float(given.max()) < 2.0**53
    if electorate.of_votes and whole:
        drawn = rng.multinomial(given.astype(np.int64), np.full(folds, 1 / folds))
        yield from drawn.T.astype(np.float64)
        return
    fold = rng.permutation(np.arange(electorate.m) % min(folds, electorate.m))
    for part in range(int(fold.max()) + 1):
        yield np.where(fold == part, given, 0.0)


def _lottery(likely: Floats) -> Floats:
    """(n,) the mixture that none beats in more than half of the cases, by linear programming."""
    n = len(likely)
    if n < 2:
        return np.ones(n)
    game = likely - 0.5
    np.fill_diagonal(game, 0.0)
    # Shares q and the least lead v: the most v with q @ game >= v.
    solution = linprog(
        np.append(np.zeros(n), -1.0),
        A_ub=np.column_stack([-game.T, np.ones(n)]),
        b_ub=np.zeros(n),
        A_eq=np.append(np.ones(n), 0.0)[None],
        b_eq=[1.0],
        bounds=[(0, 1)] * n + [(None, None)],
    )
    assert solution.x is not None
    shares = np.maximum(solution.x[:n], 0.0)
    out: Floats = shares / shares.sum()
    return out


def _strongest(likely: Floats, heard: Any) -> dict[str, Any]:
    """The cycle of three whose least preference is the largest, where that is more than even."""
    n = len(likely)
    if not 3 <= n <= _CYCLES:
        return {"strongest": None, "each": None}
    best, cycle = 0.5 + 1e-9, None
    for first in range(n):
        least = np.minimum(np.minimum(likely[first][:, None], likely), likely[:, first][None, :])
        least[first], least[:, first] = 0.0, 0.0
        np.fill_diagonal(least, 0.0)
        position = int(np.argmax(least))
        if least.ravel()[position] > best:
            best, cycle = float(least.ravel()[position]), (first, *divmod(position, n))
    return {
        "strongest": None if cycle is None else [int(heard[i]) for i in cycle],
        "each": None if cycle is None else best,
    }
