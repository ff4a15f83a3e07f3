"""Bits for each part of a model, from what each bit is worth."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "GroupSparse": "_group_sparse",
    "expert_bits": "_expert_bits",
    "group_sparse": "_group_sparse",
    "reverse_water_filling": "_reverse_water_filling",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
