"""Who goes where: one file a family, every method importable from here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy

if TYPE_CHECKING:
    from kofn.assignment._bias import BiasRouter as BiasRouter
    from kofn.assignment.balanced import balanced_assignment as balanced_assignment
    from kofn.assignment.clara import fastclara as fastclara
    from kofn.assignment.clara import fastclarans as fastclarans
    from kofn.assignment.clustering import ila_sdp as ila_sdp
    from kofn.assignment.clustering import partitive_partitioning as partitive_partitioning
    from kofn.assignment.clustering import sdp_kmeans as sdp_kmeans
    from kofn.assignment.clustering import single_linkage as single_linkage
    from kofn.assignment.constrained import constrained_kmeans as constrained_kmeans
    from kofn.assignment.constrained import constrained_kmedoids as constrained_kmedoids
    from kofn.assignment.constrained import place as place
    from kofn.assignment.kmedoids import fasterpam as fasterpam
    from kofn.assignment.kmedoids import fastpam1 as fastpam1
    from kofn.assignment.kmedoids import pam as pam
    from kofn.assignment.laplacian import laplacian_shot as laplacian_shot
    from kofn.assignment.routing import capped_routing as capped_routing
    from kofn.assignment.routing import expert_choice as expert_choice
    from kofn.assignment.routing import soft_mixing as soft_mixing
    from kofn.assignment.routing import token_choice as token_choice
    from kofn.assignment.silhouette import dynmsc as dynmsc
    from kofn.assignment.silhouette import fastermsc as fastermsc
    from kofn.assignment.silhouette import medoid_silhouette as medoid_silhouette
    from kofn.assignment.transport import bottleneck_coupling as bottleneck_coupling
    from kofn.assignment.transport import bottleneck_encoder as bottleneck_encoder
    from kofn.assignment.transport import minimum_entropy_coupling as minimum_entropy_coupling
    from kofn.assignment.transport import sinkhorn_newton_sparse as sinkhorn_newton_sparse

_HOMES = {
    "BiasRouter": "_bias",
    "balanced_assignment": "balanced",
    "bottleneck_coupling": "transport",
    "bottleneck_encoder": "transport",
    "capped_routing": "routing",
    "constrained_kmeans": "constrained",
    "constrained_kmedoids": "constrained",
    "dynmsc": "silhouette",
    "expert_choice": "routing",
    "fastclara": "clara",
    "fastclarans": "clara",
    "fastermsc": "silhouette",
    "fasterpam": "kmedoids",
    "fastpam1": "kmedoids",
    "ila_sdp": "clustering",
    "laplacian_shot": "laplacian",
    "medoid_silhouette": "silhouette",
    "minimum_entropy_coupling": "transport",
    "pam": "kmedoids",
    "partitive_partitioning": "clustering",
    "place": "constrained",
    "sdp_kmeans": "clustering",
    "single_linkage": "clustering",
    "sinkhorn_newton_sparse": "transport",
    "soft_mixing": "routing",
    "token_choice": "routing",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
