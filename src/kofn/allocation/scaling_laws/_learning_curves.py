"""Power laws of learning curves: error = floor + scale * samples ** -exponent, for each group of its own."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation._levels import sizes_and_levels
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["LearningCurves", "fit_learning_curves"]

# Exponents that a fit may have, and how many are tried before the best is refined.
_EXPONENTS = (0.02, 2.5)
_TRIED = 40
# Squares of residuals over those of errors that are nothing but rounding.
_ROUNDING = 1e-20


@dataclass(frozen=True, eq=False)
class LearningCurves:
    """Fitted learning curves.

    Attributes:
        floor: (n,) error that no data removes, >= 0.
        scale: (n,) error above the floor at one sample, >= 0.
        exponent: (n,) how fast it falls, > 0.
        error: (n,) root mean square of the fit's residuals.
        reach: (n,) the most samples that the curve was measured at.
    """

    floor: Floats
    scale: Floats
    exponent: Floats
    error: Floats
    reach: Floats

    def loss(self, samples: ArrayLike) -> Floats:
        """(n,) the predicted error of each group after so many samples of it, at least one.

        >>> one = np.ones(1)
        >>> LearningCurves(0 * one, one, 0.5 * one, one, one).loss([100.0]).tolist()
        [0.1]
        """
        count = np.maximum(np.asarray(samples, np.float64), 1.0)
        out: Floats = self.floor + self.scale * count**-self.exponent
        return out

    def saving(self, samples: ArrayLike) -> Floats:
        """(n,) by how much the next sample of each group lowers its predicted error.

        Not the difference of two losses, of which rounding leaves nothing after many samples.

        >>> one = np.ones(1)
        >>> LearningCurves(0 * one, one, 0.5 * one, one, one).saving([1e12]).round(24).tolist()
        [5e-19]
        """
        before = np.asarray(samples, np.float64)
        count = np.maximum(before, 1.0)
        step = np.maximum(before + 1, 1.0) - count
        out: Floats = self.scale * count**-self.exponent * -np.expm1(-self.exponent * np.log1p(step / count))
        return out


@helper
def fit_learning_curves(curves: ArrayLike, *, levels: ArrayLike, floor: bool = True) -> LearningCurves:
    """Fit power laws to the groups' measured errors by least squares, no more of them than the points tell apart.

    Exponents of their own and floors are fitted where Akaike's criterion for few points finds them worth their
    parameters: noisy curves share an exponent, and have no floor.

    Args:
        curves: (n, L) error of each group, >= 0, after training on `levels` samples of it.
        levels: (L,) or (n, L) samples, >= 1.
        floor: whether an error may remain that no data removes, which four points can tell; without it two points do.

    Returns:
        `LearningCurves`.

    Raises:
        InputError: fewer points than parameters (three with a floor, else two), or errors below 0.

    Costs some 100 linear fits of two parameters a group. With a floor the exponent is known only where the curve
    bends; measure at sizes that differ by factors, ten times or more from the least to the most.

    Examples:
        >>> fit = fit_learning_curves([[0.6, 0.4, 0.3, 0.25]], levels=[25, 100, 400, 1600])
        >>> fit.floor.round(3).tolist(), fit.exponent.round(3).tolist()
        ([0.2], [0.5])
    """
    errors = checks.curves(curves).astype(np.float64)
    checks.refuse_nonfinite(errors, "curves")
    if errors.min() < 0:
        row, column = np.argwhere(errors < 0)[0]
        raise InputError(f"curves at row {row}, column {column} is {errors[row, column]:g}; give errors >= 0")
    samples = sizes_and_levels(errors, None, levels)[1].astype(np.float64)
    if samples.min() < 1:
        row, column = np.argwhere(samples < 1)[0]
        raise InputError(f"levels at row {row}, column {column} is {samples[row, column]:g}; give samples, at least 1")
    needed = 3 if floor else 2
    for row, sizes in enumerate(samples):
        if len(np.unique(sizes)) < needed:
            remedy = "measure more sizes" + (", or give floor=False" if floor and len(np.unique(sizes)) == 2 else "")
            raise InputError(
                f"curves of row {row} are measured at {len(np.unique(sizes))} sizes, fewer than the law's {needed} "
                f"parameters; {remedy}"
            )
    fits = _chosen(errors, samples, floor)
    return LearningCurves(fits[0], fits[1], fits[2], fits[3], samples.max(axis=1))


@dataclass(frozen=True)
class _Law:
    """One form of the law: whether errors have floors, and whether all groups share an exponent."""

    floor: bool
    shared: bool

    def parameters(self, n: int) -> int:
        """How many numbers are fitted to n groups."""
        return n * (1 + self.floor) + (1 if self.shared else n)

    def fit(self, errors: Floats, samples: Floats) -> Floats:
        """(4, n) floor, scale, exponent and root mean square residual of each group."""
        n = len(errors)
        exponent = np.full(n, 0.0)
        for rows in [list(range(n))] if self.shared else [[row] for row in range(n)]:
            exponent[rows] = _best_exponent(errors[rows], samples[rows], self.floor)
        lines = np.array([_linear(errors[i], samples[i] ** -exponent[i], self.floor) for i in range(n)])
        return np.stack([lines[:, 0], lines[:, 1], exponent, np.sqrt(lines[:, 2] / errors.shape[1])])


def _chosen(errors: Floats, samples: Floats, floor: bool) -> Floats:
    """The fit of the form that Akaike's criterion, corrected for few points, prefers; the simplest of equal ones."""
    forms = [_Law(some, shared) for some in ((False, True) if floor else (False,)) for shared in (True, False)]
    count, n = errors.size, len(errors)
    best, least = None, math.inf
    for form in forms:
        if best is not None and errors.shape[1] <= 2 + form.floor:
            continue  # it would go through all points
        fits = form.fit(errors, samples)
        # Of curves without noise what is left is rounding.
        squares = max(errors.shape[1] * float((fits[3] ** 2).sum()), _ROUNDING * float((errors**2).sum()), 1e-300)
        used = form.parameters(n) + 1
        penalty = 2 * used * (1 + (used + 1) / max(count - used - 1, 1))
        criterion = count * math.log(squares / count) + penalty
        if best is None or criterion < least:
            best, least = fits, criterion
    assert best is not None
    return best


