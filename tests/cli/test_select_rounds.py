"""`kofn select --label COL` with COL filled in part: the next rows to label, round after round."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import make_pool, refused, run, write

from kofn import datasets


def digits(n: int = 240) -> tuple[pl.DataFrame, list[str]]:
    """A table of scanned digits, and their names."""
    data = datasets.load("digits")
    assert data.X is not None
    assert data.y is not None
    frame = pl.DataFrame({f"p{j}": data.X[:n, 8 * j : 8 * j + 8].sum(axis=1) for j in range(8)})
    return frame.with_row_index("key"), [f"d{label}" for label in data.y[:n]]


COLUMNS = ("--columns", ",".join(f"p{j}" for j in range(8)), "--label", "digit")


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_the_output_of_a_round_with_its_labels_is_the_input_of_the_next(
    folder: Path, capsys: pytest.CaptureFixture[str], suffix: str
) -> None:
    frame, names = digits()
    save, load = (
        (pl.DataFrame.write_csv, pl.read_csv) if suffix == ".csv" else (pl.DataFrame.write_ndjson, pl.read_ndjson)
    )
    file = folder / f"round0{suffix}"
    save(frame.with_columns(digit=pl.lit(None, pl.String)), file)
    seen: set[int] = set()
    for number in range(1, 4):
        out = folder / f"round{number}{suffix}"
        code, text, err = run(capsys, "select", file, *COLUMNS, "-k", 20, "--all", "-o", out)
        assert code == 0, err
        assert "the first round" in text if number == 1 else f"so far: {20 * (number - 1)} rows" in text
        written = load(out)
        assert written.columns == ["key", *(f"p{j}" for j in range(8)), "digit", "row", "rank", "gain"]
        assert sorted(written["key"].to_list()) == list(range(240))
        # They keep the number that they have in the first file.
        assert written["row"].to_list() == written["key"].to_list()
        picked = written.head(20)
        assert picked["rank"].to_list() == list(range(1, 21))
        assert written["rank"].null_count() == 220
        assert not seen & set(picked["key"].to_list())
        assert picked["digit"].null_count() == 20
        seen |= set(picked["key"].to_list())
        filled = [names[key] if key in seen else None for key in written["key"].to_list()]
        save(written.with_columns(digit=pl.Series(filled, dtype=pl.String)), out)
        file = out


def test_the_report_of_a_round_says_what_the_terminal_does(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame, names = digits()
    some = [name if row % 4 == 0 else None for row, name in enumerate(names)]
    frame.with_columns(digit=pl.Series(some, dtype=pl.String)).write_csv("pool.csv")
    code, text, err = run(capsys, "select", "pool.csv", *COLUMNS, "-k", 9, "--report", "r.html", "-o", "o.csv")
    assert code == 0, err
    page = Path("r.html").read_text()
    line = next(line for line in text.splitlines() if "of labelled rows that were kept from it" in line)
    assert f"{line}." in page
    assert "Labelled in 'digit' so far: 60 rows, d" in page
    assert "already bring, beside what the labelled rows bring." in page
    # The picks have no label yet, so that they have no shares of classes; what comes next is no part of the answer.
    assert "the pool was not given" not in page
    assert "no label yet" not in page
    assert "By digit" not in page
    assert "fill in" not in page


@pytest.mark.filterwarnings("always::kofn.core.checks.KofnWarning")
def test_rows_of_every_round_are_named_by_their_numbers_in_the_first_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, names = digits()
    frame.with_columns(digit=pl.Series(names)).drop("key").write_csv("pool.csv")
    call = ("select", COLUMNS[0], COLUMNS[1], "-k", 9)
    assert run(capsys, *call, "pool.csv", "--all", "-o", "next.csv")[0] == 0
    first = pl.read_csv("next.csv").head(9)["row"].to_list()
    # The output names rows of the pool; rows of the output are named by the same numbers.
    for pool in ("pool.csv", "next.csv"):
        for excluded in ("next.csv", ",".join(map(str, first))):
            code, text, err = run(capsys, *call, pool, "--exclude", excluded, "--json")
            assert code == 0, err
            picked = json.loads(text)["picks"]
            assert len(picked) == 9
            assert not set(picked) & set(first)
    # A column of this name that counts nothing of ours stays what it is, beside ours.
    pl.read_csv("pool.csv").with_columns(row=pl.lit(7)).write_csv("own.csv")
    assert run(capsys, *call, "own.csv", "--all", "-o", "more.csv")[0] == 0
    written = pl.read_csv("more.csv")
    assert written["row"].unique().to_list() == [7]
    assert written["kofn_row"].head(9).to_list() == first


def test_what_a_round_knew_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame, names = digits()
    some = [name if row < 60 else (None, "", " ")[row % 3] for row, name in enumerate(names)]
    frame.with_columns(digit=pl.Series(some)).write_csv("pool.csv")
    code, text, err = run(capsys, "select", "pool.csv", *COLUMNS, "-k", 5, "-o", "picks.csv")
    assert code == 0, err
    counts = {name: names[:60].count(name) for name in names[:60]}
    assert "with uncertainty_herding" in text
    assert "labelled in 'digit' so far: 60 rows" in text
    assert all(f"{name} {count}" in text for name, count in counts.items())
    assert "180 rows are left" in text
    assert "logistic_regression is right on" in text
    assert "next: fill in 'digit' of the picks in picks.csv" in text
    answer = json.loads(run(capsys, "select", "pool.csv", *COLUMNS, "-k", 5, "--json", "--model", "gaussian_nb")[1])
    assert answer["round"]["labels"] == counts
    assert 0 < answer["round"]["mean_uncertainty"] < 1
    assert 0.2 < answer["round"]["accuracy"] < 1
    assert min(answer["picks"]) >= 60


@pytest.mark.parametrize(
    ("method", "knows"),
    [("typiclust", True), ("probability_cover", True), ("lazy_greedy", True), ("random_sample", False)],
)
def test_any_method_leaves_out_what_is_labelled(
    folder: Path, capsys: pytest.CaptureFixture[str], method: str, knows: bool
) -> None:
    frame, names = digits()
    frame.with_columns(digit=pl.Series([name if row % 4 else None for row, name in enumerate(names)])).write_csv(
        "p.csv"
    )
    call = ("select", "p.csv", *COLUMNS, "-k", 30, "-m", method, "--seed", 1, "--json")
    answer = json.loads(run(capsys, *call)[1])
    assert answer["picked"] == answer["used"]["k"] == 30
    assert all(row % 4 == 0 for row in answer["picks"])
    # What the labelled rows cover does count: the picks are others than those among unlabelled rows alone.
    frame.with_columns(digit=pl.lit("")).filter(pl.col("key") % 4 == 0).write_csv("open.csv")
    alone = [4 * row for row in json.loads(run(capsys, *(w if w != "p.csv" else "open.csv" for w in call))[1])["picks"]]
    assert (answer["picks"] != alone) or not knows


def test_constraints_are_those_of_the_round(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame, names = digits()
    some = pl.Series([name if row < 50 else None for row, name in enumerate(names)])
    frame.with_columns(digit=some, site=pl.Series(["a", "b"] * 120), cost=1 + frame["key"] % 3).write_csv("pool.csv")
    call = ("select", "pool.csv", *COLUMNS, "--id", "key", "--json")
    quotas = json.loads(run(capsys, *call, "-k", 10, "--quota", "site=a:8-8", "--exclude", "50,52")[1])
    assert sum(key % 2 == 0 for key in quotas["picks"]) == 8
    assert not {50, 52} & set(quotas["picks"])
    bought = json.loads(run(capsys, *call, "--budget", 12, "--cost", "cost")[1])
    assert bought["used"]["costs"] == sum(1 + key % 3 for key in bought["picks"]) <= 12
    assert min(bought["picks"]) >= 50
    line = refused(capsys, *call[:-1], "-k", 10, "--quota", "site=a:8-8", "-m", "typiclust")
    assert "leave -m out" in line


def test_a_repeat_of_a_labelled_row_is_no_news(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame, names = digits(60)
    some = pl.Series([name if row < 30 else None for row, name in enumerate(names)])
    copies = frame.with_columns(digit=pl.lit(None, pl.String)).head(30)
    call = ("select", "pool.csv", *COLUMNS, "-k", 20, "--dedupe", 0.9999, "--json")
    for parts, offset in (
        ((frame.with_columns(digit=some), copies), 30),
        ((copies, frame.with_columns(digit=some)), 60),
    ):
        pl.concat(parts).write_csv("pool.csv")
        picks = json.loads(run(capsys, *call)[1])["picks"]
        assert all(offset <= row < offset + 30 for row in picks)


def test_classes_may_be_numbers_and_few(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame, names = digits(80)
    for known, said in (
        ([3], "one class alone has labels"),
        ([3, 3, 3], "one class alone has labels"),
        ([3, 7], "too few labelled rows to tell"),
        ([3, 3, 3, 7, 7, 7, 8], "fewer than 3 labelled rows: 8"),
    ):
        frame.with_columns(digit=pl.Series([*known, *[None] * (80 - len(known))])).write_csv("pool.csv")
        code, text, err = run(capsys, "select", "pool.csv", *COLUMNS, "-k", 4)
        assert code == 0, err
        assert said in text
    del names


def test_what_cannot_be_a_round_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame, names = digits(40)
    frame.with_columns(digit=pl.Series(names)).write_csv("all.csv")
    frame.with_columns(digit=pl.Series([*names[:30], *[None] * 10])).write_csv("some.csv")
    assert "did you mean 'digit'" in refused(capsys, "select", "some.csv", *COLUMNS[:2], "--label", "digits", "-k", 3)
    assert "10 of 40 rows have no label in 'digit' yet" in refused(capsys, "select", "some.csv", *COLUMNS, "-k", 11)
    every = refused(capsys, "select", "all.csv", *COLUMNS, "-k", 3, "--model", "random_forest")
    assert "every row has a label in 'digit'" in every
    assert "every row has a label" in refused(
        capsys, "select", "all.csv", *COLUMNS, "-k", 3, "-m", "uncertainty_herding"
    )
    wrong = refused(capsys, "select", "some.csv", *COLUMNS, "-k", 3, "--model", "random_forrest")
    assert "did you mean 'random_forest'" in wrong
    # A full column is counted, as ever, and takes no part in the picking.
    code, text, err = run(capsys, "select", "all.csv", *COLUMNS, "-k", 3)
    assert code == 0, err
    assert "picked of digit" in text


def test_without_a_model_the_labelled_rows_are_covered(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame, names = digits()
    frame.with_columns(digit=pl.Series([name if row < 60 else None for row, name in enumerate(names)])).write_csv(
        "p.csv"
    )
    call = ("select", "p.csv", *COLUMNS, "-k", 10, "--json")
    plain = json.loads(run(capsys, *call, "--model", "none")[1])
    learnt = json.loads(run(capsys, *call)[1])
    assert plain["round"]["mean_uncertainty"] is None
    assert plain["picks"] != learnt["picks"]
    assert plain["value"] > learnt["value"]
    assert np.all(np.diff(plain["gains"]) <= 0)


def test_a_round_about_a_query_speaks_of_its_own_picks(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = [f"red car {row}" for row in range(4)] + [f"green bus {row}" for row in range(20)]
    labels = [None, "a", *[None] * 10, *["b"] * 12]
    pl.DataFrame({"t": texts, "topic": pl.Series(labels, dtype=pl.String)}).write_csv("p.csv")
    code, text, err = run(capsys, "select", "p.csv", "--text", "t", "--label", "topic", "-k", 5, "--queries", "red car")
    assert code == 0, err
    assert "2 of 5 picks have nothing in common with any query" in text
    picks = [int(key) for key in text.split("first picks: ")[1].split("  (")[0].split(", ")]
    assert {0, 2, 3} < set(picks) < set(range(12)) - {1}


@pytest.mark.parametrize(("spelt", "others"), [("?", "ab"), ("unlabeled", "ab"), ("n.a.", "ab"), ("-1", "01")])
def test_a_class_that_is_most_likely_none_is_asked_about(
    spelt: str, others: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = [spelt if row % 3 else others[row % 2] for row in range(30)]
    pl.DataFrame({"x": np.arange(30.0), "topic": labels}).write_csv("p.csv")
    call = ("select", "p.csv", "--columns", "x", "--label", "topic", "-k", 3)
    code, text, err = run(capsys, *call)
    assert code == 0, err
    assert f"{spelt!r} counts as a class of 'topic'; if it stands for no label, say --na {spelt!r}" in text
    known = run(capsys, *call, "--na", spelt)[1]
    assert "labelled in 'topic' so far: 10 rows" in known
    assert "counts as a class" not in known


def test_what_kept_the_model_from_doubting_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame, names = digits()
    file = folder / "digits.csv"
    frame.with_columns(digit=pl.Series([name if row < 60 else None for row, name in enumerate(names)])).write_csv(file)
    told = {
        ("--model", "none"): "--model none: all rows count alike",
        ("--time-limit", "0.01"): "the classifier did not fit into the time: all rows count alike; --model none",
    }
    for words, line in told.items():
        code, text, err = run(capsys, "select", file, *COLUMNS, "-k", 3, *words)
        assert code == 0, err
        assert line in text
        assert "too few labelled rows" not in text
        code, text, _ = run(capsys, "select", file, *COLUMNS, "-k", 3, *words, "--json")
        assert json.loads(text)["round"]["learnt_from"] == (None if "none" in words else 0)


@pytest.mark.parametrize(
    ("labels", "warned"),
    [([f"{3 + row % 48 / 10}" for row in range(60)], True), ([str(row % 10) for row in range(60)], False)],
)
def test_numbers_that_measure_are_told_as_no_classes(
    labels: list[str], warned: bool, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, _ = digits()
    file = folder / "digits.csv"
    frame.with_columns(digit=pl.Series([*labels, *[None] * 180])).write_csv(file)
    code, text, err = run(capsys, "select", file, *COLUMNS, "-k", 3, "--model", "none")
    assert code == 0, err
    assert ("different numbers with decimals, and each counts as a class" in text) == warned


def test_picks_without_ids_are_excluded_and_included_by_their_numbers(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame = make_pool().drop("key")
    for own in (frame, frame.with_columns(row=pl.arange(100, 160, eager=True))):
        write(own, folder / "pool.csv")
        call = ["select", "pool.csv", "--columns", "age,tokens", "-k", 5]
        code, out, err = run(capsys, *call, "-o", "first.csv")
        assert code == 0, err
        name = "kofn_row" if "row" in own.columns else "row"
        assert (f"ours is {name!r}" in out) == ("row" in own.columns)
        first = pl.read_csv("first.csv")[name].to_list()
        other = json.loads(run(capsys, *call, "--exclude", "first.csv", "--json")[1])["picks"]
        assert len(other) == 5
        assert not set(first) & set(other)
        again = json.loads(run(capsys, *call, "--include", "first.csv", "--json")[1])["picks"]
        assert set(again) == set(first)


@pytest.mark.parametrize(
    "by", [("--quota", "topic=a:2-"), ("--proportional", "topic"), ("--quota", "topic+x=a,1.0:1-")]
)
def test_quotas_of_labels_are_refused_in_a_next_round(
    by: tuple[str, ...], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pl.DataFrame({"x": np.arange(30.0), "topic": ["", "a", "b"] * 10}).write_csv("p.csv")
    call = ("select", "p.csv", "--columns", "x", "-k", 3)
    said = refused(capsys, *call, "--label", "topic", *by)
    assert f"{by[0]} names 'topic', the column of --label: the next rows to label are picked from those without" in said
    assert "--drop-empty" not in said
    assert run(capsys, *call, "--label", "topic", "--report", "r.html")[0] == 0
    page = (folder / "r.html").read_text()
    assert "option unlabelled" not in page
    assert "their cells are empty" in page
