"""Amounts that candidates contribute to units: dense rows, sparse entries, or similarities from coordinates.

A unit is a feature, an element to cover, or an item of the pool; an amount is a feature's value, a membership, or a
similarity. All classes share an interface:

    sums(candidates, worth)   sum over the units of worth(amounts, units), for many candidates
    own(candidate)            the units that one candidate contributes to, and the amounts
    totals(weights)           the weighted sum over all candidates, for each unit

Totals do not depend on the order of the candidates, but for sparse rows compared by their cosines. A candidate's sum is
taken in the same order whoever else is asked for, and rounding keeps the order of sums whose terms only fall: where a
set function is submodular, its gains in float64 never rise from one pick to the next.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks, vocabulary
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.engines.threads import cores, spread
from kofn.objectives._sparse_points import SparseSimilar, scratch_of
from kofn.objectives._units import Amounts, Units, Worth
from kofn.objectives.similarity import Geometry, fixed_point, geometry, is_small

_ALL = slice(None)
# What parts a whole number of 62 bits in two that may be added up as floats.
_HALF = 1 << 31
# Amounts looked at together: the temporaries stay in the cache of one core.
_AT_ONCE = 1 << 18
# Bytes beside X for each item: totals, gains and the search's copy of them.
_BYTES_AN_ITEM = 8 * 24
# Amounts, what is left to reach, terms, and a copy on the way.
_TEMPORARIES = 5


class Dense:
    """Row j of a matrix holds the amounts of candidate j; `turned` reads columns instead."""

    rounding = 0.0

    def __init__(self, table: NDArray[Any], *, turned: bool = False) -> None:
        self.table = table.T if turned else table
        self.n, self.units = self.table.shape
        self.longest = self.units
        self.pairs = 0
        self.poll: Callable[[], None] | None = None

    def sums(self, candidates: Ints, worth: Worth) -> Floats:
        out = np.empty(len(candidates))
        step = max(1, _AT_ONCE // self.units)
        for low in range(0, len(candidates), step):
            if low and self.poll is not None:
                self.poll()
            # Rows that lie together: then each is summed in the same order, however many there are.
            block = np.ascontiguousarray(self.table[candidates[low : low + step]], np.float64)
            out[low : low + step] = np.ascontiguousarray(worth(block, _ALL)).sum(axis=1)
        self.pairs += len(candidates) * self.units
        return out

    def own(self, candidate: int) -> tuple[Units, Floats]:
        self.pairs += self.units
        return _ALL, self.table[candidate].astype(np.float64)

    def totals(self, weights: Floats | None = None) -> Floats:
        sums = np.zeros(self.units, np.int64)
        most = float(self.table.max(initial=0)) * (1.0 if weights is None else float(weights.max(initial=0.0)))
        scale = fixed_point(most, self.n)[0]
        step = max(1, _AT_ONCE // self.units)
        for low in range(0, self.n, step):
            block = self.table[low : low + step].astype(np.float64)
            terms = block if weights is None else block * weights[low : low + step, None]
            sums += _in_units(terms, scale).sum(axis=0)
        self.pairs += self.n * self.units
        return np.ldexp(sums.astype(np.float64), -scale)


class Entries:
    """The entries of a SciPy-sparse matrix, candidate by row; only entries take time."""

    rounding = 0.0

    def __init__(self, table: Any) -> None:
        self.n, self.units = table.shape
        self.starts, self.which, self.data = table.indptr.astype(np.int64), table.indices, table.data
        self.longest = int(np.diff(self.starts).max(initial=0))
        self.pairs = 0
        self.poll: Callable[[], None] | None = None

    def sums(self, candidates: Ints, worth: Worth) -> Floats:
        out = np.empty(len(candidates))
        first = self.starts[candidates]
        lengths = self.starts[candidates + 1] - first
        before = np.concatenate([[0], np.cumsum(lengths)])
        low = 0
        while low < len(candidates):
            if low and self.poll is not None:
                self.poll()
            high = max(low + 1, int(np.searchsorted(before, before[low] + _AT_ONCE, side="right")) - 1)
            length = lengths[low:high]
            candidate = np.repeat(np.arange(high - low), length)
            entries = np.arange(before[low], before[high]) + np.repeat(first[low:high] - before[low:high], length)
            terms = worth(self.data[entries].astype(np.float64), self.which[entries])
            # Counted in the order of the entries.
            out[low:high] = np.bincount(candidate, terms, high - low)
            low = high
        self.pairs += int(lengths.sum())
        return out

    def own(self, candidate: int) -> tuple[Units, Floats]:
        entries = slice(self.starts[candidate], self.starts[candidate + 1])
        self.pairs += int(entries.stop - entries.start)
        return self.which[entries], self.data[entries].astype(np.float64)

    def totals(self, weights: Floats | None = None) -> Floats:
        self.pairs += len(self.data)
        terms = self.data.astype(np.float64)
        if weights is not None:
            terms *= np.repeat(weights, np.diff(self.starts))
        scale = fixed_point(float(terms.max(initial=0.0)), self.n)[0]
        # Halves whose sums are whole numbers that a float holds.
        high, low = np.divmod(_in_units(terms, scale), _HALF)
        sums = np.bincount(self.which, high, self.units) * float(_HALF) + np.bincount(self.which, low, self.units)
        return np.ldexp(sums, -scale)


class Similar:
    """Similarities c - distance between rows, computed on demand without an n x n table.

    c is the largest distance of the pool, found in one pass over all pairs when it is first needed; for `cosine` it
    is 1 - (1 - cos) / 2 = (1 + cos) / 2, and there is nothing to find.
    """

    def __init__(self, space: Geometry, metric: str, n_threads: int | None) -> None:
        self.space, self.n, self.units, self.longest, self.pairs = space, space.n, space.n, space.n, 0
        self.poll: Callable[[], None] | None = None
        self.n_threads = cores(n_threads)
        self._top: float | None = 4.0 if metric == "cosine" else None

    @property
    def top(self) -> float:
        """c, in the unit of the space."""
        if self._top is None:
            self.totals()
        assert self._top is not None
        return self._top

    @property
    def rounding(self) -> float:
        """Totals are c for everyone, less a sum of distances; both are as large as c."""
        return 4 * (self.n + 8) * 2.0**-53 * self.space.unit * self.top

    def sums(self, candidates: Ints, worth: Worth) -> Floats:
        out, top = np.empty(len(candidates)), self.top

        def work(low: int, high: int) -> None:
            distances = self._distances(candidates[low:high])
            out[low:high] = worth(self._similarity(distances, top), _ALL).sum(axis=1)

        self._blocks(len(candidates), work)
        return out

    def own(self, candidate: int) -> tuple[Units, Floats]:
        self.pairs += self.n
        return _ALL, self._similarity(self._distances(np.array([candidate], np.int64))[0], self.top)

    def totals(self, weights: Floats | None = None) -> Floats:
        sums, most = np.empty(self.n), np.empty(self.n)
        scale = fixed_point(self.space.top * (1.0 if weights is None else float(weights.max(initial=0.0))), self.n)[0]

        def work(low: int, high: int) -> None:
            distances = self._distances(np.arange(low, high))
            most[low:high] = distances.max(axis=1)
            terms = distances if weights is None else distances * weights
            sums[low:high] = np.ldexp(_in_units(terms, scale).sum(axis=1).astype(np.float64), -scale)

        self._blocks(self.n, work)
        if self._top is None:
            self._top = float(most.max())
        everyone = self.n if weights is None else math.fsum(weights.tolist())
        return self.space.unit * np.maximum(everyone * self._top - sums, 0.0)

    def _similarity(self, distances: Floats, top: float) -> Floats:
        return self.space.unit * np.maximum(top - distances, 0.0)

    def _distances(self, candidates: Ints) -> Floats:
        """Float64 distances (candidates, n) from differences, their bits those of `Geometry.distances`."""
        from kofn.core import distance_kernels as tiles
        from kofn.objectives import _kernels

        space = self.space
        points = space.points(candidates)
        out = np.empty((len(points), self.n))
        blocks = -(-self.n // tiles.LANES)
        _kernels.distances(space.columns, space.scale, points, space.squared, 0, blocks, out)
        return out

    def _blocks(self, count: int, work: Callable[[int, int], None]) -> None:
        """Work over blocks of candidates on all threads, asking now and then whether to go on."""
        step = _together(self.n)

        def run(skipped: int, low: int, high: int) -> None:
            for block in range(skipped + low, skipped + high):
                work(block * step, min((block + 1) * step, count))

        blocks = -(-count // step)
        # About a second's worth.
        turn = max(self.n_threads, (1 << 26) // (step * self.n))
        for low in range(0, blocks, turn):
            if low and self.poll is not None:
                self.poll()
            spread(functools.partial(run, low), min(turn, blocks - low), self.n_threads, shares=4)
        self.pairs += count * self.n


def _in_units(terms: Floats, scale: int) -> Ints:
    """Terms as whole numbers of 2^-scale, whose sums are the same in any order."""
    return np.rint(np.ldexp(terms, scale)).astype(np.int64)


def _together(n: int) -> int:
    """Number of candidates evaluated together."""
    return max(4, _AT_ONCE // n // 4 * 4)


def similarities(
    X: Any, similarity: Any, metric: str, max_memory: int | None, n_threads: int | None, label: str
) -> tuple[Amounts, Amounts, NDArray[Any]]:
    """Similarities of everyone to a candidate, those of a candidate to everyone (the same holder where they are
    equal), and the checked input.

    Raises:
        InputError: not exactly one of X and similarity, bad values, or `max_memory` too small.
    """
    vocabulary.metric(metric)
    if (X is None) == (similarity is None):
        raise InputError(f"{label} needs X or similarity, one of them; give vectors or an (n, n) matrix")
    if metric == "precomputed" and similarity is None:
        X, similarity = None, X
    if similarity is not None:
        return _given(checks.square(similarity, "similarity"))
    if checks.is_sparse(X):
        return _of_sparse(X, metric, max_memory, n_threads, label)
    rows = checks.matrix(X)
    n, d = rows.shape
    room = math.inf if max_memory is None else max_memory
    refuse_memory(n, d, rows.itemsize, max_memory, n_threads, label)
    space = geometry(rows, metric)
    if is_small(n, d) and 32 * n * n <= room:
        # Small pools are held as a table: NumPy has it before compiled code is loaded.
        table = space.table()
        top = 4.0 if metric == "cosine" else float(table.max())
        small = Dense(space.unit * np.maximum(top - table, 0.0))
        small.pairs = n * n
        return small, small, rows
    wide = Similar(space, metric, n_threads)
    return wide, wide, rows


def refuse_memory(n: int, d: int, size: int, max_memory: int | None, n_threads: int | None, label: str) -> None:
    """Refuse a `max_memory` that similarities of rows like these would not keep.

    Args:
        n: rows.
        d: features.
        size: bytes of a number that is computed with, 4 or 8.
        max_memory: the bytes allowed beside X; None for any.
        n_threads: threads of the call.
        label: what the objective is called.

    Raises:
        InputError: it is too little.
    """
    least = n * (_BYTES_AN_ITEM + 4 * d * size) + cores(n_threads) * _TEMPORARIES * 8 * n * _together(n)
    if max_memory is not None and max_memory < least:
        raise InputError(
            f"max_memory={max_memory} is too little for {label} on {n} rows of {d} features; "
            f"give at least {least} bytes"
        )


def _of_sparse(
    X: Any, metric: str, max_memory: int | None, n_threads: int | None, label: str
) -> tuple[Amounts, Amounts, Any]:
    from kofn.objectives._sparse_rows import cosine_rows

    rows = cosine_rows(X, metric)
    least = scratch_of(rows, _BYTES_AN_ITEM)
    if max_memory is not None and max_memory < least:
        raise InputError(
            f"max_memory={max_memory} is too little for {label} on {rows.shape[0]} sparse rows of {rows.nnz} entries; "
            f"give at least {least} bytes"
        )
    wide = SparseSimilar(rows, n_threads)
    return wide, wide, rows


def _given(similarity: Any) -> tuple[Amounts, Amounts, NDArray[Any]]:
    if checks.is_sparse(similarity):
        toward = Entries(similarity.T.tocsr())
        turned = similarity - similarity.T
        same = not turned.nnz or not turned.data.any()
        return toward, toward if same else Entries(similarity.tocsr()), similarity
    step = max(1, _AT_ONCE // len(similarity))
    cuts = range(0, len(similarity), step)
    if all(np.array_equal(similarity[low : low + step], similarity[:, low : low + step].T) for low in cuts):
        both = Dense(similarity)
        return both, both, similarity
    return Dense(similarity, turned=True), Dense(similarity), similarity
