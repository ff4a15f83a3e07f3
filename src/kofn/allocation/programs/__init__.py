"""Amounts whose worth only the whole tells, by search."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "MeasuredAdditivity": "_additivity",
    "additivity": "_additivity",
    "balans": "_balans",
    "evopress": "_evopress",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
