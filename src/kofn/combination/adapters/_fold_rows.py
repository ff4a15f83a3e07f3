"""What folding an adapter does to one tensor, a few rows at a time: sums in float64, rounded once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.half_loops import BFLOAT16
from kofn.combination._sweep.low_rank_loops import SCRATCH, Factors, LowRankLoops
from kofn.combination._sweep.tensor import or_wider
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError

_BLOCK = 1 << 18  # elements: a block of half-precision weights stays in a core's own cache, before and after
_LOW = 64  # ranks up to this are added by loops of their own, which of larger ones would take most sums twice
_INFINITE = np.uint16(0x7F80)  # the exponent of infinities and NaN in bfloat16
_HALFWAY = np.uint32(0x8000 << 16)  # the lower half, moved up, of a float32 that lies between two bfloat16


class Scratch:
    """Work space of one thread, kept from block to block: fresh memory would cost more than the sums."""

    def __init__(self) -> None:
        self._held: dict[str, NDArray[np.uint8]] = {}
        self._changes: Sequence[Change] = ()
        self._factors: dict[int, tuple[Floats, Floats]] = {}
        self._product: Factors | None = None

    def begin(self, changes: Sequence[Change]) -> None:
        """Turn to the tensor with these changes; factors of another are let go."""
        if self._changes is not changes:
            self._changes, self._factors, self._product = changes, {}, None

    def factors(self, change: LowRank) -> tuple[Floats, Floats]:
        """The factors of one of the tensor's changes, computed once."""
        if id(change) not in self._factors:
            self._factors[id(change)] = change.factors()
        return self._factors[id(change)]

    def product(self, changes: Sequence[Change]) -> Factors | None:
        """The factors of the tensor's changes together, None where changes are not of low rank, or not all rows'."""
        if self._product is None:
            parts = [change for change in changes if isinstance(change, LowRank) and change.span is None]
            ranks = [self.factors(change)[0].shape[1] for change in parts]
            if not parts or len(parts) < len(changes) or sum(ranks) > _LOW:
                return None
            self._product = Factors.of([self.factors(change) for change in parts])
        return self._product

    def array(self, name: str, shape: Sequence[int], dtype: Any) -> Array:
        """An array of any content; the next call with the same name gives the same memory again."""
        nbytes = prod(shape) * np.dtype(dtype).itemsize
        buffer = self._held.get(name)
        if buffer is None or len(buffer) < nbytes:
            buffer = self._held[name] = np.empty(nbytes, np.uint8)
        return buffer[:nbytes].view(dtype).reshape(shape)


@dataclass(frozen=True)
class LowRank:
    """Adds `left @ right`, rows (rows, r) times columns (r, columns); DoRA's magnitudes then rescale the sum.

    `factors` computes left and right. Those of LoHa and LoKr are as large as the tensor, so that only the tensor at
    hand has any. With a `span` they are of these rows of the tensor only, as of one expert, or one layer of several
    that are kept in one.
    """

    factors: Callable[[], tuple[Floats, Floats]]
    magnitude: Floats | None = None
    magnitude_axis: int = 0
    span: tuple[int, int] | None = None

    @property
    def whole(self) -> bool:
        """Whether a row cannot be computed without the others: DoRA's norms along the columns."""
        return self.magnitude is not None and self.magnitude_axis == 1

    @property
    def additive(self) -> bool:
        """Whether what is added does not depend on the tensor."""
        return self.magnitude is None

    def apply(self, wide: Floats, rows: slice, scratch: Scratch) -> None:
        first, last = self.span or (rows.start, rows.stop)
        low, high = max(first, rows.start), min(last, rows.stop)
        if low >= high:
            return
        left, right = scratch.factors(self)
        start = self.span[0] if self.span else 0
        part = wide[low - rows.start : high - rows.start]
        part += np.matmul(left[low - start : high - start], right, out=scratch.array("spare", part.shape, np.float64))
        if self.magnitude is not None and self.whole:
            # The columns of a convolution are those of every input's kernel.
            inputs = wide.reshape(len(wide), len(self.magnitude), -1)
            inputs *= (self.magnitude / np.sqrt(np.square(inputs).sum((0, 2))))[:, None]
        elif self.magnitude is not None:
            wide *= (self.magnitude[rows] / np.linalg.norm(wide, axis=1))[:, None]


