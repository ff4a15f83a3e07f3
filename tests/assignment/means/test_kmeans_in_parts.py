"""`constrained_kmeans` whose distances are computed by tasks: the groups of one process, whatever the engine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kofn.assignment import constrained_kmeans
from kofn.assignment.means import _scores
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
