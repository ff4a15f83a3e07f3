"""Columns of pandas, polars and Arrow in forms that NumPy and polars read without losing anything.

Packages are told by their types' modules, so that none is imported to ask.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks.errors import InputError
from kofn.core.checks.exact import WHOLE
from kofn.core.checks.kinds import is_missing

# The most digits that polars' decimals have.
_DIGITS = 38


def is_arrow(value: Any) -> bool:
    """Whether a value is a column of pyarrow, whole or in chunks.

    >>> is_arrow([1, 2])
    False
    """
    return type(value).__module__.partition(".")[0] == "pyarrow" and hasattr(value, "type") and hasattr(value, "cast")


def plain_arrow(values: Any, name: str, *, keep_names: bool = False) -> Any:
    """A column of pyarrow without encodings and extensions: dictionaries and runs written out, views as lists.

    Args:
        values: an Array or a ChunkedArray.
        name: of the argument or the column, for errors.
        keep_names: whether dictionaries of texts stay, as columns of categories.

    Raises:
        InputError: intervals and unions, of which nothing is a number, a text or a date.
    """
    pyarrow = sys.modules["pyarrow"]
    kind = values.type
    if keep_names and pyarrow.types.is_dictionary(kind) and _is_text(kind.value_type):
        return values
    if pyarrow.types.is_run_end_encoded(kind):
        decoded = importlib.import_module("pyarrow.compute").run_end_decode(values)
        return plain_arrow(decoded, name, keep_names=keep_names)
    plain = _plain_type(pyarrow, kind)
    if plain is None:
        raise InputError(f"{name} holds Arrow's {kind}; give numbers, texts, dates or lists")
    if plain == kind:
        return values
    # pyarrow's own cast of views of lists has made offsets beyond the values (26.0).
    return pyarrow.array(values.to_pylist(), plain) if "list_view<" in str(kind) else values.cast(plain)


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _plain_type(pyarrow: Any, kind: Any) -> Any:
    """The type that holds the same without encodings; None where there is none."""
    types = pyarrow.types
    if isinstance(kind, pyarrow.BaseExtensionType):
        return _plain_type(pyarrow, kind.storage_type)
    if types.is_dictionary(kind):
        return _plain_type(pyarrow, kind.value_type)
    if types.is_interval(kind) or types.is_union(kind):
        return None
    if types.is_decimal256(kind):
        return pyarrow.decimal128(min(kind.precision, _DIGITS), kind.scale)
    if str(kind) in ("string_view", "binary_view"):
        return pyarrow.large_string() if str(kind) == "string_view" else pyarrow.large_binary()
    makers = {
        types.is_list: pyarrow.list_,
        types.is_list_view: pyarrow.list_,
        types.is_large_list: pyarrow.large_list,
        types.is_large_list_view: pyarrow.large_list,
        types.is_fixed_size_list: lambda inner: pyarrow.list_(inner, kind.list_size),
    }
    make = next((make for asks, make in makers.items() if asks(kind)), None)
    if make is None:
        return kind
    inner = _plain_type(pyarrow, kind.value_type)
    # Where nothing inside changes the type stays, with the names of its fields.
    is_view = types.is_list_view(kind) or types.is_large_list_view(kind)
    return None if inner is None else kind if inner == kind.value_type and not is_view else make(inner)


def plain_column(value: Any, name: str) -> Any:
    """A column of pandas, polars or pyarrow as NumPy reads it whole; any other value as it is.

    NumPy reads whole numbers with missing ones among them as floats, which beyond 2**53 would be others.
    """
    package = type(value).__module__.partition(".")[0]
    if package == "pandas" and hasattr(getattr(value, "dtype", None), "pyarrow_dtype"):
        value, package = getattr(value, "array", value).__arrow_array__(), "pyarrow"
    if package == "pyarrow" and is_arrow(value):
        value = plain_arrow(value, name)
        return _whole(value, value.null_count, str(value.type).startswith(("int", "uint")), value.to_pylist)
    if package == "pandas" and getattr(value, "ndim", 0) == 1 and hasattr(value, "isna"):
        is_whole = str(value.dtype).lower().startswith(("int", "uint"))
        return _whole(value, int(value.isna().sum()) if is_whole else 0, is_whole, value.tolist)
    if package == "polars" and type(value).__name__ == "Series":
        if _wide(value.dtype):
            return np.array(value.to_list(), object)
        return _whole(value, value.null_count(), value.dtype.is_integer(), value.to_list)
    return value


def _whole(value: Any, missing: int, is_whole: bool, listed: Any) -> Any:
    """Whole numbers as objects where some are missing and some are beyond 2**53; else the value as it is."""
    if not missing or not is_whole:
        return value
    numbers = [None if is_missing(number) else number for number in listed()]
    if max((abs(number) for number in numbers if number is not None), default=0) < WHOLE:
        return value
    return np.array(numbers, object)


def _wide(kind: Any) -> bool:
    """Whether a polars type has whole numbers of 128 bits in it, which NumPy has not."""
    while kind.is_nested() and hasattr(kind, "inner"):
        kind = kind.inner
    return str(kind) in ("Int128", "UInt128")


def plain_frame(frame: Any, name: str) -> Any:
    """A frame of pandas, polars or pyarrow as NumPy reads it whole, as `plain_column` does its columns.

    >>> plain_frame([[1, 2]], "X")
    [[1, 2]]
    """
    package = type(frame).__module__.partition(".")[0]
    if package == "pyarrow":
        columns = [frame.column(index) for index in range(frame.num_columns)]
    elif package == "polars":
        columns = frame.get_columns()
    elif package == "pandas":
        columns = [frame.iloc[:, index] for index in range(frame.shape[1])]
    else:
        return frame
    plain = [plain_column(column, name) for column in columns]
    is_large = any(isinstance(column, np.ndarray) for column in plain)
    if not plain or (not is_large and package != "pyarrow"):
        return frame
    return np.stack([np.asarray(column, object if is_large else None) for column in plain], axis=1)


def unwrapped(array: Array) -> Array:
    """NumPy's texts of any length as texts of one length, or as objects where some are missing."""
    if array.dtype.kind != "T":
        return array
    listed = array.tolist()
    return np.array(listed, str if all(isinstance(text, str) for text in listed) else object)
