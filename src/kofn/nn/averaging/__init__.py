"""Statistics for model averaging: Fisher information and Gram matrices."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "activation_gram": "_activation_gram",
    "diagonal_fisher": "_diagonal_fisher",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
