"""Tables in: CSV, TSV, Parquet, JSONL, NPY and NPZ, read by column first and by row last.

Picking rows needs a few columns of all rows, and then all columns of a few rows. A `Table` reads exactly that: the
used columns in one pass, the chosen rows in a second, so a file whose columns do not fit in memory together is fine.
`kofn.io.open_table` opens one.
"""

from __future__ import annotations

import re
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks import FailureError, InputError, nearest, refuse_nonfinite
from kofn.core.lazy import polars as pl
from kofn.io.cells import exact_numbers, missing_in, odd_cell, remedy, words_in
from kofn.io.reading import Reading
from kofn.io.vector_columns import VectorColumns

SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".npy", ".npz")
# What stands for no label, and the cells of text that are read as such: NA and nan are names, unless `--na` says so.
UNLABELLED = ""
_NO_LABEL = r"^\s*$"


class Table(VectorColumns, ABC):
    """A file of rows. Rows are counted from 0 in every message and argument.

    Attributes:
        path: where it is.
        n: number of rows.
        columns: names in the file's order. An NPY file has one, "vector" (2-d) or "value" (1-d); an NPZ file one for
            each array.
        reading: how its text is read.
        empty: (n,) the rows that miss a value in a column that was used; None where there are none.
        fills_names: True where some of those values are names.
    """

    path: Path
    n: int
    columns: list[str]
    reading: Reading = Reading()
    empty: NDArray[np.bool_] | None = None
    fills_names: bool = False

    def located(self, message: str) -> str:
        """The message of an error on this table, saying where in which file its rows stand if there are several."""
        return message

    @property
    def by_spaces(self) -> str:
        """The remedy of a table whose one column may be several with spaces between them; empty of others."""
        if len(self.columns) != 1 or len(self.columns[0].split()) < 2:
            return ""
        called = self.columns[0]
        return f"; it has one, {called!r}: if spaces separate its fields, say --delimiter ' ' (runs of them count once)"

    def require(self, name: str) -> str:
        """The column of this name, or of this name with spaces around it, else an error that offers the nearest one."""
        column = self._find(name)
        if column is not None:
            return column
        outer = self._find(name.split(".")[0]) if "." in name else None
        if outer is not None and self.dtype(outer) == "other":
            raise InputError(
                f"{self.path} has no column {name!r}: {outer!r} holds nested values; write what is wanted of them "
                "into a column of its own"
            )
        near = nearest(name, self.columns)
        shown = ", ".join(self.columns[:12]) + (", ..." if len(self.columns) > 12 else "")
        if name in re.split(r"[\s'\"]+", shown):
            near = self.by_spaces or near
        raise InputError(f"{self.path} has no column {name!r}{near or f'; it has {shown}'}")

    def named(self, parts: Sequence[str]) -> tuple[str, ...]:
        """The columns that a list with commas names, where a name may hold commas too: the longest is taken.

        Raises:
            InputError: a part is no column, or a column is named twice.
        """
        names: list[str] = []
        longest = 1 + max((name.count(",") for name in self.columns), default=0)
        start = 0
        while start < len(parts):
            ends = range(min(start + longest, len(parts)), start, -1)
            end = next((e for e in ends if self._find(",".join(parts[start:e])) is not None), start + 1)
            names.append(self.require(",".join(parts[start:end])))
            start = end
        counts = Counter(names)
        twice = next((name for name in names if counts[name] > 1), None)
        if twice is not None:
            raise InputError(f"column {twice!r} is named twice; name it once")
        return tuple(names)

    def _find(self, name: str) -> str | None:
        if name in self._names:
            return name
        return self._stripped.get(name.strip())

    @cached_property
    def _names(self) -> frozenset[str]:
        return frozenset(self.columns)

    @cached_property
    def _stripped(self) -> dict[str, str]:
        """The columns by their names without spaces around them, where no two are alike so."""
        stripped = Counter(name.strip() for name in self.columns)
        return {name.strip(): name for name in self.columns if stripped[name.strip()] == 1}

    @property
    def types(self) -> dict[str, pl.DataType]:
        """What polars calls the types of the columns, without reading the rows where the file says them."""
        with reading_file(self.path):
            return {name: self._dtype(name) for name in self.columns}

    def column(self, name: str) -> pl.Series:
        """All values of one column, typed, missing ones null. O(n) memory; no other column is read.

        Empty text is missing, in any format: an empty cell of a CSV file is nothing else.
        A CSV cell becomes a number only if that loses nothing but the spelling of decimals: `007` stays text.
        """
        name = self.require(name)
        with reading_file(self.path):
            series = self.reading.without_na(self._column(name))
        return series.set(series == "", None) if series.dtype == pl.String else series

    def blocks(self, name: str, rows: int) -> Iterator[pl.Series]:
        """The values of one column in order, in blocks of about so many rows."""
        blocks = self._blocks(name, rows)
        while True:
            with reading_file(self.path):
                block = next(blocks, None)
            if block is None:
                return
            yield block

    def take(self, indices: Iterable[int] | Array) -> pl.DataFrame:
        """The rows at `indices`, all original columns, in the given order, types and keys untouched.

        NPY and NPZ files have no key: a column `row` with the row number stands first. Memory: the chosen rows and a
        few blocks of the file; time: one pass over it.
        """
        wanted = np.asarray(list(indices) if not isinstance(indices, np.ndarray) else indices)
        wanted = wanted.astype(np.int64) if wanted.size == 0 else wanted
        if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
            raise InputError(f"indices has dtype {wanted.dtype}, shape {wanted.shape}; give a list of row numbers")
        out = (wanted < 0) | (wanted >= self.n)
        if out.any():
            raise InputError(f"indices names row {wanted[out][0]}; {self.path} has rows 0..{self.n - 1}")
        with reading_file(self.path):
            return self._take(wanted.astype(np.int64))

    def lines(self, indices: NDArray[np.int64]) -> list[bytes] | None:  # noqa: ARG002 (of JSON lines, see there)
        """The rows at `indices` as they stand in a file of JSON lines, without line ends; None of other files."""
        return None

    def numbers(self, name: str) -> Array:
        """A column of finite numbers, (n,): int64 (uint64 beyond it) if they are whole in the file, else float64."""
        series = self._without_gaps_or_refused(self.reading.numbers(self.column(name)), name)
        if series.dtype == pl.String:
            odd = odd_cell(series, self.reading.decimal)
            if odd is None:
                odd = series.cast(pl.Float64, strict=False).is_null().arg_max() or 0
                hint = f"correct it, or leave the row out; {remedy(series[odd], self.reading.decimal)}"
            else:
                hint = remedy(series[odd], self.reading.decimal)
            raise InputError(f"{self._place(name, odd)} is {series[odd]!r}, which is not a number; {hint}")
        if not (series.dtype.is_numeric() or series.dtype == pl.Boolean):
            raise InputError(f"{self.path} column {name!r} holds {series.dtype}; give a column of numbers")
        values = exact_numbers(series, f"{self.path} column {name!r}")
        refuse_nonfinite(values, f"{self.path} column {name!r}")
        return values

    def compared(self, name: str) -> pl.Series:
        """A column that rows are compared by: names, or numbers none of whose cells is spelt otherwise.

        Text all of whose cells are numbers is numbers, whatever the format.

        Raises:
            InputError: a cell such as `NA`, `1,200` or `85.2%` among numbers, which would make names of all of them;
                nested values.
        """
        series = self.reading.numbers(self.column(name))
        if self._is_nested(name, series):
            raise InputError(f"{self.path} column {name!r} holds objects or lists; compare by --text, or leave it out")
        odd = odd_cell(series, self.reading.decimal)
        if odd is not None:
            cell = str(series[odd])
            kind = "dates" if series.str.contains(r"\d[/:-]\d|\d\.\d+\.\d").sum() * 2 > len(series) else "numbers"
            hint = remedy(cell, self.reading.decimal, compared=True)
            raise InputError(f"{self._place(name, odd)} is {cell!r} in a column of {kind}; {hint}")
        return self._without_gaps(series)

    def names(self, name: str) -> pl.Series:
        """A column that rows are compared by, as names, however they are written."""
        series = self.column(name)
        return self._without_gaps(series if series.dtype.is_nested() else series.cast(pl.String)).cast(pl.Categorical)

    def _without_gaps(self, series: pl.Series) -> pl.Series:
        """The column as it is, or with its missing values (NaN too) filled and their rows noted."""
        if series.dtype.is_float() and self.reading.empty != "refuse":
            series = series.fill_nan(None)
        if self.reading.empty == "refuse" or not series.null_count():
            return series
        if series.null_count() == len(series):
            how = self.reading.empty.replace("_", " ")
            outcome = "--drop-empty leaves no row" if how == "drop" else f"there is no {how} to fill it with"
            raise InputError(f"{self.path} column {series.name!r} has no value, so {outcome}; leave the column out")
        self._note_gaps(series)
        self.fills_names = self.fills_names or not (series.dtype.is_numeric() or series.dtype.is_temporal())
        return self.reading.filled(series)

    def _note_gaps(self, series: pl.Series) -> None:
        """Note which rows miss a value of the column."""
        self._mark(series.is_null().to_numpy())

    def _mark(self, missing: NDArray[np.bool_]) -> None:
        if missing.any():
            self.empty = missing if self.empty is None else np.logical_or(self.empty, missing)

    def labels(self, name: str) -> Array:
        """A column as text, (n,), for groups: 3 is "3", true is "true"."""
        series = self._filled(name)
        if series.dtype.is_nested() or self._is_nested(name, series):
            raise InputError(f"{self.path} column {name!r} holds nested values; give a column of names or numbers")
        return np.array(series.cast(pl.String).to_list())

    def _is_nested(self, name: str, series: pl.Series) -> bool:
        """Whether a column that is read as text holds objects or lists, as JSON lines may."""
        return series.dtype == pl.String and self.dtype(name) == "other" and series.null_count() < len(series)

    def labels_so_far(self, name: str) -> Array:
        """A column of labels that is filled in part, as text, (n,): empty cells and NaN are `UNLABELLED`."""
        series = self.column(name)
        if series.dtype.is_nested():
            raise InputError(f"{self.path} column {name!r} holds {series.dtype}; give a column of names or numbers")
        if series.dtype.is_float():
            series = series.fill_nan(None)
        text = series.cast(pl.String)
        return np.array(text.set(text.str.contains(_NO_LABEL), None).fill_null(UNLABELLED).to_list(), dtype=str)

    def ids(self, name: str) -> Array:
        """A column of keys as they stand in the file, (n,): whole numbers or text. They are not checked to differ."""
        series = self._filled(name)
        if series.dtype.is_nested():
            raise InputError(f"{self.path} column {name!r} holds {series.dtype}; give a column of keys")
        if series.dtype.is_integer() and series.dtype != pl.Int128:
            return series.to_numpy()
        return np.array(series.cast(pl.String).to_list())

    def texts(self, name: str) -> pl.Series:
        """A column of text; missing cells are texts without a word. Of nested values (a chat) the texts in them."""
        series = self.column(name)
        if series.dtype == pl.Binary or self.dtype(name) == "vector":
            raise InputError(f"{self.path} column {name!r} holds {series.dtype}; give a column of text")
        if self.reading.empty == "drop":
            self._note_gaps(series)
        return self._as_texts(series)

    def text_blocks(self, name: str, rows: int) -> Iterator[pl.Series]:
        """The values of `texts` in order, in blocks of about so many rows; cells of CSV as they are written."""
        name = self.require(name)
        for block in self.blocks(name, rows):
            yield self._as_texts(self.reading.without_na(block))

    def _as_texts(self, series: pl.Series) -> pl.Series:
        if series.dtype.is_nested():
            return pl.Series(series.name, [words_in(value) for value in series.to_list()], pl.String)
        return series.cast(pl.String).fill_null("")

    def vectors(self, name: str, *, finite: bool = True) -> Array:
        """A column of equally long vectors as (n, d): float16, float32 and float64 kept, whole numbers to float32.

        With `finite=False`, NaN and infinities are the caller's to judge.

        Lists, fixed-size lists, arrays, and text such as `[0.1, 2]` (how CSV holds a vector) are read. Memory: the
        result and a few blocks of the column.

        Raises:
            InputError: a missing vector, one of another length, a value that is NaN, infinite or missing (row, column).
        """
        name = self.require(name)
        with reading_file(self.path):
            X = self._vectors(name)
        if X.shape[1] == 0:
            raise InputError(f"{self._place(name, 0)} is an empty vector; drop those rows first")
        if self.reading.empty == "drop":
            gaps = np.asarray(np.isnan(X).any(axis=1))
            X[gaps] = 0
            self._mark(gaps)
        if finite:
            refuse_nonfinite(X, f"{self.path} column {name!r}")
        return X

    def dtype(self, name: str) -> str:
        """The kind of the column's values, in one word: "number", "text", "vector", "date", "boolean" or "other"."""
        name = self.require(name)
        with reading_file(self.path):
            dtype = self._dtype(name)
        if isinstance(dtype, pl.List | pl.Array):
            return "vector" if isinstance(dtype.inner, pl.DataType) and dtype.inner.is_numeric() else "other"
        if dtype == pl.String or dtype == pl.Categorical or dtype == pl.Enum:
            return "text"
        if dtype == pl.Boolean:
            return "boolean"
        return "number" if dtype.is_numeric() else "date" if dtype.is_temporal() else "other"

    def _filled(self, name: str) -> pl.Series:
        return self._without_gaps_or_refused(self.column(name), name)

    def _without_gaps_or_refused(self, series: pl.Series, name: str) -> pl.Series:
        """A column that is not compared: missing values are never made up, so their rows go or are refused."""
        if self.reading.empty == "drop":
            series = self._without_gaps(series)
        missing = missing_in(series)
        count = int(missing.sum())
        if count:
            more = f" ({count} such rows)" if count > 1 else ""
            row = missing.arg_max() or 0
            raise InputError(
                f"{self._place(name, row)} is {'empty' if series[row] is None else 'NaN'}{more}; {self.reading.drop}"
            )
        return series

    @abstractmethod
    def _column(self, name: str) -> pl.Series: ...

    @abstractmethod
    def _dtype(self, name: str) -> pl.DataType: ...

    @abstractmethod
    def _take(self, wanted: NDArray[np.int64]) -> pl.DataFrame: ...


@contextmanager
def located(table: Table) -> Iterator[None]:
    """Within it, errors on a table of several files say in which of them their rows stand."""
    try:
        yield
    except InputError as error:
        message = table.located(str(error))
        if message == str(error):
            raise
        raise type(error)(message) from None


def broken() -> tuple[type[BaseException], ...]:
    """What readers raise of a damaged file."""
    return (
        pl.exceptions.PolarsError,
        pl.exceptions.PanicException,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
        NotImplementedError,  # an archive compressed in a way that zipfile does not know
    )


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 160 else text[:157] + "..."


@contextmanager
def reading_file(path: Path) -> Iterator[None]:
    """Turn readers' errors into one line that names the file."""
    try:
        yield
    except broken() as error:
        raise InputError(f"{path} cannot be read: {one_line(error)}; check or write the file again") from None
    except MemoryError:
        raise FailureError(f"{path}: not enough memory to read it; name fewer columns") from None
    except OSError as error:
        raise FailureError(f"{path} cannot be read: {error.strerror or one_line(error)}") from None
