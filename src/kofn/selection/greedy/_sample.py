"""Facility location judged by a sample of the rows: gains are estimates, what picks gain is exact."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from kofn.core.arrays import Floats, Ints
from kofn.engines.threads import spread
from kofn.objectives._estimates import Estimates, picks_of_part, sizes_of_parts
from kofn.objectives._sources import Rows, Source
from kofn.objectives.facility_location import FacilityLocation
from kofn.objectives.similarity import exact_sum, geometry, rbf_geometry

# Half-width of a 95% interval in standard errors.
_STANDARD_ERRORS = 1.96
# Picks are valued together, so that a row is loaded once for all of them: in steps of about so many features, and no
# more picks than so many.
_FEATURES_AT_ONCE, _PICKS_AT_ONCE = 2e9, 64


class Sampled(FacilityLocation):
    """Facility location whose gains are estimated from a sample of the rows; what a pick gains is exact.

    Args:
        X: vectors (n, d).
        rows: the sampled rows, in the order drawn.
        words: what `FacilityLocation` is told of the whole pool; `weights` (n,) are needed.
        picks: how many there will be, 0 where that is not known.
    """

    def __init__(self, X: Any, rows: Ints, words: dict[str, Any], picks: int) -> None:
        self._built_from = (X, rows, words, picks)
        self._pool_weights: Floats = words["weights"]
        standing = np.zeros(X.shape[0])
        standing[rows] = self._pool_weights[rows] * (self._pool_weights.sum() / self._pool_weights[rows].sum())
        super().__init__(X, **{**words, "weights": standing})
        # A pick stands for itself, not for the rows of which it is a sample.
        self._overstated = np.where(standing > 0, standing - self._pool_weights, 0.0)
        self._in_sample = standing > 0
        self.total_weight = float(self._pool_weights.sum())
        self._settled: list[float] = []

    def __deepcopy__(self, memo: Any) -> Sampled:
        return type(self)(*self._built_from)

    @property
    def tolerance(self) -> float:
        """Estimates are taken as they are."""
        return 0.0

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains as far as the sample tells."""
        candidates = np.asarray(candidates, np.int64)
        own = self._unit * self._overstated[candidates] * (self._cost[candidates] - self._source.least)
        return np.maximum(super().gains(candidates) - own, 0.0)

    def exact_gains(self, candidates: Any) -> Floats:
        """The same: ties are ties of estimates."""
        return self.gains(candidates)

    def commit(self, item: int) -> None:
        """Take a pick, whose exact gain `settle` returns; it may be taken later, together with those of other picks."""
        before = self._cost
        super().add(item)
        self._settled.append(self._unit * exact_sum(self._pool_weights * (before - self._cost)))

    def settle(self) -> list[float]:
        """The exact gains on the whole pool of the picks that were committed since the last call, in their order."""
        gains, self._settled = self._settled, []
        return gains

    def add(self, item: int) -> float:
        """Commit a pick that follows none whose gain is yet to be settled; returns its exact gain on the whole pool."""
        self.commit(item)
        return self.settle()[-1]

    def value(self, indices: Any) -> float:
        """The value of a set on the whole pool, from scratch."""
        X, _rows, words, _picks = self._built_from
        return FacilityLocation(X, **words).value(indices)

    def gap(self, picks: Ints) -> tuple[float, float, float] | None:
        """How much better the picks serve the sample than the rest, summed over the pool, and its 95% interval."""
        open_rows = self._pool_weights > 0
        open_rows[picks] = False
        inside, outside = open_rows & self._in_sample, open_rows & ~self._in_sample
        if inside.sum() < 2 or not outside.any():
            return None
        w, cost = self._pool_weights, self._cost
        seen, unseen = (float(np.average(cost[rows], weights=w[rows])) for rows in (inside, outside))
        share = w[inside] / w[inside].sum()
        error = math.sqrt(float((share**2 * (cost[inside] - seen) ** 2).sum()) * int(outside.sum()) / len(w))
        scale = self._unit * float(w[open_rows].sum())
        gap, wide = scale * (unseen - seen), scale * _STANDARD_ERRORS * error
        return max(0.0, gap), max(0.0, gap - wide), max(0.0, gap + wide)


