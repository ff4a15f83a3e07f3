"""Tables as they are: marks for missing values, commas before decimals, other separators, encodings and compression."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run, write

ROWS = [("a", "20"), ("b", "31"), ("c", "44"), ("d", "52"), ("e", "67"), ("f", "80")]
PICK = ("--columns", "x", "-k", "2", "--json")


def table(cells: dict[int, str] | None = None, mark: str = ",") -> str:
    """A column of numbers, some of whose cells are spelt otherwise."""
    rows = [(key, (cells or {}).get(place, value)) for place, (key, value) in enumerate(ROWS)]
    quoted = [f'"{value}"' if mark in value else value for _, value in rows]
    return f"id{mark}x\n" + "".join(f"{key}{mark}{value}\n" for (key, _), value in zip(rows, quoted, strict=True))


def picks(capsys: pytest.CaptureFixture[str], *words: object) -> dict[str, object]:
    code, text, err = run(capsys, *words)
    assert code == 0, err
    out: dict[str, object] = json.loads(text)
    return out


@pytest.mark.parametrize("verb", ["select", "assign"])
@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("NA", "--na 'NA'"),
        ("n/a", "--na 'n/a'"),
        ("-", "--na '-'"),
        ("?", "--na '?'"),
        ("1,200", "write it without the commas between thousands, 1200, or say --decimal , if it stands for 1.200"),
        ("1,340,000", "write it without the commas between thousands, 1340000"),
        ("1,200.5", "write it without the commas between thousands, 1200.5"),
        ("85.2%", "without the percent sign"),
        ("3,5", "--decimal ,"),
        ("1 200", "plain number"),
        ("$12", "plain number"),
        ("(12)", "plain number"),
        ("1_200", "plain number"),
        ("\u22123", "plain number"),
        ("1\u2019200", "plain number"),
    ],
)
def test_one_odd_cell_does_not_make_names_of_numbers(
    verb: str, cell: str, told: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text(table({3: cell}))
    said = refused(capsys, verb, "t.csv", "--columns", "x", "-k" if verb == "select" else "--k", "2")
    assert f"column 'x' at row 3 is {cell!r} in a column of numbers" in said
    assert told in said


# Forty measurements, or days, which a person would never take for names.
MEASURED = [f"{20 + 1.37 * place:.2f}" for place in range(40)]
DAYS = [f"2024-{month:02}-{day:02}" for month in range(1, 11) for day in (1, 8, 15, 22)]


@pytest.mark.parametrize(
    "cell",
    [
        *("—", "N.A.", "tbd", "*", r"\N", "<NA>", "(null)", "#DIV/0!", "12O", "12 kg", "10k", "<0.5", "~5", "5-10"),
        *("1_000", "012345678901234567890", "0\uff11", "007", "TRUE", "see note", "NaT", "2024-01-01", "1,200", "-"),
    ],
)
@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_no_odd_cell_among_measurements_makes_names_of_them(
    cell: str, suffix: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(pl.DataFrame({"x": [*MEASURED[:7], cell, *MEASURED[7:]]}), Path(f"t.{suffix}"))
    said = refused(capsys, "select", f"t.{suffix}", "--columns", "x", "-k", "2")
    assert f"column 'x' at row 7 is {cell!r} in a column of numbers" in said
    out = picks(capsys, "select", f"t.{suffix}", *PICK, "--categories", "x")
    assert out["picked"] == 2


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_dates_are_no_names_either(suffix: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = f"t.{suffix}"
    words = ("select", file, "--columns", "x", "-k", "2")
    write(pl.DataFrame({"x": [*DAYS, "NA"]}), Path(file))
    assert "column 'x' at row 40 is 'NA' in a column of dates; if it stands for no value" in refused(capsys, *words)
    code, text, err = run(capsys, *words, "--na", "NA", "--impute", "median")
    assert code == 0, err
    assert "columns x scaled" in text
    for spelt in ("31/12/2024", "12/31/24", "31.12.2024", "2024/12/31", "09:20", "9:20 pm"):
        write(pl.DataFrame({"x": [spelt, *[spelt.replace("12", f"{m:02}") for m in range(1, 12)]]}), Path(file))
        assert f"row 0 is {spelt!r} in a column of dates; write dates and times as in" in refused(capsys, *words)
    write(pl.DataFrame({"x": [*DAYS, "2024-02-30"]}), Path(file))
    assert "'x' at row 40 is '2024-02-30', which is no date" in refused(capsys, *words)


@pytest.mark.parametrize(
    ("cells", "names"),
    [
        (["1", "2", "3+"], 3),
        (["S", "M", "40"], 3),
        (["4", "6", "8", "rotary"], 4),
        (["0-9", "10-19"], 2),
        (["1st", "2nd"], 2),
        (["1.2.3", "1.2.4"], 2),
        (["02134", "10001"], 2),
        ([f"00{place}" for place in range(30)], 30),
        (["red", "-", "1"], 3),
    ],
)
def test_words_stay_words(cells: list[str], names: int, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pl.DataFrame({"x": cells * 10}).write_csv("t.csv")
    code, text, err = run(capsys, "select", "t.csv", "--columns", "x", "-k", "2")
    assert code == 0, err
    assert f"x ({names} names)" in text


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_text_that_is_numbers_is_numbers_in_any_format(
    suffix: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Wherever a column of numbers was saved as text, as one `NA` makes programs do, --na gives the numbers back."""
    frame = pl.DataFrame({"id": [key for key, _ in ROWS], "x": [value for _, value in ROWS]})
    write(frame, Path(f"t.{suffix}"))
    want = picks(capsys, "select", _written("plain.csv", table()), *PICK)["picks"]
    assert picks(capsys, "select", f"t.{suffix}", *PICK)["picks"] == want
    assert picks(capsys, "select", f"t.{suffix}", "--score", "x", "-k", "2", "--json")["picks"] == [5, 4]
    write(frame.with_columns(x=pl.Series(["20", "NA", "-", "52", "67", "80"])), Path(f"t.{suffix}"))
    out = picks(capsys, "select", f"t.{suffix}", *PICK, "--na", "NA,-", "--drop-empty")
    assert set(out["picks"]) <= {0, 3, 4, 5}  # type: ignore[call-overload]
    assert picks(capsys, "select", f"t.{suffix}", "--score", "x", "-k", "4", "--na", "NA,-", "--drop-empty", "--json")[
        "picks"
    ] == [5, 4, 3, 0]


