"""Choose k and the partition: the finest one on which k-means and a cross-fitted Gaussian mixture agree."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.assignment.means import _gaussian
from kofn.assignment.means._relaxation import grouped
from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError
from kofn.core.plans import Assignment
from kofn.core.registry import method
from kofn.objectives.similarity import refuse_extremes


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
    covariance: str = "shrunk",
    seed: int | None = None,
) -> Assignment:
    """Choose k and the partition: the finest one on which k-means and a cross-fitted Gaussian mixture agree.

    k-means runs from several starts for every number of groups up to `k_max`. For each partition a mixture is fitted on
    half of the rows and gives each row of the other half the posterior probability of its own group; the partition is
    kept if this averages at least `agreement` in every group. The finest partition kept is returned.

    Args:
        X: vectors (n, d).
        k_max: largest number of groups to try.
        n_starts: k-means++ starts for each number of groups; equal partitions are checked once.
        agreement: least mean posterior probability of the own component, minus its standard error, in every group.
        covariance: of a component: "shrunk" towards a multiple of the identity by the rows there are for the columns
            (Chen, Wiesel, Eldar & Hero 2010), which comes to "full" for many rows; "full"; or "diag".
        seed: for the starts.

    Returns:
        An `Assignment`: `labels`, `k` = the groups found, `centers` (k, d), `value` = summed squared distances to the
        group's mean. `info`: separable (n,) the rows that every kept partition of that k groups alike, each with
        posterior probability at least `agreement`; tried and kept (k_max,) different partitions of 1, 2, ... groups;
        and agreements (k_max,) the best of each, NaN where groups were too small to check. `status` is
        "stopped" where nothing could be checked: fewer than 16 rows.

    Raises:
        InputError: k_max or n_starts < 1, agreement outside [0, 1], an unknown covariance, or too few rows for "diag"
            or "full": groups are checked from 8 d or 2 d (d + 3) rows on.

    Cost: dominated by the checks: two mixtures (one per half) for each distinct partition.

    Guarantee: none. A split of a single Gaussian is rejected because its halves overlap: the posterior probability of a
    row's own half averages at most 0.9. Groups that overlap more than that are returned as one.

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
    covariance = checks.choice(covariance, "covariance", ("shrunk", "full", "diag"))
    refuse_extremes(X)
    points = np.asarray(X, np.float64)
    points = points - points.mean(axis=0)
    n, ridge = len(points), 1e-6 * _gaussian.unit_of(points)
    whole = np.zeros(n, np.int64)
    rows = _gaussian.least_rows(points.shape[1], covariance)
    unchecked = k_max > 1 and n < 2 * rows
    if unchecked and covariance != "shrunk":
        raise InputError(
            f"X has {n} rows of {points.shape[1]} columns; covariance={covariance!r} checks groups from {rows} rows "
            f"on, two of them need {2 * rows} rows; covariance='shrunk' needs 16"
        )
    kept: list[tuple[Ints, Floats]] = [(whole, np.ones(n))]
    counts: dict[str, list[Any]] = {"tried": [1], "kept": [1], "agreements": [1.0]}
    seeds = np.random.SeedSequence(seed).spawn(k_max)
    for k in range(2, min(k_max, n) + 1):
        rng = np.random.default_rng(seeds[k - 1])
        partitions = {}
        for _ in range(n_starts):
            labels = _gaussian.renamed(_gaussian.lloyd(points, _gaussian.spread_out(points, k, rng), k))
            partitions[labels.tobytes()] = labels
        sure = [(labels, _gaussian.agreement(points, labels, k, ridge, covariance)) for labels in partitions.values()]
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
    return grouped(
        X, labels, k, "within_group_squares", value, "min", "stopped" if unchecked else "heuristic", None, info
    )


def _weakest(labels: Ints, own: Floats) -> float:
    """The least mean probability over the groups, minus its standard error, so a few rows cannot agree by chance."""
    counts = np.bincount(labels)
    mean = np.bincount(labels, own) / counts
    error = np.sqrt(np.maximum(np.bincount(labels, own * own) / counts - mean * mean, 0.0) / counts)
    return float((mean - error).min())


def _separable(kept: list[tuple[Ints, Floats]], k: int, least: float) -> NDArray[np.bool_]:
    """The rows that every kept partition puts in the same group with high probability."""
    from scipy.optimize import linear_sum_assignment

    first = kept[0][0]
    alike = np.ones(len(first), bool)
    for labels, own in kept:
        shared = np.bincount(labels * k + first, minlength=k * k).reshape(k, k)
        _, names = linear_sum_assignment(-shared)
        alike &= (names[labels] == first) & (own >= least)
    return alike
