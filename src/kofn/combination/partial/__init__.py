"""Partial merging of networks: matched units are merged, the others are kept."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "pleas": "_pleas",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
