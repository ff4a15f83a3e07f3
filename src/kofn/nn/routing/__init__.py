"""Routers of mixtures of experts as torch modules."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "BiasRouter": "_bias_router",
    "Router": "_router",
    "Routes": "_routes",
    "TopKRouter": "_topk_router",
    "balance_loss": "_balance_loss",
    "capped_routing": "_capped_routing",
    "expert_choice": "_expert_choice",
    "expert_skipping": "_expert_skipping",
    "soft_mixing": "_soft_mixing",
    "token_choice": "_token_choice",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
