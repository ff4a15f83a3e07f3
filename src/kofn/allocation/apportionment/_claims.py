"""What each method of apportionment counts: the claim of an item to its next unit, in floats and exactly.

An item that has `units` units claims the next one with `score / divisor(units)`, or, by remainders, with what its quota
exceeds `units` by. The method gives each unit to the largest claim, so its amounts maximise the sum of the claims met.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints

# Sums over the units of an item are added up one by one to here, and beyond by a series.
_TABLE = 1024


class Claims(ABC):
    """The claims of n items, which fall with every unit that an item has."""

    # Whether an item's first unit goes before all others'.
    first_is_due = False

    def __init__(self, scores: NDArray[Any], budget: int) -> None:
        self.scores, self.budget = scores, budget
        self.worth: Floats = scores.astype(np.float64)

    @abstractmethod
    def count(self, threshold: float) -> Floats:
        """(n,) how many units of each item have claims of at least `threshold`, to the rounding of floats."""

    @abstractmethod
    def exact(self, item: int, units: int) -> Fraction:
        """The claim of an item that has `units` units, or a number that is ordered like it."""

    @abstractmethod
    def claim(self, units: Floats) -> Floats:
        """(n,) the claims of items that have so many units; infinite where the first unit is due."""

    @abstractmethod
    def met(self, amounts: Ints) -> Floats:
        """(n,) what these amounts are worth to each item: the claims met, without those that are infinite."""

    @abstractmethod
    def range(self) -> tuple[float, float, float]:
        """Thresholds that no claim and every claim reaches, and by how much a float may be off near them."""

    @property
    def sense(self) -> str:
        """Whether the sum of `met` is made large or small."""
        return "max"

    @property
    @abstractmethod
    def objective(self) -> str:
        """What the sum of `met` is called."""


class Quotients(Claims):
    """Claims `score / divisor(units)`."""

    def count(self, threshold: float) -> Floats:
        with np.errstate(over="ignore"):
            reach = self.worth / threshold
        return np.where(self.worth > 0, np.maximum(self.within(reach), 0.0), 0.0)

    def claim(self, units: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            claims = self.worth / self.divisor(units)
        return np.where(self.worth > 0, claims, 0.0)

    def met(self, amounts: Ints) -> Floats:
        return self.worth * self.series(amounts.astype(np.float64))

    def range(self) -> tuple[float, float, float]:
        positive = self.worth[self.worth > 0]
        least = float(positive.min()) / (2.0 * (self.budget + 2))
        return 4.0 * float(positive.max()), least, 1e-13

    def exact(self, item: int, units: int) -> Fraction:
        return Fraction(self.scores[item].item()) / self.exact_divisor(units)

    @abstractmethod
    def within(self, reach: Floats) -> Floats:
        """How many of the divisors of 0, 1, 2, .. units are at most `reach`."""

    @abstractmethod
    def divisor(self, units: Floats) -> Floats:
        """The divisor of an item that has `units` units."""

    @abstractmethod
    def exact_divisor(self, units: int) -> Fraction:
        """The divisor, or with `exact` a power of it, as a fraction."""

    @abstractmethod
    def series(self, amounts: Floats) -> Floats:
        """The sum of 1 / divisor over the units that an item has, without a divisor of 0."""


@dataclass(frozen=True)
class _Shift:
    """The divisors `units + shift`, of which the first may be another one."""

    shift: Fraction
    first: Fraction


class Shifted(Quotients):
    """Divisors that rise by one a unit: `units + shift`; the first may be set apart."""

    def __init__(self, scores: NDArray[Any], budget: int, shift: Fraction, first: Fraction | None = None) -> None:
        super().__init__(scores, budget)
        self.divisors = _Shift(shift, shift if first is None else first)
        self.first_is_due = self.divisors.first == 0

    @property
    def objective(self) -> str:
        return f"quotients_by_{float(self.divisors.shift):g}_and_on"

    def within(self, reach: Floats) -> Floats:
        count = np.floor(reach - float(self.divisors.shift)) + 1
        first = float(self.divisors.first)
        return np.where(reach < first, 0.0, np.maximum(count, 1.0))

    def divisor(self, units: Floats) -> Floats:
        return np.where(units == 0, float(self.divisors.first), units + float(self.divisors.shift))

    def exact_divisor(self, units: int) -> Fraction:
        return self.divisors.first if units == 0 else units + self.divisors.shift

    def series(self, amounts: Floats) -> Floats:
        from scipy.special import digamma

        shift, first = float(self.divisors.shift), float(self.divisors.first)
        rest = digamma(np.maximum(amounts, 1.0) + shift) - digamma(1.0 + shift)
        return np.where(amounts > 0, rest + (1 / first if first else 0.0), 0.0)


class Geometric(Quotients):
    """Divisors between `units` and `units + 1`: their geometric mean. `exact` compares squares."""

    first_is_due = True

    @property
    def objective(self) -> str:
        return "quotients_by_geometric_means"

    def within(self, reach: Floats) -> Floats:
        # units (units + 1) <= reach^2, without squares that overflow.
        return np.floor(np.hypot(reach, 0.5) - 0.5) + 1

    def divisor(self, units: Floats) -> Floats:
        return np.sqrt(units) * np.sqrt(units + 1)

    def exact_divisor(self, units: int) -> Fraction:
        return Fraction(units * (units + 1))

    def exact(self, item: int, units: int) -> Fraction:
        return Fraction(self.scores[item].item()) ** 2 / self.exact_divisor(units)

    def series(self, amounts: Floats) -> Floats:
        from scipy.special import digamma, polygamma

        units = np.arange(1.0, _TABLE)
        table = np.concatenate([[0.0, 0.0], np.cumsum(1 / self.divisor(units))])
        near = table[np.minimum(amounts, _TABLE).astype(np.int64)]
        # 1 / sqrt(u^2 - 1/4) = 1/u + 1/(8 u^3) + .. with u = units + 1/2.
        far = np.maximum(amounts, _TABLE) + 0.5
        start = _TABLE + 0.5
        tail = digamma(far) - digamma(start) + (polygamma(2, far) - polygamma(2, start)) / 16
        return near + np.where(amounts > _TABLE, tail, 0.0)


class Harmonic(Quotients):
    """Divisors between `units` and `units + 1`: their harmonic mean."""

    first_is_due = True

    @property
    def objective(self) -> str:
        return "quotients_by_harmonic_means"

    def within(self, reach: Floats) -> Floats:
        half = reach / 2
        return np.floor(half - 0.5 + np.hypot(half, 0.5)) + 1

    def divisor(self, units: Floats) -> Floats:
        return units * (units + 1) / (units + 0.5)

    def exact_divisor(self, units: int) -> Fraction:
        return Fraction(2 * units * (units + 1), 2 * units + 1)

    def series(self, amounts: Floats) -> Floats:
        from scipy.special import digamma

        some = np.maximum(amounts, 1.0)
        return (digamma(some) + digamma(some + 1) - digamma(1.0) - digamma(2.0)) / 2


class Remainders(Claims):
    """Claims of the quota less the units that the item has; the amounts are those nearest to the quotas."""

    def __init__(self, scores: NDArray[Any], budget: int, quota: str) -> None:
        super().__init__(scores, budget)
        whole = scores.dtype.kind in "iu"
        total = Fraction(sum(scores.tolist())) if whole else sum(map(Fraction, scores.tolist()), Fraction(0))
        # Scores for one unit.
        self.price = total / budget if quota == "hare" else Fraction(math.floor(total / (budget + 1)) + 1)
        if self.price == 0:
            self.price = Fraction(1)  # nothing is shared
        self.quotas: Floats = self.worth / float(self.price)

    def count(self, threshold: float) -> Floats:
        return np.maximum(np.floor(self.quotas - threshold) + 1, 0.0)

    def exact(self, item: int, units: int) -> Fraction:
        return Fraction(self.scores[item].item()) / self.price - units

    def claim(self, units: Floats) -> Floats:
        # What the sum of squares falls by with one unit more.
        return 2 * (self.quotas - units) - 1

    def met(self, amounts: Ints) -> Floats:
        return (amounts - self.quotas) ** 2

    def range(self) -> tuple[float, float, float]:
        top = float(self.quotas.max()) + 2.0
        return top, -2.0 * (self.budget + 2.0), 8 * float(np.finfo(np.float64).eps) * (top + self.budget)

    @property
    def sense(self) -> str:
        return "min"

    @property
    def objective(self) -> str:
        return "squared_remainders"
