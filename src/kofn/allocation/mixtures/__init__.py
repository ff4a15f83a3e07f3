"""How much of each source of data goes into a mixture."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "InfluenceMixture": "_influence_mixture",
    "OnlineDataMixing": "_online_data_mixing",
    "group_influence": "_influence_mixture",
    "submodular_mixture": "_submodular_mixture",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
