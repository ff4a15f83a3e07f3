"""A scaling law of pools of data, fitted to the losses of training on each pool alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation._levels import sizes_and_levels
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["Utility", "fit_utility"]

# Half-lives in passes: below a tenth of a pass and beyond a thousand, curves do not determine them.
_HALF_LIFE = (0.1, 1000.0)
_MOST_UTILITY = 10.0
# Passes are listed one by one; after this many, the utility of even the longest half-life is spent.
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
        """Predict the loss after `samples` drawn uniformly from the union of `pools`, which were never mixed.

        The union wears out like one pool whose utility is the mean of its pools', by their shares of the rows, and in
        which each pool's half-life is longer by the inverse of its share (p times, for p pools of one size).

        >>> law = Utility(np.array([100.0]), np.array([0.5]), np.array([1e3]), 1.0, 0.0, 1.0, 0.0)
        >>> round(law.loss([0], 64), 3)
        0.125
        """
        return self.d + math.exp(self._log_excess(pools, samples)[0])

    def worth(self, pools: Sequence[int], samples: float) -> float:
        """The loss that one more sample saves there: minus the slope of `loss`."""
        excess, effective = self._log_excess(pools, samples)
        return effective * math.exp(excess) / samples

    def _log_excess(self, pools: Sequence[int], samples: float) -> tuple[float, float]:
        """log(loss - d), and the utility in the current pass."""
        sizes = self.sizes[list(pools)]
        size = float(sizes.sum())
        shares = sizes / size
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


@helper
def fit_utility(
    curves: ArrayLike,
    *,
    sizes: ArrayLike | None = None,
    levels: ArrayLike | None = None,
) -> Utility:
    """Fit the scaling law of pools to the measured losses of training on each pool alone.

    Args:
        curves: (n, L) measured losses of a model trained on pool i alone, after `levels` passes.
        sizes: (n,) rows in each pool, default 1.
        levels: (L,) or (n, L) passes over the pool, default 0..L-1; losses at level 0 are not used.

    Returns:
        A `Utility`: b and tau of each pool, and the shared a, d and unit, by least squares on the losses.

    Raises:
        InputError: shapes that do not fit, sizes or levels below zero, or a pool without a loss at a level above 0.

    Costs four fits of 2n + 3 parameters to n L losses, a fraction of a second for ten pools of ten levels. A local
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
    losses = checks.curves(curves).astype(np.float64)
    checks.refuse_nonfinite(losses, "curves")
    size, passes = _measured(losses, sizes, levels)
    problem = _LeastSquares.of(losses, size, passes)
    x = problem.solve()
    d, a, log_unit, b, tau = problem.unpack(x)
    error = float(np.sqrt(np.mean(problem.residuals(x) ** 2))) * problem.spread
    return Utility(size, b.copy(), tau.copy(), a, d, math.exp(log_unit), error)


def _measured(losses: Floats, sizes: ArrayLike | None, levels: ArrayLike | None) -> tuple[Floats, Floats]:
    """(n,) sizes above 0 and (n, L) passes."""
    size, passes = sizes_and_levels(losses, sizes, levels)
    if size.min() <= 0:
        row = int(size.argmin())
        raise InputError(f"sizes at row {row} is {size[row]:g}; a pool has rows, leave out a pool that has none")
    unmeasured = np.flatnonzero(~(passes > 0).any(axis=1))
    if len(unmeasured):
        raise InputError(f"curves of pool {unmeasured[0]} have no level above 0; measure it after some samples")
    return size.astype(np.float64), passes.astype(np.float64)


