"""Integer layers that learn as float ones do (quantisation-aware scaling)."""

from __future__ import annotations

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
