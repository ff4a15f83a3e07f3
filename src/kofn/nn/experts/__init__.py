"""Experts of a mixture, merged or attended to."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "Experts": "_experts",
    "MergedExperts": "_experts",
    "TokenAttention": "_experts",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
