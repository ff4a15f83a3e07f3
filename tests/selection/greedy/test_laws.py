"""Calls on which the laws hold: of pools on which compiled code runs, and those on which a law was once broken."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse
from law_runs import keeps_laws, keeps_laws_at_size, rounded

import kofn

S = np.random.default_rng(4).random((7, 7)) + np.eye(7)
TWICE = scipy.sparse.csc_array(([1.0, 1.0, 2.0, 2.0], [0, 0, 1, 1], [0, 2, 4]), shape=(2, 2))
ONCE_BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "free items only, two of them": (
        "lazy_greedy",
        {"similarity": S, "costs": [0, 0, 1, 0, 1, 0, 0], "budget": 0, "k": 2},
    ),
    "the best item alone is not the best": (
        "lazy_greedy",
        {"similarity": np.diag([7.0, 1.2, 4.0, 4.0]), "costs": [9, 1, 4.5, 4.5], "budget": 9},
    ),
    "entries in two parts": ("naive_greedy", {"similarity": TWICE, "k": 1}),
}


@pytest.mark.parametrize(("method", "given"), ONCE_BROKEN.values(), ids=ONCE_BROKEN)
def test_laws_that_were_once_broken(method: str, given: dict[str, Any]) -> None:
    keeps_laws(method, given)


LAZY: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "float32": ({"X": rounded(2500, 6), "k": 12}, {}),
    "float64": ({"X": rounded(2300, 3) / np.float64(3), "k": 9, "metric": "sqeuclidean"}, {}),
    "similarity": ({"similarity": np.float32(9) - rounded(2300, 2300).clip(-4, 4), "k": 8}, {}),
    "budget": ({"X": rounded(2300, 3), "budget": 40, "costs": np.arange(2300) % 7 + 1, "metric": "cosine"}, {}),
    "quotas": (
        {"X": rounded(2300, 3), "k": 9, "groups": np.arange(2300) % 5, "quotas": {0: (3, None), 1: (0, 1)}},
        {"tight_bound": True},
    ),
}


@pytest.mark.parametrize(("given", "options"), LAZY.values(), ids=LAZY)
def test_lazy_greedy_at_size(given: dict[str, Any], options: dict[str, Any]) -> None:
    plan = keeps_laws_at_size("lazy_greedy", given, options).plan
    naive = kofn.select(**given, method="naive_greedy")
    assert naive.indices.tolist() == plan.indices.tolist()
    assert naive.gains.tolist() == plan.gains.tolist()


def test_the_others_at_size() -> None:
    keeps_laws_at_size("naive_greedy", {"X": rounded(2300, 4), "k": 3})
    keeps_laws_at_size("stochastic_greedy", {"X": rounded(2300, 6), "k": 12, "seed": 0})
    keeps_laws_at_size("threshold_greedy", {"X": rounded(2300, 6), "k": 12})
    keeps_laws_at_size("partitioned_greedy", {"X": rounded(2300, 6), "k": 8, "seed": 0}, {"parts": 4})
    keeps_laws_at_size("order_threshold", {"X": rounded(2300, 6), "k": 8})
    keeps_laws_at_size("sparse_greedy", {"X": rounded(2300, 16), "k": 60}, {"n_neighbors": 20})


def test_partial_enumeration_at_size() -> None:
    costs = np.arange(16) % 5 + 3
    keeps_laws_at_size("partial_enumeration", {"X": rounded(16, 3), "costs": costs, "budget": 11})
