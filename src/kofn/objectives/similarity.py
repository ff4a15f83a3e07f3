"""The metrics: rows as points, exact distances from differences, and order-independent sums.

Every metric is a distance between points, so that one set of loops serves all:

    metric        points           distance D           similarity
    euclidean     rows             |x - y|              c - D, with c at least the largest D
    sqeuclidean   rows             |x - y|^2            c - D, likewise
    cosine        rows over norm   |x - y|^2 / 4        1 - D = (1 + cos) / 2
    rbf           rows             1 - exp(-|x-y|^2 / (2 s^2))   1 - D, for facility location alone (`rbf_geometry`)

A zero row has no direction. Under `cosine` all zero rows share one extra direction, orthogonal to every other row:
similarity 1/2 to those, 1 to each other.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.core.checks import InputError, choice

FROM_ROWS = ("euclidean", "sqeuclidean", "cosine")
# A bandwidth that is not given is the median distance to this neighbour among so many sampled rows.
NEIGHBOR, SAMPLED = 20, 2_000
# Blocks are sized so that the temporaries stay in the cache of one core.
_CACHE = 1 << 17
# Differences of entries that compiled code takes some tenths of a second for.
_A_RANGE = 1 << 28
# Above this, float32 has all its digits.
_LEAST_ROUNDED = 2.0**-120
# The largest entry of rows whose squares are to be taken as they are, with room for sums of them.
_LEAST_SQUARED, _MOST_SQUARED = 1e-140, 1e150
_MOST_EXPONENT = 1000
# Units are changed where the largest entry is beyond this power of two.
_MILD_EXPONENT = 16


@dataclass(frozen=True)
class Geometry:
    """Rows of X as points under a metric: the points are `rows * scale[:, None]` in float64, D = unit * their distance.

    `columns` is `rows` transposed, laid out feature by feature once it is asked for. No distance between points exceeds
    `top` = c / unit.
    """

    rows: NDArray[Any]
    scale: Floats  # (n,), or empty where it is 1
    squared: bool
    unit: float
    top: float
    rate: float = 0.0  # above 0, D = 1 - exp(-rate * squared distance between points)

    @functools.cached_property
    def columns(self) -> NDArray[Any]:
        """The rows transposed, in a copy."""
        return np.ascontiguousarray(self.rows.T)

    @property
    def n(self) -> int:
        """Number of rows."""
        return self.rows.shape[0]

    def part(self, items: NDArray[np.int64] | slice) -> Geometry:
        """The geometry of some of the rows."""
        scale = self.scale[items] if len(self.scale) else self.scale
        return dataclasses.replace(self, rows=np.ascontiguousarray(self.rows[items]), scale=scale)

    def points(self, items: NDArray[np.int64] | slice) -> Floats:
        """Float64 coordinates (m, d) of the given rows."""
        rows: Floats = self.rows[items].astype(np.float64)
        return rows * self.scale[items][:, None] if len(self.scale) else rows

    def distances(self, point: Floats, low: int = 0, high: int | None = None) -> Floats:
        """Float64 distance (high - low,) of rows to one point, before `unit`: summed over the features one by one."""
        high = self.n if high is None else high
        out = np.zeros(high - low)
        for start in range(low, high, _CACHE // 8):
            stop = min(start + _CACHE // 8, high)
            total = out[start - low : stop - low]
            for feature, here in zip(self.columns, point, strict=True):
                gap = feature[start:stop].astype(np.float64)
                if len(self.scale):
                    gap *= self.scale[start:stop]
                gap -= here
                gap *= gap
                total += gap
        return self._finished(out)

    def table(self) -> Floats:
        """All distances (n, n) before `unit`, float64: for small pools. Each entry has the bits of `distances`."""
        points = self.points(slice(None))
        columns = np.ascontiguousarray(points.T)
        out = np.empty((self.n, self.n))
        step = max(1, _CACHE // 8 // self.n)
        for start in range(0, self.n, step):
            stop = min(start + step, self.n)
            block = np.zeros((stop - start, self.n - start))
            gap = np.empty_like(block)
            for feature in columns:
                np.subtract(feature[start:stop, None], feature[None, start:], out=gap)
                gap *= gap
                block += gap
            out[start:stop, start:] = block
            out[start:, start:stop] = block.T
        return self._finished(out)

    def _finished(self, squares: Floats) -> Floats:
        """Distances in the place of squared distances between points."""
        if self.rate:
            return self.decayed(squares)
        return squares if self.squared else np.sqrt(squares, out=squares)

    def decayed(self, squares: Floats) -> Floats:
        """1 - exp(-rate * squares), in place, with small values as precise as large ones."""
        squares *= -self.rate
        np.expm1(squares, out=squares)
        return np.negative(squares, out=squares)


def geometry(X: NDArray[Any], metric: str = "euclidean") -> Geometry:
    """Prepare the rows of X for a metric. O(n d) time; float32 stays float32.

    Raises:
        InputError: an unknown metric, or squared distances that float64 cannot hold.
    """
    choice(metric, "metric", FROM_ROWS)
    rows = _lean(np.asarray(X))
    if metric == "sqeuclidean":
        refuse_extremes(rows)
    if metric == "cosine":
        rows, scale = _unit_factors(_in_any_unit(rows))
        top, unit = 4.0, 0.25
    else:
        # A power of two, which is exact, brings extreme units near 1, where squares neither overflow nor vanish.
        exponent = exponent_of(rows)
        if abs(exponent) <= _MILD_EXPONENT:
            exponent = 0
        scale = np.full(len(rows) if exponent else 0, 2.0**-exponent)
        unit = 2.0 ** (exponent if metric == "euclidean" else 2 * exponent)
        most = ceiling(rows, metric)
        if exponent >= _MOST_EXPONENT and not math.isfinite(len(rows) * most):
            largest = float(np.abs(rows).max())
            raise InputError(
                f"X has entries up to {largest:g}, sums of whose distances float64 cannot hold; multiply X by 1e-10"
            )
        top = most / unit
    rows = np.ascontiguousarray(rows)
    return Geometry(rows, scale, metric != "euclidean", unit, top)


def rbf_geometry(X: NDArray[Any], bandwidth: float | None = None) -> tuple[Geometry, float]:
    """Lay the rows of X out for D = 1 - exp(-|x - y|^2 / (2 bandwidth^2)), and the bandwidth that was taken."""
    space = geometry(X, "sqeuclidean")
    if bandwidth is None:
        bandwidth = usual_bandwidth(X)
    rate = 0.5 * (math.sqrt(space.unit) / bandwidth) ** 2
    return dataclasses.replace(space, unit=1.0, top=1.0, rate=rate), bandwidth


def usual_bandwidth(X: NDArray[Any]) -> float:
    """Median distance to the 20th nearest of 2,000 sampled rows (of all rows where there are fewer).

    Where half of the rows have 20 copies, the mean distance in its place, and 1 where all rows are the same. The sample
    is drawn with a fixed seed. O(2,000^2 d) time at most, and 32 MB.
    """
    if len(X) > SAMPLED:
        X = X[np.sort(np.random.default_rng(0).choice(len(X), SAMPLED, replace=False))]
    space = geometry(X, "sqeuclidean")
    m, d = space.rows.shape
    if is_small(m, d):
        squares = space.table()
    else:
        from kofn.core.distance_kernels import LANES
        from kofn.objectives import _kernels

        points, squares = space.points(slice(None)), np.empty((m, m))
        _kernels.distances(space.columns, space.scale, points, True, 0, -(-m // LANES), squares)
    which = min(NEIGHBOR, m - 1)
    bandwidths = np.sqrt(np.partition(squares, which, axis=1)[:, which])
    width = float(np.median(bandwidths)) or float(np.sqrt(squares).mean())
    return math.sqrt(space.unit) * width or 1.0


def ceiling(rows: NDArray[Any], metric: str) -> float:
    """A distance that no two rows exceed: c of the table above. Twice the largest distance to the centroid, rounded up.

    It is a float32, so that compiled loops in either precision subtract from the same number.
    """
    if metric == "cosine":
        return 1.0
    if metric == "sqeuclidean":
        refuse_extremes(rows)
    size = 2.0 ** exponent_of(rows)
    centre = (
        (rows / size).mean(axis=0, dtype=np.float64) if size > 2.0**500 else rows.mean(axis=0, dtype=np.float64) / size
    )
    radius = 0.0
    step = max(1, _CACHE // rows.shape[1])
    for start in range(0, len(rows), step):
        gap = rows[start : start + step] / size - centre
        radius = max(radius, float(np.einsum("ij,ij->i", gap, gap).max()))
    return ceiling_within(math.sqrt(radius) * size, metric)


def ceiling_within(radius: float, metric: str) -> float:
    """The same of rows that are no farther than `radius` from their centroid, or from any one point."""
    if metric == "cosine":
        return 1.0
    reach = 2 * radius * (1 + 1e-6)
    if metric == "sqeuclidean":
        reach *= reach
    return _rounded_up(reach)


def exact_sum(terms: Floats, of: int | None = None) -> float:
    """Correctly rounded sum of terms >= 0, independent of their order; `of` counts those that are 0 and left out too.

    Fixed point in two parts of 62 - log2(n) and 38 bits, counted from the largest term: where terms differ by less than
    2^80, that is the exact sum.
    """
    return exact_pair(terms, of)[0]


def exact_pair(terms: Floats, of: int | None = None) -> tuple[float, float]:
    """The sum of `exact_sum`, and what its rounding left out."""
    most = float(terms.max(initial=0.0))
    if most == 0.0:
        return 0.0, 0.0
    scale, fine = fixed_point(most, len(terms) if of is None else of)
    scaled = np.ldexp(terms, scale)
    whole = np.rint(scaled)
    part = np.rint(np.ldexp(scaled - whole, fine))
    total = (int(whole.astype(np.int64).sum()) << fine) + int(part.astype(np.int64).sum())
    rounded = float(total)
    return math.ldexp(rounded, -scale - fine), math.ldexp(float(total - int(rounded)), -scale - fine)


def add_exactly(high: Floats, low: Floats, terms: Floats, units: Any = slice(None)) -> None:
    """Add terms to sums of two floats each, in place: `high` is the rounded sum, `low` what its rounding left out.

    The order of the terms changes nothing where they differ by less than about 2^40.
    """
    before, left = high[units], low[units]
    total = before + terms
    added = total - before
    left = left + ((before - (total - added)) + (terms - added))
    high[units] = total + left
    low[units] = left - (high[units] - total)


def fixed_point(most: float, n: int) -> tuple[int, int]:
    """Powers of two (units, parts of a unit) with which n terms up to `most` add up in 64-bit integers."""
    return 62 - math.frexp(most)[1] - n.bit_length(), 38


def from_fixed_point(whole: int, part: int, scale: int, fine: int) -> float:
    """Convert two integer sums back to a float, rounded once."""
    return math.ldexp(float((whole << fine) + part), -scale - fine)


def pairwise_distances(
    X: NDArray[Any], metric: str = "euclidean", *, n_threads: int | None = None
) -> NDArray[np.floating[Any]]:
    """All distances (n, n) between rows, symmetric with a zero diagonal, from differences, in the precision of X.

    `cosine` is 1 - cos. Small pools take NumPy, larger ones compiled tiles over `n_threads` threads: O(n^2 d) time; no
    memory beside the result but O(n d).

    Examples:
        >>> pairwise_distances(np.array([[0.0, 0.0], [3.0, 4.0]])).tolist()
        [[0.0, 5.0], [5.0, 0.0]]
    """
    space = geometry(X, metric)
    unit = 0.5 if metric == "cosine" else space.unit
    n, kind = space.n, np.float32 if X.dtype == np.float32 else np.float64
    if is_small(space.n, space.rows.shape[1]):
        out = space.table()
        out *= unit
        return out.astype(kind, copy=False)
    from kofn.core.distance_kernels import LANES, distance_rows, scratch
    from kofn.engines.threads import cores, spread

    rows, columns = space.rows.astype(kind, copy=False), space.columns.astype(kind, copy=False)
    out, everyone = np.empty((n, n), kind), np.arange(n)

    def fill(low: int, high: int) -> None:
        lanes, tile = scratch(rows.shape[1], kind)
        distance_rows(rows, columns, space.scale, everyone, space.squared, unit, low, high, lanes, tile, out)

    # Ctrl-C is taken between two ranges.
    spread(fill, -(-n // LANES), cores(n_threads), shares=4 + n * n * rows.shape[1] // _A_RANGE)
    return out


def is_small(n: int, d: int) -> bool:
    """Whether NumPy is faster than loading compiled code for all n x n distances."""
    return n <= 2048 and n * n * d <= 2**30


def refuse_extremes(rows: NDArray[Any], name: str = "X", *, small: bool = True) -> None:
    """Refuse rows whose squares float64 cannot hold with all their digits.

    Args:
        rows: the rows.
        name: what they are called.
        small: whether rows are refused whose squares vanish, too.

    Raises:
        InputError: entries beyond 1e150, or none as large as 1e-140.
    """
    largest = max(abs(float(rows.max())), abs(float(rows.min())))
    if largest > _MOST_SQUARED or (small and 0 < largest < _LEAST_SQUARED):
        power = -math.floor(math.log10(largest))
        limit = "; beyond 1e150" if largest > _MOST_SQUARED else " and no larger; below 1e-140"
        raise InputError(
            f"{name} has entries up to {largest:g}{limit} there may be sums and differences whose "
            f"squares float64 cannot hold; multiply {name} by 1e{power}"
        )


def exponent_of(rows: NDArray[Any]) -> int:
    """e with every |entry| < 2^e, or near it where float64 has no 2^e or no 2^-e."""
    exponent = math.frexp(max(abs(float(rows.max())), abs(float(rows.min()))))[1]
    return min(max(exponent, -_MOST_EXPONENT), _MOST_EXPONENT)


def _lean(rows: NDArray[Any]) -> NDArray[Any]:
    """Convert to float32 if that is lossless, else float64."""
    if rows.dtype == np.float32:
        return rows
    rows = rows.astype(np.float64, copy=False)
    with np.errstate(over="ignore"):
        half = rows.astype(np.float32)
    return half if np.array_equal(half, rows) else rows


def _in_any_unit(rows: NDArray[Any]) -> NDArray[Any]:
    """Rows in an extreme unit, in float32 where they would be in another one; their cosines are the same."""
    exponent = exponent_of(rows)
    if rows.dtype == np.float32 or abs(exponent) <= _MILD_EXPONENT:
        return rows
    half = _lean(np.ldexp(rows, -exponent))
    lossless = half.dtype == np.float32 and np.array_equal(np.ldexp(half.astype(np.float64), exponent), rows)
    return half if lossless else rows


def _unit_factors(rows: NDArray[Any]) -> tuple[NDArray[Any], Floats]:
    """Rows and the factors that make them unit vectors; rows of zeros get a direction of their own."""
    largest = np.abs(rows).max(axis=1).astype(np.float64)
    zero = largest == 0
    largest[zero] = 1
    norms = np.empty(len(rows))
    step = max(1, _CACHE // rows.shape[1])
    for start in range(0, len(rows), step):
        # Relative to the largest entry, so that squares of extreme values neither overflow nor vanish.
        block = rows[start : start + step] / largest[start : start + step, None]
        norms[start : start + step] = np.sqrt(np.einsum("ij,ij->i", block, block))
    if zero.any():
        rows = np.column_stack([rows, zero.astype(rows.dtype)])
        norms[zero] = 1
    return rows, 1 / (norms * largest)


def _rounded_up(value: float) -> float:
    """The next float32, or the value itself where float32 has none."""
    if 0 < value < _LEAST_ROUNDED:
        # Below, float32 has fewer digits; a power of two changes none.
        mantissa, exponent = math.frexp(value)
        return math.ldexp(_rounded_up(mantissa), exponent)
    with np.errstate(over="ignore"):
        near = np.float32(value)
    return value if value == 0 or not np.isfinite(near) else float(np.nextafter(near, np.float32(np.inf)))
