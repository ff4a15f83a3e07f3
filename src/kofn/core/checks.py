"""All validation of input, in one place.

Each argument name of kofn's shared vocabulary has one check here, so that `X`, `k` or `quotas` mean the same thing, are
refused for the same reasons and are named the same way in every method, on the command line and in every error.
"""

from __future__ import annotations

import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class KofnError(Exception):
    """The base of all errors that kofn raises on purpose."""


class InputError(KofnError, ValueError):
    """The caller's input cannot be used; the message names argument, value, place and remedy."""


class InfeasibleError(InputError):
    """The constraints cannot be met together; the message says which clash and by how much."""


class FailureError(KofnError, RuntimeError):
    """The work could not be completed for a reason outside the input (disk, time, a broken file)."""


class BrokenPlanError(KofnError, RuntimeError):
    """A rule returned a plan that breaks its problem; the message names each constraint that does not hold."""


class KofnWarning(UserWarning):
    """Something was counted and reported rather than refused."""


def is_sparse(value: object) -> bool:
    """True for SciPy sparse matrices and arrays, without importing SciPy."""
    return hasattr(value, "tocsr") and hasattr(value, "nnz")


def is_number(value: object) -> TypeGuard[float]:
    """True for a real number of Python or NumPy; booleans are none."""
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


