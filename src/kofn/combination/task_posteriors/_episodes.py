"""What each task says of its parameters, as a quadratic, and the population that is fitted to these."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.combination.posteriors._densities import GaussianDensity
from kofn.combination.posteriors._draws import name_of
from kofn.combination.task_posteriors._gaussians import of_densities, read_gaussians
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError

__all__ = ["QuadraticEpisode"]

# Degrees of freedom beyond the parameters of the covariance's prior: as few as give it a mean.
_BEYOND = 2.0
# Eigenvalues of a curvature down to this, of its largest, below 0 are rounding.
_ROUNDING = 1e-10


@dataclass(frozen=True)
class QuadraticEpisode:
    """The log likelihood of one task's rows as a quadratic of its parameters: pull @ x - x @ precision @ x / 2.

    Args:
        precision: (d, d) the curvature, symmetric; it may be singular, as that of fewer rows than parameters is.
        pull: (d,) precision @ mode.

    Raises:
        InputError: another shape, NaN or infinities, a curvature that is not symmetric or has negative eigenvalues.

    Examples:
        >>> episode = QuadraticEpisode.of_regression([[1.0, 2.0]], [3.0], noise_variance=0.5)
        >>> episode.precision.tolist(), episode.pull.tolist()
        ([[2.0, 4.0], [4.0, 8.0]], [6.0, 12.0])
    """

    precision: Any
    pull: Any

    def __post_init__(self) -> None:
        """Check both, once."""
        pull = checks.vector(self.pull, "pull").astype(np.float64)
        precision = checks.matrix(self.precision, "precision").astype(np.float64)
        if precision.shape != (len(pull),) * 2:
            raise InputError(f"precision has shape {precision.shape}, pull {pull.shape}; give (d, d) and (d,)")
        size = float(np.abs(precision).max())
        if not np.allclose(precision, precision.T, rtol=0, atol=1e-8 * size):
            raise InputError("precision is not symmetric; give a matrix of second derivatives")
        least = float(np.linalg.eigvalsh(precision)[0])
        if least < -_ROUNDING * max(size, 1e-300):
            raise InputError(
                f"precision has an eigenvalue of {least:.3g}; give a curvature with none below 0, as X.T @ X has"
            )
        object.__setattr__(self, "pull", pull)
        object.__setattr__(self, "precision", (precision + precision.T) / 2)

    @classmethod
    def of_regression(cls, X: Any, y: Any, *, noise_variance: float = 1.0) -> QuadraticEpisode:
        """The exact log likelihood of a linear regression with Gaussian noise.

        Args:
            X: (rows, d) the task's rows, with a column of ones for an intercept.
            y: (rows,) the answers.
            noise_variance: of the answers.

        Raises:
            InputError: another number of answers than of rows, a variance that is not positive.
        """
        rows = checks.matrix(X, "X").astype(np.float64)
        answers = checks.vector(y, "y").astype(np.float64)
        checks.same_length(len(rows), "X", "y", len(answers))
        variance = checks.number(noise_variance, "noise_variance")
        if not variance > 0:
            raise InputError(f"noise_variance={variance:.6g}: give a positive number")
        return cls(rows.T @ rows / variance, rows.T @ answers / variance)

    @classmethod
    def of_mode(cls, mode: Any, curvature: Any) -> QuadraticEpisode:
        """The quadratic around a mode, as Laplace's approximation, or a few steps of a sampler, give it.

        Args:
            mode: (d,) where the log likelihood is highest.
            curvature: (d, d) the negative of its second derivatives there.
        """
        middle = checks.vector(mode, "mode").astype(np.float64)
        matrix = checks.matrix(curvature, "curvature").astype(np.float64)
        if matrix.shape != (len(middle),) * 2:
            raise InputError(f"curvature has shape {matrix.shape}, mode {middle.shape}; give (d, d) and (d,)")
        return cls(matrix, matrix @ middle)


@dataclass(frozen=True)
class Episodes:
    """(m, d, d) curvatures and (m, d) pulls of m tasks, and what a plan says of them."""

    precisions: Floats
    pulls: Floats
    parameters: tuple[str, ...]
    flat: bool
    facts: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def d(self) -> int:
        """How many parameters there are."""
        return self.pulls.shape[1]


def read_episodes(members: Sequence[Any]) -> Episodes:
    """The quadratic of each member: given, or that of a Gaussian, or of one fitted to draws.

    Raises:
        InputError: several kinds, unlike numbers of parameters, draws that `read_shards` refuses.
    """
    given = [isinstance(member, QuadraticEpisode) for member in members]
    if all(given):
        widths = [len(member.pull) for member in members]
        for number, width in enumerate(widths):
            if width != widths[0]:
                raise InputError(
                    f"{name_of(number)} is of {width} parameters, {name_of(0)} of {widths[0]}; give every member the "
                    "same"
                )
        names = ("x",) if widths[0] == 1 else tuple(f"x{column}" for column in range(widths[0]))
        precisions = np.array([member.precision for member in members])
        return Episodes(precisions, np.array([member.pull for member in members]), names, False, {}, ())
    if any(given):
        odd = given.index(not given[0])
        raise InputError(f"{name_of(odd)} and {name_of(0)} are not both a QuadraticEpisode; give all in one form")
    gaussians = (
        of_densities(members) if all(isinstance(m, GaussianDensity) for m in members) else read_gaussians(members)
    )
    precisions = np.linalg.inv(gaussians.covariances).astype(np.float64, copy=False)
    facts = {name: value for name, value in gaussians.facts().items() if name in ("member_draws", "member_ess")}
    pulls = np.einsum("mij,mj->mi", precisions, gaussians.means)
    return Episodes(precisions, pulls, gaussians.parameters, gaussians.flat, facts, gaussians.warnings)


@dataclass
class Population:
    """A normal-inverse-Wishart distribution of the mean and the covariance of all tasks' parameters.

    Sigma ~ IW(scale, degrees) and mu ~ N(mean, Sigma / count), after a flat prior of mu and one of Sigma with the mean
    `guess`, worth one task.
    """

    guess: Floats
    mean: Floats
    scale: Floats
    degrees: float
    count: float

    @classmethod
    def around(cls, mean: Floats, guess: Floats) -> Population:
        """Before any task: its mean, and the prior's mean of the covariance."""
        degrees = len(mean) + 1 + _BEYOND
        return cls(guess, mean, guess * degrees, degrees, 0.0)

    @property
    def covariance(self) -> Floats:
        """(d, d) the mean of Sigma."""
        return self.scale / (self.degrees - len(self.mean) - 1)

    def adapted(self, precisions: Floats, pulls: Floats) -> tuple[Floats, Floats]:
        """The closed form of each task's posterior: means (m, d) and covariances (m, d, d)."""
        prior = self.degrees * np.linalg.inv(self.scale)
        covariances = np.linalg.inv(precisions + prior)
        return np.einsum("mij,mj->mi", covariances, pulls + prior @ self.mean), covariances

    def gather(self, count: float, first: Floats, second: Floats) -> None:
        """Take so many tasks' expected parameters, and the expected outer products of these, both per task."""
        d = len(self.mean)
        start = d + 1 + _BEYOND
        scatter = second - np.outer(first, first)
        self.mean, self.count, self.degrees = first, count, start + count
        self.scale = self.guess * (start - d - 1) + count * (scatter + scatter.T) / 2

    def draws(self, count: int, rng: np.random.Generator) -> Floats:
        """(count, d) parameters of a next task: a Student distribution."""
        d = len(self.mean)
        freedom = self.degrees - d + 1
        widened = self.scale * (1 + 1 / self.count) / freedom if self.count else self.scale / freedom
        noise = rng.normal(size=(count, d)) @ np.linalg.cholesky(widened).T
        out: Floats = self.mean + noise / np.sqrt(rng.chisquare(freedom, (count, 1)) / freedom)
        return out

    def evidence(self, precisions: Floats, pulls: Floats, means: Floats, covariances: Floats) -> float:
        """The variational lower bound of the log evidence, up to constants, once `gather` has taken these tasks."""
        from scipy.special import multigammaln

        d = len(self.mean)
        seconds = covariances + means[:, :, None] * means[:, None, :]
        local = np.einsum("mi,mi->m", pulls, means) - 0.5 * np.einsum("mij,mji->m", precisions, seconds)
        local += 0.5 * np.linalg.slogdet(covariances)[1]
        whole = self.degrees / 2 * d * math.log(2) + float(multigammaln(self.degrees / 2, d))
        whole -= self.degrees / 2 * float(np.linalg.slogdet(self.scale)[1]) + d / 2 * math.log(self.count)
        return float(local.sum()) + whole


def guess_of(episodes: Episodes) -> tuple[Floats, Floats]:
    """The mean of one set of parameters for all tasks, and how surely a typical task alone would know each of them.

    Raises:
        InputError: all tasks together leave a parameter open.
    """
    total = episodes.precisions.sum(axis=0)
    sizes = np.sqrt(np.diag(total))
    if (sizes <= 0).any():
        column = int(np.flatnonzero(sizes <= 0)[0])
        raise InputError(f"no member says anything of parameter {episodes.parameters[column]!r}; leave it out")
    scaled = total / np.outer(sizes, sizes)
    if np.linalg.eigvalsh(scaled)[0] <= 1e-12 * len(sizes):
        raise InputError(
            "all members together do not tell the parameters apart (their precisions add up to a singular matrix); "
            "give more tasks, or fewer parameters"
        )
    mean = np.linalg.solve(scaled, episodes.pulls.sum(axis=0) / sizes) / sizes
    return mean, np.diag(len(episodes.pulls) / sizes**2)
