"""Spherical interpolation of two members, tensor by tensor: along the arc between them, not the chord."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.blockwise import Block, Rule
from kofn.combination._sweep.measures import inner
from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.merge import Files, merge, relative_weights
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method

_PARALLEL = 1e-6  # angles below this are interpolated along the chord: there the arc's formula divides by zero


@method(
    "combine",
    draws=Draw(members=2, signed_weights=False, states_no_value=True, silent=("blend",)),
    cost="O(d) time, each member read twice; memory a few blocks",
    exact="the great-circle arc between two tensors, its angle from float64 sums; copies give the copy",
    paper="shoemake1985",
)
def slerp(
    members: Sequence[Any],
    *,
    weights: Any = None,
    out: str | os.PathLike[str] | None = None,
    only: Any = None,
    skip: Any = None,
    measure: bool = False,
    skip_nonfinite: bool = False,
    max_memory: int | None = None,
    n_threads: int | None = None,
    progress: bool | None = None,
) -> Blend:
    """Spherical interpolation of two members, tensor by tensor: along the arc between them, not the chord.

    With the angle theta between the two tensors and t the second one's weight, the blend is
    (sin((1 - t) theta) x_0 + sin(t theta) x_1) / sin(theta). Tensors that are parallel (or opposite, or zero) are
    interpolated linearly.

    Args:
        members: two checkpoints (paths, mappings or arrays) of one architecture.
        weights: (2,) >= 0, relative, uniform by default.
        out, only, skip, measure, skip_nonfinite, max_memory, n_threads, progress: as `weighted_mean` has them.

    Returns:
        Blend of form "none", `weights` (1 - t, t).

    Raises:
        InputError: not two members, a weight below zero; as `weighted_mean`.

    Time O(d), each member read twice; memory a few blocks.

    >>> import numpy as np
    >>> slerp([np.array([1.0, 0.0]), np.array([0.0, 1.0])]).result.round(4)
    array([0.7071, 0.7071])

    References:
        Shoemake 1985, Animating rotation with quaternion curves (SIGGRAPH).
    """
    files = Files(out, only, skip, measure, skip_nonfinite, max_memory, n_threads, progress)
    pool = files.open(members)
    rule = slerp_rule(pool, weights)
    return merge(pool, rule, files, weights=rule.weights, form="none")


def slerp_rule(pool: Pool, weights: Any) -> Slerp:
    """The checked rule."""
    if len(pool.members) != 2:
        raise InputError(f"slerp goes from one member to another; {len(pool.members)} were given")
    used, _, _ = relative_weights(weights, 2)
    if (used < 0).any():
        raise InputError("slerp weights lie between the members; give weights >= 0")
    return Slerp(used)


@dataclass
class Slerp(Rule):
    """A point on the arc between two tensors."""

    weights: NDArray[np.float64]

    stages = 1

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        first, second = (row.astype(np.float64) for row in block.rows)
        sums = np.array([inner(first, first), inner(second, second), inner(first, second)])
        return sums if part is None else part + sums

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        one, two, both = (math.fsum(column) for column in np.array(list(parts)).T.tolist())
        scale = math.sqrt(one) * math.sqrt(two)
        theta = math.acos(min(1.0, max(-1.0, both / scale))) if scale > 0 else 0.0
        low, high = self.weights.tolist()
        if math.sin(theta) < _PARALLEL:
            return low, high, True
        return math.sin(low * theta) / math.sin(theta), math.sin(high * theta) / math.sin(theta), False

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        low, high, linear = block.state
        np.multiply(block.rows[0], low, out=total)
        np.multiply(block.rows[1], high, out=spare)
        np.add(total, spare, out=total)
        return bool(linear)
