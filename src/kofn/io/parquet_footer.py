"""Where the row groups of a Parquet file begin, from its footer alone.

Readers tell how many rows a file has, not in which groups they lie. A group is decoded as a whole, so whoever reads a
file in parts has to cut it there. The footer is Thrift's compact protocol: a struct is a list of (field, type, value).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from kofn.core.checks import InputError

# The fields that are read of a file, of a row group, of a column and of what a column's pages are.
_ROW_GROUPS, _COLUMNS, _GROUP_ROWS, _COLUMN_DATA, _PATH, _SIZE, _PACKED_SIZE = 4, 1, 3, 3, 3, 6, 7
_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_TAIL = 1 << 16


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


def row_groups(path: Path) -> list[RowGroup]:
    """The row groups of a file, in order.

    Raises:
        InputError: the file is no Parquet file, or its footer is missing or damaged.
    """
    try:
        metadata = _Compact(_footer(path)).struct()
        return [_row_group(group) for group in metadata.get(_ROW_GROUPS, [])]
    except (IndexError, KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is damaged: its footer cannot be read; copy or write the file again") from None


def _row_group(fields: dict[int, Any]) -> RowGroup:
    sizes: dict[str, int] = {}
    packed: dict[str, int] = {}
    for column in fields[_COLUMNS]:
        data = column[_COLUMN_DATA]
        name = data[_PATH][0].decode()
        sizes[name] = sizes.get(name, 0) + data[_SIZE]
        packed[name] = packed.get(name, 0) + data[_PACKED_SIZE]
    return RowGroup(fields[_GROUP_ROWS], sizes, packed)


def _footer(path: Path) -> bytes:
    """The bytes of the footer."""
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
            raise InputError(f"{path} is damaged: its footer cannot be read; copy or write the file again")
        if length + 8 > len(tail):
            file.seek(size - 8 - length)
            return file.read(length)
    return tail[len(tail) - 8 - length : -8]


class _Compact:
    """A reader of Thrift's compact protocol."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._next = 0

    def struct(self) -> dict[int, Any]:
        """The values of a struct by their fields' numbers."""
        fields: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            step, kind = header >> 4, header & 15
            number = number + step if step else self._signed()
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind == _DOUBLE:
            return self._bytes(8)
        if kind == _BINARY:
            return self._bytes(self._unsigned())
        if kind in (_LIST, _SET):
            header = self._byte()
            length = header >> 4
            length = self._unsigned() if length == 15 else length
            return [self._value(header & 15) for _ in range(length)]
        if kind == _MAP:
            length = self._unsigned()
            kinds = self._byte() if length else 0
            return [(self._value(kinds >> 4), self._value(kinds & 15)) for _ in range(length)]
        if kind == _STRUCT:
            return self.struct()
        if kind in (4, 5, 6):
            return self._signed()
        raise ValueError(kind)

    def _byte(self) -> int:
        value = self._data[self._next]
        self._next += 1
        return value

    def _bytes(self, length: int) -> bytes:
        start = self._next
        self._next += length
        if self._next > len(self._data):
            raise IndexError(length)
        return self._data[start : self._next]

    def _unsigned(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    def _signed(self) -> int:
        value = self._unsigned()
        return (value >> 1) ^ -(value & 1)
