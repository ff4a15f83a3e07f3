"""The members of a blend: arrays, mappings or checkpoints on disk, opened and checked against each other."""

from __future__ import annotations

import fnmatch
import functools
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.factors import refuse_parts
from kofn.combination._sweep.quantised import unpacked
from kofn.combination._sweep.tensor import Tensor
from kofn.combination._sweep.tied import alike_in_heads
from kofn.combination._sweep.tokens_of import TokensOf, aligned
from kofn.combination._sweep.vocabulary import Vocabulary, matched
from kofn.core.checks import InputError, as_array, nearest
from kofn.io.companions import UNTYING
from kofn.io.module_names import without_torch_wrappers
from kofn.io.quantised import FLOAT8, Scheme
from kofn.io.tensors import Checkpoint, LazyTensor, TensorSpec
from kofn.io.torch_arrays import from_torch, is_torch

_SHOWN = 8  # mismatches spelled out

HALF = {np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)} | FLOAT8
REAL: dict[np.dtype[Any], np.dtype[Any]] = {
    np.dtype(np.float32): np.dtype(np.float32),
    np.dtype(np.float64): np.dtype(np.float64),
    np.dtype(np.complex64): np.dtype(np.float32),
    np.dtype(np.complex128): np.dtype(np.float64),
}
FLOATS: set[np.dtype[Any]] = HALF | {np.dtype(np.float32), np.dtype(np.float64)}
# Unsigned powers of two (scales), whose mean is usually not representable.
COPIED = np.dtype(ml_dtypes.float8_e8m0fnu)
# Tensors that wrappers add to a model's own, such as the count of averages.
_ADDED = 3


class ArrayTensor:
    """An array in memory with the interface of a tensor in a file."""

    __slots__ = ("_array", "_flat", "dtype", "shape", "size")

    def __init__(self, array: NDArray[Any]) -> None:
        self._array = array
        self._flat = array.reshape(-1) if array.flags.c_contiguous else None
        self.dtype, self.shape, self.size = array.dtype, array.shape, array.size

    @property
    def memory(self) -> tuple[Any, ...] | None:
        """Address of the array's data, None if it is empty."""
        data = self._array.__array_interface__["data"][0]
        return (data, self.shape, self._array.strides, self.dtype) if self.size else None

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def read(self, start: int = 0, stop: int | None = None, _out: NDArray[Any] | None = None) -> NDArray[Any]:
        stop = self.size if stop is None else stop
        return self._array.flat[start:stop] if self._flat is None else self._flat[start:stop]


