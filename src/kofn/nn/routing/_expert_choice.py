"""Expert choice routing."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor

from kofn.core.checks import InputError, number
from kofn.core.torch_module import module, same_words
from kofn.nn.routing._examples import drawn_scores, drawn_weights
from kofn.nn.routing._routes import Routes
from kofn.nn.routing._scores import (
    affinities,
    deferred_acceptance,
    first_of_columns,
    refuse,
    refuse_too_many,
    room_of,
    routes_where,
)


def _draw(rng: np.random.Generator) -> dict[str, Any]:
    limits: list[dict[str, Any]] = [
        {},
        {"capacity_factor": 1.5},
        {"capacity": rng.integers(0, 6, 4)},
        {"capacity": 2, "per_item": int(rng.integers(1, 5))},
    ]
    return {"scores": drawn_scores(rng), **limits[rng.integers(len(limits))], **drawn_weights(rng)}


@module(form_of="expert_choice", paper=276, example=same_words(_draw))
def expert_choice(
    scores: Tensor,
    *,
    capacity: int | Tensor | None = None,
    per_item: int | None = None,
    capacity_factor: float | None = None,
    affinity: str = "softmax",
    gates: str = "raw",
) -> Routes:
    """Expert choice: each bin takes its highest-affinity items, as in `kofn.assignment.expert_choice`; same arguments.

    Later tokens affect whether earlier ones are served: in next-token prediction this leaks the future.

    Costs O(n bins) and a top-k of each column, on affinities in float64 so that ranks agree; with `per_item` as many
    times that as the bins refuse.

    Examples:
        >>> import torch
        >>> from kofn.nn import expert_choice
        >>> scores = torch.tensor([[3.0, 3.1], [2.0, 0.0], [0.0, 0.5], [1.0, 0.0]])
        >>> expert_choice(scores, capacity=2).loads.tolist()
        [2, 2]
    """
    refuse(scores, affinity, gates)
    n, bins = scores.shape
    if capacity is not None and capacity_factor is not None:
        raise InputError(f"capacity and capacity_factor={capacity_factor!r} both say how much a bin takes; give one")
    if capacity is None:
        capacity = max(
            1, int(n * number(2.0 if capacity_factor is None else capacity_factor, "capacity_factor") / bins)
        )
    room, felt = room_of(capacity, scores), affinities(scores, affinity)
    if per_item is not None:
        refuse_too_many(per_item, scores)
        return routes_where(scores, deferred_acceptance(felt, room, per_item), affinity, gates)
    return routes_where(scores, first_of_columns(felt, room), affinity, gates)
