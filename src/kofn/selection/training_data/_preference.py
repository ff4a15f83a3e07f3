"""Which of several rows that repeat each other stays: the order in which rows are preferred, and groups' minima."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InputError

NearInOrder = Callable[[NDArray[np.int64], int], tuple[NDArray[np.int64], NDArray[np.float64]]]


class Duplicates(NamedTuple):
    """Which rows stay, which kept row each dropped row repeats, and how similar the two are.

    Attributes:
        keep: (n,) True where the row stays.
        of: (n,) the kept row that a dropped row repeats, -1 for a row that stays.
        similarity: (n,) of a dropped row and the one it repeats, NaN for a row that stays.
    """

    keep: NDArray[np.bool_]
    of: NDArray[np.int64]
    similarity: NDArray[np.float64]


class Preference(NamedTuple):
    """Which rows are preferred to which."""

    ranked: NDArray[np.int64]  # by score, cost and order
    include: NDArray[np.int64]
    open: NDArray[np.bool_]  # not excluded
    minima: list[tuple[NDArray[np.bool_], int]]  # which rows each group with a minimum has, and the minimum

    @classmethod
    def of(
        cls, n: int, scores: Any, include: Any, exclude: Any, costs: Any, groups: Any = None, quotas: Any = None
    ) -> Preference:
        keys = []
        for name, values, sign in (("costs", costs, 1), ("scores", scores, -1)):
            if values is not None:
                numbers = checks.vector(values, name)
                checks.same_length(n, "the rows", name, len(numbers))
                keys.append(sign * numbers.astype(np.float64))
        ranked = np.lexsort(keys) if keys else np.arange(n)
        must = np.empty(0, np.int64) if include is None else checks.positions(include, "include", n)
        open_ = np.ones(n, bool)
        if exclude is not None:
            open_[checks.positions(exclude, "exclude", n)] = False
        return cls(ranked, must, open_, _minima(n, groups, quotas))

    def order(self, first: NDArray[np.bool_]) -> tuple[NDArray[np.int64], int]:
        """Rows that are compared, from the most preferred on, and how many of them must stay."""
        rest = self.ranked[self.open[self.ranked] & ~np.isin(self.ranked, self.include)]
        rest = np.concatenate((rest[first[rest]], rest[~first[rest]]))
        return np.concatenate((self.include, rest)), len(self.include)

    def duplicates(self, near_in_order: NearInOrder) -> Duplicates:
        """Which rows stay, where `near_in_order` drops rows that are near one that is earlier in an order.

        Args:
            near_in_order: of rows in an order, of which so many of the first must stay: by row of the pool the kept row
                that it repeats or -1, and their similarity.
        """
        n = len(self.open)
        first = np.zeros(n, bool)
        while True:
            of, similarity = near_in_order(*self.order(first))
            keep = of < 0
            # A group that is promoted can leave another with too few, which is then promoted too.
            short = np.zeros(n, bool)
            for members, least in self.minima:
                members = members & self.open
                if (members & keep).sum() < least:
                    short |= members
            if not (short & ~first).any():
                return Duplicates(keep, of, similarity)
            first |= short


def _minima(n: int, groups: Any, quotas: Any) -> list[tuple[NDArray[np.bool_], int]]:
    """Which rows each group with a minimum has, and the minimum."""
    if quotas is None:
        return []
    if groups is None:
        raise InputError("quotas need groups, one group label an item")
    columns, limits = checks.resolved(checks.groups(groups), checks.quotas(quotas), None, None)
    if not isinstance(columns, Mapping):
        columns, limits = {"groups": columns}, {"groups": limits}
    out = []
    for name, labels in columns.items():
        checks.same_length(n, "the rows", name, len(labels))
        out += [(labels == group, least) for group, (least, _) in limits[name].items() if least]
    return out
