"""How many numbers each row of an embedding table gets within bytes, by how often it is looked up."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.helpers import helper
from kofn.core.plans import Allocation

__all__ = ["mixed_dimensions"]


@helper
def mixed_dimensions(
    counts: ArrayLike,
    *,
    budget: float,
    dim: int,
    temperature: float = 0.3,
    blocks: int = 8,
    bytes_each: float = 4,
) -> Allocation:
    """Give frequent rows of an embedding table more numbers than rare ones, as many as fit the bytes.

    Rows are put into blocks by how often they are looked up, each block half as large again and more as rows get rarer.
    A block's width is the power of two below a multiple of its rows' frequency to the `temperature`, at most `dim`; the
    multiple is the largest that fits. A block narrower than `dim` has a matrix that widens what is looked up, which is
    counted.

    Args:
        counts: (n,) how often each row is looked up, 0 or more.
        budget: bytes of all tables and matrices.
        dim: width of what is looked up.
        temperature: 0 gives all blocks the same width, 1 widths in proportion to frequencies.
        blocks: how many, at most.
        bytes_each: of a number.

    Returns:
        An `Allocation`: `amounts` (n,) the width of each row, `values` the counts, `used` and `budget` in "bytes".
        `info` has "block" (n,), each row's block, and "widths" (blocks,).

    Raises:
        InfeasibleError: even widths of 1 take more bytes; says how many.
        InputError: negative counts, a temperature that is not from 0 to 1.

    Cost: O(n log n).

    Guarantee: the bytes are kept. The rule is a heuristic; how accurate a model with such a table is, is its affair.

    References:
        Zhang et al. 2023, "Experimental Analysis of Large-scale Learnable Vector Storage Compression", PVLDB 17, arXiv
        2311.15578; mixed dimensions: Ginart, Naumov, Mudigere, Yang & Zou 2021, arXiv 1909.11810.

    Examples:
        >>> from kofn.allocation import mixed_dimensions
        >>> plan = mixed_dimensions([90, 5, 3, 2], budget=125, dim=8, blocks=2)
        >>> plan.amounts.tolist(), plan.used
        ([2, 2, 1, 1], {'bytes': 120.0})
    """
    given = checks.costs(counts, "counts").astype(np.float64)
    n, width = len(given), checks.count(dim, "dim")
    power = checks.fraction(temperature, "temperature")
    each = float(checks.number(bytes_each, "bytes_each"))
    if each <= 0:
        raise InputError(f"bytes_each={each:g}: give a number above 0")
    room = float(checks.number(budget, "budget"))
    order = np.argsort(-given, kind="stable")
    block: Ints = np.empty(n, np.int64)
    block[order] = _blocks(n, min(checks.count(blocks, "blocks"), n))
    sizes = np.bincount(block)
    frequency = (np.bincount(block, given) + 1) / sizes / (given.sum() + n)

    def used(widths: Ints) -> float:
        return float((sizes * widths + np.where(widths < width, widths * width, 0)).sum() * each)

    least = used(np.ones(len(sizes), np.int64))
    if least > room:
        raise InfeasibleError(
            f"budget={room:g} bytes: widths of 1 take {least:g}; raise it by {least - room:g}, or give fewer blocks"
        )
    widths = _widest(frequency**power, width, room, used)
    return Allocation(
        n=n,
        amounts=widths[block],
        values=given,
        sense="max",
        additive=False,
        status="heuristic",
        method="mixed_dimensions",
        used={"bytes": used(widths)},
        budget={"bytes": room},
        bounds=np.tile([1, width], (n, 1)),
        info={"block": block, "widths": widths},
    )


def _blocks(n: int, blocks: int) -> Ints:
    """(n,) the block of each rank, the later ones larger."""
    ends = np.ceil(n * (2.0 ** np.arange(1, blocks + 1) - 1) / (2.0**blocks - 1)).astype(np.int64)
    # Few rows leave some blocks without any.
    return np.unique(np.searchsorted(ends, np.arange(n), side="right"), return_inverse=True)[1].astype(np.int64)


def _widest(weight: Floats, width: int, room: float, used: Any) -> Ints:
    """Powers of two below a multiple of the weights, at most the width, for the largest multiple that fits."""
    steps = 2.0 ** np.arange(0, int(np.ceil(np.log2(max(width, 2)))) + 1)
    # A width changes only where the multiple of a weight meets a power of two.
    multiples = np.unique((np.append(steps, width)[:, None] / weight).ravel())

    def at_most(multiple: float) -> Ints:
        reached = np.clip(multiple * weight * (1 + 1e-12), 1, width)
        return np.where(reached >= width, width, 2.0 ** np.floor(np.log2(reached))).astype(np.int64)

    fitting = [widths for widths in map(at_most, multiples) if used(widths) <= room]
    return fitting[-1] if fitting else np.ones(len(weight), np.int64)
