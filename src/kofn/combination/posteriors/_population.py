"""Weighted samples that are weighed further, resampled and moved, each step keeping what they stand for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.combination.posteriors._sizes import kish, normalised, systematic
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError

__all__ = ["Population"]


@dataclass(frozen=True)
class Population:
    """A weighted sample of an unnormalised distribution, and steps that may be composed in any order.

    The mean over `x` of f times `exp(log_weights)` estimates the integral of f without bias, before and after each
    step: `weigh` multiplies the distribution by a likelihood, `resample` evens the weights out, `extend` draws what
    comes next, `move` lets each row walk within the distribution. Sequential Monte Carlo is such a chain, and posterior
    draws are updated by data that came later without a new fit: weigh, resample, move.

    Args:
        x: (n, d) rows, or (n,) of one parameter; whole numbers stay whole.
        log_weights: (n,) logarithms of the weights, -inf for none; all 0 by default, for draws of the distribution.

    Raises:
        InputError: no row, a value that is not finite, another number of weights, a weight that is NaN or +inf.

    Cost: each step is O(n d) besides the functions that it is given.

    References:
        Scibior, Kammar, Vakar, Staton et al. 2018, Denotational validation of higher-order Bayesian inference (POPL).
        Del Moral, Doucet & Jasra 2006, Sequential Monte Carlo samplers (JRSS B 68).
        Green 1995, Reversible jump Markov chain Monte Carlo computation (Biometrika 82).

    Examples:
        >>> import numpy as np
        >>> from kofn.combination import Population
        >>> rng = np.random.default_rng(0)
        >>> prior = Population(rng.normal(size=4000))
        >>> posterior = prior.weigh(lambda x: -0.5 * (x - 1) ** 2).resample(seed=1)
        >>> round(float(posterior.mean()), 1), round(posterior.log_evidence, 1)  # 1/2, -1/4 - log(2) / 2
        (0.5, -0.6)
    """

    x: Any
    log_weights: Any = None

    def __post_init__(self) -> None:
        """Check both, once."""
        array = checks.as_array(self.x, "x")
        if array.dtype.kind not in "iu":
            array = checks.as_float(array, "x")
            checks.refuse_nonfinite(array, "x")
        if array.ndim not in (1, 2) or not len(array):
            raise InputError(f"x has shape {array.shape}; give (n, d) rows, or (n,) of one parameter")
        logs = np.zeros(len(array)) if self.log_weights is None else _logs(self.log_weights, len(array), "log_weights")
        object.__setattr__(self, "x", array)
        object.__setattr__(self, "log_weights", logs)

    @property
    def weights(self) -> Floats:
        """(n,) weights that sum to one.

        Raises:
            InputError: no row has a weight.
        """
        self._refuse_without_weight()
        return normalised(self.log_weights)

    @property
    def log_evidence(self) -> float:
        """The log of the mean weight, whose exponential estimates the distribution's integral without bias."""
        top = float(self.log_weights.max())
        return top + float(np.log(np.exp(self.log_weights - top).mean())) if np.isfinite(top) else -np.inf

    @property
    def effective_size(self) -> float:
        """How many equally weighted rows it is worth, by Kish's formula; 0 where no row has a weight."""
        return kish(self.log_weights) * len(self.x)

    def mean(self, of: Callable[[Any], Any] | None = None) -> Any:
        """The mean of a function of the rows, or of the rows themselves, over the normalised distribution."""
        values = self.x if of is None else _returned(of(self.x), len(self.x), "of")
        return self.weights @ values

    def weigh(self, log_likelihood: Callable[[Any], Any]) -> Population:
        """Multiply the distribution by exp(log_likelihood(x)): x (n, d) -> (n,), -inf where it is impossible.

        Raises:
            InputError: other than one number a row, NaN, or +inf.
        """
        return Population(self.x, self.log_weights + _logs(log_likelihood(self.x), len(self.x), "log_likelihood"))

    def resample(self, *, below: float = 1.0, seed: int | None = None) -> Population:
        """Draw rows by their weights, systematically; each then carries the mean weight.

        Args:
            below: only where the effective share of the rows is below it; 1 resamples always.
            seed: of the one number that is drawn.

        Raises:
            InputError: no row has a weight.
        """
        checks.fraction(below, "below")
        self._refuse_without_weight()
        if below < 1 and kish(self.log_weights) >= below:
            return self
        rows: Ints = systematic(normalised(self.log_weights), len(self.x), np.random.default_rng(checks.entropy(seed)))
        return Population(self.x[rows], np.full(len(self.x), self.log_evidence))

    def extend(self, draw: Callable[[Any, np.random.Generator], Any], *, seed: int | None = None) -> Population:
        """Put new rows in place of the old: draw(x, rng) -> (n, ...), a draw of what follows each, or it and what was.

        Raises:
            InputError: another number of rows.
        """
        drawn = _returned(draw(self.x, np.random.default_rng(checks.entropy(seed))), len(self.x), "draw")
        return Population(drawn, self.log_weights)

    def move(
        self,
        propose: Callable[[Any, np.random.Generator], Any],
        log_density: Callable[[Any], Any],
        *,
        log_proposal: Callable[[Any, Any], Any] | None = None,
        steps: int = 1,
        seed: int | None = None,
    ) -> Population:
        """Walk each row by steps of Metropolis, Hastings and Green that leave the distribution as it is.

        Args:
            propose: (x, rng) -> (n, ...) proposals.
            log_density: x -> (n,) of the distribution that the population stands for, up to a constant.
            log_proposal: (x, following) -> (n,) the log density of proposing `following` from x; without it proposals
                count as symmetric.
            steps: how many.
            seed: of proposals and acceptances.

        Raises:
            InputError: other than one number or one row a row, NaN, a weighted row of density 0.
        """
        rng = np.random.default_rng(checks.entropy(seed))
        x, n = self.x, len(self.x)
        now = _logs(log_density(x), n, "log_density")
        impossible = np.flatnonzero(np.isneginf(now) & np.isfinite(self.log_weights))
        if len(impossible):
            raise InputError(f"log_density at row {impossible[0]} is -inf, and it has a weight; weigh by it first")
        for _ in range(checks.count(steps, "steps")):
            proposed = _returned(propose(x, rng), n, "propose")
            following = _logs(log_density(proposed), n, "log_density")
            ahead, back = (
                (np.zeros(n), np.zeros(n))
                if log_proposal is None
                else (_logs(log_proposal(a, b), n, "log_proposal") for a, b in ((x, proposed), (proposed, x)))
            )
            accepted = np.log(rng.random(n)) < acceptance(now, following, ahead, back)
            x = np.where(accepted.reshape(-1, *(1,) * (x.ndim - 1)), proposed, x)
            now = np.where(accepted, following, now)
        return Population(x, self.log_weights)

    def _refuse_without_weight(self) -> None:
        if not np.isfinite(self.log_weights.max()):
            raise InputError(
                f"none of the {len(self.x)} rows has a weight: all log_weights are -inf; give likelier rows"
            )


