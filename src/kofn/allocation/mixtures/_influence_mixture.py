"""Shares of groups of data that follow their influence on a validation loss as the model learns."""

from __future__ import annotations

import itertools
import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats, Mask
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.plans import Allocation
from kofn.core.stepper import Event, Example, Stepper, stepper

__all__ = ["InfluenceMixture", "group_influence"]

_HALVINGS = 200
AROUND = ("prior", "last")


def _best_by_enumeration(before: InfluenceMixture, influence: Floats) -> float:
    """The most influence that a mixture can get now, over all choices of the groups that lie on their floors.

    Of each choice the other groups have shares in proportion to centre x exp(influence / T), where T is the root of the
    divergence: the optimum is one of these points, and all of them keep the program.
    """
    centre = before.prior if before.around == "prior" else before.shares
    floors = np.minimum(before.floor * before.prior, centre)
    values = [float(centre @ influence)]
    for held_back in itertools.product((False, True), repeat=before.n) if before.radius else ():
        free = ~np.array(held_back, bool) & (centre > 0)
        points = _at_roots(influence, centre, floors, free, before.radius) if free.any() else []
        values += [float(point @ influence) for point in points if (point >= floors - 1e-13).all()]
    return max(values)


def _at_roots(influence: Floats, centre: Floats, floors: Floats, free: Mask, radius: float) -> list[Floats]:
    from scipy.optimize import brentq

    def point(logarithm: float) -> Floats:
        shares = np.where(centre > 0, floors, 0.0)
        wish = np.log(centre[free]) + influence[free] * math.exp(-logarithm)
        wish = np.exp(wish - wish.max())
        shares[free] = wish / wish.sum() * max(1 - float(shares[~free].sum()), 0.0)
        return shares

    def beyond(logarithm: float) -> float:
        return divergence(point(logarithm), centre) - radius

    cold, hot = -25.0, 25.0
    if beyond(cold) > 0 > beyond(hot):
        return [point(brentq(beyond, cold, hot, xtol=1e-13))]
    return [point(cold)] if beyond(cold) <= 0 else []


def _example(rng: np.random.Generator) -> Example:
    n = int(rng.integers(1, 6))
    prior = rng.choice([0.0, 0.1, 0.5, 1.0], n) + (np.arange(n) == 0)
    radius, floor = float(rng.choice([0.0, 0.05, 0.5, 10.0])), float(rng.choice([0.0, 0.2, 1.0]))
    around = AROUND[rng.integers(2)]

    def make() -> InfluenceMixture:
        return InfluenceMixture(prior, radius=radius, floor=floor, around=around)

    def optimum(reports: list[Floats]) -> float:
        before = make()
        for report in reports[:-1]:
            before.tell(report)
        return _best_by_enumeration(before, reports[-1]) if reports else 0.0

    return Example(
        lambda _seed: make(),
        event=lambda _mixture, rng: (
            Event("tell", (rng.choice([-1.0, 0.0, 1.0, 2.5], n),)) if rng.random() < 0.8 else Event("ask")
        ),
        refused=((Event("tell", (np.zeros(n + 1),)), f"{n + 1}"),),
        optimum=lambda events: optimum([event.arguments[0] for event in events if event.name == "tell"]),
    )


