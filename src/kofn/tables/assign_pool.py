"""The pool of `assign`: its rows as vectors or scores, what is known of them, and the call of the verb."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.number_of_groups import bins_of_equal, sizes_of_equal
from kofn.core.plans import Assignment
from kofn.core.problems import pairs_by_row
from kofn.io.opening import open_table
from kofn.io.tables import Table
from kofn.io.vectors import PoolVectors
from kofn.tables.alike import alike_notes
from kofn.tables.assign_arguments import LINKS, AssignArguments
from kofn.tables.read import Pool, read_pairs, read_vectors, without_gaps
from kofn.tables.scores import read_scores
from kofn.tables.unlike import unlike_bins

# Words of which each bin may have its own, with their flags.
_BY_BIN = {"capacity": "capacity", "min_size": "min-size", "limits": "limit"}


class Call(NamedTuple):
    """A call of the verb that answers what was asked of a table."""

    pool: Pool
    words: Mapping[str, Any]
    options: Mapping[str, Any]

    def answer(self, verb: Callable[..., Assignment], method: Any) -> Assignment:
        """The plan, by row of the pool."""
        options = dict(self.options)
        if "ids" in self.words:
            # Where rows have ids, the verb is given pairs of ids.
            options |= {name: self.words["ids"][pairs] for name, pairs in options.items() if name in LINKS}
        with checks.naming(items=self.words.get("ids"), bins=self.pool.matrix_columns or None):
            return verb(method=method, options=options, **self.words)


def prepared(table: Table, arguments: AssignArguments) -> Call:
    """Read what was asked about; the pairs of linked rows in `options` are row numbers."""
    pool = read_pool(table, arguments)
    return Call(pool, call_of(pool, arguments), options_of(pool, arguments))


def read_pool(table: Table, arguments: AssignArguments) -> Pool:
    """The items and what is known of them."""
    X: Any = None
    matrix: NDArray[Any] | None = None
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    if arguments.by_scores:
        matrix, names, left = read_scores(table, arguments, some_unlisted=True)
        if arguments.sense == "min":
            matrix = np.where(matrix == -np.inf, -np.inf, -matrix)
        blank = (f"no item may go to bin {name!r}: it has no score" for name in _blank(matrix, names))
        odd = () if arguments.columns else unlike_bins(names, matrix)
        notes = (*left, *blank, *odd)
    else:
        compared = _vectors(table, arguments)
        X = compared.X
        if arguments.text or arguments.columns or compared.notes:
            notes = (f"compared by {compared.how}", *compared.notes)
    values = values_of(table, arguments)
    notes += alike_notes(values, arguments.label_column)
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


def values_of(table: Table, arguments: AssignArguments) -> dict[str, Any]:
    """What the columns say of each row, under the word of the vocabulary."""
    values = {}
    if arguments.weight_column:
        values["weights"] = table.numbers(arguments.weight_column)
    if arguments.size_column:
        values["sizes"] = table.numbers(arguments.size_column)
    if arguments.label_column:
        values["y"] = table.labels(arguments.label_column)
    return values


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
        # Of a beginning the groups are as large as those of the whole, as other capacities are.
        n = len(pool.rows) if arguments.rows_of_whole is None else max(len(pool.rows), arguments.rows_of_whole)
        if pool.matrix is not None:
            call["k"] = bins_of_equal(call.get("k"), pool.matrix.shape[1], "--k")
        call |= sizes_of_equal(n, call["k"], call.get("per_item"))
        if pool.matrix is not None:
            del call["k"]
    for name, flag_name in _BY_BIN.items():
        if isinstance(file := call.get(name), str):
            if arguments.k == "auto":
                raise InputError(f"--{flag_name} {file} names the bins, so --k auto has none to find; give --k")
            bins = range(call.get("k", 0) if pool.matrix is None else pool.matrix.shape[1])
            call[name] = _by_bin(file, flag_name, pool.matrix_columns or tuple(map(str, bins)))
        elif file is not None:
            call[name] = checks.by_bin(file, name, pool.matrix_columns or None)
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
    if arguments.sense == "min" and isinstance(options.get("reserve"), int | float):
        # What it costs to leave an item out, as the scores are costs.
        options["reserve"] = -options["reserve"]
    for name in LINKS:
        links = options.get(name)
        if isinstance(links, str):
            options[name] = read_pairs(links, pool.keys, name.replace("_", "-"))
        elif links is not None and (pool.ids is not None or pool.dropped):
            options |= pairs_by_row({name: links}, checks.ids(pool.keys))
    return options


def _by_bin(file: str, flag: str, bins: Sequence[str]) -> NDArray[Any]:
    """The number of each bin from a table whose first two columns are the bin's name and its number."""
    table = open_table(file)
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
