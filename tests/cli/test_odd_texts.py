"""Pools of texts that are unlike English prose: each gets a sane answer, in sane memory."""

from __future__ import annotations

import inspect
import random
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import run

from kofn.io import text_vectors

WEATHER = ("東京", "天気", "晴れ", "気温", "台風", "予報", "大雨", "強風")
MONEY = ("市場", "銀行", "金利", "投資", "為替", "景気", "日銀", "輸出")


def selected(capsys: pytest.CaptureFixture[str], texts: list[str], *more: object, k: int = 5) -> tuple[list[str], str]:
    pl.DataFrame({"id": range(len(texts)), "t": texts}).write_parquet("pool.parquet")
    code, out, err = run(
        capsys, "select", "pool.parquet", "--text", "t", "-k", str(k), "-o", "o.parquet", *map(str, more)
    )
    assert code == 0, err
    return pl.read_parquet("o.parquet")["t"].to_list(), out


def test_japanese_is_compared_by_its_words(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    R = random.Random(0)
    texts = ["".join(R.sample(words, 5)) + "です。" for words in (WEATHER, MONEY) for _ in range(100)]
    S = text_vectors(texts)
    likeness = S @ S.T
    np.fill_diagonal(likeness, -2)
    assert (likeness.argmax(axis=1) // 100 == np.arange(200) // 100).mean() > 0.95
    picks, _ = selected(capsys, texts, k=2)
    assert {texts.index(pick) // 100 for pick in picks} == {0, 1}, "one of each subject"
    picks, _ = selected(capsys, texts, "--queries", "銀行の金利", k=8)
    assert all("銀行" in pick or "金利" in pick for pick in picks)


def test_code(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Functions of two modules: one of each is picked, and a name with an underscore is a word."""
    import json.decoder
    import textwrap

    sources = []
    for module in (json.decoder, textwrap):
        lines = inspect.getsource(module).splitlines()
        sources.append(["\n".join(lines[start : start + 12]) for start in range(0, len(lines) - 12, 6)])
    texts = sources[0] + sources[1]
    picks, _ = selected(capsys, texts, k=6)
    assert len({pick in sources[0] for pick in picks}) == 2
    picks, _ = selected(capsys, texts, "--queries", "subsequent_indent", k=3)
    assert all("subsequent_indent" in pick for pick in picks)


def test_texts_of_a_letter_or_two(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    R = random.Random(0)
    picks, out = selected(capsys, [R.choice(("a", "b", "ok", "no", "x")) for _ in range(500)])
    assert sorted(picks) == ["a", "b", "no", "ok", "x"], "one of each kind"
    assert "495 rows have the same vector as an earlier row" in out


def test_a_cell_of_five_megabytes(tmp_path: Path) -> None:
    """Also one that is a single word; all of it in 4 GB of address space."""
    R = random.Random(0)
    texts = [" ".join(f"w{R.randrange(2000)}" for _ in range(8)) for _ in range(100)]
    texts += [" ".join(f"w{R.randrange(50_000)}" for _ in range(750_000)), "x" * 5_000_000]
    pl.DataFrame({"t": texts}).write_parquet(tmp_path / "pool.parquet")
    code = "import sys; from kofn.cli import main; main(sys.argv[1:])"

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))

    done = subprocess.run(
        [sys.executable, "-c", code, "select", "pool.parquet", "--text", "t", "-k", "5", "-o", "o.parquet"],
        cwd=tmp_path,
        preexec_fn=limited,
        env={"OMP_NUM_THREADS": "1", "KOFN_CACHE": "off", "PATH": "", "POLARS_MAX_THREADS": "2"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert len(pl.read_parquet(tmp_path / "o.parquet")) == 5


def test_empty_cells_come_last(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["", " ", "a cat", "\n", "stocks fell", "!?", "a dog"] * 3
    picks, out = selected(capsys, texts, k=3)
    assert set(picks) == {"a cat", "a dog", "stocks fell"}
    assert "12 texts have no word (first: 0); such rows are not picked while others are left" in out


def test_texts_that_are_all_the_same(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for more in ((), ("--queries", "same text")):
        picks, _ = selected(capsys, ["the same text"] * 50, *more)
        assert picks == ["the same text"] * 5
    pl.DataFrame({"t": ["", "?!"]}).write_parquet("pool.parquet")
    code, _, err = run(capsys, "select", "pool.parquet", "--text", "t", "-k", "1")
    assert (code, "texts hold no word in any row; name another column" in err) == (2, True)
