"""Near-duplicate removal: 100,000 x 256 at cosine 0.95, and the same answer as brute force on 10,000; 1,000,000 texts.

The vectors are a mixture of Gaussians in which a fifth of the rows repeat another with a little noise, so that their
cosines lie on both sides of the threshold. The texts are sentences of about 60 characters from words that are as rare
as in a language; a tenth repeat another with a word changed or letters exchanged, a tenth to the letter. On 5,000 of
them brute force compares every pair by the same similarity.
"""

from __future__ import annotations

import time
from collections import Counter
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from benchmarks import in_fresh_process


def rows(n: int, d: int, seed: int) -> NDArray[np.float32]:
    """Rows of which a fifth are noisy copies, in random order."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(30, d))[rng.integers(0, 30, n)] + rng.normal(size=(n, d))
    copies = rng.choice(n, n // 5, replace=False)
    noise = rng.uniform(0.05, 0.6, len(copies))[:, None]
    X[copies] = X[rng.integers(0, n, len(copies))] + noise * rng.normal(size=(len(copies), d))
    return X.astype(np.float32)


def sentences(n: int, seed: int) -> list[str]:
    """Texts of which a fifth repeat another, half of those with an edit, in random order."""
    rng = np.random.default_rng(seed)
    letters = np.array(list("etaoinshrdlucmfwypvbgkjqxz"))
    weights = np.exp(-np.arange(26) / 7)
    words = ["".join(rng.choice(letters, size, p=weights / weights.sum())) for size in rng.integers(2, 11, 30_000)]
    ranks = 1 / np.arange(1, len(words) + 1)
    sizes = rng.integers(4, 14, n)
    drawn = iter(rng.choice(len(words), int(sizes.sum()), p=ranks / ranks.sum()).tolist())
    texts = [" ".join(words[next(drawn)] for _ in range(size)) for size in sizes.tolist()]
    copies = rng.choice(n, n // 5, replace=False)
    for copy, original, changed in zip(
        copies.tolist(), rng.integers(0, n, len(copies)).tolist(), rng.integers(0, 4, len(copies)).tolist(), strict=True
    ):
        text = texts[original]
        parts = text.split()
        middle = len(text) // 2
        edits = (text, text.upper(), text[:middle] + "~" + text[middle + 1 :], " ".join([*parts[:2], *parts[3:]]))
        texts[copy] = edits[changed]
    return texts


def brute_force_of_texts(texts: list[str], threshold: float) -> NDArray[np.bool_]:
    """Keep the first of every group, by the shared letter triples of every pair."""
    spaced = [f" {' '.join(text.lower().split())} " for text in texts]
    numbers: dict[tuple[str, int], int] = {}
    columns, sizes = [], []
    for text in spaced:
        counts: Counter[str] = Counter()
        for i in range(len(text) - 2):
            triple = text[i : i + 3]
            columns.append(numbers.setdefault((triple, counts[triple]), len(numbers)))
            counts[triple] += 1
        sizes.append(counts.total())
    indptr = np.concatenate(([0], np.cumsum(sizes)))
    sets = csr_matrix((np.ones(len(columns), np.int32), columns, indptr), shape=(len(texts), len(numbers)))
    size, keep = np.array(sizes), np.zeros(len(texts), bool)
    for i, shared in enumerate(sets @ sets.T):
        near = 2 * shared.data >= threshold * (size[i] + size[shared.indices]) - 1e-9
        earlier = shared.indices[near]
        keep[i] = not keep[earlier[earlier < i]].any()
    return keep


def brute_force(X: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """Keep the first of every group, one row after the other, against all kept rows in float64."""
    unit = X.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    kept, keep, m = np.empty_like(unit), np.zeros(len(X), bool), 0
    for i, row in enumerate(unit):
        if not m or float((kept[:m] @ row).max()) < threshold:
            kept[m], keep[i], m = row, True, m + 1
    return keep


def work(who: str, n: int, d: int, threshold: float, seed: int) -> dict[str, Any]:
    """One timed run, in a fresh process."""
    from kofn.selection import near_duplicates

    if d == 0:
        texts = sentences(n, seed)
        began = time.perf_counter()
        keep = (
            brute_force_of_texts(texts, threshold)
            if who == "brute force"
            else (near_duplicates(texts=texts, threshold=threshold).keep)
        )
        return answer(began, keep)
    X = rows(n, d, seed)
    began = time.perf_counter()
    keep = brute_force(X, threshold) if who == "brute force" else near_duplicates(X, threshold).keep
    return answer(began, keep)


def answer(began: float, keep: NDArray[np.bool_]) -> dict[str, Any]:
    """What a run reports."""
    return {
        "seconds": time.perf_counter() - began,
        "kept": int(keep.sum()),
        "answer": np.packbits(keep).tobytes().hex() if len(keep) <= 20_000 else "",
    }


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All parts; prints what it measures."""
    d, threshold, small = 256, 0.95, 2_000 if quick else 10_000
    sizes = (small, 5_000) if quick else (small, 25_000, 50_000, 100_000)
    ask = {"d": d, "threshold": threshold, "seed": 0}
    print(f"\nnear-duplicates at cosine {threshold}, d={d}, float32: median of {1 if quick else rounds} rounds")
    slow = in_fresh_process("benchmarks.dedupe", {"who": "brute force", "n": small, **ask})
    out = []
    for n in sizes:
        runs = [
            in_fresh_process("benchmarks.dedupe", {"who": "kofn", "n": n, **ask}) for _ in range(1 if quick else rounds)
        ]
        row = {"n": n, "seconds": median(one["seconds"] for one in runs), "kept": runs[0]["kept"]}
        row["peak_bytes"] = runs[0]["peak_bytes"]
        beside = ""
        if n == small:
            row |= {"brute_force_seconds": slow["seconds"], "same_answer": runs[0]["answer"] == slow["answer"]}
            beside = f"; brute force {slow['seconds']:.1f} s, same answer: {row['same_answer']}"
        out.append(row)
        print(
            f"n={n:>7,}: {row['seconds']:>6.2f} s, {row['kept']:,} kept, peak {row['peak_bytes'] / 1e6:.0f} MB{beside}"
        )
    slope = float(np.polyfit(np.log([row["n"] for row in out]), np.log([row["seconds"] for row in out]), 1)[0])
    print(f"log-log slope of time in n: {slope:.2f}")
    return {"rows": out, "slope": slope, "texts": run_texts(quick=quick)}


def run_texts(*, quick: bool) -> list[dict[str, Any]]:
    """Texts: the same answer as brute force on 5,000, and the time and memory of a million."""
    ask = {"who": "kofn", "d": 0, "seed": 0}
    out = []
    print("\nnear-duplicates among texts of about 60 characters")
    for n, threshold in ((5_000, 0.8), (5_000, 0.9), (50_000 if quick else 1_000_000, 0.9)):
        row = {"n": n, "threshold": threshold}
        found = in_fresh_process("benchmarks.dedupe", {**ask, **row})
        row |= {name: found[name] for name in ("seconds", "kept", "peak_bytes")}
        beside = ""
        if n == 5_000:
            slow = in_fresh_process("benchmarks.dedupe", {**ask, "n": n, "threshold": threshold, "who": "brute force"})
            row["same_answer"] = found["answer"] == slow["answer"]
            beside = f"; same answer as brute force: {row['same_answer']}"
        out.append(row)
        print(
            f"n={n:>9,} at {threshold}: {row['seconds']:>6.1f} s, {row['kept']:,} kept, "
            f"peak {row['peak_bytes'] / 1e6:.0f} MB{beside}"
        )
    return out
