"""Selection from sparse rows as texts have them, 132,000 x 17,700: time and peak memory of a fresh process."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks import in_fresh_process

CASES: dict[str, dict[str, Any]] = {
    "feature_based": {"objective": "feature_based"},
    "farthest_first": {"metric": "cosine", "method": "farthest_first"},
    "auto": {"metric": "cosine", "seed": 0},
}


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
    """One selection."""
    import kofn

    X = rows_of(n, words, 40)
    began, processor = time.perf_counter(), time.process_time()
    select: Any = kofn.select
    plan = select(X, k=k, **CASES[case])
    return {
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - processor,
        "method": plan.method,
        "value": plan.value,
    }


def run(quick: bool, rounds: int) -> dict[str, Any]:  # noqa: ARG001 (memory is measured once)
    """Every case once, printed."""
    n, words, k = (3_000, 2_000, 20) if quick else (132_000, 17_700, 100)
    results: dict[str, Any] = {"n": n, "words": words, "k": k}
    for case in CASES:
        found = in_fresh_process("benchmarks.sparse", {"n": n, "words": words, "k": k, "case": case})
        results[case] = found
        if "error" in found:
            print(f"{case}: {found['error']}")
            continue
        print(
            f"sparse {n:,} x {words:,}, k={k}: {case} ({found['method']}) {found['processor']:.1f} processor s, "
            f"{found['peak_bytes'] / 1e6:,.0f} MB"
        )
    return results
