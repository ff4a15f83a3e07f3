"""Farthest first on 1,000,000 rows: kofn, the plain NumPy loop, and what merely reading the rows k times takes.

All in fresh processes, in turn, on the same rows. The NumPy loop is the quickest that plain NumPy has: squared norms
once, one BLAS product a pick, everything else in place. The loop of differences is timed on a few picks for
comparison. kofn is timed as a user calls it: with the checks of its input, its digest and the count of duplicate rows.
"""

from __future__ import annotations

import threading
import time
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import in_fresh_process
from benchmarks.select import pool

KINDS = ("mixture", "one Gaussian", "plane")


def rows(kind: str, n: int, d: int) -> NDArray[np.float32]:
    """50 Gaussians of unequal width; one round Gaussian; points of a plane in d dimensions with little noise."""
    if kind == "mixture":
        X: NDArray[np.float32] = pool(n, d, 0)
        return X
    rng = np.random.default_rng(0)
    if kind == "one Gaussian":
        return rng.normal(size=(n, d)).astype(np.float32)
    return (rng.normal(size=(n, 2)) @ rng.normal(size=(2, d)) + 0.01 * rng.normal(size=(n, d))).astype(np.float32)


def plain(X: NDArray[np.float32], k: int) -> NDArray[np.int64]:
    """The NumPy loop in float32, from the item nearest to the mean."""
    squares = np.einsum("ij,ij->i", X, X)
    middle = X.mean(axis=0, dtype=np.float64).astype(np.float32)
    picks = [int(np.argmin(squares - 2 * (X @ middle)))]
    near, away = np.full(len(X), np.inf, np.float32), np.empty(len(X), np.float32)
    for _ in range(k - 1):
        j = picks[-1]
        np.dot(X, X[j], out=away)
        away *= -2
        away += squares
        away += squares[j]
        np.minimum(near, away, out=near)
        picks.append(int(np.argmax(near)))
    return np.array(picks)


def differences(X: NDArray[Any], k: int) -> NDArray[np.int64]:
    """The loop as one writes it down, in float64: what all others are compared with."""
    X = X.astype(np.float64)
    picks = [int(np.argmin(((X - X.mean(axis=0)) ** 2).sum(axis=1)))]
    near = np.full(len(X), np.inf)
    for _ in range(k - 1):
        near = np.minimum(near, ((X - X[picks[-1]]) ** 2).sum(axis=1))
        picks.append(int(np.argmax(near)))
    return np.array(picks)


def read(X: NDArray[np.float32], k: int) -> float:
    """Seconds to read all of X k times, each half by a thread of its own."""
    from numba import njit, uint64

    @njit(nogil=True)
    def passes(words: Any, times: int) -> Any:
        total = uint64(0)
        for turn in range(times):
            for i in range(len(words)):
                total += words[i] ^ uint64(turn)
        return total

    words = X.reshape(-1).view(np.uint64)
    halves = (words[: len(words) // 2], words[len(words) // 2 :])
    passes(words[:64], 1)
    threads = [threading.Thread(target=passes, args=(half, k)) for half in halves]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return time.perf_counter() - began


def work(who: str, kind: str, n: int, d: int, k: int) -> dict[str, Any]:
    """One timed run, in a fresh process."""
    X = rows(kind, n, d)
    if who == "floor":
        return {"seconds": read(X, k)}
    if who == "plain":
        began = time.perf_counter()
        picks = plain(X, k)
        return {"seconds": time.perf_counter() - began, "picks": picks.tolist()}
    if who == "differences":
        few = min(k, 3)
        began = time.perf_counter()
        near = np.full(n, np.inf, np.float32)
        for j in range(few):
            near = np.minimum(near, ((X - X[j]) ** 2).sum(axis=1))
        return {"seconds": (time.perf_counter() - began) * k / few}
    from kofn.selection import farthest_first

    farthest_first(X[:5_000], k=500)
    began = time.perf_counter()
    plan = farthest_first(X, k=k)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "picks": plan.indices.tolist(),
        "passes": plan.info["distance_evals"] / n,
        "radius": plan.value,
        "bound": plan.bound,
    }


def same_picks(n: int, d: int, k: int) -> dict[str, bool]:
    """Whether kofn picks what the loop of float64 differences picks."""
    from kofn.selection import farthest_first

    return {
        kind: bool((farthest_first(X, k=k).indices == differences(X, k)).all())
        for kind, X in ((kind, rows(kind, n, d)) for kind in KINDS)
    }


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    n, d, k = (50_000, 64, 100) if quick else (1_000_000, 64, 1_000)
    rounds = 1 if quick else rounds
    print(f"\nfarthest first, n={n:,}, d={d}, k={k}, float32: median of {rounds} rounds in turn")
    print(
        f"{'rows':<13} {'floor s':>8} {'NumPy s':>8} {'kofn s':>8} {'x floor':>8} {'NumPy x':>8} {'passes':>7} "
        f"{'peak MB':>8} {'equal':>6} {'differences s':>14}"
    )
    out: list[dict[str, Any]] = []
    for kind in KINDS:
        runs: dict[str, list[dict[str, Any]]] = {who: [] for who in ("floor", "plain", "kofn")}
        for _ in range(rounds):
            for who, done in runs.items():
                done.append(in_fresh_process("benchmarks.farthest", {"who": who, "kind": kind, "n": n, "d": d, "k": k}))
        errors = [one["error"] for done in runs.values() for one in done if "error" in one]
        if errors:
            print(f"{kind:<13} {errors[0]}")
            out.append({"kind": kind, "error": errors[0]})
            continue
        slow = in_fresh_process("benchmarks.farthest", {"who": "differences", "kind": kind, "n": n, "d": d, "k": k})
        seconds = {who: median(one["seconds"] for one in done) for who, done in runs.items()}
        ours, theirs = runs["kofn"][0], runs["plain"][0]
        row = {
            "kind": kind,
            "n": n,
            "d": d,
            "k": k,
            **seconds,
            "differences_extrapolated": slow["seconds"],
            "times_floor": median(
                a["seconds"] / b["seconds"] for a, b in zip(runs["kofn"], runs["floor"], strict=True)
            ),
            "plain_times": median(
                a["seconds"] / b["seconds"] for a, b in zip(runs["plain"], runs["kofn"], strict=True)
            ),
            "passes": ours["passes"],
            "peak_bytes": ours["peak_bytes"],
            "radius": ours["radius"],
            "bound": ours["bound"],
            "equal_picks": sum(a == b for a, b in zip(ours["picks"], theirs["picks"], strict=True)),
        }
        out.append(row)
        print(
            f"{kind:<13} {seconds['floor']:>8.2f} {seconds['plain']:>8.2f} {seconds['kofn']:>8.2f} "
            f"{row['times_floor']:>8.2f} {row['plain_times']:>8.1f} {row['passes']:>7.1f} "
            f"{row['peak_bytes'] / 1e6:>8.0f} {row['equal_picks']:>6} {row['differences_extrapolated']:>14.0f}"
        )
    exact = same_picks(20_000, d, 200)
    print(f"the picks of a loop of float64 differences, 20,000 rows, k=200: {exact}")
    return {"contest": out, "same_picks_as_float64": exact}
