"""Keep k training examples that cover every difficulty, leaving out the hardest, which are often mislabelled."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InfeasibleError
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.selection.basics._top_k import one_score_an_item


@method(
    "select",
    traits=("inclusion",),
    draws=Draw(options={"n_strata": (1, 2, 50)}, states_no_value=True),
    cost="O(n log n) time, O(n) memory",
    exact="exactly k; stratum counts differ only where a stratum runs out",
    paper=32,
)
def ccs(
    scores: Any,
    *,
    k: int,
    seed: int | None = None,
    n_strata: int = 50,
    cutoff: float = 0.1,
) -> Selection:
    """Keep k training examples that cover every difficulty, leaving out the hardest, which are often mislabelled.

    The hardest `cutoff` share is dropped; the rest is cut into `n_strata` ranges of equal width in the score; the k
    picks are shared evenly over the ranges, smallest first, so that the share that a small range cannot use goes to
    the larger ones; inside a range the draw is uniform.

    Args:
        scores: (n,) difficulty, higher is harder (EL2N, forgetting, margin error, area under the margin negated).
        n_strata: number of equal-width ranges.
        cutoff: share of the hardest examples to leave out (the paper's beta), in [0, 1).

    Returns:
        Selection, easiest range first; `probabilities` (n,) is each item's exact chance of being kept. `value` is
        NaN: the method samples and maximises nothing.

    Raises:
        InfeasibleError: `cutoff` leaves fewer than k examples.

    Costs O(n log n) time and O(n) memory.

    References:
        Zheng, Liu, Lai, Prakash, "Coverage-centric Coreset Selection for High Pruning Rates", ICLR 2023, Algorithm 1.

    Examples:
        >>> import numpy as np
        >>> from kofn.selection import ccs
        >>> s = ccs(np.linspace(0, 1, 100), k=10, n_strata=5, cutoff=0.1, seed=0)
        >>> np.bincount(np.minimum(s.indices // 18, 4)).tolist()
        [2, 2, 2, 2, 2]
    """
    one_score_an_item(scores)
    n = len(scores)
    n_strata = checks.count(n_strata, "n_strata")
    cutoff = checks.fraction(cutoff, "cutoff")
    dropped = math.floor(n * cutoff)
    if k > n - dropped:
        raise InfeasibleError(f"k={k}, but cutoff={cutoff:g} leaves {n - dropped} of {n} examples; lower k or cutoff")
    kept = np.sort(np.argsort(scores, kind="stable")[: n - dropped])
    strata = _strata(scores[kept].astype(np.float64), n_strata)
    sizes = np.bincount(strata, minlength=n_strata)
    takes = _shares(sizes, k)
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(kept))
    ordered = shuffled[np.argsort(strata[shuffled], kind="stable")]
    begins = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    picks = np.concatenate([ordered[b : b + t] for b, t in zip(begins, takes, strict=True)])
    probabilities = np.zeros(n)
    probabilities[kept] = (takes / np.maximum(sizes, 1))[strata]
    return Selection(
        n=n,
        indices=kept[picks].astype(np.int64),
        gains=np.full(k, math.nan),
        probabilities=probabilities,
        used={"k": k},
        budget={"k": k},
        additive=False,
        info={"dropped": dropped, "strata_sizes": sizes.tolist(), "strata_taken": takes.tolist()},
    )


def _strata(scores: NDArray[np.float64], n_strata: int) -> NDArray[np.int64]:
    """The index of the equal-width range that each score falls in; the highest score belongs to the last range."""
    low, high = scores.min(), scores.max()
    if high == low:
        return np.zeros(len(scores), np.int64)
    return np.minimum(((scores - low) / (high - low) * n_strata).astype(np.int64), n_strata - 1)


def _shares(sizes: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """How many to take of each stratum, smallest first: its size or an even share of the picks left, if less."""
    takes = np.zeros(len(sizes), np.int64)
    left = k
    order = np.argsort(sizes, kind="stable")
    for done, stratum in enumerate(order.tolist()):
        takes[stratum] = min(int(sizes[stratum]), left // (len(sizes) - done))
        left -= int(takes[stratum])
    return takes
