"""Picking at random: the baseline that every other method must beat."""

from __future__ import annotations

import math
from typing import Any, Unpack

import numpy as np

from kofn.core.constraints import Constraints, Tracker
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.words import Where
from kofn.selection.basics._top_k import one_score_an_item


@method(
    "select",
    needs=(("X", "similarity", "scores"),),
    traits=("inclusion",),
    sparse=True,
    draws=Draw(states_no_value=True),
    cost="O(n) time and memory",
    exact="uniform over the pool where only k binds; every constraint held exactly",
    paper="folklore",
)
def random_sample(
    X: Any = None,
    *,
    similarity: Any = None,
    scores: Any = None,
    seed: int | None = None,
    **where: Unpack[Where],
) -> Selection:
    """Draw items uniformly without replacement, within every constraint.

    Args:
        X: vectors (n, d), dense or SciPy-sparse, of which only the number is used; or `similarity` or `scores`.

    Returns:
        Selection in the order drawn; `value` is NaN, `probabilities` (n,) are given where only k and exclude bind.

    Raises:
        InputError: bad input. InfeasibleError: constraints that cannot be met together.

    Costs O(n) time and memory, O(n) a pick under quotas or a budget.

    Examples:
        >>> from kofn.selection import random_sample
        >>> s = random_sample([[0.0], [1.0], [2.0], [3.0]], k=2, seed=1)
        >>> len(set(s.indices.tolist())), s.probabilities.tolist()
        (2, [0.5, 0.5, 0.5, 0.5])
    """
    if scores is not None:
        one_score_an_item(scores)
    n = next(table.shape[0] for table in (X, similarity, scores) if table is not None)
    constraints = Constraints.of(n, where)
    rng = np.random.default_rng(seed)
    tracker = Tracker(constraints)
    picks = constraints.preselected.tolist()
    order = rng.permutation(n)
    probabilities = None
    if constraints.cardinality_only:
        rest = order[tracker.open[order]][: constraints.k - len(picks)]
        for item in rest.tolist():
            tracker.add(item)
        picks += rest.tolist()
        n_open = n - int(constraints.banned.sum()) - len(constraints.preselected)
        share = (constraints.k - len(constraints.preselected)) / max(n_open, 1)
        probabilities = np.where(constraints.banned, 0.0, share)
        probabilities[constraints.preselected] = 1.0
    else:
        while (mask := tracker.candidates()).any():
            order = order[mask[order]]
            if tracker.admits(int(order[0])):
                tracker.add(int(order[0]))
                picks.append(int(order[0]))
    used, limit = tracker.report()
    return Selection(
        n=n,
        indices=np.array(picks, np.int64),
        gains=np.full(len(picks), math.nan),
        probabilities=probabilities,
        used=used,
        budget=limit,
        additive=False,
    )
