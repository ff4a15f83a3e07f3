"""The swap phase of k-medoids: cached nearest and second nearest medoids, and the swap searches."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.medoids._sources import Source
from kofn.core.arrays import Floats, Ints, Reals

if TYPE_CHECKING:
    from kofn.engines.torch_swaps import SwapBounds

# A swap counts as an improvement beyond this share of the loss, well above rounding and below the 1e-9 that is
# promised.
TOLERANCE = 1e-10
# Swaps whose changes differ by less than this share of the loss count as equal; the first is taken.
_MARGIN = 1e-13
# Distances compared with medoids between two looks at the clock, where each is compared with every medoid.
_STEPS_AT_ONCE = 2**27
# Candidates that are looked at together on a device after a swap; without one twice as many each time.
_FEWEST = 64
# Seconds to load the compiled code, and the NumPy time spent so far instead.
_LOADING = 0.5
_numpy_seconds: list[float] = []


def worth_compiling(search: str, n: int, k: int) -> bool:
    """Whether NumPy's accumulated (estimated) time exceeds the time to load the compiled code.

    Both paths make the same swaps, so what is loaded already may be used.
    """
    if "kofn.assignment.medoids._kernels" in sys.modules:
        return True
    swaps = k if search != "eager" else 4
    _numpy_seconds.append(swaps * n * (2e-5 + 3e-9 * n * (k if search == "naive" else 1)))
    return sum(_numpy_seconds) > _LOADING


class Swaps:
    """k medoids with the nearest and second nearest medoid of each point, from which swaps are evaluated and made."""

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
        closest = distances.argmin(axis=1)
        return closest.astype(np.int32), np.ascontiguousarray(np.take_along_axis(distances, closest[:, None], 1)[:, 0])

    def _regret(self) -> Floats:
        """Increase of each point's distance if its nearest medoid were removed."""
        out: Floats = self.weights * (self.second.astype(np.float64) - self.near.astype(np.float64))
        return out

    @property
    def _state(self) -> tuple[Any, ...]:
        return self.to_medoid, self.nearest, self.runner, self.near, self.second, self.weights, self.removal

    @property
    def labels(self) -> NDArray[np.int32]:
        """The nearest medoid of each point, ties to the lowest position; a medoid is assigned to itself."""
        labels = self.to_medoid.argmin(axis=1).astype(np.int32)
        labels[self.medoids] = np.arange(self.k, dtype=np.int32)
        return labels

    def eager(self, max_iter: int | None, stopped: Callable[[], bool], step: Callable[[int], None]) -> tuple[bool, int]:
        """FasterPAM: try every candidate in turn and swap eagerly. Returns (converged, rounds)."""
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
        """Try the candidates, given with their distance rows; stop once `patience` in a row brought no swap."""
        (self._sweep_compiled if self.compiled else self._sweep)(rows, candidates, patience)

    def _sweep_compiled(self, rows: Reals, candidates: Ints, patience: int) -> None:
        from kofn.assignment.medoids import _kernels

        counts = np.array([self.unimproved, self.swaps, self.evaluated])
        loss = np.array([self.loss])
        known = self.medoids, self.is_medoid, *self._state
        _kernels.sweep(rows, candidates, *known, loss, TOLERANCE, patience, counts)
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
            position = int(change.argmin())
            if shared + change[position] < -TOLERANCE * self.loss and self._falls(row, position):
                self._swap(candidate, position, row)
                self.unimproved = 1

    def best(
        self, max_iter: int | None, stopped: Callable[[], bool], step: Callable[[int], None], *, naive: bool
    ) -> tuple[bool, int]:
        """PAM and FastPAM1: evaluate all swaps and make the best. Returns (converged, rounds)."""
        rounds = 0
        while max_iter is None or rounds < max_iter:
            rounds += 1
            change, candidate, position = 0.0, -1, -1
            for start, rows in self.source.blocks():
                look = self._best_compiled if self.compiled else self._best
                step_rows = max(1, _STEPS_AT_ONCE // (self.n * self.k)) if naive else len(rows)
                for low in range(0, len(rows), step_rows):
                    part = rows[low : low + step_rows]
                    change, candidate, position = look(part, start + low, naive, change, candidate, position)
                    if stopped():
                        return False, rounds
            if not change < -TOLERANCE * self.loss:
                return True, rounds
            row = np.ascontiguousarray(self.source.rows(np.array([candidate]))[0])
            if not self._falls(row, position):
                return True, rounds
            self._swap(candidate, position, row)
            step(self.swaps)
        return False, rounds

    def _best_compiled(
        self, rows: Reals, start: int, naive: bool, change: float, candidate: int, position: int
    ) -> tuple[float, int, int]:
        from kofn.assignment.medoids import _kernels

        best, counts = np.array([change]), np.array([candidate, position, self.evaluated])
        known = self.nearest, self.near, self.second, self.weights, self.removal
        _kernels.best_swap(rows, start, self.is_medoid, *known, naive, _MARGIN * self.loss, best, counts)
        candidate, position, self.evaluated = counts.tolist()
        return float(best[0]), candidate, position

    def _best(
        self, rows: Reals, start: int, naive: bool, change: float, candidate: int, position: int
    ) -> tuple[float, int, int]:
        for tried, row in enumerate(rows, start):
            if self.is_medoid[tried]:
                continue
            self.evaluated += 1
            shared, changes = (0.0, self._change_naive(row)) if naive else self._change(row)
            for m, other in enumerate((shared + changes).tolist()):
                if other < change - _MARGIN * self.loss:
                    change, candidate, position = other, tried, m
        return change, candidate, position

    def _falls(self, row: Reals, position: int) -> bool:
        """Whether the loss, summed from scratch, falls by this swap.

        Where it is small beside the distances that cancel in a change, the change may be mere rounding, and swaps would
        go round in circles.
        """
        near = np.minimum(row, np.where(self.nearest == position, self.second, self.near))
        return bool(float((self.weights * near).cumsum()[-1]) < self.loss * (1 - TOLERANCE / 2))

    def _change(self, row: Reals) -> tuple[float, Floats]:
        """Change of the loss if this candidate replaces each medoid: the shared part, and (k,) the rest.

        The compiled loop adds the same terms in the same order, so both paths make the same swaps.
        """
        closer_rows = np.flatnonzero(row < self.second)
        d, near, second = (part[closer_rows].astype(np.float64) for part in (row, self.near, self.second))
        weights, closer = self.weights[closer_rows], d < near
        change = self.removal.copy()
        np.add.at(change, self.nearest[closer_rows], weights * (np.where(closer, near, d) - second))
        saved = (weights * (d - near))[closer]
        return float(saved.cumsum()[-1]) if len(saved) else 0.0, change

    def _change_naive(self, row: Reals) -> Floats:
        """The same with one pass over all points per medoid."""
        d, near, second = (part.astype(np.float64) for part in (row, self.near, self.second))
        stays, goes = self.weights * (np.minimum(d, near) - near), self.weights * (np.minimum(d, second) - near)
        own = self.nearest == np.arange(self.k)[:, None]
        return np.asarray(np.where(own, goes, stays).sum(axis=1), np.float64)

    def _swap(self, candidate: int, position: int, row: Reals) -> None:
        self.is_medoid[self.medoids[position]] = 0
        self.is_medoid[candidate] = 1
        self.medoids[position] = candidate
        self.swaps += 1
        if self.compiled:
            from kofn.assignment.medoids import _kernels

            self.loss = _kernels.swap(row, position, *self._state)
            return
        near, second, nearest, runner = self.near, self.second, self.nearest, self.runner
        self.to_medoid[:, position] = row
        gone, nearer, between = nearest == position, row < near, row < second
        hold = gone & between
        shift = ~gone & nearer
        follow = ~gone & ~nearer & between
        search = np.flatnonzero(gone & ~between | ~gone & ~nearer & ~between & (runner == position))
        moved = gone & ~between
        nearest[moved], near[moved] = runner[moved], second[moved]
        runner[shift], second[shift] = nearest[shift], near[shift]
        nearest[shift], near[shift] = position, row[shift]
        near[hold] = row[hold]
        runner[follow], second[follow] = position, row[follow]
        others = self.to_medoid[search]
        others[np.arange(len(search)), nearest[search]] = np.inf
        runner[search], second[search] = self._nearest(others)
        # Among equally near medoids the new one comes first, as in the compiled loop.
        tied = search[row[search] == second[search]]
        runner[tied] = position
        self.removal[:] = np.bincount(nearest, self._regret(), self.k)
        self.loss = float((self.weights * near).cumsum()[-1])


class BoundedSwaps(Swaps):
    """`Swaps` whose eager search tries only candidates that may lower the loss, by bounds taken on a device.

    Candidates of which no swap can are passed over; the others are tried as ever, so that the same swaps are made.
    """

    def __init__(self, source: Source, medoids: Ints, weights: Floats, *, compiled: bool, bounds: SwapBounds) -> None:
        super().__init__(source, medoids, weights, compiled=compiled)
        self._bounds = bounds

    def eager(self, max_iter: int | None, stopped: Callable[[], bool], step: Callable[[int], None]) -> tuple[bool, int]:
        """Try every candidate in turn and swap eagerly. Returns (converged, rounds)."""
        rounds = 0
        while max_iter is None or rounds < max_iter:
            rounds += 1
            start, size = 0, _FEWEST
            while start < self.n:
                before = self.swaps
                start = self._try(start, min(start + size, self.n))
                # A swap makes all bounds out of date.
                size = _FEWEST if self.swaps > before else max(_FEWEST, min(2 * size, self._bounds.most))
                if self.unimproved >= self.n:
                    return True, rounds
                if stopped():
                    return False, rounds
            step(self.swaps)
        return False, rounds

    def _try(self, start: int, stop: int) -> int:
        """Try candidates up to the first swap; returns the next one."""
        before, least = self.swaps, TOLERANCE * self.loss
        known = self.near, self.second, self.nearest, self.removal
        pairs = self._bounds.pairs
        candidates = self._bounds.promising(start, stop, *known, least)
        self.source.evals += self._bounds.pairs - pairs
        for candidate in candidates.tolist():
            self._pass_over(start, candidate)
            start = candidate + 1
            if self.unimproved >= self.n:
                return start
            tried = np.array([candidate])
            self.sweep(np.ascontiguousarray(self.source.rows(tried)), tried, self.n)
            if self.swaps > before:
                return start
        self._pass_over(start, stop)
        return stop

    def _pass_over(self, start: int, stop: int) -> None:
        """Count candidates without a swap, up to the last that has to be tried."""
        stop = min(stop, start + self.n - self.unimproved)
        self.unimproved += stop - start
        self.evaluated += stop - start - int(self.is_medoid[start:stop].sum())
