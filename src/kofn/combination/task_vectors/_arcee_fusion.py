"""Arcee Fusion: the entries of one member whose change counts most, the base's elsewhere."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep import quantiles
from kofn.combination._sweep.members import Pool
from kofn.combination.rules import Block, Rule, merge_rule
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.draws import Draw

_FLOOR = 1e-8  # added to every probability, so that each has a logarithm
_QUARTILES = (1, 2, 3)
_STEP = 1.5  # interquartile ranges from the median to the threshold


@merge_rule(
    draws=Draw(scale_free=False),
    cost="O(d) time, member and base read three times; memory a few blocks and 256k counters, nothing is sorted",
    exact="importances in float64, their quartiles exact after rounding to float32",
    paper="goddard2024",
)
class ArceeFusion(Rule):
    """Arcee Fusion: take a member's entries whose change counts most, and keep the base's elsewhere.

    An entry's importance is |x - b| times its row's divergence, the sum of p log(p / q) over the last axis, where p is
    softmax(x) + 1e-8 and q is softmax(b) + 1e-8, as MergeKit has them: no divergence exceeds about 18.4. Of each tensor
    the entries count that are at least as important as the median and one and a half interquartile ranges more. A
    quartile is the entry at rank floor(q (n - 1)).

    Args:
        members: one checkpoint (a path, a mapping or an array), which was fine-tuned from the base.

    Returns:
        Blend of form "none".

    Raises:
        InputError: no base, other than one member, members that do not match, NaN.

    Time O(d), member and base read three times; memory a few blocks. Where rows change little, divergences are below
    the rounding of float32 sums, in which MergeKit has them, and its choice of entries is another one.

    >>> import numpy as np
    >>> base = np.zeros((2, 4))
    >>> arcee_fusion([base + [[0.1, 0.2, 0.1, 0.3], [0.2, 0.1, 0.4, 3.0]]], base=base).result
    array([[0. , 0. , 0. , 0. ],
           [0. , 0. , 0.4, 3. ]])

    References:
        Goddard et al. 2024, Arcee's MergeKit: a toolkit for merging large language models (EMNLP), and its code.
    """

    n_members = 1
    needs_base = True
    takes_weights = False
    whole_rows = True
    in_double = True
    stages = 2

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Rule:
        if len(pool.members) != 1:
            raise InputError(f"members has {len(pool.members)}; arcee_fusion takes one beside the base")
        return super().bind(pool, weights, device)

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        codes = quantiles.keys(self.importances(block))
        if stage == 0:
            return quantiles.coarse(codes, part)
        counts = part or [None] * len(_QUARTILES)
        return [quantiles.fine(codes, upper, own) for (upper, _), own in zip(block.state, counts, strict=True)]

    def importances(self, block: Block) -> NDArray[np.float32]:
        """The importance of every entry of a block."""
        return importances(block.rows[0], block.origin, block.span.row)

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        if stage == 0:
            (counts,) = quantiles.add_up([part] for part in parts)
            last = int(counts.sum()) - 1
            return [quantiles.locate(counts, quarter * last // 4) for quarter in _QUARTILES]
        low, median, high = (
            float(quantiles.value_of((upper << 16) | quantiles.locate(counts, rank)[0], magnitudes=False))
            for counts, (upper, rank) in zip(quantiles.add_up(parts), state, strict=True)
        )
        return self.threshold(low, median, high)

    def threshold(self, low: float, median: float, high: float) -> Any:
        """The state from which importances count, of their quartiles."""
        return median + _STEP * (high - low)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        counts = self.importances(block) >= block.state
        np.copyto(total, np.where(counts, block.rows[0], block.origin))
        return False


arcee_fusion = ArceeFusion.method


def importances(values: NDArray[Any], base: NDArray[Any], row: int) -> NDArray[np.float32]:
    """The importance of every entry of rows of this length, rounded to float32 as their quartiles are."""
    wide, origin = (each.astype(np.float64, copy=False).reshape(-1, max(1, row)) for each in (values, base))
    p, q = _softened(wide), _softened(origin)
    divergences = (p * np.log(p / q)).sum(axis=1, keepdims=True)
    importance = (np.abs(wide - origin) * divergences).reshape(-1)
    return np.minimum(importance, np.finfo(np.float32).max).astype(np.float32)


def _softened(rows: Floats) -> Floats:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    softened: Floats = powers / powers.sum(axis=1, keepdims=True) + _FLOOR
    return softened
