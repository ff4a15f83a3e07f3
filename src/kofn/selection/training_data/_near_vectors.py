"""Near-duplicates among vectors: by their angle, or by their distance as a share of the pool's typical one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array
from kofn.core.checks import InputError

_ROWS, _KEPT = 1024, 2048  # a tile of products is 8 MiB: it stays in cache between the product and the comparison
_SAMPLE = 2048
_FEW = 4  # so many pairs a row, all looked at together, cost less than one row after the other
_DENSE = 1 / 1000  # a pair on its own costs as much as a thousand inside a matrix product
_SAME = 1e-9  # cosines closer than this count as equal: the rounding of a float64 sum near 1.0


METRICS = ("cosine", "euclidean", "sqeuclidean")


def refuse_metric(metric: str) -> None:
    """Refuse a metric by which near-duplicates are not found."""
    if metric not in METRICS:
        raise InputError(f"metric={metric!r}: near-duplicates are found by {', '.join(METRICS)}")


class Spread(NamedTuple):
    """Where the rows of a pool lie, and how far apart: what makes distances shares of the typical one.

    Attributes:
        largest: the largest entry, by which rows are divided first, so that no square overflows or vanishes.
        mean: the mean row, so divided.
        typical: the root of the mean squared distance of two rows, so divided; 1 where all are alike.
    """

    largest: float
    mean: NDArray[np.float64]
    typical: float


class Nearness(NamedTuple):
    """When two rows are near, in terms of the vectors that `rows` makes of them.

    Attributes:
        rows: float64 vectors of some rows, computed when they are needed.
        angular: rows have unit length, and are near where x.y >= least; else where |x - y|^2 <= -2 least.
        least: the bound on x.y, or on x.y - |x|^2 / 2 - |y|^2 / 2, which is -|x - y|^2 / 2.
    """

    rows: Callable[[Any], Array]
    angular: bool
    least: float

    def halves(self, rows: Array) -> Array:
        """What each row of a pair takes off x.y, a little less for the rounding of float32 products."""
        return np.zeros(len(rows)) if self.angular else np.einsum("ij,ij->i", rows, rows) / 2

    def exact(self, left: Array, right: Array, d: int) -> Array:
        """x.y, or -|x - y|^2 / 2, of pairs of rows in float64, a batch of pairs at a time."""
        out = np.empty(len(left))
        step = max(1, (1 << 19) // d)
        for start in range(0, len(left), step):
            part = slice(start, start + step)
            x, y = self.rows(left[part]), self.rows(right[part])
            if self.angular:
                out[part] = np.einsum("ij,ij->i", x, y)
            else:
                x -= y
                out[part] = np.einsum("ij,ij->i", x, x) / -2
        return out

    def similarity(self, left: Array, right: Array, d: int, metric: str) -> NDArray[np.float64]:
        """How similar the rows of pairs are."""
        products = self.exact(left, right, d)
        if metric == "cosine":
            return np.minimum(products, 1)
        return np.asarray(1 - (-2 * products if metric == "sqeuclidean" else np.sqrt(-2 * products)))


def nearness_of(
    X: Array, threshold: float, metric: str, spread: Spread | None = None
) -> tuple[Nearness, NDArray[np.bool_]]:
    """When rows of X are near, and which of them are all zeros, which have no angle.

    Args:
        X: (n, d) vectors.
        threshold: similarity from which two rows are near.
        metric: "cosine", "euclidean" or "sqeuclidean".
        spread: of the pool that the rows are some of; by default they are all of it.
    """
    if metric == "cosine":
        rows, empty = _unit_rows(X)
        return Nearness(rows, True, threshold - _SAME), empty
    return Nearness(_centred_rows(X, spread or spread_of(X)), False, -(reach_of(threshold, metric) ** 2) / 2), np.zeros(
        len(X), bool
    )


def reach_of(threshold: float, metric: str) -> float:
    """How far apart two near rows are at the most: of unit length by the cosine, else as shares of the typical."""
    reach = 1 - threshold + _SAME
    return reach if metric == "euclidean" else float(np.sqrt(2 * reach if metric == "cosine" else reach))


def near_vectors(
    X: Array, threshold: float, metric: str, forced: int, spread: Spread | None = None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(earliest kept row that a row is near or -1, their similarity), where the first `forced` rows stay.

    Rows of zeros, which have no angle, are near one another under the cosine. `spread` as in `nearness_of`.
    """
    n, d = X.shape
    nearness, empty = nearness_of(X, threshold, metric, spread)
    of = _near(nearness, n, d, np.flatnonzero(~empty), forced)
    similarity = np.full(n, np.nan)
    dropped = np.flatnonzero(of >= 0)
    similarity[dropped] = nearness.similarity(dropped, of[dropped], d, metric)
    if empty.any():
        zeros = np.flatnonzero(empty)
        later = zeros[1:][zeros[1:] >= forced]
        of[later], similarity[later] = zeros[0], 1.0
    return of, similarity


