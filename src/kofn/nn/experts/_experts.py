"""Stacked experts of a mixture."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from kofn.core.checks import choice, count
from kofn.core.torch_module import module

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": functional.silu,
    "relu": functional.relu,
    "gelu": functional.gelu,
}


@module(form_of=None, paper=273, aliases=("expert networks",))
class Experts(torch.nn.Module):
    """Feed-forward networks (or linear maps) of one shape, their weights stacked along the first axis.

    Args:
        experts: number of experts.
        width: width of the input.
        hidden: hidden width of each expert; None makes each expert a linear map.
        outputs: width of the output; default the input's.
        activation: "swiglu" (w2 (silu(w1 x) * w3 x), as in Mixtral), "relu" or "gelu" (w2 act(w1 x)).
        bias: with biases b1, b2, b3; Mixtral has none.

    `experts[j](x)` runs one expert, `experts(x)` with x (experts, m, width) each expert on its own m rows, and
    `experts.merge(gates, x)` the weighted sum of all of them, merged first.

    Weights are initialised uniformly within 1 / sqrt(inputs), like torch's linear layers.

    Examples:
        >>> import torch
        >>> from kofn.nn import Experts
        >>> experts = Experts(8, 16, 32)
        >>> experts[3](torch.zeros(5, 16)).shape, experts(torch.zeros(8, 5, 16)).shape
        (torch.Size([5, 16]), torch.Size([8, 5, 16]))
    """

    def __init__(
        self,
        experts: int,
        width: int,
        hidden: int | None = None,
        *,
        outputs: int | None = None,
        activation: str = "swiglu",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.count = count(experts, "experts")
        self.activation = choice(activation, "activation", tuple(_ACTIVATIONS))
        outputs = count(width, "width") if outputs is None else count(outputs, "outputs")
        sizes = {"w1": (outputs, width)}
        if hidden is not None:
            sizes = {"w1": (count(hidden, "hidden"), width), "w2": (outputs, hidden)}
            if activation == "swiglu":
                sizes["w3"] = (hidden, width)
        for name, (rows, columns) in sizes.items():
            reach = 1 / math.sqrt(columns)
            weight = torch.empty(self.count, rows, columns).uniform_(-reach, reach)
            setattr(self, name, torch.nn.Parameter(weight))
            if bias:
                offset = torch.empty(self.count, rows).uniform_(-reach, reach)
                setattr(self, name.replace("w", "b"), torch.nn.Parameter(offset))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, expert: int) -> Callable[[Tensor], Tensor]:
        return functools.partial(self._run, self._member(expert))

    def members(self) -> list[dict[str, Tensor]]:
        """The weights of each expert by name: state dicts that `kofn.combine` takes."""
        return [self._member(j) for j in range(self.count)]

    def forward(self, x: Tensor) -> Tensor:
        """(experts, m, width) to (experts, m, outputs), each expert on its own rows."""
        return self._run(dict(self.named_parameters()), x)

    def merge(self, gates: Tensor, x: Tensor) -> Tensor:
        """One expert for each table of x (batch, m, width): gates (batch, experts) weigh weights and biases."""
        return self._run(self.merged(gates), x)

    def merged(self, gates: Tensor) -> dict[str, Tensor]:
        """The sum of all experts' weights, weighted by gates (..., experts), by name."""
        out = {}
        for name, weight in self.named_parameters():
            summed = gates.to(weight.dtype) @ weight.flatten(1)
            out[name] = summed.reshape(*gates.shape[:-1], *weight.shape[1:])
        return out

    def _member(self, expert: int) -> dict[str, Tensor]:
        return {name: weight[expert] for name, weight in self.named_parameters()}

    def _run(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        def linear(number: str, rows: Tensor) -> Tensor:
            weight, offset = weights["w" + number], weights.get("b" + number)
            if weight.ndim == 2:
                return functional.linear(rows, weight, offset)
            out = rows @ weight.mT
            return out if offset is None else out + offset.unsqueeze(-2)

        inside = linear("1", x)
        if "w2" not in weights:
            return inside
        inside = _ACTIVATIONS[self.activation](inside)
        return linear("2", inside * linear("3", x) if "w3" in weights else inside)
