"""How many samples to draw from pools of unlike quality, where what repeats is worth less and less.

The law: training on one pool, the loss falls as a power of the samples seen, n, and the power wears out as the pool
repeats. With b the pool's utility, tau its half-life in passes and N its size, after k passes and a bit

    loss = d + a * (n_1 / u)^(-b_1) * (n_2 / n_1)^(-b_2) * ... ,   b_j = b * 0.5^((j - 1) / tau),

where n_j are the samples seen by the end of pass j (n_1 = N, the last is n), and a, u and d belong to the model, not to
the pool: d is the loss that no data removes, and u samples leave a + d whatever the pool.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.checks import InfeasibleError, InputError
from kofn.constraints import total
from kofn.plans import Allocation
from kofn.registry import method

Floats = NDArray[np.float64]

UNIONS = ("prefix", "all")
_MOST_POOLS = 16
# Half-lives in passes: below a tenth of a pass and beyond a thousand nothing more can be told from a curve.
_HALF_LIFE = (0.1, 1000.0)
_MOST_UTILITY = 10.0
# Passes are listed one by one; beyond these many the utility of even the longest half-life is spent.
_MOST_PASSES = 100_000


@dataclass(frozen=True, eq=False)
class Utility:
    """A fitted law of pools.

    Attributes:
        sizes: (n,) rows in each pool.
        b: (n,) utility of each pool, >= 0: the larger, the faster the loss falls on its fresh rows.
        tau: (n,) half-life of that utility, in passes over the pool.
        a: loss above `d` after `unit` samples, of any pool.
        d: loss that no data removes.
        unit: samples after which all pools are alike.
        error: root mean square of the fit's residuals, in units of loss.
    """

    sizes: Floats
    b: Floats
    tau: Floats
    a: float
    d: float
    unit: float
    error: float

    def loss(self, pools: Sequence[int], samples: float) -> float:
        """The loss predicted after `samples` drawn uniformly from the union of some pools, which were never mixed.

        The union wears out like one pool whose utility is the mean of its pools', by their shares of the rows, and in
        which each pool's half-life is longer by the inverse of its share (p times, for p pools of one size).

        >>> law = Utility(np.array([100.0]), np.array([0.5]), np.array([1e3]), 1.0, 0.0, 1.0, 0.0)
        >>> round(law.loss([0], 64), 3)
        0.125
        """
        return self.d + math.exp(self._log_excess(pools, samples)[0])

    def worth(self, pools: Sequence[int], samples: float) -> float:
        """Loss that one more sample saves there: minus the slope of `loss`."""
        excess, effective = self._log_excess(pools, samples)
        return effective * math.exp(excess) / samples

    def _log_excess(self, pools: Sequence[int], samples: float) -> tuple[float, float]:
        """log(loss - d), and the utility in the pass under way."""
        held = self.sizes[list(pools)]
        size = float(held.sum())
        shares = held / size
        ends = _ends(samples, size)
        decay = 0.5 ** (np.arange(len(ends))[:, None] * shares / self.tau[list(pools)])
        effective = (shares * self.b[list(pools)] * decay).sum(axis=1)
        steps = np.log(ends / np.concatenate([[self.unit], ends[:-1]]))
        return math.log(self.a) - float(steps @ effective) if self.a > 0 else -math.inf, float(effective[-1])


def _ends(samples: float, size: float) -> Floats:
    """Samples seen by the end of each pass, the last one in part."""
    passes = min(max(1, math.ceil(samples / size - 1e-9)), _MOST_PASSES)
    ends = size * np.arange(1, passes + 1, dtype=np.float64)
    ends[-1] = samples
    return ends


def fit_utility(
    curves: Any,
    *,
    sizes: Any = None,
    levels: Any = None,
) -> Utility:
    """Fit the law to measured losses, one pool at a time trained alone.

    Args:
        curves: (n, L) measured losses of a model trained on pool i alone, after `levels` passes.
        sizes: (n,) rows in each pool, default 1.
        levels: (L,) or (n, L) passes over the pool, default 0..L-1; losses at level 0 are not used.

    Returns:
        A `Utility`: b and tau of each pool, and a, d and unit that all share, by least squares on the losses.

    Raises:
        InputError: shapes that do not fit, sizes or levels below zero, or a pool without a loss at a level above 0.

    Costs some fits of 2n + 3 parameters to n L losses, a fraction of a second for ten pools of ten levels. A local
    optimum over starts on a fixed grid: no promise beyond that. With one pool `unit` stays at its first level; few or
    short curves leave tau undetermined, so measure each pool over several passes.

    References:
        Goyal, Maini, Lipton, Raghunathan, Kolter, "Scaling Laws for Data Filtering: Data Curation cannot be Compute
        Agnostic", CVPR 2024.

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import fit_utility
        >>> law = Utility(np.array([1e4, 1e4]), np.array([0.3, 0.1]), np.array([2.0, 6.0]), 1.0, 0.2, 100.0, 0.0)
        >>> passes = [0.25, 0.5, 1, 2, 4, 8, 16]
        >>> losses = [[law.loss([pool], 1e4 * level) for level in passes] for pool in (0, 1)]
        >>> fit = fit_utility(losses, sizes=[1e4, 1e4], levels=passes)
        >>> fit.b.round(3).tolist(), fit.tau.round(2).tolist()
        ([0.3, 0.1], [2.0, 6.0])
    """
    from scipy.optimize import least_squares

    losses = checks.curves(curves).astype(np.float64)
    n = len(losses)
    size, passes = _measured(losses, sizes, levels)
    used = passes > 0
    empty = np.flatnonzero(~used.any(axis=1))
    if len(empty):
        raise InputError(f"curves of pool {empty[0]} have no level above 0; measure it after some samples")
    pool = np.nonzero(used)[0]
    seen = (size[:, None] * passes)[used]
    told = losses[used]
    ends = [_ends(samples, float(size[i])) for i, samples in zip(pool.tolist(), seen.tolist(), strict=True)]
    longest = max(len(end) for end in ends)
    # steps[r, j]: by what log factor measurement r's pass j enlarged the samples seen; the first from one sample.
    steps = np.zeros((len(ends), longest))
    for row, end in enumerate(ends):
        steps[row, : len(end)] = np.log(end / np.concatenate([[1.0], end[:-1]]))
    place = np.arange(longest)
    low, high = float(told.min()), float(told.max())
    # Losses that are never below zero do not fall below it beyond what was measured either.
    least = 0.0 if low >= 0 else low - 3 * max(high - low, 1.0)
    spread = max(high - low, 1e-9 * max(abs(high), 1.0))
    first = float(np.log(seen.min()))

    def unpack(x: Floats) -> tuple[float, float, float, Floats, Floats]:
        # With one pool, a and unit say the same thing.
        unit = first if n == 1 else float(x[2])
        return float(x[0]), math.exp(min(float(x[1]), 700.0)), unit, x[3 : 3 + n], np.exp(x[3 + n :])

    def residuals(x: Floats) -> Floats:
        d, a, unit, b, tau = unpack(x)
        reach = (steps * 0.5 ** (place / tau[pool][:, None])).sum(axis=1) - unit
        out: Floats = (d + a * np.exp(np.minimum(-b[pool] * reach, 700.0)) - told) / spread
        return out

    def slopes(x: Floats) -> Floats:
        _, a, unit, b, tau = unpack(x)
        worn = steps * 0.5 ** (place / tau[pool][:, None])
        reach = worn.sum(axis=1) - unit
        excess = a * np.exp(np.minimum(-b[pool] * reach, 700.0)) / spread
        longer = (worn * place).sum(axis=1) * math.log(2) / tau[pool]
        out = np.zeros((len(told), len(x)))
        out[:, 0] = 1 / spread
        out[:, 1] = excess
        out[:, 2] = excess * b[pool] if n > 1 else 0.0
        rows = np.arange(len(told))
        out[rows, 3 + pool] = -excess * reach
        out[rows, 3 + n + pool] = -excess * b[pool] * longer
        return out

    lower = np.concatenate([[least, math.log(spread) - 20, first - 12], np.zeros(n), np.full(n, math.log(0.1))])
    most = [low, math.log(spread) + 8, first + 12]
    upper = np.concatenate([most, np.full(n, _MOST_UTILITY), np.full(n, math.log(_HALF_LIFE[1]))])
    # Curves that hardly differ beside their size leave no number between the two.
    upper = np.maximum(upper, np.nextafter(lower, np.inf))
    best = None
    for floor, half_life in itertools.product((0.05, 1.0), (1.0, 8.0)):
        head = [max(least, low - floor * spread), math.log(spread), first - 3.0]
        start = np.concatenate([head, np.full(n, 0.3), np.full(n, np.log(half_life))])
        found = least_squares(
            residuals, np.clip(start, lower, upper), slopes, bounds=(lower, upper), x_scale="jac", max_nfev=100
        )
        if best is None or found.cost < best.cost * (1 - 1e-9):
            best = found
    assert best is not None
    d, a, unit, b, tau = unpack(best.x)
    error = float(np.sqrt(np.mean(residuals(best.x) ** 2))) * spread
    return Utility(size, b.copy(), tau.copy(), a, d, math.exp(unit), error)


def _measured(losses: Floats, sizes: Any, levels: Any) -> tuple[Floats, Floats]:
    """(n,) sizes and (n, L) passes."""
    n, width = losses.shape
    size = np.ones(n) if sizes is None else checks.vector(sizes, "sizes").astype(np.float64)
    checks.same_length(n, "curves", "sizes", len(size))
    if size.min() <= 0:
        row = int(size.argmin())
        raise InputError(f"sizes at row {row} is {size[row]:g}; a pool has rows, leave out one that has none")
    given = np.arange(width) if levels is None else np.asarray(levels)
    if given.shape not in ((width,), (n, width)) or given.dtype.kind not in "iuf":
        raise InputError(f"levels have shape {given.shape}; give ({width},) or ({n}, {width}) numbers")
    passes = np.broadcast_to(given.astype(np.float64), (n, width))
    checks.refuse_nonfinite(passes, "levels")
    if passes.min() < 0:
        raise InputError(f"levels hold {passes.min():g}; passes over a pool are >= 0")
    return size, passes


@method(
    "allocate",
    cost="a least-squares fit of 2n + 3 parameters, then n predictions (2^n with unions='all', n <= 16)",
    exact="the best union under the fitted law; no promise that the law holds",
    paper="Goyal et al. 2024, Scaling Laws for Data Filtering: Data Curation cannot be Compute Agnostic (CVPR)",
)
def quality_quantity(
    curves: Any,
    *,
    budget: float,
    sizes: Any = None,
    levels: Any = None,
    unions: str = "prefix",
) -> Allocation:
    """Choose which pools of data to train on for a given compute: few passes over all, or many over the best.

    The loss curves of training on each pool alone give its utility and how fast that wears out with repetition
    (`fit_utility`); from these follows the loss of any union of pools at any number of samples seen, without training
    on it. A strict filter is best for little compute, a loose one for much.

    Args:
        curves: (n, L) measured losses after training on pool i alone for `levels` passes over it.
        budget: samples to be seen in training, in all, > 0.
        sizes: (n,) rows in each pool, default 1.
        levels: (L,) or (n, L) passes over the pool, default 0..L-1; losses at level 0 are not used.
        unions: "prefix", the best pool, the best two, ... in the order of their utility; or "all" of them, n <= 16.

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
    checks.choice(unions, "unions", UNIONS)
    n = len(curves)
    if unions == "all" and n > _MOST_POOLS:
        raise InputError(f"unions='all' of {n} pools is 2^{n} unions; use 'prefix', or join pools to {_MOST_POOLS}")
    if budget <= 0:
        raise InfeasibleError("budget=0 samples leave nothing to train on; give a budget > 0")
    law = fit_utility(curves, sizes=sizes, levels=levels)
    order = np.argsort(-law.b, kind="stable").tolist()
    if unions == "prefix":
        candidates = [order[:count] for count in range(1, n + 1)]
    else:
        candidates = [list(some) for count in range(1, n + 1) for some in itertools.combinations(order, count)]
    losses = [law.loss(pools, float(budget)) for pools in candidates]
    best = int(np.argmin(losses))
    pools = sorted(candidates[best])
    passes = float(budget) / float(law.sizes[pools].sum())
    amounts = np.zeros(n)
    amounts[pools] = passes
    spent = float(total(law.sizes * amounts))
    if spent > budget:
        # Rounding must not spend more than there is.
        amounts[pools] = math.nextafter(passes, 0.0)
        spent = float(total(law.sizes * amounts))
    return Allocation(
        n=n,
        amounts=amounts,
        values=np.array([law.loss([pool], float(budget)) for pool in range(n)]),
        value=losses[best],
        sense="min",
        price=law.worth(pools, float(budget)),
        used={"budget": spent},
        budget={"budget": budget},
        info={
            "objective": "predicted_loss",
            "additive": False,
            "oracle_calls": len(candidates),
            "pools": pools,
            "utility": law.b.tolist(),
            "half_life": law.tau.tolist(),
            "scale": law.a,
            "unit": law.unit,
            "loss_floor": law.d,
            "fit_error": law.error,
            "tried": [[sorted(some), loss] for some, loss in zip(candidates, losses, strict=True)],
        },
    )
