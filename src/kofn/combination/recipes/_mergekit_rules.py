"""The arithmetic of mergekit's methods, as its own code has it, for recipes that were written for it.

The methods of kofn by the same names follow their papers and differ in details: how many entries a density keeps, what
is divided by which weights, where an arc is taken for a line. A recipe must give the numbers that its author saw, so
these rules follow mergekit 0.1.5, and only recipes use them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep import quantiles
from kofn.combination._sweep.device import weighted_sum
from kofn.combination._sweep.measures import inner
from kofn.combination._sweep.members import Pool
from kofn.combination.averaging._slerp import Slerp
from kofn.combination.averaging._weighted_mean import WeightedMean
from kofn.combination.rules import Block, Rule
from kofn.combination.task_vectors._dare import entry_stream
from kofn.core.arrays import Floats
from kofn.core.checks import InputError

_NO_WEIGHT = 1e-8  # a sum of weights below this in size divides by one instead
_COLINEAR = 0.9995  # the cosine above which two tensors are interpolated along the chord
_TINY = 1e-7  # changes whose sum of magnitudes is below this are not rescaled


@dataclass
class TaskVectors(Rule):
    """Sparse task vectors, added up or averaged where they agree in sign: task_arithmetic, ties, dare, breadcrumbs.

    Args:
        densities: (m,) share of each member's entries that is kept.
        sparsify: which: "magnitude" the largest, "outliers" the largest but for the share `gammas` of the very largest,
            "random" by chance; None keeps all.
        by_sign: whether only members that agree with the sign of the weighted sum count.
        divide: divide by the weights that count.
        rescale: bring each sparse task vector to the sum of magnitudes that it had.
        scale: factor of the sum.
        gammas: (m,), see `sparsify`.
        seed: decides what "random" drops.
    """

    densities: tuple[float, ...] = ()
    sparsify: str | None = None
    by_sign: bool = False
    divide: bool = False
    rescale: bool = False
    scale: float = 1.0
    gammas: tuple[float, ...] = ()
    seed: int = 0

    needs_base: ClassVar[bool] = True
    normalize = False

    def __post_init__(self) -> None:
        trimmed = self.sparsify in ("magnitude", "outliers") and min(self.densities, default=1.0) < 1
        dropped = self.sparsify == "random" and min(self.densities, default=1.0) < 1
        self.ranked = 2 if trimmed else 0
        self.rescaled = self.rescale and (trimmed or dropped)
        self.stages = self.ranked + self.rescaled

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        statistics: list[Any] = []
        for member, row in enumerate(block.rows):
            change = row - block.origin
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
        return [
            tuple(
                quantiles.value_of((upper << 16) | quantiles.locate(counts[upper], rank)[0], magnitudes=True)
                for upper, rank in ends
            )
            for counts, ends in zip(total, state, strict=True)
        ]

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
        if self.sparsify == "random":
            stream = entry_stream(self.seed, member, block.span.name, block.span.start)
            return np.where(stream.random_raw(len(change)) < np.uint64(int(density * 2**64)), change, 0)
        if len(ends[member]) < 2:
            return np.zeros_like(change)
        low, high = ends[member]
        size = np.abs(change.astype(np.float32, copy=False))
        return np.where((size >= low) & (size <= high), change, 0)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        ends, factors = block.state if self.rescaled else (block.state, None)
        signs, heard = np.zeros_like(total), np.zeros_like(total)
        changes = []
        for member, (row, weight) in enumerate(zip(block.rows, self.weights.tolist(), strict=True)):
            change = self._kept(row - block.origin, member, block, ends)
            changes.append(change * (weight * (1.0 if factors is None else factors[member])))
            signs += changes[-1]
        total.fill(0)
        for change, weight in zip(changes, self.weights.tolist(), strict=True):
            if self.by_sign:
                counts = np.where(signs >= 0, change > 0, change < 0)
                total += np.where(counts, change, 0)
                heard += np.where(counts, weight, 0)
            else:
                total += change
        if self.divide:
            if self.by_sign:
                total /= np.where(heard == 0, 1, heard)
            else:
                weights = math.fsum(self.weights.tolist())
                total /= weights if abs(weights) >= _NO_WEIGHT else 1.0
        total *= self.scale
        total += block.origin
        return False

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        self.weights = np.asarray(weights, np.float64)
        return self


@dataclass
class Linear(Rule):
    """The weighted sum of the models, divided by the sum of the weights where `divide`."""

    divide: bool = True

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        given = np.asarray(weights, np.float64)
        total = math.fsum(given.tolist())
        if self.divide:
            if abs(total) < _NO_WEIGHT:
                raise InputError(f"weights {given.tolist()} sum to {total:g}, by which linear divides; change them")
            given = given / total
        form = "linear" if not self.divide else "simplex" if (given >= 0).all() else "affine"
        return WeightedMean.of_weights(given, form)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        raise NotImplementedError  # `bind` gives another rule


@dataclass
class SphericalLinear(Slerp):
    """SLERP with mergekit's thresholds: tensors of a cosine above 0.9995 in size are interpolated along the chord."""

    t: float = 0.5

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        self.weights = np.array([1 - self.t, self.t])
        return self

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        first, second, both = (math.fsum(column) for column in np.array(list(parts)).T.tolist())
        # A tensor of (nearly) zeros is not brought to unit length.
        lengths = [math.sqrt(square) if math.sqrt(square) > 1e-8 else 1.0 for square in (first, second)]
        cosine = both / (lengths[0] * lengths[1])
        if abs(cosine) > _COLINEAR:
            return 1 - self.t, self.t, True
        theta = math.acos(cosine)
        return math.sin((1 - self.t) * theta) / math.sin(theta), math.sin(self.t * theta) / math.sin(theta), False


