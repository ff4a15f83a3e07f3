"""Texts of a pool as vectors: by words that a sample teaches, block by block, whatever holds the texts."""

from __future__ import annotations

import gzip
import json
import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from kofn.core.checks import InputError
from kofn.io import pool_texts, stored_rows, text_vectors
from kofn.io.opening import open_table
from kofn.io.pool import Pool
from kofn.io.pool_texts import TextRows, texts_at

WORDS = [f"{a}{b}" for a in ("red", "blue", "car", "bus", "sun", "sea") for b in ("", "s", "ly", "ish", "er")]


def texts(n: int = 300, seed: int = 0) -> list[str]:
    """Short texts of a few topics; one has no word and one a word that is its own."""
    rng = np.random.default_rng(seed)
    out = [" ".join(rng.choice(WORDS[5 * (i % 6) : 5 * (i % 6) + 9], 6)) for i in range(n)]
    out[7], out[11] = "", "Ünïcode"
    return out


def files(folder: Path, suffix: str, values: list[str]) -> str:
    """Four files of the texts."""
    for part in range(4):
        own = values[part * len(values) // 4 : (part + 1) * len(values) // 4]
        frame = pl.DataFrame({"id": np.arange(len(own)), "body": own})
        path = folder / f"part-{part}{suffix}"
        if suffix == ".csv":
            frame.write_csv(path)
        elif suffix == ".csv.gz":
            path.write_bytes(gzip.compress(frame.write_csv().encode()))
        elif suffix == ".parquet":
            frame.write_parquet(path, row_group_size=40)
        elif suffix == ".npy":
            np.save(path, np.array(own))
        else:
            frame.write_ndjson(path)
    return str(folder / f"part-*{suffix}")


def vectors(pool: Pool) -> Any:
    return np.concatenate([pool.read(fragment) for fragment in pool.fragments(part_rows=77)])


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".parquet", ".jsonl", ".npy"])
def test_where_the_sample_is_all_texts_they_are_the_vectors_of_a_small_file(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_texts, "_BLOCK", 50)
    values = texts()
    pool = Pool.open(files(tmp_path, suffix, values), text="value" if suffix == ".npy" else "body")
    X, whole = vectors(pool), text_vectors(values)
    np.testing.assert_allclose(X @ X.T, whole @ whole.T, atol=1e-4)
    assert np.flatnonzero(~X.any(axis=1)).tolist() == np.flatnonzero(~whole.any(axis=1)).tolist()
    assert pool.how.endswith("learnt on all its texts")
    assert pool.vectors is None


def test_words_that_no_text_of_the_sample_has_are_counted_and_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_texts, "SAMPLE", 100)
    monkeypatch.setattr(pool_texts, "_LEAST_SAMPLE", 1)
    values = texts()
    drawn = np.sort(np.random.default_rng(0).choice(300, 100, replace=False))
    outside = np.setdiff1d(np.arange(300), drawn)
    for row in outside[20:50].tolist():
        values[row] += f" rare{row}"
    pool = Pool.open(files(tmp_path, ".csv", values), text="body")
    X = vectors(pool)
    in_sample = {word for row in drawn.tolist() for word in values[row].lower().split()}
    words = [word for value in values for word in value.lower().split()]
    unknown = 100 * sum(word not in in_sample for word in words) / len(words)
    assert unknown > 1
    assert pool.how.endswith(f"learnt on 100 of its texts, in none of which {unknown:.1f}% of all words stand")
    # A text is what its known words are.
    row = int(outside[20])
    bare = [value.rsplit(" rare", 1)[0] for value in values]
    pool = Pool.open(files(tmp_path, ".csv", bare), text="body")
    np.testing.assert_allclose(vectors(pool)[row], X[row], atol=1e-6)
    # Of long texts fewer are drawn.
    monkeypatch.setattr(pool_texts, "_SAMPLE_CHARACTERS", 1_000)
    table = open_table(tmp_path / "part-0.csv")
    assert TextRows(table, "body").sampled < 75


def test_nested_and_mixed_values_of_json_lines_are_their_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_texts, "_BLOCK", 16)
    chats = [[{"role": "user", "content": value}] for value in texts(60)]
    mixed: list[Any] = [*texts(58), 3, None]
    (tmp_path / "pool.jsonl").write_text(
        "".join(json.dumps({"chat": c, "mixed": m}) + "\n" for c, m in zip(chats, mixed, strict=True))
    )
    table = open_table(tmp_path / "pool.jsonl")
    for name in ("chat", "mixed"):
        assert pl.concat(table.text_blocks(name, 7)).to_list() == table.texts(name).to_list()
    pool = Pool.open(tmp_path / "pool.jsonl", text="chat")
    np.testing.assert_allclose(vectors(pool) @ vectors(pool)[:5].T, _whole(texts(60)), atol=1e-4)


def _whole(values: list[str]) -> Any:
    X = text_vectors(values)
    return X @ X[:5].T


