"""What is written for labelling tools is what their own packages read."""

from __future__ import annotations

import datetime
import json
import math
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import make_pool, refused, run, write

import kofn
from kofn.core.checks import InputError
from kofn.io.label_tools import argilla, label_studio, write_for

POOL = make_pool(30).with_columns(topic=pl.Series([None, "a", ""] * 10))
PLAN = kofn.select(POOL, text="body", ids="key", k=4)
WANTED = PLAN.picked_ids.tolist()


def test_label_studio_gets_a_task_a_pick_in_the_order_picked(tmp_path: Path) -> None:
    path = PLAN.export(tmp_path / "tasks.json", POOL, to="label-studio", ids="key")
    tasks = [task["data"] for task in json.loads(path.read_text(encoding="utf-8"))]
    assert [task["key"] for task in tasks] == WANTED
    assert [task["rank"] for task in tasks] == [1, 2, 3, 4]
    assert np.allclose([task["gain"] for task in tasks], PLAN.gains)
    assert "emb" not in tasks[0]
    assert tasks[0]["body"] == POOL.filter(pl.col("key") == WANTED[0])["body"][0]


def test_label_studio_reads_its_tasks(tmp_path: Path) -> None:
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk is not installed")
    interface = sdk.LabelInterface(
        '<View><Text name="t" value="$body"/><Choices name="c" toName="t"><Choice value="x"/></Choices></View>'
    )
    path = PLAN.export(tmp_path / "tasks.json", POOL, to="label-studio")
    for task in json.loads(path.read_text(encoding="utf-8")):
        assert interface.validate_task(task)
        assert not interface.validate_task({"data": {"other": "x"}})


def test_argilla_reads_its_records(tmp_path: Path) -> None:
    pytest.importorskip("argilla", reason="argilla is not installed")
    from argilla.records._io import JsonIO

    path = PLAN.export(tmp_path / "records.json", POOL, to="argilla", ids="key", label="topic")
    records = JsonIO._records_from_json(path)
    assert [record.id for record in records] == WANTED
    rows = {row["key"]: row for row in POOL.iter_rows(named=True)}
    for record in records:
        row = rows[record.id]
        assert record.fields["body"] == row["body"]
        assert record.metadata["tokens"] == row["tokens"]
        assert [suggestion.value for suggestion in record.suggestions] == ([row["topic"]] if row["topic"] else [])


def test_records_have_texts_as_fields_and_known_labels_as_suggestions() -> None:
    records = argilla(POOL.drop("emb"), key="key", label="topic")
    assert records[0]["suggestions"] == records[2]["suggestions"] == {}
    assert records[1]["suggestions"] == {"topic": {"value": "a"}}
    assert records[0]["fields"].keys() == {"body", "lang"}
    assert records[0]["metadata"].keys() == {"tokens", "age", "score"}
    assert [record["id"] for record in argilla(POOL)][:2] == ["0", "1"]


def test_values_that_json_has_not_are_written_as_what_it_has(tmp_path: Path) -> None:
    rows = pl.DataFrame(
        {
            "t": ["ä"],
            "nan": [math.nan],
            "when": [datetime.date(2024, 5, 31)],
            "chat": [[{"role": "user", "score": math.inf}]],
        }
    )
    assert label_studio(rows)[0]["data"] == {
        "t": "ä",
        "nan": None,
        "when": "2024-05-31",
        "chat": [{"role": "user", "score": None}],
    }
    assert "ä" in write_for("argilla", tmp_path / "a.json", rows).read_text(encoding="utf-8")


LISTS = pl.DataFrame(
    {
        "body": ["a", "b", "c"],
        "tokens": [[1, 2], [3], []],
        "tags": [["x"], ["y", "z"], None],
        "flags": [[True], [False], []],
        "emb": [[0.5, 1.0], [0.0, 2.0], [1.0, 1.0]],
    }
).with_columns(whole=pl.Series([[1, 2], [3, 4], [5, 6]], dtype=pl.Array(pl.Int64, 2)))


