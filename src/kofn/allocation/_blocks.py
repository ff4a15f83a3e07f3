"""Items in blocks whose arrays stay in a core's cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from kofn.engines.threads import cores, spread

T = TypeVar("T")

_BLOCK = 2**15


def blocks_of(n: int) -> list[slice]:
    """All items in blocks.

    Examples:
        >>> blocks_of(40_000)
        [slice(0, 32768, None), slice(32768, 40000, None)]
    """
    return [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]


def of_each(work: Callable[[int, slice], T], blocks: Sequence[slice]) -> list[T]:
    """`[work(number, block) ...]` over threads, in the order of the blocks, so that sums are the same for any number.

    Examples:
        >>> of_each(lambda number, block: (number, block.stop - block.start), blocks_of(40_000))
        [(0, 32768), (1, 7232)]
    """
    out: list[Any] = [None] * len(blocks)

    def some(low: int, high: int) -> None:
        for number in range(low, high):
            out[number] = work(number, blocks[number])

    spread(some, len(blocks), cores(), shares=4)
    return out
