"""What people want of a file besides k picks: no near-duplicates, so many rows of each group, bins of least cost."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

from kofn.cli import write
from kofn.io import many
from kofn.io.formats import JsonLines


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    texts = ["the cat sat on the mat", "The cat sat on the mat!", "stocks fell today", "stocks fell  today", "rain", ""]
    pl.DataFrame({"id": list("abcdef"), "text": texts, "cat": ["x", "x", "x", "y", "y", "z"]}).write_csv("pool.csv")
    return tmp_path


CALL = ("select", "pool.csv", "--id", "id", "--text", "text")


def test_lines_that_stay_are_never_all_in_memory(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(write, "_LINES_AT_ONCE", 50)
    asked: list[int] = []
    for kind in (JsonLines, many._JsonFiles):
        plain = kind.lines
        monkeypatch.setattr(
            kind, "lines", lambda table, rows, plain=plain: asked.append(len(rows)) or plain(table, rows)
        )
    lines = [f'{{"n":{row},  "v": [{row % 7}, {row // 7}], "id": "r{row}"}}' for row in range(420)]
    (folder / "a.jsonl").write_text("\n".join(lines[:170]) + "\n")
    (folder / "b.jsonl").write_text("\n".join(lines[170:]) + "\n")
    call = ("select", "a.jsonl", "b.jsonl", "--vectors", "v", "--dedupe", "1", "-o", "kept.jsonl")
    for more in ((), ("--work", "w")):
        assert run(capsys, *call, *more)[0] == 0
        assert (folder / "kept.jsonl").read_text().splitlines() == lines
        assert run(capsys, *call, *more, "--drop", "v,id")[0] == 0
        assert [json.loads(line) for line in (folder / "kept.jsonl").open()] == [{"n": row} for row in range(420)]
    assert max(asked) == 50


def test_near_duplicates_alone_are_dropped_and_all_others_kept_in_order(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for share in ("0.8", "80%"):
        code, text, err = run(capsys, *CALL, "--dedupe", share, "-o", "kept.csv", "--dropped", "dropped.csv")
        assert code == 0, err
        assert text.startswith("kept 4 of 6 rows\ndropped 2 near-duplicates")
        assert pl.read_csv("kept.csv")["id"].to_list() == ["a", "c", "e", "f"]
        assert pl.read_csv("kept.csv").columns == ["id", "text", "cat"]
        assert pl.read_csv("dropped.csv")["id"].to_list() == ["b", "d"]
    code, text, _ = run(capsys, *CALL, "--dedupe", "0.8", "--exclude", "a", "--json")
    assert (code, json.loads(text)["rows"]) == (0, ["b", "c", "e", "f"])
    (folder / "pool.jsonl").write_text('{"text": "one",  "n": 1}\n{"text": "one", "n": 2}\n{"text": "two"}\n')
    code, _, err = run(capsys, "select", "pool.jsonl", "--text", "text", "--dedupe", "1", "-o", "kept.jsonl")
    assert (code, err) == (0, "")
    assert (folder / "kept.jsonl").read_text() == '{"text": "one",  "n": 1}\n{"text": "two"}\n'
    code, text, err = run(capsys, *CALL, "--dedupe", "0.8", "--report", "r.html")
    assert (code, "report -> r.html" in text) == (0, True), err
    assert "4 of 6 items stay" in (page := (folder / "r.html").read_text())
    assert "row 1" not in page
    run(capsys, "select", "pool.csv", "--text", "text", "--dedupe", "0.8", "--report", "r.html")
    kept = (folder / "r.html").read_text().partition("The rows that stay")[2]
    # As they are numbered in the file.
    assert [f"row {row}" in kept for row in range(6)] == [True, False, True, False, True, True]
    assert "--plan is of picks" in refused(capsys, *CALL, "--dedupe", "0.8", "--plan", "p.json")
    assert "give a number between 0 and 1, for example 0.9 or 90%" in refused(capsys, *CALL, "--dedupe", "90")


def test_so_many_rows_of_each_group(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text, err = run(capsys, *CALL, "--each", "cat=2", "-o", "each.csv")
    assert code == 0, err
    assert "picked 5 of 6 rows" in text
    assert "each cat: 2 rows of each of 3 groups, all of smaller ones" in text
    assert sorted(pl.read_csv("each.csv")["cat"].to_list()) == ["x", "x", "y", "y", "z"]
    code, text, _ = run(capsys, "select", "pool.csv", "-m", "random_sample", "--each", "cat=1", "--seed", 3, "--json")
    assert (code, json.loads(text)["picked"]) == (0, 3)
    code, text, err = run(capsys, *CALL, "--each", "cat=2", "--dry-run")
    assert code == 0, err
    assert "--each 'cat': write COL=N" in refused(capsys, *CALL, "--each", "cat")
    assert "--quota and --each both name 'cat'" in refused(capsys, *CALL, "--each", "cat=1", "--quota", "cat=x:1-")
    assert "--group names 'id', --each names 'cat'" in refused(capsys, *CALL, "--each", "cat=1", "--group", "id")


def test_costs_are_made_least(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    costs = np.array([[1.0, 5.0], [2.0, 3.0], [9.0, 1.0]])
    pl.DataFrame({"item": list("pqr"), "a": costs[:, 0], "b": costs[:, 1]}).write_csv("costs.csv")
    call = ("assign", "costs.csv", "--id", "item", "--scores", "--capacity", "2")
    code, text, err = run(capsys, *call, "--sense", "min")
    assert code == 0, err
    assert "3 items in 2 bins (a, b), cost 4 (optimal)" in text
    code, text, _ = run(capsys, *call, "--sense", "min", "--json")
    assert json.loads(text) | {"value": 4.0, "bound": 4.0, "sense": "min", "labels": [0, 0, 1]} == json.loads(text)
    assert json.loads(run(capsys, *call, "--json")[1])["value"] == 17.0
    (folder / "gap.csv").write_text("item,a,b\np,1,\nq,,3\n")
    code, text, _ = run(capsys, "assign", "gap.csv", "--id", "item", "--scores", "--sense", "min", "--json")
    assert json.loads(text)["labels"] == [0, 1]
    assert "give --scores too" in refused(capsys, "assign", "costs.csv", "--columns", "a,b", "-k", 2, "--sense", "min")


def test_what_draws_says_how_to_repeat_it(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, text, _ = run(capsys, "select", "pool.csv", "-m", "random_sample", "-k", 3, "-o", "first.csv")
    line = next(line for line in text.splitlines() if line.startswith("drawn with --seed "))
    seed = line.split()[3].rstrip(",")
    run(capsys, "select", "pool.csv", "-m", "random_sample", "-k", 3, "-o", "again.csv", "--seed", seed)
    assert (folder / "first.csv").read_text() == (folder / "again.csv").read_text()


def test_an_interrupt_names_what_was_written(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("kofn.core.plans.Plan.report", stopped)
    code, _, err = run(capsys, *CALL, "-k", 2, "-o", "picks.csv", "--report", "r.html")
    assert code == 130
    assert "interrupted; written before that: picks.csv" in err
    assert (folder / "picks.csv").exists()
    monkeypatch.setattr(write, "write_table", stopped)
    code, _, err = run(capsys, *CALL, "-k", 2, "-o", "other.csv")
    assert (code, "interrupted; no output was written" in err) == (130, True)


def test_queries_that_share_no_word_are_named_and_left_out(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "wanted.txt").write_text("cat mat\nsqueamish ossifrage\n")
    for method in ((), ("-m", "rds_plus")):
        code, text, err = run(capsys, *CALL, "--queries", "wanted.txt", "-k", 2, *method)
        assert code == 0, err
        assert "left out, as no row shares a word with it: 'squeamish ossifrage'" in text
    (folder / "none.txt").write_text("squeamish ossifrage\n")
    said = refused(capsys, *CALL, "--queries", "none.txt", "-k", 2, "-m", "rds_plus")
    assert "no row of 'text' shares a word with it" in said


def test_a_text_that_shares_no_word_is_no_centre(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"about {a} and {b}" for a in ("cats", "dogs", "rain") for b in ("food", "sleep", "play")] * 120
    pl.DataFrame({"text": ["zyzzyva", *words]}).write_csv("alone.csv")
    for metric in ("rbf", "euclidean", "cosine"):
        code, text, err = run(capsys, "select", "alone.csv", "--text", "text", "-k", 3, "--metric", metric, "--json")
        assert code == 0, err
        assert 0 not in json.loads(text)["picks"]
    code, text, _ = run(capsys, "select", "alone.csv", "--text", "text", "-k", 3)
    assert "1 text shares no word with another (first: 0); such rows are not picked while others are left" in text


def test_files_that_broke_in_their_own_way_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not utf-16" in refused(capsys, "select", "pool.csv", "--text", "text", "-k", 1, "--encoding", "utf-16")
    np.save("h.npy", np.zeros((3, 2)))
    damaged = bytearray((folder / "h.npy").read_bytes())
    damaged[20] = 40
    (folder / "h.npy").write_bytes(bytes(damaged))
    assert "h.npy is damaged: its header cannot be read" in refused(capsys, "select", "h.npy", "-k", 1)
    np.save("dt.npy", np.zeros((4, 2), "M8[s]"))
    assert "save times in milliseconds" in refused(capsys, "select", "dt.npy", "-k", 2)
    (folder / "a.csv").symlink_to("b.csv")
    (folder / "b.csv").symlink_to("a.csv")
    assert "is a loop of links" in refused(capsys, *CALL, "-k", 1, "-o", "a.csv")
    np.save("x.npy", np.random.default_rng(0).normal(size=(50, 2)))
    call = ("select", "x.npy", "-k", 3, "-m", "sampled_greedy", "--reference", "abc")
    assert "reference='abc'" in refused(capsys, *call, "--dry-run")
    (folder / "caps.csv").write_text("bin,n\n0,30\n1,30\n")
    assert "give --k" in refused(capsys, "assign", "x.npy", "-k", "auto", "--capacity", "caps.csv")


def test_texts_may_be_shown_beside_scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame({"text": ["a b", "c d", "e f"], "s": [1, 3, 2]}).write_csv("s.csv")
    code, text, err = run(capsys, "select", "s.csv", "--text", "text", "--score", "s", "-k", 2)
    assert code == 0, err
    assert "compared by" not in text


def test_k_may_be_a_share_of_the_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for k, count in (("50%", 3), ("1%", 1), ("100%", 6), ("2", 2)):
        code, text, err = run(capsys, "select", "pool.csv", "-m", "random_sample", "-k", k, "--json")
        assert (code, err) == (0, "")
        assert json.loads(text)["picked"] == count
    assert run(capsys, *CALL, "-k", "50%", "--dry-run")[0] == 0
    assert "give a share of the rows from above 0% to 100%" in refused(capsys, *CALL, "-k", "0%")
    assert "give a whole number, or a share of the rows such as 10%" in refused(capsys, *CALL, "-k", "ten")


@pytest.mark.parametrize("k", [1, 4, 6, "100%"])
def test_another_number_than_that_of_each_is_refused(
    k: object, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = refused(capsys, *CALL, "--each", "cat=2", "-k", k)
    assert "and --each cat=2 do not go together: 2 of each of 3 groups, all of those with fewer, are 5 rows" in said
    assert "leave -k out, or say -k 5" in said
    assert run(capsys, *CALL, "--each", "cat=2", "-k", 5)[0] == 0
