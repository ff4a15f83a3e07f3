"""Dynamic selection: for every row those members whose predictions were right on the validation rows near it."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "blend_predictions": "_blend_predictions",
    "dynamic_ensemble_selection": "_dynamic_ensemble_selection",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
