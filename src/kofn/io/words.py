"""Texts as vectors by their words: TF-IDF, reduced to a few dimensions.

>>> X = text_vectors(["a cat sat", "the cat sat down", "stocks fell", "stocks rose again"], dims=2)
>>> X.shape, (X @ X.T).round(1).tolist()[0]
((4, 2), [1.0, 1.0, 0.0, 0.0])
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InputError, count
from kofn.core.lazy import polars as pl

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

DIMS = 64
MAX_TERMS = 1 << 18
BIGRAM_WORDS = 20_000_000  # above, pairs of words would take gigabytes
_CHUNK_TEXTS = 16_384
_CHUNK_WORDS = 2_000_000
# Scripts written without spaces have no words to split at: each of their characters stands for itself, and the pairs
# of neighbours that follow are their words in good part.
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
WORDS = rf"[{_UNSPACED}]|[\w--[{_UNSPACED}]]+"
_POWER = 4
# Of BM25: how soon repeats of a word count no more, and how much the length of a text counts; the usual values.
_BM25_K1, _BM25_B = 1.2, 0.75
# English forms of one word, by which queries and texts are matched: (form, word), of which the first that makes a word
# of the texts or queries wins. What is no such word stays, so that few words of other languages are touched.
_PLURALS = (
    (r"^([a-z]{2,})ies$", "${1}y"),
    (r"^([a-z]{2,}[a-rt-z])s$", "${1}"),
    (r"^([a-z]+(?:ch|sh|ss|x|z|o))es$", "${1}"),
    (r"^([a-z]+)ices$", "${1}ix"),
    (r"^([a-z]+)ices$", "${1}ex"),
)
_VERBS = (
    (r"^([a-z]{4,})(?:ing|ed)$", "${1}e"),
    (r"^([a-z]{4,})(?:ing|ed)$", "${1}"),
)
# Words of English that say nothing of what a query is about. Other lists have words of content too (fire, system, top).
_GRAMMAR = (
    "a about all also am an and any are as at be been between both but by can could did do does doing done each either "
    "every for from had has have having he her here him his how i if in into is it its itself let like may me might my "
    "of on or our out over please shall she should so some such than that the their them then there these they this "
    "those to too up upon us very was we were what when where whether which while who whom whose why will with within "
    "without would you your"
)
_STOP_WORDS = frozenset(_GRAMMAR.split())
# By these, texts are told to be English: words of its own that most texts have, and the least share of texts with one.
_ENGLISH, _ENGLISH_SHARE = ("the", "of", "and", "with"), 0.02
_LOST = 1e-4  # a row that keeps less of its unit length than this has a direction made of rounding errors


def text_vectors(texts: Sequence[str] | pl.Series, *, dims: int = DIMS, seed: int = 0) -> NDArray[np.float32]:
    """Vectors of unit length that are near for texts on the same things: TF-IDF, then a truncated SVD.

    Words and pairs of neighbouring words (lower case, compatibility forms folded) are weighted by
    (1 + log count) * (1 + log((1 + n) / (1 + texts with it))), rows scaled to unit length, the matrix projected on its
    `dims` first singular directions and the rows scaled to unit length again. With 1,000 texts or more, terms found in
    a single text are left out; with more than 262,144 terms, those in the fewest texts; with more than 20 million words
    in all, pairs.

    Args:
        texts: n texts.
        dims: the most dimensions; fewer where there are fewer texts, terms or independent directions.
        seed: of the random sketch (used above 512 texts and terms). Signs are fixed: each dimension's largest entry is
            positive. The same texts and seed give the same vectors for any number of threads.

    Returns:
        (n, d) float32, d <= dims. A text without a word, or without one that it shares with another, is all zeros.

    Raises:
        InputError: no texts, a missing text, or no word in any of them.

    Cost: O(words log words), then O(nonzeros * dims) for the sketch; memory about 60 bytes a word, and n * dims floats.
    The projection is exact up to 512 texts or terms; beyond, it is the randomised range finder with 4 power iterations.

    References:
        Deerwester et al., Indexing by latent semantic analysis, 1990; Halko, Martinsson and Tropp, Finding structure
        with randomness, SIAM Review 2011, algorithm 4.4.

    >>> text_vectors(["same words", "same words"])
    array([[1.], [1.]], dtype=float32)
    """
    return reduced(tfidf(texts), dims=dims, seed=seed)


def reduced(A: csr_matrix, *, dims: int = DIMS, seed: int = 0) -> NDArray[np.float32]:
    """The vectors of `text_vectors` from the TF-IDF matrix."""
    return unit_rows(_principal(A, count(dims, "dims"), seed))


def unit_rows(X: Array) -> NDArray[np.float32]:
    """Rows at unit length; zeros where what is left of a row is made of rounding errors."""
    lengths = np.linalg.norm(X, axis=1, keepdims=True)
    kept = lengths > _LOST
    return np.divide(X, lengths, out=np.zeros_like(X), where=kept).astype(np.float32)


def directions(A: csr_matrix, dims: int, seed: int) -> NDArray[np.float32]:
    """(terms, d) the directions that the rows of A are projected on: A @ directions is what `reduced` scales."""
    X = _principal(A, dims, seed)
    squares = np.einsum("ij,ij->j", X, X, dtype=np.float64)
    return (A.T @ (X / np.where(squares > 0, squares, 1.0))).astype(np.float32)


def tfidf(texts: Sequence[str] | pl.Series) -> csr_matrix:
    """The (n, terms) float32 TF-IDF matrix of `text_vectors`, rows of unit length (or zero)."""
    return learnt(texts)[1]


@dataclass(frozen=True)
class Terms:
    """The words, and pairs of neighbouring words, that texts are compared by.

    Attributes:
        vocabulary: the words that are known, sorted.
        known: the terms that count, rising: a word by its number, a pair (a, b) as words + a * words + b.
        weight: of each of them.
        pairs: whether pairs are looked at.
    """

    vocabulary: pl.Series
    known: Ints
    weight: Floats
    pairs: bool

    def matrix(self, texts: pl.Series) -> tuple[csr_matrix, int, int]:
        """The TF-IDF matrix of other texts, how many words these have, and how many of them are not known."""
        words, starts = _words(texts, self.vocabulary)
        rows, terms, counts = _count_terms(words, starts, len(self.vocabulary), self.pairs)
        columns = np.searchsorted(self.known, terms)
        stay = np.zeros(len(terms), bool)
        inside = columns < len(self.known)
        stay[inside] = self.known[columns[inside]] == terms[inside]
        rows, columns, counts = rows[stay], columns[stay], counts[stay]
        return _weighted(rows, columns, counts, self.weight, len(texts)), len(words), int((words < 0).sum())


def learnt(texts: Sequence[str] | pl.Series) -> tuple[Terms, csr_matrix]:
    """The terms of some texts with their weights, and the texts' TF-IDF matrix.

    Raises:
        InputError: no texts, a missing text, or no word in any of them.
    """
    series = texts if isinstance(texts, pl.Series) else pl.Series(list(texts), dtype=pl.String)
    if len(series) == 0:
        raise InputError("texts is empty; give at least one text")
    if series.null_count():
        raise InputError(f"texts at row {series.is_null().arg_max()} is missing; fill or drop it first")
    vocabulary, chunks, starts = _split(series)
    words = _numbered(pl.concat(chunks), vocabulary) if chunks else np.empty(0, np.int64)
    if not len(words):
        raise InputError("texts hold no word in any row; name another column")
    n = len(series)
    pairs = len(words) <= BIGRAM_WORDS
    rows, terms, counts = _count_terms(words, starts, len(vocabulary), pairs)
    known, columns, in_texts = np.unique(terms, return_inverse=True, return_counts=True)
    keep = np.ones(len(known), bool)
    if n >= 1000 and (in_texts > 1).any():
        keep = in_texts > 1
    if keep.sum() > MAX_TERMS:
        common = np.argsort(np.where(keep, -in_texts, 1), kind="stable")[:MAX_TERMS]
        keep = np.zeros(len(known), bool)
        keep[common] = True
    weight = 1 + np.log((1 + n) / (1 + in_texts))
    stay = keep[columns]
    rows, columns, counts = rows[stay], (np.cumsum(keep) - 1)[columns[stay]], counts[stay]
    matrix = _weighted(rows, columns, counts, weight[keep], n)
    return Terms(vocabulary, known[keep], weight[keep], pairs), matrix


def bm25(texts: pl.Series, queries: pl.Series) -> tuple[csr_matrix, csr_matrix]:
    """Rows of texts and of queries whose products are BM25 scores: what a search engine ranks texts by.

    A word counts by its rarity among the texts, little more where a text repeats it, and more in a short text. Terms
    are words; in scripts without spaces the pairs of neighbouring characters, too. A plural, and a form in -ing or -ed,
    counts as the word that it is a form of, where texts or queries have that word. Where texts are in English, words
    such as "how" or "the" of a query do not count beside others.

    Args:
        texts: n texts.
        queries: q texts. A word that no text has is no term, and a query without a known word is a row of zeros.

    Returns:
        (n, terms) weights of the texts, and (q, terms) ones at the terms of the queries.

    Cost: O(words log words) time; about 60 bytes a word.

    References:
        Robertson & Zaragoza 2009, The probabilistic relevance framework: BM25 and beyond; Harman 1991, How effective is
        suffixing?, of the plurals.

    >>> W, Q = bm25(pl.Series(["a red car", "a blue car", "blue, blue"]), pl.Series(["a blue car", "green"]))
    >>> (W @ Q.T).toarray().round(1).tolist()
    [[0.9, 0.0], [1.3, 0.0], [0.7, 0.0]]
    """
    from scipy.sparse import csr_matrix

    n = len(texts)
    vocabulary, chunks, starts = _split(pl.concat([texts.cast(pl.String), queries.cast(pl.String)]))
    words = _numbered(pl.concat(chunks), vocabulary) if chunks else np.empty(0, np.int64)
    stems = _stems(_stems(vocabulary, _PLURALS), _VERBS)
    vocabulary = stems.unique().sort()
    words = _numbered(stems, vocabulary)[words]
    size = len(vocabulary)
    unspaced = vocabulary.str.contains(rf"^[{_UNSPACED}]$").to_numpy()
    rows, terms, counts = _count_terms(words, starts, size, bool(unspaced.any()))
    if unspaced.any():
        pair = terms >= size
        first, second = np.divmod(terms[pair] - size, size)
        stay = ~pair
        stay[pair] = unspaced[first] & unspaced[second]
        rows, terms, counts = rows[stay], terms[stay], counts[stay]
    of_texts = rows < n
    known, columns, in_texts = np.unique(terms[of_texts], return_inverse=True, return_counts=True)
    lengths = np.diff(starts)[:n].astype(np.float64)
    rarity = np.log(1 + (n - in_texts + 0.5) / (in_texts + 0.5))
    long = 1 - _BM25_B + _BM25_B * lengths / max(float(lengths.mean()), 1.0)
    often = counts[of_texts]
    values = rarity[columns] * often * (_BM25_K1 + 1) / (often + _BM25_K1 * long[rows[of_texts]])
    weights = csr_matrix((values, (rows[of_texts], columns)), shape=(n, len(known)))
    asked = np.searchsorted(known, terms[~of_texts])
    inside = np.append(known, -1)[asked] == terms[~of_texts]
    query, term = rows[~of_texts][inside] - n, asked[inside]
    stops = np.flatnonzero(vocabulary.is_in(_STOP_WORDS).to_numpy())
    english = np.flatnonzero(vocabulary.is_in(_ENGLISH).to_numpy())
    in_english = np.unique(rows[of_texts][np.isin(terms[of_texts], english)])
    if len(in_english) >= _ENGLISH_SHARE * n:
        says = ~np.isin(known[term], stops)
        # A query of nothing else is about those words.
        stay = says | ~np.isin(query, query[says])
        query, term = query[stay], term[stay]
    return weights, csr_matrix((np.ones(len(query)), (query, term)), shape=(len(queries), len(known)))


def _stems(words: pl.Series, forms: Sequence[tuple[str, str]]) -> pl.Series:
    """Words, in place of each form of a word that is among them that word."""
    stems = words
    for form, word in forms:
        shorter = words.str.replace(form, word)
        changes = (stems == words) & (shorter != words) & shorter.is_in(words.implode())
        stems = shorter.zip_with(changes, stems)
    return stems


def _weighted(rows: Array, columns: Array, counts: Array, weight: Floats, n: int) -> csr_matrix:
    """The matrix of n texts from how often each has which term, rows of unit length."""
    from scipy.sparse import csr_matrix

    values = (1 + np.log(counts)) * weight[columns]
    squares = np.bincount(rows, values**2, n)
    values /= np.sqrt(squares)[rows]
    indptr = np.concatenate(([0], np.cumsum(np.bincount(rows, minlength=n))))
    return csr_matrix((values.astype(np.float32), columns.astype(np.int32), indptr), shape=(n, len(weight)))


def _split(texts: pl.Series) -> tuple[pl.Series, list[pl.Series], Ints]:
    """The different words of texts, sorted; all of them in reading order, by chunks; and where each text begins."""
    chunks = []
    lengths = [np.zeros(0, np.int64)]
    for start in range(0, len(texts), _CHUNK_TEXTS):
        chunk = texts.slice(start, _CHUNK_TEXTS).str.normalize("NFKC").str.to_lowercase().str.extract_all(WORDS)
        lengths.append(chunk.list.len().to_numpy().astype(np.int64))
        chunks.append(chunk.filter(chunk.list.len() > 0).explode())
    starts = np.concatenate(([0], np.cumsum(np.concatenate(lengths))))
    vocabulary = pl.concat(chunks).unique().sort() if chunks else pl.Series([], dtype=pl.String)
    return vocabulary, chunks, starts


def _words(texts: pl.Series, vocabulary: pl.Series) -> tuple[Ints, Ints]:
    """Word numbers of a vocabulary in reading order, -1 for a word that is not in it, and where each text begins."""
    own, chunks, starts = _split(texts)
    words = _numbered(pl.concat(chunks), own) if chunks else np.empty(0, np.int64)
    # Each different word is looked up once.
    joined = own.cast(pl.Enum(vocabulary), strict=False).to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
    return joined[words] if len(words) else words, starts


def _numbered(words: pl.Series, vocabulary: pl.Series) -> Ints:
    """The place of each word in a sorted vocabulary that has all of them."""
    return words.cast(pl.Enum(vocabulary)).to_physical().to_numpy().astype(np.int64)


def _count_terms(words: Ints, starts: Ints, size: int, pairs_too: bool) -> tuple[Array, Array, Array]:
    """(text, term, how often), by text and term, of every word of `size` known ones and, with `pairs_too`, pair.

    A pair is a number too, above those of the words. Texts are counted in batches, to keep the sorts small.
    """
    parts = [(np.empty(0, np.int32), np.empty(0, np.int64), np.empty(0, np.int32))]
    low = 0
    while low < len(starts) - 1:
        high = max(low + 1, int(np.searchsorted(starts, starts[low] + _CHUNK_WORDS, side="right")) - 1)
        rows = np.repeat(np.arange(low, high, dtype=np.int32), np.diff(starts[low : high + 1]))
        terms = words[starts[low] : starts[high]]
        known = terms >= 0
        if pairs_too:
            pair = (rows[1:] == rows[:-1]) & known[1:] & known[:-1]
            terms = np.concatenate((terms[known], size + terms[:-1][pair] * size + terms[1:][pair]))
            rows = np.concatenate((rows[known], rows[1:][pair]))
        else:
            rows, terms = rows[known], terms[known]
        order = np.lexsort((terms, rows))
        rows, terms = rows[order], terms[order]
        new = np.ones(len(rows), bool)
        new[1:] = (rows[1:] != rows[:-1]) | (terms[1:] != terms[:-1])
        begins = np.flatnonzero(new)
        parts.append((rows[begins], terms[begins], np.diff(np.append(begins, len(rows))).astype(np.int32)))
        low = high
    rows, terms, counts = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, terms, counts


def _principal(A: csr_matrix, dims: int, seed: int) -> Array:
    """The rows of A in its first singular directions (U * sigma), directions of no weight left out."""
    from threadpoolctl import threadpool_limits

    n, terms = A.shape
    # BLAS sums in another order for another number of threads; one thread keeps the picks the same on every machine.
    with threadpool_limits(1, "blas"):
        if min(n, terms) <= 512:
            wide = A.astype(np.float64)
            if n <= terms:
                values, directions = np.linalg.eigh((wide @ wide.T).toarray())
                X = directions * np.sqrt(np.maximum(values, 0))
            else:
                values, directions = np.linalg.eigh((wide.T @ wide).toarray())
                X = wide @ directions
        else:
            rng = np.random.default_rng(seed)
            Q = A @ rng.standard_normal((terms, min(dims + 16, n, terms)), dtype=np.float32)
            for _ in range(_POWER):
                Q = A @ (A.T @ _orthonormal(Q))
            Q = _orthonormal(_orthonormal(Q))
            values, directions = np.linalg.eigh(_gram(A.T @ Q))
            X = Q @ (directions * np.sqrt(np.maximum(values, 0)))
    order = np.argsort(-values, kind="stable")[:dims]
    order = order[values[order] > max(values.max(), 0) * 1e-10]
    if len(order) == 0:
        return np.zeros((n, 1))
    X = X[:, order]
    largest = X[np.abs(X).argmax(axis=0), np.arange(len(order))]
    return np.where(largest < 0, -X, X)


def _gram(Y: Array) -> Array:
    """Y.T @ Y summed in float64, block by block."""
    G = np.zeros((Y.shape[1], Y.shape[1]))
    for start in range(0, len(Y), 8192):
        block = Y[start : start + 8192].astype(np.float64)
        G += block.T @ block
    return G


def _orthonormal(Y: Array) -> Array:
    """An orthonormal basis of Y's columns, dependent ones dropped; by products, where QR would take 10x as long."""
    values, directions = np.linalg.eigh(_gram(Y))
    kept = values > max(values[-1], 0) * 1e-10
    return Y @ (directions[:, kept] / np.sqrt(values[kept])).astype(Y.dtype)
