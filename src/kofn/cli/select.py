"""`kofn select`: a file of rows in, the picks out."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any, ClassVar

import click
import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.cli import arguments as words
from kofn.cli.arguments import CAPACITY, NUMBER, Quotas, RowArguments, flag
from kofn.cli.estimate import say_beforehand
from kofn.cli.printing import first_of, say
from kofn.cli.read import (
    Dropped,
    Pool,
    read_judges,
    read_keys,
    read_scores,
    read_vectors,
    read_vectors_together,
    seen_in_report,
)
from kofn.cli.verb_command import Section, VerbCommand
from kofn.cli.write import check_output, finish, free_name, renamed, rows_of
from kofn.core import checks
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.dispatch import methods_of
from kofn.core.plans import Selection
from kofn.io.atomic import write_table
from kofn.io.tables import Table
from kofn.verbs import select

if TYPE_CHECKING:
    from kofn.report.context import Repeats
    from kofn.report.measures import AtRandom

_NAMING = ("include", "exclude", "start")
_FILES = ("queries", "private")
# What spreads the picks out and is far below random draws as a set to learn from, at least on some kinds of data.
_SPREADING = ("farthest_first", "log_determinant", "feature_based", "weighted_coverage")
# From so many rows a class on, picking has not surely gained over random rows on tables (`python -m benchmarks
# usefulness`).
_MANY = 10
# How many classes are named in one line.
_CLASSES = 12

COMPARED = Section(
    "What the rows are compared by",
    (
        words.TEXT,
        words.EMBEDDER,
        words.VECTORS,
        words.columns("Compare rows by these columns: numbers scaled, categories one-hot."),
        words.METRIC,
        flag("--score", "score_column", metavar="COL", help="Pick by this column's scores."),
        flag("--scores", "by_scores", is_flag=True, help="The columns are scores; pick entries of the table."),
        flag("--rankings", "by_rankings", is_flag=True, help="The columns are judges; pick what they rate highest."),
        flag("--queries", metavar="FILE", help="Rows that the picks should be about: texts, a table or vectors."),
        flag("--private", metavar="FILE", help="Rows that are owned already, or must not be told, likewise."),
        flag("--dedupe", type=float, metavar="SIMILARITY", help="Drop near-duplicates first, from this similarity on."),
        flag("--dropped", metavar="PATH", help="Write which rows --dedupe dropped, and for which row."),
    ),
)
WANTED = Section(
    "What is picked",
    (
        flag("-k", "--k", type=int, help="How many to pick; with --budget, at most how many."),
        flag("--budget", type=NUMBER, help="What the picks may cost in total."),
        flag("--cost", "--costs", "cost_column", metavar="COL", help="Column of costs, with --budget."),
        flag(
            "--quota",
            "--quotas",
            "quotas",
            multiple=True,
            metavar="COL=GROUP:A-B",
            callback=words.parse_quotas,
            help="From A to B of a group (repeatable; A- or -B; shares as 20%-30%; columns may differ).",
        ),
        flag(
            "--proportional",
            multiple=True,
            metavar="COL",
            help="Each group of the column at its share of the pool, to within one pick (repeatable).",
        ),
        flag("--include", metavar="IDS_OR_FILE", help="Ids that must be picked: a,b,c or a file."),
        flag("--exclude", metavar="IDS_OR_FILE", help="Ids that must not be picked."),
        flag("--start", metavar="OLD_PICKS", help="Go on from these picks: a plan or a file of ids."),
        flag("--objective", metavar="NAME", help="What the picks maximise: `kofn methods objectives`."),
        flag("--per-item", type=int, help="With --scores: entries that a row may hold."),
        flag("--capacity", type=CAPACITY, metavar="N|A,B", help="With --scores: entries that a column may hold."),
    ),
)
KNOWN = Section(
    "What is known of the rows",
    (
        words.ID,
        words.WEIGHT,
        flag(
            "--group", "--groups", "group_column", metavar="COL", help="Column of groups, for methods that take them."
        ),
        words.LABEL,
        flag(
            "--classes",
            type=int,
            metavar="N",
            help="The picks are to be labelled, in about N classes: a hint to auto.",
        ),
        words.IMAGES,
    ),
)
ANSWER = words.method_section("Where the picks go (.csv, .tsv, .parquet, .jsonl): all columns plus rank and gain.")


@dataclass(frozen=True, kw_only=True)
class SelectArguments(RowArguments):
    """What `kofn select` was asked."""

    VERB: ClassVar[str] = "select"
    OPTIONS: ClassVar[tuple[str, ...]] = _FILES

    score_column: str | None
    by_scores: bool
    by_rankings: bool
    queries: str | None
    private: str | None
    dedupe: float | None
    dropped: str | None
    k: int | None
    budget: float | None
    cost_column: str | None
    quotas: Quotas
    proportional: tuple[str, ...]
    include: str | None
    exclude: str | None
    start: str | None
    objective: str | None
    per_item: int | None
    capacity: int | list[int] | None
    group_column: str | None
    classes: int | None

    def __post_init__(self) -> None:
        if self.classes is not None and self.classes < 2:
            raise InputError(f"--classes {self.classes}: give about how many classes the rows have, at least 2")
        if self.by_scores and self.by_rankings:
            raise InputError("--scores and --rankings both say what the columns are; give one of them")
        if self.dedupe is not None and self.metric == "precomputed":
            raise InputError(
                "--dedupe compares rows, of which --metric precomputed has only the similarities; drop near-duplicates "
                "from the rows before the similarities are computed (kofn.selection.near_duplicates), or leave it out"
            )
        if self.dropped is not None and self.dedupe is None:
            raise InputError(f"--dropped {self.dropped} lists what --dedupe drops; give --dedupe too, for example 0.9")
        if (self.budget is None) != (self.cost_column is None):
            raise InputError("--budget and --cost belong together: what may be spent, and the column of costs")
        if twice := [column for column in self.proportional if column in self.quotas]:
            raise InputError(f"--proportional and --quota both name {twice[0]!r}; give one of them for a column")
        other = [column for column in self.quota_columns if column != self.group_column]
        if self.group_column is not None and other:
            named = "--quota" if other[0] in self.quotas else "--proportional"
            raise InputError(f"--group names {self.group_column!r}, {named} names {other[0]!r}; give one column")

    @property
    def quota_columns(self) -> tuple[str, ...]:
        """The columns that have quotas."""
        return (*self.quotas, *dict.fromkeys(self.proportional))

    @property
    def groupings(self) -> tuple[str, ...]:
        """The columns of groups."""
        return self.quota_columns or ((self.group_column,) if self.group_column else ())

    @property
    def picks_by_label(self) -> bool:
        """True where the method reads the labels; elsewhere they are only counted."""
        return self.entry is not None and "y" in self.entry.accepted

    @property
    def distance(self) -> str:
        """The distance that the picks are measured by: of similarities that fall with it, the plain one."""
        return "euclidean" if self.measured_by in ("precomputed", "rbf") else self.measured_by

    @property
    def ranks_by_score(self) -> bool:
        """True where the method ranks by a column of scores alone: vectors serve only --dedupe and the report."""
        return self.score_column is not None and (self.entry is None or "X" not in self.entry.accepted)


@click.command(
    "select", cls=VerbCommand, verb="select", sections=(COMPARED, WANTED, KNOWN, *ANSWER), short_help="Pick rows."
)
@click.argument("file", metavar="FILE")
@click.pass_obj
def command(typed: Sequence[str], file: str, **values: Any) -> None:
    """Pick which rows of FILE to keep (CSV, TSV, Parquet, JSONL, NPY, NPZ), in the order that a smaller budget would
    keep.

    \b
    kofn select pool.parquet --text body -k 500 -o picks.parquet --report picks.html
    kofn select pool.csv --columns age,city --budget 900 --cost minutes -o picks.csv
    kofn select pool.jsonl --text q --quota 'lang=de:10-50' --quota 'lang=fr:10-' -k 200 -o picks.jsonl
    kofn select pool.jsonl --text q -m rds_plus --queries wanted.txt -k 500 -o picks.jsonl
    kofn select pool.csv --columns age,bmi --group site --label died -m sources_by_shift --target mine --most 3
    """
    began = time.perf_counter()
    arguments = SelectArguments.of(typed, values)
    table = Table.open(file)
    check_output(arguments.output, file)
    check_output(arguments.dropped, file, "--dropped")
    pool = read_pool(table, arguments)
    options = {**arguments.options, **pool.vectors}
    call = call_of(pool, arguments)
    method = method_of(arguments, call)
    if arguments.dry_run:
        say_beforehand("select", method, options, call, arguments.as_json)
        return
    plan = select(method=method, options=options, **call)
    if arguments.dropped:
        write_table(dropped_rows(pool, arguments), arguments.dropped)
    finish(plan, arguments, lambda: picks(plan, pool), **report_context(pool, arguments))
    seconds = time.perf_counter() - began
    say(answer(plan, pool, arguments, seconds), lambda: render(plan, pool, arguments, seconds), arguments.as_json)


def read_pool(table: Table, arguments: SelectArguments) -> Pool:
    """The pool and what is known of its rows, each from the columns that it needs and no others."""
    X: Any = None
    matrix: NDArray[Any] | None = None
    vectors: dict[str, NDArray[Any]] = {}
    notes: tuple[str, ...] = ()
    scores = table.numbers(arguments.score_column) if arguments.score_column else None
    if arguments.by_scores:
        matrix, _ = read_scores(table, arguments)
        if matrix.ndim == 1:
            matrix, scores = None, matrix
    elif arguments.by_rankings:
        _, matrix = read_judges(table, arguments.columns, arguments.id_column)
    elif not arguments.score_column or arguments.text or arguments.vectors or arguments.columns:
        files = {name: file for name, file in arguments.options.items() if name in _FILES and isinstance(file, str)}
        compared, vectors = (
            read_vectors_together(table, arguments, files) if files else (read_vectors(table, arguments), {})
        )
        X, notes = compared.X, (f"compared by {compared.how}",)
    ids = table.ids(arguments.id_column) if arguments.id_column else None
    readers = {
        "y": (table.labels, arguments.label_column),
        "costs": (table.numbers, arguments.cost_column),
        "weights": (table.numbers, arguments.weight_column),
    }
    values: dict[str, Any] = {word: read(column) for word, (read, column) in readers.items() if column}
    if arguments.groupings:
        # One column goes by no name.
        columns = {column: table.labels(column) for column in arguments.groupings}
        values["groups"] = columns if len(columns) > 1 else columns[arguments.groupings[0]]
    named = {word: getattr(arguments, word) for word in _NAMING}
    pool = Pool(
        table=table,
        rows=np.arange(table.n),
        X=X,
        matrix=matrix,
        entries=arguments.by_scores and matrix is not None,
        ids=ids,
        values=values if scores is None else {**values, "scores": scores},
        named={word: read_keys(text, ids, arguments.id_column, word) for word, text in named.items() if text},
        vectors=vectors,
        notes=notes,
    )
    if arguments.dedupe is not None:
        pool = without_duplicates(pool, arguments)
    return wordless_last(pool, arguments) if arguments.text else pool


def wordless_last(pool: Pool, arguments: SelectArguments) -> Pool:
    """Texts without a word stand for nothing: they are said, and left out where enough others can be picked."""
    assert arguments.text is not None
    wordless = ~pool.table.texts(arguments.text).str.contains(r"\w").to_numpy()[pool.rows]
    if not wordless.any():
        return pool
    count, first = int(wordless.sum()), pool.keys[wordless.argmax()]
    note = f"{count:,} {'text has' if count == 1 else 'texts have'} no word (first: {first})"
    keys = checks.ids(pool.keys)
    named = {word: checks.positions(value, word, len(keys), keys) for word, value in pool.named.items()}
    out = wordless.copy()
    for position in named.values():
        out[position] = False
    left = ~out
    left[named.get("exclude", np.empty(0, np.int64))] = False
    enough = left.any() and (arguments.k is None or arguments.k <= left.sum())
    for column, ends in counted_quotas(pool, arguments).items():
        labels = groups_of(pool, arguments)[column]
        enough = enough and all((left & (labels == group)).sum() >= least for group, (least, _) in ends.items())
    if not enough or (arguments.entry is not None and "exclude" not in arguments.entry.accepted):
        return dataclasses.replace(pool, notes=(*pool.notes, note))
    excluded = np.concatenate([pool.named.get("exclude", keys[:0]), keys[out]])
    note += "; such rows are not picked while others are left"
    return dataclasses.replace(pool, named={**pool.named, "exclude": excluded}, notes=(*pool.notes, note))


def without_duplicates(pool: Pool, arguments: SelectArguments) -> Pool:
    """The pool without near-duplicates. Of rows that repeat each other the one stays that the task prefers."""
    from kofn.selection.training_data import near_duplicates

    threshold = arguments.dedupe
    assert threshold is not None
    compared: dict[str, Any]
    if arguments.text:
        compared, how = {"texts": pool.table.texts(arguments.text)}, f"at text similarity >= {threshold:g}"
    elif pool.X is None:
        raise InputError("--dedupe compares rows: give --text, --vectors or --columns")
    elif arguments.columns:
        frame = pl.DataFrame([pool.table.column(name) for name in arguments.columns])
        compared, how = {"columns": frame}, f"that agree in {', '.join(arguments.columns)}"
    else:
        measure = arguments.distance
        compared = {"X": pool.X, "metric": measure}
        how = f"at {'cosine' if measure == 'cosine' else f'{measure} similarity'} >= {threshold:g}"
    keys = checks.ids(pool.keys)
    named = {word: checks.positions(value, word, len(keys), keys) for word, value in pool.named.items()}
    forced = [named[word] for word in ("start", "include") if word in named]
    groups = groups_of(pool, arguments)
    # A quota on a group needs a row of it, also where it only limits how many are picked.
    quotas = {
        column: {group: (max(1, least), None) for group, (least, _) in ends.items()}
        for column, ends in counted_quotas(pool, arguments).items()
    }
    found = near_duplicates(
        threshold=threshold,
        **compared,
        scores=pool.values.get("scores"),
        include=np.unique(np.concatenate(forced)) if forced else None,
        exclude=named.get("exclude"),
        costs=pool.values.get("costs"),
        groups={column: groups[column] for column in quotas} or None,
        quotas=quotas or None,
    )
    open_ = np.ones(len(keys), bool)
    open_[named.get("exclude", np.empty(0, np.int64))] = False
    for column, ends in quotas.items():
        for group, (least, _) in ends.items():
            members = open_ & (groups[column] == group)
            left = int((members & found.keep).sum())
            if left < least <= members.sum():
                raise InfeasibleError(
                    f"--quota {column}={group} needs {least}: --dedupe {threshold:g} dropped {members.sum() - left:,} "
                    f"of the {members.sum():,} such rows and {left:,} are left; lower the quota or raise --dedupe"
                )
    dropped = np.flatnonzero(~found.keep)
    open_left = int((open_ & found.keep).sum())
    if arguments.k is not None and arguments.budget is None and open_left < arguments.k <= open_.sum():
        raise InputError(
            f"-k {arguments.k} of {open_left:,} rows: --dedupe {threshold:g} dropped {len(dropped):,} near-duplicates "
            f"of {pool.table.n:,} rows; ask for k <= {open_left} or raise --dedupe"
        )
    pairs = Dropped(dropped, found.of[dropped], found.similarity[dropped])
    note = f"dropped {len(dropped):,} near-duplicates {how}, {len(keys) - len(dropped):,} rows left"
    return dataclasses.replace(pool.drop(dropped), notes=(*pool.notes, note), duplicates=pairs)


def dropped_rows(pool: Pool, arguments: SelectArguments) -> pl.DataFrame:
    """Each row that `--dedupe` took out, the row that stays for it, and how similar the two are."""
    assert pool.duplicates is not None
    rows, of, similarity = pool.duplicates
    keys = pool.table.ids(arguments.id_column) if arguments.id_column else np.arange(pool.table.n)
    name = arguments.id_column or "row"
    columns = {free_name("kept", [name]): keys[of], free_name("similarity", [name]): similarity}
    return pl.DataFrame({name: keys[rows], **columns})


def call_of(pool: Pool, arguments: SelectArguments) -> dict[str, Any]:
    """The arguments of `kofn.select`."""
    call = arguments.given("k", "budget", "objective", "per_item", "capacity") | dict(pool.values)
    if not arguments.picks_by_label:
        call.pop("y", None)
    if arguments.quota_columns:
        quotas = quotas_of(pool, arguments)
        call["quotas"] = quotas if len(quotas) > 1 else quotas[arguments.quota_columns[0]]
    if pool.matrix is not None:
        call |= {"scores": pool.matrix} if pool.entries else {"rankings": pool.matrix.T}
    metric = arguments.metric
    if pool.X is not None and not arguments.ranks_by_score:
        call["similarity" if metric == "precomputed" else "X"] = pool.X
        entry = arguments.entry
        if metric is None and (entry is None or "metric" in entry.accepted):
            metric = arguments.measured_by
        if metric not in (None, "precomputed"):
            call["metric"] = metric
    if (pool.ids is not None or pool.dropped) and not pool.entries:
        call["ids"] = pool.keys
    return {**call, **pool.named}


def method_of(arguments: SelectArguments, call: Mapping[str, Any]) -> Any:
    """The method that was named; of rows that are to be labelled, what the benchmark's sets chose."""
    kept = arguments.method != "auto" or arguments.options or arguments.metric in ("rbf", "precomputed")
    if arguments.classes is None or kept:
        return arguments.method
    return "typiclust" if methods_of("select")["typiclust"].takes(call) is not None else "auto"


