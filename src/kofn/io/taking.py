"""Rows of whatever holds them, given back as the same kind: what `plan.take` returns.

>>> taken(["a", "b", "c"], np.array([2, 0])), taken({"x": [1, 2, 3]}, np.array([1]))
(['c', 'a'], {'x': [2]})
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError, is_sparse, reading, shown
from kofn.core.checks.kinds import frame_kind

_ROW, _RANK = "__kofn_row__", "__kofn_rank__"


def taken(data: Any, rows: NDArray[np.int64]) -> Any:
    """The rows at these positions, in this order, as the kind that `data` is; lazy frames stay lazy.

    Raises:
        InputError: a kind without rows that can be asked for.
    """
    with reading("data", data, "rows by number: a frame, an array, a tensor, a list, a Dataset"):
        return _taken(data, rows)


def _taken(data: Any, rows: NDArray[np.int64]) -> Any:
    kind = frame_kind(data)
    if kind == "pandas" or (_package(data) == "pandas" and hasattr(data, "iloc")):
        return data.iloc[rows]
    if kind == "lazy":
        return _of_lazy(data, _ROW, rows)
    if kind == "datasets":
        return data.select(rows)
    if kind == "columns":
        return {name: _taken(column, rows) for name, column in data.items()}
    if kind == "file":
        from kofn.io.opening import open_table

        return open_table(data).take(rows)
    if kind in ("stream", "splits"):
        fault = "a stream, whose rows have no numbers" if kind == "stream" else "a dict of splits; give one of them"
        raise InputError(f"data is {fault}")
    if _package(data) == "pyarrow":
        return data.take(rows)
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(data, torch.Tensor):
        return data[torch.tensor(rows.tolist(), dtype=torch.int64, device=data.device)]
    if torch is not None and isinstance(data, torch.utils.data.Dataset):
        return torch.utils.data.Subset(data, rows.tolist())
    if is_sparse(data):
        return (data if data.format in ("csr", "csc", "lil", "dok") else data.tocsr())[rows]
    if isinstance(data, str | bytes | Mapping):
        raise InputError(f"data={shown(data)}: give the rows: a frame, an array, a tensor, a list, a Dataset")
    if isinstance(data, Sequence) and not hasattr(data, "dtype"):
        picked = [data[row] for row in rows.tolist()]
        return tuple(picked) if isinstance(data, tuple) else picked
    return data[rows]


def length_of(data: Any) -> int | None:
    """How many rows there are; None where that is not known beforehand."""
    kind = frame_kind(data)
    if kind in ("lazy", "stream", "splits") or isinstance(data, str | bytes):
        return None
    if kind == "file":
        from kofn.io.opening import open_table

        return open_table(data).n
    if kind == "columns":
        lengths = {length_of(column) for column in data.values()}
        return lengths.pop() if len(lengths) == 1 else None
    if getattr(data, "shape", ()):
        return int(data.shape[0])
    return len(data) if hasattr(data, "__len__") else None


def positions_of(data: Any, column: str, keys: Any) -> NDArray[np.int64]:
    """The row of each key in a frame's column of ids, wherever it stands.

    Raises:
        InputError: no such column, or a key that no row has.
    """
    from kofn.core import checks
    from kofn.io.frames import FrameTable

    table = FrameTable(data)
    ids = checks.ids(table.ids(column), f"column {column!r}")
    return checks.positions(np.asarray(keys).astype(ids.dtype), "the plan", len(ids), ids)


def taken_by_id(data: Any, column: str, keys: Any) -> Any:
    """The rows with these ids, in this order, as the kind that `data` is."""
    kind = frame_kind(data)
    if kind == "lazy":
        return _of_lazy(data, column, keys)
    if kind is None or kind in ("file", "stream", "splits"):
        raise InputError(f"ids={column!r} names a column, and data is a {type(data).__name__}; give a frame")
    if kind == "pandas" and column == data.index.name and column not in data.columns:
        data_of_ids = data.index.to_frame(index=False)
        return data.iloc[positions_of(data_of_ids, column, keys)]
    return _taken(data, positions_of(data, column, keys))


def holds_ids(data: Any) -> bool:
    """Whether this is a frame whose columns can be looked at now."""
    return frame_kind(data) in ("pandas", "polars", "arrow", "datasets", "columns", "file")


def found_by_ids(data: Any, ids: Any, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows where a frame's index or column says that the ids of these positions stand now.

    It says so where it holds exactly the plan's ids, in whatever order; in no other case are rows moved.

    Raises:
        InputError: two columns hold them in different orders.
    """
    wanted = np.asarray(ids)
    numbers = wanted.dtype.kind in "iu"
    wanted = wanted.astype(np.int64 if numbers else str)
    order_of_ids = np.sort(wanted)
    places_of: dict[str, NDArray[np.int64]] = {}
    for name, values in _columns_like(data, numbers=numbers, n=len(wanted)):
        if np.array_equal(values, wanted):
            return rows
        order = np.argsort(values, kind="stable")
        if np.array_equal(values[order], order_of_ids):
            places_of[name] = order[np.searchsorted(order_of_ids, wanted[rows])].astype(np.int64)
    places = list(places_of.values())
    if any(not np.array_equal(places[0], other) for other in places[1:]):
        first, second = list(places_of)[:2]
        raise InputError(f"{first!r} and {second!r} both hold the plan's ids, in different orders; name one by ids=")
    return places[0] if places else rows


def _columns_like(data: Any, *, numbers: bool, n: int) -> Iterator[tuple[str, NDArray[Any]]]:
    """The index, unless it counts the rows, and the columns of a frame that may hold ids: whole numbers, or texts."""
    from kofn.io.frames import FrameTable
    from kofn.io.opening import open_table

    kind = frame_kind(data)
    if kind == "pandas" and data.index.nlevels == 1:
        index = np.asarray(data.index)
        counts = index.dtype.kind in "iu" and np.array_equal(index, np.arange(len(index)))
        if len(index) == n and not counts and (index.dtype.kind in "iu") == numbers:
            yield str(data.index.name or "index"), index.astype(np.int64 if numbers else str)
    try:
        table = open_table(data) if kind == "file" else FrameTable(data)
    except InputError:  # a frame that no verb would take is still one whose rows have numbers
        return
    for name in table.columns:
        if table.dtype(name) == ("number" if numbers else "text"):
            values = table.column(name)
            if len(values) == n and not values.null_count() and (values.dtype.is_integer() or not numbers):
                yield name, values.to_numpy().astype(np.int64 if numbers else str)


def as_polars(rows: Any) -> Any:
    """A table of any kind as a polars frame."""
    import polars as pl

    from kofn.io.frames import FrameTable

    table = FrameTable(rows)
    table.hold(table.columns)
    return pl.DataFrame([table.column(name) for name in table.columns])


def _of_lazy(frame: Any, column: str, keys: Any) -> Any:
    """The rows of a LazyFrame whose number or id is among `keys`, in their order."""
    import polars as pl

    numbered = frame.with_row_index(column) if column == _ROW else frame
    kind = numbered.collect_schema()[column]
    order = pl.LazyFrame({column: pl.Series(np.asarray(keys)).cast(kind), _RANK: np.arange(len(keys))})
    picked = numbered.join(order, on=column, how="inner").sort(_RANK).drop(_RANK)
    return picked.drop(_ROW) if column == _ROW else picked


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]
