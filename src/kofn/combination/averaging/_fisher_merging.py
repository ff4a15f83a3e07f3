"""Fisher merging: entrywise weighted mean, with the members' diagonal Fisher information as weights."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.members import HALF, REAL, Pool, open_members
from kofn.combination._sweep.rule import room_for_sums
from kofn.combination._sweep.tensor import Tensor
from kofn.combination.rules import Block, Rule, merge_rule
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.draws import Draw


@merge_rule(
    traits=("mergeable",),
    draws=Draw(kinds={"members": "loose integers"}, plain={"fisher": [[1.0, 1.0]] * 3}),
    cost="O(m d) time, each member and its Fisher information read once; memory a few blocks",
    exact="mode of the product of Gaussians with these diagonal precisions; equal precisions give the weighted mean",
    paper=234,
)
class FisherMerging(Rule):
    """Fisher merging: entrywise weighted mean, with the members' diagonal Fisher information as weights.

    Args:
        fisher: m diagonals of the Fisher information in the members' order, each of the members' names and shapes, all
            entries >= 0, any float dtype: arrays, mappings or paths (`kofn.nn.diagonal_fisher` computes them).
        weights: (m,) >= 0, relative; uniform by default. They multiply the precisions.
        balance: normalise each member's Fisher information first, so that no member dominates by scale alone.
        floor: least precision of an entry. Where all precisions are zero, the weighted mean is used.

    Returns:
        Blend of form "elementwise": every entry lies between the members'. For arrays, `statistic` is
        {"sum": sum_i w_i F_i x_i, "precision": sum_i w_i F_i}, which adds up over parts (with `balance` False;
        None where it takes more than half of `max_memory`).

    Raises:
        InputError: Fisher information that is missing, negative, not finite or of other shapes; as `weighted_mean`.

    Time O(m d). Copies give the copy bit for bit, whatever the precisions.

    >>> import numpy as np
    >>> a, b = np.array([0.0, 0.0]), np.array([1.0, 1.0])
    >>> fisher_merging([a, b], fisher=[np.array([1.0, 3.0]), np.array([1.0, 1.0])]).result
    array([0.5 , 0.25])

    References:
        Matena & Raffel 2022, Merging models with Fisher-weighted averaging (NeurIPS).
    """

    fisher: Sequence[Any] = field(repr=False)
    balance: bool = False
    floor: float = 0.0

    form = "elementwise"
    negative_weights = "a precision cannot be negative"
    in_double = True  # precisions range over many orders of magnitude
    per_model = True

    def __post_init__(self) -> None:
        self.floor = float(checks.number(self.floor, "floor"))
        self.balance = checks.flag(self.balance, "balance")
        self.stages = int(self.balance)
        self._sums: dict[str, NDArray[np.float64]] | None = None

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        super().bind(pool, weights, device)
        self.reads = _open_fisher(self.fisher, pool)
        return self

    def keep_sums(self, pool: Pool, max_memory: int | None) -> None:
        if not pool.named and not self.balance and room_for_sums(2 * 8 * pool.elements, max_memory):
            self._shape = pool.first[""].shape
            self._sums = {name: np.empty(pool.first[""].size) for name in ("sum", "precision")}

    def kept_sums(self) -> dict[str, Any] | None:
        """{"sum": sum_i w_i F_i x_i, "precision": sum_i w_i F_i}, with the weights as given."""
        if self._sums is None:
            return None
        for array in self._sums.values():
            array *= self.total_weight
        return {name: array.reshape(self._shape) for name, array in self._sums.items()}

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        squares = np.array([np.square(row).sum() for row in self._precisions(block, None)])
        return squares if part is None else part + squares

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        norms = np.sqrt(np.array([math.fsum(column) for column in np.array(list(parts)).T.tolist()]))
        return np.where(norms > 0, norms, 1.0)

    def _precisions(self, block: Block, norms: Any) -> Iterable[NDArray[np.float64]]:
        span = block.span
        for i, diagonals in enumerate(self.reads):
            row = diagonals[span.name].read(span.start, span.stop).astype(np.float64)
            if not (np.isfinite(row) & (row >= 0)).all():
                bad = int(np.flatnonzero(~(np.isfinite(row) & (row >= 0)))[0])
                position = tuple(int(axis) for axis in np.unravel_index(span.start + bad, span.shape))
                raise InputError(
                    f"fisher of member {i}: {span.name!r} at {position} is {row[bad]:g}; give finite values >= 0"
                )
            yield np.maximum(row if norms is None else row / norms[i], self.floor)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        precisions, plain = np.zeros_like(total), np.zeros_like(total)
        total.fill(0)
        for row, precision, weight in zip(
            block.rows, self._precisions(block, block.state), self.weights.tolist(), strict=True
        ):
            np.multiply(precision, weight, out=spare)
            np.add(precisions, spare, out=precisions)
            np.multiply(spare, row, out=spare)
            np.add(total, spare, out=total)
            np.add(plain, weight * row, out=plain)
        if self._sums is not None:
            span = slice(block.span.start, block.span.stop)
            self._sums["sum"][span], self._sums["precision"][span] = total, precisions
        np.divide(total, precisions, out=total, where=precisions > 0)
        np.copyto(total, plain, where=precisions == 0)
        np.clip(total, np.min(block.rows, axis=0), np.max(block.rows, axis=0), out=total)
        return True


fisher_merging = FisherMerging.method


def _open_fisher(fisher: Sequence[Any], pool: Pool) -> list[Mapping[str, Tensor]]:
    if isinstance(fisher, str):
        fisher = fisher.split(",")  # paths, as a command line writes them
    if isinstance(fisher, bytes | Mapping) or len(fisher) != len(pool.members):
        count = 1 if isinstance(fisher, bytes | Mapping) else len(fisher)
        raise InputError(f"fisher has {count} diagonals for {len(pool.members)} members; give one a member")
    opened = open_members(fisher)
    for name, tensor in pool.first.items():
        if name in pool.skipped or not (tensor.dtype in HALF or tensor.dtype in REAL):
            continue
        if name not in opened.first:
            raise InputError(
                f"fisher lacks tensor {name!r}; compute it for every tensor that is blended, or skip that one"
            )
        if opened.first[name].shape != tensor.shape:
            raise InputError(f"fisher: {name!r} has shape {opened.first[name].shape}, in the members {tensor.shape}")
    return opened.members