@stepper(
    "allocate",
    paper=142,
    cost="O(groups) a step of a bisection",
    exact="the shares of most expected influence within the radius and above the floors",
    events=("ask", "tell"),
    aliases=("TiKMiX", "TiKMiX-D", "group influence", "dynamic data mixture", "domain reweighting"),
    draws=_example,
)
class InfluenceMixture(Stepper[Allocation]):
    """Dynamic data mixture: shares of most expected influence on a validation loss, near a prior, solved anew at will.

    Maximises the sum of share x influence over mixtures whose Kullback-Leibler divergence from the prior is at most
    `radius` and in which no group falls below `floor` times its prior share. Influences are those of
    `group_influence`, or any other number a group that is higher where more of it helps.

    Args:
        prior: (n,) natural shares of the groups, such as their sizes, >= 0; they are divided by their sum.
        radius: how far from the prior the mixture may go, in nats; 0 stays there.
        floor: the least share of a group, as a share of its prior share, from 0 to 1.
        smoothing: share of the old influences in their moving average, from 0 to below 1.
        around: the mixture that `radius` is counted from: the "prior", or the "last" one, so that shares may drift on.

    `ask()` gives the shares, `tell(influence)` measures them anew and solves. `influence` is the moving average,
    `steps` counts the reports.

    Cost: a bisection over the temperature, O(n) a step; memory O(n).

    Guarantee: the optimum of this program, to rounding; `plan.price` is what one more nat of radius is worth. That
    influences are linear in the shares is the assumption, which holds for small steps of training.

    References:
        Wang et al. 2025, "TiKMiX: Take Data Influence into Dynamic Mixture for Language Model Pre-training", arXiv
        2508.17677 (group influence; TiKMiX-D). The paper keeps mixtures near the prior and from degenerating by
        constraints of its own; the ball and the floors are this library's. TiKMiX-M, a regression over sampled
        mixtures, is not here.

    Examples:
        >>> from kofn.allocation import InfluenceMixture
        >>> mixture = InfluenceMixture([0.6, 0.3, 0.1], radius=0.1)
        >>> mixture.tell([0.0, 1.0, 1.0])
        >>> mixture.ask().round(3).tolist()
        [0.378, 0.467, 0.156]
    """

    state: ClassVar = {"shares": "n", "influence": "n", "steps": "", "price": ""}

    def __init__(
        self, prior: Any, *, radius: float = 0.1, floor: float = 0.1, smoothing: float = 0.0, around: str = "prior"
    ) -> None:
        weights = checks.weights(prior, "prior").astype(np.float64)
        self.prior: Floats = weights / weights.sum()
        self.n = len(self.prior)
        self.radius = float(checks.number(radius, "radius"))
        self.floor = checks.fraction(floor, "floor")
        self.smoothing = checks.fraction(smoothing, "smoothing")
        if self.smoothing == 1:
            raise InputError("smoothing=1: no new influence would count; give a number below 1")
        self.around = checks.choice(around, "around", AROUND)
        super().__init__(
            prior=self.prior, radius=self.radius, floor=self.floor, smoothing=self.smoothing, around=self.around
        )
        self.shares: Floats = self.prior.copy()
        self.influence: Floats = np.zeros(self.n)
        self.steps = 0
        self._price = 0.0

    def ask(self) -> Floats:
        """(n,) the shares now."""
        return self.shares.copy()

    def tell(self, influence: Any) -> None:
        """Take (n,) influences measured now, and solve for the shares."""
        fresh = checks.vector(influence, "influence").astype(np.float64)
        checks.same_length(self.n, "prior", "influence", len(fresh))
        # The first report has nothing to be averaged with.
        kept = self.smoothing if self.steps else 0.0
        self.influence = kept * self.influence + (1 - kept) * fresh
        centre = self.prior if self.around == "prior" else self.shares
        # A group that has gone stays allowed where its floor is above 0; a centre below the floor is no centre.
        floors = np.minimum(self.floor * self.prior, centre)
        self.shares, self._price = _most_influence(self.influence, centre, floors, self.radius)
        self.steps += 1

    def _plan(self) -> Allocation:
        """`amounts` are the shares, `values` share x influence, `value` their sum."""
        values = self.shares * self.influence
        return Allocation(
            n=self.n,
            amounts=self.shares.copy(),
            values=values,
            price=self._price,
            value=math.fsum(values.tolist()),
            sense="max",
            status="optimal",
            objective="expected_influence",
            bounds=np.stack([np.minimum(self.floor * self.prior, self.shares), np.ones(self.n)], axis=1),
            info={
                "divergence": divergence(self.shares, self.prior),
                "influence": self.influence.copy(),
                "steps": self.steps,
            },
        )


def divergence(shares: Floats, prior: Floats) -> float:
    """Kullback-Leibler divergence of shares from a prior, in nats."""
    some = shares > 0
    return max(0.0, math.fsum((shares[some] * np.log(shares[some] / prior[some])).tolist()))


def _most_influence(influence: Floats, centre: Floats, floors: Floats, radius: float) -> tuple[Floats, float]:
    """Shares of most expected influence, and what a nat of radius is worth.

    At temperature T the optimum is max(floor, centre x exp(influence / T) / Z). It goes farther from the centre the
    lower T is, so that T is found by bisection.
    """
    unit = float(np.abs(influence).max())
    influence = influence / max(unit, 1e-300)
    spread = float(np.ptp(influence[centre > 0]))
    if radius == 0 or spread == 0:
        return centre.copy(), 0.0
    # Without any temperature all free share goes to the best groups.
    coldest = _at_temperature(np.where(influence < influence[centre > 0].max(), -np.inf, influence), centre, floors, 1)
    if divergence(coldest, centre) <= radius:
        return coldest, 0.0
    # Below the low end of T no two influences that differ are near, above the high end no share moves.
    low, high = spread * 1e-17, spread * 1e9
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        far = divergence(_at_temperature(influence, centre, floors, middle), centre) > radius
        low, high = (middle, high) if far else (low, middle)
        if high <= low * (1 + 1e-14):
            break
    return _at_temperature(influence, centre, floors, high), high * unit


