"""Clustered federated learning: groups of clients, and mixtures shared by clients."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "FederatedMixture": "_mixture",
    "client_distances": "_client_distances",
    "fedcollab": "_fedcollab",
    "federated_mixture": "_federated_mixture",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
