"""`kofn assign`: rows into groups, or items into bins with a capacity."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import click
import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.cli import arguments as words
from kofn.cli.arguments import AMOUNTS_OR_TABLE, CAPACITY_OR_TABLE, COLUMNS, COUNT_OR_AUTO, NUMBER, flag
from kofn.cli.estimate import beginning_of, say_beforehand, seconds_of_words
from kofn.cli.printing import drawn_lines, first_of, say
from kofn.cli.verb_command import Section, VerbCommand
from kofn.cli.write import check_columns, check_outputs, finish, renamed, rows_with
from kofn.core.checks import is_sparse
from kofn.core.compiled import only_compiled
from kofn.core.plans import Assignment
from kofn.io.beginnings import About
from kofn.io.many import files_of, open_tables
from kofn.io.tables import Table, located
from kofn.tables.assign_arguments import AssignArguments
from kofn.tables.assign_pool import prepared
from kofn.tables.long_bins import with_bins
from kofn.tables.read import ARRAYS, Pool, seen_in_report
from kofn.tables.unlike import listed
from kofn.verbs import assign

_SHOWN_BINS = 8
# What is said of k by the structure that its groups' silhouettes show.
_DOUBTS = {
    "weak": "weak structure (an average width of 0.25 to 0.5): other numbers of groups may serve as well",
    "none": "no structure (an average width below 0.25): the rows hardly fall into groups; choose k yourself",
}

COMPARED = Section(
    "What the rows are compared by",
    (
        words.TEXT,
        words.EMBEDDER,
        words.NO_CACHE,
        words.VECTORS,
        words.columns("Compare rows by these columns; with --scores, one column a bin."),
        words.CATEGORIES,
        words.METRIC,
        flag(
            "--scores",
            "by_scores",
            is_flag=True,
            help="The file holds scores of items (rows) for bins (columns); empty or -inf: the item may not go there.",
        ),
        flag(
            "--long",
            metavar="A,B,C",
            type=COLUMNS,
            help="Columns of a table of one score a row: the item, the bin, and the score; a pair without one is kept "
            "apart. In place of --scores.",
        ),
        flag("--sense", type=click.Choice(("max", "min")), help="Of --scores: max (default), min if they are costs."),
    ),
)
WANTED = Section(
    "What groups or bins",
    (
        flag(
            "-k",
            "--k",
            type=COUNT_OR_AUTO,
            metavar="N|auto",
            help="Number of groups; auto finds it by the average silhouette width.",
        ),
        flag(
            "--capacity",
            type=CAPACITY_OR_TABLE,
            metavar="N|A,B|FILE",
            help="Items that a group or bin can hold; A,B: each bin; FILE: a table of bins and their capacities. Of "
            "vectors groups then stand around means, with -m constrained_kmedoids around real examples.",
        ),
        flag("--equal", is_flag=True, help="Groups of equal size, up to one row."),
        flag(
            "--min-size",
            type=CAPACITY_OR_TABLE,
            metavar="N|A,B|FILE",
            help="Items that a group or bin must hold at the least, likewise.",
        ),
        flag(
            "--size", "--sizes", "size_column", metavar="COL", help="With --limit: how much of a bin each item fills."
        ),
        flag(
            "--limit",
            "--limits",
            "limits",
            type=AMOUNTS_OR_TABLE,
            metavar="N|A,B|FILE",
            help="With --scores and --size: what the sizes in a bin may add up to.",
        ),
        flag("--must-link", metavar="FILE", help="Pairs of ids that stay together: two columns, one pair a line."),
        flag("--cannot-link", metavar="FILE", help="Pairs of ids that stay apart."),
        flag("--per-item", type=int, help="Bins that an item goes to, default 1."),
        flag(
            "--overflow",
            metavar="RULE",
            help="What a full bin does: error, drop or reroute; without it the largest total within the capacities.",
        ),
        flag(
            "--reserve",
            type=NUMBER,
            metavar="VALUE",
            help="With --scores: what an item is worth that stays out, or a slot of --per-item that stays empty; with "
            "--sense min what that costs.",
        ),
    ),
)
KNOWN = Section(
    "What is known of the rows", (words.ID, words.WEIGHT, words.LABEL, words.IMAGES, words.DROP, *words.GAPS)
)
_READS, _WRITES, _WORKS = words.method_section(
    "Where the groups go: all columns plus group, or id, bin and weight of each placement."
)
ENGINE = flag("--engine", metavar="NAME", help="Where rows are compared: local (default) or ray; the same groups.")
ANSWER = (_READS, _WRITES, Section(_WORKS.title, (*_WORKS.flags, words.DEVICE, ENGINE, words.ADDRESS)))


@click.command(
    "assign", cls=VerbCommand, verb="assign", sections=(COMPARED, WANTED, KNOWN, *ANSWER), short_help="Group or route."
)
@click.argument("files", metavar="FILE...", nargs=-1, required=True)
@click.pass_obj
def command(typed: Sequence[str], files: tuple[str, ...], **values: Any) -> None:
    """Put the rows of FILE into k groups around real examples, or items into bins with a capacity. Several files, a
    glob or a folder are one table.

    \b
    kofn assign points.parquet --vectors emb --k 20 -o groups.parquet --report groups.html
    kofn assign points.npy --k 20 --capacity 2500 --min-size 100 -o groups.parquet
    kofn assign posts.csv --text body --k auto -o groups.csv --report groups.html
    kofn assign scores.npy --scores --capacity 64 --overflow reroute -o routes.csv
    kofn assign tasks.csv --id task --scores --size hours --limit 40 -o week.csv
    """
    arguments = AssignArguments.of(typed, values)
    check_outputs(arguments, [*files, *map(str, files_of(files))])
    if arguments.dry_run:
        with only_compiled(), beginning_of(files, arguments) as (table, rows):
            whole = table.n
            table, arguments, lines = with_bins(table, arguments)
            if lines and rows is not None:
                rows = About(round(rows * table.n / whole))
            arguments = arguments.named_in(table).beginning_of(rows)
            call = prepared(table, arguments)
            bins = call.pool.matrix_columns
            asked = arguments
            making = seconds_of_words(lambda: prepared(table, asked), call.pool.notes, table.n)
            say_beforehand("assign", arguments.method, call.options, call.words, arguments.as_json, rows, bins, making)
            for note in (*lines, *call.pool.notes):
                click.echo(note, err=True)
        return
    table = open_tables(files, arguments.reading)
    with located(table):
        _assign(table, arguments)


def _assign(table: Table, arguments: AssignArguments) -> None:
    """Assign, write and say."""
    table, arguments, lines = with_bins(table, arguments)
    arguments = arguments.named_in(table)
    if not arguments.by_scores:
        check_columns(table, arguments)
    call = prepared(table, arguments)
    call = call._replace(pool=dataclasses.replace(call.pool, notes=(*lines, *call.pool.notes)))
    pool, plan = call.pool, call.answer(assign, arguments.method)
    finish(plan, arguments, lambda: placements(plan, pool, arguments), **report_context(pool, arguments))
    say(answer(plan, pool, arguments), lambda: render(plan, pool, arguments), arguments.as_json)


def placements(plan: Assignment, pool: Pool, arguments: AssignArguments) -> pl.DataFrame | list[bytes]:
    """Each row with its group; where an item may hold several bins or none, one row a placement."""
    if pool.matrix is None:
        added: dict[str, NDArray[Any]] = {"group": plan.labels}
        if plan.medoids is not None:
            added["medoid"] = np.isin(np.arange(plan.n), plan.medoids)
        rows = rows_with(pool.table, pool.rows, added, arguments)
        if isinstance(rows, pl.DataFrame):
            rows = rows.select(name for name, kind in rows.schema.items() if not isinstance(kind, pl.Array))
        return rows
    frame = plan.to_frame()
    if pool.matrix_columns:
        frame = frame.with_columns(pl.Series("bin", [pool.matrix_columns[j] for j in plan.bins], dtype=pl.String))
    # Who is in no bin has a row too, with an empty bin.
    unplaced = np.flatnonzero(np.diff(plan.indptr) == 0)
    left = pl.DataFrame({"id": pl.Series(pool.keys[unplaced], dtype=frame.schema["id"]), "index": unplaced})
    return pl.concat([frame, left], how="diagonal").sort("index", maintain_order=True).drop("index")


def report_context(pool: Pool, arguments: AssignArguments) -> dict[str, Any]:
    """What the report shows beside the plan."""
    if not arguments.report:
        return {}
    table = pool.table
    frame = None
    if table.path.suffix.lower() not in ARRAYS:
        # The columns that people can read, without vectors, which may be most of the file.
        frame = pl.DataFrame([table.column(name)[pool.rows] for name in table.columns if table.dtype(name) != "vector"])
    of_rows = {"X": None if is_sparse(pool.X) else pool.X}
    scores: Any = pool.matrix
    if scores is not None and len(set(pool.matrix_columns)) == scores.shape[1]:
        scores = pl.DataFrame(scores, schema=list(pool.matrix_columns))
    return {
        "metric": arguments.measured_by,
        "frame": frame,
        **(of_rows if pool.matrix is None else {"scores": scores}),
        **seen_in_report(table, arguments, pool.rows),
    }


def _left_out(plan: Assignment, pool: Pool, arguments: AssignArguments) -> int:
    """How many placements are missing: bins that an item asked for (--per-item, or all that it may go to) and lacks."""
    if pool.matrix is None:
        return 0
    asked = np.minimum(arguments.per_item or 1, (pool.matrix > -np.inf).sum(axis=1))
    return int(np.maximum(asked - np.diff(plan.indptr), 0).sum())


def answer(plan: Assignment, pool: Pool, arguments: AssignArguments) -> dict[str, Any]:
    """The answer for machines."""
    sizes = np.bincount(plan.bins, minlength=plan.k)
    medoids = {} if plan.medoids is None else {"medoids": plan.keys(plan.medoids)}
    sign = -1 if arguments.sense == "min" else 1
    return {
        "method": plan.method,
        "items": plan.n,
        "bins": plan.k,
        "value": sign * plan.value,
        "sense": arguments.sense or plan.sense,
        "bound": None if plan.bound is None else sign * plan.bound,
        "status": plan.status,
        "smallest": int(sizes.min()),
        "largest": int(sizes.max()),
        "unplaced": int((np.diff(plan.indptr) == 0).sum()),
        "placements_dropped": _left_out(plan, pool, arguments),
        "seconds": plan.info["seconds"],
        "seed": plan.seed,
        "output": arguments.output,
        "report": arguments.report,
        **medoids,
        "labels": plan.labels,
    }


def _filled(plan: Assignment, pool: Pool) -> list[str]:
    """How full the bins are whose items' sizes are limited: the fullest first."""
    if "limits" not in plan.used:
        return []
    used, limits = plan.used["limits"], plan.budget["limits"]
    shares = used / np.where(limits > 0, limits, 1)
    shown = np.argsort(-shares, kind="stable")[:_SHOWN_BINS].tolist()
    bins = [f"{pool.matrix_columns[j] if pool.matrix_columns else j} {used[j]:g} of {limits[j]:g}" for j in shown]
    return [f"filled: {', '.join(bins)}{', ...' if plan.k > len(shown) else ''}"]


