"""k-means and its relatives: size and link constraints, semidefinite relaxations, mixtures."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "constrained_kmeans": "_constrained_kmeans",
    "constrained_kmedoids": "_constrained_kmedoids",
    "ila_sdp": "_ila_sdp",
    "partitive_partitioning": "_partitive_partitioning",
    "place": "_place",
    "sdp_kmeans": "_sdp_kmeans",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
