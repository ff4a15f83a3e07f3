"""Rows of whatever holds them, given back as the same kind: what `plan.take` returns.

>>> taken(["a", "b", "c"], np.array([2, 0])), taken({"x": [1, 2, 3]}, np.array([1]))
(['c', 'a'], {'x': [2]})
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
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
        from kofn.io.tables import Table

        return Table.open(data).take(rows)
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
        from kofn.io.tables import Table

        return Table.open(data).n
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
