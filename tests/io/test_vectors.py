"""Vectors from text and columns, against scikit-learn and exact decompositions."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from threadpoolctl import threadpool_limits

from kofn import datasets
from kofn.core.checks import InputError
from kofn.io import column_vectors, pool_vectors, text_vectors, write_table
from kofn.io import words as module
from kofn.io.opening import open_table
from kofn.io.words import tfidf


@pytest.fixture(scope="module")
def verses():
    return datasets.load("verses")


def cosines(A):
    return np.asarray((A @ A.T).todense()) if hasattr(A, "todense") else A @ A.T


@pytest.mark.parametrize("n", [300, 1500])
@pytest.mark.parametrize("chunk", [50, 2_000_000])
def test_tfidf_is_scikit_learns(verses, n, chunk, monkeypatch):
    monkeypatch.setattr(module, "_CHUNK_WORDS", chunk)
    monkeypatch.setattr(module, "_CHUNK_TEXTS", 64)
    texts = [*verses.texts[: n - 2], "Ünïcode words, O'Reilly 3.14", ""]
    ours = tfidf(texts)
    theirs = TfidfVectorizer(
        ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"(?u)\w+", min_df=2 if n >= 1000 else 1
    ).fit_transform(texts)
    assert ours.shape == theirs.shape
    assert ours.nnz == theirs.nnz
    np.testing.assert_allclose(cosines(ours), cosines(theirs), atol=2e-6)


def test_terms_are_bounded(verses, monkeypatch):
    full = tfidf(verses.texts[:2000])
    monkeypatch.setattr(module, "MAX_TERMS", 500)
    A = tfidf(verses.texts[:2000])
    assert A.shape[1] == 500
    in_texts = np.sort(np.bincount(full.indices))[::-1]
    assert np.bincount(A.indices).sum() == in_texts[:500].sum(), "the terms in most texts stay"
    monkeypatch.setattr(module, "BIGRAM_WORDS", 100)
    words = TfidfVectorizer(token_pattern=r"(?u)\w+").fit(verses.texts[:900])
    monkeypatch.setattr(module, "MAX_TERMS", 1 << 18)
    assert tfidf(verses.texts[:900]).shape[1] == len(words.vocabulary_)


def test_scripts_without_spaces_are_split():
    X = text_vectors(["我喜欢吃苹果", "他喜欢吃苹果吗", "今天股市下跌", "股市今天上涨"], dims=4)
    S = X @ X.T
    assert S[0, 1] > 0.3 > abs(S[0, 2])
    assert S[2, 3] > 0.3


def test_case_and_compatibility_forms_fold():
    X = text_vectors(["Caf\u00e9 \ufb01ne", "cafe\u0301 FINE", "other words"], dims=3)
    np.testing.assert_allclose(X[0], X[1], atol=1e-6)


@pytest.mark.parametrize("n", [200, 400])
def test_small_pools_are_decomposed_exactly(verses, n):
    texts = verses.texts[::77][:n]
    A = tfidf(texts).toarray().astype(np.float64)
    U, s, _ = np.linalg.svd(A, full_matrices=False)
    expected = U[:, :10] * s[:10]
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    X = text_vectors(texts, dims=10)
    assert X.dtype == np.float32
    np.testing.assert_allclose(X @ X.T, expected @ expected.T, atol=1e-4)
    raw = module._principal(tfidf(texts), 10, 0)
    assert (raw[np.abs(raw).argmax(axis=0), np.arange(10)] > 0).all()


def test_large_pools_are_decomposed_nearly(verses):
    A = tfidf(verses.texts[:1500])
    X = module._principal(A, 32, 0)
    s = np.sqrt(np.linalg.eigvalsh(cosines(A.astype(np.float64)))[::-1][:32])
    found = np.sqrt(np.sum(X.astype(np.float64) ** 2, axis=0))
    assert (found <= s * (1 + 1e-5)).all(), "a projection cannot keep more than the best one"
    assert np.sum(found**2) > 0.985 * np.sum(s**2)
    np.testing.assert_allclose(found[:8], s[:8], rtol=0.005)
    gram = X.T @ X / np.outer(found, found)
    np.testing.assert_allclose(gram, np.eye(32), atol=1e-4)


def test_same_vectors_for_any_number_of_threads_and_one_seed(verses):
    texts = verses.texts[:2000]
    answers = []
    for threads in (1, 2, 4):
        with threadpool_limits(threads):
            answers.append(text_vectors(texts, seed=3).tobytes())
    assert len(set(answers)) == 1
    assert text_vectors(texts, seed=4).tobytes() != answers[0]


def test_text_vectors_tell_topics_apart(verses):
    """Verses of the Psalms are nearer to each other than to those of Leviticus, in far fewer dimensions than terms."""
    book = np.array(verses.target_names)[verses.y]
    rows = np.flatnonzero(np.isin(book, ["Psalms", "Leviticus"]))
    X = text_vectors([verses.texts[i] for i in rows], dims=64)
    S = X @ X.T
    np.fill_diagonal(S, -2)
    neighbour = book[rows][S.argmax(axis=1)]
    assert np.mean(neighbour == book[rows]) > 0.9


def test_repeated_texts_are_at_cosine_one(verses):
    texts = verses.texts[:1500]
    X = text_vectors([*texts, *texts[:50]])
    np.testing.assert_allclose(np.einsum("ij,ij->i", X[:50], X[-50:]), 1, atol=1e-5)


@pytest.mark.parametrize(
    ("texts", "shape"),
    [
        (["one two"] * 5, (5, 1)),
        (["one"], (1, 1)),
        (["one two", "", "three", "!?"], (4, 2)),
        (["a", "b", "c"], (3, 3)),
        (["same"] * 2000, (2000, 1)),
        ([f"word{i}" for i in range(700)], (700, 64)),
    ],
)
def test_degenerate_texts(texts, shape):
    X = text_vectors(texts)
    assert X.shape == shape
    assert np.isfinite(X).all()
    lengths = np.linalg.norm(X, axis=1)
    assert np.isclose(lengths, 1, atol=1e-5).sum() + (lengths == 0).sum() == len(texts)
    for row, text in enumerate(texts):
        if not text.strip("!?"):
            assert lengths[row] == 0


@pytest.mark.parametrize(
    ("texts", "says"),
    [([], "is empty"), (["", "?!"], "hold no word in any row"), (pl.Series(["a", None]), "row 1 is missing")],
)
def test_texts_that_cannot_be_used(texts, says):
    with pytest.raises(InputError, match=says):
        text_vectors(texts)


def test_dims_are_checked():
    with pytest.raises(InputError, match="dims=0"):
        text_vectors(["a b"], dims=0)


# ---- columns ----


def test_every_column_weighs_the_same():
    rng = np.random.default_rng(0)
    frame = pl.DataFrame(
        {
            "price": rng.lognormal(3, 2, 400),
            "count": rng.integers(0, 5, 400),
            "make": rng.choice(["a", "b", "c", "d"], 400, p=[0.7, 0.1, 0.1, 0.1]),
            "flag": rng.random(400) < 0.1,
            "day": [dt.date(2024, 1, 1) + dt.timedelta(int(i)) for i in rng.integers(0, 900, 400)],
            "constant": [3.0] * 400,
            "only": ["x"] * 400,
        }
    )
    X, names = column_vectors(frame)
    assert names == ["price", "count", "make=a", "make=b", "make=c", "make=d", "flag", "day", "constant", "only=x"]
    assert X.dtype == np.float32
    np.testing.assert_allclose(X.mean(axis=0), 0, atol=1e-6)
    for column in frame.columns:
        part = X[:, [name.split("=")[0] == column for name in names]]
        total = part.var(axis=0).sum()
        apart = np.mean(((part[:, None] - part[None]) ** 2).sum(axis=2))
        if column in ("constant", "only"):
            assert not part.any()
        else:
            np.testing.assert_allclose((total, apart), (1, 2), rtol=1e-4)


def test_numbers_are_z_scores():
    values = np.array([1e300, -1e300, 0.0, 5e299])
    X, _ = column_vectors(pl.DataFrame({"a": values, "b": [1, 2, 3, 4]}))
    scaled = values / 1e300
    np.testing.assert_allclose(X[:, 0], (scaled - scaled.mean()) / scaled.std(), rtol=1e-6)
    np.testing.assert_allclose(X[:, 1], (np.arange(4) - 1.5) / np.std(np.arange(4)), rtol=1e-6)


@pytest.mark.parametrize("value", [0.1, 1e-300, 1e18 + 1, 0.0])
def test_constant_numbers_are_zeros_whatever_rounding_says(value):
    X, _ = column_vectors(pl.DataFrame({"a": [value] * 7}))
    assert not X.any()


def test_dates_as_text_are_dates():
    days = ["2024-01-01", "2024-01-02", "2024-01-11"]
    X, names = column_vectors(pl.DataFrame({"d": days, "t": [f"{day}T00:00:00Z" for day in days], "x": [0, 1, 10]}))
    assert names == ["d", "t", "x"]
    np.testing.assert_allclose(X[:, 0], X[:, 2], rtol=1e-5)
    np.testing.assert_allclose(X[:, 1], X[:, 2], rtol=1e-5)
    with pytest.raises(InputError, match="'d' at row 1 is '2024-13-01', which is no date"):
        column_vectors(pl.DataFrame({"d": ["2024-01-01", "2024-13-01"]}))
    named = pl.DataFrame({"d": ["2024-01-01", "2024-13-01"]}, schema={"d": pl.Categorical})
    assert column_vectors(named)[1] == ["d=2024-01-01", "d=2024-13-01"]


def test_whole_numbers_beyond_what_floats_hold_are_told_apart():
    small, large = [0, 1, 2, 900], [2**60, 2**60 + 1, 2**60 + 2, 2**60 + 900]
    X, _ = column_vectors(pl.DataFrame({"small": small, "large": large}))
    np.testing.assert_array_equal(X[:, 0], X[:, 1])
    wide, _ = column_vectors(pl.DataFrame({"x": [-(2**63), 0, 2**63 - 1]}))
    np.testing.assert_allclose(wide[:, 0], [-1.2247448, 0, 1.2247448], rtol=1e-6)


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        ({"a": [1.0, None]}, "column 'a' at row 1 is empty"),
        ({"a": ["x", None]}, "column 'a' at row 1 is empty"),
        ({"a": [1.0, float("nan")]}, "column 'a' at row 1 is NaN"),
        ({"a": [float("inf"), 1.0]}, "column 'a' at row 0 is infinite"),
        ({"a": [f"name {i}" for i in range(1001)]}, "1001 different values; more than 1000 is text, use --text"),
        ({"a": [[1.0], [2.0]]}, "column 'a' holds List"),
        ({}, "name at least one column"),
    ],
)
def test_columns_that_cannot_be_used(frame, says):
    with pytest.raises(InputError, match=says):
        column_vectors(pl.DataFrame(frame))


# ---- a whole table ----


@pytest.fixture
def pool(tmp_path):
    X = np.random.default_rng(0).standard_normal((4, 3)).astype(np.float16)
    frame = pl.DataFrame(
        {
            "id": range(4),
            "text": ["a cat", "the cat", "stocks", "b"],
            "lang": ["de", "en", "en", "fr"],
            "v": pl.Series(X),
        }
    )
    return open_table(write_table(frame, tmp_path / "pool.parquet")), X


def test_pool_vectors_from_each_source(pool, tmp_path):
    table, X = pool
    for given in ({}, {"vectors": "v"}):
        found = pool_vectors(table, **given)
        assert found.X.dtype == np.float16
        np.testing.assert_array_equal(found.X, X)
        assert found.how == "column 'v' as it is"
    found = pool_vectors(table, text="text", dims=2)
    np.testing.assert_array_equal(found.X, text_vectors(["a cat", "the cat", "stocks", "b"], dims=2))
    assert found.how == "TF-IDF of column 'text', reduced to 2 dimensions"
    found = pool_vectors(table, columns=["id", "lang"])
    assert found.X.shape == (4, 4)
    assert found.how == "columns id, lang (3 names) scaled to equal weight"
    np.save(tmp_path / "x.npy", X)
    np.testing.assert_array_equal(pool_vectors(open_table(tmp_path / "x.npy")).X, X)
    np.savez(tmp_path / "x.npz", X=X, images=np.zeros((4, 2, 2)), y=np.arange(4))
    np.testing.assert_array_equal(pool_vectors(open_table(tmp_path / "x.npz")).X, X)


def test_pool_vectors_that_are_not_one_thing(pool, tmp_path):
    table, X = pool
    with pytest.raises(InputError, match="text and vectors were given together"):
        pool_vectors(table, text="text", vectors="v")
    with pytest.raises(InputError, match="needs text"):
        pool_vectors(table, embedder="m")
    with pytest.raises(InputError, match=r"no column 'langs'; did you mean 'lang'\?"):
        pool_vectors(table, columns=["id", "langs"])
    plain = open_table(write_table(table.take(range(4)).drop("v"), tmp_path / "plain.csv"))
    says = r"no column of vectors; .* --text COLUMN \(such as text, lang\) or --columns A,B \(such as id\)"
    with pytest.raises(InputError, match=says):
        pool_vectors(plain)
    np.savez(tmp_path / "two.npz", a=X, b=X)
    with pytest.raises(InputError, match=r"several columns of vectors \(a, b\); name one with --vectors"):
        pool_vectors(open_table(tmp_path / "two.npz"))
