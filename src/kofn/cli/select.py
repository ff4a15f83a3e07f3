"""`kofn select`: a file of rows in, the picks out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import click

from kofn.cli.estimate import (
    beginning_of,
    duplicates_beforehand,
    facts,
    rows_left,
    say_beforehand,
    seconds_again,
    seconds_of_words,
)
from kofn.cli.estimate_samples import refuse_infeasible
from kofn.cli.printing import say
from kofn.cli.select_answer import answer, export_picks, picks, refuse_nothing, render, report_context, warn_of_few
from kofn.cli.select_arguments import ANSWER, COMPARED, KNOWN, LARGE, WANTED
from kofn.cli.select_kept import answer_kept, dropped_rows, plan_kept, render_kept, write_kept
from kofn.cli.select_large import by_parts, is_large, ways_beforehand, with_sample
from kofn.cli.select_rounds import with_row_numbers
from kofn.cli.verb_command import VerbCommand
from kofn.cli.write import check_columns, check_outputs, finish
from kofn.core.compiled import only_compiled
from kofn.io.atomic import write_table
from kofn.io.many import files_of, open_tables
from kofn.io.pool import Pool
from kofn.io.tables import Table, located
from kofn.tables.select_arguments import SelectArguments
from kofn.tables.select_pool import prepared
from kofn.verbs import select


@click.command(
    "select",
    cls=VerbCommand,
    verb="select",
    sections=(COMPARED, WANTED, KNOWN, LARGE, *ANSWER),
    short_help="Pick rows.",
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.pass_obj
def command(typed: Sequence[str], files: tuple[str, ...], **values: Any) -> int:
    """Pick which rows of FILE to keep (CSV, TSV, Parquet, JSONL, NPY, NPZ), in the order that a smaller budget would
    keep. Several files, a glob or a folder are one pool.

    \b
    kofn select pool.parquet --text body -k 500 -o picks.parquet --report picks.html
    kofn select pool.csv --columns age,city --budget 900 --cost minutes -o picks.csv
    kofn select pool.csv --text body --dedupe 0.9 -o kept.csv --dropped dropped.csv
    kofn select pool.jsonl --text q --quota 'lang=de:10-50' --quota 'lang=fr:10-' -k 200 -o picks.jsonl
    kofn select 'part-*.parquet' --vectors x -k 1000 -o picks.parquet
    kofn select pool.jsonl --text q -m rds_plus --queries wanted.txt -k 500 -o picks.jsonl
    kofn select pool.csv --text body --label topic -k 100 --all -o next.csv
    kofn select pool.csv --columns age,bmi --group site --label died -m sources_by_shift --target mine --most 3

    Exit code 3 where fewer than k are picked; where a stop leaves none, nothing is written.
    """
    began = time.perf_counter()
    arguments = SelectArguments.of(typed, values)
    check_outputs(arguments, [*files, *map(str, files_of(files))])
    if arguments.dry_run:
        with only_compiled(), beginning_of(files, arguments) as (table, rows):
            arguments = arguments.named_in(table).of_rows(rows or table.n).beginning_of(rows)
            arguments = with_row_numbers(arguments, table)
            if is_large(table, arguments, rows):
                ways = ways_beforehand(table, arguments, rows or table.n)
                say(ways, lambda: facts(ways), arguments.as_json)
                return 0
            call = prepared(table, arguments)
            if call.method is None:
                by_pairs, looked = (
                    arguments.text is None and arguments.columns is None,
                    call.pool.duplicates is not None,
                )
                seconds = seconds_again(lambda: prepared(table, arguments)) if looked else None
                kept = duplicates_beforehand(table.n, rows, seconds, pairs=by_pairs)
                say(kept, lambda: facts(kept), arguments.as_json)
                if not looked:
                    click.echo(call.pool.notes[-1], err=True)
                return 0
            with call.naming_quotas():
                refuse_infeasible("select", call.words, rows)
            left = rows_left(rows, len(call.pool.rows), table.n) if arguments.dedupe is not None else rows
            notes, again = call.pool.notes, arguments
            making = seconds_of_words(lambda: prepared(table, again), notes, table.n)
            say_beforehand("select", call.method, call.options, call.words, arguments.as_json, left, making=making)
            for note in call.pool.notes:
                click.echo(note, err=True)
        return 0
    table = open_tables(files, arguments.reading)
    with located(table):
        arguments = with_row_numbers(arguments.named_in(table).of_rows(table.n), table)
        if is_large(table, arguments):
            return _select(table, *by_parts(table, files, arguments), began)
        return _select(table, arguments, None, began)


def _select(table: Table, arguments: SelectArguments, parts: Pool | None, began: float) -> int:
    """Pick, write and say; `parts` are the vectors where they are read in parts."""
    if not arguments.by_scores:
        check_columns(table, arguments)
    call = prepared(table, arguments, parts)
    pool, arguments = call.pool, call.arguments
    if call.method is None:
        write_kept(pool, arguments)
        if arguments.report:
            kept = plan_kept(pool, arguments.id_column is not None)
            kept.report(arguments.report, command=arguments.typed, **report_context(kept, pool, arguments))
        say(answer_kept(pool, arguments), lambda: render_kept(pool, arguments), arguments.as_json)
        return 0
    plan = call.answer(select)
    refuse_nothing(plan, arguments)
    pool = with_sample(pool, plan)
    if arguments.dropped:
        write_table(dropped_rows(pool, arguments), arguments.dropped)
    export_picks(plan, pool, arguments)
    finish(plan, arguments, lambda: picks(plan, pool, arguments), **report_context(plan, pool, arguments))
    seconds = time.perf_counter() - began
    say(answer(plan, pool, arguments, seconds), lambda: render(plan, pool, arguments, seconds), arguments.as_json)
    return warn_of_few(plan, arguments)