@dataclass(frozen=True, slots=True)
class Pool:
    """The members, opened and checked against each other: mappings name -> tensor (one name, "", for plain arrays).

    `base` is opened and checked like a member. `skipped` tensors are copied from the base, or from the first member
    that has them, need not match, and need not be everywhere. `tied` names are aliases of the same memory in every
    member: they are blended once and are not listed in the members here. `dtype` is the float dtype that the blend is
    rounded to, None for the first member's, or for the `widest` that a tensor has; what is read is first rounded to
    `cast`, if there is one.

    `quantised` names the weights that some member keeps quantised; the members here have them dequantised. `schemes`
    says how each is quantised in the output, none where that is of another dtype; `beside` is written with them.
    `vocabulary` says which rows a member lacks where embeddings are matched by token.
    """

    members: list[Mapping[str, Tensor]]
    labels: list[str]
    named: bool
    on_disk: bool
    base: Mapping[str, Tensor] | None = None
    base_label: str = "base"
    skipped: frozenset[str] = frozenset()
    tied: Mapping[str, str] = field(default_factory=dict)
    dtype: np.dtype[Any] | None = None
    cast: np.dtype[Any] | None = None
    quantised: frozenset[str] = frozenset()
    schemes: Mapping[str, Scheme] = field(default_factory=dict)
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    vocabulary: Vocabulary | None = None
    widest: bool = False

    @property
    def first(self) -> Mapping[str, Tensor]:
        return self.members[0]

    @property
    def elements(self) -> int:
        return sum(tensor.size for tensor in self.first.values())

    @property
    def nbytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.first.values())

    def dtype_of(self, name: str) -> np.dtype[Any]:
        """The dtype of a blended tensor: complex and whole numbers keep theirs."""
        own = self.first[name].dtype
        if own not in FLOATS or name in self.skipped:
            return own
        if self.widest and self.dtype is None and name not in self.quantised:
            sources = [*self.members, *([] if self.base is None else [self.base])]
            return functools.reduce(_wider, (source[name].dtype for source in sources))
        return own if self.dtype is None else self.dtype

    def one_dtype(self) -> np.dtype[Any] | None:
        """The float dtype of the output, where it is another than the first member's: None where there are several."""
        if self.dtype is not None or not self.widest:
            return self.dtype
        dtypes = {self.dtype_of(name) for name, tensor in self.first.items() if tensor.dtype in FLOATS}
        return dtypes.pop() if len(dtypes) == 1 else None

    def written(self) -> dict[str, TensorSpec]:
        """The tensors of the output: those of the first member, each followed by its scales."""
        specs = {}
        for name, tensor in self.first.items():
            scheme = self.schemes.get(name)
            if scheme is not None:
                specs[name] = TensorSpec(name, scheme.dtype, scheme.shape)
                specs[scheme.scale] = TensorSpec(scheme.scale, scheme.scale_dtype, scheme.scale_shape)
            elif name in self.skipped:
                source = self.source(name)
                specs[name] = TensorSpec(name, source.dtype, source.shape)
            else:
                specs[name] = TensorSpec(name, self.dtype_of(name), tensor.shape)
        return specs | {name: TensorSpec(name, array.dtype, array.shape) for name, array in self.beside.items()}

    def mixture(self) -> tuple[list[str], list[str]]:
        """The float dtypes of tensors that are of several among members and base, and those that they get."""
        sources = [*self.members, *([] if self.base is None else [self.base])]
        read: set[str] = set()
        written: set[str] = set()
        for name, tensor in self.first.items():
            if name in self.skipped or name in self.quantised or tensor.dtype not in FLOATS:
                continue
            dtypes = {source[name].dtype.name for source in sources}
            if len(dtypes) > 1:
                read |= dtypes
                written.add(self.dtype_of(name).name)
        return sorted(read), sorted(written)

    def source(self, name: str) -> Tensor:
        """The tensor to copy under a skipped name."""
        return self.base[name] if self.base is not None and name in self.base else self.first[name]


