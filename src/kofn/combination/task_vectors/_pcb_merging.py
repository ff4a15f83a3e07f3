"""PCB-Merging: weigh entries by their magnitude within a task and their agreement across tasks."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep import quantiles
from kofn.combination.rules import Block, Rule, merge_rule
from kofn.combination.task_vectors._options import VOTES, check_density, check_scope
from kofn.core import checks
from kofn.core.draws import Draw

_OUTLIERS = 1e-4  # share of a task vector's magnitudes that is clipped at either end


@merge_rule(
    draws=Draw(
        kinds={"members": "loose integers"},
        options={"density": (0.01, 0.2, 0.5, 0.9, 1.0)},
    ),
    cost="O(m d) time, each member read five times; memory a few blocks and 64k counters a member, nothing is sorted",
    exact="the order statistics are exact for float32 scores; one member gives its own largest entries",
    paper=227,
)
class PcbMerging(Rule):
    """PCB-Merging: weigh entries by their magnitude within a task and their agreement across tasks.

    With task vectors t_i, their magnitudes clipped to the 0.01% and 99.99% quantiles and scaled to [0, 1] as a_i, an
    entry's score is exp(m a_i^2) tanh(t_i sum_j t_j). Scores below the (1 - density) quantile become 0, the others
    are scaled to [0, 1] as s_i; the merged vector is sum_i s_i t_i / sum_i s_i (with t_i clipped).

    Args:
        weights: (m,) >= 0, relative; each task vector is multiplied by m times its share (the paper's lambda_i).
        density: share of entries, by score, that count (the paper's r).
        scale: factor of the merged task vector.
        scope: "model" ranks the entries of a whole task vector (as the paper does), "tensor" those of each tensor.

    Returns:
        Blend of form "none".

    Raises:
        InputError: no base, weights below zero, a density outside (0, 1], members that do not match, NaN.

    Time O(m d), each member read five times; memory a few blocks.

    >>> import numpy as np
    >>> base = np.zeros(4)
    >>> blend = pcb_merging([np.array([9.0, 1, 0, 0]), np.array([8.0, -2, 0, 0])], base=base, density=0.5)
    >>> blend.result.round(2).tolist()
    [8.5, 0.0, 0.0, 0.0]

    References:
        Du et al. 2024, Parameter competition balancing for model merging (NeurIPS), and the authors' code.
    """

    density: float = 0.1
    scale: float = 1.0
    scope: Literal["tensor", "model"] = "model"

    needs_base = True
    negative_weights = VOTES
    stages = 4  # two find the clips of the magnitudes, two the limits of the scores
    # Of both ends, while they are counted and once more while they are summed up.
    counter_bytes = 2 * 2 * quantiles.BYTES

    def __post_init__(self) -> None:
        self.density = check_density(self.density)
        self.scale = checks.number(self.scale, "scale")
        self.per_model = check_scope(self.scope)

    def scan(self, stage: int, part: Any, block: Block) -> Any:
        deltas = _deltas(block)
        if stage < 2:
            codes = [quantiles.magnitude_keys(delta) for delta in deltas]
        else:
            codes = [quantiles.keys(score) for score in self._scores(deltas, block.state["clips"])]
        if stage % 2 == 0:
            own = part or [None] * len(codes)
            return [quantiles.coarse(key, counts) for key, counts in zip(codes, own, strict=True)]
        places = block.state["places"]
        own = part or [[None] * len(ranks) for ranks in places]
        return [
            [quantiles.fine(key, upper, counts) for (upper, _), counts in zip(ranks, by_rank, strict=True)]
            for key, ranks, by_rank in zip(codes, places, own, strict=True)
        ]

    def settle(self, stage: int, state: Any, parts: Iterable[Any]) -> Any:
        counts = quantiles.add_up(parts)
        if stage % 2 == 0:
            size = int(counts[0].sum())
            low, high = int(size * _OUTLIERS), size - 1 - int(size * _OUTLIERS)
            if stage == 2:
                low, high = min(int(size * (1 - self.density)), size - 1), size - 1
            places = [[quantiles.locate(count, rank) for rank in (low, max(low, high))] for count in counts]
            return {**(state or {}), "places": places}
        quantile_values = [
            [
                float(quantiles.value_of((upper << 16) | quantiles.locate(row, rank)[0], magnitudes=stage == 1))
                for row, (upper, rank) in zip(count, ranks, strict=True)
            ]
            for count, ranks in zip(counts, state["places"], strict=True)
        ]
        return {**state, "clips" if stage == 1 else "limits": quantile_values}

    def _scores(self, deltas: list[NDArray[Any]], clips: list[list[float]]) -> Iterable[NDArray[Any]]:
        together = np.sum(deltas, axis=0)
        for delta, (low, high) in zip(deltas, clips, strict=True):
            size = _unit(np.clip(np.abs(delta), low, high), low, high)
            yield np.exp(len(deltas) * size * size) * np.tanh(delta * together)

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        deltas, clips = _deltas(block), block.state["clips"]
        total.fill(0)
        heard = np.zeros_like(total)
        for delta, score, clip, limits, weight in zip(
            deltas, self._scores(deltas, clips), clips, block.state["limits"], self.weights.tolist(), strict=True
        ):
            # The limits are float32 values; an entry tied with a limit must not fall below it.
            share = _unit(np.maximum(score.astype(np.float32), np.float32(limits[0])), *limits)
            np.multiply(np.sign(delta), np.clip(np.abs(delta), *clip), out=spare)
            np.multiply(spare, share * (weight * len(deltas)), out=spare)
            np.add(total, spare, out=total)
            np.add(heard, share, out=heard)
        np.divide(total, np.maximum(heard, 1e-12), out=total)
        np.multiply(total, self.scale, out=total)
        np.add(total, block.origin, out=total)
        return False


pcb_merging = PcbMerging.method


def _unit(values: NDArray[Any], low: float, high: float) -> NDArray[Any]:
    """Rescale values from [low, high] to [0, 1]; 1 if low equals high."""
    return np.ones_like(values) if high <= low else (values - low) / (high - low)


def _deltas(block: Block) -> list[NDArray[Any]]:
    return [row - block.origin for row in block.rows]
