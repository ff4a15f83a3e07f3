"""Rounds over clients that keep their rows: who learns with whom, and what may be learnt from sums alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy

if TYPE_CHECKING:
    from kofn.federated._mixture import FederatedMixture as FederatedMixture
    from kofn.federated.adapters import StackedAdapters as StackedAdapters
    from kofn.federated.clustered import client_distances as client_distances
    from kofn.federated.clustered import fedcollab as fedcollab
    from kofn.federated.clustered import federated_mixture as federated_mixture
    from kofn.federated.decentralised import GossipAveraging as GossipAveraging

_HOMES = {
    "FederatedMixture": "_mixture",
    "GossipAveraging": "decentralised",
    "StackedAdapters": "adapters",
    "client_distances": "clustered",
    "fedcollab": "clustered",
    "federated_mixture": "clustered",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    return lazy(__name__, _HOMES, name)


def __dir__() -> list[str]:
    return list(__all__)
