"""A reader of Thrift's compact protocol, in which Parquet states what a file holds."""

from __future__ import annotations

from typing import Any

_TRUE, _FALSE, _BYTE, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = 1, 2, 3, 7, 8, 9, 10, 11, 12
_INTEGERS = (4, 5, 6)
_MOST_DEPTH, _MOST_BITS = 20, 70


class Compact:
    """Bytes as structs: mappings from field numbers to values, texts as bytes.

    Attributes:
        offset: where the next byte stands.

    Raises:
        IndexError, ValueError: the bytes are no such struct.
    """

    def __init__(self, data: bytes) -> None:
        self.data, self.offset = data, 0

    def struct(self, depth: int = 0) -> dict[int, Any]:
        """The fields up to the end of a struct."""
        fields: dict[int, Any] = {}
        number = 0
        while header := self._byte():
            step, kind = header >> 4, header & 15
            number = number + step if step else self._signed()
            fields[number] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind, depth)
        return fields

    def _value(self, kind: int, depth: int) -> Any:
        if depth > _MOST_DEPTH:
            raise ValueError("nested too deeply")
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind in _INTEGERS:
            return self._signed()
        if kind in (_DOUBLE, _BINARY):
            return self._bytes(8 if kind == _DOUBLE else self._unsigned())
        if kind in (_LIST, _SET):
            header = self._byte()
            length = header >> 4 if header >> 4 < 15 else self._unsigned()
            return [self._value(header & 15, depth + 1) for _ in range(self._possible(length))]
        if kind == _MAP:
            length = self._unsigned()
            kinds = self._byte() if length else 0
            pairs = range(self._possible(length))
            return [(self._value(kinds >> 4, depth + 1), self._value(kinds & 15, depth + 1)) for _ in pairs]
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise ValueError(f"no kind {kind} is expected")

    def _possible(self, length: int) -> int:
        """A number of values, each of which takes a byte at least."""
        if length > len(self.data) - self.offset:
            raise IndexError(length)
        return length

    def _byte(self) -> int:
        self.offset += 1
        return self.data[self.offset - 1]

    def _bytes(self, length: int) -> bytes:
        start = self.offset
        self.offset += self._possible(length)
        return self.data[start : self.offset]

    def _unsigned(self) -> int:
        number = shift = 0
        while True:
            byte = self._byte()
            number |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return number
            if shift > _MOST_BITS:
                raise ValueError("a number of too many bytes")

    def _signed(self) -> int:
        number = self._unsigned()
        return (number >> 1) ^ -(number & 1)
