"""Names of array types, each with one meaning in the whole library, and what several families do to arrays.

`Floats` are float64 and `Ints` int64: what kofn computes with. Where a function takes other widths, `Reals`, `Integers`
or `Array` say so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Mask = NDArray[np.bool_]
Labels = NDArray[np.int32]
Bits = NDArray[np.int8]
Singles = NDArray[np.float32]
Reals = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]
Array = NDArray[Any]


def near_one(rows: Array, axis: int = 1) -> tuple[Array, Array]:
    """Rows with their largest entry near 1, so that squares neither overflow nor vanish, and each row's factor.

    Factors are powers of two: nothing is rounded, and what is computed from such rows has the bits that it would have
    without, wherever those squares can be taken at all. `axis` is that of the features; the factors keep it.

    Examples:
        >>> rows, factor = near_one(np.array([[3 * 2.0**900, 2.0**902], [0.0, 0.0]]))
        >>> rows.tolist(), (np.sqrt((rows * rows).sum(axis=1)) / factor[:, 0] == [5 * 2.0**900, 0]).all()
        ([[0.375, 0.5], [0.0, 0.0]], np.True_)
    """
    exponents = np.frexp(np.abs(rows).max(axis=axis, keepdims=True))[1]
    # Powers beyond this are not to be had, and not needed.
    limit = np.finfo(rows.dtype).maxexp - 8
    factor = np.ldexp(np.ones((), rows.dtype), -np.clip(exponents, -limit, limit))
    return rows * factor, factor


def directions(rows: Array) -> Array:
    """Rows (n, d) at unit length, in their own precision, at any scale; rows of zeros stay zero.

    Examples:
        >>> directions(np.array([[3 * 2.0**900, 2.0**902], [0.0, 0.0], [0.0, -1e-310]])).tolist()
        [[0.6, 0.8], [0.0, 0.0], [0.0, -1.0]]
    """
    scaled, _ = near_one(rows)
    sizes = np.sqrt((scaled * scaled).sum(axis=1, keepdims=True))
    out: Array = scaled / np.where(sizes > 0, sizes, 1)
    return out


def csr(rows: Integers, columns: Integers, n: int) -> tuple[Ints, Labels]:
    """Pairs (row, column), listed by ascending row, as where each of n rows begins and its columns.

    Examples:
        >>> indptr, columns = csr(np.array([0, 0, 2]), np.array([1, 4, 0]), 3)
        >>> indptr.tolist(), columns.tolist()
        ([0, 2, 2, 3], [1, 4, 0])
    """
    indptr = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=indptr[1:])
    return indptr, columns.astype(np.int32)
