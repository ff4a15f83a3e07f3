"""What `allocate` reads of its table: the curves or scores, and what is known of the items beside them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError, forbidden_levels, nearest
from kofn.io.tables import Table
from kofn.tables.allocate_arguments import AllocateArguments
from kofn.tables.levels import amount_of, amounts_of, columns_by_level, refuse_measured_levels, refuse_no_levels
from kofn.tables.scores import is_blank, is_scores, score_column
from kofn.tables.unlike import as_typed, has_digits, listed, refuse_numbers_of_rows

# What an empty cell of a curve says.
_NO_LEVEL = "the item may not have this level"


class Curves(NamedTuple):
    """What was read of the file.

    Attributes:
        values: (n, levels), or (n,) scores.
        columns: the level columns' names; one, where it holds vectors or scores.
        levels: the amounts that the columns' names say; None where they are no numbers.
        word: what the method calls the values.
    """

    values: NDArray[Any]
    columns: tuple[str, ...]
    levels: list[float] | None = None
    word: str = "curves"


class Call(NamedTuple):
    """The words and options of the call."""

    words: dict[str, Any]
    options: dict[str, Any]


def read_input(table: Table, arguments: AllocateArguments) -> Curves:
    """The curves, or for a method that takes scores the column of scores."""
    entry = arguments.entry
    if entry is None and arguments.score_column is not None:
        raise InputError(
            "--score holds one number an item, and what it means is the method's: -m sainte_lague for votes, -m "
            "rollout_knapsack or difficulty_aware_trials for success rates, -m neyman for standard deviations of "
            "strata, -m reverse_water_filling for sensitivities"
        )
    if arguments.score_column is not None or (entry is not None and "scores" in entry.required):
        return _scores(table, arguments)
    if entry is not None and entry.options.keys() >= {"family"}:
        return _parameters(table, arguments)
    return read_curves(table, arguments)


def call_of(table: Table, arguments: AllocateArguments, curves: Curves) -> Call:
    """Everything that was asked of the file, as words and options of the verb."""
    call = arguments.given("budget", "k") | {curves.word: curves.values}
    beside = {"costs": arguments.cost_column, "weights": arguments.weight_column}
    call |= {word: table.numbers(column) for word, column in beside.items() if column is not None}
    if arguments.id_column:
        call["ids"] = table.ids(arguments.id_column)
    if curves.word == "curves" and curves.values.ndim == 2 and curves.levels is not None:
        # Here the item is known by its name; what else is wrong, the method says.
        forbidden_levels(curves.values, arguments.better or "min", call.get("ids"))
    options = _with_columns(table, arguments)
    if arguments.levels:
        options["levels"] = [int(level) if level.is_integer() else level for level in arguments.levels]
    elif curves.levels is not None:
        options["levels"] = curves.levels
    if arguments.size_column:
        options["sizes"] = table.numbers(arguments.size_column)
    if arguments.least is not None or arguments.most is not None:
        n = len(curves.values)
        ends = [_end(table, text, flag, n) for text, flag in ((arguments.least, "--min"), (arguments.most, "--max"))]
        call["bounds"] = np.stack([np.nan_to_num(ends[0]), np.where(np.isnan(ends[1]), np.inf, ends[1])], axis=1)
    if arguments.quotas:
        names = {column: table.require(column) for column in arguments.quotas}
        call["groups"] = {name: table.labels(name) for name in names.values()}
        call["quotas"] = {names[column]: ends for column, ends in arguments.quotas.items()}
    sides = {
        "--quota": arguments.quotas,
        "-k": arguments.k,
        "--tie": arguments.tie,
        "--limit": arguments.resource_limits,
    }
    typed = [flag for flag, value in sides.items() if value]
    if arguments.frontier and typed:
        raise InputError(f"--frontier is of one budget alone and leaves no room for {', '.join(typed)}; leave it out")
    if arguments.tie_column:
        options["tied"] = table.labels(table.require(arguments.tie_column))
    if arguments.resource_limits:
        options["limits"] = dict(arguments.resource_limits)
        options["resources"] = {name: _resource(table, name, curves) for name in arguments.resource_limits}
    return Call(call, options)


def _with_columns(table: Table, arguments: AllocateArguments) -> dict[str, Any]:
    """The method's own options, each that holds a number for every item read from the column that is typed."""
    options = dict(arguments.options)
    kinds = {} if arguments.entry is None else arguments.entry.types
    for name, value in options.items():
        if isinstance(value, str) and kinds.get(name, "").startswith("ArrayLike"):
            options[name] = table.numbers(table.require(value))
    return options


def _end(table: Table, text: str | None, flag: str, n: int) -> NDArray[Any]:
    """(n,) one end of the bounds: a number, or a column of them in which an empty cell is open; NaN where open."""
    if text is None:
        return np.full(n, np.nan)
    number = amount_of(text)
    if number is not None:  # columns that are called by numbers are levels
        return np.full(n, float(number))
    if text not in table.columns:
        raise InputError(f"{flag} {text}: no number and no column of {table.path}{nearest(text, table.columns)}")
    gaps = table.column(text).is_null().to_numpy()
    return np.where(gaps, np.nan, score_column(table, text, math.inf, "there is no limit").astype(np.float64))


def _resource(table: Table, name: str, curves: Curves) -> NDArray[Any]:
    """What levels take of a resource: (n, L) from the columns of its name, or (n,) for a unit of amount."""
    of_level = columns_by_level(name, table.columns)
    if curves.levels is not None and of_level:
        missing = [level for level in curves.levels if level not in of_level]
        if missing:
            raise InputError(
                f"--limit {name}: {table.path} has no column {name}_{missing[0]:g} for the level {missing[0]:g}"
            )
        return np.stack([table.numbers(of_level[level]) for level in curves.levels], axis=1)
    return table.numbers(table.require(name))


