"""Checks of groups and quotas, and the one rule by which a quota finds its group.

Two names are the same if they are written the same, or else if they read as the same number: 1, 1.0, "1.0" and True, or
"true" in a file. Bytes are text. What is written the same wins, so that "1.1" and "1.10" may stand side by side.
"""

from __future__ import annotations

import math
import numbers
import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks.arrays import as_array, refuse_column_name, refuse_nonfinite
from kofn.core.checks.errors import InfeasibleError, InputError, nearest
from kofn.core.checks.numbers import count, is_number, shown
from kofn.core.checks.reading import reading

# What begins with a zero is a code, such as a postal code.
_NUMBER = re.compile(r"[+-]?((0|[1-9]\d*)(\.\d*)?|\.\d+)([eE][+-]?\d+)?")
# Several quotas in one, as A:1-2,B.
_SEVERAL = re.compile(r":[\d.%/-]+,")
_BOOLEANS = {"true": 1, "false": 0}
# Whole numbers below this are floats too.
_WHOLE = 2**53
# Least and most of a group: whole numbers, or shares of the picks as fractions.
Ends = tuple[int | Fraction, int | Fraction | None]


def labels(value: Any, name: str = "y") -> Array:
    """One (n,) label an item: numbers, booleans or text; missing labels are refused."""
    with reading(name, value):
        return _labels(value, name)


def partly_labelled(value: Any, unlabelled: Any) -> tuple[Any, Any]:
    """Labels of which some are missing (NaN, None, empty text), with a mark in their place, and the mark.

    The mark is `unlabelled`, or where that is missing itself a value that no row has. Rows that hold it anyway are
    unlabelled too. Whole numbers that NaN made floats are whole again.
    """
    nothing = unlabelled is None or type(unlabelled).__name__ == "NAType" or _is_nan(unlabelled)
    with reading("y", value):
        array = _mixed(value) if isinstance(value, list | tuple) else as_array(value, "y")
        if array.ndim == 1 and array.dtype.kind in "US":
            array = array.astype(object)
        if array.ndim != 1 or array.dtype.kind not in "fO":
            unused = nothing and array.dtype.kind in "iub" and not (array == -1).any()
            return value, -1 if unused else unlabelled
        if array.dtype.kind == "f":
            return _floats_marked(array, None if nothing else unlabelled)
        missing = np.array([_is_missing(label) or _is_blank(label) for label in array], bool)
        if not missing.any() and not nothing:
            return value, unlabelled
        _refuse_odd_numbers(array)
        mark: Any = unlabelled
        if nothing:
            names = {written(label) for label in array[~missing].tolist()}
            mark = ""
            while mark in names:
                mark += "?"
        filled = array.copy()
        filled[missing] = mark
    return filled, mark


def _refuse_odd_numbers(labels: Array) -> None:
    """Refuse what an array of numbers would be refused for: complex and infinite labels, here among missing ones."""
    for row, label in enumerate(labels):
        if isinstance(label, complex | np.complexfloating):
            raise InputError(f"y at row {row} is {label}, a complex number; give one label an item: numbers or text")
        if isinstance(label, float | np.floating) and np.isinf(label):
            raise InputError(f"y at row {row} is {label}; give finite labels, or None where there is none")


def _is_nan(value: Any) -> bool:
    return isinstance(value, float | np.floating) and bool(np.isnan(value))


def _floats_marked(array: Array, unlabelled: Any) -> tuple[Array, Any]:
    """The same of floats: NaN is missing; `unlabelled` is None where it is missing itself."""
    missing = np.isnan(array)
    usable = is_number(unlabelled) and abs(unlabelled) < _WHOLE
    if not missing.any() and unlabelled is not None:
        return array, unlabelled
    known = array[~missing]
    mark: float = unlabelled if usable else -1
    if not usable and (known == -1).any():
        mark = float(np.floor(known.min())) - 1
    filled = np.where(missing, mark, array)
    if (np.abs(filled) < _WHOLE).all() and (filled == np.floor(filled)).all():
        return filled.astype(np.int64), int(mark)
    return filled, mark


