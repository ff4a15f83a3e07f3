"""Build the sum of a pool of adapters from stacked factors, optionally truncated, with each member's distance."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable

import numpy as np

from kofn.combination.adapters._names import flat_kernels
from kofn.combination.adapters._pool import AdapterPool
from kofn.combination.adapters._stacks import AdapterSum, ModuleStack, beside, is_half
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.io.adapter_families import Parts
from kofn.io.adapters import Adapter
from kofn.io.low_rank import Pair


def blend_adapters(
    pool: AdapterPool,
    *,
    form: str,
    cut: Callable[[Floats], int] | None = None,
    statistic: AdapterSum | None = None,
) -> Blend:
    """The plan of the summed adapter.

    Args:
        pool: the adapters, opened.
        form: the form of the blend of the updates.
        cut: returns the rank to keep from a module's squared singular values; None keeps the stacked factors.
        statistic: the plan's.
    """
    first = pool.members[pool.live[0]]
    reasons = first.nonlinear() if pool.alone else []
    sums = _ModuleSums(np.zeros(len(pool.members)))
    # An adapter that is not a sum of pairs can only be returned unchanged. Others take one module at a time in memory.
    for parts in () if reasons else pool.modules():
        sums.add(ModuleStack(parts, pool.weights, widen=pool.widen, cuts=cut is not None), cut)
    widened = pool.widen and any(is_half(array.dtype) for array in first.values())
    unchanged = pool.alone and sums.uncut and first.family is pool.family and not widened
    if reasons and not unchanged:
        raise InputError(f"{pool.labels[pool.live[0]]}: {reasons[0]}; it can only be given back as it is")
    squares = sums.squares + _squared_distances(pool)
    if unchanged:
        squares[pool.live[0]] = 0.0
    result = first if unchanged else _adapter(pool, sums.pairs)
    if pool.out is not None:
        result.write(pool.out)
        result = Adapter.read(pool.out)
    warnings = [] if unchanged else flat_kernels([pool.members[i] for i in pool.live])
    value = math.fsum(sums.errors.values())
    return Blend(
        n=len(pool.distinct_of),
        value=value,
        sense="min",
        bound=value,
        status="optimal",
        result=result,
        form=form,
        weights=pool.used,
        spread=np.sqrt(squares)[pool.distinct_of],
        statistic=statistic,
        objective="truncation_error",
        info={
            "sum_of": "updates",
            **pool.info,
            **({"warnings": warnings} if warnings else {}),
            "family": result.family.name,
            "ranks": {module: pair.rank for module, pair in result.pairs.items()},
            "rounding": math.sqrt(sums.rounded / sums.total) if sums.total and not unchanged else 0.0,
            "truncation": {module: math.sqrt(error) for module, error in sums.errors.items()},
            "truncation_error": math.sqrt(value),
            "kept": 1 - value / sums.total if sums.total else 1.0,
            "config": result.config,
        },
    )


@dataclasses.dataclass
class _ModuleSums:
    """Sums of all modules so far, with squared norms of the truncation (by module), of the rounding and of the sum.

    `squares` (members,) has the squared distance of each member's update to the sum's; `uncut` is whether every module
    has its stacked rank.
    """

    squares: Floats
    pairs: list[Pair] = dataclasses.field(default_factory=list)
    errors: dict[str, float] = dataclasses.field(default_factory=dict)
    rounded: float = 0.0
    total: float = 0.0
    uncut: bool = True

    def add(self, stack: ModuleStack, cut: Callable[[Floats], int] | None) -> None:
        rank = stack.rank if cut is None else stack.kept(cut(stack.singular() ** 2))
        self.uncut &= rank == stack.rank
        self.squares += stack.distances(rank)
        if not stack.live:
            return
        pair, rounded = stack.stacked() if rank == stack.rank else stack.cut(rank)
        self.pairs.append(pair)
        self.errors[stack.module] = stack.error(rank)
        self.rounded += rounded
        self.total += stack.square()


def _squared_distances(pool: AdapterPool) -> Floats:
    """(members,) squared distance of each member's full tensors to the blended ones."""
    squares = np.zeros(len(pool.members))
    for name, blended in pool.full.items():
        for i, member in enumerate(pool.members):
            if name in member.full:
                squares[i] += float(np.square(member.full[name].astype(np.float64) - blended).sum())
    return squares


def _adapter(pool: AdapterPool, pairs: list[Pair]) -> Adapter:
    """The sum as its family saves it."""
    live = [pool.members[i] for i in pool.live]
    spellings = {module: names for member in reversed(live) for module, names in member.spellings.items()}
    return Adapter.of(pool.family, Parts({pair.module: pair for pair in pairs}, pool.full, spellings), live)


def sum_of(pool: AdapterPool) -> AdapterSum:
    """The mergeable sum, with the weights as given."""
    for label, member in zip(pool.labels, pool.members, strict=True):
        if reasons := member.nonlinear():
            raise InputError(f"statistic=True: {label}: {reasons[0]}; leave statistic out")
        for name in pool.full:
            if name not in member.full or member.full[name].dtype.kind in "iub":
                raise InputError(f"statistic=True: {name!r} is no sum of what every member holds; leave statistic out")
    weights = [
        math.fsum(weight for weight, j in zip(pool.given, pool.distinct_of, strict=True) if j == i)
        for i in range(len(pool.members))
    ]
    pairs = {}
    for parts in pool.modules():
        scaled = [pair.with_scale(pair.scale * weights[i]) for i, pair in parts]
        pairs[scaled[0].module] = beside(scaled)
    full: dict[str, Floats] = {
        name: np.sum(
            [
                weight * member.full[name].astype(np.float64)
                for weight, member in zip(weights, pool.members, strict=True)
            ],
            axis=0,
        )
        for name in pool.full
    }
    return AdapterSum(math.fsum(pool.given), pairs, full, pool.family)
