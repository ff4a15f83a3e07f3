"""`kofn.combine` of a leaderboard: the judges are the columns of numbers of a table, as for the command."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.checks.kinds import frame_kind
from kofn.core.lazy import polars as pl
from kofn.io.frames import FrameTable
from kofn.io.opening import open_table
from kofn.io.reading import suffix_of
from kofn.io.tables import Table
from kofn.tables.asked import index_as_ids, reading_of
from kofn.tables.long_form import refuse_long_form
from kofn.tables.read import TABLES
from kofn.tables.scores import read_judges
from kofn.tables.spelling import speaking_python
from kofn.tables.votes import BY_WINS, read_wins, refuse_votes, refuse_words_of_judges

# Words of a table of scores, beside `ids`, which may name a column.
_OF_SCORES = ("columns", "na", "decimal", "wins")
_READ = ("pandas", "polars")  # frames that `rankings` are read from anyway


def asks_for_a_ranking(given: Mapping[str, Any]) -> bool:
    """Whether `rankings`, or what is given in the place of members, is a table whose columns are to be read by name."""
    source = given.get("rankings")
    if source is None:
        return _is_leaderboard(given.get("members"))
    kind = frame_kind(source)
    return kind is not None and (kind not in _READ or any(given.get(word) is not None for word in _OF_SCORES))


def _is_leaderboard(members: Any) -> bool:
    """Whether this is a table, and no mapping of tensors: of a dict, columns of one length, and no arrays of more."""
    kind = frame_kind(members)
    if kind == "file":
        return suffix_of(Path(members)) in TABLES
    if kind != "columns":
        return kind is not None
    columns = list(members.values())
    if any(isinstance(column, Mapping | str) or not hasattr(column, "__len__") for column in columns):
        return False
    shapes = {tuple(getattr(column, "shape", (len(column),))) for column in columns}
    return len(columns) > 1 and len(shapes) == 1 and len(shapes.pop()) == 1


def rank(run: Callable[..., Any], method: Any, options: Mapping[str, Any], given: Mapping[str, Any]) -> Any:
    """The ranking of a table's rows by its columns.

    Args:
        run: the verb itself, of arrays.
        method: its name, "auto" or a callable.
        options: the method's options that were given as a mapping.
        given: every other argument, none of them None.

    Raises:
        InputError: members and rankings are both given; a table that cannot be read, or without numbers.
    """
    return speaking_python(lambda: _ranked(run, method, options, dict(given)))


def _ranked(run: Callable[..., Any], method: Any, options: Mapping[str, Any], words: dict[str, Any]) -> Any:
    word = "rankings" if "rankings" in words else "members"
    if word == "rankings" and "members" in words:
        raise InputError("members and rankings are both given; a ranking is made of rankings alone, leave members out")
    source = words.pop(word)
    if frame_kind(source) in _READ and not any(words.get(each) is not None for each in _OF_SCORES):
        return run(method=method, options=dict(options), rankings=source, **words)
    columns, wins = words.pop("columns", None), checks.flag(words.pop("wins", False), "wins")
    reading = reading_of(words)
    with checks.reading("rankings", source):
        beside: dict[str, Any] = {}
        named_by: dict[str, Any] = {}
        if wins and "ids" not in words:
            index_as_ids(source, named_by, beside)
            if named_by:
                words["ids"] = named_by["id_column"]
        file = frame_kind(source) == "file"
        table: Table = open_table(source, reading) if file else FrameTable(source, reading, beside)
    if isinstance(table, FrameTable):
        table.path = Path("rankings")
    named = _named(table, columns)
    keys = words.get("ids")
    id_column = table.require(keys) if isinstance(keys, str) else None
    if wins:
        refuse_words_of_judges(str(table.path), columns, {name: words.get(name) for name in ("weights", "lower")})
        ballots = read_wins(table, id_column)
        named_method = BY_WINS if method == "auto" else method
        return run(method=named_method, options=dict(options), **{**words, **ballots})
    if id_column is not None:
        words["ids"] = table.ids(id_column)
    if named is None:
        refuse_votes(table)
        refuse_long_form(table, id_column, _ballots)
    judges, scores = read_judges(table, named, id_column)
    frame = pl.DataFrame({judge: scores[:, column] for column, judge in enumerate(judges)})
    return run(method=method, options=dict(options), rankings=frame, **words)


def _ballots(columns: Sequence[str]) -> str:
    """The call that ranks these columns of a frame in the long form, of which the last holds the scores."""
    # A word in capitals stands for a column that the user knows.
    system, judge, *item, score = (name if name.isupper() else f"frame[{name!r}]" for name in columns)
    return f"kofn.combine(**kofn.combination.long_ballots({', '.join([system, judge, score, *item])}))"


def _named(table: Table, columns: str | Sequence[str] | None) -> Sequence[str] | None:
    """The columns that judge, as the table spells them."""
    if columns is None:
        return None
    return table.named((columns,) if isinstance(columns, str) else tuple(columns))
