"""What judges say of every two alternatives: how much weight prefers the one to the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats

_AT_ONCE = 1 << 22  # comparisons


def ballots_of(rankings: Floats, lower: str | Sequence[int] | Sequence[str] | None) -> Floats:
    """(judges, items) scores, one ballot a row, turned so that higher is better for all of them."""
    ballots = np.array(rankings.T, order="C")
    if lower is not None:
        ballots[checks.positions(lower, "lower", len(ballots))] *= -1
    return ballots


def preferences(ballots: Floats, weights: Floats) -> Floats:
    """(n, n) the weight of the judges who rate the row's alternative above the column's; whole ones add up exactly."""
    m, n = ballots.shape
    out = np.zeros((n, n))
    step = max(1, _AT_ONCE // (n * n))
    for low in range(0, m, step):
        block = ballots[low : low + step]
        above = block[:, :, None] > block[:, None, :]
        out += np.tensordot(weights[low : low + step], above, axes=1)
    return out


def overturned(ballots: Floats, order: NDArray[np.int64]) -> Floats:
    """(m,) each judge's share of the pairs it rates apart that the order turns round, 0 where it rates none apart."""
    out = np.zeros(len(ballots))
    for judge, ballot in enumerate(ballots):
        ranked = ballot[order]
        above = ranked[:, None] > ranked[None, :]
        pairs = int(above.sum())
        out[judge] = np.tril(above).sum() / pairs if pairs else 0.0
    return out
