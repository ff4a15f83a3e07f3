"""Columns of vectors of a table, filled block by block: lists, arrays, and text such as `[0.1, 2]`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.io.cells import as_floats
from kofn.io.reading import Reading

_CHUNK_BYTES = 32 << 20


class VectorColumns:
    """What a table reads its vectors with.

    Attributes:
        path: where the table is.
        n: number of rows.
        reading: how its text is read, and what becomes of rows without a vector.
    """

    path: Path
    n: int
    reading: Reading

    def _place(self, name: str, row: int) -> str:
        return f"{self.path} column {name!r} at row {row}"

    def _blocks(self, name: str, rows: int) -> Iterator[pl.Series]:
        """The column in order, in blocks of about `rows` rows."""
        raise NotImplementedError

    def _first_vector(self, name: str) -> pl.Series:
        """The first value of the column, or the first that is not missing; empty where all are."""
        known = (block[:1] for block in self._blocks(name, 1) if not block[:1].null_count())
        return next(known, pl.Series(name, []))

    def _vector_layout(self, name: str) -> tuple[int, np.dtype[Any]]:
        """How long the vectors are, and their type: by the column's own type where that says so, else by the first.

        Raises:
            InputError: there is none.
        """
        kind = self._dtype(name)
        if isinstance(kind, pl.Array) and len(kind.shape) == 1 and kind.inner in (pl.Float32, pl.Float64):
            return int(kind.shape[0]), np.dtype(np.float32 if kind.inner == pl.Float32 else np.float64)
        first = self._first_vector(name)
        head = self._vector_block(name, first if len(first) else pl.Series([None]), 0, None)
        return int(head.shape[1]), head.dtype

    def _dtype(self, name: str) -> pl.DataType:
        """What polars calls the type of the column."""
        raise NotImplementedError

    def _vectors(self, name: str) -> Array:
        """(n, d) filled block by block; the width and the dtype are those of the first row."""
        first = self._first_vector(name)
        if not len(first):
            if self.reading.empty != "drop":
                raise InputError(f"{self._place(name, 0)} is empty; {self.reading.drop}")
            raise InputError(f"{self.path} has no rows with a vector in column {name!r}")
        head = self._vector_block(name, first, 0, None)
        width = head.shape[1]
        rows = max(1024, _CHUNK_BYTES // max(1, width * head.dtype.itemsize))
        X = np.empty((self.n, width), head.dtype)
        done = 0
        for block in self._blocks(name, rows):
            X[done : done + len(block)] = self._vector_block(name, block, done, width)
            done += len(block)
        return X

    def _vector_block(self, name: str, block: pl.Series, start: int, width: int | None) -> Array:
        """One block as (rows, width); refuse values that are missing, not a vector, or of another length."""
        missing = block.is_null().to_numpy()
        drops = self.reading.empty == "drop"
        if missing.any() and not drops:
            raise InputError(f"{self._place(name, start + int(missing.argmax()))} is empty; {self.reading.drop}")
        rows = start + np.flatnonzero(~missing)
        block = block.drop_nulls()
        if block.dtype == pl.String:
            block = self._decode(name, block, rows)
        if block.dtype == pl.Array:
            block = block.arr.to_list()
        inner = block.dtype.inner if isinstance(block.dtype, pl.List) else None
        if inner is None or not (inner.is_numeric() or inner in (pl.Null, pl.Boolean)):
            raise InputError(f"{self.path} column {name!r} holds {block.dtype}; give a column of lists of numbers")
        lengths = block.list.len().to_numpy()
        width = int(lengths[0]) if width is None else width
        odd = np.flatnonzero(lengths != width)
        if len(odd):
            raise InputError(
                f"{self._place(name, int(rows[odd[0]]))} has {lengths[odd[0]]} values, row 0 has {width}; "
                "give vectors of one length"
            )
        flat = block.explode() if width else block.head(0).explode()
        if flat.null_count() and not drops:
            row, column = divmod(flat.is_null().arg_max() or 0, width)
            raise InputError(f"{self._place(name, int(rows[row]))}, column {column} is empty; {self.reading.drop}")
        values = as_floats(flat, f"{self.path} column {name!r}").reshape(len(block), width)
        if not missing.any():
            return values
        vectors = np.full((len(missing), width), np.nan, values.dtype)
        vectors[~missing] = values
        return vectors

    def _decode(self, name: str, block: pl.Series, rows: NDArray[np.int64]) -> pl.Series:
        """Vectors that were written as text."""
        fine = block.str.contains(r"^\s*\[\s*([0-9eE+\-.]+(\s*,\s*[0-9eE+\-.]+)*)?\s*\]\s*$")
        if not fine.all():
            row = (~fine).arg_max() or 0
            shown = block[row] if len(block[row]) <= 40 else block[row][:37] + "..."
            raise InputError(
                f"{self._place(name, int(rows[row]))} is {shown!r}; give a list of numbers, as in [0.1, 2.5]"
            )
        numbers = block.str.strip_chars(" \t\r\n[]").str.split(",")
        try:
            # An empty list is written [] and would be split into one empty text.
            return numbers.list.eval(pl.element().str.strip_chars().filter(pl.element() != "").cast(pl.Float64))
        except pl.exceptions.PolarsError:
            row = next(i for i, cell in enumerate(block) if not _parses(cell))
            raise InputError(
                f"{self._place(name, int(rows[row]))} is not a list of numbers; write [0.1, 2.5]"
            ) from None


def _parses(cell: str) -> bool:
    try:
        [float(part) for part in cell.strip(" \t\r\n[]").split(",") if part.strip()]
    except ValueError:
        return False
    return True
