"""Quantised weights and the scales beside them: which tensors make one weight, its values, and how to make it again.

A weight is kept as 8-bit numbers and a scale for the whole tensor, for each channel or for each block; its value is
their product. The names of the scales are those of compressed-tensors (`weight_scale`), of block-wise float8
(`weight_scale_inv`), of ComfyUI (`scale_weight`), of DeepSeek's own files (`scale`) and of LLM.int8 (`SCB`).
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import FailureError, InputError, shown
from kofn.io.companions import CONFIG, read_config

FLOAT8 = {
    np.dtype(getattr(ml_dtypes, name))
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
}
NARROW = FLOAT8 | {np.dtype(np.int8)}
_INT8_LIMIT = 127.0
_PACKED = 16  # bytes of a block of 32 4-bit codes
_BLOCK = 128  # the side of a block where no configuration says another
_CHUNK = 1 << 18  # elements that are requantised at a time
# What float32 rounds off, and noise of sums that cancel: far below half a step of any of the dtypes.
_NEAR, _NEAR_ZERO = 2.0**-22, 2.0**-40

# Scales of activations, which bound what a layer's input or output may be.
ACTIVATION = re.compile(
    r"(^|[._])(input_scale|input_scale_ub|scale_input|activation_scale|output_scale|prob_scale|[qkv]_scale)$"
)

# What scales and zero points are called, by whatever library.
SCALE_WORD = re.compile(r"scal(e|ing)|zero|absmax|amax|qparam|(^|[._])(zp|scb)($|[._])", re.IGNORECASE)
_TEMPERATURE = "logit_scale"  # a parameter of CLIP and its kin, which lies beside projections and embeddings
_MARKS = ("weight_format", "comfy_quant", "scaled_fp8")


class Stored(Protocol):
    """A tensor as it is stored, in a file or in memory."""

    @property
    def dtype(self) -> np.dtype[Any]: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def size(self) -> int: ...

    def read(self, start: int = 0, stop: int | None = None, /) -> NDArray[Any]: ...


@dataclass(frozen=True, slots=True)
class Scheme:
    """How one weight is quantised: value = number * scale / unit, with a scale for each block of `blocks`."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    scale: str
    scale_dtype: np.dtype[Any]
    scale_shape: tuple[int, ...]
    blocks: tuple[int, ...]
    unit: float
    powers: bool  # scales are powers of two
    markers: tuple[str, ...] = ()  # small tensors that say how the weight is kept, such as `weight_format`

    @property
    def grid(self) -> tuple[int, ...]:
        """How many blocks there are along each axis."""
        return tuple(-(-extent // block) for extent, block in zip(self.shape, self.blocks, strict=True))

    @property
    def limit(self) -> float:
        """The largest number of the dtype."""
        return _INT8_LIMIT if self.dtype == np.int8 else float(ml_dtypes.finfo(self.dtype).max)

    def alike(self, other: Scheme) -> bool:
        """Whether a scale of the other scheme can stand in this one."""
        mine, theirs = ((s.dtype, s.blocks, s.scale_dtype, s.unit) for s in (self, other))
        return mine == theirs

    def factors(self, scales: NDArray[np.float64], first: int, last: int) -> NDArray[np.float64]:
        """The scales of the rows `first:last` (all axes but the last are rows), to be multiplied with them."""
        columns = self.grid[-1]
        cells = self.cells(first, last)
        table = scales.reshape(-1, columns)[cells]
        return table if columns == 1 else np.repeat(table, self.blocks[-1], axis=1)[:, : self.shape[-1]]

    def cells(self, first: int, last: int) -> NDArray[np.intp]:
        """(last - first,) the row of blocks that each row lies in."""
        rows = np.arange(first, last)
        if len(self.shape) == 1:
            return np.zeros_like(rows)
        index = np.unravel_index(rows, self.shape[:-1])
        blocks = [axis // block for axis, block in zip(index, self.blocks, strict=False)]
        return np.ravel_multi_index(blocks, self.grid[:-1])

    def scales(self, stored: NDArray[Any]) -> NDArray[np.float64]:
        """(grid) scales as float64, from the stored ones."""
        return np.asarray(stored, np.float64).reshape(self.grid) / self.unit


class Dequantised:
    """A quantised weight with the interface of a tensor of float64: number times scale, which float64 holds exactly."""

    __slots__ = ("_scale", "_scales", "_weight", "dtype", "scheme", "shape", "size")

    def __init__(self, weight: Stored, scale: Stored, scheme: Scheme) -> None:
        self._weight, self._scale, self.scheme = weight, scale, scheme
        self.dtype, self.shape, self.size = np.dtype(np.float64), weight.shape, weight.size
        self._scales: NDArray[np.float64] | None = None

    @property
    def path(self) -> Path:
        """The file that holds the numbers."""
        path: Path = self._weight.path  # type: ignore[attr-defined]
        return path

    @property
    def nbytes(self) -> int:
        """Bytes of the numbers as they are stored."""
        return self.size * self._weight.dtype.itemsize

    def stored_scales(self) -> NDArray[Any]:
        """The scales as they are stored, flat."""
        return self._scale.read()

    def read(self, start: int = 0, stop: int | None = None, _out: NDArray[Any] | None = None) -> NDArray[np.float64]:
        """Elements `start:stop` of the flattened tensor."""
        stop = self.size if stop is None else stop
        scales = self._scales
        if scales is None:
            scales = self._scales = self.scheme.scales(self.stored_scales())
        if stop == self.size:  # held only while the tensor is being read: many small scales weigh as much as weights
            self._scales = None
        values = _widened(self._weight.read(start, stop))
        if scales.size == 1:
            return np.multiply(values, scales.flat[0], out=values)
        width = self.shape[-1]
        first, last = start // width, -(-stop // width)
        rows = np.zeros((last - first) * width)
        block = rows[start - first * width : stop - first * width]
        block[:] = values
        table = rows.reshape(-1, width)
        np.multiply(table, self.scheme.factors(scales, first, last), out=table)
        return block


def schemes_of(
    tensors: Mapping[str, Stored], label: str, folder: Path | None = None, copied: Container[str] = ()
) -> dict[str, Scheme]:
    """The quantised weights among tensors, by name.

    Args:
        tensors: what is stored, by name.
        label: what the tensors are called in an error.
        folder: where a config.json may name the blocks.
        copied: weights that are not read, so that any scales may be theirs.

    Raises:
        InputError: a scale whose shape does not fit its weight, or a form of storage that is not known.
    """
    schemes = {}
    side, powers = _block_size(folder)
    for name, tensor in tensors.items():
        if tensor.dtype not in NARROW or not tensor.shape or not tensor.size:
            continue
        stem = name.removesuffix("weight")
        scale = scale_of(tensors, name)
        if scale is None or any(name + end in tensors for end in ("_scale_2", "_zero_point")):
            continue
        stored = tensors[scale]
        blocks = _blocks(tensor.shape, stored.shape, side)
        markers = tuple(stem + mark for mark in _MARKS[:2] if stem + mark in tensors)
        if name not in copied:
            _refuse_unread(label, name, tensor, scale, stored, blocks)
            _check_markers(tensors, markers, label)
        schemes[name] = Scheme(
            tensor.dtype,
            tensor.shape,
            scale,
            stored.dtype,
            stored.shape,
            blocks or tensor.shape,
            _INT8_LIMIT if scale.endswith("SCB") else 1.0,
            powers or stored.dtype == ml_dtypes.float8_e8m0fnu,
            markers,
        )
    return schemes


def _refuse_unread(
    label: str, name: str, tensor: Stored, scale: str, stored: Stored, blocks: tuple[int, ...] | None
) -> None:
    """Refuse scales that do not fit their weight, and bytes of 4-bit codes, which look like int8."""
    if blocks is None or stored.dtype in NARROW:
        raise InputError(
            f"{label}: {scale!r} is {stored.dtype} of shape {stored.shape}, which is no scale of {name!r} of shape "
            f"{tensor.shape}; dequantise that member first, or skip this tensor"
        )
    packed = stored.dtype == ml_dtypes.float8_e8m0fnu or blocks[-1] == _PACKED < tensor.shape[-1]
    if tensor.dtype == np.int8 and packed:
        raise InputError(
            f"{label} is quantised in a form that is not read ({name!r} is int8 with the scales of packed 4-bit "
            "codes); dequantise that member first, or skip these tensors"
        )


def scale_of(tensors: Container[str], name: str) -> str | None:
    """The name of the scale beside a weight, None if there is none."""
    stem = name.removesuffix("weight")
    names = [name + "_scale_inv", name + "_scale", stem + "scale_weight", stem + "SCB"]
    if stem.endswith("."):  # elsewhere a scale may be a parameter of its own, as of a norm
        names.append(stem + "scale")
    return next((other for other in names if other in tensors and other != name), None)


def scale_like(tensors: Mapping[str, Stored]) -> dict[str, str]:
    """The tensors that are called a scale or zero point beside an 8-bit weight, each with that weight.

    Beside a weight is what lies in its module, and whose name goes on from the weight's or its module's.
    """
    narrow = [name for name, tensor in tensors.items() if _is_narrow(name, tensor)]
    in_module: dict[str, list[str]] = {}
    for name in narrow:
        in_module.setdefault(name.rpartition(".")[0], []).append(name)
    weights = set(narrow)
    pairs = {}
    for name, tensor in tensors.items():
        if name in weights or not SCALE_WORD.search(name):
            continue
        module, _, leaf = name.rpartition(".")
        owners = []
        for end in re.finditer("[._]", name):
            start, rest = name[: end.start()], name[end.start() :]
            if SCALE_WORD.search(rest):
                # Modules within the module of other weights, as of a norm, have scales of their own.
                others = in_module.get(start, []) if end.group() == "_" else []
                owners += [owner for owner in (start, start + ".weight") if owner in weights] + others
        owners = owners[::-1]
        if SCALE_WORD.search(leaf) and leaf != _TEMPERATURE:
            owners += in_module.get(module, [])
        owner = next((owner for owner in owners if not _is_parameter(tensor, tensors[owner])), None)
        if owner is not None:
            pairs[name] = owner
    return pairs


def _is_narrow(name: str, tensor: Stored) -> bool:
    """Whether a tensor may be a weight's 8-bit numbers."""
    dtype = tensor.dtype
    eight = dtype.itemsize == 1 and dtype.kind != "b" and dtype != ml_dtypes.float8_e8m0fnu
    return eight and tensor.size > 0 and not name.endswith(_MARKS) and not SCALE_WORD.search(name.rpartition(".")[2])


def _is_parameter(scale: Stored, weight: Stored) -> bool:
    """Whether what is called a scale is a parameter: of a norm, beside its bias, or in a model cast to float8 whole."""
    of_norm = len(weight.shape) == 1 < weight.size and scale.shape == weight.shape
    return of_norm or (scale.dtype in FLOAT8 and scale.dtype == weight.dtype)


def _block_size(folder: Path | None) -> tuple[tuple[int, ...], bool]:
    """The sides of a block and whether scales are powers of two, as config.json says."""
    try:
        config = read_config(folder / CONFIG) if folder is not None else {}
        settings = config.get("quantization_config") or {}
        groups = (settings.get("config_groups") or {}).values()
        structures = [group["weights"].get("block_structure") for group in groups if group.get("weights")]
        side = settings.get("weight_block_size") or next(filter(None, structures), (_BLOCK, _BLOCK))
        powers = settings.get("scale_fmt") == "ue8m0"
    except (OSError, FailureError, AttributeError, TypeError):
        return (_BLOCK, _BLOCK), False
    if not isinstance(side, list | tuple) or not all(type(each) is int and each > 0 for each in side):
        raise InputError(f"{folder}/config.json: weight_block_size is {shown(side)}; it must list whole numbers > 0")
    return tuple(side), powers


def _blocks(shape: tuple[int, ...], scales: tuple[int, ...], sides: tuple[int, ...]) -> tuple[int, ...] | None:
    """The sides of a block along each axis; None if the scales do not fit the shape."""
    if all(extent == 1 for extent in scales):
        return shape
    front = list(scales)
    while front[-1] == 1:
        front.pop()
    if tuple(front) == shape[: len(front)]:
        return (1,) * len(front) + shape[len(front) :]
    if len(scales) != len(shape):
        return None
    blocks = []
    wanted = (*(1,) * (len(shape) - len(sides)), *sides)[-len(shape) :]
    for extent, count, side in zip(shape, scales, wanted, strict=True):
        if count in (1, extent):
            blocks.append(extent // count)
        elif side > 1 and -(-extent // side) == count:
            blocks.append(side)
        elif count and extent % count == 0:
            blocks.append(extent // count)
        else:
            return None
    return tuple(blocks)


def _check_markers(tensors: Mapping[str, Stored], markers: Sequence[str], label: str) -> None:
    """Refuse weights in an order of rows, or a format, that is not known."""
    for name in markers:
        content = tensors[name].read()
        if name.endswith("weight_format"):
            known = not np.asarray(content, np.float64).any()
        else:
            known = b'"float8_e' in content.tobytes() or b'"int8' in content.tobytes()
        if not known:
            raise InputError(f"{label}: {name!r} says a format that is not read; dequantise that member first")


def requantise(
    values: NDArray[np.floating[Any]], scheme: Scheme, candidates: Sequence[NDArray[Any]] = ()
) -> tuple[NDArray[Any], NDArray[Any], float, float]:
    """Quantise a tensor: each block's scale is its largest magnitude over the dtype's, numbers round to nearest even.

    Where all values of a block are exact multiples at one of the `candidates`, such as the scales of a member that the
    blend equals, that scale is kept, and nothing is added to the values.

    Args:
        values: the flattened tensor, finite.
        scheme: dtype, shape and blocks.
        candidates: scales as they are stored, flat, of schemes that are alike.

    Returns:
        The numbers, flat; the scales, as they are stored; the sum of squared errors; the sum of squared values.
    """
    width = scheme.shape[-1]
    table = values.reshape(-1, width)
    largest = _largest(table, scheme)
    scales = _stored(largest / scheme.limit * scheme.unit, scheme)
    for candidate in reversed(candidates):
        exact = _exact(table, scheme, candidate, largest)
        scales = np.where(exact, candidate.reshape(scheme.grid), scales)
    numbers = np.empty(len(values), scheme.dtype)
    errors = squares = 0.0
    factors = scheme.scales(scales)
    for first, last in _chunks(table):
        rows = table[first:last].astype(np.float64)
        factor = scheme.factors(factors, first, last)
        rounded = _rounded(rows / factor, scheme)
        numbers[first * width : last * width] = rounded.reshape(-1)
        gaps = _widened(rounded)
        gaps *= factor
        gaps -= rows
        gaps[np.abs(gaps) <= _NEAR * np.abs(rows)] = 0.0  # what float32 rounded off, and not this dtype
        errors += float(np.square(gaps, out=gaps).sum())
        squares += float(np.square(rows, out=rows).sum())
    return numbers, scales.reshape(scheme.scale_shape), errors, squares


def _chunks(table: NDArray[Any]) -> Iterator[tuple[int, int]]:
    step = max(1, _CHUNK // table.shape[1])
    return ((first, min(first + step, len(table))) for first in range(0, len(table), step))


def _largest(table: NDArray[Any], scheme: Scheme, magnitudes: Any = None) -> NDArray[np.float64]:
    """(grid) the largest magnitude of each block; `magnitudes(first, last)` gives those of rows, by default |table|."""
    columns = scheme.grid[-1]
    largest = np.zeros((int(np.prod(scheme.grid[:-1], dtype=np.int64)), columns))
    starts = np.arange(columns) * scheme.blocks[-1]
    for first, last in _chunks(table):
        rows = np.abs(table[first:last]) if magnitudes is None else magnitudes(first, last)
        np.maximum.at(largest, scheme.cells(first, last), np.maximum.reduceat(rows, starts, axis=1))
    return largest.reshape(scheme.grid)


def _stored(scales: NDArray[np.float64], scheme: Scheme) -> NDArray[Any]:
    """The scales in the dtype that they are stored in; blocks of zeros have the scale one."""
    scales = np.where(scales > 0, scales, 1.0)
    if scheme.powers:
        scales = np.exp2(np.ceil(np.log2(scales)))
    with np.errstate(under="ignore"):
        stored = scales.astype(scheme.scale_dtype)
    if scheme.scale_dtype.kind == "f" or scheme.scale_dtype == ml_dtypes.bfloat16:
        smallest = ml_dtypes.finfo(scheme.scale_dtype).smallest_subnormal
        stored = np.maximum(stored, np.asarray(smallest, scheme.scale_dtype))
    return stored


def _exact(
    table: NDArray[Any], scheme: Scheme, candidate: NDArray[Any], largest: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """(grid) whether all values of a block are the numbers that they round to, at the scales `candidate`."""
    scales = scheme.scales(candidate)
    with np.errstate(all="ignore"):
        back = _widened(_rounded(largest / scales, scheme)) * scales
        if scheme.dtype == np.int8:  # whose smallest number has no positive counterpart
            lowest = np.abs(largest - (_INT8_LIMIT + 1) * scales) <= _NEAR * largest
            back = np.where(lowest, largest, back)
    # The largest values decide nearly all blocks, so that seldom a second look is taken.
    exact = (np.abs(back - largest) <= _NEAR * largest) & (scales > 0)
    if not (exact & (largest > 0)).any():
        return exact

    def excess(first: int, last: int) -> NDArray[np.float64]:
        rows = table[first:last].astype(np.float64)
        factor = scheme.factors(scales, first, last)
        floor = _NEAR_ZERO * scheme.factors(largest, first, last)
        with np.errstate(all="ignore"):
            gaps = np.abs(_widened(_rounded(rows / factor, scheme)) * factor - rows)
        return gaps - _NEAR * np.abs(rows) - floor

    return exact & (_largest(table, scheme, excess) <= 0)


def _rounded(ratios: NDArray[np.float64], scheme: Scheme) -> NDArray[Any]:
    """The nearest numbers of the dtype (of two, the even one), as new memory; `ratios` is used up."""
    if scheme.dtype == np.int8:
        np.rint(ratios, out=ratios)
        return np.clip(ratios, -_INT8_LIMIT - 1, _INT8_LIMIT, out=ratios).astype(np.int8)
    np.clip(ratios, -scheme.limit, scheme.limit, out=ratios)
    # In float64 with the exponents of the narrow dtype, numbers are the upper bits, subnormal ones too. A cast would
    # do the same, several times as slowly and one thread at a time.
    facts = ml_dtypes.finfo(scheme.dtype)
    bias = 1 - int(facts.minexp)
    ratios *= 2.0 ** (bias - 1023)
    bits = ratios.view(np.uint64)
    signs = (bits >> 56) & 0x80
    bits &= (1 << 63) - 1
    cut = 52 - int(facts.nmant)
    bits += ((bits >> cut) & 1) + ((1 << (cut - 1)) - 1)
    bits >>= cut
    bits |= signs
    if scheme.dtype.name.endswith("fnuz"):  # which has no negative zero: its bits are NaN
        bits[bits == 0x80] = 0
    return bits.astype(np.uint8).view(scheme.dtype)


def _widened(numbers: NDArray[Any]) -> NDArray[np.float64]:
    """8-bit numbers as float64, looked up: a cast of floats is slow, and one thread at a time."""
    table = np.arange(256, dtype=np.uint8).view(numbers.dtype).astype(np.float64)
    return np.take(table, numbers.view(np.uint8))
