"""What the commands write: the table of the answer, the plan and the report."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import polars as pl

from kofn.cli.arguments import VerbArguments
from kofn.cli.read import ARRAYS, TABLES
from kofn.core.checks import InputError
from kofn.core.plans import Plan
from kofn.io.atomic import write_table
from kofn.io.tables import Table


def check_output(output: str | None, file: str, option: str = "-o") -> None:
    """Refuse, before any work is done, a place where no table can be written."""
    if output is None:
        return
    if Path(output).resolve() == Path(file).resolve():
        raise InputError(f"{option} {output} is the input itself; give another name")
    if Path(output).suffix.lower() not in TABLES:
        raise InputError(f"{option} {output}: give a name that ends in .csv, .tsv, .parquet or .jsonl")
    if not Path(output).resolve().parent.is_dir():
        raise InputError(f"{option} {output}: there is no folder {Path(output).resolve().parent}")


def finish(
    plan: Plan, arguments: VerbArguments, table: Callable[[], pl.DataFrame] | None = None, **context: Any
) -> None:
    """Write what was asked for: the table, the report and the plan.

    Args:
        plan: the answer.
        arguments: where each of them goes.
        table: makes the table; None where the method has written its output itself.
        **context: what the report shows beside the plan.
    """
    if arguments.output and table is not None:
        write_table(table(), arguments.output)
    if arguments.report:
        plan.report(arguments.report, command=arguments.typed, **context)
    if arguments.plan_path:
        plan.save(arguments.plan_path)


def free_name(name: str, taken: Iterable[str]) -> str:
    """The name of a column of ours, beside the file's own."""
    return f"kofn_{name}" if name in set(taken) else name


def renamed(table: Table, *names: str) -> list[str]:
    """One line for each column of ours whose name the file has already."""
    clashes = [name for name in names if name in table.columns]
    return [f"the file has a column {name!r} of its own, so ours is {f'kofn_{name}'!r}" for name in clashes]


def rows_of(table: Table, rows: Any) -> pl.DataFrame:
    """Rows of the file with all its columns; of an array file only what is one value a row, `row` finds the rest."""
    frame = table.take(rows)
    if table.path.suffix.lower() in ARRAYS:
        return frame.select(name for name, kind in frame.schema.items() if not kind.is_nested())
    return frame
