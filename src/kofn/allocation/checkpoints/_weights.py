"""The tensors of a checkpoint that take part in an allocation, which of them share a level, and which have theirs."""

from __future__ import annotations

import hashlib
import math
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase, translate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.allocation.checkpoints import _kernels
from kofn.core.arrays import Singles
from kofn.core.checks import InputError, nearest, shown
from kofn.io.companions import CONFIG, QUANTISATION, read_config
from kofn.io.quantised import NARROW, scale_of
from kofn.io.tensors import CODES, Checkpoint, LazyTensor
from kofn.io.unread_formats import unread_format

# Weights that are read at a time.
BLOCK = 1 << 20
# A last axis that is shorter is a convolution's kernel, whose inputs are the axis before too.
_SHORTEST_ROW = 16
_FLOATS = ("F16", "BF16", "F32", "F64")
_SAMPLE = 4096
KEEP = "keep"
FUSED = "fused"
# Projections of one input that servers compute as one.
_PARTS = re.compile(
    r"(?P<layer>.*?)\.?((?P<attention>[qkv]_proj|query|key|value)|(?P<experts>(gate|up)_proj|w[13]))(\.weight)?\Z"
)
# Tables that are looked up in, heads and routers: quantising tools leave them as they are, and so does an allocation
# that is not told otherwise.
_TABLES = re.compile(
    r"(^|\.)(embed_\w+|\w*_?embeddings?(\.\w+)*|wte|wpe|shared|relative_attention_bias|pos_embed"
    r"|lm_head(\.decoder)?|embed_out|output|output_layer|vocab_projector|predictions\.decoder"
    r"|router|mlp\.gate|block_sparse_moe\.gate|score|classifier)(\.weight)?$"
)


