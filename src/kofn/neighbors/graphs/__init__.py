"""Neighbour graphs."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "KnnGraph": "_knn_graph",
    "knn_graph": "_knn_graph",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
