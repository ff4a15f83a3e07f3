"""A fitted law of pools."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError

__all__ = ["fit_utility"]


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
