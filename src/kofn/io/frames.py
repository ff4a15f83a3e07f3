"""Tables that are in memory already: pandas, polars (lazy too), Arrow, `datasets.Dataset` and dicts of columns.

Each is read as a file is, a column at a time and only those that are used, so that the same call gives the same answer.

    >>> table = FrameTable({"body": ["a cat", "a dog"], "age": [3, 4]})
    >>> table.n, table.columns, table.numbers("age").tolist()
    (2, ['body', 'age'], [3, 4])
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError, shown
from kofn.core.checks.arrays import as_array, is_sparse
from kofn.core.checks.columnar import is_arrow, plain_arrow
from kofn.core.checks.kinds import frame_kind, is_missing
from kofn.core.lazy import polars as pl
from kofn.io.json_text import HALF_A_PAIR, is_text
from kofn.io.panics import without_reports
from kofn.io.reading import Reading
from kofn.io.tables import Table

# What the plan of a lazy query says where its rows may come in another order when it is made again.
_UNORDERED = re.compile(r"\w+\[maintain_order: false|\w+ JOIN|\.sample\(|\.shuffle\(")


class FrameTable(Table):
    """A table in memory, its columns read as those of a file.

    Args:
        frame: what `frame_kind` knows, but for files.
        reading: what stands for a missing value, and what becomes of it.
        more: columns that stand beside the frame's own, or in their place.

    Raises:
        InputError: no columns or rows, columns of unlike lengths or names, a stream, which can be read once only.
    """

    def __init__(self, frame: Any, reading: Reading | None = None, more: Mapping[str, Any] | None = None) -> None:
        # Messages name the argument where they name the file of others.
        self.path = Path("X")
        self.reading = reading or Reading()
        self.kind = frame_kind(frame)
        self._read, self.columns, self.n = _opened(frame, self.kind)
        halved = next((name for name in self.columns if not is_text(name)), None)
        if halved is not None:
            raise InputError(f"X has a column named {halved!r}: it holds {HALF_A_PAIR}; rename it")
        twice = next((name for name in self.columns if self.columns.count(name) > 1), None)
        if twice is not None:
            raise InputError(f"X has two columns named {twice!r}; rename one")
        self._made: dict[str, pl.Series] = {}
        for name, values in (more or {}).items():
            series = as_series(name, values)
            if len(series) != self.n:
                raise InputError(f"{name} has {len(series)} values, X has {self.n} rows; give one a row")
            self._made[name] = series
        self.columns = list(dict.fromkeys([*self.columns, *self._made]))
        if not self.columns:
            raise InputError("X has no columns")
        if self.n == 0:
            raise InputError("X is empty: it has no rows")

    def hold(self, names: Iterable[str]) -> None:
        """Read these columns now, in one pass over what is lazy: a second one might bring the rows in another order."""
        if self.kind == "lazy":
            wanted = [name for name in dict.fromkeys(names) if name in self.columns and name not in self._made]
            self._made.update({series.name: series for series in self._read(wanted)})

    def _column(self, name: str) -> pl.Series:
        if name not in self._made:
            (self._made[name],) = self._read([name])
        return self._made[name]

    def _dtype(self, name: str) -> pl.DataType:
        return self._column(name).dtype

    def _take(self, wanted: NDArray[np.int64]) -> pl.DataFrame:
        return pl.DataFrame({name: self._column(name)[wanted] for name in self.columns})

    def _blocks(self, name: str, rows: int) -> Iterator[pl.Series]:
        series = self._column(name)
        for start in range(0, max(1, len(series)), rows):
            yield series[start : start + rows]


def unordered(frame: Any) -> str:
    """What makes a LazyFrame's rows come in no fixed order; empty where nothing does, or where it is sorted last."""
    plan = frame.explain(optimized=False)
    match = _UNORDERED.search(plan)
    return match[0].lstrip(".").rstrip("(") if match and not plan.startswith("SORT BY") else ""