class GramRule(Rule):
    """A blend that is a combination of the members whose factors depend on their inner products alone."""

    from_base: bool = False  # inner products are of the changes to the base
    stages = 1
    normalize = False

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        m = len(pool.members)
        self.weights = np.ones(m) if weights is None else np.asarray(weights, np.float64)
        self.from_base = self.from_base and pool.base is not None
        return self

    def factors(self, gram: Floats) -> Floats:
        """(m,) the factors of the members (of their changes, where `from_base`), from the (m, m) inner products."""
        raise NotImplementedError

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        rows = [row.astype(np.float64) for row in block.rows]
        if self.from_base:
            rows = [row - block.origin for row in rows]
        gram = np.array([[inner(a, b) if i <= j else 0.0 for j, b in enumerate(rows)] for i, a in enumerate(rows)])
        return gram if part is None else part + gram

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        upper = np.sum(list(parts), axis=0)
        return self.factors(upper + np.triu(upper, 1).T)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        factors = block.state.tolist()
        if self.from_base:
            rest = 1 - math.fsum(factors)
            weighted_sum([block.origin, *block.rows], [rest, *factors], total, spare, None)
        else:
            weighted_sum(block.rows, factors, total, spare, None)
        return False


@dataclass
class ModelStock(GramRule):
    """The mean of the models, drawn to the base as far as their changes are at right angles (Jang et al. 2024)."""

    from_base = True
    needs_base: ClassVar[bool] = True

    def factors(self, gram: Floats) -> Floats:
        m = len(gram)
        if m < 2:
            raise InputError("model_stock needs two models beside the base; list them")
        lengths = np.sqrt(np.diag(gram))
        cosines = np.clip(gram / np.maximum(np.outer(lengths, lengths), 1e-6), -1, 1)[np.triu_indices(m, 1)]
        cosine = float(cosines.mean())
        share = m * cosine / (1 + (m - 1) * cosine)
        return np.full(m, share / m)


@dataclass
class KarcherMean(GramRule):
    """The mean on the sphere of directions, at the mean of the lengths."""

    max_iter: int = 10
    tol: float = 1e-5

    def factors(self, gram: Floats) -> Floats:
        m = len(gram)
        lengths = np.sqrt(np.diag(gram))
        heard = np.flatnonzero(lengths > self.tol)
        if not len(heard):
            return np.zeros(m)
        units = gram[np.ix_(heard, heard)] / np.outer(lengths[heard], lengths[heard])
        share = 1 / len(heard)
        # The point is a combination of the directions; its inner products follow from theirs.
        point = np.full(len(heard), share)
        norm = math.sqrt(max(point @ units @ point, 0.0))
        point = np.eye(len(heard))[0] if norm < self.tol else point / norm
        for _ in range(self.max_iter):
            cosines = np.clip(units @ point, -1, 1)
            step = np.zeros(len(heard))
            for i, cosine in enumerate(cosines.tolist()):
                theta = math.acos(cosine)
                if theta >= self.tol:
                    step += share * theta / math.sin(theta) * (np.eye(len(heard))[i] - cosine * point)
            length = math.sqrt(max(step @ units @ step, 0.0))
            if length < self.tol:
                break
            point = math.cos(length) * point + math.sin(length) * step / length
            point /= math.sqrt(point @ units @ point)
        out = np.zeros(m)
        out[heard] = point / lengths[heard] * lengths.mean()
        return out


