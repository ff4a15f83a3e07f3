"""Rows about a query: 60,000 one-line docstrings of the installed packages, ten picks for each of some queries.

Judged by what no contender sees: the file that a docstring stands in, by a pattern for each query. Picks repeat each
other where two share four of five of their different words. `--queries` as the command line has it is the first
contender; the others are rankings by similarity alone, the objectives that take queries, and other vectors.
"""

from __future__ import annotations

import ast
import re
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

import kofn
from kofn.io import embed_texts
from kofn.io.embedders import has_minilm
from kofn.io.words import text_vectors, tfidf

ROWS, K = 60_000, 10
ALIKE = 0.8
# What looks at all pairs of rows answers so many of the queries.
FEW = 2
# query -> where its rows stand.
QUERIES = {
    "sparse matrix": r"sparse|csgraph",
    "neural network layer": r"torch/.*(nn|quantiz|functional)|sklearn/neural",
    "plot axis ticks": r"matplotlib",
    "shortest path in a graph": r"networkx|csgraph|graph",
    "probability distribution": r"stats|distribution|random",
    "time series resampling": r"resampl|tseries|date|time|window|pandas/core",
    "k-means clustering": r"cluster|vq|kmeans",
    "parse HTML": r"html|bs4|docutils|sphinx|pars",
    "symbolic integration": r"sympy|integr",
    "Fourier transform": r"fft|signal|fourier|transforms",
    "JSON schema": r"json|schema",
    "test fixtures": r"test|hypothesis|fixture",
}

# As `Any`, it may be called with words that are only known when it runs.
select: Any = kofn.select


def docstrings(most: int) -> pl.DataFrame:
    """First lines of docstrings, different ones, and the files that they stand in; in an order of their own."""
    found: dict[str, str] = {}
    root = Path(sysconfig.get_path("purelib"))
    for file in sorted(root.rglob("*.py")):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                line = (ast.get_docstring(node) or "").strip().split("\n")[0].strip()
                if 20 < len(line) < 160:
                    found.setdefault(line, file.relative_to(root).as_posix())
    order = np.random.default_rng(0).permutation(len(found))[:most]
    return pl.DataFrame({"text": list(found), "file": list(found.values())})[order]


def _by(**how: Any) -> Callable[[Any, Any], NDArray[np.int64]]:
    def pick(X: Any, wanted: Any) -> NDArray[np.int64]:
        plan: kofn.Selection = select(X, k=K, queries=wanted, **how)
        return plan.indices

    return pick


def _objective(name: str) -> Callable[[Any, Any], NDArray[np.int64]]:
    return _by(objective=name, metric="cosine")


# contender -> its vectors, and how it picks.
CONTENDERS: dict[str, tuple[str, Callable[[Any, Any], NDArray[np.int64]]]] = {
    "kofn select --queries": ("words", _by()),
    "most similar rows": ("words", _by(balance=1.0)),
    "balance 0.9": ("words", _by(balance=0.9)),
    "balance 0.7": ("words", _by(balance=0.7)),
    "balance 0.5": ("words", _by(balance=0.5)),
    "64 dimensions, same method": ("64 dimensions", _by()),
    "64 dimensions, rds_plus": ("64 dimensions", _by(method="rds_plus")),
    "64 dimensions, facility location mutual information": (
        "64 dimensions",
        _objective("facility_location_mutual_information"),
    ),
    "64 dimensions, graph cut mutual information": ("64 dimensions", _objective("graph_cut_mutual_information")),
    "all-MiniLM-L6-v2, same method": ("all-MiniLM-L6-v2", _by()),
    "all-MiniLM-L6-v2, most similar rows": ("all-MiniLM-L6-v2", _by(balance=1.0)),
}


def repeats(texts: list[str]) -> int:
    """How many texts share most of their words with one before them."""
    words = [set(re.findall(r"\w+", text.lower())) for text in texts]
    return sum(any(len(a & b) >= ALIKE * len(a | b) for b in words[:i]) for i, a in enumerate(words))


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All queries; prints what it measures."""
    del rounds
    frame = docstrings(3_000 if quick else ROWS)
    queries = list(QUERIES)[:2] if quick else list(QUERIES)
    every = pl.concat([frame["text"], pl.Series("text", queries)])
    vectors: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    makers: dict[str, Callable[[pl.Series], Any]] = {"words": tfidf, "64 dimensions": text_vectors}
    if has_minilm():
        makers["all-MiniLM-L6-v2"] = lambda texts: embed_texts(texts, "minilm", progress=True)
    for name, make in makers.items():
        began = time.perf_counter()
        vectors[name] = make(every)
        seconds[name] = round(time.perf_counter() - began, 2)
    n = len(frame)
    files = frame["file"].to_list()
    texts = frame["text"].to_list()
    rows = []
    print(f"{n:,} docstrings; vectors took {seconds} s; {K} picks for each of {len(queries)} queries")
    for name, (made, pick) in CONTENDERS.items():
        if made not in vectors:
            print(f"{name}: left out, kofn[minilm] is not installed")
            continue
        about, again, began = [], 0, time.perf_counter()
        asked = queries[:FEW] if "mutual information" in name else queries
        for place, query in enumerate(asked):
            X = vectors[made]
            picks = pick(X[:n], X[[n + place]]).tolist()
            about.append(sum(bool(re.search(QUERIES[query], files[row])) for row in picks))
            again += repeats([texts[row] for row in picks])
        took = (time.perf_counter() - began) / len(asked)
        rows.append(
            {
                "contender": name,
                "about": dict(zip(asked, about, strict=True)),
                "mean": round(float(np.mean(about)), 2),
                "fewest": min(about),
                "repeats": again,
                "seconds": round(took, 2),
            }
        )
        print(
            f"{name:54} {np.mean(about):4.1f} of {K} about the query, {min(about)} at the fewest; {again} repeats in "
            f"all; {took:.2f} s a query",
            flush=True,
        )
    chance = {
        query: round(K * float(np.mean([bool(re.search(QUERIES[query], file)) for file in files])), 1)
        for query in queries
    }
    print(f"{'random rows':54} {np.mean(list(chance.values())):4.1f}")
    return {"rows": n, "seconds": seconds, "contenders": rows, "random": chance}
