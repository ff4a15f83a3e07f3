"""Measure what each tensor of a checkpoint loses at each number of bits, or of its weights left."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.allocation.checkpoints import _kernels
from kofn.allocation.checkpoints._statistics import CURVATURE, DIAGONAL, GRAM, NONE, SCALE, Statistic
from kofn.allocation.checkpoints._weights import Weight, as_groups
from kofn.core.arrays import Floats, Ints, Singles
from kofn.core.checks import InputError
from kofn.core.runtime import Control
from kofn.engines.threads import cores, spread

# Bins of the upper halves of scores: 8 bits of exponent and 7 of mantissa.
_BINS = 1 << 15
# Blocks a thread does between two looks at the clock.
_TURN = 4
# Histograms of a tensor that are added up at the end: their number does not depend on the threads.
_PARTS = 8


@dataclass(frozen=True, slots=True)
class Curve:
    """What one tensor loses.

    Attributes:
        errors: (2, L) squared error at each level, affine and symmetric; of pruning both are the same.
        signal: the sum of squares of the weights themselves, weighted alike.
    """

    errors: Floats
    signal: float


Block = tuple[int, int, int]


def rounding_curves(
    weights: Sequence[Weight],
    statistics: Sequence[Statistic],
    bits: Sequence[int],
    n_threads: int | None,
    progress: Any,
) -> list[Curve]:
    """The error of every weight's rounding to each number of bits.

    Reads the weights once, on all threads, in blocks; sums are those of the blocks in order, whatever the threads.
    """
    levels = np.asarray(bits, np.int64)
    blocks = _blocks(weights, statistics)
    errors, squares = np.zeros((len(blocks), 2, len(levels))), np.zeros((len(blocks), 1))
    shared = [_Weighting(weight, statistic) for weight, statistic in zip(weights, statistics, strict=True)]

    def measure(i: int) -> None:
        position, start, stop = blocks[i]
        weight = weights[position]
        values = weight.read(start, stop)
        with np.errstate(all="ignore"):
            shared[position].add(start, values, levels, errors[i], squares[i])
        if not (squares[i, 0] >= 0 and math.isfinite(squares[i, 0]) and (np.abs(errors[i]) < np.inf).all()):
            weight.refuse(start, values)
            raise InputError(
                f"statistics of tensor {weight.name!r} give it an error that is negative or not finite (weights "
                f"{start} to {stop}); they are means of squares, finite and >= 0"
            )

    _over(blocks, measure, n_threads, progress)
    return _summed(weights, blocks, errors, squares)


def pruning_curves(
    weights: Sequence[Weight],
    statistics: Sequence[Statistic],
    kept: Sequence[int],
    n_threads: int | None,
    progress: Any,
) -> list[Curve]:
    """The error of leaving out all but so many percent of each weight, the smallest scores first.

    A score is a weight's square, times what the statistic says of it. Errors are sums over bins of scores that differ
    by less than 1%; the last one is cut in proportion.
    """
    curves: list[Curve] = []
    total, done = sum(weight.size for weight in weights), 0
    with Control(progress=progress, total=total, title="measuring") as control:
        for weight, statistic in zip(weights, statistics, strict=True):
            counts, sums = _histogram(weight, statistic, n_threads)
            done += weight.size
            control.step(done)
            if control.stopped():
                raise KeyboardInterrupt
            below, lost = np.append(0, np.cumsum(counts)), np.append(0.0, np.cumsum(sums))
            cut = np.array([weight.size - left_of(weight.size, percent) for percent in kept])
            errors = np.interp(cut, below, lost)
            if statistic.kind == SCALE:
                errors *= float(statistic.array().reshape(()))
            curves.append(Curve(np.stack([errors, errors]), float(lost[-1])))
    return curves


def left_of(size: int, percent: int) -> int:
    """How many of so many weights are left at this percentage, at most."""
    return size * percent // 100


def scores_of(weight: Weight, statistic: Statistic, start: int, values: Singles) -> Singles:
    """What leaving out each weight of a block costs."""
    with np.errstate(over="ignore"):
        scores = values * values
    if statistic.kind in (DIAGONAL, GRAM):
        own = statistic.array()
        inputs = np.ascontiguousarray(np.diagonal(own)) if statistic.kind == GRAM else own
        scores = scores.reshape(-1, weight.width) * inputs
        scores = np.ascontiguousarray(scores).reshape(-1)
    elif statistic.kind == CURVATURE:
        scores *= statistic.block(start, start + len(values))
    return scores


def _histogram(weight: Weight, statistic: Statistic, n_threads: int | None) -> tuple[Ints, Floats]:
    """How many scores each bin holds, and their sum."""
    blocks = list(weight.blocks(rows=True))
    parts = min(_PARTS, len(blocks))
    counts, sums = np.zeros((parts, _BINS), np.int64), np.zeros((parts, _BINS))

    def count(low: int, high: int) -> None:
        for part in range(low, high):
            for start, stop in blocks[part::parts]:
                values = weight.read(start, stop)
                scores = scores_of(weight, statistic, start, values)
                if not np.isfinite(scores.sum(dtype=np.float64)) or (len(scores) and scores.min() < 0):
                    weight.refuse(start, values)
                    raise InputError(
                        f"{weight.tensor.path}: a score of tensor {weight.name!r} is negative or not finite; its "
                        "statistics must be finite and >= 0"
                    )
                _kernels.count_scores(scores, counts[part], sums[part])

    spread(count, parts, cores(n_threads))
    return counts.sum(axis=0), sums.sum(axis=0)


class _Weighting:
    """How a weight's errors are added up."""

    def __init__(self, weight: Weight, statistic: Statistic) -> None:
        self.weight, self.statistic = weight, statistic

    @functools.cached_property
    def inputs(self) -> Singles:
        """The statistic as it is used: of a diagonal, a row for each group of a row of weights."""
        own = self.statistic.array()
        return own.reshape(-1, self.weight.group) if self.statistic.kind == DIAGONAL else own

    def add(self, start: int, values: Singles, levels: Ints, errors: Floats, squares: Floats) -> None:
        """Add the errors of a block."""
        weight, kind = self.weight, self.statistic.kind
        groups = as_groups(weight, values)
        if kind in (NONE, SCALE):
            _kernels.add_errors(groups, levels, weight.kind, errors, squares)
            if kind == SCALE:  # what an error costs, relative to the tensor's size
                errors *= float(self.inputs.reshape(()))
        elif kind == GRAM:
            self._add_products(groups, levels, errors, squares)
        else:
            rows = (
                self.inputs if kind == DIAGONAL else as_groups(weight, self.statistic.block(start, start + len(values)))
            )
            first = start // weight.group if kind == DIAGONAL else 0
            _kernels.add_weighted_errors(groups, rows, first, levels, weight.kind, errors, squares)

    def _add_products(self, groups: NDArray[np.float32], levels: Ints, errors: Floats, squares: Floats) -> None:
        """Add e G e^T over the rows e of the errors of a block."""
        weight = self.weight
        rows = groups.reshape(-1, weight.width)
        squares[0] += float(np.einsum("ij,ij->", rows @ self.inputs, rows, dtype=np.float64))
        rounded = np.empty_like(groups)
        for symmetric in range(2):
            for i, bits in enumerate(levels.tolist()):
                _kernels.round_groups(groups, bits, symmetric == 1, weight.kind, rounded)
                gaps = rounded.reshape(rows.shape) - rows
                errors[symmetric, i] += float(np.einsum("ij,ij->", gaps @ self.inputs, gaps, dtype=np.float64))


