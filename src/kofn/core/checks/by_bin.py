"""Numbers of bins that carry the bins' names: a mapping, or a pandas series with an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kofn.core.checks.errors import InputError, nearest

# The words of which each bin may have its own number.
BY_BIN = frozenset({"capacity", "min_size", "limits"})


def by_bin(value: Any, name: str, bins: Sequence[str] | None) -> Any:
    """The numbers in the order of the bins, matched by name; what carries no names stays as it is.

    Args:
        value: one number, one for each bin, or those of a mapping or a series under the bins' names.
        name: of the argument, for errors.
        bins: the names of the bins in their order; None where they have none but their numbers 0, 1, ...

    Raises:
        InputError: names that are not those of the bins, each once.

    Examples:
        >>> by_bin({"b": 2, "a": 1}, "capacity", ["a", "b"]), by_bin({1: 2, 0: 1}, "capacity", None)
        ([1, 2], [1, 2])
    """
    if isinstance(value, Mapping):
        keys, numbers = [str(key) for key in value], list(value.values())
    elif type(value).__module__.partition(".")[0] == "pandas" and hasattr(value, "index") and hasattr(value, "tolist"):
        keys, numbers = [str(key) for key in value.index], value.tolist()
    else:
        return value
    counted = [str(number) for number in range(len(keys))]
    if not isinstance(value, Mapping) and (keys == counted or (bins is None and set(keys) != set(counted))):
        # A series in the order of the bins, whose index says nothing of them.
        return value
    known = counted if bins is None else list(bins)
    position = {key: row for row, key in enumerate(keys)}
    twice = next((key for row, key in enumerate(keys) if position[key] != row), None)
    if twice is not None:
        raise InputError(f"{name} names {twice!r} twice; name each bin once")
    unknown = next((key for key in keys if key not in known), None)
    if unknown is not None:
        shown = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
        raise InputError(f"{name} names {unknown!r}, which is no bin{nearest(unknown, known)}; the bins are {shown}")
    missing = next((key for key in known if key not in position), None)
    if missing is not None:
        raise InputError(f"{name} has no number for the bin {missing!r}; give each bin its own")
    return [numbers[position[key]] for key in known]
