"""Columns of scores: by bin, by judge, or one a row, with the gaps that a table may have."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError
from kofn.core.checks.exact import WHOLE, whole_as_floats
from kofn.core.lazy import polars as pl
from kofn.io.cells import is_number, odd_cell, remedy
from kofn.io.formats import Npy
from kofn.io.tables import Table
from kofn.tables.arguments import RowArguments
from kofn.tables.read import refuse_no_header
from kofn.tables.unlike import refuse_numbers_of_rows

# How many columns are named in one note.
_NAMED = 12
# The remedy where no column is of numbers.
_BY_NAME = "; name them with --columns"
# What an empty cell of a table of scores says.
_NO_BIN = "the row may not go to this bin"


def read_scores(
    table: Table, arguments: RowArguments, *, some_unlisted: bool = False
) -> tuple[NDArray[Any], tuple[str, ...], tuple[str, ...]]:
    """A table of scores, the names of its columns, and notes on those that were left out.

    Its columns are those that are named, else the one column of vectors, else every column of numbers that no other
    flag names; one of text that is mostly numbers is among them, so that what is none there is refused. With
    `some_unlisted`, a cell may be empty or -inf: the row may not go to that bin, and a column without any cell is a bin
    as well.
    """
    if isinstance(table, Npy):
        # Scores may hold -inf (a bin to avoid), which vectors may not; what else is wrong, `checks.scores` says.
        return _numbers_of(table), (), ()
    if arguments.vectors:
        return table.vectors(arguments.vectors, finite=not some_unlisted), (), ()
    names, gaps = arguments.columns, some_unlisted and arguments.empty == "refuse"
    notes: tuple[str, ...] = ()
    if not names:
        refuse_no_header(table)
        named = {getattr(arguments, field.name) for field in dataclasses.fields(arguments) if "_column" in field.name}
        kinds = {name: table.dtype(name) for name in table.columns if name not in named}
        matrices = [name for name, kind in kinds.items() if kind == "vector"]
        if len(matrices) == 1:
            return table.vectors(matrices[0], finite=not some_unlisted), (), ()
        numeric = [name for name in kinds if is_scores(table, name)]
        if not numeric:
            raise InputError(f"{table.path.name} has no numeric columns to take as scores{table.by_spaces or _BY_NAME}")
        unlisted = [name for name in kinds if gaps and name not in numeric and is_blank(table, name)]
        names = tuple(name for name in kinds if name in numeric or name in unlisted)
        if left := [name for name in kinds if name not in names]:
            few = ", ".join(map(repr, left[:_NAMED])) + (", ..." if len(left) > _NAMED else "")
            notes = (f"not taken as scores, as {'it is' if len(left) == 1 else 'they are'} not of numbers: {few}",)
    columns = [score_column(table, name, -np.inf, _NO_BIN) if gaps else table.numbers(name) for name in names]
    scores = np.stack(columns, axis=1)
    if not arguments.columns and arguments.id_column is None:
        refuse_numbers_of_rows(names, scores, str(table.path), "bin")
    return scores, tuple(names), notes


def is_blank(table: Table, name: str) -> bool:
    """Whether a column of another kind than numbers has no value at all, which is why its kind is not known."""
    column = table.column(name)
    return 0 < column.len() == column.null_count()


def _numbers_of(table: Npy) -> NDArray[Any]:
    """The array of a file, of numbers or booleans."""
    array = table.array()
    if array.dtype.kind not in "biuf":
        raise InputError(f"{table.path} holds an array of {array.dtype}; scores are numbers: save an array of them")
    return array


def score_column(table: Table, name: str, empty: float, meaning: str) -> NDArray[Any]:
    """A column of numbers, `empty` (an infinity) where a cell is empty or just that.

    Args:
        table: the table.
        name: the column.
        empty: what an empty cell is.
        meaning: what it says, for the refusal of NaN and of the other infinity.
    """
    column = table.column(name)
    if not column.null_count() and not (column.dtype.is_float() or column.dtype == pl.String):
        return table.numbers(name)
    scores = np.where(column.is_null().to_numpy(), empty, scores_with_gaps(table, name))
    wrong = np.isnan(scores) | (scores == -empty)
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(
            f"{table.path} column {name!r} at row {row} is {scores[row]:g}; give a finite number, or leave the cell "
            f"empty where {meaning}"
        )
    return scores


def read_judges(
    table: Table, columns: Sequence[str] | None, id_column: str | None
) -> tuple[tuple[str, ...], NDArray[Any]]:
    """The judges' names and their scores (rows, judges), NaN where a cell is empty: every numeric column, or those
    named."""
    if isinstance(table, Npy):
        scores = _numbers_of(table)
        scores = _compared(table, scores[:, None] if scores.ndim == 1 else scores)
        return tuple(str(i) for i in range(scores.shape[1])), scores
    if id_column:
        table.require(id_column)
    judges = columns or [name for name in table.columns if name != id_column and is_scores(table, name)]
    if not judges:
        raise InputError(f"{table.path} has no numeric columns to take as judges' scores{table.by_spaces or _BY_NAME}")
    scores = _compared(table, np.stack([scores_with_gaps(table, name) for name in judges], axis=1))
    if not columns and id_column is None:
        refuse_numbers_of_rows(judges, scores, str(table.path), "judge")
    return tuple(judges), scores


def _compared(table: Table, scores: NDArray[Any]) -> NDArray[Any]:
    """The scores (rows, judges), of which one judge has at least two."""
    rated = (~np.isnan(scores)).sum(axis=0)
    # A judge who rated nothing is refused by name later.
    if len(scores) > 1 and rated.min() == rated.max() == 1:
        raise InputError(
            f"{table.path}: no two of the {len(scores):,} rows were compared, as no judge rated more than one; give "
            "scores of at least two by one judge"
        )
    return scores


def is_scores(table: Table, name: str) -> bool:
    """True for a column of numbers, and for one of text that is mostly numbers: what is none there is refused."""
    kind = table.dtype(name)
    if kind != "text":
        return kind == "number"
    filled = table.reading.numbers(table.column(name)).drop_nulls()
    if filled.dtype != pl.String:
        return filled.dtype.is_numeric()
    if odd_cell(filled, table.reading.decimal) is not None:
        return True
    return int(is_number(filled, table.reading.decimal).sum()) * 2 > len(filled)


def scores_with_gaps(table: Table, name: str) -> NDArray[np.float64]:
    """A column of numbers, NaN where a cell is empty."""
    column = table.reading.numbers(table.column(name))
    numbers = column.cast(pl.Float64, strict=False) if not column.dtype.is_nested() else pl.Series([None] * table.n)
    wrong = numbers.is_null() & column.is_not_null()
    if wrong.any():
        odd = odd_cell(column, table.reading.decimal)
        if wrong.sum() * 2 > column.len() - column.null_count() and odd is None:
            kind = "text" if column.dtype == pl.String else str(column.dtype)
            raise InputError(f"{table.path} column {name!r} holds {kind} and no scores; leave it out of --columns")
        row = (wrong.arg_max() or 0) if odd is None else odd
        hint = remedy(str(column[row]), table.reading.decimal)
        hint = hint if odd is not None else f"correct it, or leave the cell empty; {hint}"
        raise InputError(f"{table.path} column {name!r} at row {row} is {column[row]!r}, which is not a number; {hint}")
    floats = numbers.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    if (column.dtype.is_integer() or column.dtype.is_decimal()) and np.nanmax(np.abs(floats), initial=0.0) >= WHOLE:
        # Unlike scores that floats round to the same would tie.
        exact = np.array([float("nan") if value is None else value for value in column.to_list()], object)
        return whole_as_floats(exact, f"{table.path} column {name!r}")
    return floats
