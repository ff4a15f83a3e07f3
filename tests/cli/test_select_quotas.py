"""Quotas of `kofn select`: several columns, shares, proportional columns, and how groups are named in files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest
from command_line import make_pool, refused, run, write

import kofn
from kofn.core.checks import InputError

ROWS = 200


def pool(folder: Path, name: str = "pool.csv") -> Path:
    frame = pl.DataFrame(
        {
            "key": range(ROWS),
            "v": [(37 * i) % 101 / 7 for i in range(ROWS)],
            "lang": ["de" if i % 5 == 0 else "fr" if i % 3 == 0 else "en" for i in range(ROWS)],
            "year": [2023.0 if i % 7 < 3 else 2024.0 for i in range(ROWS)],
            "seen": [i % 4 == 0 for i in range(ROWS)],
            "cost": [1 + i % 5 for i in range(ROWS)],
        }
    )
    path = folder / name
    if path.suffix == ".csv":
        frame.write_csv(path)
    else:
        frame.write_parquet(path)
    return path


@pytest.mark.parametrize("file", ["pool.csv", "pool.parquet"])
def test_quotas_over_columns_named_as_numbers_or_truth(
    folder: Path, capsys: pytest.CaptureFixture[str], file: str
) -> None:
    asked = ["-k", 20, "--columns", "v", "--quota", "lang=de:10-12", "--quota", "year=2024:-7", "--quota", "seen=1:5-5"]
    code, text, err = run(capsys, "select", pool(folder, file), *asked, "-o", "picks.csv", "--report", "r.html")
    assert code == 0, err
    picks = pl.read_csv("picks.csv")
    assert 10 <= (picks["lang"] == "de").sum() <= 12
    assert (picks["year"] == 2024).sum() <= 7
    assert picks["seen"].cast(pl.String).str.to_lowercase().eq("true").sum() == 5
    assert "quota lang=de: 1" in text
    assert "at most 7 asked" in text
    assert "quotas are met" in Path("r.html").read_text()


def test_one_column_named_as_a_number(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["-k", 10, "--columns", "v", "--quota", "year=2024:-1", "-o", "picks.csv"]
    code, text, err = run(capsys, "select", pool(folder), *asked)
    assert code == 0, err
    assert (pl.read_csv("picks.csv")["year"] == 2024).sum() <= 1
    assert "quota 2024.0: 1 picked, at most 1 asked" in text


def test_shares_and_proportional_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["-k", 20, "--columns", "v", "--quota", "lang=de:20%-30%", "--proportional", "year", "-o", "picks.csv"]
    code, text, err = run(capsys, "select", pool(folder), *asked)
    assert code == 0, err
    picks = pl.read_csv("picks.csv")
    assert 4 <= (picks["lang"] == "de").sum() <= 6
    share = (pl.read_csv("pool.csv")["year"] == 2024).mean() * 20
    assert abs((picks["year"] == 2024).sum() - share) < 1
    assert "4-6 (20%-30%) asked" in text
    assert "proportional year: 2 groups, each within one pick of its share" in text


def test_groups_too_small_for_a_pick_are_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = pl.DataFrame({"v": [0.3 * i for i in range(20)], "y": [int(i > 17) for i in range(20)]})
    rows.write_csv(folder / "strata.csv")
    asked = ["select", "strata.csv", "--columns", "v", "--proportional", "y"]
    line = "1 of 2 groups got no pick, their shares being below one: 1 (2 rows); from {} on every group gets one"
    code, text, err = run(capsys, *asked, "-k", "20%")
    assert code == 0, err
    assert f"proportional y: {line.format('-k 10')}" in text
    notes = kofn.select(rows, columns="v", proportional="y", k=4).info["notes"]
    assert f"proportional y: {line.format('k=10')}" in notes
    for k in (9, 10):
        code, text, err = run(capsys, *asked, "-k", k, "-o", "picks.csv")
        assert ("got no pick" in text) == (1 not in pl.read_csv("picks.csv")["y"].to_list())
    assert "got no pick" not in text


def test_a_budget_duplicates_and_forced_rows_beside_two_columns(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--columns", "v", "--budget", 30, "--cost", "cost", "--id", "key", "--include", "7", "--exclude", "5,10"]
    asked += ["--quota", "lang=de:3-", "--quota", "year=2023:2-6", "--dedupe", "0.999", "-o", "picks.csv"]
    code, _, err = run(capsys, "select", pool(folder), *asked)
    assert code == 0, err
    picks = pl.read_csv("picks.csv")
    assert picks["cost"].sum() <= 30
    assert (picks["lang"] == "de").sum() >= 3
    assert 2 <= (picks["year"] == 2023).sum() <= 6
    assert 7 in picks["key"].to_list()
    assert not {5, 10} & set(picks["key"].to_list())


def test_dry_run_takes_quotas_over_columns(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["-k", 20, "--columns", "v", "--quota", "lang=de:5-", "--quota", "year=2024:5-", "--dry-run"]
    code, text, err = run(capsys, "select", pool(folder), *asked)
    assert code == 0, err
    assert "lazy_greedy" in text


BAD: list[tuple[list[object], str]] = [
    (["--quota", "lang=DE:-1"], "no item has that group; did you mean 'de'?"),
    (["--quota", "lang=de:150%-"], "150% is more than all picks"),
    (["--quota", "lang=de:2-,fr:2-"], "no item has that group; repeat --quota for each group"),
    (["--quota", "lang=de:2-30%"], "one end is a share and one a number"),
    (["--quota", "lang=de:30%-20%"], "clash; swap the ends"),
    (["--quota", "year=2024:1-", "--quota", "year=2024.0:2-"], "names the group '2024.0' twice"),
    (["--quota", "lang=de:1-", "--proportional", "lang"], "both name 'lang'"),
    (["--proportional", "lnag"], "did you mean 'lang'"),
    (["--proportional", "lang", "--budget", 9, "--cost", "cost"], "give -k, and no --budget"),
    (["--quota", "lang=de:10%-", "--budget", 9, "--cost", "cost"], "is a share of the picks"),
    (["--quota", "lang=de:1-", "--quota", "year=2024:1-", "--group", "lang"], "--quota names 'year'"),
    (["--quota", "lang=de:4-", "--quota", "lang=fr:4-", "--quota", "seen=true:5"], "need 8 items, k=5"),
    (
        ["--quota", "key=0:1", "--quota", "key=1:1", "--quota", "seen=true:-0", "--quota", "lang=fr:4-"],
        "picks meet the",
    ),
]


@pytest.mark.parametrize(("flags", "says"), BAD, ids=[" ".join(map(str, flags)) for flags, _ in BAD])
def test_what_cannot_be_asked(folder: Path, capsys: pytest.CaptureFixture[str], flags: list[object], says: str) -> None:
    assert says in refused(capsys, "select", pool(folder), "-k", 5, "--columns", "v", *flags)


@pytest.mark.parametrize("how", [["-m", "random_sample", "--seed", 1], ["-m", "top_k", "--score", "score"]])
def test_what_compares_nothing_needs_no_columns(
    folder: Path, capsys: pytest.CaptureFixture[str], how: list[Any]
) -> None:
    table, out = write(make_pool().drop("age"), folder / "pool.csv"), folder / "picks.csv"
    code, _, err = run(
        capsys, "select", table, *how, "-k", 9, "--quota", "lang=de:3-3", "--quota", "lang=fr:5-", "-o", out
    )
    assert (code, err) == (0, "")
    counts = dict(pl.read_csv(out)["lang"].value_counts().iter_rows())
    assert counts["de"] == 3
    assert counts["fr"] >= 5


@pytest.mark.parametrize("file", ["pool.csv", "pool.parquet"])
@pytest.mark.parametrize("more", [[], ["--quota", "lang=de:-6", "--quota", "year=2023:4-"], ["--dedupe", "0.99"]])
def test_quotas_of_cells(folder: Path, capsys: pytest.CaptureFixture[str], file: str, more: list[str]) -> None:
    asked = ["-k", 12, "--columns", "v", "--quota", "lang+year=de,2024:3-", "--quota", "lang+year=fr,2023:2-2", *more]
    code, text, err = run(capsys, "select", pool(folder, file), *asked, "-o", "picks.csv", "--report", "r.html")
    assert code == 0, err
    picks = pl.read_csv("picks.csv")
    assert ((picks["lang"] == "de") & (picks["year"] == 2024)).sum() >= 3
    assert ((picks["lang"] == "fr") & (picks["year"] == 2023)).sum() == 2
    assert "quota lang+year=fr,2023.0: 2 picked, 2-2 asked" in text
    assert "quotas are met" in Path("r.html").read_text()


@pytest.mark.parametrize("cell", ["de,2024.0", ("de", "2024.0"), ("de", 2024.0)])
def test_a_cell_is_a_text_or_a_tuple(folder: Path, cell: Any) -> None:
    frame = pl.read_csv(pool(folder))
    picks = kofn.select(frame, columns=["v"], k=12, quotas={"lang+year": {cell: (7, None)}}).take(frame)
    assert ((picks["lang"] == "de") & (picks["year"] == 2024)).sum() >= 7
    for wrong in ("de\n2024", ("de",), 2024):
        with pytest.raises(InputError, match="name one group of each of the 2 columns"):
            kofn.select(frame, columns=["v"], k=12, quotas={"lang+year": {wrong: (7, None)}})


def test_a_column_whose_name_has_a_plus_is_a_column(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.read_csv(pool(folder)).rename({"seen": "lang+year"}).write_csv("plus.csv")
    asked = ["-k", 10, "--columns", "v", "--quota", "lang+year=true:4-4", "-o", "picks.csv"]
    code, _, err = run(capsys, "select", "plus.csv", *asked)
    assert code == 0, err
    assert pl.read_csv("picks.csv")["lang+year"].sum() == 4


def test_cells_that_cannot_be_read_or_met(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def told(*quotas: str) -> str:
        flags = [part for quota in quotas for part in ("--quota", quota)]
        return refused(capsys, "select", pool(folder), "-k", 12, "--columns", "v", *flags)

    assert "name one group of each of the 2 columns" in told("lang+year=de:3-")
    assert "no item has '2025' in 'year'" in told("lang+year=de,2025:3-")
    assert "no column 'lang+yer'" in told("lang+yer=de,2024:3-")
    clash = told("lang+year=de,2024:9-", "lang=de:-6")
    assert "no k=12 picks meet the quotas of lang+year and lang together" in clash
