"""Facility location from raw vectors: kofn, apricot (lazy) and submodlib (dense) on the same data.

Every contender runs in a process of its own, in turn, for several rounds. Warm-up calls come first, so that no
contender's compiler is timed; kofn's own first call is timed as such. The answers are compared by what they are for:
the summed distance of every row to its nearest pick.

kofn and apricot maximise c - distance. submodlib's fastest way builds its similarity in C++, and its "euclidean" is
exp(-distance / 2), so "submodlib" answers a slightly different question; "submodlib_same" is handed c - distance.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks import in_fresh_process

PEERS = ("kofn", "apricot", "submodlib", "submodlib_same")
SIZES, QUICK = (2_000, 5_000, 10_000), (1_000, 2_000)


def pool(n: int, d: int, seed: int) -> np.ndarray:
    """A mixture of 50 Gaussians of unequal width, float32."""
    rng = np.random.default_rng(seed)
    centers = rng.normal(size=(50, d)) * 3
    which = rng.integers(0, 50, n)
    width = rng.uniform(0.5, 2.0, 50)[which][:, None]
    return (centers[which] + rng.normal(size=(n, d)) * width).astype(np.float32)


def pick(who: str, X: np.ndarray, k: int) -> np.ndarray:
    """The picks of one contender under similarity c - distance."""
    if who == "kofn":
        import kofn

        return kofn.select(X, k=k, method="lazy_greedy").indices
    if who == "apricot":
        from apricot import FacilityLocationSelection
        from sklearn.metrics import pairwise_distances

        # apricot's own "euclidean" squares the distances, so it is handed the similarity that all three maximise.
        distances = pairwise_distances(X)
        selector = FacilityLocationSelection(k, metric="precomputed", optimizer="lazy", verbose=False)
        return np.asarray(selector.fit(distances.max() - distances).ranking)
    from submodlib import FacilityLocationFunction

    if who == "submodlib_same":
        from sklearn.metrics import pairwise_distances

        distances = pairwise_distances(X)
        shape = {"n": len(X), "mode": "dense", "separate_rep": False, "pybind_mode": "numpyarray"}
        rule = FacilityLocationFunction(sijs=distances.max() - distances, **shape)
        return np.array([item for item, _gain in rule.maximize(budget=k, optimizer="LazyGreedy", show_progress=False)])
    rule = FacilityLocationFunction(
        n=len(X), mode="dense", data=X, metric="euclidean", create_dense_cpp_kernel_in_python=False
    )
    return np.array([item for item, _gain in rule.maximize(budget=k, optimizer="LazyGreedy", show_progress=False)])


def loss(X: np.ndarray, picks: np.ndarray) -> float:
    """Summed distance of every row to its nearest pick, float64."""
    nearest = np.full(len(X), np.inf)
    for j in picks:
        nearest = np.minimum(nearest, np.linalg.norm(X.astype(np.float64) - X[j], axis=1))
    return float(nearest.sum())


def work(who: str, n: int, d: int, k: int, seed: int) -> dict[str, Any]:
    """One timed run, in a fresh process."""
    X = pool(n, d, seed)
    began = time.perf_counter()
    pick(who, pool(500, d, seed + 1), min(k, 50))
    first = time.perf_counter() - began
    # Some kernels only come into play above a size; let every contender compile what it will use.
    pick(who, pool(4_000, d, seed + 2), 5)
    began = time.perf_counter()
    picks = pick(who, X, k)
    seconds = time.perf_counter() - began
    return {"seconds": seconds, "first_call_500": first, "loss": loss(X, picks), "distinct": len(set(picks.tolist()))}


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    sizes = QUICK if quick else SIZES
    rounds = 1 if quick else rounds
    out: dict[str, Any] = {"contest": contest(sizes, 32, 50 if quick else 200, rounds)}
    out["growth"] = growth((2_000, 4_000) if quick else (10_000, 20_000, 40_000), 32, 200 if not quick else 20)
    out["large"] = large(5_000 if quick else 100_000, 64, 200 if not quick else 20)
    out["command_line"] = command_line(2_000 if quick else 10_000, 32, 100 if not quick else 20)
    return out


def contest(sizes: tuple[int, ...], d: int, k: int, rounds: int) -> list[dict[str, Any]]:
    """Seconds, peak memory and loss of each contender at each size, and the ratios to kofn."""
    print(f"\nfacility location, euclidean, float32, d={d}, k={k}: median of {rounds} rounds in turn")
    print(
        f"{'n':>7} {'who':<10} {'seconds':>8} {'x kofn':>7} {'peak MB':>8} {'x kofn':>7} "
        f"{'summed distance':>16} {'off':>9}"
    )
    rows: list[dict[str, Any]] = []
    for n in sizes:
        runs: dict[str, list[dict[str, Any]]] = {who: [] for who in PEERS}
        for turn in range(rounds):
            for who in PEERS:
                runs[who].append(
                    in_fresh_process("benchmarks.select", {"who": who, "n": n, "d": d, "k": k, "seed": turn})
                )
        base = runs["kofn"]
        for who in PEERS:
            bad = next((one["error"] for one in runs[who] if "error" in one), None)
            if bad:
                print(f"{n:>7} {who:<10} {bad}")
                rows.append({"n": n, "who": who, "error": bad})
                continue
            row = {
                "n": n,
                "who": who,
                "seconds": median(one["seconds"] for one in runs[who]),
                "times": median(a["seconds"] / b["seconds"] for a, b in zip(runs[who], base, strict=True)),
                "peak_bytes": median(one["peak_bytes"] for one in runs[who]),
                "peak_times": median(a["peak_bytes"] / b["peak_bytes"] for a, b in zip(runs[who], base, strict=True)),
                "loss": median(one["loss"] for one in runs[who]),
                "off": max((a["loss"] / b["loss"] - 1 for a, b in zip(runs[who], base, strict=True)), key=abs),
                "first_call_500": median(one["first_call_500"] for one in runs[who]),
            }
            rows.append(row)
            print(
                f"{n:>7} {who:<10} {row['seconds']:>8.3f} {row['times']:>7.1f} {row['peak_bytes'] / 1e6:>8.0f} "
                f"{row['peak_times']:>7.1f} {row['loss']:>16.2f} {row['off']:>+9.5%}"
            )
    first = [row["first_call_500"] for row in rows if row["who"] == "kofn" and "first_call_500" in row]
    print(f"kofn, first call on 500 rows after import: {median(first):.3f} s")
    return rows


def growth(sizes: tuple[int, ...], d: int, k: int) -> dict[str, Any]:
    """kofn's log-log slope of time in n."""
    runs = [in_fresh_process("benchmarks.select", {"who": "kofn", "n": n, "d": d, "k": k, "seed": 0}) for n in sizes]
    seconds = [one["seconds"] for one in runs]
    slope = float(np.polyfit(np.log(sizes), np.log(seconds), 1)[0])
    shown = ", ".join(f"{n:,}: {s:.2f} s" for n, s in zip(sizes, seconds, strict=True))
    print(f"\ngrowth of kofn, d={d}, k={k}: {shown}; log-log slope {slope:.2f}")
    return {"sizes": list(sizes), "seconds": seconds, "slope": slope}