def groups_of(pool: Pool, arguments: SelectArguments) -> dict[str, NDArray[Any]]:
    """The labels of each column of groups."""
    groups: Any = pool.values.get("groups")
    return groups if isinstance(groups, dict) else dict.fromkeys(arguments.groupings, groups)


def quotas_of(pool: Pool, arguments: SelectArguments) -> dict[str, Any]:
    """{column: {group: (least, most)}}, those of `--proportional` as shares of the pool."""
    quotas: dict[str, Any] = dict(arguments.quotas)
    groups = groups_of(pool, arguments)
    for column in arguments.proportional:
        if arguments.k is None or arguments.budget is not None:
            raise InputError("--proportional shares out a number of picks: give -k, and no --budget")
        labels = groups[column]
        names, counts = np.unique(labels, return_counts=True)
        shares = [Fraction(count, len(labels)) for count in counts.tolist()]
        quotas[column] = {name: (share, share) for name, share in zip(names.tolist(), shares, strict=True)}
    return quotas


def counted_quotas(pool: Pool, arguments: SelectArguments) -> dict[str, Any]:
    """The same in whole numbers of picks, under the groups' own names."""
    if not arguments.quota_columns:
        return {}
    checked = checks.quotas(quotas_of(pool, arguments))
    return checks.resolved(groups_of(pool, arguments), checked, arguments.k, arguments.budget)[1]


