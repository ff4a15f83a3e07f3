"""Near-duplicate removal: 100,000 x 256 at cosine 0.95, and the same answer as brute force on 10,000.

The pool is a mixture of Gaussians in which a fifth of the rows repeat another with a little noise, so that their
cosines lie on both sides of the threshold.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import in_fresh_process


def rows(n: int, d: int, seed: int) -> NDArray[np.float32]:
    """Rows of which a fifth are noisy copies, in random order."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30, d))[rng.integers(0, 30, n)] + rng.normal(size=(n, d))
    copies = rng.choice(n, n // 5, replace=False)
    noise = rng.uniform(0.05, 0.6, len(copies))[:, None]
    X[copies] = X[rng.integers(0, n, len(copies))] + noise * rng.normal(size=(len(copies), d))
    return X.astype(np.float32)


def brute_force(X: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Keep the first of every group, one row after the other, against all kept rows in float64."""
    unit = X.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    kept, keep, m = np.empty_like(unit), np.zeros(len(X), bool), 0
    for i, row in enumerate(unit):
        if not m or float((kept[:m] @ row).max()) < threshold:
            kept[m], keep[i], m = row, True, m + 1
    return keep


def work(who: str, n: int, d: int, threshold: float, seed: int) -> dict[str, Any]:
    """One timed run, in a fresh process."""
    from kofn.selection import near_duplicates

    X = rows(n, d, seed)
    began = time.perf_counter()
    keep = brute_force(X, threshold) if who == "brute force" else near_duplicates(X, threshold).keep
    return {
        "seconds": time.perf_counter() - began,
        "kept": int(keep.sum()),
        "answer": np.packbits(keep).tobytes().hex() if n <= 20_000 else "",
    }


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    d, threshold, small = 256, 0.95, 2_000 if quick else 10_000
    sizes = (small, 5_000) if quick else (small, 25_000, 50_000, 100_000)
    ask = {"d": d, "threshold": threshold, "seed": 0}
    print(f"\nnear-duplicates at cosine {threshold}, d={d}, float32: median of {1 if quick else rounds} rounds")
    slow = in_fresh_process("benchmarks.dedupe", {"who": "brute force", "n": small, **ask})
    out = []
    for n in sizes:
        runs = [
            in_fresh_process("benchmarks.dedupe", {"who": "kofn", "n": n, **ask}) for _ in range(1 if quick else rounds)
        ]
        row = {"n": n, "seconds": median(one["seconds"] for one in runs), "kept": runs[0]["kept"]}
        row["peak_bytes"] = runs[0]["peak_bytes"]
        beside = ""
        if n == small:
            row |= {"brute_force_seconds": slow["seconds"], "same_answer": runs[0]["answer"] == slow["answer"]}
            beside = f"; brute force {slow['seconds']:.1f} s, same answer: {row['same_answer']}"
        out.append(row)
        print(
            f"n={n:>7,}: {row['seconds']:>6.2f} s, {row['kept']:,} kept, peak {row['peak_bytes'] / 1e6:.0f} MB{beside}"
        )
    slope = float(np.polyfit(np.log([row["n"] for row in out]), np.log([row["seconds"] for row in out]), 1)[0])
    print(f"log-log slope of time in n: {slope:.2f}")
    return {"rows": out, "slope": slope}
