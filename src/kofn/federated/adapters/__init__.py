"""Federated fine-tuning of LoRA adapters."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "StackedAdapters": "_stacked_adapters",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
