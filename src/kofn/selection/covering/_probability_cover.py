"""Balls of one radius around the picks that hold as many rows as possible."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Unpack

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Ints, Mask
from kofn.core.constraints import Constraints, Tracker, finish
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.runtime import Control, Stopped
from kofn.core.words import Metric, Progress, Where
from kofn.engines.threads import cores
from kofn.objectives._filling import filling_of, in_time
from kofn.selection.covering import _nearness
from kofn.selection.covering._nearness import Space

_MOST_CLUSTERS = 500
_SAMPLED = 2_000


@method(
    "select",
    sparse=True,
    traits=("sandwich",),
    draws=Draw(
        compiled=True,
        options={"radius": (0.0, 0.5, 1.0, 2.5), "purity": (0.5, 0.95, 1.0), "clusters": (None, 1, 3)},
        units={"radius": "distance"},
    ),
    cost="two passes over the n x n pairs, which are never stored; O(n d) memory",
    exact="the greedy cover, exactly; >= (1 - 1/e) of the optimum where only k binds",
    paper=1003,
    aliases=("probcover", "maximum coverage by balls", "cold start"),
)
def probability_cover(
    X: Any,
    *,
    metric: Metric = "euclidean",
    radius: float | None = None,
    purity: float = 0.95,
    clusters: int | None = None,
    seed: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: Progress = None,
    **where: Unpack[Where],
) -> Selection:
    """Pick rows so that balls of one radius around them hold as many rows as possible.

    Args:
        X: vectors (n, d); with metric "cosine" SciPy-sparse rows too, which are never made dense.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos).
        radius: rows nearer than this to a pick are covered, and every pick is; default by `purity`.
        purity: the largest radius is taken at which this share of the rows' balls (of 2,000 sampled rows at most) hold
            rows of one k-means cluster alone.
        clusters: how many clusters k-means makes for that; the paper takes the number of classes. Default min(k, 500).
        start: rows that are labelled already; `include` likewise. What they cover counts as covered.

    Returns:
        Selection in the order picked. `gains` is how many rows each covers anew, `value` how many all of them cover;
        `bound` is at least the optimum's value. `info["radius"]` is the radius, NaN where the time
        was up before it was known. Once everything is covered the
        picks are the lowest open rows.

    Raises:
        InputError: bad input. InfeasibleError: constraints that cannot be met together.

    Costs one pass over all pairs for the first gains and one, over the run, to take off what is covered: O(n^2 d) time,
    O(n d) memory. The balls change with `radius` alone, so for a given number the picks of a smaller k are a prefix.
    The rule by purity is the paper's and is fragile: look at `value`, and give a radius where it is near k or near n.

    References:
        Yehuda, Dekel, Hacohen, Weinshall, "Active Learning Through a Covering Lens", NeurIPS 2022.

    Examples:
        >>> from kofn.selection import probability_cover
        >>> s = probability_cover([[0.0], [0.4], [0.8], [5.0], [5.1]], k=2, radius=0.5)
        >>> s.indices.tolist(), s.gains.tolist(), s.bound
        ([1, 3], [3.0, 2.0], 5.0)
    """
    n, threads = X.shape[0], cores(n_threads)
    constraints = Constraints.of(n, where)
    tracker = Tracker(constraints)
    space = _nearness.space_of(X, metric)
    unit = 0.5 if metric == "cosine" else space.unit
    within = math.nan if radius is None else float(checks.number(radius, "radius")) / unit
    usual = min(n if constraints.k is None else constraints.k, _MOST_CLUSTERS)
    n_clusters = min(n, usual if clusters is None else checks.count(clusters, "clusters"))
    purity = checks.fraction(purity, "purity")
    balls: _Balls | None = None
    picks: list[int] = constraints.preselected.tolist()
    # What could not be valued any more stays open.
    gains = [math.nan] * len(picks)
    bound, stopped = float(n), False
    total = constraints.k if constraints.exact_k else 0
    with Control(time_limit=time_limit, progress=progress, total=total, title="picking") as control:
        try:
            if radius is None:
                rng = np.random.default_rng(seed)
                within = _pure_radius(space, n_clusters, purity, rng, threads, control.check_late)
            balls = _Balls(space, within, threads, control.check_late)
            gains[:] = map(balls.add, picks)
            bound = min(bound, balls.bound(constraints))
            balls.check = control.check
            while (open_items := tracker.eligible()).any():
                control.check()
                item = int(np.argmax(np.where(open_items, balls.fresh, -1)))
                tracker.add(item)
                picks.append(item)
                gains.append(math.nan)
                gains[-1] = balls.add(item)
                control.step(len(picks))
                bound = min(bound, balls.bound(constraints))
        except Stopped:
            stopped = True
    picks_in_time, filling = len(picks), filling_of(X, metric, picks)
    if stopped:
        added, brought = finish(tracker, control, lambda item: _late(balls, item, control), filling)
        picks, gains = picks + added, gains + brought
    used, limit = tracker.report()
    return Selection(
        n=n,
        indices=np.array(picks, np.int64),
        gains=np.array(gains),
        value=math.nan if balls is None or np.isnan(gains).any() else float(balls.value),
        bound=None if np.isnan(gains).any() else bound,
        status="stopped" if stopped else "approximate",
        used=used,
        budget=limit,
        objective="rows_in_balls",
        guarantee=1 - 1 / np.e if constraints.cardinality_only and not stopped else None,
        info={"radius": within * unit, **(in_time(picks_in_time, filling) if stopped else {})},
    )


def _late(balls: _Balls | None, item: int, control: Control) -> float:
    """What a pick made after the time was up covers anew; NaN where that cannot be counted within the grace."""
    if balls is None or balls.behind:
        return math.nan
    balls.check = control.check_late
    try:
        return balls.add(item)
    except Stopped:
        return math.nan


class _Balls:
    """How many rows not covered yet lie in the ball of each row.

    `check` is called now and then and may raise; the counts are `behind` then.
    """

    def __init__(self, space: Space, within: float, n_threads: int, check: Callable[[], None]) -> None:
        self.space, self.within, self.n_threads, self.check = space, within, n_threads, check
        self.behind = False
        self.covered = np.zeros(space.n, bool)
        self.picked = np.zeros(space.n, bool)
        self.fresh: Ints = np.zeros(space.n, np.int64)
        self._count(np.arange(space.n), 1)

    def _count(self, rows: Ints, sign: int) -> None:
        for block, away in _nearness.blocks(self.space, rows, self.n_threads, self.check):
            self.fresh += sign * self._inside(block, away).sum(axis=0)

    def _inside(self, rows: Ints, away: Any) -> Mask:
        inside: Mask = away < self.within
        inside[np.arange(len(rows)), rows] = True
        return inside

    @property
    def value(self) -> int:
        """How many rows are covered."""
        return int(self.covered.sum())

    def bound(self, constraints: Constraints) -> float:
        """No picks within the constraints cover more rows than this."""
        return self.value + constraints.upper_bound(self.fresh.astype(np.float64), self.picked)

    def add(self, item: int) -> float:
        """Commit a pick; returns how many rows it covers anew."""
        row, self.behind = np.array([item]), True
        ((_, away),) = _nearness.blocks(self.space, row, self.n_threads, self.check)
        anew = np.flatnonzero(self._inside(row, away)[0] & ~self.covered)
        self.covered[anew] = True
        self.picked[item] = True
        self._count(anew, -1)
        self.behind = False
        return float(len(anew))


def _pure_radius(
    space: Space,
    n_clusters: int,
    purity: float,
    rng: np.random.Generator,
    n_threads: int,
    check: Callable[[], None],
) -> float:
    """The largest radius, before `unit`, at which this share of balls holds rows of one cluster alone."""
    labels = _nearness.kmeans(space, n_clusters, rng, n_threads, check)
    rows = np.arange(space.n)
    if space.n > _SAMPLED:
        rows = np.sort(rng.choice(space.n, _SAMPLED, replace=False))
    nearest_other = np.full(len(rows), np.inf)
    for low, (block, away) in enumerate(_nearness.blocks(space, rows, n_threads, check)):
        other = np.where(labels[block][:, None] != labels[None, :], away, np.inf)
        nearest_other[low * _nearness.BLOCK : low * _nearness.BLOCK + len(block)] = other.min(axis=1)
    # A ball is pure up to the distance of the nearest row of another cluster; the farthest row stands for "no other".
    pure = np.sort(np.minimum(nearest_other, space.top))
    return float(pure[min(len(pure) - 1, int((1 - purity) * len(pure)))])
