"""Open adapters, check that they match, and merge equal ones."""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict, Unpack

import numpy as np

from kofn.combination._sweep.vocabulary import EMBEDDING, HEAD
from kofn.combination._sweep.weights import relative_weights
from kofn.combination.adapters._full_tensors import blend_full_tensors, open_base
from kofn.combination.adapters._names import alike, family_for, renamed_for, with_kernels
from kofn.combination.adapters._stacks import is_half
from kofn.core import checks
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError
from kofn.io.adapter_families import FOLDED, Family
from kofn.io.adapters import Adapter, as_adapter
from kofn.io.low_rank import Pair
from kofn.io.module_names import unwrapped
from kofn.io.outputs import refuse_read

_SHOWN = 6  # mismatches spelled out
# Settings that determine the meaning of the tensors, and so must agree.
_MUST_AGREE = ("fan_in_fan_out", "layer_replication", "trainable_token_indices")


class AdapterWords(TypedDict, total=False):
    """Argument bundle of the methods that sum adapters."""

    normalize: Annotated[bool, "False takes the weights as they are, as task arithmetic does.", True]
    other_base: Annotated[bool, "True combines adapters whose configurations name different base models.", False]
    dtype: Annotated[
        Literal["same", "float32"],
        '"same" keeps the members\' dtype; "float32" makes half-precision factors exact to 24 bits.',
        "same",
    ]
    format: Annotated[
        Literal["same", "peft"], '"same" saves the sum as the first member is saved; "peft" as PEFT\'s folder.', "same"
    ]
    out: Annotated[str | Path | None, "A folder (or .safetensors file) for the adapter, written whole or not at all."]


@dataclass(frozen=True)
class AdapterPool:
    """Matching adapters, without duplicates.

    Attributes:
        members: the distinct adapters.
        labels: their names in messages.
        weights: weights of the distinct adapters; those of equal adapters are added.
        distinct_of: position among the members of each given adapter.
        used: (given,) the weights as used.
        given: the weights as given.
        form: the form of the weighted sum.
        family: how the sum is saved.
        full: the tensors trained in full, blended.
        widen: whether half-precision factors become float32.
        out: output path of the sum, if any.
        info: entries about the pool for the plan.
    """

    members: list[Adapter]
    labels: list[str]
    weights: list[float]
    distinct_of: list[int]
    used: Floats
    given: list[float]
    form: str
    family: Family
    full: dict[str, Array]
    widen: bool
    out: str | os.PathLike[str] | None
    info: dict[str, Any]

    @property
    def live(self) -> list[int]:
        """The members of non-zero weight."""
        return [i for i, weight in enumerate(self.weights) if weight]

    @property
    def alone(self) -> bool:
        """Whether the sum is a single adapter at weight 1."""
        return len(self.live) == 1 and self.weights[self.live[0]] == 1.0

    def modules(self) -> Iterator[list[tuple[int, Pair]]]:
        """The members' pairs of each module."""
        for module in dict.fromkeys(module for member in self.members for module in member.pairs):
            yield [(i, member.pairs[module]) for i, member in enumerate(self.members) if module in member.pairs]


