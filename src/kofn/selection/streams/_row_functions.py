"""Set functions for dynamic pools: an item's gain depends only on the picks, never on the rest of the pool.

Gains are computed from an explicit state, so that many sets can be grown side by side. Facility location over the live
pool does not qualify, because each insertion changes the value of every set; over fixed reference rows it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints, directions
from kofn.core.checks import InputError
from kofn.objectives.similarity import FROM_ROWS, exponent_of, refuse_extremes

_CACHE = 1 << 17
# Squares of numbers between 2^-256 and 2^256 are taken as they are.
_PLAIN = 256
# The sums of distances within which thresholds, which are below and above them, are ordinary floats.
_LEAST_WORTH, _MOST_WORTH = 1e-300, 1e303


class RowFunction(Protocol):
    """Protocol of a monotone submodular function of sets of rows.

    `gains` and `add` do not modify `state`. One row of `gains` is one oracle call.
    """

    def empty(self) -> Any:
        """The state of the empty set, whose value is 0."""
        ...

    def gains(self, state: Any, rows: Any) -> Floats:
        """(m,) marginal gain of each row given the set that `state` represents."""
        ...

    def add(self, state: Any, row: Any) -> Any:
        """The state after adding one row; `row` has shape (1, d)."""
        ...


class Storage(Protocol):
    """A stepper's store of items, in the encoding of its function."""

    def __len__(self) -> int: ...

    def append(self, rows: Any) -> None:
        """Append items."""
        ...

    def take(self, slots: Any) -> Any:
        """The items at these positions."""
        ...

    def keep(self, slots: Ints) -> None:
        """Keep only these items, in this order."""
        ...

    def state(self) -> dict[str, Any]:
        """Everything, as arrays."""
        ...

    def restore(self, state: dict[str, Any]) -> None:
        """What `state` gave."""
        ...


class Living(Protocol):
    """A `RowFunction` that checks and encodes the user's rows, and creates their store."""

    name: str
    width: int | None

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `row_function` it was created with."""
        ...

    def encode(self, X: Any) -> Any:
        """Checked rows in the function's own form."""
        ...

    def storage(self) -> Storage:
        """An empty store for encoded rows."""
        ...

    def empty(self) -> Any:
        """The state of the empty set."""
        ...

    def gains(self, state: Any, rows: Any) -> Floats:
        """(m,) gains of encoded rows."""
        ...

    def add(self, state: Any, row: Any) -> Any:
        """The state after adding one encoded row."""
        ...


