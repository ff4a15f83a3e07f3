"""The loops of products of posteriors: chains over choices of draws, and Brownian bridges within layers."""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numba import types

from kofn.core.arrays import Floats, Ints
from kofn.core.compiled import INNER, OUTER

_ROWS, _VECTOR, _NUMBERS, _COUNTS = types.float64[:, ::1], types.float64[::1], types.int64[::1], types.int64[:, ::1]
# A series ends at terms below this.
_LEAST = 1e-18
# The share of the sweeps before a draw in which the chain cools.
_COOLING = 0.75


@nb.njit(
    types.Tuple((_ROWS, types.int64))(
        _ROWS, _NUMBERS, _VECTOR, types.boolean, types.int64, types.float64, types.int64, types.npy_rng
    ),
    **OUTER,
)
def walk(
    rows: Floats,
    starts: Ints,
    fitted: Floats,
    around: bool,
    draws: int,
    bandwidth: float,
    sweeps: int,
    rng: np.random.Generator,
) -> tuple[Floats, int]:  # pragma: no cover
    """Draws of a chain over choices of one row a shard, so many sweeps apart, and how many proposals were taken.

    A choice at a narrow bandwidth h moves in small steps. Before each draw the chain is heated: its bandwidth falls
    geometrically from the spread of a shard, at which most proposals are taken, to h, at which the last sweeps stay;
    around Gaussian fits these enter as it falls, for wide kernels divided by them lie in the fits' tails.
    The log weight of a choice with mean c and squares q = sum |row|^2 is -(q - m |c|^2) / (2 h^2); around Gaussian fits
    also that of c under their standard product, widened by h^2 / m, less those of the rows under the fits.
    """
    m, d = len(starts) - 1, rows.shape[1]
    out = np.empty((draws, d))
    chosen = np.empty(m, np.int64)
    total = np.zeros(d)
    for shard in range(m):
        chosen[shard] = starts[shard] + int(rng.random() * (starts[shard + 1] - starts[shard]))
        for axis in range(d):
            total[axis] += rows[chosen[shard], axis]
    accepted = 0
    cooling = math.ceil(_COOLING * sweeps)
    widest, narrowest = math.log(m), 2.0 * math.log(bandwidth)
    h2, cooled = bandwidth * bandwidth, 1.0
    for draw in range(draws):
        for sweep in range(sweeps):
            cooled = min(1.0, (sweep + 1.0) / cooling)
            h2 = math.exp((1.0 - cooled) * widest + cooled * narrowest)
            for shard in range(m):
                old = chosen[shard]
                new = starts[shard] + int(rng.random() * (starts[shard + 1] - starts[shard]))
                own = squares = 0.0
                for axis in range(d):
                    a, b = rows[old, axis], rows[new, axis]
                    moved = total[axis] - a + b
                    own += b * b - a * a
                    squares += (moved * moved - total[axis] * total[axis]) / (m * m)
                gain = -(own - m * squares) / (2 * h2)
                if around:
                    gain -= cooled * (squares / (2 * (1 + h2 / m)) + fitted[new] - fitted[old])
                if gain >= math.log(max(rng.random(), 1e-300)):
                    for axis in range(d):
                        total[axis] += rows[new, axis] - rows[old, axis]
                    chosen[shard] = new
                    accepted += 1
        variance = 1 / (m / h2 + 1) if around else h2 / m
        shrunk = variance * m / h2 if around else 1.0
        for axis in range(d):
            out[draw, axis] = shrunk * total[axis] / m + math.sqrt(variance) * rng.standard_normal()
    return out, accepted


