"""How particles move and what their weights gain, from one level of noise to the next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from kofn.combination.diffusion._diffused import Diffused, DiffusedMixture
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError

# Tails that cancel to this share are even, up to rounding.
_EVEN = 1e-12


@dataclass(frozen=True)
class Field:
    """What moves n particles at one level of noise: `drift` (n, d) and `rate` (n,), of the logarithms of their weights,
    for a unit of variance that is taken away; `pull` is how fast the drift falls as particles follow it."""

    drift: Floats
    rate: Floats
    pull: float

    def of(self, rows: Ints) -> Field:
        """Of these particles."""
        return Field(self.drift[rows], self.rate[rows], self.pull)

    def moved(self, x: Floats, before: float, after: float, tempering: float, rng: np.random.Generator) -> Floats:
        """The particles at the next level.

        Under noise of variance v the drift is about pull (centre - x) / v: this is solved exactly, the centre kept.
        """
        high, low, rate = before**2, after**2, 2 * self.pull
        centre = x + self.drift * high / self.pull
        if abs(rate - 1) < 1e-9:
            variance = tempering * low * math.log(high / low)
        else:
            variance = tempering * (low - low**rate * high ** (1 - rate)) / (rate - 1)
        spread = math.sqrt(max(variance, 0.0))
        out: Floats = centre + (low / high) ** self.pull * (x - centre) + spread * rng.normal(size=x.shape)
        return out


@dataclass(frozen=True)
class Guide:
    """A drift of `matrix` (x - `mean`) + `shift`, whose divergence is `trace`."""

    mean: Floats
    matrix: Floats
    shift: Floats
    trace: float


@dataclass(frozen=True)
class Flow:
    """Particles of prod q_i^p_i under falling noise.

    Moved by (1 + tempering) / 2 sum_i p_i s_i with noise of variance `tempering`, they gain log weights at the rate
    (|sum_i p_i s_i|^2 - sum_i p_i |s_i|^2) / 2, in which no derivative of a score is left. Any further drift h is
    allowed for by div h + h . sum_i p_i s_i. With `guided` h is the linear one under which the rate is the same for all
    particles where all members are Gaussians: what noise alone would do to the weights is then taken from them.
    """

    densities: Sequence[Diffused]
    powers: Floats
    tempering: float
    guided: bool

    @property
    def total(self) -> float:
        """The sum of the powers."""
        return float(self.powers.sum())

    def field(self, x: Floats, sigma: float) -> Field:
        """What moves particles at x under noise of this standard deviation."""
        summed, squares = np.zeros(x.shape), np.zeros(len(x))
        for number, power in enumerate(self.powers):
            score = self._score(number, x, sigma)
            summed += power * score
            squares += power * np.square(score).sum(axis=1)
        drift = (1 + self.tempering) / 2 * summed
        rate = 0.5 * (np.square(summed).sum(axis=1) - squares)
        guide = self._guide(sigma)
        if guide is None:
            return Field(drift, rate, (1 + self.tempering) / 2 * self.total)
        extra = (x - guide.mean) @ guide.matrix.T + guide.shift
        rate = rate + guide.trace + np.einsum("ni,ni->n", extra, summed)
        return Field(drift + extra, rate, (1 + self.tempering * self.total) / 2)

    def _score(self, number: int, x: Floats, sigma: float) -> Floats:
        """A member's score, which is named where it cannot be used."""
        try:
            return self.densities[number].score(x, sigma)
        except InputError as error:
            raise InputError(f"member {checks.item_key(number)}: {error}") from None

    def _guide(self, sigma: float) -> Guide | None:
        """The drift that keeps the weights of Gaussians with the members' moments even.

        With precisions P_i, means m_i, L = sum p_i P_i and m the product's mean, it is L^-1 (1/2 (L^2 - sum p_i P_i^2)
        (x - m) + sum p_i P_i^2 (m_i - m)). With negative powers L may be no precision: then all have one covariance.
        """
        if not self.guided:
            return None
        means = np.array([density.mean for density in self.densities])
        if (self.powers < 0).any():
            sizes = np.abs(self.powers) / np.abs(self.powers).sum()
            shared = np.einsum("m,mij->ij", sizes, np.array([density.covariance for density in self.densities]))
            matrix = (self.total - 1) / 2 * np.linalg.inv(shared + sigma**2 * np.eye(len(shared)))
            return Guide(self.powers @ means / self.total, matrix, np.zeros(len(shared)), float(np.trace(matrix)))
        precisions, total, mean = self._gaussians(sigma)
        squares = np.einsum("m,mij,mjk->ik", self.powers, precisions, precisions)
        matrix = np.linalg.solve(total, (total @ total - squares) / 2)
        shift = np.linalg.solve(total, np.einsum("m,mij,mjk,mk->i", self.powers, precisions, precisions, means - mean))
        return Guide(mean, matrix, shift, float(np.trace(matrix)))

    def _gaussians(self, sigma: float) -> tuple[Floats, Floats, Floats]:
        """The precisions (m, d, d) of Gaussians with the members' moments and noise; those and the mean of the product
        of their powers."""
        noise = sigma**2 * np.eye(self.densities[0].d)
        covariances = np.array([density.covariance for density in self.densities], dtype=np.float64)
        precisions: Floats = np.linalg.inv(covariances + noise).astype(np.float64, copy=False)
        total = np.einsum("m,mij->ij", self.powers, precisions)
        means = np.array([density.mean for density in self.densities])
        mean = np.linalg.lstsq(total, np.einsum("m,mij,mj->i", self.powers, precisions, means), rcond=None)[0]
        return precisions, total, mean

    def begun(self, sigma: float, count: int, rng: np.random.Generator) -> tuple[Floats, float]:
        """Draws of the product of Gaussians with the members' moments and noise, and the log of its integral.

        Raises:
            InputError: it has none.
        """
        d = self.densities[0].d
        precisions, total, mean = self._gaussians(sigma)
        if np.linalg.eigvalsh(total)[0] <= 0:
            raise InputError(
                f"powers={self.powers.tolist()} leave no density under noise of sigma_max={sigma:.6g}; give a larger "
                "sigma_max, or smaller powers of the wider densities"
            )
        constant = 0.5 * ((1 - self.total) * d * math.log(2 * math.pi) - float(np.linalg.slogdet(total)[1]))
        for power, precision, density in zip(self.powers, precisions, self.densities, strict=True):
            off = density.mean - mean
            constant += 0.5 * float(power) * (float(np.linalg.slogdet(precision)[1]) - float(off @ precision @ off))
        factor = np.linalg.cholesky(np.linalg.inv(total))
        return mean + rng.normal(size=(count, d)) @ factor.T, constant


