"""A reader and a writer of Thrift's compact protocol, in which Parquet states what a file holds."""

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

    def elements(self, field: int) -> list[bytes]:
        """The structs in a list of the outermost struct, as they stand."""
        self.offset, number = 0, 0
        while header := self._byte():
            step, kind = header >> 4, header & 15
            number = number + step if step else self._signed()
            if number != field:
                if kind not in (_TRUE, _FALSE):
                    self._value(kind, 0)
                continue
            head = self._byte()
            elements = []
            for _ in range(self._possible(head >> 4 if head >> 4 < 15 else self._unsigned())):
                start = self.offset
                self.struct(1)
                elements.append(self.data[start : self.offset])
            return elements
        raise KeyError(field)

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


_KINDS = {"i32": 5, "i64": 6, "binary": _BINARY, "list": _LIST, "struct": _STRUCT, "raw": _STRUCT}


def written(fields: dict[int, Any]) -> bytes:
    """A struct in the same protocol. Fields are pairs of a kind ("i32", "i64", "binary", "struct") and a value.

    A list is ("list", kind of its elements, elements); those of the kind "raw" are structs that are written already.

    >>> Compact(written({1: ("i32", -3), 20: ("list", "binary", [b"a", b""])})).struct()
    {1: -3, 20: [b'a', b'']}
    """
    parts, last = [], 0
    for number in sorted(fields):
        kind, *value = fields[number]
        step = number - last
        header = step << 4 if step < 16 else 0
        parts += [bytes([header | _KINDS[kind]]), b"" if header else _varint(_zigzag(number)), _element(kind, *value)]
        last = number
    return b"".join([*parts, b"\0"])


def _element(kind: str, *value: Any) -> bytes:
    if kind == "list":
        inner, elements = value
        length = len(elements)
        head = bytes([min(length, 15) << 4 | _KINDS[inner]]) + (_varint(length) if length > 14 else b"")
        return b"".join([head, *(_element(inner, element) for element in elements)])
    (single,) = value
    if kind == "struct":
        return written(single)
    if kind == "raw":
        return bytes(single)
    return _varint(len(single)) + single if kind == "binary" else _varint(_zigzag(single))


def _zigzag(number: int) -> int:
    return number << 1 if number >= 0 else (-number << 1) - 1


def _varint(number: int) -> bytes:
    parts = bytearray()
    while number > 127:
        parts.append(number & 127 | 128)
        number >>= 7
    return bytes([*parts, number])
