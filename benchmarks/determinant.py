"""Log-determinant greedy: kofn against the plain Cholesky-update loop in NumPy, same picks.

The loop is fast greedy MAP inference (Chen, Zhang, Zhou 2018) as written down: at each step one kernel row from X, one
product of all rows of the factor so far, every residual brought up to date. Its arrays are allocated once and laid out
so that both products read along memory. Every contender runs in a process of its own, in turn, for several rounds, with
the same BLAS and as many threads.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np

from benchmarks import in_fresh_process

WHO = ("kofn", "loop")


def pool(kind: str, n: int, d: int, seed: int) -> np.ndarray:
    """ "gauss": one cloud; "mixture": 50 clouds of unequal width."""
    rng = np.random.default_rng(seed)
    if kind == "gauss":
        return rng.normal(size=(n, d)) / np.sqrt(d)
    which = rng.integers(0, 50, n)
    width = rng.uniform(0.5, 2.0, 50)[which][:, None]
    return (rng.normal(size=(50, d))[which] + rng.normal(size=(n, d)) * width) / np.sqrt(d)


def loop(X: np.ndarray, k: int, kernel: str, scale: float) -> list[int]:
    """The baseline: log det(I + L_S) greedily, every item looked at in every step."""
    n = len(X)
    factor, scratch = np.empty((k, n)), np.empty(n)
    squares = np.einsum("ij,ij->i", X, X)
    residual = 1 + (squares if kernel == "linear" else np.ones(n))
    picks: list[int] = []
    for t in range(k):
        item = int(np.argmax(residual))
        picks.append(item)
        row = X @ X[item]
        if kernel == "rbf":
            row *= -2
            row += squares
            row += squares[item]
            row *= -0.5 / scale**2
            np.exp(row, out=row)
        new = factor[t]
        np.dot(factor[:t, item], factor[:t], out=new)
        np.subtract(row, new, out=new)
        new /= np.sqrt(residual[item])
        np.multiply(new, new, out=scratch)
        residual -= scratch
        residual[item] = -np.inf
    return picks


def work(who: str, kind: str, kernel: str, n: int, d: int, k: int, seed: int) -> dict[str, Any]:
    """One timed run, in a fresh process, after a small one that loads what is needed."""
    scale = 1.0

    def pick(X: np.ndarray, k: int) -> list[int]:
        if who == "loop":
            return loop(X, k, kernel, scale)
        import kofn

        objective = "log_determinant" if kernel == "linear" else f"log_determinant(kernel='rbf', scale={scale})"
        return kofn.select(X, k=k, method="lazy_greedy", objective=objective).indices.tolist()

    pick(pool(kind, 2_000, d, seed + 1), 20)
    X = pool(kind, n, d, seed)
    began = time.perf_counter()
    picks = pick(X, k)
    return {"seconds": time.perf_counter() - began, "picks": picks}


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    n, d, k = (3_000, 32, 50) if quick else (20_000, 128, 500)
    rounds = 1 if quick else rounds
    out: dict[str, Any] = {"contest": [], "growth": {}}
    print(f"\nlog det(I + L), float64, n={n:,}, d={d}, k={k}: median of {rounds} rounds in turn")
    print(f"{'pool':<8} {'kernel':<7} {'who':<5} {'seconds':>8} {'x kofn':>7} {'peak MB':>8} {'same picks':>11}")
    for kind in ("gauss", "mixture"):
        for kernel in ("linear", "rbf"):
            out["contest"] += _contest(kind, kernel, n, d, k, rounds)
    sizes = (2_000, 4_000) if quick else (10_000, 20_000, 40_000, 80_000)
    for who in WHO:
        runs = [_one(who, "gauss", "linear", size, d, min(k, 300), 0) for size in sizes]
        seconds = [one["seconds"] for one in runs]
        slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
        shown = ", ".join(f"{size:,}: {s:.2f} s" for size, s in zip(sizes, seconds, strict=True))
        print(f"growth of {who}, linear, d={d}, k={min(k, 300)}: {shown}; log-log slope {slope:.2f}")
        out["growth"][who] = {"sizes": list(sizes), "seconds": seconds, "slope": slope}
    return out


def _contest(kind: str, kernel: str, n: int, d: int, k: int, rounds: int) -> list[dict[str, Any]]:
    runs: dict[str, list[dict[str, Any]]] = {who: [] for who in WHO}
    for turn in range(rounds):
        for who in WHO:
            runs[who].append(_one(who, kind, kernel, n, d, k, turn))
    same = all(a["picks"] == b["picks"] for a, b in zip(runs["kofn"], runs["loop"], strict=True))
    rows = []
    for who in WHO:
        row = {
            "pool": kind,
            "kernel": kernel,
            "who": who,
            "seconds": median(one["seconds"] for one in runs[who]),
            "times": median(a["seconds"] / b["seconds"] for a, b in zip(runs[who], runs["kofn"], strict=True)),
            "peak_bytes": median(one["peak_bytes"] for one in runs[who]),
            "same_picks": same,
        }
        rows.append(row)
        print(
            f"{kind:<8} {kernel:<7} {who:<5} {row['seconds']:>8.3f} {row['times']:>7.1f} "
            f"{row['peak_bytes'] / 1e6:>8.0f} {same!s:>11}"
        )
    return rows


def _one(who: str, kind: str, kernel: str, n: int, d: int, k: int, seed: int) -> dict[str, Any]:
    given = {"who": who, "kind": kind, "kernel": kernel, "n": n, "d": d, "k": k, "seed": seed}
    done = in_fresh_process("benchmarks.determinant", given)
    if "error" in done:
        raise RuntimeError(f"{who} on {given}: {done['error']}")
    return done
