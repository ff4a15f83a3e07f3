"""Votes between two alternatives as judges who rate those two: what every rule of this family takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.combination.rankings._electorate import rank_intervals
from kofn.combination.rankings._pairs import Canonical, Listed
from kofn.combination.rankings._strengths import (
    Fit,
    at_their_index,
    by_curvature,
    checked_prior,
    checked_resamples,
    kept_finite,
    most_likely,
    ranked,
    refitted,
    refuse_no_strengths,
)
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InputError, shown
from kofn.core.checks.winners import sides_of, winner_words
from kofn.core.helpers import helper
from kofn.core.plans import Blend

__all__ = ["Votes", "count_votes", "vote_ballots", "win_ballots", "win_strengths"]

_AT_ONCE = 1 << 20  # comparisons of resamples
_MOST_VOTES = 2.0**53


class Votes(NamedTuple):
    """How often each of two alternatives won over the other.

    Attributes:
        names: (n,) the alternatives, sorted.
        wins: (n, n) how often the row won over the column.
        ties: (n, n) how often neither won, symmetric.
        left_out: rows without a winner or a name, or of one alternative against itself.
        against_itself: those of them that are of one alternative against itself.
    """

    names: list[str]
    wins: Floats
    ties: Floats
    left_out: int
    against_itself: int


@helper
def vote_ballots(first: Any, second: Any, winner: Any, *, count: Any = None) -> dict[str, Any]:
    """Count votes, one a row, into ballots that `kofn.combine` takes.

    Args:
        first: (votes,) the name of one alternative of each vote.
        second: (votes,) the name of the other.
        winner: (votes,) which won: its name, or what its column is called (where columns of a frame are given), or one
            of a, first, left, 1 and b, second, right, 2; tie, draw, both, neither, "tie (bothbad)" for none. Where such
            words are names of alternatives as well, all rows are read as sides if one can only be a side.
        count: (votes,) how often each vote was cast, or its weight, >= 0; once by default.

    Returns:
        As from `win_ballots`. Votes that miss a value, or of one alternative with itself, are left out.

    Raises:
        InputError: columns of unequal length, a negative or missing count, a winner that is neither side, or that names
            one and may mean the other, no vote that can be counted.

    Cost: O(votes), beside one loop over the different (first, second, winner).

    Examples:
        >>> import kofn
        >>> from kofn.combination import vote_ballots
        >>> ballots = vote_ballots(["a", "b", "c"], ["b", "c", "a"], ["a", "tie", "c"])
        >>> ballots["ids"], ballots["weights"].tolist()
        (['a', 'b', 'c'], [1.0, 1.0, 1.0])
        >>> kofn.combine(**ballots, method="kemeny").to_frame()["id"].to_list()
        ['c', 'a', 'b']
    """
    votes = count_votes(first, second, winner, count)
    return win_ballots(votes.wins, votes.ties, ids=votes.names)


@helper
def win_ballots(wins: Any, ties: ArrayLike | None = None, *, ids: Sequence[Any] | None = None) -> dict[str, Any]:
    """Turn a table of wins into ballots that `kofn.combine` takes: a judge for each pair and outcome, weighted by it.

    The judge of (i, j) rates i above j and nothing else. `kemeny` then finds the ranking that overturns the fewest
    votes, and `borda` the mean share of votes that each alternative won, ties half.

    Args:
        wins: (n, n) how often the row won over the column, >= 0; the diagonal is not read, NaN is never. A frame's
            columns may stand in another order than its rows, if its index (or `ids`) has the same names.
        ties: (n, n) how often neither of two won, symmetric; none by default.
        ids: (n,) what the rows are called; default the index or the columns of a frame.

    Returns:
        `rankings` (n, m), `weights` (m,) and, where there are any, `ids`: the arguments of `kofn.combine`.

    Raises:
        InputError: a table that is not square, a negative or infinite count, ties that are not symmetric, or no win and
            no tie at all.

    Cost: O(n m) memory for m different outcomes, at most 3 n (n - 1) / 2.

    Examples:
        >>> import kofn
        >>> from kofn.combination import win_ballots
        >>> ballots = win_ballots([[0, 90, 2], [60, 0, 1], [8, 9, 0]], ids=["A", "B", "C"])
        >>> kofn.combine(**ballots, method="kemeny").to_frame()["id"].to_list()
        ['C', 'A', 'B']
    """
    named, table, tied = _tables(wins, ties, ids)
    n = len(table)
    winner, loser = np.nonzero(table)
    left, right = np.nonzero(np.triu(tied))
    m = len(winner) + len(left)
    if not m:
        raise InputError("wins holds no win and no tie; give at least one vote between two")
    rankings = np.full((n, m), np.nan)
    judge, tie = np.arange(len(winner)), np.arange(len(winner), m)
    rankings[winner, judge], rankings[loser, judge] = 1.0, 0.0
    rankings[left, tie], rankings[right, tie] = 0.0, 0.0
    weights = np.concatenate([table[winner, loser], tied[left, right]])
    return {"rankings": rankings, "weights": weights} | ({"ids": named} if named else {})


@helper
def win_strengths(
    wins: Any,
    ties: ArrayLike | None = None,
    *,
    ids: Sequence[Any] | None = None,
    prior: float = 0.0,
    resamples: int = 0,
) -> Blend:
    """Rank by `bradley_terry` from a table of wins, without the ballots that `win_ballots` writes it into.

    Args:
        wins: (n, n) how often the row won over the column, as for `win_ballots`.
        ties: (n, n) how often neither of two won, symmetric; none by default.
        ids: (n,) what the rows are called; default the index or the columns of a frame.
        prior: comparisons added to every two alternatives, half won by each.
        resamples: how many draws of as many votes are fitted for the intervals of ranks; 0 takes those that the
            curvature of the likelihood says. Whole counts are drawn.

    Returns:
        The Blend of `kofn.combine(**win_ballots(wins, ties), method="bradley_terry")`, without the judges' weights and
        spread.

    Raises:
        InputError: as from `win_ballots` and `bradley_terry`; counts that are not whole, where there are resamples.

    Cost: O(n^3) for each of about ten steps of Newton's method, and about four for a resample. Memory 80 n^2 bytes.

    Examples:
        >>> from kofn.combination import win_strengths
        >>> plan = win_strengths([[0, 3], [1, 0]], ids=["a", "b"])
        >>> plan.to_frame()["id"].to_list(), plan.info["votes"]
        (['a', 'b'], 4.0)
    """
    named, table, tied = _tables(wins, ties, ids)
    prior, resamples = checked_prior(prior), checked_resamples(resamples)
    n = len(table)
    pairs = table + tied / 2
    if not pairs.any():
        raise InputError("wins holds no win and no tie; give at least one vote between two")
    if not prior:
        refuse_no_strengths(pairs, named or range(n))
    cells, canonical = _judged(table, tied)
    heard = canonical.items[np.any(pairs[canonical.items] + pairs.T[canonical.items], axis=1)]
    inner = pairs[np.ix_(heard, heard)] + prior / 2 * (1 - np.eye(len(heard)))
    fit = most_likely(inner, None, np.zeros(0), "bradley_terry")
    blocks = _redrawn(cells, canonical, heard, fit, prior, resamples) if resamples else [by_curvature(fit)]
    votes_of = (table + table.T + tied).sum(axis=1)
    ends = rank_intervals(votes_of, canonical.alike, at_their_index(blocks, heard, n))
    plan = ranked(fit, heard, n, ends)
    # Without a prior there are no strengths unless all are compared.
    parts = sorted(sorted(heard[label].tolist()) for label in (_parts(inner) if prior else [slice(None)]))
    votes = {"votes": float(table.sum() + tied.sum() / 2), "ties": float(tied.sum() / 2), "parts": parts}
    with checks.reading("ids", ids):
        keys = np.asarray(named) if named else None
    options = {"prior": prior, "resamples": resamples}
    info = plan.info | votes
    return dataclasses.replace(
        plan, method="bradley_terry", options=options, objective="comparison_likelihood", info=info, ids=keys
    )


def _parts(wins: Floats) -> list[Any]:
    """Masks of the alternatives that are compared with one another."""
    from scipy.sparse import csr_array
    from scipy.sparse.csgraph import connected_components

    links: Any = csr_array(wins > 0)
    count, label = connected_components(links, directed=False)
    return [label == part for part in range(count)]


class _Cells(NamedTuple):
    """The judges that `win_ballots` makes of a table: (judges, 2) the pair, better first, whether tied, how often."""

    pair: Ints
    tie: NDArray[np.bool_]
    times: Floats


def _judged(table: Floats, tied: Floats) -> tuple[_Cells, Canonical]:
    """The judges of a table of wins and ties, and the order in which they are drawn."""
    won, left = np.argwhere(table), np.argwhere(np.triu(tied))
    tie = np.arange(len(won) + len(left)) >= len(won)
    pair = np.concatenate([won, left])
    cells = _Cells(pair, tie, np.concatenate([table[tuple(won.T)], tied[tuple(left.T)]]))
    entry = np.arange(2 * len(pair))
    group = entry - ((entry % 2 == 1) & np.repeat(tie, 2))
    listed = Listed(np.append(entry[::2], 2 * len(pair)), pair.ravel(), group)
    return cells, Canonical.of(listed, cells.times, len(table))


def _redrawn(
    cells: _Cells, canonical: Canonical, heard: Ints, fit: Fit, prior: float, resamples: int
) -> Iterator[Floats]:
    """The most likely strengths of as many votes, drawn from these with replacement, in blocks."""
    n = len(canonical.items)
    judges = canonical.judges
    pair, tie, counts = cells.pair[judges], cells.tie[judges], cells.times[judges]
    if (counts != np.rint(counts)).any() or counts.sum() >= _MOST_VOTES:
        raise InputError("wins holds counts that are not whole; votes that are drawn must be, leave resamples out")
    rng, total = np.random.default_rng(0), int(counts.sum())
    first, second = pair.T
    winner, left, right = (first * n + second)[~tie], (first * n + second)[tie], (second * n + first)[tie]
    step = max(1, _AT_ONCE // n**2)
    for start in range(0, resamples, step):
        size = min(step, resamples - start)
        drawn = rng.multinomial(total, counts / counts.sum(), size=size).astype(np.float64)
        won = np.zeros((size, n * n))
        won[:, winner] = drawn[:, ~tie]
        for side in (left, right):
            won[:, side] += drawn[:, tie] / 2
        inner = won.reshape(size, n, n)[:, heard][:, :, heard]
        yield refitted(kept_finite(inner, prior), fit.strength)


def _tables(wins: Any, ties: ArrayLike | None, ids: Sequence[Any] | None) -> tuple[list[Any], Floats, Floats]:
    """What the rows are called, and the tables of wins and ties."""
    with checks.reading("wins", wins):
        columns = [str(name) for name in getattr(wins, "columns", ())]
        index = list(getattr(wins, "index", ())) if columns else []
    named = list(ids) if ids is not None else index if {str(name) for name in index} == set(columns) else columns
    rows = [str(name) for name in named]
    alike = bool(columns) and sorted(rows) == sorted(columns) and len(set(columns)) == len(columns)
    table = _counts(wins, "wins", [columns.index(name) for name in rows] if alike else None)
    n = len(table)
    if named:
        checks.same_length(n, "wins", "ids", len(named))
    tied = np.zeros((n, n)) if ties is None else _counts(ties, "ties")
    if tied.shape != table.shape or (tied != tied.T).any():
        raise InputError(f"ties has shape {tied.shape}; give a symmetric table of the shape of wins, {table.shape}")
    return named, table, tied


def _counts(value: Any, name: str, order: Sequence[int] | None = None) -> Floats:
    """(n, n) finite counts >= 0, zero on the diagonal and where NaN; the columns in this `order`, if given."""
    array = checks.as_float(checks.gaps_as_nan(checks.as_array(value, name)), name).astype(np.float64)
    if array.ndim != 2 or array.shape[0] != array.shape[1] or len(array) < 2:
        raise InputError(f"{name} has shape {array.shape}; give (n, n), a row and a column for each of two or more")
    array = array if order is None else array[:, order]
    array = np.where(np.isnan(array) | np.eye(len(array), dtype=bool), 0.0, array)
    wrong = np.argwhere((array < 0) | np.isinf(array))
    if len(wrong):
        i, j = wrong[0]
        raise InputError(f"{name} at row {i}, column {j} is {array[i, j]:g}; give how often, a finite number >= 0")
    return array


@helper
def count_votes(
    first: Any, second: Any, winner: Any, count: Any = None, *, sided: Mapping[str, int] | None = None
) -> Votes:
    """Count votes as `vote_ballots` does, into tables of wins and ties.

    `sided` gives the side of each word in `winner` (0 for neither), which then holds no names.

    Examples:
        >>> count_votes(["x", "y"], ["y", "x"], ["first", "x"]).wins.tolist()
        [[0.0, 2.0], [0.0, 0.0]]
    """
    import polars as pl

    given = {"first": first, "second": second, "winner": winner}
    texts = {name: _texts(value, name) for name, value in given.items()}
    for name in ("second", "winner"):
        checks.same_length(len(texts["first"]), "first", name, len(texts[name]))
    called = (str(getattr(first, "name", None) or ""), str(getattr(second, "name", None) or ""))
    times = _times(count, len(texts["first"]))
    frame = pl.DataFrame(texts).with_row_index("row").with_columns(times=pl.Series(times))
    itself = int((frame["first"] == frame["second"]).sum())
    whole = frame.drop_nulls().filter(pl.col("first") != pl.col("second"))
    counted = whole.group_by("first", "second", "winner").agg(pl.col("times").sum(), pl.col("row").min()).sort("row")
    names = sorted(set(counted["first"]) | set(counted["second"]))
    if not names:
        raise InputError("first and second name no two alternatives with a winner; give at least one vote")
    index = {name: position for position, name in enumerate(names)}
    wins, ties = np.zeros((len(names), len(names))), np.zeros((len(names), len(names)))
    outcomes = list(counted.select("first", "second", "winner").iter_rows())
    lacking = next((won for _left, _right, won in outcomes if sided is not None and won not in sided), None)
    if lacking is not None:
        raise InputError(
            f"sided has no {shown(lacking)}, which winner holds; say which side wins there, or 0 for neither"
        )
    sides = sides_of(outcomes, called) if sided is None else [sided[won] for _left, _right, won in outcomes]
    for side, (left, right, won, count, row) in zip(sides, counted.iter_rows(), strict=True):
        i, j = index[left], index[right]
        if side is None:
            raise InputError(
                f"winner at row {row} is {shown(won)}, which is neither {shown(left)} nor {shown(right)} nor a tie; "
                f"{winner_words(called)}"
            )
        if side == 0:
            ties[i, j] += count
            ties[j, i] += count
        else:
            wins[(i, j) if side == 1 else (j, i)] += count
    return Votes(names, wins, ties, len(frame) - len(whole), itself)


def _times(count: Any, n: int) -> Floats:
    """How often each of n votes was cast."""
    if count is None:
        return np.ones(n)
    times = checks.as_float(checks.as_array(count, "count"), "count").astype(np.float64)
    checks.same_length(n, "first", "count", len(np.atleast_1d(times)))
    wrong = np.flatnonzero(~(np.isfinite(times) & (times >= 0)))
    if times.ndim != 1 or len(wrong):
        where = f"has shape {times.shape}" if times.ndim != 1 else f"at row {wrong[0]} is {times[wrong[0]]:g}"
        raise InputError(f"count {where}; give how often each vote was cast, a finite number >= 0, shape (votes,)")
    return times


def _texts(value: Any, name: str) -> Any:
    """A column as text, null where it is missing."""
    import polars as pl

    with checks.reading(name, value):
        column: Array = np.asarray(value.to_numpy() if hasattr(value, "to_numpy") else value)
    if column.ndim != 1 or not len(column):
        raise InputError(f"{name} has shape {column.shape}; give one a vote, shape (votes,)")
    with checks.reading(name, value):
        cells = [None if cell is None or cell != cell else str(cell) for cell in column.tolist()]
    return pl.Series(name, cells, pl.String)
