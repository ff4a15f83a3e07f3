"""Choose which pools of data to train on for a given compute: few passes over all, or many over the best."""

from __future__ import annotations

import itertools
import math
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.scaling_laws._fit_utility import fit_utility
from kofn.core.arrays import Floats
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.constraints import total
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method

_MOST_POOLS = 16


@method(
    "allocate",
    draws=Draw(silent=("duality",), slow=True),
    cost="a least-squares fit of 2n + 3 parameters, then n predictions (2^n with unions='all', n <= 16)",
    exact="the best union under the fitted law; no promise that the law holds",
    paper=36,
)
def quality_quantity(
    curves: Any,
    *,
    budget: float,
    sizes: ArrayLike | None = None,
    levels: ArrayLike | None = None,
    unions: Literal["prefix", "all"] = "prefix",
) -> Allocation:
    """Choose which pools of data to train on for a given compute: few passes over all, or many over the best.

    The loss curves of training on each pool alone give its utility and how fast that wears out with repetition
    (`fit_utility`); these predict the loss of any union of pools at any number of samples, without training on it. A
    strict filter is best for little compute, a loose one for much.

    Args:
        curves: (n, L) measured losses after training on pool i alone for `levels` passes over it.
        budget: samples seen in training, in all, > 0.
        sizes: (n,) rows in each pool, default 1.
        levels: (L,) or (n, L) passes over the pool, default 0..L-1; losses at level 0 are not used.
        unions: "prefix" compares the best pool, the best two, ... in order of utility; "all" compares every union,
            n <= 16.

    Returns:
        An `Allocation`: `amounts` are passes over each pool, equal for those chosen and 0 for the others (rows are
        drawn uniformly from their union), so that sizes times amounts sum to the budget. `value` is the predicted loss,
        `values` that of each pool alone at this budget, `price` the loss that one more sample saves. `info` has
        `pools` (those chosen), `utility`, `half_life`, `loss_floor`, `fit_error`, and `tried`: [pools, loss] of each
        union.

    Raises:
        InfeasibleError: a budget of 0. InputError: as `fit_utility`, or `unions="all"` of more than 16 pools.

    Costs the fit, a fraction of a second, and a prediction a union. Status "heuristic": the choice is the best under a
    fitted law. `fit_error` says how far the law is from the curves that it was fitted to.

    References:
        Goyal, Maini, Lipton, Raghunathan, Kolter, CVPR 2024 (arXiv 2404.07177). For pools of one size this is its law,
        with the half-life p times as long in a union of p; for others, each pool counts by its share of the rows.

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import quality_quantity
        >>> from kofn.allocation.scaling_laws import Utility
        >>> law = Utility(np.array([1e4, 1e4]), np.array([0.3, 0.2]), np.array([2.0, 6.0]), 1.0, 0.2, 100.0, 0.0)
        >>> passes = [0.25, 0.5, 1, 2, 4, 8, 16]
        >>> losses = [[law.loss([pool], 1e4 * level) for level in passes] for pool in (0, 1)]
        >>> plans = [quality_quantity(losses, budget=n, sizes=[1e4, 1e4], levels=passes) for n in (1e4, 2e5)]
        >>> [plan.amounts.tolist() for plan in plans]
        [[1.0, 0.0], [10.0, 10.0]]
    """
    n = len(curves)
    if unions == "all" and n > _MOST_POOLS:
        raise InputError(f"unions='all' of {n} pools is 2^{n} unions; use 'prefix', or join pools to {_MOST_POOLS}")
    if budget <= 0:
        raise InfeasibleError("budget=0 samples leave nothing to train on; give a budget > 0")
    law = fit_utility(curves, sizes=sizes, levels=levels)
    candidates = _candidates(np.argsort(-law.b, kind="stable").tolist(), unions)
    losses = [law.loss(pools, float(budget)) for pools in candidates]
    best = int(np.argmin(losses))
    pools = sorted(candidates[best])
    amounts, spent = _passes(law.sizes, pools, budget)
    return Allocation(
        n=n,
        amounts=amounts,
        values=np.array([law.loss([pool], float(budget)) for pool in range(n)]),
        value=losses[best],
        sense="min",
        price=law.worth(pools, float(budget)),
        used={"budget": spent},
        budget={"budget": budget},
        objective="predicted_loss",
        additive=False,
        info={
            "oracle_calls": len(candidates),
            "pools": pools,
            "utility": law.b.tolist(),
            "half_life": law.tau.tolist(),
            "scale": law.a,
            "unit": law.unit,
            "loss_floor": law.d,
            "fit_error": law.error,
            "tried": [[sorted(union), loss] for union, loss in zip(candidates, losses, strict=True)],
        },
    )


def _candidates(order: list[int], unions: str) -> list[list[int]]:
    """The unions to compare, smallest first: prefixes of the pools in order of utility, or all subsets."""
    counts = range(1, len(order) + 1)
    if unions == "prefix":
        return [order[:count] for count in counts]
    return [list(union) for count in counts for union in itertools.combinations(order, count)]


def _passes(sizes: Floats, pools: list[int], budget: float) -> tuple[Floats, float]:
    """(n,) equal passes over the pools chosen that spend the budget, and the samples spent."""
    passes = float(budget) / float(sizes[pools].sum())
    amounts = np.zeros(len(sizes))
    amounts[pools] = passes
    spent = float(total(sizes * amounts))
    if spent > budget:
        # Rounding must not overspend.
        amounts[pools] = math.nextafter(passes, 0.0)
        spent = float(total(sizes * amounts))
    return amounts, spent
