"""Routers of mixtures of experts as torch modules."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "BiasRouter": "_routers",
    "MixtureOfExperts": "_routers",
    "MixtureOfTokens": "_routers",
    "Router": "_routers",
    "Routes": "_routers",
    "TopKRouter": "_routers",
    "balance_loss": "_routers",
    "capped_routing": "_routers",
    "expert_choice": "_routers",
    "soft_mixing": "_routers",
    "token_choice": "_routers",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
