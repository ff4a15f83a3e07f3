"""How long `--dry-run` takes, whatever the size of what it asks about: processor seconds of the whole process.

Every figure is a fresh process, imports included: with Numba's cache filled, and with an empty one, where nothing is
compiled to look beforehand. "not measured" are the calls that then tell no seconds.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

# What a look beforehand should take at the most.
GOAL = 3.0

CALLS: dict[str, list[str]] = {
    "select 100,000 x 384 float16, k=1,000": ["select", "wide.npy", "-k", "1000"],
    "assign 300,000 x 16, constrained k-means": [
        "assign",
        "long.npy",
        "--k",
        "20",
        "--capacity",
        "20000",
        "-m",
        "constrained_kmeans",
    ],
    "assign 300,000 x 16, k=1,000": ["assign", "long.npy", "--k", "1000"],
    "assign 70,000 x 784, k=auto": ["assign", "images.npy", "--k", "auto"],
    "select 60,000 texts, k=500": ["select", "texts.parquet", "--text", "body", "-k", "500"],
    "select 60,000 texts, typiclust": ["select", "texts.parquet", "--text", "body", "-k", "500", "-m", "typiclust"],
    "select 60,000 texts, without near-duplicates": [
        *("select", "texts.parquet", "--text", "body", "-k", "500", "--dedupe", "0.9"),
    ],
    "select 60,000 texts, next 100 to label": [
        *("select", "texts.parquet", "--text", "body", "-k", "100", "--label", "topic"),
    ],
    "select by quotas over three columns": [
        *("select", "texts.parquet", "--columns", "x,y", "-k", "2000", "--quota", "lang=de:300-700"),
        *("--quota", "year=2001:30-", "--quota", "site=s1:20-50"),
    ],
    "select 132,000 x 17,700 sparse rows": ["select", "sparse.npz", "--metric", "cosine", "-k", "100"],
    "select a folder of 12 Parquet parts": ["select", "parts", "--vectors", "v", "-k", "1000"],
}


def pools(folder: Path, share: float) -> None:
    """The files, with this share of their rows."""
    from scipy import sparse

    rng = np.random.default_rng(0)

    def rows(n: int) -> int:
        return max(600, int(n * share))

    for name, n, d, kind in (("wide", 100_000, 384, "e"), ("long", 300_000, 16, "f"), ("images", 70_000, 784, "e")):
        np.save(folder / f"{name}.npy", rng.standard_normal((rows(n), d), np.float32).astype(kind))
    words = np.array([f"w{rank % 5_000}" for rank in rng.zipf(1.3, 200_000)])
    n = rows(60_000)
    columns = {
        "body": [" ".join(words[rng.integers(0, len(words), 60)]) for _ in range(n)],
        "lang": rng.choice(["de", "en", "fr", "es"], n),
        "year": rng.integers(2000, 2024, n),
        "topic": rng.choice(["a", "b", "c", *[""] * 60], n),
        "site": rng.choice([f"s{number}" for number in range(50)], n),
        "x": rng.random(n),
        "y": rng.random(n),
    }
    pl.DataFrame(columns).write_parquet(folder / "texts.parquet")
    shape = rows(132_000), 17_700
    matrix: Any = sparse.random_array(shape, density=34 / shape[1], format="csr", dtype=np.float32, rng=rng)
    sparse.save_npz(folder / "sparse.npz", matrix)
    (folder / "parts").mkdir()
    for part in range(12):
        vectors = rng.standard_normal((rows(50_000), 64), np.float32)
        pl.DataFrame({"v": vectors}).write_parquet(folder / "parts" / f"{part:02d}.parquet")


def processor_seconds(call: list[str], folder: Path, cache: Path | None) -> tuple[float, str]:
    """Of a fresh process that makes this call; and what it prints."""
    environment = {**os.environ, **({} if cache is None else {"NUMBA_CACHE_DIR": str(cache)})}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [sys.executable, "-m", "kofn", *call, "--dry-run"],
        cwd=folder,
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done.stdout


def run(*, quick: bool = False, rounds: int = 3) -> dict[str, Any]:
    """Print and return the processor seconds of each call, the median of some rounds."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pools(folder, 0.02 if quick else 1.0)
        print(f"{'--dry-run, processor seconds of a fresh process':48}{'compiled':>10}{'empty cache':>13}")
        for position, (label, call) in enumerate(CALLS.items()):
            processor_seconds(call, folder, None)
            warm = [processor_seconds(call, folder, None)[0] for _ in range(1 if quick else rounds)]
            cache = folder / f"cache{position}"
            empty, output = processor_seconds(call, folder, cache)
            compiled = sum(1 for _ in cache.rglob("*.nbi"))
            results[label] = {"compiled": float(np.median(warm)), "empty cache": empty, "kernels compiled": compiled}
            notes = ["not measured"] * ("not measured" in output) + ["over 3"] * bool(
                max(np.median(warm), empty) > GOAL
            )
            notes += [f"{compiled} kernels compiled"] * (compiled > 0)
            print(f"{label:48}{np.median(warm):10.2f}{empty:13.2f}" + "".join(f"  {note}" for note in notes))
    return results