def _opened(frame: Any, kind: str | None) -> tuple[Callable[[list[str]], list[pl.Series]], list[str], int]:
    """How columns are read by name, which there are, and the number of rows."""
    if kind == "columns":
        return _of_columns(frame)
    if kind == "pandas":
        named = {str(name): position for position, name in enumerate(frame.columns)}
        return (
            lambda names: [as_series(name, frame.iloc[:, named[name]]) for name in names],
            [str(name) for name in frame.columns],
            len(frame),
        )
    if kind == "polars":
        return lambda names: [frame[name] for name in names], frame.columns, frame.height
    if kind == "lazy":
        n = int(frame.select(pl.len()).collect(engine="streaming").item())
        columns = frame.collect_schema().names()
        return lambda names: frame.select(names).collect(engine="streaming").get_columns(), columns, n
    if kind == "datasets":

        def read(names: list[str]) -> list[pl.Series]:
            part = frame.select_columns(names).with_format("arrow")[:]
            return [as_series(name, part.column(name)) for name in names]

        return read, list(frame.column_names), len(frame)
    if kind == "splits":
        splits = list(map(str, frame))
        raise InputError(f"X is a dict of splits ({', '.join(splits)}); give one of them, as in X[{splits[0]!r}]")
    if kind == "stream":
        raise InputError(
            "X is a stream, which can be read once only, and picking rows takes two passes; write it to a file or a "
            "Dataset first, or give its batches to kofn.selection.SieveStreaming, which needs one pass"
        )
    if kind == "arrow":
        if type(frame).__module__.partition(".")[0] == "pyarrow":
            # A column at a time, of which those that are not used may hold anything.
            positions = {name: position for position, name in enumerate(frame.schema.names)}
            return (
                lambda names: [as_series(name, frame.column(positions[name])) for name in names],
                list(frame.schema.names),
                frame.num_rows,
            )
        whole = _from_arrow("X", lambda: pl.DataFrame(frame))
        return lambda names: [whole[name] for name in names], whole.columns, whole.height
    raise InputError(f"X is a {type(frame).__name__}; give a table: a DataFrame, an Arrow table or a dict of columns")


def _of_columns(columns: Mapping[str, Any]) -> tuple[Callable[[list[str]], list[pl.Series]], list[str], int]:
    lengths = {}
    for name, values in columns.items():
        if (
            isinstance(values, str | bytes | Mapping | Set)
            or not hasattr(values, "__len__")
            or getattr(values, "shape", None) == ()
        ):
            raise InputError(f"X column {name!r} is a {type(values).__name__}; give one value a row")
        lengths[name] = int(values.shape[0]) if is_sparse(values) else len(values)
    (first, n), *others = lengths.items()
    odd = next((name for name, length in others if length != n), None)
    if odd is not None:
        raise InputError(f"X column {odd!r} has {lengths[odd]} values and {first!r} has {n}; give one value a row")
    return lambda names: [as_series(name, columns[name]) for name in names], list(columns), n


def as_series(name: str, values: Any) -> pl.Series:
    """A column of any kind as polars reads a file's: what is missing is null, categories are names.

    Raises:
        InputError: values of several kinds, objects that no table holds, or a text with half of a surrogate pair.

    >>> as_series("age", [3, None, 5]).null_count()
    1
    """
    try:
        return _as_series(name, values)
    except UnicodeEncodeError:
        rows = values.tolist() if hasattr(values, "tolist") else list(values)
        row, value = next((row, value) for row, value in enumerate(rows) if not is_text(value))
        raise InputError(
            f"X column {name!r} at row {row} is {shown(value)}: it holds {HALF_A_PAIR}; take it out, as "
            "text.encode('utf-8', 'ignore').decode() does"
        ) from None


