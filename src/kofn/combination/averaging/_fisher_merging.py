"""Mean in which each member's weight on each entry is how sure it is of it: its Fisher information."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.blockwise import Block, Rule
from kofn.combination._sweep.members import HALF, REAL, Pool, Tensor, open_members
from kofn.combination._sweep.merge import Files, merge, relative_weights
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method


@method(
    "combine",
    traits=("mergeable",),
    draws=Draw(
        kinds={"members": "loose integers"},
        plain={"fisher": [[1.0, 1.0]] * 3},
        signed_weights=False,
        states_no_value=True,
    ),
    cost="O(m d) time, each member and its Fisher information read once; memory a few blocks",
    exact="mode of the product of Gaussians with these diagonal precisions; equal precisions give the weighted mean",
    paper=234,
)
def fisher_merging(
    members: Sequence[Any],
    *,
    fisher: Sequence[Any],
    weights: Any = None,
    balance: bool = False,
    floor: float = 0.0,
    out: str | os.PathLike[str] | None = None,
    only: Any = None,
    skip: Any = None,
    measure: bool = False,
    skip_nonfinite: bool = False,
    max_memory: int | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Blend:
    """Mean in which each member's weight on each entry is how sure it is of it: its Fisher information.

    Args:
        members: m checkpoints (paths, mappings or arrays) of one architecture and, mostly, one base.
        fisher: m diagonals of the Fisher information in the members' order, each of the members' names and shapes, all
            entries >= 0, any float dtype: arrays, mappings or paths (`kofn.nn.diagonal_fisher` computes them).
        weights: (m,) >= 0, relative; uniform by default. They multiply the precisions.
        balance: divide each member's Fisher information by its norm first, so that no member outweighs the others by
            its scale alone.
        floor: least precision of an entry. Where all precisions are zero the weighted mean stands in.
        out, only, skip, measure, skip_nonfinite, max_memory, n_threads, progress: as `weighted_mean` has them.

    Returns:
        Blend of form "elementwise": every entry lies between the members'. For arrays, `statistic` is
        {"sum": sum_i w_i F_i x_i, "precision": sum_i w_i F_i}, which adds up over parts (with `balance` False).

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
    files = Files(out, only, skip, measure, skip_nonfinite, max_memory, n_threads, progress)
    pool = files.open(members)
    used, total, _ = relative_weights(weights, len(pool.members))
    if (used < 0).any():
        raise InputError(f"weights of member {int(used.argmin())} is below zero; a precision cannot be negative")
    least = float(checks.number(floor, "floor"))
    rule = Fisher(used, _fisher(fisher, pool), least, checks.flag(balance, "balance"))
    if not pool.named and not balance:
        rule.keep_sums(pool)

    def kept() -> dict[str, Any] | None:
        if rule.sums is None:
            return None
        shape = pool.first[""].shape
        return {name: (array * total).reshape(shape) for name, array in rule.sums.items()}

    return merge(pool, rule, files, weights=used, form="elementwise", kept=kept)


@dataclass
class Fisher(Rule):
    """sum_i w_i F_i x_i / sum_i w_i F_i, entry by entry."""

    weights: NDArray[np.float64]
    fisher: list[Mapping[str, Tensor]] = field(repr=False)
    floor: float
    balance: bool
    sums: dict[str, NDArray[np.float64]] | None = field(default=None, repr=False)

    double = True  # precisions range over many orders of magnitude
    whole = True

    def __post_init__(self) -> None:
        self.stages = int(self.balance)

    def keep_sums(self, pool: Pool) -> None:
        """Keep what makes the blend mergeable."""
        self.sums = {name: np.empty(pool.first[""].size) for name in ("sum", "precision")}

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        squares = np.array([np.square(row).sum() for row in self._precisions(block, None)])
        return squares if part is None else part + squares

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        norms = np.sqrt(np.array([math.fsum(column) for column in np.array(list(parts)).T.tolist()]))
        return np.where(norms > 0, norms, 1.0)

    def _precisions(self, block: Block, norms: Any) -> Iterable[NDArray[np.float64]]:
        span = block.span
        for place, held in enumerate(self.fisher):
            row = held[span.name].read(span.start, span.stop).astype(np.float64)
            if not (np.isfinite(row) & (row >= 0)).all():
                at = int(np.flatnonzero(~(np.isfinite(row) & (row >= 0)))[0])
                where = tuple(int(axis) for axis in np.unravel_index(span.start + at, span.shape))
                raise InputError(
                    f"fisher of member {place}: {span.name!r} at {where} is {row[at]:g}; give finite values >= 0"
                )
            yield np.maximum(row if norms is None else row / norms[place], self.floor)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        heard, plain = np.zeros_like(total), np.zeros_like(total)
        total.fill(0)
        for row, precision, weight in zip(
            block.rows, self._precisions(block, block.state), self.weights.tolist(), strict=True
        ):
            np.multiply(precision, weight, out=spare)
            np.add(heard, spare, out=heard)
            np.multiply(spare, row, out=spare)
            np.add(total, spare, out=total)
            np.add(plain, weight * row, out=plain)
        if self.sums is not None:
            span = slice(block.span.start, block.span.stop)
            self.sums["sum"][span], self.sums["precision"][span] = total, heard
        np.divide(total, heard, out=total, where=heard > 0)
        np.copyto(total, plain, where=heard == 0)
        np.clip(total, np.min(block.rows, axis=0), np.max(block.rows, axis=0), out=total)
        return True


def _fisher(fisher: Sequence[Any], pool: Pool) -> list[Mapping[str, Tensor]]:
    if isinstance(fisher, str):
        fisher = fisher.split(",")  # paths, as a command line writes them
    if isinstance(fisher, bytes | Mapping) or len(fisher) != len(pool.members):
        count = 1 if isinstance(fisher, bytes | Mapping) else len(fisher)
        raise InputError(f"fisher has {count} diagonals for {len(pool.members)} members; give one a member")
    held = open_members(fisher)
    for name, tensor in pool.first.items():
        if name in pool.skipped or not (tensor.dtype in HALF or tensor.dtype in REAL):
            continue
        if name not in held.first:
            raise InputError(
                f"fisher lacks tensor {name!r}; compute it for every tensor that is blended, or skip that one"
            )
        if held.first[name].shape != tensor.shape:
            raise InputError(f"fisher: {name!r} has shape {held.first[name].shape}, in the members {tensor.shape}")
    return held.members