def _labels(value: Any, name: str) -> Array:
    array = _mixed(value) if isinstance(value, list | tuple) else as_array(value, name)
    refuse_column_name(array, name)
    if array.ndim != 1 or len(array) == 0:
        raise InputError(f"{name} has shape {array.shape}; give one label an item, shape (n,)")
    if array.dtype.kind == "f":
        refuse_nonfinite(array, name)
    if array.dtype.kind in "OMm":
        missing = next((row for row, label in enumerate(array) if _is_missing(label)), None)
        if missing is not None:
            raise InputError(f"{name} at row {missing} is missing; give every item a group (for example 'unknown')")
    if array.dtype == object:
        array = _whole_numbers(array)
    if array.dtype == object:
        array = np.array([written(label) for label in array])
    if array.dtype.kind in "Vc":
        raise InputError(f"{name} has dtype {array.dtype}; give one label an item: numbers or text")
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8", "backslashreplace")
    return array


def _mixed(value: Sequence[Any]) -> Array:
    """A list as an array; where its kinds differ they are kept, since NumPy would turn NaN into the text 'nan', and
    whole numbers beside fractions or beyond 64 bits into floats that merge several of them."""
    kinds = {type(label) for label in value}
    if not kinds & {list, tuple, np.ndarray}:
        unlike = len(kinds) > 1 and bool(kinds & {str, bytes, type(None)})
        if unlike or any(isinstance(label, int) and abs(label) >= _WHOLE for label in value):
            array = np.empty(len(value), object)
            array[:] = value
            return array
    return as_array(value, "groups")


def _whole_numbers(array: Array) -> Array:
    """Objects that are all whole numbers of 64 bits as such; others as they are."""
    if {type(label) for label in array} != {int} or not -(2**63) <= min(array) <= max(array) < 2**63:
        return array
    return array.astype(np.int64)


def _is_missing(label: Any) -> bool:
    return label is None or type(label).__name__ in ("NAType", "NaTType") or bool(label != label)


def _is_blank(label: Any) -> bool:
    return isinstance(label, str | bytes) and not label.strip()


def groups(value: Any, name: str = "groups") -> Any:
    """One (n,) group label an item; or several columns of them as {column: labels} or a table."""
    if hasattr(value, "columns") and hasattr(value, "__getitem__"):
        value = {column: value[column] for column in value.columns}
    if not isinstance(value, Mapping):
        return labels(value, name)
    if not value:
        raise InputError(f"{name}={shown(value)}: give {{column: labels}} with a column, or one label an item")
    return {column: labels(given, f"{name}[{column!r}]") for column, given in value.items()}


def quotas(value: Any, name: str = "quotas") -> dict[Any, Any]:
    """{group: (least, most)}, or {column: {group: (least, most)}}, where a tuple of columns has tuples of groups.

    None leaves an end open, one number asks for exactly that many. Numbers between 0 and 1 are shares of the picks.
    """
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"{name}={shown(value)}: give {{group: (least, most)}}, None leaves an end open")
    nested = [isinstance(ends, Mapping) for ends in value.values()]
    if all(nested):
        return {column: quotas(inner, f"{name}[{column!r}]") for column, inner in value.items()}
    if any(nested):
        raise InputError(f"{name} mixes groups and columns; give {{column: {{group: (least, most)}}}} for every column")
    return {group: _ends(ends, f"{name}[{group!r}]") for group, ends in value.items()}


def _ends(ends: Any, name: str) -> Ends:
    if isinstance(ends, numbers.Integral | Fraction) or (is_number(ends) and 0 < ends < 1):
        ends = (ends, ends)
    if not isinstance(ends, Sequence) or isinstance(ends, str | bytes) or len(ends) != 2:
        raise InputError(f"{name}={shown(ends)}: give (least, most), None leaves an end open")
    shares = any(isinstance(end, Fraction) or (is_number(end) and 0 < end < 1) for end in ends)
    read = _share if shares else _count
    low = 0 if ends[0] is None else read(ends[0], f"{name} least")
    high = None if ends[1] is None else read(ends[1], f"{name} most")
    if high is not None and high < low:
        raise InfeasibleError(f"{name}: at least {ends[0]} and at most {ends[1]} clash; swap the ends")
    return low, high


