"""What `k="auto"` and `equal=True` mean, and the index's row of a method that may be a name or a function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kofn.core.checks import InputError, count, flag, shown
from kofn.core.dispatch import methods_of
from kofn.core.registry import Entry
from kofn.core.vocabulary import SETTINGS


def finds_k(method: Any, k: str, others: set[str]) -> Any:
    """The method that is meant by k="auto"."""
    if k != "auto":
        raise InputError(f"k={k!r}: give a whole number, or 'auto' to have it found")
    if method == "auto":
        taken = methods_of("assign")["pamk"]
        if strange := sorted(others - set(taken.accepted) - set(taken.options) - SETTINGS - {"ids", "options"}):
            raise InputError(f"k='auto' does not go together with {', '.join(strange)}; give k a number")
        return "pamk"
    entry = entry_of("assign", method)
    if entry is not None and "k" in entry.required:
        raise InputError(f"k='auto': method={entry.name!r} needs a number; method='pamk' finds k")
    return method


def sizes_of_equal(n: int, k: int, per_item: Any = None) -> dict[str, int]:
    """The least and the most items of each of k groups of equal size, up to one item; each item in `per_item` of them.

    Raises:
        InputError: k or per_item is no whole number of at least 1.

    >>> sizes_of_equal(64, 9), sizes_of_equal(12, 5, per_item=2)
    ({'capacity': 8, 'min_size': 7}, {'capacity': 5, 'min_size': 4})
    """
    k = count(k, "k")
    places = n * (1 if per_item is None else count(per_item, "per_item"))
    return {"capacity": -(-places // k), "min_size": places // k}


def with_equal_sizes(given: Mapping[str, Any]) -> dict[str, Any]:
    """The words of a call of arrays with the sizes that `equal=True` stands for, and without `equal`."""
    words = {name: value for name, value in given.items() if name != "equal"}
    if not flag(given["equal"], "equal"):
        return words
    items: Any = next((words[name] for name in ("X", "distances", "scores") if name in words), ())
    shape: Sequence[int] = getattr(items, "shape", ())
    if not shape:
        shape = [len(items), *([len(items[0])] if len(items) and "scores" in words else [])]
    k = words.get("k")
    if "scores" in words and len(shape) > 1:
        k = bins_of_equal(words.pop("k", None), shape[1])
    if k is None or isinstance(k, str):
        raise InputError(
            "equal=True makes groups of equal size: say how many with k"
            + ("" if k is None else f", a number in place of {shown(k)}")
        )
    if set_too := [name for name in ("capacity", "min_size") if name in words]:
        raise InputError(f"equal=True sets the sizes; leave {' and '.join(set_too)} out")
    return {**words, **sizes_of_equal(shape[0], k, words.get("per_item"))}


def bins_of_equal(k: Any, bins: int, flag: str = "k") -> int:
    """The number of bins that scores are filled equally into: one for each column, whatever `k` repeats."""
    if k is not None and k != bins:
        raise InputError(f"{flag}={shown(k)}: scores have {bins} columns, one a bin; leave {flag} out")
    return bins


def entry_of(verb: str, method: Any) -> Entry | None:
    """The index's row of a method, None for "auto", an unknown name or a function that is not registered."""
    if isinstance(method, str):
        return methods_of(verb).get(method)
    spec = getattr(method, "__kofn__", None)
    return spec.entry() if spec is not None else None
