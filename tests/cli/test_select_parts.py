"""Texts and near-duplicates of a pool in parts: what the command does for a small file, it does for many files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused, run
from polars.testing import assert_frame_equal

import kofn
from kofn.io import pool_texts
from kofn.io.opening import open_table
from kofn.io.tables import Table

ROWS, WIDTH = 1200, 8
Capture = pytest.CaptureFixture[str]
WORDS = [f"{a}{b}" for a in ("red", "blue", "car", "bus", "sun", "sea", "ice", "oak") for b in ("", "s", "ly", "er")]


def pool() -> pl.DataFrame:
    """Rows in groups that are near-duplicates of one another, over several files."""
    rng = np.random.default_rng(0)
    group = rng.integers(0, 420, ROWS)
    X = rng.normal(size=(420, WIDTH))[group] + rng.normal(scale=0.06, size=(ROWS, WIDTH))
    X[900:910] = X[0]
    return pl.DataFrame(
        {
            "key": [f"r{i}" for i in range(ROWS)],
            "lang": rng.choice(["de", "en"], ROWS, p=[0.02, 0.98]),
            "score": rng.integers(0, 5, ROWS),
            "body": [" ".join(rng.choice(WORDS[4 * (g % 6) : 4 * (g % 6) + 10], 5)) for g in group.tolist()],
            "x": X.astype(np.float32),
        }
    )


def write(suffix: str, frame: pl.DataFrame | None = None) -> str:
    frame = pool() if frame is None else frame
    for part in range(4):
        own = frame[part * ROWS // 4 : (part + 1) * ROWS // 4]
        name = f"part-{part}{suffix}"
        if suffix == ".parquet":
            own.write_parquet(name, row_group_size=150)
        elif suffix == ".csv":
            own.drop("x").write_csv(name)
        else:
            own.drop("x").write_ndjson(name)
    return f"part-*{suffix}"


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_texts_in_parts_with_quotas_ids_and_a_report(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.setattr(pool_texts, "_BLOCK", 300)
    monkeypatch.setattr("kofn.cli.select_large._SAMPLE_ROWS", 200)
    longest = 0
    blocks = Table.text_blocks

    def watched(self: Table, name: str, rows: int) -> Any:
        nonlocal longest
        for block in blocks(self, name, rows):
            longest = max(longest, rows)
            yield block

    monkeypatch.setattr(Table, "text_blocks", watched)
    monkeypatch.setattr(Table, "texts", lambda *_: pytest.fail("all texts are read at once"))
    asked = ["--text", "body", "-k", 9, "--id", "key", "--quota", "lang=de:3-", "--include", "r7", "--exclude", "r8"]
    asked += ["--part-rows", 400, "--seed", 1, "-o", f"picks{suffix}", "--report", "r.html", "--plan", "p.npz"]
    code, out, err = run(capsys, "select", write(suffix), *asked)
    assert code == 0, err
    picks = open_table(f"picks{suffix}").take(np.arange(9))
    assert picks["rank"].to_list() == list(range(1, 10))
    assert "r7" in picks["key"].to_list()
    assert "r8" not in picks["key"].to_list()
    assert (picks["lang"] == "de").sum() >= 3
    assert "TF-IDF of column 'body', learnt on all its texts: 4 files, 1,200 x " in out
    assert "quota de: 3 picked, 3- asked" in out
    page = Path("r.html").read_text()
    for text in picks["body"].to_list():
        assert text in page
    assert kofn.Selection.load("p.npz").n == ROWS
    assert longest <= 16_384


def test_texts_in_parts_are_nearly_what_all_at_once_give(folder: Path, capsys: Capture) -> None:
    source = write(".csv")
    frame = pool()
    X = kofn.io.text_vectors(frame["body"])
    distance = {}
    for name, more in (("parts", ("--part-rows", 500)), ("whole", ("-m", "lazy_greedy"))):
        code, _, err = run(capsys, "select", source, "--text", "body", "-k", 20, "--seed", 1, *more, "--plan", "p.npz")
        assert code == 0, err
        picks = kofn.Selection.load("p.npz").indices
        distance[name] = (1 - X @ X[picks].T).min(axis=1).sum()
    random = np.mean([(1 - X @ X[r].T).min(axis=1).sum() for r in np.random.default_rng(0).integers(0, ROWS, (9, 20))])
    assert distance["parts"] - distance["whole"] < 0.15 * (random - distance["whole"])


def test_texts_without_a_word_are_not_picked_and_work_goes_on(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame = pool().with_columns(
        body=pl.when(pl.col("key").is_in(["r3", "r900"])).then(pl.lit("")).otherwise(pl.col("body"))
    )
    source = write(".csv", frame)
    asked = ["--text", "body", "-k", 5, "--id", "key", "--seed", 1, "--part-rows", 400, "--work", "w"]
    code, out, err = run(capsys, "select", source, *asked, "--json")
    assert code == 0, err
    code, text, _ = run(capsys, "select", source, *asked)
    assert "2 texts have no word (first: r3); such rows are not picked while others are left" in text
    assert len(list(Path("w").glob("texts-*.npy"))) == 1
    assert json.loads(out)["picks"]
    # A folder for a run on other texts is refused, and what it has is kept.
    (folder / "part-3.csv").write_text((folder / "part-3.csv").read_text().replace("red", "green"))
    assert "work=w was begun with rows=" in refused(capsys, "select", source, *asked)


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_near_duplicates_in_parts_are_those_of_all_at_once(folder: Path, capsys: Capture, metric: str) -> None:
    source = write(".parquet")
    asked = ["--dedupe", 0.9, "--metric", metric, "--id", "key", "--score", "score", "--include", "r9,r905"]
    for name, more in (("whole", ()), ("parts", ("--work", "w"))):
        outputs = ["-o", f"{name}.parquet", "--dropped", f"{name}.csv"]
        code, out, err = run(capsys, "select", source, "--vectors", "x", *asked, *outputs, *more)
        assert code == 0, err
    assert "read in parts" in out
    assert "no pair was missed" in out
    whole, parts = pl.read_parquet("whole.parquet"), pl.read_parquet("parts.parquet")
    assert 300 < len(whole) < 900
    assert parts.equals(whole)
    assert_frame_equal(pl.read_csv("parts.csv"), pl.read_csv("whole.csv"), rel_tol=1e-12)
    assert not list(Path("w").iterdir()), "the temporary file is gone"


def test_of_what_is_left_rows_are_picked_within_quotas(folder: Path, capsys: Capture) -> None:
    source = write(".parquet")
    asked = ["--vectors", "x", "--dedupe", 0.9, "--id", "key", "-k", 15, "--quota", "lang=de:8-", "--seed", 1]
    code, out, err = run(
        capsys, "select", source, *asked, "--part-rows", 300, "-o", "picks.parquet", "--dropped", "d.csv",
        "--report", "r.html",
    )  # fmt: skip
    assert code == 0, err
    picks, dropped = pl.read_parquet("picks.parquet"), pl.read_csv("d.csv")
    assert (picks["lang"] == "de").sum() >= 8
    assert not set(picks["key"]) & set(dropped["key"])
    assert "two_round_greedy" in out
    code, _, err = run(capsys, "select", source, *asked, "--dropped", "w.csv")
    assert code == 0, err
    assert_frame_equal(dropped, pl.read_csv("w.csv"), rel_tol=1e-12)
    assert f"{len(dropped):,} near-duplicates" in out


def test_near_duplicates_of_a_pool_that_does_not_fit_are_found_in_parts_unasked(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kofn.cli.select_large._ROOM", 1 << 16)
    source = write(".parquet")
    code, out, err = run(capsys, "select", source, "--dedupe", 0.9, "-o", "kept.jsonl")
    assert code == 0, err
    assert "4 files, 1,200 x 8 (3.84e-05 GB), read in parts" in out
    lines = [json.loads(line) for line in Path("kept.jsonl").read_text().splitlines()]
    assert f"{len(lines):,} rows left" in out
    monkeypatch.setattr("kofn.io.beginnings.SMALL", 1000)
    monkeypatch.setattr("kofn.cli.estimate.SMALL", 1000)
    code, out, err = run(capsys, "select", source, "--dedupe", 0.9, "--dry-run")
    assert code == 0, err
    told = dict(line.split(None, 1) for line in out.strip().splitlines())
    assert told["method"] == "near_duplicates_by_cells"
    assert told["rows"] == "1,200 x 8"
    assert "max_memory=1KB: near-duplicates of 1,200 rows" in refused(
        capsys, "select", source, "--dedupe", 0.9, "--max-memory", "1KB"
    )


def test_parts_with_unlike_schemas_and_ids_that_stand_in_two_are_named(folder: Path, capsys: Capture) -> None:
    source = write(".parquet")
    frame = pl.read_parquet("part-2.parquet")
    asked = ["--text", "body", "-k", 5, "--part-rows", 300]
    frame.rename({"body": "text"}).write_parquet("part-2.parquet")
    assert "part-2.parquet has no column 'body', which part-0.parquet has" in refused(capsys, "select", source, *asked)
    frame.with_columns(body=pl.lit(3)).write_parquet("part-2.parquet")
    assert "column 'body' holds Int32 in part-2.parquet and String in part-0.parquet" in refused(
        capsys, "select", source, *asked
    )
    frame.with_columns(key=pl.lit("r1")).head(1).write_parquet("part-2.parquet")
    for what in (["--text", "body"], ["--vectors", "x", "--dedupe", 0.9]):
        message = refused(capsys, "select", source, *what, "-k", 5, "--part-rows", 300, "--id", "key")
        assert "row 1 is row 1 of part-0.parquet, row 600 is row 0 of part-2.parquet" in message
    Path("part-2.parquet").write_bytes(Path("part-1.parquet").read_bytes()[:-900])
    assert "part-2.parquet" in refused(capsys, "select", source, *asked)
    Path("part-2.parquet").unlink()
    write(".csv")
    assert "name files of one kind" in refused(capsys, "select", source, "part-0.csv", *asked)


@pytest.mark.parametrize("asked", [["--text", "body"], ["--vectors", "x", "--dedupe", "0.9"]])
def test_a_part_that_vanishes_or_is_truncated_in_the_middle_is_named(
    folder: Path, capsys: Capture, monkeypatch: pytest.MonkeyPatch, asked: list[str]
) -> None:
    """Once the first rows are read, a later file is another one or none."""
    opened: list[Any] = []
    stamp = kofn.Pool.__init__

    def spoilt(self: Any, *args: Any, **words: Any) -> None:
        stamp(self, *args, **words)
        opened[0]()

    monkeypatch.setattr(kofn.Pool, "__init__", spoilt)
    for spoil, says in (
        (lambda: os.truncate("part-3.parquet", 500), "part-3.parquet has changed from "),
        (lambda: Path("part-3.parquet").unlink(), "part-3.parquet has vanished since the pool was opened"),
    ):
        source = write(".parquet")
        opened[:] = [spoil]
        code, out, err = run(capsys, "select", source, *asked, "-k", 5, "--part-rows", 300)
        assert code in (1, 2)
        assert out == ""
        # The vectors of texts are stored by then, and the files are read for their words.
        assert says in err or ("--text" in asked and "part-3.parquet cannot be read" in err)


def test_more_workers_than_rows_and_more_picks_than_a_part_has_are_no_fault(folder: Path, capsys: Capture) -> None:
    frame = pool().head(30)
    for part in range(3):
        frame[part * 10 : part * 10 + 10].write_parquet(f"part-{part}.parquet")
    for what in (["--text", "body"], ["--vectors", "x", "--dedupe", "0.999"]):
        asked = [*what, "-k", 12, "--part-rows", 4, "--seed", 1, "--json"]
        answers = []
        for threads in (1, 64):
            code, out, err = run(capsys, "select", "part-*.parquet", *asked, "--threads", threads)
            assert code == 0, err
            answers.append(json.loads(out)["picks"])
        assert len(answers[0]) == 12
        assert answers[0] == answers[1]
