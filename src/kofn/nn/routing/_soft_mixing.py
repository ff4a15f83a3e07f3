"""Soft mixing of items into bins."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kofn.core.checks import InputError, number
from kofn.core.torch_module import module, same_words
from kofn.nn.routing._examples import drawn_scores
from kofn.nn.routing._scores import refuse_values


def _draw(rng: np.random.Generator) -> dict[str, Any]:
    return {"scores": drawn_scores(rng), "temperature": (0.0, 0.3, 1.0)[rng.integers(3)]}


@module(form_of="soft_mixing", paper=252, example=same_words(_draw))
def soft_mixing(scores: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Mixing weights of the items in each bin: softmax over the items, as in `kofn.assignment.soft_mixing`.

    Args:
        scores: (..., n, bins) controller logits; each table (n, bins) is a group of its own. -inf excludes an
            item from a bin.
        temperature: divisor of the scores; 0 gives each bin its highest item alone.

    Returns:
        (..., n, bins) weights; each column sums to 1, unless no item lists the bin: then to 0.

    Examples:
        >>> import torch
        >>> from kofn.nn import soft_mixing
        >>> soft_mixing(torch.tensor([[0.0, 3.0], [0.0, 1.0]]), temperature=0).tolist()
        [[1.0, 1.0], [0.0, 0.0]]
    """
    if scores.ndim < 2:
        raise InputError(f"scores has shape {tuple(scores.shape)}; give (..., n, bins)")
    refuse_values(scores)
    heat = number(temperature, "temperature")
    listed = scores > -torch.inf
    able = torch.where(listed.any(dim=-2, keepdim=True), scores, 0.0)
    if heat == 0:
        best = able.argmax(dim=-2, keepdim=True)
        return torch.zeros_like(able).scatter(-2, best, 1.0) * listed
    # Subtracting the maximum avoids overflow at low temperatures.
    below = able - able.detach().amax(dim=-2, keepdim=True)
    return torch.where(listed, torch.softmax(below / heat, dim=-2), 0.0)
