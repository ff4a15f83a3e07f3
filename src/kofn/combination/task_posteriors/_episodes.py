"""What each task says of its parameters, as a quadratic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np

from kofn.combination.posteriors._densities import GaussianDensity
from kofn.combination.posteriors._draws import name_of
from kofn.combination.task_posteriors._gaussians import of_densities, read_gaussians
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError

__all__ = ["QuadraticEpisode"]

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
    """(m, d, d) curvatures and (m, d) pulls of m tasks, and what a plan says of them.

    The pulls are those of the parameters less `centre` (d,), near which they are: squares of large parameters would
    leave nothing of the differences between tasks.
    """

    precisions: Floats
    pulls: Floats
    centre: Floats
    parameters: tuple[str, ...]
    flat: bool
    facts: dict[str, Any]
    warnings: tuple[str, ...]

    @property
    def d(self) -> int:
        """How many parameters there are."""
        return self.pulls.shape[1]


def read_episodes(members: Sequence[Any], centre: Floats | None = None) -> Episodes:
    """The quadratic of each member: given, or that of a Gaussian, or of one fitted to draws.

    Args:
        members: of one of these kinds.
        centre: (d,) from which parameters are counted; by default the middle of the members.

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
        pulls = np.array([member.pull for member in members])
        middle = centre if _fits(centre, widths[0]) else _middle(precisions, pulls)
        return Episodes(precisions, pulls - precisions @ middle, middle, names, False, {}, ())
    if any(given):
        odd = given.index(not given[0])
        raise InputError(f"{name_of(odd)} and {name_of(0)} are not both a QuadraticEpisode; give all in one form")
    gaussians = (
        of_densities(members) if all(isinstance(m, GaussianDensity) for m in members) else read_gaussians(members)
    )
    precisions = np.linalg.inv(gaussians.covariances).astype(np.float64, copy=False)
    facts = {name: value for name, value in gaussians.facts().items() if name in ("member_draws", "member_ess")}
    middle = centre if _fits(centre, gaussians.d) else gaussians.means.mean(axis=0)
    pulls = np.einsum("mij,mj->mi", precisions, gaussians.means - middle)
    return Episodes(precisions, pulls, middle, gaussians.parameters, gaussians.flat, facts, gaussians.warnings)


def _fits(centre: Floats | None, d: int) -> TypeGuard[Floats]:
    """Whether there is a centre of so many parameters."""
    return centre is not None and len(centre) == d


def _middle(precisions: Floats, pulls: Floats) -> Floats:
    """The mean of one set of parameters for all tasks, also where these leave a parameter open."""
    total = precisions.sum(axis=0)
    sizes = np.sqrt(np.where(np.diag(total) > 0, np.diag(total), 1.0))
    out: Floats = np.linalg.lstsq(total / np.outer(sizes, sizes), pulls.sum(axis=0) / sizes, rcond=None)[0] / sizes
    return out


def guess_of(episodes: Episodes) -> tuple[Floats, Floats]:
    """Where one set of parameters for all tasks is, from the centre, and how surely a typical task alone knows each.

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
