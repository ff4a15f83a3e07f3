"""What `k="auto"` means, and the index's row of a method that may be a name or a function."""

from __future__ import annotations

from typing import Any

from kofn.core.checks import InputError
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


def entry_of(verb: str, method: Any) -> Entry | None:
    """The index's row of a method, None for "auto", an unknown name or a function that is not registered."""
    if isinstance(method, str):
        return methods_of(verb).get(method)
    spec = getattr(method, "__kofn__", None)
    return spec.entry() if spec is not None else None
