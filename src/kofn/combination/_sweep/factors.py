"""Tensors of which several make one weight: to blend each apart does not blend the weight."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from kofn.core.checks import InputError

if TYPE_CHECKING:
    from kofn.combination._sweep.tensor import Tensor

# Factors of names that say nothing; their shapes do.
_PLAIN = re.compile(r"(?P<stem>(.+\.)?)(?P<leaf>[Aa])(?P<end>(\.weight)?)")
# Others, by the ends of their names.
_PARTS = (
    (
        re.compile(r"(^|\.)lora_((embedding_)?A|left|right)(\.|$)"),
        "LoRA adapters",
        "stack_adapters, or reduce_adapters for a rank of your own; those of a recipe outside it, kofn combine A B "
        "--weights 0.3,0.7",
    ),
    (
        re.compile(
            r"(lora_down\.weight|lora\.down\.weight|lora_linear_layer\.down\.weight|lora_a(\.weight)?)$", re.IGNORECASE
        ),
        "LoRA adapters of another trainer than PEFT",
        "stack_adapters, which adds their updates",
    ),
    (
        re.compile(r"(hada_w1_a|lokr_w1(_a)?|lokr_w2(_a)?)$"),
        "adapters whose products are not linear in their factors (LyCORIS)",
        "stack_adapters, which adds their updates",
    ),
    (
        re.compile(
            r"(oft_blocks|oft_diag|oft_R(\.weight)?|boft_R|on_input|ia3_l|lambda_layer|vera_lambda_[bd]|"
            r"^(lora|lycoris)_\w+\.(a1|a2|b1|b2|bm)\.weight)$"
        ),
        "adapters whose updates are not linear in their factors (OFT, IA3, GLoRA and the like)",
        "the weights that each is folded into by its own trainer",
    ),
    (
        re.compile(r"(weight_g|parametrizations\.weight\.original0)$"),
        "weights kept as a length and a direction (weight normalisation)",
        "remove the parametrisation first, torch.nn.utils.remove_weight_norm",
    ),
)


def refuse_parts(tensors: Mapping[str, Tensor]) -> None:
    """Refuse factors of products."""
    for pattern, kind, remedy in _PARTS:
        factor = next((name for name in tensors if pattern.search(name)), None)
        if factor is not None:
            raise InputError(
                f"members are {kind} ({factor!r}): blending the factors apart does not blend their product; "
                f"use {remedy}"
            )
    factor = next((name for name in tensors if _is_factor(tensors, name)), None)
    if factor is not None:
        raise InputError(
            f"members have factors of a low rank ({factor!r} and its B): blending the factors apart does not blend "
            "their product; give the products, the adapters as their trainer saves them, or skip these tensors"
        )


def _is_factor(tensors: Mapping[str, Tensor], name: str) -> bool:
    """Whether this is A beside a B with which it makes a product of a rank below its sides."""
    match = _PLAIN.fullmatch(name)
    other = (
        None if match is None else tensors.get(f"{match['stem']}{'B' if match['leaf'] == 'A' else 'b'}{match['end']}")
    )
    if other is None or len(tensors[name].shape) != 2 or len(other.shape) != 2:
        return False
    (rows, columns), (tall, wide) = tensors[name].shape, other.shape
    return (rows == wide and rows < min(columns, tall)) or (columns == tall and columns < min(rows, wide))