def picks(plan: Selection, pool: Pool) -> pl.DataFrame:
    """The picks in the order picked: every original column, then rank and gain."""
    order = {"rank": np.arange(1, len(plan) + 1), "gain": np.asarray(plan.gains)}
    if pool.entries:
        assert pool.matrix is not None
        row, column = np.unravel_index(plan.indices, pool.matrix.shape)
        score = pool.matrix[row, column]
        return pl.DataFrame({"row": pool.keys[row], "column": column, "score": score, **order})
    frame = rows_of(pool.table, pool.rows[plan.indices])
    added = [pl.Series(free_name(name, pool.table.columns), values) for name, values in order.items()]
    return frame.with_columns(series.fill_nan(None) if series.dtype.is_float() else series for series in added)


def picked_keys(plan: Selection, pool: Pool) -> list[Any]:
    """What the user calls each pick: a row's id, or of a table's entry `row:column`."""
    if not pool.entries:
        keys: list[Any] = pool.keys[plan.indices].tolist()
        return keys
    assert pool.matrix is not None
    row, column = np.unravel_index(plan.indices, pool.matrix.shape)
    return [f"{key}:{j}" for key, j in zip(pool.keys[row].tolist(), column.tolist(), strict=True)]


def report_context(pool: Pool, arguments: SelectArguments) -> dict[str, Any]:
    """What the report shows beside the plan."""
    if not arguments.report:
        return {}
    groups = groups_of(pool, arguments)
    if arguments.label_column is not None:
        groups = {arguments.label_column: pool.values["y"], **groups}
    return {
        "X": None if arguments.metric == "precomputed" else pool.X,
        "metric": arguments.distance,
        "groups": groups or None,
        "quotas": counted_quotas(pool, arguments) or None,
        "weights": pool.values.get("weights"),
        "scores": pool.values.get("scores"),
        "repeats": None if pool.duplicates is None else repeats_shown(pool, pool.duplicates, arguments),
        **seen_in_report(pool.table, arguments, pool.rows),
    }


