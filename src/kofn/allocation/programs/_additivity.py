"""Whether curves that were measured item by item can be trusted to add up, by a few joint measurements."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["MeasuredAdditivity", "additivity"]

_FEWEST = 8
# Order agreement of which at least so much must be sure, for an optimum of sums to be worth asking for.
_TRUSTED = 0.5
_REDRAWN = 2_000


@dataclass(frozen=True, eq=False)
class MeasuredAdditivity:
    """How well sums of curves foretell joint losses.

    Attributes:
        tau: Kendall's rank correlation of sums and joint losses: 1 where a smaller sum always is a smaller loss.
        low: what tau is at least, with 95% confidence.
        trusted: whether `low` is above 0.5, so that at least three of four pairs are ordered rightly.
        explained: the share of the joint losses' variance that a line in the sums explains.
        sums: (m,) the sum of the curves of each choice.
    """

    tau: float
    low: float
    trusted: bool
    explained: float
    sums: Floats

    def __str__(self) -> str:
        verdict = "can be trusted to add up" if self.trusted else "do not surely add up: search with method='evopress'"
        return f"curves {verdict} (rank correlation {self.tau:.2f}, at least {self.low:.2f})"


@helper
def additivity(curves: ArrayLike, choices: ArrayLike, losses: ArrayLike, *, seed: int = 0) -> MeasuredAdditivity:
    """Tell from a few joint measurements whether losses of items, measured one by one, add up.

    Measure at the budget that matters, over choices of about equal cost: over different budgets sums look good,
    because all losses fall with the budget.

    Args:
        curves: (n, L) loss of each item at each level, all other items untouched.
        choices: (m, n) column of each item in m joint measurements, 8 or more; drawn at random within the budget.
        losses: (m,) the loss measured of each choice as a whole.
        seed: of the bootstrap that gives `low`.

    Returns:
        `MeasuredAdditivity`.

    Raises:
        InputError: fewer than 8 measurements, columns that curves have not, losses that are all alike.

    Costs O(m^2) for each of 2,000 bootstrap samples, a second for 100 measurements.

    Examples:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> curves, choices = rng.random((6, 3)), rng.integers(3, size=(20, 6))
        >>> sums = np.take_along_axis(curves, choices.T, 1).sum(axis=0)
        >>> print(additivity(curves, choices, sums**2))
        curves can be trusted to add up (rank correlation 1.00, at least 1.00)
        >>> additivity(curves, choices, rng.random(20)).trusted
        False
    """
    table = checks.curves(curves).astype(np.float64)
    checks.refuse_nonfinite(table, "curves")
    joint = checks.vector(checks.as_array(losses, "losses"), "losses").astype(np.float64)
    columns = checks.matrix(choices, "choices").astype(np.int64)
    if columns.shape != (len(joint), len(table)):
        raise InputError(
            f"choices has shape {columns.shape}; give a column of curves for each item in each measurement, "
            f"({len(joint)}, {len(table)})"
        )
    if columns.min() < 0 or columns.max() >= table.shape[1]:
        raise InputError(
            f"choices reach from {columns.min()} to {columns.max()}; curves has columns 0 to {table.shape[1] - 1}"
        )
    if len(joint) < _FEWEST:
        raise InputError(f"losses has {len(joint)} measurements, too few to tell; measure {_FEWEST} choices or more")
    if joint.min() == joint.max():
        raise InputError("losses are all alike; measure choices that differ")
    sums = np.take_along_axis(table, columns.T, 1).sum(axis=0)
    order, comparable = _concordance(sums, joint)
    m = len(joint)
    rng = np.random.default_rng(checks.entropy(seed))
    redrawn = np.array([_mean_pair(order, comparable, rng.integers(m, size=m)) for _ in range(_REDRAWN)])
    tau = _mean_pair(order, comparable, np.arange(m))
    low = float(np.quantile(redrawn, 0.05))
    slope = np.corrcoef(sums, joint)[0, 1] if sums.min() < sums.max() else 0.0
    return MeasuredAdditivity(tau, low, low > _TRUSTED, float(slope**2), sums)


def _concordance(a: Floats, b: Floats) -> tuple[Floats, Floats]:
    """(m, m) 1 where both order a pair alike, -1 where not, 0 for ties; and 1 where a pair differs in either."""
    first, second = np.sign(a[:, None] - a), np.sign(b[:, None] - b)
    return first * second, ((first != 0) | (second != 0)).astype(np.float64)


def _mean_pair(order: Floats, comparable: Floats, rows: Ints) -> float:
    """The mean order over the pairs that differ."""
    count = float(comparable[np.ix_(rows, rows)].sum())
    return float(order[np.ix_(rows, rows)].sum()) / count if count else 0.0