def acceptance(now: Floats, following: Floats, ahead: Floats, back: Floats) -> Floats:
    """(n,) logs of the chances to accept: of the density ratio times the proposals' ratio, at most 0.

    Examples:
        >>> zero = np.zeros(1)
        >>> float(np.exp(acceptance(zero, zero, np.log([0.5]), np.log([0.25])))[0])
        0.5
    """
    with np.errstate(invalid="ignore"):
        ratio = following - now + back - ahead
    out: Floats = np.minimum(np.where(np.isneginf(following) | np.isneginf(back), -np.inf, ratio), 0.0)
    return out


def _returned(values: Any, n: int, name: str) -> Any:
    array = np.asarray(values)
    if array.ndim == 0 or len(array) != n:
        raise InputError(f"{name} gave shape {array.shape} for {n} rows; return one row or number for each")
    return array


def _logs(values: Any, n: int, name: str) -> Floats:
    array = np.asarray(values, np.float64)
    if array.shape != (n,):
        raise InputError(f"{name} has shape {array.shape} for {n} rows; give ({n},)")
    wrong = np.flatnonzero(np.isnan(array) | (array == np.inf))
    if len(wrong):
        raise InputError(f"{name} at row {wrong[0]} is {array[wrong[0]]}; give finite numbers, or -inf for none")
    return array
