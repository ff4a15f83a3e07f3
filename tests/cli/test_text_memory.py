"""Texts that take more than --max-memory to compare are refused before the work, with what they take and a remedy."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

import kofn
from kofn.io import text_memory, words

_VOCABULARY = [f"word{number}" for number in range(500)]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    drawn = np.random.default_rng(0).integers(0, 500, (3_000, 30))
    path = tmp_path / "texts.csv"
    pl.DataFrame({"t": [" ".join(_VOCABULARY[number] for number in row) for row in drawn]}).write_csv(path)
    return path


@pytest.mark.parametrize(
    "asked",
    [("assign", "--k", 5), ("assign", "--k", 5, "--dry-run")],
)
def test_texts_over_the_memory_are_refused(table: Path, capsys: pytest.CaptureFixture[str], asked: tuple) -> None:
    error = refused(capsys, asked[0], table, "--text", "t", *asked[1:], "--max-memory", "10MB")
    assert "column 't' has about 90,0" in error
    assert "over --max-memory 10MB; raise it, give fewer rows" in error


def test_a_flag_that_needs_all_texts_at_once_is_named(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("select", table, "--text", "t", "-k", 5, "--max-memory", "10MB", "--queries", "word3 word7")
    assert "--queries reads all rows at once" in refused(capsys, *asked)


def test_what_fits_is_compared(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "select", table, "--text", "t", "-k", 2, "--max-memory", "1GB")[0] == 0


def test_python_says_it_too(table: Path) -> None:
    with pytest.raises(kofn.InputError, match=re.escape("about 90,")):
        kofn.select(str(table), text="t", k=2, max_memory="10MB")


def test_a_beginning_stands_for_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = pl.Series(["one two three", "Zwei, drei!", ""] * 700)
    count, needed = text_memory.bytes_by_words(texts)
    assert count == 3500
    assert text_memory.bytes_by_words(texts, 10)[0] == 35_000
    monkeypatch.setattr(text_memory, "BIGRAM_WORDS", 10)
    assert text_memory.bytes_by_words(texts)[1] < needed
    assert words._split(texts)[2][-1] == count
