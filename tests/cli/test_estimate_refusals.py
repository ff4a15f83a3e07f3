"""`--dry-run` refuses what the call itself refuses, in its words, and nothing that only the rest of a file tells."""

from __future__ import annotations

import json
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
