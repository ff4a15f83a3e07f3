"""Exact transport of real masses against POT's network simplex, on four kinds of costs and masses.

Both contenders run in one process, on the same numbers, through their public calls; processor time counts.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import in_fresh_process

Floats = NDArray[np.float64]


def histograms(kind: str, n: int, seed: int) -> tuple[Floats, Floats, Floats]:
    """Costs and the totals of both sides, of sum 1."""
    rng = np.random.default_rng(seed)
    costs = np.asarray(((rng.normal(size=(n, 1, 2)) - rng.normal(size=(1, n, 2)) - 0.5) ** 2).sum(axis=2))
    r, c = rng.random(n), rng.random(n)
    if kind == "random costs":
        costs = rng.random((n, n))
    elif kind == "uniform masses":
        r, c = np.ones(n), np.ones(n)
    elif kind == "histograms":
        x = np.linspace(0, 1, n)
        costs = (x[:, None] - x) ** 2
        r, c = (
            np.exp(-((x - 0.3) ** 2) / 0.02) + 0.5 * np.exp(-((x - 0.7) ** 2) / 0.01),
            np.exp(-((x - 0.6) ** 2) / 0.03),
        )
    return costs, r / r.sum(), c / c.sum()


def work(kind: str, n: int, seed: int) -> dict[str, Any]:
    """Processor seconds and values of both, in a fresh process."""
    import ot  # type: ignore[import-untyped]

    from kofn.assignment import sinkhorn_newton_sparse

    costs, r, c = histograms(kind, n, seed)
    small = np.full(4, 0.25)
    sinkhorn_newton_sparse(-costs[:4, :4], margins=(small, small), reg=0)
    ot.emd2(small, small, np.ascontiguousarray(costs[:4, :4]))
    began = time.process_time()
    plan: Any = sinkhorn_newton_sparse(-costs, margins=(r, c), reg=0)
    ours = time.process_time() - began
    began = time.process_time()
    theirs = float(ot.emd2(r, c, costs, numItermax=10**9))
    took = time.process_time() - began
    return {
        "kind": kind,
        "n": n,
        "kofn_seconds": ours,
        "pot_seconds": took,
        "ratio": ours / took,
        "pivots": plan.info["pivots"],
        "idle_pivots": plan.info["idle_pivots"],
        "status": plan.status,
        "margin_error": plan.info["margin_error"],
        "gap": plan.bound - plan.value,
        "values_differ_by": abs(plan.value + theirs) / abs(theirs),
    }


def measure(*, quick: bool, rounds: int) -> list[dict[str, Any]]:
    """A row for each kind and size."""
    out = []
    for n in (200,) if quick else (500, 1000, 2000):
        print(f"\nexact transport, {n:,} x {n:,}, processor seconds: median ratio of {rounds} rounds")
        for kind in ("points", "random costs", "uniform masses", "histograms"):
            made = [
                in_fresh_process("benchmarks.exact_transport", {"kind": kind, "n": n, "seed": 0}) for _ in range(rounds)
            ]
            row = sorted(made, key=lambda one: float(one["ratio"]))[len(made) // 2]
            out.append(row)
            print(
                f"{kind}: kofn {row['kofn_seconds']:.3f} s, POT {row['pot_seconds']:.3f} s: {row['ratio']:.2f} times; "
                f"{row['pivots']:,} pivots, {row['idle_pivots']:,} of them idle; {row['status']}, values differ by "
                f"{row['values_differ_by']:.1e} of them, margins off by {row['margin_error']:.1e}"
            )
    return out
