"""The token attention block of merged experts (MEO)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from kofn.core.checks import count
from kofn.core.torch_module import module


@module(form_of=None, paper=301)
class TokenAttention(torch.nn.Module):
    """Token attention block up(relu(down(x))), initialised to zero.

    Args:
        width: width of the tokens.
        reduce: reduction factor of the hidden width; the authors' code uses 16 and 64.

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
        """(..., width) the addition to each token."""
        return self.up(functional.relu(self.down(x)))
