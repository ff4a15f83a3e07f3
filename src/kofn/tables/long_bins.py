"""Scores of items for bins in the long form, one a row: the table with a row for each item that they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.io.frames import FrameTable
from kofn.io.tables import Table
from kofn.tables.alike import alike_labels
from kofn.tables.assign_arguments import AssignArguments
from kofn.tables.long_form import long_scores, score_of_pairs
from kofn.tables.scores import is_scores
from kofn.tables.unlike import as_typed


def with_bins(table: Table, arguments: AssignArguments) -> tuple[Table, AssignArguments, tuple[str, ...]]:
    """The table with a row for each item and a column for each bin, its arguments, and lines on what was read.

    A pair that no row holds, or whose score is empty, may not go together. Another table than one in the long form
    comes back as it is.

    Raises:
        InputError: --long with flags of other tables or of other columns than three; a pair that is given twice; a
            table in the long form without --long.
    """
    if arguments.long is None:
        _refuse_unnamed(table, arguments)
        return table, arguments, ()
    if len(arguments.long) != 3:
        raise InputError(f"--long {as_typed(*arguments.long)}: give --long ITEM,BIN,SCORE")
    for flag, value in (("--id", arguments.id_column), ("--vectors", arguments.vectors), ("--text", arguments.text)):
        if value is not None:
            raise InputError(f"{flag} is of tables with a row for each item; --long names the column of the items")
    item, bin_, score = table.named(arguments.long)
    if not is_scores(table, score):
        raise InputError(
            f"--long: {score!r} holds no numbers; name the column of scores last, as in --long ITEM,BIN,SCORE"
        )
    items, item_of = _numbered(table.labels(item))
    bins, bin_of = _numbered(table.labels(bin_))
    _refuse_twice(table, (item, bin_), np.ravel_multi_index((item_of, bin_of), (len(items), len(bins))))
    wide = np.full((len(items), len(bins)), np.nan)
    wide[item_of, bin_of] = long_scores(table, score)
    key = item if item not in bins else f"{item} id"
    columns = {name: pl.Series(name, wide[:, j], nan_to_null=True) for j, name in enumerate(bins)}
    frame = FrameTable(pl.DataFrame({key: items, **columns}), table.reading)
    frame.path = Path(table.path)
    missing = int(np.isnan(wide).sum())
    lines = [
        f"one score a row: {score} of {len(items):,} of {item} for {len(bins):,} of {bin_}"
        + (f"; {missing:,} pairs without one are kept apart" if missing else "")
    ]
    for labels, column in ((items, item), (bins, bin_)):
        if note := alike_labels(np.array(labels), column):
            lines.append(f"warning: {note}")
    changed = dataclasses.replace(arguments, id_column=key, by_scores=True, long=None)
    return frame, changed, tuple(lines)


def _numbered(labels: Array) -> tuple[list[str], Array]:
    """The labels in the order in which they come first, and the number of each row's."""
    names, first, of_row = np.unique(labels, return_index=True, return_inverse=True)
    order = np.argsort(first)
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    return names[order].tolist(), rank[of_row]


def _refuse_twice(table: Table, names: Sequence[str], pairs: Array) -> None:
    order = np.argsort(pairs, kind="stable")
    twice = np.flatnonzero(np.diff(pairs[order]) == 0)
    if len(twice):
        first, second = order[twice[0]], order[twice[0] + 1]
        shown = " and ".join(f"{name} {str(table.labels(name)[first])!r}" for name in names)
        raise InputError(f"{table.path} scores {shown} at row {first} and at row {second}; give one score a pair")


def _refuse_unnamed(table: Table, arguments: AssignArguments) -> None:
    """Refuse a table of scores that holds one a row by all signs, with the call that reads it."""
    if not arguments.by_scores or arguments.columns or arguments.vectors:
        return
    columns = score_of_pairs(table)
    if columns is not None and arguments.id_column in (None, *columns[:2]):
        item, bin_, score = columns
        raise InputError(
            f"{table.path} holds one score a row, {score!r} of each {item!r} for each {bin_!r}; say --long "
            f"{as_typed(*columns)} in place of --scores{' and --id' if arguments.id_column else ''}, or name the "
            f"columns of scores: --columns {as_typed(score)}"
        )
