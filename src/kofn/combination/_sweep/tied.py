"""Heads that some members save though they are tied to the embedding, and others do not."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from kofn.combination._sweep.vocabulary import EMBEDDING, HEAD
from kofn.io.companions import CONFIG, read_config, tying, untied
from kofn.io.json_text import parsed
from kofn.io.tensor_writer import CheckpointWriter
from kofn.io.tensors import Checkpoint

if TYPE_CHECKING:
    from kofn.combination._sweep.tensor import Tensor

    Tensors = Mapping[str, Tensor]

# T5 and its kind scale what goes into a tied head, so that one apart is no other tensor only.
SHARED = "shared.weight"
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
        if not all(is_copy(sources[i], name) for i in owners):
            continue
        for i in owners:
            out[i] = _without(out[i], name)
            notes.append(f"{labels[i]}: {name!r} is a copy of its embedding, which others tie it to: left out")
    return out, tuple(notes)


def is_copy(source: Tensors, name: str) -> bool:
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


def say_untied(writer: CheckpointWriter) -> list[str]:
    """Make a configuration say that the head is a tensor of its own, where what was written differs from the embedding.

    Loaders put the embedding in the place of a head that the configuration ties to it.

    Args:
        writer: of an output of which all tensors are written; its config.json is replaced.

    Returns:
        What was changed, in words.
    """
    content = writer.extras.get(CONFIG)
    if content is None or writer.single:
        return []
    config = read_config(content) if isinstance(content, Path) else parsed(content.decode())
    if not any(tying(config)):
        return []
    specs = {spec.name: spec for shard in writer.layout.shards for spec in shard.tensors}
    tables = [name for name in specs if EMBEDDING.search(name)]
    if any(name.endswith(SHARED) for name in tables):
        return []
    for head in [name for name in specs if HEAD.search(name) and name.endswith(".weight")]:
        own = specs[head]
        alike = [name for name in tables if (specs[name].shape, specs[name].dtype) == (own.shape, own.dtype)]
        if tables and not any(_same(writer, head, name, math.prod(own.shape)) for name in alike):
            writer.extras[CONFIG] = (json.dumps({**config, **untied(config)}, indent=2) + "\n").encode()
            return [
                f"{head!r} differs from {tables[0]!r}: tie_word_embeddings is false in config.json, where it was true"
            ]
    return []


def _same(writer: CheckpointWriter, head: str, table: str, size: int) -> bool:
    return all(
        np.array_equal(writer.read(head, start, stop).view(np.uint8), writer.read(table, start, stop).view(np.uint8))
        for start, stop in _blocks(size)
    )


def _blocks(size: int) -> list[tuple[int, int]]:
    return [(start, min(start + _BLOCK, size)) for start in range(0, size, _BLOCK)]


def _without(source: Tensors, name: str) -> Tensors:
    if isinstance(source, Checkpoint):
        return source.replaced({}, (name,))
    return {other: tensor for other, tensor in source.items() if other != name}