def _count(end: Any, name: str) -> int:
    if isinstance(end, str):
        raise InputError(f"{name}={shown(end)}: give a whole number, or a share as a number between 0 and 1")
    return count(end, name, least=0)


def _share(end: Any, name: str) -> Fraction:
    """The share as it is written, so that 0.1 of 30 is 3."""
    if isinstance(end, Fraction) and 0 <= end <= 1:
        return end
    if not is_number(end) or not 0 <= end <= 1 or (isinstance(end, int | np.integer) and end):
        raise InputError(f"{name}={shown(end)}: the other end is a share; give a share from 0.0 to 1.0")
    return Fraction(str(end))


def written(group: Any) -> str:
    """A group's name as text."""
    if isinstance(group, bytes):
        return group.decode("utf-8", "backslashreplace")
    if isinstance(group, float | np.floating) and float(group).is_integer():
        return str(int(group))
    return str(group)


def _read(group: Any) -> Any:
    """The number that a name reads as, or its text."""
    if isinstance(group, bool | np.bool_):
        return int(group)
    if isinstance(group, np.floating):
        return float(str(group))
    if is_number(group):
        return group
    text = written(group)
    if text.lower() in _BOOLEANS:
        return _BOOLEANS[text.lower()]
    if _NUMBER.fullmatch(text):
        return float(text) if set(text) & set(".eE") else int(text)
    return text


class Names:
    """The names of a column's groups, in which quotas find theirs."""

    def __init__(self, names: Array) -> None:
        # A float32 may be named as it is printed, or as the float64 that it is.
        self.by_text = {written(name.item()): code for code, name in enumerate(names)}
        self.by_text |= {written(name): code for code, name in enumerate(names)}
        self.by_reading: dict[Any, list[int]] = {}
        for code, name in enumerate(names):
            self.by_reading.setdefault(_read(name), []).append(code)

    def find(self, group: Any, label: str) -> int:
        """The code of the group called `group`; -1 where no item has it."""
        code = self.by_text.get(written(group))
        if code is not None:
            return code
        alike = self.by_reading.get(_read(group), [])
        if len(alike) > 1:
            texts = [text for text, code in self.by_text.items() if code in alike]
            raise InputError(f"{label} may be {texts[0]!r} or {texts[1]!r}; write the group as it stands in groups")
        return alike[0] if alike else -1


def joint_name(column: Any) -> Any:
    """What a column of cells is called, which is named by the tuple of its columns; other columns as they are."""
    return "+".join(map(str, column)) if isinstance(column, tuple) else column


