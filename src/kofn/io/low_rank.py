"""Updates of single weights as pairs of factors, and Hadamard, Kronecker and Tucker products as such pairs.

Trainers save an update in several parametrisations. All of them are one product `scale * B @ A`, if of a larger rank:
`(B1 @ A1) * (B2 @ A2)` has the columns' and rows' products as its factors, and `kron(B1 @ A1, B2 @ A2)` is
`kron(B1, B2) @ kron(A1, A2)`. Where that rank would exceed the weight's smaller side, the update stands beside an
identity instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array, Floats


@dataclass(frozen=True, slots=True, eq=False)
class Factors:
    """B (out, r) and A (r, in) of one product, computed on each use and not kept.

    Attributes:
        rank, out, width: r, out and in.
        columns, rows: functions that compute B and A in float64.
    """

    rank: int
    out: int
    width: int
    columns: Callable[[], Floats]
    rows: Callable[[], Floats]

    def product(self) -> Floats:
        return self.columns() @ self.rows()


@dataclass(frozen=True, slots=True, eq=False)
class Pair:
    """An adapter's update of one module: `scale * B @ A`.

    `A` is (r, in) or (r, in, kernel...), `B` (out, r) or (out, r, 1...), in the adapter's dtype; `kind` is "linear",
    "embedding" (A is (r, rows), B (width, r), the table gets the transpose), "conv", "grouped conv" or "experts" (of
    several experts in one). `bias` is that of B (`lora_bias`), `magnitude` DoRA's. A pair `of` other factors than A and
    B is in float64.

    Attributes:
        into: shape of A without the rank: (in,) or (in, kernel...).
        out: rows of B.
        dtype: dtype that the adapter is saved in.
        experts: how many experts the factors are of; A is then (experts, r, in) and B (out, r, experts), flattened.
        on_inputs: whether the magnitude has one entry an input, and not one an output.
    """

    module: str
    factors: tuple[Array, Array] | Factors
    scale: float
    kind: str
    into: tuple[int, ...]
    dtype: np.dtype[Any]
    bias: Array | None = None
    magnitude: Array | None = None
    experts: int = 1
    on_inputs: bool = False

    @classmethod
    def of(
        cls,
        module: str,
        A: Array,
        B: Array,
        scale: float,
        kind: str,
        bias: Array | None = None,
        magnitude: Array | None = None,
    ) -> Pair:
        """The pair of these factors."""
        return cls(module, (A, B), scale, kind, A.shape[1:], A.dtype, bias, magnitude)

    @property
    def derived(self) -> bool:
        """Whether A and B are computed from other factors, in float64."""
        return isinstance(self.factors, Factors)

    @property
    def rank(self) -> int:
        return self.factors.rank if isinstance(self.factors, Factors) else int(self.factors[0].shape[0])

    @property
    def out(self) -> int:
        return self.factors.out if isinstance(self.factors, Factors) else int(self.factors[1].shape[0])

    @property
    def A(self) -> Array:
        if isinstance(self.factors, Factors):
            return self.factors.rows().reshape(self.rank, *self.into)
        return self.factors[0]

    @property
    def B(self) -> Array:
        if isinstance(self.factors, Factors):
            return self.factors.columns().reshape(self.out, self.rank, *(1,) * (len(self.into) - 1))
        return self.factors[1]

    def rows(self) -> Array:
        """A as a matrix (r, in)."""
        return self.A.reshape(self.rank, -1)

    def columns(self) -> Array:
        """B as a matrix (out, r)."""
        return self.B.reshape(self.out, -1)

    def delta(self) -> NDArray[np.float64]:
        """The product `scale * B @ A` (out, in) in float64; a convolution's kernel is flattened into `in`."""
        product: NDArray[np.float64] = self.columns().astype(np.float64) @ self.rows().astype(np.float64)
        return product * self.scale

    def with_scale(self, scale: float) -> Pair:
        return replace(self, scale=scale)

    def shaped(self, into: tuple[int, ...]) -> Pair:
        """The same update of a layer of another shape: a linear one (in,), or a convolution (in, kernel...)."""
        kind = "linear" if len(into) == 1 else "conv"
        if isinstance(self.factors, Factors):
            return replace(self, into=into, kind=kind)
        A = self.A.reshape(self.rank, *into)
        B = self.B.reshape(self.out, self.rank, *(1,) * (len(into) - 1))
        return replace(self, factors=(A, B), into=into, kind=kind)

    def named(self, module: str) -> Pair:
        """The same update of a module of this name."""
        return replace(self, module=module)


def plain(columns: Array, rows: Array) -> Factors:
    """Factors B (out, r) and A (r, in) as they are; further axes of A are flattened into `in`."""
    width = math.prod(rows.shape[1:])
    return Factors(
        rows.shape[0],
        columns.shape[0],
        width,
        lambda: columns.reshape(len(columns), -1).astype(np.float64),
        lambda: rows.reshape(len(rows), width).astype(np.float64),
    )


def dense(out: int, width: int, product: Callable[[], Floats]) -> Factors:
    """A matrix (out, in) as a product of itself and the identity of its smaller side."""
    if out <= width:
        return Factors(out, out, width, lambda: np.eye(out), product)
    return Factors(width, out, width, product, lambda: np.eye(width))


def block(matrix: Array) -> Factors:
    """A stored matrix (out, in, ...) as factors; further axes are flattened into `in`."""
    width = math.prod(matrix.shape[1:])
    return dense(matrix.shape[0], width, lambda: matrix.reshape(-1, width).astype(np.float64))


def tucker(core: Array, columns: Array, rows: Array) -> Factors:
    """`sum_ij columns[p, i] core[i, j, k...] rows[j, q]` as factors (out, i) and (i, in * k...)."""
    kernel = core.shape[2:]

    def contracted() -> Floats:
        joined = np.tensordot(core.astype(np.float64), rows.astype(np.float64), (1, 0))  # (i, k..., q)
        return np.moveaxis(joined, -1, 1).reshape(len(core), -1)

    return Factors(
        core.shape[0],
        columns.shape[0],
        rows.shape[1] * math.prod(kernel),
        lambda: columns.astype(np.float64),
        contracted,
    )


def hadamard(first: Factors, second: Factors) -> Factors:
    """The entrywise product of two updates: every column (and row) of the one times every one of the other."""
    rank, out, width = first.rank * second.rank, first.out, first.width
    if rank > min(out, width):
        return dense(out, width, lambda: first.product() * second.product())
    return Factors(
        rank,
        out,
        width,
        lambda: (first.columns()[:, :, None] * second.columns()[:, None, :]).reshape(out, rank),
        lambda: (first.rows()[:, None, :] * second.rows()[None, :, :]).reshape(rank, width),
    )


def kronecker(first: Factors, second: Factors) -> Factors:
    """The Kronecker product of two updates, by those of their factors."""
    rank, out, width = first.rank * second.rank, first.out * second.out, first.width * second.width
    if rank > min(out, width):
        return dense(out, width, lambda: _kron(first.product(), second.product()))
    return Factors(
        rank,
        out,
        width,
        lambda: _kron(first.columns(), second.columns()),
        lambda: _kron(first.rows(), second.rows()),
    )


def _kron(first: Floats, second: Floats) -> Floats:
    product: Floats = np.kron(first, second).astype(np.float64, copy=False)
    return product
