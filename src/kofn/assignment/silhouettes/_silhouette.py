"""The swap search of medoid silhouette clustering, shared by FasterMSC and DynMSC."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.medoids import _inits, _sources
from kofn.core.arrays import Floats, Ints, Reals
from kofn.core.plans import Assignment
from kofn.core.runtime import Control

# A change counts as an improvement beyond this share of the loss.
TOLERANCE = 1e-12
DEFAULT_MEMORY = 2**30


def nothing(source: _sources.Source) -> float:
    """Threshold below which distances count as 0: the rounding of the first item's largest distance."""
    row = source.rows(np.array([0]))[0]
    return float(np.finfo(row.dtype).eps * row.max())


def worth_compiling(n: int, steps: int) -> bool:
    """Whether compiled code would be loaded before NumPy finished; both paths make the same swaps."""
    loaded = "kofn.assignment.silhouettes._kernels" in sys.modules
    return loaded or 3 * steps * n * (6e-5 + 2e-8 * n) > 0.5


class State:
    """The medoids, with each item's distances to them, its two nearest medoids and its third nearest distance."""

    def __init__(
        self, source: _sources.Source, medoids: Ints, weights: Floats, *, compiled: bool, to_medoid: Reals | None = None
    ) -> None:
        self.source, self.weights, self.compiled = source, weights, compiled
        self.medoids = medoids.astype(np.int64)
        self.n, self.k = source.n, len(medoids)
        self.is_medoid = np.zeros(self.n, np.uint8)
        self.is_medoid[self.medoids] = 1
        self.to_medoid = np.ascontiguousarray(source.rows(self.medoids).T if to_medoid is None else to_medoid)
        self.nothing = nothing(source)
        self.who, self.dist = np.zeros((self.n, 2), np.int32), np.empty((self.n, 3))
        self.removal = np.empty(self.k)
        self.loss = self._refresh()
        self.swaps = self.evaluated = self.unimproved = 0

    @property
    def value(self) -> float:
        """The average medoid silhouette."""
        return 1.0 - self.loss / float(self.weights.sum())

    @property
    def labels(self) -> NDArray[np.int32]:
        """The nearest medoid of each point, ties to the lowest position; a medoid is assigned to itself."""
        labels = self.who[:, 0].copy()
        labels[self.medoids] = np.arange(self.k, dtype=np.int32)
        return labels

    def without(self, position: int) -> State:
        """A copy without the medoid at this position."""
        medoids, kept = np.delete(self.medoids, position), np.delete(self.to_medoid, position, axis=1)
        return State(self.source, medoids, self.weights, compiled=self.compiled, to_medoid=kept)

    def eager(self, max_iter: int | None, stopped: Callable[[], bool], step: Callable[[int], None]) -> tuple[bool, int]:
        """Try every candidate in turn and swap eagerly. Returns (converged, rounds)."""
        rounds = 0
        while max_iter is None or rounds < max_iter:
            rounds += 1
            for start, rows in self.source.blocks():
                (self._sweep_compiled if self.compiled else self._sweep)(rows, start)
                if self.unimproved >= self.n:
                    return True, rounds
                if stopped():
                    return False, rounds
            step(self.swaps)
        return False, rounds

    def _sweep_compiled(self, rows: Reals, start: int) -> None:
        from kofn.assignment.silhouettes import _kernels

        counts = np.array([self.unimproved, self.swaps, self.evaluated])
        loss = np.array([self.loss])
        known = self.to_medoid, self.weights, self.nothing, self.who, self.dist, self.removal
        _kernels.sweep(rows, start, self.medoids, self.is_medoid, *known, loss, TOLERANCE, counts)
        self.unimproved, self.swaps, self.evaluated = counts.tolist()
        self.loss = float(loss[0])

    def _sweep(self, rows: Reals, start: int) -> None:
        for candidate, row in enumerate(rows, start):
            if self.unimproved >= self.n:
                return
            self.unimproved += 1
            if self.is_medoid[candidate]:
                continue
            self.evaluated += 1
            shared, change = self._change(row)
            position = int(change.argmin())
            if not shared + change[position] < -TOLERANCE * self.loss:
                continue
            column = self.to_medoid[:, position].copy()
            self.to_medoid[:, position] = row
            after = self._refresh()
            if not after < self.loss * (1 - TOLERANCE / 2):
                # The change was mere rounding.
                self.to_medoid[:, position] = column
                self._refresh()
                continue
            self.is_medoid[self.medoids[position]] = 0
            self.is_medoid[candidate] = 1
            self.medoids[position] = candidate
            self.loss = after
            self.swaps += 1
            self.unimproved = 1

    def _ratio(self, a: Floats, b: Floats) -> Floats:
        out: Floats = np.divide(a, b, out=np.ones(len(a)), where=b > self.nothing)
        return out

    def _refresh(self) -> float:
        """Nearest medoids and removal losses; returns the loss. The compiled loop adds the same terms in order."""
        if self.compiled:
            from kofn.assignment.silhouettes import _kernels

            known = self.to_medoid, self.weights, self.nothing, self.who, self.dist, self.removal
            return float(_kernels.refresh(*known))
        order = np.argsort(self.to_medoid, axis=1, kind="stable")[:, :3]
        self.dist[:] = np.inf
        self.dist[:, : order.shape[1]] = np.take_along_axis(self.to_medoid, order, 1)
        self.who[:] = order[:, :2]
        nearest, second, third = self.dist.T
        base = self._ratio(nearest, second)
        costs = np.stack([self._ratio(second, third) - base, self._ratio(nearest, third) - base], axis=1)
        self.removal[:] = 0.0
        np.add.at(self.removal, self.who.ravel(), (self.weights[:, None] * costs).ravel())
        return float((self.weights * base).cumsum()[-1])

    def _change(self, row: Reals) -> tuple[float, Floats]:
        """Change of the loss if this candidate replaces each medoid: the shared part, and (k,) the rest.

        An item's loss is the ratio of its nearest to its second nearest distance. Only candidates nearer than its third
        nearest medoid affect it, and removing its first or second medoid differs from removing any other.
        """
        affected = np.flatnonzero(row < self.dist[:, 2])
        d, weights = row[affected].astype(np.float64), self.weights[affected]
        nearest, second, third = self.dist[affected].T
        base = self._ratio(nearest, second)
        stays = np.where(d < nearest, self._ratio(d, nearest), np.where(d < second, self._ratio(nearest, d), base))
        gone = [self._ratio(np.minimum(d, other), np.maximum(d, other)) - stays for other in (second, nearest)]
        known = [self._ratio(second, third) - base, self._ratio(nearest, third) - base]
        change = self.removal.copy()
        parts = np.stack([weights * (new - old) for new, old in zip(gone, known, strict=True)], axis=1)
        np.add.at(change, self.who[affected].ravel(), parts.ravel())
        return float((weights * (stays - base)).cumsum()[-1]) if len(affected) else 0.0, change