def _best_exponent(errors: Floats, samples: Floats, floor: bool) -> float:
    """The exponent of least squared residuals over these groups."""
    from scipy.optimize import minimize_scalar

    def squares(log_exponent: float) -> float:
        power = -math.exp(log_exponent)
        return sum(_linear(error, size**power, floor)[2] for error, size in zip(errors, samples, strict=True))

    low, high = map(math.log, _EXPONENTS)
    grid = np.linspace(low, high, _TRIED)
    best = grid[int(np.argmin([squares(x) for x in grid]))]
    step = grid[1] - grid[0]
    ends = (max(low, best - step), min(high, best + step))
    refined = minimize_scalar(squares, bounds=ends, method="bounded", options={"xatol": 1e-9})
    return math.exp(refined.x)


def _linear(error: Floats, shape: Floats, floor: bool) -> tuple[float, float, float]:
    """Floor and scale, neither below 0, of least squared residuals, and their sum."""
    middle = float(shape.mean()) if floor else 0.0
    mean = float(error.mean()) if floor else 0.0
    spread = float(((shape - middle) ** 2).sum())
    scale = max(float((shape - middle) @ (error - mean)) / spread if spread > 0 else 0.0, 0.0)
    base = mean - scale * middle
    if base < 0:
        base, scale = 0.0, max(float(shape @ error) / float(shape @ shape), 0.0)
    return base, scale, float(((base + scale * shape - error) ** 2).sum())