def repeats_shown(pool: Pool, duplicates: Dropped, arguments: SelectArguments) -> Repeats:
    """What the report says of the dropped rows: a few of them, from the least similar to the most."""
    from kofn.report.context import Repeats

    rows, of, similarity = duplicates
    order = np.argsort(similarity, kind="stable")
    spaced = order[np.unique(np.linspace(0, max(0, len(rows) - 1), 12).astype(np.int64))] if len(rows) else order
    keys = pool.table.ids(arguments.id_column) if arguments.id_column else np.arange(pool.table.n)
    texts = pool.table.texts(arguments.text) if arguments.text else None
    shown = [
        (
            *(str(keys[rows[i]]), "" if texts is None else texts[int(rows[i])]),
            *(str(keys[of[i]]), "" if texts is None else texts[int(of[i])]),
            float(similarity[i]),
        )
        for i in spaced
    ]
    return Repeats(pool.table.n, len(rows), shown)


def compared_with_random(plan: Selection, pool: Pool, arguments: SelectArguments) -> AtRandom | None:
    """How near the picks are to the rows, and how near as many random rows are; None without vectors."""
    if pool.X is None or arguments.metric == "precomputed" or not len(plan):
        return None
    from kofn.report.measures import Space, at_random

    return at_random(Space(pool.X, arguments.distance), plan.indices, pool.values.get("weights"))


