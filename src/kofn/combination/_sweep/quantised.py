"""Quantised members: their weights are read as what they stand for, and the blend is quantised as member 0 is."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError
from kofn.io.companions import CONFIG, QUANTISATION, read_config
from kofn.io.quantised import (
    ACTIVATION,
    NARROW,
    Dequantised,
    Scheme,
    scale_like,
    schemes_of,
)
from kofn.io.tensors import Checkpoint
from kofn.io.unread_formats import unread_codes, unread_format

if TYPE_CHECKING:
    from kofn.combination._sweep.tensor import Tensor

    Tensors = Mapping[str, Tensor]
_SCALE = re.compile(r"((weight|input)_scales?(_inv)?|scale_(weight|input)|\.scale_inv|\.SCB|\._scale)$")
_EMPTY_MARKER = "scaled_fp8"  # ComfyUI's mark of a file, which holds no weight


@dataclass(frozen=True, slots=True)
class Unpacked:
    """Sources whose quantised weights are read dequantised, without the tensors beside them.

    `schemes` are member 0's, by weight; `beside` are the small tensors that are written with them as they are here;
    `names` has every weight that is quantised in any source.
    """

    sources: list[Tensors]
    skipped: frozenset[str]
    schemes: Mapping[str, Scheme] = field(default_factory=dict)
    beside: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    names: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()


def unpacked(
    sources: Sequence[Tensors],
    labels: Sequence[str],
    members: int,
    skipped: frozenset[str],
    skips: Callable[[str], bool],
    *,
    alone: bool,
) -> Unpacked:
    """Read quantised weights as what they stand for.

    Args:
        sources: the members, and the base last if there is one.
        labels: what each source is called in an error.
        members: how many of the sources are members.
        skipped: names of the tensors that are copied; what lies beside a weight follows the weight.
        skips: whether `skip` names a tensor.
        alone: one member is given back as it is, so that forms of storage that are not read may pass.
    """
    for label, source in () if alone else zip(labels, sources, strict=True):
        blended = {name: tensor for name, tensor in source.items() if name not in skipped}
        folder = source.path if isinstance(source, Checkpoint) else None
        unread = unread_format(list(blended)) or unread_codes(blended, folder)
        if unread is not None:
            raise InputError(
                f"{label} is quantised in a form that is not read ({unread[0]!r}: {unread[1]}); write its weights "
                "dequantised with the library that made it, or skip these tensors"
            )
    by_source = [
        schemes_of(source, label, source.path if isinstance(source, Checkpoint) else None, skipped)
        for label, source in zip(labels, sources, strict=True)
    ]
    if not any(by_source):
        for label, source in () if alone else zip(labels, sources, strict=True):
            _refuse_lone_scales(source, {}, source, label, skipped)
        return Unpacked(list(sources), skipped)
    parts = [{name: (scheme.scale, *scheme.markers) for name, scheme in schemes.items()} for schemes in by_source]
    skipped = _following(parts, skipped, skips)
    whole: list[Tensors] = []
    for label, source, schemes, beside in zip(labels, sources, by_source, parts, strict=True):
        owned = [name for name in schemes if name in skipped and _owner(sources, members, name) is source]
        weights = {name: scheme for name, scheme in schemes.items() if name not in skipped}
        dropped = {part for name in weights for part in beside[name]}
        dropped |= {name for name, tensor in source.items() if _is_beside(name, tensor) and name not in skipped}
        # A weight is copied with the scales of the source that it is copied from, and no other's.
        dropped |= {part for name in schemes if name in skipped and name not in owned for part in beside[name]}
        read = {name: Dequantised(source[name], source[scheme.scale], scheme) for name, scheme in weights.items()}
        whole.append(_replaced(source, read, dropped))
        skipped |= {part for name in owned for part in beside[name]}
        _refuse_lone_scales(source, schemes, whole[-1], label, skipped)
    first = {name: scheme for name, scheme in by_source[0].items() if name not in skipped}
    written, notes = _beside(sources[:members], labels, first, skipped)
    names = frozenset().union(*by_source) - skipped
    return Unpacked(whole, skipped, first, written, names, (*_unlike(by_source, labels, names), *notes))


def _unlike(by_source: Sequence[Mapping[str, Scheme]], labels: Sequence[str], names: frozenset[str]) -> tuple[str, ...]:
    """A note where the sources are not all quantised alike: the form of the blend is member 0's."""
    for name in sorted(names):
        kinds = [schemes[name].dtype.name if name in schemes else "not quantised" for schemes in by_source]
        if len(set(kinds)) > 1:
            listed = ", ".join(f"{label} is {kind}" for label, kind in zip(labels, kinds, strict=True))
            return (f"{name!r} of {listed}: the blend is as the first",)
    return ()