@dataclass(frozen=True)
class Shift:
    """Adds `weight` times an array of the tensor's own shape, such as a bias."""

    array: Array
    weight: float
    whole = False
    additive = True

    def apply(self, wide: Floats, rows: slice, scratch: Scratch) -> None:
        wide += self.weight * as_rows(self.array)[rows].astype(np.float64)


@dataclass(frozen=True)
class Trained:
    """What an adapter trained in full: an array of the tensor's shape, or the numbers of the rows it holds."""

    array: Array
    weight: float
    rows: NDArray[np.int64] | None = None

    @property
    def height(self) -> int:
        """How many rows a tensor has at least that holds all of these."""
        if self.rows is None:
            return self.array.shape[0] if self.array.ndim else 1
        return int(self.rows.max(initial=-1)) + 1

    def within(self, rows: slice) -> tuple[NDArray[np.int64], Floats]:
        """Positions among these rows of the tensor, and the values trained for them."""
        table = as_rows(self.array)
        if self.rows is None:
            known = table[rows].astype(np.float64)
            return np.arange(len(known)), known
        own = np.flatnonzero((self.rows >= rows.start) & (self.rows < rows.stop))
        return self.rows[own] - rows.start, table[own].astype(np.float64)


@dataclass(frozen=True)
class Replace:
    """Moves rows towards what adapters trained in full: `W + sum_i weight_i * (array_i - W)`; one of weight 1 is W.

    From row `known` on the base has no W; there it is the weighted mean of the arrays.
    """

    parts: tuple[Trained, ...]
    known: int
    whole = False
    additive = False

    def apply(self, wide: Floats, rows: slice, scratch: Scratch) -> None:
        if len(self.parts) == 1 and self.parts[0].weight == 1:
            positions, values = self.parts[0].within(rows)
            wide[positions] = values
            return
        origin, heard = wide.copy(), np.zeros(len(wide))
        fresh = rows.start + np.arange(len(wide)) >= self.known
        origin[fresh] = wide[fresh] = 0.0
        for part in self.parts:
            positions, values = part.within(rows)
            wide[positions] += part.weight * (values - origin[positions])
            heard[positions] += part.weight
        wide[fresh] /= heard[fresh, None]


@dataclass(frozen=True)
class Scale:
    """Multiplies by a factor."""

    factor: float
    whole = False
    additive = False

    def apply(self, wide: Floats, rows: slice, scratch: Scratch) -> None:
        wide *= self.factor


Change = LowRank | Shift | Replace | Scale
Read = Callable[[int, int], Array]


def as_rows(array: Array) -> Array:
    """The array as a matrix of its first axis by all the others; a vector is one column."""
    return array.reshape(array.shape[0] if array.ndim else 1, -1) if array.size else array.reshape(0, 1)


def row_blocks(shape: Sequence[int], changes: Sequence[Change]) -> Iterator[slice]:
    """The blocks of rows that a tensor is folded in; they depend on nothing else, so neither do its bits."""
    size = prod(shape)
    rows = (shape[0] if shape else 1) if size else 0
    if not rows:
        return
    step = rows if any(change.whole for change in changes) else max(1, _BLOCK * rows // size)
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))


