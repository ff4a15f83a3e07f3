"""Several files, globs and folders as one pool: the answer is that of one file with all rows."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import make_pool, refused, run, write

ROWS, CUTS = 60, (0, 13, 13, 40, 60)


def parts(folder: Path, suffix: str) -> tuple[Path, str]:
    """One file of all rows, and a glob of files with some each."""
    pool = make_pool(ROWS)
    for i, (start, stop) in enumerate(pairwise(CUTS)):
        if start < stop or suffix not in (".jsonl", ".ndjson"):
            write(pool[start:stop], folder / f"part-{i}{suffix}")
    return write(pool, folder / f"all{suffix}"), str(folder / f"part-*{suffix}")


CALLS = [
    ["--columns", "age,tokens,lang", "-k", 9],
    ["--columns", "age,tokens", "-k", 9, "--id", "key", "--quota", "lang=de:3-", "--quota", "lang=fr:-2"],
    ["--columns", "age", "--budget", 100, "--cost", "tokens", "--weight", "score"],
    ["--text", "body", "-k", 7, "--id", "key", "--include", "r059,r014", "--exclude", "r000"],
    ["--text", "body", "-k", 5, "--queries", "fast car"],
    ["--text", "body", "-k", 9, "--label", "lang", "-m", "typiclust", "--seed", 3],
    ["--text", "body", "--dedupe", "0.5"],
    ["--score", "score", "-k", 4],
    ["--columns", "age,score", "-m", "farthest_first", "-k", "10%"],
]


@pytest.mark.parametrize("asked", CALLS, ids=lambda asked: " ".join(map(str, asked))[:40])
@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_the_picks_are_those_of_one_file(
    folder: Path, capsys: pytest.CaptureFixture[str], suffix: str, asked: list[object]
) -> None:
    one, several = parts(folder, suffix)
    for source, name in ((one, "one"), (several, "several")):
        code, _, err = run(capsys, "select", source, *asked, "-o", f"{name}{suffix}")
        assert code == 0, err
    assert Path(f"one{suffix}").read_bytes() == Path(f"several{suffix}").read_bytes()


@pytest.mark.parametrize("method", ["lazy_greedy", "sampled_greedy", "two_round_greedy", "farthest_first"])
def test_vectors_in_files_given_one_by_one(folder: Path, capsys: pytest.CaptureFixture[str], method: str) -> None:
    one, _ = parts(folder, ".parquet")
    X = np.array(make_pool(ROWS)["emb"].to_list(), np.float32)
    np.save("all.npy", X)
    for i, (start, stop) in enumerate(pairwise(CUTS)):
        np.save(f"part-{i}.npy", X[start:stop])
    asked = ["-k", 9, "-m", method, "--seed", 1]
    answers = []
    for source in ([one], sorted(folder.glob("part-*.parquet")), ["all.npy"], sorted(folder.glob("part-*.npy"))):
        code, out, err = run(capsys, "select", *source, *asked, "--json")
        assert code == 0, err
        answers.append(pl.read_json(out.encode())["picks"].to_list())
    assert answers[0] == answers[1] == answers[2] == answers[3]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_quotas_on_what_folders_are_called(folder: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    pool = make_pool(ROWS)
    for lang in ("de", "en", "fr"):
        (folder / "hive" / f"lang={lang}").mkdir(parents=True)
        rows = pool.filter(pl.col("lang") == lang).drop("lang")
        write(rows, folder / "hive" / f"lang={lang}" / f"x{suffix}")
    asked = ["--columns", "age,tokens", "-k", 10, "--quota", "lang=fr:6-6", "-o", f"picks{suffix}"]
    code, _, err = run(capsys, "select", folder / "hive", *asked)
    assert code == 0, err
    picks = pl.read_csv("picks.csv") if suffix == ".csv" else pl.read_parquet("picks.parquet")
    assert (picks["lang"] == "fr").sum() == 6


def test_groups_of_several_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    one, several = parts(folder, ".csv")
    for source, name in ((one, "one"), (several, "several")):
        code, _, err = run(
            capsys, "assign", source, "--columns", "age,tokens", "--k", 4, "--seed", 1, "-o", f"{name}.csv"
        )
        assert code == 0, err
    assert Path("one.csv").read_bytes() == Path("several.csv").read_bytes()


def test_scores_of_several_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scores = np.random.default_rng(0).normal(size=(30, 4))
    np.save("all.npy", scores)
    np.save("part-0.npy", scores[:7])
    np.save("part-1.npy", scores[7:])
    for source, name in (("all.npy", "one"), ("part-*.npy", "several")):
        code, _, err = run(capsys, "assign", source, "--scores", "--capacity", 9, "-o", f"{name}.csv")
        assert code == 0, err
    assert Path("one.csv").read_bytes() == Path("several.csv").read_bytes()


def test_what_is_wrong_in_one_of_the_files_is_found_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pool = make_pool(ROWS)
    write(pool[:30], folder / "a.csv")
    write(pool[30:].with_columns(age=pl.when(pl.col("key") == "r033").then(None).otherwise("age")), folder / "b.csv")
    assert "row 33 is empty" in (line := refused(capsys, "select", "a.csv", "b.csv", "--columns", "age", "-k", 2))
    assert "(row 33 is row 3 of b.csv)" in line
    write(pool[20:], folder / "b.csv")
    line = refused(capsys, "select", "a.csv", "b.csv", "--columns", "age", "-k", 2, "--id", "key")
    assert "'r020' stands at row 20 and at row 30 (row 20 is row 20 of a.csv, row 30 is row 0 of b.csv)" in line
    assert "ask for k <= 70" in refused(capsys, "select", "a.csv", "b.csv", "--columns", "age", "-k", 71)
    assert "b.csv has a column 'more'" in refused(
        capsys, "select", "a.csv", more(folder / "b.csv"), "--columns", "age", "-k", 2
    )
    assert "-o b.csv is the input itself" in refused(
        capsys, "select", "a.csv", "b.csv", "--columns", "age", "-k", 2, "-o", "b.csv"
    )


def more(path: Path) -> Path:
    pl.read_csv(path).with_columns(more=pl.lit(1)).write_csv(path)
    return path


def test_an_output_among_the_files_of_a_glob_is_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, several = parts(folder, ".csv")
    line = refused(capsys, "select", several, "--columns", "age", "-k", 2, "-o", "part-2.csv")
    assert "part-2.csv is the input itself" in line


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl"])
def test_beforehand_rows_of_all_files_count(folder: Path, capsys: pytest.CaptureFixture[str], suffix: str) -> None:
    for i in range(3):
        write(make_pool(6000, seed=i), folder / f"big-{i}{suffix}")
    code, out, err = run(capsys, "select", f"big-*{suffix}", "--columns", "age,tokens", "-k", 20, "--dry-run")
    assert code == 0, err
    (line,) = [line for line in out.splitlines() if line.startswith("rows")]
    rows = int(line.removeprefix("rows").replace("about", "").split()[0].replace(",", ""))
    assert ("about" in line) == (suffix != ".parquet")
    assert rows == 18000 if suffix == ".parquet" else abs(rows - 18000) < 900
