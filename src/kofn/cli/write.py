"""What the commands write: the table of the answer, the plan and the report."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import fields
from itertools import chain
from pathlib import Path
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError, names_a_file
from kofn.core.lazy import polars as pl
from kofn.core.plans import Plan
from kofn.io.atomic import claimed, refuse_unread, write_lines, write_table
from kofn.io.json_lines import with_members
from kofn.io.label_tools import refuse_bytes
from kofn.io.outputs import JOINED, joins
from kofn.io.tables import Table
from kofn.tables.arguments import KeysOf, RowArguments, VerbArguments
from kofn.tables.read import ARRAYS, TABLES, images_of

# Lines of a file that are in memory at once; what ends the name of a folder.
_LINES_AT_ONCE = 1 << 14
_SEPARATORS = tuple(mark for mark in (os.sep, os.altsep) if mark)
# Folders of modules beside the weights of a sentence model.
_MODULE = re.compile(r"\d.*_")


def check_outputs(
    arguments: VerbArguments, files: Sequence[str], *, table: bool = True, checkpoint: bool = False
) -> None:
    """Refuse, before any work is done, a place that cannot be written, or that holds something the command reads.

    Until the command ends, no other run can write there.

    Args:
        arguments: what was typed.
        files: the files and folders that the command reads by position.
        table: whether -o is a table.
        checkpoint: whether -o is a checkpoint, which may be a folder.
    """
    named = [("-o", arguments.output), ("--report", arguments.report), ("--plan", arguments.plan_path)]
    named += [("--dropped", getattr(arguments, "dropped", None)), ("--apply", getattr(arguments, "applied", None))]
    named += [("--export", path) for _, path in getattr(arguments, "export", ())]
    written = [(option, path) for option, path in named if path is not None]
    folders = ("-o", "--apply") if checkpoint else ("--apply",)
    for option, path in written:
        if not path or "\0" in path:
            raise InputError(f"{option} {path!r} is no name of a file")
        if path.endswith(_SEPARATORS) and option not in folders:
            raise InputError(
                f"{option} {path} is the name of a folder; name a file in it, or leave out the {path[-1]!r}"
            )
    for position, (option, path) in enumerate(written):
        other = next((o for o, p in written[:position] if _same(p, path)), None)
        if other is not None:
            raise InputError(f"{option} {path} and {other} are one file; give two names")
        for read in (*files, *_read_by(arguments)):
            if _same(read, path):
                raise InputError(f"{option} {path} is the input itself; give another name")
            if Path(path).is_file() and _is_of(_resolved(path), _resolved(read)):
                raise InputError(f"{option} {path} is a file of {read}, which is read; give another name")
            if checkpoint and option == "-o" and joins(_resolved(path), _resolved(read)):
                raise InputError(f"{option} {path} {JOINED.format(read)}")
    for option, path in written:
        where = Path(path)
        if option in ("-o", "--dropped") and table and where.suffix.lower() not in TABLES:
            raise InputError(f"{option} {path}: give a name that ends in .csv, .tsv, .parquet or .jsonl")
        if option == "--export" and where.suffix.lower() != ".json":
            raise InputError(f"--export {path}: labelling tools import JSON; give a name that ends in .json")
        if option == "--report" and where.suffix.lower() not in (".html", ".htm"):
            raise InputError(f"--report {path}: the report is a page; give a name that ends in .html")
        if where.is_dir() and option not in folders:
            raise InputError(f"{option} {path} is a folder; name a file in it")
        refuse_unread(where)
        if not where.resolve().parent.is_dir():
            raise InputError(f"{option} {path}: there is no folder {where.resolve().parent}")
    context = click.get_current_context(silent=True)
    if context is not None and not arguments.dry_run:
        for _, path in written:
            context.with_resource(claimed(path))


def _read_by(arguments: VerbArguments) -> list[str]:
    """The values of other flags that are files, or folders with files."""
    written = {"output", "report", "plan_path", "dropped", "export", "applied", "typed"}
    values: list[Any] = []
    for name in (field.name for field in fields(arguments) if field.name not in written):
        value = getattr(arguments, name)
        values += value if isinstance(value, KeysOf) else [value]
    values += [word.rpartition("@")[2] for word in arguments.typed if "@" in word]
    return [value for value in values if isinstance(value, str) and value and names_a_file(value)]


def _is_of(path: Path, folder: Path) -> bool:
    """Whether a file is one that is read with the folder: directly in it, or in a module of a model ("1_Pooling")."""
    return folder.is_dir() and (
        path.parent == folder or (path.parent.parent == folder and bool(_MODULE.match(path.parent.name)))
    )


def _same(first: str, second: str) -> bool:
    """Whether two names stand for one file, through links too."""
    if _resolved(first) == _resolved(second):
        return True
    return names_a_file(first) and names_a_file(second) and os.path.samefile(first, second)


def _resolved(path: str) -> Path:
    """The file that a name stands for, through links."""
    try:
        return Path(path).resolve()
    except (OSError, RuntimeError):
        raise InputError(f"{path} is a loop of links; name another file") from None
    except ValueError:  # a zero byte
        raise InputError(f"{path!r} is no name of a file; check the path") from None


# What this command has written so far: an interrupt names it.
WRITTEN: list[str] = []


def finish(
    plan: Plan,
    arguments: VerbArguments,
    table: Callable[[], pl.DataFrame | list[bytes]] | None = None,
    **context: Any,
) -> None:
    """Write what was asked for: the table, the report and the plan.

    Args:
        plan: the answer.
        arguments: where each of them goes.
        table: makes the table, or its lines; None where the method has written its output itself.
        **context: what the report shows beside the plan.
    """
    WRITTEN.clear()
    if arguments.output and table is not None:
        made = table()
        if isinstance(made, pl.DataFrame):
            write_table(made, arguments.output)
        else:
            write_lines(made, arguments.output)
        WRITTEN.append(arguments.output)
    if arguments.report:
        plan.report(arguments.report, command=arguments.typed, **context)
        WRITTEN.append(arguments.report)
    if arguments.plan_path:
        plan.save(arguments.plan_path)
        WRITTEN.append(arguments.plan_path)


def free_name(name: str, taken: Iterable[str]) -> str:
    """The name of a column of ours, beside the file's own."""
    return f"kofn_{name}" if name in set(taken) else name


