"""Picks by judges: best of k candidates, and committees from votes."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "b4": "_b4",
    "best_of_k": "_best_of_k",
    "multiwinner": "_multiwinner",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
