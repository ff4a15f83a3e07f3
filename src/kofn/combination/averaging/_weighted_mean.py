"""Weighted means of arrays, state dicts and checkpoints, block by block in bounded memory."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.device import weighted_sum
from kofn.combination._sweep.members import Pool
from kofn.combination._sweep.rule import room_for_sums
from kofn.combination._sweep.weights import relative_weights
from kofn.combination.rules import Block, Rule, Span, merge_rule
from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.helpers import helper

__all__ = ["merge_means", "weighted_mean"]


@merge_rule(
    traits=("mergeable",),
    draws=Draw(options={"statistic": (True, None)}),
    cost="O(m d) time, each member read once; memory a few blocks, whatever m models weigh on disk",
    exact="minimises sum_i w_i ||x_i - y||^2 among tensors of the members' dtype; copies give the copy bit for bit",
    paper=("mcmahan2017", 166),
)
class WeightedMean(Rule):
    """Weighted mean of arrays, state dicts or checkpoints on disk, tensor by tensor.

    Half-precision members (float16, bfloat16, 8-bit floats) are summed in float32, all others in float64, and rounded
    once to the members' dtype. Integer and boolean tensors are copied if the members agree and refused otherwise.
    Quantised weights (float8 or int8 beside `weight_scale`, `weight_scale_inv`, `scale_weight` or `SCB`) are blended as
    number times scale and quantised again as the first member's; `spread` and `value` are of the blend before that.

    Args:
        members: m arrays of one shape; or m mappings name -> array (NumPy or torch, bfloat16 included); or m paths of
            `*.safetensors` files or folders of them. All have the same names, shapes and dtypes.
        weights: (m,) relative weights, uniform by default; divided by their sum, which must be positive.
        normalize: False takes the weights as they are; unless they sum to one the blend is then "linear".
        statistic: keep the float64 sums that make the mean mergeable (8 bytes an element). None keeps them for arrays
            where they take no more than half of `max_memory`, and not for state dicts; they are not offered for
            checkpoints on disk.
        max_memory: bytes for the blocks of all threads together (by default up to 64 MiB a thread).
        n_threads: threads, all available cores by default (one for small members); the result does not depend on them.

    Returns:
        A Blend. `result` is an array for arrays and a dict of arrays for mappings, of torch tensors for tensors (what
        `load_state_dict` takes); for checkpoints it is a lazy mapping name -> array: over the written files with
        `out`, computed on access without. `weights` (m,) as used; `form` is "simplex", "affine" (a weight is negative)
        or "linear"; `spread` (m,) is the L2 distance of each member to the blend; `value` is sum_i w_i spread_i^2, the
        minimised objective (NaN for "linear"); `statistic` is {"sum": ..., "weight": ...} or None, see `merge_means`.

    Raises:
        InputError: names, shapes or dtypes that differ (all at once), a NaN or infinity (member, tensor and index),
            integers that differ, a sum beyond the dtype's range, weights that sum to zero or less, an `out` that is a
            member.
        FailureError: a damaged checkpoint, a full disk.

    Time O(m d); the memory held beyond the result is the blocks. `info` counts `tensors`, `elements`, `bytes_read`.

    >>> import numpy as np
    >>> blend = weighted_mean([np.array([0.0, 4.0]), np.array([2.0, 0.0])], weights=[3, 1])
    >>> blend.result, blend.form
    (array([0.5, 3. ]), 'simplex')
    >>> bool(np.isclose(blend.value, blend.weights @ blend.spread**2))
    True

    References:
        McMahan et al. 2017, Communication-efficient learning of deep networks from decentralized data (AISTATS).
        Wortsman et al. 2022, Model soups: averaging weights of multiple fine-tuned models (ICML).
    """

    normalize: bool = True
    statistic: bool | None = None

    takes_device = True
    blends_complex = True
    form = "linear"
    minimises_distance = True

    def __post_init__(self) -> None:
        self.normalize = checks.flag(self.normalize, "normalize")
        if self.statistic is not None:
            self.statistic = checks.flag(self.statistic, "statistic")
        self._sums: dict[str, NDArray[Any]] | None = None

    def bind(self, pool: Pool, weights: Any = None, device: Any = None) -> Self:
        if self.statistic and pool.on_disk:
            raise InputError("statistic=True: the sums of checkpoints on disk are not kept in memory; pass state dicts")
        super().bind(pool, weights, device)
        return self._with_weights(self.weights, relative_weights(weights, len(pool.members), self.normalize)[2])

    @classmethod
    def of_weights(cls, weights: NDArray[np.float64], form: str | None = None, device: Any = None) -> Self:
        """The bound rule of these weights, which sum to one unless `form` is "linear"; `device` is torch's own."""
        bound = cls(statistic=False)
        bound.device = device
        return bound._with_weights(weights, form or ("simplex" if (weights >= 0).all() else "affine"))

    def _with_weights(self, weights: NDArray[np.float64], form: str) -> Self:
        self.weights, self.form, self.minimises_distance = weights, form, form != "linear"
        self._listed = [float(weight) for weight in weights]
        # float32 sums err by at most m sum|w| 2^-24 of the largest member, which must stay below half a unit in the
        # last place of a float16 (2^-12) for copies to come back bit for bit.
        self.in_double = len(self._listed) * math.fsum(map(abs, self._listed)) > 512
        # Equal weights: halved often enough not to overflow, which is exact, the members are summed first and scaled
        # once, so that what cancels cancels to zero. Members of weight 0 change nothing.
        self._scale = 1.0
        nonzero = [weight for weight in self._listed if weight]
        if len(set(nonzero)) == 1:
            part = 2.0 ** -math.ceil(math.log2(len(nonzero)))
            self._scale, self._listed = nonzero[0] / part, [part if weight else 0.0 for weight in self._listed]
        return self

    def keep_sums(self, pool: Pool, max_memory: int | None) -> None:
        if not (self.statistic or (self.statistic is None and not pool.named)):
            return
        self.in_double = True
        blended = {name: tensor for name, tensor in pool.first.items() if name not in pool.skipped}
        needed = sum(tensor.size * (16 if tensor.dtype.kind == "c" else 8) for tensor in blended.values())
        if not room_for_sums(needed, max_memory):
            if self.statistic:
                raise InputError(
                    f"statistic=True needs about {needed:,} bytes for its sums, more than half of "
                    f"max_memory={max_memory}; raise max_memory, or leave statistic out"
                )
            return
        self._shapes = {name: tensor.shape for name, tensor in blended.items()}
        self._sums = {
            name: np.empty(tensor.size, np.complex128 if tensor.dtype.kind == "c" else np.float64)
            for name, tensor in blended.items()
        }

    def kept_sums(self) -> dict[str, Any] | None:
        """{"sum": sum_i w_i x_i with the weights as given, "weight": their sum}."""
        if self._sums is None:
            return None
        for array in self._sums.values():
            with np.errstate(over="ignore", invalid="ignore"):
                array *= self.total_weight if self.normalize else 1.0
        sums = {name: array.reshape(self._shapes[name]) for name, array in self._sums.items()}
        return {"sum": sums.get("", sums), "weight": self.total_weight}

    def plain_sum(self) -> tuple[list[float], float] | None:
        plain = self.device is None and self._sums is None and self.form != "affine" and any(self._listed)
        return (self._listed, self._scale) if plain else None

    def blend(self, block: Block, total: NDArray[Any], spare: NDArray[Any]) -> bool:
        rows, span = block.rows, block.span
        weighted_sum(rows, self._listed, total, spare, self.device)
        if self._scale != 1:
            np.multiply(total, self._scale, out=total)
        if self._sums is not None:
            self._sums[span.name][span.start : span.stop].view(np.float64)[:] = total
        # Rounding to a narrower dtype hides the error of the sum. Where nothing is narrowed, or negative weights
        # cancel, the box and the copies are kept by hand.
        if self.form != "linear" and (span.dtype in (np.float64, np.complex128) or self.form == "affine"):
            # Only members of non-zero weight bound the box.
            first, *others = [row for row, weight in zip(rows, self._listed, strict=True) if weight] or rows
            low, high = first.copy(), first.copy()
            for row in others:
                np.minimum(low, row, out=low)
                np.maximum(high, row, out=high)
            if self.form == "simplex":
                np.clip(total, low, high, out=total)
            return True
        return False

    def copied(self, span: Span, values: NDArray[Any]) -> None:
        if self._sums is not None:
            self._sums[span.name][span.start : span.stop] = values.astype(np.float64) * math.fsum(self.weights.tolist())


