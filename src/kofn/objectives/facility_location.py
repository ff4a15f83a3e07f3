"""Facility location: how well the picks stand for the pool, each item by the pick most similar to it."""

from __future__ import annotations

import functools
import math
import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks, vocabulary
from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.calls_ahead import CallAhead
from kofn.core.checks import InputError
from kofn.core.objective import Objective
from kofn.engines.threads import cores
from kofn.objectives._filling import LEAST_ROWS, greedy_on_samples
from kofn.objectives._sources import Change, Entries, Rows, Source, Table
from kofn.objectives.similarity import SAMPLED, Geometry, ceiling, exact_sum, geometry, is_small, rbf_geometry

# Below this many items NumPy is quicker even than compiled code that is already loaded.
_ALWAYS_SMALL = 256
# Bytes beside X for each item: costs, gains, weights, what changed, and the exact distances of a batch of rivals.
_BYTES_AN_ITEM = 8 * 56
_LANES_OF_A_THREAD = 512
_MOST_CHANGES = 16
# Following up on one change takes as long as looking at this many costs, however few items changed.
_COSTS_A_CHANGE = 1 << 18
# Copies of the rows while they are laid out, by metric; and of float64 squares between the sample that gives "rbf" its
# bandwidth.
_COPIES, _MOST_COPIES, _SQUARES = {"cosine": 5}, 4, 2


def bytes_beside_rows(n: int, d: int, size: int, metric: str = "euclidean", n_threads: int | None = None) -> int:
    """The bytes that facility location holds beside X: the least `max_memory` that it takes.

    Args:
        n: rows.
        d: features.
        size: bytes of a number that is computed with, 4 or 8.
        metric: how rows are compared.
        n_threads: threads of the call.
    """
    each = _BYTES_AN_ITEM + _COPIES.get(metric, _MOST_COPIES) * d * size
    least = n * each + cores(n_threads) * _LANES_OF_A_THREAD * (d + 8) * size
    sample = min(n, SAMPLED) if metric == "rbf" else 0
    return max(least, sample * (_SQUARES * 8 * sample + _MOST_COPIES * d * size))


def refuse_memory(n: int, d: int, size: int, metric: str, max_memory: int | None, n_threads: int | None = None) -> None:
    """Refuse a `max_memory` that facility location on rows like these would not keep.

    Raises:
        InputError: it is less than `bytes_beside_rows`.
    """
    least = bytes_beside_rows(n, d, size, metric, n_threads)
    if max_memory is not None and max_memory < least:
        raise InputError(
            f"max_memory={max_memory} is too little for facility location on {n} rows of {d} features; "
            f"give at least {least} bytes"
        )


