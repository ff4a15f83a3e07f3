"""Success rates that were counted in few trials, as the beta distributions of what they may be."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError


def beta_of(rate: Floats, trials: ArrayLike, prior: float) -> tuple[Floats, Floats]:
    """(n,) the successes and (n,) the failures counted in so many trials, and `prior` of each beside.

    Raises:
        InputError: a prior that is not above 0, trials below 0 or of another length.

    Examples:
        >>> success, failure = beta_of(np.array([0.0, 0.25]), [8, 8], 0.5)
        >>> success.tolist(), failure.tolist()
        ([0.5, 2.5], [8.5, 6.5])
    """
    if not prior > 0 or not np.isfinite(prior):
        raise InputError(f"prior={prior!r}: give a number above 0")
    count = checks.costs(trials, "trials").astype(np.float64)
    checks.same_length(len(rate), "scores", "trials", len(count))
    return rate * count + prior, (1 - rate) * count + prior
