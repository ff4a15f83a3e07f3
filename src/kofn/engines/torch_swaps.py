"""Which candidates may lower the loss of k medoids by a swap, on a device: bounds on what every swap saves."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from kofn.core.arrays import Floats, Ints, Reals
from kofn.core.devices import full_precision, room_on
from kofn.engines.torch_kernels import LOW, Blocks, CostRule, Points, unit_roundoff

# Bytes that each item takes on the device beside its coordinates, and as many again as there are medoids.
_BYTES_AN_ITEM = 64
# Blocks of pairs between two looks at the clock.
_BLOCKS_AT_ONCE = 16


class SwapBounds:
    """Distances on a device, from below: as they are given, or of rows.

    Args:
        weights: how much each item counts, (n,).
        k: medoids.
        device: torch's.
        max_memory: bytes that may be held on the device.
        matrix: distances (n, n), of which parts are brought to the device as they are needed.
        rows: instead, the rows (n, d) in the dtype in which the processor compares them.
        scale: what each row is multiplied by, (n,), or empty.
        squared: whether distances are squared.
        unit: what distances between scaled rows are multiplied by.

    Attributes:
        most: how many candidates to look at together at most.
    """

    def __init__(
        self,
        weights: Floats,
        k: int,
        device: Any,
        max_memory: int | None,
        *,
        matrix: Reals | None = None,
        rows: NDArray[Any] | None = None,
        scale: Floats | None = None,
        squared: bool = False,
        unit: float = 1.0,
    ) -> None:
        n, self._device, self._matrix = len(weights), device, matrix
        self._points: Points | None = None
        self._cost_rule, self._unit = CostRule(squared), unit
        occupied = n * (_BYTES_AN_ITEM + k) + (0 if rows is None else Points.bytes_of(rows))
        self._blocks = Blocks.within(room_on(device, max_memory), occupied, n, device, "k-medoids")
        given = matrix if rows is None else rows
        assert given is not None
        self._kind = torch.float32 if given.dtype == np.float32 else torch.float64
        if rows is not None:
            scale = np.empty(0) if scale is None else scale
            # The processor takes differences in the precision of the rows, adds their squares by fours, takes a root.
            relative = (rows.shape[1] / 4 + 16) * unit_roundoff(self._kind)
            self._points = Points(rows, scale, device, relative=relative, rounded=len(scale) > 0)
        self._weights = torch.tensor(weights, device=device)
        self.most = min(_BLOCKS_AT_ONCE * self._blocks.pairs // n, self._blocks.pairs // k)

    @property
    def pairs(self) -> int:
        """Distances of rows taken on the device so far."""
        return 0 if self._points is None else self._points.pairs

    def _least(self, candidates: slice, items: slice) -> Any:
        """(candidates, items) distances from below."""
        if self._points is None:
            assert self._matrix is not None
            return torch.tensor(self._matrix[candidates, items], device=self._device)
        squares = self._points.squares(candidates, items, LOW)
        return self._cost_rule.costs(squares, LOW).mul_(self._unit)

    def promising(
        self,
        start: int,
        stop: int,
        near: Reals,
        second: Reals,
        nearest: NDArray[np.int32],
        removal: Floats,
        least: float,
    ) -> Ints:
        """The candidates start..stop-1 of which a swap may lower the loss by more than `least`.

        Args:
            start: the first candidate.
            stop: the one after the last.
            near: distance of each item to its medoid, in the dtype of the distances.
            second: distance of each item to the second nearest medoid.
            nearest: position of each item's medoid.
            removal: by how much the loss rises where a medoid goes and none comes, (k,).
            least: what is to be saved.
        """
        near_there, second_there = (torch.tensor(part, device=self._device)[None] for part in (near, second))
        own = torch.tensor(nearest, device=self._device).to(torch.int64)
        # What is saved whichever medoid goes, and what beside of the loss of each one's removal.
        count, medoids = stop - start, len(removal)
        shared = torch.zeros(count, dtype=torch.float64, device=self._device)
        beside = torch.zeros((count, medoids), dtype=torch.float64, device=self._device)
        for rows, items in self._blocks.runs(count, len(near)):
            with full_precision():
                low = self._least(slice(start + rows.start, start + rows.stop), items)
            here, other, weights = near_there[:, items], second_there[:, items], self._weights[items]
            saved = (here - torch.minimum(low, here)).to(torch.float64).mul_(weights)
            shared[rows] += saved.sum(dim=1)
            saved = (other - torch.minimum(torch.maximum(low, here), other)).to(torch.float64).mul_(weights)
            beside[rows] = beside[rows].index_add(1, own[items], saved)
        # Terms were rounded, and sums of n of them, here and on the processor.
        slack = 8 * unit_roundoff(self._kind) + (2 * len(near) + 64) * 2.0**-52
        lost = torch.tensor(removal, device=self._device) * (1 - slack)
        saves = (beside * (1 + slack) - lost).max(dim=1).values + shared * (1 + slack)
        candidates: Ints = (saves > least * (1 - 1e-6)).nonzero()[:, 0].cpu().numpy() + start
        return candidates
