"""Noise calibration and privacy accounting for `_private_streaming.py`."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

# Bisection steps: more than a double has bits.
_HALVINGS = 100
# Beyond this rate 1 / (e^rate - 1) leaves no s worth trying.
_STEEP = 30.0


def gumbel_delta(epsilon: float, rate: float, copies: int) -> float:
    """The delta at which `copies` threshold runs with Gumbel noise of scale bound / rate are (epsilon, delta)-private.

    One run accepts element j with the chance a_j / (x + a_1 + ... + a_j), where a = exp(gain / scale) of the elements
    seen since the last acceptance and x = exp(threshold / scale). Let p be the person whose function, at most `bound`
    on any set, is withdrawn, and u = rate = bound / scale.

    With p in the data no answer is more than e^u times as likely as without: the gains that p adds along the accepted
    elements sum to at most `bound`, and all else only shrinks. The other way round, let R be the ratio of the two
    likelihoods; for every s with s (e^u - 1) < 1

        E[R^s] <= e^(-s u) / (1 - s (e^u - 1)),

    whatever the stream and however it depends on the past answers. (Within a segment R grows with Z, the mean of
    e^(p's gain / scale) weighted by a. The function (Z^(2s+1) - 1) / ((2s+1)(Z-1)) of Z, times e^(b r) of what is left
    of p's budget r, is a supermartingale: cutting an element into many only tells more, and for infinitesimal ones the
    condition is linear in e^gain on one side and convex on the other, hence holds between its ends.) Copies have noise
    of their own, so the bounds multiply; and delta = max over R of (1 - e^epsilon / R) / R^s E[R^s], least over s.
    """
    if rate == 0:
        return 0.0
    if copies * rate > epsilon or rate > _STEEP:
        return 1.0
    top = 1 / math.expm1(rate)

    def logarithm(s: float) -> float:
        ratio = -s * rate - math.log1p(-s * math.expm1(rate))
        return copies * ratio - s * epsilon + s * math.log(s) - (1 + s) * math.log1p(s)

    low, high = 0.0, top
    # Convex in s: thirds close in on the least.
    for _ in range(_HALVINGS):
        third = (high - low) / 3
        if logarithm(low + third) <= logarithm(high - third):
            high -= third
        else:
            low += third
    s = (low + high) / 2
    return min(1.0, math.exp(min(0.0, logarithm(s)))) if 0 < s < top else 1.0


@functools.lru_cache
def gumbel_rate(epsilon: float, delta: float, copies: int, k: int) -> float:
    """The largest rate (a person's bound over the noise's scale) that keeps `copies` runs (epsilon, delta)-private.

    Without a delta (and where epsilon is large) each of the k acceptances of a copy costs at most twice the rate.
    """
    if math.isinf(epsilon):
        return math.inf
    pure = epsilon / (2 * k * copies)
    if delta == 0:
        return pure
    return max(pure, _largest(lambda rate: gumbel_delta(epsilon, rate, copies) <= delta, epsilon / copies))


def advanced(step: float, runs: int, delta: float) -> float:
    """Epsilon of `runs` runs of `step` each, at this delta: the better of basic and advanced composition.

    Basic is the sum; advanced is Kairouz, Oh, Viswanath 2015, theorem 3.4, for runs without a delta of their own.
    """
    basic = runs * step
    if delta == 0:
        return basic
    return min(basic, basic * math.tanh(step / 2) + step * math.sqrt(2 * runs * math.log(1 / delta)))


@functools.lru_cache
def laplace_step(epsilon: float, delta: float, runs: int) -> float:
    """The largest epsilon that each of `runs` threshold runs may spend."""
    if math.isinf(epsilon):
        return math.inf
    return max(epsilon / runs, _largest(lambda step: advanced(step, runs, delta) <= epsilon, epsilon))


def _largest(allowed: Callable[[float], bool], top: float) -> float:
    """The largest allowed number up to `top`, by bisection (allowed is monotone)."""
    low, high = 0.0, top
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if allowed(middle) else (low, middle)
    return low


@dataclass(frozen=True)
class Accountant:
    """Privacy accountant of one stream: the budget, its split, and the noise scales.

    Neighbouring data sets differ in one person's function, replaced by 0 or, with neighbours="replace", by another one;
    the number of persons is public. The output consists of the elements that each copy accepted, when, and the chosen
    copy. Attributes beside the arguments: `stream_epsilon` (all copies together), `release_epsilon` (each choice
    of a copy), `gain_scale`, `threshold_scale` and `release_scale` (scales of the noise, in units of f).

    Args:
        epsilon: total, > 0; infinity for no noise.
        delta: total, 0 <= delta < 1.
        k: most acceptances per copy.
        copies: number of parallel threshold runs.
        noise: "gumbel" (decomposable f) or "laplace".
        sensitivity: the most that one person changes any f(S); for a sum over persons, the most of one summand.
        decomposable: f is a sum over persons of monotone functions from 0 to `sensitivity`.
        neighbours: "withdraw" or "replace".
        releases: number of budgeted choices of a copy.
        release_share: their part of epsilon.
    """

    epsilon: float
    delta: float
    k: int
    copies: int
    noise: str
    sensitivity: float
    decomposable: bool
    neighbours: str = "withdraw"
    releases: int = 1
    release_share: float = 0.5

    @property
    def _halved(self) -> bool:
        """Replacing a person is one withdrawal and one admission, so the one-sided analysis applies twice."""
        return self.noise == "gumbel" and self.neighbours == "replace"

    @property
    def _within(self) -> tuple[float, float]:
        """(epsilon, delta) available per withdrawal."""
        if not self._halved or math.isinf(self.epsilon):
            return self.epsilon, self.delta
        return self.epsilon / 2, self.delta / (1 + math.exp(self.epsilon / 2))

    @property
    def one_sided(self) -> bool:
        """Whether a change moves all gains and values in the same direction, which halves the noise."""
        return self.decomposable and (self.neighbours == "withdraw" or self._halved)

    @property
    def stream_epsilon(self) -> float:
        """Epsilon of all copies together."""
        return self._within[0] * (1 - self.release_share)

    @property
    def release_epsilon(self) -> float:
        """Epsilon of one choice of a copy."""
        return self._within[0] * self.release_share / self.releases

    @property
    def gain_scale(self) -> float:
        """Scale of the noise on each gain."""
        if self.noise == "gumbel":
            return self.sensitivity / gumbel_rate(self.stream_epsilon, self._within[1], self.copies, self.k)
        return (1 if self.one_sided else 2) * self._query / (self._step / 2)

    @property
    def threshold_scale(self) -> float:
        """Scale of the noise on the threshold, drawn anew after each acceptance."""
        return self.gain_scale if self.noise == "gumbel" else self._query / (self._step / 2)

    @property
    def release_scale(self) -> float:
        """Scale of the Gumbel noise on the copies' values, which makes the choice an exponential mechanism."""
        return (1 if self.one_sided else 2) * self.sensitivity / self.release_epsilon

    @property
    def _query(self) -> float:
        """The most that one person changes a gain: a gain of a general f is the difference of two values."""
        return self.sensitivity if self.decomposable else 2 * self.sensitivity

    @property
    def _step(self) -> float:
        """Epsilon of each run up to an acceptance, half for the threshold and half for the gains."""
        return laplace_step(self.stream_epsilon, self._within[1], self.k * self.copies)

    def spent(self, started: bool, released: int) -> tuple[float, float]:
        """(epsilon, delta) spent once the stream has begun and so many copies were chosen."""
        epsilon = (self.stream_epsilon if started else 0.0) + released * self.release_epsilon
        delta = self._within[1] if started else 0.0
        if self._halved:
            return 2 * epsilon, delta * (1 + math.exp(min(epsilon, 700.0)))
        return epsilon, delta

    @property
    def composition(self) -> str:
        """Description of the composition."""
        if self.noise == "gumbel":
            how = f"{self.copies} Gumbel threshold copies by their likelihood ratio's moments (or 2k per copy, summed)"
        else:
            how = (
                f"{self.k * self.copies} sparse-vector runs (k in each of {self.copies} copies), each pure, by the "
                "better of basic and advanced composition"
            )
        group = "; twice over, since a replacement is a withdrawal and an admission" if self._halved else ""
        return f"{how}; plus {self.releases} exponential mechanism(s), summed{group}"

    def ledger(self, started: bool, released: int) -> dict[str, Any]:
        """The accountant as plain values, for a plan's `info`; independent of the data."""
        epsilon, delta = self.spent(started, released)
        return {
            "epsilon": self.epsilon,
            "delta": self.delta,
            "neighbours": self.neighbours,
            "noise": self.noise,
            "sensitivity": self.sensitivity,
            "copies": self.copies,
            "stream_epsilon": self.stream_epsilon,
            "release_epsilon": self.release_epsilon,
            "gain_scale": self.gain_scale,
            "threshold_scale": self.threshold_scale,
            "release_scale": self.release_scale,
            "spent_epsilon": epsilon,
            "spent_delta": delta,
            "composition": self.composition,
        }
