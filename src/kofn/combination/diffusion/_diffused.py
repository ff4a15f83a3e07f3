"""Densities under Gaussian noise, by their scores: what a diffusion model is at each level of noise."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError

__all__ = ["DiffusedMixture", "DiffusedScore"]

# Silverman's bandwidth times this: kernels much wider than that blur the modes of a mixture.
_NARROW = 0.5


class Diffused(ABC):
    """A density of d parameters under Gaussian noise of any standard deviation, by its score.

    Attributes:
        mean: (d,) of the density without noise.
        covariance: (d, d) of the density without noise.
    """

    mean: Any
    covariance: Any

    @property
    def d(self) -> int:
        """How many parameters there are."""
        return len(self.mean)

    @abstractmethod
    def score(self, x: Floats, sigma: float) -> Floats:
        """(n, d) gradients of the log density of draws plus N(0, sigma^2 I), at the rows of x."""


@dataclass(frozen=True)
class DiffusedScore(Diffused):
    """A diffusion model of your own, by its score.

    The noise is added, nothing is shrunk (a variance-exploding process, as in EDM): a model of the shrunk
    `alpha x + s noise` is asked at `alpha x`, with `s = alpha sigma`, and its score multiplied by alpha. A denoiser D
    has the score (D(x, sigma) - x) / sigma^2.

    Args:
        score_of: x (n, d), sigma -> (n, d) gradients of the log density of the data plus noise of that deviation.
        mean: (d,) of the data that the model was trained on.
        covariance: (d, d) of these data; the draws begin at the product of Gaussians with these moments.

    Raises:
        InputError: another shape, a covariance that is not positive definite; NaN or infinite scores when it is asked.

    Examples:
        >>> import numpy as np
        >>> normal = DiffusedScore(lambda x, sigma: -x / (1 + sigma**2), [0.0], [[1.0]])
        >>> normal.score(np.array([[2.0]]), 1.0).tolist()
        [[-1.0]]
    """

    score_of: Callable[[Floats, float], Any]
    mean: Any
    covariance: Any

    def __post_init__(self) -> None:
        """Check the moments, once."""
        mean, covariance = read_moments(self.mean, self.covariance)
        object.__setattr__(self, "mean", mean)
        object.__setattr__(self, "covariance", covariance)

    def score(self, x: Floats, sigma: float) -> Floats:
        """(n, d) what the model says, checked."""
        array = np.asarray(self.score_of(x, sigma), np.float64)
        if array.shape != x.shape:
            raise InputError(f"score_of gave shape {array.shape} for x of shape {x.shape}; give {x.shape}")
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0][0])
            raise InputError(
                f"score_of gave NaN or infinity at row {row} of x with sigma={sigma:.3g}; give finite scores"
            )
        return array


@dataclass(frozen=True)
class DiffusedMixture(Diffused):
    """A mixture of Gaussians, whose score under noise is known exactly.

    Args:
        means: (K, d) of the components.
        covariances: (K, d, d), or (d, d) shared by all; positive definite.
        weights: (K,) of the components, relative; all alike by default.

    Raises:
        InputError: other shapes, covariances that are not positive definite, weights that are negative or all zero.

    Examples:
        >>> import numpy as np
        >>> mixture = DiffusedMixture([[-2.0], [2.0]], [[1.0]], weights=[3, 1])
        >>> mixture.mean.tolist(), mixture.covariance.tolist(), mixture.score(np.array([[2.0]]), 1.0).round(2).tolist()
        ([-1.0], [[4.0]], [[-0.1]])
    """

    means: Any
    covariances: Any
    weights: Any = None

    def __post_init__(self) -> None:
        """Check the components, and factor their covariances once."""
        means = checks.matrix(self.means, "means").astype(np.float64)
        count, d = means.shape
        covariances = checks.as_float(checks.as_array(self.covariances, "covariances"), "covariances")
        covariances = covariances.astype(np.float64)
        if covariances.shape not in ((d, d), (count, d, d)):
            raise InputError(
                f"covariances has shape {covariances.shape} for {count} means of {d} parameters; give {(count, d, d)}, "
                f"or {(d, d)} shared by all"
            )
        checks.refuse_nonfinite(covariances, "covariances")
        stacked = covariances.reshape(-1, d, d)
        values, bases = np.linalg.eigh(stacked)
        for component in np.flatnonzero((values[:, 0] <= 0) | ~_symmetric(stacked)).tolist():
            raise InputError(f"covariances at {component} is not symmetric and positive definite; give one that is")
        shares = np.ones(count) if self.weights is None else checks.weights(self.weights, "weights").astype(np.float64)
        checks.same_length(count, "means", "weights", len(shares))
        if not shares.any():
            raise InputError("weights are all zero; give some component a positive weight")
        shares = shares / shares.sum()
        mean = shares @ means
        within = stacked[0] if len(stacked) == 1 else np.einsum("k,kij->ij", shares, stacked)
        off = means - mean
        for name, value in {
            "means": means,
            "covariances": covariances,
            "weights": shares,
            "mean": mean,
            "covariance": within + (off * shares[:, None]).T @ off,
            "_values": values,
            "_bases": bases,
        }.items():
            object.__setattr__(self, name, value)

    def tail_precisions(self, directions: Floats, sigma: float) -> Floats:
        """(n,) how fast the log density under noise falls along rays in these unit directions (n, d): it goes as minus
        half of this times the square of the distance, by the component with the heaviest tail."""
        covariances = np.broadcast_to(self.covariances, (len(self.means), self.d, self.d))[self.weights > 0]
        inverses = np.linalg.inv(covariances + sigma**2 * np.eye(self.d))
        out: Floats = np.einsum("ni,kij,nj->kn", directions, inverses, directions).min(axis=0)
        return out

    @classmethod
    def of_draws(cls, draws: Any, *, bandwidth: float | None = None) -> DiffusedMixture:
        """Kernels around draws, of their covariance times the square of a bandwidth.

        Args:
            draws: (n, d), more of them than parameters.
            bandwidth: in standard deviations of the draws; half of Silverman's by default.

        Raises:
            InputError: fewer draws, a bandwidth that is not positive, parameters that determine each other.
        """
        rows = checks.matrix(draws, "draws").astype(np.float64)
        n, d = rows.shape
        if n <= d:
            raise InputError(f"draws has {n} rows of {d} parameters; give more draws than parameters")
        width = _NARROW * (4 / ((d + 2) * n)) ** (1 / (d + 4)) if bandwidth is None else bandwidth
        if not checks.number(width, "bandwidth") > 0:
            raise InputError(f"bandwidth={width:.6g}: give a positive number of standard deviations")
        return cls(rows, width**2 * np.cov(rows, rowvar=False).reshape(d, d))

    def log_density(self, x: Any, sigma: float = 0.0) -> Floats:
        """(n,) the log density under noise of standard deviation sigma, at the rows of x."""
        rows = checks.matrix(x, "x").astype(np.float64)
        logs = self._logs(rows, sigma)
        top = logs.max(axis=1)
        out: Floats = top + np.log(np.exp(logs - top[:, None]).sum(axis=1))
        return out

    def score(self, x: Floats, sigma: float) -> Floats:
        """(n, d) gradients of the log density under noise, at the rows of x."""
        logs = self._logs(x, sigma)
        parts = np.exp(logs - logs.max(axis=1, keepdims=True))
        parts /= parts.sum(axis=1, keepdims=True)
        if len(self._values) == 1:  # type: ignore[attr-defined]
            basis, widths = self._bases[0], self._values[0] + sigma**2  # type: ignore[attr-defined]
            out: Floats = ((parts @ self.means - x) @ basis / widths) @ basis.T
            return out
        out = np.zeros(x.shape)
        for component, (mean, values, basis) in enumerate(self._components()):
            out += parts[:, component, None] * (((mean - x) @ basis / (values + sigma**2)) @ basis.T)
        return out

    def _components(self) -> list[tuple[Floats, Floats, Floats]]:
        return list(zip(self.means, self._values, self._bases, strict=True))  # type: ignore[attr-defined]

    def _logs(self, x: Floats, sigma: float) -> Floats:
        """(n, K) the log of each component's weight times its density."""
        with np.errstate(divide="ignore"):
            logs = np.log(self.weights)
        if len(self._values) == 1:  # type: ignore[attr-defined]
            basis, widths = self._bases[0], self._values[0] + sigma**2  # type: ignore[attr-defined]
            rows, centres = (
                (x - self.mean) @ basis / np.sqrt(widths),
                (self.means - self.mean) @ basis / np.sqrt(widths),
            )
            squares = np.square(rows).sum(axis=1)[:, None] + np.square(centres).sum(axis=1) - 2 * rows @ centres.T
            out: Floats = logs - 0.5 * (squares + np.log(2 * np.pi * widths).sum())
            return out
        out = np.empty((len(x), len(self.means)))
        for component, (mean, values, basis) in enumerate(self._components()):
            widths = values + sigma**2
            squares = (np.square((x - mean) @ basis) / widths).sum(axis=1)
            out[:, component] = logs[component] - 0.5 * (squares + np.log(2 * np.pi * widths).sum())
        return out


