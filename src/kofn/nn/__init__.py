"""PyTorch forms of the families, under the same paths: `nn/networks/` beside `selection/networks/`.

Needs `pip install 'kofn[torch]'`; a name is imported on first use.
"""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "AdaptiveRanks": "parameters._adaptive_ranks",
    "BiasRouter": "routing._bias_router",
    "CompressedEmbedding": "parameters._compressed_embedding",
    "Experts": "experts._experts",
    "LowRankUpdate": "parameters._adaptive_ranks",
    "MergedExperts": "experts._merged_experts",
    "MixtureOfExperts": "experts._mixture_of_experts",
    "MixtureOfTokens": "experts._mixture_of_tokens",
    "QuantizedLinear": "parameters._quantized_linear",
    "Router": "routing._router",
    "Routes": "routing._routes",
    "SharedWeights": "parameters._shared_weights",
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
    "limit_updates": "parameters._limit_updates",
    "mix_pairs": "mixup._mix_pairs",
    "mixup_loss": "mixup._mixup_loss",
    "noise_sensitivity": "checkpoints._noise_sensitivity",
    "soft_mixing": "routing._soft_mixing",
    "tinted_merge": "task_vectors._tinted_merge",
    "token_choice": "routing._token_choice",
    "topk_mask": "networks._topk_mask",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
