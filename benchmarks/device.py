"""Facility location, farthest first and FasterPAM on a device against the processor: answers, time, pairs looked at.

It runs on a GPU where torch sees one, else on torch's own processor, where it shows that the answers are equal and how
many pairs were looked at, which no device changes; seconds then say nothing about a GPU.

What facility location of n = 1,000,000 rows of d = 384 float32 features, k = 10,000, costs on one H200 (67 TFLOP/s of
float32 without TF32, 67 of float64 on its tensor cores, 4.8 TB/s), by arithmetic:

    one look at all pairs     2 n^2 d = 7.7e14 flop: 11.5 s at the peak
    its bounds, from above    16 passes over 4 bytes a pair in PyTorch's kernels, 6.4e13 bytes: 13.3 s from memory, less
                              as far as blocks of 2^23 pairs stay in the 50 MB of cache
    a pick                    X once for its own costs, 1.5 GB: 0.3 ms; about 60 kernels and 8 waits: 0.5 ms; masks of n
                              rows on the processor: about 0.8 ms; 10,000 picks: 16 s

How many looks it takes in all is counted by this benchmark: 3.3 with distances and 4.3 with cosines for 8,000 rows and
80 picks of 50 Gaussians. First gains are one of them with distances, and follow from sums with cosines and squared
distances; the first pick changes every item, which is another; all later picks look again at what changed, for the
candidates in question. So the products alone take 38 to 50 s at the peak, bounds another 44 to 58 s: 60 s are not
attainable by this arithmetic in float32 with PyTorch's kernels. A kernel that adds up bounds within the product would
come to 54 to 66 s at the peak. Memory: 2 n d numbers of 4 bytes for rows and rows around their mean, 96 bytes a row,
and blocks: 3.7 GB.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.select import pool

# Of the H200: float32 without TF32, and memory.
_FLOPS, _BYTES = 67e12, 4.8e12
_BYTES_A_PAIR = {"from above": 64, "both sides": 116}
_A_PICK = 1.3e-3


def seconds_on_an_h200(n: int, d: int, k: int, passes: float) -> dict[str, float]:
    """What the cost model above says of so many looks at all pairs, at the peak of both arithmetic and memory."""
    pairs = passes * float(n) ** 2
    return {
        "products": 2 * d * pairs / _FLOPS,
        "bounds": _BYTES_A_PAIR["from above"] * pairs / _BYTES,
        "picks": k * (_A_PICK + 4 * n * d / _BYTES),
    }


def contest(work: Callable[..., Any], device: str, rounds: int) -> dict[str, Any]:
    """The same work on the processor and on the device, in turn: seconds of the fastest round, and the plans."""
    out: dict[str, Any] = {}
    for _ in range(rounds):
        for where in ("cpu", device):
            began, before = time.perf_counter(), time.process_time()
            plan = work(device=where)
            seconds, cpu = time.perf_counter() - began, time.process_time() - before
            if where not in out or seconds < out[where][0]:
                out[where] = seconds, cpu, plan
    return out


def answer(plan: Any) -> tuple[Any, ...]:
    """What must be equal: picks and gains, or medoids and labels, and the value."""
    if hasattr(plan, "indices"):
        return plan.indices.tolist(), plan.gains.tobytes(), plan.value
    return plan.medoids.tolist(), plan.labels.tobytes(), plan.value


def rows(n: int, d: int) -> NDArray[np.float32]:
    """50 Gaussians of unequal width."""
    X: NDArray[np.float32] = pool(n, d, 0)
    return X


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    import torch

    from kofn.assignment import fasterpam
    from kofn.objectives import _device_facility_location
    from kofn.selection import farthest_first, lazy_greedy

    gpu = torch.cuda.is_available()
    if not gpu:
        torch.set_num_threads(1)
    device = "cuda" if gpu else "torch:cpu"
    name = torch.cuda.get_device_name() if gpu else "torch's processor: seconds say nothing about a GPU"
    print(f"\nfacility location, farthest first, FasterPAM on {name}; float32")
    n, d, k = (1_000, 16, 10) if quick else (200_000, 384, 2_000) if gpu else (8_000, 64, 80)
    rounds = 1 if quick else rounds
    X = rows(n, d)
    # As in pools that are too large to be looked at as a whole for the bound's sake.
    _device_facility_location._SOON = 0
    works: dict[str, Callable[..., Any]] = {
        f"facility location, {metric}": lambda metric=metric, **where: lazy_greedy(X, k=k, metric=metric, **where)
        for metric in ("euclidean", "cosine", "rbf")
    }
    works["farthest first"] = lambda **where: farthest_first(X, k=k, **where)
    works["FasterPAM"] = lambda **where: fasterpam(X, k=min(k, 100), seed=0, **where)
    print(f"n={n:,}, d={d}, k={k}; looks at all pairs on the device, seconds (of processors)")
    print(f"{'':<30} {'same':>5} {'looks':>7} {'cpu':>8} {'device':>8} {'x':>6}")
    out: dict[str, Any] = {"device": name, "n": n, "d": d, "k": k, "works": {}}
    for label, work in works.items():
        runs = contest(work, device, rounds)
        (_, cpu, plain), (seconds, there, plan) = runs["cpu"], runs[device]
        mine, theirs = (seconds, runs["cpu"][0]) if gpu else (there, cpu)
        passes = plan.info["distance_evals"] / n**2
        row = {"same": answer(plan) == answer(plain), "passes": passes, "cpu": theirs, "device": mine}
        out["works"][label] = row
        print(
            f"{label:<30} {row['same']!s:>5} {passes:>7.2f} {theirs:>8.2f} {mine:>8.2f} {theirs / mine:>6.2f}",
            flush=True,
        )
    if gpu and not quick:
        out["target"] = _target(device)
    model = seconds_on_an_h200(1_000_000, 384, 10_000, out["works"]["facility location, cosine"]["passes"])
    shown = ", ".join(f"{part} {seconds:.0f} s" for part, seconds in model.items())
    print(f"the cost model for 1,000,000 x 384, k=10,000 on an H200 with as many looks (cosine): {shown}")
    out["model"] = model
    return out


def _target(device: str) -> dict[str, Any]:
    """1,000,000 x 384, k = 10,000, under a limit of ten minutes."""
    from kofn.selection import lazy_greedy

    X = rows(1_000_000, 384)
    began = time.perf_counter()
    plan = lazy_greedy(X, k=10_000, metric="cosine", device=device, time_limit=600)
    row = {"seconds": time.perf_counter() - began, "picked": plan.info.get("found_in_time", len(plan))}
    print(f"1,000,000 x 384, cosine, k=10,000: {row['picked']:,} picks in {row['seconds']:.1f} s")
    return row
