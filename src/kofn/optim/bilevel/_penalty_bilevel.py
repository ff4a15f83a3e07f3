"""Bilevel descent by penalties: the outer gradient from first derivatives of both levels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.plans import Allocation
from kofn.core.stepper import Event, Example, Stepper, stepper

# (x, y) -> value, gradient in x, gradient in y.
Level = Callable[[Floats, Floats], tuple[float, Any, Any]]


def _drawn_upper(x: Floats, y: Floats) -> tuple[float, Floats, Floats]:
    return float(((y - 1) ** 2).sum() / 2), np.zeros(len(x)), y - 1


def _drawn_lower(x: Floats, y: Floats) -> tuple[float, Floats, Floats]:
    return float(((y - x) ** 2).sum() / 2), x - y, y - x


def _example(rng: np.random.Generator) -> Example:
    n = int(rng.integers(1, 4))
    x, y = rng.random(n), rng.random(n)
    momentum = float(rng.choice([0.0, 0.5]))
    return Example(
        lambda _seed: PenaltyBilevel(
            _drawn_upper, _drawn_lower, x, y, sigma=0.1, rate_x=0.1, rate_y=0.5, inner=3, momentum=momentum
        ),
        event=lambda _stepper, rng: Event("step", (int(rng.integers(1, 4)),)),
        refused=((Event("step", (0,)), "rounds"),),
    )


@stepper(
    "allocate",
    paper=106,
    cost="2 inner + 1 gradients of each level a round, no second derivatives; memory for four gradients",
    exact="the gradient of the penalised objective where the inner steps have converged, within O(sigma) of the true",
    events=("step",),
    aliases=("bilevel", "F2SA", "hyperparameter gradient", "first-order bilevel"),
    draws=_example,
)
class PenaltyBilevel(Stepper[Allocation]):
    """Penalised bilevel descent: minimise upper(x, y) over x, where y minimises lower(x, y), by first derivatives.

    With y the minimiser of sigma * upper + lower and z that of lower alone, the gradient in x is that of upper at y,
    plus the difference of lower's gradients at y and at z over sigma. Both minimisers are followed by a few steps of
    projected gradient descent from where they stood; then x takes a step and is clipped to its bounds.

    Args:
        upper: `upper(x, y)` returns its value, its gradient in x and its gradient in y.
        lower: likewise; the gradients may be those of a batch, with `momentum`.
        x: (n,) where x starts.
        y: (m,) where both minimisers start.
        sigma: weight of upper in the penalised problem, > 0: the error of the gradient is of its order.
        rate_x: step of x.
        rate_y: step of the minimisers.
        inner: steps of the minimisers for one of x.
        bounds: (least, most) of x, or (n, 2).
        bounds_y: likewise of y; default none.
        momentum: share of the old gradient in the average that each step follows, from 0 to below 1.

    `x`, `y` and `z` are where it stands, `gradient` the last gradient of x, `gradients` how many of either level were
    taken, `residual` the length of the last step of y and z: where it is not far below sigma the gradient is off.

    Cost: 2 `inner` + 1 gradients of each level a round, none of second order.

    Guarantee: where lower keeps a proximal error bound and the minimisers have converged, the gradient is within
    O(sigma) of the true one, also where lower has many minimisers: then upper chooses among them.

    References:
        Kwon, Kwon, Wright & Nowak 2024, "On Penalty Methods for Nonconvex Bilevel Optimization and First-Order
        Stochastic Approximation", ICLR, arXiv 2309.01753.

    Examples:
        >>> import numpy as np
        >>> from kofn.optim import PenaltyBilevel
        >>> def upper(x, y):
        ...     return float((y - 0.3) @ (y - 0.3)), np.zeros(2), 2 * (y - 0.3)
        >>> def lower(x, y):
        ...     return float((y - x) @ (y - x)), 2 * (x - y), 2 * (y - x)
        >>> descent = PenaltyBilevel(upper, lower, [1.0, 0.0], [0.0, 0.0], sigma=0.01, rate_x=0.2, rate_y=0.2)
        >>> descent.step(50)
        >>> descent.plan.amounts.round(2).tolist()
        [0.3, 0.3]
    """

    state: ClassVar = {
        "x": "n",
        "y": "m",
        "z": "m",
        "gradient": "n",
        "slope_y": "m",
        "slope_z": "m",
        "upper_value": "",
        "residual": "",
        "gradients": "",
        "rounds": "",
    }
    states_no_value = True

    def __init__(
        self,
        upper: Level,
        lower: Level,
        x: ArrayLike,
        y: ArrayLike,
        *,
        sigma: float,
        rate_x: float,
        rate_y: float,
        inner: int = 10,
        bounds: ArrayLike = (0.0, 1.0),
        bounds_y: ArrayLike | None = None,
        momentum: float = 0.0,
    ) -> None:
        for name, level in (("upper", upper), ("lower", lower)):
            if not callable(level):
                raise InputError(f"{name} is {type(level).__name__}; give a function of (x, y)")
        self.upper, self.lower = upper, lower
        self.sigma, self.rate_x, self.rate_y = (
            _positive(value, name) for name, value in (("sigma", sigma), ("rate_x", rate_x), ("rate_y", rate_y))
        )
        self.inner = checks.count(inner, "inner")
        self.momentum = checks.fraction(momentum, "momentum")
        if self.momentum == 1:
            raise InputError("momentum=1: no gradient would count; give a number below 1")
        start = checks.vector(x, "x").astype(np.float64)
        self.y: Floats = checks.vector(y, "y").astype(np.float64)
        self.n, self.m = len(start), len(self.y)
        self.bounds: Floats = _ends(bounds, self.n, "bounds")
        self.bounds_y = None if bounds_y is None else _ends(bounds_y, self.m, "bounds_y")
        super().__init__(
            upper=upper,
            lower=lower,
            x=start,
            y=self.y,
            sigma=self.sigma,
            rate_x=self.rate_x,
            rate_y=self.rate_y,
            inner=self.inner,
            bounds=self.bounds,
            bounds_y=self.bounds_y,
            momentum=self.momentum,
        )
        self.x: Floats = _clipped(start, self.bounds)
        self.y = _clipped(self.y, self.bounds_y)
        self.z: Floats = self.y.copy()
        self.gradient: Floats = np.zeros(self.n)
        self.slope_y, self.slope_z = np.zeros(self.m), np.zeros(self.m)
        self.upper_value = self.residual = float("nan")
        self.gradients = self.rounds = 0

    def step(self, rounds: int = 1) -> None:
        """Follow the minimisers and move x, so many rounds.

        Raises:
            InputError: a level that gives gradients of another length, or numbers that are not finite.
        """
        for _ in range(checks.count(rounds, "rounds")):
            gradient = self.settle()
            kept = self.momentum if self.rounds else 0.0
            self.gradient = kept * self.gradient + (1 - kept) * gradient
            self.x = _clipped(self.x - self.rate_x * self.gradient, self.bounds)
            self.rounds += 1

    def settle(self, inner: int | None = None) -> Floats:
        """Follow the minimisers for `inner` steps, by default as many as a round has, and return the gradient there."""
        y, z = self.y, self.z
        slope_y, slope_z = self.slope_y, self.slope_z
        residual = 0.0
        for _ in range(self.inner if inner is None else checks.count(inner, "inner")):
            slope_y = self._averaged(slope_y, self._penalised(y))
            slope_z = self._averaged(slope_z, self._read(self.lower, "lower", z)[2])
            moved_y = _clipped(y - self.rate_y * slope_y, self.bounds_y)
            moved_z = _clipped(z - self.rate_y * slope_z, self.bounds_y)
            residual = float(max(np.abs(moved_y - y).max(initial=0.0), np.abs(moved_z - z).max(initial=0.0)))
            y, z = moved_y, moved_z
        value, of_upper, _ = self._read(self.upper, "upper", y)
        difference = self._read(self.lower, "lower", y)[1] - self._read(self.lower, "lower", z)[1]
        self.y, self.z, self.slope_y, self.slope_z = y, z, slope_y, slope_z
        self.upper_value, self.residual = value, residual
        return np.asarray(of_upper + difference / self.sigma)

    def _penalised(self, y: Floats) -> Floats:
        return np.asarray(self.sigma * self._read(self.upper, "upper", y)[2] + self._read(self.lower, "lower", y)[2])

    def _averaged(self, old: Floats, new: Floats) -> Floats:
        kept = self.momentum if self.rounds else 0.0
        return kept * old + (1 - kept) * new

    def _read(self, level: Level, name: str, y: Floats) -> tuple[float, Floats, Floats]:
        self.gradients += 1
        answer: Any = level(self.x, y)
        if not isinstance(answer, tuple) or len(answer) != 3:
            raise InputError(f"{name} returned {type(answer).__name__}; return (value, gradient in x, gradient in y)")
        value, in_x, in_y = answer
        slopes = (np.asarray(in_x, np.float64), np.asarray(in_y, np.float64))
        for slope, length, variable in zip(slopes, (self.n, self.m), "xy", strict=True):
            if slope.shape != (length,):
                raise InputError(f"{name}: its gradient in {variable} has shape {slope.shape}; return ({length},)")
        if not (np.isfinite(value) and np.isfinite(slopes[0]).all() and np.isfinite(slopes[1]).all()):
            raise InputError(
                f"{name} is not finite after {self.rounds} rounds; take a smaller rate_y or rate_x, or give bounds"
            )
        return float(value), *slopes

    def _plan(self) -> Allocation:
        """`amounts` is x; `value` upper's at the last y, NaN before any step."""
        return Allocation(
            n=self.n,
            amounts=self.x.copy(),
            values=np.full(self.n, np.nan),
            value=self.upper_value,
            sense="min",
            additive=False,
            bounds=self.bounds.copy(),
            info={
                "rounds": self.rounds,
                "gradients": self.gradients,
                "residual": self.residual,
                "gradient": self.gradient.copy(),
            },
        )


def _positive(value: float, name: str) -> float:
    number = float(checks.number(value, name))
    if number <= 0:
        raise InputError(f"{name}={number:g}: give a number above 0")
    return number


def _clipped(point: Floats, ends: Any) -> Floats:
    return point if ends is None else np.asarray(np.clip(point, ends[:, 0], ends[:, 1]))


def _ends(bounds: ArrayLike, n: int, name: str) -> Floats:
    """(n, 2) the least and the most of each, which may be negative or infinite."""
    ends = checks.as_float(checks.as_array(bounds, name), name).astype(np.float64)
    if ends.shape not in ((2,), (n, 2)):
        raise InputError(f"{name} has shape {ends.shape}; give (least, most), or one such pair for each of {n}")
    pairs: Floats = np.broadcast_to(ends, (n, 2)).copy()
    wrong = ~(pairs[:, 0] <= pairs[:, 1])
    if wrong.any():
        row = int(wrong.argmax())
        raise InputError(f"{name} at row {row} is {pairs[row, 0]:g} to {pairs[row, 1]:g}; give least <= most")
    return pairs
