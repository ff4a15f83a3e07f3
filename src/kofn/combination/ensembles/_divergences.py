"""f-divergences between a posterior and a mixture of kernels, over a finite set of functions."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from kofn.core.arrays import Floats

# The least exponent of kernels and posteriors: below it probabilities, and their ratios, leave the range of floats.
LEAST_EXPONENT = -300.0


def _logarithm(x: Floats) -> Floats:
    """log x, and 0 where x is 0: what is multiplied by it is 0 there."""
    return np.log(np.where(x > 0, x, 1.0))


def _reverse_kl(p: Floats, q: Floats) -> Floats:
    return q * (_logarithm(q) - np.log(p))


def _kl(p: Floats, q: Floats) -> Floats:
    return p * (np.log(p) - np.log(q))


def _hellinger(p: Floats, q: Floats) -> Floats:
    return 0.5 * np.square(np.sqrt(p) - np.sqrt(q))


def _jensen_shannon(p: Floats, q: Floats) -> Floats:
    middle = np.log((p + q) / 2)
    return 0.5 * (p * (np.log(p) - middle) + q * (_logarithm(q) - middle))


def _total_variation(p: Floats, q: Floats) -> Floats:
    return 0.5 * np.abs(p - q)


# The summands of each divergence, convex in q: (posterior, mixture) -> the part of each function.
TERMS: dict[str, Callable[[Floats, Floats], Floats]] = {
    "reverse_kl": _reverse_kl,
    "kl": _kl,
    "hellinger": _hellinger,
    "jensen_shannon": _jensen_shannon,
    "total_variation": _total_variation,
}

# Their slopes in q.
SLOPES: dict[str, Callable[[Floats, Floats], Floats]] = {
    "reverse_kl": lambda p, q: np.log(q) - np.log(p) + 1,
    "kl": lambda p, q: -p / q,
    "hellinger": lambda p, q: 0.5 * (1 - np.sqrt(p / q)),
    "jensen_shannon": lambda p, q: 0.5 * np.log(2 * q / (p + q)),
    "total_variation": lambda p, q: 0.5 * np.sign(q - p),
}


def divergence_of(name: str, posterior: Floats, mixtures: Floats) -> Floats:
    """(...,) the divergence between the posterior (m,) and each of the mixtures (..., m), whose mass may be below 1."""
    return TERMS[name](posterior, mixtures).sum(axis=-1)


def least_divergence(name: str, posterior: Floats, kernels: Floats, picks: list[int], steps: int) -> float:
    """What no mixture of as many kernels gets below: the divergence is convex in the kernels' shares, so that a slope
    at any shares in [0, 1 / k] of sum one bounds it. The shares go from those of the picks towards the best.

    Args:
        name: of the divergence.
        posterior: (m,) of the functions.
        kernels: (m, m) a row for each kernel: its mass on each function.
        picks: the k kernels of the mixture that is bounded.
        steps: how many slopes are read.
    """
    k = len(picks)
    shares = np.zeros(len(kernels))
    shares[picks] = 1 / k
    bound = -np.inf
    for step in range(steps):
        mixture = (shares[:, None] * kernels).sum(axis=0)
        slopes = (kernels * SLOPES[name](posterior, mixture)).sum(axis=1)
        corner = np.zeros(len(kernels))
        corner[np.argsort(slopes, kind="stable")[:k]] = 1 / k
        # What rounding of the slopes' sum can add up to.
        slack = 1e-12 * (1 + float(np.abs(slopes) @ (corner + shares)))
        value = float(divergence_of(name, posterior, mixture))
        bound = max(bound, value + float(slopes @ (corner - shares)) - slack)
        shares += 2 / (step + 2) * (corner - shares)
    return max(0.0, bound)
