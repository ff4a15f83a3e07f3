"""PyTorch forms of the families, under the same paths: `nn/networks/` beside `selection/networks/`.

Needs `pip install 'kofn[torch]'`; a name is imported on first use.
"""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "BiasRouter": "routing._bias_router",
    "Experts": "experts._experts",
    "MergedExperts": "experts._merged_experts",
    "MixtureOfExperts": "experts._mixture_of_experts",
    "MixtureOfTokens": "experts._mixture_of_tokens",
    "Router": "routing._router",
    "Routes": "routing._routes",
    "TokenAttention": "experts._token_attention",
    "TopKMask": "networks._topk_mask",
    "TopKRouter": "routing._topk_router",
    "activation_gram": "averaging._activation_gram",
    "adaptive_merge": "task_vectors._adaptive_merge",
    "aux_zipf_loss": "networks._aux_zipf_loss",
    "balance_loss": "routing._balance_loss",
    "capped_routing": "routing._capped_routing",
    "diagonal_fisher": "averaging._diagonal_fisher",
    "expert_choice": "routing._expert_choice",
    "expert_skipping": "routing._expert_skipping",
    "mix_pairs": "mixup._mix_pairs",
    "mixup_loss": "mixup._mixup_loss",
    "noise_sensitivity": "checkpoints._noise_sensitivity",
    "soft_mixing": "routing._soft_mixing",
    "token_choice": "routing._token_choice",
    "topk_mask": "networks._topk_mask",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
