"""`kofn select --dedupe`: of near-duplicates, as a person sees them, the row stays that the task prefers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse
from command_line import refused, run

Capture = pytest.CaptureFixture[str]

PLACES = [
    "A freezable dictionary object.",
    "A Chinese English dictionary.",
    "SQLite3 Wrapper for Python",
    "virus.exchange wrapper for python",
    "scraping stock data",
    "Simulates/fits DIPPI data",
]


def picks(capsys: Capture, frame: dict[str, Any], *arguments: Any) -> dict[str, Any]:
    pl.DataFrame(frame).write_csv("pool.csv")
    code, text, err = run(capsys, "select", "pool.csv", *arguments, "--json")
    assert code == 0, err
    answer: dict[str, Any] = json.loads(text)
    return answer


def test_rows_of_a_table_are_duplicates_only_where_they_agree(folder: Path, capsys: Capture) -> None:
    ages = {"id": range(6), "age": [20, 31, 44, 52, 67, 80]}
    assert picks(capsys, ages, "--columns", "age", "--dedupe", 0.95, "-k", 2)["dropped"] == 0
    prices = {"price": [0.1 + 0.2, 0.3, 0.3, 0.30001], "make": ["a", "a", "b", "a"]}
    assert picks(capsys, prices, "--columns", "price,make", "--dedupe", 0.5, "-k", 2)["dropped"] == 1


def test_unlike_descriptions_stay_and_the_same_text_goes(folder: Path, capsys: Capture) -> None:
    texts = [*PLACES, "a FREEZABLE  dictionary object.", "SQLite3 Wrapper for Python.", "scraping stock\u00a0data"]
    found = ["--text", "t", "--dedupe", 0.9, "--dropped", "dropped.csv", "-k", 3]
    assert picks(capsys, {"t": texts}, *found)["dropped"] == 3
    dropped = pl.read_csv("dropped.csv")
    assert dropped.columns == ["row", "kept", "similarity"]
    assert dropped["row"].to_list() == [6, 7, 8]
    assert dropped["kept"].to_list() == [0, 2, 4]
    assert dropped["similarity"].round(3).to_list() == [1.0, 0.943, 1.0]


def test_the_report_says_what_was_dropped_and_for_which_row(folder: Path, capsys: Capture) -> None:
    texts = [*PLACES, "A freezable dictionary objects."]
    dedupe = ["--text", "t", "--id", "id", "--dedupe", 0.9, "-k", 3, "--report", "picks.html"]
    picks(capsys, {"id": list("abcdefg"), "t": texts}, *dedupe)
    report = Path("picks.html").read_text()
    assert "3 of 7" in report
    assert "1 near-duplicates of 7 rows were dropped" in report
    shown = report[report.index('id="repeats"') :]
    assert shown.index("A freezable dictionary objects.") < shown.index("A freezable dictionary object.")


def test_texts_without_a_word_are_compared_as_they_stand(folder: Path, capsys: Capture) -> None:
    texts = ["-", "-", "!!!", "one thing", "another story", "rain in May"]
    call = ["--text", "t", "--dedupe", 0.5]
    answer = picks(capsys, {"t": texts}, *call, "-k", 3)
    assert answer["dropped"] == 1
    assert sorted(answer["picks"]) == [3, 4, 5]
    assert len(picks(capsys, {"t": texts}, *call, "-k", 4)["picks"]) == 4
    assert 2 in picks(capsys, {"t": texts}, *call, "-k", 3, "--include", "2")["picks"]
    code, text, _ = run(capsys, "select", "pool.csv", *call, "-k", 3)
    assert code == 0
    assert "2 texts have no word (first: 0); such rows are not picked while others are left" in text


def test_the_row_stays_that_the_task_prefers(folder: Path, capsys: Capture) -> None:
    frame: dict[str, Any] = {
        "id": ["a", "b", "c", "d"],
        "t": ["the same text", "The same text", "rain in May", "another story"],
        "q": [0.1, 0.9, 0.5, 0.3],
        "cost": [50, 1, 5, 5],
        "lang": ["en", "de", "en", "en"],
    }
    dedupe = ["--text", "t", "--dedupe", 0.95, "--id", "id"]
    assert picks(capsys, frame, *dedupe, "--score", "q", "-k", 2)["picks"] == ["b", "c"]
    assert "b" in picks(capsys, frame, *dedupe, "--quota", "lang=de:1-", "-k", 2)["picks"]
    assert "b" in picks(capsys, frame, *dedupe, "--budget", 11, "--cost", "cost")["picks"]
    assert "b" in picks(capsys, frame, *dedupe, "--include", "b", "-k", 2)["picks"]
    # Who is left out stands for nobody: the copy of an excluded row can be picked.
    excluded = picks(capsys, frame, *dedupe, "--exclude", "a", "-k", 3)
    assert excluded["dropped"] == 0
    assert sorted(excluded["picks"]) == ["b", "c", "d"]


def test_errors_count_what_was_dropped(folder: Path, capsys: Capture) -> None:
    texts = ["the same text"] * 3 + ["rain in May", "another story"]
    pl.DataFrame({"t": texts, "lang": ["de"] * 3 + ["en"] * 2}).write_csv("pool.csv")
    call = ["select", "pool.csv", "--text", "t", "--dedupe", 0.9]
    assert "dropped 2 of the 3 such rows and 1 are left" in refused(capsys, *call, "--quota", "lang=de:2-", "-k", 2)
    assert "ask for k <= 3 or raise --dedupe" in refused(capsys, *call, "-k", 4)


def test_similarities_have_no_rows_to_compare(folder: Path, capsys: Capture) -> None:
    scipy.sparse.save_npz("similar.npz", scipy.sparse.eye(5, format="csr"))
    np.save("similar.npy", np.eye(5))
    for file in ("similar.npz", "similar.npy"):
        said = refused(capsys, "select", file, "--metric", "precomputed", "--dedupe", 0.9, "-k", 2)
        assert "before the similarities are computed" in said
    assert "give --dedupe too" in refused(capsys, "select", "similar.npy", "--dropped", "d.csv", "-k", 2)
    assert "--dropped d.txt: give a name" in refused(
        capsys, "select", "similar.npy", "--dedupe", 0.9, "--dropped", "d.txt", "-k", 2
    )


def test_vectors_are_compared_by_the_metric_of_the_selection(folder: Path, capsys: Capture) -> None:
    X = np.random.default_rng(0).normal(size=(30, 6))
    np.save("pool.npy", np.concatenate([X, X * 2, X[:5], np.zeros((2, 6))]))
    for metric, dropped in (("cosine", 36), ("euclidean", 6), ("sqeuclidean", 6)):
        call = ["select", "pool.npy", "-k", 5, "--dedupe", 0.999, "--metric", metric, "--json"]
        code, text, err = run(capsys, *call)
        assert code == 0, err
        assert json.loads(text)["dropped"] == dropped


def test_what_vectors_are_compared_by_is_said(folder: Path, capsys: Capture) -> None:
    X = np.random.default_rng(0).normal(size=(20, 16))
    near = X[0] + 0.3 * np.random.default_rng(1).normal(size=16)
    np.save("x.npy", np.vstack([X, near]).astype(np.float32))
    code, text, _ = run(capsys, "select", "x.npy", "--dedupe", 0.9)
    assert code == 0
    assert "dropped 0 near-duplicates at euclidean similarity (1 - distance / typical distance;" in text
    code, text, _ = run(capsys, "select", "x.npy", "--dedupe", 0.9, "--metric", "cosine")
    assert "dropped 1 near-duplicates at cosine >= 0.9" in text
