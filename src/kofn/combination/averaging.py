"""Weighted means of arrays, state dicts and checkpoints: exact, block by block, in memory that does not grow."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kofn import checks
from kofn.checks import InputError
from kofn.engines.control import Control
from kofn.io.tensor_writer import CheckpointWriter
from kofn.io.tensors import Checkpoint, Layout, LazyArrays, LazyTensor, from_torch, is_torch
from kofn.plans import Blend
from kofn.registry import method

_BLOCK = 1 << 16  # elements: a block of three half-precision members and their sums stays in a core's own cache
_TASK = 1 << 20  # elements handed to a thread at a time
_ROW = 8192  # a dot product this short is never split among BLAS threads, so sums do not depend on their number
_THREADED = 1 << 22  # elements above which threads pay
_POOL = 64 << 20  # bytes of buffers a thread may hold unless max_memory says otherwise
_LEAST_BLOCK = 256
_SHOWN = 8  # mismatches spelled out

_HALF = {np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)} | {
    np.dtype(getattr(ml_dtypes, name))
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
}
_REAL: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float32): np.dtype(np.float32),
    np.dtype(np.float64): np.dtype(np.float64),
    np.dtype(np.complex64): np.dtype(np.float32),
    np.dtype(np.complex128): np.dtype(np.float64),
}
# Powers of two without a sign: a scale, of which the mean of two is mostly not one.
_COPIED = np.dtype(ml_dtypes.float8_e8m0fnu)


@method(
    "combine",
    traits=("mergeable",),
    cost="O(m d) time, each member read once; memory a few blocks, whatever m models weigh on disk",
    exact="minimises sum_i w_i ||x_i - y||^2 among tensors of the members' dtype; copies give the copy bit for bit",
    paper="McMahan et al. 2017, Communication-efficient learning of deep networks from decentralized data (AISTATS)",
)
def weighted_mean(
    members: Sequence[Any],
    *,
    weights: Any = None,
    normalize: bool = True,
    out: str | os.PathLike[str] | None = None,
    statistic: bool | None = None,
    max_memory: int | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Blend:
    """Weighted mean of arrays, state dicts or checkpoints on disk, tensor by tensor.

    Half-precision members (float16, bfloat16, 8-bit floats) are summed in float32, all others in float64, and rounded
    once to the members' dtype. Integer and boolean tensors are copied where the members agree and refused where they do
    not. Quantised weights whose scales are tensors of their own are averaged as stored, which is rarely what is meant.

    Args:
        members: m arrays of one shape; or m mappings name -> array (NumPy or torch, bfloat16 included); or m paths of
            `*.safetensors` files or folders of them. All have the same names, shapes and dtypes.
        weights: (m,) relative weights, uniform by default; divided by their sum, which must be positive.
        normalize: False takes the weights as they are; unless they sum to one the blend is then "linear".
        out: a `*.safetensors` file, or a folder that gets the first member's shards, to write into while reading. The
            file or folder appears whole or not at all; an earlier output is replaced.
        statistic: keep the float64 sums that make the mean mergeable (8 bytes an element). None keeps them for arrays
            and not for state dicts; they are not offered for checkpoints on disk.
        max_memory: bytes for the blocks of all threads together (by default up to 64 MiB a thread).
        n_threads: threads, all available cores by default (one for small members); the result does not depend on them.
        progress: show progress on a terminal.

    Returns:
        A Blend. `result` is an array for arrays and a dict of arrays for mappings (`kofn.io.tensors.to_torch` makes a
        state dict of it); for checkpoints it is a lazy mapping name -> array: over the written files with `out`,
        computed on access without. `weights` (m,) as used; `form` is "simplex", "affine" (a weight is negative) or
        "linear"; `spread` (m,) is the L2 distance of each member to the blend; `value` is sum_i w_i spread_i^2, the
        minimised objective (NaN for "linear"); `statistic` is {"sum": ..., "weight": ...} or None, see `merge_means`.

    Raises:
        InputError: names, shapes or dtypes that differ (all at once), a NaN or infinity (member, tensor and index),
            integers that differ, a sum beyond the dtype's range, weights that sum to zero or less, an `out` that is a
            member.
        FailureError: a damaged checkpoint, a full disk.

    Time O(m d); the memory held beyond the result is the blocks. `info` counts `tensors`, `elements`, `bytes_read`.

    >>> import numpy as np
    >>> blend = weighted_mean([np.array([0.0, 4.0]), np.array([2.0, 0.0])], weights=[3, 1])
    >>> blend.result, blend.form
    (array([0.5, 3. ]), 'simplex')
    >>> bool(np.isclose(blend.value, blend.weights @ blend.spread**2))
    True

    References:
        McMahan et al. 2017, Communication-efficient learning of deep networks from decentralized data (AISTATS).
        Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models (ICML).
    """
    pool = _open(members)
    m = len(pool.members)
    used, total, form = _blend_weights(weights, m, checks.flag(normalize, "normalize"))
    statistic = None if statistic is None else checks.flag(statistic, "statistic")
    if statistic and pool.on_disk:
        raise InputError("statistic=True: the sums of checkpoints on disk are not kept in memory; pass state dicts")
    keep = not pool.named if statistic is None else statistic
    threads, block = _plan_blocks(n_threads, max_memory, pool)
    mean = _Mean(pool, used, form, block, keep_double=keep)

    sums = _empty_sums(pool) if keep else None
    held: dict[str, NDArray[Any]] = {}
    if out is not None:
        layout = _check_out(out, pool)
        with CheckpointWriter(out, layout) as writer:
            squares = mean.run(threads, writer.write, sums, progress)
        result: Any = Checkpoint.open(writer.out).arrays()
    elif pool.on_disk:
        squares = mean.run(threads, None, sums, progress)
        result = LazyArrays(pool.first, mean.tensor)
    else:
        held = {name: np.empty(tensor.shape, tensor.dtype) for name, tensor in pool.first.items()}
        flat = {name: array.reshape(-1) for name, array in held.items()}

        def store(name: str, start: int, values: NDArray[Any]) -> None:
            flat[name][start : start + len(values)] = values

        squares = mean.run(threads, store, sums, progress)
        result = held if pool.named else held[""]

    kept = None
    if sums is not None:
        for array in sums.values():
            with np.errstate(over="ignore", invalid="ignore"):
                array *= total if normalize else 1.0
        kept = {"sum": sums if pool.named else sums[""], "weight": total}
    linear = form == "linear"
    value = (
        float("nan") if linear else math.fsum(w * s for w, s in zip(used.tolist(), squares.tolist(), strict=True) if w)
    )
    return Blend(
        n=m,
        value=value,
        sense="min",
        bound=None if linear else value,
        status="heuristic" if linear else "optimal",
        result=result,
        form=form,
        weights=used,
        spread=np.sqrt(squares),
        statistic=kept,
        info={
            **({} if linear else {"objective": "squared_distance"}),
            "tensors": len(pool.first),
            "elements": pool.elements,
            "bytes_read": m * pool.nbytes,
        },
    )


def merge_means(*statistics: Mapping[str, Any]) -> dict[str, Any]:
    """One statistic for the members of several: `statistic["sum"] / statistic["weight"]` is their common weighted mean.

    Each is a `Blend.statistic` of `weighted_mean`: {"sum": sum_i w_i x_i, "weight": sum_i w_i}, weights as given.
    Any partition of the members, merged in any order, gives the statistic of all at once, up to float64 rounding.

    >>> import numpy as np
    >>> parts = [weighted_mean([np.array([1.0]), np.array([2.0])]), weighted_mean([np.array([6.0])])]
    >>> merged = merge_means(*(part.statistic for part in parts))
    >>> merged["sum"] / merged["weight"]
    array([3.])
    """
    if not statistics:
        raise InputError("statistics are empty; give at least one")
    first = statistics[0]
    weight = math.fsum(float(item["weight"]) for item in statistics)
    if isinstance(first["sum"], Mapping):
        names = list(first["sum"])
        for place, item in enumerate(statistics):
            if set(item["sum"]) != set(names):
                odd = sorted(set(item["sum"]) ^ set(names))[0]
                raise InputError(f"statistic {place} and statistic 0 do not both hold {odd!r}; merge one architecture")
        return {"sum": {name: _add([item["sum"][name] for item in statistics]) for name in names}, "weight": weight}
    return {"sum": _add([item["sum"] for item in statistics]), "weight": weight}


def _empty_sums(pool: _Pool) -> dict[str, NDArray[Any]]:
    return {
        name: np.empty(tensor.shape, np.complex128 if tensor.dtype.kind == "c" else np.float64)
        for name, tensor in pool.first.items()
    }


def _add(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    total = np.array(arrays[0])
    for place, array in enumerate(arrays[1:], 1):
        if np.shape(array) != total.shape:
            raise InputError(
                f"statistic {place} has shape {np.shape(array)}, statistic 0 {total.shape}; they must match"
            )
        total += array
    return total


class _Held:
    """An array in memory, read as a tensor in a file is."""

    __slots__ = ("_array", "_flat", "dtype", "shape", "size")

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self._flat = array.reshape(-1) if array.flags.c_contiguous else None
        self.dtype, self.shape, self.size = array.dtype, array.shape, array.size

    def read(self, start: int = 0, stop: int | None = None, _out: NDArray[Any] | None = None) -> NDArray[Any]:
        stop = self.size if stop is None else stop
        return self._array.flat[start:stop] if self._flat is None else self._flat[start:stop]


_Tensor = LazyTensor | _Held


@dataclass(frozen=True, slots=True)
class _Pool:
    """The members, opened and checked against each other: mappings name -> tensor (one name, "", for plain arrays)."""

    members: list[Mapping[str, _Tensor]]
    labels: list[str]
    named: bool
    on_disk: bool

    @property
    def first(self) -> Mapping[str, _Tensor]:
        return self.members[0]

    @property
    def elements(self) -> int:
        return sum(tensor.size for tensor in self.first.values())

    @property
    def nbytes(self) -> int:
        return sum(tensor.size * tensor.dtype.itemsize for tensor in self.first.values())


def _open(members: Sequence[Any]) -> _Pool:
    opened: list[Mapping[str, _Tensor]] = []
    labels: list[str] = []
    kinds = set()
    for place, member in enumerate(members):
        label = f"member {place}"
        if isinstance(member, str | os.PathLike):
            label, member = f"member {place} ({os.fspath(member)})", Checkpoint.open(member)
        if isinstance(member, Checkpoint):
            kinds.add("checkpoints")
            opened.append(member)
        elif isinstance(member, Mapping):
            kinds.add("mappings")
            odd = [name for name in member if not isinstance(name, str) or not name]
            if odd:
                raise InputError(f"{label} has a tensor named {odd[0]!r}; names are non-empty text")
            opened.append({name: _hold(value, label, name) for name, value in member.items()})
        else:
            kinds.add("arrays")
            opened.append({"": _hold(member, label, "")})
        labels.append(label)
    if "arrays" in kinds and len(kinds) > 1:
        raise InputError(f"members mix plain arrays with {sorted(kinds - {'arrays'})[0]}; give all in one form")
    if not opened[0]:
        raise InputError(f"{labels[0]} holds no tensor; nothing to blend")
    _refuse_mismatch(opened, labels)
    return _Pool(opened, labels, "arrays" not in kinds, "checkpoints" in kinds)


def _hold(value: Any, label: str, name: str) -> _Held:
    if is_torch(value):
        array = from_torch(value)
    else:
        try:
            array = np.asarray(value)
        except ValueError as error:
            raise InputError(f"{label}: {_what(name)} is ragged ({error}); give rectangular arrays") from None
        if not hasattr(value, "dtype") and array.dtype.kind in "iu":
            array = array.astype(np.float64)  # a list such as [3, 6] is written without a dtype in mind
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    known = array.dtype in _HALF or array.dtype in _REAL or array.dtype == _COPIED or array.dtype.kind in "iub"
    if not known:
        raise InputError(f"{label}: {_what(name)} has dtype {array.dtype}; give numbers of up to 64 bits")
    return _Held(array)


def _what(name: str) -> str:
    return f"tensor {name!r}" if name else "the array"


def _refuse_mismatch(members: list[Mapping[str, _Tensor]], labels: list[str]) -> None:
    """Refuses members that differ from the first in names, shapes or dtypes, all differences at once."""
    found: list[str] = []
    first = members[0]
    for label, member in zip(labels[1:], members[1:], strict=True):
        found += [f"{label} lacks tensor {name!r}" for name in first if name not in member]
        for name, tensor in member.items():
            if name not in first:
                found.append(f"{label} has tensor {name!r}, which member 0 lacks")
                continue
            wanted = first[name]
            if tensor.shape != wanted.shape:
                found.append(f"{label}: {_what(name)} has shape {tensor.shape}, in member 0 {wanted.shape}")
            if tensor.dtype != wanted.dtype:
                found.append(f"{label}: {_what(name)} is {tensor.dtype}, in member 0 {wanted.dtype}")
    if found:
        more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
        places = "1 place" if len(found) == 1 else f"{len(found)} places"
        raise InputError(
            f"members do not match in {places}: {'; '.join(found[:_SHOWN])}{more}; "
            "blend members of one architecture, vocabulary and dtype"
        )


def _blend_weights(weights: Any, m: int, normalize: bool) -> tuple[NDArray[np.float64], float, str]:
    """The weights as used, the sum of the weights as given, and the form of the blend they make."""
    given = np.ones(m) if weights is None else np.asarray(weights, np.float64)
    total = math.fsum(given.tolist())
    slack = 4 * m * np.finfo(np.float64).eps * math.fsum(np.abs(given).tolist())
    if normalize:
        if total <= slack:
            raise InputError(
                f"weights sum to {total:g}; relative weights need a positive sum "
                "(the option normalize=False takes them as they are)"
            )
        used = given / total
    else:
        used = given
        if abs(total - 1) > slack:
            return used, total, "linear"
    return used, total, "simplex" if (used >= 0).all() else "affine"


def _plan_blocks(n_threads: int | None, max_memory: int | None, pool: _Pool) -> tuple[int, int]:
    """Threads, and elements in a block; the block does not depend on the threads, so that no sum does."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = 1 if pool.elements < _THREADED else n_threads or cores
    each = _Buffers.bytes_per_element(len(pool.members))
    room = _POOL if max_memory is None else max_memory
    if max_memory is not None and room < _LEAST_BLOCK * each:
        raise InputError(
            f"max_memory={max_memory} is too little for {len(pool.members)} members; "
            f"give at least {_LEAST_BLOCK * each} bytes"
        )
    block = max(_LEAST_BLOCK, min(_BLOCK, room // each))
    return (threads if max_memory is None else max(1, min(threads, max_memory // (block * each)))), block


def _check_out(out: str | os.PathLike[str], pool: _Pool) -> Layout:
    if not pool.named:
        raise InputError(f"out={os.fspath(out)!r}: plain arrays have no names to store; give mappings name -> array")
    for label, member in zip(pool.labels, pool.members, strict=True):
        if isinstance(member, Checkpoint) and member.is_at(Path(out)):
            raise InputError(f"out={os.fspath(out)!r} is where {label} lies; name another path")
    if not isinstance(pool.first, Checkpoint):
        return Layout.of_arrays(pool.first)
    layout = pool.first.layout
    # A lone file keeps its name only inside its own folder: loaders look for model.safetensors in a new one.
    return layout if pool.first.path.is_dir() or layout.index_name is not None else layout.as_single_file()


class _Buffers:
    """What one thread computes in: a row for each member, and four more."""

    def __init__(self, m: int, block: int) -> None:
        self.rows = np.empty((m, block), np.float64)
        self.extra = np.empty((4, block), np.float64)
        self.raw = np.empty(block * 16, np.uint8)
        self.rounded = np.empty(block * 16, np.uint8)

    @staticmethod
    def bytes_per_element(m: int) -> int:
        # A complex element takes two real ones, so blocks of complex tensors hold half as many.
        return 8 * (m + 4) + 32


class _Mean:
    """The blockwise computation: reads a block of every member, blends it, hands it on, and measures the distances."""

    def __init__(self, pool: _Pool, weights: NDArray[np.float64], form: str, block: int, *, keep_double: bool) -> None:
        self.pool, self.form, self.block, self.double = pool, form, block, keep_double
        self.weights = [float(weight) for weight in weights]
        # float32 sums err by at most m sum|w| 2^-24 of the largest member, which must stay below half a unit in the
        # last place of a float16 (2^-12) for copies to come back bit for bit.
        self.double |= len(self.weights) * math.fsum(map(abs, self.weights)) > 512
        self.local = threading.local()

    def run(
        self,
        threads: int,
        sink: Callable[[str, int, NDArray[Any]], None] | None,
        sums: dict[str, NDArray[Any]] | None,
        progress: bool | None = None,
    ) -> NDArray[np.float64]:
        """Blends everything; returns (m,) squared distances, added up in the same order for any number of threads."""
        flat = None if sums is None else {name: array.reshape(-1) for name, array in sums.items()}

        def work(task: list[tuple[str, int, int]]) -> NDArray[np.float64]:
            squares = np.zeros(len(self.weights))
            for name, start, stop in task:
                squares += self._block(name, start, stop, sink, flat)
            return squares

        tasks = list(self._tasks())
        executor = ThreadPoolExecutor(min(threads, len(tasks))) if min(threads, len(tasks)) > 1 else None
        parts = []
        with Control(progress=progress, total=len(tasks), what="blending") as control:
            try:
                for part in map(work, tasks) if executor is None else executor.map(work, tasks):
                    parts.append(part)
                    control.step(len(parts))
                    if control.stopped():  # half a blend is none
                        raise KeyboardInterrupt
            finally:
                if executor is not None:
                    executor.shutdown(cancel_futures=True)
        self.local = threading.local()
        return np.array([math.fsum(column) for column in np.array(parts).T.tolist()])

    def tensor(self, name: str) -> NDArray[Any]:
        """One blended tensor."""
        shape, dtype = self.pool.first[name].shape, self.pool.first[name].dtype
        result = np.empty(shape, dtype)
        flat = result.reshape(-1)

        def store(_name: str, start: int, values: NDArray[Any]) -> None:
            flat[start : start + len(values)] = values

        for start, stop in self._blocks(name):
            self._block(name, start, stop, store, None)
        return result

    def _blocks(self, name: str) -> Iterator[tuple[int, int]]:
        tensor = self.pool.first[name]
        step = self.block // 2 if tensor.dtype.kind == "c" else self.block
        for start in range(0, tensor.size, step):
            yield start, min(start + step, tensor.size)

    def _tasks(self) -> Iterator[list[tuple[str, int, int]]]:
        task: list[tuple[str, int, int]] = []
        filled = 0
        for name in self.pool.first:
            for start, stop in self._blocks(name):
                task.append((name, start, stop))
                filled += stop - start
                if filled >= _TASK:
                    yield task
                    task, filled = [], 0
        yield task

    def _block(
        self,
        name: str,
        start: int,
        stop: int,
        sink: Callable[[str, int, NDArray[Any]], None] | None,
        sums: dict[str, NDArray[Any]] | None,
    ) -> NDArray[np.float64]:
        buffers = getattr(self.local, "buffers", None)
        if buffers is None:
            largest = max(tensor.size * (2 if tensor.dtype.kind == "c" else 1) for tensor in self.pool.first.values())
            buffers = self.local.buffers = _Buffers(len(self.weights), min(self.block, largest))
        dtype = self.pool.first[name].dtype
        if dtype in _HALF or dtype in _REAL:
            with np.errstate(all="ignore"):  # overflow and NaN are looked for in the result, and named
                values, squares = self._average(name, start, stop, buffers, sums)
        else:
            values, squares = self._copy(name, start, stop, buffers, sums)
        if sink is not None:
            sink(name, start, values)
        return squares

    def _average(
        self, name: str, start: int, stop: int, buffers: _Buffers, sums: dict[str, NDArray[Any]] | None
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        dtype = self.pool.first[name].dtype
        part = _REAL.get(dtype, dtype)
        count = (stop - start) * (dtype.itemsize // part.itemsize)
        half = dtype in _HALF and not self.double
        work = np.float32 if half else np.float64
        rows = [row.view(work)[:count] for row in buffers.rows]
        total, other, low, high = (row.view(work)[:count] for row in buffers.extra)
        for row, member in zip(rows, self.pool.members, strict=True):
            np.copyto(row, member[name].read(start, stop, buffers.raw).view(part), casting="unsafe")
        started = False
        for row, weight in zip(rows, self.weights, strict=True):
            if weight == 0:
                continue  # adding 0 x would turn -0.0 into 0.0
            if started:
                np.multiply(row, weight, out=other)
                np.add(total, other, out=total)
            else:
                np.multiply(row, weight, out=total)
                started = True
        if not started:
            total.fill(0)
        if sums is not None:
            sums[name][start:stop].view(np.float64)[:] = total
        # Rounding to a narrower dtype hides the error of the sum. Where nothing is narrowed, or negative weights
        # cancel, the box and the copies are kept by hand.
        if self.form != "linear" and (part == np.float64 or self.form == "affine"):
            np.copyto(low, rows[0])
            np.copyto(high, rows[0])
            for row in rows[1:]:
                np.minimum(low, row, out=low)
                np.maximum(high, row, out=high)
            if self.form == "simplex":
                np.clip(total, low, high, out=total)
            np.copyto(total, rows[0], where=low == high)
        rounded = buffers.rounded[: count * part.itemsize].view(part)
        np.copyto(rounded, total, casting="unsafe")
        np.copyto(other, rounded, casting="unsafe")
        squares = np.empty(len(rows))
        for place, row in enumerate(rows):
            np.subtract(row, other, out=row)
            squares[place] = _sum_of_squares(row, buffers.extra[0])
        if not np.isfinite(squares).all():
            squares = self._explain(name, start, stop, rounded)
        return rounded.view(dtype), squares

    def _copy(
        self, name: str, start: int, stop: int, buffers: _Buffers, sums: dict[str, NDArray[Any]] | None
    ) -> tuple[NDArray[Any], NDArray[np.float64]]:
        first, *others = self.pool.members
        values = first[name].read(start, stop, buffers.rounded)
        for label, member in zip(self.pool.labels[1:], others, strict=True):
            theirs = member[name].read(start, stop, buffers.raw)
            if values.tobytes() != theirs.tobytes():
                at = int(np.flatnonzero(values.view(f"u{values.itemsize}") != theirs.view(f"u{values.itemsize}"))[0])
                raise InputError(
                    f"{_what(name)} is {values.dtype} and differs at {self._index(name, start + at)} between member 0 "
                    f"({values[at]}) and {label} ({theirs[at]}); such values are copied, not averaged: "
                    "make the members agree or cast them to a float dtype"
                )
        if sums is not None:
            sums[name][start:stop] = values.astype(np.float64) * math.fsum(self.weights)
        return values, np.zeros(len(self.weights))

    def _explain(self, name: str, start: int, stop: int, rounded: NDArray[Any]) -> NDArray[np.float64]:
        """Names what made a distance infinite or NaN; returns the distances in float64 if nothing is wrong."""
        dtype = self.pool.first[name].dtype
        part = _REAL.get(dtype, dtype)
        step = dtype.itemsize // part.itemsize
        blend = rounded.astype(np.float64)
        squares = np.empty(len(self.weights))
        for place, (label, member) in enumerate(zip(self.pool.labels, self.pool.members, strict=True)):
            values = member[name].read(start, stop).view(part).astype(np.float64)
            bad = np.flatnonzero(~np.isfinite(values))
            if len(bad):
                kind = "NaN" if np.isnan(values[bad[0]]) else "infinite"
                where = self._index(name, start + int(bad[0]) // step)
                raise InputError(f"{label}: {_what(name)} at {where} is {kind}; leave that member out or repair it")
            squares[place] = np.sum(np.square(values - blend))
        bad = np.flatnonzero(~np.isfinite(blend))
        if len(bad):
            raise InputError(
                f"the blend of {_what(name)} at {self._index(name, start + int(bad[0]) // step)} is beyond the range "
                f"of {dtype}; use weights that sum to one or members of a wider dtype"
            )
        return squares

    def _index(self, name: str, flat: int) -> tuple[int, ...]:
        return tuple(int(axis) for axis in np.unravel_index(flat, self.pool.first[name].shape))


def _sum_of_squares(row: NDArray[Any], scratch: NDArray[np.float64]) -> float:
    """Sum of squares in float64: bfloat16 reaches where the squares of float32 overflow or vanish."""
    if row.dtype != np.float64:
        wide = scratch[: len(row)]
        np.copyto(wide, row)
        row = wide
    whole = len(row) // _ROW * _ROW
    table = row[:whole].reshape(-1, _ROW)
    return float(np.vecdot(table, table).sum() + np.vecdot(row[whole:], row[whole:]))
