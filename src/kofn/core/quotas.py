"""Quotas over several columns at once: the columns, the cells that they part the pool into, and programmes over them.

Whether picks can be completed depends only on how many there are in each cell, a combination of one group of every
column; `kofn.core.witnesses` keeps one completion at hand.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints
from kofn.core.highs import milp


@dataclass(frozen=True)
class Column:
    """The quotas of one column: each item's group as a code into `names`, and the least and most of each code."""

    name: Any
    codes: Ints
    names: tuple[Any, ...]
    least: Ints
    most: Ints

    @property
    def cells(self) -> int:
        """How many groups there are."""
        return len(self.names)

    def label(self, code: int) -> str:
        """A group's quota as an error names it."""
        column = "" if self.name is None else f"[{self.name!r}]"
        return f"quotas{column}[{self.names[code]!r}]"

    def key(self, code: int) -> str:
        """A group's quota as a plan names it."""
        return f"quota {self.names[code]}" if self.name is None else f"quota {self.name}={self.names[code]}"

    def counts(self, items: Any) -> Ints:
        """How many of the items are in each group."""
        return np.bincount(self.codes[items], minlength=len(self.names))


def columns_of(groups: Any, quotas: Mapping[Any, Any]) -> tuple[Column, ...]:
    """The columns of groups and quotas as `kofn.core.checks.resolved` gives them."""
    if not isinstance(groups, Mapping):
        return (_column(None, groups, quotas),)
    return tuple(_column(name, groups[name], quotas[name]) for name in quotas)


def ends_of(groups: Any, quotas: Mapping[Any, Any]) -> dict[str, list[int | None]]:
    """The least and the most of each quota, by its name in a plan; None where there is no most."""
    if not isinstance(groups, Mapping):
        return {f"quota {group}": list(ends) for group, ends in quotas.items()}
    return {f"quota {column}={group}": list(ends) for column, asked in quotas.items() for group, ends in asked.items()}


def _column(name: Any, labels: NDArray[Any], quotas: Mapping[Any, tuple[int, int | None]]) -> Column:
    unique, codes = np.unique(labels, return_inverse=True)
    names = unique.tolist()
    code_of = {group: code for code, group in enumerate(names)}
    least, most = np.zeros(len(names), np.int64), np.full(len(names), len(labels), np.int64)
    for group, (low, high) in quotas.items():
        code = code_of[group]
        least[code] = low
        most[code] = len(labels) if high is None else min(high, len(labels))
    return Column(name, codes.astype(np.int64), tuple(names), least, most)


class Cells:
    """The cells of several columns: groups without a quota of their own count as one."""

    def __init__(self, columns: Sequence[Column]) -> None:
        n = len(columns[0].codes)
        self.columns = columns
        self.least: list[Ints] = []
        self.most: list[Ints] = []
        # Of each column, the groups that a quota names, and one for all others; and each one's code in the column.
        self.origin: list[Ints] = []
        merged = []
        for column in columns:
            free = (column.least == 0) & (column.most >= n)
            named = np.flatnonzero(~free)
            to = np.full(len(free), len(named))
            to[named] = np.arange(len(named))
            merged.append(to[column.codes])
            rest = np.full(int(free.any()), n)
            self.least.append(np.concatenate([column.least[named], 0 * rest]))
            self.most.append(np.concatenate([column.most[named], rest]))
            self.origin.append(named)
        sizes = [len(least) for least in self.least]
        # Of each column, what one group more adds to the number of a combination; none where that is beyond integers.
        self.strides = np.cumprod([1, *sizes[:0:-1]])[::-1] if math.prod(sizes) < 2**62 else None
        numbers = _ranked(merged) if self.strides is None else np.tensordot(self.strides, np.array(merged), 1)
        self.numbers, first, self.of = np.unique(numbers, return_index=True, return_inverse=True)
        self.count = len(self.numbers)
        # (columns, cells) the group of each cell.
        self.group = np.array([codes[first] for codes in merged])

    def margins(self, counts: Ints) -> list[Ints]:
        """How many there are in each group of each column."""
        return [
            np.bincount(group, weights=counts, minlength=len(least)).astype(np.int64)
            for group, least in zip(self.group, self.least, strict=True)
        ]

    def matrix(self, cells: Ints) -> Any:
        """(groups of all columns + 1, cells) the sums that are limited: each group's, and the total."""
        from scipy.sparse import csc_array

        offsets = np.cumsum([0, *(len(least) for least in self.least)])
        rows = np.concatenate(
            [group[cells] + offset for group, offset in zip(self.group, offsets[:-1], strict=True)]
            + [np.full(len(cells), offsets[-1])]
        )
        across = np.tile(np.arange(len(cells)), len(self.group) + 1)
        return csc_array((np.ones(len(rows)), (rows, across)), shape=(int(offsets[-1]) + 1, len(cells)))


