"""Calls on which the laws hold: of pools on which compiled code runs, and those on which a law was once broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from law_runs import keeps_laws, keeps_laws_at_size, rounded

ONCE_BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "a radius of nothing": ("farthest_first", {"X": [[1.0], [1.0]], "budget": 1, "costs": [1, 1]}),
    "no direction": ("farthest_first", {"X": [[0.0], [1.0], [0.0], [2.0]], "k": 1, "metric": "cosine"}),
}


@pytest.mark.parametrize(("method", "given"), ONCE_BROKEN.values(), ids=ONCE_BROKEN)
def test_laws_that_were_once_broken(method: str, given: dict[str, Any]) -> None:
    keeps_laws(method, given)


def test_farthest_first_at_size() -> None:
    keeps_laws_at_size("farthest_first", {"X": rounded(3000, 64), "k": 90})
    keeps_laws_at_size("farthest_first", {"X": rounded(3000, 64) / np.float64(3), "k": 90, "metric": "cosine"})


def test_gist_at_size() -> None:
    keeps_laws_at_size("gist", {"X": rounded(900, 6), "k": 6})


def test_typiclust_at_size() -> None:
    keeps_laws_at_size("typiclust", {"X": rounded(2300, 6), "k": 20, "seed": 0})


def test_probability_cover_at_size() -> None:
    case = keeps_laws_at_size("probability_cover", {"X": rounded(2300, 6), "k": 20, "seed": 0}, {"radius": 1.5})
    assert case.plan.value > 20
    keeps_laws_at_size("probability_cover", {"X": rounded(2300, 6), "k": 20, "metric": "cosine", "seed": 0})
