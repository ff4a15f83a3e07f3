"""Pools of rows that are read fragment by fragment: what the methods for pools larger than memory are written against.

A `Pool` knows how many rows it has before it reads one. It is cut into fragments, runs of consecutive rows, and each is
read at once. How it is cut depends on where the rows lie and on `part_rows`, never on how many workers read it, so that
picks do not either. `ArrayPool` is a pool in memory; `kofn.io.pool` opens files as one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, Protocol, runtime_checkable

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Array, Ints
from kofn.core.checks import InputError

# Bytes of vectors in a fragment where no `part_rows` is asked for.
PART_BYTES = 2**26


@dataclass(frozen=True)
class Fragment:
    """A run of consecutive rows of a pool that is read at once.

    Attributes:
        source: the file of its first row; "" in memory.
        part: which row group or slice of that source it begins in.
        first_row: number of its first row in the whole pool.
        rows: how many rows it has. They may go on into the next row groups and files where those are small.
    """

    source: str
    part: int
    first_row: int
    rows: int

    @property
    def stop(self) -> int:
        """The number of the row after its last."""
        return self.first_row + self.rows


@runtime_checkable
class Pool(Protocol):
    """Rows with vectors, numbered from 0 to n - 1, of which a fragment at a time is in memory.

    Attributes:
        n: number of rows.
        width: length of the vectors.
        dtype: float32 or float64.
        digest: of all that decides which vectors are read; of files their names, sizes and times, blocks of what they
            hold, and the columns; of arrays and frames all vectors.
    """

    @property
    def n(self) -> int: ...

    @property
    def width(self) -> int: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def digest(self) -> str: ...

    def fragments(self, part_rows: int | None = None) -> tuple[Fragment, ...]:
        """The pool as consecutive fragments of at most `part_rows` rows; by default of about 64 MiB of vectors."""

    def read(self, fragment: Fragment) -> Array:
        """The vectors of a fragment, (rows, width), finite."""

    def take(self, rows: Iterable[int] | Ints) -> Array:
        """The vectors of these rows of the pool, in the order asked."""


def is_pool(value: Any) -> bool:
    """Whether a value is a pool; nothing of it is read."""
    return all(callable(getattr(type(value), part, None)) for part in ("fragments", "read", "take"))


def as_pool(X: Any) -> Pool:
    """A pool as it is, and rows in memory as one."""
    pool: Pool = X if is_pool(X) else ArrayPool(X)
    return pool


def whole(pool: Pool) -> Array:
    """All vectors of a pool."""
    return np.concatenate([pool.read(fragment) for fragment in pool.fragments()])


def digest_of(pool: Pool) -> str:
    """The digest of all vectors of a pool, whatever holds them; one pass."""
    digest = hashlib.sha256(f"{pool.dtype} {(pool.n, pool.width)}".encode())
    for fragment in pool.fragments():
        digest.update(np.ascontiguousarray(pool.read(fragment)).data)
    return digest.hexdigest()


@dataclass(frozen=True)
class Unit:
    """Rows that lie together: a row group, a file, an array.

    Attributes:
        source: the file; "" in memory.
        part: which of the source's units it is.
        rows: how many rows it has.
    """

    source: str
    part: int
    rows: int


def joined(units: Sequence[Unit], part_rows: int) -> list[Fragment]:
    """The units in order, neighbours together while they have at most `part_rows` rows; empty ones are left out.

    Examples:
        >>> units = [Unit("a", 0, 5), Unit("a", 1, 20), Unit("b", 0, 2), Unit("c", 0, 0), Unit("d", 0, 6)]
        >>> [(f.source, f.part, f.first_row, f.rows) for f in joined(units, 8)]
        [('a', 0, 0, 5), ('a', 1, 5, 20), ('b', 0, 25, 8)]
    """
    runs: list[Fragment] = []
    first = 0
    for unit in units:
        last = runs[-1] if runs else None
        if last is not None and last.rows + unit.rows <= part_rows:
            runs[-1] = Fragment(last.source, last.part, last.first_row, last.rows + unit.rows)
        elif unit.rows:
            runs.append(Fragment(unit.source, unit.part, first, unit.rows))
        first += unit.rows
    return runs


def cut(units: Sequence[Unit], part_rows: int) -> tuple[Fragment, ...]:
    """Consecutive fragments of at most `part_rows` rows: large units in equal pieces, small neighbours together.

    Examples:
        >>> [(f.source, f.part, f.first_row, f.rows) for f in cut([Unit("a", 0, 5), Unit("b", 0, 20)], 8)]
        [('a', 0, 0, 5), ('b', 0, 5, 7), ('b', 0, 12, 7), ('b', 0, 19, 6)]
    """
    fragments: list[Fragment] = []
    for run in joined(units, part_rows):
        pieces = -(-run.rows // part_rows)
        whole, more = divmod(run.rows, pieces)
        ends = [run.first_row + whole * i + min(i, more) for i in range(pieces + 1)]
        fragments += [Fragment(run.source, run.part, start, stop - start) for start, stop in pairwise(ends)]
    return tuple(fragments)


def rows_of_part(part_rows: int | None, width: int, dtype: np.dtype[Any]) -> int:
    """`part_rows` as a checked count, or how many rows `PART_BYTES` hold."""
    if part_rows is None:
        return max(1, PART_BYTES // max(1, width * dtype.itemsize))
    return checks.count(part_rows, "part_rows")


def row_numbers(rows: Iterable[int] | Ints, n: int) -> Ints:
    """Row numbers of a pool of n rows, checked.

    Raises:
        InputError: one is no whole number, or none of 0..n - 1.
    """
    wanted = np.asarray(rows if isinstance(rows, np.ndarray) else list(rows))
    if wanted.size == 0:
        return np.zeros(0, np.int64)
    if wanted.ndim != 1 or wanted.dtype.kind not in "iu":
        raise InputError(f"rows has dtype {wanted.dtype}, shape {wanted.shape}; give a list of row numbers")
    out = (wanted < 0) | (wanted >= n)
    if out.any():
        raise InputError(f"rows names row {wanted[out][0]}; the pool has rows 0..{n - 1}")
    return wanted.astype(np.int64)


class SomeRows:
    """Some rows of a pool as a pool of their own.

    Args:
        pool: the whole.
        rows: row numbers of it, rising.

    Examples:
        >>> pool = SomeRows(ArrayPool(np.arange(10.0).reshape(5, 2)), [0, 2, 3])
        >>> [pool.read(fragment).tolist() for fragment in pool.fragments(part_rows=3)]
        [[[0.0, 1.0], [4.0, 5.0]], [[6.0, 7.0]]]
        >>> pool.n, pool.take([2, 0]).tolist()
        (3, [[6.0, 7.0], [0.0, 1.0]])
    """

    def __init__(self, pool: Pool, rows: Iterable[int] | Ints) -> None:
        self.whole = pool
        self.rows = row_numbers(rows, pool.n)
        if (np.diff(self.rows) <= 0).any():
            raise InputError("rows do not rise; sort them, each row once")

    @property
    def n(self) -> int:
        return len(self.rows)

    @property
    def width(self) -> int:
        return self.whole.width

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.whole.dtype

    @cached_property
    def digest(self) -> str:
        digest = hashlib.sha256(self.whole.digest.encode())
        digest.update(self.rows.data)
        return digest.hexdigest()

    def fragments(self, part_rows: int | None = None) -> tuple[Fragment, ...]:
        """Those of the whole, each with the rows that are left of it."""
        fragments: list[Fragment] = []
        for fragment in self.whole.fragments(part_rows):
            low, high = np.searchsorted(self.rows, (fragment.first_row, fragment.stop)).tolist()
            if low < high:
                fragments.append(Fragment(fragment.source, fragment.part, low, high - low))
        return tuple(fragments)

    def read(self, fragment: Fragment) -> Array:
        rows = self.rows[fragment.first_row : fragment.stop]
        first = int(rows[0])
        span = Fragment(fragment.source, fragment.part, first, int(rows[-1]) + 1 - first)
        return self.whole.read(span)[rows - first]

    def take(self, rows: Iterable[int] | Ints) -> Array:
        return self.whole.take(self.rows[row_numbers(rows, self.n)])


class ArrayPool:
    """A pool in memory.

    Args:
        X: (n, d) finite vectors; float32 and float64 are kept as they are.

    Raises:
        InputError: X is no finite matrix.

    Examples:
        >>> pool = ArrayPool(np.arange(10.0).reshape(5, 2))
        >>> [pool.read(fragment).sum(axis=1).tolist() for fragment in pool.fragments(part_rows=3)]
        [[1.0, 5.0, 9.0], [13.0, 17.0]]
        >>> pool.take([4, 0]).tolist()
        [[8.0, 9.0], [0.0, 1.0]]
    """

    def __init__(self, X: Any) -> None:
        self._X = checks.matrix(X)

    @property
    def n(self) -> int:
        return len(self._X)

    @property
    def width(self) -> int:
        return int(self._X.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._X.dtype

    @cached_property
    def digest(self) -> str:
        return digest_of(self)

    def fragments(self, part_rows: int | None = None) -> tuple[Fragment, ...]:
        return cut([Unit("", 0, self.n)], rows_of_part(part_rows, self.width, self.dtype))

    def read(self, fragment: Fragment) -> Array:
        return self._X[fragment.first_row : fragment.stop]

    def take(self, rows: Iterable[int] | Ints) -> Array:
        return self._X[row_numbers(rows, self.n)]
