"""Ensembles: predictions of many models blended into one, chosen by what they predicted for rows of known answer."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "ensemble_selection": "_ensemble_selection",
    "greedy_posterior": "_greedy_posterior",
    "stacking": "_stacking",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
