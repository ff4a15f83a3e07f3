"""Picks that cover or spread: no item far from a pick, no two picks close."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "farthest_first": "_farthest_first",
    "gist": "_gist",
    "probability_cover": "_probability_cover",
    "typiclust": "_typiclust",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
