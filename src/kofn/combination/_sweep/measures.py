"""Measures of a blend against its members: norms, signs, variance and cosines, summed over blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats

_ROW = 8192  # a dot product this short is never split among BLAS threads, so sums do not depend on their number

_STATISTICS = ("running_mean", "running_var")


def inner(first: Floats, second: Floats) -> float:
    """The inner product of two rows, on one thread whatever their length."""
    whole = len(first) // _ROW * _ROW
    tables = first[:whole].reshape(-1, _ROW), second[:whole].reshape(-1, _ROW)
    return float(np.vecdot(*tables).sum() + np.vecdot(first[whole:], second[whole:]))


@dataclass(frozen=True, slots=True)
class Measures:
    """Additive sums over elements, from which all figures are computed."""

    elements: int
    sums: Floats  # (m + 1,) of the members' task vectors (or the members) and the blend's
    squares: Floats  # (m + 1,)
    gram: Floats  # (m + 1, m + 1) inner products of the task vectors (or of the members, where there is no base)
    agreeing: int  # non-zero task-vector entries that have the sign of their majority
    signed: int  # non-zero task-vector entries

    @classmethod
    def of(cls, rows: list[NDArray[Any]], base: NDArray[Any] | None, blend: NDArray[Any]) -> Self:
        table = np.array([*rows, blend], np.float64)
        if base is not None:
            table -= base
        sums, squares = table.sum(axis=1), np.array([inner(row, row) for row in table])
        few = np.uint8 if len(rows) < 256 else np.int64
        up = np.add.reduce(table[:-1] > 0, axis=0, dtype=few)
        down = np.add.reduce(table[:-1] < 0, axis=0, dtype=few)
        most, signed = (
            int(np.maximum(up, down).sum(dtype=np.int64)),
            int(up.sum(dtype=np.int64) + down.sum(dtype=np.int64)),
        )
        gram = np.empty((len(table), len(table)))
        for i, row in enumerate(table):
            for j in range(i + 1):
                gram[i, j] = gram[j, i] = inner(row, table[j])
        return cls(len(blend), sums, squares, gram, most, signed)

    def plus(self, other: Measures) -> Measures:
        return Measures(
            self.elements + other.elements,
            self.sums + other.sums,
            self.squares + other.squares,
            self.gram + other.gram,
            self.agreeing + other.agreeing,
            self.signed + other.signed,
        )

    def figures(self) -> dict[str, Any]:
        """`length`, `cosine` (m, m), `kept` variance, `agreement` of signs, `norms` (m + 1,), all of the task vectors.

        `length` is the norm of the blend's task vector over the root mean square of the members' norms.
        `variance` is the members' mean variance and the blend's; `signed` counts non-zero task-vector entries.

        `kept` is the variance of the blend's task vector over that of the members' (of the blend itself and the
        members themselves, where there is no base); `agreement` is the share of non-zero entries that have the sign of
        their majority: 1 where all agree, towards one half where they cancel.
        """
        variance = np.maximum(self.squares / self.elements - (self.sums / self.elements) ** 2, 0)
        norms = np.sqrt(np.maximum(np.diag(self.gram), 0))
        own, scale = variance[:-1].mean(), norms[:-1, None] * norms[None, :-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = np.where(scale > 0, self.gram[:-1, :-1] / scale, np.nan)
        return {
            "elements": self.elements,
            "signed": self.signed,
            "variance": np.array([own, variance[-1]]),
            "norms": norms,
            "length": relative_length(norms),
            "cosine": np.clip(cosine, -1, 1),
            "kept": float(variance[-1] / own) if own > 0 else 1.0,
            "agreement": self.agreeing / self.signed if self.signed else 1.0,
        }


def relative_length(norms: Floats) -> float:
    """The last of (m + 1,) norms over the root mean square of the others; 1 where those are zero."""
    own = float(np.sqrt(np.mean(np.square(norms[:-1]))))
    return float(norms[-1]) / own if own > 0 else 1.0


def blend_length(measures: Iterable[Mapping[str, Any]]) -> float:
    """`length` over several tensors, from their figures."""
    norms = np.array([row["norms"] for row in measures])
    return relative_length(np.sqrt(np.square(norms).sum(axis=0)))


def trained(measures: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The figures of tensors that were trained: BatchNorm's statistics of the data are no weights."""
    return {name: row for name, row in measures.items() if not name.endswith(_STATISTICS)}
