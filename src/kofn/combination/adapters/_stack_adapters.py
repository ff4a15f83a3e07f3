"""Exact sums of LoRA adapters by stacking their factors.

An adapter's update of a weight is `scale * B @ A`. Updates add up, factors do not: `mean(B) @ mean(A)` differs from the
mean of `B @ A`. Stacked factors give the exact sum: `[B1 B2] @ [A1; A2] = B1 @ A1 + B2 @ A2`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from kofn.combination.adapters._blend import blend_adapters, sum_of
from kofn.combination.adapters._pool import AdapterWords, open_adapters
from kofn.core import checks
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method
from kofn.io.adapters import lora_pairs

__all__ = ["lora_pairs", "stack_adapters"]


@method(
    "combine",
    traits=("mergeable",),
    draws=Draw(kinds={"members": "adapters", "base": "adapters"}, options={"statistic": (True, None)}),
    cost="O((in + out) R^2) time a module for the distances, R the sum of the ranks; memory the factors",
    exact="the weighted sum of the members' updates, up to one rounding of a factor; one adapter at weight 1 is itself",
    paper=304,
    aliases=("kohya", "LyCORIS", "LoHa", "LoKr", "diffusers adapter", "MLX adapter", "torchtune adapter"),
)
def stack_adapters(
    members: Sequence[Any],
    *,
    weights: Any = None,
    base: Any = None,
    statistic: bool | None = None,
    **words: Unpack[AdapterWords],
) -> Blend:
    """Sum LoRA adapters of any ranks exactly, by placing their scaled factors beside one another.

    The update of a module is sum_k w_k s_k B_k A_k, where s_k is the member's own scaling (`alpha / r`, or
    `alpha / sqrt(r)` under rsLoRA, patterns included); the rank is the sum of the ranks, and the configuration gives
    every module a scaling of 1. A module that a member does not adapt has an update of zero there. Members that are
    equal count once, with their weights added; members of weight 0 take no rank. Biases of `lora_bias` are summed as
    the updates are. Tensors trained in full (biases, heads) are averaged; unless the weights sum to one and every
    member has them, that needs the `base` they started from.

    Args:
        members: m LoRA adapters: folders as PEFT saves them, mappings name -> array of their tensors (scaling 1), or
            `kofn.io.adapters.Adapter`.
        weights: (m,) relative weights, uniform by default; divided by their sum, which must be positive.
        base: the weights that the adapters were trained on (a checkpoint or a mapping), read for full tensors only.
        statistic: True keeps the sum of the updates as factors, which can be added to other sums with `+`.

    Returns:
        A Blend: `result` is an `Adapter` (a mapping name -> array with `config` and `pairs`); `form` is that of the
        updates, "simplex", "affine" or "linear"; `spread` (m,) the L2 distance of each member's update to the result;
        `value` 0, the truncation error. `info` has `ranks` by module, `rounding` (the norm of what rounding to the
        dtype changed, relative to the update's), `absent` (modules that not every member adapts), `copies` (members
        equal to an earlier one), `families` (of each member: family, modules, rank, scale), `family` of the result,
        `config`.

    Raises:
        InputError: several members of which one is DoRA or another variant whose update is not linear in the factors,
            or was trained on a changed base; other shapes, dtypes or base models; full tensors that cannot be averaged;
            tensors of no known form (OFT, IA3); modules of two families that do not correspond.
        FailureError: a damaged file, a full disk.

    Time O((in + out) R^2) a module, R the sum of the ranks, and O(in out R) where that is less, nearly all of it for
    the distances; memory the factors, which are read whole, and those of one module of LoHa or LoKr. The sum is exact
    up to one rounding of each scaled factor, which `info["rounding"]` measures.

    >>> import numpy as np
    >>> one = {"fc.lora_A.weight": np.ones((1, 3)), "fc.lora_B.weight": np.ones((2, 1))}
    >>> two = {"fc.lora_A.weight": np.eye(2, 3), "fc.lora_B.weight": np.eye(2)}
    >>> blend = stack_adapters([one, two], weights=[1, 3])
    >>> blend.result.pairs["fc"].rank, blend.result.pairs["fc"].delta().tolist()
    (3, [[1.0, 0.25, 0.25], [0.25, 1.0, 0.25]])

    References:
        Wang et al. 2024, FLoRA: federated fine-tuning large language models with heterogeneous low-rank adaptations.
    """
    pool = open_adapters(members, weights, base, **words)
    kept = sum_of(pool) if checks.flag(bool(statistic) if statistic is None else statistic, "statistic") else None
    return blend_adapters(pool, form=pool.form, statistic=kept)
