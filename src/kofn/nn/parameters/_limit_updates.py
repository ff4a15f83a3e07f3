"""Layers of which a part learns (sparse update)."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.torch_module import module
from kofn.nn._models import freeze
from kofn.nn.parameters._quantized_linear import QuantizedLinear

# On a weight of which a part learns: its _Limit, and during a step of an optimiser a copy of the columns that must not
# change.
_LIMIT, _COPY = "_kofn_limit", "_kofn_frozen_columns"


@module(form_of=None, paper=383, aliases=("sparse update", "partial fine-tuning", "frozen channels"))
def limit_updates(model: nn.Module, shares: Mapping[str, float], *, biases: int = 0) -> int:
    """Let a share of the input channels of named layers learn, and the biases of the last ones; freeze all else.

    The first channels learn. `kofn.allocation.sparse_update` chooses the shares within bytes. Every optimiser of
    `torch.optim` or derived from its `Optimizer` leaves the other channels bit for bit as they are, with weight decay
    or momentum too, and whether it was made before or after this call. The state dict is the model's own. A copy of the
    model (`copy.deepcopy`, `torch.save`) keeps the limits from its first forward pass on. Another call replaces the
    limits.

    Args:
        model: a module with `torch.nn.Linear` or `QuantizedLinear` layers.
        shares: {name of a layer: share of its input channels, from 0 to 1}; those left out are frozen.
        biases: of how many last layers the biases learn.

    Returns:
        How many parameters learn.

    Raises:
        InputError: a layer that is not there, a share that is not from 0 to 1, two shares of one weight.

    Cost: each step of an optimiser copies the frozen channels of the layers that learn in part, twice.

    References:
        Lin, Zhu, Chen, Wang, Gan & Han 2022, "On-Device Training Under 256KB Memory", NeurIPS, arXiv 2206.15472,
        section 2.2.

    Examples:
        >>> import torch
        >>> from kofn.nn import limit_updates
        >>> model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
        >>> limit_updates(model, {"0": 0.25}, biases=1)
        10
    """
    named = {
        name: layer
        for name, layer in model.named_modules(remove_duplicate=False)
        if isinstance(layer, nn.Linear | QuantizedLinear)
    }
    limits = _channels_of(named, shares)
    layers = list(dict.fromkeys(named.values()))
    last = checks.count(biases, "biases", least=0)
    if last > len(layers):
        raise InputError(f"biases={last} of {len(layers)} layers; give at most as many")
    freeze(model)
    for layer in layers:
        _unlimited(layer)
    count = 0
    for layer, channels in limits.items():
        if not channels:
            continue
        weight = _weight_of(layer)
        weight.requires_grad_(True)
        count += channels * weight.shape[0]
        if channels < weight.shape[1]:
            _guarded_steps()
            limit = _Limit(channels)
            layer.register_forward_pre_hook(limit)
            limit(layer)
    for layer in layers[len(layers) - last :]:
        if layer.bias is not None:
            layer.bias.requires_grad_(True)
            count += layer.bias.numel()
    return count


def _channels_of(named: Mapping[str, Any], shares: Mapping[str, float]) -> dict[Any, int]:
    """How many channels of each named layer learn."""
    limits: dict[Any, int] = {}
    owners: dict[int, str] = {}
    for name, share in shares.items():
        if name not in named:
            raise InputError(f"shares names {name!r}, which is no linear layer{checks.nearest(name, named)}")
        weight = _weight_of(named[name])
        owner = owners.setdefault(id(weight), name)
        if owner != name:
            raise InputError(f"shares names {owner!r} and {name!r}, which have one weight; give a share to one of them")
        limits[named[name]] = round(checks.fraction(share, f"shares[{name!r}]") * weight.shape[1])
    return limits


def _weight_of(layer: Any) -> nn.Parameter:
    weight: nn.Parameter = layer.integers if isinstance(layer, QuantizedLinear) else layer.weight
    return weight


class _Limit:
    """Marks the weight of a layer as one whose first columns learn, before every pass: a copied or newly assigned
    weight has lost the mark."""

    def __init__(self, channels: int) -> None:
        self.channels = channels

    def __call__(self, layer: nn.Module, _: Any = None) -> None:
        _guarded_steps()
        weight = _weight_of(layer)
        setattr(weight, _LIMIT, self)
        hooks = getattr(weight, "_backward_hooks", None) or {}
        if weight.requires_grad and not any(self in getattr(hook, "args", ()) for hook in hooks.values()):
            weight.register_hook(functools.partial(_first_columns, self))


def _unlimited(layer: nn.Module) -> None:
    """Take back what an earlier call did to a layer."""
    for key, hook in list(layer._forward_pre_hooks.items()):
        if isinstance(hook, _Limit):
            hook.channels = -1  # its gradient hook lets all pass
            del layer._forward_pre_hooks[key]
    setattr(_weight_of(layer), _LIMIT, None)


def _first_columns(limit: _Limit, gradient: Tensor) -> Tensor:
    if limit.channels < 0:
        return gradient
    out = gradient.clone()
    out[:, limit.channels :] = 0
    return out


@functools.cache
def _guarded_steps() -> None:
    """Have all optimisers restore frozen columns: weight decay moves them whatever their gradient is."""
    register_optimizer_step_pre_hook(_copied)
    register_optimizer_step_post_hook(_restored)


def _copied(optimizer: Any, *_: Any) -> None:
    for weight in _weights_of(optimizer):
        limit = getattr(weight, _LIMIT, None)
        if limit is not None:
            setattr(weight, _COPY, weight.detach()[:, limit.channels :].clone())


@torch.no_grad()
def _restored(optimizer: Any, *_: Any) -> None:
    for weight in _weights_of(optimizer):
        kept = getattr(weight, _COPY, None)
        if kept is not None:
            weight[:, -kept.shape[1] :] = kept
            delattr(weight, _COPY)


def _weights_of(optimizer: Any) -> list[Any]:
    return [weight for group in optimizer.param_groups for weight in group["params"]]