def read_moments(mean: Any, covariance: Any) -> tuple[Floats, Floats]:
    """A mean and a positive definite covariance of the same parameters.

    Raises:
        InputError: another shape, NaN or infinities, a covariance that is not positive definite.
    """
    middle = checks.vector(mean, "mean").astype(np.float64)
    square = checks.matrix(covariance, "covariance").astype(np.float64)
    if square.shape != (len(middle),) * 2:
        raise InputError(f"covariance has shape {square.shape}, mean {middle.shape}; give (d, d) and (d,)")
    if not _symmetric(square[None])[0] or np.linalg.eigvalsh(square)[0] <= 0:
        raise InputError("covariance is not symmetric and positive definite; give one that is")
    return middle, square


def read_diffused(members: Sequence[Any]) -> list[Diffused]:
    """Diffused densities of the same parameters.

    Raises:
        InputError: something else among them, or another number of parameters.
    """
    for number, member in enumerate(members):
        label = f"member {checks.item_key(number)}"
        if not isinstance(member, Diffused):
            raise InputError(
                f"{label} is {type(member).__name__}; give a DiffusedScore of a diffusion model, or a DiffusedMixture "
                "(DiffusedMixture.of_draws of draws)"
            )
        if member.d != members[0].d:
            raise InputError(
                f"{label} is of {member.d} parameters, member {checks.item_key(0)} of {members[0].d}; give the same"
            )
    return list(members)


def _symmetric(matrices: Floats) -> Any:
    sizes = np.abs(matrices).max(axis=(1, 2))
    return np.abs(matrices - matrices.transpose(0, 2, 1)).max(axis=(1, 2)) <= 1e-8 * sizes