def fold_rows(
    read: Read,
    name: str,
    shape: Sequence[int],
    rows: slice,
    changes: Sequence[Change],
    scratch: Scratch,
    dtype: np.dtype[Any] | None = None,
    loops: LowRankLoops | None = None,
) -> Array:
    """The folded values (flat, in scratch memory) of some rows, in `dtype` (default the tensor's own).

    `read(start, stop)` gives elements of the tensor. With and without the compiled loops the values are the same.
    """
    columns = prod(shape[1:])
    values = read(rows.start * columns, rows.stop * columns)
    dtype = values.dtype if dtype is None else dtype
    scratch.begin(changes)
    additive = all(change.additive for change in changes)
    with np.errstate(over="ignore", invalid="ignore"):
        if additive and loops is not None and values.dtype == dtype == BFLOAT16:
            folded = _added_in_loops(values, columns, changes, rows, scratch, loops)
            if folded is not None:
                return folded
        if additive:
            wide = _added_up(changes, rows, columns, scratch)
            wide += values.reshape(wide.shape)
        else:
            wide = scratch.array("sums", (rows.stop - rows.start, columns), np.float64)
            np.copyto(wide, values.reshape(wide.shape), casting="unsafe")
            for change in changes:
                change.apply(wide, rows, scratch)
        folded = rounded(wide.reshape(-1), dtype, scratch)
        if not _all_finite(folded):
            raise InputError(
                f"base: {name!r} folded is beyond the range of {folded.dtype}; "
                f"use smaller weights{or_wider(folded.dtype)}"
            )
    return folded


def _added_in_loops(
    values: Array, columns: int, changes: Sequence[Change], rows: slice, scratch: Scratch, loops: LowRankLoops
) -> Array | None:
    """The folded values by the compiled loops, None where one is not finite."""
    folded = scratch.array("narrow", values.shape, values.dtype)
    product = scratch.product(changes)
    if product is not None:
        finite = loops.fold(values, product, rows, folded, scratch.array("part", (SCRATCH,), np.uint8))
    else:
        finite = loops.add_rounded(values, _added_up(changes, rows, columns, scratch).reshape(-1), folded)
    return folded if finite else None


def _added_up(changes: Sequence[Change], rows: slice, columns: int, scratch: Scratch) -> Floats:
    """What the changes add to these rows."""
    wide: Floats = scratch.array("sums", (rows.stop - rows.start, columns), np.float64)
    first, *others = changes or (None,)
    if isinstance(first, LowRank) and first.span is None:
        left, right = scratch.factors(first)
        np.matmul(left[rows], right, out=wide)
    else:
        others = list(changes)
        wide[...] = 0.0
    for change in others:
        change.apply(wide, rows, scratch)
    return wide


def rounded(wide: Floats, dtype: np.dtype[Any], scratch: Scratch) -> Array:
    """Float64 values in `dtype`, each the nearest one, ties to even, in scratch memory.

    ml_dtypes rounds to bfloat16 by way of float32. Where that float32 is half-way between two bfloat16, in one entry of
    65,536, the float64 value may not be, and it decides.
    """
    narrow = scratch.array("narrow", wide.shape, dtype)
    with np.errstate(over="ignore"):  # infinity is the nearest
        if dtype != BFLOAT16:
            np.copyto(narrow, wide, casting="unsafe")
            return narrow
        single = scratch.array("spare", wide.shape, np.float32)
        np.copyto(single, wide, casting="unsafe")
        np.copyto(narrow, single, casting="unsafe")
    lower = single.view(np.uint32)
    np.left_shift(lower, 16, out=lower)
    halfway = np.flatnonzero(np.equal(lower, _HALFWAY, out=scratch.array("halfway", wide.shape, np.bool_)))
    if len(halfway):
        values = wide[halfway].astype(np.float32)
        through, exact = np.abs(values.astype(np.float64)), np.abs(wide[halfway])
        below = values.view(np.uint32) >> 16  # the neighbour nearer to zero
        up = (exact > through) | ((exact == through) & (below % 2 == 1))
        narrow.view(np.uint16)[halfway] = below + up
    return narrow


def _all_finite(values: Array) -> bool:
    if values.dtype == BFLOAT16:
        return bool(((values.view(np.uint16) & _INFINITE) != _INFINITE).all())  # ml_dtypes' own test is slower
    return bool(np.isfinite(values).all())
