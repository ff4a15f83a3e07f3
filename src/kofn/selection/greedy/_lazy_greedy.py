"""Pick the items that best stand for the pool, each time the one that adds most."""

from __future__ import annotations

from typing import Any

from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.selection.greedy._run import greedy
from kofn.selection.greedy._search import Search


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich", "greedy"),
    draws=Draw(options={"tight_bound": (True, False)}, compiled=True),
    cost="about one pass over the n x n pairs, which are never stored; O(n d) memory",
    exact="the greedy picks exactly; >= (1 - 1/e) of the optimum under k, 1/2 under quotas, (1 - 1/e)/2 under a budget",
    paper=("minoux1978", "nemhauser1978"),
)
def lazy_greedy(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    objective: Any = None,
    k: int | None = None,
    budget: float | None = None,
    costs: Any = None,
    groups: Any = None,
    quotas: Any = None,
    include: Any = None,
    exclude: Any = None,
    start: Any = None,
    weights: Any = None,
    metric: str = "euclidean",
    max_memory: int | None = None,
    time_limit: float | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
    queries: Any = None,
    private: Any = None,
    tight_bound: bool = False,
) -> Selection:
    """Pick the items that best stand for the pool, each time the one that adds most.

    Args:
        X: vectors (n, d); or `similarity` (n, n), dense or SciPy-sparse; or `scores` (n,) with objective "modular".
        objective: "facility_location" (default; with `scores` alone "modular"); any name of `kofn.objectives`, with its
            parameters as "graph_cut(lam=0.3)", or a sum as "0.7*facility_location + 0.3*feature_based"; or an object
            with `gains`, `add` and `value` (`kofn.core.objective.Objective`).
        k: how many; with a budget, at most how many.
        budget: what may be spent in total, with `costs` (n,); the rule is then gain per cost.
        groups: (n,) labels, with `quotas` {group: (least, most)}.
        include: items that must be picked; they come first. `exclude`: items that must not be.
        start: a plan or items to go on from; they come first and count towards k.
        weights: (n,) how much each item of the pool counts, default 1.
        metric: "euclidean" (c - distance), "sqeuclidean" or "cosine" ((1 + cos) / 2).
        max_memory: bytes of scratch, default a few dozen MB beside X.
        time_limit: seconds; the picks made by then are returned, status "stopped".
        n_threads: default all cores; the picks are the same for any number.
        queries: (q, d) vectors that the picks should be about, for the objectives that are built from them.
        private: (p, d) vectors that are owned already or must not be told, likewise.
        tight_bound: one more pass over all items at the end for a smaller `bound`.

    Returns:
        Selection, in the order picked. `gains` sum to `value`; `bound` is at least the optimum's value;
        `guarantee` is the proven share of the optimum, None where there is none.

    Raises:
        InputError: bad input, or an objective that is not submodular (`naive_greedy` takes those).
        InfeasibleError: constraints that cannot be met together.

    Costs O(n^2 d) time at worst and usually about one such pass; O(n d) memory from X, nothing n x n is built.

    References:
        Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.
        Nemhauser, Wolsey, Fisher, "An analysis of approximations for maximizing submodular set functions", 1978.
        Leskovec et al., "Cost-effective outbreak detection in networks", KDD 2007 (gain per cost).

    Examples:
        >>> from kofn.selection import lazy_greedy
        >>> s = lazy_greedy([[0.0], [0.1], [5.0], [5.2], [9.0]], k=2)
        >>> s.indices.tolist(), s.value <= s.bound
        ([2, 0], True)
    """
    return greedy(locals(), Search)
