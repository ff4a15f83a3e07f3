"""Effective sizes of samples: of weights, and of draws that follow each other in a chain."""

from __future__ import annotations

import numpy as np

from kofn.core.arrays import Floats, Ints


def effective_size(draws: Floats, weights: Floats | None = None) -> float:
    """How many independent draws a sample is worth: of unequal weights Kish's, of a chain that of the worst parameter.

    A chain's is the draws over the sum of their autocorrelations, up to the first pair of neighbouring lags whose sum
    is not positive (Geyer 1992), and no more than the draws themselves.

    Examples:
        >>> import numpy as np
        >>> effective_size(np.zeros((4, 1)), np.array([0.5, 0.5, 0.0, 0.0]))
        2.0
        >>> rng = np.random.default_rng(0)
        >>> walk = np.cumsum(rng.normal(size=(1000, 1)), axis=0)
        >>> effective_size(walk) < 20 < 700 < effective_size(rng.normal(size=(1000, 1)))
        True
    """
    if weights is not None:
        return float(1 / np.square(weights).sum())
    count = len(draws)
    if count < 4:
        return float(count)
    off = draws - draws.mean(axis=0)
    width = 1 << (2 * count - 1).bit_length()
    sizes = []
    for column in off.T:
        power = np.abs(np.fft.rfft(column, width)) ** 2
        covariances = np.fft.irfft(power, width)[:count]
        if covariances[0] <= 0:
            return 0.0
        correlations = covariances / covariances[0]
        pairs = correlations[: count - count % 2].reshape(-1, 2).sum(axis=1)
        ended = np.flatnonzero(pairs <= 0)
        kept = np.minimum.accumulate(pairs[: ended[0]] if len(ended) else pairs)
        sizes.append(count / max(1.0, 2 * float(kept.sum()) - 1))
    return float(min(sizes))


def kish(log_weights: Floats, prior: Floats | None = None) -> float:
    """The effective share of particles of these log weights, each counted as often as `prior` says: from 0 to 1."""
    top = log_weights.max()
    if not np.isfinite(top):
        return 0.0
    raw = np.exp(log_weights - top)
    shares = np.full(len(raw), 1 / len(raw)) if prior is None else prior
    return float((shares @ raw) ** 2 / (shares @ raw**2))


def normalised(log_weights: Floats) -> Floats:
    """Weights that sum to 1."""
    raw = np.exp(log_weights - log_weights.max())
    out: Floats = raw / raw.sum()
    return out


def systematic(weights: Floats, count: int, rng: np.random.Generator) -> Ints:
    """(count,) rows by systematic resampling: each about count times its weight."""
    positions = (rng.random() + np.arange(count)) / count
    out: Ints = np.minimum(np.searchsorted(np.cumsum(weights), positions), len(weights) - 1)
    return out