class FacilityLocation(Objective):
    """f(S) = sum_i w_i max_{j in S} s_ij, f of nothing = 0: monotone and submodular.

    Similarity s from rows of X: `euclidean` is c - distance with c at least the largest distance, so that f falls with
    the summed distance to the nearest pick and the picks do not depend on c; `sqeuclidean` is c - distance^2; `cosine`
    is (1 + cos) / 2, where rows of zeros have similarity 1/2 to all others and 1 to each other; `rbf` is
    exp(-distance^2 / (2 bandwidth^2)), with which greedy search is MaxHerding and, with an item's uncertainty as its
    weight, Uncertainty Herding. Or `similarity` as
    given: row i is the item that is served, column j the candidate that would serve it; it need not be symmetric.

    Args:
        X: vectors (n, d), float32 or float64; float32 is computed with in float32. With "cosine" SciPy-sparse rows too,
            which are never made dense.
        similarity: (n, n) >= 0, dense or SciPy-sparse, missing entries 0. Instead of X.
        reference: vectors (r, d), the items that are served where they are not the rows of X: candidates are the rows
            of X, items those of `reference`, and f sums over the items. With dense X only.
        metric: "euclidean" (default), "sqeuclidean", "cosine", "rbf"; "precomputed" reads X as `similarity`.
        weights: (n,), or (r,) with a reference: how much each item counts, >= 0, default 1.
        bandwidth: of "rbf", > 0; default the median distance to the 20th nearest of 2,000 rows, sampled with a fixed
            seed.
        max_memory: bytes of scratch beside the input; too little is refused, not exceeded.
        n_threads: default all cores; nothing but time depends on it.

    Attributes:
        tolerance: the largest error of `gains` now, against `exact_gains`. A proven bound, usually far from reached.
        nearest: of each item the position, in picking order, of the pick that stands for it; -1 for none.
        n: number of candidates.
        distance_evals: costs of (item, candidate) looked at so far.
        calls: the same in full evaluations of a candidate, one cost for each item; an update of a part counts as that
            part.

    Raises:
        InputError: not exactly one of X and similarity, bad values, or `max_memory` too small.

    Costs: from X one pass over n x n pairs (r x n with a reference) for the first gains and one for the second, then
    for each pick only the items that it changed, against the candidates near enough to notice; early picks are guessed,
    and where that comes true one pass does for several. A greedy run takes 3 to 6 passes in all, of O(n^2 d) time.
    O(n d) memory; only pools so small that NumPy outruns compiled code are held as a table.

    What is exact: `exact_gains` and `add` take float64 distances from differences and sum them as if rounded once, so
    that candidates with equal terms tie exactly; no result depends on threads, blocks or the linear algebra library.

    References:
        Cornuejols, Fisher, Nemhauser, "Location of bank accounts to optimize float", Management Science 1977.
        Bae, Noh, Sutherland, "Generalized coverage for more robust low-budget active learning", ECCV 2024 (`rbf`).

    Examples:
        >>> f = FacilityLocation(np.array([[0.0], [1.0], [5.0]]), weights=np.array([1.0, 1.0, 3.0]))
        >>> gain = f.add(1)  # 5c minus the distances
        >>> f.exact_gains(np.array([0, 2])).tolist()
        [1.0, 12.0]
        >>> f.add(2), f.nearest.tolist()
        (12.0, [0, 0, 1])
        >>> g = FacilityLocation(np.array([[0.0], [4.0]]), reference=np.array([[1.0], [3.0], [4.0]]))
        >>> gain = g.add(1)
        >>> g.exact_gains(np.array([0, 1])).tolist()
        [2.0, 0.0]
    """

    name = "facility_location"
    n: int
    submodular = True
    monotone = True
    polls = True
    # After a pick only the items that it changed matter, for all candidates alike: asking for a few saves little.
    eager = True

    @classmethod
    def refuse_ahead(cls, ahead: CallAhead) -> None:
        """Refuse a `max_memory` that this would not keep on rows that are yet to be read."""
        refuse_memory(ahead.n, ahead.width, ahead.itemsize, ahead.metric, ahead.max_memory, ahead.n_threads)

    def __init__(
        self,
        X: Any = None,
        *,
        similarity: Any = None,
        reference: Any = None,
        metric: str = "euclidean",
        weights: Any = None,
        bandwidth: float | None = None,
        max_memory: int | None = None,
        n_threads: int | None = None,
    ) -> None:
        vocabulary.metric(metric)
        self.bandwidth = _bandwidth(bandwidth, metric)
        if (X is None) == (similarity is None):
            raise InputError("facility location needs X or similarity, one of them; give vectors or an (n, n) matrix")
        if metric == "precomputed" and similarity is None:
            X, similarity = None, X
        self.metric = metric
        if similarity is None:
            self._given = self._rows(X)
        else:
            self._given = checks.square(similarity, "similarity")
        self.n = int(self._given.shape[0])
        self._served = None if reference is None else self._reference(reference, similarity)
        served = self.n if self._served is None else len(self._served)
        self._weights = np.ones(served) if weights is None else checks.weights(weights).astype(np.float64)
        source = "reference" if reference is not None else "X" if similarity is None else "similarity"
        checks.same_length(served, source, "weights", len(self._weights))
        self._unit = 1.0
        self._from_rows = similarity is None
        self._source = self._costs(max_memory, n_threads)
        self._refuse_vanishing()
        self.nearest = np.full(served, -1, np.int64)
        self._cost = np.full(served, self._source.start)
        self._total = self._cost_in_total()
        self._open = len(self._open_items())
        self._picks = 0
        self._gain = np.zeros(self.n)
        # How many picks a candidate's gain accounts for; before `_since`, it is taken afresh, not brought up to date.
        self._seen = np.full(self.n, -1, np.int64)
        self._since = 0
        self._changes: list[Change] = []
        self._largest = 0.0
        # Picks that were guessed, and the gains that candidates have if the guess, and those before it, come true.
        self._ahead: list[tuple[int, Ints, Floats]] = []

    def _refuse_vanishing(self) -> None:
        """Refuse weighted similarities none of which float64 holds in full: gains would be noise, or 0."""
        if self._from_rows:
            most: Any = np.float64(self._source.start - self._source.least)
        elif checks.is_sparse(self._given):
            most = self._given.max(axis=1).toarray().ravel().astype(np.float64)
        else:
            most = self._given.max(axis=1).astype(np.float64)
        counts = (self._weights > 0) & (most > 0)
        if counts.any() and not (self._weights * most)[counts].max() >= np.finfo(np.float64).tiny:
            source = "distances" if self._from_rows else "similarities"
            raise InputError(
                f"{source} up to {np.max(most):.3g} times weights up to {self._weights.max():.3g} are less than "
                f"float64 holds in full; rescale {'the weights' if self._from_rows else 'both'} to at most 1"
            )

    def _rows(self, X: Any) -> Any:
        if not checks.is_sparse(X):
            return checks.matrix(X)
        from kofn.objectives._sparse_rows import cosine_rows

        return cosine_rows(X, self.metric)

    def _reference(self, reference: Any, similarity: Any) -> NDArray[Any]:
        if similarity is not None or checks.is_sparse(self._given):
            raise InputError("reference goes with X, dense vectors; leave it out, or give the candidates as vectors")
        rows = checks.matrix(reference, "reference")
        if rows.shape[1] != self._given.shape[1]:
            raise InputError(f"reference has {rows.shape[1]} features and X {self._given.shape[1]}; give the same ones")
        return rows

    def _costs(self, max_memory: int | None, n_threads: int | None) -> Source:
        if not self._from_rows:
            return Entries(self._given) if checks.is_sparse(self._given) else Table(self._given, -1, 0.0, n_threads)
        if checks.is_sparse(self._given):
            from kofn.objectives._sparse_rows import SparseRows

            self._unit = 0.25
            return SparseRows(self._given)
        given = self._given if self._served is None else np.vstack([self._served, self._given])
        n, d = given.shape
        room = self._room(given, max_memory, n_threads)
        space = self._space(given)
        if self._served is not None:
            served = len(self._served)
            return Rows(space.part(slice(served, None)), n_threads, space.part(slice(served)))
        # Once the kernels are loaded nothing waits for them. Both ways give the same picks and gains to the last bit;
        # only the bound, which rests on rounded gains and their tolerance, may differ by that rounding.
        loaded = n > _ALWAYS_SMALL and "kofn.objectives._kernels" in sys.modules
        if not loaded and is_small(n, d) and 48 * n * n <= room:
            return Table(space.table(), 1, space.top, n_threads)
        return Rows(space, n_threads)

    def _room(self, given: NDArray[Any], max_memory: int | None, n_threads: int | None) -> float:
        """Bytes that may be held beside the input.

        Raises:
            InputError: too few for rows like these.
        """
        # A bandwidth that is given need not be found.
        metric = self.metric if self.bandwidth is None else "sqeuclidean"
        n, d = given.shape
        refuse_memory(n, d, given.itemsize, metric, max_memory, n_threads)
        return math.inf if max_memory is None else max_memory

    def _space(self, given: NDArray[Any]) -> Geometry:
        """The rows as points; sets the unit of costs and, of "rbf", the bandwidth."""
        if self.metric == "rbf":
            space, self.bandwidth = rbf_geometry(given, self.bandwidth)
        else:
            space = geometry(given, self.metric)
        self._unit = space.unit
        return space

    def filling(self, picks: Ints, open_items: Mask, count: int) -> Ints | None:
        """What greedy search on samples of dense rows picks next; None of others, and of small pools."""
        if not self._from_rows or checks.is_sparse(self._given) or self._served is not None or self.n < LEAST_ROWS:
            return None

        width = self.bandwidth or 1.0
        return greedy_on_samples(self._given, self.metric, self._weights, picks, open_items, count, width)

    @property
    def distance_evals(self) -> int:
        """Costs of (item, candidate) looked at so far."""
        return self._source.pairs

    @property
    def offset(self) -> float | None:
        """c of the similarity c - distance (1 for cosine); None where similarities were given, and for "rbf"."""
        return self._unit * self._source.start if self._from_rows and self.metric != "rbf" else None

    @property
    def calls(self) -> int:
        """Full evaluations of a candidate so far."""
        return -(-self._source.pairs // len(self._weights))

    @property
    def tolerance(self) -> float:
        """The largest error of any gain returned now, against `exact_gains`."""
        if self._from_rows and self._total == 0:
            return 0.0
        # Savings are summed by fours in the source's precision, then in float64: on the way up and on the way down.
        summing = 2 * self._largest * (6 * self._source.rounding + (len(self._weights) + 8) * 2.0**-53)
        return self._unit * (summing + self._source.error(self._total, self.total_weight))

    def in_distances(self, value: float, bound: float | None) -> dict[str, float | None]:
        """Value and bound as summed distances to the nearest pick, which do not depend on c; of "rbf" the bandwidth."""
        if self._from_rows and self.metric == "rbf":
            return {"bandwidth": self.bandwidth}
        if self.offset is None:
            return {}
        # (1 + cos) / 2 is 1 - (1 - cos) / 2.
        unit = 2.0 if self.metric == "cosine" else 1.0
        most = self.offset * self.total_weight
        least = None if bound is None else max(0.0, unit * (most - bound))
        return {"offset": self.offset, "distance": unit * (most - value), "distance_bound": least}

    @functools.cached_property
    def total_weight(self) -> float:
        """Sum of the items' weights."""
        return float(self._weights.sum())

    def gains(self, candidates: Any) -> Floats:
        """Marginal gains of some candidates given the picks so far, within `tolerance`.

        Cheapest when all candidates that matter are asked for together after each pick.
        """
        candidates = np.asarray(candidates, np.int64)
        behind = candidates[self._seen[candidates] < self._picks]
        if len(behind):
            late = np.zeros(self.n, bool)
            late[behind] = True
            self._source.poll = self.poll
            self._catch_up(np.flatnonzero(late))
        # No candidate saves less than nothing or more than everything, whatever rounding says.
        upper = self._total if self._from_rows else np.inf
        return self._unit * np.clip(self._gain[candidates], 0.0, upper)

    def exact_gains(self, candidates: Any) -> Floats:
        """Marginal gains from float64 differences, summed exactly and rounded once. O(n d) a candidate."""
        candidates = np.asarray(candidates, np.int64)
        return self._unit * self._source.exact(candidates, self._cost, self._weights)

    def add(self, item: int) -> float:
        """Commit a pick; returns its exact gain. O(n d)."""
        cost = self._source.column(int(item))
        new = np.minimum(cost, self._cost)
        gain = self._unit * exact_sum(self._weights * (self._cost - new))
        served = cost < self._cost
        if self._picks == 0 and self._from_rows:
            # The first pick stands for everyone, also where all rows are the same.
            served[:] = True
        changed = np.flatnonzero(served & (self._weights > 0))
        self.nearest[served] = self._picks
        old, self._cost = self._cost, new
        self._picks += 1
        self._total = self._cost_in_total()
        near = self._source.apart(int(item)).astype(np.float32) if self._from_rows else None
        self._changes.append(Change(changed, old[changed], new[changed], near))
        self._forget()
        guessed = bool(self._ahead) and self._ahead[0][0] == item
        if guessed:
            self._set_gains(*self._ahead.pop(0)[1:])
        else:
            self._ahead = []
        return gain

    def value(self, indices: Any) -> float:
        """f of a set from scratch, in float64, sharing nothing with the other methods. O(n d) for each index."""
        indices = np.asarray(indices, np.int64)
        if not len(indices):
            return 0.0
        if self._from_rows and checks.is_sparse(self._given):
            from kofn.objectives._sparse_rows import chords, unit_rows

            unit = unit_rows(self._given)
            best = np.max([1 - chords(unit, j) / 4 for j in indices.tolist()], axis=0)
        elif self._from_rows:
            served = self._given if self._served is None else self._served
            best = np.full(len(served), -np.inf)
            for j in indices.tolist():
                np.maximum(best, _similarity_to(served, self._given[j], self.metric, self.bandwidth), out=best)
            if self.metric not in ("cosine", "rbf"):
                best += ceiling(served if self._served is None else np.vstack([served, self._given]), self.metric)
        elif checks.is_sparse(self._given):
            best = self._given[:, indices].max(axis=1).toarray().ravel().astype(np.float64)
        else:
            best = self._given[:, indices].max(axis=1).astype(np.float64)
        return math.fsum((self._weights * best).tolist())

    def _catch_up(self, behind: Ints) -> None:
        seen = self._seen[behind]
        taken_afresh = seen < self._since
        if self._following(seen[~taken_afresh]) > (len(behind) - int(taken_afresh.sum())) * self._open:
            taken_afresh[:] = True
        fresh = behind[taken_afresh]
        if len(fresh):
            guesses, gains = self._source.look_ahead(fresh, self._open_items(), self._cost, self._weights)
            self._set_gains(fresh, gains[0])
            self._ahead = [(pick, fresh, then) for pick, then in zip(guesses, gains[1:], strict=True)]
            behind, seen = behind[~taken_afresh], seen[~taken_afresh]
        for pick in range(int(seen.min(initial=self._picks)), self._picks):
            change = self._changes[pick - self._since]
            late = behind[seen <= pick]
            if len(change.items):
                self._gain[late] -= self._source.savings(late, change, self._weights)
        self._seen[behind] = self._picks

    def _set_gains(self, candidates: Ints, gains: Floats) -> None:
        self._gain[candidates] = gains
        self._seen[candidates] = self._picks
        self._largest = max(self._largest, float(gains.max()))

    def _following(self, seen: Ints) -> int:
        """Costs to look at to bring candidates up to date change by change, with what each change costs by itself."""
        if not len(seen):
            return 0
        late = np.cumsum(np.bincount(seen - self._since, minlength=len(self._changes)))
        sizes = np.array([len(change.items) for change in self._changes])
        return int((late * sizes + (late > 0) * _COSTS_A_CHANGE).sum())

    def _forget(self) -> None:
        """Drop changes that cost more to follow than a fresh look does; whoever is that far behind takes one."""
        pending, kept = 0, len(self._changes)
        room = self._open = len(self._open_items())
        while kept and len(self._changes) - kept < _MOST_CHANGES and pending < room:
            kept -= 1
            pending += len(self._changes[kept].items)
        if pending >= room:
            kept += 1
        if self._from_rows and self._total < self._largest / 4:
            # Gains that fell this far carry roundings of the time when they were large.
            kept = len(self._changes)
        if kept == len(self._changes):
            self._largest = 0.0
        self._since += kept
        del self._changes[:kept]

    def _open_items(self) -> Ints:
        """Items that a further pick could still serve better."""
        return np.flatnonzero((self._weights > 0) & (self._cost > self._source.least))

    def _cost_in_total(self) -> float:
        return float(self._weights @ self._cost) if self._from_rows else 0.0


def _bandwidth(value: Any, metric: str) -> float | None:
    """A bandwidth > 0, where one is given and the metric has one."""
    if value is None:
        return None
    if metric != "rbf":
        raise InputError(f"bandwidth={value!r} belongs to metric='rbf', and metric is {metric!r}; leave it out")
    width = float(checks.number(value, "bandwidth"))
    if width == 0:
        raise InputError("bandwidth=0: give a distance > 0, at which the similarity is 0.61")
    return width


def _similarity_to(X: NDArray[Any], point: NDArray[Any], metric: str, bandwidth: float | None) -> Floats:
    """Similarity of every row to a point by the textbook formula, without c, in blocks of rows."""
    out = np.empty(len(X))
    point = point.astype(np.float64)
    for low in range(0, len(X), 4096):
        rows = X[low : low + 4096].astype(np.float64)
        if metric == "cosine":
            norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(point)
            cosine = rows @ point / np.where(norms > 0, norms, 1)
            both_zero = ~rows.any(axis=1) & (not point.any())
            out[low : low + 4096] = np.where(both_zero, 1.0, (1 + cosine) / 2)
        else:
            squares = ((rows - point) ** 2).sum(axis=1)
            if bandwidth is not None:
                out[low : low + 4096] = np.exp(-squares / (2 * bandwidth * bandwidth))
            else:
                out[low : low + 4096] = -squares if metric == "sqeuclidean" else -np.sqrt(squares)
    return out
