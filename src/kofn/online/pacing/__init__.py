"""Budgets that are spent over time."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "CoordinatedPacing": "_coordinated_pacing",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
