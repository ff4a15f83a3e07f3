"""Auxiliary load-balancing loss."""

from __future__ import annotations

import torch
from torch import Tensor

from kofn.core.checks import choice
from kofn.core.torch_module import module
from kofn.nn.routing._routes import Routes
from kofn.nn.routing._scores import log_affinities


@module(form_of=None, paper="fedus2022", aliases=("load balancing loss", "auxiliary loss"))
def balance_loss(routes: Routes, *, affinity: str = "softmax") -> Tensor:
    """Load-balancing loss: bins x sum over bins of (share of routes) x (mean affinity); 1 if both are uniform.

    References:
        Fedus, Zoph & Shazeer 2022, Switch Transformers (JMLR 23), equations 4-6.

    Examples:
        >>> import torch
        >>> from kofn.nn import balance_loss, token_choice
        >>> balance_loss(token_choice(torch.tensor([[9.0, 0.0], [0.0, 9.0]]))).item()
        1.0
    """
    choice(affinity, "affinity", ("softmax", "sigmoid"))
    felt = torch.exp(log_affinities(routes.scores, affinity))
    share = felt / felt.sum(dim=1, keepdim=True).clamp_min(torch.finfo(felt.dtype).tiny)
    loads = routes.loads / max(len(routes.bins), 1)
    return len(loads) * (loads * share.mean(dim=0)).sum()
