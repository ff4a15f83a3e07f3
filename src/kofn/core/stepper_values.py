"""Values of a stepper's state and of its events: what is read once, saved, compared and digested."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, ValuesView
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError, shown
from kofn.core.digests import digest

# Arguments of an event that are read into a list.
_LAZY = (Iterator, ValuesView)
# More values than one event brings: what has no end is not read further.
_MANY = 10**7
# Lists in lists of a state.
_DEEPEST = 50
# Stands before the digest of a setting that is an array.
DIGEST = "digest "


def listed_once(value: Any, name: str) -> Any:
    """What can be read only once as a list, a LazyFrame as a frame, a dictionary of its own kind as a plain one."""
    with checks.reading(name, value):
        if isinstance(value, dict) and type(value) is not dict:  # one of a kind of its own may not hold what it says
            value = dict(value.items())
        if not isinstance(value, _LAZY):
            return checks.collected(value)
        listed = list(itertools.islice(value, _MANY + 1))
        if len(listed) > _MANY:
            raise InputError(f"{name} is a {type(value).__name__} of more than {_MANY} values; give fewer at once")
        return listed


def refuse_objects(value: Any, name: str, depth: int = 0) -> None:
    """A state holds arrays, numbers, texts and keys, and lists and dictionaries of them."""
    if depth > _DEEPEST:
        raise InputError(f"state[{name!r}] holds lists in lists, {depth} deep; give what state_dict() returned")
    if isinstance(value, np.ma.MaskedArray):
        raise InputError(f"state[{name!r}] is a masked array; give what state_dict() returned")
    if isinstance(value, Mapping):
        value = [part for pair in value.items() for part in pair]
    if isinstance(value, np.ndarray) and value.dtype == object:
        value = value.ravel().tolist()
    if isinstance(value, list | tuple):
        for item in value:
            refuse_objects(item, name, depth + 1)
    elif isinstance(value, np.ndarray):
        if value.dtype.kind == "V":
            raise InputError(f"state[{name!r}] has dtype {value.dtype}; give what state_dict() returned")
    elif isinstance(value, Iterator) or (hasattr(value, "__array__") and not isinstance(value, np.generic)):
        raise InputError(f"state[{name!r}] holds a {type(value).__name__}; give what state_dict() returned")
    else:
        hash(value)
        if isinstance(value, int) and abs(value) >= 2**1023:
            raise InputError(f"state[{name!r}] holds {shown(value)}; give what state_dict() returned")


def setting(value: Any) -> Any:
    """A setting as it is compared and told: plain values as they are, arrays by digest, objects by name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, tuple | list) and all(isinstance(item, bool | int | float | str) for item in value):
        return list(value)
    if checks.is_sparse(value):
        return DIGEST + digest({"value": value.tocsr()})
    if isinstance(value, np.ndarray | Mapping | tuple | list):
        return DIGEST + digest({"value": value})
    return getattr(value, "__qualname__", type(value).__qualname__)


def as_text(value: str) -> Array:
    """A text that `digest` does not take for a path."""
    return np.array(value)


def content(value: Any) -> Any:
    """An event's argument as `digest` reads it: keys are texts, not paths."""
    if isinstance(value, str):
        return as_text(value)
    if isinstance(value, list | tuple):
        head = value
        while isinstance(head, list | tuple) and head:
            head = head[0]
        if isinstance(head, bool | int | float | str | np.generic):
            try:
                return np.asarray(value)
            except ValueError:  # rows of several lengths
                pass
        return [content(item) for item in value]
    return value.tocsr() if checks.is_sparse(value) else value


def check_kind(name: str, value: Any, now: Any) -> None:
    """A number stays a number, and an array keeps the kind of its entries."""
    if isinstance(now, bool):
        right = isinstance(value, bool)
    elif isinstance(now, int | float):
        right = isinstance(value, int | float) and not isinstance(value, bool)
    elif isinstance(now, np.ndarray) and now.dtype.kind in "biuf":
        right = isinstance(value, np.ndarray) and value.dtype.kind in (now.dtype.kind, *"OUS" * (not len(now)))
    else:
        right = isinstance(value, str) <= isinstance(now, str)
    if not right:
        raise InputError(f"state[{name!r}] is {shown(value)}; give what state_dict() returned")


def saved(value: Any) -> Any:
    """A value that shares no array, list or dictionary with the stepper."""
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, np.random.Generator):
        return saved(value.bit_generator.state)
    if isinstance(value, Mapping):
        return {key: saved(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(saved(item) for item in value)
    return value
