"""Sum of LoRA adapters, truncated to the best low rank by QR and a small SVD on the factors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

import numpy as np

from kofn.combination.adapters._blend import blend_adapters
from kofn.combination.adapters._pool import AdapterWords, open_adapters
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.draws import Draw
from kofn.core.plans import Blend
from kofn.core.registry import method


@method(
    "combine",
    draws=Draw(kinds={"members": "adapters", "base": "adapters"}, silent=("blend",)),
    cost="O((in + out) R^2 + R^3) time a module, R the sum of the ranks; the dense product is never formed",
    exact="of all adapters of these ranks the nearest to the weighted sum of the updates (Eckart-Young), and how near",
    paper=304,
)
def reduce_adapters(
    members: Sequence[Any],
    *,
    weights: Any = None,
    base: Any = None,
    rank: int | None = None,
    energy: float | None = None,
    **words: Unpack[AdapterWords],
) -> Blend:
    """Sum LoRA adapters of any ranks and truncate the sum to its best low-rank approximation.

    The stacked factors B (out, R) and A (R, in) are brought to triangles by two QR decompositions; the SVD of their
    product (R, R) is that of B A. A module whose stacked rank is small enough is left as stacked, hence exact.

    Args:
        members: m LoRA adapters, as for `stack_adapters`.
        weights: (m,) relative weights, uniform by default; divided by their sum, which must be positive.
        base: the weights that the adapters were trained on, read for tensors trained in full only.
        rank: the largest rank of a module; by default the largest among the members.
        energy: instead of `rank`, the share in (0, 1] of each module's squared norm to keep by the least rank.

    Returns:
        A Blend as of `stack_adapters`; `value` is the squared L2 distance of the cut update to the exact sum, over all
        modules, and it is optimal. `info["truncation"]` has the distance by module, `info["truncation_error"]` that of
        all, `info["kept"]` the share of the squared norm kept. `form` is "none", because a truncated sum is no longer
        linear in the members.

    Raises:
        InputError: as for `stack_adapters`; both `rank` and `energy`; a DoRA adapter that would have to be cut.

    Time O((in + out) R^2 + R^3) a module, R the sum of the ranks; memory the factors. No adapter of the same ranks is
    nearer to the sum (Eckart-Young), up to rounding the factors to their dtype, which `info["rounding"]` measures.

    >>> import numpy as np
    >>> one = {"fc.lora_A.weight": np.array([[3.0, 0.0]]), "fc.lora_B.weight": np.array([[1.0], [0.0]])}
    >>> two = {"fc.lora_A.weight": np.array([[0.0, 1.0]]), "fc.lora_B.weight": np.array([[0.0], [1.0]])}
    >>> blend = reduce_adapters([one, two], rank=1)
    >>> blend.result.pairs["fc"].delta().round(12).tolist(), round(blend.info["truncation_error"], 12)
    ([[1.5, 0.0], [0.0, 0.0]], 0.5)

    References:
        Wang et al. 2024, FLoRA: federated fine-tuning large language models with heterogeneous low-rank adaptations.
        Eckart & Young 1936, The approximation of one matrix by another of lower rank.
    """
    least, share = ranks_asked(rank, energy)
    pool = open_adapters(members, weights, base, **words)
    largest = max(pair.rank for member in pool.members for pair in member.pairs.values())
    most = least or largest
    reasons = pool.members[0].nonlinear() if pool.alone else []
    if reasons and (most < largest or (share or 1) < 1):
        raise InputError(f"{pool.labels[0]}: {reasons[0]}; it can only be given back at its own rank")

    def cut(squares: Floats) -> int:
        """The rank to keep, from the squared singular values."""
        if share is None:
            return most
        kept = np.cumsum(squares)
        return int(np.searchsorted(kept, share * kept[-1] * (1 - 1e-12))) + 1

    return blend_adapters(pool, form="none", cut=cut)


def ranks_asked(rank: Any, energy: Any) -> tuple[int | None, float | None]:
    """The rank, or the share of the squared singular values, that is kept; both None to keep all."""
    if rank is not None and energy is not None:
        raise InputError(f"rank={rank!r} and energy={energy!r}: give one of them")
    least = None if rank is None else checks.count(rank, "rank")
    share = None if energy is None else checks.fraction(energy, "energy")
    if share == 0:
        raise InputError(f"energy={energy!r}: ask for a share above 0")
    return least, share
