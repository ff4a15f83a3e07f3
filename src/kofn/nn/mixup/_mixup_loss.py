"""The loss of mixed batches."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import functional

from kofn.core.checks import InputError
from kofn.core.torch_module import module, same_words


def _draw(rng: np.random.Generator) -> dict[str, Any]:
    logits, labels = rng.normal(size=(6, 3)) * 3, rng.dirichlet(np.ones(3), 6)
    return {"logits": logits, "labels": labels, "weights": (None, rng.random(6) + 0.1)[rng.integers(2)]}


@module(form_of="mixup_loss", paper=308, aliases=("soft cross-entropy",), example=same_words(_draw))
def mixup_loss(logits: Tensor, labels: Tensor, weights: Tensor | None = None) -> Tensor:
    """Cross-entropy of logits against mixed labels, the weighted mean over rows.

    Args:
        logits: (m, classes) of a model for the mixed rows.
        labels: (m, classes) label masses, `Mixed.labels`.
        weights: (m,) weights of rows, `Mixed.weights`; equal by default.

    Returns:
        A scalar with its gradient.

    Raises:
        InputError: shapes that differ.

    Examples:
        >>> import torch
        >>> from kofn import nn
        >>> round(nn.mixup_loss(torch.zeros(1, 2), torch.tensor([[0.7, 0.3]])).item(), 4)
        0.6931
    """
    if logits.shape != labels.shape or (weights is not None and weights.shape != logits.shape[:1]):
        shapes = tuple(logits.shape), tuple(labels.shape), None if weights is None else tuple(weights.shape)
        raise InputError("logits are {}, labels {} and weights {}; give one row a pair to all".format(*shapes))
    losses = -(labels * functional.log_softmax(logits, dim=1)).sum(dim=1)
    return losses.mean() if weights is None else losses @ weights / weights.sum()
