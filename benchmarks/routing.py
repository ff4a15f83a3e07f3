"""Routing of experts: exactly balanced assignment against SciPy, and scores a second of capped routing.

SciPy's `linear_sum_assignment` solves the same problem on a table whose columns stand once for every place in a bin.
Both answers are summed on the same scores; kofn's is held to SciPy's and to its own bound. Tables are normal, clustered
(what a trained router says) or skewed towards a few bins. Greedy deferred acceptance is shown beside.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np

KINDS = ("normal", "clustered", "skewed")
BALANCED, QUICK_BALANCED = (1_024, 2_048, 4_096), (256, 512)
GROWTH, QUICK_GROWTH = (4_096, 16_384, 65_536), (512, 2_048)
BINS = 16
CAPPED, QUICK_CAPPED = (65_536, 64), (2_048, 16)


def table(kind: str, n: int, bins: int, seed: int) -> np.ndarray:
    """(n, bins) scores, float32."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(n, bins))
    if kind == "clustered":
        centres = rng.normal(size=(12, 32))
        tokens = centres[rng.choice(12, n, p=rng.dirichlet(np.ones(12)))] + 0.5 * rng.normal(size=(n, 32))
        scores = tokens @ rng.normal(size=(32, bins)) / np.sqrt(32)
    elif kind == "skewed":
        scores -= 2 * np.log(1 + rng.permutation(bins))
    return scores.astype(np.float32)


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    rounds = 1 if quick else rounds
    return {
        "balanced": contest(QUICK_BALANCED if quick else BALANCED, rounds),
        "growth": growth(QUICK_GROWTH if quick else GROWTH, rounds),
        "capped": capped(*(QUICK_CAPPED if quick else CAPPED), rounds),
    }


def contest(sizes: tuple[int, ...], rounds: int) -> list[dict[str, Any]]:
    """Seconds and totals of both."""
    from scipy.optimize import linear_sum_assignment

    from kofn.assignment import balanced_assignment, capped_routing

    print(f"\nbalanced assignment, {BINS} bins, float32: kofn's median of {rounds} rounds, SciPy once")
    print(
        f"{'n':>7} {'scores':<10} {'kofn s':>9} {'scipy s':>9} {'ratio':>8} {'from optimum':>13} {'greedy from it':>15}"
    )
    rows = []
    for n in sizes:
        for kind in KINDS:
            scores = table(kind, n, BINS, 0)
            balanced_assignment(scores)
            taken = []
            for _ in range(rounds):
                began = time.perf_counter()
                plan = balanced_assignment(scores)
                taken.append(time.perf_counter() - began)
            # SciPy takes half a minute at the largest size: once is enough.
            began = time.perf_counter()
            wide = np.repeat(scores, n // BINS, axis=1)
            items, places = linear_sum_assignment(wide, maximize=True)
            theirs = time.perf_counter() - began
            best = float(wide[items, places].astype(np.float64).sum())
            if (np.bincount(plan.bins, minlength=BINS) != n // BINS).any() or plan.gap != 0.0:
                raise AssertionError("not balanced, or not proven optimal")
            greedy = capped_routing(scores, capacity=n // BINS, overflow="reroute").value
            row = {
                "n": n,
                "scores": kind,
                "kofn": median(taken),
                "scipy": theirs,
                "ratio": theirs / median(taken),
                "from_optimum": (best - plan.value) / abs(best),
                "greedy_from_optimum": (best - greedy) / abs(best),
            }
            rows.append(row)
            print(
                f"{n:>7} {kind:<10} {row['kofn']:>9.4f} {row['scipy']:>9.3f} {row['ratio']:>7.0f}x "
                f"{row['from_optimum']:>13.1e} {row['greedy_from_optimum']:>15.1e}",
                flush=True,
            )
    return rows


def growth(sizes: tuple[int, ...], rounds: int) -> dict[str, Any]:
    """How kofn's seconds grow with n, as the slope of their logarithms."""
    from kofn.assignment import balanced_assignment

    out: dict[str, Any] = {}
    print(f"\nbalanced assignment, {BINS} bins: seconds by n = {', '.join(f'{n:,}' for n in sizes)}")
    for kind in KINDS:
        seconds = []
        for n in sizes:
            scores = table(kind, n, BINS, 0)
            balanced_assignment(scores)
            taken = []
            for _ in range(rounds):
                began = time.perf_counter()
                balanced_assignment(scores)
                taken.append(time.perf_counter() - began)
            seconds.append(median(taken))
        slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
        out[kind] = {"n": list(sizes), "seconds": seconds, "slope": slope}
        print(f"{kind:<10} {' '.join(f'{one:>9.4f}' for one in seconds)}   grows as n^{slope:.2f}")
    return out


def capped(n: int, bins: int, rounds: int) -> list[dict[str, Any]]:
    """Scores read a second by top-2 routing under a capacity of the mean load and a quarter."""
    from kofn.assignment import capped_routing

    capacity = -(-5 * n * 2 // (4 * bins))
    print(f"\ntop-2 capped routing, n={n:,}, {bins} bins, capacity {capacity}, float32: median of {rounds} rounds")
    rows = []
    for kind in KINDS:
        for overflow in ("drop", "reroute"):
            scores = table(kind, n, bins, 0)
            taken = []
            for _ in range(rounds + 1):
                began = time.perf_counter()
                plan = capped_routing(scores, capacity=capacity, per_item=2, overflow=overflow)
                taken.append(time.perf_counter() - began)
            # The first call loads compiled code.
            seconds = median(taken[1:])
            if np.bincount(plan.bins, minlength=bins).max() > capacity:
                raise AssertionError("over capacity")
            speed = scores.size / seconds
            rows.append({"scores": kind, "overflow": overflow, "seconds": seconds, "a_second": speed})
            print(f"{kind:<10} {overflow:<8} {seconds:>8.4f} s   {speed / 1e6:>7.1f} million scores a second")
    return rows
