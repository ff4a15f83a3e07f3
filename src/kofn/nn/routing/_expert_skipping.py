"""Expert skipping."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from kofn.core.checks import InputError, choice, fraction
from kofn.core.torch_module import module, same_words
from kofn.nn.routing._examples import drawn_scores
from kofn.nn.routing._routes import Routes
from kofn.nn.routing._scores import first_of_rows, refuse, refuse_too_many, routes_where


def _draw(rng: np.random.Generator) -> dict[str, Any]:
    drawn = {
        "scores": drawn_scores(rng),
        "per_item": int(rng.integers(1, 5)),
        "affinity": ("softmax", "sigmoid")[rng.integers(2)],
        "gates": ("share", "raw", "ones")[rng.integers(3)],
        "threshold": (None, 0.3, 0.9)[rng.integers(3)],
    }
    if rng.random() < 0.5:
        drawn |= {"weights": rng.integers(0, 5, 9).astype(np.float64), "protect": 0.25}
    return drawn


@module(
    form_of="expert_skipping",
    paper=(136, "lu2024"),
    aliases=("dynamic expert skipping", "online dynamic pruning"),
    example=same_words(_draw),
)
def expert_skipping(
    scores: Tensor,
    *,
    weights: Tensor | None = None,
    per_item: int,
    threshold: float | None = None,
    protect: float = 0.02,
    affinity: str = "softmax",
    gates: str = "share",
) -> Routes:
    """Expert skipping: leave out bins that an item's first one outweighs, as in `kofn.assignment.expert_skipping`.

    Args:
        scores: (n, bins) router logits; -inf where an item does not list a bin.
        weights: (n,) importance of each item; by default no item is protected.
        per_item: the most bins that an item goes to, 2 or more for anything to be skipped.
        threshold: in 0..1; default the median of this batch's ratios. Give a measured one while a model runs.
        protect: share of the items, those of the largest `weights`, that nothing is skipped of.
        affinity: basis of the weights: "softmax" over the bins that the item lists, or "sigmoid".
        gates: "share" of the affinity among the bins that are left, the "raw" affinity, or "ones".

    Returns:
        `Routes`, with weights in the scores' dtype that sum to 1 for each item under "share".

    Raises:
        InputError: as there.

    Costs O(n bins) and a top-k of each row.

    Examples:
        >>> import torch
        >>> from kofn.nn import expert_skipping
        >>> scores = torch.tensor([[4.0, 0.0, 1.0], [2.0, 1.9, 0.0]])
        >>> expert_skipping(scores, per_item=2, threshold=0.5).bins.tolist()
        [0, 0, 1]
    """
    choice(affinity, "affinity", ("softmax", "sigmoid"))
    refuse(scores, affinity, gates)
    refuse_too_many(per_item, scores)
    share = fraction(protect, "protect")
    first, chosen = first_of_rows(scores.detach(), 1), first_of_rows(scores.detach(), per_item)
    ratio = _ratios(scores, affinity)
    later = chosen & ~first
    limit = _median(ratio[later]) if threshold is None else fraction(threshold, "threshold")
    kept = chosen & (first | (ratio >= limit) | _protected(scores, weights, share)[:, None])
    return routes_where(scores, kept, affinity, gates)


def _protected(scores: Tensor, weights: Tensor | None, share: float) -> Tensor:
    """(n,) the share of items of the largest weights, with all that tie with the last of them."""
    n = len(scores)
    count = math.ceil(share * n)
    if weights is None or not count:
        return torch.zeros(n, dtype=torch.bool, device=scores.device)
    if weights.shape != (n,) or not bool(torch.isfinite(weights).all()):
        raise InputError(f"weights has shape {tuple(weights.shape)}; give a finite importance for each of {n} items")
    return weights >= weights.sort().values[n - count]


def _ratios(scores: Tensor, affinity: str) -> Tensor:
    """(n, bins) each bin's affinity over the largest of the item; of a softmax without its normaliser, as in NumPy."""
    logs = scores.detach().double()
    if affinity == "sigmoid":
        logs = functional.logsigmoid(logs)
    return (logs - logs.max(dim=1, keepdim=True).values).exp()


def _median(ratios: Tensor) -> float:
    """The mean of the two middle ones; 0 of none."""
    ordered = ratios.sort().values
    count = len(ordered)
    return float((ordered[(count - 1) // 2] + ordered[count // 2]) / 2) if count else 0.0
