"""Exact transport against POT's network simplex; entropic transport against POT's Sinkhorn in the log domain.

The exact part is `benchmarks.exact_transport`. Entropic: to a marginal error of 1e-9 at small regularisation.

Two tables of the paper's kinds: random costs (an assignment problem), and squared distances between random points. Each
contender runs in a process of its own on the same numbers; the plans are compared, and so is the error that each one's
margins really have. POT stops by the Euclidean error of one margin, which it looks at every ten sweeps.
"""

from __future__ import annotations

import time
import warnings
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import exact_transport, in_fresh_process

Floats = NDArray[np.float64]
TOL = 1e-9


def table(kind: str, n: int, seed: int) -> Floats:
    """Costs whose largest is 1."""
    rng = np.random.default_rng(seed)
    if kind == "random":
        return rng.random((n, n))
    costs = ((rng.random((n, 1, 2)) - rng.random((1, n, 2)) ** 1.5) ** 2).sum(axis=2)
    return np.asarray(costs / costs.max())


def work(who: str, kind: str, n: int, reg: float, seed: int) -> dict[str, Any]:
    """One timed run, in a fresh process."""
    costs = table(kind, n, seed)
    totals = np.full(n, 1 / n)
    if who == "kofn":
        from kofn.assignment import sinkhorn_newton_sparse

        sinkhorn_newton_sparse(-costs[:4, :4], reg=1.0)
        began = time.perf_counter()
        # Not rounded: margins to the tolerance, as POT leaves them.
        made = sinkhorn_newton_sparse(-costs, margins=(totals, totals), reg=reg, tol=TOL, rounded=False)
        took = time.perf_counter() - began
        plan = np.zeros((n, n))
        plan[np.repeat(np.arange(n), np.diff(made.indptr)), made.bins] = made.weights
        steps = made.info["sweeps"] + made.info["newton_steps"]
    else:
        import ot  # type: ignore[import-untyped]

        ot.sinkhorn(totals[:4] * n / 4, totals[:4] * n / 4, costs[:4, :4], 1.0, method="sinkhorn_log")
        began = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            plan, log = ot.sinkhorn(
                totals, totals, costs, reg, method="sinkhorn_log", numItermax=100_000, stopThr=TOL, log=True
            )
        took, steps = time.perf_counter() - began, int(log["niter"])
    error = float(np.abs(plan.sum(axis=1) - totals).sum() + np.abs(plan.sum(axis=0) - totals).sum())
    held = plan[plan > 0]
    value = float((plan * costs).sum() + reg * (held * np.log(held)).sum())
    return {"seconds": took, "steps": steps, "error": error, "value": value, "cost": float((plan * costs).sum())}


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    exactly = exact_transport.measure(quick=quick, rounds=1 if quick else rounds)
    n, times = (200, 1) if quick else (1000, rounds)
    asks = [("random", 3e-3), ("points", 1e-2)] if quick else [("random", 1e-3), ("points", 5e-3)]
    print(f"\nentropic transport, n={n:,}, margins to {TOL:g}: median of {times} rounds of ours, one of POT's")
    out = []
    for kind, reg in asks:
        ask = {"kind": kind, "n": n, "reg": reg, "seed": 0}
        ours = [in_fresh_process("benchmarks.transport", {"who": "kofn", **ask}) for _ in range(times)]
        theirs = in_fresh_process("benchmarks.transport", {"who": "POT", **ask})
        row = {
            "kind": kind,
            "reg": reg,
            "kofn_seconds": median(one["seconds"] for one in ours),
            "pot_seconds": theirs["seconds"],
            "kofn_steps": ours[0]["steps"],
            "pot_steps": theirs["steps"],
            "kofn_error": ours[0]["error"],
            "pot_error": theirs["error"],
            "values_differ_by": abs(ours[0]["value"] - theirs["value"]),
            "kofn_peak_bytes": ours[0]["peak_bytes"],
            "pot_peak_bytes": theirs["peak_bytes"],
        }
        row["faster"] = row["pot_seconds"] / row["kofn_seconds"]
        out.append(row)
        print(
            f"{kind}, reg {reg:g}: {row['kofn_seconds']:.2f} s ({row['kofn_steps']} passes, error "
            f"{row['kofn_error']:.1e}, peak {row['kofn_peak_bytes'] / 1e6:.0f} MB), POT {row['pot_seconds']:.2f} s "
            f"({row['pot_steps']} sweeps, error {row['pot_error']:.1e}, peak {row['pot_peak_bytes'] / 1e6:.0f} MB): "
            f"{row['faster']:.1f}x; values differ by {row['values_differ_by']:.1e}"
        )
    grow = [200, 400] if quick else [1000, 2000, 4000]
    seconds = [
        in_fresh_process("benchmarks.transport", {"who": "kofn", "kind": "points", "n": size, "reg": 1e-3, "seed": 1})
        for size in grow
    ]
    slope = float(np.polyfit(np.log(grow), np.log([one["seconds"] for one in seconds]), 1)[0])
    for size, one in zip(grow, seconds, strict=True):
        print(f"points, reg 0.001, n={size:,}: {one['seconds']:.2f} s, peak {one['peak_bytes'] / 1e6:.0f} MB")
    print(f"log-log slope of time in n: {slope:.2f}")
    return {"exact": exactly, "rows": out, "growth": dict(zip(map(str, grow), seconds, strict=True)), "slope": slope}
