"""`--dry-run` takes as long for any pool: rows read and probes run are bounded, whatever the size and the method."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp
from command_line import run

from kofn.cli import estimate
from kofn.io.beginnings import ROWS, beginning

# What a probe of so many rows costs, in seconds, by the kind of method.
COSTS: dict[str, Callable[[int], float]] = {
    "linear": lambda size: size * 2e-5,
    "square": lambda size: size**2 * 2e-6,
    "cube": lambda size: size**3 * 1e-9,
    "slow from the first": lambda size: size * 1e-3,
    "two ways": lambda size: size * 1e-5 if size < 2000 else 0.3 + size**2 * 2e-8,
}


@pytest.mark.parametrize("cost", COSTS)
@pytest.mark.parametrize("seen", [700, 5_000])
def test_probes_together_take_little_whatever_a_probe_costs(
    monkeypatch: pytest.MonkeyPatch, cost: str, seen: int
) -> None:
    clock, sizes = [0.0], []

    def sampled(*arguments: Any) -> Any:
        sizes.append(arguments[-1])
        clock[0] += COSTS[cost](arguments[-1])
        return SimpleNamespace(method="capped_routing", objective=None, info={})

    monkeypatch.setattr(estimate, "_run_sample", sampled)
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(estimate.time, name, lambda: clock[0])
    estimate._timed("assign", "capped_routing", {}, {"X": np.zeros((seen, 2)), "k": 3}, 10_000_000)
    assert clock[0] < 1.6
    assert len(sizes) <= 2 * len(estimate._SAMPLES)
    assert sizes == sorted(sizes)


def test_looks_at_pairs_are_counted_on_two_sizes_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sizes = [0.0], []

    def sampled(*arguments: Any, every_pick: bool = False) -> Any:
        size = arguments[-1]
        sizes.append(size)
        clock[0] += size**2 * (4e-7 if every_pick else 1e-7)
        return SimpleNamespace(
            method="lazy_greedy", objective="facility_location", n=size, info={"distance_evals": 5 * size**2}
        )

    monkeypatch.setattr(estimate, "_run_sample", sampled)
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(estimate.time, name, lambda: clock[0])
    words, _ = estimate._timed("select", "lazy_greedy", {}, {"X": np.zeros((5_000, 8)), "k": 900}, 50_000)
    assert "(5.0 looks at each pair" in words
    assert len(sizes) == 5
    assert clock[0] < 2 * estimate._PATIENCE


def test_more_groups_than_a_sample_has_rows_are_no_refusal(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("pool.npy", np.random.default_rng(0).random((9_000, 3)).astype(np.float32))
    bounds = ["--capacity", 20, "-m", "constrained_kmeans"]
    for more in ([], bounds):
        code, text, err = run(capsys, "assign", "pool.npy", "--k", 800, *more, "--dry-run", "--json")
        assert code == 0, err
        assert json.loads(text)["seconds"].startswith("about ")


def test_a_look_at_the_beginning_refuses_nothing_that_the_whole_allows(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = [f"alpha beta gamma number {row % 40} of these" for row in range(60_000)]
    pl.DataFrame({"t": [*texts, "a zebra"], "s": np.arange(60_001)}).write_csv("pool.csv")
    for call in (
        ["select", "pool.csv", "--text", "t", "--queries", "zebra", "-k", 3],
        ["select", "pool.csv", "--text", "t", "--dedupe", 0.9],
        ["select", "pool.csv", "--text", "t", "--dedupe", 0.9, "--score", "s"],
    ):
        code, text, err = run(capsys, *call, "--dry-run", "--json")
        assert code == 0, err
        assert json.loads(text)["seconds"].startswith("about ")


def test_archives_sparse_matrices_and_long_rows_are_read_at_their_beginnings(folder: Path) -> None:
    rng = np.random.default_rng(0)
    n = ROWS + 2_000
    np.savez("both.npz", X=rng.random((n, 40)).astype(np.float32), y=np.arange(n))
    matrix = sp.random(n, 5_000, 0.01, "csr", np.float32, rng)
    sp.save_npz("sparse.npz", matrix)
    # Rows of 2 MB, of which there are few.
    wide = np.lib.format.open_memmap("wide.npy", "w+", np.float32, (400, 500_000))
    wide[:2] = 1
    with beginning("both.npz") as (path, rows):
        assert rows == n
        with np.load(path) as small:
            assert small["X"].shape == (ROWS, 40)
            assert small["y"][-1] == ROWS - 1
    with beginning("sparse.npz") as (path, rows):
        assert rows == n
        assert (sp.load_npz(path) != matrix[:ROWS]).nnz == 0
    with beginning("sparse.npz", square=True) as (path, rows):
        assert sp.load_npz(path).shape == (ROWS, ROWS)
    with beginning("wide.npy") as (path, rows):
        assert (rows, len(np.load(path, mmap_mode="r"))) == (400, 300)
    with beginning("both.npz", rows=50) as (path, rows):
        assert np.load(path)["y"].tolist() == list(range(50))
    # What lies by columns, or is damaged, is left to the reader of the whole.
    np.savez("turned.npz", X=np.asfortranarray(rng.random((n, 40))))
    Path("damaged.npz").write_bytes(Path("sparse.npz").read_bytes()[:-900])
    for name in ("turned.npz", "damaged.npz"):
        with beginning(name) as (path, rows):
            assert (path, rows) == (Path(name), None)


def test_long_texts_are_cut_where_only_the_shape_of_their_vectors_counts(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from kofn.io import vectors

    looked_at: list[int] = []
    made = vectors.text_vectors

    def counted(texts: pl.Series, **how: Any) -> Any:
        looked_at.append(int(texts.str.len_chars().sum()))
        return made(texts, **how)

    monkeypatch.setattr(vectors, "text_vectors", counted)
    monkeypatch.setattr(vectors, "_LOOKED_AT", 20_000)
    words = np.random.default_rng(0).choice([f"w{i}" for i in range(500)], (200, 60))
    pl.DataFrame({"t": [" ".join(row) for row in words]}).write_parquet("pool.parquet")
    for dry in ([], ["--dry-run"]):
        assert run(capsys, "select", "pool.parquet", "--text", "t", "-k", 3, "-o", "o.csv", *dry)[0] == 0
    assert looked_at[0] > 2 * 20_000 >= 2 * looked_at[1] > 2 * 19_000


def test_auto_is_chosen_by_the_size_of_a_sparse_matrix(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    sp.save_npz("pool.npz", sp.random(60_000, 900, 0.01, "csr", np.float32, np.random.default_rng(0)))
    _, text, _ = run(capsys, "select", "pool.npz", "--metric", "cosine", "-k", 5, "--dry-run", "--json")
    told = json.loads(text)
    assert (told["method"], told["rows"]) == ("sampled_greedy", "60,000 x 900")


def test_a_round_of_labels_is_looked_at_without_its_classifier(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    methods = []
    sampled = estimate._run_sample

    def watched(verb: str, method: str, *arguments: Any, **words: Any) -> Any:
        methods.append(method)
        return sampled(verb, method, *arguments, **words)

    monkeypatch.setattr(estimate, "_run_sample", watched)
    rows = np.random.default_rng(0).normal(size=(2_000, 4)).round(3)
    labels = ["a" if row < 9 else "b" if row < 20 else None for row in range(2_000)]
    pl.DataFrame({f"x{j}": rows[:, j] for j in range(4)}).with_columns(pl.Series("y", labels)).write_csv("pool.csv")
    call = ("select", "pool.csv", "--columns", "x0,x1,x2,x3", "--label", "y", "-k", 30, "--dry-run", "--json")
    code, out, err = run(capsys, *call)
    assert code == 0, err
    told = json.loads(out)
    assert told["method"] == "uncertainty_herding"
    assert "looks at each pair" in told["seconds"] or "not measured" in told["seconds"]
    assert set(methods) == {"lazy_greedy"}


def test_the_seconds_of_texts_are_told_with_those_of_their_vectors(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = np.random.default_rng(0).choice([f"w{i}" for i in range(80)], (900, 6))
    pl.DataFrame({"t": [" ".join(row) for row in words]}).write_csv("pool.csv")
    for call in (("select", "pool.csv", "--text", "t", "-k", 5), ("assign", "pool.csv", "--text", "t", "-k", 5)):
        seconds = json.loads(run(capsys, *call, "--dry-run", "--json")[1])["seconds"]
        assert "of making vectors come on top" in seconds
        assert 0 < float(seconds.split("; about ")[1].split()[0]) < 60


def test_near_duplicates_of_texts_take_little_more_than_in_proportion() -> None:
    texts, pairs = (
        estimate.duplicates_beforehand(1_500, 150_000, 0.03, pairs=pairs)["seconds"] for pairs in (False, True)
    )
    assert 3 < float(texts.split()[1]) < 10
    assert float(pairs.split()[1]) == 300
