"""A sparse mixture of experts."""

from __future__ import annotations

import torch
from torch import Tensor

from kofn.core.torch_module import module
from kofn.nn.experts._experts import Experts
from kofn.nn.routing._routes import Routes


@module(form_of=None, paper=273, aliases=("MoE layer", "sparse mixture of experts"))
class MixtureOfExperts(torch.nn.Module):
    """Sparse mixture of experts: each token passes only through its routed experts, whose gated outputs are summed.

    Args:
        router: a module from (n, width) to `Routes`: `TopKRouter` (Mixtral), `BiasRouter`, `Router` with any route.
        experts: the `Experts`, or a `ModuleList` of any modules that take and give rows.

    An expert computes only its own tokens; the output of a token without an expert is zero. The
    layer equals the sum over all experts with the gates of the others set to zero.

    References:
        Jiang et al. 2024, Mixtral of Experts (arXiv 2401.04088), section 2.1: 8 SwiGLU experts, 2 for each token.

    Examples:
        >>> import torch
        >>> from kofn.nn import Experts, MixtureOfExperts, TopKRouter, balance_loss
        >>> layer = MixtureOfExperts(TopKRouter(16, 8, per_item=2), Experts(8, 16, 32))
        >>> x = torch.randn(4, 10, 16)
        >>> routes = layer.router(x.flatten(0, 1))
        >>> layer(x, routes=routes).shape, balance_loss(routes).shape
        (torch.Size([4, 10, 16]), torch.Size([]))
    """

    def __init__(self, router: torch.nn.Module, experts: Experts | torch.nn.ModuleList) -> None:
        super().__init__()
        self.router, self.experts = router, experts

    def forward(self, x: Tensor, *, routes: Routes | None = None) -> Tensor:
        """(..., width) to (..., outputs); `routes` are those of the flattened tokens, if already computed."""
        rows = x.reshape(-1, x.shape[-1])
        routes = self.router(rows) if routes is None else routes
        order = routes.bins.argsort(stable=True)
        items, gates = routes.items[order], routes.weights[order].unsqueeze(1)
        # Experts without tokens run on an empty batch, so that the output's shape is always known.
        parts = [self.experts[j](rows[own]) for j, own in enumerate(items.split(routes.loads.tolist()))]
        outputs = torch.cat(parts)
        out = outputs.new_zeros(len(rows), outputs.shape[1]).index_add(0, items, outputs * gates.to(outputs.dtype))
        return out.reshape(*x.shape[:-1], outputs.shape[1])
