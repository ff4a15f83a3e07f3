"""Covering the pool: no item far from a pick."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol, Unpack

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Mask
from kofn.core.checks import InputError
from kofn.core.constraints import Constraints, Tracker, finish, pick_in_turn
from kofn.core.devices import device_with_float64
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Metric, Progress, Where
from kofn.engines.threads import cores, spread
from kofn.objectives._filling import filling_of, in_time
from kofn.objectives._sparse_rows import SparseDistances, chords, unit_rows
from kofn.objectives.kcenter import distances_to, lengths
from kofn.objectives.similarity import refuse_extremes

# Entries of X times picks that NumPy deals with while compiled code is still being loaded.
_SMALL = 1 << 26
# Entries of X times picks that are looked at even though the time is up.
_SOON = 1 << 26
# Blocks looked at one after another before all are looked at on all threads.
_IN_TURN = 24
# Distances between picks are kept for this many of them, so that they take 64 MiB at most.
_PAIRED = 4096


@method(
    "select",
    traits=("sandwich",),
    cost="O(n d k) time at worst, often a few passes over X; O(n + k^2) memory beside X",
    exact="covering radius at most twice the optimum where only k binds",
    paper="gonzalez1985",
    sparse="any metric",
)
def farthest_first(
    X: Any,
    *,
    metric: Metric = "euclidean",
    time_limit: float | None = None,
    n_threads: int | None = None,
    device: str | None = None,
    progress: Progress = None,
    **where: Unpack[Where],
) -> Selection:
    """Pick items so that none of the pool is far from a pick: each time the one farthest from the picks so far.

    Args:
        X: vectors (n, d); SciPy-sparse rows too, which are never made dense.
        k: how many; with a `budget` and `costs`, at most how many (the farthest that can be afforded).
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos).
        device: what compares the rows: "cpu" (default), "cuda", "cuda:1", "auto" (a GPU where torch sees one). The
            answer is the same; X is held on the device.

    Returns:
        Selection in the order picked. `gains` is how far each stood from the picks before it (NaN for the first,
        which is the item nearest to the pool's mean); `value` is the covering radius, sense "min"; `bound` is a
        proven lower bound on the smallest radius that any k items can have.

    Raises:
        InputError: bad input. InfeasibleError: constraints that cannot be met together.

    Costs O(n d k) time at worst. Distances to the nearest pick only fall, so old ones are upper bounds, and an item is
    looked at again only once its bound is the largest of all; picks too far from an item's own pick to be nearer are
    passed over by the triangle inequality. What is left is often a few passes over X, and `info["distance_evals"]`
    counts it. Memory O(n) beside X, up to 64 MiB for distances between picks, and a copy of X unless it is C-ordered.
    Picks, gains and value are those of the plain loop, bit for bit.

    The radius is at most twice the optimum (four times for squared distances and 1 - cos) where only k binds. The bound
    holds always: k + 1 items pairwise at least r apart need a radius of r / 2.

    References:
        Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.

    Examples:
        >>> from kofn.selection import farthest_first
        >>> s = farthest_first([[0.0], [1.0], [5.0], [9.0]], k=2)
        >>> s.indices.tolist(), s.value, s.bound
        ([2, 0], 4.0, 2.0)
    """
    n = X.shape[0]
    constraints = Constraints.of(n, where)
    tracker = Tracker(constraints)
    most = n if constraints.budget is not None else constraints.k
    cover: _Cover
    there = device_with_float64(device)
    if checks.is_sparse(X):
        if there is not None:
            raise InputError("X is a sparse matrix, and a device compares dense rows; leave device out, or give those")
        cover = _SparseAngles(X) if metric == "cosine" else _SparsePoints(X, metric)
    elif there is not None:
        if metric != "cosine":
            refuse_extremes(X)
        from kofn.objectives._device_cover import DeviceCover

        cover = DeviceCover(X, metric, there)
    else:
        if metric != "cosine":
            refuse_extremes(X)
        cover = cover_of(X, metric, most, n_threads)
    # What picks drawn at random reach takes up to a pass over X for each of them: too long once the time is up.
    cheap = X.size * most <= _SOON
    picks: list[int] = []
    gains: list[float] = []

    def take(item: int) -> None:
        gains.append(cover.add(item))
        picks.append(item)

    def choose(open_items: Mask) -> int:
        return cover.farthest(open_items) if picks else cover.central(open_items)

    total = constraints.k if constraints.exact_k else 0
    with Control(time_limit=time_limit, progress=progress, total=total, title="picking") as control:
        stopped = pick_in_turn(tracker, control, choose, take)
        radius, picks_in_time, filling = math.nan, len(picks), filling_of(X, metric, picks)
        if stopped:
            added, brought = finish(tracker, control, cover.add if cheap else lambda _item: math.nan, filling)
            picks, gains = picks + added, gains + brought
        if cheap or len(picks) == picks_in_time:
            radius = cover.radius()
    used, limit = tracker.report()
    return Selection(
        n=n,
        indices=np.array(picks, np.int64),
        gains=np.array(gains),
        value=radius,
        sense="min",
        bound=_bound(constraints, gains, radius, metric) if not stopped else None,
        status="stopped" if stopped else ("optimal" if radius == 0 else "approximate"),
        used=used,
        budget=limit,
        objective="k_center",
        additive=False,
        guarantee=(0.5 if metric == "euclidean" else 0.25) if constraints.cardinality_only and not stopped else None,
        info={
            # In full passes over the pool, rounded up.
            "oracle_calls": -(-cover.evals // n),
            "distance_evals": cover.evals,
            **(in_time(picks_in_time, filling) if stopped else {}),
        },
    )


def _bound(constraints: Constraints, gains: list[float], radius: float, metric: str) -> float | None:
    if radius == 0:
        return 0.0
    return None if constraints.budget is not None else least_radius(gains, radius, metric)


def least_radius(gains: list[float], radius: float, metric: str) -> float:
    """No k items can cover the pool closer than this: the picks and the farthest item are k + 1 items this far
    apart."""
    apart: Floats = np.append(np.array(gains[1:]), radius)
    # Squared distances and 1 - cos (half a squared chord) double the distance when it is quadrupled.
    return float(apart.min()) / (2 if metric == "euclidean" else 4)


def cover_of(X: NDArray[Any], metric: str, most: int, n_threads: int | None) -> _Plain | LazyCover:
    """What knows the farthest of dense rows, for so many picks at the most; the same answers either way."""
    return _Plain(X, metric) if X.size * most <= _SMALL else LazyCover(X, metric, cores(n_threads))


class _Cover(Protocol):
    """Which item is farthest from the picks so far. Ties go to the lowest index."""

    @property
    def evals(self) -> int:
        """Distances looked at so far."""
        ...

    def central(self, open_items: Mask) -> int:
        """The open item nearest to the pool's mean."""
        ...

    def add(self, item: int) -> float:
        """Commit a pick; returns how far it stood from the picks before it, NaN for the first."""
        ...

    def farthest(self, open_items: Mask) -> int: ...

    def radius(self) -> float:
        """How far the farthest item of all is from its nearest pick."""
        ...


class _Plain:
    """Every item's distance to its nearest pick, brought up to date after every pick."""

    def __init__(self, X: NDArray[Any], metric: str) -> None:
        self.X, self.metric, self.evals = X, metric, 0
        self.nearest = np.full(len(X), np.inf)
        self.picked = False

    def central(self, open_items: Mask) -> int:
        self.evals += len(self.X)
        middle = distances_to(self.X, self.X.mean(axis=0, dtype=np.float64), self.metric)
        return int(np.argmin(np.where(open_items, middle, np.inf)))

    def add(self, item: int) -> float:
        gain = float(self.nearest[item]) if self.picked else np.nan
        self.picked = True
        self.evals += len(self.X)
        np.minimum(self.nearest, distances_to(self.X, self.X[item], self.metric), out=self.nearest)
        return gain

    def farthest(self, open_items: Mask) -> int:
        return int(np.argmax(np.where(open_items, self.nearest, -np.inf)))

    def radius(self) -> float:
        return float(self.nearest.max())

    def place_points(self, points: NDArray[Any]) -> None:
        """Commit picks that need not be rows."""
        self.picked = self.picked or len(points) > 0
        self.evals += len(self.X) * len(points)
        for point in points:
            np.minimum(self.nearest, distances_to(self.X, point, self.metric), out=self.nearest)


class _SparsePoints(_Plain):
    """The same for SciPy-sparse rows under "euclidean" and "sqeuclidean"; O(entries) a pick."""

    def __init__(self, X: Any, metric: str) -> None:
        self.points, self.metric, self.evals = SparseDistances(X), metric, 0
        self.nearest = np.full(X.shape[0], np.inf)
        self.mean = np.asarray(self.points.rows.mean(axis=0), np.float64).ravel()
        self.picked = False

    def _distances(self, point: Floats) -> Floats:
        self.evals += len(self.nearest)
        squares = self.points.squares(point)
        return self.points.in_units(squares if self.metric == "sqeuclidean" else np.sqrt(squares), self.metric)

    def central(self, open_items: Mask) -> int:
        return int(np.argmin(np.where(open_items, self._distances(self.mean), np.inf)))

    def add(self, item: int) -> float:
        gain = float(self.nearest[item]) if self.picked else np.nan
        self.picked = True
        np.minimum(self.nearest, self._distances(self.points.row(item)), out=self.nearest)
        return gain


class _SparseAngles(_Plain):
    """The same for SciPy-sparse rows under "cosine"; O(entries) a pick."""

    def __init__(self, X: Any) -> None:
        self.unit, self.evals = unit_rows(X), 0
        self.nearest = np.full(X.shape[0], np.inf)
        self.mean = np.asarray(X.mean(axis=0), np.float64).ravel()
        self.picked = False

    def central(self, open_items: Mask) -> int:
        self.evals += len(self.nearest)
        towards = self.unit[:, :-1] @ self.mean
        # Where the mean has no direction, neither has what is nearest to it.
        nearness = towards if self.mean.any() else np.diff(self.unit[:, -1:].tocsr().indptr)
        return int(np.argmax(np.where(open_items, nearness, -np.inf)))

    def add(self, item: int) -> float:
        gain = float(self.nearest[item]) if self.picked else np.nan
        self.picked = True
        self.evals += len(self.nearest)
        np.minimum(self.nearest, chords(self.unit, item) / 2, out=self.nearest)
        return gain


class LazyCover:
    """The same answers from old distances, which are upper bounds; only what may be farthest is brought up to date."""

    def __init__(self, X: NDArray[Any], metric: str, n_threads: int) -> None:
        from kofn.selection.covering import _kernels

        self.kernels = _kernels
        self.X, self.rows, self.n_threads, self.evals = X, np.ascontiguousarray(X), n_threads, 0
        self.metric = ("euclidean", "sqeuclidean", "cosine").index(metric)
        self.sizes = lengths(X) if metric == "cosine" else np.empty(0)
        self.count, n = 0, len(X)
        self.picks = np.zeros((1, X.shape[1], _kernels.LANES))
        self.directionless = np.zeros(_kernels.LANES, bool)
        self.apart = np.zeros((_kernels.LANES, _kernels.LANES), np.float32)
        self.near = np.full(n, np.inf)
        # Of each item: the pick that is nearest, and how many picks its distance accounts for.
        self.own, self.seen = np.full(n, -1, np.int32), np.zeros(n, np.int32)
        blocks = -(-n // _kernels.BLOCK)
        # Of each block: the largest distance, or an upper bound on it, and where it stands.
        self.tops, self.places = np.full(blocks, np.inf), np.full(blocks, -1, np.int64)

    def central(self, open_items: Mask) -> int:
        middle = self.X.mean(axis=0, dtype=np.float64)
        size = lengths(middle[None])[0]
        self._put(middle, float(size))
        self._spread(lambda low, high: self.kernels.refresh(low, high, *self._state()), len(self.X))
        away, self.near = self.near, np.full(len(self.X), np.inf)
        self.own[:], self.seen[:], self.count = -1, 0, 0
        return int(np.argmin(np.where(open_items, away, np.inf)))

    def _spread(self, work: Callable[[int, int], int], parts: int) -> None:
        """Do work that counts distances on all threads."""
        taken: list[int] = []
        spread(lambda low, high: taken.append(work(low, high)), parts, self.n_threads, shares=4)
        self.evals += sum(taken)

    @property
    def pool(self) -> tuple[Any, ...]:
        """The items and the picks, as compiled code reads them."""
        return self.rows, self.sizes, self.metric, self.picks, self.directionless, self.apart, self.count

    def _state(self) -> tuple[Any, ...]:
        return *self.pool, self.near, self.own, self.seen

    def add(self, item: int) -> float:
        if self.count:
            self.evals += self.kernels.refresh(item, item + 1, *self._state())
        gain = float(self.near[item]) if self.count else np.nan
        self.place(item)
        return gain

    def place(self, item: int) -> None:
        """Commit a pick without asking how far it stood."""
        self._put(self.rows[item].astype(np.float64), float(self.sizes[item]) if len(self.sizes) else 1.0)

    def place_points(self, points: NDArray[Any]) -> None:
        """Commit picks that need not be rows."""
        sizes = lengths(points) if len(self.sizes) else np.ones(len(points))
        for point, size in zip(points.astype(np.float64), sizes.tolist(), strict=True):
            self._put(point, size)

    def _put(self, point: Floats, size: float) -> None:
        if self.count == len(self.directionless):
            self.picks = np.concatenate([self.picks, np.zeros_like(self.picks)])
            self.directionless = np.concatenate([self.directionless, np.zeros_like(self.directionless)])
            paired = np.zeros((min(2 * self.count, _PAIRED),) * 2, np.float32)
            paired[: len(self.apart), : len(self.apart)] = self.apart
            self.apart = paired
        zero = len(self.sizes) > 0 and size == 0
        if len(self.sizes) and not zero:
            point = point / size
        self.kernels.add_pick(point, zero, self.metric, self.count, self.picks, self.directionless, self.apart)
        self.evals += min(self.count, len(self.apart))
        self.count += 1

    def farthest(self, open_items: Mask) -> int:
        closed = ~open_items
        taken = self.kernels.few_blocks(_IN_TURN, closed, *self._state(), self.tops, self.places)
        if taken < 0:
            taken = -1 - taken
            # What is known to be true sets the mark that all others are measured by.
            true = (self.places >= 0) & (self.seen[self.places] == self.count)
            least = float(self.tops[true].max(initial=-np.inf))
            more = (least, closed, *self._state(), self.tops, self.places)
            self._spread(lambda low, high: self.kernels.all_blocks(low, high, *more), len(self.tops))
        self.evals += taken
        return int(self.places[np.argmax(self.tops)])

    def radius(self) -> float:
        self.tops[:], self.places[:] = np.inf, -1
        return float(self.near[self.farthest(np.ones(len(self.X), bool))])
