"""What `kofn select` says of flags and files that it cannot use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import make_pool, refused, write

BAD_FLAGS: list[tuple[list[object], str]] = [
    (["-k", 0, "--columns", "age"], "at least 1"),
    (["-k", 61, "--columns", "age"], "only 60"),
    (["--columns", "age"], "k (how many)"),
    (["-k", 3, "--columns", "aeg"], "did you mean 'age'"),
    (["-k", 3, "--text", "bodi"], "did you mean 'body'"),
    (["-k", 3], "--text"),
    (["-k", 3, "--columns", "age", "--text", "body"], "one of"),
    (["-k", 3, "--columns", "age", "--budget", 10], "--cost"),
    (["--columns", "age", "--budget", 4, "--cost", "tokens"], "cheapest"),
    (["--columns", "age", "--budget", 4, "--cost", "lang"], "not a number"),
    (["-k", 3, "--columns", "age", "--quota", "lang=de:9-"], "k=3"),
    (["-k", 30, "--columns", "age", "--quota", "lang=de:40-"], "lower it by"),
    (["-k", 3, "--columns", "age", "--quota", "lang=xx:1-"], "no item has that group"),
    (["-k", 3, "--columns", "age", "--quota", "lang:de"], "COL=GROUP:A-B"),
    (["-k", 3, "--columns", "age", "--quota", "lang=de:5-2"], "swap"),
    (["-k", 3, "--columns", "age", "--quota", "lang=de:1-", "--quota", "key=r999:1-"], "no item has that group"),
    (["-k", 3, "--columns", "age", "--include", "nobody", "--id", "key"], "nobody"),
    (["-k", 3, "--columns", "age", "--include", "r001", "--exclude", "r001", "--id", "key"], "exclude"),
    (["-k", 3, "--columns", "age", "--id", "lang"], "must differ"),
    (["-k", 3, "--columns", "age", "--metric", "cosin"], "did you mean 'cosine'"),
    (["-k", 3, "--columns", "age", "--method", "lazy_gredy"], "did you mean 'lazy_greedy'"),
    (["-k", 3, "--columns", "age", "--method", "ccs"], "needs scores"),
    (["-k", 3, "--method", "top_k"], "needs scores of the rows: name their column with --score COLUMN (such as"),
    (["-k", 3, "--method", "rad", "--text", "body"], "--score COLUMN (such as"),
    (["-k", 3, "--columns", "age", "--objective", "facility"], "did you mean 'facility_location'"),
    (["-k", 3, "--columns", "age", "-o", "picks.xls"], "ends in"),
    (["-k", 3, "--columns", "age", "-o", "pool.csv"], "input itself"),
    (["-k", 3, "--columns", "age", "-o", "no/where.csv"], "no folder"),
    (["-k", 3, "--columns", "age", "--max-memory", "lots"], "600MB"),
    (["-k", 3, "--columns", "age", "--time-limit", -1], "positive"),
    (["-k", 3, "--columns", "age", "--threads", 0], "at least 1"),
    (["-k", 3, "--columns", "age", "--dedupe", 7], "between"),
    (["-k", 3, "--columns", "age", "--embedder", "m"], "text"),
    (["-k", 3, "--columns", "age", "--seed", -1], "seed"),
    (["-k", "three", "--columns", "age"], "three"),
    (["-k", 3, "--columns", "age", "--wat"], "--wat"),
]


@pytest.mark.parametrize(("flags", "says"), BAD_FLAGS, ids=[" ".join(map(str, flags)) for flags, _ in BAD_FLAGS])
def test_what_a_bad_flag_gets(folder: Path, capsys: pytest.CaptureFixture[str], flags: list[object], says: str) -> None:
    pool = write(make_pool(), folder / "pool.csv")
    before = pool.read_bytes()
    assert says in refused(capsys, "select", "pool.csv", *flags)
    assert pool.read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["pool.csv"]


def _csv(text: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "f.csv").write_text(text, encoding="latin-1")

    return spoil


def _array(kind: type = np.float64, shape: tuple[int, int] = (9, 3), **changed: float) -> Callable[[Path], None]:
    """An .npy file of ones, some entries changed: r1c3=9 sets row 1, column 3."""

    def spoil(folder: Path) -> None:
        X: Any = np.ones(shape, kind)
        for place, value in changed.items():
            row, column = place[1:].split("c")
            X[int(row), int(column)] = value
        np.save(folder / "f.npy", X)
        np.savez(folder / "f.npz", X=X)

    return spoil


def _truncated(folder: Path) -> None:
    data = write(make_pool(), folder / "whole.parquet").read_bytes()
    (folder / "f.parquet").write_bytes(data[: len(data) // 2])


def _ragged_lines(folder: Path) -> None:
    (folder / "f.jsonl").write_text('{"a": 1}\n{"a": 2}\n{"a": \n')


def _ragged_vectors(folder: Path) -> None:
    pl.DataFrame({"v": [[1.0, 2.0], [1.0]]}).write_parquet(folder / "f.parquet")


def _negative_cost(folder: Path) -> None:
    costs = pl.when(pl.col("key") == "r003").then(-5).otherwise(9)
    write(make_pool().with_columns(tokens=costs), folder / "f.csv")


# A file that cannot be used: what writes it, its name, the flags to read it with, and what must be said.
SPOILT: dict[str, tuple[Callable[[Path], None], str, list[object], str]] = {
    "empty": (_csv(""), "f.csv", ["--columns", "age"], "empty"),
    "no rows": (_csv("age,key\n"), "f.csv", ["--columns", "age"], "no rows"),
    "nan": (_array(r4c2=np.nan), "f.npy", [], "row 4, column 2 is NaN"),
    "infinite": (_array(np.float32, r7c0=np.inf), "f.npz", ["--vectors", "X"], "row 7, column 0 is infinite"),
    "not utf-8": (_csv("key,body\n1,caf\xe9\n"), "f.csv", ["--text", "body"], "UTF-8"),
    "truncated parquet": (_truncated, "f.parquet", ["--text", "body"], "f.parquet"),
    "ragged jsonl": (_ragged_lines, "f.jsonl", ["--columns", "a"], "line 3"),
    "ragged vectors": (_ragged_vectors, "f.parquet", ["--vectors", "v"], "row 1"),
    "not square": (_array(shape=(4, 3)), "f.npy", ["--metric", "precomputed"], "square"),
    "similarity not finite": (
        _array(shape=(2, 2), r0c1=np.inf),
        "f.npy",
        ["--metric", "precomputed"],
        "row 0, column 1 is infinite",
    ),
    "negative similarity": (
        _array(shape=(2, 2), r0c1=-2.0),
        "f.npy",
        ["--metric", "precomputed"],
        "row 0, column 1",
    ),
    "negative cost": (_negative_cost, "f.csv", ["--columns", "age", "--budget", 50, "--cost", "tokens"], "row 3 is -5"),
}


@pytest.mark.parametrize("name", SPOILT)
def test_what_a_bad_file_gets(folder: Path, capsys: pytest.CaptureFixture[str], name: str) -> None:
    spoil, file, flags, says = SPOILT[name]
    spoil(folder)
    count = [] if "--budget" in flags else ["-k", 1]
    assert says in refused(capsys, "select", file, *count, *flags)


@pytest.mark.parametrize("flag", ["--include", "--exclude", "--start"])
@pytest.mark.parametrize("ids", [(), ("--id", "key")])
@pytest.mark.parametrize("number", ["9" * 19, "-" + "9" * 30, "9" * 400])
def test_numbers_of_rows_that_there_cannot_be(
    flag: str, ids: tuple[str, ...], number: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("pool.csv").write_text("key,x\n" + "".join(f"{i},{i * i % 7}\n" for i in range(9)))
    assert flag in refused(capsys, "select", "pool.csv", "--columns", "x", "-k", 2, flag, f"1,{number}", *ids)
