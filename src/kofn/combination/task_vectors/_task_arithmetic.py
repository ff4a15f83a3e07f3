"""The base plus a weighted sum of what each member adds to it."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.blockwise import Block, Rule
from kofn.combination._sweep.device import chosen, weighted_sum
from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.merge import Files, merge
from kofn.combination.averaging._weighted_mean import Mean
from kofn.combination.task_vectors._factors import base_of, factors, sums_to_one
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method


@method(
    "combine",
    draws=Draw(kinds={"members": "loose integers", "base": "seldom read"}),
    cost="O(m d) time, each member read once; memory a few blocks",
    exact="base + scale sum_i w_i (x_i - base), rounded once; where the factors sum to one, copies give the copy",
    paper="ilharco2023",
)
def task_arithmetic(
    members: Sequence[Any],
    *,
    base: Any,
    weights: Any = None,
    normalize: bool = True,
    scale: float = 1.0,
    out: str | os.PathLike[str] | None = None,
    only: Any = None,
    skip: Any = None,
    measure: bool = False,
    skip_nonfinite: bool = False,
    device: str | None = None,
    max_memory: int | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Blend:
    """The base plus a weighted sum of what each member adds to it.

    Args:
        members: m fine-tuned checkpoints (paths, mappings or arrays), all of one base.
        base: what they were fine-tuned from, of the same names, shapes and dtypes.
        weights: (m,), uniform by default, may be negative (a task is then forgotten).
        normalize: False takes the weights as they are: [1, 1] adds both task vectors in full.
        scale: factor of the sum.
        out, only, skip, measure, skip_nonfinite, device, max_memory, n_threads, progress: as `weighted_mean` has
            them; what `only` and `skip` leave out is copied from the base.

    Returns:
        Blend; `weights` are the factors of the task vectors (scale included); where
        they sum to one the base cancels and `form` is "simplex" or "affine", else it is "none".

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
    files = Files(out, only, skip, measure, skip_nonfinite, max_memory, n_threads, progress)
    pool = files.open(members, base)
    used = factors(weights, pool, normalize, scale)
    rule, form = sum_of_task_vectors(used)
    rule.device = chosen(device)
    return merge(pool, rule, files, weights=used, form=form, objective=form != "none")


def arithmetic_rule(pool: Pool, weights: Any, normalize: bool = True, scale: float = 1.0) -> Rule:
    """The checked rule."""
    return sum_of_task_vectors(factors(weights, pool, normalize, scale))[0]


def sum_of_task_vectors(factors: NDArray[np.float64]) -> tuple[Rule, str]:
    """The rule that adds the task vectors times their factors to the base, and the form of the blend it makes."""
    if sums_to_one(factors):
        # The base cancels: what is left is a mean of the members, which need not go through it.
        form = "simplex" if (factors >= 0).all() else "affine"
        return Mean(factors, form), form
    return TaskArithmetic(factors, 1 - math.fsum(factors.tolist())), "none"


@dataclass
class TaskArithmetic(Rule):
    """sum_i w_i x_i + (1 - sum_i w_i) base, which is base + sum_i w_i (x_i - base) with one rounding less."""

    weights: NDArray[np.float64]
    rest: float

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        factors = [self.rest, *self.weights.tolist()]
        weighted_sum([base_of(block), *block.rows], factors, total, spare, self.device)
        return False
