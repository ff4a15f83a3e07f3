"""How much of each source of data goes into a mixture."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "submodular_mixture": "_submodular_mixture",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
