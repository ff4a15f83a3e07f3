"""Positive semi-definite kernels over a pool: fast blocks for screening, and entries whose bits do not depend on how
many were asked for."""

from __future__ import annotations

import math
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.objectives.similarity import geometry, refuse_extremes

KERNELS = ("linear", "rbf", "cosine")
# Up to this size a given matrix is checked for semi-definiteness by a factorisation; beyond, during the picks.
_FACTORISED = 2048
_EPS = 2.0**-53


class Kernel(Protocol):
    """A symmetric positive semi-definite (n, n) matrix that is never stored."""

    n: int
    diagonal: Floats
    # How far an entry of a block may be from the same entry taken alone.
    rounding: float
    # Rows (n, d) with L = F F^T, where the kernel has few dimensions.
    features: Floats | None

    def block(self, rows: Ints, columns: Ints) -> Floats:
        """(rows, columns) entries by the fastest way."""
        ...

    def entries(self, item: int, others: Ints) -> Floats:
        """Entries of one item with some others, each as if it were alone: equal items have equal bits."""
        ...

    def cross(self, points: NDArray[Any]) -> tuple[Floats, Floats]:
        """(n, q) entries between the pool and other points, and (q, q) between those."""
        ...


class Linear:
    """L = F F^T: inner products of the rows, or of their directions."""

    def __init__(self, features: Floats, dimensions: int, *, cosine: bool) -> None:
        self.features: Floats | None = features
        self._rows = features
        refuse_extremes(features, small=False)
        self._dimensions, self._cosine = dimensions, cosine
        self.n = len(features)
        # Directions have length 1, which rounding would break ties by.
        self.diagonal = np.ones(self.n) if cosine else np.einsum("ij,ij->i", features, features)
        self.rounding = (features.shape[1] + 8) * _EPS * float(self.diagonal.max())

    def block(self, rows: Ints, columns: Ints) -> Floats:
        """(rows, columns) entries."""
        out: Floats = self._rows[rows] @ self._rows[columns].T
        return out

    def entries(self, item: int, others: Ints) -> Floats:
        """Entries of one item with some others."""
        out: Floats = np.einsum("ij,j->i", self._rows[others], self._rows[item])
        return out

    def rows_with(self, points: NDArray[Any]) -> tuple[Floats, Floats]:
        """The features of the pool and of other points."""
        same_width(points, self._dimensions)
        if not self._cosine:
            refuse_extremes(points, "queries or private", small=False)
        return self._rows, directions(points) if self._cosine else points.astype(np.float64)

    def cross(self, points: NDArray[Any]) -> tuple[Floats, Floats]:
        """Entries with other points."""
        _, others = self.rows_with(points)
        # One point at a time, so that equal items have equal bits.
        toward = [np.einsum("ij,j->i", self._rows, other) for other in others]
        return np.stack(toward, axis=1), others @ others.T


class SparseLinear:
    """L = F F^T of SciPy-sparse rows, or of their directions: (1 + cos) / 2. The rows are never made dense."""

    features: Floats | None = None

    def __init__(self, X: Any, *, cosine: bool) -> None:
        self._cosine, self._dimensions = cosine, int(X.shape[1])
        if not cosine and X.nnz:
            refuse_extremes(X.data, small=False)
        self._rows = sparse_directions(X) if cosine else X.astype(np.float64)
        self.n = int(X.shape[0])
        squares = np.asarray(self._rows.multiply(self._rows).sum(axis=1)).ravel()
        self.diagonal = np.ones(self.n) if cosine else squares
        longest = int(np.diff(self._rows.indptr).max())
        self.rounding = (longest + 8) * _EPS * float(self.diagonal.max())

    def block(self, rows: Ints, columns: Ints) -> Floats:
        """(rows, columns) entries."""
        out: Floats = (self._rows[rows] @ self._rows[columns].T).toarray()
        return out

    def entries(self, item: int, others: Ints) -> Floats:
        """Entries of one item with some others, each summed in the order of its own columns."""
        out: Floats = self._rows[others] @ self._rows[[item]].toarray()[0]
        return out

    def cross(self, points: Any) -> tuple[Floats, Floats]:
        """Entries with other points, dense or sparse."""
        same_width(points, self._dimensions)
        others = points if checks.is_sparse(points) else _sparse(points)
        others = sparse_directions(others) if self._cosine else others.astype(np.float64)
        toward = [self._rows @ others[[point]].toarray()[0] for point in range(others.shape[0])]
        return np.stack(toward, axis=1), (others @ others.T).toarray()


