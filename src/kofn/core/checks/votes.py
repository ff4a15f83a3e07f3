"""What a table of comparisons looks like: votes between two, a table of wins, scores in the long form."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from kofn.core.checks.errors import InputError

# What a winner column says of neither side; "(bothbad)" is how arenas write that both were bad.
_TIES = frozenset({"tie", "ties", "tied", "draw", "both", "neither", "equal", "none", "tie (bothbad)", "bothbad"})
_TIES |= {"both_bad", "both bad", "tie (both bad)", "tie_bothbad", "both_good"}
_FIRST = frozenset({"a", "first", "left", "1"})
_SECOND = frozenset({"b", "second", "right", "2"})
# What a column that names the winner is called.
_WINNER = re.compile(r"win|won|vote|prefer|chosen|choice|verdict|result|outcome|judg|label|better|best", re.IGNORECASE)
# How many names are shown in one line.
_NAMED = 6


class VoteColumns(NamedTuple):
    """The columns of a table that holds one vote a row: the two that were compared, and which of them won.

    Without a `winner` column the first always won, but where `tie` (None where there is none) says otherwise.
    """

    first: str
    second: str
    winner: str | None
    tie: str | None = None


def side_of(winner: str, first: str, second: str, columns: tuple[str, str], *, letters: bool = True) -> int | None:
    """1 or 2, the side that won, 0 for neither; None where `winner` says no such thing.

    Args:
        winner: what the winner column holds.
        first: the name of the first side in this row.
        second: the name of the second side.
        columns: what the columns of the two sides are called, or nothing.
        letters: whether a side may be called a, first, left or 1, and b, second, right or 2.

    Examples:
        >>> side_of("model_b", "gpt", "llama", ("model_a", "model_b")), side_of("llama", "gpt", "llama", ("", ""))
        (2, 2)
        >>> side_of("tie (bothbad)", "gpt", "llama", ("", "")), side_of("mistral", "gpt", "llama", ("", ""))
        (0, None)
    """
    if winner in (first, second):
        return 1 if winner == first else 2
    word = winner.strip().casefold()
    if word in _TIES:
        return 0
    for side, (column, words) in enumerate(zip(columns, (_FIRST, _SECOND), strict=True), 1):
        if (letters and word in words) or (column and word == column.strip().casefold()):
            return side
    return None


def vote_columns(texts: Mapping[str, Sequence[str | None]], others: Iterable[str] = ()) -> VoteColumns | None:
    """The columns that make votes of the rows, or None where the table is no table of votes.

    They are two columns of names of which some stand in both, and one that names a side of each row, by its name or by
    its column's; or columns called winner and loser.

    Args:
        texts: some rows of every column of text.
        others: what the other columns are called.
    """
    called = {name.strip().casefold(): name for name in texts}
    if {"winner", "loser"} <= called.keys():
        tie = next((name for name in (*texts, *others) if name.strip().casefold() in ("tie", "draw")), None)
        return VoteColumns(called["winner"], called["loser"], None, tie)
    # Columns that are called as winners are come first; of the others mere letters and numbers say nothing.
    candidates = sorted(texts, key=lambda name: _WINNER.search(name) is None)
    for first, second in _pairs(texts):
        for winner in candidates:
            if winner not in (first, second) and _decides(texts, first, second, winner):
                return VoteColumns(first, second, winner)
    return None


def _pairs(texts: Mapping[str, Sequence[str | None]]) -> Iterable[tuple[str, str]]:
    """Every two columns of names of which some stand in both."""
    names = list(texts)
    values = {name: {value for value in texts[name] if value is not None} for name in names}
    for index, first in enumerate(names):
        for second in names[index + 1 :]:
            if values[first] & values[second]:
                yield first, second


def _decides(texts: Mapping[str, Sequence[str | None]], first: str, second: str, winner: str) -> bool:
    """Whether a column names a side of every row where it says anything, and one that is not a tie at least once."""
    decided = False
    for left, right, won in zip(texts[first], texts[second], texts[winner], strict=True):
        if left is None or right is None or won is None:
            continue
        side = side_of(won, left, right, (first, second), letters=_WINNER.search(winner) is not None)
        if side is None:
            return False
        decided = decided or side > 0
    return decided


def compared_pair(texts: Mapping[str, Sequence[str | None]]) -> tuple[str, str] | None:
    """Two columns whose rows look like comparisons of two without a word of who won: most names stand in both."""
    for first, second in _pairs(texts):
        lefts, rights = ({value for value in texts[name] if value is not None} for name in (first, second))
        repeated = max(len(lefts), len(rights)) < len(texts[first])
        if repeated and 2 * len(lefts & rights) > len(lefts | rights):
            return first, second
    return None


def refuse_wins(judges: Sequence[str], ids: Sequence[object], remedy: str) -> None:
    """Refuse judges who are called as what they judge: most often the table says how often the row beat the column.

    Raises:
        InputError: the two are the same names, in any order; mere numbers from 0 on are no names.
    """
    names = {str(key) for key in ids}
    numbered = list(judges) == [str(number) for number in range(len(judges))]
    if numbered or len(names) < 2 or names != set(judges) or len(names) != len(judges):
        return
    shown = ", ".join(list(judges)[:_NAMED]) + (", ..." if len(judges) > _NAMED else "")
    raise InputError(
        f"rankings looks like a table of wins, since its columns are called as its rows are ({shown}): ranked as "
        f"judges, those who beat others would come last; {remedy}"
    )
