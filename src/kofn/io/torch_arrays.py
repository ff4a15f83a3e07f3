"""Torch tensors as arrays and back, without a copy where none is needed; torch is not loaded here."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any

import ml_dtypes
import numpy as np

from kofn.core.checks import InputError


def is_torch(value: Any) -> bool:
    """Whether `value` is a torch tensor, found out without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def from_torch(tensor: Any) -> np.ndarray:
    """A torch tensor as an array that shares its memory where it can (bfloat16 and 8-bit floats included)."""
    if tensor.is_meta or str(tensor.layout) != "torch.strided":
        kind = "on the meta device and holds no values" if tensor.is_meta else f"of layout {tensor.layout}"
        raise InputError(f"a tensor of shape {tuple(tensor.shape)} is {kind}; give dense tensors with values")
    tensor = tensor.detach().cpu().contiguous()
    name = str(tensor.dtype).removeprefix("torch.")
    narrow = getattr(ml_dtypes, name, None)
    if narrow is None:
        try:
            return np.asarray(tensor.numpy())
        except TypeError as error:
            raise InputError(f"a tensor of dtype {name} cannot be read ({error}); dequantise it first") from None
    import torch

    bits = torch.int16 if np.dtype(narrow).itemsize == 2 else torch.uint8
    return tensor.view(bits).numpy().view(narrow)


def to_torch(array: np.ndarray | Mapping[str, np.ndarray], *, device: Any = "cpu") -> Any:
    """An array as a torch tensor of the same dtype, and on the CPU of the same memory where that may be written to; a
    mapping of arrays as a state dict of such tensors."""
    import torch

    if isinstance(array, Mapping):
        return {name: to_torch(value, device=device) for name, value in array.items()}
    if is_torch(array):
        return array
    array = array if array.flags.writeable else array.copy()
    if array.dtype.kind != "V" and not hasattr(ml_dtypes, array.dtype.name):
        return torch.from_numpy(array).to(device)
    bits = torch.from_numpy(array.view(np.int16 if array.dtype.itemsize == 2 else np.uint8))
    return bits.view(getattr(torch, array.dtype.name)).to(device)
