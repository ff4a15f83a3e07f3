"""What a network tells of its data for merging: Fisher information and Gram matrices."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "activation_gram": "_statistics",
    "diagonal_fisher": "_statistics",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
