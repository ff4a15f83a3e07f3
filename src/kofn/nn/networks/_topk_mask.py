"""Differentiable top-k masks and activations, the torch form of `kofn.selection.topk_mask`."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kofn.core.checks import InfeasibleError, InputError, count
from kofn.core.torch_module import module, same_words
from kofn.nn._tables import rows_top


def _draw(rng: np.random.Generator) -> dict[str, Any]:
    """A table with ties half the time, entries to avoid, and limits of one kind or two."""
    scores = rng.integers(-3, 4, (6, 5)).astype(np.float32) if rng.random() < 0.5 else rng.normal(size=(6, 5))
    scores[rng.random((6, 5)) < 0.1] = -np.inf
    limits: list[dict[str, Any]] = [
        {"k": 7},
        {"per_item": int(rng.integers(1, 4))},
        {"capacity": rng.integers(0, 4, 5)},
        {"k": 4, "per_item": 3},
    ]
    return {"scores": scores, **limits[rng.integers(len(limits))]}


def _example(form: Any, numpy_form: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    """What the layer keeps of positive scores is what the mask keeps."""
    scores, k = rng.integers(1, 9, (6, 5)).astype(np.float32), int(rng.integers(1, 4))
    return form(k=k, average=True)(torch.as_tensor(scores)) > 0, numpy_form(scores, k=6 * k)


@module(form_of="topk_mask", paper=121, aliases=("top-k activation", "sparse autoencoder"), example=same_words(_draw))
def topk_mask(
    scores: Tensor, *, k: int | None = None, per_item: int | None = None, capacity: int | Tensor | None = None
) -> Tensor:
    """Mask of the highest entries of a table: per row, per column, or overall.

    Args:
        scores: (rows, bins), higher is better, -inf where an entry must not be kept.
        k: entries in all; alone, the highest of the table (mutual choice).
        per_item: the most that a row keeps (token choice).
        capacity: the most that a column keeps, one number or (bins,) (feature choice).

    Returns:
        (rows, bins) booleans, the same entries as `kofn.selection.topk_mask` keeps: ties to the lowest row, then bin.

    Raises:
        InputError: as there. InfeasibleError: `k` above what may be kept.

    Costs O(rows * bins) time and memory, and a top-k of each row or column where these are limited.

    References:
        Ayonrinde, "Adaptive Sparse Allocation with Mutual Choice & Feature Choice Sparse Autoencoders", 2024.

    Examples:
        >>> import torch
        >>> from kofn.nn import topk_mask
        >>> topk_mask(torch.tensor([[5.0, 4.0, 3.0], [2.0, 1.0, 0.0]]), capacity=1).int().tolist()
        [[1, 1, 1], [0, 0, 0]]
    """
    _refuse(scores, k, per_item, capacity)
    table = scores.detach()
    kept = table > -torch.inf
    if per_item is not None:
        most = torch.full((len(table),), count(per_item, "per_item"), device=table.device)
        kept &= rows_top(table, most)
    elif capacity is not None:
        room = torch.as_tensor(capacity, device=table.device).broadcast_to(table.shape[1:])
        kept &= rows_top(table.T, room).T
    if k is None:
        return kept
    open_entries = int(kept.sum())
    if k > open_entries:
        raise InfeasibleError(
            f"k={k}, but only {open_entries} of {table.numel()} entries may be kept; ask for k <= {open_entries}"
        )
    flat = torch.where(kept, table, -torch.inf).reshape(-1)
    edge = flat.topk(k).values[-1]
    above, level = flat > edge, flat == edge
    chosen = above | (level & (level.cumsum(0) <= k - above.sum()))
    return chosen.reshape(table.shape)


def _refuse(scores: Tensor, k: int | None, per_item: int | None, capacity: Any) -> None:
    if scores.ndim != 2 or not scores.numel():
        raise InputError(f"scores has shape {tuple(scores.shape)}; give a table, shape (rows, bins)")
    if torch.isnan(scores).any() or (scores == torch.inf).any():
        raise InputError("scores hold NaN or +inf; give finite scores, or -inf for an entry to avoid")
    if k is None and per_item is None and capacity is None:
        raise InputError("give k (entries in all), per_item (a row) or capacity (a column)")
    if per_item is not None and capacity is not None:
        raise InputError("per_item and capacity limit rows and columns at once; for that use kofn.assign")
    if k is not None:
        count(k, "k")
    if isinstance(capacity, Tensor) and capacity.ndim and capacity.shape != scores.shape[1:]:
        raise InputError(
            f"capacity has {len(capacity)} values, scores has {scores.shape[1]} columns; give one a column"
        )
    if capacity is not None and torch.as_tensor(capacity).min() < 0:
        raise InputError("capacity is negative; it must be >= 0")


@module(form_of="topk_mask", paper=121, aliases=("TopK activation", "sparse autoencoder"), example=_example)
class TopKMask(torch.nn.Module):
    """Top-k activation of a sparse layer: keep the highest entries of a batch and zero the others.

    Args:
        k: entries kept of the whole batch (mutual choice), or on average of each row with `average=True`.
        per_item: entries kept of each row (token choice).
        capacity: entries kept of each column, one number or (features,) (feature choice).
        average: read `k` as entries a row, so that batches of any size may follow.

    Examples:
        >>> import torch
        >>> from kofn.nn import TopKMask
        >>> TopKMask(k=1, average=True)(torch.tensor([[5.0, 4.0], [3.0, 1.0]])).tolist()
        [[5.0, 4.0], [0.0, 0.0]]
    """

    def __init__(
        self,
        *,
        k: int | None = None,
        per_item: int | None = None,
        capacity: int | Tensor | None = None,
        average: bool = False,
    ) -> None:
        super().__init__()
        if average and k is None:
            raise InputError("average=True is about k; give k")
        self.k, self.per_item, self.average = k, per_item, average
        self.capacity: int | Tensor | None
        if isinstance(capacity, Tensor):
            self.register_buffer("capacity", capacity)
        else:
            self.capacity = capacity

    def forward(self, scores: Tensor) -> Tensor:
        """(rows, bins) scores with all other entries set to zero."""
        k = self.k * len(scores) if self.average and self.k is not None else self.k
        return torch.where(topk_mask(scores, k=k, per_item=self.per_item, capacity=self.capacity), scores, 0.0)
