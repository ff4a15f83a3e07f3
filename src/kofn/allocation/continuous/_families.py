"""Families of curves with diminishing returns: the amount at a price in closed form, and the price of a budget."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.core.checks import InputError

# Steps of Newton's method, which doubles the digits in each.
_STEPS = 100


@dataclass(frozen=True)
class Family(ABC):
    """n curves `scale`, `shape` over amounts that cost `size` a unit each (None: 1)."""

    scale: Floats
    shape: Floats
    size: Floats | None

    sense = "max"
    # Whether nothing is infinitely bad, so that every item gets something.
    needs_some = False

    def part(self, kept: NDArray[np.bool_]) -> Self:
        """Those of the items."""
        return replace(
            self,
            scale=self.scale[kept],
            shape=self.shape[kept],
            size=None if self.size is None else self.size[kept],
        )

    def weighed(self, amounts: Floats) -> Floats:
        """What amounts cost."""
        return amounts if self.size is None else amounts * self.size

    @abstractmethod
    def price(self, budget: float) -> float:
        """The price at which the items, without bounds, take this budget."""

    @abstractmethod
    def amounts(self, price: float) -> Floats:
        """What each item takes at a price, below 0 where it would rather give."""

    @abstractmethod
    def values(self, amounts: Floats) -> Floats:
        """The curves there."""

    @abstractmethod
    def slopes(self, amounts: Floats) -> Floats:
        """What a little more brings there, a unit of amount."""

    def refuse(self) -> None:
        """Refuse parameters that are no curve of diminishing returns."""
        for name, values, least in (("scale", self.scale, 0.0), ("shape", self.shape, np.nextafter(0, 1))):
            if values.min() < least:
                row = int(values.argmin())
                above = ">= 0" if least == 0 else "> 0"
                column = 0 if name == "scale" else 1
                raise InputError(f"curves at row {row}, column {column} is {values[row]:g}; the {name} must be {above}")


class Logarithm(Family):
    """Values `scale * log(1 + x / shape)`."""

    def price(self, budget: float) -> float:
        return float(self.scale.sum()) / (budget + float(self.weighed(self.shape).sum()))

    def amounts(self, price: float) -> Floats:
        reach = self.scale / price
        return (reach if self.size is None else reach / self.size) - self.shape

    def values(self, amounts: Floats) -> Floats:
        return self.scale * np.log1p(amounts / self.shape)

    def slopes(self, amounts: Floats) -> Floats:
        return self.scale / (self.shape + amounts)


class Saturating(Family):
    """Values `scale * (1 - exp(-x / shape))`."""

    def _starts(self) -> Floats:
        """(n,) logarithms of the price at which each item begins to take."""
        with np.errstate(divide="ignore"):
            return np.log(self.scale / self.weighed(self.shape))

    def price(self, budget: float) -> float:
        costs = self.weighed(self.shape)
        logarithm = (float((costs * self._starts()).sum()) - budget) / float(costs.sum())
        return math.exp(max(min(logarithm, 700.0), -745.0))

    def amounts(self, price: float) -> Floats:
        return self.shape * (self._starts() - math.log(price))

    def values(self, amounts: Floats) -> Floats:
        return -self.scale * np.expm1(-amounts / self.shape)

    def slopes(self, amounts: Floats) -> Floats:
        return self.scale / self.shape * np.exp(-amounts / self.shape)


class Exponential(Saturating):
    """Losses `scale * exp(-x / shape)`."""

    sense = "min"

    def values(self, amounts: Floats) -> Floats:
        return self.scale * np.exp(-amounts / self.shape)


class _Powers(Family):
    """Curves whose slope is `scale * shape * x ** (-1 / elasticity)`."""

    def _elasticity(self) -> Floats:
        raise NotImplementedError

    def price(self, budget: float) -> float:
        power = self._elasticity()
        first = float(power[0])
        with np.errstate(divide="ignore"):
            # Logarithms of what each item costs at the price 1.
            costs = power * np.log(self.scale * self.shape)
            if self.size is not None:
                costs = costs + (1 - power) * np.log(self.size)
        if (power == first).all():
            return math.exp((_log_sum(costs) - math.log(budget)) / first)
        # The logarithm of the cost is convex in that of the price: from below Newton's steps never pass the root.
        price = 0.0
        for _ in range(_STEPS):
            at_price = costs - power * price
            total = _log_sum(at_price)
            share = np.exp(at_price - total)
            step = (total - math.log(budget)) / float((share * power).sum())
            price += step
            if abs(step) <= 1e-15 * max(abs(price), 1.0):
                break
        return math.exp(price)

    def amounts(self, price: float) -> Floats:
        slope = self.scale * self.shape / price
        out: Floats = (slope if self.size is None else slope / self.size) ** self._elasticity()
        return out


class Power(_Powers):
    """Losses `scale * x ** -shape`."""

    sense = "min"
    needs_some = True

    def _elasticity(self) -> Floats:
        return 1 / (self.shape + 1)

    def values(self, amounts: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.scale > 0, self.scale * amounts**-self.shape, 0.0)

    def slopes(self, amounts: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.scale > 0, self.scale * self.shape * amounts ** (-self.shape - 1), 0.0)


class Root(_Powers):
    """Values `scale * x ** shape` with a shape below 1."""

    def _elasticity(self) -> Floats:
        return 1 / (1 - self.shape)

    def values(self, amounts: Floats) -> Floats:
        return self.scale * amounts**self.shape

    def slopes(self, amounts: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            return np.where(self.scale > 0, self.scale * self.shape * amounts ** (self.shape - 1), 0.0)

    def refuse(self) -> None:
        super().refuse()
        if self.shape.max() >= 1:
            row = int(self.shape.argmax())
            raise InputError(
                f"curves at row {row}, column 1 is {self.shape[row]:g}; the shape of family='root' must be below 1, "
                "where returns diminish"
            )


def _log_sum(logarithms: Floats) -> float:
    top = float(logarithms.max())
    return top + math.log(float(np.exp(logarithms - top).sum()))


FAMILIES: dict[str, Any] = {
    "power": Power,
    "exponential": Exponential,
    "log": Logarithm,
    "root": Root,
    "saturating": Saturating,
}