def test_lists_are_written_where_the_tool_takes_them_and_named_where_not(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert label_studio(LISTS)[1]["data"] == {"body": "b", "tokens": [3], "tags": ["y", "z"], "flags": [False]}
    assert argilla(LISTS)[1]["metadata"] == {"tags": ["y", "z"]}
    file = tmp_path / "pool.parquet"
    LISTS.write_parquet(file)
    paths = {tool: tmp_path / f"{tool}.json" for tool in ("label-studio", "argilla")}
    exports = [word for tool, path in paths.items() for word in ("--export", f"{tool}={path}")]
    code, _, err = run(capsys, "select", file, "--text", "body", "-k", "2", *exports)
    assert code == 0, err
    for tool, path in paths.items():
        written = json.loads(path.read_text(encoding="utf-8"))[0]
        named = {name for name in LISTS.columns if f"{path} has no column {name!r}" in err}
        assert named == set(LISTS.columns) - written.get("data", written.get("fields", {})).keys() - (
            written.get("metadata", {}).keys() | ({"tags"} if tool == "argilla" else set())
        )


BYTES = {
    "plain": pl.Series([b"a", b"b"]),
    "listed": pl.Series([[b"a"], [b"b"]]),
    "inside": pl.Series([{"bytes": b"a", "path": "p"}] * 2),
}


@pytest.mark.parametrize("name", BYTES)
@pytest.mark.parametrize("tool", ["label-studio", "argilla"])
def test_bytes_are_refused_before_any_work(
    tool: str, name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = pl.DataFrame({"body": ["a", "b"], "img": BYTES[name]})
    with pytest.raises(InputError, match=r"column 'img' holds .*, and labelling tools import JSON, which has no bytes"):
        write_for(tool, tmp_path / "a.json", frame)
    frame.write_parquet(tmp_path / "pool.parquet")
    call = [tmp_path / "pool.parquet", "--text", "body", "-k", "1", "--export", f"{tool}={tmp_path / 'a.json'}"]
    assert "leave the column out with --drop 'img'" in refused(capsys, "select", *call)
    assert not (tmp_path / "a.json").exists()
    assert run(capsys, "select", *call, "--drop", "img")[0] == 0


def test_ids_are_texts_and_no_number_is_beyond_what_browsers_hold(tmp_path: Path) -> None:
    large = 2**53 + 1
    rows = pl.DataFrame({"key": [large, 7], "body": ["a", "b"], "size": [large + 2, 5]})
    for tool in ("label-studio", "argilla"):
        made = json.loads(write_for(tool, tmp_path / "t.json", rows, key="key").read_text())
        keys = [row["data"]["key"] if tool == "label-studio" else row["id"] for row in made]
        assert keys == [str(large), "7"]
        sizes = [row["data" if tool == "label-studio" else "metadata"]["size"] for row in made]
        assert sizes == [str(large + 2), 5]


def test_the_command_writes_what_python_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(POOL, tmp_path / "pool.parquet")
    for tool, words in (("label-studio", {}), ("argilla", {"label": "topic"})):
        flags = ["--text", "body", "--id", "key", "-k", "4", "--export", f"{tool}={tmp_path / 'c.json'}"]
        code, out, err = run(capsys, "select", file, *flags, *(["--label", "topic"] if words else []))
        assert code == 0, err
        assert f"for {tool} -> {tmp_path / 'c.json'}" in out
        made = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
        plan = kofn.select(POOL, text="body", ids="key", k=4, **words)
        ours = plan.export(tmp_path / "p.json", POOL, to=tool, ids="key", **words)
        assert made == json.loads(ours.read_text(encoding="utf-8"))


def test_other_tools_and_names_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="to='prodigy': choose one of label-studio, argilla"):
        PLAN.export(tmp_path / "a.json", POOL, to="prodigy")
    with pytest.raises(InputError, match=r"give a name that ends in \.json"):
        PLAN.export(tmp_path / "a.csv", POOL, to="argilla")
    with pytest.raises(InputError, match="the rows have no column of text"):
        PLAN.export(tmp_path / "a.json", POOL.select("age"), to="argilla")
    file = write(POOL, tmp_path / "pool.parquet")
    flags = [file, "--text", "body", "-k", "4", "--export"]
    assert "give label-studio=FILE.json or argilla=FILE.json" in refused(capsys, "select", *flags, "prodigy=a.json")
    assert "labelling tools import JSON" in refused(capsys, "select", *flags, f"argilla={tmp_path / 'a.csv'}")
    assert "there is no folder" in refused(capsys, "select", *flags, f"argilla={tmp_path / 'no' / 'a.json'}")
    assert "--export is of picks" in refused(
        capsys, "select", file, "--text", "body", "--dedupe", "0.9", "--export", f"argilla={tmp_path / 'a.json'}"
    )
    entries = ["--columns", "age,score", "--scores", "-m", "topk_mask", "-k", "3"]
    told = refused(capsys, "select", file, *entries, "--export", f"argilla={tmp_path / 'a.json'}")
    assert "--scores picks entries" in told


def test_rows_without_ids_are_named_by_their_numbers(tmp_path: Path) -> None:
    rows = pl.DataFrame({"body": ["a", "b"]})
    assert [record["id"] for record in argilla(rows, numbers=[7, 3])] == ["7", "3"]
    assert [task["data"]["row"] for task in label_studio(rows, [7, 3])] == [7, 3]
    X = np.array([[0.0], [0.1], [5.0], [9.0]])
    first = kofn.select(X, k=2)
    second = kofn.select(X, k=2, exclude=first.indices)
    names = []
    for plan in (first, second):
        plan.export(tmp_path / "r.json", {"body": list("abcd")}, to="argilla")
        names += [record["id"] for record in json.loads((tmp_path / "r.json").read_text())]
    assert sorted(names) == ["0", "1", "2", "3"]