def open_adapters(members: Sequence[Any], weights: Any, base: Any, **words: Unpack[AdapterWords]) -> AdapterPool:
    """Open adapters, refuse any that cannot be summed, and blend the tensors trained in full."""
    widen = checks.choice(words["dtype"], "dtype", ("same", "float32")) == "float32"
    other_base = checks.flag(words["other_base"], "other_base")
    choice = checks.choice(words["format"], "format", ("same", "peft"))
    labels = [
        f"member {i}" + (f" ({os.fspath(member)})" if isinstance(member, str | os.PathLike) else "")
        for i, member in enumerate(members)
    ]
    opened = [as_adapter(member, f"member {i}") for i, member in enumerate(members)]
    if words["out"] is not None:
        refuse_read(words["out"], ((label, member.path) for label, member in zip(labels, opened, strict=True)))
    start = None if base is None else open_base(base)
    used, _, form = relative_weights(weights, len(opened), checks.flag(words["normalize"], "normalize"))
    first = _first_equal(opened)
    kept = list(dict.fromkeys(first))
    summed = _summed_weights(used, first, kept, form)
    distinct, names = [opened[i] for i in kept], [labels[i] for i in kept]
    live = [i for i, weight in enumerate(summed) if weight]
    family = family_for(choice, [distinct[i] for i in live])
    distinct = renamed_for(family, with_kernels(distinct, start), names, start)
    distinct = alike(distinct) if len(distinct) > 1 else distinct
    if len(kept) > 1 or summed != [1.0]:
        _refuse_mismatch(distinct, names, other_base, widen)
    full = blend_full_tensors(
        [distinct[i] for i in live], [names[i] for i in live], [summed[i] for i in live], form, start
    )
    return AdapterPool(
        members=distinct,
        labels=names,
        weights=summed,
        distinct_of=[kept.index(i) for i in first],
        used=used,
        given=[1.0] * len(opened) if weights is None else np.asarray(weights, np.float64).tolist(),
        form=form,
        family=family,
        full=full,
        widen=widen,
        out=words["out"],
        info=_facts(opened, first, [distinct[kept.index(i)] for i in first]),
    )


def _first_equal(opened: list[Adapter]) -> list[int]:
    """For each adapter, the first one equal to it."""
    digests = [_digest(member) for member in opened]
    return [digests.index(digest) for digest in digests]


def _summed_weights(used: Floats, first: list[int], kept: list[int], form: str) -> list[float]:
    """The weights of the distinct adapters."""
    summed = [
        math.fsum(weight for weight, i in zip(used.tolist(), first, strict=True) if i == distinct) for distinct in kept
    ]
    live = [i for i, weight in enumerate(summed) if weight]
    if not live:
        raise InputError("weights are all zero, or cancel among equal members; nothing is left to combine")
    if len(live) == 1 and form != "linear":
        summed[live[0]] = 1.0  # the weights of one adapter's copies need not sum to one in floating point
    return summed


def _facts(opened: list[Adapter], first: list[int], renamed: list[Adapter]) -> dict[str, Any]:
    """Entries for the plan's `info`: paths, copies, modules that some members lack, numbers of parameters."""
    modules = dict.fromkeys(module for member in renamed for module in member.pairs)
    absent = {name: [i for i, member in enumerate(renamed) if name not in member.pairs] for name in modules}
    paths = [member.path for member in opened]
    strangers = _without_common_modules(renamed)
    return {
        **({} if None in paths else {"members": [str(path) for path in paths]}),
        **({"warnings": strangers} if strangers else {}),
        "copies": [i for i, j in enumerate(first) if i != j],
        "absent": {name: missing for name, missing in absent.items() if missing},
        "families": [member.facts() for member in opened],
        "entries": sum(member.size for member in opened),
    }


def _without_common_modules(opened: list[Adapter]) -> list[str]:
    """A warning where two adapters train no module in common, as those of unlike models do."""
    called = [f"member {i}" if member.path is None else str(member.path) for i, member in enumerate(opened)]
    for (i, first), (j, second) in itertools.combinations(enumerate(opened), 2):
        if first.pairs and second.pairs and not first.pairs.keys() & second.pairs.keys():
            return [
                f"{called[i]} and {called[j]} train no module in common ({next(iter(first.pairs))}, "
                f"{next(iter(second.pairs))}): are they of one model? each counts by its weight alone"
            ]
    return []


def _digest(member: Adapter) -> str:
    """Digest of an adapter's tensors and scalings."""
    state = hashlib.blake2b(digest_size=16)
    for name in sorted(member):
        array = np.ascontiguousarray(member[name])
        state.update(f"{name} {array.dtype} {array.shape}".encode())
        state.update(array.reshape(-1).view(np.uint8).data)
    settings = {
        key: member.config.get(key) or None for key in (*_MUST_AGREE, "base_model_name_or_path", "init_lora_weights")
    }
    scales = [(name, member.pairs[name].scale) for name in sorted(member.pairs)]
    state.update(repr((scales, settings, member.nonlinear())).encode())
    return state.hexdigest()


