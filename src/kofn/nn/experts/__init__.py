"""Experts of a mixture: sparse, merged, and mixtures of tokens."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "Experts": "_experts",
    "MergedExperts": "_merged_experts",
    "MixtureOfExperts": "_mixture_of_experts",
    "MixtureOfTokens": "_mixture_of_tokens",
    "TokenAttention": "_token_attention",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES, extra="torch")