def open_members(
    members: Sequence[Any],
    base: Any = None,
    only: Sequence[str] | None = None,
    skip: Sequence[str] | None = None,
    *,
    once: bool = False,
    dtype: str | None = None,
    cast: str | None = None,
    vocabulary: Any = None,
    widest: bool = False,
) -> Pool:
    """Open the members and the base; refuse mismatches, listing all differences at once.

    `only` and `skip` are patterns (`fnmatch`) of tensor names: tensors that they leave out are copied, and may differ.
    With `once`, tied tensors are listed under their first name only; the caller restores the aliases. Members may
    differ in their float dtypes; the blend has `dtype`, or the first member's, or the `widest` that a tensor has. With
    a `vocabulary` ("union", "base", "first") the rows of embeddings are matched by token.
    """
    if not len(members):
        raise InputError("members are empty; give at least one")
    opened, kinds = zip(*(_open(member, f"member {position}") for position, member in enumerate(members)), strict=True)
    labels = [label for label, _ in opened]
    mappings = [tensors for _, tensors in opened]
    _refuse_mixture(kinds)
    if not mappings[0]:
        raise InputError(f"{labels[0]} holds no tensor; nothing to blend")
    origin, base_label, kind = None, "base", kinds[0]
    if base is not None:
        (base_label, origin), kind = _open(base, "base")
    tied = _tied([*mappings, *([] if origin is None else [origin])]) if once else {}
    if tied:
        mappings = [{name: tensor for name, tensor in member.items() if name not in tied} for member in mappings]
        origin = origin and {name: tensor for name, tensor in origin.items() if name not in tied}
    sources = [*mappings, *([] if origin is None else [origin])]
    labelled = [*labels, *([] if origin is None else [base_label])]
    skipped = _skipped(sources, only, skip)
    sources, notes = alike_in_heads(sources, labelled, skipped)
    rounded, read_as = (None if name is None else float_dtype(name) for name in (dtype, cast))
    plain = unpacked(
        sources,
        labelled,
        len(mappings),
        skipped,
        lambda name: _matches(name, skip or ()),
        alone=len(sources) == 1 and rounded is None,
    )
    sources, skipped = plain.sources, plain.skipped
    tokens = None
    if isinstance(vocabulary, TokensOf):
        sources, tokens = aligned(sources, labelled, vocabulary, skipped)
    elif vocabulary is not None:
        sources, tokens = matched(sources, labelled, len(mappings), vocabulary, skipped)
    if tokens is not None:
        _refuse_quantised_rows(tokens, plain.schemes if rounded is None else {})
    mappings, origin = sources[: len(mappings)], None if origin is None else sources[-1]
    if plain.names and rounded is not None and rounded.itemsize == 1:
        raise InputError(
            f"dtype={rounded.name!r}: members are quantised, with scales; leave dtype out to quantise the blend as "
            "member 0 is, or give a wider one such as bfloat16"
        )
    mappings[0] = _with_others(mappings[0], sources[::-1] if origin is not None else sources, skipped)
    _refuse_mismatch(mappings, labels, skipped)
    if len(mappings) > 1 or origin is not None:
        refuse_parts({name: tensor for name, tensor in mappings[0].items() if name not in skipped})
    skipped &= mappings[0].keys()
    if len(skipped) == len(mappings[0]):
        raise InputError("only and skip leave no tensor to blend; give patterns that match fewer names")
    if origin is not None:
        if (kind == "arrays") != ("arrays" in kinds):
            raise InputError(f"base is one of {kind}, the members are {kinds[0]}; give all in one form")
        _refuse_mismatch([mappings[0], origin], [labels[0], base_label], skipped)
    named, on_disk = "arrays" not in kinds, "checkpoints" in kinds
    schemes, beside = (plain.schemes, plain.beside) if rounded is None else ({}, {})
    return Pool(
        mappings,
        labels,
        named,
        on_disk,
        origin,
        base_label,
        skipped,
        tied,
        rounded,
        read_as,
        plain.names,
        schemes,
        beside,
        (*notes, *(plain.notes if rounded is None else ()), *_stacked_text(members)),
        tokens,
        widest,
    )


def _wider(first: np.dtype[Any], second: np.dtype[Any]) -> np.dtype[Any]:
    """The dtype that holds both: float32 for bfloat16 and float16."""
    if first == second:
        return first
    return np.promote_types(np.float32 if first in HALF else first, np.float32 if second in HALF else second)


def float_dtype(name: Any) -> np.dtype[Any]:
    """The float dtype of this name; `torch.bfloat16` and `np.float16` are taken too."""
    word = str(getattr(name, "__name__", name)).removeprefix("torch.")
    known = {dtype.name: dtype for dtype in FLOATS}
    if word not in known:
        raise InputError(f"dtype={word!r}{nearest(word, known)}; give one of {', '.join(sorted(known))}")
    return known[word]


def _tied(members: Sequence[Mapping[str, Tensor]]) -> dict[str, str]:
    """Aliases of the same memory in every member, such as tied embeddings: name -> the first of its names."""
    places: list[dict[str, Any]] = []
    for member in members:
        if not all(isinstance(tensor, ArrayTensor) for tensor in member.values()):
            return {}
        places.append({name: tensor.memory for name, tensor in member.items() if isinstance(tensor, ArrayTensor)})
    first: dict[Any, str] = {}
    tied = {}
    for name, address in places[0].items():
        if address is not None and all(place_of.get(name) is not None for place_of in places):
            whole = tuple(place_of[name] for place_of in places)
            if first.setdefault(whole, name) != name:
                tied[name] = first[whole]
    return tied


def _open(member: Any, label: str) -> tuple[tuple[str, Mapping[str, Tensor]], str]:
    """The member's label, tensors and kind."""
    if isinstance(member, str | os.PathLike):
        label, member = f"{label} ({os.fspath(member)})", Checkpoint.open(member)
    if isinstance(member, Checkpoint):
        return (label, member), "checkpoints"
    if isinstance(member, Mapping):
        odd = [name for name in member if not isinstance(name, str) or not name]
        if odd:
            raise InputError(f"{label} has a tensor named {odd[0]!r}; names are non-empty text")
        return (label, {name: _array_tensor(value, label, name) for name, value in member.items()}), "mappings"
    _refuse_layers(member, label)
    return (label, {"": _array_tensor(member, label, "")}), "arrays"


