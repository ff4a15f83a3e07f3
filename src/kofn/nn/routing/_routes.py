"""Routes of items to bins: who goes where, with weights that gradients flow through."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Routes"]


class Routes(NamedTuple):
    """Who goes where, as the sparse rows of a `kofn.Assignment`; gradients flow through the weights.

    Attributes:
        scores: (n, bins) what was asked of the router.
        items: (routes,) the item of each route, ascending.
        bins: (routes,) its bin, ascending for each item.
        weights: (routes,) its weight.
    """

    scores: Tensor
    items: Tensor
    bins: Tensor
    weights: Tensor

    @property
    def loads(self) -> Tensor:
        """(bins,) how many items each bin holds."""
        return torch.bincount(self.bins, minlength=self.scores.shape[1])

    def dense(self) -> Tensor:
        """(n, bins) the weights, zero where an item does not go."""
        return self.weights.new_zeros(self.scores.shape).index_put((self.items, self.bins), self.weights)
