"""Fold LoRA adapters into the weights that they were trained on, tensor by tensor."""

from __future__ import annotations

import itertools
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from kofn.combination._sweep.low_rank_loops import LowRankLoops, low_rank_loops
from kofn.combination._sweep.members import ArrayTensor, Pool, open_members
from kofn.combination._sweep.merge import settings_of
from kofn.combination._sweep.tied import say_untied
from kofn.combination._sweep.untying import parted, untying_text, without_unread
from kofn.combination._sweep.vocabulary import resized
from kofn.combination.adapters._fold_changes import folding_of, left_out_of
from kofn.combination.adapters._fold_rows import Change, Scratch, fold_rows, row_blocks
from kofn.combination.adapters._fold_tables import (
    Folding,
    array_of,
    other_base_text,
    refuse_packed,
    refuse_quantised,
    refuse_whole_numbers,
    unchanged_text,
    with_templates_of,
    zero_text,
)
from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.engines.threads import cores
from kofn.io.adapters import Adapter, as_adapter
from kofn.io.companions import companions, first_config, untied
from kofn.io.outputs import refuse_read
from kofn.io.tensor_writer import CheckpointWriter
from kofn.io.tensors import Checkpoint, LazyArrays, LazyTensor, TensorSpec

__all__ = ["fold_adapter", "fold_adapters"]

_COPIED = 1 << 22  # elements of a block that is only copied
_COMPILED = 1 << 25  # changed elements from which the compiled loops save more time than they take to compile
_TASK = 16  # blocks handed to a thread at a time


