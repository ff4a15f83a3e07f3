"""Constrained k-means and k-medoids whose distances are computed by tasks: the groups of one process."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kofn.assignment import _groups_in_parts, constrained_kmeans, constrained_kmedoids
from kofn.assignment.means import _constrained_kmedoids, _scores
from kofn.engines.local import Local
from kofn.laws.engines import Shuffled

X = np.random.default_rng(0).normal(size=(500, 37)) + np.repeat(np.eye(5, 37) * 4, 100, axis=0)


@pytest.mark.parametrize("links", [{}, {"must_link": [[0, 450], [450, 7]]}])
@pytest.mark.parametrize("block", [64, 1 << 14])
def test_groups_are_those_of_one_process(links: dict[str, Any], block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_scores, "_BLOCK", block)
    weights = np.random.default_rng(1).random(500)
    words: dict[str, Any] = {
        "k": 5,
        "capacity": 110,
        "min_size": 60,
        "weights": weights,
        "seed": 3,
        "n_init": 2,
        **links,
    }
    here = constrained_kmeans(X, **words)
    for engine in (Local(2), Shuffled(0)):
        there = constrained_kmeans(X, engine=engine, **words)
        assert there.equals(here)
        assert there.info["engine"]["tasks"] == there.info["rounds"] * -(-there.info["units"] // block)
    assert "engine" not in here.info


@pytest.mark.parametrize("source", ["matrix", "rows", "distances"])
@pytest.mark.parametrize("pairs", [500, 1 << 18])
def test_medoids_are_those_of_one_process(source: str, pairs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_groups_in_parts, "_PAIRS_AT_ONCE", pairs)
    monkeypatch.setattr(_constrained_kmedoids, "_MATRIX_BYTES", 0 if source == "rows" else 1 << 20)
    given = {"distances": np.sqrt(((X[:, None] - X) ** 2).sum(axis=2))} if source == "distances" else {"X": X}
    words: dict[str, Any] = {**given, "k": 5, "capacity": 110, "weights": np.arange(1.0, 501.0), "seed": 3}
    here = constrained_kmedoids(**words)
    for engine in (Local(2), Shuffled(0)):
        there = constrained_kmedoids(engine=engine, **words)
        assert there.equals(here)
        assert there.info["distance_evals"] == here.info["distance_evals"]
        assert there.info["engine"]["tasks"] >= 5 * (there.info["rounds"] - 1)
    assert "engine" not in here.info
