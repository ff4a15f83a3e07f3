"""Distances between rows on a device, from matrix products in blocks, with a proven error.

Squared distances are |x|^2 + |y|^2 - 2xy of points moved to their mean. No block says what a distance is, but what it
is at least and at most: whoever decides by it looks at what is in doubt in exact arithmetic, on the processor. Let u
be the unit roundoff of the products, and v_i the length of point i. A product of d features is off by at most
d u v_i v_j in whatever order it is summed (Higham, "Accuracy and stability of numerical algorithms", 3.5), the rounded
coordinates move a squared distance by at most 4 u (v_i^2 + v_j^2), the two sums, the rounded squared lengths and a root
by 9 u (v_i^2 + v_j^2): in all less than (d + 20) u (v_i^2 + v_j^2), which is folded into the lengths, so that bounds
take no more work than distances.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.core.devices import Room, wait_for

LOW, HIGH = -1, 1
# Pairs of a block: on a GPU a few of them stay in its cache, on a processor in that of a core.
_PAIRS_ON_A_GPU, _PAIRS_ON_THE_PROCESSOR, _FEWEST_PAIRS = 1 << 23, 1 << 19, 1 << 14
# Bytes that a pair takes while its block is worked on: products, bounds and terms in float64, and room to add them up.
_BYTES_A_PAIR = 64
# Rows brought to the device at a time.
_ROWS_AT_ONCE = 1 << 16
# Products below this may be flushed to zero.
_LEAST = {torch.float32: 2.0**-126, torch.float64: 2.0**-1022}


@dataclass(frozen=True)
class CostRule:
    """From squared distances between points to costs, which rise with them.

    Args:
        squared: whether the cost is the squared distance; else its root.
        rate: above 0 the cost is 1 - exp(-rate * squared distance).
    """

    squared: bool
    rate: float = 0.0

    def costs(self, squares: Any, side: int) -> Any:
        """Bounds on costs in the place of bounds on squared distances, from below (side LOW) or above (HIGH)."""
        if self.rate:
            slack = 16 * unit_roundoff(squares.dtype)
            return squares.mul_(-self.rate).expm1_().neg_().add_(side * slack)
        return squares if self.squared else squares.sqrt_()


def unit_roundoff(kind: Any) -> float:
    """Half the distance from 1 to the next number of a dtype."""
    return float(torch.finfo(kind).eps) / 2


def outward(values: Any, side: int, kind: Any) -> Any:
    """Float64 numbers in a dtype, rounded down (side LOW) or up (HIGH) where it cannot hold them; 0 stays 0."""
    step = 2 * unit_roundoff(kind) * values.abs() + _LEAST[kind] * (values != 0)
    return (values + side * step).to(kind)


class Points:
    """Rows on a device, as points around their mean.

    Args:
        rows: (n, d), float32 or float64, the dtype of the products too.
        scale: what each row is multiplied by in float64, (n,); empty where that is 1.
        device: torch's.
        relative: how far, relative to the squared distance, those may be off which these bounds are to hold for.
        rounded: whether those come from scaled rows that were rounded to the dtype of `rows` before anything else.

    Attributes:
        pairs: products taken so far.
    """

    def __init__(
        self, rows: NDArray[Any], scale: Floats, device: Any, *, relative: float = 0.0, rounded: bool = False
    ) -> None:
        self.n, self.d = rows.shape
        self.device, self.pairs, self._relative = device, 0, relative
        self._rounded = rounded
        self.kind = torch.float32 if rows.dtype == np.float32 else torch.float64
        self._scale = torch.from_numpy(scale).to(device) if len(scale) else None
        # Products take the rows around their mean; float64 takes them as they are, and moves them anew.
        self._given = torch.empty((self.n, self.d), dtype=self.kind, device=device)
        runs = [slice(low, min(low + _ROWS_AT_ONCE, self.n)) for low in range(0, self.n, _ROWS_AT_ONCE)]
        total = torch.zeros(self.d, dtype=torch.float64, device=device)
        self._largest = 0.0
        for run in runs:
            self._given[run] = _tensor(rows[run], device)
            points = self._scaled(run)
            total += points.sum(dim=0)
            self._largest = max(self._largest, float((points * points).sum(dim=1).max().sqrt()))
        self._centre = total / self.n
        self.rows = torch.empty_like(self._given) if self.kind == torch.float32 else self._given
        self._sizes = torch.empty(self.n, dtype=torch.float64, device=device)
        for run in runs:
            moved = self._scaled(run) - self._centre
            self.rows[run] = moved.to(self.kind)
            self._sizes[run] = (moved * moved).sum(dim=1)
        self.lengths = self._bounds(self.kind)

    @staticmethod
    def bytes_of(rows: NDArray[Any]) -> int:
        """What `Points` of these rows hold on the device."""
        (n, d), wide = rows.shape, rows.dtype != np.float32
        return int(n * (d * 8 + 8 + 24 * (1 if wide else 2)) + min(n, _ROWS_AT_ONCE) * d * 24)

    def _scaled(self, run: Any) -> Any:
        points = self._given[run].to(torch.float64)
        return points if self._scale is None else points * self._scale[run][:, None]

    def _bounds(self, kind: Any) -> tuple[Any, Any, Any]:
        """Squared lengths that make products into squared distances: bounds from below, as they are, from above."""
        u = unit_roundoff(kind)
        # Before they were moved coordinates were rounded too, by the length that their points had then.
        moved = (self.d / 2 + 8) * 2.0**-52 * self._largest + (u * self._largest if self._rounded else 0.0)
        lengths = self._sizes.sqrt() + moved
        summed = self.d * u / (1 - self.d * u) if self.d * u < 1 else float("inf")
        share = 1.05 * (summed + 20 * u + 2 * self._relative + 2 * (self.d + 8) * 2.0**-53)
        slack = share * lengths**2 + 4.2 * moved * lengths + 2.1 * moved**2 + self.d * _LEAST[kind]
        return (self._sizes - slack).to(kind), self._sizes.to(kind), (self._sizes + slack).to(kind)

    def wide(self) -> Points:
        """The same points with products in float64."""
        return self if self.kind == torch.float64 else _Wide(self)

    def coordinates(self, run: Any) -> Any:
        """Coordinates of a run of rows, or of listed ones, in the dtype of the products."""
        return self.rows[run]

    def product(self, left: Any, right: Any) -> Any:
        """-2xy of rows and rows; to be taken inside `kofn.core.devices.full_precision`."""
        product = self.coordinates(left) @ self.coordinates(right).T
        self.pairs += product.numel()
        return product.mul_(-2.0)

    def squares(self, left: Any, right: Any, side: int, product: Any = None) -> Any:
        """Bounds (left, right) on squared distances; `product` is -2xy where it is known, and is left as it is."""
        lengths = self.lengths[1 + side]
        product = self.product(left, right) if product is None else product
        return (product + lengths[left][:, None]).add_(lengths[right][None]).clamp_min_(0.0)

    def index(self, items: NDArray[Any]) -> Any:
        """Row numbers, or numbers of rows, on the device."""
        return _tensor(items, self.device)


class _Wide(Points):
    """The points of a `Points` in float32 with products in float64."""

    def __init__(self, points: Points) -> None:
        self.n, self.d, self.device, self.pairs, self._relative = points.n, points.d, points.device, 0, 0.0
        self._rounded = False
        self.kind, self._scale, self._given, self._centre = torch.float64, points._scale, points._given, points._centre
        self._sizes, self._largest = points._sizes, points._largest
        self.lengths = self._bounds(torch.float64)

    def coordinates(self, run: Any) -> Any:
        return self._scaled(run) - self._centre


def _tensor(array: NDArray[Any], device: Any) -> Any:
    """An array on the device; on the processor in memory of its own, which torch may write to."""
    return torch.tensor(array, device=device)


@dataclass(frozen=True)
class Blocks:
    """How many rows and columns of pairs are worked on at once."""

    pairs: int
    n: int

    @classmethod
    def within(cls, room: Room, occupied: int, n: int, device: Any, work: str) -> Blocks:
        """The blocks for n rows that fit beside `occupied` bytes.

        Raises:
            InputError: not even small ones fit.
        """
        most = _PAIRS_ON_A_GPU if device.type == "cuda" else _PAIRS_ON_THE_PROCESSOR
        least = min(_FEWEST_PAIRS, n * n)
        left = room.besides(occupied, least * _BYTES_A_PAIR, work)
        return cls(max(least, min(most, left // _BYTES_A_PAIR)), n)

    def runs(self, rows: int, columns: int) -> Iterator[tuple[slice, slice]]:
        """Blocks that cover rows x columns, all columns of a run of rows one after another."""
        wide = max(1, min(columns, max(self.pairs // max(1, rows), int(self.pairs**0.5))))
        tall = max(1, self.pairs // wide)
        for top in range(0, rows, tall):
            for left in range(0, columns, wide):
                yield slice(top, min(top + tall, rows)), slice(left, min(left + wide, columns))


@dataclass(frozen=True)
class Served:
    """Items whose costs fall, on the device: which (None: all rows), from what to what, and how much they count.

    `new` is None where costs may fall to anything; `weights` is None where all are 1.
    """

    items: Any
    old: Any
    new: Any
    weights: Any

    def bounds(self, side: int, kind: Any) -> tuple[Any, Any, Any]:
        """Old and new costs and weights in a dtype, for savings from below (side LOW) or above (HIGH)."""
        new = None if self.new is None else outward(self.new, -side, kind)
        weights = None if self.weights is None else outward(self.weights, side, kind)
        return outward(self.old, side, kind), new, weights


class Changes:
    """The items whose costs fell with each pick, on the device, as far back as following them is worth it.

    Args:
        n: items; changes beyond half as many are dropped, since to look at all items is less work then.
        device: torch's.

    Attributes:
        end: how many changes there were so far.
    """

    def __init__(self, n: int, device: Any) -> None:
        self._room, self._kept, self.end = n // 2, 0, 0
        self._items = torch.empty(2 * self._room, dtype=torch.int64, device=device)
        self._old, self._new = (torch.empty(2 * self._room, dtype=torch.float64, device=device) for _ in range(2))
        # The number of changes there were when so many picks had been made.
        self._starts = torch.zeros(n + 1, dtype=torch.int64, device=device)

    def append(self, picks: int, items: Any, old: Any, new: Any) -> None:
        """Take in what the last of so many picks changed."""
        count = len(items)
        if count > self._room:
            self._kept = 0
        else:
            if self._kept + count > 2 * self._room:
                for kept in (self._items, self._old, self._new):
                    kept[: self._room] = kept[self._kept - self._room : self._kept].clone()
                self._kept = self._room
            for kept, more in ((self._items, items), (self._old, old), (self._new, new)):
                kept[self._kept : self._kept + count] = more
            self._kept += count
        self.end += count
        self._starts[picks] = self.end

    def start_of(self, picks: Any) -> Any:
        """The number of the first change after so many picks; -1 where it is not kept, or picks are -1."""
        start = self._starts[picks.clamp_min(0)]
        return torch.where((picks < 0) | (start < self.end - self._kept), -1, start)

    def since(self, first: int) -> tuple[Any, Any, Any]:
        """Items, old and new costs of the changes from this one on."""
        run = slice(self._kept - (self.end - first), self._kept)
        return self._items[run], self._old[run], self._new[run]


def savings(
    points: Points,
    cost_rule: CostRule,
    candidates: Any,
    served: Served,
    blocks: Blocks,
    sides: tuple[int, ...],
    *,
    since: Any = None,
    poll: Callable[[], None] | None = None,
) -> list[Any]:
    """Bounds on sum_i w_i (old_i - min(max(cost_ij, new_i), old_i)) for candidates j, one float64 vector a side.

    Args:
        points: the rows that are candidates and items.
        cost_rule: from squared distances to costs.
        candidates: row numbers; None for all rows.
        served: the items.
        blocks: how much is worked on at once.
        sides: LOW, HIGH, or both.
        since: for each candidate the first of the served that counts; None where all do.
        poll: called between blocks; it may raise.
    """
    count = points.n if candidates is None else len(candidates)
    length = len(served.old)
    sums = [torch.zeros(count, dtype=torch.float64, device=points.device) for _ in sides]
    bounds = [served.bounds(side, points.kind) for side in sides]
    position = torch.arange(length, device=points.device)
    for rows, columns in blocks.runs(count, length):
        if poll is not None and (rows.start or columns.start):
            wait_for(points.device)
            poll()
        left, right = listed(rows, candidates), listed(columns, served.items)
        product = points.product(left, right)
        for total, side, (old, new, weights) in zip(sums, sides, bounds, strict=True):
            # The least that costs can be saves the most.
            cost = cost_rule.costs(points.squares(left, right, -side, product), -side)
            if new is not None:
                torch.maximum(cost, new[columns][None], out=cost)
            saved = torch.sub(old[columns][None], cost, out=cost).clamp_min_(0.0)
            if weights is not None:
                saved.mul_(weights[columns][None])
            if since is not None:
                saved.masked_fill_(position[columns][None] < since[rows][:, None], 0.0)
            total[rows] += saved.sum(dim=1, dtype=torch.float64)
    slack = 8 * unit_roundoff(points.kind) + (length + 8) * 2.0**-52
    return [total.mul_(1 + side * slack) for total, side in zip(sums, sides, strict=True)]


def listed(run: slice, rows: Any) -> Any:
    """A part of listed rows; of all rows, where None is listed, the run itself."""
    return run if rows is None else rows[run]
