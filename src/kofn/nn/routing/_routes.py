"""Routes of items to bins with differentiable weights."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Routes"]


class Routes(NamedTuple):
    """Routes of items to bins, as the sparse rows of a `kofn.Assignment`; the weights are differentiable.

    Attributes:
        scores: (n, bins) the router's scores.
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
        """(n, bins) the weights, zero without a route."""
        return self.weights.new_zeros(self.scores.shape).index_put((self.items, self.bins), self.weights)
