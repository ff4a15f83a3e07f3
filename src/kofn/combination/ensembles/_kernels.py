"""The loops of greedy ensemble selection: what each blend would lose with one more member in it."""

from __future__ import annotations

import math

import numba as nb
import numpy as np
from numpy.typing import NDArray

from kofn.combination.ensembles._losses import EPS, LOG, PINBALL, SQUARE
from kofn.core.compiled import OUTER


@nb.njit(
    "void(float64[:,::1], float64[::1], float64, int64[::1], int64, int64, int64[::1], int64[::1], float64[::1])",
    **OUTER,
)
def log_losses(
    P: NDArray[np.float64],
    total: NDArray[np.float64],
    count: float,
    candidates: NDArray[np.int64],
    low: int,
    high: int,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:  # pragma: no cover
    """Summed log loss over the rows of some ranges, were candidate `low`, ..., `high` - 1 added to a sum of `count`.

    P holds probabilities of at least EPS. The logarithm of 16 sums is that of their product, which neither underflows
    nor, below 10^18 members, overflows.
    """
    for position in range(low, high):
        j = candidates[position]
        logs = 0.0
        for part in range(len(starts)):
            i = starts[part]
            while i + 16 <= stops[part]:
                a = b = c = d = 1.0
                for step in range(i, i + 16, 4):
                    a *= total[step] + P[j, step]
                    b *= total[step + 1] + P[j, step + 1]
                    c *= total[step + 2] + P[j, step + 2]
                    d *= total[step + 3] + P[j, step + 3]
                logs += math.log((a * b) * (c * d))
                i += 16
            while i < stops[part]:
                logs += math.log(total[i] + P[j, i])
                i += 1
            logs -= (stops[part] - starts[part]) * math.log(count + 1.0)
        out[position] = -logs


@nb.njit(
    "void(int64, float64[:,:,::1], boolean[:,::1], float64[:,::1], float64[::1], float64[:,::1], float64[:,::1], "
    "float64[::1], float64[::1], int64[::1], int64, int64, int64[::1], int64[::1], float64[::1])",
    **OUTER,
)
def losses(
    kind: int,
    P: NDArray[np.float64],
    known: NDArray[np.bool_],
    total: NDArray[np.float64],
    count: NDArray[np.float64],
    fallback: NDArray[np.float64],
    target: NDArray[np.float64],
    levels: NDArray[np.float64],
    weights: NDArray[np.float64],
    candidates: NDArray[np.int64],
    low: int,
    high: int,
    starts: NDArray[np.int64],
    stops: NDArray[np.int64],
    out: NDArray[np.float64],
) -> None:  # pragma: no cover
    """The same for any loss, and where members lack predictions: P (m, n, c), `known` (m, n), sums (n, c) of `count`
    (n,) members; `fallback` (n, c) is the blend where none of the members has a prediction, `weights` (n,) say how much
    each row counts."""
    width = P.shape[2]
    blend = np.empty(width)
    for position in range(low, high):
        j = candidates[position]
        summed = 0.0
        for part in range(len(starts)):
            for i in range(starts[part], stops[part]):
                if known[j, i]:
                    for c in range(width):
                        blend[c] = (total[i, c] + P[j, i, c]) / (count[i] + 1.0)
                elif count[i] > 0:
                    for c in range(width):
                        blend[c] = total[i, c] / count[i]
                else:
                    for c in range(width):
                        blend[c] = fallback[i, c]
                row = 0.0
                if kind == LOG:
                    row = -math.log(max(blend[0], EPS))
                elif kind == SQUARE:
                    for c in range(width):
                        row += (blend[c] - target[i, c]) ** 2
                elif kind == PINBALL:
                    for c in range(width):
                        off = target[i, 0] - blend[c]
                        row += off * levels[c] if off >= 0 else off * (levels[c] - 1.0)
                else:
                    most = 0
                    if width == 1:
                        most = 1 if blend[0] > 0.5 else 0
                    for c in range(1, width):
                        if blend[c] > blend[most]:
                            most = c
                    row = 1.0 if most != target[i, 0] else 0.0
                summed += weights[i] * row
        out[position] = summed
