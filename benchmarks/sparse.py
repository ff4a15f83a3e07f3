"""Selection and groups of sparse rows as texts have them, 132,000 x 17,700: time and peak memory of a fresh process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks import in_fresh_process

# What each case asks; `queries` are so many rows of their own, `graph` so many neighbours of each row.
CASES: dict[str, dict[str, Any]] = {
    "weighted_coverage": {"objective": "weighted_coverage"},
    "feature_based": {"objective": "feature_based"},
    "farthest_first": {"metric": "cosine", "method": "farthest_first"},
    "facility_location": {"metric": "cosine", "seed": 0},
    "queries": {"queries": 5},
    "random_sample": {"method": "random_sample", "seed": 0},
    "fastclara": {"verb": "assign", "metric": "cosine", "seed": 0},
    "neighbor_graph": {"graph": 32, "objective": "facility_location"},
}
LIMIT = 2 * 10**9


def rows_of(n: int, words: int, each: int) -> Any:
    """TF-IDF of n texts whose words follow Zipf's law."""
    from scipy import sparse

    rng = np.random.default_rng(0)
    share = 1 / np.arange(1, words + 1)
    drawn = rng.choice(words, n * each, p=share / share.sum())
    X = sparse.csr_array((np.ones(n * each, np.float32), (np.repeat(np.arange(n), each), drawn)), shape=(n, words))
    X.sum_duplicates()
    X.data *= np.log((1 + n) / (1 + np.bincount(X.indices, minlength=words))).astype(np.float32)[X.indices]
    return X


def work(n: int, words: int, k: int, case: str) -> dict[str, Any]:
    """One selection or assignment; of a graph of neighbours with the time to make it."""
    import kofn
    from kofn.neighbors import knn_graph

    X = rows_of(n, words, 40)
    asked = dict(CASES[case])
    if "queries" in asked:
        asked["queries"] = rows_of(asked["queries"], words, 40)
    began, processor = time.perf_counter(), time.process_time()
    call: Any = getattr(kofn, asked.pop("verb", "select"))
    if "graph" in asked:
        graph = knn_graph(X, asked.pop("graph"), "cosine").csr
        graph.data = 1 - graph.data / 2
        plan = call(similarity=graph, k=k, **asked)
    else:
        plan = call(X, k=k, **asked)
    return {
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - processor,
        "method": plan.method,
        "value": plan.value,
    }


def run(quick: bool, rounds: int, cases: Sequence[str] = tuple(CASES)) -> dict[str, Any]:  # noqa: ARG001 (memory is measured once)
    """Every case once, printed."""
    n, words, k = (3_000, 2_000, 20) if quick else (132_000, 17_700, 100)
    results: dict[str, Any] = {"n": n, "words": words, "k": k}
    for case in cases:
        found = in_fresh_process("benchmarks.sparse", {"n": n, "words": words, "k": k, "case": case}, timeout=7200)
        results[case] = found
        if "error" in found:
            print(f"{case}: {found['error']}")
            continue
        over = "" if found["peak_bytes"] < LIMIT else f", OVER {LIMIT / 1e9:g} GB"
        print(
            f"sparse {n:,} x {words:,}, k={k}: {case} ({found['method']}) {found['processor']:.1f} processor s, "
            f"{found['peak_bytes'] / 1e6:,.0f} MB{over}",
            flush=True,
        )
    return results
