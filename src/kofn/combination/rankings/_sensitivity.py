"""What a ranking hangs on: the rule, single judges, and how judges are grouped."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from kofn.combination.rankings._copeland import (
    baldwin_points,
    copeland_points,
    minimax_points,
    ranked_pairs_points,
    schulze_points,
)
from kofn.combination.rankings._dowdall import dowdall_points, plurality_points, threshold_points
from kofn.combination.rankings._electorate import DECIMALS, Electorate, Scoring
from kofn.combination.rankings._pairs import Listed, ballots_of, preferences
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.highs import linprog
from kofn.core.plans import Blend

__all__ = ["RuleComparison", "compare_rules", "group_ballots", "winning_weights"]

_MOST_ALONE = 16  # alternatives that majorities tie into cycles, of which kemeny looks at every subset
_MOST_WORK = 2 * 10**9  # comparisons that leaving judges out may take
_MOST_REFITS = 64  # judges that are left out of a ranking that is fitted


def borda_points(electorate: Electorate, weights: Floats) -> Floats:
    """(panels, n) the mean share of its rivals that each beats, ties half."""
    first, last = electorate.groups
    rivals = np.maximum(electorate.rated.sum(axis=1, keepdims=True) - 1, 1)
    share = np.where(electorate.rated, (first + last) / 2 / rivals, 0.0)
    heard = weights @ electorate.rated.astype(np.float64)
    return np.divide(weights @ share, heard, out=np.full(heard.shape, np.nan), where=heard > 0)


SCORINGS: dict[str, Scoring] = {
    "borda": borda_points,
    "copeland": copeland_points,
    "minimax": minimax_points,
    "schulze": schulze_points,
    "ranked_pairs": ranked_pairs_points,
    "baldwin": baldwin_points,
    "plurality": plurality_points,
    "dowdall": dowdall_points,
    "threshold_rule": threshold_points,
}

# Every rule of the family; the last three have no points of their own.
METHODS = (*SCORINGS, "kemeny", "bradley_terry", "plackett_luce")
_OF_POSITIONS = ("plurality", "dowdall", "threshold_rule")


class RuleComparison(NamedTuple):
    """One table of scores under every rule, and under one of them without each judge.

    Attributes:
        ranks: rule to (n,) ranks, best 1, equal ones alike, 0 for what nobody compared; by kemeny, of which many orders
            may be as good, the best rank that each has in any of them.
        winners: rule to the alternatives at rank 1.
        pairs: (n, n) the share of the judges who rate both, by weight, that put the row above the column, ties half;
            NaN where none rates both.
        agreement: (rules, rules) Kendall's tau-b of the rules' ranks, in the order of `ranks`.
        left_out: rule to why it does not rank these scores.
        without: (judges,) the alternatives at rank 1 without each judge, None where that ranks nothing; empty where
            leaving judges out would take too long, or there is one.
    """

    ranks: dict[str, Ints]
    winners: dict[str, list[int]]
    pairs: Floats
    agreement: Floats
    left_out: dict[str, str]
    without: list[list[int] | None]


@helper
def compare_rules(
    rankings: Any,
    *,
    method: str = "borda",
    weights: Any = None,
    lower: str | Sequence[int] | Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> RuleComparison:
    """Rank the same scores by every rule, and by one of them without each judge in turn.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate.
        method: the rule under which each judge is left out.
        weights: (m,) weight of each judge, >= 0, one by default.
        lower: the judges for whom lower is better, by column number, or by name where `rankings` is a frame.
        options: of the method, such as its prior.

    Returns:
        A `RuleComparison`. `kemeny` is left out where majorities tie more than 16 alternatives into one cycle,
        `bradley_terry` and `plackett_luce` where no strengths are the most likely ones.

    Raises:
        InputError: a rule that is none of this family, or what it refuses.

    Cost: the rules', and O(m n^2) for leaving judges out of a rule that counts; m fits of one that does not, up to 64.

    Examples:
        >>> from kofn.combination import compare_rules
        >>> compared = compare_rules([[3, 3, 1], [2, 1, 3], [1, 2, 2]])
        >>> compared.winners["borda"], compared.winners["kemeny"], compared.without
        ([0], [0], [[0, 1, 2], [1], [0]])
    """
    checks.choice(method, "method", [*SCORINGS, *_fitted()])
    with checks.reading("rankings", rankings):
        columns = [str(name) for name in getattr(rankings, "columns", ())]
    table = checks.rankings(rankings)
    if columns and lower is not None:
        lower = _judges(lower, columns, table.shape[1], "lower").tolist()
    ballots = ballots_of(table, lower)
    m = len(ballots)
    given = np.ones(m) if weights is None else checks.weights(weights).astype(np.float64)
    checks.same_length(m, "rankings (judges)", "weights", len(given))
    electorate = Electorate(ballots)
    # By judges of two, rules of positions count the share of votes won, as Borda's does.
    own = {name for name in SCORINGS if name == method or not (electorate.of_votes and name in _OF_POSITIONS)}
    ranks = {name: ranks_of(SCORINGS[name](electorate, given[None])[0]) for name in SCORINGS if name in own}
    left_out: dict[str, str] = {}
    for name, run in _fitted().items():
        reason = _too_long(ballots, given) if name == "kemeny" else ""
        try:
            if not reason:
                ranks[name] = _ranks(run(ballots.T, weights=given, **(options or {} if name == method else {})))
        except InputError as error:
            reason = "perfect separation" if "separation" in str(error) else "parts that were never compared"
        if reason:
            left_out[name] = reason
    return RuleComparison(
        ranks,
        {name: np.flatnonzero(each == 1).tolist() for name, each in ranks.items()},
        _pairs(electorate, given),
        _agreement(list(ranks.values())),
        left_out,
        _without(electorate, given, method, options or {}),
    )


def _fitted() -> dict[str, Callable[..., Blend]]:
    """The rules whose ranking is no sum over judges."""
    from kofn.combination.rankings._bradley_terry import bradley_terry
    from kofn.combination.rankings._kemeny import kemeny
    from kofn.combination.rankings._plackett_luce import plackett_luce

    return {"kemeny": kemeny, "bradley_terry": bradley_terry, "plackett_luce": plackett_luce}


def ranks_of(points: Floats) -> Ints:
    """(n,) ranks by points, best 1, equal ones alike, 0 where they are NaN."""
    worth = points.round(DECIMALS)
    known = worth[~np.isnan(worth)]
    above = len(known) - np.searchsorted(np.sort(known), worth, side="right")
    return np.where(np.isnan(worth), 0, above + 1)


def _ranks(plan: Blend) -> Ints:
    if "best_rank" in plan.info:
        # Many orders may be as good: at rank 1 is what any of them begins with.
        return np.asarray(plan.info["best_rank"])
    ranks = plan.ranks().copy()
    ranks[plan.info["never_compared"]] = 0
    return ranks


def _too_long(ballots: Floats, weights: Floats) -> str:
    """Why kemeny does not rank these at once, or nothing."""
    from kofn.combination.rankings._kemeny import components

    largest = max(map(len, components(preferences(Listed.of(ballots), weights, ballots.shape[1]))))
    return f"majorities tie {largest} alternatives into a cycle" if largest > _MOST_ALONE else ""


def _pairs(electorate: Electorate, weights: Floats) -> Floats:
    (prefers,), (both,) = electorate.pairs(weights[None])
    won = prefers + (both - prefers - prefers.T) / 2
    return np.divide(won, both, out=np.full(both.shape, np.nan), where=both > 0)


def _agreement(ranks: Sequence[Ints]) -> Floats:
    from scipy.stats import kendalltau

    out = np.eye(len(ranks))
    for i, first in enumerate(ranks):
        for j, second in enumerate(ranks[:i]):
            known = (first > 0) & (second > 0)
            tau = kendalltau(first[known], second[known]).statistic if known.sum() > 1 else np.nan
            out[i, j] = out[j, i] = tau
    return out


def _without(
    electorate: Electorate, weights: Floats, method: str, options: Mapping[str, Any]
) -> list[list[int] | None]:
    """The alternatives at rank 1 without each judge."""
    m, n = electorate.m, electorate.n
    others = ~np.eye(m, dtype=bool)
    if m < 2 or (electorate.of_votes and n > 2):
        return []
    if method in SCORINGS:
        width = n**3 if method in ("schulze", "ranked_pairs", "baldwin") else n**2
        if m * (width if electorate.keeps_pairs else m * n**2) > _MOST_WORK:
            return []
        scoring = partial(SCORINGS[method], **options)
        step = max(1, (1 << 21) // n**2)
        blocks = [scoring(electorate, weights * others[low : low + step]) for low in range(0, m, step)]
        ranked = [ranks_of(points) for points in np.concatenate(blocks)]
        return [np.flatnonzero(ranks == 1).tolist() or None for ranks in ranked]
    if m > _MOST_REFITS or n > _MOST_REFITS:
        return []
    out: list[list[int] | None] = []
    for kept in others:
        try:
            if method == "kemeny" and _too_long(electorate.ballots[kept], weights[kept]):
                return []
            plan = _fitted()[method](electorate.ballots[kept].T, weights=weights[kept], **options)
            out.append(np.flatnonzero(_ranks(plan) == 1).tolist() or None)
        except InputError:
            out.append(None)
    return out


@helper
def group_ballots(
    rankings: Any,
    groups: Mapping[str, Sequence[int] | Sequence[str]],
    *,
    method: str = "borda",
    weights: Any = None,
    lower: str | Sequence[int] | Sequence[str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Rank by each group of judges, and make a judge of each group: rankings in two levels.

    Every group counts once then, however many judges it has: tasks of one kind do not outvote another kind.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better, NaN where a judge did not rate; a
            frame, whose columns are the judges, or an array.
        groups: name to the judges of each group, by column number or, of a frame, by name; others are left out.
        method: the rule that ranks within a group; "auto" is "borda".
        weights: (m,) weight of each judge within its group, one by default.
        lower: the judges for whom lower is better, as in `groups`.
        options: of the method, such as its prior.

    Returns:
        `rankings`, a polars frame (n, groups) of minus the ranks, empty where a group compares an alternative with no
        other: the argument of `kofn.combine`.

    Raises:
        InputError: a group without judges, a judge who is none or in two groups, or what the method refuses.

    Cost: the method's, for each group.

    Examples:
        >>> import kofn
        >>> from kofn.combination import group_ballots
        >>> scores = [[9, 8, 7, 1], [1, 2, 3, 9], [5, 5, 5, 5]]
        >>> kofn.combine(**group_ballots(scores, {"maths": [0, 1, 2], "code": [3]})).info["points"].tolist()
        [0.5, 0.5, 0.5]
    """
    import polars

    from kofn.combination import rankings as family

    rank = getattr(family, "borda" if method == "auto" else checks.choice(method, "method", METHODS))
    settings = dict(options or {})
    for name in settings:
        if name not in rank.__kofn__.signature.parameters:
            raise InputError(f"options name {name!r}, which {rank.__name__} does not take")
    columns = [str(name) for name in getattr(rankings, "columns", ())]
    table = checks.rankings(rankings)
    given = np.ones(table.shape[1]) if weights is None else checks.weights(weights).astype(np.float64)
    checks.same_length(table.shape[1], "rankings (judges)", "weights", len(given))
    turned = table.copy()
    if lower is not None:
        turned[:, _judges([lower] if isinstance(lower, str) else lower, columns, table.shape[1], "lower")] *= -1
    of_group = {name: _judges(judges, columns, table.shape[1], f"groups[{name!r}]") for name, judges in groups.items()}
    taken = np.concatenate([np.zeros(0, np.int64), *of_group.values()])
    twice = next((int(judge) for judge in taken if (taken == judge).sum() > 1), None)
    if twice is not None:
        raise InputError(f"groups name judge {columns[twice] if columns else twice} twice; a judge is of one group")
    if not of_group:
        raise InputError("groups is empty; name at least one group of judges")
    out = {}
    for name, judges in of_group.items():
        plan = rank(turned[:, judges], weights=given[judges], **settings)
        out[name] = np.where(_ranks(plan) > 0, -_ranks(plan).astype(np.float64), np.nan)
    return {"rankings": polars.DataFrame(out)}


