"""Routing of items to bins with capacities: routers of mixtures of experts."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "BiasRouter": "_bias_router",
    "balanced_assignment": "_balanced_assignment",
    "capped_routing": "_capped_routing",
    "expert_choice": "_expert_choice",
    "expert_skipping": "_token_choice",
    "generalized_assignment": "_generalized_assignment",
    "soft_mixing": "_soft_mixing",
    "token_choice": "_token_choice",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
