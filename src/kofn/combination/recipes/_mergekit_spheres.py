"""mergekit's methods that follow inner products: arcs between tensors, means on the sphere, model stock.

Each has two forms: an exact one, from inner products in float64, and for tensors that are read in half precision the
steps of mergekit 0.1.5, each rounded as there (`trace`). What remains apart is the order in which torch adds up in
float32: it depends on the processor and its threads, and a sum next to a tie then rounds to the other neighbour.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.device import weighted_sum
from kofn.combination._sweep.measures import inner
from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.replayed import (
    Progress,
    Replay,
    Rounder,
    Steps,
    Trace,
    columns_of,
    line_numbers,
)
from kofn.combination.averaging._slerp import Arc, Slerp
from kofn.combination.rules import Block, Rule
from kofn.core.arrays import Floats
from kofn.core.checks import InputError

_COLINEAR = 0.9995  # the cosine above which two tensors are interpolated along the chord
_TINY = 1e-7  # lengths below this are taken for this
_CANCEL = "multislerp: the weighted directions cancel; change the weights"
# Steps of Karcher's iteration that are followed as they are rounded: each takes three readings, which repeat the steps
# before. Tensors of up to `_SMALL` entries are followed to the end; larger ones of models so far apart are not.
_TURNS, _SMALL = 2, 1 << 16
_OPPOSITE = -1 + 2**-9  # cosines of half-precision tensors below this are -1 after rounding to bfloat16
_SINGULAR = 1e-6  # a denominator of model stock below this in size: the base is kept


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
            return Arc(1 - self.t, self.t, chord=True, opposite=both < 0)
        theta = math.acos(cosine)
        return Arc(math.sin((1 - self.t) * theta) / math.sin(theta), math.sin(self.t * theta) / math.sin(theta))


class Factors(NamedTuple):
    """The members' factors, and whether two members (or their changes) point opposite ways."""

    values: Floats
    opposite: bool = False


class GramRule(Rule):
    """A blend that is a combination of the members whose factors depend on their inner products alone."""

    from_base: bool = False  # inner products are of the changes to the base
    along_arc: ClassVar[bool] = False  # the blend lies on the arc between members, of which opposite ones have none
    stages = 1
    normalize = False

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        m = len(pool.members)
        self.weights = np.ones(m) if weights is None else np.asarray(weights, np.float64)
        self.from_base = self.from_base and pool.base is not None
        self.steps = Steps(pool)
        self.replay = Replay(self.trace, self.steps)
        return self

    def trace(self, step: Rounder, rows: list[NDArray[Any]], base: NDArray[Any] | None, size: int) -> Trace:
        """The steps of a block of half precision, of a tensor of so many entries."""
        raise NotImplementedError

    def factors(self, gram: Floats) -> Floats:
        """(m,) the factors of the members (of their changes, where `from_base`), from the (m, m) inner products."""
        raise NotImplementedError

    def scans_again(self, stage: int, state: Any) -> bool:
        return not state.complete if isinstance(state, Progress) else stage < self.stages

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        if block.span.name in self.steps:
            return self.replay.scan(part, block)
        rows = [row.astype(np.float64) for row in block.rows]
        if self.from_base:
            rows = [row - block.origin for row in rows]
        gram = np.array([[inner(a, b) if i <= j else 0.0 for j, b in enumerate(rows)] for i, a in enumerate(rows)])
        return gram if part is None else part + gram

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        noted = list(parts)
        if isinstance(noted[0], Progress):
            return self.replay.settle(state, noted)
        upper = np.sum(noted, axis=0)
        gram = upper + np.triu(upper, 1).T
        return Factors(self.factors(gram), self.along_arc and len(gram) == 2 and _opposite(gram))

    def is_opposite(self, state: Any) -> bool:
        return isinstance(state, Factors) and state.opposite

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        if block.span.name in self.steps:
            self.replay.blend(block, total)
            return False
        factors = block.state.values.tolist()
        if self.from_base:
            rest = 1 - math.fsum(factors)
            weighted_sum([block.origin, *block.rows], [rest, *factors], total, spare, None)
        else:
            weighted_sum(block.rows, factors, total, spare, None)
        return False


def _opposite(gram: Floats) -> bool:
    """Whether the two tensors of these inner products have a cosine of -1, rounding aside."""
    return bool(gram[0, 1] < 0 and gram[0, 1] ** 2 >= (1 - 1e-12) * gram[0, 0] * gram[1, 1])


