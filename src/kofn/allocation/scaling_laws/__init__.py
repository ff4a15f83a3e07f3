"""How much of each source, from fitted laws of returns."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "Utility": "_fit_utility",
    "fit_utility": "_fit_utility",
    "quality_quantity": "_quality_quantity",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
