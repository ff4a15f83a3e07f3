"""Tables of comparisons: votes between two, one a row; counts of wins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError, VoteColumns
from kofn.core.lazy import polars as pl
from kofn.io.tables import Table
from kofn.tables.scores import is_scores, scores_with_gaps

if TYPE_CHECKING:
    from kofn.combination.rankings._votes import Votes

# Rows by which it is told what a table looks like.
_HEAD = 1_000
# What a column of ties says where neither won.
_TIED = ("1", "1.0", "true", "yes", "tie", "draw")
_WON = ("0", "0.0", "false", "no", "")

# What `auto` is for votes, of which no judge rates more than two alternatives.
BY_WINS = "kemeny"


def refuse_words_of_judges(source: str, columns: Any, of_judges: Mapping[str, Any]) -> None:
    """Refuse what is said of judges where votes are counted, and columns of a table of wins.

    Raises:
        InputError: names the word.
    """
    for name, value in of_judges.items():
        if value is not None:
            raise InputError(f"--{name} is of judges; {source} holds votes, which are counted: leave it out")
    if columns is not None:
        raise InputError("--wins reads the columns that are called as the rows are; leave --columns out")


def votes_in(table: Table) -> VoteColumns | None:
    """The columns that make a vote of each row, or None where the rows are no votes.

    Raises:
        InputError: the rows compare two each, and no column says by a name which won, or a row names neither.
    """
    texts = [name for name in table.columns if table.dtype(name) == "text"]
    numbers = [name for name in table.columns if table.dtype(name) in ("number", "boolean")]
    checks.refuse_numbered_votes(str(table.path), numbers)
    if len(texts) < 2 or not table.n:
        return None
    rows = table.take(np.arange(min(table.n, _HEAD)))
    head = {name: [None if not cell else str(cell) for cell in rows[name].to_list()] for name in texts}
    cells = {name: rows[name].to_list() for name in numbers}
    columns = checks.vote_columns(head, table.columns) or checks.numbered_winner(head, cells)
    if columns is not None:
        others = [name for name in table.columns if name != columns.winner and is_scores(table, name)]
        return checks.counted_by(columns, others)
    checks.refuse_undecided(str(table.path), head, cells)
    return None


def refuse_votes(table: Table) -> None:
    """Refuse a table of votes where Python is asked to rank its rows by their scores.

    Raises:
        InputError: the rows are votes, or compare two each without a word of who won.
    """
    columns = votes_in(table)
    if columns is not None:
        checks.refuse_uncounted(columns)


def read_votes(table: Table, columns: VoteColumns) -> Votes:
    """The votes of a table, counted.

    Raises:
        InputError: a winner that is neither side of its row, a tie or a count that cannot be read.
    """
    from kofn.combination.rankings._votes import count_votes

    first, second = table.column(columns.first), table.column(columns.second)
    count = None if columns.counts is None else _counts(table, columns.counts)
    if columns.winner is not None:
        return count_votes(first, second, table.column(columns.winner), count)
    # Names say nothing here: the first side won.
    winner = pl.Series("winner", ["first"]).new_from_index(0, table.n)
    if columns.tie is not None:
        texts = table.column(columns.tie).cast(pl.String).str.strip_chars().str.to_lowercase().fill_null("")
        tied = texts.is_in(_TIED)
        unread = (~(tied | texts.is_in(_WON))).arg_true()
        if len(unread):
            row = int(unread[0])
            raise InputError(
                f"{columns.tie} at row {row} is {texts[row]!r}; say 1, true or tie, or 0, false or nothing"
            )
        winner = winner.set(tied, "tie")
    return count_votes(first, second, winner, count, sided={"first": 1, "tie": 0})


def _counts(table: Table, name: str) -> Floats:
    """How often each vote was cast.

    Raises:
        InputError: a cell that is empty, negative or no finite number.
    """
    counts = scores_with_gaps(table, name)
    wrong = np.flatnonzero(~(np.isfinite(counts) & (counts >= 0)))
    if len(wrong):
        row = int(wrong[0])
        cell = "empty" if np.isnan(counts[row]) else f"{counts[row]:g}"
        raise InputError(
            f"{table.path} column {name!r} at row {row} is {cell}; give how often each vote was cast, a finite number "
            ">= 0, or call the column otherwise where it says something else"
        )
    return counts


def read_wins(table: Table, id_column: str | None) -> dict[str, Any]:
    """The ballots of a table of wins: cell (row, column) is how often the row won over the column.

    Raises:
        InputError: no column names the rows, or one of them has no column.
    """
    from kofn.combination.rankings._votes import win_ballots

    if id_column is None:
        raise InputError(f"{table.path}: wins need names of the rows, which say whose each column is; give --id COL")
    names = [str(key) for key in table.ids(id_column)]
    checks.ids(names)
    missing = next((name for name in names if name not in table.columns), None)
    if missing is not None:
        raise InputError(f"{table.path} has a row {missing!r} and no column that is called so; give a column a row")
    return win_ballots(np.stack([scores_with_gaps(table, name) for name in names], axis=1), ids=names)
