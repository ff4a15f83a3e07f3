"""LoRA adapters of every trainer: how each names its factors, scales their product, and saves it."""

from __future__ import annotations

from kofn.core.checks import InputError
from kofn.io.adapter_families._diffusers import Diffusers
from kofn.io.adapter_families._family import (
    CONFIG,
    DIFFERENCES,
    DORA,
    EXPERTS,
    FOLDED,
    ROWS,
    Family,
    Parts,
    Saved,
    other_kind,
    refuse_stranger,
)
from kofn.io.adapter_families._kohya import Kohya, Lycoris
from kofn.io.adapter_families._mlx import Mlx
from kofn.io.adapter_families._peft import Peft, module_names
from kofn.io.adapter_families._torchtune import Torchtune

__all__ = [
    "CONFIG",
    "DIFFERENCES",
    "DORA",
    "EXPERTS",
    "FAMILIES",
    "FOLDED",
    "PEFT",
    "ROWS",
    "Family",
    "Parts",
    "Saved",
    "family_of",
    "is_trained",
    "module_names",
]

PEFT = Peft()
FAMILIES: tuple[Family, ...] = (PEFT, Diffusers(), Kohya(), Lycoris(), Torchtune(), Mlx())


def owners(saved: Saved) -> list[Family]:
    """The families whose factors are among the tensors."""
    if saved.config.get("peft_type", "LORA") != "LORA":
        return [PEFT]
    return [family for family in FAMILIES if family.owns(saved)]


def family_of(saved: Saved) -> Family | None:
    """The family whose factors these tensors are, None if they are of none.

    Raises:
        InputError: factors of two families in one file, or of a parametrisation that is no sum of products.
    """
    known = owners(saved)
    if len(known) > 1:
        raise InputError(
            f"{saved.label} holds factors of {known[0].name} and of {known[1].name}; save them as two adapters"
        )
    if known:
        return known[0]
    other = next((name for name in saved.tensors if other_kind(name)), None)
    if other is not None:
        refuse_stranger(saved, "any trainer", other)
    return None


def is_trained(saved: Saved) -> bool:
    """Whether any tensor is of an adapter, also of a parametrisation that is not read."""
    flat = (name for name in saved.tensors if name.startswith(("lora_", "lycoris_")))
    return bool(owners(saved)) or any(map(other_kind, flat))
