"""Hierarchical clustering schemes."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "single_linkage": "_single_linkage",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
