"""SLERP: spherical linear interpolation of two members, tensor by tensor."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.measures import inner
from kofn.combination.rules import Block, Rule, merge_rule

_PARALLEL = 1e-6  # angles below this are interpolated along the chord: there the arc's formula divides by zero


class Arc(NamedTuple):
    """The factors of two tensors, whether they are interpolated along the chord, and whether they are opposite."""

    low: float
    high: float
    chord: bool = False
    opposite: bool = False


@merge_rule(
    cost="O(d) time, each member read twice; memory a few blocks",
    exact="the great-circle arc between two tensors, its angle from float64 sums; copies give the copy",
    paper="shoemake1985",
)
class Slerp(Rule):
    """SLERP: spherical linear interpolation of two members, tensor by tensor.

    With the angle theta between the two tensors and t the second one's weight, the blend is
    (sin((1 - t) theta) x_0 + sin(t theta) x_1) / sin(theta). Tensors that are parallel (or opposite, or zero) are
    interpolated linearly; between opposite ones that passes through zero, and a warning counts them.

    Args:
        members: two checkpoints (paths, mappings or arrays) of one architecture.
        weights: (2,) >= 0, relative, uniform by default.

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

    n_members = 2
    negative_weights = "the blend lies between the members"
    stages = 1

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        first, second = (row.astype(np.float64) for row in block.rows)
        sums = np.array([inner(first, first), inner(second, second), inner(first, second)])
        return sums if part is None else part + sums

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        first, second, both = (math.fsum(column) for column in np.array(list(parts)).T.tolist())
        scale = math.sqrt(first) * math.sqrt(second)
        theta = math.acos(min(1.0, max(-1.0, both / scale))) if scale > 0 else 0.0
        low, high = self.weights.tolist()
        if math.sin(theta) < _PARALLEL:
            return Arc(low, high, chord=True, opposite=both < 0)
        return Arc(math.sin(low * theta) / math.sin(theta), math.sin(high * theta) / math.sin(theta))

    def is_opposite(self, state: Any) -> bool:
        return bool(state.opposite)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        low, high, chord, _ = block.state
        np.multiply(block.rows[0], low, out=total)
        np.multiply(block.rows[1], high, out=spare)
        np.add(total, spare, out=total)
        return bool(chord)


slerp = Slerp.method