def near_pairs(nearness: Nearness, left: Array, right: Array, d: int) -> tuple[Array, Array]:
    """The pairs of one of the rows `left` and one of the rows `right` that are near."""
    if not len(left) or not len(right):
        return left[:0], right[:0]
    i, j = [left[:0]], [right[:0]]
    slack = rounding_of(d)
    cut = np.float32(nearness.least - (slack if nearness.angular else 0))
    for low in range(0, len(right), _KEPT):
        rivals = right[low : low + _KEPT]
        theirs, half_theirs = _narrow(nearness, rivals, slack)
        for start in range(0, len(left), _ROWS):
            rows = left[start : start + _ROWS]
            own, half_own = _narrow(nearness, rows, slack)
            # By the cosine nothing is taken off.
            bounds = own @ theirs.T if nearness.angular else _bounds(own, half_own, theirs, half_theirs)
            row, rival = _candidates(bounds, cut)
            near = nearness.exact(rows[row], rivals[rival], d) >= nearness.least
            i.append(rows[row[near]])
            j.append(rivals[rival[near]])
    return np.concatenate(i), np.concatenate(j)


def _narrow(nearness: Nearness, rows: Array, slack: float) -> tuple[Array, Array]:
    """The rows in float32, and what each takes off a product, a little less for the rounding."""
    wide = nearness.rows(rows)
    halves = nearness.halves(wide).astype(np.float32)
    return wide.astype(np.float32), halves if nearness.angular else halves * np.float32(1 - 2 * slack)


def _near(nearness: Nearness, n: int, d: int, compared: Array, forced: int) -> NDArray[np.int64]:
    """The earliest kept row that each of the `compared` rows is near, -1 for a kept row."""
    features, halves, slack = _features(nearness, n, d)
    cut = np.float32(nearness.least - (slack if nearness.angular else 0))
    if not nearness.angular:
        halves *= 1 - 2 * slack
    of = np.full(n, -1, np.int64)
    kept = np.empty(n, np.int64)  # kept rows; their features and halves move to the front
    taken = np.zeros(n, bool)
    taken[compared] = True
    m = 0
    for start in range(0, n, _ROWS):
        rows = start + np.flatnonzero(taken[start : start + _ROWS])
        block, half = features[rows], halves[rows]
        for lo in range(0, m, _KEPT):
            if not len(rows):
                break
            rivals = kept[lo : min(lo + _KEPT, m)]
            bounds = _bounds(block, half, features[lo : lo + len(rivals)], halves[lo : lo + len(rivals)])
            i, j = _candidates(bounds, cut)
            if nearness.angular and features.shape[1] < d and len(i) > _DENSE * len(rows) * len(rivals):
                full = nearness.rows(rows).astype(np.float32) @ nearness.rows(rivals).astype(np.float32).T
                i, j = _candidates(full, np.float32(nearness.least - rounding_of(d)))
            near = nearness.exact(rows[i], rivals[j], d) >= nearness.least
            near &= rows[i] >= forced
            # A row's candidates are listed from the earliest kept row on, and unique takes the first.
            hit, earliest = np.unique(i[near], return_index=True)
            if not len(hit):
                continue
            of[rows[hit]] = rivals[j[near][earliest]]
            left = np.ones(len(rows), bool)
            left[hit] = False
            rows, block, half = rows[left], block[left], half[left]
        left = _within(nearness, rows, _bounds(block, half, block, half) >= cut, of, d, forced)
        rows = rows[left]
        features[m : m + len(rows)], halves[m : m + len(rows)] = block[left], half[left]
        kept[m : m + len(rows)] = rows
        m += len(rows)
    return of


def _bounds(left: Array, half_left: Array, right: Array, half_right: Array) -> Array:
    """What x.y, or -|x - y|^2 / 2, is at most for each pair of rows."""
    out = left @ right.T
    out -= half_left[:, None]
    out -= half_right
    return out


def _candidates(products: Array, cut: Any) -> tuple[Array, Array]:
    """(row, column) of the products that reach `cut`, row by row. (2-d `nonzero` takes twenty times as long.)"""
    positions = np.flatnonzero(products.ravel() >= cut)
    return positions // products.shape[1], positions % products.shape[1]


def rounding_of(width: int) -> float:
    """The largest rounding error of a float32 product of unit rows of this width."""
    return (width + 4) * float(np.finfo(np.float32).eps)


def _within(
    nearness: Nearness, rows: Array, candidates: Array, of: NDArray[np.int64], d: int, forced: int
) -> NDArray[np.bool_]:
    """Drop near-duplicates inside one block, one kept row after the other; which of the rows stay."""
    # Most blocks have few pairs; the diagonal is among the candidates.
    if np.count_nonzero(candidates) <= (1 + 2 * _FEW) * len(rows):
        return _within_few(nearness, rows, candidates, of, d, forced)
    open_ = np.ones(len(rows), bool)
    candidates = np.triu(candidates, 1)
    for i in np.flatnonzero(candidates.any(axis=1)):
        if not open_[i]:
            continue
        j = np.flatnonzero(candidates[i] & open_ & (rows >= forced))
        if len(j):
            near = j[nearness.exact(np.full(len(j), rows[i]), rows[j], d) >= nearness.least]
            of[rows[near]] = rows[i]
            open_[near] = False
    return open_


