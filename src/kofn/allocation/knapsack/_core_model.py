"""One level an item under several linear rows: what is asked, and what is answered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints


@dataclass(frozen=True)
class Row:
    """What the chosen levels may add up to: `table` (n, L), at least `low`, at most `high`; `slack` is its rounding."""

    name: str
    table: NDArray[Any]
    low: float
    high: float

    @property
    def whole(self) -> bool:
        """Whether sums are exact."""
        return self.table.dtype.kind in "iu"

    def total(self, level: Ints) -> float | int:
        """What these levels add up to."""
        chosen = self.table[np.arange(len(level)), level]
        return int(chosen.sum()) if self.whole else math.fsum(chosen.tolist())

    def excess(self, level: Ints) -> float:
        """By how much these levels break the row; 0 where they keep it, to the rounding of a sum of floats."""
        total = self.total(level)
        slack = 0.0 if self.whole else len(level) * float(np.finfo(np.float64).eps) * abs(self.high)
        return max(total - self.high - slack if self.high < math.inf else 0, self.low - total, 0)


@dataclass(frozen=True)
class Pair:
    """Of two items, if `first` is above zero then `second` is (`together`), or not both are."""

    first: int
    second: int
    together: bool


@dataclass(frozen=True)
class Model:
    """What is asked: losses (n, L), infinite where a level is forbidden, rows, and pairs of items above zero."""

    loss: Floats
    rows: Sequence[Row]
    above: NDArray[np.bool_]
    pairs: Sequence[Pair] = ()

    def broken(self, level: Ints) -> bool:
        """Whether these levels break anything."""
        up = self.above[np.arange(len(level)), level]
        wrong = any(up[p.first] and up[p.second] != p.together for p in self.pairs)
        return wrong or any(row.excess(level) > 0 for row in self.rows)


@dataclass(frozen=True)
class Answer:
    """The best levels, None where there are none, a lower bound on the loss, and the price of each row."""

    level: Ints | None
    lower: float
    prices: Floats
    proved: bool
    info: dict[str, Any]
