"""The highest entries of each row of a table, as the NumPy form picks them."""

from __future__ import annotations

import torch
from torch import Tensor


def rows_top(table: Tensor, most: Tensor) -> Tensor:
    """True for the `most[i]` highest entries of row i, ties to the lowest bin."""
    widest = min(int(most.max()), table.shape[1])
    if widest == 0:
        return torch.zeros_like(table, dtype=torch.bool)
    # The lowest value that a row keeps; of several entries with this value, the first ones are kept.
    highest = table.topk(widest, dim=1).values
    edge = highest.gather(1, most.clamp(1, widest)[:, None] - 1)
    reached = table >= edge
    if torch.equal(reached.sum(dim=1), most):  # no ties at the edge, as with most real scores
        return reached
    above, level = table > edge, table == edge
    room = most[:, None] - above.sum(dim=1, keepdim=True)
    return (above | (level & (level.cumsum(dim=1) <= room))) & (most > 0)[:, None]