weighted_mean = WeightedMean.method


@helper
def merge_means(*statistics: Mapping[str, Any]) -> dict[str, Any]:
    """Merge the statistics of several means: `statistic["sum"] / statistic["weight"]` is the common weighted mean.

    Each is a `Blend.statistic` of `weighted_mean`: {"sum": sum_i w_i x_i, "weight": sum_i w_i}, weights as given.
    Any partition of the members, merged in any order, gives the statistic of all at once, up to float64 rounding.

    >>> import numpy as np
    >>> parts = [weighted_mean([np.array([1.0]), np.array([2.0])]), weighted_mean([np.array([6.0])])]
    >>> merged = merge_means(*(part.statistic for part in parts))
    >>> merged["sum"] / merged["weight"]
    array([3.])
    """
    checks.statistics(statistics, ("sum", "weight"), "weighted_mean")
    first = statistics[0]
    weight = math.fsum(float(item["weight"]) for item in statistics)
    if isinstance(first["sum"], Mapping):
        names = list(first["sum"])
        for i, item in enumerate(statistics):
            if set(item["sum"]) != set(names):
                odd = sorted(set(item["sum"]) ^ set(names))[0]
                raise InputError(f"statistic {i} and statistic 0 do not both hold {odd!r}; merge one architecture")
        return {"sum": {name: _add([item["sum"][name] for item in statistics]) for name in names}, "weight": weight}
    return {"sum": _add([item["sum"] for item in statistics]), "weight": weight}


def _add(arrays: list[NDArray[Any]]) -> NDArray[Any]:
    total = np.array(arrays[0])
    for i, array in enumerate(arrays[1:], 1):
        if np.shape(array) != total.shape:
            raise InputError(f"statistic {i} has shape {np.shape(array)}, statistic 0 {total.shape}; they must match")
        total += array
    return total
