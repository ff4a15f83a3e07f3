"""`kofn select` of a pool larger than memory: when its vectors are read in parts, and what is seen of them after."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import click
import numpy as np

from kofn.cli.estimate_samples import checked_options, refuse_misfit
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.devices import names_a_device
from kofn.core.dispatch import methods_of
from kofn.core.pools import is_pool
from kofn.engines.opening import elsewhere
from kofn.engines.speed import pairs_a_second, rows_sampled
from kofn.engines.threads import cores
from kofn.io.formats import Arrays, Npy, SparseNpz
from kofn.io.many import files_of
from kofn.io.pool import Pool as Parts
from kofn.io.tables import Table, reading_file
from kofn.io.text_memory import bytes_by_words
from kofn.io.vectors import only_vectors
from kofn.io.words import DIMS
from kofn.objectives._estimates import pairs_of_search
from kofn.objectives.facility_location import bytes_beside_rows
from kofn.selection.pools._near_duplicates_by_cells import bytes_of_cells, pairs_of_cells
from kofn.selection.pools._sizes import PART_ROWS, Rounds, pairs_of_rounds
from kofn.tables.read import Pool, columns_named_by, numbers_alone
from kofn.tables.select_arguments import SelectArguments
from kofn.tables.select_pool import refuse_no_scores

if TYPE_CHECKING:
    from kofn.core.plans import Selection

METHOD = "two_round_greedy"
# The methods that read parts, where they are asked for.
_IN_PARTS = (METHOD, "two_round_farthest_first")
# Flags by which rows are compared with something else than each other's vectors.
_OTHER_INPUTS = ("--queries", "--private", "--metric precomputed", "--metric rbf")
# What the work may hold unless --max-memory says so, and what it holds beside the vectors twice: bytes a row.
_ROOM, _ROW_BYTES = 4 * 2**30, 300
# What the interpreter and the libraries hold; what work on a pool in parts takes beside, and a row of it: measured on
# 1,000,000 and 8,000,000 rows of 64.
_BASE_BYTES, _PART_BYTES, _PART_ROW_BYTES = 160 * 2**20, 310 * 2**20, 20
# Rows that stand for the pool in the report, and bytes a second that one core reads of Parquet.
_SAMPLE_ROWS, _READ_SPEED = 5_000, 2.5e8
# Texts whose words stand for those of all.
_TEXTS_LOOKED_AT = 2_000
# Short texts whose vectors are made in a second.
_TEXTS_A_SECOND = 30_000


def is_large(table: Table, arguments: SelectArguments, rows: int | None = None) -> bool:
    """Whether the vectors are read in parts: where they would not fit, or a flag or the method asks for it.

    Where they would not fit and a flag needs all of them at once, standard error is told the flag and the memory.

    Args:
        table: the file or files, or their beginning.
        arguments: what was typed, names of columns as the table spells them.
        rows: how many rows the whole has, where the table is its beginning.

    Raises:
        InputError: they would not fit in --max-memory and a flag that was typed needs all rows at once.
    """
    _refuse_asking(arguments)
    if isinstance(table, SparseNpz) or arguments.by_scores or arguments.by_rankings or not arguments.compares:
        return False
    if arguments.only_dedupes and (arguments.text or arguments.columns):
        # Texts are compared as they are written, and columns by their values: there are no vectors.
        return False
    refuse_no_scores(table, arguments)
    n, d, item = table.n if rows is None else rows, *_shape(table, arguments)
    room = _room(arguments)
    fits = _bytes_of_work(table, arguments, n, d, item) <= room
    needing_all = _needing_all(arguments)
    if arguments.method in _IN_PARTS or arguments.in_parts:
        return needing_all not in _OTHER_INPUTS and not (fits and _refusals(arguments))
    if not fits and needing_all:
        _tell_of_memory(needing_all, n, d, item, table, arguments)
    if needing_all is not None or (fits and _floor_at_once(arguments, n, d, item) <= room):
        return False
    if arguments.max_memory is not None:
        return _least_way(table, arguments, n, d, item)
    return not fits


def _floor_at_once(arguments: SelectArguments, n: int, d: int, item: int) -> int:
    """The least --max-memory of a run that holds all vectors; 0 where rows to label may be picked by another method."""
    if arguments.max_memory is None or arguments.only_dedupes or arguments.classes or arguments.label_column:
        return 0
    return bytes_beside_rows(n, d, item, arguments.metric or "euclidean", arguments.n_threads)


def _least_way(table: Table, arguments: SelectArguments, n: int, d: int, item: int) -> bool:
    """Whether parts are read where not all vectors fit: the way that keeps --max-memory.

    Raises:
        InputError: neither way keeps it; the least that one of them takes is named.
    """
    if arguments.only_dedupes:
        return True
    room, k = _room(arguments), arguments.k or 1
    at_once = max(_bytes_of_work(table, arguments, n, d, item), _floor_at_once(arguments, n, d, item))
    parts = Rounds(n, d, item, k, n_threads=arguments.n_threads).bytes if n > PART_ROWS else at_once
    if min(at_once, parts) > room:
        raise InputError(
            f"--max-memory {arguments.max_memory}: facility location on {n} rows of {d} features takes "
            f"{min(at_once, parts)} bytes beside them; give at least as many"
        )
    return at_once > room


def _needing_all(arguments: SelectArguments) -> str | None:
    """The first flag that was typed and needs all vectors at once, as it was typed; None where parts are as good."""
    others = {
        "--queries": arguments.queries is not None,
        "--private": arguments.private is not None,
        f"--metric {arguments.metric}": arguments.metric in ("precomputed", "rbf"),
    }
    if first := next((flag for flag, is_given in others.items() if is_given), None):
        return first
    if arguments.method not in ("auto", *_IN_PARTS):
        return f"-m {arguments.method}"
    if arguments.objective not in (None, "facility_location"):
        return f"--objective {arguments.objective}"
    return next(iter(_refusals(arguments)), None)


def _tell_of_memory(flag: str, n: int, d: int, item: int, table: Table, arguments: SelectArguments) -> None:
    """Say on standard error that all vectors are read at once, why, and what that takes; refuse over --max-memory."""
    size = n * d * item if arguments.text is None else _bytes_of_work(table, arguments, n, d, item)
    if arguments.max_memory is not None and size > _room(arguments):
        remedy = f"say -m {METHOD}" if flag.startswith("-m ") else f"leave {flag} out"
        raise InputError(
            f"{flag} reads all rows at once: {n:,} x {d:,} takes {size / 1e9:,.3g} GB, over --max-memory "
            f"{arguments.max_memory}; raise it, or {remedy}"
        )
    click.echo(
        f"all {n:,} x {d:,} vectors are read at once, which takes about "
        f"{_bytes_at_once(table, arguments, n, d, item) / 1e9:,.3g} GB of memory: {flag} needs all of them; without it "
        "they are read in parts",
        err=True,
    )


def _bytes_at_once(table: Table, arguments: SelectArguments, n: int, d: int, item: int) -> int:
    """About what a run takes that holds all vectors, and a copy of them in the kind that it computes with."""
    return _BASE_BYTES + _bytes_of_work(table, arguments, n, d, item)


def _bytes_of_work(table: Table, arguments: SelectArguments, n: int, d: int, item: int) -> int:
    """The same beside what the interpreter and the libraries hold; of texts their words too."""
    size = 2 * n * d * item + _ROW_BYTES * n
    if arguments.text is None:
        return size
    first = next(table.text_blocks(arguments.text, _TEXTS_LOOKED_AT)).head(_TEXTS_LOOKED_AT)
    return size + bytes_by_words(first, n / max(1, len(first)))[1]


def by_parts(table: Table, files: Sequence[str], arguments: SelectArguments) -> tuple[SelectArguments, Parts]:
    """The arguments with the method that reads parts, and the pool that it reads.

    Raises:
        InputError: something is asked for that needs all vectors at once, or the method is another one.
    """
    asking = _asking(arguments)
    refused = _refusals(arguments)
    if refused:
        other = f"leave {' and '.join(asking)} out and " if asking else ""
        raise InputError(
            f"{refused[0]} needs all vectors at once, and this pool is read in parts; leave {refused[0]} out, or "
            f"{other}raise --max-memory"
        )
    if arguments.method not in ("auto", *_IN_PARTS):
        raise InputError(
            f"{' and '.join(asking)}: pools are read in parts by -m {' and -m '.join(_IN_PARTS)}, and "
            f"-m {arguments.method} reads all rows at once; leave {' and '.join(asking)} out"
        )
    parts = Parts(
        table,
        files_of(files),
        vectors=arguments.vectors,
        columns=arguments.columns,
        categories=arguments.categories or (),
        text=arguments.text,
        embedder=arguments.embedder,
        cache=not arguments.no_cache,
        progress=arguments.progress,
        work=arguments.work if arguments.text else None,
    )
    if arguments.only_dedupes or arguments.method in _IN_PARTS:
        return arguments, parts
    return dataclasses.replace(arguments, method=METHOD), parts


def _refuse_asking(arguments: SelectArguments) -> None:
    """Refuse what no method does part by part, by the flags that were typed and no method that nobody named."""
    asking = " and ".join(_asking(arguments))
    given = {
        "--budget": arguments.budget is not None,
        "--score": arguments.score_column is not None and not arguments.only_dedupes,
        "--scores": arguments.by_scores,
        "--rankings": arguments.by_rankings,
        "--queries": arguments.queries is not None,
        "--private": arguments.private is not None,
        "--model": arguments.model is not None,
    }
    flag = next((flag for flag, is_given in given.items() if is_given), None)
    if asking and flag and arguments.method in ("auto", *_IN_PARTS):
        raise InputError(
            f"{flag} does not go with {asking}, by which the pool is picked part by part; leave {asking} out"
        )


def _asking(arguments: SelectArguments) -> list[str]:
    """The flags that ask for parts of the pool, as they are typed."""
    given = {
        "--part-rows": arguments.part_rows is not None,
        "--work": arguments.work is not None,
        f"--engine {arguments.engine}": elsewhere(arguments.engine) and not arguments.shares_rows,
    }
    return [flag for flag, is_given in given.items() if is_given]


def _refusals(arguments: SelectArguments) -> list[str]:
    """The flags that need all vectors at once, or have no meaning for parts."""
    given = {
        "--budget": arguments.budget,
        "--score": None if arguments.only_dedupes else arguments.score_column,
        "--drop-empty": arguments.drop_empty or None,
        "--images": arguments.images,
        "--model": arguments.model,
        f"--device {arguments.device}": arguments.device if names_a_device(arguments.device) else None,
    }
    return [flag for flag, value in given.items() if value is not None]


def with_sample(pool: Pool, plan: Selection) -> Pool:
    """The pool with the picks' vectors and those of a sample in place of parts, for what is said and drawn of them."""
    if not is_pool(pool.X):
        return pool
    if not len(plan):
        return dataclasses.replace(pool, X=None)
    rng = np.random.default_rng(0)
    # Half of the rows are measured; as many random ones as picks are drawn from the other half.
    size = min(pool.X.n, max(_SAMPLE_ROWS, 5 * len(plan)))
    if size == pool.X.n:
        return dataclasses.replace(pool, X=pool.X.take(np.arange(size)))
    sample = rng.choice(pool.X.n, size, replace=False)
    items = np.union1d(sample, plan.indices)
    return dataclasses.replace(pool, X=pool.X.take(items), items=items)