def classes_picked(plan: Selection, pool: Pool) -> dict[str, int]:
    """How many rows of each class of --label were picked, those of none included, most first."""
    labels = pool.values.get("y")
    if labels is None:
        return {}
    names, counts = np.unique(labels, return_counts=True)
    picked = {
        str(name): int((labels[plan.indices] == name).sum()) for name in names[np.argsort(-counts, kind="stable")]
    }
    return dict(sorted(picked.items(), key=lambda pair: -pair[1]))


def answer(plan: Selection, pool: Pool, arguments: SelectArguments, seconds: float) -> dict[str, Any]:
    """The answer for machines."""
    random = compared_with_random(plan, pool, arguments)
    return {
        "method": plan.method,
        "objective": plan.objective or None,
        "pool": pool.table.n,
        "dropped": pool.dropped,
        "picked": len(plan),
        "value": plan.value,
        "sense": plan.sense,
        "bound": plan.bound,
        "gap": plan.gap,
        "status": plan.status,
        "used": dict(plan.used),
        "budget": dict(plan.budget),
        "mean_distance": None if random is None else random.own,
        "random_mean_distance": None if random is None else random.draws[[0, -1]].tolist(),
        "classes": classes_picked(plan, pool) or None,
        "seconds": seconds,
        "oracle_calls": plan.info["oracle_calls"],
        "seed": plan.seed,
        "output": arguments.output,
        "report": arguments.report,
        "picks": picked_keys(plan, pool),
        "gains": plan.gains,
    }


