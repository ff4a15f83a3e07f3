"""Tensors that adapters trained in full: their mean, or the base plus the weighted changes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.io.adapters import Adapter
from kofn.io.module_names import unwrapped
from kofn.io.tensors import Checkpoint
from kofn.io.torch_arrays import from_torch, is_torch


def open_base(base: Any) -> Mapping[str, Any]:
    """Open the weights that the adapters were trained on."""
    if isinstance(base, str | os.PathLike):
        return Checkpoint.open(base)
    if not isinstance(base, Mapping):
        raise InputError(f"base is {type(base).__name__}; give a checkpoint's path or a mapping name -> array")
    return base


def blend_full_tensors(
    members: list[Adapter], labels: list[str], weights: list[float], form: str, base: Mapping[str, Any] | None
) -> dict[str, Array]:
    """The full tensors of the sum: their mean, or the base and the weighted sum of the differences to it.

    Args:
        members: the adapters of non-zero weight.
        labels: their names in messages.
        weights: weights of the members.
        form: the form of their weighted sum.
        base: the weights they were trained on, if given.
    """
    if len(members) == 1 and weights == [1.0]:
        return dict(members[0].full)
    out: dict[str, Array] = {}
    for name in dict.fromkeys(name for member in members for name in member.full):
        owners = [i for i, member in enumerate(members) if name in member.full]
        arrays = [members[i].full[name] for i in owners]
        everywhere = len(owners) == len(members)
        same = all(array.tobytes() == arrays[0].tobytes() for array in arrays)
        if same and all(name.removesuffix(".weight") in members[i].pairs for i in owners):
            out[name] = arrays[0]  # the base's own, saved beside factors
            continue
        if same and everywhere and (form != "linear" or arrays[0].dtype.kind in "iub"):
            out[name] = arrays[0]
            continue
        if arrays[0].dtype.kind in "iub":
            raise InputError(f"{name!r} holds whole numbers that differ among members; such values are not averaged")
        start = None
        if form == "linear" or not everywhere:
            lacking = [label for label, member in zip(labels, members, strict=True) if name not in member.full]
            start = _start_of(name, arrays[0].shape, base, lacking)
        out[name] = _blended(arrays, [weights[i] for i in owners], start)
    return out


def _start_of(name: str, shape: tuple[int, ...], base: Mapping[str, Any] | None, lacking: list[str]) -> Array:
    """The base's tensor, refused if missing, because the average needs it."""
    known = next((key for key in (name, unwrapped(name)) if base is not None and key in base), None)
    if base is None or known is None:
        why = f"and {lacking[0]} lacks it" if lacking else "and the weights do not sum to one"
        remedy = (
            "the base has no such tensor"
            if base is not None
            else "give base, the weights they started from, with method='stack_adapters'"
        )
        raise InputError(f"members: {name!r} is trained in full {why}: its average needs the base; {remedy}")
    start = from_torch(base[known]) if is_torch(base[known]) else np.asarray(base[known])
    if start.shape != shape:
        raise InputError(f"base: {name!r} has shape {start.shape}, in the members {shape}")
    return start


def _blended(arrays: list[Array], weights: list[float], start: Array | None) -> Array:
    """The weighted sum of the arrays, or the start and the weighted sum of the changes to it."""
    if start is None:
        total = np.sum([w * array.astype(np.float64) for w, array in zip(weights, arrays, strict=True)], axis=0)
    else:
        origin = start.astype(np.float64)
        changes = [w * (array.astype(np.float64) - origin) for w, array in zip(weights, arrays, strict=True)]
        total = origin + np.sum(changes, axis=0)
    with np.errstate(over="ignore"):
        blended: Array = total.astype(arrays[0].dtype)
    return blended
