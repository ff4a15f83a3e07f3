"""Which kind of container a caller holds, told by its type's package, so that none has to be imported to ask.

>>> frame_kind({"body": ["a", "b"]}), frame_kind([[1.0], [2.0]]), holds_texts(["a", "b"])
('columns', None, True)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any

import numpy as np

# What ends the name of a table's file.
_FILES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson", ".npy", ".npz", ".gz", ".bz2", ".xz", ".zst")
# Values that are looked at to tell whether a list holds texts.
_LOOKED_AT = 100


def _package(value: Any) -> str:
    return type(value).__module__.partition(".")[0]


def frame_kind(value: Any) -> str | None:
    """The kind of a table with named columns; None of anything else.

    "pandas", "polars", "lazy" (polars' LazyFrame), "arrow" (a table, or what hands one out), "datasets", "splits" and
    "stream" (of `datasets`), "columns" (a dict), or "file" (the path of one, or its name with the suffix of a table).
    """
    name = type(value).__name__
    package = _package(value)
    if isinstance(value, PurePath) or (isinstance(value, str) and PurePath(value).suffix.lower() in _FILES):
        return "file"
    if isinstance(value, Mapping):
        if package == "datasets":
            return "splits"
        if package == "scipy":  # a sparse matrix kept as a dict
            return None
        return "columns" if value and all(isinstance(column, str) for column in value) else None
    if package in ("pandas", "polars"):
        return {"DataFrame": package, "LazyFrame": "lazy"}.get(name)
    if package == "datasets":
        return {"Dataset": "datasets", "IterableDataset": "stream"}.get(name)
    # A series hands out a stream of Arrow data too, but has no columns.
    columns = next((attribute for attribute in ("column_names", "columns") if hasattr(value, attribute)), None)
    return "arrow" if columns is not None and hasattr(value, "__arrow_c_stream__") else None


def table_kind(value: Any) -> str | None:
    """ "pandas" or "polars" of a frame or a series of these; None of anything else."""
    package = _package(value)
    return package if package in ("pandas", "polars") and type(value).__name__ in ("DataFrame", "Series") else None


def holds_texts(value: Any) -> bool:
    """Whether a list, an array or a series holds texts, one an item; missing ones may stand among them."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind == "U" or value.dtype.name.startswith("StringDType"):
            return value.ndim == 1 and len(value) > 0
        return value.dtype == object and value.ndim == 1 and _texts_in(value[:_LOOKED_AT].tolist())
    if isinstance(value, str | bytes | Mapping):
        return False
    package, name = _package(value), type(value).__name__
    if package in ("pandas", "polars") and name == "Series":
        return len(value) > 0 and _texts_in(value[:_LOOKED_AT].to_list())
    if package == "pandas" and name == "ArrowStringArray":
        return True
    if package == "pyarrow" and hasattr(value, "type"):
        kind = value.type
        while str(kind).startswith(("dictionary<", "run_end_encoded<")):
            kind = kind.value_type
        return str(kind) in ("string", "large_string", "string_view")
    if isinstance(value, Sequence) or (package == "datasets" and name == "Column"):
        return len(value) > 0 and _texts_in(list(value[:_LOOKED_AT]))
    return False


def _texts_in(values: Sequence[Any]) -> bool:
    """True where all values that are not missing are texts, and one is."""
    known = [value for value in values if not is_missing(value)]
    return bool(known) and all(isinstance(value, str) for value in known)


def is_missing(value: Any) -> bool:
    """None, NaN, NA or NaT."""
    if value is None or type(value).__name__ in ("NAType", "NaTType"):
        return True
    return isinstance(value, float) and value != value