@dataclass(frozen=True, eq=False)
class _LeastSquares:
    """The fit as a least-squares problem in x = (d, log a, log unit, b of each pool, log tau of each pool).

    Attributes:
        n: pools.
        pool: (m,) the pool of each measurement.
        loss: (m,) the loss measured.
        steps: (m, passes) the log factor by which each pass enlarged the samples seen, the first from one sample.
        log_fewest: log of the fewest samples after which a loss was measured.
        spread: difference of the highest and the lowest loss, the unit of the residuals.
    """

    n: int
    pool: Ints
    loss: Floats
    steps: Floats
    log_fewest: float
    spread: float

    @classmethod
    def of(cls, losses: Floats, size: Floats, passes: Floats) -> _LeastSquares:
        """The problem of the losses measured at levels above 0."""
        used = passes > 0
        pool = np.nonzero(used)[0]
        samples = (size[:, None] * passes)[used]
        loss = losses[used]
        ends = [_ends(seen, float(size[i])) for i, seen in zip(pool.tolist(), samples.tolist(), strict=True)]
        steps = np.zeros((len(ends), max(len(end) for end in ends)))
        for row, end in enumerate(ends):
            steps[row, : len(end)] = np.log(end / np.concatenate([[1.0], end[:-1]]))
        low, high = float(loss.min()), float(loss.max())
        spread = max(high - low, 1e-9 * max(abs(high), 1.0))
        return cls(len(losses), pool, loss, steps, float(np.log(samples.min())), spread)

    def unpack(self, x: Floats) -> tuple[float, float, float, Floats, Floats]:
        """d, a, log unit, b and tau. With one pool a and unit are the same parameter, so unit is fixed."""
        log_unit = self.log_fewest if self.n == 1 else float(x[2])
        return float(x[0]), math.exp(min(float(x[1]), 700.0)), log_unit, x[3 : 3 + self.n], np.exp(x[3 + self.n :])

    def residuals(self, x: Floats) -> Floats:
        """(m,) predicted less measured losses, in units of `spread`."""
        d, a, log_unit, b, tau = self.unpack(x)
        reach = self._worn(tau).sum(axis=1) - log_unit
        out: Floats = (d + a * np.exp(np.minimum(-b[self.pool] * reach, 700.0)) - self.loss) / self.spread
        return out

    def jacobian(self, x: Floats) -> Floats:
        """(m, len(x)) derivatives of the residuals."""
        _, a, log_unit, b, tau = self.unpack(x)
        pool, worn = self.pool, self._worn(tau)
        reach = worn.sum(axis=1) - log_unit
        excess = a * np.exp(np.minimum(-b[pool] * reach, 700.0)) / self.spread
        longer = (worn * np.arange(worn.shape[1])).sum(axis=1) * math.log(2) / tau[pool]
        out = np.zeros((len(self.loss), len(x)))
        out[:, 0] = 1 / self.spread
        out[:, 1] = excess
        out[:, 2] = excess * b[pool] if self.n > 1 else 0.0
        rows = np.arange(len(self.loss))
        out[rows, 3 + pool] = -excess * reach
        out[rows, 3 + self.n + pool] = -excess * b[pool] * longer
        return out

    def _worn(self, tau: Floats) -> Floats:
        """(m, passes) the steps, weighed down by the passes that went before."""
        out: Floats = self.steps * 0.5 ** (np.arange(self.steps.shape[1]) / tau[self.pool][:, None])
        return out

    def solve(self) -> Floats:
        """The best x over starts on a fixed grid."""
        from scipy.optimize import least_squares

        n, low, high = self.n, float(self.loss.min()), float(self.loss.max())
        # Losses that are never below zero do not fall below it beyond the measurements either.
        least = 0.0 if low >= 0 else low - 3 * max(high - low, 1.0)
        log_spread = math.log(self.spread)
        head = [least, log_spread - 20, self.log_fewest - 12]
        lower = np.concatenate([head, np.zeros(n), np.full(n, math.log(_HALF_LIFE[0]))])
        head = [low, log_spread + 8, self.log_fewest + 12]
        upper = np.concatenate([head, np.full(n, _MOST_UTILITY), np.full(n, math.log(_HALF_LIFE[1]))])
        # If all losses are nearly equal, the two bounds on d can coincide.
        upper = np.maximum(upper, np.nextafter(lower, np.inf))
        best = None
        for floor, half_life in itertools.product((0.05, 1.0), (1.0, 8.0)):
            head = [max(least, low - floor * self.spread), log_spread, self.log_fewest - 3.0]
            start = np.clip(np.concatenate([head, np.full(n, 0.3), np.full(n, np.log(half_life))]), lower, upper)
            fit = least_squares(
                self.residuals, start, self.jacobian, bounds=(lower, upper), x_scale="jac", max_nfev=100
            )
            if best is None or fit.cost < best.cost * (1 - 1e-9):
                best = fit
        assert best is not None
        x: Floats = best.x
        return x
