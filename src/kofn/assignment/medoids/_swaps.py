"""The swap phase of k-medoids: where distances come from, what each point knows, which swap is next."""

from __future__ import annotations

import heapq
import math
import sys
from collections.abc import Callable, Iterator
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints, Reals
from kofn.core.checks import InputError
from kofn.objectives.similarity import Geometry, geometry, is_small, pairwise_distances

# A swap counts as an improvement beyond this share of the loss, well above rounding and below the 1e-9 that is
# promised.
_TOLERANCE = 1e-10
# Two swaps whose changes differ by less than this share of the loss count as equal, and the first one is taken.
_MARGIN = 1e-13
_PAIRS_AT_ONCE = 2**22
_INITS = ("lab", "build", "random")
# Seconds that it takes to load compiled code, and what was left to NumPy so far.
_LOADING = 0.5
_numpy_seconds: list[float] = []


class Source(Protocol):
    """Rows of distances: row j holds the distance of every point to candidate j."""

    n: int
    evals: int

    def rows(self, candidates: Ints) -> Reals:
        """(len(candidates), n) distances."""
        ...

    def blocks(self) -> Iterator[tuple[int, Reals]]:
        """All rows in order, some at a time, each with its first candidate."""
        ...

    def among(self, items: Ints) -> Reals:
        """(m, m) distances of some points to each other."""
        ...

    def between(self, items: Ints, others: Ints) -> Reals:
        """(m, l) distances of some points to others, to about the rounding of the largest of them."""
        ...


