"""Which layers, and what share of their channels, learn within bytes (tiny on-device training)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.knapsack._multiple_choice_knapsack import multiple_choice_knapsack
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.plans import Allocation

__all__ = ["sparse_update"]


@helper
def sparse_update(
    gains: ArrayLike,
    *,
    budget: float,
    weight_bytes: ArrayLike,
    activation_bytes: ArrayLike,
    shares: ArrayLike = (0.0, 0.125, 0.25, 0.5, 1.0),
    bias_gains: ArrayLike | None = None,
    bias_bytes: ArrayLike | None = None,
) -> Allocation:
    """Choose which layers learn, with what share of their input channels, and the biases of how many, within bytes.

    Training a share of a layer's input channels holds the gradient of those weights and the activations of those
    channels. Biases hold their gradient and no activations. What each choice gains alone is measured beforehand; that
    gains add up is the paper's assumption (`additivity` tests it). Under it the choice is exact.

    Args:
        gains: (layers, shares) what training that share of the layer brings alone, for example accuracy; 0 for a share
            of 0.
        budget: bytes.
        weight_bytes: (layers,) bytes of the gradient of all of a layer's weights.
        activation_bytes: (layers,) bytes of its input activations that are kept for the backward pass.
        shares: (shares,) of the input channels, from 0 to 1, rising, 0 first.
        bias_gains: (layers,) what training the biases of the last 1, 2, ... layers brings; default biases are frozen.
        bias_bytes: (layers,) bytes of each layer's biases, in the order of the layers.

    Returns:
        An `Allocation`: `amounts` (layers,) the shares, `values` what they gain, `value` with the gain of the biases,
        `used` and `budget` in "bytes", `price` what another byte would bring. `info` has "biases", how many last
        layers' biases learn.

    Raises:
        InputError: shapes that do not fit, shares that do not rise from 0 to at most 1, a share of 0 that gains.

    Cost: that of `multiple_choice_knapsack` for one item a layer.

    Guarantee: the most that the gains sum up to within the bytes, which are rounded up for each layer.

    References:
        Lin, Zhu, Chen, Wang, Gan & Han 2022, "On-Device Training Under 256KB Memory", NeurIPS, arXiv 2206.15472. Theirs
        is an evolutionary search for the same sum.

    Examples:
        >>> from kofn.allocation import sparse_update
        >>> plan = sparse_update(
        ...     [[0, 1, 2], [0, 3, 4]], shares=[0, 0.5, 1], weight_bytes=[40, 80], activation_bytes=[20, 20], budget=100
        ... )
        >>> plan.amounts.tolist(), plan.used
        ([0.5, 0.5], {'bytes': 80})
    """
    table = checks.matrix(gains, "gains").astype(np.float64)
    layers, width = table.shape
    share = _rising(shares, width)
    if (table[:, 0] != 0).any():
        row = int((table[:, 0] != 0).argmax())
        raise InputError(f"gains at row {row} has {table[row, 0]:g} for a share of 0; give 0 there")
    whole = _bytes(weight_bytes, "weight_bytes", layers) + _bytes(activation_bytes, "activation_bytes", layers)
    bytes_of = np.ceil(whole[:, None] * share).astype(np.int64)
    if bias_gains is not None:
        each = _bytes([0] * layers if bias_bytes is None else bias_bytes, "bias_bytes", layers)
        more = checks.vector(bias_gains, "bias_gains").astype(np.float64)
        checks.same_length(layers, "gains", "bias_gains", len(more))
        table, bytes_of = _with_biases(table, bytes_of, np.r_[0.0, more], np.r_[0, np.cumsum(each[::-1])])
    elif bias_bytes is not None:
        raise InputError("bias_bytes without bias_gains: no biases learn; give both, or neither")
    plan = multiple_choice_knapsack(table, budget=budget, levels=bytes_of, sense="max")
    level = np.asarray(plan.info["level"])
    return Allocation(
        n=layers,
        amounts=share[level[:layers]],
        values=table[np.arange(layers), level[:layers]],
        value=plan.value,
        bound=plan.bound,
        sense="max",
        additive=False,
        status=plan.status,
        price=plan.price,
        method="sparse_update",
        bounds=np.tile([0.0, share[-1]], (layers, 1)),
        used={"bytes": int(bytes_of[np.arange(len(level)), level].sum())},
        budget={"bytes": float(budget)},
        info={"biases": int(level[layers]) if len(level) > layers else 0},
    )


def _rising(shares: ArrayLike, width: int) -> Floats:
    share = checks.vector(shares, "shares").astype(np.float64)
    if len(share) != width:
        raise InputError(f"gains has {width} columns for {len(share)} shares; give one for each")
    if share[0] != 0 or share[-1] > 1 or (np.diff(share) <= 0).any():
        raise InputError(f"shares are {share.tolist()}; give numbers that rise from 0 to at most 1")
    return share


def _bytes(given: Any, name: str, layers: int) -> Floats:
    each = checks.costs(given, name).astype(np.float64)
    checks.same_length(layers, "gains", name, len(each))
    return each


def _with_biases(table: Floats, bytes_of: Any, more: Floats, cost: Floats) -> tuple[Floats, Any]:
    """The biases of the last layers as one more item, the tables as wide as the wider of the two."""
    width = max(table.shape[1], len(more))
    wide = np.full((len(table) + 1, width), -np.inf)
    wide[:-1, : table.shape[1]], wide[-1, : len(more)] = table, more
    needed = np.zeros(wide.shape, np.int64)
    needed[:-1, : table.shape[1]], needed[-1, : len(more)] = bytes_of, np.ceil(cost).astype(np.int64)
    return wide, needed
