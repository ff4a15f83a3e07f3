"""JSON lines come out byte for byte as they went in, whatever they hold beside the columns that are used."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from command_line import refused, run

LINES = [
    '{"id": 1, "t": "red car", "schema": {"a": {"type": "string"}}, "v":  [1, 2]}',
    '{"t":"blue bus","id":2,"schema":{"b":[1,{"c":null}]},"x":true, "big":9007199254740993}',
    '  {"id": 3, "t": "gr\\u00fcn", "mixed": 7, "x": 1, "big": 2.50}',
    '{"id": 4, "t": "rouge", "mixed": "3.5", "e": 1.0e5, "s": {}}',
    '{"id": 5, "t": "ros\\ud83d\\ude00a", "mixed": ["b"], "x": {"x": 1}, "z": -0.0}',
]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n \n"])
def test_rows_come_out_as_they_went_in(folder: Path, capsys: pytest.CaptureFixture[str], end: str) -> None:
    Path("t.jsonl").write_bytes((end.join(LINES) + end).encode())
    assert run(capsys, "select", "t.jsonl", "--text", "t", "--id", "id", "-k", 5, "-o", "o.jsonl")[0] == 0
    written = Path("o.jsonl").read_text(encoding="utf-8").splitlines()
    assert sorted(line[: line.index(',"rank"')] + "}" for line in written) == sorted(line.strip() for line in LINES)
    assert [json.loads(line)["rank"] for line in written] == [1, 2, 3, 4, 5]
    assert run(capsys, "assign", "t.jsonl", "--text", "t", "-k", 2, "-o", "g.jsonl")[0] == 0
    grouped = Path("g.jsonl").read_text(encoding="utf-8").splitlines()
    assert [line[: line.index(',"group"')] + "}" for line in grouped] == [line.strip() for line in LINES]


def test_columns_left_out_leave_the_others_as_they_are(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.jsonl").write_text("\n".join(LINES) + "\n")
    call = ("select", "t.jsonl", "--text", "t", "-k", 5, "--drop", "schema,mixed,id", "-o", "o.jsonl")
    assert run(capsys, *call)[0] == 0
    written = {json.loads(line)["t"]: line for line in Path("o.jsonl").read_text().splitlines()}
    assert written["red car"].startswith('{"t": "red car", "v": [1, 2],"row":')
    assert '"big": 2.50' in written["grün"]
    assert '"e": 1.0e5' in written["rouge"]


def test_other_formats_hold_what_they_can(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.jsonl").write_text("\n".join(LINES) + "\n")
    for name, read in (("o.csv", lambda path: pl.read_csv(path, infer_schema=False)), ("o.parquet", pl.read_parquet)):
        assert run(capsys, "select", "t.jsonl", "--text", "t", "-k", 5, "-o", name)[0] == 0
        frame = read(name).sort("id")
        assert frame["mixed"].to_list() == [None, None, "7", "3.5", '["b"]']
        assert frame["x"].to_list() == [None, "true", "1", None, '{"x": 1}']
        assert frame["big"].to_list() == [None, "9007199254740993", "2.50", None, None]
        assert frame["schema"].to_list()[1] == '{"b":[1,{"c":null}]}'


def test_ids_are_those_of_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.jsonl").write_text('{"id": 9007199254740993, "x": 1}\n{"id": 2.50, "x": 2}\n{"id": 7, "x": 9}\n')
    code, out, _ = run(capsys, "select", "t.jsonl", "--columns", "x", "--id", "id", "-k", 3, "--json")
    assert code == 0
    assert sorted(json.loads(out)["picks"]) == ["2.50", "7", "9007199254740993"]


def test_what_is_used_must_be_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.jsonl").write_text('{"x": 1}\n{"y": 2}\n{"x": 3}\n')
    assert "column 'x' at row 1 is empty" in refused(capsys, "select", "t.jsonl", "--score", "x", "-k", 1)
    assert run(capsys, "select", "t.jsonl", "--score", "x", "-k", 1, "--drop-empty")[0] == 0
    Path("t.jsonl").write_text('{"x": 1}\n{"x": 2, "x": 3}\n')
    assert "line 2 is not valid JSON (it has the key 'x' twice)" in refused(capsys, "select", "t.jsonl", "-k", 1)


def test_memory_does_not_grow_with_the_square_of_the_keys(folder: Path) -> None:
    pytest.importorskip("resource")
    lines = [{"x": i, "schema": {f"key{i}_{j}": {"type": "string"} for j in range(8)}} for i in range(600)]
    Path("t.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    code = (
        "import resource, kofn.cli, kofn, polars, numpy\n"
        "kofn.cli._run(['select', 't.jsonl', '--score', 'x', '-k', '1', '--json'])\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "assert kofn.cli._run(['select', 't.jsonl', '--score', 'x', '-k', '500', '-o', 'o.csv']) == 0\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout.split()[-1]) < 60_000
    assert pl.read_csv("o.csv").height == 500


def test_nested_values_are_no_groups_and_their_keys_no_columns(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [{"id": i, "meta": {"lang": "de", "n": i}, "body": {"title": f"word {i}"}, "x": i} for i in range(6)]
    (folder / "n.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    call = ("select", "n.jsonl", "-k", 2)
    assert "'body' holds nested values; write what is wanted" in refused(capsys, *call, "--text", "body.title")
    for words in (("--proportional", "meta"), ("--quota", "meta=de:1-"), ("--group", "meta", "--quota", "meta=de:1-")):
        said = refused(capsys, *call, "--columns", "x", *words)
        assert "column 'meta' holds nested values; give a column of names or numbers" in said