@dataclass
class MultiSlerp(GramRule):
    """Barycentric interpolation on the sphere, from the tangent at the weighted mean of the directions."""

    divide: bool = True
    eps: float = 1e-8
    from_base = True

    def factors(self, gram: Floats) -> Floats:
        m = len(gram)
        weights = self.weights / self.weights.sum() if self.divide else self.weights
        if m == 1:
            return np.ones(1)
        lengths = np.sqrt(np.diag(gram))
        units = gram / np.outer(lengths + self.eps, lengths + self.eps)
        mean = weights.copy()
        norm = math.sqrt(max(mean @ units @ mean, 0.0))
        if norm < self.eps:
            if m == 2:
                return weights
            raise InputError("multislerp: the weighted directions cancel; change the weights")
        mean /= norm
        dots = units @ mean
        tangent = weights - math.fsum((weights * dots).tolist()) * mean
        angle = math.sqrt(max(tangent @ units @ tangent, 0.0)) + self.eps
        point = mean * math.cos(angle) + tangent * (math.sin(angle) / angle)
        out: Floats = point / (lengths + self.eps) * float(lengths @ weights)
        return out


@dataclass
class NuSlerp(GramRule):
    """SLERP of two models or, with a base, of their changes, at the share of the second one's weight."""

    from_base = True

    def factors(self, gram: Floats) -> Floats:
        if len(gram) != 2:
            raise InputError(f"nuslerp takes two models beside the base; {len(gram)} were given")
        total = float(self.weights.sum())
        t = 0.5 if abs(total) < 1e-6 else float(self.weights[1]) / total
        lengths = np.maximum(np.sqrt(np.diag(gram)), _TINY)
        theta = math.acos(min(1.0, max(-1.0, gram[0, 1] / (lengths[0] * lengths[1]))))
        if abs(math.sin(theta)) < 1e-8:
            return np.array([1 - t, t])
        return np.array([math.sin((1 - t) * theta), math.sin(t * theta)]) / math.sin(theta)


@dataclass
class NearSwap(Rule):
    """The base, drawn to the other model by at most t, entry by entry, and there altogether where they are nearer."""

    t: float = 0.0

    needs_base: ClassVar[bool] = True

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        if len(pool.members) != 1:
            raise InputError(f"nearswap takes one model beside the base; {len(pool.members)} were given")
        self.weights = np.ones(1)
        return self

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        gap = block.rows[0] - block.origin
        share = np.clip(self.t / np.maximum(np.abs(gap), 1e-6), 0, 1)
        np.add(block.origin, share * gap, out=total)
        return False


@dataclass
class Sce(Rule):
    """Changes weighed by their mean squares, where they agree in sign and the models differ most (Wan et al. 2024).

    Args:
        select_topk: share of the entries that is kept, those whose variance over the models is largest.
    """

    select_topk: float = 1.0

    needs_base: ClassVar[bool] = True

    def __post_init__(self) -> None:
        self.ranked = 2 if 0 < self.select_topk < 1 else 0
        self.stages = self.ranked + 1

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        self.weights = np.ones(len(pool.members))
        return self

    def _changes(self, block: Block, least: Any) -> NDArray[Any]:
        changes = np.array([row - block.origin for row in block.rows])
        if self.select_topk <= 0:
            changes[:] = 0
        elif self.ranked:
            changes[:, changes.var(axis=0).astype(np.float32) < least] = 0
        return changes

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        if stage == self.ranked:
            changes = self._changes(block, block.state)
            statistics: Any = [np.square(change.astype(np.float64)).sum() for change in changes]
        else:
            variance = np.array([row - block.origin for row in block.rows]).var(axis=0)
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
            return np.float32(np.inf)
        (counts,) = quantiles.add_up(parts)
        return quantiles.value_of((state[0] << 16) | quantiles.locate(counts, state[1])[0], magnitudes=True)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        least, squares = block.state
        size = math.prod(block.span.shape)
        changes = self._changes(block, least)
        whole = squares.sum()
        # mergekit compares the sum of the means with 1e-6, so small changes all weigh alike.
        shares = squares / whole if whole / size >= 1e-6 else np.full(len(squares), 1 / len(squares))
        signs = changes.sum(axis=0)
        counts = np.where(signs >= 0, changes > 0, changes < 0)
        heard = (shares[:, None] * counts).sum(axis=0)
        np.divide(
            (changes * shares[:, None] * counts).sum(axis=0), np.maximum(heard, 1e-6), out=total, casting="unsafe"
        )
        total += block.origin
        return False


@dataclass
class Passthrough(Rule):
    """One model as it is, times `scale`."""

    scale: float | None = None

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        if len(pool.members) != 1:
            raise InputError(f"passthrough takes one model a slice; {len(pool.members)} were given")
        self.weights = np.ones(1)
        return self

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        np.multiply(block.rows[0], 1.0 if self.scale is None else self.scale, out=total)
        return False