def renamed(table: Table, *names: str) -> list[str]:
    """One line for each column of ours whose name the file has already."""
    clashes = [name for name in names if name in table.columns]
    return [f"the file has a column {name!r} of its own, so ours is {f'kofn_{name}'!r}" for name in clashes]


def check_columns(table: Table, arguments: RowArguments) -> None:
    """Refuse, before any work is done, columns that the output cannot hold, and an array that holds no images.

    Args:
        table: what is read; all its columns but those of --drop are written to -o.
        arguments: what was typed.
    """
    if arguments.images:
        images_of(table, arguments.images)
    kept = {name: kind for name, kind in table.types.items() if name not in (arguments.drop or ())}
    for name, kind in kept.items() if getattr(arguments, "export", ()) else ():
        refuse_bytes(name, kind, f"leave the column out with --drop {name!r}")
    if arguments.output is None or table.path.suffix.lower() in ARRAYS:
        return
    suffix = Path(arguments.output).suffix.lower()
    for name, kind in kept.items():
        if not _holds(suffix, kind):
            raise InputError(
                f"column {name!r} holds {kind}, which {suffix} cannot hold; give -o a name that ends in .parquet, or "
                f"leave the column out with --drop {name!r}"
            )


def _holds(suffix: str, kind: pl.DataType) -> bool:
    """Whether files of this suffix can hold values of this type."""
    if suffix == ".parquet":
        return True
    if kind == pl.Duration:
        return suffix == ".jsonl"
    inner = [kind.inner] if isinstance(kind, pl.List | pl.Array) else []
    inner = [field.dtype for field in kind.fields] if isinstance(kind, pl.Struct) else inner
    # Inside lists, durations are written as JSON.
    return kind != pl.Binary and all(_holds(".jsonl", part) for part in inner if isinstance(part, pl.DataType))


def rows_with(
    table: Table, rows: Any, added: Mapping[str, Any], arguments: RowArguments, replaced: Sequence[str] = ()
) -> pl.DataFrame | list[bytes]:
    """Rows of the file with columns of ours; JSON lines stay as they stand in the file where they are written as such.

    Args:
        table: the file.
        rows: row numbers.
        added: our columns, NaN for none.
        arguments: where the rows go, and which columns do not.
        replaced: columns of the file that ours take the place of.
    """
    drop = (*(arguments.drop or ()), *replaced)
    names = [free_name(name, set(table.columns) - set(replaced)) for name in added]
    columns = [pl.Series(name, values) for name, values in zip(names, added.values(), strict=True)]
    columns = [series.fill_nan(None) if series.dtype.is_float() else series for series in columns]
    to_lines = arguments.output is not None and Path(arguments.output).suffix.lower() == ".jsonl"
    lines = table.lines(rows) if to_lines else None
    if lines is None:
        return rows_of(table, rows, drop).with_columns(columns)
    if not columns and not drop:
        return lines
    members = pl.DataFrame(columns).to_dicts()
    return [with_members(line, more, drop) for line, more in zip(lines, members, strict=True)]


def lines_of(table: Table, rows: NDArray[np.int64], arguments: RowArguments) -> Iterator[bytes] | None:
    """Rows of a file of JSON lines as they stand in it, a run of them at a time in memory; None where they are not
    written as such.

    Args:
        table: the file.
        rows: row numbers.
        arguments: where the rows go, and which columns do not.
    """
    if arguments.output is None or Path(arguments.output).suffix.lower() != ".jsonl" or table.lines(rows[:0]) is None:
        return None
    runs = (table.lines(rows[low : low + _LINES_AT_ONCE]) or [] for low in range(0, len(rows), _LINES_AT_ONCE))
    lines = chain.from_iterable(runs)
    return (with_members(line, {}, arguments.drop) for line in lines) if arguments.drop else lines


def rows_of(table: Table, rows: Any, drop: Sequence[str] | None = None) -> pl.DataFrame:
    """Rows of the file with all its columns but those of `drop`; of an array file only what is one value a row, `row`
    finds the rest."""
    frame = table.take(rows).drop(drop or ())
    if table.path.suffix.lower() in ARRAYS:
        return frame.select(name for name, kind in frame.schema.items() if not kind.is_nested())
    return frame
