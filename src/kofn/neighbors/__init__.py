"""Which rows are near which: sparse graphs that stand for the n x n pairs."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "KnnGraph": "graphs._knn_graph",
    "knn_graph": "graphs._knn_graph",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
