"""Measures of a blend against its members: norms, signs, variance and cosines, summed over blocks."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats

_ROW = 8192  # a dot product this short is never split among BLAS threads, so sums do not depend on their number

# Entries whose squares, and sums of such, are within float64 and lose no digits.
_SMALL, _LARGE = 2.0**-400, 2.0**400

_STATISTICS = ("running_mean", "running_var")


def inner(first: Floats, second: Floats) -> float:
    """The inner product of two rows, on one thread whatever their length."""
    whole = len(first) // _ROW * _ROW
    tables = first[:whole].reshape(-1, _ROW), second[:whole].reshape(-1, _ROW)
    return float(np.vecdot(*tables).sum() + np.vecdot(first[whole:], second[whole:]))


@dataclass(frozen=True, slots=True)
class Measures:
    """Additive sums over elements, from which all figures are computed.

    Where squares of the entries are beyond float64, sums are of entries divided by 2 ** `exponent`.
    """

    elements: int
    sums: Floats  # (m + 1,) of the members' task vectors (or the members) and the blend's
    squares: Floats  # (m + 1,)
    gram: Floats  # (m + 1, m + 1) inner products of the task vectors (or of the members, where there is no base)
    agreeing: int  # non-zero task-vector entries that have the sign of their majority
    signed: int  # non-zero task-vector entries
    exponent: int = 0

    @classmethod
    def of(cls, rows: list[NDArray[Any]], base: NDArray[Any] | None, blend: NDArray[Any]) -> Self:
        table = np.array([*rows, blend], np.float64)
        if base is not None:
            table -= base
        exponent = _exponent(table)
        if exponent:
            table = np.ldexp(table, -exponent)
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
        return cls(len(blend), sums, squares, gram, most, signed, exponent)

    def _in_units(self, exponent: int) -> Measures:
        """The same sums of entries divided by another power of two."""
        by = self.exponent - exponent
        if not by:
            return self
        sums, squares, gram = np.ldexp(self.sums, by), np.ldexp(self.squares, 2 * by), np.ldexp(self.gram, 2 * by)
        return Measures(self.elements, sums, squares, gram, self.agreeing, self.signed, exponent)

    def plus(self, other: Measures) -> Measures:
        if self.exponent != other.exponent:
            # The larger entries decide; of zeros the unit does not matter.
            used = [measures.exponent for measures in (self, other) if measures.squares.any()]
            exponent = max(used, default=0)
            return self._in_units(exponent).plus(other._in_units(exponent))
        return Measures(
            self.elements + other.elements,
            self.sums + other.sums,
            self.squares + other.squares,
            self.gram + other.gram,
            self.agreeing + other.agreeing,
            self.signed + other.signed,
            self.exponent,
        )

    def figures(self) -> dict[str, Any]:
        """`length`, `cosine` (m, m), `kept` variance, `agreement` of signs, `norms` (m + 1,), all of the task vectors.

        `length` is the norm of the blend's task vector over the root mean square of the members' norms.
        `variance` is the members' mean variance and the blend's, `deviation` their roots, which float64 always holds;
        `signed` counts non-zero task-vector entries.

        `kept` is the variance of the blend's task vector over that of the members' (of the blend itself and the
        members themselves, where there is no base); `agreement` is the share of non-zero entries that have the sign of
        their majority: 1 where all agree, towards one half where they cancel.
        """
        variance = np.maximum(self.squares / self.elements - (self.sums / self.elements) ** 2, 0)
        norms = np.sqrt(np.maximum(np.diag(self.gram), 0))
        own, scale = variance[:-1].mean(), norms[:-1, None] * norms[None, :-1]
        with np.errstate(invalid="ignore", divide="ignore"):
            cosine = np.where(scale > 0, self.gram[:-1, :-1] / scale, np.nan)
        with np.errstate(over="ignore", under="ignore"):  # a variance is a square, and float64 may not hold it
            spread = np.ldexp([own, variance[-1]], 2 * self.exponent)
        return {
            "elements": self.elements,
            "signed": self.signed,
            "variance": spread,
            "deviation": np.ldexp(np.sqrt([own, variance[-1]]), self.exponent),
            "norms": np.ldexp(norms, self.exponent),
            "length": relative_length(norms),
            "cosine": np.clip(cosine, -1, 1),
            "kept": float(variance[-1] / own) if own > 0 else 1.0,
            "agreement": self.agreeing / self.signed if self.signed else 1.0,
        }


def _exponent(table: Floats) -> int:
    """The power of two to divide entries by so that squares of the largest neither overflow nor vanish; 0 as a rule."""
    largest = max(float(table.max(initial=0)), -float(table.min(initial=0)))
    return 0 if largest == 0 or _SMALL < largest < _LARGE or not math.isfinite(largest) else math.frexp(largest)[1]


def distance(array: NDArray[Any], blend: NDArray[Any]) -> float:
    """The norm of the difference of two arrays, whatever its size: entries are scaled before they are squared."""
    sizes = np.abs(array - blend)
    largest = float(sizes.max(initial=0))
    return largest * float(np.sqrt(np.square(sizes / largest).sum())) if 0 < largest < math.inf else largest


def roots(norms: Floats) -> Floats:
    """The root of the sum of squares of each column, whatever the size of the entries."""
    unit = _unit(norms)
    return np.sqrt(np.square(norms / unit).sum(axis=0)) * unit


def joint_kept(rows: Iterable[Mapping[str, Any]]) -> float | None:
    """`kept` over several tensors, from their figures; None where the members' weights do not vary."""
    known = [(row["elements"], row["variance"], row["deviation"]) for row in rows]
    deviations = np.array([deviation for _, _, deviation in known])
    unit = _unit(deviations)
    table = np.array([variance for _, variance, _ in known]) if unit == 1 else np.square(deviations / unit)
    own, blend = np.array([elements for elements, _, _ in known], np.float64) @ table
    return float(blend / own) if own > 0 else None


def joint_cosine(rows: Iterable[Mapping[str, Any]]) -> Floats:
    """(m, m) cosines of the members over several tensors, from their figures; NaN where a member is zero."""
    known = [(np.nan_to_num(row["cosine"]), row["norms"][:-1]) for row in rows]
    unit = _unit(np.array([norms for _, norms in known]))
    gram = np.sum([cosine * np.outer(norms / unit, norms / unit) for cosine, norms in known], axis=0)
    own = np.sqrt(np.diag(gram))
    scale = np.outer(own, own)
    return np.divide(gram, scale, out=np.full_like(gram, np.nan), where=scale > 0).clip(-1, 1)


def _unit(norms: Floats) -> float:
    """What to divide norms by before they are squared: 1 where their squares are within float64."""
    largest = float(norms.max(initial=0))
    return largest if 0 < largest < _SMALL or _LARGE < largest < math.inf else 1.0


def relative_length(norms: Floats) -> float:
    """The last of (m + 1,) norms over the root mean square of the others; 1 where those are zero."""
    norms = norms / _unit(norms)
    own = float(np.sqrt(np.mean(np.square(norms[:-1]))))
    return float(norms[-1]) / own if own > 0 else 1.0


def blend_length(measures: Iterable[Mapping[str, Any]]) -> float:
    """`length` over several tensors, from their figures."""
    norms = np.array([row["norms"] for row in measures])
    return relative_length(roots(norms))


def trained(measures: Mapping[str, Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    """The figures of tensors that were trained: BatchNorm's statistics of the data are no weights."""
    return {name: row for name, row in measures.items() if not name.endswith(_STATISTICS)}
