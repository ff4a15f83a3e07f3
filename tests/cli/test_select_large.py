"""Pools that do not fit are read in parts, and nothing else changes for who types the command."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

import kofn
from kofn.io.parquet import Parquet

ROWS, WIDTH, K = 6000, 16, 12
# Less than the vectors take twice, and room for what the method holds.
ROOM = ("--part-rows", 500)


def pool(folder: Path) -> str:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(40, WIDTH))
    X = (centres[rng.integers(0, 40, ROWS)] + rng.normal(scale=0.3, size=(ROWS, WIDTH))).astype(np.float32)
    frame = pl.DataFrame(
        {
            "key": [f"r{i}" for i in range(ROWS)],
            "lang": rng.choice(["de", "en", "fr"], ROWS, p=[0.02, 0.5, 0.48]),
            "weight": rng.random(ROWS),
            "topic": rng.choice(["a", "b"], ROWS),
            "x": X,
        }
    )
    for i in range(4):
        frame[i * 1500 : (i + 1) * 1500].write_parquet(folder / f"part-{i}.parquet", row_group_size=400)
    return "part-*.parquet"


def picked(path: str) -> pl.DataFrame:
    return pl.read_parquet(path)


def test_picks_quotas_ids_weights_and_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["-k", K, "--id", "key", "--weight", "weight", "--quota", "lang=de:4-", "--include", "r5999,r2"]
    asked += ["--exclude", "r0,r1", "--seed", 1, *ROOM]
    code, out, err = run(
        capsys, "select", pool(folder), *asked, "-o", "picks.parquet", "--report", "r.html", "--plan", "p.npz"
    )
    assert code == 0, err
    rows = picked("picks.parquet")
    assert rows["rank"].to_list() == list(range(1, K + 1))
    assert {"r5999", "r2"} <= set(rows["key"])
    assert not {"r0", "r1"} & set(rows["key"])
    assert (rows["lang"] == "de").sum() >= 4
    whole = pl.read_parquet("part-*.parquet")
    by_key = whole.filter(pl.col("key").is_in(rows["key"].implode())).sort("key")
    assert rows.drop("rank", "gain").sort("key").equals(by_key)
    assert "two_round_greedy" in out
    assert "4 files, 6,000 x 16" in out
    assert "read in parts" in out
    page = Path("r.html").read_text()
    assert "Of 6,000 items 5,0" in page
    plan = kofn.Selection.load("p.npz")
    assert plan.n == ROWS
    # What is said of all rows is of all rows.
    X, weights = whole["x"].to_numpy().astype(np.float64), whole["weight"].to_numpy()
    near = np.linalg.norm(X[:, None] - X[plan.indices][None], axis=2).min(axis=1)
    assert plan.info["distance"] == pytest.approx(float(weights @ near), rel=1e-5)


def test_it_is_nearly_what_all_rows_at_once_give(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pool(folder)
    reached = {}
    for name, more in (("parts", ROOM), ("whole", ("-m", "lazy_greedy"))):
        code, _, err = run(capsys, "select", source, "-k", 40, "--seed", 1, *more, "--plan", f"{name}.npz")
        assert code == 0, err
        plan = kofn.Selection.load(f"{name}.npz")
        reached[name] = plan.info["distance"]
        lowest = plan.info.get("distance_bound", 0)
    assert lowest <= reached["parts"] <= 1.05 * reached["whole"]


def test_a_pool_that_does_not_fit_is_read_in_parts_unasked(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pool(folder)
    largest = 0
    read = Parquet._read

    def watched(self: Parquet, run: Any, *columns: str) -> pl.DataFrame:
        nonlocal largest
        largest = max(largest, run.rows if "x" in columns else 0)
        return read(self, run, *columns)

    with monkeypatch.context() as patched:
        patched.setattr(Parquet, "_read", watched)
        patched.setattr("kofn.cli.select_large._ROOM", 1 << 20)
        patched.setattr("kofn.io.decoded_rows._RUN_ROWS", 500)
        code, out, err = run(capsys, "select", source, "-k", K, "--seed", 1)
    assert code == 0, err
    assert "two_round_greedy" in out
    assert 0 < largest < ROWS
    code, out, err = run(capsys, "select", source, "-k", K, "--seed", 1)
    assert code == 0, err
    assert "lazy_greedy" in out


def test_columns_of_numbers_and_names_in_parts(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "temporary").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder / "temporary"))
    asked = ["--columns", "weight,topic", "-k", K, "--seed", 1, *ROOM, "--work", "w"]
    code, out, err = run(capsys, "select", pool(folder), *asked)
    assert code == 0, err
    assert "columns weight, topic scaled" in out
    assert not list(Path("temporary").iterdir()), "what was written for the run is gone"
    again = run(capsys, "select", "part-*.parquet", *asked)
    assert again[0] == 0, again
    assert again[1].splitlines()[-1] == out.splitlines()[-1]


def test_labels_in_part_are_left_out_and_covered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pool(folder)
    for path in sorted(folder.glob("part-*.parquet")):
        frame = pl.read_parquet(path)
        frame.with_columns(topic=pl.when(pl.col("key").str.ends_with("7")).then("topic")).write_parquet(path)
    asked = ["-k", K, "--seed", 1, "--id", "key", "--label", "topic", *ROOM]
    code, _, err = run(capsys, "select", source, *asked, "-o", "picks.parquet")
    assert code == 0, err
    rows = picked("picks.parquet")
    assert len(rows) == K
    assert rows["topic"].null_count() == K


def test_beforehand_the_footers_alone_are_read(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pool(folder)
    monkeypatch.setattr("kofn.io.beginnings.SMALL", 1000)
    monkeypatch.setattr("kofn.cli.estimate.SMALL", 1000)
    rows = []
    read = Parquet._read
    monkeypatch.setattr(Parquet, "_read", lambda self, run, *names: rows.append(run.rows) or read(self, run, *names))
    code, out, err = run(capsys, "select", source, "-k", K, "--dry-run", *ROOM)
    assert code == 0, err
    assert not rows
    told = dict(line.split(None, 1) for line in out.strip().splitlines())
    assert told["rows"] == "6,000 x 16"
    assert told["method"] == "two_round_greedy"
    assert told["cheapest"].count("about") == 2
    code, out, err = run(capsys, "select", source, "-k", K, "--dry-run", "--max-memory", "6MB", *ROOM)
    assert code == 0, err
    assert "over the 0.006 GB that it may hold" in out
    beforehand = refused(capsys, "select", source, "-k", K, "--dry-run", "--max-memory", "100KB", *ROOM)
    assert beforehand == refused(capsys, "select", source, "-k", K, "--max-memory", "100KB", *ROOM)


def test_core_sets_cover_a_pool_that_is_read_in_parts(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    source = pool(folder)
    asked = ("select", source, "-m", "two_round_farthest_first", "-k", K, "--id", "key", "--exclude", "r0")
    code, out, err = run(capsys, *asked, "--work", "w", "-o", "picks.parquet", "--report", "r.html")
    assert code == 0, err
    assert "read in parts" in out
    whole = pl.read_parquet("part-*.parquet")
    plan = kofn.selection.two_round_farthest_first(whole["x"].to_numpy(), k=K, exclude=[0], part_rows=6000)
    assert plan.value is not None
    rows = picked("picks.parquet")["key"].str.slice(1).cast(int).to_numpy()
    assert 0 not in rows
    X = whole["x"].to_numpy().astype(np.float64)
    assert np.linalg.norm(X[:, None] - X[rows], axis=2).min(axis=1).max() < 1.3 * plan.value
    monkeypatch.setattr("kofn.io.beginnings.SMALL", 1000)
    monkeypatch.setattr("kofn.cli.estimate.SMALL", 1000)
    told = dict(line.split(None, 1) for line in run(capsys, *asked, *ROOM, "--dry-run")[1].strip().splitlines())
    assert told["method"] == "two_round_farthest_first"
    assert "quotas" in refused(capsys, *asked, "--quota", "lang=de:4-", "--work", "v")


# Flags that need all vectors at once, and what is said to be the reason.
NEEDING_ALL: list[list[object]] = [
    ["--budget", 3, "--cost", "weight"],
    ["--drop-empty"],
    ["-m", "farthest_first"],
    ["-m", "random_sample", "--vectors", "x"],
    ["--objective", "saturated_coverage"],
    ["--metric", "rbf"],
    ["--queries", "part-0.parquet", "-m", "rds_plus"],
]


@pytest.mark.parametrize("more", NEEDING_ALL, ids=lambda more: str(more[0]))
def test_a_pool_that_does_not_fit_and_cannot_be_read_in_parts_is_told(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, more: list[object]
) -> None:
    source = pool(folder)
    call = ["select", source, "-k", K, "--vectors", "x", *more]
    flag = " ".join(map(str, more[:2])) if more[0] in ("-m", "--objective", "--metric") else more[0]
    if more == NEEDING_ALL[0]:
        # All fits.
        code, _, err = run(capsys, *call)
        assert code == 0, err
        assert "at once" not in err
    # What is held beside the vectors is most of it here: 6,000 x 16 float32.
    told = f"all 6,000 x 16 vectors are read at once, which takes about 0.17 GB of memory: {flag} needs all of them"
    with monkeypatch.context() as patched:
        patched.setattr("kofn.cli.select_large._ROOM", 1 << 20)
        for dry in ([], ["--dry-run"]):
            code, _, err = run(capsys, *call, *dry)
            assert code == 0, err
            assert err.count(told) == 1
    line = refused(capsys, *call, "--max-memory", "100KB")
    assert f"{flag} reads all rows at once: 6,000 x 16 takes 0.000384 GB, over --max-memory 100KB" in line


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["-m", "farthest_first", "--max-memory", "100KB"], "reads all rows at once: 6,000 x 16 takes"),
        (["--part-rows", 500, "--budget", 3, "--cost", "weight"], "leave --part-rows out"),
        (["--work", "w", "--score", "weight"], "--score does not go with --work,"),
        (["--engine", "ray", "--budget", 3, "--cost", "weight"], "leave --engine ray out"),
        (["-m", "two_round_greedy", "--max-memory", "100KB", "--budget", 3, "--cost", "weight"], "--budget needs all"),
        (["--part-rows", 500, "--max-memory", "100KB", "--dedupe", "0.9"], "near-duplicates of 6,000 rows take about"),
        (["--part-rows", 500, "-m", "farthest_first"], "farthest_first reads all rows at once; leave --part-rows out"),
        (["--part-rows", 0], "part_rows=0"),
        (["-k", 6001, "--part-rows", 500], "ask for k <= 6000"),
    ],
)
def test_what_cannot_be_done_in_parts_is_said(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[object], message: str
) -> None:
    asked = more if "-k" in more else ["-k", K, *more]
    assert message in refused(capsys, "select", pool(folder), *asked)


def test_a_value_that_is_not_finite_is_found_in_its_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = pool(folder)
    frame = pl.read_parquet("part-2.parquet")
    X = frame["x"].to_numpy().copy()
    X[70, 3] = np.nan
    frame.with_columns(x=X).write_parquet("part-2.parquet", row_group_size=400)
    line = refused(capsys, "select", source, "-k", K, *ROOM)
    assert "row 3070, column 3 is NaN" in line
    assert "(row 3070 is row 70 of part-2.parquet)" in line
