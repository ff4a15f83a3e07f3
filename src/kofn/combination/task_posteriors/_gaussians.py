"""Posteriors of several tasks as Gaussians, given so or fitted to draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.combination.posteriors._densities import GaussianDensity
from kofn.combination.posteriors._draws import few_draws, name_of, read_shards
from kofn.combination.posteriors._sizes import effective_size
from kofn.core.arrays import Floats
from kofn.core.checks import InputError


@dataclass(frozen=True)
class Gaussians:
    """Mean (m, d) and covariance (m, d, d) of each member.

    `draws` and `sizes` (m,) are how many draws a member had and what they are worth, infinite where its Gaussian was
    given; `flat` says that draws came as vectors, of one parameter.
    """

    means: Floats
    covariances: Floats
    parameters: tuple[str, ...]
    draws: Floats
    sizes: Floats
    flat: bool
    warnings: tuple[str, ...]

    @property
    def d(self) -> int:
        """How many parameters there are."""
        return self.means.shape[1]

    def shaped(self, draws: Floats) -> Floats:
        """Draws (n, d) as the members' draws came."""
        return draws[:, 0] if self.flat else draws

    def facts(self) -> dict[str, Any]:
        """What a plan says of its members."""
        drawn = {"member_draws": self.draws, "member_ess": self.sizes} if np.isfinite(self.draws).all() else {}
        return {
            **drawn,
            "parameters": list(self.parameters),
            "member_means": self.means,
            "member_sds": np.sqrt(np.diagonal(self.covariances, axis1=1, axis2=2)),
        }


def read_gaussians(members: Sequence[Any]) -> Gaussians:
    """The Gaussian of each member: `GaussianDensity`, or fitted to its draws.

    Raises:
        InputError: both kinds, or another number of parameters; of draws what `read_shards` refuses.
    """
    given = [isinstance(member, GaussianDensity) for member in members]
    if not any(given):
        shards = read_shards(members)
        sizes = np.array([effective_size(array) for array in shards.draws])
        return Gaussians(
            shards.in_units(shards.means),
            shards.covariances * np.outer(shards.unit, shards.unit),
            shards.parameters,
            np.array([len(array) for array in shards.draws], np.float64),
            sizes,
            shards.flat,
            tuple(few_draws(shards, sizes)),
        )
    if not all(given):
        odd = given.index(not given[0])
        raise InputError(
            f"{name_of(odd)} and {name_of(0)} are not both a GaussianDensity; give all so, or the draws of all"
        )
    return of_densities(members)


def of_densities(members: Sequence[GaussianDensity]) -> Gaussians:
    """Gaussians that were given, of the same number of parameters.

    Raises:
        InputError: unlike numbers of parameters.
    """
    widths = [len(member.mean) for member in members]
    for number, width in enumerate(widths):
        if width != widths[0]:
            raise InputError(
                f"{name_of(number)} is of {width} parameters, {name_of(0)} of {widths[0]}; give every member the same"
            )
    unbounded = np.full(len(members), np.inf)
    names = ("x",) if widths[0] == 1 else tuple(f"x{column}" for column in range(widths[0]))
    means = np.array([member.mean for member in members])
    covariances = np.array([member.covariance for member in members])
    return Gaussians(means, covariances, names, unbounded, unbounded, False, ())


def wasserstein(mean: Floats, covariance: Floats, other_mean: Floats, other_covariance: Floats) -> float:
    """The 2-Wasserstein distance between two Gaussians.

    Examples:
        >>> import numpy as np
        >>> round(wasserstein(np.zeros(2), np.eye(2), np.array([3.0, 0.0]), 4 * np.eye(2)), 6)
        3.316625
    """
    # In a power of two near the largest deviation or gap, as the product of two variances may overflow or vanish.
    gap = mean - other_mean
    widths = (math.sqrt(max(float(np.abs(each).max()), 0.0)) for each in (covariance, other_covariance))
    unit = math.ldexp(1.0, math.frexp(max(*widths, float(np.abs(gap).max())))[1])
    gap, covariance, other_covariance = gap / unit, covariance / unit / unit, other_covariance / unit / unit
    values, basis = np.linalg.eigh(covariance)
    root = (basis * np.sqrt(np.maximum(values, 0.0))) @ basis.T
    inner = np.linalg.eigvalsh(root @ other_covariance @ root)
    traces = np.trace(covariance) + np.trace(other_covariance) - 2 * np.sqrt(np.maximum(inner, 0.0)).sum()
    return unit * math.sqrt(max(float(np.square(gap).sum() + traces), 0.0))
