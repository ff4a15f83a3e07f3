"""Revenue of an assortment under the multinomial logit choice model."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.objective import Objective

# Entries of the table of candidates by prefixes that are looked at together.
_AT_ONCE = 1 << 20


class MNLRevenue(Objective):
    """f(S) = the largest expected revenue of any subset of S under the multinomial logit choice model.

    A customer who is offered T buys item i of T with probability w_i / (outside + sum of w over T), and R(T) is the sum
    of price times that probability. f(S) = max of R over the subsets of S: monotone, not submodular, but its returns
    diminish along descending price (Udwani, Lemma on MNL), which is its `order`. The best part of S is those items of
    it whose price exceeds f(S), hence a prefix by price.

    Args:
        scores: (n,) prices, or profit per sale, >= 0.
        weights: (n,) attraction of each item, exp(utility) > 0; default 1.
        outside: attraction of buying nothing, > 0.

    `gains` costs O(candidates x picks).
    """

    name = "mnl_revenue"
    n: int
    monotone = True
    calls = 0

    def __init__(self, scores: NDArray[Any], weights: NDArray[Any] | None = None, outside: float = 1.0) -> None:
        self.prices = np.asarray(scores, np.float64)
        if self.prices.ndim != 1:
            raise InputError(f"scores has shape {self.prices.shape}; give one price an item, shape (n,)")
        self.n = len(self.prices)
        self.attraction = np.ones(self.n) if weights is None else np.asarray(weights, np.float64)
        if self.attraction.shape != (self.n,):
            raise InputError(f"weights has shape {self.attraction.shape} for {self.n} prices; give one an item")
        for name, values in (("scores", self.prices), ("weights", self.attraction)):
            wrong = np.flatnonzero(~(values >= 0) | np.isinf(values))
            if len(wrong):
                raise InputError(
                    f"{name} at row {wrong[0]} is {values[wrong[0]]:g}; prices and attractions are finite and >= 0"
                )
        if not (outside > 0 and math.isfinite(outside)):
            raise InputError(f"outside={outside!r}: the attraction of buying nothing is a finite number > 0")
        self.outside = float(outside)
        self._picks: list[int] = []
        self._best = 0.0
        # Sums over the prefixes of the picks by descending price, the empty prefix first.
        self._earned = np.zeros(1)
        self._drawn = np.full(1, self.outside)

    @property
    def order(self) -> Ints:
        """The items by descending price: along this order returns diminish."""
        return np.argsort(-self.prices, kind="stable").astype(np.int64)

    def keeps(self, order: Ints) -> bool:
        """Whether returns provably diminish along this order: prices must not increase."""
        return bool((np.diff(self.prices[order]) <= 0).all())

    def gains(self, candidates: Ints) -> Floats:
        """Increase of the picks' revenue by each candidate."""
        candidates = np.asarray(candidates, np.int64)
        self.calls += len(candidates)
        out = np.zeros(len(candidates))
        step = max(1, _AT_ONCE // len(self._earned))
        for low in range(0, len(candidates), step):
            part = candidates[low : low + step]
            pull = self.attraction[part][:, None]
            # Every prefix with the candidate is a part of the new set, and its best part is one of them.
            earned = (self._earned + self.prices[part][:, None] * pull) / (self._drawn + pull)
            out[low : low + step] = np.maximum(earned.max(axis=1) - self._best, 0.0)
        if self._picks:
            out[np.isin(candidates, self._picks)] = 0.0
        return out

    def add(self, item: int) -> float:
        """Commit a pick; returns what it adds."""
        self._picks.append(int(item))
        before = self._best
        self._earned, self._drawn = self._prefixes(np.array(self._picks, np.int64))
        self._best = max(before, float((self._earned / self._drawn).max()))
        return self._best - before

    def value(self, indices: Ints) -> float:
        """The largest revenue of any subset of the set."""
        earned, drawn = self._prefixes(np.asarray(indices, np.int64))
        return float((earned / drawn).max())

    def offered(self, indices: Ints) -> Ints:
        """The subset of largest revenue: the items to offer."""
        indices = np.asarray(indices, np.int64)
        return indices[self.prices[indices] > self.value(indices)]

    def _prefixes(self, indices: Ints) -> tuple[Floats, Floats]:
        ranked = indices[np.lexsort((indices, -self.prices[indices]))]
        pull = self.attraction[ranked]
        earned = np.concatenate([[0.0], np.cumsum(self.prices[ranked] * pull)])
        return earned, self.outside + np.concatenate([[0.0], np.cumsum(pull)])
