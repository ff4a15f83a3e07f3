"""Federated learning: clustering of clients, shared mixtures, adapters, and decentralised averaging."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "FederatedMixture": "clustered._mixture",
    "GossipAveraging": "decentralised._gossip_averaging",
    "StackedAdapters": "adapters._stacked_adapters",
    "client_distances": "clustered._client_distances",
    "fedcollab": "clustered._fedcollab",
    "federated_mixture": "clustered._federated_mixture",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
