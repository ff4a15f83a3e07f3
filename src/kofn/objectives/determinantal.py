"""Log-determinant objectives."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.objective import Objective
from kofn.objectives._determinantal_kernels import Kernel, kernel_of

# Residuals are stored every so many picks; later picks are recomputed at each evaluation.
_STRIDE = 16
# Rows brought up to date in one matrix product: bounds the scratch.
_AT_ONCE = 4096
# How many leading items are followed pick by pick.
_LEADING = 1024
# From this ratio of the largest diagonal entry to the shift on, squares that cancel would cost digits that matter.
_STEEP = 1e4


class LogDeterminant(Objective):
    """f(S) = log det(shift I + L_S) for a positive semi-definite kernel L, with f of the empty set 0: submodular.

    With the default shift 1 it is also monotone: the information of the picks about a Gaussian process observed with
    unit noise. With shift 0 its maximiser is the most likely set (MAP) of the determinantal point process with kernel
    L; it is then not monotone, since an item with a residual below 1 lowers it.

    Args:
        X: vectors (n, d); computed with in float64. With "linear" and "cosine" SciPy-sparse rows too, which are never
            made dense.
        similarity: (n, n) symmetric positive semi-definite, dense or SciPy-sparse. Instead of X.
        kernel: "linear" (inner products), "rbf" (exp(-|x - y|^2 / (2 scale^2))) or "cosine" ((1 + cos) / 2; zero
            rows share one extra direction, orthogonal to all others).
        scale: the width of "rbf", default the root mean squared distance between two rows.
        shift: added to the diagonal, >= 0.

    Attributes:
        submodular: always. `monotone`: True from shift 1 on.
        tolerance: the largest error of the leading gains now, against `exact_gains`.
        calls: residual updates so far.

    Raises:
        InputError: not exactly one of X and similarity, bad values, a matrix that is not symmetric or not positive
            semi-definite (found at once up to 2,048 items, else when a pick shows it).

    Low rank: picks beyond the rank of L gain log(shift) each. With shift 0 their gain, and the value of a set that
    holds one, is -inf, never NaN; an item counts as spanned by the picks where its residual is within rounding of 0.

    Costs: an item's residual is only extended by what was picked since it was last looked at, in matrix products.
    Linear and cosine kernels extend by inner products with t orthogonal rows, O(d) a pick and O((n + k) d) memory;
    other kernels, and sparse rows, by a row of the Cholesky factor, O(d + k) a pick and up to O(n k) memory, twice that
    while it grows.
    `best` follows the few leading items pick by pick and looks at the rest when it must: a greedy run through it brings
    a few percent of the n k residuals up to date.

    What is exact: near-ties are settled by `exact_gains`, whose bits depend on the item's entries alone, so that equal
    items tie and the lowest index wins.

    References:
        Chen, Zhang, Zhou, "Fast greedy MAP inference for determinantal point process", NeurIPS 2018.
        Minoux, "Accelerated greedy algorithms for maximizing submodular set functions", 1978.
        Kulesza, Taskar, "Determinantal point processes for machine learning", 2012.

    Examples:
        >>> f = LogDeterminant(np.array([[3.0, 0.0], [2.9, 0.1], [0.0, 2.0]]))
        >>> f.gains(np.arange(3)).argmax()
        np.int64(0)
        >>> round(f.add(0), 4), f.best(np.array([False, True, True]))
        (2.3026, 2)
        >>> round(f.value(np.array([0, 2])), 4)  # log(10) + log(5)
        3.912
    """

    name = "log_determinant"
    n: int
    submodular = True
    # `best` looks at few items; see there.
    finds_best = True
    calls = 0

    def __init__(
        self,
        X: Any = None,
        *,
        similarity: Any = None,
        kernel: str = "linear",
        scale: float | None = None,
        shift: float = 1.0,
    ) -> None:
        self._start(kernel_of(X, similarity, kernel, scale), shift)

    def _start(self, kernel: Kernel, shift: Any) -> None:
        self.shift = float(checks.number(shift, "shift"))
        self.kernel = kernel
        self.n = kernel.n
        self._most = max(float(kernel.diagonal.max()), 1e-300)
        self._rows: Floats | None = kernel.features
        self._width = 0 if self._rows is None else self._rows.shape[1]
        self._steep = self._rows is not None and self._most > _STEEP * self.shift
        # The picks that span something new, and their orthogonal rows (or rows of the Cholesky factor). Row i of the
        # pool is thought of with sqrt(shift) in a coordinate of its own; `_own` holds the orthogonal rows there.
        self._basis: list[int] = []
        self._factor = np.empty((0, self._width))
        self._own = np.empty((0, 0))
        self._residual = kernel.diagonal.copy()
        self._seen = np.zeros(self.n, np.int64)
        self._columns = np.empty((self.n, 0))
        self._top = 0.0
        # The items that lead, followed pick by pick: their rows, residuals as of `_hot_seen` picks, and a bound on all
        # others' residuals.
        self._hot = np.empty(0, np.int64)
        self._hot_rows = np.empty((0, 0))
        self._hot_residual = np.empty(0)
        self._hot_seen = 0
        self._rest = math.inf

    @property
    def monotone(self) -> bool:
        """Whether no item ever lowers f: from shift 1 on."""
        return self.shift >= 1

    @property
    def _error(self) -> float:
        """A bound on the rounding of a residual."""
        size = len(self._basis)
        summed = 4 * (self._width + size + 16) * 2.0**-53 * (self._most + self.shift)
        return summed + (0.0 if self._width else 4 * (1 + math.sqrt(size)) * self.kernel.rounding)

    @property
    def tolerance(self) -> float:
        """The largest error of the leading gains, those that could be the best, against `exact_gains`."""
        leading = self.shift + self._top
        return 0.0 if leading <= self._error else 2 * self._error / leading

    def _worth(self, residual: Floats) -> Floats:
        """Gains from residuals."""
        if residual.min(initial=0.0) < -1e-7 * self._most:
            raise InputError(
                f"the kernel is not positive semi-definite: given the picks, an item has variance {residual.min():g}; "
                "give inner products or exp(-distance^2), or raise shift"
            )
        if self.shift > 0:
            return np.log(self.shift + np.maximum(residual, 0.0))
        with np.errstate(divide="ignore"):
            return np.log(np.where(residual <= self._error, 0.0, residual))

    def gains(self, candidates: Any) -> Floats:
        """log(shift + residual) of each candidate given the picks, within `tolerance`."""
        residual = self._now(np.asarray(candidates, np.int64))
        self._top = max(self._top, float(residual.max(initial=0.0)))
        return self._worth(residual)

    def exact_gains(self, candidates: Any) -> Floats:
        """Gains whose bits depend on the candidate's own entries and the picks alone. O(t d), or O(t^2 + t d), each."""
        candidates = np.asarray(candidates, np.int64)
        if not self._basis:
            return self._worth(self.kernel.diagonal[candidates])
        return self._worth(np.array([self._exact(item)[1] for item in candidates.tolist()]))

    def add(self, item: int) -> float:
        """Commit a pick; returns its exact gain. O(t d), or O(t^2 + t d)."""
        item = int(item)
        row, residual, rest = self._exact(item)
        gain = float(self._worth(np.array([residual]))[0])
        self._top = 0.0
        if gain == -math.inf:
            # It spans nothing new, so that nobody's residual changes.
            return gain
        size, pivot = len(self._basis), math.sqrt(self.shift + max(residual, 0.0))
        if size == len(self._factor):
            self._grow(2 * size or _STRIDE)
        if self._rows is None:
            self._factor[size, :size], self._factor[size, size] = row, pivot
        else:
            if not self._steep:
                rest = self._rows[item] - np.einsum("ij,i->j", self._factor[:size], row)
            self._factor[size] = rest[: self._width] / pivot
            if self._steep:
                self._own[size, :size] = rest[self._width :] / pivot
                self._own[size, size] = math.sqrt(self.shift) / pivot
        self._basis.append(item)
        return gain

    def value(self, indices: Any) -> float:
        """f of a set from scratch, in float64, sharing nothing with the other methods. O(m^2 (m + d))."""
        picks = np.asarray(indices, np.int64)
        if not len(picks):
            return 0.0
        if self._rows is not None:
            # The squares of a triangular factor, without forming the products that would cost half the digits.
            tall = np.vstack([self._rows[picks].T, math.sqrt(self.shift) * np.eye(len(picks))])
            triangle: NDArray[Any] = np.asarray(np.linalg.qr(tall, mode="r"))
            pivots = triangle.diagonal() ** 2
        else:
            matrix = self.kernel.block(picks, picks)
            matrix[np.diag_indices_from(matrix)] = self.kernel.diagonal[picks] + self.shift
            pivots = np.linalg.eigvalsh((matrix + matrix.T) / 2)
        if self.shift == 0 and pivots.min() <= self._error:
            return -math.inf
        return math.fsum(np.log(pivots).tolist())

    def best(self, open_items: NDArray[np.bool_]) -> int:
        """The open item with the largest gain, the lowest index in a tie: what `exact_gains` of all would say.

        Leading items are followed pick by pick. While one of them is ahead of every bound on the others, those others
        are not looked at. Items that were closed once must stay closed.
        """
        self._follow()
        if len(self._hot) > _LEADING:
            # Ties made the front wide; by now they may be broken.
            self._lead(open_items)
        while True:
            ahead = np.where(open_items[self._hot], self._hot_residual, -math.inf)
            best = float(ahead.max(initial=-math.inf))
            if best - 2 * self._error > self._rest or self._rest == -math.inf:
                return self._settle(self._hot[ahead >= best - 2 * self._error])
            self._lead(open_items)

    def ceilings(self) -> Floats:
        """(n,) upper bounds on all current gains, without updating any residual."""
        self._put_back()
        return self._worth(np.maximum(self._residual, 0.0) + self._error)

    def _settle(self, rivals: Ints) -> int:
        rivals = np.sort(rivals)
        if len(rivals) > 1 and self._rows is not None:
            rivals = rivals[np.unique(checks.first_equal(self._rows[rivals]))]
        if len(rivals) == 1:
            return int(rivals[0])
        return int(rivals[int(np.argmax(self.exact_gains(rivals)))])

    def _follow(self) -> None:
        """Update the residuals of the leading items."""
        for step in range(self._hot_seen, len(self._basis) if len(self._hot) else 0):
            if self._rows is not None:
                new = self._hot_rows @ self._factor[step]
            else:
                entries = self.kernel.block(self._hot, np.array([self._basis[step]], np.int64))[:, 0]
                if step == self._hot_rows.shape[1]:
                    self._hot_rows = _wider(self._hot_rows, step + _STRIDE)
                new = entries - self._hot_rows[:, :step] @ self._factor[step, :step]
                new /= self._factor[step, step]
                self._hot_rows[:, step] = new
            new *= new
            self._hot_residual -= new
        self.calls += len(self._hot) * (len(self._basis) - self._hot_seen)
        self._hot_seen = len(self._basis)

    def _put_back(self) -> None:
        """Store the state of the leading items."""
        self._residual[self._hot] = self._hot_residual
        if self._rows is None and len(self._hot):
            self._columns[self._hot, : self._hot_seen] = self._hot_rows[:, : self._hot_seen]
        self._seen[self._hot] = self._hot_seen

    def _lead(self, open_items: NDArray[np.bool_]) -> None:
        """Re-select the leading items: update every possible best item, then keep the front."""
        self._put_back()
        size = len(self._basis)
        ceiling = np.where(open_items, self._residual, -math.inf)
        count = min(_LEADING, int(open_items.sum()))
        while True:
            # Of those in front, some are known as of now; the others are brought up to date, and the front is new.
            front = np.argpartition(-ceiling, count - 1)[:count] if count < self.n else np.arange(self.n)
            front = front[open_items[front]]
            late = front[self._seen[front] < size]
            if len(late):
                self._extend(late, size)
                ceiling[late] = self._residual[late]
            best = float(ceiling[front].max())
            outside = ceiling.copy()
            outside[front] = -math.inf
            rest = float(outside.max())
            if best - 2 * self._error > rest or rest == -math.inf:
                break
            if len(late) < len(front) // 2:
                # The front is settled and there are still ties outside: it is too narrow.
                count = min(2 * count, int(open_items.sum()))
        self._hot, self._rest = front, rest
        self._hot_residual = self._residual[front]
        self._hot_seen = size
        self._hot_rows = self._rows[front] if self._rows is not None else self._columns[front, :size]

    def _now(self, items: Ints) -> Floats:
        """Residuals of the items given all picks."""
        self._put_back()
        self._hot, self._hot_residual, self._rest = self._hot[:0], self._hot_residual[:0], math.inf
        self._hot_rows = self._hot_rows[:0]
        size = len(self._basis)
        self._extend(items, size - size % _STRIDE)
        out = self._residual[items]
        known = self._seen[items]
        for positions, begin in _alike(known, size):
            new = self._new(items[positions], begin, size)
            out[positions] -= _squares_since(new, known[positions] - begin)
        self.calls += len(items)
        return out

    def _extend(self, items: Ints, until: int) -> None:
        """Bring what is kept of some items up to the first `until` picks."""
        known = self._seen[items]
        for positions, begin in _alike(known, until):
            batch = items[positions]
            new = self._new(batch, begin, until)
            if self._rows is None:
                self._columns[batch, begin:until] = new
            self._residual[batch] -= _squares_since(new, known[positions] - begin)
        self._seen[items] = np.maximum(known, until)
        self.calls += int((known < until).sum())

    def _new(self, items: Ints, begin: int, until: int) -> Floats:
        """(items, until - begin) coordinates of some items along what those picks added."""
        if self._rows is not None:
            out: Floats = self._rows[items] @ self._factor[begin:until].T
            return out
        from scipy.linalg import solve_triangular

        out = self.kernel.block(items, np.array(self._basis[begin:until], np.int64))
        if begin:
            out -= self._columns[items, :begin] @ self._factor[begin:until, :begin].T
        corner = self._factor[begin:until, begin:until]
        solved: Floats = solve_triangular(corner, out.T, lower=True, overwrite_b=True, check_finite=False).T
        return solved

    def _exact(self, item: int) -> tuple[Floats, float, Floats]:
        """One item's coordinates along the picks, its residual, and (where steep) what is left of its row, each in an
        order of operations that is the item's own."""
        size = len(self._basis)
        if self._rows is None:
            row = self.kernel.entries(item, np.array(self._basis, np.int64))
            if size:
                from scipy.linalg import solve_triangular

                row = solve_triangular(self._factor[:size, :size], row, lower=True, check_finite=False)
            return row, float(self.kernel.diagonal[item] - (row * row).sum()), row
        factor, rest = self._factor[:size], self._rows[item]
        row = np.einsum("ij,j->i", factor, rest)
        if not self._steep:
            return row, float(self.kernel.diagonal[item] - (row * row).sum()), rest
        # The distance to what the picks span, squared at the end; twice, since one pass leaves a rounded remainder.
        own = self._own[:size, :size]
        rest = np.append(rest - np.einsum("ij,i->j", factor, row), -np.einsum("ij,i->j", own, row))
        more = np.einsum("ij,j->i", factor, rest[: self._width]) + np.einsum("ij,j->i", own, rest[self._width :])
        rest[: self._width] -= np.einsum("ij,i->j", factor, more)
        rest[self._width :] -= np.einsum("ij,i->j", own, more)
        return row + more, float((rest * rest).sum()), rest

    def _grow(self, rows: int) -> None:
        size = len(self._basis)
        factor = np.zeros((rows, self._width if self._rows is not None else rows))
        factor[:size, : self._factor.shape[1]] = self._factor[:size]
        self._factor = factor
        if self._steep:
            own = np.zeros((rows, rows))
            own[:size, :size] = self._own[:size, :size]
            self._own = own
        if self._rows is None:
            self._columns = _wider(self._columns, rows)


def _alike(known: Ints, until: int) -> Iterator[tuple[Ints, int]]:
    """Items that were seen up to about the same pick, as positions with the earliest of those picks.

    What they lack differs by a factor of two at most, so that few matrix products do for all.
    """
    lacks = until - known
    late = np.flatnonzero(lacks > 0)
    size = np.frexp(lacks[late].astype(np.float64))[1]
    for exponent in np.unique(size).tolist():
        group = late[size == exponent]
        for low in range(0, len(group), _AT_ONCE):
            positions = group[low : low + _AT_ONCE]
            yield positions, int(known[positions].min())


def _squares_since(new: Floats, skip: Ints) -> Floats:
    """Summed squares of each row from its own column on; overwrites the columns before."""
    if skip.any():
        new[np.arange(new.shape[1]) < skip[:, None]] = 0.0
    out: Floats = np.einsum("ij,ij->i", new, new)
    return out


def _wider(table: Floats, columns: int) -> Floats:
    out = np.empty((len(table), columns))
    out[:, : table.shape[1]] = table
    return out
