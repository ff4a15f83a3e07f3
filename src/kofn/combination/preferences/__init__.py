"""Preferences that may go in cycles: how likely each alternative is preferred to each other, by a low-rank model."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "general_preference": "_general_preference",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
