"""Rows about a query: 60,000 one-line docstrings of the installed packages, ten picks for each of some queries.

Judged by what no contender sees: the file that a docstring stands in, the name of what it describes and the lines
after the first, by a pattern for each query. Picks repeat each other where two share four of five of their different
words. Twelve queries chose the default's similarity and balance, sixteen others only judge. `--queries` as the command
line has it is the first contender; the others are what people use (BM25, the most similar rows by TF-IDF, maximal
marginal relevance by TF-IDF), the objectives that take queries, and other vectors.
"""

from __future__ import annotations

import ast
import math
import re
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import vstack

import kofn
from kofn.io import embed_texts
from kofn.io.embedders import has_minilm
from kofn.io.words import bm25, text_vectors, tfidf

ROWS, K = 60_000, 10
ALIKE = 0.8
# What looks at all pairs of rows answers so many of the queries.
FEW = 2
# query -> what its rows' files, names or further lines say. These chose the defaults ...
CHOOSE = {
    "sparse matrix": r"sparse|csgraph|csr",
    "neural network layer": r"neural|torch/(.*/)?nn|layer",
    "plot axis ticks": r"tick|axis",
    "shortest path in a graph": r"shortest|dijkstra|bellman|distance matrix|graph.*path",
    "probability distribution": r"distribution|random variable|probab|\bpdf\b",
    "time series resampling": r"resampl|time.?series|frequency|asfreq|period",
    "k-means clustering": r"k.?means|cluster.*centr|centroid",
    "parse HTML": r"html",
    "symbolic integration": r"integral|integrat",
    "Fourier transform": r"fft|fourier|dft",
    "JSON schema": r"json|schema",
    "test fixtures": r"fixture",
}
# ... and these only judge.
JUDGE = {
    "regular expression matching": r"regex|regular.?exp|\bre\.",
    "virtual environment": r"venv|virtual.?env",
    "decision tree": r"tree|forest",
    "date parsing": r"date.*(pars|format)|pars.*date",
    "color map normalization": r"cmap|colormap|norm",
    "eigenvalues of a matrix": r"eig|spectr",
    "missing values": r"missing|nan\b|isna|impute|null|fillna",
    "hash function": r"hash|digest|sha\d",
    "interpolation of data": r"interpol|spline",
    "optimizer learning rate": r"optim|learning.?rate|lr_sched|_stochastic",
    "unicode decoding": r"unicode|decod|codec|utf",
    "covariance matrix": r"\bcov|covariance",
    "image filter": r"ndimage|image|filter",
    "matrix factorization": r"factoriz|decompos|\bNMF|\bLU\b|QR|SVD",
    "progress bar": r"progress|tqdm",
    "command line option": r"option|argparse|click|argument|cli",
}
QUERIES = CHOOSE | JUDGE

# As `Any`, it may be called with words that are only known when it runs.
select: Any = kofn.select


def docstrings(most: int) -> pl.DataFrame:
    """First lines of docstrings, different ones, with file, name and further lines; in an order of their own."""
    found: dict[str, str] = {}
    root = Path(sysconfig.get_path("purelib"))
    for file in sorted(root.rglob("*.py")):
        try:
            tree = ast.parse(file.read_text(encoding="utf-8"))
        except (SyntaxError, ValueError, OSError):
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module):
                first, _, more = (ast.get_docstring(node) or "").strip().partition("\n")
                name = getattr(node, "name", "")
                if 20 < len(line := first.strip()) < 160:
                    found.setdefault(line, f"{file.relative_to(root).as_posix()} {name} {more}")
    order = np.random.default_rng(0).permutation(len(found))[:most]
    return pl.DataFrame({"text": list(found), "around": list(found.values())})[order]


def _by(**how: Any) -> Callable[[Any, Any], NDArray[np.int64]]:
    def pick(X: Any, wanted: Any) -> NDArray[np.int64]:
        plan: kofn.Selection = select(X, k=K, queries=wanted, **how)
        return plan.indices

    return pick


