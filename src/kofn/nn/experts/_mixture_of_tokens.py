"""Mixture of tokens (MoT)."""

from __future__ import annotations

import torch
from torch import Tensor

from kofn.core.checks import InputError, count, number
from kofn.core.torch_module import module
from kofn.nn.experts._experts import Experts
from kofn.nn.routing._soft_mixing import soft_mixing


@module(form_of=None, paper=252, aliases=("MoT",))
class MixtureOfTokens(torch.nn.Module):
    """Mixture of tokens (MoT): each expert processes softmax mixtures of tokens; fully differentiable, equal loads.

    Tokens **at the same position of different examples** form a group. For each expert a softmax of the controller's
    scores over the group says how much of each token is in the one mixed token that the expert processes; its output
    goes back to the tokens by the same weights. With as many experts as a group has tokens that costs what a dense
    layer does; every expert learns from every token at every step.

    Args:
        width: width of the tokens.
        experts: the `Experts`.
        group: number of examples per group; must divide the batch size.
        temperature: temperature of the softmax; an attribute that may be annealed. At 0 each expert takes the highest
            token of the group alone.

    No information passes between positions, but it does between **examples**: an output depends on the other examples
    of its group, so batches at inference must be composed as in training.

    References:
        Antoniak, Krutul et al. 2023, "Mixture of Tokens: Continuous MoE through Cross-Example Aggregation" (NeurIPS
        2024, arXiv 2310.15961).

    Examples:
        >>> import torch
        >>> from kofn.nn import Experts, MixtureOfTokens
        >>> layer = MixtureOfTokens(16, Experts(8, 16, 64, activation="relu"), group=4)
        >>> layer(torch.randn(8, 10, 16)).shape
        torch.Size([8, 10, 16])
    """

    def __init__(self, width: int, experts: Experts, *, group: int, temperature: float = 1.0) -> None:
        super().__init__()
        self.controller = torch.nn.Linear(count(width, "width"), len(experts), bias=False)
        self.experts, self.group = experts, count(group, "group")
        self.temperature = float(number(temperature, "temperature"))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, positions, width) to (batch, positions, outputs)."""
        if x.ndim != 3:
            raise InputError(f"x has shape {tuple(x.shape)}; give (batch, positions, width)")
        batch, positions, width = x.shape
        if batch % self.group:
            raise InputError(
                f"x holds {batch} examples, group={self.group}; pad the batch to {-(-batch // self.group) * self.group}"
            )
        tokens = x.transpose(0, 1).reshape(-1, self.group, width)
        weights = soft_mixing(self.controller(tokens), temperature=self.temperature)
        # (groups, experts, width) and back; each expert runs on its own mixture of each group.
        outputs = self.experts((weights.mT @ tokens).transpose(0, 1)).transpose(0, 1)
        return (weights @ outputs).reshape(positions, batch, -1).transpose(0, 1)
