"""`kofn.select` and `kofn.assign` of a table: its columns by name, through the code that the commands run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import polars as pl

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.checks.kinds import frame_kind
from kofn.core.plans import Assignment, Selection
from kofn.io.frames import FrameTable, unordered
from kofn.io.opening import open_table
from kofn.io.tables import Table
from kofn.tables import assign_pool, select_pool
from kofn.tables.arguments import RowArguments
from kofn.tables.asked import TEXT, arguments_of, names_of_columns, of_texts, reading_of
from kofn.tables.assign_arguments import AssignArguments
from kofn.tables.long_bins import with_bins
from kofn.tables.read import Pool
from kofn.tables.select_arguments import SelectArguments
from kofn.tables.select_dedupe import rows_kept
from kofn.tables.select_groups import without_picks
from kofn.tables.spelling import in_python, speaking_python
from kofn.tables.words import with_names_as_text


def answer(verb: str, run: Callable[..., Any], X: Any, method: Any, options: Mapping[str, Any], given: Any) -> Any:
    """The plan of a call whose items are the rows of a table, or texts, by row of it.

    Args:
        verb: "select" or "assign".
        run: the verb itself, of arrays.
        X: the table, its path, or texts.
        method: its name, "auto" or a callable.
        options: the method's options that were given as a mapping.
        given: every other argument, none of them None.
    """
    return speaking_python(lambda: _answered(verb, run, X, method, options, given))


def _answered(
    verb: str, run: Callable[..., Any], X: Any, method: Any, options: Mapping[str, Any], given: Mapping[str, Any]
) -> Any:
    words = with_names_as_text(X, given)
    columns: dict[str, Any] = {}
    if frame_kind(X) is None:
        if words.get(TEXT) is not None:
            raise InputError(f"text={words[TEXT]!r} names a column, and X is texts without one; leave it out")
        X, words[TEXT] = of_texts(X), TEXT
    named = names_of_columns(verb, X, words, columns)
    reading = reading_of(words)
    if frame_kind(X) == "file" and columns:
        raise InputError(f"{next(iter(columns))} is a list of values, and X a file; name a column of the file")
    with checks.reading("X", X):
        table = open_table(X, reading) if frame_kind(X) == "file" else FrameTable(X, reading, columns)
    arguments = arguments_of(verb, method, options, words, named)
    lines: tuple[str, ...] = ()
    if isinstance(arguments, AssignArguments):
        if arguments.long is not None and isinstance(table, FrameTable):
            table.hold(arguments.long)
        table, arguments, lines = with_bins(table, arguments)
    arguments = arguments.named_in(table)
    _refuse_no_order(X, arguments)
    if isinstance(table, FrameTable):
        table.hold(_used(arguments, table))
        rest = _plain_rest(table, arguments)
        if rest is not None:
            plan = run(method=method, options=dict(arguments.options), **_plain_call(table, arguments, rest))
            compared = {"numbers": rest.columns, "metric": arguments.metric or "euclidean"}
            return dataclasses.replace(plan, info={**plan.info, "compared": compared})
    if isinstance(arguments, SelectArguments):
        return _selected(run, table, arguments.of_rows(table.n))
    assert isinstance(arguments, AssignArguments)
    call = assign_pool.prepared(table, arguments)
    call = call._replace(pool=dataclasses.replace(call.pool, notes=(*lines, *call.pool.notes)))
    return _assignment_of_all(call.answer(run, arguments.method), call.pool, arguments)


def _used(arguments: RowArguments, table: Table) -> list[str]:
    """The columns that the call may read; all of them where none is named to compare by."""
    fields = [item.name for item in dataclasses.fields(arguments)]
    names = [getattr(arguments, name) for name in fields if name.endswith("_column") or name in ("text", "vectors")]
    names += list(arguments.columns or ())
    if not (arguments.text or arguments.vectors or arguments.columns):
        names = list(table.columns)
    return [name for name in (*names, *getattr(arguments, "groupings", ())) if name]


def _refuse_no_order(X: Any, arguments: RowArguments) -> None:
    if frame_kind(X) == "lazy" and arguments.id_column is None and (step := unordered(X)):
        raise InputError(
            f"X is a LazyFrame whose rows come in no fixed order ({step}), so that a row's number names none; sort it "
            "last, collect it first, or name a column of ids"
        )


def _plain_rest(table: FrameTable, arguments: RowArguments) -> pl.DataFrame | None:
    """The columns that no word names, where nothing says how rows are compared and all of these are numbers."""
    asked = arguments.text or arguments.vectors or arguments.columns or arguments.embedder
    own = ("dedupe", "classes", "model", "proportional", "each", "by_scores", "by_rankings", "equal", "score_column")
    if asked or any(getattr(arguments, name, None) for name in own) or arguments.empty != "refuse":
        return None
    if not getattr(arguments, "compares", True) or table.reading.na:
        return None
    named = {getattr(arguments, item.name) for item in dataclasses.fields(arguments) if "_column" in item.name}
    named |= set(getattr(arguments, "quota_columns", ()))
    rest = [name for name in table.columns if name not in named]
    if not rest or any(table.dtype(name) not in ("number", "boolean") for name in rest):
        return None
    return pl.DataFrame([table.column(name) for name in rest])


def _plain_call(table: FrameTable, arguments: RowArguments, rest: pl.DataFrame) -> dict[str, Any]:
    """The call of arrays that a table of numbers stands for: the columns that are named, and the others as X."""
    if isinstance(arguments, SelectArguments):
        arguments = arguments.of_rows(table.n)
        ids = table.ids(arguments.id_column) if arguments.id_column else None
        pool = Pool(table, np.arange(table.n), X=rest, ids=ids, values=select_pool.values_of(table, arguments))
        call = select_pool.call_of(pool, arguments)
        call |= select_pool.named_of(table, arguments, ids)
    else:
        assert isinstance(arguments, AssignArguments)
        values = assign_pool.values_of(table, arguments)
        ids = table.ids(arguments.id_column) if arguments.id_column else None
        call = assign_pool.call_of(Pool(table, np.arange(table.n), X=rest, ids=ids, values=values), arguments)
    if arguments.metric is None:
        call.pop("metric", None)
    return call


def _selected(run: Callable[..., Any], table: Table, arguments: SelectArguments) -> Selection:
    call = select_pool.prepared(table, arguments)
    pool = call.pool
    noted = list(pool.notes)
    if call.method is None:
        rows = rows_kept(pool)
        ids = None if arguments.id_column is None else table.ids(arguments.id_column)
        plan = Selection(n=table.n, indices=rows, gains=np.full(len(rows), np.nan), ids=ids, method="near_duplicates")
    else:
        plan = call.answer(run)
        if pool.entries:
            return plan
        noted += without_picks(plan, pool, arguments)
        plan = _selection_of_all(plan, pool, arguments)
    info: dict[str, Any] = {"notes": [in_python(note) for note in noted]} if noted else {}
    info |= _compared(arguments)
    if pool.duplicates is not None:
        dropped = pool.duplicates._replace(owned_keys=None)._asdict()
        info["duplicates"] = {name: value for name, value in dropped.items() if value is not None}
    return dataclasses.replace(plan, info={**plan.info, **info})


def _compared(arguments: RowArguments) -> dict[str, Any]:
    """How the rows were compared, for a report that is given the table; nothing where no column says it."""
    named = {name: getattr(arguments, name) for name in ("text", "vectors", "columns", "categories", "embedder")}
    asked = {name: list(value) if isinstance(value, tuple) else value for name, value in named.items() if value}
    if (
        not asked
        or arguments.metric == "precomputed"
        or (arguments.embedder and not isinstance(arguments.embedder, str))
    ):
        return {}
    return {"compared": {**asked, "metric": arguments.measured_by}}


def _selection_of_all(plan: Selection, pool: Pool, arguments: SelectArguments) -> Selection:
    """The plan by row of the whole table, of which rows may have been left out."""
    if not pool.dropped:
        return plan
    n, rows = pool.table.n, pool.rows
    return dataclasses.replace(
        plan,
        n=n,
        indices=rows[plan.indices],
        ids=None if arguments.id_column is None else pool.table.ids(arguments.id_column),
        probabilities=None if plan.probabilities is None else _spread(plan.probabilities, rows, n, 0.0),
        info=_info_of_all(plan.info, rows, n),
    )


def _assignment_of_all(plan: Assignment, pool: Pool, arguments: AssignArguments) -> Assignment:
    """The same; rows that were left out go nowhere."""
    info = {**plan.info, **({"notes": [in_python(note) for note in pool.notes]} if pool.notes else {})}
    info |= _compared(arguments)
    if pool.matrix_columns:
        info["bins"] = list(pool.matrix_columns)
    if not pool.dropped:
        return dataclasses.replace(plan, info=info)
    n, rows = pool.table.n, pool.rows
    counts = np.zeros(n, np.int64)
    counts[rows] = np.diff(plan.indptr)
    return dataclasses.replace(
        plan,
        n=n,
        indptr=np.concatenate([[0], np.cumsum(counts)]).astype(plan.indptr.dtype),
        ids=None if arguments.id_column is None else pool.table.ids(arguments.id_column),
        medoids=None if plan.medoids is None else rows[plan.medoids],
        order=None if plan.order is None else rows[plan.order],
        u=None if plan.u is None else _spread(plan.u, rows, n, np.nan),
        info=_info_of_all(info, rows, n),
    )


def _info_of_all(info: Mapping[str, Any], rows: Any, n: int) -> dict[str, Any]:
    """What is told of each row of the pool, by row of the table; nothing of those that were left out."""
    return {
        name: _spread(value, rows, n, np.nan)
        if isinstance(value, np.ndarray) and value.shape == rows.shape and value.dtype.kind == "f"
        else value
        for name, value in info.items()
    }


def _spread(values: Any, rows: Any, n: int, left: float) -> Any:
    out = np.full(n, left, np.asarray(values).dtype)
    out[rows] = values
    return out
