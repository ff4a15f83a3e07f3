"""Writing quantised tensors: a blend is quantised as member 0 is, once it is whole."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.members import Pool
from kofn.core.checks import InputError
from kofn.io.quantised import Dequantised, Scheme, requantise


class Requantiser:
    """Passes blended blocks on to `sink`, quantised tensors once they are whole; holds one such tensor a thread.

    `errors` has, for each quantised tensor, the norm of what rounding added over the norm of the blend; it is in
    `notes`, too, as "requantised", where there are such tensors.
    """

    def __init__(self, pool: Pool, sink: Callable[[str, int, NDArray[Any]], None], notes: dict[str, Any]) -> None:
        self.pool, self.sink = pool, sink
        self.errors: dict[str, float] = notes.setdefault("requantised", {}) if pool.schemes else {}
        self._whole: dict[str, NDArray[np.float32]] = {}
        self._missing: dict[str, int] = {}
        self._lock = threading.Lock()

    def write_beside(self) -> None:
        """Pass on what is written beside the weights."""
        for name, array in self.pool.beside.items():
            self.sink(name, 0, array.reshape(-1))

    def __call__(self, name: str, start: int, values: NDArray[Any]) -> None:
        scheme = self.pool.schemes.get(name)
        if scheme is None:
            self.sink(name, start, values)
            return
        with self._lock:
            if name not in self._whole:
                size = math.prod(scheme.shape)
                self._whole[name], self._missing[name] = np.empty(size, np.float32), size
            whole = self._whole[name]
        whole[start : start + len(values)] = values
        with self._lock:
            self._missing[name] -= len(values)
            complete = not self._missing[name]
            if complete:
                del self._whole[name]
        if complete:
            self._finish(name, scheme, whole)

    def _finish(self, name: str, scheme: Scheme, whole: NDArray[np.float32]) -> None:
        if not np.isfinite(whole).all():
            raise InputError(f"the blend of tensor {name!r} is infinite somewhere; give dtype, or skip this tensor")
        tensors = (member[name] for member in self.pool.members)
        candidates = [
            tensor.stored_scales()
            for tensor in tensors
            if isinstance(tensor, Dequantised) and tensor.scheme.alike(scheme)
        ]
        numbers, scales, errors, squares = requantise(whole, scheme, candidates)
        self.errors[name] = math.sqrt(errors / squares) if squares else 0.0
        self.sink(name, 0, numbers)
        self.sink(scheme.scale, 0, scales.reshape(-1))


def held_bytes(pool: Pool) -> int:
    """Bytes that quantising the largest tensor takes."""
    return max((5 * math.prod(scheme.shape) for scheme in pool.schemes.values()), default=0)
