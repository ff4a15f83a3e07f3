"""Task arithmetic: the base plus a weighted sum of task vectors (member minus base)."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.device import weighted_sum
from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.weights import sum_to_one
from kofn.combination.averaging._weighted_mean import WeightedMean
from kofn.combination.rules import Block, Rule, merge_rule
from kofn.core import checks
from kofn.core.draws import Draw


@merge_rule(
    draws=Draw(kinds={"members": "loose integers", "base": "seldom read"}),
    cost="O(m d) time, each member read once; memory a few blocks",
    exact="base + scale sum_i w_i (x_i - base), rounded once; where the factors sum to one, copies give the copy",
    paper="ilharco2023",
)
class TaskArithmetic(Rule):
    """Task arithmetic: the base plus a weighted sum of task vectors (member minus base).

    Args:
        weights: (m,), uniform by default; negative weights remove a task.
        normalize: False takes the weights as they are: [1, 1] adds both task vectors in full.
        scale: factor of the sum.
        base: the checkpoint that the members were fine-tuned from, of the same names, shapes and dtypes.

    Returns:
        Blend; `weights` are the factors of the task vectors (scale included); where they sum to one the base cancels
        and `form` is "simplex" or "affine", else it is "none".

    Raises:
        InputError: no base, members or a base that do not match, NaN or infinities. FailureError: a damaged file.

    Time O(m d), memory a few blocks.

    >>> import numpy as np
    >>> base, a, b = np.zeros(2), np.array([1.0, 0.0]), np.array([0.0, 4.0])
    >>> task_arithmetic([a, b], base=base, weights=[1, 0.5], normalize=False).result
    array([1., 2.])

    References:
        Ilharco et al. 2023, Editing models with task arithmetic (ICLR).
    """

    normalize: bool = True
    scale: float = 1.0

    needs_base = True
    takes_device = True
    form = "affine"
    minimises_distance = True

    def __post_init__(self) -> None:
        checks.flag(self.normalize, "normalize")
        self.scale = checks.number(self.scale, "scale")

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        super().bind(pool, weights, device)
        return self._with_factors(self.weights * self.scale)

    @classmethod
    def of_factors(cls, factors: NDArray[np.float64]) -> Rule:
        """The bound rule that adds the task vectors times these factors to the base."""
        return cls()._with_factors(factors)

    def _with_factors(self, factors: NDArray[np.float64]) -> Rule:
        if sum_to_one(factors):
            # The base cancels, so the blend is a plain mean of the members.
            return WeightedMean.of_weights(factors, device=self.device)
        self.weights, self.form, self.minimises_distance = factors, "none", False
        return self

    def plain_sum(self) -> tuple[list[float], float] | None:
        listed = self._of_base_and_members()
        return (listed, 1.0) if self.device is None and any(listed) else None

    def _of_base_and_members(self) -> list[float]:
        # sum_i w_i x_i + (1 - sum_i w_i) base is base + sum_i w_i (x_i - base) with one rounding less.
        return [1 - math.fsum(self.weights.tolist()), *self.weights.tolist()]

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        weighted_sum([block.origin, *block.rows], self._of_base_and_members(), total, spare, self.device)
        return False


task_arithmetic = TaskArithmetic.method
