"""Soft mixing: each bin receives a mixture of all items by a softmax over the items of each group."""

from __future__ import annotations

from typing import Any

import numpy as np

from kofn.assignment.routing._scores import routes, score_table
from kofn.core import checks
from kofn.core.draws import Draw
from kofn.core.plans import Assignment
from kofn.core.registry import method


@method(
    "assign",
    traits=("sandwich", "equivariant"),
    draws=Draw(scale_free=False),
    cost="O(n bins) and the exponentials of all scores; the plan is dense, 12 bytes for each score",
    exact="maximises the entropy-regularised total of each bin's mixtures exactly; the bins' margins exactly",
    paper=252,
)
def soft_mixing(scores: Any, *, groups: Any = None, temperature: float = 1.0) -> Assignment:
    """Soft mixing: each bin receives a mixture of all items by a softmax over the items of each group.

    In a mixture of tokens, a group holds the tokens at one position of several examples; each expert (bin) processes
    one mixture per group, and its output is distributed back to the items by the same weights.

    Args:
        scores: (n, bins) controller logits; -inf excludes an item from a bin.
        groups: (n,) label of each item's group; all items are one group where not given.
        temperature: divisor of the scores. As it falls, each mixture concentrates on its highest item; at 0 it is that
            item alone (ties to the lowest), and the plan is sparse.

    Returns:
        An `Assignment` of every item to every bin that it lists; `weights` are float64. `value` is the sum over bins
        and groups of the softmax's objective: sum_i w_i scores_i - temperature x sum_i w_i log w_i, which is
        temperature x log sum_i exp(scores_i / temperature). `info["empty"]` counts mixtures (a bin in a group) that no
        item lists.

    Raises:
        InputError: scores that are not (n, bins), a temperature below 0.

    Cost: one pass over the scores and the exponentials of all of them.

    Guarantee: each bin's weights sum to 1 in each group that lists it, so loads are equal by construction. Items have
    no such guarantee: an item's weights may be negligible in all bins, but no item is dropped. A weight that underflows
    is the smallest positive number.

    References:
        Antoniak, Krutul et al. 2024 (NeurIPS, arXiv 2310.15961), section 3.

    Examples:
        >>> from kofn.assignment import soft_mixing
        >>> plan = soft_mixing([[0.0, 3.0], [0.0, 1.0], [7.0, 7.0]], groups=["a", "a", "b"])
        >>> plan.weights.round(3).tolist(), plan.col_margin.tolist()
        ([0.5, 0.881, 0.5, 0.119, 1.0, 1.0], [2.0, 2.0])
    """
    scores = score_table(scores)
    n, bins = scores.shape
    heat = checks.number(temperature, "temperature")
    table = scores.astype(np.float64)
    listed = table > -np.inf
    _, group = np.unique(np.zeros(n) if groups is None else groups, return_inverse=True)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    top = np.maximum.reduceat(table[order], starts, axis=0)
    empty = top == -np.inf
    below = np.where(listed, table - np.where(empty, 0.0, top)[group], -np.inf)
    if heat == 0:
        # Ties go to the lowest item, because items keep their order within a group.
        level = (below == 0)[order]
        seen = np.cumsum(level, axis=0)
        before = (seen - level)[starts]
        weights = np.empty((n, bins))
        weights[order] = level & (seen - before[group[order]] == 1)
        rows, columns = np.nonzero(weights)
        value = float(top[~empty].sum())
    else:
        # Overflow only occurs for items far below the best, whose weight is zero anyway.
        with np.errstate(over="ignore"):
            grown = np.exp(below / heat)
        sums = np.add.reduceat(grown[order], starts, axis=0)
        weights = np.maximum(grown / np.where(empty, 1.0, sums)[group], np.finfo(np.float64).tiny)
        rows, columns = np.nonzero(listed)
        value = float((top[~empty] + heat * np.log(sums[~empty])).sum())
    return Assignment(
        **routes(n, bins, rows, columns, weights[rows, columns]),
        value=value,
        sense="max",
        bound=value,
        status="optimal",
        objective="mixed_score",
        info={"empty": int(empty.sum())},
    )
