"""Searches for what to combine: models to train for an ensemble, by how good and how unlike each other they will be."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "diverse_search": "_diverse_search",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
