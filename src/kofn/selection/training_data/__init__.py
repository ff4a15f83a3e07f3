"""Which rows to train on: coresets, filtering, sources, near-duplicates."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "ccs": "_ccs",
    "marginal_relevance": "_marginal_relevance",
    "near_duplicates": "_near_duplicates",
    "position_weighted_mean": "_rds_plus",
    "rad": "_rad",
    "rds_plus": "_rds_plus",
    "shift_scores": "_sources_by_shift",
    "smart": "_smart",
    "sources_by_shift": "_sources_by_shift",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
