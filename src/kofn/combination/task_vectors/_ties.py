"""TIES: trim small changes, elect each entry's sign, and average the members that have that sign."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep import quantiles
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
    cost="O(m d) time, each member read three times; memory a few blocks and 64k counters a member, nothing is sorted",
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

    Time O(m d), each member read three times; memory a few blocks.
    The threshold is an order statistic found with two histograms of the magnitudes' bits, exact for float32 magnitudes.
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

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        counts = [None] * len(block.rows) if part is None else part
        uppers = [None] * len(block.rows) if stage == 0 else [upper for upper, _ in block.state]
        return [
            quantiles.count_changes(row, block.origin, upper, count)
            for row, upper, count in zip(block.rows, uppers, counts, strict=True)
        ]

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        counts = quantiles.add_up(parts)
        if stage == 0:
            size = int(counts[0].sum())
            return [quantiles.locate(count, size - math.ceil(self.density * size)) for count in counts]
        lower = [quantiles.locate(count, rank)[0] for count, (_, rank) in zip(counts, state, strict=True)]
        return [
            quantiles.value_of((upper << 16) | low, magnitudes=True)
            for (upper, _), low in zip(state, lower, strict=True)
        ]

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
