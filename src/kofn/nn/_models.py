"""Run models on batches of any form or with other weights, and restore their mode."""

from __future__ import annotations

import contextlib
import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from kofn.core.checks import InputError, nearest

Logits = Callable[[Any, Any], Tensor]


def ask(model: Any, inputs: Any) -> Tensor:
    """The model's output for a tensor, or for a mapping of keywords."""
    out = model(**inputs) if isinstance(inputs, Mapping) else model(inputs)
    logits: Tensor = out if isinstance(out, Tensor) else out.logits
    return logits


def run_with(model: torch.nn.Module, run: Callable[[Any, Any], Any], state: Mapping[str, Tensor], inputs: Any) -> Any:
    """The output of `run` for the model with the given weights."""
    return torch.func.functional_call(
        _Run(model, run), {f"model.{name}": value for name, value in state.items()}, inputs
    )


class _Run(torch.nn.Module):
    """A model and a function that runs it, as a single module."""

    def __init__(self, model: torch.nn.Module, run: Callable[[Any, Any], Any]) -> None:
        super().__init__()
        self.model, self.run = model, run

    def forward(self, inputs: Any) -> Any:
        return self.run(self.model, inputs)


def unpacked(batch: Any, device: torch.device) -> tuple[Any, Tensor | None]:
    """Inputs and labels of a batch, on the device."""
    labels = None
    if isinstance(batch, Mapping):
        labels = batch.get("labels")
        batch = {name: value for name, value in batch.items() if name != "labels"}
    elif isinstance(batch, tuple | list):
        if len(batch) > 2:
            raise InputError(f"a batch is a tuple of {len(batch)}; give inputs, or (inputs, labels)")
        batch, labels = (*batch, None)[:2]
    to = map_inputs(batch, lambda value: torch.as_tensor(value).to(device))
    return to, None if labels is None else torch.as_tensor(labels).to(device)


def map_inputs(inputs: Any, change: Callable[[Any], Any]) -> Any:
    """Apply a function to a tensor, or to each tensor of a mapping."""
    return {name: change(value) for name, value in inputs.items()} if isinstance(inputs, Mapping) else change(inputs)


def chosen_names(names: Iterable[str], patterns: Any) -> list[str]:
    """The names that match any pattern (all names without patterns); every pattern must match one."""
    names = list(names)
    if patterns is None:
        return names
    listed = [patterns] if isinstance(patterns, str) else list(patterns)
    for pattern in listed:
        if not fnmatch.filter(names, pattern):
            raise InputError(f"{pattern!r} matches nothing in the model{nearest(pattern, names)}")
    return [name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in listed)]


def linear_layers(model: torch.nn.Module, only: Any) -> dict[str, torch.nn.Linear]:
    """The linear layers below a model of which any name matches, each once, by its first name.

    Raises:
        InputError: the model has none, a pattern that matches none.
    """
    named = {
        name: layer
        for name, layer in model.named_modules(remove_duplicate=False)
        if name and isinstance(layer, torch.nn.Linear)
    }
    if not named:
        raise InputError("model has no torch.nn.Linear below it; give a module that holds linear layers")
    chosen = {named[name] for name in chosen_names(named, only)}
    first: dict[torch.nn.Linear, str] = {}
    for name, layer in named.items():
        first.setdefault(layer, name)
    return {name: layer for layer, name in first.items() if layer in chosen}


def replace_layers(model: torch.nn.Module, replacements: Mapping[torch.nn.Module, torch.nn.Module]) -> None:
    """Put other layers in the place of these under all names: a tied layer has several."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if child is not None and child in replacements:
                setattr(parent, name, replacements[child])


def freeze(model: torch.nn.Module) -> None:
    """No parameter learns, nor by a gradient that it has from before: optimisers would follow that one too."""
    model.requires_grad_(False)
    for parameter in model.parameters():
        parameter.grad = None


@contextlib.contextmanager
def quiet(*models: torch.nn.Module) -> Iterator[None]:
    """Switch to evaluation mode, and restore each module's mode afterwards."""
    before = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training
