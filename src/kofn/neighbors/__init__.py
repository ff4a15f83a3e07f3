"""Which rows are near which: sparse graphs that stand for the n x n pairs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy

if TYPE_CHECKING:
    from kofn.neighbors.graph import KnnGraph as KnnGraph
    from kofn.neighbors.graph import knn_graph as knn_graph

_HOMES = {"KnnGraph": "graph", "knn_graph": "graph"}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
