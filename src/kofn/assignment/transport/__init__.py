"""Optimal transport and couplings with given margins."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "bottleneck_coupling": "_bottleneck",
    "bottleneck_encoder": "_bottleneck",
    "minimum_entropy_coupling": "_minimum_entropy_coupling",
    "partial_transport": "_partial_transport",
    "sinkhorn_newton_sparse": "_sinkhorn_newton_sparse",
    "unbalanced_transport": "_unbalanced_transport",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