@dataclass(frozen=True, slots=True)
class Weight:
    """A tensor that takes part, as groups of weights that have one scale.

    Attributes:
        tensor: the tensor on disk.
        width: inputs of an output: the length of a row.
        group: weights that share a scale; a whole row where it is no multiple of the group asked for.
    """

    tensor: LazyTensor
    width: int
    group: int

    @property
    def name(self) -> str:
        """The tensor's name."""
        return self.tensor.name

    @property
    def module(self) -> str:
        """The name of the module that the tensor is the weight of."""
        return module_of(self.tensor.name)

    @property
    def size(self) -> int:
        """How many weights it has."""
        return self.tensor.size

    @property
    def scales(self) -> int:
        """How many groups, and so scales, it has."""
        return self.size // self.group

    @property
    def kind(self) -> int:
        """In which dtype scales are kept."""
        code = CODES[self.tensor.dtype]
        return {"BF16": _kernels.BFLOAT16, "F16": _kernels.FLOAT16}.get(code, _kernels.FLOAT32)

    @property
    def scale_bits(self) -> int:
        """Bits of a scale."""
        return min(8 * self.tensor.dtype.itemsize, 32)

    def blocks(self, rows: bool = False) -> Iterator[tuple[int, int]]:
        """Ranges of weights to read at a time: whole groups, or whole `rows`."""
        unit = math.lcm(self.width, self.group) if rows else self.group
        step = max(1, BLOCK // unit) * unit
        return ((start, min(start + step, self.size)) for start in range(0, self.size, step))

    def read(self, start: int, stop: int) -> Singles:
        """Weights `start:stop` as float32.

        Raises:
            InputError: one of them is not finite, or is beyond float32.
        """
        raw = self.tensor.read(start, stop)
        values = np.empty(stop - start, np.float32)
        if self.kind == _kernels.BFLOAT16:
            _kernels.widen(raw.view(np.uint16), values.view(np.uint32))
        else:
            with np.errstate(over="ignore"):
                np.copyto(values, raw, casting="same_kind")
        return values

    def refuse(self, start: int, values: Singles) -> None:
        """Refuse a block whose sum of squares is not finite, naming the weight."""
        with np.errstate(over="ignore"):
            wrong = np.flatnonzero(~np.isfinite(values * values))
        if len(wrong):
            flat = start + int(wrong[0])
            index = tuple(int(axis) for axis in np.unravel_index(flat, self.tensor.shape))
            value = values[wrong[0]]
            fault = "NaN" if math.isnan(value) else "infinite" if math.isinf(value) else f"{value:g}, whose square is"
            raise InputError(
                f"{self.tensor.path}: tensor {self.name!r} is {fault} at {index}; repair it, or keep the tensor as it "
                f"is: fix={{{self.name!r}: 'keep'}} (--fix {self.name}=keep)"
            )


def module_of(name: str) -> str:
    """The module whose weight a tensor is.

    >>> module_of("layers.0.q_proj.weight"), module_of("experts.gate_up")
    ('layers.0.q_proj', 'experts.gate_up')
    """
    return name.removesuffix(".weight")


def row_width(shape: Sequence[int]) -> int:
    """The inputs of an output: the last axis, or all but the first of a convolution.

    >>> row_width((64, 32)), row_width((8, 64, 32)), row_width((64, 3, 7, 7)), row_width((64, 32, 3))
    (32, 32, 147, 96)
    """
    if len(shape) > 3 or (len(shape) == 3 and shape[-1] < _SHORTEST_ROW):
        return math.prod(shape[1:])
    return int(shape[-1])


def open_model(path: str | os.PathLike[str]) -> Checkpoint:
    """A checkpoint whose weights are no quantised ones.

    Raises:
        InputError: no checkpoint, or one that is quantised.
        FailureError: a damaged file.
    """
    checkpoint = Checkpoint.open(path)
    remedy = "give the checkpoint that it was made from, or dequantise it first"
    odd = unread_format(list(checkpoint))
    if odd is not None:
        raise InputError(f"{path}: tensor {odd[0]!r} is quantised already ({odd[1]}); {remedy}")
    for name, tensor in checkpoint.items():
        scale = scale_of(checkpoint, name)
        if scale is not None or (tensor.dtype in NARROW and len(tensor.shape) > 1):
            by = f" with the scale {scale!r}" if scale is not None else ""
            raise InputError(f"{path}: tensor {name!r} is quantised already, to {tensor.dtype.name}{by}; {remedy}")
    if checkpoint.path.is_dir() and (checkpoint.path / CONFIG).is_file():
        config = read_config(checkpoint.path / CONFIG)
        entry = next((key for key in QUANTISATION if config.get(key)), None)
        if entry is not None:
            raise InputError(f"{path}: config.json has {entry}: the checkpoint is quantised already; {remedy}")
    return checkpoint


def fingerprint(checkpoint: Checkpoint) -> str:
    """Digest of a checkpoint: names, dtypes and shapes of all tensors, and the first and last weights of each."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(checkpoint):
        tensor = checkpoint[name]
        state.update(f"{name}\0{tensor.dtype.name}\0{tensor.shape}\n".encode())
        for start in {0, tensor.size // 2, max(0, tensor.size - _SAMPLE)}:
            state.update(tensor.read(start, min(start + _SAMPLE, tensor.size)).tobytes())
    return state.hexdigest()


def able(checkpoint: Checkpoint) -> list[str]:
    """The names of the tensors that can take part: of floats, with two axes or more."""
    return [
        name
        for name, tensor in checkpoint.items()
        if len(tensor.shape) > 1 and tensor.size and CODES[tensor.dtype] in _FLOATS
    ]


def chosen(checkpoint: Checkpoint, group_size: int, only: Sequence[str], fix: Mapping[str, Any]) -> list[Weight]:
    """The tensors that take part: of floats, with two axes or more, and not kept as they are.

    Args:
        checkpoint: the model.
        group_size: weights that share a scale; -1 for a whole row.
        only: patterns of names of tensors or modules; by default all but tables, heads and routers, and what `fix`
            gives a level.
        fix: pattern to a level, or "keep".

    Raises:
        InputError: a pattern that matches no tensor, or no tensor is left.
    """
    names = able(checkpoint)
    fixed = fixed_levels(names, fix)
    if only:
        listed = {name for pattern in only for name in matching(names, pattern, "only")}
    else:
        listed = {name for name in names if not _TABLES.search(name)} | fixed.keys()
    names = [name for name in names if name in listed and fixed.get(name) != KEEP]
    if not names:
        raise InputError(
            f"{checkpoint.path}: {len(checkpoint)} tensors, none of which takes part: those have two axes or more and "
            "hold floats, embeddings, heads and routers only take part if only='*' or fix names them, and what "
            "fix keeps does not"
        )
    out = []
    for name in names:
        tensor = checkpoint[name]
        width = row_width(tensor.shape)
        group = width if group_size == -1 or width % group_size else group_size
        out.append(Weight(tensor, width, group))
    return out


def matching(names: Sequence[str], pattern: str, option: str) -> list[str]:
    """The names of tensors, with or without their last `.weight`, that a pattern matches or is the end of.

    >>> matching(["m.0.q.weight", "m.0.k.weight"], "0.q", "only")
    ['m.0.q.weight']
    """
    if not isinstance(pattern, str) or not pattern:
        raise InputError(f"{option}={shown(pattern)}: give names or patterns of tensors, such as 'layers.*.q_proj'")
    forms = (pattern, f"*.{pattern}")
    hits = [
        name for name in names if any(fnmatchcase(text, form) for text in (name, module_of(name)) for form in forms)
    ]
    if not hits:
        modules = [module_of(name) for name in names]
        known = [*modules, *(name.rpartition(".")[2] for name in modules)]
        raise InputError(f"{option}={pattern!r} matches no tensor that can take part{nearest(pattern, known)}")
    return hits


def fixed_levels(names: Sequence[str], fix: Mapping[str, Any]) -> dict[str, Any]:
    """The level, or "keep", of each tensor that has its own; of several patterns the last one counts."""
    return {name: level for pattern, level in fix.items() for name in matching(names, pattern, "fix")}


def tied_items(weights: Sequence[Weight], ties: Sequence[str]) -> list[list[int]]:
    """Positions of the weights of each item: what a tie matches is one item, every other weight is its own.

    A tie with {} in it is an item for each text that stands there, such as the number of a layer in
    'layers.{}.self_attn.[qkv]_proj'. The tie 'fused' stands for what servers fuse: the projections to q, k and v, and
    those to gate and up, of a layer.

    Raises:
        InputError: a tie that matches nothing, or weights in two ties.
    """
    names = [weight.name for weight in weights]
    key_of: dict[str, tuple[str, ...]] = {}
    for tie in ties:
        keys = _fused(names) if tie == FUSED else _of_tie(names, tie)
        for name, key in keys.items():
            if name in key_of:
                raise InputError(f"tie: {name!r} is in {key_of[name][0]!r} and in {tie!r}; tie it once")
            key_of[name] = (tie, *key)
    items: dict[Any, list[int]] = {}
    for position, name in enumerate(names):
        items.setdefault(key_of.get(name, name), []).append(position)
    return list(items.values())


def _of_tie(names: Sequence[str], tie: str) -> dict[str, tuple[str, ...]]:
    """The texts that stand for {} in each name that a tie matches."""
    hits = matching(names, tie.replace("{}", "*"), "tie") if isinstance(tie, str) else matching(names, tie, "tie")
    pieces = [translate(piece)[4:].rpartition(")")[0] for piece in tie.split("{}")]
    pattern = re.compile(r"(?:.*\.)?" + "([^.]+)".join(pieces) + r"(?:\.weight)?\Z", re.DOTALL)
    match_of = {name: pattern.match(name) for name in hits}
    return {name: () if match is None else match.groups() for name, match in match_of.items()}


def _fused(names: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The layer and the kind of each projection that servers fuse with others."""
    match_of = {name: _PARTS.match(name) for name in names}
    return {
        name: (match["layer"], next(kind for kind in ("attention", "experts") if match[kind]))
        for name, match in match_of.items()
        if match is not None
    }


def as_groups(weight: Weight, values: Singles) -> NDArray[np.float32]:
    """A block's weights, a row for each group."""
    return values.reshape(-1, weight.group)
