"""LoRA adapters of every trainer: how each names its factors, scales their product, and saves it."""

from __future__ import annotations

from kofn.core.checks import InputError
from kofn.io.adapter_families._diffusers import Diffusers
from kofn.io.adapter_families._family import CONFIG, DORA, Family, Parts, Saved
from kofn.io.adapter_families._kohya import Kohya, Lycoris
from kofn.io.adapter_families._mlx import Mlx
from kofn.io.adapter_families._peft import Peft
from kofn.io.adapter_families._torchtune import Torchtune

__all__ = ["CONFIG", "DORA", "FAMILIES", "PEFT", "Family", "Parts", "Saved", "family_of", "owners"]

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
        InputError: factors of two families in one file.
    """
    known = owners(saved)
    if len(known) > 1:
        raise InputError(
            f"{saved.label} holds factors of {known[0].name} and of {known[1].name}; save them as two adapters"
        )
    return known[0] if known else None
