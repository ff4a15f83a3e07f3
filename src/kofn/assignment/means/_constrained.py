"""Shared parts of constrained k-means and k-medoids: exact group sizes, must-link and cannot-link pairs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from kofn.assignment.means import _links
from kofn.core import checks
from kofn.core.arrays import Floats, Labels
from kofn.core.plans import Assignment

# A step of k-means or k-medoids counts as an improvement beyond this share of what is summed.
TOLERANCE = 1e-12


def seating_of(n: int, k: int, capacity: Any, min_size: Any, must_link: Any, cannot_link: Any) -> _links.Seating:
    least = checks.capacity(min_size, "min_size")
    units = _links.units_of(n, must_link, cannot_link)
    return _links.Seating(units, *_links.bounds_of(n, k, capacity, least, units))


def binds_nothing(seating: _links.Seating) -> bool:
    """Whether every assignment step was exact: no links, or every linked unit went to its preferred group."""
    return seating.exact or seating.free


def plan(labels: Labels, seating: _links.Seating, capacity: Any, **fields: Any) -> Assignment:
    k = seating.k
    load = np.bincount(labels, minlength=k).astype(np.float64)
    used: dict[str, Any] = {"k": k}
    budget: dict[str, Any] = {"k": k}
    if capacity is not None:
        fields["capacity"] = np.broadcast_to(np.asarray(capacity, np.int64), k).copy()
        used, budget = {**used, "capacity": load}, {**budget, "capacity": fields["capacity"].astype(np.float64)}
    return Assignment.from_labels(
        labels, k, sense="min", used=used, budget=budget, prices={"capacity": fields["v"]}, **fields
    )


def gains(scores: Floats, before: Labels, after: Labels) -> bool:
    """Whether the new assignment improves on the old one by more than rounding."""
    rows = np.arange(len(before))
    own = scores[rows, before]
    gain = math.fsum((scores[rows, after] - own).tolist())
    return gain > TOLERANCE * float(np.abs(own).sum())
