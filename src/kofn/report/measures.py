"""Measures for the report: coverage after each pick, its knee, nearest picks, and a 2-D projection of the pool.

Everything runs over fixed-size blocks of rows in float64, so that memory stays bounded and the figures do not depend on
the input's dtype or the number of threads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core.arrays import Array, Floats, Ints

BLOCK_CELLS = 1 << 21  # 16 MB of float64 at a time
MAX_DISTANCES = 400_000_000  # past this many item-pick distances the coverage is measured on a sample of the items
EXACT_PAIRS = 512  # up to this many items their mean distance comes from all pairs, else from PAIRS of them
PAIRS = 1 << 18
DRAWS = 20  # random selections of the same size that the picks are held against
RANDOM_CELLS = 1 << 30  # multiplications that those may take; past it they are measured on a sample of the items
LANDMARKS = 512  # up to this many items classical scaling sees all distances, else those to as many landmarks
WIDE = 512  # past this many columns the principal components come from a sample of the rows
# Of the squares that are taken off each other: what is left of equal rows.
_ROUNDING = 1e-13
_SMALL, _LARGE = 1e-140, 1e140  # squares of entries between these neither vanish nor overflow


class Space:
    """The rows of X as the metric sees them.

    Args:
        X: (n, d) rows.
        metric: how far apart two of them are.
        items: the numbers of these rows in a larger pool, rising; by default X is the pool.
    """

    def __init__(self, X: Array, metric: str, items: Ints | None = None) -> None:
        self.X, self.metric = X, metric
        self.n, self.width = X.shape
        self.sampled = items is not None
        self.items = np.arange(self.n) if items is None else items
        # Entries whose squares leave the range of floats are measured in units of the largest.
        largest = max(abs(float(X.min())), abs(float(X.max()))) if X.size else 0.0
        self.unit = 1.0 if largest == 0 or _SMALL < largest < _LARGE else largest
        # Centring first: |x|^2 + |y|^2 - 2xy loses its digits where the rows lie far from the origin.
        self.centre = X.mean(axis=0, dtype=np.float64) if self.unit == 1 else (X / self.unit).mean(axis=0)

    def rows(self, index: Any) -> Floats:
        """The chosen rows in float64 and in `unit`: centred, or of length 1 for cosine (a zero row stays zero)."""
        return self.place(self.X[self.places(index)])

    def places(self, index: Any) -> Any:
        """Which rows of X these items are."""
        return np.searchsorted(self.items, index) if self.sampled else index

    def others(self, picks: Ints) -> Ints:
        """The items that stand for the pool: all of them, or those of a sample to which the picks were added."""
        return np.setdiff1d(self.items, picks) if self.sampled else self.items

    def weigh(self, weights: Array | None) -> Floats:
        """The items' weights, in the order of the whole pool; 1 where none are given."""
        return np.ones(int(self.items[-1]) + 1) if weights is None else np.asarray(weights, np.float64)

    def place(self, rows: Array) -> Floats:
        """Rows from elsewhere, such as the centres of groups, as `rows` returns the pool's."""
        rows = rows.astype(np.float64)
        if self.unit != 1:
            rows /= self.unit
        if self.metric != "cosine":
            return rows - self.centre
        length = np.sqrt(np.einsum("ij,ij->i", rows, rows))
        return rows / np.where(length > 0, length, 1.0)[:, None]

    def between(self, a: Floats, b: Floats) -> Floats:
        """(len(a), len(b)) distances between rows that `rows` returned; for cosine 1 - cos, and 0 of two zero rows."""
        dots = a @ b.T
        if self.metric == "cosine":
            # Zero rows share one direction, orthogonal to every other, as in the objectives.
            dots[np.ix_(~a.any(axis=1), ~b.any(axis=1))] = 1.0
            far = np.clip(1.0 - dots, 0.0, 2.0)
            far[far <= _ROUNDING] = 0.0
            return far
        squared = np.einsum("ij,ij->i", a, a)[:, None] + np.einsum("ij,ij->i", b, b)[None, :]
        least = _ROUNDING * squared
        squared -= 2.0 * dots
        squared[squared <= least] = 0.0
        return self._as_asked(squared)

    def apart(self, a: Floats, b: Floats) -> Floats:
        """(len(a),) distances from each row of `a` to the same row of `b`."""
        if self.metric == "cosine":
            dots = np.einsum("ij,ij->i", a, b)
            dots[~(a.any(axis=1) | b.any(axis=1))] = 1.0
            return np.clip(1.0 - dots, 0.0, 2.0)
        return self._as_asked(np.einsum("ij,ij->i", a - b, a - b))

    def _as_asked(self, squared: Floats) -> Floats:
        """Distances by the metric, in the unit of X; squares that are beyond floats are infinite."""
        if self.unit == 1:
            return squared if self.metric == "sqeuclidean" else np.sqrt(squared)
        with np.errstate(over="ignore", invalid="ignore"):
            return squared * self.unit * self.unit if self.metric == "sqeuclidean" else np.sqrt(squared) * self.unit


