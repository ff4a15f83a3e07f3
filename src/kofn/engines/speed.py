"""How fast this library compares rows, as far as choices and estimates need to know it before they do."""

from __future__ import annotations

from typing import Any

# Features of pairs that one thread looks at in a second, and features that a pair takes beside its own: measured on
# 50,000 x 32, 12,000 x 128 and 100,000 x 384 and rounded.
_FEATURES_A_SECOND, _FEATURES_A_PAIR = 2e10, 32
# A pair of sparse rows takes as long as one of so many features: measured on 132,000 rows of 34 entries, as texts have.
_SPARSE = 500


def features_of(X: Any) -> int:
    """How many features a pair of the rows of X is compared by, or takes as long as."""
    return _SPARSE if hasattr(X, "nnz") else int(X.shape[1])


def pairs_a_second(d: int) -> float:
    """About how many pairs of rows with d features one thread looks at in a second."""
    return _FEATURES_A_SECOND / (d + _FEATURES_A_PAIR)


# Pairs of a candidate and an item that the search for a swap of medoids looks at in a second: measured on 8,000 rows
# with 10 and 100 medoids, and on 20,000.
_STEPS_A_SECOND = 6e8


def steps_a_second() -> float:
    """About how many pairs of a candidate and an item one thread looks at in a second, their distances being known."""
    return _STEPS_A_SECOND


# The sample has as many rows as one thread compares with all rows in so many seconds, but no fewer than so many, and so
# many a pick: with fewer, picks are near the sample and not near the pool. The search takes about two such looks at
# dense rows where k is some hundreds or more, about five where it is small, and six at sparse rows.
_SECONDS, _LEAST, _A_PICK = 10.0, 2_000, 4


def rows_sampled(n: int, d: int, k: int) -> int:
    """How many of n rows the search serves unless told otherwise."""
    return min(n, max(int(_SECONDS * pairs_a_second(d) / n), _LEAST, _A_PICK * k))
