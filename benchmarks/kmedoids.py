"""k-medoids: FasterPAM against the Rust package on one float32 matrix, and 100,000 points without a matrix.

Every run is a fresh process. On the matrix all begin with the same medoids; kofn is timed as a user calls it, with the
checks of its input and its digest, the first call in a process (with the loading of compiled code) and the second.
Without a matrix the answers are compared with FasterPAM run to the end on the same points: from a matrix where that
fits, at 100,000 points (`--rounds 3` and more) with distances computed row by row.
"""

from __future__ import annotations

import time
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks import in_fresh_process

KINDS = ("mixture", "one Gaussian")
D = 16


def points(kind: str, n: int) -> NDArray[np.float32]:
    """50 Gaussians, or a single one that has no groups to be found."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, D))
    if kind == "mixture":
        X = rng.normal(size=(50, D))[rng.integers(50, size=n)] + 0.5 * X
    return X.astype(np.float32)


def work(who: str, kind: str, n: int, k: int, threads: int) -> dict[str, Any]:
    """One timed run, in a fresh process."""
    X = points(kind, n)
    if who in ("kofn", "rust"):
        return _on_matrix(who, X, k, threads)
    from kofn.assignment import fastclara, fastclarans, fasterpam

    began = time.perf_counter()
    if who == "fastclara":
        plan = fastclara(X, k=k, seed=0, n_threads=threads)
    elif who == "fastclarans":
        plan = fastclarans(X, k=k, seed=0, n_local=1, n_threads=threads)
    elif who == "fastclarans after fastclara":
        begun = fastclara(X, k=k, seed=0, n_threads=threads)
        plan = fastclarans(X, k=k, seed=0, n_local=1, start=begun, n_threads=threads)
    else:
        plan = fasterpam(X, k=k, seed=0, n_threads=threads, max_memory=8 * 2**30 if n <= 30_000 else None)
    seconds = time.perf_counter() - began
    return {
        "seconds": seconds,
        "loss": plan.value,
        "status": plan.status,
        "distances": plan.info["distance_evals"] / n / n,
    }


def _on_matrix(who: str, X: NDArray[np.float32], k: int, threads: int) -> dict[str, Any]:
    squares = np.einsum("ij,ij->i", X, X)
    matrix = X @ X.T
    matrix *= -2
    matrix += squares
    matrix += squares[:, None]
    np.maximum(matrix, 0, out=matrix)
    np.sqrt(matrix, out=matrix)
    matrix = np.maximum(matrix, matrix.T)
    np.fill_diagonal(matrix, 0)
    start = np.random.default_rng(1).choice(len(X), k, replace=False)
    seconds = []
    for _ in range(2):
        began = time.perf_counter()
        if who == "rust":
            import kmedoids

            done = kmedoids.fasterpam(matrix, start.astype(np.uint64), max_iter=100, random_state=None, n_cpu=threads)
            loss, swaps = float(done.loss), int(done.n_swap)
        else:
            from kofn.assignment import fasterpam

            plan = fasterpam(distances=matrix, k=k, start=start, n_threads=threads)
            loss, swaps = plan.value, plan.info["swaps"]
        seconds.append(time.perf_counter() - began)
    return {"seconds": seconds[1], "first": seconds[0], "loss": loss, "swaps": swaps}


def _contest(kind: str, n: int, k: int, rounds: int) -> dict[str, Any]:
    """kofn and Rust in turn, on one thread and on two."""
    runs: dict[tuple[str, int], list[dict[str, Any]]] = {(who, t): [] for who in ("kofn", "rust") for t in (1, 2)}
    for _ in range(rounds):
        for (who, threads), done in runs.items():
            arguments = {"who": who, "kind": kind, "n": n, "k": k, "threads": threads}
            done.append(in_fresh_process("benchmarks.kmedoids", arguments))
    errors = [one["error"] for done in runs.values() for one in done if "error" in one]
    if errors:
        return {"kind": kind, "n": n, "error": errors[0]}
    out: dict[str, Any] = {"kind": kind, "n": n, "k": k}
    best = {when: min(median(one[when] for one in runs["rust", t]) for t in (1, 2)) for when in ("seconds", "first")}
    for (who, threads), done in runs.items():
        out[f"{who} {threads}"] = {
            **{when: median(one[when] for one in done) for when in ("seconds", "first")},
            "loss": done[0]["loss"],
            "swaps": done[0]["swaps"],
            "peak_bytes": max(one["peak_bytes"] for one in done),
        }
    for threads in (1, 2):
        ours, theirs = out[f"kofn {threads}"], out[f"rust {threads}"]
        out[f"times faster, {threads}"] = {
            "than Rust on as many threads": theirs["seconds"] / ours["seconds"],
            "than Rust at its best": best["seconds"] / ours["seconds"],
            "first call": theirs["first"] / ours["first"],
            "loss": ours["loss"] / theirs["loss"],
        }
    return out


def _show(row: dict[str, Any]) -> None:
    if "error" in row:
        print(f"{row['kind']:<13} {row['n']:>7,} {row['error']}")
        return
    for threads in (1, 2):
        ours, theirs, ratio = row[f"kofn {threads}"], row[f"rust {threads}"], row[f"times faster, {threads}"]
        print(
            f"{row['kind']:<13} {row['n']:>7,} {threads:>7} {theirs['seconds']:>7.2f} {ours['seconds']:>7.2f} "
            f"{ratio['than Rust on as many threads']:>7.1f} {ratio['than Rust at its best']:>7.1f} "
            f"{ratio['first call']:>7.1f} {ratio['loss']:>9.6f} {theirs['swaps']:>6} {ours['swaps']:>6} "
            f"{theirs['peak_bytes'] / 1e6:>8.0f} {ours['peak_bytes'] / 1e6:>8.0f}"
        )


def _without_matrix(kind: str, n: int, k: int, *, full: bool) -> list[dict[str, Any]]:
    names = ["fastclara", "fastclarans", "fastclarans after fastclara", *(["fasterpam"] if full else [])]
    rows = []
    for who in names:
        done = in_fresh_process("benchmarks.kmedoids", {"who": who, "kind": kind, "n": n, "k": k, "threads": 2})
        rows.append({"who": who, "kind": kind, "n": n, "k": k, **done})
    base = rows[-1].get("loss") if full else None
    for row in rows:
        if "error" in row:
            print(f"{row['who']:<28} {kind:<13} {n:>8,} {row['error']}")
            continue
        row["over_full"] = None if base is None else row["loss"] / base - 1
        over = "" if base is None else f"{row['over_full']:>+9.2%}"
        print(
            f"{row['who']:<28} {kind:<13} {n:>8,} {row['seconds']:>8.1f} {row['distances']:>9.4f} "
            f"{row['peak_bytes'] / 1e6:>8.0f} {over:>9}"
        )
    return rows


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    sizes, k = ((1_000,), 20) if quick else ((2_000, 5_000, 10_000), 100)
    matrix_rounds = 1 if quick else rounds
    print(f"\nFasterPAM on a float32 matrix, k={k}, same start: median of {matrix_rounds} rounds in turn, second call")
    print(
        f"{'points':<13} {'n':>7} {'threads':>7} {'Rust s':>7} {'kofn s':>7} {'times':>7} {'best x':>7} {'first x':>7} "
        f"{'loss':>9} {'swaps':>6} {'ours':>6} {'Rust MB':>8} {'kofn MB':>8}"
    )
    contest = []
    for kind in KINDS:
        for n in sizes:
            contest.append(_contest(kind, n, k, matrix_rounds))
            _show(contest[-1])
    print(
        f"\nwithout a matrix, d={D}, k={k}, 2 threads; distances as a share of n^2, loss against FasterPAM to the end"
    )
    print(f"{'method':<28} {'points':<13} {'n':>8} {'seconds':>8} {'of n^2':>9} {'peak MB':>8} {'loss':>9}")
    large = []
    for kind in KINDS:
        for n in (3_000,) if quick else (20_000, 100_000):
            large += _without_matrix(kind, n, k, full=n <= 20_000 or rounds >= 3)
    return {"matrix": contest, "without_matrix": large}
