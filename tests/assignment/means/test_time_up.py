"""Constrained k-medoids once the time is up: no more distances, and medoids that are members of their groups."""

from __future__ import annotations

import numpy as np
import pytest

from kofn.assignment import _groups_in_parts, constrained_kmedoids
from kofn.assignment.means import _constrained_kmedoids
from kofn.assignment.medoids import _sources
from kofn.core import runtime


def test_once_the_time_is_up_no_group_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(0).normal(size=(1500, 6))
    measured = []
    plain = _sources.Vectors.among
    monkeypatch.setattr(runtime, "_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(_constrained_kmedoids, "_MATRIX_BYTES", 0)
    monkeypatch.setattr(_sources.Vectors, "among", lambda self, *call: measured.append(1) or plain(self, *call))
    start = [*range(5)]
    plan = constrained_kmedoids(X, k=5, capacity=300, start=start, time_limit=1e-9)
    assert plan.status == "stopped"
    assert not measured
    assert np.bincount(plan.labels).tolist() == [300] * 5
    assert plan.labels[plan.medoids].tolist() == start
    whole = constrained_kmedoids(X, k=5, capacity=300, start=start)
    assert measured
    assert whole.value < plan.value


def test_parts_of_a_group_are_measured_as_the_whole_is(monkeypatch: pytest.MonkeyPatch) -> None:
    X = np.random.default_rng(1).normal(size=(400, 3))
    whole = constrained_kmedoids(X, k=4, capacity=110, seed=0)
    monkeypatch.setattr(_groups_in_parts, "_PAIRS_AT_ONCE", 700)
    parts = constrained_kmedoids(X, k=4, capacity=110, seed=0)
    assert parts.medoids.tolist() == whole.medoids.tolist()
    assert parts.value == whole.value