def render(plan: Selection, pool: Pool, arguments: SelectArguments, seconds: float) -> str:
    """The answer for people."""
    size = f"{plan.n:,} entries" if pool.entries else f"{pool.table.n:,} rows"
    lines = [f"picked {len(plan):,} of {size} with {plan.method} in {seconds:.2f} s", *pool.notes]
    if arguments.output and not pool.entries:
        lines += renamed(pool.table, "rank", "gain")
    if repeats := plan.info.get("duplicate_rows"):
        lines.append(f"{repeats:,} rows repeat an earlier row exactly")
    lines += _quality(plan, arguments.measured_by)
    if "costs" in plan.used:
        lines.append(f"cost {plan.used['costs']:,} of at most {plan.budget['costs']:,}")
    lines += _quotas(plan, pool, arguments)
    if "sources" in plan.info:
        lines.append(_sources(plan))
    if plan.status == "stopped":
        lines.append("stopped before the end: what was valid by then is kept")
    lines += _labelled(plan, pool, arguments)
    random = compared_with_random(plan, pool, arguments)
    if random is not None:
        low, high = (f"{far:.4g}" for far in random.draws[[0, -1]])
        lines.append(
            f"mean {arguments.distance} distance to the nearest pick {random.own:.4g}; {len(plan):,} rows drawn at "
            f"random: {low} to {high} in {len(random.draws)} draws"
        )
    if arguments.output:
        lines.append(f"picks  -> {arguments.output}")
    else:
        lines.append(f"first picks: {first_of(picked_keys(plan, pool))}  (-o FILE writes them all)")
    if arguments.dropped:
        lines.append(f"dropped -> {arguments.dropped}")
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)


