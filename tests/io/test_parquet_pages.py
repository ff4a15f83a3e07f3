"""Vectors by pages: the rows that a whole row group gives, whatever the codec and the size of pages, and few bytes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import kofn
from kofn.core.checks import InputError
from kofn.io.opening import open_table
from kofn.io.parquet import Parquet
from kofn.io.parquet_pages import PagedColumn

ROWS, WIDTH = 600, 8
_RNG = np.random.default_rng(1)
X = _RNG.normal(size=(ROWS, WIDTH)).astype(np.float32)


@pytest.fixture(autouse=True)
def _small_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kofn.io.parquet._RUN_ROWS", 90)
    monkeypatch.setattr("kofn.io.decoded_rows._RUN_ROWS", 90)


@pytest.fixture
def excerpts(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many bytes each excerpt has; whole row groups are never read."""
    sizes: list[int] = []
    excerpt = PagedColumn.excerpt

    def counted(self: PagedColumn, group: int, start: int, stop: int) -> Any:
        made = excerpt(self, group, start, stop)
        if made is not None:
            sizes.append(len(made[0]))
        return made

    monkeypatch.setattr(PagedColumn, "excerpt", counted)
    return sizes


def frame(rows: Any = X, kind: Any = None) -> pl.DataFrame:
    vectors = pl.Series("x", rows)
    return pl.DataFrame({"id": np.arange(len(rows)), "x": vectors if kind is None else vectors.cast(kind)})


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "lz4", "uncompressed"])
@pytest.mark.parametrize(
    "kind", [pl.List(pl.Float32), pl.List(pl.Float64), pl.Array(pl.Float32, WIDTH), pl.List(pl.Int16)]
)
def test_every_run_of_rows_is_that_of_the_whole_group(
    tmp_path: Path, compression: Any, kind: Any, excerpts: list[int]
) -> None:
    rows = np.round(X * 100) if kind == pl.List(pl.Int16) else X
    path = tmp_path / "a.parquet"
    frame(rows, kind).write_parquet(path, compression=compression, data_page_size=800, row_group_size=350)
    pool = kofn.Pool.open(path, vectors="x")
    for part_rows in (1, 77, 120, 349, 600):
        assert np.array_equal(np.concatenate([pool.read(part) for part in pool.fragments(part_rows)]), rows)
    assert excerpts
    assert max(excerpts) < path.stat().st_size / 3
    wanted = [599, 3, 350, 349, 3]
    assert np.array_equal(pool.take(wanted), rows[wanted])


def test_rows_that_are_taken_come_by_their_pages_and_keep_their_type(tmp_path: Path, excerpts: list[int]) -> None:
    wanted = np.array([599, 3, 350, 349, 3])
    for name, kind in (("a", pl.List(pl.Float32)), ("b", pl.Array(pl.Float32, WIDTH))):
        path = tmp_path / f"{name}.parquet"
        frame(kind=kind).write_parquet(path, data_page_size=800, row_group_size=350)
        pool = kofn.Pool.open([path], vectors="x")
        excerpts.clear()
        taken = pool.rows(wanted)
        assert taken.equals(frame(kind=kind)[wanted])
        assert len(excerpts) == 4
        # What nobody compares by is read as it stands; only fixed lengths are known without a look at all rows.
        excerpts.clear()
        assert open_table(path).take(wanted).equals(taken)
        assert len(excerpts) == (4 if name == "b" else 0)


def test_files_of_several_types_and_folders_of_keys_are_read_by_pages(tmp_path: Path, excerpts: list[int]) -> None:
    for year, kind in ((2020, pl.List(pl.Float32)), (2021, pl.List(pl.Float64))):
        (tmp_path / f"year={year}").mkdir()
        frame(kind=kind).write_parquet(tmp_path / f"year={year}" / "a.parquet", data_page_size=800)
    pool = kofn.Pool.open(tmp_path, vectors="x")
    both = np.concatenate([X, X])
    assert np.array_equal(np.concatenate([pool.read(part) for part in pool.fragments(100)]), both)
    assert excerpts
    taken = pool.rows([700, 5])
    assert taken["year"].to_list() == [2021, 2020]
    assert np.array_equal(np.array(taken["x"].to_list(), np.float32), both[[700, 5]])


@pytest.mark.parametrize("row", [1, 299, 599])
@pytest.mark.parametrize(
    ("cell", "message"),
    [([1.0], "has 1 values"), (None, "is empty"), ([1.0] * 7 + [None], "is empty"), ([], "has 0 values")],
)
def test_vectors_that_are_unlike_or_missing_are_named_as_ever(
    tmp_path: Path, row: int, cell: Any, message: str
) -> None:
    cells: list[Any] = X.tolist()
    cells[row] = cell
    path = tmp_path / "a.parquet"
    pl.DataFrame({"x": pl.Series(cells, dtype=pl.List(pl.Float32))}).write_parquet(path, data_page_size=800)
    pool = kofn.Pool.open(path, vectors="x")
    with pytest.raises(InputError, match=f"row {row}.* {message}"):
        list(map(pool.read, pool.fragments(100)))


def test_lists_of_unlike_lengths_that_add_up_are_no_vectors(tmp_path: Path) -> None:
    """One row is short by as many values as the next is long: pages hold whole rows by their counts alone."""
    cells = X.tolist()
    cells[300], cells[301] = cells[300][:-1], [*cells[301], 1.0]
    path = tmp_path / "a.parquet"
    pl.DataFrame({"x": pl.Series(cells, dtype=pl.List(pl.Float32))}).write_parquet(path, data_page_size=800)
    pool = kofn.Pool.open(path, vectors="x")
    with pytest.raises(InputError, match="row 300"):
        pool.take([300])
    with pytest.raises(InputError, match=r"row 30\d"):
        list(map(pool.read, pool.fragments(100)))


def test_repeated_values_have_a_dictionary(tmp_path: Path, excerpts: list[int]) -> None:
    rows = np.round(X)
    path = tmp_path / "a.parquet"
    frame(rows).write_parquet(path, data_page_size=300)
    pool = kofn.Pool.open(path, vectors="x")
    assert np.array_equal(np.concatenate([pool.read(part) for part in pool.fragments(50)]), rows)


def test_pages_that_are_large_leave_the_group_whole(tmp_path: Path, excerpts: list[int]) -> None:
    path = tmp_path / "a.parquet"
    frame().write_parquet(path)
    pool = kofn.Pool.open(path, vectors="x")
    assert np.array_equal(np.concatenate([pool.read(part) for part in pool.fragments(50)]), X)
    assert not excerpts


def test_a_file_whose_layout_is_unknown_is_left_to_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any) -> Any:
        raise KeyError(2)

    path = tmp_path / "a.parquet"
    frame().write_parquet(path, data_page_size=800)
    monkeypatch.setattr(PagedColumn, "_pages_of", unknown)
    pool = kofn.Pool.open(path, vectors="x")
    assert isinstance(pool.table, Parquet)
    assert pool.table.rows_at_once("x", WIDTH) == [ROWS]
    assert np.array_equal(np.concatenate([pool.read(part) for part in pool.fragments(50)]), X)
