"""Log densities of sub-posteriors: gradients, Hessians, and how far these go in a neighbourhood."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError

__all__ = ["GaussianDensity", "LogDensity", "LogisticDensity"]

# Where no bounds are given, the curvature at the corners of a box, times this, is taken for its largest.
_MARGIN = 1.5
_MOST_CORNERS = 16


class Density(ABC):
    """The log of a density of d parameters, up to a constant, by its derivatives.

    A neighbourhood is `centre + transform @ z` for |z| <= `half`, entry by entry: a box in the coordinates in which the
    paths of a fusion are Brownian.
    """

    bounded = True

    @abstractmethod
    def gradient(self, x: Floats) -> Floats:
        """(n, d) gradients at the rows of x."""

    @abstractmethod
    def trace(self, x: Floats, transform: Floats) -> Floats:
        """(n,) the trace of transform.T @ Hessian @ transform at the rows of x: the Laplacian in these coordinates."""

    @abstractmethod
    def curvature(self, centre: Floats, half: Floats, transform: Floats) -> tuple[Floats, Floats]:
        """Upper bounds over each neighbourhood: (n,) of the spectral norm of the transformed Hessian, (n,) of its
        trace."""


@dataclass(frozen=True)
class LogDensity(Density):
    """A log density of your own, by functions of rows of parameters.

    Args:
        gradient_of: x (n, d) -> gradients (n, d).
        hessian_of: x (n, d) -> Hessians (n, d, d); (n,) of one parameter.
        hessian_bounds: low, high (n, d) -> (lower, upper), each (n, d, d) or (n,) of one parameter: bounds of the
            Hessian's entries over the boxes between low and high. Without them they are guessed from the corners, and
            a fusion is exact only as far as the guess is right: `info["breaches"]` counts where it was not.

    Raises:
        InputError: when it is evaluated: other shapes, NaN or infinities.

    Examples:
        >>> import numpy as np
        >>> quartic = LogDensity(lambda x: -2 * x**3, lambda x: -6 * x[:, 0] ** 2)
        >>> quartic.gradient(np.array([[1.0], [2.0]])).tolist(), quartic.trace(np.array([[1.0]]), np.eye(1)).tolist()
        ([[-2.0], [-16.0]], [-6.0])
    """

    gradient_of: Callable[[Floats], Any]
    hessian_of: Callable[[Floats], Any]
    hessian_bounds: Callable[[Floats, Floats], Any] | None = None

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        """Whether bounds are given."""
        return self.hessian_bounds is not None

    def gradient(self, x: Floats) -> Floats:
        """(n, d) gradients at the rows of x."""
        return _shaped(self.gradient_of(x), x.shape, "gradient_of")

    def hessian(self, x: Floats) -> Floats:
        """(n, d, d) Hessians at the rows of x."""
        return _matrices(self.hessian_of(x), x.shape, "hessian_of")

    def trace(self, x: Floats, transform: Floats) -> Floats:
        """(n,) the Laplacian in the transformed coordinates."""
        out: Floats = np.einsum("ij,nij->n", transform @ transform.T, self.hessian(x))
        return out

    def curvature(self, centre: Floats, half: Floats, transform: Floats) -> tuple[Floats, Floats]:
        """Bounds of the transformed Hessian's norm and trace, by those of its entries, or guessed."""
        if self.hessian_bounds is None:
            return self._guessed(centre, half, transform)
        reach = half @ np.abs(transform).T
        lower, upper = (
            _matrices(bound, centre.shape, "hessian_bounds")
            for bound in self.hessian_bounds(centre - reach, centre + reach)
        )
        sizes = np.abs(transform).T @ np.maximum(np.abs(lower), np.abs(upper)) @ np.abs(transform)
        metric = transform @ transform.T
        traces = np.where(metric > 0, metric * upper, metric * lower).sum(axis=(1, 2))
        return np.linalg.norm(sizes, axis=(1, 2)), traces

    def _guessed(self, centre: Floats, half: Floats, transform: Floats) -> tuple[Floats, Floats]:
        d = centre.shape[1]
        signs = np.array(np.meshgrid(*[(-1.0, 1.0)] * min(d, 4), indexing="ij")).reshape(min(d, 4), -1).T
        corners = np.tile(signs, (1, -(-d // signs.shape[1])))[:_MOST_CORNERS, :d]
        norms, traces = np.zeros(len(centre)), np.full(len(centre), -np.inf)
        for corner in (np.zeros(d), *corners):
            hessians = transform.T @ self.hessian(centre + (half * corner) @ transform.T) @ transform
            norms = np.maximum(norms, np.linalg.norm(hessians, axis=(1, 2)))
            traces = np.maximum(traces, np.trace(hessians, axis1=1, axis2=2))
        return _MARGIN * norms, traces + (_MARGIN - 1) * np.abs(traces)


@dataclass(frozen=True)
class GaussianDensity(Density):
    """The log density of a Gaussian.

    Args:
        mean: (d,).
        covariance: (d, d), positive definite.

    Raises:
        InputError: another shape, a covariance that is not positive definite.

    Examples:
        >>> import numpy as np
        >>> GaussianDensity([0.0], [[4.0]]).gradient(np.array([[2.0]])).tolist()
        [[-0.5]]
    """

    mean: Any
    covariance: Any

    def __post_init__(self) -> None:
        """Check both, once."""
        mean = checks.vector(self.mean, "mean").astype(np.float64)
        covariance = checks.matrix(self.covariance, "covariance").astype(np.float64)
        if covariance.shape != (len(mean),) * 2:
            raise InputError(f"covariance has shape {covariance.shape}, mean {mean.shape}; give (d, d) and (d,)")
        symmetric = np.allclose(covariance, covariance.T)
        if not symmetric or np.linalg.eigvalsh(covariance)[0] <= 0:
            raise InputError("covariance is not symmetric and positive definite; give one that is")
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)
        object.__setattr__(self, "_precision", np.linalg.inv(covariance))

    def gradient(self, x: Floats) -> Floats:
        """(n, d) gradients at the rows of x."""
        out: Floats = (self.mean - x) @ self._precision  # type: ignore[attr-defined]
        return out

    def trace(self, x: Floats, transform: Floats) -> Floats:
        """(n,) the Laplacian in the transformed coordinates, the same everywhere."""
        return np.full(len(x), -np.trace(self._transformed(transform)))

    def curvature(self, centre: Floats, half: Floats, transform: Floats) -> tuple[Floats, Floats]:
        """The norm and the trace of the precision in the transformed coordinates."""
        del half
        precision = self._transformed(transform)
        norm = np.linalg.norm(precision, 2)
        return np.full(len(centre), norm), np.full(len(centre), -np.trace(precision))

    def _transformed(self, transform: Floats) -> Floats:
        out: Floats = transform.T @ self._precision @ transform  # type: ignore[attr-defined]
        return out


@dataclass(frozen=True)
class LogisticDensity(Density):
    """The log posterior of a logistic regression on one shard of the rows, with its share of a Gaussian prior.

    Args:
        X: (n, d) the shard's rows, with a column of ones for an intercept.
        y: (n,) 0 or 1.
        prior_variance: of each coefficient, around 0.
        share: the power of the prior that this shard takes: one over the number of shards.

    Raises:
        InputError: answers that are not 0 or 1, another number of them than of rows, a variance or a share that is not
            positive.

    Examples:
        >>> import numpy as np
        >>> shard = LogisticDensity([[1.0], [1.0]], [0, 1], prior_variance=1.0, share=0.5)
        >>> shard.gradient(np.array([[0.0], [2.0]])).round(3).tolist()
        [[0.0], [-1.762]]
    """

    X: Any
    y: Any
    prior_variance: float = 1.0
    share: float = 1.0

    def __post_init__(self) -> None:
        """Check the rows and their answers, once."""
        X = checks.matrix(self.X, "X").astype(np.float64)
        y = checks.vector(self.y, "y").astype(np.float64)
        checks.same_length(len(X), "X", "y", len(y))
        if not np.isin(y, (0, 1)).all():
            row = int(np.flatnonzero(~np.isin(y, (0, 1)))[0])
            raise InputError(f"y at row {row} is {y[row]:.6g}; give 0 or 1")
        for name in ("prior_variance", "share"):
            if not checks.number(getattr(self, name), name) > 0:
                raise InputError(f"{name}={getattr(self, name)!r}: give a positive number")
        object.__setattr__(self, "X", X)
        object.__setattr__(self, "y", y)

    @property
    def _pull(self) -> float:
        """The precision of the shard's part of the prior."""
        return self.share / self.prior_variance

    def gradient(self, x: Floats) -> Floats:
        """(n, d) gradients at the rows of x."""
        out: Floats = (self.y - _sigmoid(x @ self.X.T)) @ self.X - self._pull * x
        return out

    def trace(self, x: Floats, transform: Floats) -> Floats:
        """(n,) the Laplacian in the transformed coordinates."""
        sizes = np.square(self.X @ transform).sum(axis=1)
        chances = _sigmoid(x @ self.X.T)
        out: Floats = -(chances * (1 - chances)) @ sizes - self._pull * np.square(transform).sum()
        return out

    def curvature(self, centre: Floats, half: Floats, transform: Floats) -> tuple[Floats, Floats]:
        """Bounds from those of each row's p (1 - p), which falls as its log odds leave 0."""
        moved, d = self.X @ transform, len(transform)
        odds, reach = np.abs(centre @ self.X.T), half @ np.abs(moved).T
        least, most = _sigmoid(odds + reach), _sigmoid(np.maximum(odds - reach, 0.0))
        prior = self._pull * transform.T @ transform
        outer = (moved[:, :, None] * moved[:, None, :]).reshape(len(moved), -1)
        curved = (most * (1 - most)) @ outer
        norms = np.linalg.eigvalsh(curved.reshape(-1, d, d) + prior)[:, -1]
        return norms, -(least * (1 - least)) @ np.square(moved).sum(axis=1) - np.trace(prior)


@dataclass(frozen=True)
class Product(Density):
    """The product of densities: the sum of their logs."""

    parts: Sequence[Density]

    @property
    def bounded(self) -> bool:  # type: ignore[override]
        """Whether all bounds are given."""
        return all(part.bounded for part in self.parts)

    def gradient(self, x: Floats) -> Floats:
        """(n, d) gradients at the rows of x."""
        out: Floats = np.sum([part.gradient(x) for part in self.parts], axis=0)
        return out

    def trace(self, x: Floats, transform: Floats) -> Floats:
        """(n,) the Laplacian in the transformed coordinates."""
        out: Floats = np.sum([part.trace(x, transform) for part in self.parts], axis=0)
        return out

    def curvature(self, centre: Floats, half: Floats, transform: Floats) -> tuple[Floats, Floats]:
        """The sums of the parts' bounds."""
        norms, traces = zip(*(part.curvature(centre, half, transform) for part in self.parts), strict=True)
        return np.sum(norms, axis=0), np.sum(traces, axis=0)


def read_densities(densities: Any, m: int, d: int) -> list[Density]:
    """One density a member, tried on a row of zeros.

    Raises:
        InputError: another number of them, what is no density, gradients of another shape.
    """
    if not isinstance(densities, Sequence):
        raise InputError(f"densities={checks.shown(densities)}: give one LogDensity for each of the {m} members")
    if len(densities) != m:
        raise InputError(f"densities has {len(densities)} values for {m} members; give one for each")
    for shard, density in enumerate(densities):
        if not isinstance(density, Density):
            raise InputError(
                f"densities at {shard} is {checks.shown(density)}; give a LogDensity, a GaussianDensity or a "
                "LogisticDensity"
            )
        _refuse_other_width(density, shard, d)
    return list(densities)


def _refuse_other_width(density: Density, shard: int, d: int) -> None:
    width = d
    if isinstance(density, GaussianDensity):
        width = len(density.mean)
    elif isinstance(density, LogisticDensity):
        width = density.X.shape[1]
    if width != d:
        raise InputError(f"densities at {shard} is of {width} parameters, the members have {d}; give the same")
    density.gradient(np.zeros((1, d)))


def _sigmoid(odds: Floats) -> Floats:
    from scipy.special import expit

    out: Floats = expit(odds)
    return out


def _shaped(value: Any, shape: tuple[int, ...], name: str) -> Floats:
    array = np.asarray(value, np.float64)
    if array.shape != shape:
        raise InputError(f"{name} gave shape {array.shape} for x of shape {shape}; give {shape}")
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise InputError(f"{name} gave NaN or infinity at row {row} of x; give finite derivatives everywhere")
    return array


def _matrices(value: Any, shape: tuple[int, ...], name: str) -> Floats:
    n, d = shape
    array = np.asarray(value, np.float64)
    return _shaped(array.reshape(n, 1, 1) if d == 1 and array.size == n else array, (n, d, d), name)
