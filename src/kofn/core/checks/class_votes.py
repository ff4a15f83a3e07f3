"""Members that predict one class a row, as a vote: names of classes, or whole numbers that are classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks.arrays import as_array, as_float, gaps_as_nan
from kofn.core.checks.errors import InputError
from kofn.core.checks.kinds import is_missing
from kofn.core.checks.numbers import shown
from kofn.core.checks.quotas import labels as read_labels

# The most classes that one message lists.
_LISTED = 6
# Rows by which it is told that members are no whole numbers, and the most classes that whole numbers stand for.
_HEAD, _MOST = 1_000, 10_000


def holds_names(array: Array) -> bool:
    """Whether an array (n,) holds texts, gaps aside.

    >>> holds_names(np.array(["cat", None], object)), holds_names(np.array([0.5, None], object))
    (True, False)
    """
    if array.dtype.kind == "U":
        return True
    return array.dtype == object and any(isinstance(cell, str) for cell in array.flat)


def as_shares(
    members: Sequence[Any],
    names: Sequence[str],
    answers: Array,
    classes: Sequence[Any] | None = None,
    *,
    numbers_vote: bool | None = None,
) -> tuple[list[Floats], Array] | None:
    """Votes as (n, classes) arrays, one for the class voted for and zero for the others, and the classes.

    Args:
        members: m arrays.
        names: (m,) what messages call them.
        answers: (n,) the answer of each row.
        classes: all classes, in the order of the columns.
        numbers_vote: whether whole numbers are classes; None where that was not said, and is asked where they may be.

    Returns:
        None where the members are no votes.

    Raises:
        InputError: names beside numbers, a vote for none of the classes, whole numbers that may be classes or amounts.
    """
    arrays = [as_array(member, name) for member, name in zip(members, names, strict=True)]
    if not arrays or any(array.ndim != 1 for array in arrays):
        return None
    of_names = [holds_names(array) for array in arrays]
    if any(of_names):
        if not all(of_names):
            odd = of_names.index(False)
            raise InputError(
                f"{names[of_names.index(True)]} holds names of classes, {names[odd]} does not; give every member votes "
                "for classes, or every member probabilities"
            )
        voted: Array | None = np.unique(answers) if classes is None else read_labels(list(classes), "classes")
    else:
        voted = _numbered(arrays, names, answers, classes, numbers_vote)
    if voted is None:
        return None
    return [_shares(array, name, voted) for array, name in zip(arrays, names, strict=True)], voted


def votes_again(members: Sequence[Any], names: Sequence[str], classes: Sequence[Any]) -> list[Any]:
    """Votes for classes of other rows as (n, classes) arrays; members of two dimensions as they are."""
    known = read_labels(list(classes), "classes")
    arrays = [as_array(member, name) for member, name in zip(members, names, strict=True)]
    return [
        _shares(array, name, known) if array.ndim == 1 else array for array, name in zip(arrays, names, strict=True)
    ]


def _numbered(
    arrays: Sequence[Array],
    names: Sequence[str],
    answers: Array,
    classes: Sequence[Any] | None,
    numbers_vote: bool | None,
) -> Array | None:
    """The classes that whole numbers vote for; None where the members are amounts or probabilities."""
    if any(array.dtype.kind == "f" and (array[:_HEAD] % 1 > 0).any() for array in arrays):
        return None
    numbers = [as_float(gaps_as_nan(array), name) for array, name in zip(arrays, names, strict=True)]
    voted = _whole(numbers)
    if voted is None:
        return None
    if answers.dtype.kind in "Ub":
        _refuse_numbers_of_names(voted, names, answers, classes)
        return None
    known = _whole([answers]) if classes is None else _whole([read_labels(list(classes), "classes")])
    # Zeros and ones are probabilities of the second of two classes.
    if known is None or set(known.tolist()) <= {0, 1} or not set(voted.tolist()) <= set(known.tolist()):
        return None
    if numbers_vote is False:
        return None
    if numbers_vote or classes is not None:
        return known if classes is None else read_labels(list(classes), "classes")
    if 2 * len(known) > len(answers):
        return None
    raise InputError(
        f"{names[0]} and the others hold whole numbers that are all among the {len(known)} values of y "
        f"({_listed(known)}): of classes say loss='accuracy', which counts votes; of amounts, such as counts or "
        "grades, say loss='rmse'"
    )


def _refuse_numbers_of_names(voted: Ints, names: Sequence[str], answers: Array, classes: Sequence[Any] | None) -> None:
    """Refuse whole numbers that may stand for classes called by names; zeros and ones are probabilities."""
    labels = (np.unique(answers) if classes is None else read_labels(list(classes), "classes")).tolist()
    if voted[-1] > 1 and voted[0] >= 0 and voted[-1] <= max(len(labels), 2):
        raise InputError(
            f"{names[0]} and the others hold whole numbers up to {voted[-1]}, y holds names ({_listed(labels)}); if "
            "the numbers stand for classes, give the names in their place, else probabilities in [0, 1]"
        )


def _whole(arrays: Sequence[Array]) -> Ints | None:
    """The different values of the arrays, sorted, gaps aside; None where one is no whole number, or they are many."""
    values: Ints = np.empty(0, np.int64)
    for array in arrays:
        if array.dtype.kind not in "iuf":
            return None
        known = array[~np.isnan(array)]
        if (np.abs(known) > _MOST).any() or (known % 1 != 0).any():
            return None
        values = np.union1d(values, known.astype(np.int64))
    return values if len(values) else None


def _shares(votes: Array, name: str, classes: Array) -> Floats:
    """(n, classes) one for the class voted for, NaN where there is no vote.

    Raises:
        InputError: a vote for none of the classes.
    """
    column = {label: number for number, label in enumerate(classes.tolist())}
    shares = np.zeros((len(votes), len(classes)))
    for row, vote in enumerate(votes.tolist()):
        if is_missing(vote):
            shares[row] = np.nan
        elif vote in column:
            shares[row, column[vote]] = 1.0
        else:
            raise InputError(
                f"{name} at row {row} is {shown(vote)}, which is no class of y ({_listed(classes)}); correct "
                "it, or name all classes by classes=[...]"
            )
    return shares


def _listed(classes: Sequence[Any] | Array) -> str:
    labels = classes.tolist() if isinstance(classes, np.ndarray) else list(classes)
    return ", ".join(map(str, labels[:_LISTED])) + (", ..." if len(labels) > _LISTED else "")
