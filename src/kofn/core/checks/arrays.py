"""Checks of arrays: rows, distances, similarities, scores, weights, members, rankings."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import PurePath
from typing import Any, NoReturn

import numpy as np

from kofn.core.arrays import Array, Ints
from kofn.core.checks.columnar import plain_column, plain_frame, unwrapped
from kofn.core.checks.errors import InputError
from kofn.core.checks.exact import whole_as_floats
from kofn.core.checks.kinds import frame_kind
from kofn.core.checks.numbers import shown
from kofn.core.checks.reading import reading


def is_sparse(value: object) -> bool:
    """True for SciPy sparse matrices and arrays, without importing SciPy."""
    return hasattr(value, "tocsr") and isinstance(getattr(value, "nnz", None), int | np.integer)


def sound_sparse(value: Any, name: str) -> Any:
    """A SciPy-sparse matrix whose indices all lie inside it: compiled code, SciPy's own too, follows them unchecked.

    Raises:
        InputError: an index outside the shape, row pointers that decrease or end elsewhere, parts of unequal length,
            entries that are no real numbers.
    """
    if value.dtype.kind not in "fiub":
        raise InputError(f"{name} has dtype {value.dtype}; give numbers")
    if value.format == "coo":
        outside = any(
            len(places) and (places.min() < 0 or places.max() >= length)
            for places, length in zip(value.coords, value.shape, strict=True)
        )
        why = "an index lies outside its shape" if outside else ""
    else:
        why = ""
        try:
            if value.format in ("csr", "csc", "bsr"):
                value.check_format(full_check=True)
        except ValueError as error:
            why = " ".join(str(error).split())
    if why:
        shape = tuple(int(length) for length in value.shape)
        raise InputError(f"{name} is a damaged sparse matrix of shape {shape}: {why}; build it anew from its entries")
    return value


# A list of more values than this that is no array: reading it would fill the memory.
_LONG = 10**8
# Weights beyond this in all make sums of their products overflow.
_MOST_IN_ALL = 1e300


def as_array(value: Any, name: str) -> Array:
    """Whatever holds numbers or keys as an array."""
    with reading(name, value):
        return _as_array(value, name)


def _as_array(value: Any, name: str) -> Array:
    if isinstance(value, np.ma.MaskedArray):
        if np.ma.is_masked(value):
            raise InputError(f"{name} is a masked array with {int(value.mask.sum())} masked entries; fill or drop them")
        value = value.data
    if is_sparse(value):
        raise InputError(f"{name} is a sparse matrix; give a dense array ({name}.toarray())")
    if hasattr(value, "detach"):  # a torch tensor that may require grad or live on a device
        if getattr(value, "is_meta", False):
            raise InputError(f"{name} is a tensor on the meta device, which holds no values; load it first")
        if str(getattr(value, "layout", "torch.strided")) != "torch.strided":
            raise InputError(f"{name} is a sparse tensor; give a dense one ({name}.to_dense())")
        value = value.detach().cpu()
        if str(value.dtype) == "torch.bfloat16" or str(value.dtype).startswith("torch.float8"):
            value = value.float()  # NumPy has no such floats
    if type(value).__module__.partition(".")[0] == "polars":
        value = _polars_values(value, name)
    value = plain_frame(value, name) if frame_kind(value) is not None else plain_column(value, name)
    if isinstance(value, Sequence) and len(value) > _LONG:
        raise InputError(f"{name} is a {type(value).__name__} of {len(value)} values; give an array of at most {_LONG}")
    if isinstance(value, list | tuple) and any(np.ma.is_masked(part) for part in value if hasattr(part, "mask")):
        raise InputError(f"{name} holds masked arrays with masked entries; fill or drop them")
    try:
        return unwrapped(np.asarray(value))
    except ValueError as error:
        more = "" if "inhomogeneous" in str(error) else f" ({error})"
        raise InputError(f"{name} is ragged: its rows have different lengths{more}") from None
    except (TypeError, OverflowError) as error:
        raise InputError(f"{name} is no array of numbers ({error})") from None


def _polars_values(value: Any, name: str) -> Any:
    """A frame as it is, or the vectors that are its only column."""
    nested = [column for column, kind in getattr(value, "schema", {}).items() if kind.is_nested()]
    if nested and len(value.columns) > 1:
        raise InputError(f"{name} has a column of vectors, {nested[0]!r}, beside others; give {name}[{nested[0]!r}]")
    dates = [column for column, kind in getattr(value, "schema", {}).items() if kind.is_temporal()]
    if dates and len(value.columns) > 1:
        raise InputError(f"{name} has a column of dates or times, {dates[0]!r}; give numeric columns only")
    return value.to_series() if nested else value


def as_float(array: Array, name: str) -> Array:
    """Floating array: float32/float64 kept, float16 widened, integers and booleans to float64."""
    if array.dtype == object:
        if any(isinstance(value, np.datetime64 | np.timedelta64) for value in array.flat):
            _refuse_no_number(array, name)
        try:
            array = whole_as_floats(array, name)
        except InputError:
            raise
        except (TypeError, ValueError, OverflowError):
            _refuse_no_number(array, name)
    if array.dtype.kind == "f" or array.dtype.name == "bfloat16":
        if array.dtype.name in ("float16", "bfloat16"):
            return array.astype(np.float32)
        # Compiled code reads the machine's own byte order.
        native = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
        return native if native.dtype.itemsize in (4, 8) else native.astype(np.float64)
    if array.dtype.kind in "iub":
        return whole_as_floats(array, name)
    raise InputError(f"{name} has dtype {array.dtype}; give numbers")


def gaps_as_nan(array: Array) -> Array:
    """An array of objects with NaN in place of None and pandas' NA, for arguments in which a gap has a meaning.

    >>> gaps_as_nan(np.array([2, None], object)).tolist()
    [2, nan]
    """
    if array.dtype != object:
        return array
    gaps = np.asarray(np.frompyfunc(lambda cell: cell is None or type(cell).__name__ == "NAType", 1, 1)(array), bool)
    return np.where(gaps, np.nan, array) if gaps.any() else array


def _refuse_no_number(array: Array, name: str) -> NoReturn:
    """Refuse the first value that is no number, saying where it stands and what it is."""
    for position, value in np.ndenumerate(array):
        try:
            if isinstance(value, np.datetime64 | np.timedelta64):  # which NumPy would turn into a count of days or so
                raise TypeError
            float(value)
        except (TypeError, ValueError, OverflowError):
            where = ", ".join(
                f"{axis} {index}" for axis, index in zip(("row", "column", "layer"), position, strict=False)
            )
            missing = value is None or type(value).__name__ in ("NAType", "NaTType")
            remedy = "fill or drop those rows first" if missing else "give numeric columns only"
            cell = f"{shown(value)} at {where}" if where else shown(value)
            raise InputError(f"{name} holds values that are not numbers: {cell}; {remedy}") from None
    raise InputError(f"{name} holds values that are not numbers; give numeric columns only")


def refuse_nonfinite(array: Array, name: str) -> None:
    """Refuse the first NaN or infinity, naming where it stands."""
    # A sum is finite only if every term is, so the usual case costs one pass and no temporary.
    with np.errstate(over="ignore", invalid="ignore"):
        if np.isfinite(array.sum()):
            return
    finite = np.isfinite(array)
    if finite.all():
        return
    index = np.argwhere(~finite)[0]
    count = int(array.size - finite.sum())
    where = f"row {index[0]}, column {index[1]}" if array.ndim == 2 else f"row {index[0]}"
    kind = "NaN" if np.isnan(array[tuple(index)]) else "infinite"
    more = f" ({count} such values)" if count > 1 else ""
    raise InputError(f"{name} at {where} is {kind}{more}; drop or impute those rows first")


def matrix(value: Any, name: str = "X", *, finite: bool = True) -> Array:
    """A (n, d) floating matrix with at least one row and one column, finite unless the caller judges that."""
    array = as_array(value, name)
    if array.ndim == 1 and len(array) and (array.dtype.kind == "U" or all(isinstance(row, str) for row in array)):
        raise InputError(
            f"{name} holds texts; give vectors, one row a text, or use the command line: kofn select FILE --text COLUMN"
        )
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
    array = as_float(array, name)
    if finite:
        refuse_nonfinite(array, name)
    return array


def first_equal(rows: Array) -> Ints:
    """For each row the first row with the same entries, found by a hash of the bytes and checked."""
    factors = 2 * np.asarray(np.random.default_rng(0).integers(1, 2**62, rows[:1].nbytes // 4), np.uint64) + 1
    code = np.empty(len(rows), np.uint64)
    step = max(1, (1 << 16) // len(factors))
    for low in range(0, len(rows), step):
        # Adding zero makes -0 and 0 the same bytes.
        part = rows[low : low + step]
        words = np.ascontiguousarray(part + 0.0 if rows.dtype.kind == "f" else part).view(np.uint32)
        code[low : low + step] = (words * factors).sum(axis=1)
    ordered = np.sort(code)
    if (ordered[1:] != ordered[:-1]).all():
        return np.arange(len(rows))
    _, first, back = np.unique(code, return_index=True, return_inverse=True)
    same = first[back].astype(np.int64)
    differs = np.zeros(len(rows), bool)
    step = max(1, (1 << 20) // rows.shape[1])
    for low in range(0, len(rows), step):
        span = slice(low, low + step)
        differs[span] = (rows[span] != rows[same[span]]).any(axis=1)
    same[differs] = np.flatnonzero(differs)
    return same


def sparse_rows(value: Any, name: str = "X") -> Any:
    """Finite SciPy-sparse rows (n, m) as CSR without duplicate entries, never made dense."""
    if value.ndim != 2 or 0 in value.shape:
        raise InputError(f"{name} has shape {tuple(value.shape)}; give (n, m) with at least one row and one column")
    rows = sound_sparse(value, name).tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy() if rows is value else rows
        rows.sum_duplicates()
    if rows.dtype.kind != "f":
        rows = rows.astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(rows.data))
    if len(bad):
        row = int(np.searchsorted(rows.indptr, bad[0], side="right") - 1)
        raise InputError(
            f"{name} at row {row}, column {rows.indices[bad[0]]} is {rows.data[bad[0]]:g}; give finite features"
        )
    return rows


def square(value: Any, name: str, *, nonnegative: bool = True) -> Any:
    """A finite (n, n) matrix, dense, or SciPy-sparse where `name` is "similarity"."""
    if is_sparse(value):
        if name != "similarity":
            raise InputError(f"{name} is sparse, where a missing entry has no meaning; give a dense array")
        if value.shape[0] != value.shape[1]:
            raise InputError(f"{name} has shape {tuple(value.shape)}; it must be square (n, n)")
        if value.shape[0] == 0:
            raise InputError(f"{name} is empty: it has no rows")
        sparse = sound_sparse(value, name).tocsc()
        if not sparse.has_canonical_format:
            sparse = sparse.copy() if sparse is value else sparse
            sparse.sum_duplicates()
        if sparse.dtype.kind != "f":
            sparse = sparse.astype(np.float64)
        bad = ~np.isfinite(sparse.data) | (nonnegative & (sparse.data < 0))
        if bad.any():
            index = int(np.flatnonzero(bad)[0])
            column = int(np.searchsorted(sparse.indptr, index, side="right") - 1)
            raise InputError(
                f"{name} at row {sparse.indices[index]}, column {column} is {sparse.data[index]:g}; "
                "give finite values >= 0"
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
    array = as_array(value, name)
    if array.ndim == 2:
        if 0 in array.shape:
            raise InputError(f"{name} is empty: shape {array.shape}")
        array = as_float(array, name)
        # -inf is the field's mask for "not this bin"; NaN and +inf have no meaning.
        bad = np.isnan(array) | (array == np.inf)
        if bad.any():
            i, j = np.argwhere(bad)[0]
            raise InputError(
                f"{name} at row {i}, column {j} is {array[i, j]}; give finite scores, or -inf for a bin to avoid"
            )
        return array
    return vector(array, name)


def refuse_column_name(array: Array, name: str) -> None:
    """Refuse a single text where one value an item is wanted: most often the name of a column of X."""
    if array.ndim == 0 and array.dtype.kind == "U":
        text = shown(array.item())
        raise InputError(f"{name}={text}: give one value an item, shape (n,); of a table's column, {name}=df[{text}]")


def vector(value: Any, name: str) -> Array:
    """A finite (n,) floating vector."""
    array = as_array(value, name)
    refuse_column_name(array, name)
    if array.ndim != 1:
        raise InputError(f"{name} has shape {array.shape}; give one value an item, shape (n,)")
    if len(array) == 0:
        raise InputError(f"{name} is empty")
    array = as_float(array, name)
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
    with np.errstate(over="ignore"):
        total = float(array.sum(dtype=np.float64))
    if not total < _MOST_IN_ALL:
        raise InputError(f"{name} add up to {total:g}, beyond what sums of them can hold; divide them by the largest")
    return array


def signed_weights(value: Any, name: str = "weights") -> Array:
    """Finite (m,) weights of members, which may be negative."""
    return vector(value, name)


def rankings(value: Any, name: str = "rankings") -> Array:
    """(items, judges) scores, higher is better, NaN where a judge did not rate."""
    array = as_array(value, name)
    if array.ndim != 2 or 0 in array.shape:
        raise InputError(f"{name} has shape {array.shape}; give (items, judges): one row for each that is ranked")
    array = as_float(gaps_as_nan(array), name).astype(np.float64)
    if np.isinf(array).any():
        i, j = np.argwhere(np.isinf(array))[0]
        raise InputError(f"{name} at row {i}, column {j} is infinite; use NaN for a missing score")
    silent = np.flatnonzero(np.isnan(array).all(axis=0))
    if len(silent):
        columns = getattr(value, "columns", None)
        judge = silent[0] if columns is None or callable(columns) else repr(str(list(columns)[int(silent[0])]))
        raise InputError(f"{name}: judge {judge} rated nothing; drop that column")
    return array


# More members than anybody blends: what has no end, or nearly none, is not read further.
_MANY = 10**6


def _meant(value: Any, name: str) -> str:
    """What a single thing in place of a list of members may be meant to be."""
    if isinstance(value, str | PurePath):
        suffix = PurePath(value).suffix.lower()
        if suffix in (".yaml", ".yml", ".toml"):
            return f"; a recipe is run by kofn.combination.merge_recipe({str(value)!r}, out=...)"
        if frame_kind(value) == "file":
            return "; a table of scores is read first, then given as rankings="
        return f"; one path alone is {name}=[{str(value)!r}]"
    if isinstance(value, Mapping):
        return "; one state dict alone goes in a list, a table of scores is given as rankings="
    return ""


def members(value: Any, name: str = "members") -> list[Any]:
    """A non-empty list of things to blend: arrays, state dicts, paths of checkpoints, or torch modules."""
    if isinstance(value, str | bytes | Mapping | PurePath) or not isinstance(value, Iterable):
        raise InputError(
            f"{name}={type(value).__name__}: give a list of arrays, state dicts or paths{_meant(value, name)}"
        )
    if frame_kind(value) is not None:
        raise InputError(
            f"{name} is a table ({type(value).__name__}), whose rows are no members; to rank what its rows are by its "
            "columns, give it as rankings=, and the column of names as ids="
        )
    out = [item.state_dict() if hasattr(item, "load_state_dict") else item for item in islice(value, _MANY + 1)]
    if len(out) > _MANY:
        raise InputError(f"{name} holds more than {_MANY} members; give fewer")
    if not out:
        raise InputError(f"{name} is empty; give at least one")
    return out
