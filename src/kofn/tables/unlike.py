"""Columns of numbers that nobody named and that are unlike the others: sizes, ids and hours beside levels or scores."""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError

_DIGITS = re.compile(r"\d+(\.\d+)?")
# Names of columns that say what a row is, or what its other numbers come to.
_OF_THE_ROW = re.compile(
    r"(#?[ _-]?(params?|parameters)([ _(-].*)?|size([ _(-].*)?|n|count|counts|avg\.?|average|mean|overall|total|index|"
    r"row|id|idx|.+[ _-]id)",
    re.IGNORECASE,
)
_KEYS = re.compile(r"row|id|idx|index|.+[ _-]id", re.IGNORECASE)
# How many times the largest of all other numbers the smallest of a column is that is of another size.
_FAR = 10
# Rows from which on their numbers, one after another, are no chance.
_FEWEST = 5
# Columns named in one line.
_NAMED = 12


def has_digits(name: str) -> bool:
    """Whether a column is named as levels are: by a number, or by a word with one."""
    return bool(_DIGITS.search(name))


def as_typed(*names: str) -> str:
    """Names of columns as the value of a flag, in quotes where a shell needs them.

    Examples:
        >>> as_typed("arc", "a b"), as_typed("arc", "mmlu")
        ("'arc,a b'", 'arc,mmlu')
    """
    return shlex.quote(",".join(name.strip() for name in names))


def listed(names: Sequence[str]) -> str:
    """Names in one line, the first of many."""
    return ", ".join([*names[:_NAMED], *(["..."] if len(names) > _NAMED else [])])


def of_no_series(names: Sequence[str]) -> list[str]:
    """The names that are not like most, where most are one word with a number (or numbers): e0, e1, e2 and hours.

    Examples:
        >>> of_no_series(["e0", "e1", "hours"]), of_no_series(["2", "4", "params"]), of_no_series(["ana", "bob"])
        (['hours'], ['params'], [])
    """
    stems = {name: _DIGITS.sub("#", name.strip()) for name in names}
    if not stems:
        return []
    stem, alike = Counter(stems.values()).most_common(1)[0]
    return [name for name in names if stems[name] != stem] if "#" in stem and alike > 1 else []


def of_the_row(names: Sequence[str]) -> list[str]:
    """The names that say what a row is (an id, a size), or what its other numbers come to (an average)."""
    return [name for name in names if _OF_THE_ROW.fullmatch(name.strip())]


def called_as_keys(name: str) -> bool:
    """Whether a column is called as what names the rows is.

    Examples:
        >>> [called_as_keys(name) for name in ("id", "user_id", "Row", "grid", "forest")]
        [True, True, True, False, False]
    """
    return bool(_KEYS.fullmatch(name.strip()))


def of_another_kind(names: Sequence[str], scores: NDArray[np.float64]) -> dict[str, str]:
    """The columns whose numbers cannot well be scores in the unit of the others', and how they differ.

    Far larger than all others, as years and sizes are; mostly far larger than the others mostly are; whole numbers
    that all differ, or reach beyond the others, where others have decimals, as ids and counts do; or of one sign where
    all others have both, as hours and costs are.

    Args:
        names: the columns.
        scores: (rows, columns), not finite where there is no score.
    """
    values = np.where(np.isfinite(scores), scores, np.nan)
    filled = np.flatnonzero(~np.isnan(values).all(axis=0))
    if len(filled) < 2 or len(names) != scores.shape[1]:
        return {}
    values = values[:, filled]
    names = [names[column] for column in filled.tolist()]
    size = np.abs(values)
    low, high = np.nanmin(size, axis=0), np.nanmax(size, axis=0)
    odd = {}
    for index, name in enumerate(names):
        rest = np.delete(high, index).max()
        if low[index] > _FAR * rest > 0:
            odd[name] = f"{low[index]:g} to {high[index]:g}, where the others reach {rest:g}"
    middle = np.nanmedian(size, axis=0)
    for index, name in enumerate(names):
        rest = np.delete(middle, index).max()
        # A column that was mentioned for its smallest number keeps that reason.
        if len(names) > 2 and middle[index] > _FAR * rest > 0:
            odd.setdefault(name, f"mostly about {middle[index]:g}, where the others have at most {rest:g}")
    decimals = np.any(size % 1 > 0, axis=0)
    both = np.any(values < 0, axis=0) & np.any(values > 0, axis=0)
    for mask, reason in (
        (~decimals & np.array([_all_differ(column) for column in values.T]), "whole numbers that all differ"),
        (~decimals & (high > np.maximum(_others(high), 1)), "whole numbers that reach beyond the others' decimals"),
        (~both, "all of one sign, where the others have both"),
    ):
        if mask.sum() == 1 and len(names) > 2 and (decimals if "whole" in reason else both)[~mask].all():
            odd.setdefault(names[int(mask.argmax())], reason)
    return odd


