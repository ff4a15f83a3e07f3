"""How much of each source, from fitted laws of returns."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "LearningCurves": "_learning_curves",
    "Utility": "_fit_utility",
    "fit_learning_curves": "_learning_curves",
    "fit_utility": "_fit_utility",
    "quality_quantity": "_quality_quantity",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