def _at_temperature(influence: Floats, centre: Floats, floors: Floats, temperature: float) -> Floats:
    """max(floor, centre x exp(influence / T) / Z), with Z such that they sum to 1."""
    some = centre > 0
    log_wish = np.full(len(centre), -np.inf)
    log_wish[some] = np.log(centre[some]) + (influence[some] - influence[some].max()) / temperature
    wish = np.exp(log_wish - log_wish.max())
    held_back = np.zeros(len(centre), bool)
    while True:
        # Groups below their floor are put on it, which leaves less for the others; a few rounds settle who.
        free = 1 - math.fsum(floors[held_back].tolist())
        shares = np.where(held_back, floors, wish * (free / max(float(wish[~held_back].sum()), 1e-300)))
        below = ~held_back & (shares < floors)
        if not below.any():
            return np.asarray(shares / shares.sum())
        held_back |= below


@helper
def group_influence(
    gradients: ArrayLike,
    target: ArrayLike,
    *,
    curvature: ArrayLike | None = None,
    damping: float = 0.0,
) -> Floats:
    """Group influence: how fast a target loss falls where the model takes a step on each group of training data.

    Args:
        gradients: (n, d) the mean gradient of each group's loss.
        target: (d,) the gradient of the loss that is to fall, such as the mean over validation rows.
        curvature: what a step is divided by: (d,) a diagonal, > 0, such as an optimiser's square roots of second
            moments, or (d, d) a symmetric positive definite matrix, such as a Hessian; default 1, plain gradients.
        damping: added to the curvature, >= 0.

    Returns:
        (n,) target . curvature^-1 . gradient: the target loss falls by so much for each unit of a small step on the
        group, and rises where it is below 0.

    Raises:
        InputError: shapes that do not fit, a curvature that is not positive.

    Cost: O(n d) with a diagonal; O(d^3) with a matrix.

    References:
        Wang et al. 2025, "TiKMiX", arXiv 2508.17677, after Koh & Liang 2017, "Understanding Black-box Predictions via
        Influence Functions" (ICML).

    Examples:
        >>> from kofn.allocation import group_influence
        >>> group_influence([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]], [2.0, 1.0], curvature=[1.0, 2.0]).tolist()
        [2.0, 0.5, -2.0]
    """
    slopes = checks.matrix(gradients, "gradients").astype(np.float64)
    aim = checks.vector(target, "target").astype(np.float64)
    d = slopes.shape[1]
    if len(aim) != d:
        raise InputError(f"target has {len(aim)} values, gradients has {d} columns; give one value a parameter")
    damp = float(checks.number(damping, "damping"))
    if curvature is None:
        return np.asarray(slopes @ aim / (1 + damp))
    if np.ndim(curvature) == 2:
        return np.asarray(slopes @ _solved(checks.square(curvature, "curvature", nonnegative=False), aim, damp))
    diagonal = checks.vector(curvature, "curvature").astype(np.float64) + damp
    if len(diagonal) != d:
        raise InputError(f"curvature has {len(diagonal)} values, gradients has {d} columns; give one a parameter")
    if diagonal.min() <= 0:
        row = int(diagonal.argmin())
        raise InputError(f"curvature at row {row} is {diagonal[row] - damp:g}; give values above 0, or damping")
    return np.asarray(slopes @ (aim / diagonal))


def _solved(matrix: Any, aim: Floats, damp: float) -> Floats:
    from scipy.linalg import LinAlgError, cho_factor, cho_solve

    if matrix.shape[0] != len(aim):
        raise InputError(f"curvature has {matrix.shape[0]} rows, gradients has {len(aim)} columns; give (d, d)")
    try:
        factor = cho_factor(matrix.astype(np.float64) + damp * np.eye(len(aim)))
    except LinAlgError:
        raise InputError("curvature is not positive definite; give damping above 0, or a diagonal") from None
    return np.asarray(cho_solve(factor, aim))
