"""The PyTorch form of a family, under the same file name: `kofn.nn.masks` beside `kofn.selection.masks`.

Needs `pip install 'kofn[torch]'`; a name is imported on first use.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from kofn._lazy import lazy
from kofn.checks import InputError

if TYPE_CHECKING:
    from kofn.nn.experts import Experts as Experts
    from kofn.nn.experts import MergedExperts as MergedExperts
    from kofn.nn.experts import TokenAttention as TokenAttention
    from kofn.nn.masks import TopKMask as TopKMask
    from kofn.nn.masks import aux_zipf_loss as aux_zipf_loss
    from kofn.nn.masks import topk_mask as topk_mask
    from kofn.nn.merging import adaptive_merge as adaptive_merge
    from kofn.nn.routing import BiasRouter as BiasRouter
    from kofn.nn.routing import MixtureOfExperts as MixtureOfExperts
    from kofn.nn.routing import MixtureOfTokens as MixtureOfTokens
    from kofn.nn.routing import Router as Router
    from kofn.nn.routing import Routes as Routes
    from kofn.nn.routing import TopKRouter as TopKRouter
    from kofn.nn.routing import balance_loss as balance_loss
    from kofn.nn.routing import capped_routing as capped_routing
    from kofn.nn.routing import expert_choice as expert_choice
    from kofn.nn.routing import soft_mixing as soft_mixing
    from kofn.nn.routing import token_choice as token_choice
    from kofn.nn.statistics import activation_gram as activation_gram
    from kofn.nn.statistics import diagonal_fisher as diagonal_fisher

_HOMES = {
    "BiasRouter": "routing",
    "Experts": "experts",
    "MergedExperts": "experts",
    "MixtureOfExperts": "routing",
    "MixtureOfTokens": "routing",
    "Router": "routing",
    "Routes": "routing",
    "TokenAttention": "experts",
    "TopKMask": "masks",
    "TopKRouter": "routing",
    "activation_gram": "statistics",
    "adaptive_merge": "merging",
    "aux_zipf_loss": "masks",
    "balance_loss": "routing",
    "capped_routing": "routing",
    "diagonal_fisher": "statistics",
    "expert_choice": "routing",
    "soft_mixing": "routing",
    "token_choice": "routing",
    "topk_mask": "masks",
}
__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    try:
        return lazy(__name__, _HOMES, name)
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise InputError(f"kofn.nn.{name} needs torch: pip install 'kofn[torch]'") from None


def __dir__() -> list[str]:
    return list(__all__)
