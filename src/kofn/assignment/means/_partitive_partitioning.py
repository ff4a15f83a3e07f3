"""Group rows into as many groups as k-means and a Gaussian mixture agree on, whatever they began from."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.means import _gaussian
from kofn.assignment.means._relaxation import grouped
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.plans import Assignment
from kofn.core.registry import method


@method(
    "assign",
    cost="O(n d k) a round of k-means and O(n d^2 k) a round of a mixture, for n_starts starts of each k",
    exact="nothing; `info` says which partitions were kept and by how much",
    paper=5,
)
def partitive_partitioning(
    X: Any,
    *,
    k_max: int = 10,
    n_starts: int = 10,
    agreement: float = 0.95,
    covariance: str = "full",
    seed: int | None = None,
) -> Assignment:
    """Group rows into as many groups as k-means and a Gaussian mixture agree on, whatever they began from.

    For every number of groups up to `k_max` k-means runs from several starts. A mixture fitted from each partition, on
    half of the rows, says how probable each row of the other half finds its own group; a partition is kept where the
    rows of every group do so by `agreement` on average. The finest kept partition is the answer.

    Args:
        X: vectors (n, d).
        k_max: the most groups that are tried.
        n_starts: starts of k-means (k-means++) for each number of groups; equal partitions are checked once.
        agreement: the least mean probability, less its standard error, of the rows' own component in every group.
        covariance: "full", or "diag" where there are few rows for many columns.
        seed: for the starts.

    Returns:
        An `Assignment`: `labels`, `k` = the groups found, `centers` (k, d), `value` = summed squared distances to the
        group's mean. `info`: separable (n,) the rows that all kept partitions of that k place alike and the mixture is
        sure of by `agreement`; tried and kept (k_max,) different partitions of 1, 2, ... groups; and
        agreements (k_max,) the best of each, NaN where groups were too small to tell.

    Raises:
        InputError: k_max or n_starts < 1, agreement outside [0, 1], or an unknown covariance.

    Cost: the checks cost most: a mixture of two halves for each different partition.

    Guarantee: none. A split of what is one Gaussian is refused since its halves run into each other: each row's own
    half is probable by 0.9 and less. Groups that overlap by more than that are returned as one group.

    References:
        Sultan 2020, arXiv 2003.04372.

    Examples:
        >>> import numpy as np
        >>> from kofn.assignment import partitive_partitioning
        >>> X = np.random.default_rng(0).normal(size=(120, 2)) + np.repeat([[0, 0], [9, 0], [0, 9]], 40, axis=0)
        >>> plan = partitive_partitioning(X, seed=0)
        >>> plan.k, np.bincount(plan.labels).tolist()
        (3, [40, 40, 40])
    """
    checks.count(k_max, "k_max")
    checks.count(n_starts, "n_starts")
    least = checks.fraction(agreement, "agreement")
    full = checks.choice(covariance, "covariance", ("full", "diag")) == "full"
    points = np.asarray(X, np.float64)
    points = points - points.mean(axis=0)
    n, ridge = len(points), 1e-6 * _gaussian.unit_of(points)
    whole = np.zeros(n, np.int64)
    kept: list[tuple[Ints, Floats]] = [(whole, np.ones(n))]
    counts: dict[str, list[Any]] = {"tried": [1], "kept": [1], "agreements": [1.0]}
    seeds = np.random.SeedSequence(seed).spawn(k_max)
    for k in range(2, min(k_max, n) + 1):
        rng = np.random.default_rng(seeds[k - 1])
        partitions = {}
        for _ in range(n_starts):
            labels = _gaussian.renamed(_gaussian.lloyd(points, _gaussian.spread_out(points, k, rng), k))
            partitions[labels.tobytes()] = labels
        sure = [(labels, _gaussian.agreement(points, labels, k, ridge, full)) for labels in partitions.values()]
        rated = [(labels, own, _weakest(labels, own)) for labels, own in sure if own is not None]
        passed = [(labels, own) for labels, own, low in rated if low >= least]
        counts["tried"].append(len(partitions))
        counts["kept"].append(len(passed))
        counts["agreements"].append(max((low for *_, low in rated), default=math.nan))
        kept = passed or kept
    kept.sort(key=lambda partition: _gaussian.squares(points, partition[0]))
    labels = kept[0][0]
    k = int(labels.max()) + 1
    info = {
        "separable": _separable(kept, k, least),
        **{name: np.array(values) for name, values in counts.items()},
    }
    value = _gaussian.squares(points, labels)
    return grouped(X, labels, k, "within_group_squares", value, "min", "heuristic", None, info)


def _weakest(labels: Ints, own: Floats) -> float:
    """The least mean probability over the groups, each less its standard error, lest a few rows agree by chance."""
    counts = np.bincount(labels)
    mean = np.bincount(labels, own) / counts
    error = np.sqrt(np.maximum(np.bincount(labels, own * own) / counts - mean * mean, 0.0) / counts)
    return float((mean - error).min())


def _separable(kept: list[tuple[Ints, Floats]], k: int, least: float) -> NDArray[np.bool_]:
    """The rows that every kept partition places in the same group, each surely."""
    from scipy.optimize import linear_sum_assignment

    first = kept[0][0]
    alike = np.ones(len(first), bool)
    for labels, own in kept:
        shared = np.bincount(labels * k + first, minlength=k * k).reshape(k, k)
        _, names = linear_sum_assignment(-shared)
        alike &= (names[labels] == first) & (own >= least)
    return alike