@nb.njit(**INNER)
def _stays(start: float, end: float, gap: float, low: float, high: float) -> float:  # pragma: no cover
    """The chance that a standard bridge over a gap in time stays between low and high, by its alternating series."""
    if not (low < start < high and low < end < high):
        return 0.0
    if gap <= 0.0:
        return 1.0
    width, rate, chance, j = high - low, 2.0 / gap, 1.0, 1
    while True:
        step = width * j
        out = math.exp(-rate * (step + low - start) * (step + low - end))
        out += math.exp(-rate * (step - high + start) * (step - high + end))
        back = math.exp(-rate * j * width * (step + start - end))
        back += math.exp(-rate * j * width * (step - start + end))
        chance += back - out
        if out + back < _LEAST or j > 1000:
            return min(1.0, max(0.0, chance))
        j += 1


@nb.njit("float64(float64, float64, float64, float64, float64)", **OUTER)
def stays(start: float, end: float, gap: float, low: float, high: float) -> float:  # pragma: no cover
    """The chance that a standard bridge over a gap in time stays between low and high."""
    return _stays(start, end, gap, low, high)


@nb.njit("void(float64[:,::1], float64[:,::1], float64, float64, float64[:,::1], int64[:,::1])", **OUTER)
def draw_layers(
    origin: Floats, target: Floats, duration: float, step: float, bar: Floats, layers: Ints
) -> None:  # pragma: no cover
    """The innermost layer that holds each coordinate of each bridge: the first whose chance reaches its bar."""
    for row in range(origin.shape[0]):
        for axis in range(origin.shape[1]):
            a, b = origin[row, axis], target[row, axis]
            low, high, layer = min(a, b), max(a, b), 1
            while layer < 64 and bar[row, axis] > _stays(a, b, duration, low - layer * step, high + layer * step):
                layer += 1
            layers[row, axis] = layer


@nb.njit(**INNER)
def _chance(knots: Floats, times: Floats, count: int, low: float, high: float) -> float:  # pragma: no cover
    """The chance that a bridge through the first knots stays between low and high."""
    chance = 1.0
    for i in range(count - 1):
        chance *= _stays(knots[i], knots[i + 1], times[i + 1] - times[i], low, high)
        if chance == 0.0:
            break
    return chance


@nb.njit(
    types.void(_ROWS, _ROWS, types.float64, types.float64, _NUMBERS, _VECTOR, _COUNTS, types.npy_rng, _ROWS),
    **OUTER,
)
def draw_points(
    origin: Floats,
    target: Floats,
    duration: float,
    step: float,
    offsets: Ints,
    moments: Floats,
    layers: Ints,
    rng: np.random.Generator,
    out: Floats,
) -> None:  # pragma: no cover
    """The points of each bridge at its sorted moments, given the layer of each coordinate.

    By rejection: points of a free bridge are taken with the chance that a path through them has just this layer. A
    layer is drawn as seldom as proposals hit it, so that all layers cost alike on average.
    """
    most = 2
    for row in range(origin.shape[0]):
        most = max(most, offsets[row + 1] - offsets[row] + 2)
    knots, times = np.empty(most), np.empty(most)
    for row in range(origin.shape[0]):
        first, count = offsets[row], offsets[row + 1] - offsets[row]
        if count == 0:
            continue
        times[0], times[count + 1] = 0.0, duration
        for i in range(count):
            times[i + 1] = moments[first + i]
        for axis in range(origin.shape[1]):
            a, b, layer = origin[row, axis], target[row, axis], layers[row, axis]
            low, high = min(a, b), max(a, b)
            knots[0], knots[count + 1] = a, b
            while True:
                for i in range(1, count + 1):
                    gone, left = times[i] - times[i - 1], duration - times[i - 1]
                    spread = math.sqrt(max(gone * (left - gone) / left, 0.0))
                    knots[i] = knots[i - 1] + gone / left * (b - knots[i - 1]) + spread * rng.standard_normal()
                bar = rng.random()
                chance = _chance(knots, times, count + 2, low - layer * step, high + layer * step)
                if chance <= bar:
                    continue
                if layer > 1:
                    chance -= _chance(knots, times, count + 2, low - (layer - 1) * step, high + (layer - 1) * step)
                if chance > bar:
                    break
            for i in range(count):
                out[first + i, axis] = knots[i + 1]