class Rows:
    """Rows of numbers that are appended, looked up, and thinned out."""

    def __init__(self) -> None:
        self._data: NDArray[Any] | None = None
        self._n = 0

    def __len__(self) -> int:
        return self._n

    def append(self, rows: NDArray[Any]) -> None:
        """Append rows."""
        need = self._n + len(rows)
        if self._data is None:
            self._data = np.empty((max(16, need), rows.shape[1]), rows.dtype)
        elif need > len(self._data):
            kind = np.result_type(self._data.dtype, rows.dtype)
            grown = np.empty((max(need, 2 * len(self._data)), self._data.shape[1]), kind)
            grown[: self._n] = self._data[: self._n]
            self._data = grown
        elif rows.dtype.itemsize > self._data.dtype.itemsize:
            self._data = self._data.astype(rows.dtype)
        self._data[self._n : need] = rows
        self._n = need

    def take(self, slots: Any) -> NDArray[Any]:
        """The rows at these positions."""
        assert self._data is not None
        taken: NDArray[Any] = self._data[: self._n][slots]
        return taken

    def keep(self, slots: Ints) -> None:
        """Keep only these rows, in this order."""
        if self._data is not None:
            self._data = self._data[: self._n][slots]
            self._n = len(slots)

    def state(self) -> dict[str, Any]:
        """Everything, as arrays."""
        return {"rows": None if self._data is None else self._data[: self._n].copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """What `state` gave."""
        self._data = None if state["rows"] is None else np.array(state["rows"])
        self._n = 0 if self._data is None else len(self._data)


class Sets:
    """Sets of element numbers in one flat array, with the interface of `Rows`; a look-up gives (flat, lengths)."""

    def __init__(self) -> None:
        self._flat = np.empty(16, np.int64)
        self._used = 0
        self._starts = np.empty(0, np.int64)
        self._lengths = np.empty(0, np.int64)

    def __len__(self) -> int:
        return len(self._lengths)

    def append(self, rows: tuple[Ints, Ints]) -> None:
        """Append sets."""
        flat, lengths = rows
        need = self._used + len(flat)
        if need > len(self._flat):
            grown = np.empty(max(need, 2 * len(self._flat)), np.int64)
            grown[: self._used] = self._flat[: self._used]
            self._flat = grown
        self._flat[self._used : need] = flat
        self._starts = np.concatenate([self._starts, self._used + np.cumsum(lengths) - lengths])
        self._lengths = np.concatenate([self._lengths, lengths])
        self._used = need

    def take(self, slots: Any) -> tuple[Ints, Ints]:
        """The sets at these positions."""
        starts, lengths = self._starts[slots], self._lengths[slots]
        shift = np.repeat(starts - (np.cumsum(lengths) - lengths), lengths)
        return self._flat[shift + np.arange(len(shift))], lengths

    def keep(self, slots: Ints) -> None:
        """Keep only these sets, in this order."""
        flat, lengths = self.take(slots)
        self._flat, self._used, self._lengths = flat, len(flat), lengths
        self._starts = np.cumsum(lengths) - lengths

    def state(self) -> dict[str, Any]:
        """Everything, as arrays."""
        flat, lengths = self.take(np.arange(len(self._lengths)))
        return {"flat": flat, "lengths": lengths.copy()}

    def restore(self, state: dict[str, Any]) -> None:
        """What `state` gave."""
        self._flat, self._lengths = np.array(state["flat"]), np.array(state["lengths"])
        self._used = len(self._flat)
        self._starts = np.cumsum(self._lengths) - self._lengths


class Coverage:
    """f(S) = the weight of the elements that some pick covers. Row i of X covers column j where X[i, j] is not zero."""

    name = "weighted_coverage"

    def __init__(self, weights: Any = None) -> None:
        self.weights = None if weights is None else checks.weights(weights).astype(np.float64)
        self.width: int | None = None if self.weights is None else len(self.weights)

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `row_function` it was created with."""
        return {"objective": "coverage", "weights": self.weights}

    def encode(self, X: Any) -> tuple[Ints, Ints]:
        """Rows as sets of column numbers, checked."""
        if not checks.is_sparse(X):
            X = checks.matrix(X)
            width, entries = X.shape[1], X != 0
            flat, lengths = np.nonzero(entries)[1].astype(np.int64), entries.sum(axis=1).astype(np.int64)
        else:
            if 0 in X.shape:
                raise InputError(f"X is empty: shape {tuple(X.shape)}")
            X = X.tocsr().copy()
            checks.refuse_nonfinite(X.data, "X")
            X.sum_duplicates()
            X.eliminate_zeros()
            width, flat = X.shape[1], X.indices.astype(np.int64)
            lengths = np.diff(X.indptr).astype(np.int64)
        _same_width(self, width)
        return flat, lengths

    def storage(self) -> Storage:
        """An empty store."""
        return Sets()

    def empty(self) -> Floats:
        """The remaining weight of each element."""
        return np.ones(self.width or 0) if self.weights is None else self.weights.copy()

    def gains(self, state: Floats, rows: tuple[Ints, Ints]) -> Floats:
        """The weight that each set would newly cover."""
        flat, lengths = rows
        owner = np.repeat(np.arange(len(lengths)), lengths)
        return np.asarray(np.bincount(owner, state[flat], len(lengths)), np.float64)

    def add(self, state: Floats, row: tuple[Ints, Ints]) -> Floats:
        """Set the weights of its elements to 0."""
        out = state.copy()
        out[row[0]] = 0.0
        return out


class Representation:
    """f(S) = sum over the reference rows r of w_r max_{s in S} sim(r, s), sim >= 0: facility location of fixed rows.

    `cosine` is (1 + cos) / 2. `euclidean` and `sqeuclidean` are max(0, d(r, mean) - d(r, s)) with the reference rows'
    mean: f is the loss reduction against that mean, as in exemplar-based clustering. With a constant minus the distance
    the first pick would already reach almost the full value, and any approximation ratio would be trivial.
    """

    name = "reference_location"

    def __init__(self, reference: Any, metric: str = "euclidean", weights: Any = None) -> None:
        self.reference = checks.matrix(reference, "reference").astype(np.float64)
        self.metric = checks.choice(metric, "metric", FROM_ROWS)
        self.weights = np.ones(len(self.reference)) if weights is None else checks.weights(weights).astype(np.float64)
        checks.same_length(len(self.reference), "reference", "weights", len(self.weights))
        self.width: int | None = self.reference.shape[1]
        self._reach = np.empty(0)
        if metric != "cosine":
            if metric == "sqeuclidean":
                refuse_extremes(self.reference, "reference")
            exponent = exponent_of(self.reference)
            # By a power of two, which rounds nothing: squares of extreme numbers neither overflow nor vanish.
            self._scale = 2.0**-exponent if abs(exponent) > _PLAIN else 1.0
            self._scaled = self.reference * self._scale
            # From the first row, so that equal rows are their own mean without rounding.
            first = self._scaled[:1]
            self._reach = self._apart(first + (self._scaled - first).mean(axis=0, keepdims=True))[0]
            self._refuse_worth()

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `row_function` it was created with."""
        given = {"reference": self.reference, "metric": self.metric, "weights": self.weights}
        return {"objective": "facility_location", **given}

    def encode(self, X: Any) -> Floats:
        """(m, r) similarity of each row to each reference row: O(m r d) time."""
        X = checks.matrix(X).astype(np.float64)
        _same_width(self, X.shape[1])
        if self.metric == "cosine":
            # Not through BLAS, whose sums depend on the number of rows and of threads.
            return np.clip((1 + np.einsum("ik,jk->ij", directions(X), directions(self.reference))) / 2, 0.0, 1.0)
        # What is too far away for a float is too far away to represent a row.
        with np.errstate(over="ignore"):
            closer = np.maximum(self._reach - self._apart(X * self._scale), 0.0)
        return np.asarray(closer / self._unit, np.float64)

    @property
    def _unit(self) -> float:
        """By which distances in the unit of the scaled rows are divided."""
        return self._scale if self.metric == "euclidean" else self._scale**2

    def _refuse_worth(self) -> None:
        """Refuse distances whose sums, and the thresholds between them, float64 may not hold."""
        with np.errstate(over="ignore"):
            most = float(self.weights @ self._reach) / self._unit
        if most and not _LEAST_WORTH <= most <= _MOST_WORTH:
            raise InputError(
                f"reference holds rows whose distances to their mean add up to {most:g}; give X and reference in "
                f"another unit, so that this sum is between {_LEAST_WORTH:g} and {_MOST_WORTH:g}"
            )

    def _apart(self, X: Floats) -> Floats:
        """(m, r) distances of scaled rows from differences."""
        out = np.empty((len(X), len(self.reference)))
        step = max(1, _CACHE // self.reference.size)
        for low in range(0, len(X), step):
            gap = X[low : low + step, None] - self._scaled[None]
            out[low : low + step] = np.einsum("ijk,ijk->ij", gap, gap)
        return np.sqrt(out, out=out) if self.metric == "euclidean" else out

    def storage(self) -> Storage:
        """An empty store; r numbers per item."""
        return Rows()

    def empty(self) -> Floats:
        """The similarity of each reference row to its pick."""
        return np.zeros(len(self.reference))

    def gains(self, state: Floats, rows: Floats) -> Floats:
        """Weighted increase of the reference rows' similarities by each row."""
        closer = np.maximum(rows - state, 0.0)
        closer *= self.weights
        total: Floats = closer.sum(axis=1)
        return total

    def add(self, state: Floats, row: Floats) -> Floats:
        """Elementwise maximum of the similarities with this row's."""
        return np.maximum(state, row[0])


class Own:
    """A user-defined function: an object with the methods of `RowFunction`, or f(rows) -> number."""

    name = "own"

    def __init__(self, given: Any) -> None:
        missing = [name for name in ("empty", "gains", "add") if not callable(getattr(given, name, None))]
        if missing and not callable(given):
            raise InputError(
                f"objective={type(given).__name__} lacks {', '.join(missing)}; give 'facility_location', 'coverage', "
                "a function of the picked rows, or an object with empty(), gains(state, rows) and add(state, row)"
            )
        self._given = given
        self._function: Any = _Whole(given) if missing else given
        self.width: int | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """The arguments of `row_function` it was created with."""
        return {"objective": self._given}

    def encode(self, X: Any) -> NDArray[Any]:
        """The rows as they are, checked."""
        X = checks.matrix(X)
        _same_width(self, X.shape[1])
        return X

    def storage(self) -> Storage:
        """An empty store."""
        return Rows()

    def empty(self) -> Any:
        """As the user has it."""
        return self._function.empty()

    def gains(self, state: Any, rows: NDArray[Any]) -> Floats:
        """The user's gains, checked."""
        gains = np.asarray(self._function.gains(state, rows), np.float64)
        if gains.shape != (len(rows),):
            raise InputError(f"objective.gains gave shape {gains.shape} for {len(rows)} rows; give one gain a row")
        if not np.isfinite(gains).all():
            raise InputError(f"objective.gains gave {gains[~np.isfinite(gains)][0]}; gains must be finite")
        return gains

    def add(self, state: Any, row: NDArray[Any]) -> Any:
        """As the user has it."""
        return self._function.add(state, row)


class _Whole:
    """Gains of a plain function of rows: the state is the rows and their value."""

    def __init__(self, function: Callable[[Any], float]) -> None:
        self._function = function

    def empty(self) -> tuple[NDArray[Any] | None, float]:
        return None, 0.0

    def gains(self, state: tuple[NDArray[Any] | None, float], rows: NDArray[Any]) -> Floats:
        picked, value = state
        sets = [row[None] if picked is None else np.vstack([picked, row[None]]) for row in rows]
        return np.array([float(self._function(rows)) - value for rows in sets])

    def add(self, state: tuple[NDArray[Any] | None, float], row: NDArray[Any]) -> tuple[NDArray[Any], float]:
        rows = row if state[0] is None else np.vstack([state[0], row])
        return rows, float(self._function(rows))


def row_function(objective: Any, reference: Any, metric: str, weights: Any) -> Living:
    """Build the function that a stepper maximises."""
    if not isinstance(objective, str):
        strange = [name for name, value in (("reference", reference), ("weights", weights)) if value is not None]
        if strange:
            raise InputError(f"an objective of your own has no use for {' and '.join(strange)}; leave it out")
        return Own(objective)
    checks.choice(objective, "objective", ("facility_location", "coverage"))
    if objective == "coverage":
        if reference is not None:
            raise InputError("objective='coverage' has no use for reference; leave it out")
        return Coverage(weights)
    if reference is None:
        raise InputError(
            "objective='facility_location' needs reference: (r, d) rows that stand for the pool, such as a sample of it"
        )
    return Representation(reference, metric, weights)


def row_count(X: Any) -> int:
    """The number of rows of X, before X is checked in full.

    Raises:
        InputError: X without rows.
    """
    if hasattr(X, "shape") and len(X.shape):
        return int(X.shape[0])
    if not hasattr(X, "__len__") or hasattr(X, "shape") or isinstance(X, str | bytes):
        raise InputError(f"X is {type(X).__name__}; give an array (m, d), one row an item")
    return len(X)


def encoded(function: Living, X: Any) -> tuple[Any, Floats]:
    """X in the function's own form, and the value of each row alone; if X is refused, the function is unchanged.

    Raises:
        InputError: as raised by `function.encode` and `function.gains`.
    """
    width = function.width
    try:
        rows = function.encode(X)
        return rows, function.gains(function.empty(), rows)
    except BaseException:
        function.width = width
        raise


def promise_of(eps: Any) -> float:
    """Check eps; the guarantee is 1/2 - eps."""
    value = float(checks.number(eps, "eps"))
    if not 0 < value <= 0.5:
        raise InputError(
            f"eps={eps!r}: it must be above 0 and at most 0.5; what is promised is 1/2 - eps of the optimum"
        )
    return value


def grid(value: float, eps: float) -> int:
    """The largest whole p with (1 + eps)^p <= value."""
    power = math.floor(math.log(value) / math.log1p(eps))
    while (1 + eps) ** power > value:
        power -= 1
    while (1 + eps) ** (power + 1) <= value:
        power += 1
    return power


def _same_width(function: Any, width: int) -> None:
    if function.width is None:
        function.width = width
    elif function.width != width:
        raise InputError(
            f"X has {width} columns, the rows of this pool have {function.width}; give batches of one width"
        )
