"""Forward pass of a plain chain of linear layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.combination.alignment._architectures import Graph
from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError

ACTIVATIONS = ("relu", "gelu", "tanh", "linear")


def activated(values: Array, activation: str) -> Array:
    """Apply the nonlinearity."""
    if activation == "relu":
        return np.maximum(values, 0)
    if activation == "tanh":
        return np.asarray(np.tanh(values))
    if activation == "gelu":
        from scipy.special import ndtr

        return np.asarray(values * ndtr(values))
    return values


@dataclass(frozen=True)
class Linear:
    """One layer of a chain; `group` is the group of its outputs, None for the last."""

    weight: str
    bias: str | None
    group: str | None


def linear_chain(graph: Graph, method: str) -> list[Linear]:
    """The layers of a plain MLP."""
    odd = next((layer.weight for layer in graph.chain if layer.kind != "linear"), None)
    if not graph.chain or odd is not None:
        where = f"tensor {odd!r} is of another kind" if odd else f"this one is {graph.name!r}"
        raise InputError(
            f"{method} runs plain chains of linear layers, and {where}; for others give activations, "
            "and fold norms into the layers before them"
        )
    names = [group.name for group in graph.groups]
    return [
        Linear(layer.weight, layer.bias, names[i] if i < len(names) else None) for i, layer in enumerate(graph.chain)
    ]


def chain_features(
    tensors: Mapping[str, Array], chain: Sequence[Linear], inputs: Array, activation: str
) -> tuple[list[Array], list[Array]]:
    """Each layer's inputs, and its outputs before the nonlinearity, in float64."""
    inputs_of, outputs_of = [], []
    features = inputs
    for layer in chain:
        outputs = features @ np.asarray(tensors[layer.weight], np.float64).T
        if layer.bias is not None:
            outputs = outputs + np.asarray(tensors[layer.bias], np.float64)
        inputs_of.append(features)
        outputs_of.append(outputs)
        features = activated(outputs, activation)
    return inputs_of, outputs_of


def calibration(inputs: Any, width: int) -> Array:
    """(n, d) calibration inputs."""
    array = checks.matrix(inputs, "inputs")
    if array.shape[1] != width:
        raise InputError(f"inputs has {array.shape[1]} columns, the first layer takes {width}")
    return np.asarray(array, np.float64)
