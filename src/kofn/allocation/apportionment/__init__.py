"""Whole numbers in proportion to scores that add up to the budget exactly: seats, places, batches."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "adams": "_adams",
    "dean": "_dean",
    "dhondt": "_dhondt",
    "huntington_hill": "_huntington_hill",
    "largest_remainder": "_largest_remainder",
    "sainte_lague": "_sainte_lague",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