def _objective(name: str) -> Callable[[Any, Any], NDArray[np.int64]]:
    return _by(objective=name, metric="cosine")


# contender -> its vectors, and how it picks.
CONTENDERS: dict[str, tuple[str, Callable[[Any, Any], NDArray[np.int64]]]] = {
    "kofn select --queries": ("words", _by(relevance="product", balance=0.9)),
    "BM25 alone": ("words", _by(relevance="product", balance=1.0)),
    "balance 0.8": ("words", _by(relevance="product", balance=0.8)),
    "balance 0.7": ("words", _by(relevance="product", balance=0.7)),
    "most similar rows by TF-IDF": ("TF-IDF", _by(balance=1.0)),
    "marginal relevance by TF-IDF": ("TF-IDF", _by(balance=0.8)),
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


def mean_of(about: list[int], asked: list[str], part: dict[str, str]) -> float:
    """How many picks are about the query, on average over the queries of a part that were asked."""
    counts = [count for count, query in zip(about, asked, strict=True) if query in part]
    return round(float(np.mean(counts)), 2) if counts else math.nan


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All queries; prints what it measures."""
    del rounds
    frame = docstrings(3_000 if quick else ROWS)
    queries = list(QUERIES)[:2] if quick else list(QUERIES)
    every = pl.concat([frame["text"], pl.Series("text", queries)])
    vectors: dict[str, Any] = {}
    seconds: dict[str, float] = {}
    makers: dict[str, Callable[[pl.Series], Any]] = {
        "words": lambda texts: vstack(bm25(texts[: len(frame)], texts[len(frame) :]), format="csr"),
        "TF-IDF": tfidf,
        "64 dimensions": text_vectors,
    }
    if has_minilm():
        makers["all-MiniLM-L6-v2"] = lambda texts: embed_texts(texts, "minilm", progress=True)
    for name, make in makers.items():
        began = time.process_time()
        vectors[name] = make(every)
        seconds[name] = round(time.process_time() - began, 2)
    n = len(frame)
    around = frame["around"].to_list()
    texts = frame["text"].to_list()
    rows = []
    print(f"{n:,} docstrings; vectors took {seconds} s; {K} picks for each of {len(queries)} queries")
    for name, (made, pick) in CONTENDERS.items():
        if made not in vectors:
            print(f"{name}: left out, kofn[minilm] is not installed")
            continue
        about, again, began = [], 0, time.process_time()
        asked = queries[:FEW] if "mutual information" in name else queries
        for place, query in enumerate(asked):
            X = vectors[made]
            picks = pick(X[:n], X[[n + place]]).tolist()
            about.append(sum(bool(re.search(QUERIES[query], around[row], re.IGNORECASE)) for row in picks))
            again += repeats([texts[row] for row in picks])
        took = (time.process_time() - began) / len(asked)
        rows.append(
            {
                "contender": name,
                "about": dict(zip(asked, about, strict=True)),
                "mean of those that choose": mean_of(about, asked, CHOOSE),
                "mean of those that judge": mean_of(about, asked, JUDGE),
                "fewest": min(about),
                "repeats": again,
                "seconds": round(took, 2),
            }
        )
        print(
            f"{name:54} about the query, of {K}: {rows[-1]['mean of those that choose']:.2f} (queries that chose), "
            f"{rows[-1]['mean of those that judge']:.2f} (that judge); {again} repeats in all; {took:.2f} s a query",
            flush=True,
        )
    chance = {
        query: round(K * float(np.mean([bool(re.search(QUERIES[query], more, re.IGNORECASE)) for more in around])), 1)
        for query in queries
    }
    print(f"{'random rows':54} {np.mean(list(chance.values())):4.1f}")
    return {"rows": n, "seconds": seconds, "contenders": rows, "random": chance}