_BY_POSITION = "{str(i): layer for i, layer in enumerate(layers)}"


def _shapes_in(member: Any) -> list[tuple[int, ...]]:
    """The shapes of the arrays of a list that holds nothing else, one of them more than a number; else none."""
    if not isinstance(member, list | tuple) or not all(map(_is_array, member)):
        return []
    shapes = [tuple(part.shape) for part in member]
    return shapes if any(shapes) else []


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or is_torch(value)


def _refuse_layers(member: Any, label: str) -> None:
    """Refuse a list of arrays of unlike shapes: it is no array, but the layers of a model."""
    shapes = _shapes_in(member)
    odd = next((i for i, shape in enumerate(shapes) if shape != shapes[0]), None)
    if odd is not None:
        raise InputError(
            f"{label} is a list of {len(shapes)} arrays of unlike shapes (0 is {shapes[0]}, {odd} is {shapes[odd]}); "
            f"layers need names: give {_BY_POSITION}"
        )


def _stacked_text(members: Sequence[Any]) -> tuple[str, ...]:
    """A note where lists of arrays of one shape are read as one array each, since they may have been layers."""
    shapes = next((shapes for member in members if (shapes := _shapes_in(member))), None)
    if shapes is None or len(shapes) < 2:
        return ()
    return (
        f"members are lists of {len(shapes)} arrays of shape {shapes[0]}, each read as one array: to blend layers "
        f"apart give {_BY_POSITION}",
    )


def _refuse_mixture(kinds: Sequence[str]) -> None:
    others = sorted(set(kinds) - {"arrays"})
    if "arrays" in kinds and others:
        raise InputError(f"members mix plain arrays with {others[0]}; give all in one form")


def _skipped(
    sources: Sequence[Mapping[str, Tensor]], only: Sequence[str] | None, skip: Sequence[str] | None
) -> frozenset[str]:
    """The names, in any member or the base, that are copied."""
    names = list(dict.fromkeys(name for source in sources for name in source))
    for word, patterns in (("only", only), ("skip", skip)):
        for pattern in patterns or ():
            if not any(fnmatch.fnmatchcase(name, pattern) for name in names):
                raise InputError(
                    f"{word}={pattern!r} matches no tensor{nearest(pattern, names)}; names are such as {names[0]!r}"
                )

    return frozenset(name for name in names if (only and not _matches(name, only)) or (skip and _matches(name, skip)))


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)


def _with_others(
    first: Mapping[str, Tensor], sources: Sequence[Mapping[str, Tensor]], skipped: frozenset[str]
) -> Mapping[str, Tensor]:
    """The first member, with the copied tensors that only others have."""
    extra = {
        name: source[name] for source in reversed(sources) for name in source if name in skipped and name not in first
    }
    if not extra:
        return first
    if isinstance(first, Checkpoint):
        return first.extended({name: tensor for name, tensor in extra.items() if isinstance(tensor, LazyTensor)})
    return {**first, **extra}


def _refuse_quantised_rows(tokens: Vocabulary, schemes: Mapping[str, Scheme]) -> None:
    name = next((name for name in tokens.figures["tensors"] if name in schemes), None)
    if name is not None:
        raise InputError(
            f"vocabulary matches the rows of {name!r} by token, which is quantised; give dtype='bfloat16' to write the "
            "blend without scales"
        )


def _array_tensor(value: Any, label: str, name: str) -> ArrayTensor:
    if is_torch(value):
        array = from_torch(value)
    else:
        array = as_array(value, f"{label}: {tensor_label(name)}")
        if not hasattr(value, "dtype") and array.dtype.kind in "iu":
            array = array.astype(np.float64)  # A list such as [3, 6] carries no intended dtype.
    if array.dtype.byteorder == ">":
        array = array.astype(array.dtype.newbyteorder("="))
    known = array.dtype in HALF or array.dtype in REAL or array.dtype == COPIED or array.dtype.kind in "iub"
    if not known:
        if (
            array.dtype == object
            and not name
            and not isinstance(value, list | tuple)
            and not hasattr(value, "__array__")
        ):
            raise InputError(
                f"{label} is a {type(value).__name__}; give an array, a torch module, a state dict or the path of a "
                "checkpoint"
            )
        texts = array.dtype.kind == "U" or (array.size and isinstance(array.flat[0], str))
        votes = ", or y, the answers, where these are votes for classes" if texts else ""
        raise InputError(f"{label}: {tensor_label(name)} has dtype {array.dtype}; give numbers of up to 64 bits{votes}")
    return ArrayTensor(array)