def _quotas(plan: Selection, pool: Pool, arguments: SelectArguments) -> list[str]:
    """What was picked of each quota; of a column that is shared out as the pool is, in one line."""
    counted = counted_quotas(pool, arguments)
    lines = []
    for column, asked in arguments.quotas.items():
        for (group, (low, high)), ends in zip(counted[column].items(), asked.values(), strict=True):
            name = f"quota {group}" if len(counted) == 1 else f"quota {column}={group}"
            span = _span(low if ends[0] is not None else None, high)
            if any(isinstance(end, Fraction) for end in ends):
                span += f" ({_span(*ends)})"
            lines.append(f"{name}: {plan.used.get(name, 0)} picked, {span} asked")
    for column in dict.fromkeys(arguments.proportional):
        lines.append(f"proportional {column}: {len(counted[column])} groups, each within one pick of its share")
    return lines


def _span(low: Any, high: Any) -> str:
    """From the least to the most as it is typed: 10-50, 10-, -50 or 20%-30%."""
    ends = [f"{float(end) * 100:g}%" if isinstance(end, Fraction) else end for end in (low, high)]
    return "-".join("" if end is None else f"{end}" for end in ends)


def _labelled(plan: Selection, pool: Pool, arguments: SelectArguments) -> list[str]:
    """How many rows of each class were picked, and a warning where the picks are no good for that."""
    picked = classes_picked(plan, pool)
    classes = arguments.classes or len(picked)
    if not classes:
        return []
    lines = [_counted(picked, arguments)] if picked else []
    by_words = arguments.text is not None and arguments.embedder is None
    if by_words or (arguments.columns and len(plan) >= _MANY * classes):
        kind = "texts compared by their words" if by_words else f"tables, from {_MANY} rows a class on,"
        lines.append(f"of {kind} no way to pick has surely taught a classifier more than random rows did")
    spreading = next((name for name in _SPREADING if name in f"{plan.method} {plan.objective}"), None)
    if spreading is not None:
        lines.append(
            f"{spreading} is no good choice of rows to label: it seeks the unusual, and on many data a classifier "
            "learns less from it than from random rows (see python -m benchmarks usefulness)"
        )
    return lines


def _counted(picked: Mapping[str, int], arguments: SelectArguments) -> str:
    """How many rows of each class were picked, in one line."""
    named = [f"{name} {count:,}" for name, count in list(picked.items())[:_CLASSES] if count]
    more = sum(1 for count in list(picked.values())[_CLASSES:] if count)
    none = [name for name, count in picked.items() if not count]
    line = f"picked of {arguments.label_column}: {', '.join(named)}"
    return line + (f", {more:,} more classes" if more else "") + (f"; none of {first_of(none)}" if none else "")


def _quality(plan: Selection, metric: str) -> list[str]:
    """The value, and what is proved of it."""
    objective = plan.objective.replace("_", " ") or "value"
    if (lowest := plan.info.get("distance_bound")) is not None:
        reached = f"summed {metric} distance to the nearest pick {plan.info['distance']:.6g}"
        return [f"{reached}: no such picks can get below {lowest:.6g}"]
    if plan.bound is None or plan.status == "optimal":
        return [f"{objective} {plan.value:.6g}, {plan.status}"] if np.isfinite(plan.value) else []
    if plan.sense == "min":
        return [f"{objective} {plan.value:.6g}: no such picks can get below {plan.bound:.6g}"]
    # Rounded down to a tenth of a percent: what is promised must hold.
    share = math.floor(plan.value / plan.bound * 1000) / 1000
    return [f"{objective} {plan.value:.6g}: at least {share:.1%} of what any such picks can reach"]


def _sources(plan: Selection) -> str:
    """Which sources were taken and which left out, each with its shift."""
    shift = plan.info["shift"]
    taken = [f"{name} ({shift[name]:.3g})" if name in shift else name for name in plan.info["sources"]]
    left = [f"{name} ({shift[name]:.3g})" for name in shift if name not in plan.info["sources"]]
    return f"sources by shift: {', '.join(taken)}" + (f"; left out: {', '.join(left)}" if left else "")
