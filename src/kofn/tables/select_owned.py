"""Rows that are owned already, `--private` beside `--dedupe` alone: they stay, rows that repeat them are dropped."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.checks.kinds import frame_kind, holds_texts
from kofn.io.frames import FrameTable
from kofn.io.many import open_tables
from kofn.io.tables import Table
from kofn.tables.read import lines_of, read_vectors
from kofn.tables.select_arguments import SelectArguments

_LINES = (".txt", ".text")


class Owned(NamedTuple):
    """Owned rows, compared by what the pool's rows are compared by: one of texts, columns and X.

    Attributes:
        name: what they are called in a message.
        values: texts, a frame or vectors.
        rows: row numbers of their own table.
        keys: their ids, or these row numbers.
    """

    name: str
    values: Any
    rows: NDArray[np.int64]
    keys: NDArray[Any]

    def before(self, compared: dict[str, Any]) -> dict[str, Any]:
        """What near-duplicates are found by, the owned rows first.

        Raises:
            InputError: they hold values of another kind or width.
        """
        (word,) = compared.keys() - {"metric"}
        own = compared[word]
        if word == "X":
            if self.values.shape[1] != own.shape[1]:
                raise InputError(
                    f"{self.name} has vectors of {self.values.shape[1]} numbers, the rows of {own.shape[1]}; "
                    "make both by the same model"
                )
            return {word: np.concatenate([self.values, own])}
        if word == "texts":
            return {word: pl.concat([self.values.cast(pl.String), own.cast(pl.String)])}
        for theirs, ours in zip(self.values, own, strict=True):
            if theirs.dtype.is_numeric() != ours.dtype.is_numeric():
                raise InputError(
                    f"column {ours.name!r} holds {_kind(theirs)} in {self.name} and {_kind(ours)} in the rows; give "
                    f"both the same, or say --categories {ours.name} to compare it by names"
                )
        try:
            return {word: pl.concat([self.values, own], how="vertical_relaxed")}
        except pl.exceptions.PolarsError as error:
            raise InputError(
                f"{self.name} has columns of other types than the rows: {error}; save both alike"
            ) from None


def _kind(series: pl.Series) -> str:
    return "numbers" if series.dtype.is_numeric() else "names"


def owned_rows(arguments: SelectArguments) -> Owned:
    """The rows of `--private`: a file, several by a glob, or in Python texts, a table or vectors.

    Raises:
        InputError: no such file, or it lacks the column that rows are compared by.
    """
    source = arguments.private
    name = f"--private {source}" if isinstance(source, str) else "private"
    if not isinstance(source, str | os.PathLike) and frame_kind(source) is None and not holds_texts(source):
        if arguments.text or arguments.columns:
            raise InputError(f"private={checks.shown(source)}: give a file, a table or texts, as the rows are")
        X = checks.matrix(source, "private")
        rows = np.arange(len(X))
        return Owned(name, X, rows, rows)
    table = _table_of(source, arguments, name)
    values: Any
    if arguments.text:
        values = table.texts(table.require(arguments.text))
    elif arguments.columns:
        values = frame_of(table, arguments)
    else:
        values = read_vectors(table, arguments).X
    rows = np.arange(table.n)
    if arguments.empty == "drop" and table.empty is not None:
        rows = np.flatnonzero(~table.empty)
        values = values[rows]
    column = arguments.id_column
    return Owned(name, values, rows, rows if column is None or column not in table.columns else table.ids(column)[rows])


def frame_of(table: Table, arguments: SelectArguments) -> pl.DataFrame:
    """The columns that rows are compared by, those of names as names."""
    names = set(arguments.categories or ())
    columns = [table.require(column) for column in arguments.columns or ()]
    return pl.DataFrame([(table.names if c in names else table.compared)(c) for c in columns])


def _table_of(source: Any, arguments: SelectArguments, name: str) -> Table:
    """The table of owned rows; lines of a text file, and a list of texts, are its one column."""
    column = arguments.text or "text"
    if isinstance(source, str | os.PathLike) and frame_kind(source) != "file":
        path = Path(source)
        if path.suffix.lower() not in _LINES:
            return open_tables([source], arguments.reading)
        if not path.is_file():
            raise InputError(f"{name}: no such file")
        source = {column: lines_of(str(path), "private")}
    elif frame_kind(source) == "file":
        return open_tables([source], arguments.reading)
    elif frame_kind(source) is None:
        source = {column: source}
    table = FrameTable(source, arguments.reading)
    table.path = Path(name.removeprefix("--private "))
    return table
