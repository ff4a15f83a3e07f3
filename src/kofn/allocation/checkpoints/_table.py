"""What every tensor costs and loses at each level, as one knapsack over items."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.allocation.checkpoints._measure import Curve, left_of
from kofn.allocation.checkpoints._plan import BITS
from kofn.allocation.checkpoints._weights import Weight
from kofn.allocation.knapsack._multiple_choice_knapsack import multiple_choice_knapsack
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.plans import Allocation

_POINTS = 13


@dataclass(frozen=True)
class Table:
    """What every tensor costs and loses at each level, and which of them are one item.

    Attributes:
        names: of the tensors.
        sizes: (n,) weights.
        plain: (n, L) bits, or weights left, at each level; whole numbers.
        with_scales: (n, L) bits with those of scales.
        costs: (n, L) the one of them that counts.
        errors: (n, L) errors.
        allowed: (n, L) the same, infinite at a level that the tensor may not have.
        other: (n, L) errors of the other kind of numbers.
        item_of: (n,) the item of each tensor.
        levels: (L,) what a level is.
        offered: those of them that a tensor without a level of its own may have.
        fixed: positions of the tensors with levels of their own.
        unit: the mean of costs of one a weight: 1 bit, or 100 percent left.
    """

    names: frozenset[str]
    keys: list[str]
    sizes: Ints
    plain: Ints
    with_scales: Ints
    costs: Ints
    errors: Floats
    allowed: Floats
    other: Floats
    item_of: Ints
    levels: Sequence[int]
    offered: Sequence[int]
    fixed: frozenset[int]
    unit: int

    @classmethod
    def of(
        cls,
        weights: Sequence[Weight],
        curves: Sequence[Curve],
        criterion: str,
        offered: Sequence[int],
        items: Sequence[Sequence[int]],
        own: Mapping[int, int],
        kind: str,
        symmetric: bool,
        count_scales: bool,
    ) -> Table:
        """The table of curves, measured at the levels of `levels_of(offered, own)`."""
        levels = levels_of(offered, own)
        sizes = np.array([weight.size for weight in weights])
        amounts = np.asarray(levels)
        if kind == BITS:
            plain = sizes[:, None] * amounts
            points = np.zeros_like(amounts) if symmetric else amounts
            scales = np.array([[weight.scales * (weight.scale_bits + point) for point in points] for weight in weights])
        else:
            plain = np.array([[left_of(weight.size, percent) for percent in levels] for weight in weights])
            scales = np.zeros_like(plain)
        signals = np.array([curve.signal for curve in curves])
        whole = np.where(signals > 0, signals, 1.0)[:, None] if criterion == "relative" else 1.0
        both = np.stack([curve.errors for curve in curves])
        errors, other = both[:, int(symmetric)] / whole, both[:, 1 - int(symmetric)] / whole
        item_of = np.empty(len(weights), np.int64)
        for item, members in enumerate(items):
            item_of[list(members)] = item
            _refuse_clash(weights, members, own)
        allowed = errors.copy()
        allowed[:, ~np.isin(amounts, offered)] = np.inf
        for members in items:
            for level in {own[i] for i in members if i in own}:
                # Those that are tied to it follow.
                allowed[list(members)] = np.where(amounts == level, errors[list(members)], np.inf)
        return cls(
            names=frozenset(weight.name for weight in weights),
            keys=[weights[members[0]].name if len(members) == 1 else _joined(weights, members) for members in items],
            sizes=sizes,
            plain=plain,
            with_scales=plain + scales,
            costs=plain + scales if count_scales else plain,
            errors=errors,
            allowed=allowed,
            other=other,
            item_of=item_of,
            levels=levels,
            offered=offered,
            fixed=frozenset(own),
            unit=1 if kind == BITS else 100,
        )

    @property
    def weights(self) -> int:
        """How many weights there are."""
        return int(self.sizes.sum())

    def _of_items(self, values: NDArray[Any]) -> NDArray[Any]:
        out = np.zeros((len(self.keys), values.shape[1]), values.dtype)
        np.add.at(out, self.item_of, values)
        return out

    def _bounds(self) -> tuple[int, int]:
        """The least and the most that all tensors can cost."""
        able = np.isfinite(self._of_items(self.allowed))
        costs = self._of_items(self.costs)
        top = int(costs.max()) + 1
        least = np.where(able, costs, top).min(axis=1)
        return int(least.sum()), int(np.where(able, costs, 0).max(axis=1).sum())

    @property
    def least(self) -> float:
        """The least mean."""
        return self.unit * self._bounds()[0] / self.weights

    @property
    def most(self) -> float:
        """The largest mean that costs something."""
        return self.unit * self._bounds()[1] / self.weights

    def solve(self, mean: float) -> Allocation:
        """The best levels of all items at this mean."""
        budget = math.floor(Fraction(repr(float(mean))) * self.weights / self.unit)
        return multiple_choice_knapsack(
            self._of_items(self.allowed), budget=max(budget, self._bounds()[0]), levels=self._of_items(self.costs)
        )

    def best(self, mean: float) -> float:
        """The least error at this mean."""
        return float(self.solve(mean).value)

    def columns(self, allocation: Allocation) -> list[int]:
        """The column of each tensor."""
        chosen_columns = np.asarray(allocation.info["level"])
        return [int(column) for column in chosen_columns[self.item_of]]

    def mean(self, columns: Sequence[int], *, scales: bool) -> float:
        """The mean that these columns come to."""
        rows = np.arange(len(columns))
        costs = self.with_scales if scales else self.plain
        return self.unit * int(costs[rows, list(columns)].sum()) / self.weights

    def other_error(self, columns: Sequence[int]) -> float:
        """The error of the other kind of numbers at these columns."""
        return math.fsum(self.other[np.arange(len(columns)), list(columns)].tolist())

    def uniform(self, mean: float) -> float:
        """The error of one level for all that may have it, at this mean; between two levels a share of tensors each."""
        costs, errors = [], []
        for column in np.flatnonzero(np.isin(self.levels, self.offered)).tolist():
            own = np.full(len(self.sizes), column)
            for position in self.fixed:
                own[position] = int(np.flatnonzero(np.isfinite(self.allowed[position]))[0])
            rows = np.arange(len(own))
            costs.append(self.unit * int(self.costs[rows, own].sum()) / self.weights)
            errors.append(math.fsum(self.errors[rows, own].tolist()))
        return float(np.interp(mean, costs, errors))

    def frontier(self, kind: str) -> tuple[tuple[float, float, float], ...]:
        """(mean, least error, uniform error) over all means that are possible."""
        means = np.linspace(self.least, self.most, _POINTS)
        return tuple((as_asked(float(mean), kind), self.best(float(mean)), self.uniform(float(mean))) for mean in means)


def levels_of(offered: Sequence[int], own: Mapping[int, int]) -> tuple[int, ...]:
    """The levels to measure: those that are offered, and those of tensors that have one of their own.

    >>> levels_of((2, 4), {7: 8})
    (2, 4, 8)
    """
    return tuple(sorted({*offered, *own.values()}))


def as_asked(mean: float, kind: str) -> float:
    """A mean as the caller writes it: bits, or the share of weights left out."""
    return mean if kind == BITS else 1 - mean / 100


def _joined(weights: Sequence[Weight], members: Sequence[int]) -> str:
    return f"{weights[members[0]].name} and {len(members) - 1} more"


def _refuse_clash(weights: Sequence[Weight], members: Sequence[int], own: Mapping[int, int]) -> None:
    """Refuse tied tensors that are fixed to several levels; those not fixed follow the others."""
    levels = {own[i]: i for i in members if i in own}
    if len(levels) > 1:
        (a, i), (b, j) = list(levels.items())[:2]
        raise InputError(
            f"{weights[i].name!r} is fixed to {a} and {weights[j].name!r}, tied to it, to {b}; give both the same"
        )
