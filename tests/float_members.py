"""Members of every float dtype, in memory and on disk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

FLOATS = ("float16", "bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
FLOATS += ("float32", "float64", "complex64", "complex128")


def dtype_of(name: str) -> np.dtype[Any]:
    return np.dtype(getattr(ml_dtypes, name, None) or name)


def finite_values(name: str, count: int, seed: int) -> np.ndarray:
    """Any finite bit patterns of a dtype: zeros of both signs, subnormals and the largest numbers among them."""
    dtype = dtype_of(name)
    raw = np.random.default_rng(seed).integers(0, 256, 4 * count * dtype.itemsize, dtype=np.uint8).view(dtype)
    part = dtype_of("float32" if name == "complex64" else "float64" if name == "complex128" else name)
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(raw.view(part).astype(np.float64)).reshape(len(raw), -1).all(axis=1)
    special = np.array([0.0, -0.0]).astype(dtype)
    return np.concatenate([special, raw[finite]])[:count]


def close_members(name: str, m: int, shape: tuple[int, ...], seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    base = rng.normal(size=shape)
    out = [base + 0.1 * rng.normal(size=shape) for _ in range(m)]
    if "complex" in name:
        out = [x + 1j * rng.normal(size=shape) for x in out]
    return [x.astype(dtype_of(name)) for x in out]


def models(m: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    columns = [close_members(name, m, (4, 3), seed + place) for place, name in enumerate(FLOATS[:9])]
    return [
        {
            **{f"t.{name}": column[i] for name, column in zip(FLOATS, columns, strict=False)},
            "ids": np.arange(5),
            "mask": np.array([True, False]),
            "scale": np.array([0.5, 2.0]).astype(ml_dtypes.float8_e8m0fnu),
            "scalar": np.array(float(i), np.float32),
            "empty": np.empty((0, 3), np.float32),
        }
        for i in range(m)
    ]


def on_disk(folder: Path, members: list[dict[str, np.ndarray]]) -> list[Path]:
    for place, member in enumerate(members):
        safetensors.numpy.save_file(member, folder / f"{place}.safetensors", {"format": "pt"})
    return [folder / f"{place}.safetensors" for place in range(len(members))]