@dataclass
class ModelStock(GramRule):
    """The mean of the models, drawn to the base as far as their changes are at right angles (Jang et al. 2024)."""

    from_base = True
    needs_base: ClassVar[bool] = True

    def factors(self, gram: Floats) -> Floats:
        m = len(gram)
        _refuse_fewer_than_two(m)
        cosines = cosines_of(gram[None])
        return np.full(m, float(stock_share(cosines, m)[0]) / m)

    def trace(self, step: Rounder, rows: list[NDArray[Any]], base: NDArray[Any] | None, size: int) -> Trace:
        _refuse_fewer_than_two(len(rows))
        return stock_steps(step, rows, base, size)


@dataclass
class RowwiseModelStock(Rule):
    """Model stock, with a share of its own for each row of a matrix."""

    needs_base: ClassVar[bool] = True
    whole_rows = True

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        _refuse_fewer_than_two(len(pool.members))
        self.weights = np.ones(len(pool.members))
        self.steps = Steps(pool)
        self.replay = Replay(stock_steps, self.steps, "rows")
        return self

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        if block.span.name in self.steps:
            self.replay.blend(block, total)
            return False
        changes = np.array(block.rows, np.float64) - block.origin
        m = len(changes)
        by_row = changes.reshape(m, -1, block.span.row)
        grams = np.einsum("irc,jrc->rij", by_row, by_row)
        shares = np.repeat(stock_share(cosines_of(grams), m), block.span.row)
        np.add(block.origin, shares * changes.mean(axis=0), out=total, casting="unsafe")
        return False


def stock_steps(step: Rounder, rows: list[NDArray[Any]], base: NDArray[Any] | None, _size: int) -> Trace:
    """mergekit's model stock of a block."""
    assert base is not None
    m = len(rows)
    changes = [step(row - base) for row in rows]
    pairs = [(i, j) for i in range(m) for j in range(i + 1, m)]
    sums = yield [*map(np.square, changes), *(step(changes[i] * changes[j]) for i, j in pairs)]
    norms = [step(np.sqrt(square)) for square in sums[:m]]
    cosines = [
        np.clip(step(step(product) / np.maximum(step(norms[i] * norms[j]), step(1e-6))), -1, 1)
        for product, (i, j) in zip(sums[m:], pairs, strict=True)
    ]
    cosine = step(np.mean(cosines, axis=0, dtype=np.float32))
    denominator = step(1 + step((m - 1) * cosine))
    singular = np.abs(denominator) < _SINGULAR
    share = np.where(singular, 0, step(step(m * cosine) / np.where(singular, 1, denominator)))
    average = rows[0]
    for row in rows[1:]:
        average = step(average + row)
    return step(step(share * step(average / m)) + step(step(1 - share) * base))


def _refuse_fewer_than_two(m: int) -> None:
    if m < 2:
        raise InputError("model_stock needs two models beside the base; list them")


def cosines_of(grams: Floats) -> Floats:
    """(g,) the mean cosine of two changes, from g matrices of inner products."""
    lengths = np.sqrt(np.diagonal(grams, axis1=1, axis2=2))
    products = np.maximum(lengths[:, :, None] * lengths[:, None, :], 1e-6)
    pairs = np.triu_indices(grams.shape[1], 1)
    cosines: Floats = np.clip(grams / products, -1, 1)[:, *pairs].mean(axis=1)
    return cosines


def stock_share(cosines: Floats, m: int) -> Floats:
    """How far model stock goes from the base to the mean of m models, whose changes have these mean cosines."""
    denominators = 1 + (m - 1) * cosines
    singular = np.abs(denominators) < _SINGULAR
    return np.where(singular, 0.0, m * cosines / np.where(singular, 1.0, denominators))


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

    def trace(self, step: Rounder, rows: list[NDArray[Any]], base: NDArray[Any] | None, size: int) -> Trace:
        if len(rows) == 1:
            return rows[0]
        gram = np.zeros((len(rows), len(rows)))
        upper = np.triu_indices(len(rows))
        gram[upper] = yield [rows[i] * rows[j] for i, j in zip(*upper, strict=True)]
        norms = [np.sqrt(np.float32(square)) for square in np.diag(gram)]
        units = [step(row / norm) for row, norm in zip(rows, norms, strict=True) if norm > self.tol]
        if not units:
            return np.zeros_like(rows[0])
        share = 1 / len(rows) / (len(units) * (1 / len(rows)))
        mean = np.zeros_like(rows[0])
        for unit in units:
            mean = step(mean + step(share * unit))
        (square,) = yield [np.square(mean)]
        mean = units[0] if np.sqrt(square) < self.tol else step(mean / np.sqrt(square))
        for turn in range(self.max_iter):
            if turn == _TURNS and size > _SMALL:
                factors = self.factors(gram + np.triu(gram, 1).T)
                return step(np.sum([factor * row for factor, row in zip(factors, rows, strict=True)], axis=0))
            tangent = np.zeros_like(mean)
            for unit, dot in zip(units, (yield [mean * unit for unit in units]), strict=True):
                cosine = np.clip(step(dot), -1, 1)
                theta = step(np.arccos(cosine))
                if theta >= self.tol:
                    factor = step(share * step(theta / step(np.sin(theta))))
                    tangent = step(tangent + step(factor * step(unit - step(cosine * mean))))
            (square,) = yield [np.square(tangent)]
            length = np.sqrt(square)
            if length < self.tol:
                break
            # A factor that torch is given first is rounded like the tensor; a divisor is not.
            mean = step(step(step(np.cos(length)) * mean) + step(step(np.sin(length)) * step(tangent / length)))
            (square,) = yield [np.square(mean)]
            if np.sqrt(square) > self.tol:
                mean = step(mean / np.sqrt(square))
        scale = np.float32(0)
        for norm in norms:
            scale = scale + np.float32(1 / len(rows)) * norm
        return step(step(scale) * mean)