def _following(
    parts: Sequence[Mapping[str, Sequence[str]]], skipped: frozenset[str], skips: Callable[[str], bool]
) -> frozenset[str]:
    """The copied names, where a scale is blended or copied as its weight is."""
    for beside in parts:
        for name, others in beside.items():
            if name in skipped:
                continue
            if lone := next((other for other in others if skips(other)), None):
                raise InputError(f"skip names {lone!r} and not its weight {name!r}; skip both, or neither")
            skipped -= set(others)
    return skipped


def _owner(sources: Sequence[Tensors], members: int, name: str) -> Tensors | None:
    """The source that a copied tensor is taken from: the base, or the first member that has it."""
    order = [*sources[members:], *sources[:members]]
    return next((source for source in order if name in source), None)


def _is_beside(name: str, tensor: Tensor) -> bool:
    """Whether a tensor is a scale of activations, or the mark of a file."""
    if name.endswith(_EMPTY_MARKER):
        return True
    return tensor.size == 1 and bool(ACTIVATION.search(name))


def _replaced(source: Tensors, read: Mapping[str, Dequantised], dropped: set[str]) -> Tensors:
    if isinstance(source, Checkpoint):
        return source.replaced(read, dropped)
    return {name: read.get(name, tensor) for name, tensor in source.items() if name not in dropped}


def _refuse_lone_scales(
    source: Tensors, schemes: Mapping[str, Scheme], blended: Tensors, label: str, skipped: frozenset[str]
) -> None:
    """Refuse a scale that belongs to no weight that was read, where there are weights of 8 bits.

    Args:
        source: the tensors as they are stored.
        schemes: those of them that are read dequantised.
        blended: the tensors without the scales that were read.
        label: what the source is called in an error.
        skipped: names of the tensors that are copied.
    """
    names = [name for name in blended if name not in skipped]
    owners = scale_like(source)
    lone = next((name for name in names if _SCALE.search(name) or name in owners), None)
    narrow = next((name for name in names if blended[name].dtype in NARROW), None)
    if lone is None or not (schemes or narrow is not None or lone in owners):
        return
    owner = owners.get(lone, narrow)
    if owner is None:
        weight = "its weight is not there, or not of 8 bits"
    elif owner in schemes:
        weight = f"{owner!r} is read by {schemes[owner].scale!r} alone"
    else:
        weight = f"{owner!r} " + ("has no scale of its own" if source[owner].size else "holds no number")
    raise InputError(
        f"{label} is quantised in a form that is not read ({lone!r} is a scale, and {weight}); dequantise that "
        "member first, or skip these tensors"
    )


def _array(tensor: Tensor) -> NDArray[Any]:
    return tensor.read().reshape(tensor.shape)


def _beside(
    members: Sequence[Tensors], labels: Sequence[str], schemes: Mapping[str, Scheme], skipped: frozenset[str]
) -> tuple[dict[str, NDArray[Any]], tuple[str, ...]]:
    """The tensors beside member 0's weights: the largest scales of activations, and the marks as they are."""
    first = members[0]
    beside = {name: _array(first[name]) for scheme in schemes.values() for name in scheme.markers}
    unlike = []
    for name in first if schemes else ():
        if not _is_beside(name, first[name]) or name in skipped:
            continue
        stored = [(label, member[name]) for label, member in zip(labels, members, strict=False) if name in member]
        if odd := next((label for label, tensor in stored if tensor.shape != first[name].shape), None):
            raise InputError(f"{odd}: {name!r} is of another shape than in {labels[0]}; skip it in both")
        values = [_array(tensor) for _, tensor in stored]
        beside[name] = values[0] if name.endswith(_EMPTY_MARKER) else np.max(np.array(values), axis=0)
        if any(other.tobytes() != values[0].tobytes() for other in values[1:]):
            unlike.append(name)
    if not unlike:
        return beside, ()
    more = f" and {len(unlike) - 1} more" if len(unlike) > 1 else ""
    return beside, (f"scales of activations differ between members ({unlike[0]!r}{more}): the largest are written",)


def configured(path: Path | None) -> dict[str, Any]:
    """What the config.json of a folder says of quantisation."""
    if path is None or not (path / CONFIG).is_file():
        return {}
    config = read_config(path / CONFIG)
    return {key: config[key] for key in QUANTISATION if key in config}
