"""Label propagation over a neighbour graph."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "laplacian_shot": "_laplacian_shot",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
