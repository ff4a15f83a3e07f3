"""Modules with fewer parameters, or fewer that learn: adaptive ranks, shared weights, small embedding tables."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "AdaptiveRanks": "_adaptive_ranks",
    "CompressedEmbedding": "_compressed_embedding",
    "LowRankUpdate": "_adaptive_ranks",
    "QuantizedLinear": "_quantized_linear",
    "SharedWeights": "_shared_weights",
    "limit_updates": "_limit_updates",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