def read_curves(table: Table, arguments: AllocateArguments) -> Curves:
    """The columns that are named, or else every column of numbers, or the one column of vectors.

    Columns whose names are numbers, or one word with a number, are levels of that amount, and come in their order. A
    column of text that is mostly numbers is among them, so that what is none there is refused, and so is one that is
    named as levels are.

    Raises:
        InputError: no such column, or one of numbers whose name is not like those of the levels.
    """
    beside = _beside(table, arguments)
    names = arguments.columns or _levels(table, [name for name in table.columns if name not in beside])
    if arguments.columns is None and arguments.levels:
        levels = {name: amount_of(name) for name in names} | amounts_of(names)
        column_of = {amount: name for name, amount in levels.items()}
        # Levels that name columns are those columns.
        if set(arguments.levels) <= column_of.keys():
            names = tuple(column_of[level] for level in arguments.levels)
            return Curves(_side_by_side(table, names, arguments), names, list(arguments.levels))
    if not names:
        by_name = "; name them with --columns"
        raise InputError(f"{table.path} has no numeric columns to take as a curve{table.by_spaces or by_name}")
    if len(names) == 1 and table.dtype(names[0]) == "vector":
        return Curves(table.vectors(names[0], finite=False), names)
    if len(names) == 1 and arguments.columns is None and not arguments.levels:
        raise InputError(
            f"{table.path} has one numeric column, {names[0]!r}, and one level is no choice; to share whole units in "
            f"proportion to it say --method sainte_lague (or dhondt, ..), for a curve of one level "
            f"--columns {as_typed(names[0])}"
        )
    if arguments.columns is None:
        refuse_no_levels(str(table.path), names, None if arguments.size_column else "--size {}", "--columns {}")
        if not arguments.levels:
            typed = as_typed(*names)
            refuse_measured_levels(str(table.path), names, f"say which: --columns {typed}")
    amounts = amounts_of(names)
    asked = arguments.method != "auto" or arguments.columns is not None or arguments.levels
    if not amounts and not asked and not any(map(has_digits, names)):
        raise InputError(
            f"{table.path}: {listed(names)} are no amounts that an item could get; to share whole units in proportion "
            f"to one of them say --score {as_typed(names[0])} --method sainte_lague (or dhondt, ..); where they are "
            f"what each item loses at 0, 1, .. units --columns {as_typed(*names)}, at other amounts --levels A,B,.."
        )
    if arguments.levels or not amounts:
        curves = _side_by_side(table, names, arguments)
        if arguments.columns is None and arguments.id_column is None:
            refuse_numbers_of_rows(names, curves, str(table.path), "level")
        return Curves(curves, names)
    names = tuple(sorted(names, key=lambda name: amounts[name]))
    return Curves(_side_by_side(table, names, arguments), names, [amounts[name] for name in names])


def _scores(table: Table, arguments: AllocateArguments) -> Curves:
    """The one column of numbers that is named, or is left.

    Raises:
        InputError: there is none, or several are.
    """
    beside = _beside(table, arguments)
    if arguments.score_column is not None:
        names: tuple[str, ...] = (arguments.score_column,)
    else:
        names = arguments.columns or tuple(
            name for name in table.columns if name not in beside and is_scores(table, name)
        )
    if len(names) != 1:
        has = f"{len(names)} numeric columns ({', '.join(names[:5])})" if names else "no numeric column"
        raise InputError(f"{table.path} has {has} to share by; name the one of scores: --score COL")
    return Curves(table.numbers(names[0]), names, word="scores")


def _parameters(table: Table, arguments: AllocateArguments) -> Curves:
    """The columns of a curve's parameters, in the order in which they are named or stand in the file."""
    beside = _beside(table, arguments)
    names = arguments.columns or tuple(name for name in table.columns if name not in beside and is_scores(table, name))
    if not names:
        raise InputError(f"{table.path} has no numeric columns of parameters; name them with --columns")
    return Curves(np.stack([table.numbers(name).astype(np.float64) for name in names], axis=1), names)


def _beside(table: Table, arguments: AllocateArguments) -> set[str | None]:
    """The columns that say something else of the items."""
    ends = {text for text in (arguments.least, arguments.most) if text is not None and amount_of(text) is None}
    beside = {arguments.id_column, arguments.size_column, arguments.tie_column, *ends}
    beside |= {arguments.cost_column, arguments.weight_column}
    beside |= {value for value in arguments.options.values() if isinstance(value, str)}
    for name in arguments.resource_limits:
        beside |= {name, *columns_by_level(name, table.columns).values()}
    return beside | set(arguments.quotas)


def _levels(table: Table, names: Sequence[str]) -> tuple[str, ...]:
    """The columns that are levels, by what they hold or by a name like those of the others."""
    levels = {name for name in names if _is_level(table, name)}
    texts = [name for name in names if name not in levels and table.dtype(name) == "text"]
    # A cell that is no number makes text of a column: it is refused where it stands, and the level is not dropped.
    levels |= {name for name in texts if amount_of(name) is not None or (levels and amounts_of([*levels, name]))}
    return tuple(name for name in names if name in levels)


def _is_level(table: Table, name: str) -> bool:
    kind = table.dtype(name)
    return kind in ("number", "vector") or (
        kind == "text" and (is_scores(table, name) or (has_digits(name) and is_blank(table, name)))
    )


def _side_by_side(table: Table, names: Sequence[str], arguments: AllocateArguments) -> NDArray[Any]:
    """(n, levels) the columns, infinitely bad where a cell is empty."""
    worst = -math.inf if arguments.better == "max" else math.inf
    return np.stack([score_column(table, name, worst, _NO_LEVEL) for name in names], axis=1)
