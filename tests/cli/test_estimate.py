"""`--dry-run`: what a run would take."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import run

import kofn
from kofn.cli import estimate
from kofn.cli.estimate_rounds import round_of_many, rounds_ahead
from kofn.io import opening
from kofn.selection.pools._sizes import handed_by_a_part, pairs_of_rounds


def test_dry_run_writes_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("pool.npy", np.random.default_rng(0).normal(size=(700, 4)).astype(np.float32))
    code, text, err = run(capsys, "select", "pool.npy", "-k", 5, "-o", "picks.csv", "--dry-run")
    assert code == 0, err
    for word in ("seconds", "bytes", "exact"):
        assert word in text
    assert not Path("picks.csv").exists()


@pytest.mark.parametrize("n", [40, 3500])
def test_links_labels_and_judges_are_drawn_with_the_sample(
    folder: Path, capsys: pytest.CaptureFixture[str], n: int
) -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"a": rng.random(n), "b": rng.random(n), "y": ["x", "-1"] * (n // 2)})
    frame.write_csv("pool.csv")
    Path("pairs.csv").write_text(f"p,q\n0,1\n2,{n - 1}\n")
    calls: list[list[object]] = [
        ["assign", "pool.csv", "--columns", "a,b", "-k", 3, "--must-link", "pairs.csv", "--capacity", n // 2],
        ["assign", "pool.csv", "--columns", "a,b", "--label", "y", "-m", "laplacian_shot"],
        ["select", "pool.csv", "--columns", "a,b", "--rankings", "-k", 3],
        ["assign", "pool.csv", "--columns", "a,b", "--scores", "--capacity", f"{n},{n}"],
    ]
    for call in calls:
        code, text, err = run(capsys, *call, "--dry-run", "--json")
        assert code == 0, err
        assert json.loads(text)["seconds"].startswith("about ")


def test_a_large_file_is_read_at_its_beginning_only(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    lines = "".join(f"{i},{a:.4f},g{i % 9}\n" for i, a in enumerate(rng.random(1000)))
    # Its last line would be refused.
    Path("pool.csv").write_text("id,a,g\n" + lines * 1000 + '"unclosed\n')
    np.save("pool.npy", rng.random((50_000, 12)).astype(np.float32))
    pl.DataFrame({"v": rng.random((50_001, 8))}).write_parquet("pool.parquet")
    opened: list[int] = []
    check = opening.refuse_other_kind

    def counting(path: Path, suffix: str) -> None:
        opened.append(path.stat().st_size)
        check(path, suffix)

    monkeypatch.setattr(opening, "refuse_other_kind", counting)
    calls: dict[int, list[object]] = {
        1_000_000: ["select", "pool.csv", "--columns", "a", "-k", 900_000, "--quota", "g=g1:5-10", "--include", 99_999],
        50_000: ["select", "pool.npy", "-k", 20],
        50_001: ["assign", "pool.parquet", "--vectors", "v", "--k", 4],
    }
    for rows, call in calls.items():
        code, text, err = run(capsys, *call, "--dry-run", "--json")
        assert code == 0, err
        told = json.loads(text)
        found = int(told["rows"].removeprefix("about ").split(" ")[0].replace(",", ""))
        assert abs(found - rows) <= rows / 1000
        assert told["seconds"].startswith("about ")
        assert opened.pop() < Path(str(call[1])).stat().st_size / 3
        assert not opened


def test_quoted_lines_and_refusals_name_the_file_itself(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("pool.csv").write_text("t,a\n" + '"two\nlines, ""quoted""",1.5\n' * 200_000)
    code, text, err = run(capsys, "select", "pool.csv", "--columns", "a", "-k", 5, "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(text)["rows"] == "200,000 x 1"
    code, text, err = run(capsys, "select", "pool.csv", "--columns", "b", "-k", 5, "--dry-run")
    assert code == 2
    assert err.startswith("kofn: pool.csv has no column 'b'")


def test_auto_is_chosen_by_the_size_of_the_whole_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.save("pool.npy", np.lib.stride_tricks.as_strided(np.zeros(1, np.float16), (120_000, 200), (0, 0)))
    _, text, _ = run(capsys, "select", "pool.npy", "-k", 5, "--dry-run", "--json")
    told = json.loads(text)
    assert told["method"] == "sampled_greedy"
    assert "looks at each pair" in told["seconds"]


def test_what_is_loaded_on_the_first_sample_is_no_time_of_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sizes = [0.0], []

    def sampled(_verb: Any, _method: Any, _options: Any, _call: Any, _n: int, _seen: int, size: int) -> Any:
        clock[0] += size / 1e5 + (0.0 if sizes else 1.2)
        sizes.append(size)
        return SimpleNamespace(method="capped_routing", objective=None, info={})

    monkeypatch.setattr(estimate, "_run_sample", sampled)
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(estimate.time, name, lambda: clock[0])
    words, _ = estimate._timed("assign", "capped_routing", {}, {"X": np.zeros((10_000, 2)), "k": 3}, 100_000)
    assert sizes == [300, 300, 800, 800, 2_500, 2_500, 5_000, 5_000]
    assert words == "about 1 (measured on 5,000 rows, growing as n^1.0)"


def test_what_is_loaded_on_a_later_sample_is_no_time_of_the_rows_either(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, sizes = [0.0], []

    def sampled(_verb: Any, _method: Any, _options: Any, _call: Any, _n: int, _seen: int, size: int) -> Any:
        clock[0] += size / 1e5 + (0.0 if size in sizes else {300: 0.9, 800: 0.7}.get(size, 0.0))
        sizes.append(size)
        return SimpleNamespace(method="capped_routing", objective=None, info={})

    monkeypatch.setattr(estimate, "_run_sample", sampled)
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(estimate.time, name, lambda: clock[0])
    words, _ = estimate._timed("assign", "capped_routing", {}, {"X": np.zeros((10_000, 2)), "k": 3}, 100_000)
    assert words == "about 1 (measured on 5,000 rows, growing as n^1.0)"


@pytest.mark.parametrize(("loading", "a_row"), [(2.5, 1e-5), (0.0, 1e-2)])
def test_a_long_first_run_is_told_apart_from_long_loading(
    monkeypatch: pytest.MonkeyPatch, loading: float, a_row: float
) -> None:
    clock, sizes = [0.0], []

    def sampled(_verb: Any, _method: Any, _options: Any, _call: Any, _n: int, _seen: int, size: int) -> Any:
        clock[0] += size * a_row + (0.0 if sizes else loading)
        sizes.append(size)
        return SimpleNamespace(method="capped_routing", objective=None, info={})

    monkeypatch.setattr(estimate, "_run_sample", sampled)
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(estimate.time, name, lambda: clock[0])
    words, _ = estimate._timed("assign", "capped_routing", {}, {"X": np.zeros((2_500, 2)), "k": 3}, 2_500)
    if loading:
        assert words == "about 0.025 (measured on 2,500 rows)"
    else:
        # It is not run again on as many rows.
        assert sizes == [300, 100]
        assert words == "about 2.1e+02 (measured on 300 rows, if it grows as n^2.0)"


@pytest.mark.parametrize(("most", "told"), [(300, "about 1, between 1 and 1.8 "), (40, "about 1 ")])
def test_rounds_are_counted_apart_from_what_one_takes(monkeypatch: pytest.MonkeyPatch, most: int, told: str) -> None:
    clock = [0.0]

    def sampled(_verb: Any, _method: Any, options: Any, _call: Any, _n: int, _seen: int, size: int) -> Any:
        # Another number on each sample, which is no growth of the time that one takes.
        rounds = min({300: 10, 800: 80, 2_500: 20}.get(size, 40), options["max_iter"] if size > 5_000 else 80)
        clock[0] += rounds * size / 4e6
        return SimpleNamespace(method="constrained_kmeans", objective=None, info={"rounds": rounds})

    monkeypatch.setattr(estimate, "_run_sample", sampled)
    for name in ("perf_counter", "process_time"):
        monkeypatch.setattr(estimate.time, name, lambda: clock[0])
    words, _ = estimate._timed(
        "assign", "constrained_kmeans", {"max_iter": most}, {"X": np.zeros((10_000, 2)), "k": 3}, 100_000
    )
    assert words == f"{told}(a round measured on 100,000 rows: 40 rounds on 5,000, {most} at the most)"


def test_rounds_grow_where_those_of_samples_do() -> None:
    # Of normal rows in 20 groups of bounded size: 21, 28 and 52 rounds on samples, 150 on 20,000 and 300 on 60,000.
    loose = rounds_ahead({300: 12, 800: 21, 2_500: 28, 5_000: 52}, 300, 20_000)
    assert loose.low < loose.about < 150 <= 1.15 * loose.high
    assert rounds_ahead({300: 12, 800: 21, 2_500: 28, 5_000: 52}, 300, 300_000).high == 300
    # With groups 9, 11 and 6, and 5 on 20,000.
    tight = rounds_ahead({300: 40, 800: 9, 2_500: 11, 5_000: 6}, 300, 20_000)
    assert (tight.low, tight.about) == (6, 6)
    assert tight.high < 10
    assert rounds_ahead({300: 7}, 5, 9_000) == (7, 7, 7)


def test_a_round_is_timed_on_more_rows_than_were_seen() -> None:
    asked: list[tuple[int, int]] = []

    def run(rows: Any, most: int) -> None:
        asked.append((len(rows["X"]), most))
        assert len(np.unique(rows["X"], axis=0)) == len(rows["X"])

    X = np.random.default_rng(0).normal(size=(500, 2))
    size, each, before = round_of_many(run, X, 4_000, 1e-9) or (0, 0.0, 0.0)
    assert asked == [(500, 1), (4_000, 1), (4_000, 4)]
    assert (size, each > 0, before >= 0) == (4_000, True, True)
    assert round_of_many(run, X, 4_000, 1.0) is None


def test_a_look_at_two_rounds_goes_by_their_cost_and_leaves_work_alone(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    X = np.random.default_rng(0).normal(size=(6000, 4)).astype(np.float32)
    call: dict[str, Any] = {"X": X, "k": 3}
    for part_rows in (20, 500):
        options = {"part_rows": part_rows, "work": "kept"}
        told = estimate.beforehand("select", "two_round_greedy", options, call, rows=200_000)
        pairs = pairs_of_rounds(200_000, 3, part_rows)
        assert f"(by its cost: {pairs / 200_000:,.0f} distances a row)" in told["seconds"]
    assert not Path("kept").exists()
    pl.DataFrame({"a": X[:, 0], "t": ["w"] * 6000}).write_csv("pool.csv")
    call_of_texts = ["select", "pool.csv", "--text", "t", "-k", 3, "--part-rows", 500, "--work", "kept"]
    for words in (call_of_texts, ["select", "pool.csv", "--columns", "a", *call_of_texts[4:]]):
        assert run(capsys, *words, "--dry-run")[0] == 0
        assert not Path("kept").exists()


def test_the_parts_hand_over_as_many_rows_as_the_estimate_counts() -> None:
    X = np.random.default_rng(0).normal(size=(8000, 8)).astype(np.float32)
    for part_rows in (50, 400):
        plan = kofn.select(X, k=6, method="two_round_greedy", part_rows=part_rows, seed=0)
        handed = handed_by_a_part(8000, 6, part_rows) * -(-8000 // part_rows)
        # Some more complete the picks, k at the most.
        assert handed <= plan.info["candidates"] <= handed + 6


@pytest.mark.parametrize(
    "asked", [{"k": 5}, {"k": 60}, {"k": 60, "part_rows": 300}, {"k": 60, "n_reference": 900}, {"k": 300}]
)
def test_an_estimate_of_two_rounds_is_near_the_distances_that_they_take(asked: dict[str, Any]) -> None:
    X = np.random.default_rng(0).normal(size=(12_000, 8)).astype(np.float32)
    k, options = asked["k"], {name: value for name, value in asked.items() if name != "k"}
    taken = kofn.select(X, k=k, method="two_round_greedy", seed=0, options=options).info["distance_evals"]
    assert 0.6 < pairs_of_rounds(12_000, k, **options) / taken < 1.4