def ways_beforehand(table: Table, arguments: SelectArguments, rows: int) -> dict[str, str]:
    """What a run on so many rows would take, by the layout of the files alone, and the two cheapest ways.

    Args:
        table: the beginning of the file or files.
        arguments: what was typed.
        rows: how many rows the whole has.
    """
    d, item = _shape(table, arguments)
    parts = {} if arguments.part_rows is None else {"part_rows": arguments.part_rows}
    if not arguments.only_dedupes:
        words = {"X": np.zeros((1, d), np.float32), **arguments.given("k", "budget", "objective")}
        entry = refuse_misfit("select", METHOD if arguments.method == "auto" else arguments.method, words, parts)
        for count in checked_options(entry, parts).values():
            checks.count(count, "part_rows")
    threads = cores(arguments.n_threads)
    if arguments.only_dedupes:
        return duplicates_of_parts(rows, d, item, threads)
    k = arguments.k or 1
    if (
        arguments.max_memory is not None
        and arguments.method in ("auto", METHOD)
        and rows > (arguments.part_rows or PART_ROWS)
    ):
        given = [arguments.part_rows, *(arguments.options.get(name) for name in ("n_reference", "bound_rows"))]
        Rounds(rows, d, item, k, *given, n_threads=arguments.n_threads).refuse_memory(_room(arguments))
    size, speed = rows * d * item, pairs_a_second(d) * threads
    reading = size / (_READ_SPEED * threads) + (rows / _TEXTS_A_SECOND if arguments.text else 0.0)
    if arguments.method in _IN_PARTS and arguments.method != METHOD:
        # No two distances of a row are passed over: the most that it can take.
        most = 2 * reading + rows * 3 * k / speed
        return _beforehand(arguments.method, rows, d, most, reading, _BASE_BYTES + _PART_BYTES + rows)
    reference = rows_sampled(rows, d, k)
    whole = _bytes_at_once(table, arguments, rows, d, item)
    ways = {
        METHOD: (
            2 * reading + pairs_of_rounds(rows, k, arguments.part_rows) / speed,
            _BASE_BYTES + _PART_BYTES + _PART_ROW_BYTES * rows,
        ),
        "sampled_greedy": (reading + pairs_of_search(rows, d, min(reference, rows), k) / speed, whole),
        "lazy_greedy": (reading + 2.0 * rows**2 / speed, whole),
    }
    room = _room(arguments)
    ranked = sorted(ways, key=lambda name: (ways[name][1] > room, ways[name][0]))
    shown = [
        f"{name}: about {ways[name][0]:.2g} s, {ways[name][1] / 1e6:,.0f} MB"
        + ("" if ways[name][1] <= room else f", over the {room / 1e9:,.3g} GB that it may hold (--max-memory)")
        for name in ranked[:2]
    ]
    return {**_beforehand(METHOD, rows, d, ways[METHOD][0], reading, ways[METHOD][1]), "cheapest": "; ".join(shown)}


