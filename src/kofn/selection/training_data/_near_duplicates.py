"""Near-duplicates: rows that repeat an earlier row."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.core import checks
from kofn.core.arrays import Array

__all__ = ["near_duplicates"]

_ROWS, _KEPT = 1024, 2048  # a tile of products is 8 MiB: it stays in cache between the product and the comparison
_SAMPLE = 2048
_DENSE = 1 / 1000  # a pair on its own costs as much as a thousand inside a matrix product
_SAME = 1e-9  # cosines closer than this count as equal: the rounding of a float64 sum near 1.0


class Duplicates(NamedTuple):
    """Which rows stay, and which kept row each dropped row repeats."""

    keep: NDArray[np.bool_]
    of: NDArray[np.int64]


def near_duplicates(X: ArrayLike, threshold: float = 0.95) -> Duplicates:
    """Keep the first of every group of near-duplicates, in the order of the rows.

    A row is dropped if its cosine with an earlier row that was kept is at least `threshold`. So no two kept rows are
    near, and every dropped row is near a kept row.

    Args:
        X: vectors, (n, d).
        threshold: cosine from which two rows are near-duplicates, 0 to 1 (1: the same direction).

    Returns:
        keep: (n,) True where the row stays.
        of: (n,) the earliest kept row that a dropped row is near, -1 for a kept row.

    Raises:
        InputError: X is not a finite matrix, or threshold is not in [0, 1].

    Exact: every decision is made on a cosine in float64 (with 1e-9 for rounding), so it does not depend on blocks,
    threads or float32 products. A row of zeros has no direction and is kept.

    Cost: at most n * kept / 2 products, most of them in fewer dimensions: with P the projection on the r leading
    directions, x.y <= Px.Py + |x - Px| |y - Py| rules a pair out; only the pairs left are multiplied in full. r is
    chosen on a sample by counted work. Memory: at most n * (d + 1) float32 besides X, and about 50 MB.

    References:
        The bound is Cauchy-Schwarz on the residual, as in exact nearest-neighbour search by partial distances.

    >>> near_duplicates([[1, 0], [0, 1], [2, 0.1], [0, 3]])
    Duplicates(keep=array([ True,  True, False, False]), of=array([-1, -1,  0,  1]))
    """
    X = checks.matrix(X)
    threshold = checks.fraction(threshold, "threshold")
    n, d = X.shape
    scale, lengths = _lengths(X)

    def unit(rows: Array | slice) -> Array:
        wide = X[rows].astype(np.float64)
        wide *= scale[rows, None]
        wide /= lengths[rows, None]
        return wide

    features, slack = _features(unit, n, d, threshold - _SAME)
    cut = np.float32(threshold - _SAME - slack)
    nonzero = lengths < np.inf
    of = np.full(n, -1, np.int64)
    kept = np.empty(n, np.int64)  # kept rows that have a direction; their features move to the front of `features`
    m = 0
    for start in range(0, n, _ROWS):
        rows = start + np.flatnonzero(nonzero[start : start + _ROWS])
        block = features[rows]
        for lo in range(0, m, _KEPT):
            if not len(rows):
                break
            rivals = kept[lo : min(lo + _KEPT, m)]
            i, j = _candidates(block @ features[lo : lo + len(rivals)].T, cut)
            if features.shape[1] < d and len(i) > _DENSE * len(rows) * len(rivals):
                full = unit(rows).astype(np.float32) @ unit(rivals).astype(np.float32).T
                i, j = _candidates(full, np.float32(threshold - _SAME - _rounding(d)))
            near = _cosines(unit, rows[i], rivals[j], d) >= threshold - _SAME
            # A row's candidates are listed from the earliest kept row on, and unique takes the first.
            hit, earliest = np.unique(i[near], return_index=True)
            if not len(hit):
                continue
            of[rows[hit]] = rivals[j[near][earliest]]
            left = np.ones(len(rows), bool)
            left[hit] = False
            rows, block = rows[left], block[left]
        rows = _within(unit, rows, block, of, cut, threshold - _SAME, d)
        features[m : m + len(rows)] = features[rows]
        kept[m : m + len(rows)] = rows
        m += len(rows)
    return Duplicates(of < 0, of)


def _candidates(products: Array, cut: Any) -> tuple[Array, Array]:
    """(row, column) of the products that reach `cut`, row by row. (2-d `nonzero` takes twenty times as long.)"""
    positions = np.flatnonzero(products.ravel() >= cut)
    return positions // products.shape[1], positions % products.shape[1]


def _rounding(width: int) -> float:
    """The largest rounding error of a float32 product of unit rows of this width."""
    return (width + 4) * float(np.finfo(np.float32).eps)


def _within(
    unit: Callable[[Array], Array], rows: Array, block: Array, of: NDArray[np.int64], cut: Any, least: float, d: int
) -> Array:
    """Drop near-duplicates inside one block, one kept row after the other; returns the rows that stay."""
    if not len(rows):
        return rows
    candidates = np.triu(block @ block.T >= cut, 1)
    open_ = np.ones(len(rows), bool)
    for i in np.flatnonzero(candidates.any(axis=1)):
        if not open_[i]:
            continue
        j = np.flatnonzero(candidates[i] & open_)
        if len(j):
            near = j[_cosines(unit, np.full(len(j), rows[i]), rows[j], d) >= least]
            of[rows[near]] = rows[i]
            open_[near] = False
    return rows[open_]


def _lengths(X: Array) -> tuple[Array, Array]:
    """(scale, length of the scaled row) of each row in float64; the length of a row of zeros is infinite.

    Rows are scaled by their largest entry first, so that squares neither overflow nor vanish.
    """
    n = len(X)
    scale, lengths = np.ones(n), np.full(n, np.inf)
    for start in range(0, n, _ROWS):
        part = slice(start, start + _ROWS)
        block = X[part].astype(np.float64)
        largest = np.abs(block).max(axis=1)
        nonzero = largest > 0
        with np.errstate(over="ignore"):
            scale[part][nonzero] = np.minimum(1 / largest[nonzero], np.finfo(np.float64).max)
        lengths[part][nonzero] = np.linalg.norm(block[nonzero] * scale[part][nonzero, None], axis=1)
    return scale, lengths


def _cosines(unit: Callable[[Array], Array], left: Array, right: Array, d: int) -> Array:
    """Cosines of pairs of rows in float64, a batch of pairs at a time."""
    out = np.empty(len(left))
    step = max(1, (1 << 19) // d)
    for start in range(0, len(left), step):
        part = slice(start, start + step)
        out[part] = np.einsum("ij,ij->i", unit(left[part]), unit(right[part]))
    return out


def _features(unit: Callable[[Any], Array], n: int, d: int, least: float) -> tuple[Array, float]:
    """Features whose products bound the cosines from above, and the rounding error of such a product.

    A row's features are its unit row, or its projection on r leading directions followed by the length of the rest.
    """
    sample = unit(np.arange(0, n, max(1, n // _SAMPLE)))
    sample = sample[np.any(sample != 0, axis=1)]
    directions = _leading(sample, d) if d > 32 and n > 4 * _ROWS and len(sample) else None
    r = 0 if directions is None else _rank(sample @ directions, d, least)
    if directions is None or r == 0:
        full = np.empty((n, d), np.float32)
        for start in range(0, n, _ROWS):
            full[start : start + _ROWS] = unit(slice(start, start + _ROWS))
        return full, _rounding(d)
    P = directions[:, :r]
    features = np.empty((n, r + 1), np.float32)
    for start in range(0, n, _ROWS):
        block = unit(slice(start, start + _ROWS))
        inside = block @ P
        features[start : start + _ROWS, :r] = inside
        features[start : start + _ROWS, r] = np.linalg.norm(block - inside @ P.T, axis=1)
    return features, _rounding(r + 1)


def _leading(sample: Array, d: int) -> Array:
    """Up to 512 orthonormal directions, the sample's strongest first."""
    if d <= len(sample):
        return np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :512]
    values, vectors = np.linalg.eigh(sample @ sample.T)
    strong = np.flatnonzero(values > values[-1] * 1e-9)[::-1][:512]
    return np.linalg.qr(sample.T @ vectors[:, strong])[0]


def _rank(inside: Array, d: int, least: float) -> int:
    """The number of leading directions that filter most cheaply, by the work on pairs of the sample; 0: none."""
    batch = inside[:: max(1, len(inside) // 512)]
    pairs = np.triu_indices(len(batch), 1)
    best, cheapest = 0, float(d)
    for r in (8, 16, 32, 64, 128, 256, 512):
        if r > batch.shape[1] or r >= d:
            break
        rest = np.sqrt(np.maximum(1 - np.sum(batch[:, :r] ** 2, axis=1), 0))
        bound = (batch[:, :r] @ batch[:, :r].T + np.outer(rest, rest))[pairs]
        # A pair that passes is multiplied on its own, or if many pass, the whole tile in full.
        passed = float(np.mean(bound >= least)) if len(bound) else 1.0
        work = r + 16 + d * min(1.0, passed / _DENSE)
        if work < cheapest:
            best, cheapest = r, work
    return best
