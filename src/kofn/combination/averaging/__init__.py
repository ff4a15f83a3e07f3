"""Means of members: weighted, Fisher-weighted, spherical, variance-corrected."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "balanced_mean": "_balanced_mean",
    "balancing_temperatures": "_balanced_mean",
    "fisher_merging": "_fisher_merging",
    "merge_means": "_weighted_mean",
    "slerp": "_slerp",
    "variance_corrected_mean": "_variance_corrected_mean",
    "weighted_mean": "_weighted_mean",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