def _blocks(weights: Sequence[Weight], statistics: Sequence[Statistic]) -> list[Block]:
    return [
        (position, start, stop)
        for position, (weight, statistic) in enumerate(zip(weights, statistics, strict=True))
        for start, stop in weight.blocks(rows=statistic.kind == GRAM)
    ]


def _over(blocks: Sequence[Block], measure: Callable[[int], None], n_threads: int | None, progress: Any) -> None:
    """Measure all blocks on all threads, and stop at an interrupt."""
    threads = cores(n_threads)
    turn, done = _TURN * threads, 0
    total = sum(stop - start for _, start, stop in blocks)
    with Control(progress=progress, total=total, title="measuring") as control:
        for low in range(0, len(blocks), turn):
            count = min(turn, len(blocks) - low)

            def work(first: int, last: int, low: int = low) -> None:
                for i in range(low + first, low + last):
                    measure(i)

            spread(work, count, threads, shares=_TURN)
            done += sum(stop - start for _, start, stop in blocks[low : low + count])
            control.step(done)
            if control.stopped():
                raise KeyboardInterrupt


def _summed(weights: Sequence[Weight], blocks: Sequence[Block], errors: Floats, squares: Floats) -> list[Curve]:
    owner = np.array([position for position, _, _ in blocks])
    out = []
    for position in range(len(weights)):
        mine = np.flatnonzero(owner == position)
        out.append(Curve(errors[mine].sum(axis=0), math.fsum(squares[mine, 0].tolist())))
    return out
