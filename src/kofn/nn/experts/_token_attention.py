"""What the paper of merged experts adds to each token."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kofn.core.checks import count
from kofn.core.torch_module import module


@module(form_of=None, paper=301)
class TokenAttention(torch.nn.Module):
    """A narrow layer that weighs what each token is about: up(relu(down(x))), zero to begin with.

    Args:
        width: of the tokens.
        reduce: how much narrower it is inside; the authors' code has 16 and 64.

    References:
        He et al. 2023, "Merging Experts into One" (EMNLP, arXiv 2310.09832).
    """

    def __init__(self, width: int, *, reduce: int = 16) -> None:
        super().__init__()
        narrow = max(1, width // count(reduce, "reduce"))
        self.down, self.up = torch.nn.Linear(width, narrow), torch.nn.Linear(narrow, width)
        for part in (self.down.bias, self.up.weight, self.up.bias):
            torch.nn.init.zeros_(part)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) what is added to each token."""
        return self.up(functional.relu(self.down(x)))