def nearest(name: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?` for the closest known name, or nothing."""
    near = difflib.get_close_matches(str(name), [str(item) for item in known], 1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _as_array(value: Any, name: str) -> Array:
    if is_sparse(value):
        raise InputError(f"{name} is a sparse matrix; give a dense array ({name}.toarray())")
    if hasattr(value, "detach"):  # a torch tensor that may require grad or live on a device
        value = value.detach().cpu()
    try:
        return np.asarray(value)
    except ValueError as error:
        raise InputError(f"{name} is ragged: its rows have different lengths ({error})") from None


def _as_float(array: Array, name: str) -> Array:
    """Floating array: float32/float64 kept, float16 widened, integers and booleans to float64."""
    if array.dtype == object:
        try:
            array = array.astype(np.float64)
        except (TypeError, ValueError):
            raise InputError(f"{name} holds values that are not numbers; give numeric columns only") from None
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        if array.dtype.name in ("float16", "bfloat16"):
            return array.astype(np.float32)
        # Compiled code reads the machine's own byte order.
        native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
        return native if native.dtype.itemsize in (4, 8) else native.astype(np.float64)
    if array.dtype.kind in "iub":
        return array.astype(np.float64)
    raise InputError(f"{name} has dtype {array.dtype}; give numbers")


def refuse_nonfinite(array: Array, name: str) -> None:
    """Refuse the first NaN or infinity, naming where it stands."""
    # A sum is finite only if every term is, so the usual case costs one pass and no temporary.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum()):
            return
    finite = np.isfinite(array)
    if finite.all():
        return
    place = np.argwhere(~finite)[0]
    count = int(array.size - finite.sum())
    where = f"row {place[0]}, column {place[1]}" if array.ndim == 2 else f"row {place[0]}"
    what = "NaN" if np.isnan(array[tuple(place)]) else "infinite"
    more = f" ({count} such values)" if count > 1 else ""
    raise InputError(f"{name} at {where} is {what}{more}; drop or impute those rows first")


def matrix(value: Any, name: str = "X") -> Array:
    """A finite (n, d) floating matrix with at least one row and one column."""
    array = _as_array(value, name)
    if array.ndim == 1 and array.dtype == object and len(array):
        lengths = [len(row) if hasattr(row, "__len__") else -1 for row in array]
        odd = next((i for i, length in enumerate(lengths) if length != lengths[0]), None)
        if odd is not None:
            raise InputError(f"{name} is ragged: row {odd} has {lengths[odd]} values, row 0 has {lengths[0]}")
        array = np.stack([np.asarray(row) for row in array])
    if array.ndim == 1:
        raise InputError(f"{name} has shape {array.shape}; give (n, d), for one column use reshape(-1, 1)")
    if array.ndim != 2:
        raise InputError(
            f"{name} has {array.ndim} dimensions, shape {array.shape}; give (n, d), flatten each item to one row"
        )
    if array.shape[0] == 0:
        raise InputError(f"{name} is empty: it has no rows")
    if array.shape[1] == 0:
        raise InputError(f"{name} has no columns: shape {array.shape}")
    array = _as_float(array, name)
    refuse_nonfinite(array, name)
    return array


def first_equal(rows: Array) -> NDArray[np.int64]:
    """For each row the first row with the same entries, found by a hash of the bytes and checked."""
    factors = 2 * np.asarray(np.random.default_rng(0).integers(1, 2**62, rows[:1].nbytes // 4), np.uint64) + 1
    code = np.empty(len(rows), np.uint64)
    step = max(1, (1 << 16) // len(factors))
    for low in range(0, len(rows), step):
        # Adding zero makes -0 and 0 the same bytes.
        words = np.ascontiguousarray(rows[low : low + step] + 0.0).view(np.uint32)
        code[low : low + step] = (words * factors).sum(axis=1)
    ordered = np.sort(code)
    if (ordered[1:] != ordered[:-1]).all():
        return np.arange(len(rows))
    _, first, back = np.unique(code, return_index=True, return_inverse=True)
    same = first[back].astype(np.int64)
    differs = np.zeros(len(rows), bool)
    step = max(1, (1 << 20) // rows.shape[1])
    for low in range(0, len(rows), step):
        part = slice(low, low + step)
        differs[part] = (rows[part] != rows[same[part]]).any(axis=1)
    same[differs] = np.flatnonzero(differs)
    return same


def square(value: Any, name: str, *, nonnegative: bool = True) -> Any:
    """A finite (n, n) matrix, dense, or SciPy-sparse where `name` is "similarity"."""
    if is_sparse(value):
        if name != "similarity":
            raise InputError(f"{name} is sparse, where a missing entry has no meaning; give a dense array")
        if value.shape[0] != value.shape[1]:
            raise InputError(f"{name} has shape {tuple(value.shape)}; it must be square (n, n)")
        if value.shape[0] == 0:
            raise InputError(f"{name} is empty: it has no rows")
        sparse = value.tocsc()
        if not sparse.has_canonical_format:
            sparse = sparse.copy() if sparse is value else sparse
            sparse.sum_duplicates()
        if sparse.dtype.kind != "f":
            sparse = sparse.astype(np.float64)
        bad = ~np.isfinite(sparse.data) | (nonnegative & (sparse.data < 0))
        if bad.any():
            at = int(np.flatnonzero(bad)[0])
            column = int(np.searchsorted(sparse.indptr, at, side="right") - 1)
            raise InputError(
                f"{name} at row {sparse.indices[at]}, column {column} is {sparse.data[at]:g}; give finite values >= 0"
            )
        return sparse
    array = matrix(value, name)
    if array.shape[0] != array.shape[1]:
        raise InputError(f"{name} has shape {array.shape}; it must be square (n, n)")
    if nonnegative and array.min() < 0:
        i, j = np.unravel_index(int(array.argmin()), array.shape)
        raise InputError(f"{name} at row {i}, column {j} is {array[i, j]:g}; give values >= 0")
    return array


def distances(value: Any, name: str = "distances") -> Array:
    """A finite, non-negative, symmetric (n, n) matrix."""
    array: Array = square(value, name)
    # Tiles of which two fit into the cache: one of them is read against the grain.
    side = 256
    for lo in range(0, len(array), side):
        for left in range(0, lo + 1, side):
            a, b = array[lo : lo + side, left : left + side], array[left : left + side, lo : lo + side].T
            if (a == b).all():
                continue
            off = np.abs(a - b) > 1e-5 * (1 + np.abs(a))
            if off.any():
                i, j = (int(v) for v in np.argwhere(off)[0])
                raise InputError(
                    f"{name} is not symmetric: ({lo + i}, {left + j}) is {a[i, j]:g} and ({left + j}, {lo + i}) is "
                    f"{b[i, j]:g}; use ({name} + {name}.T) / 2 if they should be equal"
                )
    return array


def scores(value: Any, name: str = "scores") -> Array:
    """Finite (n,) scores, or (n, bins) where -inf means that the item does not list the bin."""
    array = _as_array(value, name)
    if array.ndim == 2:
        if 0 in array.shape:
            raise InputError(f"{name} is empty: shape {array.shape}")
        array = _as_float(array, name)
        # -inf is the field's mask for "not this bin"; NaN and +inf have no meaning.
        bad = np.isnan(array) | (array == np.inf)
        if bad.any():
            i, j = np.argwhere(bad)[0]
            raise InputError(
                f"{name} at row {i}, column {j} is {array[i, j]}; give finite scores, or -inf for a bin to avoid"
            )
        return array
    return vector(array, name)


def vector(value: Any, name: str) -> Array:
    """A finite (n,) floating vector."""
    array = _as_array(value, name)
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}; give one value an item, shape (n,)")
    if len(array) == 0:
        raise InputError(f"{name} is empty")
    array = _as_float(array, name)
    refuse_nonfinite(array, name)
    return array


def weights(value: Any, name: str = "weights") -> Array:
    """Finite, non-negative (n,) weights that are not all zero."""
    array = vector(value, name)
    if array.min() < 0:
        row = int(array.argmin())
        raise InputError(f"{name} at row {row} is {array[row]:g}; weights must be >= 0")
    if not array.any():
        raise InputError(f"{name} are all zero; give at least one positive weight")
    return array


def signed_weights(value: Any, name: str = "weights") -> Array:
    """Finite (m,) weights of members, which may be negative."""
    return vector(value, name)


def costs(value: Any, name: str = "costs") -> Array:
    """Finite, non-negative (n,) costs; integers stay integers so that budgets are held exactly."""
    array = _as_array(value, name)
    if array.ndim == 1 and array.dtype.kind in "iu" and len(array):
        array = array.astype(np.int64)
    else:
        array = vector(array, name).astype(np.float64)
    if array.min() < 0:
        row = int(array.argmin())
        raise InputError(f"{name} at row {row} is {array[row]:g}; costs must be >= 0 (a free item costs 0)")
    return array


def spread_costs(value: Any, shape: tuple[int, ...], name: str = "costs") -> Any:
    """The costs of a table's entries, row by row, from one cost an entry or one a column; of items as they are."""
    if len(shape) == 1 or is_sparse(value):
        return value
    array = _as_array(value, name)
    if array.shape in (shape, shape[1:]):
        return np.broadcast_to(array, shape).reshape(-1)
    if array.shape != (shape[0] * shape[1],):
        raise InputError(f"{name} has shape {array.shape}; give one an entry, {shape}, or one a column, ({shape[1]},)")
    return array


def number(value: Any, name: str) -> float | int:
    """A finite, non-negative number; integers stay integers."""
    if not is_number(value):
        raise InputError(f"{name}={value!r}: give a number")
    if not np.isfinite(float(value)):
        raise InputError(f"{name}={value!r}: give a finite number")
    if value < 0:
        raise InputError(f"{name}={value!r}: it must be >= 0")
    return int(value) if isinstance(value, numbers.Integral) else float(value)


def count(value: Any, name: str = "k", *, least: int = 1) -> int:
    """An integer >= `least`."""
    if not is_number(value) or not float(value).is_integer():
        raise InputError(f"{name}={value!r}: give a whole number")
    if value < least:
        raise InputError(f"{name}={value!r}: ask for at least {least}")
    return int(value)


def fraction(value: Any, name: str, *, low: float = 0.0, high: float = 1.0) -> float:
    """A number in [low, high]."""
    if not is_number(value) or not low <= value <= high:
        raise InputError(f"{name}={value!r}: give a number between {low:g} and {high:g}")
    return float(value)


def choice(value: Any, name: str, known: Sequence[str]) -> str:
    """One of the known names."""
    if value not in known:
        raise InputError(f"{name}={value!r}: choose one of {', '.join(known)}{nearest(str(value), known)}")
    return str(value)


def flag(value: Any, name: str) -> bool:
    """True or False."""
    if not isinstance(value, bool | np.bool_):
        raise InputError(f"{name}={value!r}: give True or False")
    return bool(value)


def groups(value: Any, name: str = "groups") -> Array:
    """One (n,) group label an item; missing labels are refused."""
    array = _as_array(value, name)
    if array.ndim != 1 or len(array) == 0:
        raise InputError(f"{name} has shape {array.shape}; give one label an item, shape (n,)")
    if array.dtype.kind == "f":
        refuse_nonfinite(array, name)
    if array.dtype == object:
        for row, label in enumerate(array):
            if label is None or label != label:
                raise InputError(f"{name} at row {row} is missing; give every item a group (for example 'unknown')")
        array = np.array([str(label) for label in array])
    return array


def quotas(value: Any, name: str = "quotas") -> dict[Any, tuple[int, int | None]]:
    """{group: (least, most)}; None leaves an end open, one number asks for exactly that many."""
    if not isinstance(value, Mapping) or not value:
        raise InputError(f"{name}={value!r}: give {{group: (least, most)}}, None leaves an end open")
    out: dict[Any, tuple[int, int | None]] = {}
    for group, ends in value.items():
        if isinstance(ends, numbers.Integral):
            ends = (ends, ends)
        if not isinstance(ends, Sequence) or len(ends) != 2:
            raise InputError(f"{name}[{group!r}]={ends!r}: give (least, most), None leaves an end open")
        low = 0 if ends[0] is None else count(ends[0], f"{name}[{group!r}] least", least=0)
        high = None if ends[1] is None else count(ends[1], f"{name}[{group!r}] most", least=0)
        if high is not None and high < low:
            raise InfeasibleError(f"{name}[{group!r}]: at least {low} and at most {high} clash; swap the ends")
        out[group] = (low, high)
    return out


def ids(value: Any, name: str = "ids") -> Array:
    """The user's keys, (n,), each once."""
    array = _as_array(value, name)
    if array.ndim != 1 or len(array) == 0:
        raise InputError(f"{name} has shape {array.shape}; give one id an item, shape (n,)")
    if array.dtype.kind == "f":
        refuse_nonfinite(array, name)
    if array.dtype == object:
        missing = next((row for row, key in enumerate(array) if key is None or key != key), None)
        if missing is not None:
            raise InputError(f"{name} at row {missing} is missing; give every item an id")
        if all(isinstance(key, str) for key in array):
            array = array.astype(str)
    order = np.argsort(array.astype(str) if array.dtype == object else array, kind="stable")
    ranked = array[order]
    same = np.flatnonzero(ranked[1:] == ranked[:-1])
    if len(same):
        first, second = sorted((int(order[same[0]]), int(order[same[0] + 1])))
        key = array[first : first + 1].tolist()[0]
        raise InputError(f"{name} must differ: {key!r} stands at row {first} and at row {second}")
    return array


def positions(value: Any, name: str, n: int, keys: Array | None = None) -> NDArray[np.int64]:
    """Positions of the named items: ids where ids were given, row numbers otherwise; each once, in order."""
    if hasattr(value, "indices") and hasattr(value, "gains"):
        value = value.indices if value.ids is None or keys is None else value.ids[value.indices]
    elif hasattr(value, "medoids"):
        value = value.medoids
    array = _as_array(value, name).reshape(-1) if not isinstance(value, set | frozenset) else np.array(sorted(value))
    if len(array) == 0:
        return np.empty(0, np.int64)
    if keys is not None:
        table = {key: row for row, key in enumerate(keys.tolist())}
        if isinstance(next(iter(table)), str):
            array = array.astype(str)
        missing = [key for key in array.tolist() if key not in table]
        if missing:
            more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
            raise InputError(f"{name} names {missing[0]!r}{more}, which no row has as its id")
        found = np.array([table[key] for key in array.tolist()], np.int64)
    else:
        if array.dtype == bool and len(array) == n:
            found = np.flatnonzero(array)
        elif array.dtype.kind not in "iu":
            raise InputError(f"{name} holds {array.tolist()[0]!r}; give row numbers 0..{n - 1}, or pass ids")
        else:
            found = array.astype(np.int64)
            out = (found < 0) | (found >= n)
            if out.any():
                raise InputError(f"{name} names row {found[out][0]}; the rows are 0..{n - 1}")
    if len(np.unique(found)) < len(found):
        values, times = np.unique(found, return_counts=True)
        raise InputError(f"{name} names row {values[times > 1][0]} more than once")
    return found


def curves(value: Any, name: str = "curves") -> Array:
    """Finite (n, levels) losses or values."""
    return matrix(value, name)


def rankings(value: Any, name: str = "rankings") -> Array:
    """(judges, alternatives) scores, higher is better, NaN where a judge did not rate."""
    array = _as_array(value, name)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{name} has shape {array.shape}; give (judges, alternatives)")
    array = _as_float(array, name).astype(np.float64)
    if np.isinf(array).any():
        i, j = np.argwhere(np.isinf(array))[0]
        raise InputError(f"{name} at row {i}, column {j} is infinite; use NaN for a missing score")
    silent = np.flatnonzero(np.isnan(array).all(axis=1))
    if len(silent):
        raise InputError(f"{name}: judge {silent[0]} rated nothing; drop that row")
    return array


def members(value: Any, name: str = "members") -> list[Any]:
    """A non-empty list of things to blend: arrays, state dicts, or paths of checkpoints."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InputError(f"{name}={type(value).__name__}: give a list of arrays, state dicts or paths")
    out = list(value)
    if not out:
        raise InputError(f"{name} is empty; give at least one")
    return out


def capacity(value: Any, name: str = "capacity") -> Array | int:
    """Items a bin can hold: one whole number for all bins, or (bins,)."""
    if is_number(value):
        return count(value, name, least=0)
    array = _as_array(value, name)
    if array.ndim != 1 or len(array) == 0 or array.dtype.kind not in "iuf" or (array != np.floor(array)).any():
        raise InputError(f"{name}={value!r}: give one whole number, or one for each bin")
    if array.min() < 0:
        raise InputError(f"{name} of bin {int(array.argmin())} is {array.min():g}; it must be >= 0")
    return array.astype(np.int64)


def margins(value: Any, name: str = "margins") -> tuple[Array, Array]:
    """(row totals, column totals): two finite vectors >= 0 in float64 whose sums agree, and are not 0."""
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Sequence | np.ndarray) or len(value) != 2:
        raise InputError(f"{name}={type(value).__name__}: give two vectors, (row totals, column totals)")
    sides = []
    for side, given in zip(("row totals", "column totals"), value, strict=True):
        totals = vector(given, f"{name}: {side}").astype(np.float64)
        if totals.min() < 0:
            at = int(totals.argmin())
            raise InputError(f"{name}: {side} at row {at} is {totals[at]:g}; give totals >= 0")
        sides.append(totals)
    rows, columns = (math.fsum(totals.tolist()) for totals in sides)
    if not math.isclose(rows, columns, rel_tol=1e-9):
        raise InputError(
            f"{name} do not add up: the row totals sum to {rows:.9g}, the column totals to {columns:.9g}; "
            f"scale one side to the other"
        )
    if rows == 0:
        raise InputError(f"{name} are all zero: there is nothing to share; give a positive total")
    return sides[0], sides[1]


def bytes_of(value: Any, name: str = "max_memory") -> int:
    """Bytes from a number or text such as '600MB' or '2GiB'."""
    if isinstance(value, str):
        units = {"": 1, "k": 1e3, "m": 1e6, "g": 1e9, "t": 1e12, "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}
        text = value.strip().lower().removesuffix("b")
        digits = text.rstrip("kmgti")
        try:
            value = float(digits) * units[text[len(digits) :]]
        except (ValueError, KeyError):
            raise InputError(f"{name}={value!r}: give bytes, or for example 600MB or 2GiB") from None
    if not is_number(value) or not np.isfinite(float(value)) or value <= 0:
        raise InputError(f"{name}={value!r}: give a positive number of bytes, or for example '600MB'")
    return int(value)


def seconds(value: Any, name: str = "time_limit") -> float:
    """A positive number of seconds."""
    if not is_number(value) or not value > 0:
        raise InputError(f"{name}={value!r}: give a positive number of seconds")
    return float(value)


def entropy(value: Any, name: str = "seed") -> int:
    """The integer that seeds a run; None draws a fresh one, so that every run can be repeated from its plan."""
    if value is None:
        fresh = np.random.SeedSequence().entropy
        return int(fresh) if isinstance(fresh, int) else 0
    if isinstance(value, np.random.Generator):
        return int(value.integers(2**63))
    if isinstance(value, np.random.RandomState):
        return int(value.randint(2**31))
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < 0:
        raise InputError(f"{name}={value!r}: give a whole number >= 0 or a numpy Generator")
    return int(value)


def metric(value: Any, name: str = "metric") -> str:
    """A known metric."""
    return choice(value, name, METRICS)


def _as_is(value: Any, _name: str) -> Any:
    return value


METRICS = ("euclidean", "sqeuclidean", "cosine", "precomputed")


@dataclass(frozen=True)
class Argument:
    """One word of the vocabulary: what it means, how it is checked, what role it plays."""

    name: str
    role: str  # "input" | "qualifier" | "constraint" | "rule" | "setting"
    check: Callable[[Any, str], Any]
    help: str


VOCABULARY: dict[str, Argument] = {
    argument.name: argument
    for argument in (
        Argument("X", "input", matrix, "vectors, one row an item, shape (n, d)"),
        Argument("distances", "input", distances, "dissimilarities, shape (n, n)"),
        Argument("similarity", "input", square, "similarities >= 0, shape (n, n), dense or SciPy-sparse"),
        Argument("scores", "input", scores, "one score an item (n,), or one for each bin (n, bins)"),
        Argument("curves", "input", curves, "loss or value of each item at each level, shape (n, levels)"),
        Argument("members", "input", members, "what to blend: arrays, state dicts or checkpoint paths"),
        Argument("rankings", "input", rankings, "scores by judge, shape (judges, alternatives), NaN where missing"),
        Argument("graph", "input", _as_is, "adjacency, shape (n, n), sparse"),
        Argument("y", "qualifier", groups, "label of each item, shape (n,)"),
        Argument("ids", "qualifier", ids, "your key of each item, shape (n,)"),
        Argument("groups", "qualifier", groups, "group of each item, shape (n,)"),
        Argument("weights", "qualifier", weights, "weight of each item (n,) or member (m,)"),
        Argument("costs", "qualifier", costs, "cost of each item, shape (n,)"),
        Argument("base", "qualifier", _as_is, "what the members were fine-tuned from"),
        Argument("importance", "qualifier", weights, "importance of each part"),
        Argument("metric", "qualifier", metric, "how far two rows are: " + ", ".join(METRICS)),
        Argument("k", "constraint", count, "how many"),
        Argument("budget", "constraint", number, "total cost that may be spent"),
        Argument("quotas", "constraint", quotas, "{group: (least, most)}, None leaves an end open"),
        Argument("capacity", "constraint", capacity, "items a bin can hold"),
        Argument("per_item", "constraint", count, "bins an item goes to"),
        Argument("margins", "constraint", margins, "(row totals, column totals), of one sum"),
        Argument("bounds", "constraint", _as_is, "(least, most) for each item"),
        Argument("include", "constraint", _as_is, "items that must be picked"),
        Argument("exclude", "constraint", _as_is, "items that must not be picked"),
        Argument("start", "constraint", _as_is, "a plan or items to begin from"),
        Argument("objective", "rule", _as_is, "what is maximised: a name or an objective"),
        Argument("score", "rule", _as_is, "a callable that rates a plan"),
        Argument("seed", "setting", entropy, "whole number; the same seed gives the same plan"),
        Argument("max_memory", "setting", bytes_of, "bytes the work may hold, for example 600MB"),
        Argument("time_limit", "setting", seconds, "seconds; what is valid by then is returned"),
        Argument("n_threads", "setting", count, "threads; the plan is the same for any number"),
        Argument("progress", "setting", _as_is, "show progress on a terminal"),
        Argument("engine", "setting", _as_is, "where the work runs"),
    )
}
SETTINGS = frozenset(name for name, argument in VOCABULARY.items() if argument.role == "setting")


def argument(name: str, value: Any) -> Any:
    """Check one value of the vocabulary under its own name."""
    return VOCABULARY[name].check(value, name)


def same_length(n: int, source: str, name: str, length: int) -> None:
    """Refuse a qualifier whose length is not the pool's."""
    if length != n:
        raise InputError(f"{name} has {length} values, {source} has {n} rows; give one value an item")