def _beforehand(method: str, rows: int, d: int, seconds: float, reading: float, peak: int) -> dict[str, str]:
    """What a method takes that reads the pool twice."""
    entry = methods_of("select")[method]
    return {
        "method": method,
        "rows": f"{rows:,} x {d:,}",
        "seconds": f"about {seconds:.2g} ({2 * reading:.2g} of them reading), by the files' layout; nothing was read",
        "bytes": f"about {peak / 1e6:,.0f} MB, and a row group where it is not read by pages",
        "exact": entry.exact,
        "cost": entry.cost,
    }


def duplicates_of_parts(rows: int, d: int, item: int, threads: int) -> dict[str, str]:
    """What finding near-duplicates among so many vectors would take, of which nothing is read beforehand."""
    pairs, size = pairs_of_cells(rows), bytes_of_cells(rows, d, item, threads)
    seconds = 2 * rows * d * item / (_READ_SPEED * threads) + pairs / (pairs_a_second(d) * threads)
    return {
        "method": "near_duplicates_by_cells",
        "rows": f"{rows:,} x {d:,}",
        "seconds": f"about {seconds:.2g}, by the files' layout; nothing was read",
        "bytes": f"about {(_BASE_BYTES + size) / 1e6:,.0f} MB, and {rows * d * item / 1e9:,.3g} GB of disk",
        "exact": "every pair is verified; how many are missed is measured",
    }


def _room(arguments: SelectArguments) -> int:
    """What the work may hold."""
    return _ROOM if arguments.max_memory is None else checks.bytes_of(arguments.max_memory)


def _shape(table: Table, arguments: SelectArguments) -> tuple[int, int]:
    """How long the vectors are, about, and the bytes of a value."""
    if arguments.columns:
        return len(arguments.columns), 4
    if arguments.text:
        return DIMS, 4
    if names := numbers_alone(table, arguments):
        return len(names), 8
    name = arguments.vectors or only_vectors(table, columns_named_by(arguments))
    if isinstance(table, Npy) and len(shape := table._layout(name)[0]) == 2:
        return int(shape[1]), max(4, table._layout(name)[1].itemsize)
    if isinstance(table, Arrays):
        shape, dtype = table._layout(name)  # type: ignore[attr-defined]
        return (int(shape[1]) if len(shape) == 2 else 1), max(4, dtype.itemsize)
    with reading_file(table.path):
        width, dtype = table._vector_layout(name)
    return width, max(4, dtype.itemsize)