def _refuse_mismatch(members: list[Adapter], labels: list[str], other_base: bool, widen: bool) -> None:
    """Refuse adapters that cannot be summed, listing all differences in shapes, dtypes and settings at once."""
    for label, member in zip(labels, members, strict=True):
        if reasons := member.nonlinear():
            fold = ", or folded into its base" if set(reasons) <= set(FOLDED) else ""
            raise InputError(f"{label}: {reasons[0]}; such an adapter can only be given back alone, at weight 1{fold}")
    differences: list[str] = []
    bases = [member.family.trained_on(member.saved) for member in members]
    first_base: dict[str, str] = {}
    for label, member, named_base in zip(labels, members, bases, strict=True):
        if other_base or named_base is None:
            continue
        # Trainers call one model by different names.
        first = first_base.setdefault(member.family.names, named_base)
        if first != named_base:
            differences.append(
                f"{label} is for the base model {named_base!r}, others for {first!r} (other_base=True takes them)"
            )
    for key in _MUST_AGREE:
        values = [member.config.get(key) or None for member in members]
        differences += [
            f"{label} has {key}={value!r}, {labels[0]} {values[0]!r}"
            for label, value in zip(labels, values, strict=True)
            if value != values[0]
        ]
    seen: dict[str, tuple[str, tuple[Any, ...]]] = {}
    precisions = grown = False
    for label, member in zip(labels, members, strict=True):
        sides = {
            module: (pair.kind, pair.into, (pair.out,), _dtype_name(pair, widen))
            for module, pair in member.pairs.items()
        }
        fulls = {name: (array.shape, str(array.dtype)) for name, array in member.full.items()}
        for name, value in {**sides, **fulls}.items():
            before, known = seen.setdefault(name, (label, value))
            if known != value:
                precisions = precisions or _takes_both(value, known)
                grown = grown or (name in member.full and _are_other_rows(unwrapped(name), value[0], known[0]))
                differences.append(f"{label}: {name!r} is {_described(value)}, in {before} {_described(known)}")
    if differences:
        more = f"; and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        places = "1 place" if len(differences) == 1 else f"{len(differences)} places"
        remedy = "; dtype='float32' adds half and single precision" if precisions else ""
        if grown:
            remedy = (
                "; tables of tokens of unlike rows are not added up: fold each adapter apart into the base, then blend "
                "those with vocabulary='union' (--vocabulary)"
            )
        raise InputError(f"members do not match in {places}: {'; '.join(differences[:_SHOWN])}{more}{remedy}")


def _are_other_rows(name: str, shape: Any, wanted: Any) -> bool:
    """Whether two shapes of a table of tokens differ in the number of rows."""
    table = EMBEDDING.search(name) or HEAD.search(name)
    shapes = isinstance(shape, tuple) and isinstance(wanted, tuple)
    return bool(table) and shapes and shape[:1] != wanted[:1] and shape[1:] == wanted[1:]


def _dtype_name(pair: Pair, widen: bool) -> str:
    """The dtype that must agree: with `dtype="float32"`, half precision is widened."""
    return "float32" if widen and is_half(pair.dtype) else pair.dtype.name


def _takes_both(value: tuple[Any, ...], known: tuple[Any, ...]) -> bool:
    """Whether pairs differ in dtypes alone, of which float32 holds both."""
    return len(value) == 4 and value[:3] == known[:3] and "float64" not in (value[3], known[3])


def _described(value: tuple[Any, ...]) -> str:
    if len(value) == 2:
        return f"{value[1]} {value[0]}"
    kind, into, out, dtype = value
    return f"{kind} {dtype} from {into} to {out}"
