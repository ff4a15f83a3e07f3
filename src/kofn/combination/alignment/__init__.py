"""Alignment of networks' hidden units before averaging."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "cross_layer_fusion": "_cross_layer_fusion",
    "layerwise_barriers": "_layerwise_mean",
    "layerwise_mean": "_layerwise_mean",
    "match_layers": "_cross_layer_fusion",
    "ot_fusion": "_ot_fusion",
    "permute": "_weight_matching",
    "singular_alignment": "_singular_alignment",
    "weight_matching": "_weight_matching",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
