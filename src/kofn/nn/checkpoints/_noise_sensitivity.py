"""How much a model's output changes by noise in each module's weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from kofn.core import checks
from kofn.core.arrays import Singles
from kofn.core.checks import InputError
from kofn.core.torch_module import module
from kofn.nn._models import ask, chosen_names, quiet, unpacked

DIVERGENCES = ("squared", "kl")


@module(form_of=None, paper="malinovskii2024", aliases=("quantization sensitivity", "linearity theorem"))
def noise_sensitivity(
    model: torch.nn.Module,
    batches: Iterable[Any],
    *,
    modules: Any = None,
    logits: Callable[[Any, Any], Any] | None = None,
    divergence: str = "squared",
    noise: float = 0.02,
    seed: int | None = None,
) -> dict[str, Singles]:
    """How much a model's output changes, for each module, by noise in its weights, over the relative size of the noise.

    What a model loses by rounding grows in proportion to the relative squared errors of its layers; these are the
    factors. `allocate_checkpoint(statistics=...)` takes them, with its criterion "relative".

    Args:
        model: a module; it runs in evaluation mode and is left as it was.
        batches: batches of inputs, as in `diagonal_fisher`; labels are ignored. A hundred rows are enough.
        modules: pattern, or several, of names of modules with a `weight`; by default all `torch.nn.Linear`.
        logits: `logits(model, inputs)` runs the model, as in `diagonal_fisher`.
        divergence: "squared" compares outputs by their squared distance over their squares; "kl" takes them for logits
            and compares the probabilities over the last axis.
        noise: the squared size of the noise over that of the weight.
        seed: for the noise.

    Returns:
        Module's name -> (1,) float32 array; `kofn.io.tensor_writer.write_arrays` stores it.

    Raises:
        InputError: no module of that name, one without a weight of two axes, or no rows.

    Time: a run of the model for each module and batch; memory a copy of one weight.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(64, 64, bias=False), torch.nn.Linear(64, 64, bias=False))
    >>> factors = noise_sensitivity(model, [torch.ones(8, 64)], seed=0)
    >>> sorted(factors), bool(0.5 < factors["0"] < 2)
    (['0', '1'], True)

    References:
        Malinovskii et al. 2024, Pushing the Limits of Large Language Model Quantization via the Linearity Theorem,
        arXiv 2411.17525.
    """
    checks.choice(divergence, "divergence", DIVERGENCES)
    size = checks.fraction(noise, "noise")
    if size == 0:
        raise InputError("noise=0: give a share above 0, such as 0.02")
    known = {name: part for name, part in model.named_modules() if name}
    kind = torch.nn.Module if modules is not None else torch.nn.Linear
    weights = {
        name: _weight(name, known[name]) for name in chosen_names(known, modules) if isinstance(known[name], kind)
    }
    if not weights:
        raise InputError("the model has no torch.nn.Linear; name the modules with modules=")
    run = ask if logits is None else logits
    device = next(model.parameters()).device
    start = checks.entropy(seed) % 2**62
    changed, whole = dict.fromkeys(weights, 0.0), 0.0
    with quiet(model), torch.no_grad():
        for batch in batches:
            inputs = unpacked(batch, device)[0]
            before = run(model, inputs).double()
            whole += float(before.square().sum()) if divergence == "squared" else before[..., 0].numel()
            for number, (name, weight) in enumerate(weights.items()):
                own = weight.detach().clone()
                try:
                    weight.add_(_noise(own, size, start + number))
                    changed[name] += _change(before, run(model, inputs).double(), divergence)
                finally:
                    weight.copy_(own)
    if not whole:
        raise InputError("the batches give no output other than 0; give batches of inputs")
    return {name: np.array([change / whole / size], np.float32) for name, change in changed.items()}


def _weight(name: str, part: torch.nn.Module) -> Tensor:
    weight = getattr(part, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim < 2:
        raise InputError(f"modules: {name!r} has no weight of two axes; name other modules")
    return weight


def _noise(weight: Tensor, size: float, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(weight.shape, generator=generator).to(weight.device).double()
    scale = size**0.5 * weight.double().norm() / drawn.norm()
    return (drawn * scale).to(weight.dtype)


def _change(before: Tensor, after: Tensor, divergence: str) -> float:
    if divergence == "squared":
        return float((after - before).square().sum())
    first, second = before.log_softmax(-1), after.log_softmax(-1)
    return float((first.exp() * (first - second)).sum())
