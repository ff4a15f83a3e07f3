"""Average silhouette widths from the sums of an item's distances to the members of each group."""

from __future__ import annotations

import numpy as np

from kofn.core.arrays import Floats, Labels, Reals


def group_sums(table: Reals, labels: Labels, weights: Floats, k: int) -> tuple[Floats, Floats]:
    """(n, k) weighted sums of each item's distances to the members of each group, and (k,) the groups' weights."""
    member = np.zeros((len(table), k))
    member[np.arange(len(table)), labels] = weights
    sums: Floats = np.asarray(table, np.float64) @ member
    return sums, member.sum(axis=0)


def average_width(sums: Floats, mass: Floats, labels: Labels, weights: Floats) -> float:
    """The weighted average of the items' widths (b - a) / max(a, b).

    a is an item's mean distance to the other members of its group, b the least mean distance to those of another one.
    Alone in its group an item counts 0.
    """
    n, k = sums.shape
    own = np.arange(n), labels
    others = np.where(mass > 0, sums / np.where(mass > 0, mass, 1.0), np.inf)
    others[own] = np.inf
    nearest = others.min(axis=1)
    rest = mass[labels] - weights
    company = (np.bincount(labels, minlength=k)[labels] > 1) & (rest > 0)
    inside = sums[own] / np.where(company, rest, 1.0)
    longer = np.maximum(inside, nearest)
    counted = company & np.isfinite(nearest) & (longer > 0)
    widths = np.zeros(n)
    widths[counted] = (nearest[counted] - inside[counted]) / longer[counted]
    return float((weights * widths).sum() / weights.sum())
