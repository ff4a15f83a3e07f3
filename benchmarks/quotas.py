"""Quotas over columns of 50 groups: facility location with none, with one column and with three.

All in fresh processes, in turn, on the same 20,000 rows and labels; and once on 100,000, where all pairs take half a
minute of processor time. Each group that is large enough has a least and a most around an even share. The lines also
say what quotas cost in value, and how often top_k by score takes the optimum.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np

from benchmarks import in_fresh_process
from benchmarks.select import pool

GROUPS = 50
COLUMNS = ("a", "b", "c")


def quotas_of(n: int, k: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """Labels of three columns whose groups are of unequal size, and quotas around an even share."""
    rng = np.random.default_rng(0)
    groups = {name: rng.choice(GROUPS, n, p=rng.dirichlet(np.ones(GROUPS))) for name in COLUMNS}
    share = k / GROUPS
    quotas = {
        name: {
            group: (int(0.7 * share), int(1.4 * share) + 1)
            for group, size in enumerate(np.bincount(labels, minlength=GROUPS).tolist())
            if size >= k
        }
        for name, labels in groups.items()
    }
    return groups, quotas


def work(n: int, k: int, columns: int, method: str) -> dict[str, Any]:
    """One selection under quotas over so many columns."""
    import kofn

    rng = np.random.default_rng(1)
    X, scores = pool(n, 16, 0), rng.random(n)
    groups, quotas = quotas_of(n, k)
    names = COLUMNS[:columns]
    where = {"groups": {c: groups[c] for c in names}, "quotas": {c: quotas[c] for c in names}} if names else {}
    source: dict[str, Any] = {"X": X} if method == "lazy_greedy" else {"scores": scores}
    small = {word: value[:2500] for word, value in source.items()}
    select: Any = kofn.select
    select(**small, k=5, method=method)
    began, processor = time.perf_counter(), time.process_time()
    plan = select(**source, k=k, method=method, **where)
    return {
        "seconds": time.perf_counter() - began,
        "processor": time.process_time() - processor,
        "value": plan.value,
        "bound": plan.bound,
        "status": plan.status,
    }


def run(quick: bool, rounds: int) -> dict[str, Any]:
    """Every case in turn, medians printed beside those without quotas."""
    results: dict[str, Any] = {}
    for n, times in ((5_000, 1),) if quick else ((20_000, rounds), (100_000, 1)):
        for method in ("lazy_greedy", "top_k"):
            results[f"{method} of {n}"] = compare(n, 100, method, times)
    return results


def compare(n: int, k: int, method: str, rounds: int) -> dict[int, list[dict[str, Any]]]:
    """One method with none, one and three columns of quotas, in turn; medians printed beside those without."""
    measured: dict[int, list[dict[str, Any]]] = {0: [], 1: [], 3: []}
    for _ in range(rounds):
        for columns, outcomes in measured.items():
            call = {"n": n, "k": k, "columns": columns, "method": method}
            outcomes.append(in_fresh_process("benchmarks.quotas", call))
    free = median(outcome.get("processor", np.nan) for outcome in measured[0])
    for columns, outcomes in measured.items():
        if failed := [outcome["error"] for outcome in outcomes if "error" in outcome]:
            print(f"{method}, {columns} columns: {failed[0]}")
            continue
        seconds = median(outcome["processor"] for outcome in outcomes)
        value = outcomes[0]["value"] / measured[0][0]["value"]
        print(
            f"{method} k={k} of {n:,}, quotas over {columns} columns: {seconds:.2f} processor s "
            f"({seconds / free:.2f}x no quotas), value {value:.2%} of that without, {outcomes[0]['status']}",
            flush=True,
        )
    return measured
