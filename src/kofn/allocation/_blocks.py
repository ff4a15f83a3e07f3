"""Items in blocks whose arrays stay in a core's cache."""

from __future__ import annotations

_BLOCK = 2**15


def blocks_of(n: int) -> list[slice]:
    """All items in blocks.

    Examples:
        >>> blocks_of(40_000)
        [slice(0, 32768, None), slice(32768, 40000, None)]
    """
    return [slice(start, min(start + _BLOCK, n)) for start in range(0, n, _BLOCK)]
