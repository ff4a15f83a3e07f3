"""Clustering and the choice of k by the medoid silhouette."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "dynmsc": "_dynmsc",
    "fastermsc": "_fastermsc",
    "medoid_silhouette": "_medoid_silhouette",
    "pamk": "_pamk",
    "pamsil": "_pamsil",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
