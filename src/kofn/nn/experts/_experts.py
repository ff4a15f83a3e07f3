"""Experts in one stack of weights, and their merging into one before the input is seen."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from kofn.core.checks import InputError, choice, count

__all__ = ["Experts", "MergedExperts", "TokenAttention"]

_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "swiglu": functional.silu,
    "relu": functional.relu,
    "gelu": functional.gelu,
}


class Experts(torch.nn.Module):
    """Feed-forward networks (or linear maps) of one shape, their weights stacked along the first axis.

    Args:
        experts: how many.
        width: of the input.
        hidden: inside each expert; None makes each one linear map.
        outputs: width of the output, that of the input where not given.
        activation: "swiglu" (w2 (silu(w1 x) * w3 x), as in Mixtral), "relu" or "gelu" (w2 act(w1 x)).
        bias: with biases b1, b2, b3; Mixtral has none.

    `experts[j](x)` runs one expert, `experts(x)` with x (experts, m, width) each expert on its own m rows, and
    `experts.merge(gates, x)` the weighted sum of all of them, merged first.

    Weights are drawn uniformly within 1 / sqrt(inputs), as torch's linear layers are.

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


class TokenAttention(torch.nn.Module):
    """A narrow layer that weighs what each token is about: up(relu(down(x))), zero to begin with.

    Args:
        width: of the tokens.
        reduce: how much narrower it is inside; the authors' code has 16 and 64.

    References:
        He et al. 2023, "Merging Experts into One" (EMNLP, arXiv 2310.09832).
    """

    def __init__(self, width: int, *, reduce: int = 16) -> None:
        super().__init__()
        narrow = max(1, width // count(reduce, "reduce"))
        self.down, self.up = torch.nn.Linear(width, narrow), torch.nn.Linear(narrow, width)
        for part in (self.down.bias, self.up.weight, self.up.bias):
            torch.nn.init.zeros_(part)

    def forward(self, x: Tensor) -> Tensor:
        """(..., width) what is added to each token."""
        return self.up(functional.relu(self.down(x)))


class MergedExperts(torch.nn.Module):
    """Merging experts into one (MEO): the weights of the chosen experts are summed first, and one expert runs.

    Each sequence (or task) has gates of its own: weights and biases are summed by them, and all its tokens go through
    the one expert that results. That costs experts x parameters a sequence for the sum and one expert's pass a token,
    however many are chosen, where a mixture of experts (`MixtureOfExperts`) runs each of them.

    For **linear** experts (`Experts` without `hidden`: what the paper puts in place of each linear layer) the output
    **is** that of the mixture. Experts with an activation inside are merged through it: another function than their
    mixture, and one to be trained as it is.

    Args:
        router: a module from (batch, width) to `Routes` over the experts (`TopKRouter`).
        experts: the `Experts`.
        attention: added to each token first (`TokenAttention`): the paper's token level. Gates are still one set for
            each sequence; what differs from token to token is this block.

    The gates look at the whole sequence (its mean): **every token sees later ones through them.** For next-token
    prediction hand in `given`, such as the task or the mean of the prompt.

    Without torch the same merge of state dicts is `kofn.combine(members, weights=gates, method="weighted_mean",
    options={"normalize": False})`, on checkpoints on disk too.

    References:
        He, Fan, Ding, Shen, Zhou & Tao 2023, "Merging Experts into One: Improving Computational Efficiency of Mixture
        of Experts" (EMNLP, arXiv 2310.09832); gates as in their code: softmax over the k highest.

    Examples:
        >>> import torch, kofn
        >>> from kofn.nn import Experts, MergedExperts, TopKRouter
        >>> layer = MergedExperts(TopKRouter(16, 8, per_item=4), Experts(8, 16, 32))
        >>> x = torch.randn(2, 10, 16)
        >>> layer(x).shape
        torch.Size([2, 10, 16])
        >>> gates = layer.router(x.mean(dim=1)).dense()
        >>> blend = kofn.combine(layer.experts.members(), weights=gates[0].detach().numpy(), method="weighted_mean")
        >>> bool(torch.allclose(layer.experts.merged(gates)["w1"][0], torch.as_tensor(blend.result["w1"]), atol=1e-6))
        True
    """

    def __init__(self, router: torch.nn.Module, experts: Experts, *, attention: torch.nn.Module | None = None) -> None:
        super().__init__()
        self.router, self.experts, self.attention = router, experts, attention

    def forward(self, x: Tensor, given: Tensor | None = None, *, routes: Any = None) -> Tensor:
        """(batch, positions, width) through one expert each.

        Args:
            x: the tokens.
            given: (batch, width) what the gates are made from; the mean of the tokens where not given.
            routes: the `Routes` of the batch, where the router was already asked.
        """
        if x.ndim != 3:
            raise InputError(f"x has shape {tuple(x.shape)}; give (batch, positions, width)")
        if self.attention is not None:
            x = x + self.attention(x)
        if routes is None:
            routes = self.router(x.mean(dim=1) if given is None else given)
        return self.experts.merge(routes.dense(), x)
