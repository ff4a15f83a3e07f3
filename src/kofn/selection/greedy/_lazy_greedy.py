"""Pick the items that best stand for the pool, each time the one that adds most."""

from __future__ import annotations

from typing import Any, Unpack

from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.selection.greedy._run import Greedy, greedy
from kofn.selection.greedy._search import Search


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("sandwich", "greedy"),
    draws=Draw(options={"tight_bound": (True, False)}, compiled=True),
    cost="about one pass over the n x n pairs, which are never stored; O(n d) memory",
    exact="the greedy picks exactly; >= (1 - 1/e) of the optimum under k, 1/2 under quotas, (1 - 1/e)/2 under a budget "
    "and (1 - 1/sqrt(e))/2 under both",
    paper=("minoux1978", "nemhauser1978"),
    sparse=True,
)
def lazy_greedy(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    tight_bound: bool = False,
    device: str | None = None,
    **words: Unpack[Greedy],
) -> Selection:
    """Pick the items that best stand for the pool, each time the one that adds most.

    Args:
        X: vectors (n, d); or `similarity` (n, n), dense or SciPy-sparse; or `scores` (n,) with objective "modular".
        tight_bound: one more pass over all items at the end for a smaller `bound`.
        device: what compares the rows of X for facility location: "cpu" (default), "cuda", "cuda:1", "auto" (a GPU
            where torch sees one). Picks, gains and value are the same, `bound` may be larger; X is held on the device,
            beside blocks of pairs, and `max_memory` counts there too.

    Returns:
        Selection, in the order picked. `gains` sum to `value`; `bound` is at least the optimum's value;
        `guarantee` is the proven share of the optimum, None where there is none.

    Raises:
        InputError: bad input, or an objective that is not submodular (`naive_greedy` takes those).
        InfeasibleError: constraints that cannot be met together.

    Under a budget the picks are those of the best of up to three runs: by gain alone, which is the answer where the
    budget keeps nothing from being picked; by gain per cost; and with a count too, by gain for an item's share of the
    slots and of the budget. The proven share with both is our own: some run misses an item with which its picks would
    fill one load, of which the optimum has two.

    Under quotas over several columns no pick is made that leaves no completion. The share is 1/(p + 1) for p columns
    where this never kept a pick back, and None where it did.

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
    pool = {"X": X, "similarity": similarity, "scores": scores, "device": device}
    return greedy({**pool, **words}, Search, tight_bound=tight_bound)
