"""Families of curves with diminishing returns: the amount at a price in closed form, and the price of a budget."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Protocol, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.core.checks import InputError

F_co = TypeVar("F_co", bound="Family", covariant=True)
T = TypeVar("T")

# Steps of Newton's method, which doubles the digits in each.
_STEPS, _SMALL_STEP = 100, 1e-7


class Each(Protocol[F_co]):
    """`[work(curves, free) ...]` for blocks of items: their curves, and 1 for each item that counts, 0 for others."""

    def __call__(self, work: Callable[[F_co, Floats], T]) -> list[T]: ...


@dataclass(frozen=True)
class Family(ABC):
    """n curves `scale`, `shape` over amounts that cost `size` a unit each (None: 1)."""

    scale: Floats
    shape: Floats
    size: Floats | None

    sense = "max"
    # Whether nothing is infinitely bad, so that every item gets something.
    needs_some = False

    def part(self, kept: NDArray[np.bool_] | slice) -> Self:
        """Those of the items; of a slice, views of them."""
        return replace(
            self,
            scale=self.scale[kept],
            shape=self.shape[kept],
            size=None if self.size is None else self.size[kept],
        )

    def weighed(self, amounts: Floats) -> Floats:
        """What amounts cost."""
        return amounts if self.size is None else amounts * self.size

    def price(self, budget: float) -> float:
        """The price at which the items, without bounds, take this budget."""
        return self.price_of(lambda work: [work(self, np.ones(len(self.scale)))], budget)

    @classmethod
    @abstractmethod
    def price_of(cls, each: Each[Self], budget: float, near: float = 1.0) -> float:
        """The same of those items of blocks that have the weight 1, not 0; `near` is a price that may be near it."""

    @abstractmethod
    def amounts(self, price: float) -> Floats:
        """What each item takes at a price, below 0 where it would rather give."""

    @abstractmethod
    def values(self, amounts: Floats) -> Floats:
        """The curves there."""

    @abstractmethod
    def slopes(self, amounts: Floats, values: Floats | None = None) -> Floats:
        """What a little more brings there, a unit of amount; `values` are the curves there, where they are known."""

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

    @classmethod
    def price_of(cls, each: Each[Self], budget: float, near: float = 1.0) -> float:  # noqa: ARG003 (others need it)
        sums = each(lambda block, free: (float(block.scale @ free), float(block.weighed(block.shape) @ free)))
        return math.fsum(scale for scale, _ in sums) / (budget + math.fsum(shape for _, shape in sums))

    def amounts(self, price: float) -> Floats:
        reach = self.scale / price
        with np.errstate(divide="ignore", invalid="ignore"):
            return (reach if self.size is None else reach / self.size) - self.shape

    def values(self, amounts: Floats) -> Floats:
        return self.scale * np.log1p(amounts / self.shape)

    def slopes(self, amounts: Floats, values: Floats | None = None) -> Floats:  # noqa: ARG002 (others need it)
        return self.scale / (self.shape + amounts)


class Saturating(Family):
    """Values `scale * (1 - exp(-x / shape))`."""

    def _starts(self) -> Floats:
        """(n,) logarithms of the price at which each item begins to take."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(self.scale / self.weighed(self.shape))

    @classmethod
    def price_of(cls, each: Each[Self], budget: float, near: float = 1.0) -> float:  # noqa: ARG003 (others need it)
        def sums(block: Self, free: Floats) -> tuple[float, float]:
            costs = block.weighed(block.shape) * free
            return float(costs @ np.where(free > 0, block._starts(), 0.0)), float(costs.sum())

        per_block = each(sums)
        total = math.fsum(cost for _, cost in per_block)
        return math.exp(max(min((math.fsum(start for start, _ in per_block) - budget) / total, 700.0), -745.0))

    def amounts(self, price: float) -> Floats:
        with np.errstate(invalid="ignore"):
            return self.shape * (self._starts() - math.log(price))

    def values(self, amounts: Floats) -> Floats:
        return -self.scale * np.expm1(-amounts / self.shape)

    def slopes(self, amounts: Floats, values: Floats | None = None) -> Floats:  # noqa: ARG002 (others need it)
        return self.scale / self.shape * np.exp(-amounts / self.shape)