def tensor_label(name: str) -> str:
    return f"tensor {name!r}" if name else "the array"


_OF_HEAD = r"'(\w+\.)*(lm_head|embed_out)\.weight'"
_LACKS_HEAD = re.compile(f"lacks tensor {_OF_HEAD}|{_OF_HEAD}, which")


def _refuse_mismatch(members: list[Mapping[str, Tensor]], labels: list[str], skipped: frozenset[str]) -> None:
    """Refuse members whose names, shapes or dtypes differ from the first, listing all differences at once."""
    differences: list[str] = []
    first = members[0]
    for label, member in zip(labels[1:], members[1:], strict=True):
        _refuse_prefixed(label, set(member) - skipped, labels[0], set(first) - skipped)
        differences += [
            f"{label} lacks tensor {name!r}" for name in first if name not in member and name not in skipped
        ]
        for name, tensor in member.items():
            if name in skipped:
                continue
            if name not in first:
                differences.append(f"{label} has tensor {name!r}, which member 0 lacks")
                continue
            wanted = first[name]
            if tensor.shape != wanted.shape:
                rows = _longer(tensor.shape, wanted.shape)
                differences.append(
                    f"{label}: {tensor_label(name)} has shape {tensor.shape}, in member 0 {wanted.shape}{rows}"
                )
            if tensor.dtype != wanted.dtype and not {tensor.dtype, wanted.dtype} <= FLOATS:
                differences.append(f"{label}: {tensor_label(name)} is {tensor.dtype}, in member 0 {wanted.dtype}")
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        places = "1 place" if len(differences) == 1 else f"{len(differences)} places"
        remedy = "blend members of one architecture, vocabulary and dtype, or leave these tensors out with skip"
        if any("another vocabulary?" in difference for difference in differences):
            remedy = "match rows by token with vocabulary='union' (--vocabulary), or leave these tensors out with skip"
        if any(_LACKS_HEAD.search(difference) for difference in differences):
            remedy = f"a model without a head ties it to its embedding: {UNTYING}"
        if any(".lora_" in difference for difference in differences):
            remedy = "adapters of unlike ranks or modules add up with method='stack_adapters'"
        raise InputError(f"members do not match in {places}: {'; '.join(differences[:_SHOWN])}{more}; {remedy}")


def _refuse_prefixed(label: str, names: set[str], other: str, others: set[str]) -> None:
    """Refuse two members of the same names but for what wrappers put before or into the names of one of them, and a few
    tensors that they add."""
    for (short, shorter), (long, longer) in itertools.permutations([(names, label), (others, other)]):
        bare = {without_torch_wrappers(name) for name in long}
        if long != short and bare == short:
            odd = next(name for name in sorted(long) if name not in short)
            raise InputError(
                f"{longer} has names such as {odd!r}, as torch.compile, FSDP and activation checkpoints write them, "
                f"and {shorter} has not; save {longer} without the wrapper"
            )
        key = min(short, default="")
        prefix = next((name.removesuffix(key) for name in sorted(long) if key and name.endswith(f".{key}")), "")
        beyond = sorted(long - {prefix + name for name in short})
        if prefix and len(beyond) <= min(_ADDED, len(short) // 4) and len(long) == len(short) + len(beyond):
            more = f" and leave out {', '.join(map(repr, beyond))}, which it has besides" if beyond else ""
            raise InputError(
                f"every tensor of {longer} has the prefix {prefix!r}, which {shorter} lacks; save {longer} without "
                f"it{more}"
            )


def _longer(shape: tuple[int, ...], wanted: tuple[int, ...]) -> str:
    """A hint where the shapes differ in the number of rows only, as with added tokens."""
    if len(shape) != len(wanted) or len(shape) < 2 or shape[1:] != wanted[1:]:
        return ""
    rows = shape[0] - wanted[0]
    return f" ({abs(rows)} row{'s' * (abs(rows) != 1)} {'more' if rows > 0 else 'fewer'}: another vocabulary?)"
