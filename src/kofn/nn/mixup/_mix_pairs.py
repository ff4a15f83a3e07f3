"""Mixup of batches of tensors: pairs are drawn as in NumPy, and inputs are mixed on their device."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from kofn.combination.mixup._boxes import inside
from kofn.combination.mixup._mix_pairs import INPUTS, Mixed, draw_mixing
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.torch_module import module


def _example(form: Any, numpy_form: Any, rng: np.random.Generator) -> tuple[Any, Any]:
    X = rng.normal(size=(12, 2, 5, 4)).astype(np.float32)
    y = rng.permutation(np.repeat(np.arange(3), 4))
    groups = rng.permutation(np.repeat(["a", "b"], 6))
    chances = rng.dirichlet(np.ones(9)).reshape(3, 3)
    words = {
        "pairs": ("random", "same_class", "cross_class", "same_group", "cross_group", chances)[rng.integers(6)],
        "ratio": (0.3, ("beta", 0.4), ("uniform", 0.6, 1.0))[rng.integers(3)],
        "inputs": INPUTS[rng.integers(4)],
        "labels": ("mixed", "first", "larger")[rng.integers(3)],
        "class_weights": (None, [1.0, 2.0, 0.5])[rng.integers(2)],
        "groups": groups,
        "draws": (None, 7)[rng.integers(2)],
        "seed": int(rng.integers(2**32)),
    }
    ours, theirs = form(torch.as_tensor(X), torch.as_tensor(y), **words), numpy_form(X, y, **words)
    return (ours.X, ours.labels, ours.weights), (theirs.X, theirs.labels, theirs.weights)


@module(form_of="mix_pairs", paper=308, aliases=("mixup", "CutMix", "manifold mixup", "batch mixup"), example=_example)
def mix_pairs(
    X: Tensor,
    y: Tensor,
    *,
    pairs: Any = "random",
    ratio: Any = ("beta", 1.0),
    inputs: str = "blend",
    labels: str = "mixed",
    class_weights: Any = None,
    groups: Any = None,
    classes: Any = None,
    draws: int | None = None,
    seed: int | None = None,
) -> Mixed:
    """Mix a batch in pairs, as `kofn.combination.mix_pairs` does, with gradients through the mixed rows.

    Args:
        X: (n, ...) rows: inputs, or the hidden features of a layer (manifold mixup); with inputs="cut" images, whose
            last two axes are height and width.
        y: (n,) classes, whole numbers.
        pairs: as there.
        ratio: as there.
        inputs: as there.
        labels: as there.
        class_weights: as there.
        groups: as there.
        classes: as there; give the number of classes, since a batch may lack one.
        draws: as there.
        seed: of all draws; the same pairs as there.

    Returns:
        A `Mixed` whose `X`, `labels` and `weights` are tensors on the device of X, in its dtype where that is a
        floating one; pairs, ratios and boxes are arrays. `mixup_loss(logits, mixed.labels, mixed.weights)` is its loss.

    Raises:
        InputError: as there.

    Examples:
        >>> import torch
        >>> from kofn import nn
        >>> mixed = nn.mix_pairs(torch.tensor([[0.0], [8.0]]), torch.tensor([0, 1]), pairs="cross_class", ratio=0.75)
        >>> mixed.X.tolist(), mixed.labels.tolist()
        ([[2.0], [6.0]], [[0.75, 0.25], [0.25, 0.75]])
    """
    checks.choice(inputs, "inputs", INPUTS)
    shape = None
    if inputs == "cut":
        if X.ndim < 3:
            raise InputError(f"inputs='cut': X has shape {tuple(X.shape)}; give images, (n, ..., height, width)")
        shape = (X.shape[-2], X.shape[-1])
    drawn = draw_mixing(
        y.detach().cpu().numpy(),
        len(X),
        shape,
        pairs=pairs,
        ratio=ratio,
        inputs=inputs,
        labels=labels,
        class_weights=class_weights,
        groups=groups,
        classes=classes,
        draws=draws,
        seed=seed,
    )
    dtype = X.dtype if X.is_floating_point() else torch.float32
    tensors = {name: torch.as_tensor(getattr(drawn, name)).to(X.device, dtype) for name in ("labels", "weights")}
    return Mixed(**(vars(drawn) | tensors | {"X": _mixed(X, drawn)}))


def _mixed(X: Tensor, drawn: Mixed) -> Tensor:
    first, second = (torch.as_tensor(rows, device=X.device) for rows in (drawn.first, drawn.second))
    if drawn.inputs == "first":
        return X[first]
    if drawn.inputs == "resample":
        return X[torch.where(torch.as_tensor(drawn.ratios == 1, device=X.device), first, second)]
    if drawn.boxes is not None:
        height, width = X.shape[-2:]
        mask = torch.as_tensor(inside(drawn.boxes, (height, width)), device=X.device)
        mask = mask.reshape(len(mask), *(1,) * (X.ndim - 3), height, width)
        return torch.where(mask, X[second], X[first])
    rows = X if X.is_floating_point() else X.double()
    share = torch.as_tensor(drawn.ratios).to(X.device, rows.dtype).reshape(-1, *(1,) * (X.ndim - 1))
    return torch.lerp(rows[second], rows[first], share)
