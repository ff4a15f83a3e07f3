"""Sums of LoRA adapters as the weight updates they represent."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "fold_adapter": "_fold_adapter",
    "fold_adapters": "_fold_adapter",
    "lora_pairs": "_stack_adapters",
    "reduce_adapters": "_reduce_adapters",
    "stack_adapters": "_stack_adapters",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