def refuse_improper(densities: Sequence[Diffused], powers: Floats, sigma: float) -> None:
    """Refuse powers whose product under the last noise does not fall along some direction, so that it has no integral.

    Of mixtures the tails are known: this decides for Gaussians, for components of one covariance and for one parameter;
    of others it knows the directions that it looks in.

    Raises:
        InputError: no density.
    """
    mixtures = [density for density in densities if isinstance(density, DiffusedMixture)]
    if len(mixtures) < len(densities) or not (powers < 0).any():
        return
    noise = sigma**2 * np.eye(densities[0].d)
    precisions = np.linalg.inv(
        np.array([density.covariances.reshape(-1, *noise.shape)[0] for density in mixtures]) + noise
    )
    stacked = np.concatenate(
        [np.einsum("m,mij->ij", powers, precisions)[None], *(d.covariances.reshape(-1, *noise.shape) for d in mixtures)]
    )
    directions = np.linalg.eigh(stacked)[1].swapaxes(1, 2).reshape(-1, len(noise))
    falls = np.array([density.tail_precisions(directions, sigma) for density in mixtures])
    totals = powers @ falls
    least = int(np.argmin(totals / (np.abs(powers) @ falls)))
    if totals[least] <= _EVEN * (np.abs(powers) @ falls)[least]:
        raise InputError(
            f"powers={powers.tolist()} leave no density under noise of sigma_min={sigma:.6g}: along "
            f"{directions[least].round(3).tolist()} the negative powers fall faster than the positive ones (precisions "
            f"{falls[:, least].round(6).tolist()}); give smaller powers of the narrower densities"
        )
