"""Pools in files: what reading Parquet in blocks takes whatever its row groups, and `kofn select` of files of 1M rows.

`KOFN_BENCHMARK_ROWS=8000000` selects from so many rows. Processor seconds and peaks are those of a process of its own,
with what the interpreter and the libraries take.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from benchmarks import in_fresh_process, peak

GROUPS = (8_192, 125_000, 500_000)


def write_pool(folder: Path, n: int, d: int, rows_a_file: int, group: int) -> str:
    """Parquet files of rows around 2,000 centres, float32, and the glob that names them."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(2_000, d)).astype(np.float32)
    for i, start in enumerate(range(0, n, rows_a_file)):
        m = min(rows_a_file, n - start)
        X = centres[rng.integers(0, 2_000, m)] + rng.normal(size=(m, d), scale=0.7).astype(np.float32)
        frame = pl.DataFrame({"id": np.arange(start, start + m), "x": X.astype(np.float32)})
        frame.write_parquet(folder / f"part-{i:03}.parquet", row_group_size=group)
    return str(folder / "part-*.parquet")


def work(who: str, path: str) -> dict[str, Any]:
    """One pass over a file's vectors in blocks, in a fresh process."""
    from kofn import Pool
    from kofn.io.batches import row_batches

    before, cpu = peak(), time.process_time()
    rows = 0
    if who == "kofn blocks":
        rows = sum(map(len, row_batches(path, vectors="x")))
    elif who == "kofn pool":
        pool = Pool.open(path, vectors="x")
        rows = sum(len(pool.read(fragment)) for fragment in pool.fragments())
    else:
        for frame in pl.scan_parquet(path).select("x").collect_batches(chunk_size=8192, maintain_order=True):
            rows += len(frame["x"].explode().to_numpy().reshape(len(frame), -1))
    return {"rows": rows, "cpu_seconds": time.process_time() - cpu, "more_bytes": peak() - before}


def command(source: str, k: int, output: Path, *more: str) -> dict[str, Any]:
    """`kofn select` of a glob: wall and processor seconds, peak bytes, and what it printed."""
    words = [
        sys.executable,
        "-m",
        "kofn",
        "select",
        source,
        "--vectors",
        "x",
        "--id",
        "id",
        "-k",
        str(k),
        "--seed",
        "0",
    ]
    script = (
        "import resource, subprocess, sys; done = subprocess.run(sys.argv[1:], capture_output=True, text=True); "
        "used = resource.getrusage(resource.RUSAGE_CHILDREN); "
        "print(done.stdout + done.stderr); print(used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, done.returncode)"
    )
    began = time.perf_counter()
    asked = [*words, "-o", str(output), "--drop", "x", *more]
    done = subprocess.run([sys.executable, "-c", script, *asked], capture_output=True, text=True, check=True)
    *lines, figures = done.stdout.strip().splitlines()
    cpu, most, code = figures.split()
    if int(code):
        raise RuntimeError("\n".join(lines))
    return {"seconds": time.perf_counter() - began, "cpu_seconds": float(cpu), "peak_bytes": int(most), "lines": lines}


def run(*, quick: bool, rounds: int) -> dict[str, Any]:  # noqa: ARG001 (one round: files and picks are the same in each)
    """Prints what it measures."""
    d, n, k = (16, 20_000, 10) if quick else (64, 500_000, 100)
    groups = (1_000, 20_000) if quick else GROUPS
    rows = int(os.environ.get("KOFN_BENCHMARK_ROWS", 20_000 if quick else 1_000_000))
    out: dict[str, Any] = {"read": {}, "select": {}}
    print(f"\nreading {n:,} x {d} float32 from Parquet in blocks, one pass")
    print(f"{'rows a group':>14} {'who':>16} {'cpu s':>8} {'more MB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        for group in groups:
            path = write_pool(Path(folder), n, d, n, group).replace("*", "000")
            for who in ("kofn blocks", "kofn pool", "polars batches"):
                row = out["read"][f"{group} {who}"] = in_fresh_process("benchmarks.pool", {"who": who, "path": path})
                print(f"{group:>14,} {who:>16} {row['cpu_seconds']:>8.2f} {row['more_bytes'] / 1e6:>8.0f}", flush=True)
    print(f"\nkofn select of {rows:,} x {d} in Parquet files of a million rows, one row group each, k={k}")
    with tempfile.TemporaryDirectory() as folder:
        source = write_pool(Path(folder), rows, d, min(rows, 1_000_000), 1_000_000)
        for name, more in (
            ("in parts", ("-m", "two_round_greedy")),
            ("beforehand", ("--dry-run", "--part-rows", "2500")),
        ):
            row = out["select"][name] = command(source, k, Path(folder) / "picks.csv", *more)
            print(
                f"{name}: {row['seconds']:.1f} s, {row['cpu_seconds']:.1f} s of processor, at most "
                f"{row['peak_bytes'] / 1e6:,.0f} MB"
            )
            print("\n".join(f"  {line}" for line in row["lines"]), flush=True)
    return out
