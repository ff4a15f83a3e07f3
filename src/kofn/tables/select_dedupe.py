"""Near-duplicates of a table's rows: which are dropped, of each other and of rows that are owned already."""

from __future__ import annotations

import dataclasses
import os
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.compiled import NotCompiledError
from kofn.core.pools import is_pool
from kofn.engines.threads import limited
from kofn.selection.pools._near_duplicates_by_cells import CellDuplicates, described, near_duplicates_by_cells
from kofn.selection.training_data._near_duplicates import near_duplicates
from kofn.selection.training_data._preference import Duplicates
from kofn.tables.read import Dropped, Pool
from kofn.tables.select_arguments import SelectArguments
from kofn.tables.select_groups import counted_quotas, groups_of
from kofn.tables.select_owned import Owned, frame_of, owned_rows
from kofn.tables.select_rounds import labelled

# What --dedupe compares vectors by, under each metric.
_SIMILARITIES = {
    "euclidean": "euclidean similarity (1 - distance / typical distance; --metric cosine compares directions)",
    "sqeuclidean": "similarity (1 - squared distance / mean squared distance)",
}


def without_duplicates(pool: Pool, arguments: SelectArguments) -> Pool:
    """The pool without near-duplicates. Of rows that repeat each other the one stays that the task prefers."""
    threshold = arguments.dedupe
    assert threshold is not None
    compared, how = _compared(pool, arguments, threshold)
    owned = owned_rows(arguments) if arguments.only_dedupes and arguments.private is not None else None
    count = 0 if owned is None else len(owned.keys)
    if owned is not None:
        compared |= owned.before(compared)
    keys = checks.ids(pool.keys)
    named = {word: checks.positions(value, word, len(keys), keys) for word, value in pool.named.items()}
    forced = [named[word] for word in ("start", "include") if word in named]
    if (known := labelled(pool)) is not None:
        # A row that repeats a labelled one tells nothing new.
        forced.append(np.flatnonzero(known))
    groups = groups_of(pool, arguments)
    # A quota on a group needs a row of it, also where it only limits how many are picked.
    quotas = {
        column: {group: (max(1, least), None) for group, (least, _) in ends.items()}
        for column, ends in counted_quotas(pool, arguments).items()
    }
    scores = pool.values.get("scores")
    include = [np.arange(count), *(np.unique(np.concatenate(forced)) + count for _ in forced[:1])]
    preference: dict[str, Any] = {
        "scores": scores if scores is None or not count else np.concatenate([np.zeros(count), scores]),
        "include": np.concatenate(include),
        "exclude": named["exclude"] + count if "exclude" in named else None,
        "costs": pool.values.get("costs"),
        "groups": {column: groups[column] for column in quotas} or None,
        "quotas": quotas or None,
    }
    recall: tuple[str, ...] = ()
    if is_pool(compared.get("X")):
        by_cells = _by_cells(compared, preference, arguments, threshold)
        every, recall = Duplicates(*by_cells[:3]), (described(by_cells),)
    else:
        try:
            with limited(arguments.n_threads):
                every = near_duplicates(threshold=threshold, **compared, **preference)
        except NotCompiledError as missing:
            # Nothing is compiled to look beforehand: all rows stay, and none is said to be a near-duplicate.
            note = f"how many rows are near-duplicates {how} is not known: {missing}"
            return dataclasses.replace(pool, notes=(*pool.notes, note))
    duplicates = every._replace(keep=every.keep[count:], of=every.of[count:], similarity=every.similarity[count:])
    open_ = np.ones(len(keys), bool)
    open_[named.get("exclude", np.empty(0, np.int64))] = False
    for column, ends in quotas.items():
        for group, (least, _) in ends.items():
            members = open_ & (groups[column] == group)
            left = int((members & duplicates.keep).sum())
            if left < least <= members.sum() and arguments.rows_of_whole is None:
                raise InfeasibleError(
                    f"--quota {column}={group} needs {least}: --dedupe {threshold:g} dropped {members.sum() - left:,} "
                    f"of the {members.sum():,} such rows and {left:,} are left; lower the quota{_or_raise(threshold)}"
                )
    dropped = np.flatnonzero(~duplicates.keep)
    open_left = int((open_ & duplicates.keep).sum())
    # A beginning of the file says nothing of what the whole leaves.
    if arguments.rows_of_whole is None and _asks_more(arguments, open_left, int(open_.sum())):
        raise InputError(
            f"-k {arguments.k} of {open_left:,} rows: --dedupe {threshold:g} dropped {len(dropped):,} near-duplicates "
            f"of {pool.table.n:,} rows; ask for k <= {open_left}{_or_raise(threshold)}"
        )
    pairs = _pairs(pool, dropped, duplicates.of[dropped], duplicates.similarity[dropped], owned)
    theirs = f", {pairs.owned.sum():,} of them of rows of {owned.name}" if owned and pairs.owned is not None else ""
    notes = [_dropped_line(arguments, len(dropped), f"{how}{theirs}", len(keys)), *recall]
    if arguments.text and (blank := _blank(pool, arguments.text)) > 1:
        only_missing = "" if arguments.empty == "drop" else "; --drop-empty leaves out rows that miss one"
        notes.append(f"{blank:,} texts are empty and count as near-duplicates of one another{only_missing}")
    if arguments.only_dedupes and known is not None:
        notes.append(f"{known.sum():,} rows with a label in {arguments.label_column!r} stay")
    return dataclasses.replace(pool.drop(dropped), notes=(*pool.notes, *notes), duplicates=pairs)