def _others(high: NDArray[np.float64]) -> NDArray[np.float64]:
    """(columns,) the largest of the others."""
    return np.array([np.delete(high, index).max() for index in range(len(high))])


def name_rows(name: str, column: NDArray[Any]) -> bool:
    """Whether a column of numbers may name the rows: called so, or whole numbers in a row (0, 1, 2, ...)."""
    values = np.asarray(column, np.float64)
    if not _all_differ(values) or np.isnan(values).any() or (values % 1 > 0).any():
        return False
    return bool(_OF_THE_ROW.fullmatch(name.strip())) or bool((np.diff(values) == 1).all())


def refuse_numbers_of_rows(names: Sequence[str], scores: NDArray[np.float64], path: str, role: str) -> None:
    """Refuse a first column that numbers the rows, where nobody has said which column names them.

    Its whole numbers count up from 0 or 1, or all differ and are of another kind than the others' numbers, as
    `of_another_kind` tells.

    Args:
        names: the columns.
        scores: (rows, columns), not finite where there is no score.
        path: the table.
        role: what each column counts as, in the singular: "bin", "judge".

    Raises:
        InputError: it does; the message has both remedies.
    """
    if len(names) < 2 or len(names) != scores.shape[1]:
        return
    first = np.asarray(scores[:, 0], np.float64)
    if len(first) < _FEWEST or not np.isfinite(first).all() or not _all_differ(first) or (first % 1 > 0).any():
        return
    if first[0] in (0, 1) and (np.diff(first) == 1).all():
        why = f"counts up from {first[0]:g} to {first[-1]:g}"
    elif other := of_another_kind(names, scores).get(names[0]):
        differ = "whole numbers that all differ"
        why = f"holds {differ}" + (f" ({other})" if other != differ else "")
    else:
        return
    raise InputError(
        f"{path} column {names[0]!r} {why}, as what names the rows does; if it names them, say --id "
        f"{as_typed(names[0])}, if it counts as a {role}, name all of them: --columns {as_typed(*names)}"
    )


def _all_differ(column: NDArray[np.float64]) -> bool:
    known = column[~np.isnan(column)]
    return len(known) > 2 and len(np.unique(known)) == len(known)


def unlike_line(names: Sequence[str], odd: Collection[str], role: str, why: str = "") -> list[str]:
    """The line that names the columns which count although they are unlike the others; none where all or none are.

    Args:
        names: the columns that count.
        odd: those that are unlike the others.
        role: what each counts as, in the singular: "judge", "bin".
        why: how it differs, where that is known.
    """
    odd = [name for name in names if name in odd]
    if not 0 < len(odd) < len(names):
        return []
    counts = f"{', '.join(odd)} {f'counts as a {role}' if len(odd) == 1 else f'count as {role}s'} beside the others"
    rest = as_typed(*(name for name in names if name not in odd))
    return [f"{counts}{f' ({why})' if why else ''}; to leave {'it' if len(odd) == 1 else 'them'} out: --columns {rest}"]


def unlike_bins(names: Sequence[str], scores: NDArray[np.float64]) -> list[str]:
    """The line on the columns that count as bins and whose names or numbers are unlike those of the others."""
    kinds = of_another_kind(names, scores)
    odd = {*of_no_series(names), *of_the_row(names), *kinds}
    return unlike_line(names, odd, "bin", next((kinds[name] for name in odd if name in kinds and len(odd) == 1), ""))
