"""Unbiased weights of Brownian bridges: the mean of exp(-integral of phi) over the paths between two points."""

from __future__ import annotations

import numpy as np
from scipy.special import gammaln

from kofn.combination.posteriors._densities import Density
from kofn.core.arrays import Floats
from kofn.core.checks import FailureError

# Layers are this many standard deviations of a bridge's end apart.
LAYER = 0.5
# The negative binomial's size: smaller has the heavier tail.
_SIZE = 10.0
# More points than any path is given: what needs them is no path between draws of the densities.
_MOST_POINTS = 1e5


def phi(density: Density, x: Floats, transform: Floats) -> Floats:
    """(n,) half the squared gradient plus half the Laplacian, in the coordinates in which paths are Brownian."""
    slopes = density.gradient(x) @ transform
    with np.errstate(over="ignore"):
        return 0.5 * (np.square(slopes).sum(axis=1) + density.trace(x, transform))


def upper_bound(density: Density, centre: Floats, half: Floats, transform: Floats) -> Floats:
    """(n,) an upper bound of phi over each neighbourhood, from the slope in its centre and the curvature within."""
    with np.errstate(over="ignore"):
        slope = np.linalg.norm(density.gradient(centre) @ transform, axis=1)
        norm, trace = density.curvature(centre, half, transform)
        return 0.5 * (np.square(slope + norm * np.linalg.norm(half, axis=1)) + trace)


def log_weights(
    density: Density, start: Floats, end: Floats, duration: float, transform: Floats, rng: np.random.Generator
) -> tuple[Floats, int]:
    """The logs of unbiased, positive estimates of E exp(-integral of phi) over bridges between rows of start and end.

    Bridges have the covariance transform @ transform.T a unit of time. It is drawn which layer around its ends each
    coordinate of a path stays in; U is the bound of phi over that. With kappa points at uniform times, kappa of a
    negative binomial with chances p, and the path at these drawn given the layers, the estimate is

        exp(-U duration) duration^kappa / (kappa! p(kappa)) prod (U - phi(point)),

    whose mean over kappa and the times is exp(-integral) of each path.

    Returns:
        The logs, and at how many points phi was above U, which it never is where the density's bounds hold.
    """
    from kofn.combination.posteriors._kernels import draw_layers, draw_points

    inverse, width = np.linalg.inv(transform), LAYER * float(np.sqrt(duration))
    origin, target = (np.ascontiguousarray(x @ inverse.T) for x in (start, end))
    layers = np.empty(origin.shape, np.int64)
    draw_layers(origin, target, duration, width, rng.random(origin.shape), layers)
    half = np.abs(target - origin) / 2 + layers * width
    upper = upper_bound(density, (start + end) / 2, half, transform)
    level = (phi(density, start, transform) + phi(density, end, transform)) / 2
    with np.errstate(invalid="ignore"):
        mean = np.maximum(duration * (upper - level), 1e-3)
    if not mean.max() < _MOST_POINTS:
        raise FailureError(
            f"a path would need more than {_MOST_POINTS:,.0f} points: the densities' derivatives are too large where "
            "the members' draws lie; check that the densities are in the members' order, and that the draws overlap"
        )
    kappa = rng.negative_binomial(_SIZE, _SIZE / (_SIZE + mean))
    owner = np.repeat(np.arange(len(start)), kappa)
    times = duration * rng.random(len(owner))
    times = times[np.lexsort((times, owner))]
    points = np.empty((len(owner), origin.shape[1]))
    offsets = np.concatenate([[0], np.cumsum(kappa)])
    draw_points(origin, target, duration, width, offsets, times, layers, rng, points)
    rest = upper[owner] - phi(density, points @ transform.T, transform)
    logs = np.log(np.maximum(duration * rest, 1e-300))
    chance = gammaln(_SIZE + kappa) - gammaln(_SIZE) + _SIZE * np.log(_SIZE / (_SIZE + mean))
    chance += kappa * np.log(mean / (_SIZE + mean))
    return -upper * duration + np.bincount(owner, logs, len(start)) - chance, int((rest < 0).sum())
