"""Which columns of a table are the levels of curves, by their names, for `kofn allocate` and `kofn.allocate` alike."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Sequence
from typing import Any

from kofn.core.checks import InputError, nearest
from kofn.tables.unlike import as_typed, of_no_series

# Columns that a refusal names.
_SHOWN = 3
_NUMBER = re.compile(r"(\d+(?:\.\d+)?)")


def amount_of(name: str) -> float | None:
    """The number that a column's name is, if it is one."""
    try:
        amount = float(name)
    except ValueError:
        return None
    if not math.isfinite(amount):
        return None
    return int(amount) if amount.is_integer() else amount


def amounts_of(names: Sequence[str]) -> dict[str, float]:
    """The amount of each column by its name: the number that the name is, or else the number by which names differ.

    Empty where names are neither, where they differ in more, and where two have the same number.

    Examples:
        >>> amounts_of(["8", "2"]), amounts_of(["4 bits", "2.5 bits"]), amounts_of(["w2_g128", "w4_g128"])
        ({'8': 8, '2': 2}, {'4 bits': 4, '2.5 bits': 2.5}, {'w2_g128': 2, 'w4_g128': 4})
        >>> amounts_of(["w2_g64", "w4_g128"]), amounts_of(["scale", "shape"]), amounts_of(["4", "params"])
        ({}, {}, {})
    """
    amounts = {name: amount for name in names if (amount := amount_of(name)) is not None}
    if len(amounts) < len(names):
        parts = [_NUMBER.split(name.strip()) for name in names]
        if len(parts) < 2 or len({tuple(part[::2]) for part in parts}) > 1:
            return {}
        differing = [position for position in range(1, len(parts[0]), 2) if len({part[position] for part in parts}) > 1]
        if len(differing) != 1:
            return {}
        numbers = [amount_of(part[differing[0]]) for part in parts]
        amounts = {name: number for name, number in zip(names, numbers, strict=True) if number is not None}
    return amounts if len(set(amounts.values())) == len(names) else {}


def columns_by_level(stem: str, names: Sequence[str]) -> dict[float, str]:
    """The columns of one quantity by level: "ms_2", "ms_4" of "ms", whatever stands between the two.

    Examples:
        >>> columns_by_level("ms", ["ms_2", "ms 4", "msb_8", "ms"])
        {2: 'ms_2', 4: 'ms 4'}
    """
    parts = {name: re.fullmatch(rf"{re.escape(stem)}[ _@.:-]?(\d+(\.\d+)?)", name.strip()) for name in names}
    levels = {name: amount_of(match[1]) for name, match in parts.items() if match}
    return {level: name for name, level in levels.items() if level is not None}


def refuse_no_levels(source: str, names: Sequence[str], sizes: str | None, levels: str) -> None:
    """Refuse a column whose name is not like those of the others, which are numbers or hold numbers.

    Args:
        source: the table's name.
        names: the columns of numbers.
        sizes: how the items' sizes are named, with {} for the column; None where they are named already.
        levels: how the levels are named, with {} for the columns.

    Raises:
        InputError: names the column, and how to say what it is.
    """
    others = of_no_series(names)
    if not others:
        return
    series = [name for name in names if name not in others]
    are_sizes = f"if it is the items' size, say {sizes.format(repr(others[0]))}, else " if sizes else ""
    raise InputError(
        f"{source} column {others[0]!r} holds numbers and is not named like the levels "
        f"({','.join(name.strip() for name in series)}); {are_sizes}name the levels: {levels.format(as_typed(*series))}"
    )


def refuse_measured_levels(source: str, names: Sequence[str], remedy: str) -> None:
    """Refuse columns called by numbers that do not rise and are not all whole: a first row that was taken as names.

    Args:
        source: the table's name.
        names: the columns of levels, in the order of the table.
        remedy: how levels are named that are meant so.

    Raises:
        InputError: names the first of them.
    """
    amounts = [amount for name in names if (amount := amount_of(name)) is not None]
    if len(amounts) < max(2, len(names)) or all(float(amount).is_integer() for amount in amounts):
        return
    if all(low < high for low, high in itertools.pairwise(amounts)):
        return
    first = ",".join(name.strip() for name in names[:_SHOWN]) + (",.." if len(names) > _SHOWN else "")
    raise InputError(
        f"{source}: no header? the first row {first} was taken as the names of levels, which do not rise; add a header "
        f"line, or if these are levels, {remedy}"
    )


def with_named_levels(given: dict[str, Any], *, of_levels: bool = True) -> dict[str, Any]:
    """The arguments of a call with its frame of curves read by the names of the columns.

    Columns that are called by numbers, or by one word with a number, are levels of that amount and come in their order;
    `sizes` may name a column.

    Args:
        given: the arguments, by name.
        of_levels: whether the method's curves are of levels; else columns are parameters, whatever their names.

    Raises:
        InputError: no column of sizes is called so; a column of numbers is not named like the levels.
    """
    if not hasattr(given.get("curves"), "columns"):
        return given
    import narwhals

    frame = narwhals.from_native(given["curves"], eager_only=True, pass_through=True)
    if not isinstance(frame, narwhals.DataFrame):
        return given
    given = dict(given)
    sizes = given.get("sizes")
    if isinstance(sizes, str):
        if sizes not in frame.columns:
            raise InputError(
                f"sizes={sizes!r}: curves has no such column{nearest(sizes, frame.columns)}; name one, or give sizes"
            )
        given["sizes"] = frame[sizes].to_numpy()
        frame = frame.drop(sizes)
    ids = given.get("ids")
    names = [name for name, kind in frame.schema.items() if kind.is_numeric() and name != ids]
    if not all(isinstance(name, str) for name in frame.columns):
        return given
    if of_levels:
        refuse_no_levels("curves", names, "sizes={}" if sizes is None else None, "curves=frame[[...]] of {}")
        if given.get("levels") is None:
            refuse_measured_levels("curves", names, "give levels=[...] in the order of the columns")
    amounts = amounts_of(names) if of_levels else {}
    if len(amounts) == len(frame.columns) - (ids in frame.columns) and amounts and given.get("levels") is None:
        ordered = sorted(amounts, key=lambda name: amounts[name])
        frame = frame.select([*([ids] if ids in frame.columns else []), *ordered])
        given["levels"] = [amounts[name] for name in ordered]
    return {**given, "curves": frame.to_native()}
