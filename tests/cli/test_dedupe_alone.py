"""`kofn select --dedupe` without -k: owned rows (`--private`), and that no flag is taken without an effect."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import polars as pl
import pytest
from command_line import refused, run

import kofn
from kofn.cli.select import command
from kofn.core.checks import InputError

Capture = pytest.CaptureFixture[str]

TEXTS = ["The cat sat on the mat", "the cat sat on the mat!", "Stocks fell today", "Rain in May", "rain in  May", ""]
AGES = ["1", "1", "2", "", "5", "5"]
POOL = {
    "id": list("abcdef"),
    "text": TEXTS,
    "age": AGES,
    "year": ["1,0", "1,0", "2,5", "3,1", "4,0", "5,0"],
    "score": [1, 2, 3, 4, 5, 6],
    "topic": ["", "x", "", "", "y", ""],
    "full": list("xyxyxy"),
    "cost": [1, 2, 3, 4, 5, 6],
}
VECTORS = np.array([[1.0, 0.0], [3.0, 0.1], [0.0, 1.0], [0.0, 1.01], [-1.0, 0.3], [2.0, 2.0]])


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    pl.DataFrame(POOL).write_csv("pool.csv")
    pl.DataFrame({**POOL, "emb": VECTORS.tolist()}).write_parquet("pool.parquet")
    pl.DataFrame({"id": ["o1", "o2"], "text": ["stocks FELL today", "something else"], "age": ["2", "7"]}).write_csv(
        "old.csv"
    )
    Path("tabbed.csv").write_text("id\ttext\n" + "\n".join(f"{i}\t{t}" for i, t in enumerate(TEXTS)) + "\n")
    Path("latin.csv").write_bytes("id,text\na,é é é é\nb,é é é é\n".encode("latin-1"))
    return tmp_path


TEXT = ("pool.csv", "--id", "id", "--text", "text", "--dedupe", "0.9")
AGE = ("pool.csv", "--id", "id", "--columns", "age", "--dedupe", "0.9")
VECTOR = ("pool.parquet", "--id", "id", "--vectors", "emb", "--dedupe", "0.9")

# Of each flag that is taken: a call without it, and what is typed for it. The answer, or the outcome, differs.
USED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "text": (("pool.csv", "--dedupe", "0.9", "--id", "id", "--columns", "full"), ()),
    "vectors": (("pool.parquet", "--id", "id", "--dedupe", "0.99", "--columns", "full"), ()),
    "columns": (TEXT, ()),
    "categories": (("pool.csv", "--id", "id", "--columns", "year", "--dedupe", "0.9"), ("--categories", "year")),
    "metric": (("pool.parquet", "--id", "id", "--vectors", "emb", "--dedupe", "0.999"), ("--metric", "cosine")),
    "score_column": (TEXT, ("--score", "score")),
    "private": (TEXT, ("--private", "old.csv")),
    "dedupe": (TEXT, ()),
    "include": (TEXT, ("--include", "b")),
    "exclude": (TEXT, ("--exclude", "c")),
    "id_column": (("pool.csv", "--text", "text", "--dedupe", "0.9"), ("--id", "id")),
    "label_column": (TEXT, ("--label", "topic")),
    "drop_empty": (AGE, ("--drop-empty",)),
    "impute": (AGE, ("--impute", "median")),
    "na": ((*AGE, "--drop-empty"), ("--na", "5")),
    "decimal": (("pool.csv", "--id", "id", "--columns", "year", "--dedupe", "0.9"), ("--decimal", ",")),
    "delimiter": (("tabbed.csv", "--id", "id", "--text", "text", "--dedupe", "0.9"), ("--delimiter", "tab")),
    "encoding": (("latin.csv", "--id", "id", "--text", "text", "--dedupe", "0.9"), ("--encoding", "latin-1")),
}
# Flags that write, print, or are settings that by contract change no answer.
NEUTRAL = {"output", "dropped", "report", "as_json", "dry_run", "seed", "n_threads", "drop"}
# With these something else than near-duplicates decides which rows stay.
DECIDES = {"k", "budget", "cost_column", "quotas", "proportional", "each", "start", "objective", "queries", "method"}
# With these vectors are read in parts.
OF_PARTS = {"engine", "address", "work"}
BASES = {"text": TEXT, "columns": AGE, "vectors": VECTOR}
VALUES = {
    "images": "score",
    "metric": "cosine",
    "export": "argilla=x.json",
    "capacity": "3",
    "max_memory": "1GB",
    "categories": "age",
}
PARAMS = {param.name: param for param in command.params if isinstance(param, click.Option) and param.name is not None}


def kept(capsys: Capture, *arguments: Any) -> Any:
    """The ids that stay, or that the call is refused."""
    code, text, err = run(capsys, "select", *arguments, "--json")
    return json.loads(text)["rows"] if code == 0 else err


def typed(param: click.Option) -> list[str]:
    """The flag with a value that would be right for it elsewhere."""
    name = next(word for word in param.opts if word.startswith("--"))
    if param.is_flag:
        return [name]
    number = isinstance(param.type, click.types.IntParamType | click.types.FloatParamType)
    return [name, VALUES.get(param.name or "", "3" if number else "score" if "COL" in (param.metavar or "") else "x=1")]


def test_every_flag_is_known_here() -> None:
    assert not (USED.keys() | NEUTRAL | DECIDES) - PARAMS.keys()


@pytest.mark.parametrize(
    ("compared", "name"),
    [
        (compared, name)
        for compared in BASES
        for name in sorted(PARAMS.keys() - USED.keys() - NEUTRAL - DECIDES)
        if compared != "vectors" or name not in OF_PARTS
    ],
)
def test_what_has_no_use_is_refused_naming_the_flag_and_what_to_do(
    folder: Path, capsys: Capture, compared: str, name: str
) -> None:
    base = BASES[compared]
    if name == "extra":
        flag, words = "--density", ["-O", "density=3"]
    else:
        words = typed(PARAMS[name])
        flag = words[0]
    if name == "images":
        np.savez("drawn.npz", emb=VECTORS, pixels=np.zeros((6, 2, 2)))
        base, words = ("drawn.npz", *VECTOR[3:]), ["--images", "pixels"]
    if name == "address":
        words += ["--engine", "ray"]
    line = refused(capsys, "select", *base, "--impute", "most_frequent", *words)
    assert flag in line or (name == "address" and "--engine" in line)
    assert "leave" in line
    assert sorted(path.name for path in folder.iterdir() if path.suffix in (".html", ".json")) == []


@pytest.mark.parametrize("name", sorted(USED))
def test_what_is_taken_changes_the_answer(folder: Path, capsys: Capture, name: str) -> None:
    base, more = USED[name]
    if more:
        assert kept(capsys, *base, *more) != kept(capsys, *base)
    else:
        answers = [
            kept(capsys, *call) for call in (TEXT, VECTOR, ("pool.csv", "--id", "id", "--columns", "full", *TEXT[5:]))
        ]
        answers.append(kept(capsys, *TEXT[:-1], "1"))
        assert len({str(answer) for answer in answers}) == 4, answers


@pytest.mark.parametrize(
    ("base", "more"),
    [
        (TEXT, ("--metric", "cosine")),
        ((*AGE, "--impute", "median"), ("--metric", "cosine")),
        (TEXT, ("--categories", "age")),
        (VECTOR, ("--categories", "age")),
        (TEXT, ("--embedder", "tfidf")),
        (TEXT, ("--no-cache",)),
        (TEXT, ("--label", "full")),
        (TEXT, ("--time-limit", "5")),
    ],
)
def test_what_one_way_of_comparing_has_no_use_for_is_refused(
    folder: Path, capsys: Capture, base: tuple[str, ...], more: tuple[str, ...]
) -> None:
    line = refused(capsys, "select", *base, *more)
    assert more[0] in line
    assert "leave" in line


def test_in_python_words_and_options_without_a_use_are_refused() -> None:
    pool = {"text": TEXTS}
    given: dict[str, Any] = {"classes": 3, "metric": "cosine", "embedder": "tfidf", "groups": list("aabbcc")}
    given |= {"weights": [1] * 6, "time_limit": 5, "max_memory": "1GB", "capacity": 3, "per_item": 2}
    for word, value in given.items():
        with pytest.raises(InputError, match=rf"{word}\b.*leave it out"):
            kofn.select(pool, text="text", dedupe=0.9, **{word: value})
    with pytest.raises(InputError, match="select has no argument 'density'"):
        kofn.select(pool, text="text", dedupe=0.9, density=0.3)


def test_rows_that_repeat_an_owned_row_are_dropped(folder: Path, capsys: Capture) -> None:
    code, text, err = run(capsys, "select", *TEXT, "--private", "old.csv", "-o", "k.csv", "--dropped", "d.csv")
    assert code == 0, err
    assert "dropped 3 near-duplicates at text similarity >= 0.9, 1 of them of rows of --private old.csv, 3 rows" in text
    assert pl.read_csv("k.csv")["id"].to_list() == ["a", "d", "f"]
    dropped = pl.read_csv("d.csv")
    assert dropped.columns == ["id", "kept", "similarity", "private"]
    assert dropped.select("id", "kept", "private").rows() == [("b", "a", False), ("c", "o1", True), ("e", "d", False)]
    # What must stay, stays.
    assert kept(capsys, *TEXT, "--private", "old.csv", "--include", "c") == ["a", "c", "d", "f"]
    for private in ("missing.csv", "no/such", "missing.txt"):
        assert "no such file" in refused(capsys, "select", *TEXT, "--private", private)
    pl.DataFrame({"body": ["x"]}).write_csv("other.csv")
    assert "no column 'text'" in refused(capsys, "select", *TEXT, "--private", "other.csv")


@pytest.mark.parametrize("seed", range(20))
def test_owned_rows_count_as_rows_that_stand_before_the_pool(seed: int, folder: Path, capsys: Capture) -> None:
    rng = np.random.default_rng(seed)
    words = ["red car", "green bus", "blue train", "a red car", "the red cars", "green  bus"]
    old, new = (list(rng.choice(words, size)) for size in (4, 9))
    plans = {"text": kofn.select({"t": new}, text="t", dedupe=0.8, private=old)}
    whole = {"text": kofn.select({"t": [*dict.fromkeys(old), *new]}, text="t", dedupe=0.8, include=_first(old))}
    X, Y = rng.integers(0, 3, (5, 2)).astype(float), rng.integers(0, 3, (12, 2)).astype(float)
    np.save("old.npy", X)
    np.save("new.npy", Y)
    both = np.vstack([X, Y])
    np.save("both.npy", both)
    call = ("--dedupe", "0.95", "--metric", "cosine")
    got = kept(capsys, "new.npy", *call, "--private", "old.npy")
    near = kofn.selection.near_duplicates(both, 0.95, include=np.arange(5))
    assert got == np.flatnonzero(near.keep[5:]).tolist()
    count = len(dict.fromkeys(old))
    assert plans["text"].indices.tolist() == [row - count for row in whole["text"].indices.tolist() if row >= count]
    # Whole rows of a table: those that stand in neither the old one nor earlier in the new one.
    frames = [pl.DataFrame(rng.integers(0, 3, (size, 2)), schema=["a", "b"]) for size in (3, 12)]
    plan = kofn.select(frames[1], columns=["a", "b"], dedupe=0.9, private=frames[0])
    seen, expected = set(frames[0].rows()), []
    for row, values in enumerate(frames[1].rows()):
        if values not in seen:
            expected.append(row)
        seen.add(values)
    assert plan.indices.tolist() == expected
    theirs = plan.info["duplicates"]["owned"]
    of = plan.info["duplicates"]["of"]
    for row, is_owned, number in zip(plan.info["duplicates"]["rows"], theirs, of, strict=True):
        assert frames[0 if is_owned else 1].row(int(number)) == frames[1].row(int(row))


def _first(values: list[str]) -> list[int]:
    return list(range(len(dict.fromkeys(values))))


def test_owned_rows_of_other_kinds_are_refused(folder: Path, capsys: Capture) -> None:
    np.save("three.npy", np.eye(3))
    np.save("two.npy", VECTORS)
    assert "vectors of 3 numbers, the rows of 2" in refused(
        capsys, "select", "two.npy", "--dedupe", "0.9", "--private", "three.npy"
    )
    pl.DataFrame({"age": ["x", "y"]}).write_csv("named.csv")
    line = refused(capsys, "select", *AGE, "--impute", "median", "--private", "named.csv")
    assert "column 'age' holds names in --private named.csv and numbers in the rows" in line
    with pytest.raises(InputError, match=r"private=.*give a file, a table or texts"):
        kofn.select({"t": TEXTS}, text="t", dedupe=0.9, private=VECTORS)
    with pytest.raises(InputError, match="no such file"):
        kofn.select({"t": TEXTS}, text="t", dedupe=0.9, private="/no/such")


GAPS = {
    "id": list("abcdefg"),
    "text": ["cat", None, "dog", "-", None, "cat", "dog"],
    "age": [1, 2, None, 2, 1, None, 2],
    "emb": [[1.0, 0.0], None, [0.0, 1.0], [1.0, 0.0], None, [0.0, 1.0], [1.0, 0.1]],
}


@pytest.mark.parametrize("by", ["--text text", "--text text --na -", "--columns age", "--vectors emb"])
@pytest.mark.parametrize("owned", [False, True])
def test_rows_that_miss_a_value_are_left_out_as_if_the_file_had_none(
    by: str, owned: bool, folder: Path, capsys: Capture
) -> None:
    flag, column, *more = by.split()
    suffix = "parquet" if column == "emb" else "csv"
    table = pl.DataFrame(GAPS) if column == "emb" else pl.DataFrame(GAPS).drop("emb")
    present = pl.col(column).is_not_null()
    if more:
        present &= pl.col(column) != "-"
    old = table.filter(pl.col("id").is_in(["b", "c", "e"]))
    for name, rows in (("gaps", table), ("whole", table.filter(present)), ("old", old)):
        getattr(rows, f"write_{suffix}")(f"{name}.{suffix}")
    words = ("--id", "id", flag, column, *more, "--dedupe", "0.9", "--drop-empty")
    words += ("--private", f"old.{suffix}") if owned and old[column].null_count() < 3 else ()
    whole = kept(capsys, f"whole.{suffix}", *words)
    assert kept(capsys, f"gaps.{suffix}", *words) == whole
    assert owned or whole


def test_empty_texts_that_are_taken_as_one_are_told(folder: Path, capsys: Capture) -> None:
    pl.DataFrame(GAPS).drop("emb").write_csv("gaps.csv")
    words = ("select", "gaps.csv", "--id", "id", "--text", "text", "--dedupe", "0.9", "-o", "out.csv")
    assert "2 texts are empty and count as near-duplicates of one another; --drop-empty" in run(capsys, *words)[1]
    assert "texts are empty" not in run(capsys, *words, "--drop-empty")[1]


def test_the_report_is_of_what_was_dropped(folder: Path, capsys: Capture) -> None:
    for call, dropped in ((TEXT, 2), (VECTOR, 1)):
        assert run(capsys, "select", *call, "--report", "r.html")[0] == 0
        page = Path("r.html").read_text()
        assert f"{6 - dropped} of 6 items stay" in page
        assert ("1 near-duplicate was dropped" if dropped == 1 else f"{dropped} near-duplicates were dropped") in page
        assert page.index("Near-duplicates</h2>") < page.index("The rows that stay</h2>")
        assert "In the order of the file.<" in page
        for wrong in ("were picked", "no promise", "its gain", "before anything", "of the pool<", "picked</"):
            assert wrong not in page, wrong
    assert run(capsys, "select", *TEXT, "-k", 2, "--report", "r.html")[0] == 0
    page = Path("r.html").read_text()
    assert page.index("The picks</h2>") < page.index("Near-duplicates</h2>")
    assert "dropped before anything was picked" in page


def test_the_highest_threshold_is_not_to_be_raised(folder: Path, capsys: Capture) -> None:
    pl.DataFrame({"t": ["a b", "a b", "c d", "e f"]}).write_csv("same.csv")
    said = refused(capsys, "select", "same.csv", "--text", "t", "--dedupe", "1", "-k", 4)
    assert "ask for k <= 3 or leave --dedupe out" in said
    assert "or raise --dedupe" in refused(capsys, "select", "same.csv", "--text", "t", "--dedupe", "0.9", "-k", 4)
