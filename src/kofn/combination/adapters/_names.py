"""Modules of adapters of several families under the names of one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from kofn.core.checks import InputError
from kofn.io.adapter_families import PEFT, Family
from kofn.io.adapters import Adapter
from kofn.io.low_rank import Pair
from kofn.io.module_names import PREFIX, ModuleNames, split

_FLAT = (
    "'{}' and other convolutions are saved with a flat kernel, whose shape LoHa and LoKr do not hold and some loaders "
    "need: give base"
)


def renamed_for(
    family: Family, members: Sequence[Adapter], labels: Sequence[str], base: Mapping[str, Any] | None
) -> list[Adapter]:
    """The members with the names that their modules have in adapters of this family.

    Args:
        family: that of the sum.
        members: the adapters.
        labels: their names in messages.
        base: the weights they were trained on, if given; its names are those of PEFT's modules.

    Raises:
        InputError: a module without a name in the family, or with two.
    """
    own = [member for member in members if _shares(member.family, family)]
    if len(own) == len(members):
        return _with_one_prefix(members) if family.names != "own" else list(members)
    if not own or (family is PEFT and base is not None):
        return _for_peft(members, labels, base)
    names = ModuleNames(dict.fromkeys(module for member in own for module in member.pairs))
    first = labels[next(i for i, member in enumerate(members) if member is own[0])]
    return [
        member
        if _shares(member.family, family)
        else _renamed(member, _all_found(member, label, names, f"{first}, an adapter of {own[0].family.name}"))
        for member, label in zip(members, labels, strict=True)
    ]


def _with_one_prefix(members: Sequence[Adapter]) -> list[Adapter]:
    """The members with one prefix for each part of a model, that of the first that has the module: trainers call the
    denoiser `transformer`, `unet` or `diffusion_model`."""
    places: dict[tuple[str, str], str] = {}
    out = []
    for member in members:
        names = {module: places.setdefault(split(module), module) for module in member.pairs}
        unlike = any(module != name for module, name in names.items()) and len(set(names.values())) == len(names)
        out.append(_renamed(member, names) if unlike else member)
    return out


def _renamed(member: Adapter, names: Mapping[str, str]) -> Adapter:
    return member.with_pairs({module: pair.named(names[module]) for module, pair in member.pairs.items()})


def _shares(one_family: Family, other: Family) -> bool:
    """Whether two families name modules alike, as LyCORIS and kohya do."""
    return isinstance(one_family, type(other)) or isinstance(other, type(one_family))


def _all_found(member: Adapter, label: str, names: ModuleNames, owner: str) -> dict[str, str]:
    known = {module: names.find(module) for module in member.pairs}
    lacking = [module for module, name in known.items() if name is None]
    if lacking:
        raise InputError(
            f"{label}, an adapter of {member.family.name}, changes {lacking[0]!r}, which corresponds to no module of "
            f"{owner}; put first the one that changes more, or fold each into the base"
        )
    twice = {name: module for module, name in known.items() if name is not None}
    if len(twice) < len(known):
        odd = next(module for module, name in known.items() if name is not None and twice[name] != module)
        raise InputError(
            f"{label}: modules {odd!r} and {twice[str(known[odd])]!r} both correspond to {known[odd]!r} of {owner}; "
            "fold each into the base"
        )
    return {module: str(name) for module, name in known.items()}


def _for_peft(members: Sequence[Adapter], labels: Sequence[str], base: Mapping[str, Any] | None) -> list[Adapter]:
    """Names in a model of its own: without the part of a pipeline, and the base's where dots were lost."""
    others = [member for member in members if member.family.names != "own"]
    parts = {split(module)[0]: module for member in others for module in member.pairs}
    if len(parts) > 1:
        (part, module), (second, second_module), *_ = sorted(parts.items())
        raise InputError(
            f"format='peft' is for an adapter of one model; {module!r} is of the {part}, {second_module!r} of the "
            f"{second}: leave format out"
        )
    names = None if base is None else ModuleNames(_weights_of(base))
    return [
        member if member.family is PEFT else _renamed(member, _own_names(member, label, names))
        for member, label in zip(members, labels, strict=True)
    ]


def _own_names(member: Adapter, label: str, names: ModuleNames | None) -> dict[str, str]:
    """PEFT's names of a member's modules, from the base's where they are given."""
    if names is not None:
        known = _all_found(member, label, names, "the base")
        return {module: PREFIX + name for module, name in known.items()}
    lost = next((module for module in member.pairs if member.family.names == "flat" and "." not in module), None)
    if lost is not None:
        raise InputError(
            f"{label}: {lost!r} has lost its dots; give base, the weights it was trained on, which have them"
        )
    whole = member.family.names == "own"
    return {module: PREFIX + (module if whole else split(module)[1]) for module in member.pairs}


def _weights_of(base: Mapping[str, Any]) -> list[str]:
    """The modules of the base's weights."""
    return [name.removesuffix(".weight") for name in base if name.endswith(".weight")]


def with_kernels(members: Sequence[Adapter], base: Mapping[str, Any] | None) -> list[Adapter]:
    """The members with the base's kernels where LoHa and LoKr flatten them."""
    if base is None or not any(_is_flat(pair) for member in members for pair in member.pairs.values()):
        return list(members)
    names = ModuleNames(_weights_of(base))

    def shaped(pair: Pair) -> Pair:
        stem = names.find(pair.module) if _is_flat(pair) else None
        shape = () if stem is None else tuple(base[f"{stem}.weight"].shape)
        convolved = len(shape) > 2 and math.prod(shape[1:]) == math.prod(pair.into)
        return pair.shaped(shape[1:]) if convolved else pair

    return [member.with_pairs({module: shaped(pair) for module, pair in member.pairs.items()}) for member in members]


def flat_kernels(members: Sequence[Adapter]) -> list[str]:
    """A warning where convolutions are saved without the shape of their kernel."""
    flat = (pair.module for member in members for pair in member.pairs.values() if _is_flat(pair))
    module = next((module for module in flat if "conv" in module.lower()), None)
    return [] if module is None else [_FLAT.format(module)]


def _is_flat(pair: Pair) -> bool:
    """Whether this is a linear layer, or a convolution whose factors flatten the kernel."""
    return pair.derived and pair.kind == "linear"


def alike(members: Sequence[Adapter]) -> list[Adapter]:
    """The members with one shape for each module: layers of width 1, and kernels that LoHa and LoKr flatten."""
    shapes: dict[str, tuple[int, ...]] = {}
    # A shape that is saved precedes one that is flat because its factors do not hold it.
    pairs = [pair for member in members for pair in member.pairs.values() if pair.kind in ("linear", "conv")]
    for pair in sorted(pairs, key=_is_flat):
        shapes.setdefault(pair.module, pair.into)

    def shaped(pair: Pair) -> Pair:
        into = shapes.get(pair.module, pair.into)
        other = into != pair.into and math.prod(into) == math.prod(pair.into) and pair.kind in ("linear", "conv")
        # Kernels of several shapes, such as 1 x 9 and 3 x 3, are of different layers.
        return pair.shaped(into) if other and 1 in (len(into), len(pair.into)) else pair

    return [member.with_pairs({module: shaped(pair) for module, pair in member.pairs.items()}) for member in members]


def family_for(choice: str, members: Sequence[Adapter]) -> Family:
    """The family that a sum is saved in: PEFT where the format says so, else that of the first member."""
    return PEFT if choice == "peft" else members[0].family
