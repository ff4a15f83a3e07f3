"""Route items to their best bins within capacities."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kofn.core.checks import InfeasibleError, InputError, choice, count
from kofn.core.torch_module import module, same_words
from kofn.nn.routing._examples import drawn_scores, drawn_weights
from kofn.nn.routing._routes import Routes
from kofn.nn.routing._scores import (
    affinities,
    deferred_acceptance,
    first_of_columns,
    first_of_rows,
    refuse,
    refuse_too_many,
    room_of,
    routes_where,
)


def _draw(rng: np.random.Generator) -> dict[str, Any]:
    per_item = int(rng.integers(1, 4))
    return {
        "scores": drawn_scores(rng),
        "capacity": rng.integers(0, 6, 4),
        "per_item": per_item,
        "overflow": ("drop", "reroute")[rng.integers(2)],
        "candidates": (None, per_item + 1)[rng.integers(2)],
        **drawn_weights(rng),
    }


@module(
    form_of="capped_routing", paper="gale1962", aliases=("MoE router", "deferred acceptance"), example=same_words(_draw)
)
def capped_routing(
    scores: Tensor,
    *,
    capacity: int | Tensor,
    per_item: int = 1,
    overflow: str = "error",
    candidates: int | None = None,
    affinity: str = "none",
    gates: str = "ones",
) -> Routes:
    """Send each item to its best bins, at most `capacity` to a bin, as `kofn.assignment.capped_routing` does.

    Same arguments, same routes, ties to the lowest bin and in a bin to the lowest item. Under "reroute" all refused
    items ask at once, round after round; each round costs O(n bins) and a top-k of each column.

    Examples:
        >>> import torch
        >>> from kofn.nn import capped_routing
        >>> scores = torch.tensor([[9.0, 1.0], [8.0, 5.0], [7.0, 6.0]])
        >>> capped_routing(scores, capacity=2, overflow="reroute").bins.tolist()
        [0, 0, 1]
    """
    choice(overflow, "overflow", ("error", "drop", "reroute"))
    refuse(scores, affinity, gates)
    refuse_too_many(per_item, scores)
    if candidates is not None and count(candidates, "candidates") < per_item:
        raise InputError(f"candidates={candidates} for per_item={per_item}; let an item ask for at least per_item bins")
    room, table = room_of(capacity, scores), scores.detach()
    listed = table > -torch.inf
    able = listed if candidates is None else first_of_rows(table, min(candidates, scores.shape[1]))
    ranked = table if affinity == "none" else affinities(scores, affinity)
    felt = torch.where(able, ranked, -torch.inf)
    if overflow == "reroute":
        return routes_where(scores, deferred_acceptance(felt, room, per_item), affinity, gates)
    asked = first_of_rows(felt, per_item)
    if overflow == "error":
        short = int((listed.sum(dim=1) < per_item).sum())
        over = (asked.sum(dim=0) - room).clamp(min=0)
        if short or over.any():
            reason = (
                f"{short} items list fewer than per_item={per_item} bins"
                if short
                else (f"bin {int(over.argmax())} is chosen {int(over.max())} times more often than its capacity allows")
            )
            raise InfeasibleError(f"{reason}; use overflow='reroute' or 'drop'")
        return routes_where(scores, asked, affinity, gates)
    return routes_where(scores, first_of_columns(torch.where(asked, felt, -torch.inf), room), affinity, gates)