def _or_raise(threshold: float) -> str:
    """The remedy of a higher threshold, where there is one: at 1 rows are dropped that are as another."""
    return " or raise --dedupe" if threshold < 1 else " or leave --dedupe out"


def _asks_more(arguments: SelectArguments, left: int, n: int) -> bool:
    """Whether -k asks for more rows than are left of those that there were, where it says how many."""
    return arguments.k is not None and arguments.budget is None and left < arguments.k <= n


def _dropped_line(arguments: SelectArguments, dropped: int, how: str, n: int) -> str:
    """What is said of near-duplicates; of a beginning of the file, what it tells of the whole."""
    if (rows := arguments.rows_of_whole) is None:
        return f"dropped {dropped:,} near-duplicates {how}, {n - dropped:,} rows left"
    return (
        f"of the first {n:,} rows {dropped:,} are near-duplicates {how}; if the rest is like them, about "
        f"{round(rows * (n - dropped) / n):,} of all {rows:,} rows are left"
    )


def _by_cells(
    compared: dict[str, Any], preference: dict[str, Any], arguments: SelectArguments, threshold: float
) -> CellDuplicates:
    """The near-duplicates of vectors that are read in parts."""
    settings = arguments.given()
    if (work := arguments.work) is not None:
        os.makedirs(work, exist_ok=True)
    return near_duplicates_by_cells(
        threshold=threshold,
        **compared,
        **preference,
        max_memory=settings.get("max_memory"),
        n_threads=arguments.n_threads,
        progress=arguments.progress,
        engine=settings.get("engine"),
        work=work,
    )


def _compared(pool: Pool, arguments: SelectArguments, threshold: float) -> tuple[dict[str, Any], str]:
    """What near-duplicates are found by, as arguments of `near_duplicates`, and in words."""
    if arguments.text:
        texts = pool.table.texts(arguments.text)[pool.rows]
        return {"texts": texts}, f"at text similarity >= {threshold:g}"
    if pool.X is None:
        raise InputError("--dedupe compares rows: give --text, --vectors or --columns")
    if arguments.columns:
        frame = frame_of(pool.table, arguments)[pool.rows]
        return {"columns": frame}, f"that agree in {', '.join(arguments.columns)}"
    measure = arguments.distance
    how = f"at {_SIMILARITIES.get(measure, measure)} >= {threshold:g}"
    return {"X": pool.X, "metric": measure}, how


def _blank(pool: Pool, column: str) -> int:
    """How many texts of the pool hold nothing but spaces."""
    return int((pool.table.texts(column)[pool.rows].str.strip_chars() == "").sum())


def _pairs(
    pool: Pool, rows: NDArray[np.int64], of: NDArray[np.int64], similarity: NDArray[np.float64], owned: Owned | None
) -> Dropped:
    """Dropped rows and those that stay for them, by row number of their tables; `of` counts the owned rows first."""
    if owned is None:
        return Dropped(pool.rows[rows], pool.rows[of], similarity)
    count = len(owned.keys)
    theirs = of < count
    numbers = np.where(theirs, owned.rows[np.where(theirs, of, 0)], pool.rows[np.where(theirs, 0, of - count)])
    keys = owned.keys[np.where(theirs, of, 0)]
    return Dropped(pool.rows[rows], numbers, similarity, theirs, keys)


def rows_kept(pool: Pool) -> NDArray[np.int64]:
    """Row numbers of the table that near-duplicates leave: what is excluded is no part of them."""
    excluded = pool.named.get("exclude")
    if excluded is None:
        return pool.rows
    out = np.zeros(len(pool.rows), bool)
    keys = checks.ids(pool.keys)
    out[checks.positions(excluded, "exclude", len(keys), keys)] = True
    return pool.rows[~out]


def refuse_labels_without_use(pool: Pool, arguments: SelectArguments) -> None:
    """Refuse labels that say nothing of which rows stay: labelled rows stay, where others have no label.

    Raises:
        InputError: every row has a label, or none has.
    """
    known = labelled(pool)
    if arguments.label_column is None or (known is not None and known.any()):
        return
    some = "every row has a label" if known is None else "no row has a label"
    raise InputError(
        f"--label {arguments.label_column}: {some}; beside --dedupe without -k, rows with a label stay, which needs a "
        "column that is filled in part; leave --label out, or say how many to pick with -k"
    )
