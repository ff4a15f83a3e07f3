"""Integer layers that learn as float ones do (quantisation-aware scaling), and layers of which a part learns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.torch_module import module


@module(form_of=None, paper=383, aliases=("QAS", "quantisation-aware scaling", "int8 training"))
class QuantizedLinear(nn.Module):
    """Linear layer with int8 weights that are trained in their own units, with gradients scaled so that they learn.

    The weight is kept divided by its scale, and rounded. In those units its gradient is smaller by the scale, and a
    step by the scale's square: gradient descent as float weights know it stands still. Quantisation-aware scaling
    divides the gradient by that square.

    Args:
        linear: the `torch.nn.Linear`, whose largest weight sets the scale.
        bits: of the weights.
        scaled: whether gradients are scaled.

    `integers` (out, in) is the parameter, `scale` what it is multiplied with; `weight` their product as the layer uses
    it. `round_()` after each step leaves whole numbers alone in memory, as a device without room for others would.

    References:
        Lin, Zhu, Chen, Wang, Gan & Han 2022, "On-Device Training Under 256KB Memory", NeurIPS, arXiv 2206.15472,
        section 2.1.

    Examples:
        >>> import torch
        >>> from kofn.nn import QuantizedLinear
        >>> layer = QuantizedLinear(torch.nn.Linear(4, 3))
        >>> int(layer.integers.abs().max()), layer(torch.ones(2, 4)).shape
        (127, torch.Size([2, 3]))
    """

    def __init__(self, linear: nn.Linear, *, bits: int = 8, scaled: bool = True) -> None:
        super().__init__()
        if not isinstance(linear, nn.Linear):
            raise InputError(f"linear is {type(linear).__name__}; give a torch.nn.Linear")
        if not 2 <= checks.count(bits, "bits") <= 16:
            raise InputError(f"bits={bits}: give 2 to 16")
        self.most = 2 ** (bits - 1) - 1
        self.scale = (float(linear.weight.detach().abs().max()) or 1.0) / self.most
        self.integers = nn.Parameter(linear.weight.detach().div(self.scale).round())
        self.bias = linear.bias
        if checks.flag(scaled, "scaled"):
            self.integers.register_hook(lambda gradient: gradient / self.scale**2)

    @property
    def weight(self) -> Tensor:
        """(out, in) the weights as the layer uses them; gradients pass the rounding as if it were not there."""
        whole = self.integers.detach().round().clamp(-self.most, self.most)
        return (self.integers + (whole - self.integers).detach()) * self.scale

    @torch.no_grad()
    def round_(self) -> None:
        """Round what is stored, within the range of the bits."""
        self.integers.round_().clamp_(-self.most, self.most)

    def forward(self, x: Tensor) -> Tensor:
        """The layer's answer."""
        return nn.functional.linear(x, self.weight, self.bias)


@module(form_of=None, paper=383, aliases=("sparse update", "partial fine-tuning", "frozen channels"))
def limit_updates(model: nn.Module, shares: Mapping[str, float], *, biases: int = 0) -> int:
    """Let a share of the input channels of named layers learn, and the biases of the last ones; freeze all else.

    The first channels learn. `kofn.allocation.sparse_update` chooses the shares within bytes.

    Args:
        model: a module with `torch.nn.Linear` or `QuantizedLinear` layers.
        shares: {name of a layer: share of its input channels, from 0 to 1}; those left out are frozen.
        biases: of how many last layers the biases learn.

    Returns:
        How many parameters learn.

    Raises:
        InputError: a layer that is not there, a share that is not from 0 to 1.

    Examples:
        >>> import torch
        >>> from kofn.nn import limit_updates
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
        >>> limit_updates(model, {"0": 0.25}, biases=1)
        10
    """
    layers: dict[str, Any] = {
        name: layer for name, layer in model.named_modules() if isinstance(layer, nn.Linear | QuantizedLinear)
    }
    for name in shares:
        if name not in layers:
            raise InputError(f"shares names {name!r}, which is no linear layer{checks.nearest(name, layers)}")
    last = checks.count(biases, "biases", least=0)
    if last > len(layers):
        raise InputError(f"biases={last} of {len(layers)} layers; give at most as many")
    model.requires_grad_(False)
    count = 0
    for name, share in shares.items():
        weight = layers[name].integers if isinstance(layers[name], QuantizedLinear) else layers[name].weight
        channels = round(checks.fraction(share, f"shares[{name!r}]") * weight.shape[1])
        if not channels:
            continue
        weight.requires_grad_(True)
        count += channels * weight.shape[0]
        if channels < weight.shape[1]:
            weight.register_hook(_first_columns(channels))
    for layer in list(layers.values())[len(layers) - last :]:
        if layer.bias is not None:
            layer.bias.requires_grad_(True)
            count += layer.bias.numel()
    return count


def _first_columns(channels: int) -> Any:
    def masked(gradient: Tensor) -> Tensor:
        out = gradient.clone()
        out[:, channels:] = 0
        return out

    return masked
