"""What a plan read from a file must be before it is used: fields of their types, arrays that fit each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

_MOST = 2**63
# What a report shows of `info`.
_MEASURED = {"seconds", "peak_bytes", "oracle_calls", "distance_evals"}


def refuse_damaged(plan: Any) -> None:
    """Hold a plan against the types of its fields, and its arrays against each other.

    Raises:
        ValueError: a field of another type, or an array that does not fit; the message names it.
    """
    for item in dataclasses.fields(plan):
        value = getattr(plan, item.name)
        known = [_TYPES[part] for part in str(item.type).split(" | ") if part in _TYPES]
        if known and not any(fits(value) for fits in known):
            raise ValueError(f"{item.name} is {type(value).__name__}, not {item.type}")
    if not 0 <= plan.n < _MOST:
        raise ValueError(f"n is {plan.n}")
    if plan.ids is not None and (plan.ids.ndim != 1 or len(plan.ids) != plan.n):
        raise ValueError(f"ids have shape {plan.ids.shape}, n is {plan.n}")
    for name in ("used", "budget", "prices"):
        for key, value in getattr(plan, name).items():
            if value is None and name != "used":
                continue
            if not isinstance(value, Mapping) and np.asarray(value).dtype.kind not in "biuf":
                raise ValueError(f"{name}[{key!r}] is {type(value).__name__}, not a number")
    for name in _MEASURED & plan.info.keys():
        measured = plan.info[name]
        if not _is_number(measured) or not 0 <= measured < _MOST:
            raise ValueError(f"info[{name!r}] is {type(measured).__name__}, not what was measured")
    _SHAPES[type(plan).__name__](plan)


def _selection(plan: Any) -> None:
    _vector(plan, "indices", kinds="iu", length=None, most=plan.n)
    picks = len(plan.indices)
    for name, length in (("gains", picks), ("weights", picks), ("probabilities", plan.n)):
        _vector(plan, name, kinds="biuf", length=length)


def _assignment(plan: Any) -> None:
    if not 0 <= plan.k < _MOST:
        raise ValueError(f"k is {plan.k}")
    _vector(plan, "indptr", kinds="iu", length=plan.n + 1, most=None)
    _vector(plan, "bins", kinds="iu", length=None, most=plan.k)
    _vector(plan, "weights", kinds="biuf", length=len(plan.bins))
    ends = plan.indptr[[0, -1]].tolist()
    if ends != [0, len(plan.bins)] or (np.diff(plan.indptr) < 0).any():
        raise ValueError(f"indptr does not rise from 0 to the {len(plan.bins)} bins")
    _vector(plan, "medoids", kinds="iu", length=None, most=plan.n)


def _allocation(plan: Any) -> None:
    for name in ("amounts", "values", "marginal_up", "marginal_down"):
        _vector(plan, name, kinds="biuf", length=plan.n)


def _blend(plan: Any) -> None:
    _vector(plan, "spread", kinds="biuf", length=None)
    if plan.form == "order":
        order = np.asarray(plan.result)
        if order.ndim != 1 or order.dtype.kind not in "iu" or sorted(order.tolist()) != list(range(plan.n)):
            raise ValueError(f"result ranks {order.size} of {plan.n}")
        for name in ("points", "rated", "rank_low", "rank_high", "best_rank", "worst_rank"):
            if name in plan.info and np.shape(plan.info[name]) != (plan.n,):
                raise ValueError(f"info[{name!r}] has shape {np.shape(plan.info[name])}, n is {plan.n}")
        never = plan.info.get("never_compared", [])
        numbers = isinstance(never, list) and all(type(item) is int and 0 <= item < plan.n for item in never)
        if not numbers or len(set(never)) < len(never):
            raise ValueError("info['never_compared'] is no list of alternatives")
    elif isinstance(plan.weights, np.ndarray) and plan.weights.shape != (plan.n,):
        raise ValueError(f"weights have shape {plan.weights.shape}, n is {plan.n}")
    if not isinstance(plan.result, Mapping) and not hasattr(plan.result, "shape"):
        raise ValueError(f"result is {type(plan.result).__name__}")


def _vector(plan: Any, name: str, *, kinds: str, length: int | None, most: int | None = None) -> None:
    """A vector of this kind of numbers, of this length, from 0 to below `most`; what is None is left out."""
    array = getattr(plan, name)
    if array is None:
        return
    if not isinstance(array, np.ndarray) or array.ndim != 1 or array.dtype.kind not in kinds:
        raise ValueError(f"{name} is no vector of numbers")
    if length is not None and len(array) != length:
        raise ValueError(f"{name} has {len(array)} values, not {length}")
    if most is not None and len(array) and not 0 <= array.min() <= array.max() < most:
        raise ValueError(f"{name} reaches from {array.min()} to {array.max()}, not from 0 to {most - 1}")


def _is_number(value: Any) -> bool:
    return isinstance(value, float) or (_is_whole(value) and abs(value) < 2**1023)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_named(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


_TYPES: dict[str, Callable[[Any], bool]] = {
    "None": lambda value: value is None,
    "bool": lambda value: isinstance(value, bool),
    "int": _is_whole,
    "float": _is_number,
    "str": lambda value: isinstance(value, str),
    "Array": lambda value: isinstance(value, np.ndarray),
    "dict[str, Any]": _is_named,
    "frozenset[str]": lambda value: isinstance(value, frozenset) and all(isinstance(item, str) for item in value),
    "Selection": lambda value: type(value).__name__ == "Selection",
    "Any": lambda _value: True,
}
_SHAPES: dict[str, Callable[[Any], None]] = {
    "Selection": _selection,
    "Assignment": _assignment,
    "Allocation": _allocation,
    "Blend": _blend,
}
