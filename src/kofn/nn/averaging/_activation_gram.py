"""Gram matrices of the inputs of a model's layers."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from kofn.core.arrays import Singles
from kofn.core.checks import InputError
from kofn.core.torch_module import module
from kofn.nn._models import ask, chosen_names, quiet, unpacked


@module(form_of=None, paper="folklore", aliases=("Gram matrix", "RegMean statistics"))
def activation_gram(
    model: torch.nn.Module,
    batches: Iterable[Any],
    *,
    modules: Any = None,
    logits: Callable[[Any, Any], Any] | None = None,
) -> dict[str, Singles]:
    """Gram matrices of the inputs of a model's layers: for each layer the uncentred mean of x x^T.

    Args:
        model: a module; it runs in evaluation mode and is left as it was.
        batches: batches of inputs, as in `diagonal_fisher`; labels are ignored.
        modules: pattern, or several, of names of modules whose first input is (..., width); by default all
            `torch.nn.Linear`.
        logits: `logits(model, inputs)` runs the model, as in `diagonal_fisher`.

    Returns:
        Module's name -> (width, width) float32 array: the mean over all rows and positions of the module's input,
        summed in float64. A module that is called several times for a batch counts each call.

    Raises:
        InputError: no module of that name, a module that never ran, a convolution, no rows.

    Time O(rows width^2) for each layer beside the model's own; memory width^2 a layer.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 3))
    >>> activation_gram(model, [torch.tensor([[1.0, 0.0], [1.0, 2.0]])])["0"]
    array([[1., 1.],
           [1., 2.]], dtype=float32)
    """
    known = {name: module for name, module in model.named_modules() if name}
    kind = torch.nn.Module if modules is not None else torch.nn.Linear
    chosen = {name: known[name] for name in chosen_names(known, modules) if isinstance(known[name], kind)}
    if not chosen:
        raise InputError("the model has no torch.nn.Linear; name the modules with modules=")
    sums: dict[str, Tensor] = {}
    seen = dict.fromkeys(chosen, 0)

    def watch(name: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: tuple[Any, ...]) -> None:
            if isinstance(module, torch.nn.modules.conv._ConvNd):
                raise InputError(f"modules: {name!r} is a convolution, whose inputs are patches; name other modules")
            x = inputs[0].detach().reshape(-1, inputs[0].shape[-1]).double()
            sums[name] = sums.get(name, 0) + x.T @ x
            seen[name] += len(x)

        return hook

    hooks = [module.register_forward_pre_hook(watch(name)) for name, module in chosen.items()]
    device = next(model.parameters()).device
    try:
        with quiet(model), torch.no_grad():
            for batch in batches:
                (ask if logits is None else logits)(model, unpacked(batch, device)[0])
    finally:
        for hook in hooks:
            hook.remove()
    silent = [name for name, count in seen.items() if not count]
    if silent:
        raise InputError(f"module {silent[0]!r} saw no row; give batches, and modules that the model runs")
    return {name: (sums[name] / seen[name]).float().cpu().numpy() for name in chosen}
