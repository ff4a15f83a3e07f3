"""FasterPAM on a device: which candidates cannot improve is shown there, the others are tried on the processor."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from kofn.assignment.medoids import _swaps
from kofn.assignment.medoids._sources import Matrix, Source, Vectors
from kofn.assignment.medoids._swaps import Swaps
from kofn.core.arrays import Floats, Ints, Reals
from kofn.engines.devices import full_precision, room_on
from kofn.engines.torch_kernels import LOW, Blocks, Points, Rule, unit_roundoff

# Candidates that are looked at together: few after a swap, which makes all looks out of date, ever more without, up to
# so many blocks of pairs.
_FEWEST, _BLOCKS_AT_ONCE = 64, 16
# Bytes that each item takes on the device beside its coordinates.
_BYTES_AN_ITEM = 64


class DeviceSwaps(Swaps):
    """`Swaps` whose eager search tries on the processor only the candidates that may lower the loss.

    What a swap saves at most follows on the device from the least that distances can be. Where that is not enough, the
    candidate is passed over; else it is tried as without a device, so that the same swaps are made.
    """

    def __init__(
        self, source: Source, medoids: Ints, weights: Floats, *, compiled: bool, device: Any, max_memory: int | None
    ) -> None:
        super().__init__(source, medoids, weights, compiled=compiled)
        self._device = device
        self._rows: _Rows = _of(source)(source, device)
        held = self._rows.bytes + self.n * (_BYTES_AN_ITEM + self.k)
        self._blocks = Blocks.within(room_on(device, max_memory), held, self.n, device, "FasterPAM")
        self._rows.hold()
        # So many that the clock is looked at often, and that there is room for what they save beside each medoid.
        self._most = min(_BLOCKS_AT_ONCE * self._blocks.pairs // self.n, self._blocks.pairs // self.k)
        self._weights_there = torch.from_numpy(weights).to(device)

    def eager(self, max_iter: int | None, stopped: Callable[[], bool], step: Callable[[int], None]) -> tuple[bool, int]:
        """Try every candidate in turn and swap eagerly. Returns (converged, rounds)."""
        rounds = 0
        while max_iter is None or rounds < max_iter:
            rounds += 1
            start, size = 0, _FEWEST
            while start < self.n:
                stop = min(start + size, self.n)
                before = self.swaps
                start = self._try(start, stop)
                size = _FEWEST if self.swaps > before else max(_FEWEST, min(2 * size, self._most))
                if self.unimproved >= self.n:
                    return True, rounds
                if stopped():
                    return False, rounds
            step(self.swaps)
        return False, rounds

    def _try(self, start: int, stop: int) -> int:
        """Try candidates up to the first swap; returns the next one."""
        before = self.swaps
        for candidate in self._promising(start, stop).tolist():
            self._pass_over(start, candidate)
            start = candidate + 1
            if self.unimproved >= self.n:
                return start
            one = np.array([candidate])
            self.sweep(np.ascontiguousarray(self.source.rows(one)), one, self.n)
            if self.swaps > before:
                return start
        self._pass_over(start, stop)
        return stop

    def _pass_over(self, start: int, stop: int) -> None:
        """Count candidates that were tried without a swap, up to the last that is needed."""
        stop = min(stop, start + self.n - self.unimproved)
        self.unimproved += stop - start
        self.evaluated += stop - start - int(self.is_medoid[start:stop].sum())

    def _promising(self, start: int, stop: int) -> Ints:
        """The candidates of a range for which some swap may lower the loss."""
        there = self._device
        kind, weights = self._rows.kind, self._weights_there
        near, second = (torch.from_numpy(part).to(there) for part in (self.near, self.second))
        nearest = torch.from_numpy(self.nearest).to(there).to(torch.int64)
        # What is saved whichever medoid goes, and what beside the loss of each medoid's removal.
        shared = torch.zeros(stop - start, dtype=torch.float64, device=there)
        beside = torch.zeros((stop - start, self.k), dtype=torch.float64, device=there)
        for rows, columns in self._blocks.runs(stop - start, self.n):
            with full_precision():
                least = self._rows.least(slice(start + rows.start, start + rows.stop), columns)
            here, other = near[columns][None], second[columns][None]
            saved = (here - torch.minimum(least, here)).to(torch.float64).mul_(weights[columns])
            shared[rows] -= saved.sum(dim=1)
            saved = (other - torch.minimum(torch.maximum(least, here), other)).to(torch.float64).mul_(weights[columns])
            beside[rows] = beside[rows].index_add(1, nearest[columns], saved, alpha=-1.0)
        # Sums of n terms here and there, and terms that were rounded.
        slack = 8 * unit_roundoff(kind) + (2 * self.n + 64) * 2.0**-52
        removal = torch.from_numpy(self.removal).to(there) * (1 - slack)
        change = (removal + beside * (1 + slack)).min(dim=1).values + shared * (1 + slack)
        promising = change < -_swaps.TOLERANCE * self.loss * (1 - 1e-6)
        candidates: Ints = promising.nonzero()[:, 0].cpu().numpy() + start
        return candidates[self.is_medoid[candidates] == 0]


class _Rows:
    """The least that distances can be, in blocks on a device."""

    kind: Any
    bytes: int

    def hold(self) -> None:
        """Bring to the device what is held there."""

    def least(self, candidates: slice, items: slice) -> Any:
        """(candidates, items) distances from below."""
        raise NotImplementedError


class _OfMatrix(_Rows):
    """Distances of a matrix, which are what they are; block by block, since they may not fit."""

    def __init__(self, source: Matrix, device: Any) -> None:
        self._source, self._device, self.bytes = source, device, 0
        self.kind = torch.float32 if source.kind == np.float32 else torch.float64

    def least(self, candidates: slice, items: slice) -> Any:
        block: Reals = self._source.part(candidates, items)
        return torch.tensor(block, device=self._device)


class _OfVectors(_Rows):
    """Distances of rows, from below, as the processor would round them."""

    def __init__(self, source: Vectors, device: Any) -> None:
        self._space, self._unit, self._device = source.space, source.unit, device
        rows = self._space.rows
        self.kind = torch.float32 if rows.dtype == np.float32 else torch.float64
        self.bytes = Points.bytes_of(rows)
        self._rule = Rule(self._space.squared)

    def hold(self) -> None:
        d = self._space.rows.shape[1]
        # Differences in the precision of the rows, their squares summed by fours, a root, and the unit.
        relative = (d / 4 + 16) * unit_roundoff(self.kind)
        scaled = len(self._space.scale) > 0
        self._points = Points(self._space.rows, self._space.scale, self._device, relative=relative, rounded=scaled)

    def least(self, candidates: slice, items: slice) -> Any:
        return self._rule.costs(self._points.squares(candidates, items, LOW), LOW).mul_(self._unit)


def _of(source: Source) -> Any:
    return _OfMatrix if isinstance(source, Matrix) else _OfVectors
