"""Rank aggregation: one ranking from many judges."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "borda": "_borda",
    "kemeny": "_kemeny",
    "merge_points": "_borda",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