class Matrix:
    """Distances that are there already, read in place."""

    def __init__(self, distances: Reals, evals: int = 0) -> None:
        self._rows = np.ascontiguousarray(distances)
        self.n, self.evals = len(distances), evals

    def rows(self, candidates: Ints) -> Reals:
        """Some rows, copied."""
        return self._rows[candidates]

    def blocks(self) -> Iterator[tuple[int, Reals]]:
        """Views of the matrix."""
        step = max(1, _PAIRS_AT_ONCE // self.n)
        for start in range(0, self.n, step):
            yield start, self._rows[start : start + step]

    def among(self, items: Ints) -> Reals:
        """A submatrix."""
        return self.between(items, items)

    def between(self, items: Ints, others: Ints) -> Reals:
        """A submatrix."""
        out: Reals = self._rows[np.ix_(items, others)]
        return out


class Vectors:
    """Distances from coordinates, computed when asked for: O(n d) a row, and no memory but a block of rows."""

    def __init__(self, space: Geometry, unit: float, n_threads: int | None) -> None:
        self.n, self.evals = space.n, 0
        self._space, self._unit, self._n_threads = space, unit, n_threads

    def rows(self, candidates: Ints) -> Reals:
        """Some rows, from differences, each pair with the same bits in every call."""
        from kofn.assignment.medoids import _kernels
        from kofn.engines.threads import cores, spread
        from kofn.objectives._kernels import LANES, scratch

        space, kind = self._space, self._space.rows.dtype.type
        out = np.empty((len(candidates), self.n), kind)

        def fill(low: int, high: int) -> None:
            lanes, tile = scratch(space.rows.shape[1], kind)
            _kernels.distance_rows(
                space.rows,
                space.columns,
                space.scale,
                candidates,
                space.squared,
                self._unit,
                low,
                high,
                lanes,
                tile,
                out,
            )

        spread(fill, -(-self.n // LANES), cores(self._n_threads), shares=4)
        self.evals += out.size
        return out

    def blocks(self) -> Iterator[tuple[int, Reals]]:
        """Blocks of up to 16 MB in float32."""
        step = max(8, _PAIRS_AT_ONCE // self.n // 8 * 8)
        for start in range(0, self.n, step):
            yield start, self.rows(np.arange(start, min(start + step, self.n)))

    def among(self, items: Ints) -> Reals:
        """By differences of the few points."""
        points = self._space.points(items)
        self.evals += len(items) ** 2
        out = np.stack([((points - point) ** 2).sum(axis=1) for point in points])
        return (out if self._space.squared else np.sqrt(out)) * self._unit

    def between(self, items: Ints, others: Ints) -> Reals:
        """By a matrix product of offsets from the first of the items, near which the others lie."""
        here, there = self._space.points(items), self._space.points(others)
        there -= here[0]
        here = here - here[0]
        squares = -2.0 * (here @ there.T)
        squares += np.einsum("ij,ij->i", here, here)[:, None]
        squares += np.einsum("ij,ij->i", there, there)
        np.maximum(squares, 0.0, out=squares)
        self.evals += squares.size
        return (squares if self._space.squared else np.sqrt(squares, out=squares)) * self._unit


def pool(X: Any, distances: Any, k: int, metric: str) -> tuple[Any, Any]:
    """Rows or distances, of which one is None, checked against k and each other.

    Raises:
        InputError: k above the number of distinct items, both given, or a diagonal that is not zero.
    """
    n = len(X if distances is None else distances)
    if k > n:
        raise InputError(f"k={k} of {n} items: there are only {n} to choose from; ask for k <= {n}")
    if X is not None and distances is not None:
        raise InputError("X and distances are both given; give one of them")
    if distances is None and metric == "precomputed":
        X, distances = None, checks.distances(X, "X")
    if distances is not None:
        _refuse_diagonal(distances)
    if (different := differing(X, distances, k)) < k:
        raise InputError(f"k={k} groups of {n} items, {different} of them distinct; ask for k <= {different}")
    return X, distances


def differing(X: Any, distances: Any, most: int) -> int:
    """How many different items there are, counted up to `most`: rows that are equal entry by entry are one item.

    An even sample usually holds enough of them; only where it does not are all rows hashed.
    """
    n = len(X if distances is None else distances)
    if n > 8 * most + 256:
        some = np.linspace(0, n - 1, 4 * most + 128).astype(np.int64)
        part = X[some] if distances is None else distances[np.ix_(some, some)]
        if len(np.unique(checks.first_equal(part))) >= most:
            return most
    return min(most, len(np.unique(checks.first_equal(X if distances is None else distances))))


def _refuse_diagonal(distances: NDArray[Any]) -> None:
    own = np.abs(np.diagonal(distances))
    at = int(own.argmax())
    if own[at] > 0 and own[at] > 1e-6 * distances.max():
        raise InputError(
            f"distances at row {at}, column {at} is {own[at]:g}; an item's distance to itself must be 0: "
            "use np.fill_diagonal(distances, 0)"
        )


def started(start: Any, k: int) -> Ints:
    """The medoids of `start`.

    Raises:
        InputError: not exactly k of them.
    """
    if len(start) != k:
        raise InputError(f"start has {len(start)} medoids, k={k}; give exactly k")
    return np.asarray(start, np.int64)


def worth_compiling(search: str, n: int, k: int) -> bool:
    """Whether NumPy has been, or would be, busy for longer than compiled code takes to load: guesses add up to that.

    Both paths make the same swaps, so what is loaded already may be used.
    """
    if "kofn.assignment.medoids._kernels" in sys.modules:
        return True
    swaps = k if search != "eager" else 4
    _numpy_seconds.append(swaps * n * (2e-5 + 3e-9 * n * (k if search == "naive" else 1)))
    return sum(_numpy_seconds) > _LOADING


def distinct(X: Any, distances: Any, medoids: Ints) -> int:
    """How many different places the medoids have: fewer than k where distances of 0 join items that differ."""
    if distances is None:
        return len(np.unique(checks.first_equal(X[medoids])))
    same = distances[np.ix_(medoids, medoids)] == 0
    same[np.diag_indices(len(medoids))] = True
    return int((same.argmax(axis=1) == np.arange(len(medoids))).sum())


def source_of(X: Any, distances: Any, metric: str, max_memory: int, n_threads: int | None) -> Source:
    """Distances as given, or from X: as a matrix where that fits into `max_memory`, else row by row."""
    if distances is not None:
        return Matrix(distances)
    space = geometry(X, metric)
    unit = unit_of(space, metric)
    n, d = X.shape
    if is_small(n, d) and 8 * n * n <= max_memory:
        return Matrix(space.table() * unit, evals=n * n)
    if n * n * X.dtype.itemsize <= max_memory:
        return Matrix(pairwise_distances(X, metric, n_threads=n_threads), evals=n * n)
    return Vectors(space, unit, n_threads)


def unit_of(space: Geometry, metric: str) -> float:
    """What a distance between the geometry's points counts: 1 - cos is half the squared chord."""
    return 0.5 if metric == "cosine" else space.unit


def loss_of(X: Any, distances: Any, metric: str, medoids: Ints, labels: NDArray[np.int32], weights: Floats) -> float:
    """Weighted sum of the distances of all points to the medoids that stand for them, recounted in float64."""
    terms: list[float] = []
    if distances is not None:
        own = distances[medoids[labels], np.arange(len(distances))].astype(np.float64)
        return math.fsum((weights * own).tolist())
    space = geometry(X, metric)
    centres = space.points(medoids)
    for low in range(0, space.n, 4096):
        gap = space.points(slice(low, low + 4096)) - centres[labels[low : low + 4096]]
        squares = np.einsum("ij,ij->i", gap, gap)
        terms += (weights[low : low + 4096] * (squares if space.squared else np.sqrt(squares))).tolist()
    return unit_of(space, metric) * math.fsum(terms)


class Swaps:
    """k medoids, and for each point its nearest and second nearest: all that is needed to judge and to make a swap."""

    def __init__(self, source: Source, medoids: Ints, weights: Floats, *, compiled: bool) -> None:
        self.source, self.weights, self.compiled = source, weights, compiled
        self.medoids = medoids.astype(np.int64)
        self.n, self.k = source.n, len(medoids)
        self.is_medoid = np.zeros(self.n, np.uint8)
        self.is_medoid[self.medoids] = 1
        self.to_medoid = np.ascontiguousarray(source.rows(self.medoids).T)
        self.nearest, self.near = self._nearest(self.to_medoid)
        others = self.to_medoid.copy()
        np.put_along_axis(others, self.nearest[:, None].astype(np.int64), np.inf, axis=1)
        self.runner, self.second = self._nearest(others)
        self.removal: Floats = np.bincount(self.nearest, self._regret(), self.k).astype(np.float64)
        self.loss = float((self.weights * self.near).cumsum()[-1])
        self.swaps = self.evaluated = self.unimproved = 0

    @staticmethod
    def _nearest(distances: Reals) -> tuple[NDArray[np.int32], Reals]:
        at = distances.argmin(axis=1)
        return at.astype(np.int32), np.ascontiguousarray(np.take_along_axis(distances, at[:, None], 1)[:, 0])

    def _regret(self) -> Floats:
        """What each point would lose if its nearest medoid went."""
        out: Floats = self.weights * (self.second.astype(np.float64) - self.near.astype(np.float64))
        return out

    @property
    def _state(self) -> tuple[Any, ...]:
        return self.to_medoid, self.nearest, self.runner, self.near, self.second, self.weights, self.removal

    @property
    def labels(self) -> NDArray[np.int32]:
        """The nearest medoid of each point, ties to the lowest place; a medoid stands for itself."""
        labels = self.to_medoid.argmin(axis=1).astype(np.int32)
        labels[self.medoids] = np.arange(self.k, dtype=np.int32)
        return labels

    def eager(self, max_iter: int | None, stopped: Callable[[], bool], step: Callable[[int], None]) -> tuple[bool, int]:
        """FasterPAM: take every candidate in turn and swap at once. Returns whether no swap is left, and the rounds."""
        rounds = 0
        while max_iter is None or rounds < max_iter:
            rounds += 1
            for start, rows in self.source.blocks():
                self.sweep(rows, np.arange(start, start + len(rows)), self.n)
                if self.unimproved >= self.n:
                    return True, rounds
                if stopped():
                    return False, rounds
            step(self.swaps)
        return False, rounds

    def sweep(self, rows: Reals, candidates: Ints, patience: int) -> None:
        """Try some candidates, given with their rows; stop early once `patience` in a row have brought no swap."""
        (self._sweep_compiled if self.compiled else self._sweep)(rows, candidates, patience)

    def _sweep_compiled(self, rows: Reals, candidates: Ints, patience: int) -> None:
        from kofn.assignment.medoids import _kernels

        counts = np.array([self.unimproved, self.swaps, self.evaluated])
        loss = np.array([self.loss])
        known = self.medoids, self.is_medoid, *self._state
        _kernels.sweep(rows, candidates, *known, loss, _TOLERANCE, patience, counts)
        self.unimproved, self.swaps, self.evaluated = counts.tolist()
        self.loss = float(loss[0])

    def _sweep(self, rows: Reals, candidates: Ints, patience: int) -> None:
        for candidate, row in zip(candidates.tolist(), rows, strict=True):
            if self.unimproved >= patience:
                return
            self.unimproved += 1
            if self.is_medoid[candidate]:
                continue
            self.evaluated += 1
            shared, change = self._change(row)
            place = int(change.argmin())
            if shared + change[place] < -_TOLERANCE * self.loss and self._falls(row, place):
                self._swap(candidate, place, row)
                self.unimproved = 1

    def best(
        self, max_iter: int | None, stopped: Callable[[], bool], step: Callable[[int], None], *, naive: bool
    ) -> tuple[bool, int]:
        """PAM and FastPAM1: look at all swaps and make the best. Returns whether no swap is left, and the rounds."""
        rounds = 0
        while max_iter is None or rounds < max_iter:
            rounds += 1
            change, candidate, place = 0.0, -1, -1
            for start, rows in self.source.blocks():
                look = self._best_compiled if self.compiled else self._best
                change, candidate, place = look(rows, start, naive, change, candidate, place)
                if stopped():
                    return False, rounds
            if not change < -_TOLERANCE * self.loss:
                return True, rounds
            row = np.ascontiguousarray(self.source.rows(np.array([candidate]))[0])
            if not self._falls(row, place):
                return True, rounds
            self._swap(candidate, place, row)
            step(self.swaps)
        return False, rounds

    def _best_compiled(
        self, rows: Reals, start: int, naive: bool, change: float, candidate: int, place: int
    ) -> tuple[float, int, int]:
        from kofn.assignment.medoids import _kernels

        best, found = np.array([change]), np.array([candidate, place, self.evaluated])
        known = self.nearest, self.near, self.second, self.weights, self.removal
        _kernels.best_swap(rows, start, self.is_medoid, *known, naive, _MARGIN * self.loss, best, found)
        candidate, place, self.evaluated = found.tolist()
        return float(best[0]), candidate, place

    def _best(
        self, rows: Reals, start: int, naive: bool, change: float, candidate: int, place: int
    ) -> tuple[float, int, int]:
        for here, row in enumerate(rows, start):
            if self.is_medoid[here]:
                continue
            self.evaluated += 1
            shared, changes = (0.0, self._change_naive(row)) if naive else self._change(row)
            for m, other in enumerate((shared + changes).tolist()):
                if other < change - _MARGIN * self.loss:
                    change, candidate, place = other, here, m
        return change, candidate, place

    def _falls(self, row: Reals, place: int) -> bool:
        """Whether the loss, summed from scratch, falls with this swap.

        Where it is small beside the distances that cancel in a change, the change may be mere rounding, and swaps would
        go round in circles.
        """
        near = np.minimum(row, np.where(self.nearest == place, self.second, self.near))
        return bool(float((self.weights * near).cumsum()[-1]) < self.loss * (1 - _TOLERANCE / 2))

    def _change(self, row: Reals) -> tuple[float, Floats]:
        """How the loss changes if this candidate replaces each medoid: the shared part, and (k,) the rest.

        The compiled loop adds the same terms in the same order, so both paths make the same swaps.
        """
        at = np.flatnonzero(row < self.second)
        d, near, second = (part[at].astype(np.float64) for part in (row, self.near, self.second))
        weights, closer = self.weights[at], d < near
        change = self.removal.copy()
        np.add.at(change, self.nearest[at], weights * (np.where(closer, near, d) - second))
        saved = (weights * (d - near))[closer]
        return float(saved.cumsum()[-1]) if len(saved) else 0.0, change

    def _change_naive(self, row: Reals) -> Floats:
        """The same, with a pass over all points for each medoid."""
        d, near, second = (part.astype(np.float64) for part in (row, self.near, self.second))
        stays, goes = self.weights * (np.minimum(d, near) - near), self.weights * (np.minimum(d, second) - near)
        own = self.nearest == np.arange(self.k)[:, None]
        return np.asarray(np.where(own, goes, stays).sum(axis=1), np.float64)

    def _swap(self, candidate: int, place: int, row: Reals) -> None:
        self.is_medoid[self.medoids[place]] = 0
        self.is_medoid[candidate] = 1
        self.medoids[place] = candidate
        self.swaps += 1
        if self.compiled:
            from kofn.assignment.medoids import _kernels

            self.loss = _kernels.swap(row, place, *self._state)
            return
        near, second, nearest, runner = self.near, self.second, self.nearest, self.runner
        self.to_medoid[:, place] = row
        gone, nearer, between = nearest == place, row < near, row < second
        hold = gone & between
        shift = ~gone & nearer
        follow = ~gone & ~nearer & between
        search = np.flatnonzero(gone & ~between | ~gone & ~nearer & ~between & (runner == place))
        moved = gone & ~between
        nearest[moved], near[moved] = runner[moved], second[moved]
        runner[shift], second[shift] = nearest[shift], near[shift]
        nearest[shift], near[shift] = place, row[shift]
        near[hold] = row[hold]
        runner[follow], second[follow] = place, row[follow]
        others = self.to_medoid[search]
        others[np.arange(len(search)), nearest[search]] = np.inf
        runner[search], second[search] = self._nearest(others)
        # Among equally near medoids the new one comes first, as in the compiled loop.
        tied = search[row[search] == second[search]]
        runner[tied] = place
        self.removal[:] = np.bincount(nearest, self._regret(), self.k)
        self.loss = float((self.weights * near).cumsum()[-1])


def begin(
    source: Source,
    k: int,
    weights: Floats,
    how: tuple[Any, str | None, str, int | None],
    info: dict[str, Any],
) -> Ints:
    """The medoids to begin from: `start`, or `init` (else the default) with the seed; `info` gets what it cost."""
    start, init, default, seed = how
    if start is not None:
        if init is not None:
            raise InputError(f"start and init={init!r} are both given; give one of them")
        return started(start, k)
    rng = np.random.default_rng(seed)
    kind = checks.choice(init or default, "init", _INITS)
    if kind == "random":
        return rng.choice(source.n, k, replace=False)
    if kind == "lab":
        return lab(source, k, weights, rng)
    medoids, info["build_evaluations"] = build(source, k, weights)
    return medoids


def lab(source: Source, k: int, weights: Floats, rng: np.random.Generator) -> Ints:
    """Linear approximative BUILD: each medoid is the best of a small sample for that sample, given those before it."""
    size = min(source.n, 10 + math.isqrt(source.n - 1) + 1)
    near = np.full(source.n, np.inf)
    medoids: list[int] = []
    free = np.ones(source.n, bool)
    for _ in range(k):
        open_items = np.flatnonzero(free)
        items = rng.choice(open_items, min(size, len(open_items)), replace=False)
        among = np.minimum(source.among(items), near[items])
        pick = int(items[int((among @ weights[items]).argmin())])
        medoids.append(pick)
        free[pick] = False
        near = np.minimum(near, source.rows(np.array([pick]))[0])
    return np.array(medoids, np.int64)


def build(source: Source, k: int, weights: Floats) -> tuple[Ints, int]:
    """BUILD: greedily the medoid that lowers the loss most. Returns the medoids, and how many candidates it looked at.

    What a candidate saves only falls as medoids are added, so candidates are kept in a heap by what they last saved and
    only those that still look best are evaluated again: the picks are those of the full search.
    """
    totals = np.concatenate([rows.astype(np.float64) @ weights for _, rows in source.blocks()])
    medoids, evaluated = [int(totals.argmin())], source.n
    near = source.rows(np.array(medoids))[0].astype(np.float64)
    heap: list[tuple[float, int, int]] = []
    if k > 1:
        parts = [np.maximum(near - rows.astype(np.float64), 0.0) @ weights for _, rows in source.blocks()]
        heap = [(-saved, 1, j) for j, saved in enumerate(np.concatenate(parts).tolist()) if j != medoids[0]]
        heapq.heapify(heap)
        evaluated += source.n
    while len(medoids) < k:
        _, seen, candidate = heap[0]
        row = source.rows(np.array([candidate]))[0].astype(np.float64)
        if seen == len(medoids):
            heapq.heappop(heap)
            medoids.append(candidate)
            near = np.minimum(near, row)
        else:
            heapq.heapreplace(heap, (-float(np.maximum(near - row, 0.0) @ weights), len(medoids), candidate))
            evaluated += 1
    return np.array(medoids, np.int64), evaluated
