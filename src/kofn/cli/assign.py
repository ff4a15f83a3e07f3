"""`kofn assign`: rows into groups, or items into bins with a capacity."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import click
import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.cli import arguments as words
from kofn.cli.arguments import AMOUNTS_OR_TABLE, CAPACITY_OR_TABLE, COUNT_OR_AUTO, RowArguments, flag
from kofn.cli.estimate import beginning_of, say_beforehand
from kofn.cli.printing import first_of, say
from kofn.cli.read import ARRAYS, Pool, read_pairs, read_scores, read_vectors, seen_in_report, without_gaps
from kofn.cli.verb_command import Section, VerbCommand
from kofn.cli.write import check_columns, check_outputs, finish, renamed, rows_with
from kofn.core.checks import InputError
from kofn.core.plans import Assignment
from kofn.io.tables import Table
from kofn.io.vectors import PoolVectors
from kofn.verbs import assign

_LINKS = ("must_link", "cannot_link")
_SHOWN_BINS = 8
# Words of which each bin may have its own, with their flags.
_BY_BIN = {"capacity": "capacity", "min_size": "min-size", "limits": "limit"}

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
            help="Items that a group or bin can hold; A,B: each bin; FILE: a table of bins and their capacities.",
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
        flag("--overflow", metavar="RULE", help="What a full bin does: error (default), drop or reroute."),
    ),
)
KNOWN = Section(
    "What is known of the rows", (words.ID, words.WEIGHT, words.LABEL, words.IMAGES, words.DROP, *words.GAPS)
)
ANSWER = words.method_section("Where the groups go: all columns plus group, or id, bin and weight of each placement.")


@dataclass(frozen=True, kw_only=True)
class AssignArguments(RowArguments):
    """What `kofn assign` was asked."""

    VERB: ClassVar[str] = "assign"
    OPTIONS: ClassVar[tuple[str, ...]] = ("overflow", *_LINKS)

    by_scores: bool
    sense: str | None
    k: int | str | None
    capacity: int | list[int] | str | None
    min_size: int | list[int] | str | None
    size_column: str | None
    limits: float | list[float] | str | None
    equal: bool
    must_link: str | None
    cannot_link: str | None
    per_item: int | None
    overflow: str | None

    def __post_init__(self) -> None:
        if self.sense is not None and not self.by_scores:
            raise InputError(f"--sense {self.sense} says what --scores are; give --scores too")
        if self.equal and not isinstance(self.k, int):
            raise InputError("--equal makes groups of equal size: say how many with --k")
        if self.equal and (self.capacity is not None or self.min_size is not None):
            raise InputError("--equal sets the sizes; leave --capacity and --min-size out")
        if (self.size_column is None) != (self.limits is None):
            given, other = ("--size", "--limit") if self.limits is None else ("--limit", "--size")
            raise InputError(f"{given} needs {other}: a bin's sizes add up to at most its limit; give both")
        filled = [name for name in ("capacity", "per_item", "overflow") if getattr(self, name) is not None]
        if filled and self.method == "auto" and self.k is None and not self.by_scores:
            flags = " and ".join(f"--{name.replace('_', '-')}" for name in filled)
            raise InputError(f"{flags}: add --k for groups of rows, or --scores if the columns are scores for bins")


@click.command(
    "assign", cls=VerbCommand, verb="assign", sections=(COMPARED, WANTED, KNOWN, *ANSWER), short_help="Group or route."
)
@click.argument("file", metavar="FILE")
@click.pass_obj
def command(typed: Sequence[str], file: str, **values: Any) -> None:
    """Put the rows of FILE into k groups around real examples, or items into bins with a capacity.

    \b
    kofn assign points.parquet --vectors emb --k 20 -o groups.parquet --report groups.html
    kofn assign points.npy --k 20 --capacity 2500 --min-size 100 -o groups.parquet
    kofn assign posts.csv --text body --k auto -o groups.csv --report groups.html
    kofn assign scores.npy --scores --capacity 64 --overflow reroute -o routes.csv
    kofn assign tasks.csv --id task --scores --size hours --limit 40 -o week.csv
    """
    arguments = AssignArguments.of(typed, values)
    check_outputs(arguments, [file])
    if arguments.dry_run:
        with beginning_of(file, arguments) as (table, rows):
            arguments = arguments.named_in(table)
            pool = read_pool(table, arguments)
            call, options = call_of(pool, arguments), options_of(pool, arguments)
            say_beforehand("assign", arguments.method, options, call, arguments.as_json, rows)
            for note in pool.notes:
                click.echo(note, err=True)
        return
    table = Table.open(file, arguments.reading)
    arguments = arguments.named_in(table)
    if not arguments.by_scores:
        check_columns(table, arguments)
    pool = read_pool(table, arguments)
    call, options = call_of(pool, arguments), options_of(pool, arguments)
    if "ids" in call:
        options |= {name: call["ids"][pairs] for name, pairs in options.items() if name in _LINKS}
    plan = assign(method=arguments.method, options=options, **call)
    finish(plan, arguments, lambda: placements(plan, pool, arguments), **report_context(pool, arguments))
    say(answer(plan, pool, arguments), lambda: render(plan, pool, arguments), arguments.as_json)


def read_pool(table: Table, arguments: AssignArguments) -> Pool:
    """The items and what is known of them."""
    X: Any = None
    matrix: NDArray[Any] | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if arguments.by_scores:
        matrix, names = read_scores(table, arguments, some_unlisted=True)
        if arguments.sense == "min":
            matrix = np.where(matrix == -np.inf, -np.inf, -matrix)
        notes = tuple(f"no item may go to bin {name!r}: it has no score" for name in _blank(matrix, names))
    else:
        compared = _vectors(table, arguments)
        X = compared.X
        if arguments.text:
            notes = (f"compared by {compared.how}", *compared.notes)
    values = {}
    if arguments.weight_column:
        values["weights"] = table.numbers(arguments.weight_column)
    if arguments.size_column:
        values["sizes"] = table.numbers(arguments.size_column)
    if arguments.label_column:
        values["y"] = table.labels(arguments.label_column)
    pool = Pool(
        table=table,
        rows=np.arange(table.n),
        X=X,
        matrix=matrix,
        matrix_columns=names,
        ids=table.ids(arguments.id_column) if arguments.id_column else None,
        values=values,
        notes=notes,
    )
    return without_gaps(pool, arguments)


def _blank(matrix: NDArray[Any], names: Sequence[str]) -> list[str]:
    """The bins that no item may go to."""
    return [name for j, name in enumerate(names) if not (matrix[:, j] > -np.inf).any()]


def _refuse_minima_of_blank(call: dict[str, Any], pool: Pool, arguments: AssignArguments) -> None:
    """Refuse bins that must hold something where no item may go to them, by the bins' names."""
    blank = [] if pool.matrix is None or not pool.matrix_columns else _blank(pool.matrix, pool.matrix_columns)
    if not blank:
        return
    least = call.get("min_size")
    positions = [pool.matrix_columns.index(name) for name in blank]
    if least is not None:
        amounts = np.broadcast_to(least, len(pool.matrix_columns)) if np.ndim(least) == 0 else np.asarray(least)
        asked = [(name, amounts[j]) for name, j in zip(blank, positions, strict=True) if j < len(amounts)]
        name, amount = next(((name, amount) for name, amount in asked if amount > 0), ("", 0))
        if name:
            raise InputError(
                f"--min-size asks {amount} of bin {name!r}, which has no score, so that no item may go to it; "
                "give it a minimum of 0, or fill its cells"
            )
    elif arguments.method == "auto" and call.keys().isdisjoint(("capacity", "per_item", "limits")):
        raise InputError(
            f"bin {blank[0]!r} has no score, so that no item may go to it, and without --capacity every bin "
            "holds as many items as the others; give --capacity, or leave the bin out by --columns"
        )