def test_texts_of_some_rows_are_read_in_one_pass(tmp_path: Path) -> None:
    values = texts()
    files(tmp_path, ".parquet", values)
    table = open_table(tmp_path / "part-1.parquet")
    rows = np.array([0, 3, 30, 74])
    assert texts_at(table, "body", rows, 16).to_list() == [values[75 + row] for row in rows.tolist()]
    with pytest.raises(InputError, match="changed while it was read; run again"):
        texts_at(table, "body", np.array([0, 75]))


def test_work_keeps_the_vectors_for_the_next_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, work = files(tmp_path, ".csv", texts()), tmp_path / "deep" / "work"
    first = vectors(Pool.open(source, text="body", work=work))
    assert len(list(work.glob("texts-*.npy"))) == 1
    with monkeypatch.context() as patched:
        patched.setattr(TextRows, "blocks", lambda _self: pytest.fail("they are made anew"))
        np.testing.assert_array_equal(vectors(Pool.open(source, text="body", work=work)), first)
    # Other texts, and other rows, are others.
    files(tmp_path, ".csv", texts(seed=1))
    assert not np.array_equal(vectors(Pool.open(source, text="body", work=work)), first)
    assert len(list(work.glob("texts-*.npy"))) == 2
    frame = pl.DataFrame({"body": texts()})
    np.testing.assert_allclose(vectors(Pool.open(frame, text="body", work=work)) @ first.T, first @ first.T, atol=1e-4)
    assert len(list(work.iterdir())) == 2, "a frame has no name that the next run could know it by"


def test_a_run_that_is_killed_in_the_middle_leaves_no_vectors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = files(tmp_path, ".csv", texts())
    monkeypatch.setattr(TextRows, "_vectors", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        Pool.open(source, text="body", work=tmp_path / "work")
    assert not list((tmp_path / "work").iterdir())


def test_a_pool_of_texts_goes_to_another_process_with_its_vectors(tmp_path: Path) -> None:
    pool = Pool.open(files(tmp_path, ".csv", texts()), text="body", work=tmp_path)
    other = pickle.loads(pickle.dumps(pool))
    np.testing.assert_array_equal(vectors(other), vectors(pool))
    assert (other.text, other.digest) == ("body", pool.digest)
    state = pickle.dumps(Pool.open(str(tmp_path / "part-*.csv"), text="body"))
    with pytest.raises(InputError, match=r"is not on node .*; name a work folder that all nodes read"):
        pickle.loads(state)  # that pool, and its temporary file with it, is gone


def test_vectors_by_a_model_are_made_in_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_texts, "_BLOCK", 50)
    asked: list[int] = []

    def model(series: pl.Series, name: str, *, cache: bool) -> Any:
        assert (name, cache) == ("mine", False)
        asked.append(len(series))
        lengths = series.str.len_chars().to_numpy()
        return type("Embedded", (), {"X": np.stack([lengths, 1 + lengths], 1).astype(np.float32), "shown": "my model"})

    monkeypatch.setattr(pool_texts, "embedded", model)
    values = texts()
    table = open_table(files(tmp_path, ".csv", values[:200]).replace("*", "0"))
    rows = TextRows(table, "body", "mine", cache=False)
    X = np.concatenate(list(rows.blocks()))
    assert max(asked) <= 50
    assert X[:, 0].tolist() == [len(value) for value in values[:50]]
    assert (rows.how, rows.sampled) == ("my model of column 'body'", 0)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"text": "body", "vectors": "x"}, "text and vectors were given together; give one of them"),
        ({"text": "body", "columns": ["id"]}, "text and columns were given together; give one of them"),
        ({"embedder": "minilm"}, "embedder='minilm' needs text: name the column to embed"),
        ({"text": "boddy"}, "no column 'boddy'"),
        ({"text": "x"}, "column 'x' holds vectors; give it as vectors, or a column of text"),
        ({"text": "empty"}, "texts hold no word in any row; name another column"),
    ],
)
def test_what_is_asked_of_texts_must_fit(tmp_path: Path, how: dict[str, Any], says: str) -> None:
    frame = pl.DataFrame({"id": [1, 2], "body": ["a b", "c"], "x": [[1.0], [2.0]], "empty": ["", "..."]})
    frame.write_parquet(tmp_path / "a.parquet")
    with pytest.raises(InputError) as caught:
        Pool.open(tmp_path / "a.parquet", **how)
    assert says in str(caught.value)


def test_what_killed_runs_of_this_machine_have_left_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pl.DataFrame({"body": ["a b", "b c", "c"]})
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr("socket.gethostname", lambda: "another")
        others = stored_rows.temporary(".npy", tmp_path)
    own = stored_rows.temporary(".npy", tmp_path)
    monkeypatch.setattr(os, "getpid", lambda: 2**22 + 7)  # above the largest number of a process
    dead = [stored_rows.temporary(suffix, tmp_path) for suffix in (".npy", ".parquet", ".rows")]
    monkeypatch.undo()
    (tmp_path / "kofn-pool-notes.npy").touch()
    assert len({others, own, *dead}) == 5
    pool = Pool.open(frame, text="body", work=tmp_path)
    assert not any(path.exists() for path in dead)
    assert others.exists()
    assert own.exists()
    assert (tmp_path / "kofn-pool-notes.npy").exists()
    del pool
    assert len(list(tmp_path.iterdir())) == 3
