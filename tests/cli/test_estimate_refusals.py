"""`--dry-run` refuses what the call itself refuses, in its words, and nothing that only the rest of a file tells."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

from kofn.io import beginnings
from kofn.io.beginnings import About, beginning

_TEXT = ("--text", "t")


@pytest.fixture
def pool(folder: Path) -> pl.DataFrame:
    words = np.random.default_rng(0).choice([f"w{i}" for i in range(80)], (900, 6))
    frame = pl.DataFrame(
        {
            "t": [" ".join(row) for row in words],
            "g": ["rare" if row % 9 == 0 else "often" for row in range(900)],
            "c": np.arange(900) % 5 + 1,
        }
    )
    for write in (frame.write_csv, frame.write_parquet, frame.write_ndjson):
        write(f"pool.{write.__name__.removeprefix('write_').replace('ndjson', 'jsonl')}")
    np.save("pool.npy", np.random.default_rng(0).random((6_000, 3)).astype(np.float32))
    return frame


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
@pytest.mark.parametrize(
    "more",
    [
        ("-k", 901),
        ("-k", 12_366),
        ("-k", 300, "--quota", "g=rare:200-"),
        ("-k", 300, "--quota", "g=rare:-10", "--quota", "g=often:-10"),
        ("-k", 20, "--quota", "g=rare:15-", "--quota", "g=often:15-"),
        ("--budget", 10, "--cost", "c", "--quota", "g=rare:50-"),
        ("-k", 2, "--include", "1,2,3"),
    ],
)
def test_what_no_rows_meet_is_refused_as_by_the_call(
    kind: str, more: tuple[object, ...], pool: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ("select", f"pool.{kind}", *_TEXT, *more)
    assert refused(capsys, *call, "--dry-run") == refused(capsys, *call)


def test_the_count_of_a_beginning_is_that_of_the_whole(
    pool: pl.DataFrame, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for call in (("select", "pool.npy", "-k", 6_001), ("assign", "pool.npy", "--k", 6_001)):
        assert "k=6001 of 6000 items" in refused(capsys, *call, "--dry-run")
    # A pool all of whose rows were looked at is no sample.
    assert "sample" not in refused(capsys, "select", "pool.csv", *_TEXT, "-k", 12_366, "--dry-run")
    monkeypatch.setattr(beginnings, "SMALL", 1_000)
    monkeypatch.setattr(beginnings, "_COUNTED", 1_000)
    monkeypatch.setattr(beginnings, "_BYTES", 4_000)
    told = json.loads(run(capsys, "select", "pool.csv", *_TEXT, "-k", 5_000, "--dry-run", "--json")[1])
    assert told["rows"].startswith("about ")
    assert told["seconds"].startswith("not known: k=5000 is above the rows, of which there are about ")


def test_near_duplicates_of_a_beginning_are_an_estimate(
    pool: pl.DataFrame, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Every row twice, one after the other: half of any beginning is left.
    late = pl.when(pl.col("index") > 850).then(pl.lit("late")).otherwise(pl.col("g")).alias("g")
    twice = pl.concat([pool.with_row_index(), pool.with_row_index()]).sort("index")
    twice.with_columns(late).write_csv("twice.csv")
    monkeypatch.setattr(beginnings, "SMALL", 1_000)
    monkeypatch.setattr("kofn.cli.estimate._TEXTS", 200)
    call = ("select", "twice.csv", *_TEXT, "--dedupe", 0.95)
    code, out, err = run(
        capsys, *call, "-k", 150, "--quota", "g=rare:60-", "--quota", "g=late:2-", "--dry-run", "--json"
    )
    assert code == 0, err
    assert json.loads(out)["rows"].startswith("about 90")
    assert "of the first 200 rows 10" in err or "of the first 201 rows 10" in err
    assert "of all 1,800 rows are left" in err
    assert "k=1801 of 1800 items" in refused(capsys, *call, "-k", 1_801, "--dry-run")
    assert json.loads(run(capsys, *call, "--dry-run", "--json")[1])["rows"] == "1,800"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n", ""])
@pytest.mark.parametrize("suffix", ["csv", "jsonl"])
def test_rows_of_texts_are_counted(suffix: str, end: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "SMALL", 10)
    row = {"csv": '"two\n\nlines, ""quoted""",1', "jsonl": '{"t": "a \\"quote", "a": 1}'}[suffix]
    header = ["t,a"] if suffix == "csv" else []
    path = Path(f"p.{suffix}")
    path.write_bytes("\n".join([*header, *[row] * 70]).encode() + end.encode())
    with beginning(path, rows=5) as (_, rows):
        assert rows == 70
        assert not isinstance(rows, About)
    path.write_bytes("\n".join([*header, *[row] * 70]).encode() + b"\n\n" + row.encode())
    with beginning(path, rows=5) as (_, rows):
        assert isinstance(rows, About)


@pytest.fixture
def table(folder: Path) -> None:
    """700 rows in vectors, and as many items with scores for three bins and hours."""
    rng = np.random.default_rng(0)
    np.save("rows.npy", rng.normal(size=(700, 3)).astype(np.float32))
    hours = pl.Series("hours", rng.integers(1, 9, 700))
    pl.DataFrame({f"b{j}": rng.normal(size=700) for j in range(3)}).with_columns(hours).write_csv("scores.csv")


_SCORED = ("scores.csv", "--scores", "--columns", "b0,b1,b2")


@pytest.mark.parametrize(
    "call",
    [
        ("rows.npy", "-k", 6, "--equal"),
        ("rows.npy", "-k", 6, "--min-size", 90),
        ("rows.npy", "-k", 6, "--min-size", 90, "--capacity", 130, "-m", "constrained_kmedoids"),
        (*_SCORED, "--size", "hours", "--limit", 1_100),
        (*_SCORED, "--size", "hours", "--limit", "800,1200,1700", "--min-size", 3),
        (*_SCORED, "--min-size", "300,100,0"),
        (*_SCORED, "--capacity", 240, "--per-item", 1),
    ],
)
def test_sizes_of_groups_and_bins_that_run_are_looked_at_beforehand(
    call: tuple[object, ...], table: None, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "assign", *call, "--dry-run", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert not told["seconds"].startswith("not known"), told
    assert told["method"] == json.loads(run(capsys, "assign", *call, "--json")[1])["method"]


@pytest.mark.parametrize(
    "call",
    [
        ("rows.npy", "-k", 6, "--min-size", 117),
        ("rows.npy", "-k", 6, "--capacity", 116),
        ("rows.npy", "-k", 6, "--capacity", 116, "-m", "constrained_kmedoids"),
        (*_SCORED, "--size", "hours", "--limit", 300),
        (*_SCORED, "--size", "hours", "--limit", 9_000, "--min-size", "0,0,800"),
        (*_SCORED, "--min-size", 234),
        (*_SCORED, "--capacity", "233,233,233"),
        (*_SCORED, "--capacity", 233, "--overflow", "error"),
    ],
)
def test_sizes_that_no_placement_holds_are_refused_as_by_the_call(
    call: tuple[object, ...], table: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(capsys, "assign", *call, "--dry-run") == refused(capsys, "assign", *call)


def test_groups_of_a_beginning_are_as_large_as_those_of_the_whole(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save("rows.npy", np.random.default_rng(0).normal(size=(6_000, 3)).astype(np.float32))
    monkeypatch.setattr(beginnings, "SMALL", 1_000)
    monkeypatch.setattr(beginnings, "ROWS", 500)
    monkeypatch.setattr("kofn.cli.estimate.ROWS_READ", 500)
    code, out, err = run(capsys, "assign", "rows.npy", "-k", 4, "--equal", "--dry-run", "--json")
    assert code == 0, err
    assert json.loads(out)["rows"] == "6,000 x 3"
    assert "1500 too few" in refused(capsys, "assign", "rows.npy", "-k", 3, "--capacity", 1_500, "--dry-run")


@pytest.mark.parametrize(
    "call",
    [
        ("select", "-k", 5, "--max-memory", "20kB"),
        ("select", "-k", 5, "--max-memory", "1MB"),
        ("select", "-k", 5, "-m", "lazy_greedy", "--max-memory", "1MB"),
        ("select", "-k", 5, "-m", "sampled_greedy", "--max-memory", "1MB"),
        ("select", "-k", 5, "--objective", "graph_cut", "--max-memory", "100kB"),
        ("select", "-k", 5, "--metric", "rbf", "--max-memory", "20MB"),
        ("select", "-k", 5, "-m", "two_round_greedy", "--part-rows", 1_000, "--max-memory", "100kB"),
        ("assign", "-k", 5, "-m", "sdp_kmeans", "--max-memory", "1MB"),
        ("assign", "-k", 5, "-m", "single_linkage", "--max-memory", "1MB"),
    ],
)
def test_memory_that_the_call_refuses_is_refused_beforehand(
    call: tuple[object, ...], pool: pl.DataFrame, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = (call[0], "pool.npy", *call[1:])
    beforehand, real = (run(capsys, *asked, *more) for more in (("--dry-run",), ()))
    assert beforehand == real
    assert (real[0], real[1]) == (2, "")
    assert re.search("max.memory", real[2].splitlines()[-1])


def test_memory_that_is_named_suffices(pool: pl.DataFrame, capsys: pytest.CaptureFixture[str]) -> None:
    error = refused(capsys, "select", "pool.npy", "-k", 5, "--max-memory", "20kB")
    least = int(error.split(" takes ")[1].split()[0])
    assert f"takes {least} bytes" in refused(capsys, "select", "pool.npy", "-k", 5, "--max-memory", least - 1)
    for more in ((), ("--dry-run",)):
        assert run(capsys, "select", "pool.npy", "-k", 5, "--max-memory", least, *more)[0] == 0