@helper
def fold_adapter(
    base: Any,
    adapter: Any,
    *,
    weight: float = 1.0,
    only: str | Sequence[str] | None = None,
    skip: str | Sequence[str] | None = None,
    dtype: str | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Mapping[str, Array]:
    """Add a LoRA adapter to the weights it was trained on: `W + weight * scale * B @ A` for every module it targets.

    Sums are in float64 and rounded once to the base's dtype. Embeddings and transposed weights (`fan_in_fan_out`) get
    the transpose, convolutions the kernel; biases of `lora_bias` are added; tensors and rows of tokens that are trained
    in full are replaced (moved towards by `weight`), and a table of tokens gets the adapter's number of rows; factors
    of experts in one parameter (`target_parameters`) are added to each; DoRA's rows are rescaled to their magnitudes.

    Args:
        base: a mapping name -> array, or a checkpoint (a file or folder of safetensors). Names are the adapter's own
            without PEFT's prefix, `layer.0.q_proj.weight` for `base_model.model.layer.0.q_proj.lora_A.weight`; names of
            kohya and diffusers correspond without their prefixes (`lora_unet_`, `unet.`), dots made underscores; those
            of a language model do wherever it lies in a model of images and text, and those of layers of Flux that one
            form of it joins and the other splits.
        adapter: a folder or file of any trainer, a mapping of factors, or a `kofn.io.adapters.Adapter`.
        weight: factor of the adapter's update, 1 by default.
        only: patterns (`fnmatch`) of the modules of the adapter to fold, such as `*.q_proj`; all by default.
        skip: patterns of modules of the adapter to leave out, such as `lora_te_*` where the base has no text encoder;
            none by default.
        dtype: float dtype of the result, by default the base's. Weights that the base keeps quantised in float8 or int8
            beside scales need one, in which they are written without scales.
        out: a file or folder to write to, whole or not at all; the base must then be a checkpoint on disk.

    Returns:
        A mapping name -> array of all the weights. Tensors that the adapter does not touch are the base's own; of a
        checkpoint every tensor is read, or folded, on access.

    Raises:
        InputError: modules that the base lacks (all at once) or that correspond to two of its tensors, shapes that do
            not fit, an adapter that cannot be folded (a base changed by its initialisation, part of a DoRA adapter), a
            result beyond the dtype's range.

    Time O(in out r) a module; memory one tensor beside the result, with `out` the adapter and a few blocks.

    >>> import numpy as np
    >>> adapter = {"fc.lora_A.weight": np.ones((1, 2)), "fc.lora_B.weight": np.ones((2, 1))}
    >>> fold_adapter({"fc.weight": np.eye(2), "fc.bias": np.zeros(2)}, adapter)["fc.weight"]
    array([[2., 1.],
           [1., 2.]])

    References:
        Hu et al. 2022, LoRA: low-rank adaptation of large language models (ICLR).
    """
    return fold_adapters(base, [adapter], weights=[weight], only=only, skip=skip, dtype=dtype, out=out)


@helper
def fold_adapters(
    base: Any,
    adapters: Sequence[Any],
    *,
    weights: Sequence[float] | None = None,
    only: str | Sequence[str] | None = None,
    skip: str | Sequence[str] | None = None,
    dtype: str | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Mapping[str, Array]:
    """Add several LoRA adapters to the weights they were trained on: `W + sum_i weights_i * scale_i * B_i @ A_i`.

    What several trained in full gets the sum of what each changed, too: `W + sum_i weights_i * (T_i - W)`.

    Args:
        base: as in `fold_adapter`.
        adapters: m adapters, each as in `fold_adapter`.
        weights: (m,) factors of the updates, 1 each by default: they are added, not averaged.
        only, skip: as in `fold_adapter`, of modules of any of the adapters.
        dtype: as in `fold_adapter`.
        out: as in `fold_adapter`. A folder gets the base's configuration and tokenizer too, or the tokenizer of an
            adapter that trained tokens, and the chat template of adapters that have one.

    Returns:
        As `fold_adapter`.

    Raises:
        InputError: as `fold_adapter`; another number of weights than of adapters; a DoRA adapter beside others; several
            that trained tables of tokens of unlike rows.

    Time O(in out r) a module and adapter; memory as `fold_adapter`. Sums are in float64, rounded once.

    >>> import numpy as np
    >>> adapter = {"fc.lora_A.weight": np.ones((1, 2)), "fc.lora_B.weight": np.ones((2, 1))}
    >>> fold_adapters({"fc.weight": np.eye(2)}, [adapter, adapter], weights=[1, -0.5])["fc.weight"]
    array([[1.5, 0.5],
           [0.5, 1.5]])

    References:
        Hu et al. 2022, LoRA: low-rank adaptation of large language models (ICLR).
    """
    fold = open_fold(base, adapters, weights=weights, only=only, skip=skip, dtype=dtype)
    return fold.result() if out is None else fold.write(out)


@dataclass(frozen=True)
class Fold:
    """Adapters about to be folded into a base.

    Attributes:
        source: the base as it was given.
        tensors: its tensors; where a dtype was given, quantised ones as what they stand for.
        specs: the tensors of the result that are computed or written, by name.
        folding: what is done to them.
        weights: (m,) of the adapters.
        adapters: (m,) as they were given.
        pool: the base as `open_members` gives it where a dtype was given.
    """

    source: Mapping[str, Any]
    tensors: Mapping[str, Any]
    specs: Mapping[str, TensorSpec]
    folding: Folding
    weights: list[float]
    adapters: Sequence[Adapter]
    pool: Pool | None = None

    def tensor(self, name: str) -> Array:
        """One tensor of the result."""
        if name in self.folding.added:
            return self.folding.added[name]
        if self._is_copied(name):
            return array_of(self.tensors[name])
        shape, scratch = self._rows_as(name), Scratch()
        columns = math.prod(shape[1:])
        result = np.empty(math.prod(shape), self.specs[name].dtype)
        with threadpool_limits(1, "blas"):
            for rows in row_blocks(shape, self.folding.changes.get(name, ())):
                result[rows.start * columns : rows.stop * columns] = self.block(name, rows, scratch)
        return result.reshape(self.specs[name].shape)

    def _rows_as(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor as rows that are folded apart from each other."""
        shape = self.specs[name].shape
        return (shape[0] * shape[1], *shape[2:]) if name in self.folding.tall else shape

    def row_length(self, name: str) -> int:
        """Elements of a row of a tensor, as rows are folded."""
        return max(1, math.prod(self._rows_as(name)[1:]))

    def block(self, name: str, rows: slice, scratch: Scratch, loops: LowRankLoops | None = None) -> Array:
        """Folded rows of a tensor, flat, in scratch memory; rows that the base lacks begin as zeros."""
        value = self.tensors[name]
        tensor = value if hasattr(value, "read") else ArrayTensor(array_of(value))

        before: list[Array] = []

        def read(start: int, stop: int) -> Array:
            buffer = scratch.array("read", ((stop - start) * tensor.dtype.itemsize,), np.uint8)
            end = max(start, min(stop, tensor.size))
            values: Array = tensor.read(start, end, buffer) if start < end else np.empty(0, tensor.dtype)
            before.append(values if end == stop else np.concatenate([values, np.zeros(stop - end, tensor.dtype)]))
            return before[0]

        changes = self.folding.changes.get(name, ())
        folded = fold_rows(read, name, self._rows_as(name), rows, changes, scratch, self.specs[name].dtype, loops)
        # One entry that differs is enough, so that few blocks are compared.
        if name not in self.folding.altered and (before[0].astype(folded.dtype, copy=False) != folded).any():
            self.folding.altered.add(name)
        return folded

    def result(self) -> Mapping[str, Array]:
        """The result as a mapping: of a base in memory an array each, of a checkpoint each computed on access."""
        if isinstance(self.source, Checkpoint):
            return LazyArrays([*self.specs, *self.folding.added], self.tensor)
        kept = self.source if self.pool is None else {}
        return {
            name: self.tensor(name) if name in self.specs or name in self.folding.added else kept[name]
            for name in dict.fromkeys([*(kept or self.specs), *self.folding.added])
        }

    def write(self, out: str | os.PathLike[str]) -> Mapping[str, Array]:
        """Write the result, whole or not at all.

        Raises:
            InputError: a base in memory, or `out` where it or an adapter lies, or among their files.
        """
        source = self.source
        if not isinstance(source, Checkpoint):
            raise InputError(
                f"out={os.fspath(out)!r}: the base is in memory, and so is the result; write that yourself"
            )
        if source.is_at(Path(out)):
            raise InputError(f"out={os.fspath(out)!r} is where the base lies; name another path")
        refuse_read(out, [("the base", source.path), *((each.label, each.path) for each in self.adapters)])
        stale = "_quantization_metadata" if self.pool is not None and self.pool.quantised else None
        layout = source.layout.retyped(self.specs).restricted(self.specs, without_metadata=stale)
        layout = layout.extended(self.folding.added)
        with CheckpointWriter(out, layout, extras=self._extras(source)) as writer:
            self._write(writer)
            self.folding.notes += say_untied(writer)
        if len(zero_text(self.adapters)) < len(self.adapters):
            kept = {name: spec.dtype for name, spec in self.specs.items() if math.prod(spec.shape)}
            self.folding.notes += unchanged_text(self.folding, kept)
        return Checkpoint.open(out).arrays()

    def _extras(self, source: Checkpoint) -> dict[str, Path | bytes]:
        """The files beside the weights."""
        settings: dict[str, Any] = {}
        dropped: tuple[str, ...] = ()
        config = first_config([source.path])
        if self.pool is not None:
            settings, dropped = settings_of(self.pool, [source.path])
        if self.folding.rows is not None:
            before, after = self.folding.rows
            settings = {**settings, **resized({**config, **settings}, {before}, after)}
        if self.folding.untied:
            settings = {**settings, **untied({**config, **settings}), **self.folding.settings}
        adapter = self.folding.tokenizer
        tokenizer = None if adapter is None else adapter.path
        files: Mapping[str, Path | bytes] = companions(["the base"], [source.path], settings, dropped, tokenizer)[0]
        if files and tokenizer is None:
            files, notes = with_templates_of(files, source.path, self.adapters, self.weights)
            self.folding.notes += notes
        return dict(files)

    def _write(self, writer: CheckpointWriter) -> None:
        """Write every tensor in blocks, on all cores; each thread holds one block."""
        local = threading.local()
        changed = sum(math.prod(self.specs[name].shape) for name in self.folding.changes)
        copied = [name for name in self.specs if self._is_copied(name)]
        loops: LowRankLoops | None = None

        def work(task: tuple[str, list[slice]]) -> None:
            name, blocks = task
            scratch: Scratch = local.__dict__.setdefault("scratch", Scratch())
            for block in blocks:
                if self._is_copied(name):
                    self._copy(writer, name, block, scratch)
                else:
                    start = block.start * self.row_length(name)
                    writer.write(name, start, self.block(name, block, scratch, loops))

        pool = ThreadPoolExecutor(cores())
        try:
            with threadpool_limits(1, "blas"):
                copying = pool.map(work, itertools.chain.from_iterable(map(self._tasks, copied)))
                if changed > _COMPILED:  # compiled while what is only copied is under way
                    loops = low_rank_loops()
                folding = pool.map(work, self._in_turns(writer, frozenset(copied)))
                for _ in itertools.chain(copying, folding):
                    pass
        finally:
            pool.shutdown(cancel_futures=True)
        for name, array in self.folding.added.items():
            writer.write(name, 0, array.reshape(-1))

    def _copy(self, writer: CheckpointWriter, name: str, block: slice, scratch: Scratch) -> None:
        tensor = self.tensors[name]
        buffer = scratch.array("read", ((block.stop - block.start) * tensor.dtype.itemsize,), np.uint8)
        if isinstance(tensor, LazyTensor):
            writer.copy(name, block.start, block.stop, tensor, buffer)
        else:
            writer.write(name, block.start, tensor.read(block.start, block.stop, buffer))

    def _in_turns(self, writer: CheckpointWriter, copied: frozenset[str]) -> Iterator[tuple[str, list[slice]]]:
        """The tasks of all tensors but the copied ones, of each file in turn: a file takes one block at a time."""
        names = [[spec.name for spec in shard.tensors if spec.name in self.specs] for shard in writer.layout.shards]
        by_file = [itertools.chain.from_iterable(self._tasks(n) for n in shard if n not in copied) for shard in names]
        for turn in itertools.zip_longest(*by_file):
            yield from (task for task in turn if task is not None)

    def _is_copied(self, name: str) -> bool:
        """Whether a tensor is as it is read."""
        same = self.pool is None or self.tensors[name].dtype == self.specs[name].dtype
        return same and name not in self.folding.changes and name not in self.folding.shapes

    def _tasks(self, name: str) -> Iterator[tuple[str, list[slice]]]:
        if self._is_copied(name):
            size = self.tensors[name].size
            blocks = [slice(start, min(start + _COPIED, size)) for start in range(0, size, _COPIED)]
        else:
            changes: Sequence[Change] = self.folding.changes.get(name, ())
            blocks = list(row_blocks(self._rows_as(name), changes))
        return ((name, blocks[low : low + _TASK]) for low in range(0, len(blocks), _TASK))


def open_fold(
    base: Any,
    adapters: Sequence[Any],
    *,
    weights: Sequence[float] | None = None,
    only: str | Sequence[str] | None = None,
    skip: str | Sequence[str] | None = None,
    dtype: str | None = None,
) -> Fold:
    """Open a base and adapters, and find what these change in it; arguments and errors as of `fold_adapters`."""
    members = [as_adapter(adapter) for adapter in adapters]
    used = _weights(weights, members)
    dora = next((m.label for m in members if any(pair.magnitude is not None for pair in m.pairs.values())), None)
    if dora is not None and len(members) > 1:
        raise InputError(f"{dora} is a DoRA adapter, which is folded alone: its rows are rescaled, not added to")
    source: Any = Checkpoint.open(base) if isinstance(base, str | os.PathLike) else base
    if not isinstance(source, Mapping):
        raise InputError(f"base is {type(base).__name__}; give a checkpoint's path or a mapping name -> array")
    odd = next((name for name in source if not isinstance(name, str)), None)
    if odd is not None:
        raise InputError(f"base: {checks.shown(odd)} is no name of a tensor; give a mapping name -> array")
    refuse_packed(source)
    left_out = left_out_of(members, only, skip)
    config = first_config([source.path]) if isinstance(source, Checkpoint) else {}
    members, unread = without_unread(members, source)
    source, members, tie, joint = parted(source, given := members, left_out)
    pool = None if dtype is None else open_members([source], dtype=dtype)
    tensors = source if pool is None else pool.first
    folding = folding_of(tensors, members, used, left_out, tie, joint, config)
    folding.notes += [*unread, *zero_text(given)]
    if isinstance(source, Checkpoint):
        folding.notes += other_base_text(source.path, given)
    folding.modules = [frozenset(adapter.pairs) - left_out for adapter in given]
    if tie is not None and len(joint) < len(given):
        folding.untied, folding.settings = True, dict(tie.settings)
        apart = [adapter for i, adapter in enumerate(given) if i not in joint]
        folding.notes.append(untying_text(tie, apart, left_out))
    touched = dict.fromkeys([*folding.changes, *folding.shapes])
    if pool is None:
        refuse_quantised(source, touched)
    refuse_whole_numbers(tensors, touched)
    in_memory = pool is None and not isinstance(source, Checkpoint)
    specs = {}
    for name in touched if in_memory else tensors:
        own = array_of(tensors[name]) if in_memory else tensors[name]
        kept = own.dtype if pool is None else pool.dtype_of(name)
        specs[name] = TensorSpec(name, kept, folding.shapes.get(name, tuple(own.shape)))
    return Fold(source, tensors, specs, folding, used, given, pool)


def _weights(weights: Sequence[float] | None, members: Sequence[Adapter]) -> list[float]:
    used = [1.0] * len(members) if weights is None else list(weights)
    if not members:
        raise InputError("adapters is empty; give at least one")
    if len(used) != len(members):
        raise InputError(f"weights has {len(used)} values for {len(members)} adapters; give one an adapter")
    for weight in used:
        if not checks.is_finite(weight):
            raise InputError(f"weight={checks.shown(weight)}: give a finite number")
    return [float(weight) for weight in used]
