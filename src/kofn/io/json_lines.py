"""JSON lines: what each key holds, the lines as they stand in the file, and the members of a line.

Lines may have unlike keys and nested values of any shape; what is held in memory is eight bytes a line and one entry a
key.
"""

from __future__ import annotations

import functools
import json
import re
from array import array
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.io.json_text import HALF_A_PAIR, has_half_a_pair, is_text
from kofn.io.text_faults import check_utf8

_SPACE = re.compile(r"[ \t\r\n]*")
_EXACT, _INT64 = 2**53, 2**63
_DECODER = json.JSONDecoder()
NESTED = frozenset({"list", "object"})


class Layout(NamedTuple):
    """Where the lines of a file begin and end, (n, 2), and the kinds of values that each key holds."""

    spans: NDArray[np.int64]
    kinds: dict[str, set[str]]


def read_layout(path: Path) -> Layout:
    """Read a file through once.

    Raises:
        InputError: not UTF-8, a line that is no JSON object, or one that has a key twice (with its line).
    """
    spans = array("q")
    kinds: dict[str, set[str]] = {}
    start = 0
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            end = start + len(line)
            if line.strip():
                for key, value in _object(path, number, line).items():
                    kinds.setdefault(key, set()).add(_kind(value))
                spans.extend((start, end))
            start = end
    if not spans:
        raise InputError(f"{path} is empty; give at least one JSON object a line")
    for known in kinds.values():
        known.discard("null")
    return Layout(np.array(spans, np.int64).reshape(-1, 2), kinds)


@functools.cache
def _types() -> dict[frozenset[str], pl.DataType]:
    """The type of a column, by the kinds of its values."""
    whole, real = pl.Int64(), pl.Float64()
    return {
        frozenset({"bool"}): pl.Boolean(),
        frozenset({"int"}): whole,
        frozenset({"big"}): whole,
        frozenset({"big", "int"}): whole,
        frozenset({"float"}): real,
        frozenset({"float", "int"}): real,
        frozenset({"big", "float"}): real,
        frozenset({"big", "float", "int"}): real,
        frozenset({"vector"}): pl.List(real),
    }


def type_of(kinds: set[str]) -> pl.DataType:
    """The type of a column whose values are of these kinds; text for words, and for values of unlike kinds as JSON."""
    return _types().get(frozenset(kinds), pl.String())


def lines_at(path: Path, spans: NDArray[np.int64]) -> Iterator[bytes]:
    """The lines in these places, each as it stands in the file, without its end."""
    with open(path, "rb") as file:
        for start, end in spans.tolist():
            file.seek(start)
            yield file.read(end - start).strip()


def members(line: str) -> dict[str, str]:
    """The values of an object's keys, as they are written.

    >>> members('{"a": 1.50, "b": {"c": [1,  2]}}')
    {'a': '1.50', 'b': '{"c": [1,  2]}'}
    """
    values: dict[str, str] = {}
    position = _after(line, line.index("{") + 1)
    while line[position] != "}":
        key, position = _DECODER.raw_decode(line, position)
        start = _after(line, _after(line, position) + 1)  # the colon
        _, end = _DECODER.raw_decode(line, start)
        values[key] = line[start:end]
        position = _after(line, end)
        if line[position] == ",":
            position = _after(line, position + 1)
    return values


def as_text(value: str | None) -> str | None:
    """A value as text: words without their quotes, null as nothing, all else as it is written."""
    if value is None or value == "null":
        return None
    return str(json.loads(value)) if value.startswith('"') else value


def with_members(line: bytes, added: Mapping[str, Any], drop: Iterable[str] = ()) -> bytes:
    """The line with more members at its end, and without those of `drop`; the others stay as they are written.

    >>> with_members(b'{"a":  1.50}', {"rank": 1})
    b'{"a":  1.50,"rank":1}'
    """
    if drop := set(drop):
        kept = {key: value for key, value in members(line.decode()).items() if key not in drop}
        line = ("{" + ", ".join(f"{json.dumps(key)}: {value}" for key, value in kept.items()) + "}").encode()
    body = line.rstrip()[:-1]
    more = ",".join(f"{json.dumps(key)}:{json.dumps(value)}" for key, value in added.items())
    comma = b"," if more and body.rstrip() != b"{" else b""
    return body + comma + more.encode() + b"}"


def series_of(name: str, values: list[str | None], kinds: set[str]) -> pl.Series:
    """A column of some lines' values as they are written: typed, or as JSON where they have unlike shapes."""
    dtype = type_of(kinds)
    # A float would round a whole number beyond 2^53, so both stay as they are written.
    if dtype != pl.String and not kinds >= {"big", "float"}:
        return pl.Series(name, [None if value is None else json.loads(value) for value in values], dtype)
    if kinds & NESTED and len(kinds) == 1:
        parsed = [None if value is None else json.loads(value) for value in values]
        if _alike(parsed):
            return pl.Series(name, parsed)
    return pl.Series(name, [as_text(value) for value in values], pl.String)


def _after(line: str, position: int) -> int:
    """Where the next character is that is no space."""
    match = _SPACE.match(line, position)
    assert match is not None
    return match.end()


def _object(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        text = line.decode()
        row = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unlike)
    except UnicodeDecodeError:
        check_utf8(path)
        raise
    except (ValueError, RecursionError) as error:
        reason = str(error).split(": line ")[0]
        raise InputError(f"{path}: line {number} is not valid JSON ({reason}); write one JSON object a line") from None
    if not isinstance(row, dict):
        names = {list: "list", str: "string", bool: "boolean", int: "number", float: "number", type(None): "null"}
        raise InputError(f"{path}: line {number} is a {names[type(row)]}; write one JSON object a line")
    if has_half_a_pair(text, row):
        key = next(key for key, value in row.items() if not (is_text(key) and is_text(value)))
        raise InputError(
            f"{path}: line {number} holds {HALF_A_PAIR}, at key {key!r}; take out "
            "the \\uD800 to \\uDFFF that stands alone"
        )
    return row


def _unlike(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"it has the key {next(key for key in row if keys.count(key) > 1)!r} twice")
    return row


def _refuse_constant(name: str) -> object:
    raise ValueError(f"{name} is not JSON")


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int" if abs(value) <= _EXACT else "big" if -_INT64 <= value < _INT64 else "long"
    if isinstance(value, list):
        return "vector" if all(part is None or type(part) in (int, float) for part in value) else "list"
    return {dict: "object", str: "str", float: "float", type(None): "null"}[type(value)]


def _alike(values: list[Any]) -> bool:
    """Whether values have one shape: objects the same keys, of which there are some, and all else one kind."""
    values = [value for value in values if value is not None]
    if values and all(isinstance(value, dict) for value in values):
        keys = values[0].keys()
        same = bool(keys) and all(value.keys() == keys for value in values)
        return same and all(_alike([value[key] for value in values]) for key in keys)
    if all(isinstance(value, list) for value in values):
        return _alike([part for value in values for part in value]) if values else True
    return len({_kind(value) for value in values}) < 2
