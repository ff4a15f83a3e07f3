"""Tables of one model each, whose rows stand beside each other: that they are the same rows, and the same columns."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError, shown
from kofn.core.lazy import polars as pl
from kofn.io.tables import Table
from kofn.tables.class_columns import plain_names
from kofn.tables.scores import is_scores
from kofn.tables.unlike import as_typed, called_as_keys, listed


def refuse_other_rows(tables: Sequence[Table], predictions: Sequence[Collection[str]], label: str | None) -> None:
    """Refuse tables that are matched by place where a column that names rows says that they are not the same ones.

    Its cells differ from each other, and stand in another order in another table, or it is called as keys are.

    Args:
        tables: a model each, as many rows in each.
        predictions: the columns of each that are predictions.
        label: the column of answers.

    Raises:
        InputError: names the column, the first row that differs, and how rows are matched.
    """
    first = tables[0]
    for name in first.columns:
        if name in predictions[0] or name == label:
            continue
        for table, own in zip(tables[1:], predictions[1:], strict=True):
            if name not in table.columns or name in own or table.n != first.n:
                continue
            ours, theirs = first.labels(name), table.labels(name)
            differs = np.flatnonzero(ours.astype(str) != theirs.astype(str))
            if not len(differs) or not _names_rows(name, ours, theirs):
                continue
            row = int(differs[0])
            other, here = shown(theirs[row].item()), shown(ours[row].item())
            raise InputError(
                f"{table.path} column {name!r} at row {row} is {other}, {first.path} has {here}: their rows are not "
                f"the same ones in the same order; to match the rows by it say --id {as_typed(name)}; if they are the "
                "same rows, leave the column out"
            )


def refuse_other_answers(tables: Sequence[Table], label: str, id_column: str | None) -> None:
    """Refuse tables of which several hold the answers, and another one in a row: by its id, or by its place.

    Raises:
        InputError: names the table, the first row that differs and both answers.
    """
    holders = [table for table in tables if label in table.columns]
    first, known = holders[0], _answers(holders[0], label, id_column)
    for table in holders[1:]:
        own = _answers(table, label, id_column)
        row = next((key for key, answer in own.items() if key in known and answer != known[key]), None)
        if row is not None:
            where = f"row {row}" if id_column is None else f"{id_column} {shown(row)}"
            remedy = "correct it" if id_column is not None else "match rows in another order by --id COL, or correct it"
            raise InputError(
                f"{table.path} column {label!r} at {where} is {shown(own[row])}, {first.path} has "
                f"{shown(known[row])}; {remedy}"
            )


def _answers(table: Table, label: str, id_column: str | None) -> dict[Any, Any]:
    """Each row's answer by its id, or by its place; None where it is missing."""
    column = table.column(label)
    cells = table.reading.numbers(column).fill_nan(None) if is_scores(table, label) else column.cast(pl.String)
    keys = range(len(cells)) if id_column is None else table.ids(table.require(id_column)).tolist()
    return dict(zip(keys, cells.to_list(), strict=True))


def refuse_keys(table: Table, names: Sequence[str]) -> None:
    """Refuse a column among several predictions that is called as what names the rows, and names each.

    Raises:
        InputError: names the column, and the flags that say what it is.
    """
    for name in names if len(names) > 1 else ():
        keys = table.numbers(name) if called_as_keys(name) else np.zeros(2)
        if len(np.unique(keys)) == len(keys) and not (keys % 1 > 0).any():
            others = [other for other in names if other != name]
            raise InputError(
                f"{table.path} column {name!r} is called as what names the rows; if it does, say --id "
                f"{as_typed(name)}, if it is a model's predictions, name all of these: --columns "
                f"{as_typed(name, *others)}"
            )


def _names_rows(name: str, ours: Array, theirs: Array) -> bool:
    """Whether a column of two tables has a name for each row, and the tables have rows in common or should have."""
    first, second = set(ours.tolist()), set(theirs.tolist())
    return len(first) == len(ours) and len(second) == len(theirs) and (bool(first & second) or called_as_keys(name))


def in_order_of(names: Sequence[str], wanted: Sequence[str], path: str, first: str) -> list[str]:
    """The columns of a table in the order in which another's are called; a model's own beginning of them aside.

    Args:
        names: the columns.
        wanted: the other table's.
        path: the table.
        first: the other table.

    Raises:
        InputError: columns that are called otherwise, or more or fewer of them.

    Examples:
        >>> in_order_of(["net_no", "net_yes"], ["forest_yes", "forest_no"], "net.csv", "forest.csv")
        ['net_yes', 'net_no']
    """
    if len(wanted) == len(names) == 1:
        return list(names)
    by_name = dict(zip(names, names, strict=True))
    if set(names) != set(wanted) and len(names) == len(wanted):
        by_name = dict(zip(plain_names(names), names, strict=True))
        wanted = plain_names(wanted)
    if set(by_name) != set(wanted):
        ours = [name for name in by_name if name not in wanted]
        theirs = [name for name in wanted if name not in by_name]
        says = ", and ".join(
            f"{has} {'column' if len(some) == 1 else 'columns'} {listed(some)}, which the other has not"
            for has, some in ((f"{path} has", ours), (f"{first} has", theirs))
            if some
        )
        raise InputError(
            f"{says}: columns of several models are matched by name; call the same class the same, or say which "
            "columns are predictions, --columns"
        )
    return [by_name[name] for name in wanted]
