"""Experts merged into a single one before the forward pass (MEO)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kofn.core.checks import InputError
from kofn.core.torch_module import module
from kofn.nn.experts._experts import Experts


@module(form_of=None, paper=301, aliases=("MEO", "merging experts into one"))
class MergedExperts(torch.nn.Module):
    """Merging experts into one (MEO): sum the weights of the chosen experts, then run the resulting expert.

    Each sequence (or task) has its own gates: weights and biases are summed with them, and all its tokens pass through
    the merged expert. This costs experts x parameters per sequence for the sum and one expert's pass per token, however
    many are chosen; a mixture of experts (`MixtureOfExperts`) runs each chosen expert.

    For **linear** experts (`Experts` without `hidden`: what the paper puts in place of each linear layer) the output
    **is** that of the mixture. Experts with an activation are merged through it, which is a different function than
    their mixture and must be trained as such.

    Args:
        router: a module from (batch, width) to `Routes` over the experts (`TopKRouter`).
        experts: the `Experts`.
        attention: added to each token first (`TokenAttention`): the paper's token level. Gates are still one set per
            sequence; only this block differs between tokens.

    The gates look at the whole sequence (its mean): **every token sees later ones through them.** For next-token
    prediction hand in `given`, such as the task or the mean of the prompt.

    Without torch the same merge of state dicts is `kofn.combine(members, weights=gates, method="weighted_mean",
    options={"normalize": False})`, on checkpoints on disk too.

    References:
        He, Fan, Ding, Shen, Zhou & Tao 2023, "Merging Experts into One: Improving Computational Efficiency of Mixture
        of Experts" (EMNLP, arXiv 2310.09832); gates as in their code: softmax over the k highest.

    Examples:
        >>> import torch, kofn
        >>> from kofn.nn import Experts, MergedExperts, TopKRouter
        >>> layer = MergedExperts(TopKRouter(16, 8, per_item=4), Experts(8, 16, 32))
        >>> x = torch.randn(2, 10, 16)
        >>> layer(x).shape
        torch.Size([2, 10, 16])
        >>> gates = layer.router(x.mean(dim=1)).dense()
        >>> blend = kofn.combine(layer.experts.members(), weights=gates[0].detach().numpy(), method="weighted_mean")
        >>> bool(torch.allclose(layer.experts.merged(gates)["w1"][0], torch.as_tensor(blend.result["w1"]), atol=1e-6))
        True
    """

    def __init__(self, router: torch.nn.Module, experts: Experts, *, attention: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.router, self.experts, self.attention = router, experts, attention

    def forward(self, x: Tensor, given: Tensor | None = None, *, routes: Any = None) -> Tensor:
        """(batch, positions, width) through one expert each.

        Args:
            x: the tokens.
            given: (batch, width) input of the router; default the mean of the tokens.
            routes: the `Routes` of the batch, if already computed.
        """
        if x.ndim != 3:
            raise InputError(f"x has shape {tuple(x.shape)}; give (batch, positions, width)")
        if self.attention is not None:
            x = x + self.attention(x)
        if routes is None:
            routes = self.router(x.mean(dim=1) if given is None else given)
        return self.experts.merge(routes.dense(), x)
