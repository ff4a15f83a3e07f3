"""Texts as vectors by a model: in batches, each different text once, and what is known already from the cache."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from kofn.core.checks import InputError
from kofn.core.lazy import polars as pl
from kofn.core.runtime import Control
from kofn.core.words import Progress
from kofn.io.embedders import MINILM, Embedder, has_minilm, open_embedder
from kofn.io.embedding_cache import EmbeddingCache, cache_folder

# `--embedder` for texts compared by their words.
NO_MODEL = "tfidf"
# A model that was not asked for embeds so many texts at most: beyond, it takes minutes and gains nothing that was seen.
BY_DEFAULT = 20_000
_CHUNK = 512  # texts between two writes to the cache
_MOST_CHARACTERS = 100_000  # of a text; more than any model reads
_LOOKED_AT = 2_000


class Embedded(NamedTuple):
    """Vectors of texts, the model as people call it, and how many different texts it had to embed; None: not yet."""

    X: NDArray[np.float32]
    shown: str
    computed: int | None

    def how(self, texts: str, *, asked: bool) -> str:
        """How the vectors of some texts were made, in one line."""
        line = f"{self.shown} of {texts}, {self.X.shape[1]} dimensions"
        if self.computed is None:
            line += "; embedding them comes first, which is not in these seconds"
        elif not self.computed:
            line += ", all from the cache"
        return line if asked else f"{line} (installed; --embedder {NO_MODEL} compares by words)"


def embed_texts(
    texts: Sequence[str] | pl.Series,
    model: str,
    *,
    cache: bool = True,
    progress: Progress = None,
    device: str | None = None,
) -> NDArray[np.float32]:
    """Vectors of unit length from a model, by its name or the path of its folder.

    Args:
        texts: n texts; the first 100,000 characters of each are read, and of those as many as the model takes.
        model: "minilm", a folder of sentence-transformers or model2vec, an ONNX file or folder, or a name that these
            libraries know.
        cache: vectors are looked up and kept in the user's cache folder, by the content of text and model.
        progress: True shows how far the model is; a callable is told each step.
        device: where a model of sentence-transformers computes: "cpu", "cuda", "cuda:1"; by default, and with "auto",
            on a GPU where torch sees one. Vectors of another device differ by float32 rounding. Other models compute on
            the processor.

    Returns:
        (n, d) float32. A text of which the model knows nothing may be all zeros.

    Raises:
        InputError: no texts, a missing text, the library is not installed, the model cannot be loaded, or it gives NaN.

    Cost: the model's, for each different text once; beside the answer, memory for a few hundred texts. The same text
    gives the same vector up to float32 rounding, whatever other texts are beside it. A name that is not on disk is
    downloaded by the library that knows it.
    """
    return embedded(texts, model, cache=cache, progress=progress, device=device).X


def embedded(
    texts: Sequence[str] | pl.Series,
    model: str,
    *,
    cache: bool = True,
    progress: Progress = None,
    device: str | None = None,
) -> Embedded:
    """`embed_texts`, with the model's name and how many texts it was asked for."""
    series = texts if isinstance(texts, pl.Series) else pl.Series(list(texts), dtype=pl.String)
    if len(series) == 0:
        raise InputError("texts is empty; give at least one text")
    if series.null_count():
        raise InputError(f"texts at row {series.is_null().arg_max()} is missing; fill or drop it first")
    embedder = open_embedder(model, device)
    rows_of: dict[bytes, list[int]] = {}
    for row, text in enumerate(series.to_list()):
        rows_of.setdefault(hashlib.blake2b(text.encode(), digest_size=16).digest(), []).append(row)
    folder = cache_folder() if cache else None
    with EmbeddingCache(None if folder is None else folder / "embeddings.sqlite") as kept:
        identity = embedder.identity() if folder is not None else b""
        known = kept.get(identity, list(rows_of))
        width = len(next(iter(known.values()))) if known else 0
        missing = [key for key in rows_of if key not in known or len(known[key]) != width]
        vector_of = {key: vector for key, vector in known.items() if len(vector) == width}
        # The longest first: what will not fit in memory does so at once.
        lengths = series.str.len_chars().to_numpy()
        missing.sort(key=lambda key: -int(lengths[rows_of[key][0]]))
        title = f"embedding by {embedder.shown}"
        with Control(progress=progress, total=len(missing), title=title) as control:
            for start in range(0, len(missing), _CHUNK):
                if control.interrupted:
                    raise KeyboardInterrupt
                keys = missing[start : start + _CHUNK]
                rows = [rows_of[key][0] for key in keys]
                vectors = _unit(embedder, [series[row] for row in rows], model)
                if not np.isfinite(vectors).all():
                    bad = min(row for row, vector in zip(rows, vectors, strict=True) if not np.isfinite(vector).all())
                    raise InputError(f"embedder={model!r} gives NaN or infinity for the text at row {bad}")
                fresh = dict(zip(keys, vectors, strict=True))
                kept.put(identity, fresh)
                vector_of |= fresh
                control.step(start + len(keys))
    X = np.empty((len(series), len(next(iter(vector_of.values())))), np.float32)
    for key, rows in rows_of.items():
        X[rows] = vector_of[key]
    return Embedded(X, embedder.shown, len(missing))


def _unit(embedder: Embedder, texts: list[str], model: str) -> NDArray[np.float32]:
    """Vectors of unit length, those of length zero as they are."""
    X = np.asarray(embedder.encode([text[:_MOST_CHARACTERS] for text in texts]), np.float32)
    if X.ndim != 2 or len(X) != len(texts):
        raise InputError(f"embedder={model!r} gives an output of shape {X.shape} for {len(texts)} texts; give another")
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    return np.divide(X, lengths, out=np.zeros_like(X), where=lengths != 0)


def model_for(texts: pl.Series, embedder: str | None) -> str | None:
    """The model that texts are compared by: the one asked for, else the one installed where it suits them, or None.

    The installed model reads English and takes about 8 ms a text: it is taken for up to 20,000 texts whose letters are
    nearly all Latin.
    """
    if embedder is not None:
        return None if embedder == NO_MODEL else embedder
    return MINILM if len(texts) <= BY_DEFAULT and has_minilm() and _mostly_latin(texts) else None


def _mostly_latin(texts: pl.Series) -> bool:
    """Whether nine letters of ten are Latin ones, in up to 2,000 texts."""
    sample = texts.gather_every(max(1, len(texts) // _LOOKED_AT)).str.slice(0, 500)
    letters, latin = (int(sample.str.count_matches(pattern).sum()) for pattern in (r"\p{L}", r"\p{Latin}"))
    return letters > 0 and latin >= 0.9 * letters
