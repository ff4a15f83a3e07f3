"""Fold a LoRA adapter into the weights that it was trained on, tensor by tensor."""

from __future__ import annotations

import fnmatch
import itertools
import math
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from kofn.combination._sweep.files import patterns
from kofn.combination._sweep.vocabulary import EMBEDDING, HEAD
from kofn.combination.adapters._fold_rows import Change, LowRank, Replace, Scratch, Shift, fold_rows, row_blocks
from kofn.core import checks
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError, nearest
from kofn.engines.threads import cores
from kofn.io.adapter_families import DORA
from kofn.io.adapters import Adapter, as_adapter
from kofn.io.companions import companions, first_config
from kofn.io.low_rank import Pair
from kofn.io.module_names import ModuleNames, unwrapped
from kofn.io.quantised import scale_of, unread_format
from kofn.io.tensor_writer import CheckpointWriter
from kofn.io.tensors import Checkpoint, LazyArrays, from_torch, is_torch

__all__ = ["fold_adapter", "fold_adapters"]

_SHOWN = 6
_COPIED = 1 << 20  # elements of a block that is only copied
_TASK = 16  # blocks handed to a thread at a time


def fold_adapter(
    base: Any,
    adapter: Any,
    *,
    weight: float = 1.0,
    skip: str | Sequence[str] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Mapping[str, Array]:
    """Add a LoRA adapter to the weights it was trained on: `W + weight * scale * B @ A` for every module it targets.

    Sums are in float64 and rounded once to the base's dtype. Embeddings and transposed weights (`fan_in_fan_out`) get
    the transpose, convolutions the kernel; biases of `lora_bias` are added; tensors trained in full are replaced (moved
    towards by `weight`); DoRA's rows are rescaled to their magnitudes.

    Args:
        base: a mapping name -> array, or a checkpoint (a file or folder of safetensors). Names are the adapter's own
            without PEFT's prefix, `layer.0.q_proj.weight` for `base_model.model.layer.0.q_proj.lora_A.weight`; names of
            kohya and diffusers correspond without their prefixes (`lora_unet_`, `unet.`), dots made underscores.
        adapter: a folder or file of any trainer, a mapping of factors, or a `kofn.io.adapters.Adapter`.
        weight: factor of the adapter's update, 1 by default.
        skip: patterns (`fnmatch`) of modules of the adapter to leave out, such as `lora_te_*` where the base has no
            text encoder; none by default.
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
    return fold_adapters(base, [adapter], weights=[weight], skip=skip, out=out)


def fold_adapters(
    base: Any,
    adapters: Sequence[Any],
    *,
    weights: Sequence[float] | None = None,
    skip: str | Sequence[str] | None = None,
    out: str | os.PathLike[str] | None = None,
) -> Mapping[str, Array]:
    """Add several LoRA adapters to the weights they were trained on: `W + sum_i weights_i * scale_i * B_i @ A_i`.

    Args:
        base: as in `fold_adapter`.
        adapters: m adapters, each as in `fold_adapter`.
        weights: (m,) factors of the updates, 1 each by default: they are added, not averaged.
        skip: as in `fold_adapter`, of modules of any of the adapters.
        out: as in `fold_adapter`. A folder gets the base's configuration and tokenizer too.

    Returns:
        As `fold_adapter`.

    Raises:
        InputError: as `fold_adapter`; another number of weights than of adapters; a DoRA adapter beside others.

    Time O(in out r) a module and adapter; memory as `fold_adapter`. Sums are in float64, rounded once.

    >>> import numpy as np
    >>> adapter = {"fc.lora_A.weight": np.ones((1, 2)), "fc.lora_B.weight": np.ones((2, 1))}
    >>> fold_adapters({"fc.weight": np.eye(2)}, [adapter, adapter], weights=[1, -0.5])["fc.weight"]
    array([[1.5, 0.5],
           [0.5, 1.5]])

    References:
        Hu et al. 2022, LoRA: low-rank adaptation of large language models (ICLR).
    """
    members = [as_adapter(adapter) for adapter in adapters]
    used = [1.0] * len(members) if weights is None else list(weights)
    if not members:
        raise InputError("adapters is empty; give at least one")
    if len(used) != len(members):
        raise InputError(f"weights has {len(used)} values for {len(members)} adapters; give one an adapter")
    for weight in used:
        if not checks.is_number(weight) or not np.isfinite(weight):
            raise InputError(f"weight={weight!r}: give a finite number")
    dora = next((m.label for m in members if any(pair.magnitude is not None for pair in m.pairs.values())), None)
    if dora is not None and len(members) > 1:
        raise InputError(f"{dora} is a DoRA adapter, which is folded alone: its rows are rescaled, not added to")
    source: Any = Checkpoint.open(base) if isinstance(base, str | os.PathLike) else base
    if not isinstance(source, Mapping):
        raise InputError(f"base is {type(base).__name__}; give a checkpoint's path or a mapping name -> array")
    if out is not None and not isinstance(source, Checkpoint):
        raise InputError(f"out={os.fspath(out)!r}: the base is in memory, and so is the result; write that yourself")
    skipped = _skipped(members, skip)
    changes: dict[str, list[Change]] = {}
    for member, weight in zip(members, used, strict=True):
        for name, change in _changes(source, member, float(weight), skipped).items():
            changes.setdefault(name, []).extend(change)
    for made in changes.values():
        made.sort(key=lambda change: not isinstance(change, Replace))  # what is added is added to what was trained
    _refuse_quantised(source, changes)

    def tensor(name: str) -> Array:
        return _folded(source, name, changes[name]) if name in changes else _array(source[name])

    if not isinstance(source, Checkpoint):
        names = dict.fromkeys([*source, *changes])
        return {name: tensor(name) if name in changes else source[name] for name in names}
    if out is None:
        return LazyArrays(source, tensor)
    if source.is_at(Path(out)):
        raise InputError(f"out={os.fspath(out)!r} is where the base lies; name another path")
    extras, _ = companions(["the base"], [source.path])
    with CheckpointWriter(out, source.layout, extras=extras) as writer:
        _write(source, changes, writer)
    return Checkpoint.open(out).arrays()


def _skipped(members: Sequence[Adapter], skip: str | Sequence[str] | None) -> frozenset[str]:
    """The modules that are left out; a pattern that matches none is refused."""
    modules = list(dict.fromkeys(module for member in members for module in member.pairs))
    out: set[str] = set()
    for pattern in patterns(skip, "skip") or ():
        matched = fnmatch.filter(modules, pattern)
        if not matched:
            raise InputError(
                f"skip={pattern!r} matches no module{nearest(pattern, modules)}; names are such as {modules[0]!r}"
            )
        out.update(matched)
    if len(out) == len(modules):
        raise InputError("skip leaves no module to fold; give patterns that match fewer names")
    return frozenset(out)


def _folded(source: Mapping[str, Any], name: str, changes: Sequence[Change]) -> Array:
    """One tensor with its changes; one that the base lacks is the array that was trained in full."""
    if name not in source:
        last = changes[-1]
        assert isinstance(last, Replace)
        return last.array
    array = _array(source[name])
    flat, result, scratch = array.reshape(-1), np.empty(array.size, array.dtype), Scratch()
    columns = math.prod(array.shape[1:])
    with threadpool_limits(1, "blas"):
        for rows in row_blocks(array.shape, changes):
            folded = fold_rows(lambda start, stop: flat[start:stop], name, array.shape, rows, changes, scratch)
            result[rows.start * columns : rows.stop * columns] = folded
    return result.reshape(array.shape)


def _write(source: Checkpoint, changes: Mapping[str, Sequence[Change]], writer: CheckpointWriter) -> None:
    """Write every tensor in blocks, on all cores; each thread holds one block."""

    local = threading.local()

    def work(task: tuple[str, list[slice]]) -> None:
        name, blocks = task
        tensor = source[name]
        scratch: Scratch = local.__dict__.setdefault("scratch", Scratch())

        def read(start: int, stop: int) -> Array:
            return tensor.read(start, stop, scratch.array("read", ((stop - start) * tensor.dtype.itemsize,), np.uint8))

        columns = math.prod(tensor.shape[1:])
        for block in blocks:
            if name in changes:
                folded = fold_rows(read, name, tensor.shape, block, changes[name], scratch)
                writer.write(name, block.start * columns, folded)
            else:
                writer.write(name, block.start, read(block.start, block.stop))

    def tasks(name: str) -> Iterator[tuple[str, list[slice]]]:
        shape, size = source[name].shape, source[name].size
        copied = [slice(start, min(start + _COPIED, size)) for start in range(0, size, _COPIED)]
        blocks = list(row_blocks(shape, changes[name])) if name in changes else copied
        return ((name, blocks[low : low + _TASK]) for low in range(0, len(blocks), _TASK))

    pool = ThreadPoolExecutor(cores())
    try:
        with threadpool_limits(1, "blas"):
            for _ in pool.map(work, itertools.chain.from_iterable(map(tasks, source))):
                pass
    finally:
        pool.shutdown(cancel_futures=True)


def _refuse_quantised(base: Mapping[str, Any], changes: Mapping[str, Any]) -> None:
    """Refuse weights that stand for others: an update would be added to their codes."""
    unread = unread_format(list(base))
    for name in changes:
        if name not in base:
            continue
        if unread is not None:
            raise InputError(
                f"base is quantised in a form that is not read ({unread[0]!r}: {unread[1]}); write its weights "
                "dequantised with the library that made it, and fold into that"
            )
        scale = scale_of(base, name)
        if scale is not None:
            raise InputError(
                f"base is quantised ({name!r} beside {scale!r}), and an adapter adds to what its numbers stand for; "
                "write it wider first, kofn combine BASE --dtype bfloat16 -o WIDE, and fold into that"
            )
        tensor = base[name]
        dtype = tensor.dtype if isinstance(base, Checkpoint) else _array(tensor).dtype
        if dtype.kind in "iub":
            raise InputError(f"base: {name!r} holds {dtype}, to which no update can be added; give a base of floats")


def _refuse_tied(base: Mapping[str, Any], adapter: Adapter, lacking: Sequence[str]) -> None:
    """Refuse what was trained of an embedding or a head apart, where the base has one tensor for both."""
    config = first_config([base.path]) if isinstance(base, Checkpoint) else {}
    if not (config.get("tie_word_embeddings") and not any(map(HEAD.search, base))):
        return
    full = [unwrapped(name) for name in adapter.full]
    apart = next((name for name in [*full, *lacking] if EMBEDDING.search(name) or HEAD.search(name)), None)
    if apart is not None:
        raise InputError(
            f"{adapter.label} trained {apart!r} apart, and the base has one tensor for its embedding and its head "
            "(tie_word_embeddings); save the base with both first, or merge it with the adapter's own trainer"
        )


def _changes(
    base: Mapping[str, Any], adapter: Adapter, weight: float, skipped: frozenset[str]
) -> dict[str, list[Change]]:
    """The change of each tensor that the adapter modifies."""
    dora = any(pair.magnitude is not None for pair in adapter.pairs.values())
    reasons = [why for why in adapter.nonlinear() if why != DORA]
    if reasons:
        raise InputError(f"{adapter.label}: {reasons[0]}; it cannot be folded")
    if dora and weight != 1:
        raise InputError(f"weight={weight:g}: a DoRA adapter is folded whole, at weight 1, or not at all")
    names = ModuleNames(name.removesuffix(".weight") for name in base if str(name).endswith(".weight"))
    out: dict[str, list[Change]] = {}
    lacking, unlike = [], []
    for module, pair in adapter.pairs.items():
        if module in skipped:
            continue
        if pair.magnitude is not None and (pair.kind == "embedding" or pair.bias is not None):
            raise InputError(
                f"{adapter.label}: DoRA on {module!r} ({pair.kind}) cannot be folded; merge it where trained"
            )
        if pair.magnitude is not None and pair.magnitude.size != pair.out:
            raise InputError(
                f"{adapter.label}: DoRA on {module!r} has {pair.magnitude.size} magnitudes for {pair.out} rows; save "
                "the adapter again"
            )
        name = _tensor_name(base, names, module, "weight")
        if name is None:
            lacking.append(unwrapped(f"{module}.weight"))
            continue
        if name in out:
            raise InputError(
                f"{adapter.label}: module {module!r} is the second that corresponds to {name!r} of the base; leave one "
                "out with skip"
            )
        turned = _is_turned(pair, tuple(base[name].shape), bool(adapter.config.get("fan_in_fan_out")))
        if turned is None:
            shape = (*pair.into, pair.out) if pair.kind == "embedding" else (pair.out, *pair.into)
            unlike.append(f"{name!r} is {tuple(base[name].shape)}, the adapter's {shape}")
            continue
        out[name] = [_low_rank(pair, weight, turned)]
        if pair.bias is not None:
            bias = _tensor_name(base, names, module, "bias")
            if bias is None:
                lacking.append(unwrapped(f"{module}.bias"))
            elif tuple(base[bias].shape) != pair.bias.shape:
                unlike.append(f"{bias!r} is {tuple(base[bias].shape)}, the adapter's {pair.bias.shape}")
            else:
                out.setdefault(bias, []).append(Shift(pair.bias, weight * pair.scale))
    for name, array in adapter.full.items():
        known = _name(base, name)
        if known is None and (weight != 1 or isinstance(base, Checkpoint)):
            lacking.append(unwrapped(name))
        elif known is not None and tuple(base[known].shape) != array.shape:
            unlike.append(f"{known!r} is {tuple(base[known].shape)}, the adapter's {array.shape}")
        elif known is None or known not in out or not _is_copy(array, base[known]):
            out.setdefault(known or unwrapped(name), []).append(Replace(array, weight))
    _refuse_tied(base, adapter, lacking)
    faults = [f"it lacks {name!r}" for name in lacking] + unlike
    if faults:
        more = f"; and {len(faults) - _SHOWN} more" if len(faults) > _SHOWN else ""
        raise InputError(
            f"base does not fit {adapter.label}: {'; '.join(faults[:_SHOWN])}{more}; give the base it was trained on, "
            "or leave modules out with skip"
        )
    return out


def _is_copy(array: Array, value: Any) -> bool:
    """Whether an adapter's tensor is the base's own, as PEFT saves that of an embedding beside its factors."""
    own = _array(value)
    return np.array_equal(array.astype(own.dtype), own)


def _is_turned(pair: Pair, shape: tuple[int, ...], fan_in_fan_out: bool) -> bool | None:
    """Whether the weight of this shape gets the transpose of the update; None where neither fits."""
    ways = {True: (*pair.into, pair.out), False: (pair.out, *pair.into)}
    turned = pair.kind == "embedding" or (fan_in_fan_out and pair.kind == "linear")
    if shape == ways[turned]:
        return turned
    # A model may have both kinds of layer under one setting, which decides only where the shape is ambiguous.
    if pair.kind == "linear" and shape == ways[not turned]:
        return not turned
    # Factors of LoHa and LoKr flatten the kernel; a linear layer may be saved as a convolution of width 1.
    flat = len(shape) == 2 or len(pair.into) == 1
    if pair.kind in ("linear", "conv") and flat and shape[:1] == (pair.out,):
        return False if math.prod(shape[1:]) == math.prod(pair.into) else None
    return None


def _tensor_name(base: Mapping[str, Any], names: ModuleNames, module: str, leaf: str) -> str | None:
    """The base's name of a tensor of the adapter's module, None if there is none."""
    known = _name(base, f"{module}.{leaf}")
    if known is not None:
        return known
    stem = names.find(unwrapped(module))
    return None if stem is None else _name(base, f"{stem}.{leaf}")


def _low_rank(pair: Pair, weight: float, turned: bool) -> LowRank:
    """The pair as rows and columns of the base's own orientation."""

    def factors() -> tuple[Floats, Floats]:
        left, right = weight * pair.scale * pair.columns().astype(np.float64), pair.rows().astype(np.float64)
        return (right.T, left.T) if turned else (left, right)

    magnitude = None if pair.magnitude is None else pair.magnitude.astype(np.float64).reshape(-1)
    return LowRank(factors, magnitude, int(turned))


def _name(base: Mapping[str, Any], name: str) -> str | None:
    return next((known for known in (name, unwrapped(name)) if known in base), None)


def _array(value: Any) -> Array:
    return from_torch(value) if is_torch(value) else np.asarray(value)