class Exponential(Saturating):
    """Losses `scale * exp(-x / shape)`."""

    sense = "min"

    def values(self, amounts: Floats) -> Floats:
        return self.scale * np.exp(-amounts / self.shape)

    def slopes(self, amounts: Floats, values: Floats | None = None) -> Floats:
        return (self.values(amounts) if values is None else values) / self.shape


class _Powers(Family):
    """Curves whose slope is `scale * shape * x ** (-1 / elasticity)`."""

    def _elasticity(self) -> Floats:
        raise NotImplementedError

    @classmethod
    def price_of(cls, each: Each[Self], budget: float, near: float = 1.0) -> float:
        ends = each(lambda block, _: (float(block.shape.min()), float(block.shape.max())))
        alike = min(low for low, _ in ends) == max(high for _, high in ends)
        # The logarithm of the cost is convex in that of the price: from below Newton's steps never pass the root.
        price, before = math.log(near), math.inf
        for _ in range(_STEPS):
            total, power = cls._costs(each, price)
            step = (total - math.log(budget)) / power
            price += step
            # After a step so small the next one is the last: what follows is the rounding of the sums.
            if alike or before <= _SMALL_STEP or abs(step) <= 1e-15 * max(abs(price), 1.0):
                break
            before = abs(step)
        return math.exp(price)

    @classmethod
    def _costs(cls, each: Each[Self], price: float) -> tuple[float, float]:
        """At the logarithm of a price, that of what all cost, and the mean elasticity, by cost."""

        def sums(block: Self, free: Floats) -> tuple[float, float, float]:
            power = block._elasticity()
            costs = np.where(free > 0, block._costs_at_1(power) - power * price, -np.inf)
            top = float(costs.max())
            # A block in which no item costs anything has no top to be measured from.
            shares = np.exp(costs - top) if top > -math.inf else np.zeros(len(costs))
            return top, float(shares.sum()), float(shares @ power)

        per_block = each(sums)
        highest = max(top for top, _, _ in per_block)
        kept = [math.exp(top - highest) for top, _, _ in per_block]
        cost = math.fsum(share * part for share, (_, part, _) in zip(kept, per_block, strict=True))
        powers = math.fsum(share * part for share, (_, _, part) in zip(kept, per_block, strict=True))
        return highest + math.log(cost), powers / cost

    def _costs_at_1(self, power: Floats) -> Floats:
        """(n,) logarithms of what each item costs at the price 1."""
        with np.errstate(divide="ignore", invalid="ignore"):
            costs: Floats = power * np.log(self.scale * self.shape)
            return costs if self.size is None else costs + (1 - power) * np.log(self.size)

    def amounts(self, price: float) -> Floats:
        slope = self.scale * self.shape / price
        with np.errstate(divide="ignore", invalid="ignore"):
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

    def slopes(self, amounts: Floats, values: Floats | None = None) -> Floats:
        values = self.values(amounts) if values is None else values
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.scale > 0, self.shape * values / amounts, 0.0)


class Root(_Powers):
    """Values `scale * x ** shape` with a shape below 1."""

    def _elasticity(self) -> Floats:
        return 1 / (1 - self.shape)

    def values(self, amounts: Floats) -> Floats:
        return self.scale * amounts**self.shape

    def slopes(self, amounts: Floats, values: Floats | None = None) -> Floats:
        values = self.values(amounts) if values is None else values
        with np.errstate(divide="ignore", invalid="ignore"):
            slopes = np.where(amounts > 0, self.shape * values / amounts, np.inf)
        return np.where(self.scale > 0, slopes, 0.0)

    def refuse(self) -> None:
        super().refuse()
        if self.shape.max() >= 1:
            row = int(self.shape.argmax())
            raise InputError(
                f"curves at row {row}, column 1 is {self.shape[row]:g}; the shape of family='root' must be below 1, "
                "where returns diminish"
            )


FAMILIES: dict[str, Any] = {
    "power": Power,
    "exponential": Exponential,
    "log": Logarithm,
    "root": Root,
    "saturating": Saturating,
}
