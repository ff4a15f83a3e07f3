"""Damaged Parquet files are read, or refused in one line: no traceback, and none of the reports that Rust prints."""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import attack
import numpy as np
import polars as pl
import pytest
import time_budget
from command_line import make_pool, refused, run

from kofn.core.checks import InputError, KofnError
from kofn.io.batches import row_batches
from kofn.io.opening import open_table
from kofn.io.panics import without_reports
from kofn.io.parquet_counts import StatedCounts
from kofn.io.parquet_footer import Metadata, footer, metadata, row_groups
from kofn.io.pool import Pool
from kofn.io.tables import Table


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The same rows in files of every compression."""
    path = tmp_path_factory.mktemp("sound") / "pool.parquet"
    days = pl.date_range(pl.date(2020, 1, 1), pl.date(2020, 10, 26), eager=True)
    frame = make_pool(300).with_columns(day=days, tags=pl.Series([["a", "b"]] * 300))
    files = []
    for compression in ("zstd", "snappy", "gzip", "lz4", "uncompressed"):
        frame.write_parquet(path, compression=compression, row_group_size=100)  # type: ignore[arg-type]
        files.append(path.read_bytes())
    return files


def _bytes_changed(data: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 3, 20))):
        data[rng.randrange(4, len(data) - 8)] = rng.randrange(256)


def _footer_changed(data: bytearray, rng: random.Random) -> None:
    begins = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    for _ in range(rng.choice((1, 2, 5))):
        data[rng.randrange(begins, len(data) - 4)] = rng.randrange(256)


def _piece_gone(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(4, len(data) - 40)
    del data[start : start + rng.randrange(1, 30)]


def _zeros(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(4, len(data) - 40)
    data[start : start + 32] = bytes(32)


def _pieces_swapped(data: bytearray, rng: random.Random) -> None:
    start = rng.randrange(4, len(data) - 100)
    data[start : start + 80] = data[start + 40 : start + 80] + data[start : start + 40]


DAMAGE: list[Callable[[bytearray, random.Random], None]] = [
    _bytes_changed,
    _footer_changed,
    _piece_gone,
    _zeros,
    _pieces_swapped,
]


def _read_all(path: Path) -> None:
    table = open_table(path)
    for name in table.columns:
        table.column(name)
        table.dtype(name)
    table.take([0, table.n - 1])
    if "emb" in table.columns:
        table.vectors("emb")
        for _ in row_batches(path, vectors="emb", rows=50):
            pass


def _is_refused(path: Path) -> bool:
    said = ""
    try:
        _read_all(path)
    except KofnError as error:
        said = str(error)
    assert "\n" not in said
    assert not said or str(path) in said
    return bool(said)


@pytest.mark.parametrize("turn", range(attack.scaled(100, 4)))
def test_one_line(turn: int, sound: list[bytes], tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    rng = random.Random(f"{time_budget.DEEP_SEED or time_budget.DAY} {turn}")
    path = tmp_path / "damaged.parquet"
    broken = 0
    for _ in range(20):
        data = bytearray(rng.choice(sound))
        rng.choice(DAMAGE)(data, rng)
        path.write_bytes(data)
        with attack.counted("damaged files"):
            broken += _is_refused(path)
            printed = capfd.readouterr().err
            assert printed == "", f"{printed[:300]} ... {len(printed)} characters"
    assert broken


def test_no_false_count_ends_the_process(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """A count below zero in the header of a page makes polars reserve 2^61 bytes."""
    path = tmp_path / "damaged.parquet"
    pl.DataFrame({"x": np.arange(40.0), "g": ["a", None] * 20}).write_parquet(path, compression="gzip")
    sound = path.read_bytes()
    assert not _is_refused(path)
    counts = []
    for place in range(4 + time_budget.DAY % 2, len(sound) - 4, 1 if time_budget.DEEP else 2):
        for mask in (0x01, 0x80) if time_budget.DEEP else (0x01,):
            data = bytearray(sound)
            data[place] ^= mask
            path.write_bytes(data)
            try:
                StatedCounts(path).refuse_false_pages()
            except InputError as error:
                counts.append(str(error))
            with attack.counted("damaged files"):
                _is_refused(path)
                assert capfd.readouterr().err == ""
    assert any("states a count of -" in said for said in counts)


def test_counts_are_held_against_each_other(tmp_path: Path) -> None:
    path = tmp_path / "pool.parquet"
    frame = make_pool(300).with_columns(nothing=pl.lit(None), day=pl.date(2024, 1, 1), nested=pl.struct("age", "key"))
    for options in itertools.product(
        ("zstd", "uncompressed"), (None, 16), (True, False, "full"), (None, 200)
    ):  # every one of them is sound
        names = ("compression", "row_group_size", "statistics", "data_page_size")
        frame.write_parquet(path, **dict(zip(names, options, strict=True)))
        StatedCounts(path).refuse_false_pages()
    sound = path.read_bytes()
    begins = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    path.write_bytes(sound[:-8] + (10**6).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(InputError, match=r"pool.parquet is damaged: its footer states a length of 1,000,000 bytes"):
        open_table(path)
    # Number 3 of the footer's fields, after a version and the schema, is the count of rows: 300 as a zigzag of 600.
    rows = sound.index(b"\x16\xd8\x04", begins)
    path.write_bytes(sound[:rows] + b"\x16\xda\x04" + sound[rows + 3 :])
    with pytest.raises(InputError, match="it states 301 rows, and 300 in its parts"):
        open_table(path)


def _false_page(path: Path, column: str, group: int = -1) -> None:
    """Give the first page of a column in a row group a size below zero, by which polars reserves 2^61 bytes."""
    data = bytearray(path.read_bytes())
    for chunk in metadata(path).fields[4][group][1]:
        if chunk[3][3][0].decode() == column:
            start = chunk[3].get(11) or chunk[3][9]
            assert data[start + 2] == 0x15  # a number, of which the last bit is the sign
            data[start + 3] ^= 1
    path.write_bytes(data)


def test_the_counts_of_a_large_footer_are_checked(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "wide.parquet"
    pl.DataFrame({f"gene{i}": [0.5] for i in range(7_000)}).write_parquet(path)
    assert len(footer(path)) > 1 << 20
    sound = path.read_bytes()
    assert open_table(path).column("gene6999").to_list() == [0.5]
    _false_page(path, "gene6999")
    line = refused(capfd, "select", path, "--columns", "gene6999", "-k", "1")
    assert "wide.parquet is damaged: a page at byte" in line
    begins = len(sound) - 8 - len(footer(path))
    rows = sound.rindex(b"\x16\x02\x19", begins, begins + sound[begins:].index(b"gene6999") + 100)
    path.write_bytes(sound[: rows + 1] + b"\x04" + sound[rows + 2 :])
    assert "it states 2 rows, and 1 in its parts" in refused(capfd, "select", path, "--columns", "gene1", "-k", "1")


READS: list[Callable[[Table], object]] = [
    lambda table: table.column("vec"),
    lambda table: table.vectors("vec"),
    lambda table: list(table.blocks("vec", 2)),
    lambda table: table.take([5]),
    lambda table: list(row_batches(table.path, vectors="vec", rows=2)),
    lambda table: [pool.read(part) for pool in [Pool.open(table.path, vectors="vec")] for part in pool.fragments(2)],
]


@pytest.mark.parametrize("read", READS)
def test_pages_that_opening_does_not_reach_are_checked_before_they_are_read(
    read: Callable[[Table], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "pool.parquet"
    frame = pl.DataFrame({"id": range(6), "vec": [[0.5, 1.0]] * 6})
    frame.write_parquet(path, row_group_size=2)
    _false_page(path, "vec")
    with pytest.raises(InputError, match="a page at byte"):
        open_table(path)
    monkeypatch.setattr("kofn.io.parquet_counts._PAGES_AT_ONCE", 1)
    table = open_table(path)
    assert table.column("id").to_list() == list(range(6))
    with pytest.raises(InputError, match=r"pool.parquet is damaged: a page at byte [\d,]+ states a count of -"):
        read(table)


def test_the_beginning_of_a_file_of_false_counts_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kofn.io.beginnings.SMALL", 0)
    path = tmp_path / "pool.parquet"
    pl.DataFrame({"x": np.arange(6_000.0)}).write_parquet(path)
    assert "rows    6,000 x 1" in _dry_run(capfd, path)
    _false_page(path, "x", 0)
    assert "is damaged: a page at byte" in refused(capfd, "select", path, "--columns", "x", "-k", "2", "--dry-run")


def _dry_run(capfd: pytest.CaptureFixture[str], path: Path) -> str:
    code, out, err = run(capfd, "select", path, "--columns", "x", "-k", "2", "--dry-run")
    assert code == 0, err
    return out


def _of_pages(path: Path, pages: bytes) -> StatedCounts:
    """The counts of a file of one column, of ten values in these pages."""
    path.write_bytes(b"PAR1" + pages + bytes(4) + b"PAR1")
    column = {3: {3: [b"x"], 5: 10, 6: 0, 7: 0, 9: 4}}
    return StatedCounts(path, Metadata({3: 10, 4: [{1: [column], 3: 10}]}, []))


def _page(values: int, statistics: int = 0) -> bytes:
    """The header of a page of no bytes: of so many values below 64, its largest value a text of so many bytes."""
    text = bytes([0x18, statistics & 127 | 128, statistics >> 7]) + b"z" * statistics if statistics else b""
    about = bytes([0x15, (values << 1 ^ values >> 63) & 127, 0x15, 0, 0x15, 6, 0x15, 6, 0x1C]) + text + b"\0\0"
    return bytes([0x15, 0, 0x15, 0, 0x15, 0, 0x2C]) + about + b"\0"


def test_pages_of_long_texts_and_of_no_values(tmp_path: Path) -> None:
    path = tmp_path / "pool.parquet"
    for sound in (_page(10), _page(4) + _page(0) + _page(6), _page(10, 12_000)):
        _of_pages(path, sound).refuse_false_pages()
    with pytest.raises(InputError, match="states more than there is: 11 values"):
        _of_pages(path, _page(11, 12_000)).refuse_false_pages()
    with pytest.raises(InputError, match="states a count of -1"):
        _of_pages(path, _page(4, 12_000) + _page(-1)).refuse_false_pages()
    with pytest.raises(InputError, match="has over 1,000 pages without a value"):
        _of_pages(path, _page(0) * 2_000).refuse_false_pages()


def test_a_panic_while_a_command_reads_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_pool().write_parquet("pool.parquet")

    def panics(*_: object, **__: object) -> None:
        os.write(2, REPORT)
        raise pl.exceptions.PanicException("index out of bounds")

    monkeypatch.setattr(pl.LazyFrame, "collect", panics)
    line = refused(capfd, "select", "pool.parquet", "--columns", "age", "-k", "2")
    assert "pool.parquet cannot be read: index out of bounds" in line


REPORT = b"\nthread 'worker' (3) panicked at crates/x.rs:1:2:\nindex out of bounds\nnote: run with `RUST_BACKTRACE=1`\n"


@pytest.mark.parametrize("fails", [False, True])
def test_what_else_is_printed_is_kept(fails: bool, capfd: pytest.CaptureFixture[str]) -> None:
    def read() -> None:
        with without_reports():
            os.write(2, b"a warning\n")
            os.write(2, REPORT)
            os.write(2, b"another\n")
            if fails:
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) if fails else nullcontext():
        read()
    print("after", file=sys.stderr)
    assert capfd.readouterr().err == f"a warning\n{'' if fails else REPORT.decode()}another\nafter\n"


def test_threads_that_read_at_once_give_standard_error_back(capfd: pytest.CaptureFixture[str]) -> None:
    ready = threading.Barrier(4)

    def read(number: int) -> None:
        ready.wait()
        for _ in range(50):
            with without_reports():
                os.write(2, b"%d\n" % number)

    threads = [threading.Thread(target=read, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.write(2, b"after\n")
    lines = capfd.readouterr().err.split()
    assert lines[-1] == "after"
    assert sorted(lines[:-1]) == sorted("0123" * 50)


def test_without_a_standard_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr", None)

    def gone(_: int) -> int:
        raise OSError

    monkeypatch.setattr("os.dup", gone)
    with without_reports():
        pass


def test_any_byte_of_a_footer_may_be_wrong(tmp_path: Path) -> None:
    path = tmp_path / "pool.parquet"
    frame = pl.DataFrame({"id": [1, 2, 3], "vec": [[1.0, 2.0]] * 3, "name": ["a", "b", "c"]})
    frame.write_parquet(path, row_group_size=2)
    data, states = path.read_bytes(), []
    for position in range(len(data) - 8 - len(footer(path)), len(data)):
        for flip in (1, 4, 16, 128, 255):
            damaged = bytearray(data)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            try:
                groups = row_groups(path)
            except InputError:
                states.append("refused")
                continue
            numbers = [number for group in groups for number in (group.rows, *group.sizes.values())]
            assert all(type(number) is int and number >= 0 for number in numbers)
            states.append("read")
    assert min(states.count(state) for state in ("refused", "read")) > 100


def test_a_footer_of_lists_in_lists_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "pool.parquet"
    nested = b"\x19" * 5_000
    path.write_bytes(b"PAR1" + nested + len(nested).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(InputError, match="its footer cannot be read"):
        row_groups(path)
