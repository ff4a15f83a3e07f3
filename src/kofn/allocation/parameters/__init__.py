"""Which parameters a model may have, store or train, under one budget."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "RankBudget": "_rank_budget",
    "SharedSlots": "_shared_slots",
    "mixed_dimensions": "_mixed_dimensions",
    "shared_slots": "_shared_slots",
    "sparse_update": "_sparse_update",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
