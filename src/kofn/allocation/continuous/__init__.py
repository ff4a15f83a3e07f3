"""Amounts of any size under one budget, over curves that are known as functions."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "water_filling": "_water_filling",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
