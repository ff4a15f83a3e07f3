"""Round robin over queries and tasks against a plain loop, and the pooling against its formula."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from refusals import refused

import kofn
from kofn.core.checks import InfeasibleError, InputError
from kofn.selection import position_weighted_mean, rds_plus
from kofn.selection.training_data import _rds_plus as filtering


def naive(X: np.ndarray, queries: np.ndarray, k: int, tasks: list[str] | None = None, banned: tuple = ()) -> list[int]:
    """Turn by turn over the whole table of cosines."""

    def unit(rows: np.ndarray) -> np.ndarray:
        size = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
        return rows / np.where(size > 0, size, 1)

    table = np.round(unit(X) @ unit(queries).T, 6)
    if tasks is not None:
        table = np.stack([table[:, np.array(tasks) == task].max(axis=1) for task in sorted(set(tasks))], axis=1)
    picks: list[int] = []
    while len(picks) < k:
        for column in table.T:
            order = [i for i in np.argsort(-column, kind="stable").tolist() if i not in picks and i not in banned]
            if len(picks) < k:
                picks.append(order[0])
    return picks


@pytest.mark.parametrize("seed", range(8))
def test_turns_are_those_of_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    X = rng.integers(-2, 3, (60, 3)).astype(np.float64)  # many equal directions, rows of zeros
    queries = rng.integers(-2, 3, (4, 3)).astype(np.float64)
    for k in (1, 7, 60):
        assert rds_plus(X, k=k, queries=queries).indices.tolist() == naive(X, queries, k)
        tasks = ["b", "a", "b", "c"]
        assert rds_plus(X, k=k, queries=queries, tasks=tasks).indices.tolist() == naive(X, queries, k, tasks)
    banned = (3, 5, 7)
    assert rds_plus(X, k=50, queries=queries, exclude=list(banned)).indices.tolist() == naive(
        X, queries, 50, None, banned
    )


def test_queries_that_want_the_same_rows_go_further_down() -> None:
    """All queries alike: each pick is taken from all the other lists, which run out and are asked for more."""
    X = np.random.default_rng(0).normal(size=(500, 4))
    queries = np.repeat(X[:1], 40, axis=0)
    plan = rds_plus(X, k=400, queries=queries)
    assert plan.indices.tolist() == naive(X, queries[:1], 400)
    assert plan.info["turn"][:45] == [*range(40), *range(5)]


def test_a_query_that_dominates_does_not_take_all() -> None:
    rng = np.random.default_rng(1)
    crowd = rng.normal([5, 0, 0], 0.1, (300, 3))
    few = rng.normal([0, 5, 0], 0.5, (20, 3))
    X = np.concatenate([crowd, few])
    queries = np.array([[1.0, 0, 0], [0, 1.0, 0]])
    plan = rds_plus(X, k=30, queries=queries)
    assert (plan.indices >= 300).sum() == 15
    best = (X / np.linalg.norm(X, axis=1, keepdims=True) @ queries.T).max(axis=1)
    assert (np.argsort(-best)[:30] >= 300).sum() < 3
    np.testing.assert_allclose(plan.gains, best[plan.indices], atol=1e-9)
    assert plan.value == pytest.approx(best[plan.indices].sum())


def test_blocks_and_groups_of_lists_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    X, queries = rng.normal(size=(1000, 8)), rng.normal(size=(30, 8))
    whole = rds_plus(X, k=200, queries=queries)
    monkeypatch.setattr(filtering, "_BLOCK", 17)
    monkeypatch.setattr(filtering, "_ENTRIES_AT_ONCE", 4000)
    assert rds_plus(X, k=200, queries=queries).equals(whole, rtol=1e-12)


def test_through_the_verb_with_ids() -> None:
    plan = kofn.select(
        np.eye(4), k=2, ids=list("abcd"), method="rds_plus", options={"queries": [[0, 0, 1, 0], [0, 1, 0, 0]]}
    )
    assert plan.keys(plan.indices).tolist() == ["c", "b"]


def test_pooling() -> None:
    rng = np.random.default_rng(3)
    hidden = rng.normal(size=(2, 5, 3))
    weights = np.arange(1, 6) / 15
    np.testing.assert_allclose(position_weighted_mean(hidden)[0], weights @ hidden[0])
    right = position_weighted_mean(hidden, mask=[[1, 1, 1, 0, 0], [1] * 5])
    np.testing.assert_allclose(right[0], np.arange(1, 4) / 6 @ hidden[0, :3])
    left = position_weighted_mean(hidden, mask=[[0, 0, 1, 1, 1], [1] * 5])
    np.testing.assert_allclose(left[0], np.arange(1, 4) / 6 @ hidden[0, 2:])
    padded = hidden.copy()
    padded[0, 3:] = np.nan
    np.testing.assert_allclose(position_weighted_mean(padded, mask=[[1, 1, 1, 0, 0], [1] * 5]), right)
    assert position_weighted_mean(hidden.astype(np.float16)).dtype == np.float32
    assert not position_weighted_mean(hidden, mask=np.zeros((2, 5))).any()


def test_refusals() -> None:
    X = np.eye(3)
    refused(lambda: rds_plus(X, k=1), "rds_plus needs queries")
    refused(lambda: rds_plus(X, k=1, queries=[[1.0, 2.0]]), "queries have 2 columns, X has 3")
    refused(lambda: rds_plus(X, k=1, queries=[[1.0, np.nan, 0.0]]), "queries at row 0, column 1 is NaN")
    refused(lambda: rds_plus(X, k=1, queries=X, tasks=["a"]), "tasks has 1 values, queries has 3 rows")
    refused(lambda: rds_plus(X, k=3, queries=X, exclude=[0]), "k=3 of 2 open items", InfeasibleError)
    refused(lambda: position_weighted_mean(X), "hidden has shape (3, 3)")
    refused(lambda: position_weighted_mean(np.zeros((2, 3, 4)), mask=np.ones((2, 4))), "mask has shape (2, 4)")
    refused(lambda: position_weighted_mean(np.full((1, 2, 2), np.nan)), "hidden (pooled) at row 0, column 0 is NaN")


def _command(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    from kofn.cli import main

    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    out, err = capsys.readouterr()
    return int(stop.value.code or 0), out, err


def test_queries_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    X, queries = rng.normal(size=(50, 4)), rng.normal(size=(3, 4))
    np.save(tmp_path / "pool.npy", X)
    np.save(tmp_path / "q.npy", queries)
    np.savez(tmp_path / "two.npz", a=X, b=X)
    np.savez(tmp_path / "one.npz", a=queries)
    call = ("select", tmp_path / "pool.npy", "-k", 6, "--method", "rds_plus", "--json", "--queries")
    expected = rds_plus(X, k=6, queries=queries).indices.tolist()
    for given in (f"@{tmp_path / 'q.npy'}", f"@{tmp_path / 'one.npz'}", tmp_path / "q.npy"):
        code, out, err = _command(capsys, *call, given)
        assert (code, err) == (0, "")
        assert json.loads(out)["picks"] == expected
    for given, says in (
        ("@nowhere.npy", "@nowhere.npy: no such file"),
        (f"@{__file__}", "is not an array"),
        (f"@{tmp_path / 'two.npz'}", "holds 2 arrays (a, b)"),
    ):
        code, _, err = _command(capsys, *call, given)
        assert code != 0
        assert says in err


def test_queries_of_text_are_embedded_with_the_pool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["cats purr at night", "stocks fell again", "the dog ran", "bonds and stocks rose", "a cat and a dog"]
    pl.DataFrame({"body": texts, "age": range(5)}).write_ndjson(tmp_path / "pool.jsonl")
    (tmp_path / "wanted.txt").write_text("stocks\n\nbonds\n")
    pl.DataFrame({"body": ["stocks", "bonds"]}).write_csv(tmp_path / "wanted.csv")
    call = ("select", tmp_path / "pool.jsonl", "-k", 2, "-m", "rds_plus", "--json")
    for file in ("wanted.txt", "wanted.csv"):
        code, out, err = _command(capsys, *call, "--text", "body", "--queries", tmp_path / file)
        assert (code, err) == (0, "")
        assert set(json.loads(out)["picks"]) == {1, 3}
    code, _, err = _command(capsys, *call, "--text", "body", "--queries", "nowhere.txt")
    assert "--queries nowhere.txt: no such file" in err
    code, _, err = _command(capsys, *call, "--columns", "age", "--queries", tmp_path / "wanted.txt")
    assert "goes with --text or --vectors" in err


def test_a_cutoff_that_leaves_too_few_is_refused() -> None:
    with pytest.raises(InputError, match=r"k=9, but cutoff=0\.5 leaves 5 of 10 examples; lower k or cutoff"):
        kofn.select(scores=np.arange(10.0), k=9, method="ccs", options={"cutoff": 0.5})
