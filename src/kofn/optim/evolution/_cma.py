"""CMA-ES: black-box minimisation by a Gaussian with adapted covariance."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.core.stepper import Event, Example, Stepper, stepper

# Axes shorter than this share of the longest are due to rounding.
_LEAST_AXIS = 1e-14


def _example(rng: np.random.Generator) -> Example:
    start, best = rng.normal(size=3), rng.normal(size=3)
    population = int(rng.integers(2, 9))

    def event(search: CMAES, rng: np.random.Generator) -> Event:
        candidates = search.state_dict()["pending"]
        if candidates is None or rng.random() < 0.2:
            return Event("ask")
        values = np.abs(candidates - best).round(1).sum(axis=1)
        return Event("tell", (np.where(rng.random(population) < 0.1, np.inf, values),))

    return Example(
        lambda seed: CMAES(start, population=population, seed=seed),
        event=event,
        refused=((Event("tell", (np.zeros(population),)), "nothing was asked"),),
    )


@stepper(
    "combine",
    paper="hansen2016",
    cost="O(n^3) a generation and O(n^2) memory",
    exact="no promise beyond that of a good local search",
    events=("ask", "tell"),
    aliases=("CMA-ES", "evolution strategy", "black-box optimisation", "derivative-free"),
    draws=_example,
)
class CMAES(Stepper[Blend]):
    """CMA-ES: minimise a black-box function over R^n by sampling from an adapted Gaussian.

    `ask()` returns the candidates of the next generation, `tell(values)` reports their values, lower is better; only
    their order matters, so `inf` may mark a failed candidate. Repeated `ask()` without `tell` returns the same
    candidates.

    Args:
        start: (n,) the mean of the first generation.
        sigma: initial standard deviation of every coordinate; about a third of the expected distance to the optimum.
        population: candidates a generation, by default 4 + floor(3 ln n).
        seed: whole number; the same seed and the same answers give the same candidates.

    `mean`, `sigma` and `covariance` (up to sigma^2) describe the current Gaussian, `generation` counts the updates,
    `best` and `best_value` the best candidate so far (None and inf before any).

    Cost: O(n^3) a generation and O(n^2) memory. No guarantee of global optimality; the search is invariant to
    translations and to strictly increasing transformations of the values.

    References:
        Hansen 2016, The CMA evolution strategy: a tutorial (arXiv 1604.00772), with the negative weights and the
        default parameters of its table 1.

    Examples:
        >>> import numpy as np
        >>> search = CMAES(np.zeros(2), sigma=0.5, seed=1)
        >>> for _ in range(60):
        ...     points = search.ask()
        ...     search.tell([(x - 3) ** 2 + 100 * (x + y) ** 2 for x, y in points])
        >>> search.best.round(4).tolist()
        [3.0, -3.0]
    """

    state: ClassVar = {
        "mean": "n",
        "sigma": "",
        "covariance": "n n",
        "path_sigma": "n",
        "path_c": "n",
        "generation": "",
        "best": "n?",
        "best_value": "",
        "rated": "",
        "pending": "population n?",
        "rng": "",
    }

    def __init__(self, start: Any, *, sigma: float = 0.3, population: int | None = None, seed: int = 0) -> None:
        self.mean: Floats = np.array(checks.vector(start, "start"), np.float64)
        self.sigma = float(checks.number(sigma, "sigma"))
        if self.sigma == 0:
            raise InputError("sigma=0: give a positive standard deviation")
        n = self.n = len(self.mean)
        default = 4 + math.floor(3 * math.log(n))
        self.population = default if population is None else checks.count(population, "population", least=2)
        super().__init__(
            start=self.mean, sigma=self.sigma, population=self.population, seed=checks.entropy(seed, "seed")
        )
        self._rng = np.random.default_rng(self.seed)
        self.covariance: Floats = np.eye(n)
        self._path_sigma, self._path_c = np.zeros(n), np.zeros(n)
        self.generation = self.rated = 0
        self.best: Floats | None = None
        self.best_value = math.inf
        self._pending: Floats | None = None
        self._constants()
        self._factor()

    def _constants(self) -> None:
        """Table 1 of the tutorial."""
        n, size = self.n, self.population
        parents = size // 2
        raw = math.log((size + 1) / 2) - np.log(np.arange(1, size + 1))
        self._mu = parents
        mass = raw[:parents].sum() ** 2 / np.square(raw[:parents]).sum()
        mass_minus = raw[parents:].sum() ** 2 / np.square(raw[parents:]).sum()
        self._mass = mass
        self._c_sigma = (mass + 2) / (n + mass + 5)
        self._damping = 1 + 2 * max(0.0, math.sqrt((mass - 1) / (n + 1)) - 1) + self._c_sigma
        self._c_c = (4 + mass / n) / (n + 4 + 2 * mass / n)
        self._c_1 = 2 / ((n + 1.3) ** 2 + mass)
        self._c_mu = min(1 - self._c_1, 2 * (0.25 + mass + 1 / mass - 2) / ((n + 2) ** 2 + mass))
        limits = (1 + self._c_1 / self._c_mu, 1 + 2 * mass_minus / (mass + 2))
        definite = (1 - self._c_1 - self._c_mu) / (n * self._c_mu)
        negative = min(*limits, definite) / np.abs(raw[raw < 0]).sum()
        self._weights: Floats = np.where(raw >= 0, raw / raw[raw > 0].sum(), raw * negative)
        self._expected = math.sqrt(n) * (1 - 1 / (4 * n) + 1 / (21 * n * n))

    def _factor(self) -> None:
        """Principal axes and standard deviations of the Gaussian."""
        self.covariance = (self.covariance + self.covariance.T) / 2
        squares, self._axes = np.linalg.eigh(self.covariance)
        self._lengths: Floats = np.sqrt(np.maximum(squares, _LEAST_AXIS**2 * max(squares[-1], 1e-300)))

    def ask(self) -> Floats:
        """(population, n) candidates to rate."""
        if self._pending is None:
            drawn = self._rng.normal(size=(self.population, self.n))
            self._pending = self.mean + self.sigma * (drawn * self._lengths) @ self._axes.T
        return self._pending.copy()

    def tell(self, values: Any) -> None:
        """Report the values (population,) of the candidates from `ask`; lower is better."""
        if self._pending is None:
            raise InputError("values: nothing was asked; call ask() first")
        losses = checks.as_float(checks.as_array(values, "values"), "values").astype(np.float64)
        if losses.shape != (self.population,) or np.isnan(losses).any():
            raise InputError(f"values: give one number for each of the {self.population} candidates, not NaN")
        order = np.argsort(losses, kind="stable")
        points, self._pending = self._pending[order], None
        if losses[order[0]] < self.best_value:
            self.best, self.best_value = points[0].copy(), float(losses[order[0]])
        self._move((points - self.mean) / self.sigma)
        # If most candidates are equally good, the steps are too short to show a direction.
        if losses[order[0]] == losses[order[min(self.population - 1, math.ceil(0.7 * self.population))]]:
            self.sigma *= math.exp(0.2 + self._c_sigma / self._damping)
        self.generation += 1
        self.rated += self.population

    def _plan(self) -> Blend:
        """The best candidate rated so far."""
        if self.best is None:
            raise InputError("plan: no candidate had a finite value yet; ask(), rate the candidates, tell(values)")
        return Blend(
            n=self.rated,
            result=self.best.copy(),
            form="none",
            value=self.best_value,
            sense="min",
            info={"generation": self.generation, "sigma": self.sigma, "mean": self.mean.copy()},
        )

    def _move(self, steps: Floats) -> None:
        n, c_sigma, c_c, c_1, c_mu = self.n, self._c_sigma, self._c_c, self._c_1, self._c_mu
        step = self._weights[: self._mu] @ steps[: self._mu]
        white = (self._axes / self._lengths) @ self._axes.T
        self.mean = self.mean + self.sigma * step
        self._path_sigma = (1 - c_sigma) * self._path_sigma + math.sqrt(c_sigma * (2 - c_sigma) * self._mass) * (
            white @ step
        )
        length = float(np.linalg.norm(self._path_sigma))
        settled = math.sqrt(1 - (1 - c_sigma) ** (2 * (self.generation + 1)))
        steady = length / settled < (1.4 + 2 / (n + 1)) * self._expected
        self._path_c = (1 - c_c) * self._path_c
        if steady:
            self._path_c = self._path_c + math.sqrt(c_c * (2 - c_c) * self._mass) * step
        # Negative weights are scaled to a fixed step length; a long step would make the covariance indefinite.
        shares = self._weights.copy()
        bad = shares < 0
        shares[bad] *= n / np.maximum(np.square(steps[bad] @ white).sum(axis=1), 1e-300)
        kept = 1 - c_1 - c_mu * self._weights.sum() + (0.0 if steady else c_1 * c_c * (2 - c_c))
        self.covariance = (
            kept * self.covariance
            + c_1 * np.outer(self._path_c, self._path_c)
            + c_mu * (steps * shares[:, None]).T @ steps
        )
        self.sigma *= math.exp(min(1.0, (c_sigma / self._damping) * (length / self._expected - 1)))
        self._factor()

    def _set_state(self, state: Mapping[str, Any]) -> None:
        super()._set_state(state)
        self._factor()
