"""Columns that an output cannot hold, columns with odd names, files of many columns."""

from __future__ import annotations

import csv
import datetime
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

ODD: dict[str, tuple[Any, tuple[str, ...]]] = {
    "bytes": (b"a", (".csv", ".tsv", ".jsonl")),
    "image": ({"bytes": b"a", "path": "x"}, (".csv", ".tsv", ".jsonl")),
    "list of bytes": ([b"a"], (".csv", ".tsv", ".jsonl")),
    "list of images": ([{"bytes": b"a"}], (".csv", ".tsv", ".jsonl")),
    "duration": (datetime.timedelta(1), (".csv", ".tsv")),
    "list of durations": ([datetime.timedelta(1)], ()),
    "struct": ({"a": [1, 2]}, ()),
    "time": (datetime.time(1), ()),
}


@pytest.fixture
def worked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Grows when a verb is called."""
    calls: list[str] = []
    monkeypatch.setattr("kofn.cli.select.prepared", lambda *_: calls.append("select"))
    monkeypatch.setattr("kofn.cli.assign.prepared", lambda *_: calls.append("assign"))
    return calls


@pytest.mark.parametrize("verb", ["select", "assign"])
@pytest.mark.parametrize("name", ODD)
def test_what_a_format_cannot_hold_is_refused_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], worked: list[str], name: str, verb: str
) -> None:
    value, refusing = ODD[name]
    pl.DataFrame({"x": [1.0, 2, 3], "odd": [value] * 3}).write_parquet("t.parquet")
    for suffix in refusing:
        told = refused(capsys, verb, "t.parquet", "--columns", "x", "-k", 2, "-o", f"o{suffix}")
        assert "column 'odd' holds" in told
        assert ".parquet" in told
        assert "--drop 'odd'" in told
    assert not worked


@pytest.mark.parametrize("verb", ["select", "assign"])
@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_columns_are_written_or_left_out(
    folder: Path, capsys: pytest.CaptureFixture[str], verb: str, suffix: str
) -> None:
    columns = {name: [value] * 4 for name, (value, _) in ODD.items()}
    pl.DataFrame({"x": [1.0, 2, 3, 9], **columns}).write_parquet("t.parquet")
    out = [name for name, (_, refusing) in ODD.items() if suffix in refusing]
    drop = ("--drop", ",".join(out)) if out else ()
    assert run(capsys, verb, "t.parquet", "--columns", "x", "-k", 2, "-o", f"o{suffix}", *drop)[0] == 0
    readers = {".jsonl": pl.read_ndjson, ".parquet": pl.read_parquet}
    reader: Any = readers.get(suffix, lambda path: pl.read_csv(path, separator="\t" if suffix == ".tsv" else ","))
    written = reader(f"o{suffix}").columns
    assert [name for name in ODD if name in written] == [name for name in ODD if name not in out]


def test_images_are_looked_at_before_any_work(
    folder: Path, capsys: pytest.CaptureFixture[str], worked: list[str]
) -> None:
    np.savez("x.npz", v=np.ones((4, 2)), picture=np.ones((4, 9)))
    for name, word in (("pictures", "no column 'pictures'"), ("picture", "has shape (4, 9)")):
        call = ("select", "x.npz", "--vectors", "v", "-k", 1, "--images", name, "--report", "r.html")
        assert word in refused(capsys, *call)
    assert not worked


def picks(capsys: pytest.CaptureFixture[str], *words: object) -> list[int]:
    code, out, err = run(capsys, "select", *words, "-k", 2, "--json")
    assert code == 0, err
    return list(json.loads(out)["picks"])


def test_odd_names_can_be_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [(1, 5, 2), (2, 1, 9), (9, 9, 9), (4, 2, 1)]
    plain = "id,x,y\n" + "".join(f"{a},{b},{c}\n" for a, b, c in rows)
    Path("plain.csv").write_text(plain)
    want = picks(capsys, "plain.csv", "--columns", "x,y", "--id", "id")
    Path("spaces.csv").write_text(plain.replace("id,x,y", "id, x , y").replace(",", ", "))
    assert picks(capsys, "spaces.csv", "--columns", "x,y", "--id", "id", "-o", "o.csv") == want
    lines = Path("spaces.csv").read_text().splitlines()
    written = Path("o.csv").read_text().splitlines()
    assert [line.rsplit(",", 2)[0] for line in written[1:]] == [lines[1 + [1, 2, 9, 4].index(i)] for i in want]
    Path("commas.csv").write_text(plain.replace("id,x,y", 'id,"a,b","c"'))
    assert picks(capsys, "commas.csv", "--columns", "a,b,c", "--id", "id") == want
    Path("quotes.csv").write_text(plain.replace("id,x,y", 'id,"a""b",y'))
    assert picks(capsys, "quotes.csv", "--columns", 'a"b,y', "--id", "id") == want
    assert run(capsys, "select", "quotes.csv", "--columns", "y", "-k", 1, "-o", "o.csv")[0] == 0
    assert 'a""b' in Path("o.csv").read_text()
    assert "'x' is named twice" in refused(capsys, "select", "plain.csv", "--columns", "x,y,x", "-k", 1)


def test_quotes_inside_a_field_are_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for rows in ('6" nail,1\n2" nail,9\n"a ""b"", c",4\n', '6",1\n"a, b",9\n2",4\n', '6" nail,1\n2,9\na,4\n'):
        Path("q.csv").write_text("size,n\n" + rows)
        with open("q.csv", newline="") as file:
            want = [row[0] for row in csv.reader(file)][1:]
        assert run(capsys, "select", "q.csv", "--columns", "n", "-k", 3, "-o", "o.csv")[0] == 0
        assert sorted(pl.read_csv("o.csv", infer_schema=False)["size"]) == sorted(want)


def test_a_gap_in_a_vector_is_refused_with_its_place(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for cell in ("[1,,2]", "[1,2,]", "[,1,2]", "[1 2,3]"):
        Path("v.csv").write_text(f'v\n"[1,2]"\n"{cell}"\n')
        told = refused(capsys, "select", "v.csv", "--vectors", "v", "-k", 1)
        assert "row 1" in told
        assert cell in told


def test_a_file_of_many_columns_is_read_in_seconds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    n = 20_000
    names = [f"gene{i}" for i in range(n)]
    rows = [",".join(str((i * 7 + r) % 11) for i in range(n)) for r in range(3)]
    Path("wide.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
    began = time.process_time()
    assert run(capsys, "select", "wide.csv", "--columns", "gene1,gene2", "-k", 1, "-o", "o.csv")[0] == 0
    assert time.process_time() - began < 6
    assert Path("o.csv").read_text().splitlines()[0] == ",".join([*names, "row", "rank", "gain"])
