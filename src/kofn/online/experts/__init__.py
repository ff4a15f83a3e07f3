"""Weights of experts or strategies that follow how they do."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "UniversalMixture": "_universal_mixture",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
