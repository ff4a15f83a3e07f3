"""Selection from a pool too large for all pairs: from file to plan, and what judging by a sample of the rows costs.

Processor seconds are those of the whole command, so that they say the same on a machine that is busy; on two cores that
are free it takes about half as many seconds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import in_fresh_process
from benchmarks.select import pool as mixture


def noise(n: int, d: int, seed: int) -> np.ndarray:
    """Rows without structure, float32: no two are near and no distance tells of another."""
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


POOLS = {"noise": noise, "50 clusters": mixture}


def work(who: str, pool: str, n: int, d: int, k: int, seed: int) -> dict[str, Any]:
    """One selection, in a fresh process; `sampled_greedy` with as many rows as auto takes of 100,000 x 384."""
    import kofn

    X = POOLS[pool](n, d, seed)
    options = {"reference": min(n, 4_807)} if who == "sampled_greedy" else None
    words: dict[str, Any] = {"method": who, "options": options} | ({} if who == "lazy_greedy" else {"seed": seed})
    before = time.process_time()
    plan = kofn.select(X, k=k, **words)
    cpu, objective = time.process_time() - before, None
    if who == "random_sample":
        from kofn.objectives.facility_location import FacilityLocation

        objective = FacilityLocation(X)
    value = plan.value if objective is None else objective.value(plan.indices)
    distance = plan.info["distance"] if objective is None else objective.in_distances(value, None)["distance"]
    return {"cpu_seconds": cpu, "value": value, "distance": distance}


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    out: dict[str, Any] = {"command_line": command_line(2_000 if quick else 100_000, 384, 20 if quick else 1_000)}
    seeds = range(1 if quick else rounds)
    out["cost_in_value"] = cost_in_value(2_000 if quick else 20_000, 64, (20,) if quick else (20, 200, 1_000), seeds)
    return out


def command_line(n: int, d: int, k: int) -> dict[str, Any]:
    """`kofn select FILE -k K` on float16 vectors, with the method that it takes by itself."""
    print(f"\nkofn select of {n:,} x {d} float16 NPY, k={k:,}, {os.cpu_count()} cores, from file to plan")
    code = (
        "import sys, time; from kofn.cli import main; from benchmarks import peak\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        "print(time.process_time(), peak())"
    )
    out = {}
    for name, make in POOLS.items():
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "pool.npy"
            np.save(file, make(n, d, 0).astype(np.float16))
            began = time.perf_counter()
            words = ["select", str(file), "-k", str(k), "--seed", "0", "--json"]
            done = subprocess.run([sys.executable, "-c", code, *words], check=True, capture_output=True, text=True)
            seconds = time.perf_counter() - began
        answer, _, held = done.stdout.strip().rpartition("\n")
        method = json.loads(answer)["method"]
        cpu, peak_bytes = (float(word) for word in held.split())
        out[name] = {"method": method, "seconds": seconds, "cpu_seconds": cpu, "peak_bytes": peak_bytes}
        print(
            f"{name:>12} {method}: {seconds:.1f} s, {cpu:.1f} processor s, "
            f"peak {peak_bytes / 1e6:.0f} MB for the whole process",
            flush=True,
        )
    return out


def cost_in_value(n: int, d: int, counts: tuple[int, ...], seeds: range) -> list[dict[str, Any]]:
    """Value and mean distance to the nearest pick against greedy search on all rows, where that is feasible."""
    print(f"\na sample of {min(n, 4_807):,} rows against all {n:,} x {d}: means of {len(seeds)} pools")
    print(
        f"{'pool':>12} {'k':>6} {'value lost':>11} {'distance':>9} {'all rows':>9} {'random':>9} {'more':>7} "
        f"{'cpu s':>6} {'all rows':>9}"
    )
    rows = []
    for name in POOLS:
        for k in counts:
            runs: dict[str, list[dict[str, Any]]] = {
                who: [
                    in_fresh_process(
                        "benchmarks.sampled", {"who": who, "pool": name, "n": n, "d": d, "k": k, "seed": seed}
                    )
                    for seed in seeds
                ]
                for who in ("sampled_greedy", "lazy_greedy", "random_sample")
            }
            ours, every, random = (
                {what: float(np.mean([one[what] for one in runs[who]])) for what in runs[who][0]} for who in runs
            )
            row = {"pool": name, "n": n, "k": k, "sampled": ours, "all_rows": every, "random": random}
            row["value_lost"] = 1 - ours["value"] / every["value"]
            row["more_distance"] = ours["distance"] / every["distance"] - 1
            rows.append(row)
            print(
                f"{name:>12} {k:>6,} {row['value_lost']:>11.3%} {ours['distance'] / n:>9.3f} "
                f"{every['distance'] / n:>9.3f} {random['distance'] / n:>9.3f} {row['more_distance']:>+7.2%} "
                f"{ours['cpu_seconds']:>6.1f} {every['cpu_seconds']:>9.1f}",
                flush=True,
            )
    return rows
