"""Two-round greedy on pools of up to a million rows: processor time, growth in n, memory, and what it loses.

Processor seconds are those of the whole process, so that they say the same on a machine that is busy. The pool lies in
a memory-mapped file, so that the peak is that of the work and of the pages that were read.
"""

from __future__ import annotations

import math
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import in_fresh_process, peak


def mixture(n: int, d: int, seed: int) -> np.ndarray:
    """Rows around 200 centres that lie as far apart as the rows around each are spread, float32."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(200, d))
    return (centres[rng.integers(200, size=n)] + rng.normal(size=(n, d))).astype(np.float32)


def work(who: str, path: str, k: int, options: dict[str, Any]) -> dict[str, Any]:
    """One selection, in a fresh process."""
    import kofn

    X = np.load(path, mmap_mode="r")
    kofn.select(X[:5_000], k=5, method="two_round_greedy", part_rows=500, seed=0)  # loads what is compiled
    before = time.process_time()
    words: dict[str, Any] = {"method": who, "options": options} | ({} if who == "lazy_greedy" else {"seed": 0})
    plan = kofn.select(X, k=k, **words)
    cpu = time.process_time() - before
    info = plan.info
    return {
        "cpu_seconds": cpu,
        "distance": info.get("distance"),
        "distance_bound": info.get("distance_bound"),
        "candidates": info.get("candidates"),
        "peak_bytes": peak(),
    }


def run(*, quick: bool, rounds: int) -> dict[str, Any]:  # noqa: ARG001 (one round: the picks are the same in each)
    """Prints what it measures: against exact greedy at the smallest size, and the growth in n."""
    sizes, d, k = ((4_000, 8_000), 16, 10) if quick else ((100_000, 300_000, 1_000_000), 64, 100)
    out: dict[str, Any] = {"d": d, "k": k, "sizes": {}}
    print(f"\ntwo_round_greedy, d={d}, k={k}")
    print(f"{'n':>10} {'method':>28} {'cpu s':>8} {'peak MB':>8} {'distance':>14} {'bound':>14} {'candidates':>10}")
    with tempfile.TemporaryDirectory() as folder:
        for n in sizes:
            path = Path(folder) / f"{n}.npy"
            np.save(path, mixture(n, d, 0))
            asked: dict[str, tuple[str, dict[str, Any]]] = {
                "two_round_greedy": ("two_round_greedy", {"part_rows": 500} if quick else {}),
                "without a bound": ("two_round_greedy", {"bound_rows": 0}),
            }
            if n == sizes[0]:
                asked["lazy_greedy"] = ("lazy_greedy", {})
            else:
                asked["sampled_greedy"] = ("sampled_greedy", {})
            rows = {}
            for name, (who, options) in asked.items():
                words = {"who": who, "path": str(path), "k": k, "options": options}
                row = rows[name] = in_fresh_process("benchmarks.two_round", words)
                bound = "" if row["distance_bound"] is None else f"{row['distance_bound']:,.0f}"
                print(
                    f"{n:>10,} {name:>28} {row['cpu_seconds']:>8.1f} {row['peak_bytes'] / 1e6:>8.0f} "
                    f"{row['distance']:>14,.0f} {bound:>14} {row['candidates'] or '':>10}",
                    flush=True,
                )
            out["sizes"][n] = rows
    first, last = (out["sizes"][n] for n in (sizes[0], sizes[-1]))
    more = first["two_round_greedy"]["distance"] / first["lazy_greedy"]["distance"] - 1
    growth = last["two_round_greedy"]["cpu_seconds"] / first["two_round_greedy"]["cpu_seconds"]
    out["more_distance"] = more
    out["slope"] = math.log(growth) / math.log(sizes[-1] / sizes[0])
    print(f"{more:+.2%} distance over exact greedy at {sizes[0]:,}; time grows as n^{out['slope']:.2f}")
    return out
