"""Estimate the expected best score among k samples from n >= k samples: pass@k and eff@k."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper

__all__ = ["best_of_k"]


@helper
def best_of_k(scores: ArrayLike, k: int | Sequence[int]) -> Any:
    """Estimate the expected best score among k samples from n >= k samples: pass@k and eff@k.

    Averages the maximum over all subsets of size k at once: the r-th smallest score is the largest of C(r-1, k-1) of
    the C(n, k) subsets. The estimate is unbiased, and no unbiased estimate from the same unordered sample varies less.

    Args:
        scores: (n,) score of each sample (0/1 for pass@k, an efficiency for eff@k), or (tasks, n), one row a task.
        k: how many are drawn, or several counts, each between 1 and n.

    Returns:
        A float for one task and one k; else an array of shape (tasks,), (counts,) or (tasks, counts).

    Raises:
        InputError: scores that are not finite numbers; a k that is not a whole number between 1 and n.

    Costs O(n log n) time for a task and O(n) more for each k. The weights are products of ratios below 1, so
    nothing overflows; they sum to one for any n.

    References:
        Qiu, Zeng, Ezick, Lott, Tong, "How Efficient is LLM-Generated Code? A Rigorous & High-Standard Benchmark", ICLR
        2025 (eff@k, Rao-Blackwellised). Chen et al., "Evaluating Large Language Models Trained on Code", 2021 (pass@k).

    Examples:
        >>> from kofn.selection import best_of_k
        >>> best_of_k([0, 0, 1, 1], 2)
        0.8333333333333334
        >>> best_of_k([0.1, 0.4, 0.9], [1, 3]).round(6).tolist()
        [0.466667, 0.9]
    """
    try:
        flat = np.ndim(scores) != 2
    except ValueError:
        raise InputError("scores is ragged: its tasks have different numbers of samples; call once a task") from None
    table = checks.vector(scores, "scores")[None] if flat else checks.matrix(scores, "scores")
    many = np.ndim(k) > 0
    counts = [checks.count(count) for count in (np.asarray(k).tolist() if many else [k])]
    n = table.shape[1]
    if not counts:
        raise InputError("k is empty; give at least one count")
    if max(counts) > n:
        raise InputError(f"k={max(counts)} of {n} samples: the best of k needs n >= k; draw more or ask for less")
    ranked = np.sort(table.astype(np.float64), axis=1)[:, ::-1]
    out = np.stack([ranked @ best_of_weights(n, count) for count in counts], axis=-1)
    if not many:
        out = out[..., 0]
    out = out[0] if flat else out
    return float(out) if np.ndim(out) == 0 else out


def best_of_weights(n: int, k: int) -> Floats:
    """(n,) the share of the subsets of size k in which the item of each rank, best first, is the best.

    Args:
        n: samples.
        k: size of the subsets.

    Examples:
        >>> from kofn.selection.judges._best_of_k import best_of_weights
        >>> best_of_weights(4, 2).round(6).tolist()
        [0.5, 0.333333, 0.166667, 0.0]
    """
    above = np.arange(n - 1, 0, -1)  # how many rank below each of the first n - 1
    steps = np.maximum(1 - (k - 1) / above, 0.0)
    return (k / n) * np.concatenate([[1.0], np.cumprod(steps)])


def efficiency(
    times: ArrayLike, reference: ArrayLike, *, hardness: ArrayLike | None = None, factor: float = 2.0
) -> Floats:
    """Rate each sample's speed against a reference, from times that may be cut off at a limit.

    Args:
        times: (n, levels) the longest time of each sample at each level, any unit; inf or NaN where it was cut off or
            not run. A sample that is cut off at one level counts as cut off at all later ones.
        reference: (levels,) the reference's longest time at each level, positive.
        hardness: (levels,) weight of each level, default equal.
        factor: the limit is this many times the reference's longest time, above 1.

    Returns:
        (n,) weighted mean over the levels of max(0, limit - time) / (limit - reference): 0 at the limit or past it, 1
        for the reference, above 1 for faster samples. Set the score of wrong samples to 0 yourself.

    Raises:
        InputError: times below zero, shapes that do not fit, a factor of 1 or less.

    References:
        Qiu, Zeng, Ezick, Lott, Tong, "How Efficient is LLM-Generated Code?", ICLR 2025.

    Examples:
        >>> from kofn.selection.judges._best_of_k import efficiency
        >>> efficiency([[1.0, 2.0], [1.0, 3.0], [2.0, float("inf")]], [1.0, 2.0]).round(3).tolist()
        [1.0, 0.75, 0.333]
    """
    expert = checks.vector(reference, "reference").astype(np.float64)
    table = np.asarray(times, np.float64)
    if table.ndim != 2 or table.shape[1] != len(expert):
        raise InputError(f"times has shape {table.shape}; give (n, {len(expert)}), one column a level of reference")
    if (table < 0).any():
        row, level = np.argwhere(table < 0)[0]
        raise InputError(f"times at row {row}, column {level} is {table[row, level]:g}; times must be >= 0")
    if expert.min() <= 0:
        raise InputError(f"reference at row {int(expert.argmin())} is {expert.min():g}; times must be positive")
    if not checks.is_number(factor) or not 1 < factor < math.inf:
        raise InputError(f"factor={factor!r}: give a number above 1")
    levels = np.ones(len(expert)) if hardness is None else checks.weights(hardness, "hardness").astype(np.float64)
    if len(levels) != len(expert):
        raise InputError(f"hardness has {len(levels)} values, reference has {len(expert)} levels; give one a level")
    limit = factor * expert.max()
    within = np.logical_and.accumulate(table < limit, axis=1)
    share = np.where(within, limit - np.where(within, table, limit), 0.0) / (limit - expert)
    out: Floats = share @ levels / levels.sum()
    return out
