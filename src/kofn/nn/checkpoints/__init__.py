"""What a model's output loses by errors in its weights, for plans of bits."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "noise_sensitivity": "_noise_sensitivity",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
