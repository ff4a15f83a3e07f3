"""Farthest first on a device: bounds on distances from products there, exact distances where they decide."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kofn.core.arrays import Ints, Mask
from kofn.core.devices import full_precision, room_on
from kofn.engines.torch_kernels import HIGH, LOW, Blocks, Points, outward
from kofn.objectives.kcenter import distances_of_pairs, distances_to
from kofn.objectives.similarity import geometry

# Items that are settled together at first.
_BATCH = 256
# Bytes that each row takes on the device beside its coordinates.
_BYTES_A_ROW = 48


class DeviceCover:
    """The answers of the plain loop, bit for bit: each item's distance to its nearest pick is bounded on the device.

    The item that may be farthest, and those that the bounds do not tell from it, are settled: of the picks that may be
    nearest to such an item since it was settled last, the exact distances are taken on the processor.
    """

    def __init__(self, X: NDArray[Any], metric: str, device: Any) -> None:
        n = len(X)
        self.X, self.metric, self._taken = X, metric, 0
        space = geometry(X, metric)
        occupied = Points.bytes_of(space.rows) + n * _BYTES_A_ROW
        self._blocks = Blocks.within(room_on(device, None), occupied, n, device, "farthest first")
        self._points = Points(space.rows, space.scale, device)
        kind = self._points.kind
        self._low, self._high = (torch.full((n,), torch.inf, dtype=kind, device=device) for _ in range(2))
        self._settled = torch.zeros(n, dtype=torch.bool, device=device)
        # Of each item the exact distance to the nearest of so many first picks.
        self._near, self._seen = np.full(n, np.inf), np.zeros(n, np.int64)
        self._picks: list[int] = []
        # From squared distances between points to distances.
        self._unit = 0.5 if metric == "cosine" else space.unit

    @property
    def evals(self) -> int:
        """Distances looked at so far."""
        return self._taken + self._points.pairs

    def central(self, open_items: Mask) -> int:
        """The open item nearest to the pool's mean."""
        self._taken += len(self.X)
        middle = distances_to(self.X, self.X.mean(axis=0, dtype=np.float64), self.metric)
        return int(np.argmin(np.where(open_items, middle, np.inf)))

    def add(self, item: int) -> float:
        """Commit a pick; returns how far it stood from the picks before it, NaN for the first."""
        gain = np.nan
        if self._picks:
            self._settle(np.array([item]))
            gain = float(self._near[item])
        self._picks.append(item)
        pick = slice(item, item + 1)
        with full_precision():
            product = self._points.product(pick, slice(None))
        low = self._points.squares(pick, slice(None), LOW, product)[0]
        high = self._points.squares(pick, slice(None), HIGH, product)[0]
        # What was exact stays so where the pick is no nearer.
        self._settled &= low >= self._high
        torch.minimum(self._low, low, out=self._low)
        torch.minimum(self._high, high, out=self._high)
        return gain

    def farthest(self, open_items: Mask) -> int:
        """The open item farthest from its nearest pick, the lowest index in a tie."""
        return self._farthest(self._points.index(open_items))

    def _farthest(self, open_there: Any) -> int:
        batch = _BATCH
        while True:
            rivals = open_there & (self._high >= torch.where(open_there, self._low, -torch.inf).max())
            loose = rivals & ~self._settled
            count = min(batch, int(loose.sum()))
            if not count:
                break
            self._settle(torch.topk(torch.where(loose, self._high, -1.0), count).indices.cpu().numpy())
            batch *= 4
        items: Ints = rivals.nonzero()[:, 0].cpu().numpy()
        return int(items[np.argmax(self._near[items])])

    def radius(self) -> float:
        """How far the farthest item of all is from its nearest pick."""
        return float(self._near[self._farthest(torch.ones_like(self._settled))])

    def _settle(self, items: Ints) -> None:
        """Take the exact distances of items to their nearest picks."""
        items = items[~self._settled[self._points.index(items)].cpu().numpy()]
        if not len(items):
            return
        for rows, picks in self._near_picks(items):
            distances = distances_of_pairs(self.X, rows, picks, self.metric)
            np.minimum.at(self._near, rows, distances)
            self._taken += len(rows)
        self._seen[items] = len(self._picks)
        where = self._points.index(items)
        squares = self._points.index(self._near[items] / self._unit)
        if self.metric == "euclidean":
            squares = squares * squares
        # Exact distances of float64, told in squares of the precision here.
        squares, kind = squares.clamp_min_(0.0), self._points.kind
        self._low[where] = outward(squares * (1 - 2.0**-48), LOW, kind).clamp_min_(0.0)
        self._high[where] = outward(squares * (1 + 2.0**-48), HIGH, kind)
        self._settled[where] = True

    def _near_picks(self, items: Ints) -> Any:
        """Pairs (items, picks) that may be the nearest ones, of picks that the items were not settled for."""
        first = int(self._seen[items].min())
        picks = np.array(self._picks[first:], np.int64)
        there = self._points.index(picks)
        number = torch.arange(first, first + len(picks), device=self._points.device)
        step = max(1, self._blocks.pairs // len(picks))
        for start in range(0, len(items), step):
            part = items[start : start + step]
            rows, seen = self._points.index(part), self._points.index(self._seen[part])
            with full_precision():
                product = self._points.product(rows, there)
            low = self._points.squares(rows, there, LOW, product)
            # No nearer pick has a bound from below above the least bound from above.
            near = (low <= self._high[rows][:, None]) & (number[None] >= seen[:, None])
            which, pick = near.nonzero().cpu().numpy().T
            yield part[which], picks[pick]
