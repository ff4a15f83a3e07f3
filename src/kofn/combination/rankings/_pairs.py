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
    n = ballots.shape[1]
    out = np.zeros((n, n))
    # Of a vote between two, that pair alone: n^2 comparisons of each would take minutes where there are many.
    rated = ~np.isnan(ballots)
    of_two = rated.sum(axis=1) == 2
    left, right = np.nonzero(rated[of_two])[1].reshape(-1, 2).T
    votes, judge = ballots[of_two], np.arange(int(of_two.sum()))
    for above, below in ((left, right), (right, left)):
        won = votes[judge, above] > votes[judge, below]
        np.add.at(out, (above[won], below[won]), weights[of_two][won])
    ballots, weights = ballots[~of_two], weights[~of_two]
    m = len(ballots)
    step = max(1, _AT_ONCE // (n * n))
    for low in range(0, m, step):
        block = ballots[low : low + step]
        above = block[:, :, None] > block[:, None, :]
        out += np.tensordot(weights[low : low + step], above, axes=1)
    return out


def compared(ballots: Floats, weights: Floats) -> Floats:
    """(n, n) the weight of the judges who rate both alternatives."""
    rated = (~np.isnan(ballots)).astype(np.float64)
    return (rated * weights[:, None]).T @ rated


def overturned(ballots: Floats, order: NDArray[np.int64]) -> Floats:
    """(m,) each judge's share of the pairs it rates apart that the order turns round, 0 where it rates none apart."""
    out = np.zeros(len(ballots))
    for judge, ballot in enumerate(ballots):
        ranked = ballot[order]
        above = ranked[:, None] > ranked[None, :]
        pairs = int(above.sum())
        out[judge] = np.tril(above).sum() / pairs if pairs else 0.0
    return out
