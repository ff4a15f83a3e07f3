"""Picked rows as files that labelling tools import: Label Studio's tasks, Argilla's records.

Label Studio's "Import" reads a list of tasks, each with the row's columns under `data`, which a labelling interface
names as `$body`. Argilla's `dataset.records.from_json(path)` reads a list of records: texts are `fields`, other columns
`metadata`, labels that are known `suggestions`.

    >>> rows = pl.DataFrame({"key": ["a"], "body": ["red car"], "topic": [None], "size": [3]})
    >>> label_studio(rows)
    [{'data': {'key': 'a', 'body': 'red car', 'topic': None, 'size': 3}}]
    >>> argilla(rows, key="key", label="topic")[0]["fields"], argilla(rows, key="key")[0]["metadata"]
    ({'body': 'red car'}, {'size': 3})
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

from kofn.core.checks import InputError, choice
from kofn.core.lazy import polars as pl
from kofn.io.atomic import write_lines

TOOLS = ("label-studio", "argilla")
_WHOLE = 2**53


def write_for(
    tool: str,
    path: str | PathLike[str],
    rows: pl.DataFrame,
    *,
    key: str | None = None,
    label: str | None = None,
    numbers: Iterable[int] | None = None,
) -> Path:
    """Write rows, in their order, as a file that a tool imports; whole or not at all.

    Args:
        tool: "label-studio" or "argilla".
        path: a name that ends in .json.
        rows: the rows; the columns that `left_out` names are left out.
        key: the column that names them.
        label: the column of labels, some of which may be known.
        numbers: what names them without such a column, default 0, 1, 2, ...; rows of later batches need others.

    Raises:
        InputError: another tool, or a name with another suffix; a column of bytes; of Argilla, no column of text.
    """
    where = Path(path)
    choice(tool, "to", TOOLS)
    for name, kind in rows.schema.items():
        refuse_bytes(name, kind)
    if where.suffix.lower() != ".json":
        raise InputError(f"{where}: give a name that ends in .json, which {tool} imports")
    made = (
        label_studio(rows, numbers, key=key)
        if tool == "label-studio"
        else argilla(rows, key=key, label=label, numbers=numbers)
    )
    text = json.dumps(made, ensure_ascii=False, indent=1, allow_nan=False)
    return write_lines([text.encode()], where)


def label_studio(
    rows: pl.DataFrame, numbers: Iterable[int] | None = None, *, key: str | None = None
) -> list[dict[str, Any]]:
    """One task a row, in the rows' order, with its number as `row` where numbers name the rows; keys are texts."""
    tasks = [{"data": row} for row in _plain("label-studio", rows)]
    for task in tasks:
        if key is not None and task["data"].get(key) is not None:
            task["data"][key] = str(task["data"][key])
    for task, number in zip(tasks, () if numbers is None else numbers, strict=False):
        task["data"].setdefault("row", int(number))
    return tasks


def argilla(
    rows: pl.DataFrame, *, key: str | None = None, label: str | None = None, numbers: Iterable[int] | None = None
) -> list[dict[str, Any]]:
    """One record a row, in the rows' order.

    Raises:
        InputError: no column of text, which a record's fields are.
    """
    fields = [
        name for name, kind in rows.schema.items() if kind in (pl.String, pl.Categorical) and name not in (key, label)
    ]
    if not fields:
        raise InputError("a record of Argilla has fields of text, and the rows have no column of text")
    records = []
    for number, row in zip(range(len(rows)) if numbers is None else numbers, _plain("argilla", rows), strict=True):
        others = {name: value for name, value in row.items() if name not in (*fields, key, label)}
        known = row.get(label) if label else None
        records.append(
            {
                "id": str(row[key] if key else number),
                "fields": {name: row[name] or "" for name in fields},
                "metadata": {name: value for name, value in others.items() if value is not None},
                "suggestions": {} if known in (None, "") else {label: {"value": known}},
                "responses": {},
                "vectors": {},
            }
        )
    return records


def refuse_bytes(name: str, kind: pl.DataType, remedy: str = "leave the column out") -> None:
    """Refuse a column of bytes, which JSON cannot hold; `remedy` says how to leave it out."""
    if _holds_bytes(kind):
        raise InputError(
            f"column {name!r} holds {kind}, and labelling tools import JSON, which has no bytes; write them as text "
            f"(base64, or a link), or {remedy}"
        )


def _holds_bytes(kind: Any) -> bool:
    if isinstance(kind, pl.Struct):
        return any(_holds_bytes(field.dtype) for field in kind.fields)
    return bool(kind == pl.Binary) or (isinstance(kind, pl.List | pl.Array) and _holds_bytes(kind.inner))


def left_out(tool: str, columns: Mapping[str, pl.DataType]) -> dict[str, str]:
    """The columns that are not written for a tool, and why: vectors; of Argilla, lists that metadata cannot hold."""
    reasons = {}
    for name, kind in columns.items():
        inner: Any = kind.inner if isinstance(kind, pl.List | pl.Array) else None
        if inner is not None and (inner.is_float() or (isinstance(kind, pl.Array) and inner.is_numeric())):
            reasons[name] = "it holds vectors"
        elif tool == "argilla" and inner is not None and (inner.is_numeric() or inner == pl.Boolean):
            reasons[name] = "its metadata has no lists of numbers"
    return reasons


def _plain(tool: str, rows: pl.DataFrame) -> list[dict[str, Any]]:
    """The rows as values of JSON, without the columns that are left out."""
    kept = rows.drop(left_out(tool, rows.schema))
    return [{name: _jsoned(value) for name, value in row.items()} for row in kept.iter_rows(named=True)]


def _jsoned(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    # Browsers, in which both tools show rows, round whole numbers beyond 2**53.
    if isinstance(value, int) and abs(value) > _WHOLE:
        return str(value)
    if value is None or isinstance(value, str | int | bool):
        return value
    if isinstance(value, list):
        return [_jsoned(part) for part in value]
    if isinstance(value, Mapping):
        return {str(name): _jsoned(part) for name, part in value.items()}
    isoformat: Callable[[], str] | None = getattr(value, "isoformat", None)
    return isoformat() if isoformat is not None else str(value)
