"""The arithmetic of mergekit's methods, as its own code has it, for recipes that were written for it.

The methods of kofn by the same names follow their papers and differ in details: how many entries a density keeps, what
is divided by which weights, where an arc is taken for a line. A recipe must give the numbers that its author saw, so
these rules follow mergekit 0.1.5, and only recipes use them. Of models that are read in half precision it rounds every
step to that, by which signs and last places turn out otherwise: so do these rules (`Steps`).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep import quantiles
from kofn.combination._sweep.half_loops import ready
from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.replayed import Steps
from kofn.combination.averaging._weighted_mean import WeightedMean
from kofn.combination.rules import Block, Rule
from kofn.combination.task_vectors._arcee_fusion import ArceeFusion
from kofn.combination.task_vectors._dare import entry_stream
from kofn.core.checks import InputError

_NO_WEIGHT = 1e-8  # a sum of weights below this in size divides by one instead
_TINY = 1e-7  # changes whose sum of magnitudes is below this are not rescaled


@dataclass
class TaskVectors(Rule):
    """Sparse task vectors, added up or averaged where they agree in sign: ties, dare, della and their like.

    Of entries of one magnitude at the threshold, which half-precision models have many of, as many are kept by chance
    as the density asks for.

    Args:
        densities: (m,) share of each member's entries that is kept.
        sparsify: which: "magnitude" the largest, "outliers" the largest but for the share `gammas` of the very largest,
            "random" by chance, "ranks" by chance that grows with the rank in its row; None keeps all.
        by_sign: whether only members that agree with the sign of the weighted sum count.
        divide: divide by the weights that count.
        rescale: bring each sparse task vector to the sum of magnitudes that it had.
        scale: factor of the sum.
        gammas: (m,), see `sparsify`.
        epsilons: (m,) by how much the chances of "ranks" differ from the density at the ends of a row.
        seed: decides what is kept by chance.
    """

    densities: tuple[float, ...] = ()
    sparsify: str | None = None
    by_sign: bool = False
    divide: bool = False
    rescale: bool = False
    scale: float = 1.0
    gammas: tuple[float, ...] = ()
    epsilons: tuple[float, ...] = ()
    seed: int = 0

    needs_base: ClassVar[bool] = True
    normalize = False

    def __post_init__(self) -> None:
        trimmed = self.sparsify in ("magnitude", "outliers") and min(self.densities, default=1.0) < 1
        dropped = self.sparsify in ("random", "ranks") and min(self.densities, default=1.0) < 1
        self.whole_rows = self.sparsify == "ranks"
        for density, epsilon in zip(self.densities, self.epsilons, strict=False):
            if 0 < density < 1 and not (density - epsilon > 0 and density + epsilon < 1):
                raise InputError(
                    f"density {density:g} with epsilon {epsilon:g}: della keeps entries with chances from "
                    f"{density - epsilon:g} to {density + epsilon:g}; give an epsilon that keeps them between 0 and 1"
                )
        self.ranked = 2 if trimmed else 0
        self.rescaled = self.rescale and (trimmed or dropped)
        self.stages = self.ranked + self.rescaled

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        statistics: list[Any] = []
        step, rows, origin = self.steps.of(block)
        for member, row in enumerate(rows):
            change = step(row - origin)
            if stage >= self.ranked:
                kept = self._kept(change, member, block, block.state)
                statistics.append(np.array([np.abs(change).sum(dtype=np.float64), np.abs(kept).sum(dtype=np.float64)]))
                continue
            codes = quantiles.magnitude_keys(change)
            if stage == 0:
                statistics.append(quantiles.coarse(codes))
            else:
                ends = {upper for upper, _ in block.state[member]}
                statistics.append({upper: quantiles.fine(codes, upper) for upper in ends})
        if part is None:
            return statistics
        if self.ranked and stage == 1:
            return [{upper: a[upper] + b[upper] for upper in a} for a, b in zip(part, statistics, strict=True)]
        return [a + b for a, b in zip(part, statistics, strict=True)]

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        if stage >= self.ranked:
            factors = []
            for before, after in quantiles.add_up(parts):
                factors.append(before / after if before >= _TINY and after >= _TINY else 1.0)
            return (state, factors)
        if stage == 0:
            counts = quantiles.add_up(parts)
            size = int(counts[0].sum())
            return [self._ends(member, size, count) for member, count in enumerate(counts)]
        total: list[dict[int, Any]] = []
        for fine in parts:
            total = [{u: a[u] + b[u] for u in a} for a, b in zip(total, fine, strict=True)] if total else list(fine)
        return [_cuts(counts, ends) for counts, ends in zip(total, state, strict=True)]

    def _ends(self, member: int, size: int, counts: NDArray[np.int64]) -> tuple[tuple[int, int], ...]:
        """Where the least and the largest magnitude lie that are kept; nothing is kept without ends."""
        density = self.densities[member]
        if density >= 1 or density <= 0 or not size:
            return ()
        if self.sparsify == "outliers":
            kept = int(density * size)
            low = max(0, size - kept - int(self.gammas[member] * size))
        else:
            kept = max(1, int(density * size))
            low = size - kept
        if not kept:
            return ()
        return tuple(quantiles.locate(counts, rank) for rank in (low, low + kept - 1))

    def _kept(self, change: NDArray[Any], member: int, block: Block, ends: Any) -> NDArray[Any]:
        """The change with what is not kept set to zero."""
        density = self.densities[member] if self.sparsify else 1.0
        if density >= 1:
            return change
        if density <= 0:
            return np.zeros_like(change)
        if self.sparsify in ("random", "ranks"):
            chances = density if self.sparsify == "random" else self._chances(change, member, block)
            return np.where(_drawn(self.seed, member, block, chances), change, 0)
        if not ends[member]:
            return np.zeros_like(change)
        low, high, shares = ends[member]
        size = np.abs(change.astype(np.float32, copy=False))
        kept = (size >= low) & (size <= high)
        for value, share in shares:
            kept &= (size != value) | _drawn(self.seed, member, block, share)
        return np.where(kept, change, 0)

    def _chances(self, change: NDArray[Any], member: int, block: Block) -> NDArray[np.float64]:
        """The chance of each entry to be kept, by the rank of its magnitude in its row."""
        size = np.abs(change).reshape(-1, block.span.row)
        order = size.argsort(axis=1, kind="stable")
        ranks = np.empty_like(order)
        np.put_along_axis(ranks, order, np.arange(block.span.row)[None], axis=1)
        share = ranks / max(block.span.row - 1, 1)
        return (self.densities[member] + self.epsilons[member] * (2 * share - 1)).reshape(-1)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        ends, factors = block.state if self.rescaled else (block.state, None)
        step, rows, origin = self.steps.of(block)
        weights = [float(step(weight)) for weight in self.weights.tolist()]
        changes = []
        for member, (row, weight) in enumerate(zip(rows, weights, strict=True)):
            change = self._kept(step(row - origin), member, block, ends)
            if factors is not None:
                change = step(change * float(step(factors[member])))
            changes.append(step(change * weight))
        summed, heard = np.zeros_like(origin), np.zeros_like(origin)
        if self.by_sign:
            signs = np.zeros_like(origin)
            for change in changes:
                signs += change
            signs = step(signs)
            for change, weight in zip(changes, weights, strict=True):
                counts = np.where(signs >= 0, change > 0, change < 0)
                summed += np.where(counts, change, 0)
                heard += np.where(counts, weight, 0)
            heard = step(heard)
            heard[heard == 0] = 1
        else:
            for change in changes:
                summed += change
            whole = float(step(math.fsum(weights)))
            heard = np.asarray(whole if abs(whole) >= _NO_WEIGHT else 1.0, heard.dtype)
        summed = step(summed)
        if self.divide:
            summed = step(summed / heard)
        if self.scale != 1:
            summed = step(summed * self.scale)
        np.copyto(total, step(origin + summed), casting="unsafe")
        return False

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        self.weights = np.asarray(weights, np.float64)
        self.steps = Steps(pool)
        return self


def _cuts(counts: Mapping[int, NDArray[np.int64]], ends: Sequence[tuple[int, int]]) -> Any:
    """The least and the largest magnitude that are kept, and what share of the entries of these magnitudes is."""
    if not ends:
        return ()
    values, below, equal = [], [], []
    for upper, rank in ends:
        lower, within = quantiles.locate(counts[upper], rank)
        values.append(quantiles.value_of((upper << 16) | lower, magnitudes=True))
        below.append(within)
        equal.append(int(counts[upper][lower]))
    if values[0] == values[1]:
        shares = [(values[0], (below[1] - below[0] + 1) / equal[0])]
    else:
        shares = [(values[0], (equal[0] - below[0]) / equal[0]), (values[1], (below[1] + 1) / equal[1])]
    return (*values, [(value, share) for value, share in shares if share < 1])


def _drawn(seed: int, member: int, block: Block, chances: Any) -> NDArray[np.bool_]:
    """Which entries are kept by chance, whatever the blocks."""
    stream = entry_stream(seed, member, block.span.name, block.span.start)
    limits = np.asarray(chances * 2.0**64).astype(np.uint64)
    return stream.random_raw(block.span.stop - block.span.start) < limits


@dataclass
class Linear(Rule):
    """The weighted sum of the models, divided by the sum of the weights where `divide`."""

    divide: bool = True

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        given = np.asarray(weights, np.float64)
        total = math.fsum(given.tolist())
        if self.divide and abs(total) < _NO_WEIGHT:
            raise InputError(f"weights {given.tolist()} sum to {total:g}, by which linear divides; change them")
        used = given / total if self.divide else given
        form = "linear" if not self.divide else "simplex" if (used >= 0).all() else "affine"
        steps = Steps(pool)
        if any(name in steps for name in pool.first):
            self.weights, self.form, self.steps = used, form, steps
            self.given, self.exact = given.astype(np.float32), WeightedMean.of_weights(used, form)
            return self
        return WeightedMean.of_weights(used, form)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        if block.span.name not in self.steps:
            return self.exact.blend(block, total, spare)
        # Many sums and quotients are next to ties, which the sums in float32 decide: products are not rounded there.
        loops, single = ready(), total.dtype == np.float32
        summed = total if single else np.empty(len(total), np.float32)
        summed.fill(0)
        for row, weight in zip(block.rows, self.given.tolist(), strict=True):
            if loops is not None and single:
                loops.add_fused(row, weight, summed)
            else:
                np.copyto(summed, row.astype(np.float64) * weight + summed, casting="same_kind")
        if self.divide:
            np.divide(summed, self.given.sum(), out=summed)
        if not single or self.steps.dtype(block.span.name) != block.span.dtype:
            np.copyto(total, self.steps.rounder(block.span.name)(summed))
        return False


@dataclass
class NearSwap(Rule):
    """The base, drawn to the other model by at most t, entry by entry, and there altogether where they are nearer."""

    t: float = 0.0

    needs_base: ClassVar[bool] = True

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        if len(pool.members) != 1:
            raise InputError(f"nearswap takes one model beside the base; {len(pool.members)} were given")
        self.weights = np.ones(1)
        self.steps = Steps(pool)
        return self

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        step, (row,), origin = self.steps.of(block)
        inverse = step(1 / step(np.maximum(step(np.abs(step(origin - row))), 1e-6)))
        share = np.clip(step(inverse * self.t), 0, 1)
        np.copyto(total, step(step(share * row) + step(step(1 - share) * origin)), casting="unsafe")
        return False


@dataclass
class Sce(Rule):
    """Changes weighed by their mean squares, where they agree in sign and the models differ most (Wan et al. 2024).

    Args:
        select_topk: share of the entries that is kept, those whose variance over the models is largest.
        seed: decides which entries of one variance are kept.
    """

    select_topk: float = 1.0
    seed: int = 0

    needs_base: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.ranked = 2 if 0 < self.select_topk < 1 else 0
        self.stages = self.ranked + 1

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        self.weights = np.ones(len(pool.members))
        self.steps = Steps(pool)
        return self

    def _changes(self, block: Block, least: Any) -> NDArray[Any]:
        step, rows, origin = self.steps.of(block)
        changes = np.array([step(row - origin) for row in rows])
        if self.select_topk <= 0:
            changes[:] = 0
        elif self.ranked:
            variance = step(changes.var(axis=0)).astype(np.float32)
            value, share = least
            changes[:, variance < value] = 0
            if share < 1:
                changes[:, (variance == value) & ~_drawn(self.seed, -1, block, share)] = 0
        return changes

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        if stage == self.ranked:
            changes = self._changes(block, block.state)
            step = self.steps.rounder(block.span.name)
            statistics: Any = [step(np.square(change)).astype(np.float64).sum() for change in changes]
        else:
            step, rows, origin = self.steps.of(block)
            variance = step(np.array([step(row - origin) for row in rows]).var(axis=0))
            codes = quantiles.magnitude_keys(variance)
            if stage == 0:
                statistics = [quantiles.coarse(codes), np.array([np.count_nonzero(variance), len(variance)])]
            else:
                statistics = [quantiles.fine(codes, block.state[0])]
        return statistics if part is None else [a + b for a, b in zip(part, statistics, strict=True)]

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        if stage == self.ranked:
            squares = np.array([math.fsum(column) for column in zip(*parts, strict=True)])
            return state, squares
        if stage == 0:
            counts, (nonzero, size) = quantiles.add_up(parts)
            kept = int(int(nonzero) * self.select_topk)
            return quantiles.locate(counts, int(size) - kept) if kept else (-1, 0)
        if state[0] < 0:
            return np.float32(np.inf), 1.0
        (counts,) = quantiles.add_up(parts)
        lower, within = quantiles.locate(counts, state[1])
        share = (int(counts[lower]) - within) / int(counts[lower])
        return quantiles.value_of((state[0] << 16) | lower, magnitudes=True), share

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        least, squares = block.state
        step = self.steps.rounder(block.span.name)
        changes = self._changes(block, least)
        # mergekit compares the sum of the means with 1e-6, so small changes all weigh alike.
        means = step(squares / math.prod(block.span.shape))
        whole = float(step(means.sum()))
        shares = step(means / whole if whole >= 1e-6 else np.full(len(squares), 1 / len(squares)))
        signs = step(changes.sum(axis=0))
        counts = np.where(signs >= 0, changes > 0, changes < 0)
        heard = step((shares[:, None] * counts).sum(axis=0))
        summed = step(step(changes * (shares[:, None] * counts)).sum(axis=0))
        np.copyto(total, step(block.origin + step(summed / np.maximum(heard, 1e-6))), casting="unsafe")
        return False


class Fusion(ArceeFusion):
    """Arcee Fusion whose importances are rounded as mergekit's are, where models are read in half precision."""

    casts = False

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        self.steps = Steps(pool)
        return super().bind(pool, weights, device)

    def importances(self, block: Block) -> NDArray[np.float32]:
        step, (row,), origin = self.steps.of(block)
        if row.dtype != np.float32:
            return super().importances(block)
        first, second = (values.reshape(-1, max(1, block.span.row)) for values in (row, origin))
        p, q = (step(step(_softmax(values)) + np.float32(1e-8)) for values in (first, second))
        divergences = step(step(p * step(np.log(step(p / q)))).sum(axis=1, keepdims=True, dtype=np.float64))
        return step(step(np.abs(step(first - second))) * divergences).reshape(-1)

    def threshold(self, low: float, median: float, high: float) -> Any:
        return low, median, high

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        step, (row,), origin = self.steps.of(block)
        low, median, high = block.state
        counts = self.importances(block) >= np.float32(step(median + step(1.5 * step(high - low))))
        # The mask is of float32 there, and so is what it is multiplied with and added to.
        np.copyto(total, np.where(counts, origin + step(row - origin), origin), casting="unsafe")
        return False


