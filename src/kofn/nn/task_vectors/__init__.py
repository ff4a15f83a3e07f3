"""Learnt merging coefficients."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "adaptive_merge": "_adaptive_merge",
    "tinted_merge": "_tinted_merge",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
