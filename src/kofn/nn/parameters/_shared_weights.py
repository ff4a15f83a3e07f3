"""Linear layers whose weights are read from one small store (ROAST, STABLE-RPS)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from kofn.allocation.parameters._shared_slots import SharedSlots, shared_slots
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.torch_module import module
from kofn.nn._models import linear_layers, replace_layers


class SharedLinear(nn.Module):
    """Linear layer whose weight is a part of a store; `SharedWeights` puts it in place of a `torch.nn.Linear`."""

    def __init__(self, linear: nn.Linear, store: nn.Parameter, slots: SharedSlots, begin: int, scale: float) -> None:
        super().__init__()
        self.in_features, self.out_features, self.scale = linear.in_features, linear.out_features, scale
        self.bias = linear.bias
        first, size = begin // slots.chunk, linear.weight.numel()
        last = -(-(begin + size) // slots.chunk)
        self._window = slice(begin - first * slots.chunk, begin - first * slots.chunk + size)
        # A tuple keeps the store out of this layer's parameters: it is the first layer's.
        self._store = (store,)
        self._chunk = slots.chunk
        self.register_buffer("order", torch.from_numpy(slots.order[first:last]), persistent=False)
        self.register_buffer("signs", torch.from_numpy(slots.signs[first:last]), persistent=False)

    @property
    def weight(self) -> Tensor:
        """(out, in) the weight as the store has it."""
        store: Tensor = self._store[0]
        order: Any = self.order
        signs: Any = self.signs
        rows = store.view(-1, self._chunk)[order] * (signs.to(store.dtype) * self.scale)[:, None]
        return rows.reshape(-1)[self._window].view(self.out_features, self.in_features)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer."""
        return nn.functional.linear(x, self.weight, self.bias)


@module(form_of=None, paper=114, aliases=("ROAST", "STABLE-RPS", "hashed weights", "parameter sharing", "HashedNet"))
class SharedWeights:
    """Parameter sharing: let all linear layers of a model read their weights from one store of a fixed size.

    The layers are replaced in place, a layer that has several names under all of them. Which stored weight each weight
    is, and with which sign, is `kofn.allocation.shared_slots`'s even map; each layer multiplies what it reads by a
    scale of its own, so that its weights are as large as they were. The store begins with the model's first weights:
    with as many stored as there are weights, the model answers as before.

    Args:
        model: a module with `torch.nn.Linear` layers; biases stay as they are.
        budget: how many weights are stored, for all layers together.
        only: pattern, or several, of the names of the layers.
        chunk: weights that are mapped together; as of `shared_slots`.
        deviation: standard deviation of the stored weights.
        rescale: multiplies the store's gradients, so that a step of gradient descent moves the layers' weights alike
            whatever `deviation` is. Without it, steps grow with the square of the scales.
        seed: whole number.

    `store` is the parameter, `slots` the map, `stored` and `weights` how many are stored and how many there are.

    Raises:
        InputError: no linear layer matches, a weight that another layer shares, a budget above the number of weights,
            values out of range.

    Cost: a pass over the layers' weights for each forward and backward pass; memory for the store, its gradient and one
    layer's weights at a time.

    References:
        Desai & Shrivastava 2024, "In defense of parameter sharing for model-compression", ICLR, arXiv 2310.11611; the
        scale of the gradients is ours: the number of weights over the sum of their squared scales.

    Examples:
        >>> import torch
        >>> from kofn.nn import SharedWeights
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
        >>> shared = SharedWeights(model, budget=32)
        >>> shared.stored, shared.weights, model(torch.ones(3, 8)).shape
        (32, 192, torch.Size([3, 4]))
    """

    def __init__(
        self,
        model: nn.Module,
        budget: int,
        *,
        only: Any = None,
        chunk: int | None = None,
        deviation: float = 0.05,
        rescale: bool = True,
        seed: int = 0,
    ) -> None:
        linears = linear_layers(model, only)
        _refuse_tied(model, linears)
        spread = float(checks.number(deviation, "deviation"))
        if spread <= 0:
            raise InputError(f"deviation={spread:g}: give a number above 0")
        layers = list(linears.values())
        sizes = [layer.weight.numel() for layer in layers]
        self.slots = shared_slots(sum(sizes), budget, chunk=chunk, seed=seed)
        scales = [(float(layer.weight.detach().std(correction=0)) or 1.0) / spread for layer in layers]
        flat = torch.cat([layer.weight.detach().reshape(-1) / s for layer, s in zip(layers, scales, strict=True)])
        self.store = nn.Parameter(flat[: self.slots.budget].clone())
        if checks.flag(rescale, "rescale"):
            self.store.register_hook(self._rescaling(sizes, scales))
        starts = np.cumsum([0, *sizes]).tolist()
        self.layers = {
            name: SharedLinear(layer, self.store, self.slots, begin, scale)
            for (name, layer), begin, scale in zip(linears.items(), starts, scales, strict=False)
        }
        replace_layers(model, {layer: self.layers[name] for name, layer in linears.items()})
        next(iter(self.layers.values())).register_parameter("store", self.store)

    @property
    def stored(self) -> int:
        """How many weights are stored."""
        return self.slots.budget

    @property
    def weights(self) -> int:
        """How many weights the layers have."""
        return self.slots.n

    def _rescaling(self, sizes: list[int], scales: list[float]) -> Any:
        """What multiplies a gradient: the weights of a stored one over the sum of their squared scales."""
        slots = torch.from_numpy(self.slots.slots)
        squares = torch.repeat_interleave(torch.tensor(scales).square(), torch.tensor(sizes))
        total = torch.zeros(self.slots.budget).index_add_(0, slots, squares)
        factor = torch.from_numpy(self.slots.loads).float() / total

        def rescaled(gradient: Tensor) -> Tensor:
            return gradient * factor.to(gradient)

        return rescaled


def _refuse_tied(model: nn.Module, linears: Mapping[str, nn.Linear]) -> None:
    """Refuse a weight that two modules share, as an embedding and a head do: the store would part them."""
    replaced = {id(layer.weight): name for name, layer in linears.items()}
    for path, part in model.named_modules():
        for own, parameter in part.named_parameters(recurse=False):
            name = replaced.get(id(parameter))
            if name is not None and part is not linears[name]:
                raise InputError(
                    f"the weight of {name!r} is also {own!r} of {path!r}, and would no longer be; leave the layer out "
                    "by only=, or untie the two"
                )
