"""Facility location on pools too large for all pairs: the search serves a random sample of the rows only."""

from __future__ import annotations

import dataclasses
from typing import Any, Unpack

import numpy as np

from kofn.core import checks
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.words import Metric, Progress, Where
from kofn.engines.speed import features_of, rows_sampled
from kofn.objectives.facility_location import FacilityLocation
from kofn.selection.greedy._run import greedy
from kofn.selection.greedy._sample import Sampled, SampledVectors
from kofn.selection.greedy._search import Search


@method(
    "select",
    draws=Draw(options={"reference": (2, 4, 10**6)}),
    cost="one to six passes over the n x reference pairs, and O(n k d) to value the picks; O(n d) memory",
    exact="the greedy picks exactly where reference >= n, else those for a sample of the rows; their value is exact",
    paper=("wei2014", "mak1999", "minoux1978"),
    sparse=True,
    refuse_ahead=FacilityLocation.refuse_ahead,
    aliases=("subsampled greedy", "sample average approximation"),
)
def sampled_greedy(
    X: Any,
    *,
    weights: Any = None,
    metric: Metric = "euclidean",
    seed: int | None = None,
    max_memory: Any = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: Progress = None,
    reference: int | None = None,
    **where: Unpack[Where],
) -> Selection:
    """Pick the items that best stand for a large pool, judged while searching by a random sample of it.

    Every row can be picked; the search takes those that bring the sampled rows nearest. What was picked is valued on
    all rows. Of dense rows a part of the sample judges the first picks, where `k` says how many there will be: no more
    than the first quarter of them, and each by 20 rows or more.

    Args:
        X: vectors (n, d); with metric "cosine" SciPy-sparse rows too, which are never made dense.
        metric: "euclidean" (c - distance), "sqeuclidean" or "cosine" ((1 + cos) / 2).
        seed: whole number; draws the sample.
        reference: how many rows the sample has; default about 10 seconds' worth of pairs for one thread by a fixed
            rate, and no fewer than 2,000 and 4 a pick. More are better and slower; n of them are `lazy_greedy`.

    Returns:
        Selection, in the order picked. `gains` and `value` are those of the full objective, every item with its
        nearest pick; there is no `bound` unless all rows are served. `info["reference"]` is the number of sampled rows.
        `info["sample_gap"]` is by how much more value, over the pool, the picks serve the sample than the rest: what
        the search believed and did not get. `info["sample_gap_interval"]` is the 95% interval of that gap, not of what
        is lost against greedy search on all rows. That loss is not known without it: on made-up pools of 6,000 rows it
        was mostly 0.2 to 0.7 of the gap, and up to 5 times it for rows without structure in 64 dimensions, where the
        gap is small.

    Raises:
        InputError: bad input. InfeasibleError: constraints that cannot be met together.

    Costs O(n * reference * d) time for each of a few passes, O(n k d) to value the picks, O(n d) memory. Dense rows
    that are nearer to a sampled row than its pick are listed once they are few; from then on a pick costs as much time
    as the lists that it shortens are long: 100,000 x 384 take half a minute of one core for k=1,000. A sample of 4,807
    of 20,000 x 64 rows lost 0.01% to 0.03% of the value of `lazy_greedy` for k=20, 0.05% to 0.14% for 200 and 0.2%
    to 0.6% for 1,000, or up to 0.05%, 0.25% and 1.25% more distance (`python -m benchmarks sampled`).

    References:
        Wei, Iyer, Bilmes, "Fast multi-stage submodular maximization", ICML 2014 (surrogates on a sample).
        Mak, Morton, Wood, "Monte Carlo bounding techniques for determining solution quality in stochastic programs",
        Operations Research Letters 1999 (what a sampled optimum says of the true one).
        Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.

    Examples:
        >>> from kofn.selection import sampled_greedy
        >>> s = sampled_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2, seed=0, reference=4)
        >>> len(s), s.info["reference"]
        (2, 4)
    """
    n = X.shape[0]
    count = (
        rows_sampled(n, features_of(X), _most(where, n)) if reference is None else checks.count(reference, "reference")
    )
    words = {"time_limit": time_limit, "n_threads": n_threads, "progress": progress, "max_memory": max_memory, **where}
    shared = {"weights": weights, "metric": metric, "max_memory": max_memory, "n_threads": n_threads}
    if count >= n:
        full = greedy({"X": X, "objective": "facility_location", **words, **shared}, Search)
        return dataclasses.replace(full, info={**full.info, "reference": n, "sample_gap": 0.0})
    w = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    weighty = np.flatnonzero(w > 0)
    rows = np.random.default_rng(seed).choice(weighty, min(count, len(weighty)), replace=False)
    kind = Sampled if checks.is_sparse(X) else SampledVectors
    # What a budget buys is not known beforehand.
    picks = 0 if where.get("budget") is not None else _most(where, 0)
    objective = kind(X, rows, {**shared, "weights": w}, picks)
    plan = greedy({"X": X, "objective": objective, **words}, SampledSearch)
    gap = None if plan.status == "stopped" else objective.gap(plan.indices)
    facts = {"sample_gap": None} if gap is None else {"sample_gap": gap[0], "sample_gap_interval": gap[1:]}
    return dataclasses.replace(
        plan,
        bound=None,
        status="stopped" if plan.status == "stopped" else "heuristic",
        guarantee=None,
        objective="facility_location",
        info={**plan.info, "reference": len(rows), **facts},
    )


def _most(where: Any, n: int) -> int:
    """How many picks there can be, as far as the call says."""
    return n if where.get("k") is None else int(where["k"])


class SampledSearch(Search):
    """A greedy run on estimated gains, which bound nothing; exact gains are taken for many picks at once."""

    takes_the_best = False
    objective: Sampled

    def _take(self, item: int) -> None:
        self.picks.append(item)
        self.objective.commit(item)
        self.upper[item] = self.exact_upper[item] = 0.0

    def _value(self) -> None:
        self.gains += self.objective.settle()

    def _bound(self) -> None:
        return

    def tighten(self) -> None:
        """Nothing is proven by one more look at estimates."""
