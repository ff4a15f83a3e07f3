"""Greedy facility location in two rounds over the parts of a pool that need not be in memory."""

from __future__ import annotations

import os
from typing import Any, Literal, Unpack

import numpy as np

from kofn.core import checks
from kofn.core.calls_ahead import CallAhead
from kofn.core.constraints import Constraints
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.pools import as_pool, is_pool
from kofn.core.registry import method
from kofn.core.words import Grouped, Metric
from kofn.engines.opening import opened
from kofn.objectives.facility_location import FacilityLocation
from kofn.objectives.similarity import ceiling
from kofn.selection.pools._answers import plan_of
from kofn.selection.pools._kept import Kept, seed_begun
from kofn.selection.pools._rounds import Run
from kofn.selection.pools._sizes import BOUND_ROWS, PART_ROWS, Rounds


def _refuse_ahead(ahead: CallAhead) -> None:
    """Refuse a `max_memory` that the rounds, or facility location on a pool of one part, would not keep."""
    if ahead.n <= (ahead.options.get("part_rows") or PART_ROWS):
        FacilityLocation.refuse_ahead(ahead)
        return
    sizes = [ahead.options.get(name) for name in ("part_rows", "n_reference", "bound_rows")]
    rounds = Rounds(ahead.n, ahead.width, ahead.itemsize, ahead.words["k"], *sizes, n_threads=ahead.n_threads)
    rounds.refuse_memory(ahead.max_memory)


@method(
    "select",
    traits=("sandwich", "distributed"),
    pooled=True,
    begun=seed_begun,
    refuse_ahead=_refuse_ahead,
    draws=Draw(
        options={
            "part_rows": (2, 3, 5),
            "n_reference": (1, 4, 10**6),
            "deal": ("in_place", "random"),
            "bound_rows": (0, 2, 10**6),
        }
    ),
    cost="O(n part_rows d) for round 1, O(n k d) to value the picks; memory beside the pool does not grow with n but "
    "for what the parts hand over",
    exact="a heuristic on samples, whose value is exact; >= (1 - 1/e)/2 in expectation where rows are dealt at random "
    "and every round is judged by all rows",
    paper=(1005, "barbosa2015", "wei2014"),
    aliases=("GreeDi", "RandGreeDi", "distributed greedy", "composable core-sets", "out of core"),
)
def two_round_greedy(
    X: Any,
    *,
    k: int,
    weights: Any = None,
    metric: Metric = "euclidean",
    seed: int | None = None,
    max_memory: Any = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    engine: Any = None,
    part_rows: int | None = None,
    n_reference: int | None = None,
    deal: Literal["in_place", "random"] = "in_place",
    bound_rows: int | None = None,
    work: str | os.PathLike[str] | None = None,
    **where: Unpack[Grouped],
) -> Selection:
    """Pick the rows that best stand for a pool of millions, part by part and then from what the parts picked.

    Round 1: every part of the pool picks rows that stand for its own. Round 2 picks k of all of those, judged by a
    fresh sample of the whole pool. Then all rows are looked at once: they give the exact value of those picks and of
    the best parts' own, of which the best are the answer, and the bound. The pool is read twice, a fragment at a time.

    Args:
        X: vectors (n, d), or a `Pool` (`kofn.core.pools`), which is never in memory as a whole.
        k: how many.
        metric: "euclidean" (c - distance), "sqeuclidean" or "cosine" ((1 + cos) / 2).
        seed: whole number; draws the samples and the deal. Without one, that of the run that `work` keeps.
        engine: where the parts are picked from: "local" (threads), "ray", "ray://HOST:PORT", or an engine. The picks
            are the same on each, and for any number of workers.
        part_rows: how many rows a part has, default 2,500. More are better and slower.
        n_reference: how many rows judge: round 2 all of them, a part as many of its own. Default 200 a pick, no fewer
            than 10,000 and no more than 100,000. Where you ask for n or more all rows judge both rounds.
        deal: "in_place": parts are runs of rows, nothing is moved. "random": rows are dealt to parts at random, which
            reads them in random order.
        bound_rows: how many rows the bound rests on, default 2,000; 0 for none, which saves about a fifth of the time.
        work: a folder that keeps each fragment's results, so that a run that was killed goes on where it was.

    Returns:
        Selection, in the order picked by round 2. `gains` and `value` are those of all rows. `bound` is at least the
        optimum's value with `info["bound_confidence"]`. `info["expected_guarantee"]` is the share of the optimum
        that is proven in expectation, None where it is not: it takes deal="random", `n_reference` >= n, nothing but
        k and `exclude`, and parts that hand over k rows each. `info["answer"]` is "round 2" or "part"; `candidates`
        how many rows the parts handed over; `engine` where it ran. A part hands over k rows, but no more than one in
        25 of its own, as far as all parts together hand over 10 k. Under quotas every part keeps their maxima and
        hands over the best of each group that has a minimum, so that round 2 can hold them. Where that would be more
        than 20,000 rows, and 40 k, so many parts as make it up, drawn at random, do so, and the others hand over one in
        1,000.

    Raises:
        InputError: bad input, `max_memory` too small, a folder `work` of another call. InfeasibleError: constraints
            that cannot be met together.

    Costs about n * part_rows distances for round 1, candidates * n_reference * 6 for round 2, n * bound_rows for the
    bound and up to 4 n k for the values: a million rows of 64 features and k=100 take about 40 seconds of one core.
    Beside the pool 16 bytes a row, 64 MiB a worker and the candidates are in memory.

    References:
        Mirzasoleiman, Karbasi, Sarkar, Krause, "Distributed submodular maximization: identifying representative
        elements in massive data", NIPS 2013 (parts judged by their own rows).
        Barbosa, Ene, Nguyen, Ward, "The power of randomization: distributed submodular maximization on massive
        datasets", ICML 2015 (the guarantee under a random deal).
        Wei, Iyer, Bilmes, "Fast multi-stage submodular maximization", ICML 2014 (judging by a sample).

    Examples:
        >>> from kofn.selection import two_round_greedy
        >>> s = two_round_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2, part_rows=3, seed=0)
        >>> s.indices.tolist(), s.info["parts"], s.info["candidates"]
        ([3, 0], 2, 4)
    """
    pool = as_pool(X)
    run = Run(
        pool=pool,
        constraints=Constraints.of(pool.n, k=k, **where),
        weights=None if weights is None else np.asarray(weights, np.float64),
        metric=metric,
        seed=int(seed or 0),
        part_rows=PART_ROWS if part_rows is None else checks.count(part_rows, "part_rows"),
        n_reference=n_reference if n_reference is None else checks.count(n_reference, "n_reference"),
        bound_rows=BOUND_ROWS if bound_rows is None else checks.count(bound_rows, "bound_rows", least=0),
        deal=deal,
        n_threads=n_threads,
        progress=progress,
        time_limit=time_limit,
        max_memory=max_memory,
        top=None if is_pool(X) else ceiling(X, metric),
    )
    if run.parts == 1 and run.all_judge:
        return run.at_once(where)
    run.refuse_memory()
    with opened(engine, n_threads) as ran:
        kept = Kept(work, {} if work is None else run.settings())
        return plan_of(run, *run.looked(ran, kept), ran, kept)
