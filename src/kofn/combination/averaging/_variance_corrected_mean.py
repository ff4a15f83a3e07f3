"""Weighted mean with each tensor rescaled about its mean to the members' variance."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination.rules import Block, Rule, merge_rule


@merge_rule(
    cost="O(m d) time, each member read twice; memory a few blocks",
    exact="each tensor's variance is the members' weighted mean variance, its mean the mean's; copies give the copy",
    paper=244,
)
class VarianceCorrectedMean(Rule):
    """Weighted mean with each tensor rescaled about its mean to the members' variance.

    The mean of n uncorrelated networks has 1/n of their variance, too little to train further; the rescaling restores
    it. Members that agree are hardly changed.

    Args:
        weights: (m,) >= 0, relative, uniform by default; they weigh the mean and the variances.

    Returns:
        Blend of form "none".

    Raises:
        InputError: a weight below zero; as `weighted_mean`.

    Time O(m d), each member read twice; memory a few blocks.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> members = [rng.normal(size=10_000) for _ in range(4)]
    >>> round(float(np.mean(members, axis=0).var()), 1), round(float(variance_corrected_mean(members).result.var()), 1)
    (0.2, 1.0)

    References:
        Tian et al. 2024, Vanishing variance problem in fully decentralized neural-network systems (arXiv 2404.04616).
    """

    negative_weights = "variances cannot be taken away"
    stages = 2

    def _mean(self, block: Block) -> NDArray[np.float64]:
        mean = np.zeros(len(block.rows[0]))
        for row, weight in zip(block.rows, self.weights.tolist(), strict=True):
            mean += weight * row
        return mean

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        # Two sweeps, means first, because sums of squared deviations avoid cancellation.
        tables = [*(row.astype(np.float64) for row in block.rows), self._mean(block)]
        if stage == 0:
            same = all(np.array_equal(row, block.rows[0]) for row in block.rows[1:])
            sums = np.array([*(row.sum() for row in tables), len(tables[0]), float(not same)])
        else:
            sums = np.array([np.square(row - mean).sum() for row, mean in zip(tables, block.state[0], strict=True)])
        return sums if part is None else part + sums

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        sums = np.array([math.fsum(column) for column in np.array(list(parts)).T.tolist()])
        if stage == 0:
            *totals, size, differ = sums.tolist()
            return np.array(totals) / size, differ == 0
        means, same = state
        of_members, of_mean = float(self.weights @ sums[:-1]), float(sums[-1])
        return float(means[-1]), math.sqrt(of_members / of_mean) if of_mean > 0 else 1.0, same

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        mean, stretch, same = block.state
        total[:] = mean + stretch * (self._mean(block) - mean)
        return bool(same)


variance_corrected_mean = VarianceCorrectedMean.method