class Radial:
    """L_ij = exp(-|x_i - x_j|^2 / (2 scale^2))."""

    features: Floats | None = None

    def __init__(self, X: NDArray[Any], scale: float) -> None:
        # Distances do not change when the pool is centred, and squares of centred rows cancel less.
        self._centre = X.mean(axis=0, dtype=np.float64)
        self._rows = X - self._centre
        self._squares = np.einsum("ij,ij->i", self._rows, self._rows)
        self._unit = -0.5 / scale / scale
        self.n = len(X)
        self.diagonal = np.ones(self.n)
        # Squares of rows far from the centre cancel where those rows are near each other.
        self.rounding = _EPS * (8 - 4 * (X.shape[1] + 8) * float(self._squares.max()) * self._unit)

    def block(self, rows: Ints, columns: Ints) -> Floats:
        """(rows, columns) entries."""
        return self._near(self._rows[rows], self._squares[rows], self._rows[columns], self._squares[columns])

    def _near(self, a: Floats, a_squares: Floats, b: Floats, b_squares: Floats) -> Floats:
        out: Floats = a @ b.T
        out *= -2
        out += a_squares[:, None]
        out += b_squares
        np.maximum(out, 0, out=out)
        out *= self._unit
        return np.exp(out, out=out)

    def entries(self, item: int, others: Ints) -> Floats:
        """Entries of one item with some others, from differences."""
        gap = self._rows[others] - self._rows[item]
        return np.exp(self._unit * np.einsum("ij,ij->i", gap, gap))

    def cross(self, points: NDArray[Any]) -> tuple[Floats, Floats]:
        """Entries with other points."""
        same_width(points, self._rows.shape[1])
        others = points - self._centre
        squares = np.einsum("ij,ij->i", others, others)
        within = self._near(others, squares, others, squares)
        np.fill_diagonal(within, 1.0)
        toward = []
        for other in others:
            gap = self._rows - other
            toward.append(np.exp(self._unit * np.einsum("ij,ij->i", gap, gap)))
        return np.stack(toward, axis=1), within


class Given:
    """A given matrix, dense or SciPy-sparse."""

    features: Floats | None = None
    rounding = 0.0

    def __init__(self, similarity: Any) -> None:
        matrix = checks.square(similarity, "similarity", nonnegative=False)
        self.n = int(matrix.shape[0])
        self._matrix = matrix.tocsr() if checks.is_sparse(matrix) else matrix
        self.diagonal = np.asarray(matrix.diagonal(), np.float64).copy()
        _refuse_asymmetric(matrix)
        self._refuse_indefinite()

    def _refuse_indefinite(self) -> None:
        if self.diagonal.min() < 0:
            row = int(self.diagonal.argmin())
            raise InputError(
                f"similarity at row {row}, column {row} is {self.diagonal[row]:g}; a positive semi-definite matrix "
                "has a diagonal >= 0"
            )
        if self.n > _FACTORISED:
            return
        dense = self._matrix.toarray() if checks.is_sparse(self._matrix) else self._matrix
        least = float(np.linalg.eigvalsh(dense.astype(np.float64))[0])
        if least < -1e-8 * max(float(self.diagonal.sum()), 1e-300):
            raise InputError(
                f"similarity is not positive semi-definite: its smallest eigenvalue is {least:g}; give a kernel "
                "(inner products, exp(-distance^2)), or add that much to its diagonal"
            )

    def block(self, rows: Ints, columns: Ints) -> Floats:
        """(rows, columns) entries."""
        if checks.is_sparse(self._matrix):
            out: Floats = self._matrix[rows][:, columns].toarray().astype(np.float64)
            return out
        return self._matrix[np.ix_(rows, columns)].astype(np.float64)

    def entries(self, item: int, others: Ints) -> Floats:
        """Entries of one item with some others."""
        return self.block(np.array([item], np.int64), others)[0]

    def cross(self, points: NDArray[Any]) -> tuple[Floats, Floats]:  # noqa: ARG002
        """Refused: a given matrix has no entries with other points."""
        raise InputError("queries and private sets are compared with X; give X, not similarity")


