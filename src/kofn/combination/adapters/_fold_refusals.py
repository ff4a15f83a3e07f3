"""Bases to which no update can be added: quantised ones, and tensors of whole numbers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from kofn.combination.adapters._fold_tables import array_of
from kofn.core.checks import InputError
from kofn.io.quantised import scale_of
from kofn.io.tensors import Checkpoint
from kofn.io.unread_formats import unread_codes, unread_format


def refuse_packed(base: Mapping[str, Any]) -> None:
    """Refuse weights in a form of another library, whose shapes are not theirs."""
    stored = base if isinstance(base, Checkpoint) else {}
    unread = unread_format(list(base)) or unread_codes(stored, getattr(base, "path", None))
    if unread is not None:
        raise InputError(
            f"base is quantised in a form that is not read ({unread[0]!r}: {unread[1]}); write its weights dequantised "
            "with the library that made it, and fold into that"
        )


def refuse_quantised(base: Mapping[str, Any], changes: Iterable[str]) -> None:
    """Refuse weights that stand for others: an update would be added to their codes."""
    for name in changes:
        scale = scale_of(base, name)
        if scale is not None:
            raise InputError(
                f"base is quantised ({name!r} beside {scale!r}), and an adapter adds to what its numbers stand for; "
                "give dtype='bfloat16' (--dtype) to write the result without scales"
            )


def refuse_whole_numbers(tensors: Mapping[str, Any], changes: Iterable[str]) -> None:
    """Refuse codes and counters, to which no update can be added."""
    for name in changes:
        tensor = tensors[name]
        dtype = tensor.dtype if hasattr(tensor, "read") else array_of(tensor).dtype
        if dtype.kind in "iub":
            raise InputError(f"base: {name!r} holds {dtype}, to which no update can be added; give a base of floats")
