"""A router: a linear map from tokens to scores, followed by a routing function."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kofn.core.checks import count
from kofn.core.torch_module import module
from kofn.nn.routing._routes import Routes


@module(form_of=None, paper="shazeer2017", aliases=("MoE router", "gating network"))
class Router(torch.nn.Module):
    """A router: a linear map from tokens to scores, followed by a routing function.

    Args:
        width: width of the tokens.
        bins: number of experts.
        route: function from scores (n, bins) to `Routes`, such as `functools.partial(expert_choice,
            capacity_factor=2.0)`.
    """

    def __init__(self, width: int, bins: int, route: Callable[[Tensor], Routes]) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(count(width, "width"), count(bins, "bins"), bias=False)
        self.route = route

    def forward(self, x: Tensor) -> Routes:
        """(n, width) tokens to their routes; scores are worked out in float32 or wider."""
        scores = self.linear(x)
        return self.route(scores.float() if scores.dtype in (torch.float16, torch.bfloat16) else scores)