class SampledVectors(Sampled):
    """The same for dense rows: while searching, the picks' distances are taken to the sampled rows only.

    The sample grows with the picks: the first are judged by its first rows, of which there are more for each pick than
    the whole sample has for each of the last. The exact costs of the pool are brought up to date for many picks at
    once.
    """

    _source: Rows

    def __init__(self, X: Any, rows: Ints, words: dict[str, Any], picks: int) -> None:
        super().__init__(X, rows, words, picks)
        n, d = self.n, self._source.space.rows.shape[1]
        self._pending: list[int] = []
        at_once = int(_FEATURES_AT_ONCE / (n * d))
        self._most_pending = min(max(at_once - at_once % 8, 8), _PICKS_AT_ONCE)
        self._parts = [rows[:size] for size in sizes_of_parts(len(rows), picks)]
        self._most_picks = picks
        self._estimates = self._next_part()

    def _costs(self, max_memory: int | None, n_threads: int | None) -> Source:
        source = super()._costs(max_memory, n_threads)
        if isinstance(source, Rows):
            return source
        # A pool so small that it would be held as a table is compared row by row all the same: estimates of one and the
        # other differ by their rounding, and with them the picks.
        space = (
            rbf_geometry(self._given, self.bandwidth)[0] if self.metric == "rbf" else geometry(self._given, self.metric)
        )
        return Rows(space, n_threads)

    def _next_part(self) -> Estimates:
        rows = np.sort(self._parts.pop(0))
        weights = self._pool_weights[rows]
        standing = weights * (self._pool_weights.sum() / weights.sum())
        self._overstated = standing - weights
        return Estimates(self._source, rows, standing, self._cost[rows])

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains as far as the sample tells."""
        if self._outgrown():
            self._value()
            while self._outgrown():
                self._estimates = self._next_part()
        self._source.poll = self.poll
        estimates = self._estimates
        sums = estimates.gains().copy()
        sums[estimates.rows] -= self._overstated * (estimates.cost - self._source.least)
        return self._unit * np.maximum(sums[np.asarray(candidates, np.int64)], 0.0)

    def _outgrown(self) -> bool:
        """Whether there are too many picks for the part of the sample that judges them."""
        picks = self._picks + len(self._pending)
        return bool(self._parts) and picks >= picks_of_part(len(self._estimates.rows), self._most_picks)

    def commit(self, item: int) -> None:
        """Take a pick; its gain on the whole pool is not taken before it is asked for or enough picks wait for it."""
        self._estimates.add(item)
        self._pending.append(item)
        if len(self._pending) >= self._most_pending:
            self._value()

    def settle(self) -> list[float]:
        """The exact gains on the whole pool of the picks that were committed since the last call, in their order."""
        self._value()
        return super().settle()

    def _value(self) -> None:
        picks, self._pending = np.array(self._pending, np.int64), []
        if not len(picks):
            return
        if self._source.space.rate:
            fell = [self._one(int(pick), self._picks + position) for position, pick in enumerate(picks)]
        else:
            fell = self._many(picks)
        self._picks += len(picks)
        self._settled += [self._unit * exact_sum(self._pool_weights[rows] * saved) for rows, saved in fell]

    def _one(self, pick: int, position: int) -> tuple[Ints, Floats]:
        cost = self._source.column(pick)
        served = np.flatnonzero((cost < self._cost) | (self.nearest < 0))
        before = self._cost[served]
        self._cost[served] = np.minimum(before, cost[served])
        self.nearest[served] = position
        return served, before - self._cost[served]

    def _many(self, picks: Ints) -> list[tuple[Ints, Floats]]:
        """Which rows each pick serves better than those before it, and how much."""
        from kofn.core import distance_kernels as tiles
        from kofn.objectives import _sample_kernels

        source, space, everyone = self._source, self._source.space, np.empty(0, np.int64)
        points, rounded = space.points(picks), source.rounded(picks)
        # Twice what is proven, for the rounding of the limit itself.
        relative, moved = 2 * source.relative + 8 * source.rounding, 2 * source.moved
        blocks = -(-self.n // tiles.LANES)
        records: list[Any] = [None] * blocks

        def work(low: int, high: int) -> None:
            lanes, tile = tiles.scratch(space.rows.shape[1], source.kind)
            served, fell = (
                np.empty((tiles.LANES * len(picks), 2), np.int64),
                np.empty((tiles.LANES * len(picks), 2)),
            )
            for block in range(low, high):
                count = _sample_kernels.records(
                    space.rows, space.columns, space.scale, everyone, rounded, points, space.squared, relative, moved,
                    self._picks, block, lanes, tile, self._cost, self.nearest, served, fell,
                )  # fmt: skip
                records[block] = served[:count].copy(), fell[:count, 0] - fell[:count, 1]

        spread(work, blocks, source.n_threads, shares=4)
        source.pairs += self.n * len(picks)
        served, saved = (np.concatenate(parts) for parts in zip(*records, strict=True))
        order = np.argsort(served[:, 0], kind="stable")
        ends = np.searchsorted(served[order, 0], np.arange(len(picks) + 1))
        rows, saved = served[order, 1], saved[order]
        return [(rows[low:high], saved[low:high]) for low, high in itertools.pairwise(ends)]
