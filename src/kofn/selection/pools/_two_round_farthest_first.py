"""Farthest first in two rounds over the parts of a pool that need not be in memory: k-center from core-sets."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn._version import __version__
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints, Mask
from kofn.core.constraints import Constraints
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.pools import Fragment, Pool, as_pool
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Items, Metric, Progress
from kofn.engines.base import Engine, stopping
from kofn.engines.opening import opened
from kofn.objectives.kcenter import distances_to
from kofn.objectives.similarity import refuse_extremes
from kofn.selection.covering._farthest_first import cover_of, least_radius
from kofn.selection.pools._kept import Kept, digest_of_arrays

# Rows and bytes of a part where no `part_rows` is asked for.
_PART_ROWS, _PART_BYTES = 1 << 17, 1 << 24


@method(
    "select",
    traits=("sandwich", "distributed"),
    pooled=True,
    draws=Draw(options={"part_rows": (2, 3, 5), "mu": (1, 2)}),
    cost="O(n d mu k) time at worst, often a few passes over the pool, which is read twice; in memory are a part a "
    "worker and mu k rows of each part",
    exact="covering radius at most four times the optimum where only k binds; the radius is that of all rows",
    paper=("malkomes2015", "ceccarello2019", "gonzalez1985"),
    aliases=("MR k-center", "k-center", "core-sets", "composable core-sets", "distributed farthest first"),
)
def two_round_farthest_first(
    X: Any,
    *,
    k: int,
    metric: Metric = "euclidean",
    include: Items | None = None,
    exclude: Items | None = None,
    start: Any = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: Progress = None,
    engine: Any = None,
    part_rows: int | None = None,
    mu: int = 2,
    work: str | os.PathLike[str] | None = None,
) -> Selection:
    """Pick rows so that none of a pool larger than memory is far from a pick: from core-sets of its parts.

    Round 1: every part of the pool picks `mu` k of its own rows, each time the one farthest from those before. Round 2
    picks k of all of these in the same way. Then all rows are looked at once, for the radius.

    Args:
        X: vectors (n, d), or a `Pool` (`kofn.core.pools`), which is never in memory as a whole.
        k: how many.
        metric: "euclidean", "sqeuclidean" or "cosine" (1 - cos).
        engine: where the parts are picked from: "local" (threads), "ray", "ray://HOST:PORT", or an engine. The picks
            are the same on each, and for any number of workers.
        part_rows: how many rows a part has at the most, default 131,072, or what 16 MiB hold.
        mu: a part hands over so many times k rows. More come nearer to `farthest_first`.
        work: a folder that keeps each part's results, so that a run that was killed goes on where it was.

    Returns:
        Selection in the order picked by round 2, as `farthest_first` has it: `gains` is how far each stood from the
        picks before it, `value` the covering radius of all rows, `bound` a proven lower bound on the smallest radius
        that any k rows can have. `info["core_radius"]` is how far the farthest row is from what its own part handed
        over; `candidates` how many rows that were; `engine` where it ran. A pool of one part has the picks of
        `farthest_first`. Where `time_limit` ends before all rows were looked at, `status` is "stopped", the picks are
        of the rows that were, `value` is NaN, since no radius of the others is known, and `bound` None.

    Raises:
        InputError: bad input, a folder `work` of another call. InfeasibleError: constraints that cannot be met
            together.

    Costs O(n d mu k) distances at worst, of which most are passed over as in `farthest_first`; the pool is read twice.
    Beside it in memory are a part and its bounds a worker, mu k rows a part, and the rows that `exclude` bars.

    The radius is at most four times the optimum (sixteen times for squared distances and 1 - cos) where only k binds:
    k + 1 rows of one part, or of all that were handed over, cannot be farther apart than twice the optimum. It is at
    most `core_radius` more than that of round 2, so that a larger `mu` brings it near twice the optimum.

    References:
        Malkomes, Kusner, Chen, Weinberger, Moseley, "Fast distributed k-center clustering with outliers on massive
        data", NIPS 2015 (two rounds, four times the optimum).
        Ceccarello, Pietracaprina, Pucci, "Solving k-center clustering (with outliers) in MapReduce and streaming,
        almost as accurately as sequentially", PVLDB 2019 (larger core-sets).
        Gonzalez, "Clustering to minimize the maximum intercluster distance", 1985.

    Examples:
        >>> from kofn.selection import two_round_farthest_first
        >>> s = two_round_farthest_first([[0.0], [1.0], [5.0], [9.0]], k=2, part_rows=2)
        >>> s.indices.tolist(), s.value, s.bound
        ([2, 0], 4.0, 2.0)
    """
    pool = as_pool(X)
    constraints = Constraints.of(pool.n, k=k, include=include, exclude=exclude, start=start)
    core = checks.count(mu, "mu") * constraints.k
    rows = usual_part(pool.width, pool.dtype.itemsize) if part_rows is None else checks.count(part_rows, "part_rows")
    run = _Run(pool, constraints, metric, core, pool.fragments(rows))
    kept = Kept(work, {} if work is None else run.settings(rows), "two_round_farthest_first")
    with (
        opened(engine, n_threads) as ran,
        Control(time_limit=time_limit, progress=progress, total=2 * len(run.fragments), title="picking") as control,
    ):
        return run.plan(ran, kept, control)


def usual_part(width: int, item: int) -> int:
    """How many rows a part has, of so many values of so many bytes."""
    return max(1, min(_PART_ROWS, _PART_BYTES // (width * item)))


@dataclass(frozen=True)
class _Ask:
    """What round 1 is to do with every part.

    Attributes:
        pool: the rows.
        metric: how they are compared.
        core: how many rows a part hands over.
        fixed: vectors that are picked already.
        banned: (n,) rows that must not be picked, or are picked already.
    """

    pool: Pool
    metric: str
    core: int
    fixed: Array
    banned: Mask


@dataclass(frozen=True)
class _Core:
    """What a part hands over.

    Attributes:
        rows: their numbers in the pool, in the order picked.
        vectors: theirs.
        mean: of all rows of the part.
        radius: how far the farthest row of the part is from these, or from what is picked already.
        evals: distances that this took.
        complete: False where it was stopped.
    """

    rows: Ints
    vectors: Array
    mean: Floats
    radius: float
    evals: int
    complete: bool = True


def core_of(part: Fragment, ask: _Ask) -> _Core:
    """Pick from one part."""
    X = ask.pool.read(part)
    if ask.metric != "cosine":
        refuse_extremes(X)
    open_ = ~ask.banned[part.first_row : part.stop]
    count = min(ask.core, int(open_.sum()))
    cover = cover_of(X, ask.metric, count + len(ask.fixed), 1)
    if len(ask.fixed):
        cover.place_points(ask.fixed)
    picks: list[int] = []
    while len(picks) < count and not stopping():
        item = cover.farthest(open_) if picks or len(ask.fixed) else cover.central(open_)
        cover.add(item)
        open_[item] = False
        picks.append(item)
    chosen = np.array(picks, np.int64)
    mean = X.mean(axis=0, dtype=np.float64)
    radius = cover.radius() if len(picks) == count and (count or len(ask.fixed)) else math.inf
    return _Core(part.first_row + chosen, X[chosen], mean, radius, cover.evals, len(picks) == count)


@dataclass(frozen=True)
class _Reach:
    """How far the farthest row of a part is from the picks, and the distances that this took."""

    radius: float
    evals: int


def reach_of(part: Fragment, pool: Pool, metric: str, picks: Array) -> _Reach:
    """Look at every row of a part with the picks at hand."""
    X = pool.read(part)
    cover = cover_of(X, metric, len(picks), 1)
    cover.place_points(picks)
    return _Reach(cover.radius(), cover.evals)


@dataclass(frozen=True)
class _Run:
    """One call: what was asked, and the steps from the pool to the plan."""

    pool: Pool
    constraints: Constraints
    metric: str
    core: int
    fragments: tuple[Fragment, ...]

    def settings(self, part_rows: int) -> dict[str, Any]:
        """What the results of a part depend on."""
        return {
            "rows": self.pool.digest,
            "k": self.constraints.k,
            "metric": self.metric,
            "part_rows": part_rows,
            "mu": self.core // self.constraints.k,
            "constraints": digest_of_arrays(self.constraints.banned, self.constraints.preselected),
            "version": __version__,
        }

    def plan(self, engine: Engine, kept: Kept, control: Control) -> Selection:
        """The plan, from both rounds and a look at all rows."""
        cores = self._cores(engine, kept, control)
        complete = len(cores) == len(self.fragments) and all(part.complete for part in cores)
        rows, vectors = self._candidates(cores)
        picks, gains, evals = self._picked(rows, vectors, cores)
        looked = self._looks(engine, kept, control, vectors[picks]) if complete else []
        whole = len(looked) == len(self.fragments)
        radius = max(part.radius for part in looked) if whole else math.nan
        # A row that must not be picked may be farther from those that may be.
        free = whole and not self.constraints.banned.any()
        guarantee = (0.25 if self.metric == "euclidean" else 0.0625) if free else None
        evals += sum(part.evals for part in cores) + sum(part.evals for part in looked)
        status = "stopped" if not whole else "optimal" if radius == 0 else "approximate" if free else "heuristic"
        bound = None if not whole else least_radius(gains, radius, self.metric) if radius else 0.0
        return Selection(
            n=self.pool.n,
            indices=rows[picks],
            gains=np.array(gains),
            value=radius,
            sense="min",
            bound=bound,
            status=status,
            used={"k": len(picks)},
            budget={"k": self.constraints.k},
            objective="k_center",
            additive=False,
            guarantee=guarantee,
            info={
                # In full passes over the pool, rounded up.
                "oracle_calls": -(-evals // self.pool.n),
                "distance_evals": evals,
                "parts": len(self.fragments),
                "candidates": len(rows),
                "core_radius": max(part.radius for part in cores) if complete else None,
                "reused": kept.reused,
                "engine": engine.facts(),
            },
        )

    def _cores(self, engine: Engine, kept: Kept, control: Control) -> list[_Core]:
        """What each part hands over."""
        banned = self.constraints.banned.copy()
        banned[self.constraints.preselected] = True
        fixed = self.pool.take(self.constraints.preselected)
        shared = (engine.share(_Ask(self.pool, self.metric, self.core, fixed, banned)),)
        results = kept.map(engine, core_of, self.fragments, "core", _Core, shared=shared, stopped=control.stopped)
        cores = []
        for part in results:
            cores.append(part)
            control.step(len(cores))
        return cores

    def _candidates(self, cores: Sequence[_Core]) -> tuple[Ints, Array]:
        """What is picked already, and what the parts handed over; the first rows too where those were too few."""
        fixed, banned = self.constraints.preselected, self.constraints.banned
        rows = np.concatenate([fixed, *(part.rows for part in cores)])
        vectors = np.concatenate([self.pool.take(fixed), *(part.vectors for part in cores)])
        if len(rows) >= self.constraints.k:
            return rows, vectors
        open_ = ~banned
        open_[rows] = False
        more = np.flatnonzero(open_)[: self.constraints.k - len(rows)]
        return np.concatenate([rows, more]), np.concatenate([vectors, self.pool.take(more)])

    def _picked(self, rows: Ints, vectors: Array, cores: Sequence[_Core]) -> tuple[Ints, list[float], int]:
        """Which of the candidates are picked, how far each stood from those before it, and distances taken."""
        k, fixed = self.constraints.k, len(self.constraints.preselected)
        cover = cover_of(vectors, self.metric, k, None)
        open_ = np.ones(len(rows), bool)
        picks, gains = [], []
        for position in range(k):
            if position < fixed:
                item = position
            elif not position:
                item = self._central(vectors, cores)
            else:
                item = cover.farthest(open_)
            gains.append(cover.add(item))
            open_[item] = False
            picks.append(item)
        return np.array(picks, np.int64), gains, cover.evals

    def _central(self, vectors: Array, cores: Sequence[_Core]) -> int:
        """The candidate nearest to the mean of the pool, as far as it was read."""
        means = [part.mean for part in cores]
        if not means:
            return 0
        counts = [part.rows for part in self.fragments[: len(means)]]
        mean = means[0] if len(means) == 1 else np.average(means, axis=0, weights=counts)
        return int(np.argmin(distances_to(vectors, mean, self.metric)))

    def _looks(self, engine: Engine, kept: Kept, control: Control, picks: Array) -> list[_Reach]:
        """A look at each part with the picks at hand."""
        shared = (engine.share(self.pool), self.metric, engine.share(picks))
        stage = f"reach-{digest_of_arrays(picks)[:12]}"
        results = kept.map(engine, reach_of, self.fragments, stage, _Reach, shared=shared, stopped=control.stopped)
        looked = []
        for part in results:
            looked.append(part)
            control.step(len(self.fragments) + len(looked))
        return looked