@pytest.mark.parametrize("suffix", ["csv", "parquet", "jsonl"])
def test_an_empty_text_is_missing_in_any_format(suffix: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frame = pl.DataFrame({"t": ["a cat", "", None, "a dog"], "lang": ["de", "", "en", None], "x": ["1", "2", "", None]})
    write(frame, Path(f"t.{suffix}"))
    code, text, err = run(capsys, "select", f"t.{suffix}", "--text", "t", "-k", "2")
    assert code == 0, err
    assert "2 texts have no word (first: 1); such rows are not picked while others are left" in text
    assert (
        "2 rows miss a value and are left out"
        in run(capsys, "select", f"t.{suffix}", "--text", "t", "-k", "2", "--drop-empty")[1]
    )
    for flags in (("--columns", "lang"), ("--text", "t", "--quota", "lang=de:1-"), ("--text", "t", "--each", "lang=1")):
        assert "'lang' at row 1 is empty" in refused(capsys, "select", f"t.{suffix}", *flags, "-k", "1")
    for flags in (("--columns", "x"), ("--score", "x"), ("--text", "t", "--weight", "x")):
        assert "'x' at row 2 is empty" in refused(capsys, "select", f"t.{suffix}", *flags, "-k", "1")


def test_not_a_number_is_a_missing_value(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nan = float("nan")
    frame = pl.DataFrame(
        {"x": [20.0, nan, 44, 52, 67, 80], "v": [[1.0, 2], [3.0, nan], None, [9.0, 9], [0.0, 0], [5.0, 5]]}
    )
    frame.write_parquet("t.parquet")
    words = ("select", "t.parquet", "-k", "3", "--json")
    assert "row 1 is NaN; fill or drop those rows first" in refused(capsys, *words, "--columns", "x")
    assert "row 1 is NaN; fill it, or leave such rows out" in refused(capsys, *words, "--score", "x")
    for flags, left in ((("--columns", "x"), 1), (("--score", "x"), 1), (("--vectors", "v"), 2)):
        code, text, err = run(capsys, *words[:-1], *flags, "--drop-empty")
        assert code == 0, err
        assert ("1 row misses" if left == 1 else "2 rows miss") in text
    assert 1 not in picks(capsys, *words, "--vectors", "v", "--drop-empty")["picks"]  # type: ignore[operator]
    filled = picks(capsys, *words, "--columns", "x", "--impute", "median")
    pl.DataFrame({"x": [20.0, 52, 44, 52, 67, 80]}).write_parquet("t.parquet")
    assert filled["picks"] == picks(capsys, *words, "--columns", "x")["picks"]
    np.save("t.npy", np.array([[1.0, 2], [nan, 2], [3, 4]]))
    assert set(picks(capsys, "select", "t.npy", "-k", "2", "--drop-empty", "--json")["picks"]) == {0, 2}  # type: ignore[call-overload]
    assert "row 1, column 0 is NaN" in refused(capsys, "select", "t.npy", "-k", "2", "--impute", "median")


def test_what_fills_a_gap_is_said(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text("x,lang\n1,de\n,de\n3,\n4,en\n")
    shown = run(capsys, "select", "t.csv", "--columns", "x,lang", "-k", "2", "--impute", "mean")[1]
    assert "2 rows miss a value, filled with the mean of the column (of names, the most frequent one)" in shown
    # Scores are not made up.
    assert "leave such rows out with --drop-empty" in refused(
        capsys, "select", "t.csv", "--score", "x", "-k", "2", "--impute", "mean"
    )


def test_the_sign_of_decimals_holds_for_the_whole_column(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text("id;x\na;1,5\nb;12.5\nc;3,25\n")
    words = ("select", "t.csv", "--delimiter", ";", "--decimal", ",", "-k", "1")
    for flags in (("--columns", "x"), ("--score", "x")):
        said = refused(capsys, *words, *flags)
        assert "column 'x' at row 1 is '12.5'" in said
        assert "with --decimal , numbers are written as 1234,5 or 1.234,5" in said


def test_nested_values_are_no_names_and_their_texts_are_texts(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    chats = [
        [{"role": "user", "content": said}, {"role": "assistant", "content": "It is."}]
        for said in ("the red car", "a red bus", "the moon shines", "the sun and the moon")
    ]
    frame = pl.DataFrame(
        {
            "chat": chats,
            "tags": [["a"], ["b"], [], ["a"]],
            "plain": [f"{chat[0]['content']}\n{chat[1]['content']}" for chat in chats],
        }
    )
    for suffix in ("parquet", "jsonl"):
        file = f"t.{suffix}"
        write(frame, Path(file))
        want = picks(capsys, "select", file, "--text", "plain", "-k", "2", "--json")
        assert picks(capsys, "select", file, "--text", "chat", "-k", "2", "--json")["gains"] == want["gains"]
        said = refused(capsys, "select", file, "--columns", "chat", "-k", "2")
        assert "column 'chat' holds" in said
        run(capsys, "select", file, "--text", "chat", "-k", "2", "--report", "o.html", "--dedupe", "0.9")
        assert "the red car" in Path("o.html").read_text()


def test_missing_values_are_named_left_out_or_filled(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text(table({3: "NA", 5: "n/a"}))
    marks = ("--columns", "x", "--na", "NA,n/a")
    assert "row 3 is empty" in refused(capsys, "select", "t.csv", *marks, "-k", "2")
    code, text, err = run(capsys, "select", "t.csv", *marks, "-k", "4", "--drop-empty", "-o", "o.csv", "--id", "id")
    assert code == 0, err
    assert "2 rows miss a value and are left out" in text
    assert set(pl.read_csv("o.csv")["id"]) == {"a", "b", "c", "e"}
    code, text, err = run(capsys, "select", "t.csv", *marks, "-k", "6", "--impute", "median", "-o", "o.csv")
    assert code == 0, err
    assert "2 rows miss a value, filled with the median" in text
    # The cells come out as they are written.
    assert set(pl.read_csv("o.csv", infer_schema=False)["x"]) == {"20", "31", "44", "NA", "67", "n/a"}
    code, _, err = run(capsys, "assign", "t.csv", *marks, "--k", "2", "--drop-empty", "-o", "g.csv")
    assert code == 0, err
    assert len(pl.read_csv("g.csv")) == 4
    once = ("select", "t.csv", "--columns", "x", "-k", "1")
    assert "give one of them" in refused(capsys, *once, "--impute", "mean", "--drop-empty")
    assert "give median, mean" in refused(capsys, *once, "--impute", "zero")
    Path("none.csv").write_text("id,x\na,\nb,\n")
    call = ("select", "none.csv", "--columns", "x", "-k", "1")
    assert "column 'x' has no value, so --drop-empty leaves no row" in refused(capsys, *call, "--drop-empty")
    assert "has no value, so there is no mean to fill it with" in refused(capsys, *call, "--impute", "mean")
    Path("none.csv").write_text("id,x,y\na,,1\nb,1,\n")
    call = ("select", "none.csv", "--columns", "x,y", "-k", "1")
    assert "leaves no row: every one misses a value" in refused(capsys, *call, "--drop-empty")


def test_decimals_separators_and_encodings(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    want = picks(capsys, "select", _written("plain.csv", table()), *PICK)["picks"]
    european = {place: f"1.{value}0,5" for place, (_, value) in enumerate(ROWS)}
    Path("e.csv").write_text(table(european, ";"))
    assert picks(capsys, "select", "e.csv", *PICK, "--delimiter", ";", "--decimal", ",")["picks"] == want
    said = refused(capsys, "select", "e.csv", "--columns", "x", "-k", "2")
    assert "--delimiter ';'" in said
    Path("latin.csv").write_bytes(table().replace("a,", "é,").encode("latin-1"))
    assert "is not UTF-8" in refused(capsys, "select", "latin.csv", "--columns", "x", "-k", "2")
    assert picks(capsys, "select", "latin.csv", *PICK, "--encoding", "latin-1")["picks"] == want
    Path("wide.csv").write_bytes(table().encode("utf-16"))
    assert picks(capsys, "select", "wide.csv", *PICK)["picks"] == want
    Path("t.csv.gz").write_bytes(gzip.compress(table().encode()))
    assert picks(capsys, "select", "t.csv.gz", *PICK)["picks"] == want
    rows = "".join(json.dumps({"id": key, "x": int(value)}) + "\n" for key, value in ROWS)
    Path("t.jsonl.gz").write_bytes(gzip.compress(rows.encode()))
    assert picks(capsys, "select", "t.jsonl.gz", *PICK)["picks"] == want
    Path("tabs.csv").write_text(table(mark="\t"))
    assert picks(capsys, "select", "tabs.csv", *PICK, "--delimiter", "tab")["picks"] == want
    once = ("select", "plain.csv", "--columns", "x", "-k", "1")
    assert "encoding='morse' is not known" in refused(capsys, *once, "--encoding", "morse")
    assert "decimal=';'" in refused(capsys, *once, "--decimal", ";")
    assert "give one character" in refused(capsys, *once, "--delimiter", "ab")


def _written(name: str, text: str) -> str:
    Path(name).write_text(text)
    return name


def test_judges_and_curves_too(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("board.csv").write_text("model;x;y\na;85,2;N/A\nb;70,1;3\nc;60;5\n")
    words = ("combine", "board.csv", "--id", "model", "--delimiter", ";")
    said = refused(capsys, *words)
    assert "column 'x' at row 0 is '85,2'" in said
    assert "--decimal ," in said
    assert "--na 'N/A'" in refused(capsys, *words, "--decimal", ",")
    out = picks(capsys, *words, "--decimal", ",", "--na", "N/A", "--json")
    assert out["judges"] == ["x", "y"]
    Path("curves.csv").write_text("layer;2;4\na;3,5;1,5\nb;5;1\n")
    words = ("allocate", "curves.csv", "--id", "layer", "--budget", "6", "--delimiter", ";", "--decimal", ",", "--json")
    assert picks(capsys, *words)["items"] == 2


def test_a_wide_header_is_read_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"gene{i}" for i in range(20_000)]
    rows = [",".join([str(row)] * len(names)) for row in range(3)]
    Path("w.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
    out = picks(capsys, "select", "w.csv", "--columns", "gene1,gene2", "-k", "1", "--json")
    assert out["picked"] == 1


@pytest.mark.parametrize("spelt", ["({})", "${}", "{}%", "\u2212{}", "1_00{}", "1\u202f00{}"])
def test_half_a_column_of_odd_spellings_makes_no_names_of_numbers(
    spelt: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [spelt.format(row) if row % 2 else f"{row}" for row in range(12)]
    Path("t.csv").write_text("id,x\n" + "".join(f"{row},{cell}\n" for row, cell in enumerate(cells)))
    told = refused(capsys, "select", "t.csv", "--columns", "x", "-k", 2)
    assert f"column 'x' at row 1 is {cells[1]!r} in a column of numbers" in told
    # Names that hold digits stay names.
    Path("t.csv").write_text("id,x\n" + "".join(f"{row},s{row % 3} (v{row % 2})\n" for row in range(12)))
    assert run(capsys, "select", "t.csv", "--columns", "x", "-k", 2)[0] == 0


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".csv.gz"])
def test_utf_16_without_a_mark_is_refused_with_its_encoding(
    encoding: str, suffix: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = "".join(json.dumps({"id": key, "x": float(x)}) + "\n" for key, x in ROWS) if suffix == ".jsonl" else table()
    data = text.encode(encoding)
    Path(f"t{suffix}").write_bytes(gzip.compress(data) if suffix.endswith("gz") else data)
    assert f"say --encoding {encoding}" in refused(capsys, "select", f"t{suffix}", *PICK)
    assert picks(capsys, "select", f"t{suffix}", *PICK, "--encoding", encoding)["picked"] == 2
