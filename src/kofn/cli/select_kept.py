"""The answer of `kofn select --dedupe` without a number of picks: every row but the near-duplicates, in their order."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from kofn.cli.printing import first_of
from kofn.cli.write import free_name, lines_of, rows_with
from kofn.core.plans import Selection
from kofn.core.pools import is_pool
from kofn.io.atomic import write_lines, write_parts, write_table
from kofn.io.parquet import Parquet
from kofn.tables.read import Pool
from kofn.tables.select_arguments import SelectArguments
from kofn.tables.select_dedupe import rows_kept


def write_kept(pool: Pool, arguments: SelectArguments) -> None:
    """Write the rows that stay, and which were dropped for which."""
    if arguments.output and is_pool(pool.X) and isinstance(pool.table, Parquet):
        runs = pool.table.take_by_runs(rows_kept(pool))
        write_parts((rows.drop(arguments.drop or ()) for rows in runs), arguments.output)
    elif arguments.output and (lines := lines_of(pool.table, rows_kept(pool), arguments)) is not None:
        write_lines(lines, arguments.output)
    elif arguments.output:
        made = rows_with(pool.table, rows_kept(pool), {}, arguments)
        assert isinstance(made, pl.DataFrame)
        write_table(made, arguments.output)
    if arguments.dropped:
        write_table(dropped_rows(pool, arguments), arguments.dropped)


def dropped_rows(pool: Pool, arguments: SelectArguments) -> pl.DataFrame:
    """Each row that `--dedupe` took out, the row that stays for it, and how similar the two are."""
    assert pool.duplicates is not None
    rows, of, similarity, owned, theirs = pool.duplicates
    keys = pool.table.ids(arguments.id_column) if arguments.id_column else np.arange(pool.table.n)
    name = arguments.id_column or "row"
    columns: dict[str, Any]
    if owned is None or theirs is None:
        columns = {"kept": keys[of], "similarity": similarity}
    else:
        own = keys[np.where(owned, 0, of)]
        if own.dtype.kind != theirs.dtype.kind:
            own, theirs = own.astype(str), theirs.astype(str)
        columns = {"kept": np.where(owned, theirs, own), "similarity": similarity, "private": owned}
    return pl.DataFrame({name: keys[rows], **{free_name(word, [name]): column for word, column in columns.items()}})


def plan_kept(pool: Pool, named: bool) -> Selection:
    """The rows that stay as a plan, in their order, for the report; by their keys where these are `named`."""
    kept = np.searchsorted(pool.rows, rows_kept(pool))
    return Selection(
        n=len(pool.rows),
        indices=kept,
        gains=np.full(len(kept), np.nan),
        additive=False,
        method="near_duplicates",
        used={"k": len(kept)},
        # Rows are numbered as in the file, of which the dropped ones are part.
        ids=pool.keys if named else np.array([f"row {row:,}" for row in pool.rows.tolist()]),
    )


def answer_kept(pool: Pool, arguments: SelectArguments) -> dict[str, Any]:
    """The answer for machines."""
    keys = _keys_kept(pool)
    return {
        "method": "near_duplicates",
        "pool": pool.table.n,
        "dropped": pool.dropped,
        "kept": len(keys),
        "repeat_private": _repeats_of_private(pool),
        "output": arguments.output,
        "rows": keys.tolist(),
    }


def _keys_kept(pool: Pool) -> NDArray[Any]:
    """What the user calls each row that stays."""
    return pool.keys[np.searchsorted(pool.rows, rows_kept(pool))]


def _repeats_of_private(pool: Pool) -> int | None:
    """How many rows were dropped because they repeat one of --private; None without such rows."""
    owned = None if pool.duplicates is None else pool.duplicates.owned
    return None if owned is None else int(owned.sum())


def render_kept(pool: Pool, arguments: SelectArguments) -> str:
    """The answer for people."""
    keys = _keys_kept(pool)
    lines = [f"kept {len(keys):,} of {pool.table.n:,} rows", *pool.notes]
    if arguments.output:
        lines.append(f"kept -> {arguments.output}")
    else:
        lines.append(f"first: {first_of(keys.tolist())}  (-o FILE writes them all)")
    if arguments.dropped:
        lines.append(f"dropped -> {arguments.dropped}")
    if arguments.report:
        lines.append(f"report -> {arguments.report}")
    return "\n".join(lines)
