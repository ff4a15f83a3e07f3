"""Capacity-constrained k-means against the package k-means-constrained: one process, the same rows, the same start.

Every group full (capacity n / k). Seconds are those of the whole call divided by its rounds. The package minimises
distances that are not squared in its assignment step, so its answer is no fixed point of k-means: kofn is also run on
from it. Values are compared over several starts.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import in_fresh_process
from benchmarks.select import pool


def rows(n: int, d: int, seed: int) -> NDArray[np.float32]:
    """Gaussians of unequal width and number."""
    X: NDArray[np.float32] = pool(n, d, seed)
    return X


def work(who: str, n: int, d: int, k: int, seed: int, rounds: int) -> dict[str, Any]:
    """One timed run of at most so many rounds, in a fresh process."""
    X = rows(n, d, seed).astype(np.float64)
    start = np.random.default_rng(seed).choice(n, k, replace=False)
    most = -(-n // k)
    if who == "peer":
        from k_means_constrained import KMeansConstrained

        model = KMeansConstrained(k, size_max=most, init=X[start], n_init=1, max_iter=rounds, tol=0, n_jobs=1)
        began = time.perf_counter()
        model.fit(X)
        seconds = time.perf_counter() - began
        loads, value, took = np.bincount(model.labels_, minlength=k), float(model.inertia_), int(model.n_iter_)
        from kofn.assignment import constrained_kmeans

        onward = constrained_kmeans(X, k=k, capacity=most, centers=model.cluster_centers_)
        extra: dict[str, Any] = {"from_there": onward.value, "rounds_from_there": onward.info["rounds"]}
    else:
        from kofn.assignment import constrained_kmeans

        # Compiled code is loaded before the clock starts, as the peer's is at its import.
        constrained_kmeans(X[: 10_000 // k], k=k, capacity=10_000 // k**2 + 1, seed=0, max_iter=3)
        began = time.perf_counter()
        plan = constrained_kmeans(X, k=k, capacity=most, start=start, max_iter=rounds)
        seconds = time.perf_counter() - began
        loads, value, took = np.bincount(plan.labels, minlength=k), plan.value, plan.info["rounds"]
        extra = {"status": plan.status}
    return {"seconds": seconds, "rounds": took, "value": value, "largest": int(loads.max()), "cap": most, **extra}


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All sizes; prints what it measures."""
    # To the end where the peer gets there in reasonable time, else the same few rounds of both.
    sizes = ((2_000, 16, 10, 300),) if quick else ((10_000, 16, 20, 300), (23_000, 32, 50, 12))
    seeds = range(1 if quick else max(rounds, 3))
    print("\ncapacity-constrained k-means, every group full: medians over the starts, seconds a round")
    print(
        f"{'n':>7} {'d':>3} {'k':>3} {'peer s':>8} {'kofn s':>8} {'times':>6} {'whole peer':>10} {'whole kofn':>10} "
        f"{'value / peer':>22} {'from its answer':>15} {'caps':>5}"
    )
    out: list[dict[str, Any]] = []
    for n, d, k, most in sizes:
        runs: dict[str, list[dict[str, Any]]] = {"peer": [], "kofn": []}
        for seed in seeds:
            for who, done in runs.items():
                call = {"who": who, "n": n, "d": d, "k": k, "seed": seed, "rounds": most}
                done.append(in_fresh_process("benchmarks.constrained", call))
        errors = [one["error"] for done in runs.values() for one in done if "error" in one]
        if errors:
            print(f"{n:>7} {errors[0]}")
            out.append({"n": n, "k": k, "error": errors[0]})
            continue
        each = {who: median(one["seconds"] / one["rounds"] for one in done) for who, done in runs.items()}
        ratios = [a["value"] / b["value"] for a, b in zip(runs["kofn"], runs["peer"], strict=True)]
        onward = [one["from_there"] / one["value"] for one in runs["peer"]]
        row = {
            "n": n,
            "d": d,
            "k": k,
            "most_rounds": most,
            "seconds_a_round": each,
            "times": each["peer"] / each["kofn"],
            "seconds": {who: median(one["seconds"] for one in done) for who, done in runs.items()},
            "value_over_peer": ratios,
            "value_from_its_answer": onward,
            "caps_held": all(one["largest"] <= one["cap"] for one in runs["kofn"]),
            "peak_bytes": {who: max(one["peak_bytes"] for one in done) for who, done in runs.items()},
        }
        out.append(row)
        shown = f"{min(ratios):.4f}..{max(ratios):.4f} ({np.mean(ratios):.4f})"
        print(
            f"{n:>7} {d:>3} {k:>3} {each['peer']:>8.4f} {each['kofn']:>8.4f} {row['times']:>6.1f} "
            f"{row['seconds']['peer']:>10.2f} {row['seconds']['kofn']:>10.2f} {shown:>22} {max(onward):>15.4f} "
            f"{row['caps_held']!s:>5}"
        )
    return {"contest": out}