def _within_few(
    nearness: Nearness, rows: Array, candidates: Array, of: NDArray[np.int64], d: int, forced: int
) -> NDArray[np.bool_]:
    """The same where so few pairs are candidates that all are looked at together."""
    open_ = np.ones(len(rows), bool)
    i, j = _candidates(candidates, True)
    ahead = (i < j) & (rows[j] >= forced)
    i, j = i[ahead], j[ahead]
    near = nearness.exact(rows[i], rows[j], d) >= nearness.least
    for first, second in zip(i[near].tolist(), j[near].tolist(), strict=True):
        if open_[first] and open_[second]:
            of[rows[second]], open_[second] = rows[first], False
    return open_


def _unit_rows(X: Array) -> tuple[Callable[[Any], Array], NDArray[np.bool_]]:
    """Rows at unit length in float64, and which rows are all zeros.

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

    def rows(chosen: Any) -> Array:
        wide = X[chosen].astype(np.float64)
        wide *= scale[chosen, None]
        wide /= lengths[chosen, None]
        return wide

    return rows, np.isinf(lengths)


def spread_of(X: Array) -> Spread:
    """The spread of a pool that is in memory."""
    n = len(X)
    parts = [slice(start, start + _ROWS) for start in range(0, n, _ROWS)]
    largest = max(float(np.abs(X[part].astype(np.float64)).max()) for part in parts) or 1.0
    mean = sum((X[part].astype(np.float64) / largest).sum(axis=0) for part in parts) / n
    spread = sum(float(np.square(X[part].astype(np.float64) / largest - mean).sum()) for part in parts) / n
    return Spread(largest, np.asarray(mean), float(np.sqrt(2 * spread)) or 1.0)


def _centred_rows(X: Array, spread: Spread) -> Callable[[Any], Array]:
    """Rows less their mean in float64, where the root of the mean squared distance of two rows is 1."""

    def rows(chosen: Any) -> Array:
        wide = X[chosen].astype(np.float64)
        wide /= spread.largest
        wide -= spread.mean
        wide /= spread.typical
        return wide

    return rows


def _features(nearness: Nearness, n: int, d: int) -> tuple[Array, Array, float]:
    """(features whose products bound x.y from above, halves, the rounding error of a product of unit rows).

    A row's features are the row, or its projection on r leading directions followed by the length of the rest.
    """
    sample = nearness.rows(np.arange(0, n, max(1, n // _SAMPLE)))
    sample = sample[np.any(sample != 0, axis=1)]
    directions = _leading(sample, d) if d > 32 and n > 4 * _ROWS and len(sample) else None
    r = 0 if directions is None else _rank(sample @ directions, sample, nearness, d)
    width = d if directions is None or r == 0 else r + 1
    features, halves = np.empty((n, width), np.float32), np.empty(n, np.float32)
    for start in range(0, n, _ROWS):
        part = slice(start, start + _ROWS)
        block = nearness.rows(part)
        halves[part] = nearness.halves(block)
        if directions is None or r == 0:
            features[part] = block
        else:
            P = directions[:, :r]
            inside = block @ P
            features[part, :r] = inside
            features[part, r] = np.linalg.norm(block - inside @ P.T, axis=1)
    return features, halves, rounding_of(width)


def _leading(sample: Array, d: int) -> Array:
    """Up to 512 orthonormal directions, the sample's strongest first."""
    if d <= len(sample):
        return np.linalg.eigh(sample.T @ sample)[1][:, ::-1][:, :512]
    values, vectors = np.linalg.eigh(sample @ sample.T)
    strong = np.flatnonzero(values > values[-1] * 1e-9)[::-1][:512]
    return np.linalg.qr(sample.T @ vectors[:, strong])[0]


def _rank(inside: Array, sample: Array, nearness: Nearness, d: int) -> int:
    """The number of leading directions that filter most cheaply, by the work on pairs of the sample; 0: none."""
    step = max(1, len(inside) // 512)
    batch, halves = inside[::step], nearness.halves(sample[::step])
    squares = np.einsum("ij,ij->i", sample[::step], sample[::step])
    pairs = np.triu_indices(len(batch), 1)
    best, cheapest = 0, float(d)
    for r in (8, 16, 32, 64, 128, 256, 512):
        if r > batch.shape[1] or r >= d:
            break
        rest = np.sqrt(np.maximum(squares - np.sum(batch[:, :r] ** 2, axis=1), 0))
        bound = (batch[:, :r] @ batch[:, :r].T + np.outer(rest, rest) - halves[:, None] - halves)[pairs]
        # A pair that passes is multiplied on its own, or if many pass, the whole tile in full.
        passed = float(np.mean(bound >= nearness.least)) if len(bound) else 1.0
        work = r + 16 + d * min(1.0, passed / _DENSE)
        if work < cheapest:
            best, cheapest = r, work
    return best