@dataclass
class MultiSlerp(GramRule):
    """Barycentric interpolation on the sphere, from the tangent at the weighted mean of the directions."""

    divide: bool = True
    eps: float = 1e-8
    from_base = True

    def factors(self, gram: Floats) -> Floats:
        m = len(gram)
        if m == 1:
            return np.ones(1)
        whole = float(self.weights.sum()) if self.divide else 1.0
        if whole == 0:
            raise InputError(f"weights {self.weights.tolist()} sum to 0, by which multislerp divides; change them")
        weights = self.weights / whole
        lengths = np.sqrt(np.diag(gram))
        units = gram / np.outer(lengths + self.eps, lengths + self.eps)
        mean = weights.copy()
        norm = math.sqrt(max(float(mean @ units @ mean), 0.0))
        if norm < self.eps:
            if m == 2:
                return weights
            raise InputError(_CANCEL)
        mean /= norm
        dots = units @ mean
        tangent = weights - math.fsum((weights * dots).tolist()) * mean
        angle = math.sqrt(max(float(tangent @ units @ tangent), 0.0)) + self.eps
        point = mean * math.cos(angle) + tangent * (math.sin(angle) / angle)
        out: Floats = point / (lengths + self.eps) * float(lengths @ weights)
        return out

    def trace(self, step: Rounder, rows: list[NDArray[Any]], base: NDArray[Any] | None, size: int) -> Trace:
        if len(rows) == 1:
            return rows[0]
        weights = step(self.weights)
        if self.divide:
            if not (whole := step(weights.sum())):
                raise InputError(f"weights {self.weights.tolist()} sum to 0 in half precision; change them")
            weights = step(weights / whole)
        changes = [row if base is None else step(row - base) for row in rows]
        norms = [step(np.sqrt(square)) for square in (yield [np.square(change) for change in changes])]
        # eps is 0 in float16: there mergekit divides by zero where nothing changed, or all changed alike.
        lengths = [step(norm + self.eps) or np.float32(1) for norm in norms]
        units = [step(change / length) for change, length in zip(changes, lengths, strict=True)]
        mean = _summed(step, weights, units)
        (square,) = yield [np.square(mean)]
        if (norm := step(np.sqrt(square))) < self.eps:
            if len(rows) > 2:
                raise InputError(_CANCEL)
            result = _summed(step, weights, changes)
            return result if base is None else step(result + base)
        mean = step(mean / norm)
        dots = yield [step(unit * mean) for unit in units]
        tangents = [step(unit - step(step(dot) * mean)) for unit, dot in zip(units, dots, strict=True)]
        tangent = _summed(step, weights, tangents)
        (square,) = yield [np.square(tangent)]
        angle = step(step(np.sqrt(square)) + self.eps)
        ratio = step(step(np.sin(angle)) / angle) if angle else np.float32(1)
        result = step(step(mean * step(np.cos(angle))) + step(tangent * ratio))
        result = step(result * _summed(step, weights, norms))
        return result if base is None else step(result + base)


def _summed(step: Rounder, weights: NDArray[Any], values: Sequence[Any]) -> Any:
    """The weighted sum, whose products are rounded before they are added up."""
    total = step(weights[0] * values[0])
    for weight, value in zip(weights[1:], values[1:], strict=True):
        total = total + step(weight * value)
    return step(total)


