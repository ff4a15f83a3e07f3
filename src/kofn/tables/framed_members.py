"""Members that came as frames or series: their columns and rows are matched by what these are called, not by place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.checks.kinds import frame_kind, table_kind
from kofn.tables.class_columns import as_answers, plain_names, written
from kofn.tables.unlike import listed


def aligned(given: Mapping[str, Any], options: Mapping[str, Any], *, takes_classes: bool = True) -> dict[str, Any]:
    """The words of a call with its members, and the answers, in the rows and columns of the first member.

    Columns are matched where all members have two or more and all are called by names, which may begin alike in each
    (`forest_yes`, `forest_no`); rows where two members of pandas have an index that somebody gave. Where the answers
    are what columns are called, `classes` says so.

    Args:
        given: the words, none of them None.
        options: the method's own options that were given as a mapping.
        takes_classes: the method has an option of this name.

    Raises:
        InputError: columns or an index of other names; an index in another order than the plain count 0, 1, 2, ...,
            which may stand for places or for names.

    Examples:
        >>> import polars as pl
        >>> first, second = pl.DataFrame({"x": [1], "y": [2]}), pl.DataFrame({"y": [4], "x": [3]})
        >>> aligned({"members": [first, second]}, {})["members"][1].columns
        ['x', 'y']
    """
    from kofn.combination.ensembles._losses import OF_CLASSES

    words = dict(given)
    members = words.get("members")
    if frame_kind(members) == "pandas":
        if _has_index(words.get("y")):
            words["y"] = _in_rows(words["y"], members, "y", "members")
        return words
    if not isinstance(members, list | tuple | Mapping):
        return words
    keys = list(members) if isinstance(members, Mapping) else list(range(len(members)))
    values = list(members.values()) if isinstance(members, Mapping) else list(members)
    if not any(table_kind(value) for value in values):
        return words
    names = [f"member {key!r}" for key in keys]
    labels: list[str] = []
    if all(_has_names(value) for value in values):
        labels = plain_names(list(map(str, values[0].columns)))
        values = [
            value if number == 0 else _in_columns(value, labels, names[number], names[0])
            for number, value in enumerate(values)
        ]
    indexed = [number for number, value in enumerate(values) if _has_index(value)]
    for number in indexed[1:]:
        values[number] = _in_rows(values[number], values[indexed[0]], names[number], names[indexed[0]])
    if indexed and _has_index(words.get("y")):
        words["y"] = _in_rows(words["y"], values[indexed[0]], "y", names[indexed[0]])
    named = words.get("classes", options.get("classes"))
    of_classes = words.get("loss", options.get("loss")) in (None, *OF_CLASSES)
    if labels and words.get("y") is not None and of_classes and "quantiles" not in {*words, *options}:
        values, classes = _by_class(values, labels, words["y"], named)
        if classes is not None and takes_classes:
            words["classes"] = classes
    if words.get("y") is None:
        values = [_with_gaps_as_nan(value) for value in values]
    words["members"] = dict(zip(keys, values, strict=True)) if isinstance(members, Mapping) else values
    return words


def _with_gaps_as_nan(value: Any) -> Any:
    """A frame or series of pandas whose numbers are of its nullable types as float64, missing ones NaN."""
    if table_kind(value) != "pandas":
        return value
    dtypes = list(getattr(value, "dtypes", [])) if frame_kind(value) == "pandas" else [value.dtype]
    nullable = all(dtype.kind in "iufb" for dtype in dtypes) and any(hasattr(dtype, "numpy_dtype") for dtype in dtypes)
    return value.astype("float64") if nullable else value


def _has_names(value: Any) -> bool:
    """Whether a frame has two columns or more that somebody has named: not 0, 1, 2, ..., nor column_0, column_1, ..."""
    if frame_kind(value) not in ("pandas", "polars") or len(value.columns) < 2:
        return False
    names = [str(name) for name in value.columns]
    counted = [str(number) for number in range(len(names))]
    return len(set(names)) == len(names) and names not in (counted, [f"column_{number}" for number in counted])


def _in_columns(frame: Any, labels: Sequence[str], name: str, first: str) -> Any:
    """The frame with its columns in the order of these names.

    Raises:
        InputError: its columns are called otherwise.
    """
    own = plain_names(list(map(str, frame.columns)))
    if own == list(labels):
        return frame
    if set(own) != set(labels):
        raise InputError(
            f"{name} has columns {listed([str(column) for column in frame.columns])}, {first} has {listed(labels)}; "
            "give every member columns of the same names, or arrays, which are matched by place"
        )
    return _columns(frame, [own.index(label) for label in labels])


def _columns(frame: Any, order: Sequence[int]) -> Any:
    return frame.iloc[:, list(order)] if frame_kind(frame) == "pandas" else frame[:, list(order)]


def _has_index(value: Any) -> bool:
    return table_kind(value) == "pandas"


def _in_rows(value: Any, first: Any, name: str, of: str) -> Any:
    """The rows of a frame or series of pandas in the order of another's index.

    An index that merely counts says nothing of rows that another index calls otherwise.

    Raises:
        InputError: the two have other rows, or the order is told by no name.
    """
    own, wanted = value.index, first.index
    if len(own) != len(wanted) or own.equals(wanted):
        return value
    for index, label in ((own, name), (wanted, of)):
        if not index.is_unique:
            twice = index[index.duplicated()][0]
            raise InputError(
                f"{label} has the index {twice!s} twice, and the two are in another order: for rows in the same order "
                "say .reset_index(drop=True) of each, else give each row an index of its own"
            )
    counted = [_counts(index) for index in (own, wanted)]
    alike = own.is_unique and wanted.is_unique and len(own.difference(wanted)) == 0
    by_place = "for rows in the same order say .reset_index(drop=True) of each"
    if any(counted):
        if not alike:
            return value
        raise InputError(
            f"{name} has the index of {of} in another order, and one of them merely counts the rows: {by_place}, for "
            f"rows of the same index .sort_index()"
        )
    if not alike:
        strange = next((key for key in own if key not in wanted), own[0])
        raise InputError(f"{name} has another index than {of} (row {strange!r}): give both the same rows; {by_place}")
    return value.loc[wanted]


def _counts(index: Any) -> bool:
    """Whether an index is the one that pandas gives where nobody names rows."""
    return type(index).__name__ == "RangeIndex" and index.start == 0 and index.step == 1


def _by_class(values: list[Any], labels: Sequence[str], y: Any, named: Any) -> tuple[list[Any], list[Any] | None]:
    """The members with columns in the order of `classes`, and the classes that columns are called after, as the answers
    spell them; None where answers are others."""
    if named is not None:
        wanted = [written(label) for label in named]
        if set(wanted) != set(labels) or len(wanted) != len(labels):
            return values, None
        order = [list(labels).index(label) for label in wanted]
        return [_columns(value, order) for value in values], None
    answers = checks.labels(y, "y")
    spelt = {written(label) for label in np.unique(answers).tolist()}
    return values, as_answers(labels, answers) if len(spelt) > 1 and spelt <= set(labels) else None
