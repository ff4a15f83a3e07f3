"""One pass over a stream: against the sieves written out item by item, over files, and what is refused."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import kofn
from kofn.core.checks import InfeasibleError, InputError
from kofn.io.batches import row_batches
from kofn.selection import SieveStreaming, sieve_streaming, stream_file

Array = np.ndarray


def covered(rows: list[Array]) -> float:
    return float(np.any(rows, axis=0).sum()) if rows else 0.0


def by_hand(X: Array, k: int, eps: float, variant: str) -> dict[int, list[int]]:
    """The sieves of the two papers, one item after the other."""
    sieves: dict[int, list[int]] = {}
    most = reached = 0.0
    for i, row in enumerate(X):
        most = max(most, covered([row]))
        if most == 0:
            continue
        low = most if variant == "sieve" else max(reached, most) / (2 * k) / (1 + eps)
        high = 2 * k * most if variant == "sieve" else most
        powers = [p for p in range(-200, 200) if low <= (1 + eps) ** p <= high]
        sieves = {p: sieves.get(p, []) for p in powers}
        for p, picks in sieves.items():
            held = covered([X[j] for j in picks])
            level = (1 + eps) ** p
            if len(picks) < k:
                least = level if variant == "sieve++" else (level / 2 - held) / (k - len(picks))
                if covered([*(X[j] for j in picks), row]) - held >= least:
                    picks.append(i)
        reached = max([reached, *(covered([X[j] for j in picks]) for picks in sieves.values())])
    return sieves


@pytest.mark.parametrize("variant", ["sieve", "sieve++"])
@pytest.mark.parametrize("seed", range(6))
def test_sieves_are_the_papers(variant: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = (rng.random((120, 60)) < rng.choice([0.02, 0.05, 0.15], 120)[:, None]).astype(float)
    expected = by_hand(X, 5, 0.13, variant)
    for step in (1, 7, 120):
        stream = SieveStreaming(5, eps=0.13, variant=variant, objective="coverage", greedy_fill=False)
        for low in range(0, 120, step):
            stream.insert(None, X[low : low + step])
        found = {power: stream._held[one.picks].tolist() for power, one in stream._sieves.items()}
        assert found == expected
    best = max(covered([X[j] for j in picks]) for picks in expected.values())
    assert stream.plan.value >= best
    optimum = max(covered(list(rows)) for rows in itertools.combinations(X[:20], 5))
    assert stream.plan.bound >= optimum


@pytest.mark.parametrize("variant", ["sieve", "sieve++"])
def test_memory_is_the_picks_of_the_sieves(variant: str) -> None:
    X = np.random.default_rng(0).normal(size=(4000, 8))
    stream = SieveStreaming(10, eps=0.2, variant=variant, reference=X[:100])
    stream.insert(None, X)
    guesses = math.log(2 * 10 * 1.2) / math.log(1.2) + 2
    assert stream.most_held <= 10 * (guesses + 1)
    assert stream.held <= stream.most_held
    assert stream.plan.info["sieves"] <= guesses
    assert stream.oracle_calls <= 4000 * (1 + guesses)


def test_a_stream_that_ends_early_says_so() -> None:
    stream = SieveStreaming(4, objective="coverage")
    assert (len(stream.plan), stream.plan.n, stream.plan.short) == (0, 0, 4)
    stream.insert(["a", "b"], [[1, 0, 1], [0, 0, 0]])
    plan = stream.plan
    assert (plan.keys(plan.indices).tolist(), plan.value, plan.short) == (["a", "b"], 2.0, 2)
    assert (plan.status, plan.bound) == ("optimal", 2.0)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_nearly_as_good_as_greedy_over_all(metric: str) -> None:
    rng = np.random.default_rng(1)
    X = rng.normal(size=(30, 6))[rng.integers(0, 30, 3000)] * 3 + rng.normal(size=(3000, 6)) * 0.5
    plan = sieve_streaming(X, k=12, metric=metric, seed=0, n_reference=200)
    reference = X[plan.info["reference"]]
    if metric == "cosine":
        unit = [rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (X, reference)]
        table = (1 + unit[0] @ unit[1].T) / 2
    else:
        power = 1 if metric == "euclidean" else 2
        apart = np.linalg.norm(X[:, None] - reference[None], axis=2) ** power
        table = np.maximum(np.linalg.norm(reference - reference.mean(axis=0), axis=1) ** power - apart, 0)
    best, value = np.zeros(200), 0.0
    for _ in range(12):
        value = np.maximum(table, best).sum(axis=1).max()
        best = np.maximum(table[np.maximum(table, best).sum(axis=1).argmax()], best)
    assert plan.value == pytest.approx(table[plan.indices].max(axis=0).sum())
    assert plan.value >= 0.85 * value
    assert plan.bound >= value
    assert plan.n == 3000


def test_through_the_verb_and_memory_mapped(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(500, 5)).astype(np.float32)
    np.save(tmp_path / "rows.npy", X)
    mapped = np.load(tmp_path / "rows.npy", mmap_mode="r")
    plan = kofn.select(X, k=7, method="sieve_streaming", seed=3, options={"n_reference": 64})
    again = sieve_streaming(mapped, k=7, seed=3, n_reference=64)
    assert plan.indices.tolist() == again.indices.tolist()
    assert len(plan) == 7
    own = sieve_streaming(X, k=7, reference=X[plan.info["reference"]])
    assert own.indices.tolist() == plan.indices.tolist()


def test_files_are_streamed_alike(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(300, 3)).round(3)
    frame = pl.DataFrame(X, schema=["a", "b", "c"])
    np.save(tmp_path / "x.npy", X)
    frame.write_csv(tmp_path / "x.csv")
    frame.write_parquet(tmp_path / "x.parquet", row_group_size=50)
    frame.write_ndjson(tmp_path / "x.jsonl")
    pl.DataFrame({"id": range(300), "v": X.tolist()}).write_parquet(tmp_path / "v.parquet", row_group_size=64)
    plans = [
        stream_file(tmp_path / name, k=5, rows=37, seed=1, n_reference=50)
        for name in ("x.npy", "x.csv", "x.parquet", "x.jsonl", "v.parquet")
    ]
    expected = sieve_streaming(X, k=5, seed=1, n_reference=50)
    for plan in plans:
        assert plan.indices.tolist() == expected.indices.tolist()
        assert plan.value == pytest.approx(expected.value)
    for name in ("x.npy", "x.csv", "x.parquet", "x.jsonl", "v.parquet"):
        blocks = list(row_batches(tmp_path / name, rows=37))
        assert max(len(block) for block in blocks) <= 37
        np.testing.assert_allclose(np.concatenate(blocks), X)
    some = np.concatenate(list(row_batches(tmp_path / "x.csv", columns=["c", "a"])))
    np.testing.assert_array_equal(some, X[:, [2, 0]])


def test_files_that_are_refused(tmp_path: Path) -> None:
    pl.DataFrame({"a": [1.0, None, 3.0], "t": ["x", "y", "z"]}).write_parquet(tmp_path / "gap.parquet")
    pl.DataFrame({"t": ["x", "y"]}).write_csv(tmp_path / "text.csv")
    pl.DataFrame({"u": [[1.0], [2.0]], "v": [[1.0], [2.0]]}).write_parquet(tmp_path / "two.parquet")
    np.save(tmp_path / "nan.npy", np.array([[1.0], [2.0], [np.nan]]))
    pl.DataFrame({"v": [[1.0, 2.0], [2.0]]}).write_parquet(tmp_path / "ragged.parquet")
    for name, options, message in (
        ("gap.parquet", {"columns": ["a"]}, "column 'a' at row 1 is empty"),
        ("gap.parquet", {"columns": ["t"]}, "column 't' at row 0 is 'x', which is not a number"),
        ("gap.parquet", {"columns": ["b"]}, "no column 'b'"),
        ("gap.parquet", {"columns": ["a"], "vectors": "t"}, "columns and vectors were given together"),
        ("text.csv", {}, "no column of numbers or vectors"),
        ("two.parquet", {}, "several columns of vectors"),
        ("nan.npy", {"rows": 2}, "row 2 of the file"),
        ("ragged.parquet", {}, "at row 1 has 1 values, row 0 has 2"),
        ("gap.parquet", {"rows": 0}, "rows=0"),
        ("none.npy", {}, "no such file"),
    ):
        with pytest.raises(InputError, match=message):
            list(row_batches(tmp_path / name, **options))


def test_what_is_refused() -> None:
    stream = SieveStreaming(2, objective="coverage")
    stream.insert(["a", "b"], np.eye(2))
    for ids, X, message in (
        (["b", "c"], np.eye(2), "ids names 'b', which is there already; give each item once"),
        (["c", "c"], np.eye(2), "'c' stands at row 0 and at row 1"),
        (["c"], np.eye(2), "ids has 1 values, X has 2 rows"),
        (["c"], np.ones((1, 3)), "X has 3 columns, the rows of this pool have 2"),
        (None, np.eye(2), "earlier batches had ids"),
    ):
        with pytest.raises(InputError, match=message.replace("(", r"\(")):
            stream.insert(ids, X)
    assert len(stream) == 2
    counted = SieveStreaming(2, objective="coverage")
    counted.insert(None, np.eye(2))
    with pytest.raises(InputError, match="earlier batches had none"):
        counted.insert(["a"], np.ones((1, 2)))
    X = np.random.default_rng(0).normal(size=(9, 2))
    for options, kind, message in (
        ({"eps": 0.0}, InputError, "eps=0.0: it must be above 0 and at most 0.5"),
        ({"variant": "sieve+"}, InputError, "variant='sieve\\+'"),
        ({"k": 10}, InfeasibleError, "k=10 of 9 items"),
        ({"reference": [[1.0]]}, InputError, "X has 2 columns, the rows of this pool have 1"),
        ({"n_reference": 0}, InputError, "n_reference=0"),
        ({"metric": "precomputed"}, InputError, "metric='precomputed'"),
    ):
        with pytest.raises(kind, match=message):
            sieve_streaming(X, **{"k": 2, "seed": 0, **options})
    with pytest.raises(InputError, match="state was made with variant='sieve\\+\\+', here it is 'sieve'"):
        SieveStreaming(2, objective="coverage", variant="sieve").load_state_dict(stream.state_dict())
    with pytest.raises(InputError, match="state lacks 'schema'"):
        stream.load_state_dict({})
