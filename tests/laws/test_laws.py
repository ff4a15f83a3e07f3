"""Every law that a method declares, on problems drawn from the arguments it takes."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from hypothesis import given, seed, settings
from law_runs import LEAST, PROFILE, holds

import kofn
from kofn.core import dispatch
from kofn.core.registry import VERBS, Entry
from kofn.laws import LAWS, Case, laws_of
from kofn.laws.generators import calls

ENTRIES = [entry for verb in VERBS for entry in dispatch.methods_of(verb).values()]
PAIRS = [pytest.param(entry, name, id=f"{entry.name}-{name}") for entry in ENTRIES for name in laws_of(entry)]


@pytest.mark.parametrize(("entry", "name"), PAIRS)
def test_law(entry: Entry, name: str) -> None:
    checked = holds(entry, name)
    if name not in VACUOUS.get(entry.name, ()):
        assert checked >= LEAST, f"only {checked} examples were not vacuous"


S = np.random.default_rng(4).random((7, 7)) + np.eye(7)
TWICE = scipy.sparse.csc_array(([1.0, 1.0, 2.0, 2.0], [0, 0, 1, 1], [0, 2, 4]), shape=(2, 2))
LOCKED = np.abs(np.subtract.outer(np.arange(5.0), np.arange(5.0)))
LOCKED.flags.writeable = False

# Calls on which a law was once broken.
ONCE_BROKEN = {
    "free items only, two of them": (
        "lazy_greedy",
        {"similarity": S, "costs": [0, 0, 1, 0, 1, 0, 0], "budget": 0, "k": 2},
    ),
    "the best item alone is not the best": (
        "lazy_greedy",
        {"similarity": np.diag([7.0, 1.2, 4.0, 4.0]), "costs": [9, 1, 4.5, 4.5], "budget": 9},
    ),
    "entries in two parts": ("naive_greedy", {"similarity": TWICE, "k": 1}),
    "a radius of nothing": ("farthest_first", {"X": [[1.0], [1.0]], "budget": 1, "costs": [1, 1]}),
    "no direction": ("farthest_first", {"X": [[0.0], [1.0], [0.0], [2.0]], "k": 1, "metric": "cosine"}),
    "rounding in circles": ("fasterpam", {"X": [[0.0, 0.0, 0.0]] * 6 + [[0.0, 1.0, 3.0]], "k": 2, "seed": 0}),
    "rounding in circles, slowly": (
        "fastpam1",
        {"X": [[-0.65], [-0.17], [-0.65], [-0.17], [-0.65]], "k": 2, "seed": 0},
    ),
    "locked distances": ("pam", {"distances": LOCKED, "k": 2, "seed": 0}),
    "one direction": ("fastpam1", {"X": [[0.178], [-0.687], [-0.265], [-1.1]], "k": 2, "metric": "cosine", "seed": 0}),
}


@pytest.mark.parametrize(("name", "given"), ONCE_BROKEN.values(), ids=ONCE_BROKEN)
def test_laws_that_were_once_broken(name: str, given: dict[str, Any]) -> None:
    _compiled()
    entry = next(entry for entry in ENTRIES if entry.name == name)
    for law in laws_of(entry):
        LAWS[law](Case.of(entry.verb, name, given))


TIMED = [pytest.param(entry, id=entry.name) for entry in ENTRIES if "time_limit" in entry.accepted]


@pytest.mark.parametrize("entry", TIMED)
def test_what_is_valid_when_time_is_up_keeps_the_laws(entry: Entry) -> None:
    stopped = 0

    @settings(PROFILE, max_examples=3 * LEAST)
    @seed(0)
    @given(call=calls(entry))
    def hold(call: Any) -> None:
        nonlocal stopped
        case = Case.of(entry.verb, entry.name, {**call.given, "time_limit": 1e-9}, call.options)
        stopped += case.plan.status == "stopped"
        for name in ("fields", "feasible", "recount", *({"sandwich", "duality"} & set(entry.traits))):
            LAWS[name](case)

    hold()
    assert stopped


# A method that states no value has none to recount.
VACUOUS = dict.fromkeys(("anchored_subpool", "ccs", "private_streaming", "random_sample"), ("recount",)) | {
    "quality_quantity": ("duality",),
    "reduce_adapters": ("blend",),  # a cut sum is no sum
    "ot_fusion": ("recount",),
    "pleas": ("recount", "blend"),
    **dict.fromkeys(("fisher_merging", "layer_swap"), ("recount",)),
    **dict.fromkeys(("dare", "pcb_merging", "slerp", "ties", "variance_corrected_mean"), ("recount", "blend")),
}


def _rounded(n: int, d: int) -> np.ndarray:
    """Rows with many equal distances."""
    return np.random.default_rng(0).normal(size=(n, d)).round(1).astype(np.float32)


def _copies() -> np.ndarray:
    """A few far groups of identical rows: a loss of nothing beside the distances."""
    return np.repeat(1e3 * _rounded(9, 3).astype(np.float64), 60, axis=0) + 1 / 3


# Two members of a model that is large enough for threads.
WIDE = [_rounded(1 << 21, 2), _rounded(1 << 21, 2) * 3]
# Pools on which the compiled paths run, by method; with the options where there are any.
LARGE: dict[str, tuple[dict, dict]] = {
    "lazy_greedy": ({"X": _rounded(2500, 6), "k": 12}, {}),
    "lazy_greedy, float64": ({"X": _rounded(2300, 3) / np.float64(3), "k": 9, "metric": "sqeuclidean"}, {}),
    "lazy_greedy, similarity": ({"similarity": np.float32(9) - _rounded(2300, 2300).clip(-4, 4), "k": 8}, {}),
    "lazy_greedy, budget": (
        {"X": _rounded(2300, 3), "budget": 40, "costs": np.arange(2300) % 7 + 1, "metric": "cosine"},
        {},
    ),
    "lazy_greedy, quotas": (
        {"X": _rounded(2300, 3), "k": 9, "groups": np.arange(2300) % 5, "quotas": {0: (3, None), 1: (0, 1)}},
        {"tight_bound": True},
    ),
    "naive_greedy": ({"X": _rounded(2300, 4), "k": 3}, {}),
    "stochastic_greedy": ({"X": _rounded(2300, 6), "k": 12, "seed": 0}, {}),
    "threshold_greedy": ({"X": _rounded(2300, 6), "k": 12}, {}),
    "partitioned_greedy": ({"X": _rounded(2300, 6), "k": 8, "seed": 0}, {"parts": 4}),
    "gist": ({"X": _rounded(2300, 6), "k": 8}, {}),
    "order_threshold": ({"X": _rounded(2300, 6), "k": 8}, {}),
    "farthest_first": ({"X": _rounded(3000, 64), "k": 400}, {}),
    "farthest_first, cosine": ({"X": _rounded(3000, 64) / np.float64(3), "k": 400, "metric": "cosine"}, {}),
    "sparse_greedy": ({"X": _rounded(3000, 64), "k": 400}, {"n_neighbors": 20}),
    "fasterpam": ({"X": _rounded(700, 4), "k": 5, "seed": 1}, {}),
    "fasterpam, float64": ({"X": _rounded(500, 4) / np.float64(3), "k": 7, "seed": 2, "metric": "cosine"}, {}),
    "fasterpam, copies": ({"X": _copies(), "k": 9, "seed": 3}, {}),
    "fasterpam, row by row": ({"X": _rounded(700, 4), "k": 5, "seed": 1, "max_memory": "100kB"}, {}),
    "fastpam1": ({"X": _rounded(600, 4), "k": 4, "seed": 0}, {}),
    "fastpam1, copies": ({"X": _copies(), "k": 8, "seed": 0}, {}),
    "pam": ({"X": _rounded(400, 4), "k": 3, "seed": 0}, {}),
    "fastclara": ({"X": _rounded(3000, 4), "k": 5, "seed": 1, "max_memory": "100kB"}, {}),
    "fastclarans": ({"X": _rounded(3000, 4), "k": 5, "seed": 1, "max_memory": "100kB"}, {}),
    "fastermsc": ({"X": _rounded(500, 4), "k": 5, "seed": 1}, {}),
    "fastermsc, copies": ({"X": _copies(), "k": 9, "seed": 3}, {}),
    "fastermsc, row by row": ({"X": _rounded(500, 4), "k": 5, "seed": 1, "max_memory": "100kB"}, {}),
    "dynmsc": ({"X": _rounded(900, 4), "seed": 0}, {"k_max": 6}),
    "constrained_kmeans": ({"X": _rounded(1200, 4), "k": 12, "capacity": 110, "seed": 0}, {"min_size": 90}),
    "constrained_kmeans, linked": (
        {"X": _rounded(1200, 4), "k": 12, "capacity": 105, "seed": 0},
        {"must_link": [[i, i + 600] for i in range(90)], "cannot_link": [[i, i + 7] for i in range(40)]},
    ),
    "constrained_kmedoids": ({"X": _rounded(1200, 4), "k": 12, "capacity": 102, "seed": 0}, {"min_size": 95}),
    "capped_routing": ({"scores": _rounded(2100, 10), "capacity": 190, "per_item": 1}, {"overflow": "reroute"}),
    "capped_routing, two": ({"scores": _rounded(2100, 10), "capacity": 300, "per_item": 2}, {"overflow": "reroute"}),
    "capped_routing, drop": ({"scores": _rounded(2100, 10), "capacity": 150, "per_item": 2}, {"overflow": "drop"}),
    "weighted_mean": ({"members": WIDE, "weights": [0.3, 0.7]}, {}),
    "task_arithmetic": ({"members": WIDE, "base": WIDE[0] / 2}, {"scale": 0.7}),
    "ties": ({"members": WIDE, "base": WIDE[0] / 2}, {"density": 0.3}),
    "dare": ({"members": WIDE, "base": WIDE[0] / 2, "seed": 0}, {"density": 0.3}),
    "pcb_merging": ({"members": WIDE, "base": WIDE[0] / 2}, {}),
    "fisher_merging": ({"members": WIDE}, {"fisher": [WIDE[0] ** 2, WIDE[1] ** 2], "balance": True}),
    "slerp": ({"members": WIDE}, {}),
    "variance_corrected_mean": ({"members": WIDE}, {}),
    "layer_swap": ({"members": [{"layers.0.w": row, "layers.1.w": row[:9]} for row in WIDE]}, {"bottom": 1, "top": 0}),
}


def _compiled() -> None:
    """Once loaded, compiled code is used on pools of any size."""
    for module in ("objectives._kernels", "assignment._kernels", "assignment._silhouette_kernels"):
        importlib.import_module(f"kofn.{module}")


COMPILED = [
    pytest.param(entry, name, id=f"{entry.name}-{name}")
    for entry in ENTRIES
    if entry.name in ("lazy_greedy", "naive_greedy", "fasterpam", "fastpam1", "pam", "fastermsc")
    for name in ("recount", *entry.traits)
]


@pytest.mark.parametrize(("entry", "name"), COMPILED)
def test_law_of_compiled_code(entry: Entry, name: str) -> None:
    _compiled()
    assert holds(entry, name) >= LEAST


def test_every_method_with_threads_is_run_at_size() -> None:
    threaded = {entry.name for entry in ENTRIES if "n_threads" in entry.accepted}
    assert threaded <= {name.split(",")[0] for name in LARGE}


@pytest.mark.parametrize("name", LARGE)
def test_laws_hold_at_size(name: str) -> None:
    _compiled()
    entry = next(entry for entry in ENTRIES if entry.name == name.split(",")[0])
    words, options = LARGE[name]
    case = Case.of(entry.verb, entry.name, words, options)
    for law in laws_of(entry):
        if law not in ("greedy", "sandwich", "mergeable", "blend", "same-again", "saved"):
            LAWS[law](case)
    if "n_threads" in entry.accepted:
        plans = [case.again(n_threads=threads) for threads in (1, 2, 4)]
        assert all(plan.equals(case.plan) for plan in plans)
        counters = {tuple(plan.info[key] for key in ("oracle_calls", "distance_evals")) for plan in plans}
        assert len(counters) == 1
    if entry.name == "lazy_greedy":
        naive = kofn.select(**words, method="naive_greedy")
        assert naive.indices.tolist() == case.plan.indices.tolist()
        assert naive.gains.tolist() == case.plan.gains.tolist()
