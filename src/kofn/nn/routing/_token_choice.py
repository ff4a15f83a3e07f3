"""Token choice routing."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from kofn.core.torch_module import module, same_words
from kofn.nn.routing._examples import drawn_scores, drawn_weights
from kofn.nn.routing._routes import Routes
from kofn.nn.routing._scores import first_of_rows, refuse, refuse_too_many, routes_where


def _draw(rng: np.random.Generator) -> dict[str, Any]:
    return {"scores": drawn_scores(rng), "per_item": int(rng.integers(1, 5)), **drawn_weights(rng)}


@module(form_of="token_choice", paper=("shazeer2017", 273), example=same_words(_draw))
def token_choice(scores: Tensor, *, per_item: int = 1, affinity: str = "softmax", gates: str = "share") -> Routes:
    """Token choice: route each item to its highest-scoring bins, as in `kofn.assignment.token_choice`.

    Args:
        scores: (n, bins) router logits; -inf where an item does not list a bin.
        per_item: how many bins an item goes to.
        affinity: basis of the weights: "softmax" over the bins that the item lists, "sigmoid", or "none".
        gates: the weight of each route: its affinity's "share" among the item's bins (softmax over the kept: Mixtral),
            the "raw" affinity (Switch), or "ones".

    Returns:
        `Routes`, with weights in the scores' dtype that sum to 1 for each item under "share".

    Raises:
        InputError: as there.

    Costs O(n bins) and a top-k of each row.

    Examples:
        >>> import torch
        >>> from kofn.nn import token_choice
        >>> token_choice(torch.tensor([[2.0, 2.0, -1.0], [0.0, 5.0, 1.0]]), per_item=2).bins.tolist()
        [0, 1, 1, 2]
    """
    refuse(scores, affinity, gates)
    refuse_too_many(per_item, scores)
    return routes_where(scores, first_of_rows(scores.detach(), per_item), affinity, gates)
