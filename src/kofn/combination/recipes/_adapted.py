"""Models of mergekit recipes with an adapter, `model: a+lora`: folded while they are read."""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kofn.combination.adapters._fold_adapter import Fold, open_fold
from kofn.combination.adapters._fold_rows import Scratch
from kofn.core.arrays import Array
from kofn.io.tensors import Checkpoint


@dataclass(frozen=True)
class Adapted:
    """A model and the adapter that is folded into it, by their paths."""

    model: Any
    adapter: Any

    def __str__(self) -> str:
        """As mergekit writes it."""
        return f"{self.model}+{self.adapter}"

    def open(self) -> Checkpoint:
        """The model as a checkpoint in which the tensors that the adapter changes are folded as they are read."""
        fold = open_fold(self.model, [self.adapter])
        assert isinstance(fold.source, Checkpoint)
        changed = {name for name in fold.specs if name in fold.folding.changes or name in fold.folding.shapes}
        names = [*changed, *fold.folding.added]
        tensors = {name: FoldedTensor(fold, name, Path(self.model)) for name in names}
        layout = fold.source.layout.retyped(fold.specs).extended(fold.folding.added)
        adapter = Path(self.adapter)
        files = sorted(adapter.glob("adapter_*")) if adapter.is_dir() else [adapter]
        beside = fold.source.files | {path.resolve() for path in files}
        return Checkpoint(fold.source.path, layout, {**fold.source, **tensors}, beside)  # type: ignore[dict-item]


class FoldedTensor:
    """A tensor of a fold: blocks of it are computed as they are read."""

    __slots__ = ("_fold", "_local", "_whole", "dtype", "name", "path", "shape", "size")

    def __init__(self, fold: Fold, name: str, path: Path) -> None:
        spec = fold.specs.get(name)
        given: Any = fold.folding.added[name] if spec is None else spec
        self.name, self.path = name, path
        self.dtype: np.dtype[Any] = given.dtype
        self.shape: tuple[int, ...] = tuple(given.shape)
        self.size = math.prod(self.shape)
        self._fold, self._local = fold, threading.local()
        # DoRA's norms along the columns take the whole tensor, which is then computed once.
        self._whole = spec is None or any(change.whole for change in fold.folding.changes.get(name, ()))

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def read(self, start: int = 0, stop: int | None = None, out: np.ndarray | None = None) -> Array:
        """Elements `start:stop` of the flattened tensor, as `LazyTensor.read` gives them."""
        stop = self.size if stop is None else stop
        if self._whole:
            values = self._kept()[start:stop]
        else:
            scratch: Scratch = self._local.__dict__.setdefault("scratch", Scratch())
            columns = self._fold.row_length(self.name)
            first, last = start // columns, -(-stop // columns)
            block = self._fold.block(self.name, slice(first, last), scratch)
            values = block[start - first * columns : stop - first * columns]
        if out is None:
            return values.copy()
        target: Array = out[: values.nbytes].view(self.dtype)
        target[...] = values
        return target

    def array(self) -> Array:
        """The whole tensor, folded now."""
        return self._fold.tensor(self.name)

    def _kept(self) -> Array:
        kept: Array | None = getattr(self._local, "kept", None)
        if kept is None:
            kept = self._local.kept = self.array().reshape(-1)
        return kept
