"""Heads that some members save though they are tied to the embedding, and others do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from kofn.combination._sweep.vocabulary import EMBEDDING, HEAD
from kofn.io.tensors import Checkpoint

if TYPE_CHECKING:
    from kofn.combination._sweep.members import Tensor

    Tensors = Mapping[str, Tensor]

_BLOCK = 1 << 20  # elements that are compared at a time


def without_copies(
    sources: Sequence[Tensors], labels: Sequence[str], skipped: frozenset[str]
) -> tuple[list[Tensors], tuple[str, ...]]:
    """The sources without heads that are copies of their own embedding, where another source has no head.

    A model without a head among its tensors ties it to the embedding, so a copy of that says nothing.

    Args:
        sources: the members, and the base last if there is one.
        labels: what each source is called.
        skipped: names of the tensors that are copied.

    Returns:
        The sources, and a note for each head that was left out.
    """
    names = dict.fromkeys(name for source in sources for name in source if HEAD.search(name) and name not in skipped)
    out, notes = list(sources), []
    for name in names:
        if all(name in source for source in sources):
            continue
        owners = [i for i, source in enumerate(sources) if name in source]
        if not all(_is_copy(sources[i], name) for i in owners):
            continue
        for i in owners:
            out[i] = _without(out[i], name)
            notes.append(f"{labels[i]}: {name!r} is a copy of its embedding, which others tie it to: left out")
    return out, tuple(notes)


def _is_copy(source: Tensors, name: str) -> bool:
    """Whether a tensor is equal to an embedding of its source."""
    head = source[name]
    tables = [
        table
        for other, table in source.items()
        if EMBEDDING.search(other) and table.shape == head.shape and table.dtype == head.dtype
    ]
    return any(
        all(
            np.array_equal(head.read(start, stop).view(np.uint8), table.read(start, stop).view(np.uint8))
            for start, stop in _blocks(head.size)
        )
        for table in tables
    )


def _blocks(size: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]


def _without(source: Tensors, name: str) -> Tensors:
    if isinstance(source, Checkpoint):
        return source.replaced({}, (name,))
    return {other: tensor for other, tensor in source.items() if other != name}
