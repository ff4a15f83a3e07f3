"""Bilevel problems: weights and penalties chosen by what a model trained with them is worth elsewhere."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "PenaltyBilevel": "_penalty_bilevel",
    "bilevel_weights": "_bilevel_weights",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
