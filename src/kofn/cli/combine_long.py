"""`kofn combine` of scores in the long form, one a row: the table of systems and judges that it stands for."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import click

from kofn.cli.combine_arguments import CombineArguments
from kofn.core.arrays import Array
from kofn.core.checks import InputError, nearest
from kofn.core.lazy import polars as pl
from kofn.io.frames import FrameTable
from kofn.io.tables import Table
from kofn.tables.alike import alike_labels
from kofn.tables.long_form import LongColumns, long_columns, long_scores
from kofn.tables.unlike import as_typed

_ID = "system"
# Names of columns in which lower is better.
FALLING = re.compile(
    r"(?<![a-z])(bp[bc]|cer|costs?|distance|eer|err|errors?|fid|fpr|latency|log_?loss|loss|mae|mape|mse|nll|perplexity|place|ppl|"
    r"rank|ranking|rmse|seconds|time|toxicity|wer)(?![a-z])",
    re.IGNORECASE,
)


def in_long_form(table: Table, arguments: CombineArguments) -> LongColumns | None:
    """The columns of a table in the long form, as --long names them or as they are called; None of another table.

    Raises:
        InputError: --long with flags of other tables, or of columns that are not there.
    """
    named = arguments.columns is not None and set(arguments.columns) <= set(table.columns)
    if arguments.long is None and (named or arguments.id_column or arguments.wins):
        return None
    columns = long_columns(table, arguments.long)
    if columns is not None:
        if arguments.id_column is not None:
            raise InputError("--id is of tables with a row for each system; --long names the column of the systems")
        if arguments.wins:
            raise InputError("--wins and --long are of different tables; give one of them")
    return columns


def widened(table: Table, columns: LongColumns, arguments: CombineArguments) -> tuple[Table, CombineArguments, str]:
    """The table with a row for each system and a column for each judge, its arguments, and a line on what was read.

    With items each judge's column holds minus the ranks that its items give the systems, by the method asked for.
    """
    from kofn.combination.panels import long_ballots

    scores = long_scores(table, columns.score)
    names: dict[str, Array] = {"system": table.labels(columns.system), "judge": table.labels(columns.judge)}
    for labels, column in zip(names.values(), (columns.system, columns.judge), strict=True):
        if note := alike_labels(labels, column):
            click.echo(f"warning: {note}", err=True)
    item = None if columns.item is None else table.labels(columns.item)
    known = list(dict.fromkeys(map(str, names["judge"].tolist())))
    for flag, named in (("--columns", arguments.columns), ("--lower", arguments.lower)):
        for name in named or ():
            if name not in known:
                raise InputError(f"{flag} names {name!r}, which is no {columns.judge}{nearest(name, known)}")
    own = dict(arguments.own_options)
    words: dict[str, Any] = (
        {} if item is None else {"method": arguments.method, "lower": arguments.lower, "options": own}
    )
    ballots = long_ballots(names["system"], names["judge"], scores, item, **words)
    frame = ballots["rankings"]
    judges = arguments.columns or tuple(frame.columns)
    if _ID in frame.columns:
        frame = frame.rename({_ID: f"{columns.judge} {_ID}"})
        judges = tuple(f"{columns.judge} {_ID}" if name == _ID else name for name in judges)
    wide = FrameTable(frame.insert_column(0, pl.Series(_ID, ballots["ids"])))
    wide.path = Path(table.path)
    lower = arguments.lower if item is None else None
    changed = dataclasses.replace(arguments, id_column=_ID, columns=judges, lower=lower)
    of_items = "" if columns.item is None else f", in two levels: first by {columns.item}, then by {columns.judge}"
    note = f"one score a row: {columns.score} of each {columns.system} by each {columns.judge}{of_items}"
    if FALLING.search(columns.score) and not arguments.lower:
        note += f"\nhigher {columns.score} is taken as better; if lower is: --lower {as_typed(*known)}"
    return wide, changed, note
