"""Calls an update of a pool that changes, against lazy greedy run again at every update.

Every update is followed by a plan. Lazy greedy is counted in two ways: from nothing, and with every item's own worth
remembered from update to update, which is the cheapest way to run it again. "picks" deletes picked items with a tenth
of its deletes, "blind" none, "window" always the oldest item.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

SIZES, QUICK = (500, 1000, 2000, 4000, 8000, 16000, 32000), (500, 1000)
TARGET_N, TARGET_K = 20_000, 50


def one(kind: str, stream: str, n: int, k: int, updates: int, seed: int) -> dict[str, Any]:
    """One pool under one stream: calls, values and seconds, means over the updates or the four checkpoints."""
    from claims.selection.streams.p003_dynamic_submodular import items, lazy_greedy
    from kofn.selection import DynamicSelection

    rng = np.random.default_rng([seed, n, k])
    X, options = items(kind, n + updates // 2, rng)
    pool = DynamicSelection(k, seed=seed, **options)
    began = time.perf_counter()
    pool.insert(np.arange(n), X[:n])
    plan = pool.plan
    loaded, first = time.perf_counter() - began, pool.oracle_calls
    live = list(range(n))
    spent, ratios, gaps, remembered = 0.0, [], [], []
    for step in range(updates):
        began = time.perf_counter()
        if step % 2 == 0:
            fresh = n + step // 2
            pool.insert([fresh], X[fresh : fresh + 1])
            live.append(fresh)
        else:
            aimed = stream == "picks" and rng.random() < 0.1
            picked = plan.keys(plan.indices)
            gone = live[0] if stream == "window" else int(rng.choice(picked if aimed else live))
            live.remove(gone)
            pool.delete([gone])
        plan = pool.plan
        spent += time.perf_counter() - began
        if (step + 1) % (updates // 4) == 0:
            value, asked = lazy_greedy(X[np.array(live)], options, k)
            ratios.append(plan.value / value)
            gaps.append(plan.value / float(plan.bound or np.inf))
            remembered.append(asked)
    calls = (pool.oracle_calls - first) / updates
    return {
        "kind": kind,
        "stream": stream,
        "n": n,
        "k": k,
        "updates": updates,
        "calls": calls,
        "calls_an_item_loaded": first / n,
        "greedy_calls": float(np.mean(remembered)) + n,
        "remembered_calls": float(np.mean(remembered)),
        "times_fewer": (float(np.mean(remembered)) + n) / calls,
        "times_fewer_than_remembered": float(np.mean(remembered)) / calls,
        "value_to_greedy": float(np.mean(ratios)),
        "least_value_to_greedy": min(ratios),
        "value_to_bound": min(gaps),
        "milliseconds": 1e3 * spent / updates,
        "seconds_loaded": loaded,
    }


def run(*, quick: bool = False, rounds: int = 3) -> dict[str, Any]:
    """The growth with n at k = 20, and the target: 20,000 items, k = 50."""
    updates = 80 if quick else 400
    growth = []
    for kind in ("sets", "verses"):
        for stream in ("picks", "blind", "window"):
            rows = []
            for n in QUICK if quick else SIZES:
                if kind == "verses" and n > 30_000:
                    continue  # there are 31,086 verses, some of which are still to come
                runs = [one(kind, stream, n, 20, updates, seed) for seed in range(1 if quick else rounds)]
                rows.append(_mean(runs))
                _show(rows[-1])
            slope = np.polyfit(np.log([row["n"] for row in rows]), np.log([row["calls"] for row in rows]), 1)[0]
            print(f"{kind}, {stream}: log calls rise with log n by {slope:.2f}")
            growth.append({"kind": kind, "stream": stream, "slope": float(slope), "rows": rows})
    target = []
    for kind in ("sets", "heavy", "verses"):
        n = 1000 if quick else TARGET_N
        target.append(_mean([one(kind, "picks", n, TARGET_K, updates, seed) for seed in range(1 if quick else rounds)]))
        _show(target[-1])
    return {"growth": growth, "target": target}


def _mean(runs: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        name: value if isinstance(value, str) else float(np.mean([run[name] for run in runs]))
        for name, value in runs[0].items()
    }


def _show(row: dict[str, Any]) -> None:
    print(
        f"{row['kind']:7} {row['stream']:6} n={row['n']:<6.0f} k={row['k']:<3.0f} {row['calls']:7.1f} calls an update, "
        f"{row['times_fewer']:6.0f}x fewer than greedy, {row['times_fewer_than_remembered']:5.0f}x than remembered; "
        f"value {row['value_to_greedy']:.3f} of greedy's; {row['milliseconds']:.2f} ms",
        flush=True,
    )
