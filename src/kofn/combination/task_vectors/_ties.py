"""TIES: trim small changes, elect each entry's sign, and average the members that have that sign."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep import quantiles
from kofn.combination._sweep.members import Pool
from kofn.combination.rules import Block, Rule, merge_rule
from kofn.combination.task_vectors._options import VOTES, check_density, check_scope
from kofn.combination.task_vectors._sign_election import elect, scratch, trim
from kofn.core import checks
from kofn.core.draws import Draw


@merge_rule(
    draws=Draw(
        kinds={"members": "loose integers"},
        options={"density": (0.01, 0.2, 0.5, 0.9, 1.0)},
    ),
    cost="O(m d) time, each member read three times, five where any is float64; memory a few blocks and 64k counters a "
    "member, nothing is sorted",
    exact="keeps exactly the ceil(density d) largest entries of each task vector, and those that tie with the last",
    paper="yadav2023",
)
class Ties(Rule):
    """TIES: trim small changes, elect each entry's sign, and average the members that have that sign.

    Args:
        weights: (m,) >= 0, relative; uniform by default. They weigh both the vote on the sign and the mean.
        density: share of each task vector's entries that is kept, the largest in magnitude; 1 trims nothing.
        scale: factor of the merged task vector.
        scope: "tensor" trims each tensor to the density, "model" the whole task vector (as the paper does).

    Returns:
        Blend of form "none".

    Raises:
        InputError: no base, weights below zero, a density outside (0, 1], members that do not match, NaN.

    Time O(m d), each member read three times, five where any is float64; memory a few blocks.
    The threshold is an order statistic found with two histograms of the magnitudes' bits, exact for float32 magnitudes,
    or with four, exact for float64 magnitudes, where any member or the base is float64.
    The sign is that of the exact sum of the weighted changes, so that the order of the members does not decide it.
    At density 1 and scale 1, copies give the copy bit for bit.

    >>> import numpy as np
    >>> base = np.zeros(3)
    >>> ties([np.array([3.0, 1.0, -2.0]), np.array([2.0, -0.1, 4.0])], base=base, density=2 / 3).result
    array([2.5, 0. , 4. ])

    References:
        Yadav et al. 2023, TIES-merging: resolving interference when merging models (NeurIPS).
    """

    density: float = 0.2
    scale: float = 1.0
    scope: Literal["tensor", "model"] = "tensor"

    needs_base = True
    takes_device = True
    negative_weights = VOTES

    def __post_init__(self) -> None:
        self.density = check_density(self.density)
        self.scale = checks.number(self.scale, "scale")
        self.per_model = check_scope(self.scope)
        self.stages = 2 if self.density < 1 else 0

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        super().bind(pool, weights, device)
        sources = [*pool.members, *([] if pool.base is None else [pool.base])]
        if self.stages and any(tensor.dtype == np.float64 for source in sources for tensor in source.values()):
            # Of float64, float32 would tie magnitudes that are not equal.
            self.stages = 4
        return self

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        counts = [None] * len(block.rows) if part is None else part
        state = [(0, 0)] * len(block.rows) if stage == 0 else block.state
        base = block.origin
        if self.stages == 2:
            return [
                quantiles.count_changes(row, base, prefix if stage else None, count)
                for row, (prefix, _), count in zip(block.rows, state, counts, strict=True)
            ]
        return [
            quantiles.count_wide_changes(row, base, prefix, stage, count)
            for row, (prefix, _), count in zip(block.rows, state, counts, strict=True)
        ]

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        counts = quantiles.add_up(parts)
        if stage == 0:
            size = int(counts[0].sum())
            state = [(0, size - math.ceil(self.density * size))] * len(counts)
        located = [quantiles.locate(count, rank) for count, (_, rank) in zip(counts, state, strict=True)]
        keys = [(prefix << 16) | digit for (prefix, _), (digit, _) in zip(state, located, strict=True)]
        if stage < self.stages - 1:
            return [(key, rank) for key, (_, rank) in zip(keys, located, strict=True)]
        if self.stages == 2:
            return [quantiles.value_of(key, magnitudes=True) for key in keys]
        return list(np.array(keys, np.uint64).view(np.float64))

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        base = block.origin
        deltas = scratch(len(block.rows), base)
        for member, row in enumerate(block.rows):
            if self.stages:
                trim(row, base, block.state[member], deltas[member])
            else:
                np.subtract(row, base, out=deltas[member])
        elect(deltas, self.weights, total, spare, self.device)
        np.multiply(total, self.scale, out=total)
        np.add(total, base, out=total)
        return not self.stages and self.scale == 1


ties = Ties.method