def drawn(rng: np.random.Generator, items: Ints, most: int) -> Ints:
    """All items, or of more than `most` so many of them, rising."""
    return items if len(items) <= most else np.sort(rng.choice(items, most, replace=False))


@dataclass(frozen=True)
class Coverage:
    """How well the first t picks cover the pool, and the nearest pick of each measured item."""

    share: Floats  # (m,) 1 - mean distance to the nearest of the first t picks / typical
    mean: Floats  # (m,) that mean distance
    typical: float  # mean distance to one item drawn at random
    items: Ints  # the measured items: all of them, or a sample of a very large pool
    nearest: Ints  # per measured item the position in `indices` of its nearest pick
    distance: Floats  # and how far that is


def coverage(space: Space, picks: Ints, weights: Array | None = None) -> Coverage:
    """Distances of all items (or of a fixed sample, where there are too many) to the picks, in the order picked."""
    rng = np.random.default_rng(0)
    most = max(1, MAX_DISTANCES // max(1, len(picks)))
    items = drawn(rng, space.others(picks), most)
    weight = space.weigh(weights)
    if weight[items].sum() <= 0:
        weight = space.weigh(None)
    chosen = space.rows(picks)
    nearest, distance = np.empty(len(items), np.int64), np.empty(len(items))
    total = np.zeros(len(picks))
    step = max(1, BLOCK_CELLS // max(len(picks), space.width))
    for low in range(0, len(items), step):
        part = items[low : low + step]
        far = space.between(space.rows(part), chosen)
        # Rounding can leave a pick at a positive distance from itself.
        spots = np.flatnonzero(np.isin(picks, part))
        far[np.searchsorted(part, picks[spots]), spots] = 0.0
        nearest[low : low + step] = far.argmin(axis=1)
        distance[low : low + step] = far.min(axis=1)
        total += weight[part] @ np.minimum.accumulate(far, axis=1)
    # Of duplicates that are both picked, each represents itself.
    position = np.minimum(np.searchsorted(items, picks), len(items) - 1)
    measured = np.flatnonzero(items[position] == picks)
    nearest[position[measured]] = measured
    mass = float(weight[items].sum())
    mean, typical = total / mass, _typical(space, weight)
    share = 1.0 - mean / typical if typical > 0 else np.ones(len(picks))
    return Coverage(share, mean, typical, items, nearest, distance)


def _typical(space: Space, weight: Floats) -> float:
    """The weighted mean distance between two items drawn at random: of a large pool, over a fixed draw of pairs."""
    if space.n <= EXACT_PAIRS:
        left, right = (side.ravel() for side in np.indices((space.n, space.n)))
    else:
        left, right = np.random.default_rng(1).integers(0, space.n, (2, PAIRS))
    total = mass = 0.0
    step = max(1, BLOCK_CELLS // space.width)
    for low in range(0, len(left), step):
        a, b = (space.items[side[low : low + step]] for side in (left, right))
        both = weight[a] * weight[b]
        total += float(both @ space.apart(space.rows(a), space.rows(b)))
        mass += float(both.sum())
    return total / mass if mass > 0 else 0.0


@dataclass(frozen=True)
class AtRandom:
    """Mean distance to the nearest pick, and to the nearest of as many items drawn at random."""

    own: float
    draws: Floats  # (DRAWS,), rising

    @property
    def beaten(self) -> int:
        """How many of the draws lie farther from the items than the picks do."""
        return int((self.draws > self.own).sum())


def at_random(space: Space, picks: Ints, weights: Array | None = None) -> AtRandom:
    """The picks beside 20 random selections of the same size, all measured on the same items, with fixed seeds."""
    rng = np.random.default_rng(2)
    most = max(256, RANDOM_CELLS // (DRAWS * len(picks) * space.width))
    others = space.others(picks)
    # Of a sample one half is measured and the other drawn from: an item is no stranger to itself.
    measured, among = (others[::2], others[1::2]) if space.sampled else (others, others)
    items = drawn(rng, measured, most)
    weight = space.weigh(weights)
    if weight[items].sum() <= 0:
        weight = space.weigh(None)
    random = [rng.choice(among, len(picks), replace=False) for _ in range(DRAWS)]
    own, *draws = (_mean_nearest(space, items, chosen, weight) for chosen in (picks, *random))
    return AtRandom(own, np.sort(draws))


def _mean_nearest(space: Space, items: Ints, picks: Ints, weight: Floats) -> float:
    chosen, total = space.rows(picks), 0.0
    step = max(1, BLOCK_CELLS // max(len(picks), space.width))
    for low in range(0, len(items), step):
        part = items[low : low + step]
        near = space.between(space.rows(part), chosen).min(axis=1)
        near[np.isin(part, picks)] = 0.0  # rounding leaves a pick a hair away from itself
        total += float(weight[part] @ near)
    return total / float(weight[items].sum())


def knee(share: Floats) -> int | None:
    """The pick (counted from 1) past which a further pick adds less than the average one, or None without a bend.

    It is the point farthest above the straight line from the first value to the last: on a concave curve, where the
    slope falls below that line's. A curve that rises less than a tenth of its height above the line has no knee.
    """
    if len(share) < 4 or share[-1] - share[0] <= 0:
        return None
    steps = np.linspace(0.0, 1.0, len(share))
    above = (share - share[0]) / (share[-1] - share[0]) - steps
    peak = int(above.argmax())
    return peak + 1 if above[peak] > 0.1 else None


@dataclass(frozen=True)
class Plane:
    """The pool in its first two principal components, and the share of the variance that they show."""

    points: Floats
    shown: float
    mean: Floats
    axes: Floats

    def project(self, rows: Floats) -> Floats:
        """Project rows of the space into the plane."""
        out = np.zeros((len(rows), 2))
        out[:, : self.axes.shape[1]] = (rows - self.mean) @ self.axes
        return out


def plane(space: Space) -> Plane:
    """Principal components of the rows as the metric sees them; their sign is fixed, so that pictures repeat."""
    sample = space.items
    if space.width > WIDE and space.n > WIDE:
        sample = sample[np.linspace(0, space.n - 1, WIDE).astype(np.int64)]
    step = max(1, BLOCK_CELLS // space.width)
    mean = np.zeros(space.width)
    for low in range(0, len(sample), step):
        mean += space.rows(sample[low : low + step]).sum(axis=0)
    mean /= len(sample)
    if space.width <= WIDE:
        scatter = np.zeros((space.width, space.width))
        for low in range(0, len(sample), step):
            rows = space.rows(sample[low : low + step]) - mean
            scatter += rows.T @ rows
        spread, axes = np.linalg.eigh(scatter)
        spread, axes = spread[::-1], axes[:, ::-1]
    else:
        _, singular, transposed = np.linalg.svd(space.rows(sample) - mean, full_matrices=False)
        spread, axes = singular**2, transposed.T
    axes = axes[:, :2]
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    picture = Plane(np.zeros((space.n, 2)), _first_two(spread), mean, axes)
    for low in range(0, space.n, step):
        part = slice(low, low + step)
        picture.points[part] = picture.project(space.rows(space.items[part]))
    return picture


def plane_of_distances(distances: Array) -> Plane:
    """The pool by classical scaling: exact for up to LANDMARKS items, beyond that placed by their distances to those.

    De Silva & Tenenbaum 2004, Sparse multidimensional scaling using landmark points. `project` takes rows of squared
    distances to the landmarks.
    """
    n = len(distances)
    marks = np.arange(n) if n <= LANDMARKS else np.linspace(0, n - 1, LANDMARKS).astype(np.int64)
    squares = distances[np.ix_(marks, marks)].astype(np.float64) ** 2
    mean = squares.mean(axis=0)
    spread, vectors = np.linalg.eigh(-0.5 * (squares - mean - mean[:, None] + mean.mean()))
    spread, vectors = spread[::-1], vectors[:, ::-1][:, :2]
    real = np.maximum(spread[:2], 0.0)
    axes = vectors * np.where(real > 0, -0.5 / np.sqrt(np.where(real > 0, real, 1.0)), 0.0)
    axes = axes * np.where(axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])] < 0, -1.0, 1.0)
    picture = Plane(np.zeros((n, 2)), _first_two(spread), mean, axes)
    step = max(1, BLOCK_CELLS // len(marks))
    for low in range(0, n, step):
        picture.points[low : low + step] = picture.project(distances[low : low + step, marks].astype(np.float64) ** 2)
    return picture


def _first_two(spread: Floats) -> float:
    """The share of the variance that the two largest components show."""
    whole = float(np.maximum(spread, 0.0).sum())
    return float(np.maximum(spread[:2], 0.0).sum()) / whole if whole > 0 else 1.0


def spaced(coverage: Coverage, picks: Ints, count: int) -> Ints:
    """Positions in `coverage.items` of `count` items that were not picked, evenly from best to worst covered."""
    rest = np.flatnonzero(~np.isin(coverage.items, picks))
    if len(rest) == 0:
        return rest
    ranked = rest[np.argsort(coverage.distance[rest], kind="stable")]
    return ranked[np.unique(np.linspace(0, len(ranked) - 1, min(count, len(ranked))).round().astype(np.int64))]
