"""Low-rank updates added to bfloat16 weights by loops that are compiled for this processor."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.low_rank_code import COLUMNS, SCRATCH, text
from kofn.core.arrays import Array, Floats
from kofn.engines.machine_code import address, compiled

__all__ = ["SCRATCH", "Factors", "LowRankLoops", "low_rank_loops"]

_UNIT = 2.0**-24  # the largest relative error of a rounding to float32
_LEAST = 2.0**-126  # the least number that float32 has with all its digits
_lock = threading.Lock()


@dataclass(frozen=True)
class Factors:
    """Two factors, (rows, r) and (r, columns), rounded to float32 and exact.

    Right ones are (parts, r, width): so many columns lie together, and what lies apart by powers of two would not stay
    in the cache. `errors` (rows,) bound how far the product of the rounded factors, in float32, is from the exact one.
    `addresses` are where the arrays lie, in the order of the fields.
    """

    columns: int
    left: NDArray[np.float32]
    right: NDArray[np.float32]
    errors: NDArray[np.float32]
    exact_left: Floats
    exact_right: Floats
    addresses: tuple[int, ...]

    @classmethod
    def of(cls, terms: Sequence[tuple[Floats, Floats]]) -> Factors:
        """Factors of the sum of products."""
        rank, columns = sum(left.shape[1] for left, _ in terms), terms[0][1].shape[1]
        parts = -(-columns // COLUMNS)
        exact_left = np.ascontiguousarray(np.concatenate([left for left, _ in terms], axis=1))
        wide = np.zeros((rank, parts * COLUMNS))
        np.concatenate([right for _, right in terms], axis=0, out=wide[:, :columns])
        exact_right = np.ascontiguousarray(wide.reshape(rank, parts, COLUMNS).swapaxes(0, 1))
        # A term is rounded as its factors are, as their product, and as the sums are that it is part of; by Cauchy and
        # Schwarz. Numbers that float32 has not are lost.
        roundings = rank - np.arange(rank) + 3.0
        lengths = np.sqrt(np.square(exact_left) @ np.square(roundings))
        widest = np.sqrt(np.einsum("kj,kj->j", wide, wide).max(initial=0.0))
        errors = 1.01 * _UNIT * widest * lengths + rank * _LEAST * (1 + widest + lengths.max(initial=0.0))
        with np.errstate(over="ignore"):  # infinite factors make infinite sums, which are looked for
            left, right = exact_left.astype(np.float32), exact_right.astype(np.float32)
            bounds = np.nextafter(errors.astype(np.float32), np.float32(np.inf))
        arrays = (left, right, bounds, exact_left, exact_right)
        return cls(columns, *arrays, tuple(map(address, arrays)))


@dataclass(frozen=True)
class LowRankLoops:
    """The compiled loops; arrays are contiguous."""

    functions: dict[str, Callable[..., Any]]

    def add_rounded(self, words: Array, update: Array, out: Array) -> bool:
        """Make `out` the bfloat16 nearest to `words + update` in float64, ties to even; False where one is not finite.

        Sums are rounded by way of float32. Where that lies half-way between two bfloat16, in one entry of 65,536, the
        float64 sum decides.
        """
        return bool(self.functions["add_rounded"](address(words), address(update), address(out), len(words)))

    def fold(self, words: Array, factors: Factors, rows: slice, out: Array, scratch: NDArray[np.uint8]) -> bool:
        """Make `out` the bfloat16 nearest to `words` and these rows of the product; False where one is not finite.

        `scratch` has `SCRATCH` bytes.
        """
        rank = factors.left.shape[1]
        left, right, errors, exact_left, exact_right = factors.addresses
        return bool(
            self.functions["fold"](
                address(words),
                left + 4 * rank * rows.start,
                right,
                errors + 4 * rows.start,
                exact_left + 8 * rank * rows.start,
                exact_right,
                address(out),
                address(scratch),
                rows.stop - rows.start,
                factors.columns,
                rank,
            )
        )


def low_rank_loops() -> LowRankLoops | None:
    """The loops, compiled by the first call in a tenth of a second; None where they cannot be."""
    with _lock:
        return _compiled()


@functools.cache
def _compiled() -> LowRankLoops | None:
    functions = {
        "add_rounded": ("i1", "ptr", "ptr", "ptr", "i64"),
        "fold": ("i1", *["ptr"] * 8, "i64", "i64", "i64"),
    }
    made = compiled(text(), functions, unroll=False)
    return None if made is None else LowRankLoops(made)
