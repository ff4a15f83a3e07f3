"""What a model's inputs or its curvature say of the weights: by which an error in them is weighted."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.allocation.checkpoints._weights import Weight, module_of
from kofn.core.arrays import Singles
from kofn.core.checks import InputError, load_arrays, nearest
from kofn.io.tensors import Checkpoint

NONE, SCALE, DIAGONAL, GRAM, CURVATURE = "none", "scale", "diagonal", "gram", "curvature"


@dataclass(frozen=True, slots=True)
class Statistic:
    """What is known of one weight's errors.

    Attributes:
        kind: "scale" (one number), "diagonal" (one for each input: the mean of its square), "gram" (their mean
            products), "curvature" (one for each weight, such as the diagonal Fisher information) or "none".
        values: a lazy tensor or an array.
    """

    kind: str
    values: Any = None

    def array(self) -> Singles:
        """All values, as float32."""
        return np.ascontiguousarray(np.asarray(self.values), np.float32)

    def block(self, start: int, stop: int) -> Singles:
        """The values of weights `start:stop`, of a curvature."""
        if hasattr(self.values, "read"):
            return np.ascontiguousarray(self.values.read(start, stop), np.float32)
        return np.ascontiguousarray(np.asarray(self.values).reshape(-1)[start:stop], np.float32)


class Statistics:
    """Statistics by the names of tensors or modules, from a file or in memory."""

    def __init__(self, source: Mapping[str, Any] | str | os.PathLike[str] | None) -> None:
        self.label = "statistics"
        self._known: Mapping[str, Any] = {}
        if isinstance(source, str | os.PathLike):
            self.label = str(source)
            self._known = _opened(Path(source))
        elif source is not None:
            if not isinstance(source, Mapping):
                raise InputError("statistics: give a file (.safetensors, .npz) or a mapping from module to array")
            self._known = source

    def of(self, weights: Sequence[Weight]) -> list[Statistic]:
        """The statistic of each weight.

        Raises:
            InputError: none fits any weight, one of another shape, or some weights have one and others do not.
        """
        if not self._known:
            return [Statistic(NONE) for _ in weights]
        statistics = [self._find(weight) for weight in weights]
        missing = [weight for weight, statistic in zip(weights, statistics, strict=True) if statistic is None]
        if missing:
            name = missing[0].module
            near = nearest(name, self._known)
            raise InputError(
                f"{self.label} has nothing of {len(missing)} of {len(weights)} tensors, the first {name!r}{near}; "
                f"leave those out with only or fix={{{name!r}: 'keep'}} (--fix {name}=keep), or collect their "
                "statistics"
            )
        return [statistic for statistic in statistics if statistic is not None]

    def _find(self, weight: Weight) -> Statistic | None:
        name = next((key for key in (weight.name, weight.module, module_of(weight.module)) if key in self._known), None)
        if name is None:
            return None
        values = self._known[name]
        values = values if hasattr(values, "shape") else np.asarray(values)
        shape = tuple(values.shape)
        kinds = {
            (): SCALE,
            (1,): SCALE,
            (weight.width,): DIAGONAL,
            (weight.width, weight.width): GRAM,
            tuple(weight.tensor.shape): CURVATURE,
        }
        if shape not in kinds:
            raise InputError(
                f"{self.label}: {name!r} has shape {shape}, its tensor {tuple(weight.tensor.shape)}; give one number, "
                f"({weight.width},), ({weight.width}, {weight.width}) or the tensor's own shape"
            )
        kind = kinds[shape]
        # Keys that say how they were made decide between a square Gram matrix and the curvature of a square weight.
        if shape == (weight.width, weight.width) == tuple(weight.tensor.shape):
            kind = CURVATURE if name == weight.name else GRAM
        if np.dtype(values.dtype).kind not in "fiu" and "float" not in np.dtype(values.dtype).name:
            raise InputError(f"{self.label}: {name!r} holds {values.dtype}; give numbers")
        if kind != CURVATURE:
            _refuse_negative(self.label, name, np.asarray(values), kind)
        return Statistic(kind, values)


def _opened(path: Path) -> Mapping[str, Any]:
    if path.suffix.lower() in (".npz", ".npy"):
        loaded = load_arrays(str(path), str(path))
        if isinstance(loaded, np.ndarray):
            raise InputError(f"{path} holds one array; give an .npz or .safetensors file with one for each module")
        arrays: Mapping[str, Any] = loaded
        return arrays
    return Checkpoint.open(path)


def _refuse_negative(label: str, name: str, values: NDArray[Any], kind: str) -> None:
    """Refuse what is no mean of squares."""
    diagonal = np.diagonal(values) if kind == GRAM else values.reshape(-1)
    bad = np.flatnonzero(~(np.asarray(diagonal, np.float64) >= 0) | ~np.isfinite(np.asarray(diagonal, np.float64)))
    if len(bad):
        where = int(bad[0])
        raise InputError(
            f"{label}: {name!r} is {np.asarray(diagonal, np.float64)[where]:g} at {where}; it is a mean of squares, "
            "which is finite and >= 0"
        )
