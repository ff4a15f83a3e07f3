"""The PyTorch form of a family under the same path: `nn/networks/` beside `selection/networks/`.

Needs `pip install 'kofn[torch]'`; a name is imported on first use.
"""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "BiasRouter": "routing._routers",
    "Experts": "experts._experts",
    "MergedExperts": "experts._experts",
    "MixtureOfExperts": "routing._routers",
    "MixtureOfTokens": "routing._routers",
    "Router": "routing._routers",
    "Routes": "routing._routers",
    "TokenAttention": "experts._experts",
    "TopKMask": "networks._topk_mask",
    "TopKRouter": "routing._routers",
    "activation_gram": "statistics._statistics",
    "adaptive_merge": "merging._adaptive_merge",
    "aux_zipf_loss": "networks._topk_mask",
    "balance_loss": "routing._routers",
    "capped_routing": "routing._routers",
    "diagonal_fisher": "statistics._statistics",
    "expert_choice": "routing._routers",
    "soft_mixing": "routing._routers",
    "token_choice": "routing._routers",
    "topk_mask": "networks._topk_mask",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
