"""The mean of members whose units have been aligned with the reference's."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kofn.combination._sweep.files import SweepOptions
from kofn.combination._sweep.members import ArrayTensor, Pool
from kofn.combination._sweep.merge import check_out, merge
from kofn.combination._sweep.weights import relative_weights
from kofn.combination.alignment._units import to_front
from kofn.combination.averaging._weighted_mean import WeightedMean
from kofn.core.plans import Blend

State = Mapping[str, Any]


def as_tensors(arrays: Mapping[str, Any], like: Mapping[str, Any]) -> dict[str, ArrayTensor]:
    """Convert arrays to tensors of the members' dtypes."""
    return {name: ArrayTensor(np.asarray(array).astype(like[name].dtype, copy=False)) for name, array in arrays.items()}


def mean_of(
    pool: Pool,
    aligned: Sequence[Mapping[str, Any]],
    first: int,
    weights: Any,
    options: SweepOptions,
    *,
    transforms: dict[str, Any],
    value: float,
    bound: float | None,
    status: str,
    info: Mapping[str, Any],
    objective: str = "",
) -> Blend:
    """The mean of aligned members, written in the layout of the reference."""
    if options.out is not None:
        check_out(options.out, pool)
    order = to_front(first, len(aligned))
    used, _, form = relative_weights(weights, len(aligned))
    lined = Pool(
        [aligned[position] for position in order], [pool.labels[position] for position in order], True, pool.on_disk
    )
    blend = merge(lined, WeightedMean.of_weights(used[order], form), options, weights=used[order], form=form, info=info)
    assert blend.spread is not None
    return dataclasses.replace(
        blend,
        weights=used,
        spread=blend.spread[np.argsort(order)],
        transforms=transforms,
        value=value,
        bound=bound,
        status=status,
        objective=objective,
    )