def conditioned(kernel: Kernel, points: NDArray[Any], strength: float, shift: float) -> Kernel:
    """A kernel conditioned on other points, by its features where it has them: subtracting would cost half the digits.

    With L = F F^T and points of features Q = U S V^T, what is left is F (I - V V^T + V W V^T) F^T with
    W = (shift + (1 - strength^2) S^2) / (shift + S^2).
    """
    if not isinstance(kernel, Linear) or shift <= 0:
        return Conditioned(kernel, points, strength, shift)
    rows, known = kernel.rows_with(points)
    _, sizes, axes = np.linalg.svd(known, full_matrices=False)
    left = np.sqrt((shift + (1 - strength) * (1 + strength) * sizes**2) / (shift + sizes**2))
    out = rows.copy()
    for axis, share in zip(axes, left.tolist(), strict=True):
        # One axis at a time, so that equal rows have equal bits.
        along = np.einsum("ij,j->i", rows, axis)
        out -= (along * (1 - share))[:, None] * axis
    return Linear(out, rows.shape[1], cosine=False)


class Conditioned:
    """A kernel conditioned on other points: L_ij - g_i g_j, g_i = strength * chol(L_QQ + shift)^-1 L_Qi."""

    features: Floats | None = None

    def __init__(self, kernel: Kernel, points: NDArray[Any], strength: float, shift: float) -> None:
        from scipy.linalg import cholesky, solve_triangular

        self._kernel = kernel
        self.n = kernel.n
        cross, within = kernel.cross(points)
        # Points that repeat each other leave the matrix singular where nothing is added to its diagonal.
        jitter = shift if shift > 0 else 1e-10 * float(within.diagonal().max(initial=1.0))
        within[np.diag_indices_from(within)] += jitter
        lower = cholesky(within, lower=True)
        # One triangular solve for all: equal rows of the pool have equal columns here, whichever block they are in.
        self._known = strength * np.ascontiguousarray(solve_triangular(lower, cross.T, lower=True).T)
        self.diagonal = kernel.diagonal - np.einsum("ij,ij->i", self._known, self._known)
        self.rounding = kernel.rounding + (len(points) + 8) * _EPS * float(kernel.diagonal.max())

    def block(self, rows: Ints, columns: Ints) -> Floats:
        """(rows, columns) entries."""
        return self._kernel.block(rows, columns) - self._known[rows] @ self._known[columns].T

    def entries(self, item: int, others: Ints) -> Floats:
        """Entries of one item with some others."""
        known: Floats = np.einsum("ij,j->i", self._known[others], self._known[item])
        return self._kernel.entries(item, others) - known

    def cross(self, points: NDArray[Any]) -> tuple[Floats, Floats]:  # noqa: ARG002
        """Refused: a conditioned kernel is defined on the pool only."""
        raise InputError("a kernel is conditioned once; put all known points into one set")


