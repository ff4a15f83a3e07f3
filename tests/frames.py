"""One pool as every kind of table that people hold."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest


def as_pandas(frame: pl.DataFrame) -> Any:
    """A pandas frame, by way of Python's values: polars itself needs pyarrow for that."""
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    return pandas.DataFrame(frame.to_dict(as_series=False))


def as_arrow(frame: pl.DataFrame) -> Any:
    pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install pyarrow)")
    return frame.to_arrow()


def as_dataset(frame: pl.DataFrame) -> Any:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed (pip install datasets)")
    return datasets.Dataset.from_dict(frame.to_dict(as_series=False))


def as_parquet(frame: pl.DataFrame) -> Path:
    import tempfile

    path = Path(tempfile.mkdtemp()) / "pool.parquet"
    frame.write_parquet(path, row_group_size=16)
    return path


KINDS: dict[str, Callable[[pl.DataFrame], Any]] = {
    "polars": lambda frame: frame,
    "lazy": lambda frame: frame.lazy(),
    "columns": lambda frame: frame.to_dict(as_series=False),
    "pandas": as_pandas,
    "arrow": as_arrow,
    "dataset": as_dataset,
    "file": as_parquet,
}