def one_group(
    source: _sources.Source, medoids: Ints, weights: Floats, info: dict[str, Any], control: Control
) -> Assignment:
    """The item with the least summed distance; the silhouette of a single group is 0 by convention."""
    totals = _inits.over_blocks(source, lambda rows: rows @ weights, control.stopped)
    best, first = int(totals.argmin()), int(medoids[0])
    # An equally good start is kept, so that running again from a plan returns it.
    if first >= len(totals) or not totals[best] < totals[first] * (1 - 1e-10):
        best = first
    info = {"swaps": 0, "rounds": 0, "swap_evaluations": 0, **info, "zero_below": nothing(source)}
    labels = np.zeros(source.n, np.int32)
    status = "optimal" if len(totals) == source.n else "stopped"
    return _plan(labels, np.array([best]), 0.0, status, info | {"distance_evals": source.evals})


def finish(state: State, status: str, info: dict[str, Any]) -> Assignment:
    info = {**info, "zero_below": state.nothing, "distance_evals": state.source.evals}
    return _plan(state.labels, state.medoids, state.value, status, info)


def _plan(labels: NDArray[np.int32], medoids: Ints, value: float, status: str, info: dict[str, Any]) -> Assignment:
    return Assignment.around(
        labels, medoids, value=value, status=status, sense="max", objective="medoid_silhouette", info=info
    )
