"""Heads that some members save though they are tied to the embedding, and others do not."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kofn.combination._sweep.vocabulary import EMBEDDING, HEAD
from kofn.io.companions import CONFIG, TIED, read_config, tying, untied
from kofn.io.json_text import parsed
from kofn.io.tensor_writer import CheckpointWriter
from kofn.io.tensors import Checkpoint

if TYPE_CHECKING:
    from kofn.combination._sweep.tensor import Tensor

    Tensors = Mapping[str, Tensor]

# T5 and its kind scale what goes into a tied head, so that one apart is no other tensor only.
SHARED = "shared.weight"
# Models whose head is told by the bias that they save of it: that, the head, and the second name of the bias.
BIASED = (
    ("cls.predictions.bias", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"),
    ("lm_head.bias", "lm_head.decoder.weight", "lm_head.decoder.bias"),
    ("predictions.bias", "predictions.decoder.weight", "predictions.decoder.bias"),
    ("vocab_projector.bias", "vocab_projector.weight", None),
    ("generator_lm_head.bias", "generator_lm_head.weight", None),
    ("decoder.bias", "decoder.weight", None),
)
_BLOCK = 1 << 20  # elements that are compared at a time


def alike_in_heads(
    sources: Sequence[Tensors], labels: Sequence[str], skipped: frozenset[str]
) -> tuple[list[Tensors], tuple[str, ...]]:
    """The sources with the same heads: copies of embeddings are left out, or tied heads are taken for tensors.

    A model without a head among its tensors ties it to the embedding, so where all heads are copies of their own
    embedding, and a source has none or its configuration ties it, the copies say nothing. Where another source has a
    head of its own, the head of one whose configuration ties it is its embedding, and is blended as that.

    Args:
        sources: the members, and the base last if there is one.
        labels: what each source is called.
        skipped: names of the tensors that are copied.

    Returns:
        The sources, and a note for each head that was left out or taken for one.
    """
    names = dict.fromkeys(name for source in sources for name in source if HEAD.search(name) and name not in skipped)
    out, notes = list(sources), []
    configs = [_config(source) for source in sources]
    for name in names:
        owners = [i for i, source in enumerate(sources) if name in source]
        agree = len({config[TIED] for config in configs if TIED in config}) < 2
        if len(owners) == len(sources) and (agree or any(map(_is_scaled, sources))):
            continue
        if all(is_copy(sources[i], name) for i in owners):
            for i in owners:
                out[i] = _without(out[i], name)
                notes.append(f"{labels[i]}: {name!r} is a copy of its embedding, which others tie it to: left out")
            continue
        shape = sources[owners[0]][name].shape
        for i, source in enumerate(sources):
            table = _tied_table(source, configs[i], shape) if name not in source else None
            if table is not None and isinstance(source, Checkpoint):
                again = {other: bias for bias, head, other in BIASED if head == name and bias in source and other}
                own = {other: source[bias] for other, bias in again.items() if other not in source}
                out[i] = source.extended({name: source[table], **own})
                notes.append(
                    f"{labels[i]}: its config.json ties the head to {table!r}, which is blended as {name!r} with the "
                    "others' heads: the blend has a head of its own"
                )
    return out, tuple(notes)


def tie_settings(paths: Sequence[Path | None], written: Collection[str]) -> dict[str, bool]:
    """What a blend's configuration says of its head, where those of the folders differ in it.

    Args:
        paths: the folders, whose configurations are compared.
        written: the names of the tensors of the blend.
    """
    configs = [read_config(path / CONFIG) for path in paths if path is not None and (path / CONFIG).is_file()]
    if len({config[TIED] for config in configs if TIED in config}) < 2 or _is_scaled(written):
        return {}
    return {TIED: not any(HEAD.search(name) and name.endswith(".weight") for name in written)}


def _config(source: Tensors) -> Mapping[str, Any]:
    """The configuration beside a source's tensors, empty if there is none."""
    path = source.path if isinstance(source, Checkpoint) else None
    return read_config(path / CONFIG) if path is not None and (path / CONFIG).is_file() else {}


def _is_scaled(source: Iterable[str]) -> bool:
    return any(name.endswith(SHARED) for name in source)


def _tied_table(source: Tensors, config: Mapping[str, Any], shape: tuple[int, ...]) -> str | None:
    """The embedding that is a source's head of this shape, by its configuration; None where that is not sure."""
    if not any(tying(config)) or _is_scaled(source):
        return None
    tables = [name for name in source if EMBEDDING.search(name) and source[name].shape == shape]
    return tables[0] if len(tables) == 1 else None


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
