"""Facility location on up to 1,000,000 rows through a graph of nearest neighbours: time, memory, growth, and its cost.

Every size in a fresh process. Processor seconds are given beside the clock's, since they depend less on what else runs.
What the graph costs is told three ways: by the plan's own bound, against as many rows drawn at random, and, where the
exact greedy search is quick enough, against that.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks import in_fresh_process
from benchmarks.select import loss, pool

SIZES, QUICK = (62_500, 125_000, 250_000, 500_000, 1_000_000), (20_000, 40_000)


def work(who: str, n: int, d: int, k: int) -> dict[str, Any]:
    """One timed run, in a fresh process."""
    from kofn.selection import lazy_greedy, random_sample, sparse_greedy

    X = pool(n, d, 0)
    if who == "random":
        picks = random_sample(X, k=k, seed=0).indices
        some = np.random.default_rng(0).choice(n, min(n, 20_000), replace=False)
        return {"distance": loss(np.concatenate([X[some], X[picks]]), np.arange(len(some), len(some) + k)) / len(some)}
    began, before = time.perf_counter(), time.process_time()
    plan = sparse_greedy(X, k=k) if who == "sparse" else lazy_greedy(X, k=k)
    seconds, cpu = time.perf_counter() - began, time.process_time() - before
    told = ("neighbors", "n_neighbors", "recall", "recall_rows", "unlisted", "bound_confidence")
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "distance": plan.info["distance"] / n,
        "distance_bound": plan.info["distance_bound"] / n,
        "distinct": len(set(plan.indices.tolist())),
        **{name: plan.info[name] for name in told if name in plan.info},
    }


def run(*, quick: bool, rounds: int, sizes: tuple[int, ...] | None = None) -> dict[str, Any]:  # noqa: ARG001
    """All parts, once each: a run takes minutes. Prints what it measures."""
    sizes = sizes or (QUICK if quick else SIZES)
    d, k = 64, 100 if quick else 1_000
    print(f"\nsparse_greedy, mixture of 50 Gaussians, d={d}, k={k}, euclidean; distances are means over all rows")
    print(
        f"{'n':>9} {'seconds':>8} {'cpu s':>8} {'peak MB':>8} {'recall':>7} {'unlisted':>8} {'distance':>9} "
        f"{'at least':>9} {'random':>7} {'exact greedy':>12}"
    )
    rows: list[dict[str, Any]] = []
    for n in sizes:
        row = {"n": n, **_ask("sparse", n, d, k)}
        if "error" in row:
            print(f"{n:>9,} {row['error']}")
            rows.append(row)
            continue
        row["random"] = _ask("random", n, d, k)["distance"]
        row["exact"] = _ask("exact", n, d, k)["distance"] if n <= 100_000 else None
        rows.append(row)
        exact = "" if row["exact"] is None else f"{row['exact']:.3f}"
        print(
            f"{n:>9,} {row['seconds']:>8.1f} {row['cpu_seconds']:>8.1f} {row['peak_bytes'] / 1e6:>8.0f} "
            f"{row['recall']:>7.3f} {row['unlisted']:>8.3f} {row['distance']:>9.3f} {row['distance_bound']:>9.3f} "
            f"{row['random']:>7.3f} {exact:>12}",
            flush=True,
        )
    good = [row for row in rows if "error" not in row]
    slopes = {
        what: float(np.polyfit(np.log([row["n"] for row in good]), np.log([row[what] for row in good]), 1)[0])
        for what in ("seconds", "cpu_seconds")
        if len(good) > 1
    }
    print("log-log slope of time in n: " + ", ".join(f"{what} {slope:.2f}" for what, slope in slopes.items()))
    return {"rows": rows, "slopes": slopes}


def _ask(who: str, n: int, d: int, k: int) -> dict[str, Any]:
    return in_fresh_process("benchmarks.million", {"who": who, "n": n, "d": d, "k": k}, timeout=7_200)