def _judges(named: Any, columns: Sequence[str], m: int, argument: str) -> Ints:
    """Column numbers of judges, who are told by number or by name."""
    with checks.reading(argument, named, "judges by number or by name"):
        names = [named] if isinstance(named, str) else list(named)
    if not names:
        raise InputError(f"{argument} is empty; name at least one judge")
    for name in names:
        if isinstance(name, str) and name not in columns:
            raise InputError(f"{argument}: rankings has no column {name!r}{checks.nearest(name, columns)}")
        if not isinstance(name, str) and not (checks.is_number(name) and 0 <= name < m and int(name) == name):
            raise InputError(f"{argument} names column {checks.shown(name)}; give numbers from 0 to {m - 1}, or names")
    return np.array([columns.index(name) if isinstance(name, str) else int(name) for name in names])


@helper
def winning_weights(
    rankings: Any,
    item: int,
    *,
    lower: str | Sequence[int] | Sequence[str] | None = None,
) -> Floats | None:
    """Weights of judges under which an alternative is first by Borda's rule, as near to equal ones as there are.

    Args:
        rankings: (n, m) scores of n alternatives by m judges, higher is better; every judge rates all.
        item: the row that is to win; others may be as good.
        lower: the judges for whom lower is better, by column number.

    Returns:
        (m,) weights >= 0 that sum to one, with the least sum of distances from 1 / m; None where no weights make it
        first.

    Raises:
        InputError: a missing score, by row and column, or a row that is none.

    Cost: a linear programme of 2 m variables and n + m rows.

    Exact: the optimum of that programme, to 1e-9.

    References:
        Rofin et al. 2023, Vote'n'Rank: revision of benchmarking with social choice theory (EACL).

    Examples:
        >>> from kofn.combination import winning_weights
        >>> scores = [[3, 3, 1], [2, 1, 3], [1, 2, 2]]
        >>> winning_weights(scores, 2).round(3).tolist(), winning_weights([[2], [1]], 1) is None
        ([0.0, 0.5, 0.5], True)
    """
    table = checks.rankings(rankings)
    gaps = np.argwhere(np.isnan(table))
    if len(gaps):
        raise InputError(
            f"rankings at row {gaps[0][0]}, column {gaps[0][1]} is missing; points of weights are linear in them where "
            "every judge rates all: leave that row or column out"
        )
    ballots = ballots_of(table, lower)
    m, n = ballots.shape
    row = int(checks.positions([item], "item", n)[0])
    if n == 1:
        return np.full(m, 1 / m)
    first, last = Electorate(ballots).groups
    share = (first + last) / 2 / (n - 1)
    rivals = np.delete(share - share[:, [row]], row, axis=1).T
    # Variables: the weights, then how far each is from 1 / m.
    distance = np.block([[np.eye(m), -np.eye(m)], [-np.eye(m), -np.eye(m)]])
    solution = linprog(
        np.append(np.zeros(m), np.ones(m)),
        A_ub=np.vstack([np.hstack([rivals, np.zeros((n - 1, m))]), distance]),
        b_ub=np.concatenate([np.zeros(n - 1), np.full(m, 1 / m), np.full(m, -1 / m)]),
        A_eq=np.append(np.ones(m), np.zeros(m))[None],
        b_eq=[1.0],
        bounds=(0, None),
    )
    if solution.x is None:
        return None
    weights: Floats = np.maximum(solution.x[:m], 0.0)
    return weights / weights.sum()