def _softmax(rows: NDArray[Any]) -> NDArray[Any]:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    softened: NDArray[Any] = powers / powers.sum(axis=1, keepdims=True)
    return softened


@dataclass
class Passthrough(Rule):
    """One model as it is, times `scale`."""

    scale: float | None = None

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        if len(pool.members) != 1:
            raise InputError(f"passthrough takes one model a slice; {len(pool.members)} were given")
        self.weights = np.ones(1)
        self.steps = Steps(pool)
        return self

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        row = block.rows[0]
        if block.span.name in self.steps:  # there a product of float32 is rounded, also where sums are of float64
            row = row.astype(np.float32, copy=False)
        np.copyto(total, row * (1.0 if self.scale is None else self.scale))
        return False


@dataclass
class Ram(Rule):
    """The mean of the changes above `epsilon`; those that one model alone has are kept whole (Yuan et al. 2026).

    Args:
        epsilon: changes up to this in size are taken for none.
        r: enlarge what a model alone has by r times the ratio of its shared to its own changes; None for not.
        alpha: the most that this ratio counts for.
    """

    epsilon: float = 1e-5
    r: float | None = None
    alpha: float = 0.2

    needs_base: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.stages = 0 if self.r is None else 1
        self.casts = self.r is None  # its factors are of float32 there, and so is what they multiply

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        self.weights = np.ones(len(pool.members))
        self.steps = Steps(pool)
        return self

    def _changes(self, block: Block) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The changes that count, and how many models have one."""
        step, rows, origin = self.steps.of(block)
        changes = np.array([step(row - origin) for row in rows])
        changes[np.abs(changes) <= step(self.epsilon)] = 0
        return changes, np.count_nonzero(changes, axis=0)

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        changes, models = self._changes(block)
        counts = np.array([np.count_nonzero(changes[:, which], axis=1) for which in (models > 1, models == 1)])
        return counts if part is None else part + counts

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        shared, own = np.sum(list(parts), axis=0)
        return 1 + (self.r or 0.0) * np.clip(shared / np.maximum(own, self.epsilon), 0, self.alpha)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        changes, models = self._changes(block)
        step = self.steps.rounder(block.span.name)
        shared = step(changes / np.maximum(models, 1).astype(changes.dtype))
        if self.r is None:
            merged = step(np.where(models == 1, changes, shared).sum(axis=0))
            np.copyto(total, step(block.origin + merged), casting="unsafe")
            return False
        own = changes * np.asarray(block.state, changes.dtype)[:, None]
        np.copyto(total, block.origin + np.where(models == 1, own, shared).sum(axis=0), casting="unsafe")
        return False