def _ranked(codes: Sequence[Ints]) -> Ints:
    """One number a combination, where the product of the sizes is beyond whole numbers."""
    out = codes[0]
    for other in codes[1:]:
        _, out = np.unique(np.stack([out, other]), axis=1, return_inverse=True)
    return out


def whole_numbers(cost: Floats, matrix: Any, low: Any, high: Any, least: Any, most: Any) -> tuple[Ints, float] | None:
    """Whole numbers in [least, most] of the least cost, with matrix @ x in [low, high]; None where there are none."""
    from scipy.optimize import Bounds, LinearConstraint

    solution = milp(
        cost,
        integrality=np.ones(len(cost), np.int64),
        bounds=Bounds(least, most),
        constraints=LinearConstraint(matrix, low, high),
        options={"mip_rel_gap": 0.0},
    )
    return None if solution.x is None else (np.rint(solution.x).astype(np.int64), float(solution.fun))


def best_of_cells(ranked: Ints, cell_of: Ints, most: Ints) -> Ints:
    """Of items in the order of their rank, the first `most` of each cell."""
    cells = cell_of[ranked]
    order = np.argsort(cells, kind="stable")
    begins = np.flatnonzero(np.diff(cells[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(begins, np.diff(np.append(begins, len(order))))
    kept = order[rank < most[cells[order]]]
    return ranked[np.sort(kept)]


def exact_total(values: Any) -> float | int:
    """Exact sum: integers as Python integers, floats correctly rounded."""
    # Not through an array: a list that holds a number beyond 64 bits would become one of floats.
    terms = values if isinstance(values, list) else np.asarray(values).tolist()
    return sum(terms) if all(isinstance(term, int) for term in terms) else math.fsum(terms)


def clash(cells: Cells, k: int, supply: Ints, picked: Ints, *, exact: bool) -> str:
    """Which quotas cannot be met together, by the smallest repair: how far which of them must give way."""
    everything = np.flatnonzero(supply > 0)
    sums = cells.matrix(everything)
    groups = sums.shape[0] - 1
    from scipy.sparse import csc_array, eye_array, hstack

    empty = csc_array((1, groups))
    lower = _stacked(eye_array(groups), empty)
    matrix = hstack([sums, lower, -lower], format="csc")
    low = np.concatenate([*cells.least, [k if exact else 0]])
    high = np.concatenate([*cells.most, [k]])
    cost = np.concatenate([np.zeros(len(everything)), np.ones(2 * groups)])
    least = np.concatenate([picked[everything], np.zeros(2 * groups)])
    most = np.concatenate([np.minimum(supply[everything], k), np.full(2 * groups, k)])
    solution = whole_numbers(cost, matrix, low, high, least, most)
    assert solution is not None
    slack = solution[0][len(everything) :]
    changes = []
    offset = 0
    for column, origin, lows, highs in zip(cells.columns, cells.origin, cells.least, cells.most, strict=True):
        for code, group in enumerate(origin.tolist()):
            below, above = int(slack[offset + code]), int(slack[groups + offset + code])
            if below:
                changes.append(f"lower {column.label(group)} from at least {lows[code]} to {lows[code] - below}")
            if above:
                changes.append(f"raise {column.label(group)} from at most {highs[code]} to {highs[code] + above}")
        offset += len(lows)
    names = " and ".join(str(column.name) for column in cells.columns)
    picks = f"k={k} picks" if exact else "picks"
    return f"no {picks} meet the quotas of {names} together; " + ", ".join(changes)


def _stacked(*rows: Any) -> Any:
    from scipy.sparse import vstack

    return vstack(rows, format="csc")
