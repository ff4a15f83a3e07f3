"""Calls on which the laws hold: of pools on which compiled code runs, and those on which a law was once broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from law_runs import copies, keeps_laws, keeps_laws_at_size, rounded

import kofn

LOCKED = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0)))
LOCKED.flags.writeable = False
ONCE_BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "rounding in circles": ("fasterpam", {"X": [[0.0, 0.0, 0.0]] * 6 + [[0.0, 1.0, 3.0]], "k": 2, "seed": 0}),
    "rounding in circles, slowly": (
        "fastpam1",
        {"X": [[-0.65], [-0.17], [-0.65], [-0.17], [-0.65]], "k": 2, "seed": 0},
    ),
    "locked distances": ("pam", {"distances": LOCKED, "k": 2, "seed": 0}),
    "one direction": ("fastpam1", {"X": [[0.178], [-0.687], [-0.265], [-1.1]], "k": 2, "metric": "cosine", "seed": 0}),
}


@pytest.mark.parametrize(("method", "given"), ONCE_BROKEN.values(), ids=ONCE_BROKEN)
def test_laws_that_were_once_broken(method: str, given: dict[str, Any]) -> None:
    keeps_laws(method, given)


@pytest.mark.parametrize("method", ["fasterpam", "fastpam1", "pam"])
def test_a_loss_of_nothing_beside_the_distances_does_not_send_swaps_in_circles(method: str) -> None:
    assert kofn.assign([[0, 0, 0]] * 6 + [[0, 1, 3]], k=2, seed=0, method=method).value == 0.0


def test_fasterpam_at_size() -> None:
    keeps_laws_at_size("fasterpam", {"X": rounded(700, 4), "k": 5, "seed": 1})
    keeps_laws_at_size("fasterpam", {"X": rounded(500, 4) / np.float64(3), "k": 7, "seed": 2, "metric": "cosine"})
    keeps_laws_at_size("fasterpam", {"X": copies(), "k": 9, "seed": 3})
    # Row by row.
    keeps_laws_at_size("fasterpam", {"X": rounded(700, 4), "k": 5, "seed": 1, "max_memory": "100kB"})


def test_alternating_at_size() -> None:
    keeps_laws_at_size("alternating", {"X": rounded(700, 4), "k": 5, "seed": 1})
    keeps_laws_at_size("alternating", {"X": copies(), "k": 9, "seed": 3})


def test_pam_at_size() -> None:
    keeps_laws_at_size("fastpam1", {"X": rounded(600, 4), "k": 4, "seed": 0})
    keeps_laws_at_size("fastpam1", {"X": copies(), "k": 8, "seed": 0})
    keeps_laws_at_size("pam", {"X": rounded(400, 4), "k": 3, "seed": 0})


def test_samples_at_size() -> None:
    keeps_laws_at_size("fastclara", {"X": rounded(3000, 4), "k": 5, "seed": 1, "max_memory": "100kB"})
    keeps_laws_at_size("fastclarans", {"X": rounded(3000, 4), "k": 5, "seed": 1, "max_memory": "100kB"})
