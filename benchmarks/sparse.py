"""Selection, groups and neighbours of sparse rows as texts have them, up to 132,000 x 17,700: time and peak memory of
a fresh process; neighbours against scikit-learn's."""

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
    "graph_cut": {"metric": "cosine", "objective": "graph_cut"},
    "log_determinant": {"objective": "log_determinant"},
    "rds_plus": {"method": "rds_plus", "queries": 5},
    "typiclust": {"metric": "cosine", "method": "typiclust", "seed": 0},
    "probability_cover": {"metric": "cosine", "method": "probability_cover", "radius": 0.8},
    "saturated_coverage": {"metric": "cosine", "objective": "saturated_coverage"},
    "queries": {"queries": 5},
    "random_sample": {"method": "random_sample", "seed": 0},
    "fastclara": {"verb": "assign", "metric": "cosine", "seed": 0},
    "neighbor_graph": {"graph": 32, "objective": "facility_location"},
}
LIMIT = 2 * 10**9
# Rows whose neighbours are found, to see how the time grows, and up to how many scikit-learn finds them too.
GROWTH, PEER = (16_500, 33_000, 66_000, 132_000), 16_500
NEIGHBORS = 32


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


def neighbors(n: int, words: int, peer: bool) -> dict[str, Any]:
    """The neighbours of each row by kofn, and by scikit-learn on the same rows: how far their distances are apart."""
    from kofn.neighbors import knn_graph

    X = rows_of(n, words, 40)
    began = time.process_time()
    graph = knn_graph(X, NEIGHBORS, "cosine")
    out = {"processor": time.process_time() - began}
    if peer:
        from sklearn.neighbors import NearestNeighbors

        began = time.process_time()
        model = NearestNeighbors(n_neighbors=NEIGHBORS, algorithm="brute", metric="cosine").fit(X.astype(np.float64))
        distances, _ = model.kneighbors()
        out |= {"peer": time.process_time() - began, "apart": float(np.abs(distances - graph.distances).max())}
    return out


def growth(sizes: Sequence[int], words: int) -> list[dict[str, Any]]:
    """The time for the neighbours of more and more rows, printed."""
    results: list[dict[str, Any]] = []
    for n in sizes:
        arguments = {"n": n, "words": words, "peer": False}
        here = in_fresh_process("benchmarks.sparse", arguments, timeout=7200, function="neighbors")
        results.append({"n": n, **here})
        if "error" in here:
            print(f"neighbors of {n:,}: {here['error']}")
            continue
        line = f"sparse {n:,} x {words:,}: {NEIGHBORS} neighbours of each, {here['processor']:.1f} processor s"
        before = results[-2] if len(results) > 1 else {}
        if "processor" in before:
            power = np.log(here["processor"] / before["processor"]) / np.log(n / before["n"])
            line += f" (as n^{power:.1f})"
        print(f"{line}, {here['peak_bytes'] / 1e6:,.0f} MB", flush=True)
        if n <= PEER:
            both = in_fresh_process(
                "benchmarks.sparse", {**arguments, "peer": True}, timeout=7200, function="neighbors"
            )
            results[-1]["peer"] = both
            if "error" in both:
                print(f"scikit-learn: {both['error']}")
                continue
            print(
                f"  scikit-learn: {both['peer']:.1f} processor s, {both['peak_bytes'] / 1e6:,.0f} MB for both; "
                f"distances {both['apart']:.1g} apart at most",
                flush=True,
            )
    return results


def run(quick: bool, rounds: int, cases: Sequence[str] = tuple(CASES)) -> dict[str, Any]:  # noqa: ARG001 (memory is measured once)
    """Every case once, printed."""
    n, words, k = (3_000, 2_000, 20) if quick else (132_000, 17_700, 100)
    results: dict[str, Any] = {"n": n, "words": words, "k": k}
    results["neighbors"] = growth((1_500, 3_000) if quick else GROWTH, words)
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
