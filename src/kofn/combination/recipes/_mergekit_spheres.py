"""mergekit's methods that follow inner products: arcs between tensors, means on the sphere, model stock."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.device import weighted_sum
from kofn.combination._sweep.measures import inner
from kofn.combination._sweep.members import Pool
from kofn.combination.averaging._slerp import Slerp
from kofn.combination.rules import Block, Rule
from kofn.core.arrays import Floats
from kofn.core.checks import InputError

_COLINEAR = 0.9995  # the cosine above which two tensors are interpolated along the chord
_TINY = 1e-7  # lengths below this are taken for this
_SINGULAR = 1e-6  # a denominator of model stock below this in size: the base is kept


@dataclass
class SphericalLinear(Slerp):
    """SLERP with mergekit's thresholds: tensors of a cosine above 0.9995 in size are interpolated along the chord."""

    t: float = 0.5

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        self.weights = np.array([1 - self.t, self.t])
        return self

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        first, second, both, size = (math.fsum(column) for column in np.array(list(parts)).T.tolist())
        # A tensor of (nearly) zeros is not brought to unit length.
        lengths = [math.sqrt(square) if math.sqrt(square) > 1e-8 else 1.0 for square in (first, second)]
        cosine = both / (lengths[0] * lengths[1])
        if abs(cosine) > _COLINEAR:
            self.opposites += both < 0 and size > 1
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
        _refuse_fewer_than_two(m)
        cosines = cosines_of(gram[None])
        return np.full(m, float(stock_share(cosines, m)[0]) / m)


@dataclass
class RowwiseModelStock(Rule):
    """Model stock, with a share of its own for each row of a matrix."""

    needs_base: ClassVar[bool] = True
    whole_rows = True

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        _refuse_fewer_than_two(len(pool.members))
        self.weights = np.ones(len(pool.members))
        return self

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        changes = np.array(block.rows, np.float64) - block.origin
        m = len(changes)
        by_row = changes.reshape(m, -1, block.span.row)
        grams = np.einsum("irc,jrc->rij", by_row, by_row)
        shares = np.repeat(stock_share(cosines_of(grams), m), block.span.row)
        np.add(block.origin, shares * changes.mean(axis=0), out=total, casting="unsafe")
        return False


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
            raise InputError("multislerp: the weighted directions cancel; change the weights")
        mean /= norm
        dots = units @ mean
        tangent = weights - math.fsum((weights * dots).tolist()) * mean
        angle = math.sqrt(max(float(tangent @ units @ tangent), 0.0)) + self.eps
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
        return _arc(np.array([gram[0, 0], gram[1, 1], gram[0, 1]]), self.weights)


@dataclass
class LinewiseNuSlerp(Rule):
    """NuSLERP of each row of a matrix by itself, or of each of its `columns`."""

    columns: bool = False

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        if len(pool.members) != 2:
            raise InputError(f"nuslerp takes two models beside the base; {len(pool.members)} were given")
        self.weights = np.asarray(weights, np.float64)
        self.stages = int(self.columns)
        self.whole_rows = not self.columns
        self.from_base = pool.base is not None
        return self

    def _changes(self, block: Block) -> Floats:
        rows = np.array(block.rows, np.float64)
        return rows - block.origin if self.from_base else rows

    def _lines(self, block: Block) -> NDArray[np.int64]:
        """The number of each entry's line."""
        entries = np.arange(block.span.start, block.span.stop)
        if not self.columns:
            return (entries - block.span.start) // block.span.row
        shape = block.span.shape
        return entries % (math.prod(shape[1:]) if len(shape) > 1 else 1)

    def _products(self, block: Block) -> Floats:
        """(3, lines) the inner products of the two changes, line by line."""
        a, b = self._changes(block)
        lines = self._lines(block)
        least = math.prod(block.span.shape[1:]) if self.columns else 0
        return np.array([np.bincount(lines, weights=x * y, minlength=least) for x, y in ((a, a), (b, b), (a, b))])

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        products = self._products(block)
        return products if part is None else part + products

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        return np.sum(list(parts), axis=0)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        factors = _arc(block.state if self.columns else self._products(block), self.weights)
        first, second = factors[:, self._lines(block)] * self._changes(block)
        np.add(first, second, out=total, casting="unsafe")
        if self.from_base:
            total += block.origin
        return False


def _arc(products: Floats, weights: Floats) -> Floats:
    """(2, ...) the factors of two changes on their arc, from their inner products (3, ...)."""
    whole = float(weights.sum())
    t = 0.5 if abs(whole) < 1e-6 else float(weights[1]) / whole
    first, second = np.maximum(np.sqrt(products[:2]), _TINY)
    cosine = np.clip(products[2] / (first * second), -1, 1)
    straight = 1 - cosine**2 <= 1e-16
    theta = np.arccos(np.where(straight, 0.0, cosine))
    arc = np.sin([(1 - t) * theta, t * theta]) / np.sin(theta)
    chord = np.array([1 - t, t]).reshape(2, *[1] * theta.ndim)
    return np.where(straight, chord, arc)
