"""What messages call an item and a bin: its id and its column where these are known, else its number.

>>> with naming(bins=["ann", "bob"]):
...     bin_name(1), item_name(3)
("bin 'bob'", 'item 3')
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np

# How many are named in one message.
_NAMED = 5
_items: ContextVar[Any] = ContextVar("items", default=None)
_bins: ContextVar[Any] = ContextVar("bins", default=None)


@contextmanager
def naming(items: Sequence[Any] | Any = None, bins: Sequence[Any] | Any = None) -> Iterator[None]:
    """Inside, messages call items and bins by these names; what is None keeps the names that it has."""
    named = [(names, value) for names, value in ((_items, items), (_bins, bins)) if value is not None]
    before = [(names, names.set(value)) for names, value in named]
    try:
        yield
    finally:
        for names, token in before:
            names.reset(token)


def item_name(i: int) -> str:
    """`item 'x'`, or `item 3` where items have no ids."""
    return f"item {item_key(i)}"


def item_key(i: int) -> str:
    """An item's id, or its number where items have no ids."""
    return _called(_items.get(), int(i))


def item_label(i: int) -> str:
    """An item's id as plain text for lists of names, or its number where items have no ids."""
    names = _items.get()
    return str(names[i]) if names is not None and i < len(names) else str(i)


def bin_name(j: int) -> str:
    """`bin 'bob'`, or `bin 1` where bins have no names."""
    return f"bin {_called(_bins.get(), int(j))}"


def names_of_bins(mask: Any) -> str:
    """The first few bins where a mask is True: `'ann', 'bob', ...`."""
    bins = np.flatnonzero(mask).tolist()
    return ", ".join(_called(_bins.get(), j) for j in bins[:_NAMED]) + (", ..." if len(bins) > _NAMED else "")


def _called(names: Any, number: int) -> str:
    if names is None or not number < len(names):
        return str(number)
    name = names[number]
    return repr(name.item() if hasattr(name, "item") else name)
