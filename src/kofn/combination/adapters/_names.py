"""Modules of adapters of several families under the names of one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kofn.core.checks import InputError
from kofn.io.adapter_families import PEFT, Family
from kofn.io.adapters import Adapter
from kofn.io.module_names import PREFIX, ModuleNames, split


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
        return list(members)
    if not own:
        return _for_peft(members, labels, base)
    names = ModuleNames(dict.fromkeys(module for member in own for module in member.pairs))
    first = labels[next(i for i, member in enumerate(members) if member is own[0])]
    return [
        member
        if _shares(member.family, family)
        else member.renamed(_all_found(member, label, names, f"{first}, an adapter of {own[0].family.name}"))
        for member, label in zip(members, labels, strict=True)
    ]


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
    parts = {split(module)[0]: module for member in members for module in member.pairs}
    if len(parts) > 1:
        (one_part, one_module), (other, module), *_ = sorted(parts.items())
        raise InputError(
            f"format='peft' is for an adapter of one model; {one_module!r} is of the {one_part}, {module!r} of the "
            f"{other}: leave format out"
        )
    stems = [name.removesuffix(".weight") for name in base or () if name.endswith(".weight")]
    names = ModuleNames(stems)
    out = []
    for member, label in zip(members, labels, strict=True):
        if base is not None:
            known = _all_found(member, label, names, "the base")
        elif dotted := next((module for module in member.pairs if "." not in module and "_" in module), None):
            raise InputError(
                f"{label}: {dotted!r} has lost its dots; give base, the weights it was trained on, which have them"
            )
        else:
            known = {module: split(module)[1] for module in member.pairs}
        out.append(member.renamed({module: PREFIX + name for module, name in known.items()}))
    return out


def family_for(choice: str, members: Sequence[Adapter]) -> Family:
    """The family that a sum is saved in: PEFT where the format says so, else that of the first member."""
    return PEFT if choice == "peft" else members[0].family