def _as_series(name: str, values: Any) -> pl.Series:
    package, kind = type(values).__module__.partition(".")[0], type(values).__name__
    if package == "polars":
        return values.alias(name)
    if package == "pandas":
        return _of_pandas(name, values)
    if package == "datasets":
        values = list(values)
    elif package == "pyarrow" or (hasattr(values, "__arrow_c_stream__") and kind in ("ChunkedArray", "Array")):
        label = f"X column {name!r}"
        plain = plain_arrow(values, label, keep_names=True) if is_arrow(values) else values
        return _from_arrow(label, lambda: pl.Series(name, plain))
    if is_sparse(values):
        raise InputError(f"X column {name!r} is a sparse matrix; give it alone as X, or dense (toarray())")
    if isinstance(values, list | tuple | range):
        return _of_objects(name, list(values))
    array = as_array(values, name)
    if not array.ndim:
        raise InputError(f"X column {name!r} is {shown(values)}; give a list of values, one a row")
    if array.dtype.name == "bfloat16" or array.dtype.name.startswith("float8"):
        array = array.astype(np.float32)
    if array.dtype.kind == "O":
        return _of_objects(name, array.tolist() if array.ndim == 1 else list(array))
    if array.ndim > 2:
        raise InputError(f"X column {name!r} has shape {array.shape}; give (n,) or (n, d), flatten each item")
    if array.dtype.kind in "US":
        return pl.Series(name, array.tolist())
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    if array.dtype.kind == "M" and np.datetime_data(array.dtype)[0] in ("s", "m", "h"):
        array = array.astype("datetime64[ms]")
    native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return pl.Series(name, np.ascontiguousarray(native))


def _from_arrow(label: str, made: Callable[[], Any]) -> Any:
    """What polars makes of Arrow data.

    Raises:
        InputError: it holds a type that polars does not know.
    """
    try:
        with without_reports():
            return made()
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        why = " ".join(str(error).split())[:160]
        raise InputError(
            f"{label} holds Arrow data that is not read ({why}); cast it, or write it to Parquet"
        ) from None


def _of_pandas(name: str, values: Any) -> pl.Series:
    kind = getattr(values.dtype, "name", "")
    if kind == "category":
        names = [None if is_missing(category) else str(category) for category in values.astype(object).tolist()]
        return pl.Series(name, names, pl.String).cast(pl.Categorical)
    if isinstance(values.dtype, np.dtype) and values.dtype.kind in "iufbmM":
        return pl.Series(name, np.ascontiguousarray(values.to_numpy()), nan_to_null=True)
    if getattr(values.dtype, "tz", None) is not None:
        return pl.Series(name, values.dt.tz_convert("UTC").dt.tz_localize(None).to_numpy()).dt.replace_time_zone("UTC")
    return _of_objects(name, values.tolist())


def _of_objects(name: str, values: list[Any]) -> pl.Series:
    """A column of Python values, which are of one kind but for those that are missing."""
    values = [None if is_missing(value) else value for value in values]
    # Whole fractions are whole numbers, which no float has to hold.
    values = [int(value) if isinstance(value, Fraction) and value.denominator == 1 else value for value in values]
    kinds = {_kind_of(value): row for row, value in reversed(list(enumerate(values))) if value is not None}
    rows = values
    if kinds.keys() == {"list"}:
        # Of arrays with missing ones among them polars makes no column by itself.
        rows = [value if value is None or isinstance(value, list) else _listed(name, value) for value in values]
    try:
        series = pl.Series(name, rows)
    except (TypeError, pl.exceptions.PolarsError):
        series = None
    if series is not None and series.dtype != pl.Object:
        return series
    if kinds.keys() <= {"int", "float", "bool", "Decimal"} and kinds:
        return pl.Series(name, values, strict=False)
    if len(kinds) > 1:
        shown = " and ".join(f"{kind} (first at row {row})" for kind, row in sorted(kinds.items(), key=lambda k: k[1]))
        raise InputError(f"X column {name!r} holds values of several kinds, {shown}; make them one kind, such as text")
    raise InputError(
        f"X column {name!r} holds objects of type {next(iter(kinds), 'None')}; give numbers, texts, dates or lists"
    )


def _kind_of(value: Any) -> str:
    is_list = isinstance(value, list | tuple | np.ndarray) or hasattr(value, "detach")
    return "list" if is_list else type(value).__name__


def _listed(name: str, value: Any) -> Any:
    """One cell of a column of lists: an array, a tensor or a tuple."""
    array = as_array(value, name)
    return pl.Series(array) if array.ndim == 1 and array.dtype.kind in "iufbUS" else array.tolist()