def large(n: int, d: int, k: int) -> dict[str, Any]:
    """Exact greedy on a pool whose n x n matrix would not fit."""
    one = in_fresh_process("benchmarks.select", {"who": "kofn", "n": n, "d": d, "k": k, "seed": 0})
    matrix = n * n * 4
    print(
        f"\nn={n:,}, d={d}, k={k}, exact greedy: {one['seconds']:.1f} s, peak {one['peak_bytes'] / 1e6:.0f} MB for the "
        f"whole process (one float32 n x n matrix alone: {matrix / 1e9:.1f} GB)"
    )
    return one


def command_line(n: int, d: int, k: int) -> dict[str, Any]:
    """The whole `kofn select` on an NPY file, warm, and `kofn --help`."""
    with tempfile.TemporaryDirectory() as folder:
        file, out = Path(folder) / "pool.npy", Path(folder) / "picks.csv"
        np.save(file, pool(n, d, 0))
        kofn = str(Path(sys.executable).with_name("kofn"))
        times: dict[str, list[float]] = {"select": [], "help": []}
        for _ in range(4):
            for name, command in (
                ("select", [kofn, "select", str(file), "-k", str(k), "-o", str(out)]),
                ("help", [kofn, "--help"]),
            ):
                began = time.perf_counter()
                subprocess.run(command, check=True, capture_output=True)
                times[name].append(time.perf_counter() - began)
    result = {name: median(values[1:]) for name, values in times.items()}
    what = f"kofn select of {n:,} x {d} NPY, k={k}: {result['select']:.2f} s"
    print(f"\ncommand line, warm: {what}; kofn --help: {result['help']:.2f} s")
    return result
