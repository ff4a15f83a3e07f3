"""A sparse mixture of experts."""

from __future__ import annotations

import torch
from torch import Tensor

from kofn.core.torch_module import module
from kofn.nn.experts._experts import Experts
from kofn.nn.routing._routes import Routes


@module(form_of=None, paper=273, aliases=("MoE layer", "sparse mixture of experts"))
class MixtureOfExperts(torch.nn.Module):
    """A sparse layer: each token goes through the experts it is routed to, and these alone, and their outputs add up.

    Args:
        router: a module from (n, width) to `Routes`: `TopKRouter` (Mixtral), `BiasRouter`, `Router` with any route.
        experts: the `Experts`, or a `ModuleList` of any modules that take and give rows.

    An expert computes nothing for tokens that are not its own; tokens that no expert takes come out as zero. The
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
        """(..., width) to (..., outputs); `routes` where the router was already asked for the flattened tokens."""
        rows = x.reshape(-1, x.shape[-1])
        routes = self.router(rows) if routes is None else routes
        order = routes.bins.argsort(stable=True)
        items, gates = routes.items[order], routes.weights[order].unsqueeze(1)
        # Experts without tokens run on none, so that the output has its shape whoever is chosen.
        parts = [self.experts[j](rows[own]) for j, own in enumerate(items.split(routes.loads.tolist()))]
        found = torch.cat(parts)
        out = found.new_zeros(len(rows), found.shape[1]).index_add(0, items, found * gates.to(found.dtype))
        return out.reshape(*x.shape[:-1], found.shape[1])