@dataclass
class NuSlerp(GramRule):
    """SLERP of two models or, with a base, of their changes, at the share of the second one's weight."""

    from_base = True
    along_arc = True

    def is_opposite(self, state: Any) -> bool:
        if isinstance(state, Progress):  # its second sum is the cosine of half-precision tensors
            return bool(state.sums[1][0] < _OPPOSITE)
        return super().is_opposite(state)

    def factors(self, gram: Floats) -> Floats:
        _refuse_other_than_two(len(gram))
        return _arc(np.array([gram[0, 0], gram[1, 1], gram[0, 1]]), self.weights)

    def trace(self, step: Rounder, rows: list[NDArray[Any]], base: NDArray[Any] | None, size: int) -> Trace:
        _refuse_other_than_two(len(rows))
        return arc_steps(step, rows, base, _share(self.weights))


@dataclass
class LinewiseNuSlerp(Rule):
    """NuSLERP of each row of a matrix by itself, or of each of its `columns`."""

    columns: bool = False

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        _refuse_other_than_two(len(pool.members))
        self.weights = np.asarray(weights, np.float64)
        self.stages = int(self.columns)
        self.whole_rows = not self.columns
        self.from_base = pool.base is not None
        self.steps = Steps(pool)
        self.replay = Replay(self.trace, self.steps, "columns" if self.columns else "rows")
        return self

    def trace(self, step: Rounder, rows: list[NDArray[Any]], base: NDArray[Any] | None, size: int) -> Trace:
        return arc_steps(step, rows, base, _share(self.weights))

    def scans_again(self, stage: int, state: Any) -> bool:
        return not state.complete if isinstance(state, Progress) else stage < self.stages

    def _changes(self, block: Block) -> Floats:
        rows = np.array(block.rows, np.float64)
        return rows - block.origin if self.from_base else rows

    def _products(self, block: Block) -> Floats:
        """(3, lines) the inner products of the two changes, line by line."""
        a, b = self._changes(block)
        lines = line_numbers(block.span, columns=self.columns)
        least = columns_of(block.span) if self.columns else 0
        return np.array([np.bincount(lines, weights=x * y, minlength=least) for x, y in ((a, a), (b, b), (a, b))])

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        if block.span.name in self.steps:
            return self.replay.scan(part, block)
        products = self._products(block)
        return products if part is None else part + products

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        noted = list(parts)
        return self.replay.settle(state, noted) if isinstance(noted[0], Progress) else np.sum(noted, axis=0)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        if block.span.name in self.steps:
            self.replay.blend(block, total)
            return False
        factors = _arc(block.state if self.columns else self._products(block), self.weights)
        lines = line_numbers(block.span, columns=self.columns)
        first, second = factors[:, lines] * self._changes(block)
        np.add(first, second, out=total, casting="unsafe")
        if self.from_base:
            total += block.origin
        return False


def _refuse_other_than_two(m: int) -> None:
    if m != 2:
        raise InputError(f"nuslerp takes two models beside the base; {m} were given")


def _share(weights: Floats) -> float:
    """Where on the arc between two models their weights lie."""
    whole = float(weights.sum())
    return 0.5 if abs(whole) < 1e-6 else float(weights[1]) / whole


def arc_steps(step: Rounder, rows: list[NDArray[Any]], base: NDArray[Any] | None, t: float) -> Trace:
    """mergekit's NuSLERP of a block."""
    first, second = rows if base is None else (step(row - base) for row in rows)
    norms = [np.maximum(step(np.sqrt(square)), step(_TINY)) for square in (yield [first * first, second * second])]
    (product,) = yield [step(step(first / norms[0]) * step(second / norms[1]))]
    cosine = np.clip(step(product), -1, 1)
    straight = step(1 - step(np.square(cosine))) <= step(1e-16)
    theta = step(np.arccos(np.where(straight, 0, cosine)))
    arc = [step(step(np.sin(step(share * theta))) * row) for share, row in ((1 - t, first), (t, second))]
    chord = [step(share * row) for share, row in ((1 - t, first), (t, second))]
    result = np.where(straight, step(chord[0] + chord[1]), step(step(arc[0] + arc[1]) / step(np.sin(theta))))
    return result if base is None else step(base + result)


def _arc(products: Floats, weights: Floats) -> Floats:
    """(2, ...) the factors of two changes on their arc, from their inner products (3, ...)."""
    t = _share(weights)
    first, second = np.maximum(np.sqrt(products[:2]), _TINY)
    cosine = np.clip(products[2] / (first * second), -1, 1)
    straight = 1 - cosine**2 <= 1e-16
    theta = np.arccos(np.where(straight, 0.0, cosine))
    arc = np.sin([(1 - t) * theta, t * theta]) / np.sin(theta)
    chord = np.array([1 - t, t]).reshape(2, *[1] * theta.ndim)
    return np.where(straight, chord, arc)
