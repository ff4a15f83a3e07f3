"""Seconds of methods that go on in rounds until nothing changes: how many rounds, and what one takes at full size."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Rounds grow with the rows of a pool without groups (as about the root of their number: measured on normal rows from
# 300 to 60,000) and hardly where there are groups; the samples' growth is trusted to this power of n.
_STEEPEST, _DOUBT = 0.7, 0.2
# Rounds that are timed on many rows, seconds that they should take, and the most entries that are made for it.
_TIMED, _SECONDS, _ENTRIES = 3, 0.3, 1 << 23
# Rows that stand for others are moved by this share of the columns' spread, so that no two are the same.
_MOVED = 0.05


class Rounds(NamedTuple):
    """How many rounds there will be: fewest, about, and most."""

    low: float
    about: float
    high: float


def rounds_ahead(rounds: Mapping[int, int], most: int, n: int) -> Rounds:
    """Rounds on n rows by those on samples of rising size, never above `most`.

    Args:
        rounds: rounds by the size of the sample.
        most: how many rounds there can be.
        n: rows of the whole.
    """
    sizes = list(rounds)
    last = sizes[-1]
    # The smallest samples may be run from several beginnings.
    counted = sizes[1:] if len(sizes) > 2 else sizes
    slope = 0.0
    if len(counted) > 1:
        slope = math.log(rounds[last] / rounds[counted[0]]) / math.log(last / counted[0])
    slope = min(max(slope, 0.0), _STEEPEST)
    most = max(most, rounds[last])
    low, about, high = (
        min(most, rounds[last] * (n / last) ** power) for power in (max(0.0, slope - _DOUBT), slope, slope + _DOUBT)
    )
    return Rounds(low, about, high)


def round_of_many(
    run: Callable[[Mapping[str, Any], int], Any], X: NDArray[Any], n: int, a_row: float
) -> tuple[int, float, float] | None:
    """(rows, seconds of a round on them, seconds before the first); None where more rows than seen take too long.

    Caches hold what a round of a small sample looks at, and not what one of the pool does; so rounds are timed on as
    many rows as time allows, drawn from those seen and moved a little.

    Args:
        run: makes the call on these rows with at most so many rounds.
        X: the rows seen.
        n: rows of the whole.
        a_row: seconds of a round for each row, as on a sample.
    """
    rng = np.random.default_rng(0)
    most = int(min(n, _SECONDS / ((2 * _TIMED + 2) * a_row), _ENTRIES // X.shape[1]))
    if most <= len(X):
        return None

    def seconds(size: int, rounds: int) -> tuple[float, float]:
        rows = X[rng.integers(0, len(X), size)].astype(np.float64, copy=False)
        rows = rows + rng.standard_normal(rows.shape) * (_MOVED * rows.std(axis=0))
        began, clock = time.process_time(), time.perf_counter()
        run({"X": rows.astype(X.dtype, copy=False)}, rounds)
        worked = time.process_time() - began
        return worked, min(worked, time.perf_counter() - clock)

    # What comes before the first round may take longer than the round.
    worked, _ = seconds(len(X), 1)
    size = int(min(most, _SECONDS / (2 * worked / len(X) + _TIMED * a_row)))
    if size <= len(X):
        return None
    took = [seconds(size, rounds)[1] for rounds in (1, 1 + _TIMED)]
    each = max(took[1] - took[0], 1e-6) / _TIMED
    return size, each, max(0.0, took[0] - each)
