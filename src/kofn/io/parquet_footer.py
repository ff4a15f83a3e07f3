"""Where the row groups of a Parquet file begin, from its footer alone.

Readers tell how many rows a file has, not in which groups they lie. A group is decoded as a whole, so whoever reads a
file in parts has to cut it there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from kofn.core.checks import InputError
from kofn.io.thrift import Compact

# The fields that are read of a file, of a row group, of a column and of what a column's pages are.
_ROW_GROUPS, _COLUMNS, _GROUP_ROWS, _COLUMN_DATA, _PATH, _SIZE, _PACKED_SIZE = 4, 1, 3, 3, 3, 6, 7
_TAIL = 1 << 16
_MOST = 1 << 63

T = TypeVar("T")


class RowGroup(NamedTuple):
    """A row group.

    Attributes:
        rows: how many rows it has.
        sizes: bytes of each top column, plain; nested parts are added up.
        packed: the same as they lie in the file.
    """

    rows: int
    sizes: dict[str, int]
    packed: dict[str, int]


class Metadata(NamedTuple):
    """What the footer of a file says.

    Attributes:
        fields: all of it, by the numbers of the format's fields.
        groups: the row groups, in order.
    """

    fields: dict[int, Any]
    groups: list[RowGroup]


def metadata(path: Path) -> Metadata:
    """The footer of a file, which takes about 0.4 s a megabyte.

    Raises:
        InputError: the file is no Parquet file, or its footer is missing or damaged.
    """
    try:
        fields = Compact(footer(path)).struct()
        groups = [_row_group(_kind(group, dict)) for group in _kind(fields.get(_ROW_GROUPS, []), list)]
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: its footer cannot be read; copy or write the file again") from None
    return Metadata(fields, groups)


def row_groups(path: Path) -> list[RowGroup]:
    """The row groups of a file, in order.

    Raises:
        InputError: as `metadata`.
    """
    return metadata(path).groups


def _row_group(fields: dict[int, Any]) -> RowGroup:
    sizes: dict[str, int] = {}
    packed: dict[str, int] = {}
    for column in _kind(fields[_COLUMNS], list):
        data = _kind(_kind(column, dict)[_COLUMN_DATA], dict)
        name = _kind(_kind(data[_PATH], list)[0], bytes).decode()
        sizes[name] = sizes.get(name, 0) + _count(data[_SIZE])
        packed[name] = packed.get(name, 0) + _count(data[_PACKED_SIZE])
    return RowGroup(_count(fields[_GROUP_ROWS]), sizes, packed)


def _kind(value: Any, kind: type[T]) -> T:
    """A value of the footer, which damage may have made one of another kind (a truth value is no number)."""
    if type(value) is not kind:
        raise ValueError(f"{kind.__name__} is expected")
    return value


def _count(value: Any) -> int:
    """A number of rows or bytes."""
    if not 0 <= _kind(value, int) < _MOST:
        raise ValueError("no number of rows or bytes")
    return int(value)


def footer(path: Path) -> bytes:
    """The bytes of the footer.

    Raises:
        InputError: the file is no Parquet file, or its footer is missing.
    """
    with open(path, "rb") as file:
        start = file.read(4)
        size = file.seek(0, 2)
        file.seek(max(0, size - _TAIL))
        tail = file.read()
        if start != b"PAR1":
            raise InputError(f"{path} is not a Parquet file (it does not begin with PAR1); check the suffix")
        if tail[-4:] != b"PAR1" or size < 12:
            raise InputError(f"{path} is truncated: the Parquet footer is missing; copy or write the file again")
        length = int.from_bytes(tail[-8:-4], "little")
        if length > size - 12:
            raise InputError(
                f"{path} is damaged: its footer states a length of {length:,} bytes, and the file has {size:,}; copy "
                "or write the file again"
            )
        if length + 8 > len(tail):
            file.seek(size - 8 - length)
            return file.read(length)
    return tail[len(tail) - 8 - length : -8]
