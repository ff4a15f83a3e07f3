"""Every method as data, written by `make index`: one JSON file a verb, read when that verb is asked for."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kofn.core.registry import VERBS, Entry

HERE = Path(__file__).parent
_TUPLES = ("required", "accepted", "traits", "papers", "aliases")


@functools.cache
def entries(verb: str) -> Mapping[str, Entry]:
    """The methods of one verb by name: what `method=` may name."""
    return {entry.name: entry for entry in rows(verb) if entry.callable_by_verb}


@functools.cache
def rows(name: str) -> tuple[Entry, ...]:
    """All entries of one file, whatever their form."""
    return tuple(map(decoded, json.loads((HERE / f"{name}.json").read_text(encoding="utf-8"))))


@functools.cache
def words() -> Mapping[str, list[str]]:
    """The words that the methods of each verb take."""
    by_verb: Mapping[str, list[str]] = json.loads((HERE / "words.json").read_text(encoding="utf-8"))
    return by_verb


def everything() -> list[Entry]:
    """Every method, stepper and torch module."""
    return [entry for name in (*VERBS, "nn") for entry in rows(name)]


def encoded(entry: Entry) -> dict[str, Any]:
    """An entry as JSON, empty fields left out."""
    row = {name: getattr(entry, name) for name in entry.__dataclass_fields__}
    return {name: value for name, value in row.items() if value not in ((), "", {}, None)}


def decoded(row: Mapping[str, Any]) -> Entry:
    """The entry of one JSON object."""
    return Entry(
        **{
            **row,
            **{name: tuple(row[name]) for name in _TUPLES if name in row},
            "needs": tuple(tuple(group) for group in row.get("needs", ())),
        }
    )
