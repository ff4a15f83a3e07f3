"""Top-k router (Mixtral)."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from kofn.core.checks import InputError, count
from kofn.core.torch_module import module
from kofn.nn.routing._examples import drawn_scores, drawn_weights, pass_through
from kofn.nn.routing._router import Router
from kofn.nn.routing._token_choice import token_choice


def _example(form: Any, numpy_form: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    scores, per_item, weights = drawn_scores(rng, listed=True), int(rng.integers(1, 5)), drawn_weights(rng)
    router = pass_through(form(4, 4, per_item, **weights))
    return router(torch.as_tensor(scores)), numpy_form(scores, per_item=per_item, **weights)


@module(form_of="token_choice", paper=273, aliases=("MoE router", "top-k gating"), example=_example)
class TopKRouter(Router):
    """Top-k router (Mixtral): each token to its best experts, weighted by a softmax over those.

    Args:
        width: width of the tokens.
        bins: number of experts.
        per_item: number of experts per token.
        affinity, gates: as in `token_choice`; gates="raw" is that of Switch.

    References:
        Jiang et al. 2024, Mixtral of Experts (arXiv 2401.04088), section 2.1.

    Examples:
        >>> import torch
        >>> from kofn.nn import TopKRouter
        >>> TopKRouter(16, 8, per_item=2)(torch.randn(5, 16)).dense().sum(dim=1).allclose(torch.ones(5))
        True
    """

    def __init__(
        self, width: int, bins: int, per_item: int = 2, *, affinity: str = "softmax", gates: str = "share"
    ) -> None:
        super().__init__(
            width, bins, functools.partial(token_choice, per_item=per_item, affinity=affinity, gates=gates)
        )
        if count(per_item, "per_item") > bins:
            raise InputError(f"per_item={per_item} of {bins} bins; ask for per_item <= {bins}")
