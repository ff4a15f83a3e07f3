"""Mixup: rows of a data set mixed in pairs, which pairs are drawn, and what that makes of the classes."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "Mixed": "_mix_pairs",
    "mix_networks": "_mix_networks",
    "mix_pairs": "_mix_pairs",
    "mixup_features": "_collapse",
    "mixup_gains": "_gains",
    "mixup_loss": "_mix_pairs",
    "pair_chances": "_gains",
    "pair_marginal": "_pairs",
    "simplex_frame": "_collapse",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
