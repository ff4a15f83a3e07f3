"""The highest scores, and draws at random."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "random_sample": "_random_sample",
    "top_k": "_top_k",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
