"""The masks of `kofn.selection.networks._topk_mask` for training: same entries kept, gradients through what is kept."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from kofn.core.checks import InfeasibleError, InputError, count
from kofn.selection.networks._topk_mask import zipf_share

__all__ = ["TopKMask", "aux_zipf_loss", "topk_mask"]


def topk_mask(
    scores: Tensor, *, k: int | None = None, per_item: int | None = None, capacity: int | Tensor | None = None
) -> Tensor:
    """True where the highest entries of a table stand: so many of each row, of each column, or of the whole.

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
        kept &= _rows_top(table, most)
    elif capacity is not None:
        room = torch.as_tensor(capacity, device=table.device).broadcast_to(table.shape[1:])
        kept &= _rows_top(table.T, room).T
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


def _rows_top(table: Tensor, most: Tensor) -> Tensor:
    """True for the `most[i]` highest entries of row i, ties to the lowest bin."""
    widest = min(int(most.max()), table.shape[1])
    if widest == 0:
        return torch.zeros_like(table, dtype=torch.bool)
    # The lowest value that a row keeps; where several entries have it, as many of the first as there is room for.
    highest = table.topk(widest, dim=1).values
    edge = highest.gather(1, most.clamp(1, widest)[:, None] - 1)
    reached = table >= edge
    if torch.equal(reached.sum(dim=1), most):  # no ties at the edge, as with most real scores
        return reached
    above, level = table > edge, table == edge
    room = most[:, None] - above.sum(dim=1, keepdim=True)
    return (above | (level & (level.cumsum(dim=1) <= room))) & (most > 0)[:, None]


class TopKMask(torch.nn.Module):
    """Activations of a sparse layer: the highest entries of a batch kept, the others zero.

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
        """(rows, bins) scores with what is not kept set to zero."""
        k = self.k * len(scores) if self.average and self.k is not None else self.k
        return torch.where(topk_mask(scores, k=k, per_item=self.per_item, capacity=self.capacity), scores, 0.0)


def aux_zipf_loss(
    residual: Tensor,
    scores: Tensor,
    decoder: Tensor,
    fired: Tensor,
    *,
    k: int,
    exponent: float = 1.0,
    shift: float = 0.0,
) -> Tensor:
    """How badly the under-used features alone reconstruct what the layer missed; in the loss, it puts them to use.

    The least used features are under-used, as far up as each fires less than a Zipf law gives to its rank. They share
    `k` entries of the batch in proportion to their targets, each keeping its highest. Where only dead features fall
    short, this is the usual auxiliary loss on the top of the dead.

    Args:
        residual: (tokens, d) input minus reconstruction; taken as given, no gradient flows into it.
        scores: (tokens, features) pre-activations; negative ones count as zero.
        decoder: (features, d) direction of each feature.
        fired: (features,) how often each feature fired lately.
        k: entries of the batch that the under-used features get in all, at least one each.
        exponent: how steeply the Zipf law falls with the rank.
        shift: added to the rank (Mandelbrot's form).

    Returns:
        Scalar: squared error over the residual's squared size; 0 where nothing fired yet or no feature is under-used.

    Raises:
        InputError: shapes that do not fit, k below 1.

    References:
        Ayonrinde, "Adaptive Sparse Allocation with Mutual Choice & Feature Choice Sparse Autoencoders", 2024.
        Gao et al., "Scaling and evaluating sparse autoencoders", 2024 (the loss on dead features).

    Examples:
        >>> import torch
        >>> from kofn.nn import aux_zipf_loss
        >>> residual, decoder = torch.tensor([[0.0, 1.0]]), torch.eye(2)
        >>> aux_zipf_loss(residual, torch.tensor([[3.0, 0.5]]), decoder, torch.tensor([9, 0]), k=1).item()
        0.25
    """
    tokens, features = scores.shape
    for name, got, want in (
        ("residual", tuple(residual.shape), (tokens, decoder.shape[-1])),
        ("decoder", len(decoder), features),
        ("fired", tuple(fired.shape), (features,)),
    ):
        if got != want:
            raise InputError(f"{name} has {got}, scores of shape {(tokens, features)} ask for {want}")
    share = torch.as_tensor(zipf_share(fired.cpu().numpy(), exponent=exponent, shift=shift), device=scores.device)
    # From the least used up to the first that fires as often as its rank should: where use is flatter than the law, the
    # most used fall short of it too, but they are not what is to be revived.
    order = fired.argsort(stable=True)
    short = (fired < fired.sum() * share)[order]
    under = order[: int(short.long().cumprod(0).sum())]
    targets = (count(k) * share[under] / share[under].sum()).ceil().long()
    if not len(under):
        return scores.new_zeros(())
    kept = topk_mask(scores[:, under], capacity=targets)
    missed = residual.detach()
    found = torch.where(kept, scores[:, under].relu(), 0.0) @ decoder[under]
    return (missed - found).square().sum() / missed.square().sum().clamp_min(torch.finfo(scores.dtype).tiny)