def _vectors(table: Table, arguments: AssignArguments) -> PoolVectors:
    try:
        return read_vectors(table, arguments)
    except InputError as error:
        if arguments.text or arguments.vectors or arguments.columns:
            raise
        raise InputError(f"{error}; or --scores, if the columns are scores of the rows for bins") from None


def call_of(pool: Pool, arguments: AssignArguments) -> dict[str, Any]:
    """The arguments of `kofn.assign`."""
    call = arguments.given("k", "capacity", "per_item", *_BY_BIN) | dict(pool.values)
    if arguments.equal:
        call["capacity"] = -(-len(pool.rows) // call["k"])
        call["min_size"] = len(pool.rows) // call["k"]
    for name, flag_name in _BY_BIN.items():
        if isinstance(file := call.get(name), str):
            if arguments.k == "auto":
                raise InputError(f"--{flag_name} {file} names the bins, so --k auto has none to find; give --k")
            bins = range(call.get("k", 0) if pool.matrix is None else pool.matrix.shape[1])
            call[name] = _by_bin(file, flag_name, pool.matrix_columns or tuple(map(str, bins)))
    _refuse_minima_of_blank(call, pool, arguments)
    if pool.ids is not None or pool.dropped:
        call["ids"] = pool.keys  # rows are named by their number in the file, also where some were left out
    if pool.matrix is not None:
        call["scores"] = pool.matrix
    else:
        call["distances" if arguments.metric == "precomputed" else "X"] = pool.X
    if arguments.metric != "precomputed" and (arguments.metric or (arguments.text and not arguments.by_scores)):
        call["metric"] = arguments.measured_by
    return call


def options_of(pool: Pool, arguments: AssignArguments) -> dict[str, Any]:
    """The method's options, the files of linked pairs as pairs of row numbers."""
    options = arguments.options
    for name in _LINKS:
        if isinstance(file := options.get(name), str):
            options[name] = read_pairs(file, pool.keys, name.replace("_", "-"))
    return options


def _by_bin(file: str, flag: str, bins: Sequence[str]) -> NDArray[Any]:
    """The number of each bin from a table whose first two columns are the bin's name and its number."""
    table = Table.open(file)
    if len(table.columns) < 2:
        raise InputError(f"--{flag} {file} has one column; give two, the name of each bin and its {flag}")
    names, counts = table.labels(table.columns[0]).tolist(), table.numbers(table.columns[1])
    position = {name: row for row, name in enumerate(names)}
    twice = next((name for row, name in enumerate(names) if position[name] != row), None)
    if twice is not None:
        raise InputError(f"--{flag} {file} names {twice!r} twice; name each bin once")
    unknown = next((name for name in names if name not in bins), None)
    if unknown is not None:
        shown = ", ".join(bins[:12]) + (", ..." if len(bins) > 12 else "")
        raise InputError(f"--{flag} {file} names {unknown!r}, which is no bin; the bins are {shown}")
    missing = next((name for name in bins if name not in position), None)
    if missing is not None:
        raise InputError(f"--{flag} {file} has no row for the bin {missing!r}; give each bin its {flag}")
    return counts[[position[name] for name in bins]]


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
    return {
        "metric": arguments.measured_by,
        "frame": frame,
        **({"X": pool.X} if pool.matrix is None else {"scores": pool.matrix}),
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


def render(plan: Assignment, pool: Pool, arguments: AssignArguments) -> str:
    """The answer for people."""
    counted = answer(plan, pool, arguments)
    lost = counted["placements_dropped"]
    several = (
        f", {lost:,} placement{'' if lost == 1 else 's'} dropped" if lost and (arguments.per_item or 1) > 1 else ""
    )
    lines = [
        f"{plan.method}: {plan.n:,} items in {plan.k} bins, {'cost' if arguments.sense == 'min' else 'value'} "
        f"{counted['value']:.6g} ({plan.status})",
        f"sizes from {counted['smallest']:,} to {counted['largest']:,}, {counted['unplaced']:,} unplaced{several}",
        *_filled(plan, pool),
        *pool.notes,
    ]
    if arguments.output and pool.matrix is None:
        lines += renamed(pool.table, "group", "medoid")
    if "curve" in plan.info:
        curve = plan.info["curve"]
        best = [f"{k} ({value:.3f})" for k, value in zip(curve["k"], curve["silhouette"], strict=True)]
        average = "average medoid silhouette" if plan.objective == "medoid_silhouette" else "average silhouette width"
        lines.append(f"{average} by k: {', '.join(best)}")
        if plan.k == curve["k"][-1] and plan.k < plan.n:
            lines.append(f"best at the largest k that was tried; --k-max {2 * plan.k} tries more")
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
