"""Assign items to groups or bins: clustering, routing, transport. Every method can be imported from here."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "BiasRouter": "routing._bias_router",
    "alternating": "medoids._alternating",
    "balanced_assignment": "routing._balanced_assignment",
    "bottleneck_coupling": "transport._bottleneck",
    "bottleneck_encoder": "transport._bottleneck",
    "capped_routing": "routing._capped_routing",
    "constrained_kmeans": "means._constrained_kmeans",
    "constrained_kmedoids": "means._constrained_kmedoids",
    "dynmsc": "silhouettes._dynmsc",
    "expert_choice": "routing._expert_choice",
    "expert_skipping": "routing._token_choice",
    "fastclara": "medoids._fastclara",
    "fastclarans": "medoids._fastclarans",
    "fastermsc": "silhouettes._fastermsc",
    "fasterpam": "medoids._fasterpam",
    "fastpam1": "medoids._fastpam1",
    "generalized_assignment": "routing._generalized_assignment",
    "ila_sdp": "means._ila_sdp",
    "laplacian_shot": "graphs._laplacian_shot",
    "medoid_silhouette": "silhouettes._medoid_silhouette",
    "minimum_entropy_coupling": "transport._minimum_entropy_coupling",
    "pam": "medoids._pam",
    "pamk": "silhouettes._pamk",
    "pamsil": "silhouettes._pamsil",
    "partial_transport": "transport._partial_transport",
    "partitive_partitioning": "means._partitive_partitioning",
    "place": "means._place",
    "sdp_kmeans": "means._sdp_kmeans",
    "single_linkage": "schemes._single_linkage",
    "sinkhorn_newton_sparse": "transport._sinkhorn_newton_sparse",
    "soft_mixing": "routing._soft_mixing",
    "token_choice": "routing._token_choice",
    "unbalanced_transport": "transport._unbalanced_transport",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
