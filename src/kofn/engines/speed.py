"""How fast this library compares rows, as far as choices and estimates need to know it before they do."""

from __future__ import annotations

# Features of pairs that one thread looks at in a second, and features that a pair takes beside its own: measured on
# 50,000 x 32, 12,000 x 128 and 100,000 x 384 and rounded.
_FEATURES_A_SECOND, _FEATURES_A_PAIR = 2e10, 32


def pairs_a_second(d: int) -> float:
    """About how many pairs of rows with d features one thread looks at in a second."""
    return _FEATURES_A_SECOND / (d + _FEATURES_A_PAIR)