def _tried(plan: Assignment) -> list[str]:
    """How good each number of groups is, where the method found it."""
    curve = plan.info["curve"]
    if not curve["k"]:
        why = "there is one row" if plan.n == 1 else "all rows are the same, or too few differ"
        return [f"1 group: {why}, so that no other number of groups can be compared"]
    best = [f"{k} ({value:.3f})" for k, value in zip(curve["k"], curve["silhouette"], strict=True)]
    average = "average medoid silhouette" if plan.objective == "medoid_silhouette" else "average silhouette width"
    lines = [f"{average} by k: {', '.join(best)}"]
    if doubt := _DOUBTS.get(plan.info.get("structure", "")):
        lines.append(doubt)
    if plan.k == curve["k"][-1] and plan.k < plan.n:
        lines.append(f"best at the largest k that was tried; --k-max {2 * plan.k} tries more")
    return lines


def render(plan: Assignment, pool: Pool, arguments: AssignArguments) -> str:
    """The answer for people."""
    counted = answer(plan, pool, arguments)
    lost = counted["placements_dropped"]
    bins = f" ({listed(pool.matrix_columns)})" if pool.matrix_columns else ""
    several = (
        f", {lost:,} placement{'' if lost == 1 else 's'} dropped" if lost and (arguments.per_item or 1) > 1 else ""
    )
    lines = [
        f"{plan.method}: {plan.n:,} items in {plan.k} bins{bins}, {'cost' if arguments.sense == 'min' else 'value'} "
        f"{counted['value']:.6g} ({plan.status})",
        f"sizes from {counted['smallest']:,} to {counted['largest']:,}, {counted['unplaced']:,} unplaced{several}",
        *_filled(plan, pool),
        *pool.notes,
    ]
    if plan.method == "constrained_kmeans" and arguments.method == "auto":
        lines.append("the groups stand around means, which are no rows; around real examples: -m constrained_kmedoids")
    lines += drawn_lines(plan, arguments.seed, "these groups" if pool.matrix is None else "this answer")
    if arguments.output and pool.matrix is None:
        lines += renamed(pool.table, "group", "medoid")
    if "curve" in plan.info:
        lines += _tried(plan)
    if unreached := plan.info.get("unreached"):
        rows = f"{unreached:,} rows lie in parts of the neighbour graph without a label"
        lines.append(f"{rows}: the prototypes alone placed them (--n-neighbors joins more rows)")
    if plan.medoids is not None:
        lines.append(f"medoids: {first_of(plan.keys(plan.medoids).tolist())}")
    if arguments.output:
        lines.append(f"{'bins' if pool.matrix is not None else 'groups'} -> {arguments.output}")
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)
