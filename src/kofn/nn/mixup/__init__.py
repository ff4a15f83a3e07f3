"""Mixup of batches of tensors, and its loss."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "mix_pairs": "_mix_pairs",
    "mixup_loss": "_mixup_loss",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