def kernel_of(X: Any, similarity: Any, kernel: str, scale: float | None) -> Kernel:
    """Build the kernel from the arguments.

    Raises:
        InputError: not exactly one of X and similarity, an unknown kernel, a scale that is not positive or that the
            kernel has no use for, or a matrix that is not symmetric and positive semi-definite.
    """
    if (X is None) == (similarity is None):
        raise InputError("a log-determinant needs X or similarity, one of them; give vectors or an (n, n) kernel")
    checks.choice(kernel, "kernel", KERNELS)
    if scale is not None and (kernel != "rbf" or similarity is not None):
        raise InputError(f"scale={scale!r} is the width of kernel='rbf' on X; leave it out")
    if similarity is not None:
        return Given(similarity)
    if checks.is_sparse(X):
        if kernel == "rbf":
            raise InputError("X is a sparse matrix and kernel='rbf' reads dense rows; say kernel='linear' or 'cosine'")
        return SparseLinear(checks.sparse_rows(X), cosine=kernel == "cosine")
    rows = checks.matrix(X)
    if kernel == "rbf":
        return Radial(rows, width(rows, scale))
    features = directions(rows) if kernel == "cosine" else np.ascontiguousarray(rows, np.float64)
    return Linear(features, rows.shape[1], cosine=kernel == "cosine")


def width(X: NDArray[Any], scale: Any) -> float:
    """The width of the radial kernel: as given, else the root mean squared distance between two rows."""
    if scale is not None:
        if not checks.is_number(scale) or not 0 < scale < math.inf:
            raise InputError(f"scale={scale!r}: give a positive number")
        return float(scale)
    gap = X - X.mean(axis=0, dtype=np.float64)
    return math.sqrt(2 * float(np.einsum("ij,ij->i", gap, gap).mean())) or 1.0


def directions(X: NDArray[Any]) -> Floats:
    """Rows whose inner products are (1 + cos) / 2; zero rows share one extra orthogonal direction."""
    rows = np.asarray(X, np.float64)
    space = geometry(rows, "cosine")
    points = space.points(slice(None))
    if points.shape[1] == rows.shape[1]:
        # The column of the zero rows is there always, so that two sets of points fit each other.
        points = np.column_stack([points, np.zeros(len(points))])
    return np.column_stack([points, np.ones(len(points))]) * math.sqrt(0.5)


def sparse_directions(X: Any) -> Any:
    """The same of SciPy-sparse rows."""
    from scipy.sparse import csr_array, hstack

    from kofn.objectives._sparse_rows import unit_rows

    ones = csr_array(np.ones((X.shape[0], 1)))
    return hstack([unit_rows(X), ones], format="csr") * math.sqrt(0.5)


def _sparse(points: NDArray[Any]) -> Any:
    from scipy.sparse import csr_array

    return csr_array(points)


def same_width(points: Any, d: int) -> None:
    """Refuse points whose width differs from the pool's."""
    if points.shape[1] != d:
        raise InputError(f"queries or private have {points.shape[1]} features, X has {d}; give rows of the same kind")


def _refuse_asymmetric(matrix: Any) -> None:
    if checks.is_sparse(matrix):
        gap = abs(matrix - matrix.T).tocoo()
        bad = np.flatnonzero(gap.data > 1e-6 * (1 + abs(matrix.data).max(initial=0.0)))
        if len(bad):
            i, j = int(gap.row[bad[0]]), int(gap.col[bad[0]])
            raise InputError(f"similarity is not symmetric at ({i}, {j}); use (similarity + similarity.T) / 2")
        return
    for low in range(0, len(matrix), 1024):
        a, b = matrix[low : low + 1024, : low + 1024], matrix[: low + 1024, low : low + 1024].T
        off = np.abs(a - b) > 1e-6 * (1 + np.abs(a))
        if off.any():
            i, j = (int(v) for v in np.argwhere(off)[0])
            raise InputError(
                f"similarity is not symmetric: ({low + i}, {j}) is {a[i, j]:g} and ({j}, {low + i}) is {b[i, j]:g}; "
                "use (similarity + similarity.T) / 2"
            )