def joined(groups: Mapping[Any, Any], quotas: Mapping[Any, Any]) -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Groups and quotas with cells of several columns, {("lang", "year"): {("de", 2020): ...}}, as a column more."""
    labels, out = dict(groups), {}
    for column, inner in quotas.items():
        if not isinstance(column, tuple) or column in groups:
            out[column] = inner
            continue
        if len(set(column)) < 2:
            raise InputError(f"quotas[{column!r}]: give two columns or more, each once; a single column by its name")
        for part in column:
            if part not in groups:
                raise InputError(f"quotas name the column {part!r}, which groups lacks{nearest(str(part), groups)}")
        name = joint_name(column)
        while name in labels:
            name = f"({name})"
        labels[name], out[name] = _cells(column, [groups[part] for part in column], inner)
    return labels, out


def _cells(column: tuple[Any, ...], labels: Sequence[Array], inner: Mapping[Any, Any]) -> tuple[Array, dict[str, Any]]:
    """One label an item for its cell, and the quotas under these."""
    parts = [np.unique(given, return_inverse=True) for given in labels]
    cells, of = np.unique(np.stack([codes for _, codes in parts]), axis=1, return_inverse=True)
    own = [[written(name) for name in unique.tolist()] for unique, _ in parts]

    def text(codes: Any) -> str:
        return ",".join(names[code] for names, code in zip(own, codes, strict=True))

    def exact(codes: Any) -> str:
        return str(tuple(names[code] for names, code in zip(own, codes, strict=True)))

    texts = [text(codes) for codes in cells.T]
    call = text if len(set(texts)) == len(texts) else exact
    quotas: dict[str, Any] = {}
    for group, ends in inner.items():
        label = f"quotas[{column!r}][{group!r}]"
        if not isinstance(group, tuple) or len(group) != len(column):
            raise InputError(f"{label}: give one group of each of the {len(column)} columns, as a tuple")
        codes = []
        for part, name, (unique, _) in zip(column, group, parts, strict=True):
            codes.append(Names(unique).find(name, label))
            if codes[-1] < 0:
                hint = nearest(written(name), map(written, unique.tolist()))
                raise InputError(f"{label}: no item has {name!r} in {part!r}{hint}")
        if call(codes) in quotas:
            raise InputError(f"{label} names a cell that was named before; write each once")
        quotas[call(codes)] = ends
    return np.array([call(codes) for codes in cells.T])[of.ravel()], quotas


def resolved(
    groups: Any, quotas: Mapping[Any, Any], k: int | None, budget: Any, *, keep_shares: bool = False
) -> tuple[Any, dict[Any, Any]]:
    """Checked groups and quotas, each quota under its group's own name and in whole numbers of picks.

    Shares are rounded towards what is allowed: the least down, the most up. With `keep_shares` they stay fractions.

    Returns:
        (groups, quotas): one column and {group: (least, most)}, or {column: labels} and {column: {group: ...}}.
    """
    nested = all(isinstance(ends, Mapping) for ends in quotas.values())
    if not isinstance(groups, Mapping):
        if nested:
            raise InputError(
                f"quotas name the column {next(iter(quotas))!r}, groups is one column without a name; "
                "give groups={column: labels}"
            )
        return groups, _resolved_column(groups, quotas, "quotas", k, budget, keep_shares)
    if not nested:
        if len(groups) > 1:
            raise InputError(
                f"groups has {len(groups)} columns, {', '.join(map(repr, groups))}; "
                "give quotas={column: {group: (least, most)}}"
            )
        quotas = {next(iter(groups)): quotas}
    in_cells = {part for column in quotas if isinstance(column, tuple) and column not in groups for part in column}
    groups, quotas = joined(groups, quotas)
    groups = {column: labels for column, labels in groups.items() if column in quotas or column not in in_cells}
    for column in quotas:
        if column not in groups:
            raise InputError(f"quotas name the column {column!r}, which groups lacks{nearest(str(column), groups)}")
    for column in groups:
        if column not in quotas:
            raise InputError(f"groups[{column!r}] has no quotas; give quotas[{column!r}], or leave the column out")
    return groups, {
        column: _resolved_column(groups[column], inner, f"quotas[{column!r}]", k, budget, keep_shares)
        for column, inner in quotas.items()
    }


def _resolved_column(
    given: Array, quotas: Mapping[Any, Ends], name: str, k: int | None, budget: Any, keep_shares: bool
) -> dict[Any, tuple[Any, Any]]:
    unique = np.unique(given)
    group_names = Names(unique)
    own = unique.tolist()
    out: dict[Any, tuple[Any, Any]] = {}
    called: dict[int, Any] = {}
    for group, (low, high) in quotas.items():
        code = group_names.find(group, f"{name}[{group!r}]")
        if code < 0:
            asked = f"at least {low}" if low else "any" if high is None else f"at most {high}"
            hint = nearest(written(group), group_names.by_text)
            if isinstance(group, str) and _SEVERAL.search(group):
                hint = "; repeat --quota for each group"
            raise InputError(f"{name}[{group!r}] asks for {asked}, but no item has that group{hint}")
        if code in called:
            raise InputError(f"{name} names the group {own[code]!r} twice, as {called[code]!r} and as {group!r}")
        called[code] = group
        if isinstance(low, Fraction) or isinstance(high, Fraction):
            if keep_shares:
                out[own[code]] = (low, high)
                continue
            if k is None or budget is not None:
                raise InputError(
                    f"{name}[{group!r}] is a share of the picks, whose number a budget leaves open; give whole numbers"
                )
            low, high = math.floor(low * k), None if high is None else math.ceil(high * k)
        out[own[code]] = (int(low), None if high is None else int(high))
    return out
