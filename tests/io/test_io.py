"""Tables in and out: what is read is what was written, and what is broken is named with its place."""

from __future__ import annotations

import bz2
import contextlib
import csv
import gzip
import io
import lzma
import os
import re
import subprocess
import sys
import textwrap

import numpy as np
import polars as pl
import pytest
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kofn.core.checks import FailureError, InputError
from kofn.io import text_faults, write_table
from kofn.io.cells import typed_cells
from kofn.io.formats import SparseNpz
from kofn.io.opening import open_table

TABLES = (".csv", ".tsv", ".parquet", ".jsonl", ".ndjson")


@pytest.fixture
def pool():
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "id": [f"{i:04d}" for i in range(50)],
            "n": np.arange(50) * 3 - 20,
            "price": rng.standard_normal(50).round(6),
            "text": [f'say "{i}",\nthen\tstop' if i % 7 == 0 else f"row {i} é 日本" for i in range(50)],
            "flag": [i % 2 == 0 for i in range(50)],
            "vector": pl.Series(rng.standard_normal((50, 3)).astype(np.float32)).arr.to_list(),
        }
    )


@pytest.mark.parametrize("suffix", TABLES)
def test_written_and_read_back(tmp_path, pool, suffix):
    path = write_table(pool, tmp_path / f"pool{suffix}")
    table = open_table(path)
    assert (table.n, table.columns) == (50, pool.columns)
    flat = pool.drop("vector")
    rows = [7, 0, 49, 7]
    assert table.take(rows).drop("vector").equals(flat[rows])
    assert table.take(rows).drop("vector").schema == flat.schema
    assert table.take([]).columns == pool.columns
    assert table.take([]).height == 0
    for name in flat.columns:
        assert table.column(name).equals(flat[name])
    expected = np.stack(pool["vector"].to_list())
    np.testing.assert_array_equal(table.vectors("vector").astype(np.float32), expected)
    assert table.vectors("vector").dtype == (np.float32 if suffix == ".parquet" else np.float64)
    np.testing.assert_array_equal(table.numbers("n"), pool["n"].to_numpy())
    assert table.numbers("n").dtype == np.int64
    assert table.numbers("flag").tolist() == pool["flag"].cast(pl.Int64).to_list()
    assert table.ids("id").tolist() == pool["id"].to_list()
    assert table.labels("flag")[:2].tolist() == ["true", "false"]
    assert [table.dtype(name) for name in ("id", "n", "flag")] == ["text", "number", "boolean"]


@pytest.mark.parametrize("suffix", TABLES)
def test_written_in_slices(tmp_path, pool, suffix, monkeypatch):
    whole = write_table(pool, tmp_path / f"whole{suffix}").read_bytes()
    monkeypatch.setattr("kofn.io.atomic._SLICE", 7)
    assert write_table(pool, tmp_path / f"parts{suffix}").read_bytes() == whole
    assert write_table(pool.head(0), tmp_path / f"none{suffix}").exists()


def test_only_the_asked_columns_are_read(tmp_path, pool):
    path = write_table(pool, tmp_path / "pool.parquet")
    raw = bytearray(path.read_bytes())
    where = raw.index("日本".encode())
    raw[where : where + 40] = b"\xff" * 40  # the text column is broken, the others are not
    path.write_bytes(raw)
    table = open_table(path)
    assert table.numbers("n")[0] == -20
    with pytest.raises(InputError, match=r"pool\.parquet cannot be read"):
        table.texts("text")


def test_row_groups_and_blocks_do_not_change_what_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("kofn.io.vector_columns._CHUNK_BYTES", 1024 * 16)
    X = np.random.default_rng(0).standard_normal((5000, 4)).astype(np.float32)
    frame = pl.DataFrame({"v": pl.Series(X), "l": pl.Series(X).arr.to_list(), "i": np.arange(5000)})
    for suffix, written in ((".parquet", frame), (".jsonl", frame), (".csv", frame)):
        path = write_table(written, tmp_path / f"x{suffix}")
        if suffix == ".parquet":
            frame.write_parquet(path, row_group_size=700)
        table = open_table(path)
        for name in "vl":
            np.testing.assert_array_equal(table.vectors(name).astype(np.float32), X)
        picks = np.random.default_rng(1).permutation(5000)[:300]
        np.testing.assert_array_equal(table.take(picks)["i"].to_numpy(), picks)


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_vectors_keep_their_precision(tmp_path, kind):
    X = np.random.default_rng(0).standard_normal((20, 5)).astype(kind)
    array = pl.Series(X)
    write_table(pl.DataFrame({"list": array.arr.to_list(), "array": array}), tmp_path / "x.parquet")
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", X=X, y=np.arange(20))
    for path, name in (("x.parquet", "list"), ("x.parquet", "array"), ("x.npy", "vector"), ("x.npz", "X")):
        found = open_table(tmp_path / path).vectors(name)
        assert found.dtype == kind
        np.testing.assert_array_equal(found, X)


def test_whole_numbers_become_float32(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12, dtype=np.uint8).reshape(4, 3))
    write_table(pl.DataFrame({"v": [[1, 2], [3, 4]]}), tmp_path / "x.parquet")
    assert open_table(tmp_path / "x.npy").vectors("vector").dtype == np.float32
    assert open_table(tmp_path / "x.parquet").vectors("v").tolist() == [[1, 2], [3, 4]]


def test_arrays(tmp_path):
    rng = np.random.default_rng(0)
    X, y = np.asfortranarray(rng.standard_normal((6, 2))), np.array([f"k{i}" for i in range(6)])
    np.savez_compressed(tmp_path / "x.npz", X=X, y=y, z=rng.integers(0, 9, (6, 2, 2)))
    table = open_table(tmp_path / "x.npz")
    assert (table.n, table.columns) == (6, ["X", "y", "z"])
    taken = table.take([4, 1])
    assert taken["row"].to_list() == [4, 1]
    assert taken["y"].to_list() == ["k4", "k1"]
    np.testing.assert_array_equal(taken["X"].to_numpy(), X[[4, 1]])
    assert table.ids("y").tolist() == y.tolist()
    assert [table.dtype(name) for name in "Xyz"] == ["vector", "text", "other"]
    np.save(tmp_path / "y.npy", np.arange(6) / 2)
    assert open_table(tmp_path / "y.npy").numbers("value").tolist() == [0, 0.5, 1, 1.5, 2, 2.5]
    assert open_table(tmp_path / "y.npy").take([])["row"].to_list() == []


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (["1", "-20", None], pl.Int64),
        (["007", "8"], pl.String),
        (["+5", "1"], pl.Float64),
        (["1_000"], pl.String),
        (["12345678901234567890"], pl.String),
        (["1234567890123456789.5"], pl.String),
        (["1.50", "2", "1e-3", ".5"], pl.Float64),
        (["1.5", "nan", "-inf"], pl.Float64),
        (["true", "false"], pl.Boolean),
        (["True"], pl.String),
        (["1", "x"], pl.String),
        (["2024-01-01"], pl.String),
        ([None, None], pl.String),
        (["-0"], pl.Float64),
    ],
)
def test_cells_become_numbers_only_without_loss(cells, kind):
    assert typed_cells(pl.Series(cells, dtype=pl.String)).dtype == kind


@given(st.lists(st.one_of(st.integers(-(10**20), 10**20).map(str), st.text("01.e+-x", max_size=5)), min_size=1))
def test_whole_number_cells_keep_their_spelling(cells):
    typed = typed_cells(pl.Series(cells, dtype=pl.String))
    if typed.dtype in (pl.Int64, pl.Boolean):
        assert typed.cast(pl.String).to_list() == cells


def test_ids_keep_their_spelling_even_as_decimals(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("id,v\n1.10,1\n1.1,2\n")
    table = open_table(path)
    assert table.ids("id").tolist() == ["1.10", "1.1"]
    assert table.take([1, 0])["id"].to_list() == ["1.1", "1.10"]
    assert open_table(path).numbers("id").tolist() == [1.1, 1.1]


def test_ids_longer_than_an_int64_keep_every_digit(tmp_path):
    long = 10**30 + 7
    for name, text in (("x.jsonl", f'{{"id": {long}}}\n{{"id": 1}}\n'), ("x.csv", f"id\n{long}\n1\n")):
        (tmp_path / name).write_text(text)
        table = open_table(tmp_path / name)
        assert table.ids("id").tolist() == [str(long), "1"]
        assert str(table.take([0])["id"][0]) == str(long)
    write_table(pl.DataFrame({"id": pl.Series([2**64 - 1, 1], dtype=pl.UInt64)}), tmp_path / "x.parquet")
    assert open_table(tmp_path / "x.parquet").ids("id").tolist() == [2**64 - 1, 1]


def test_types_hold_past_the_rows_they_are_inferred_from(tmp_path, monkeypatch):
    monkeypatch.setattr("kofn.io.formats._SAMPLE", 3)
    path = tmp_path / "x.csv"
    path.write_text("id,v\n1,1\n2,2\n3,3\n4,4\n005,5.5\n")
    table = open_table(path)
    assert table.take([0, 3])["id"].to_list() == [1, 4]
    assert table.take([0, 4])["id"].to_list() == ["1", "005"]
    assert table.take([0, 4])["v"].to_list() == [1.0, 5.5]
    assert table.column("id").to_list() == ["1", "2", "3", "4", "005"]
    assert table.take([0, 3])["id"].to_list() == ["1", "4"], "once read in full, the column has one type"


def refused(path, says, column=None, how="vectors"):
    def read():
        table = open_table(path)
        if column is not None:
            getattr(table, how)(column)

    with pytest.raises(InputError) as caught:
        read()
    message = str(caught.value)
    assert re.search(says, message), message
    assert "\n" not in message
    assert str(path) in message or column is None


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("x.csv", b"", r"x\.csv is empty"),
        ("x.csv", b"\n\n", r"is empty; give a file with a header"),
        ("x.csv", b"a,b\n", r"no rows"),
        ("x.csv", b"a,a\n1,2\n", r"names column 'a' twice"),
        ("x.csv", b"My sales\na,b,c\n1,2,3\n", r"line 2 has 3 fields, the header has 1; is line 1 a title\? remove it"),
        ("x.csv", b"a,b\n1,2\n3\n", r"row at line 3 has 1 field, the header has 2"),
        ("x.csv", b"a,b\n1,2\n3,4,5\n", r"row at line 3 has 3 fields, the header has 2"),
        ("x.csv", b'a,b\n"1\n2",2\n3,4,5\n', r"row at line 4 has 3 fields"),
        ("x.csv", b'a,b\n1,2\n"3,4\n5,6\n', r"row at line 3 has 1 field, the header has 2 \(is a quote left open\?\)"),
        ("x.csv", b"a,b\n1,2\n3,\xe9\n", r"not UTF-8: byte 0xe9 at offset 10, line 3; .*iconv"),
        ("x.csv", b"a,b\n1,2\n3,\xc3", r"not UTF-8: byte 0xc3 at offset 10, line 3"),
        ("x.tsv", b"a\tb\n1\t2\n3\n", r"row at line 3 has 1 field"),
        ("x.jsonl", b"", r"is empty"),
        ("x.jsonl", b"\n \n", r"is empty"),
        ("x.jsonl", b'{"a": 1}\n{"a": 2', r"line 2 is not valid JSON"),
        ("x.jsonl", b'{"a": 1}\n{"b": {"c": 1, "c": 2}}\n', r"line 2 is not valid JSON \(it has the key 'c' twice\)"),
        ("x.jsonl", b'{"a": 1}\n[1]\n', r"line 2 is a list"),
        ("x.jsonl", b'[{"a": 1}]\n', r"line 1 is a list"),
        ("x.jsonl", b'{"a": NaN}\n', r"line 1 is not valid JSON \(NaN is not JSON\)"),
        ("x.jsonl", b'{"a": 1}\n{"a": "\xff"}\n', r"not UTF-8: byte 0xff at offset 16, line 2"),
        ("x.parquet", b"PAR1", r"truncated"),
        ("x.parquet", b"a,b\n1,2\n", r"not a Parquet file"),
        ("x.npy", b"\x93NUMPY", r"x\.npy is"),
        ("x.npy", b"a,b\n1,2\n", r"is text, not a NumPy array; name it \.csv"),
        ("x.npz", b"a,b\n1,2\n", r"is text, not a NumPy array"),
        (
            "x.csv",
            gzip.compress(b"a\n1\n", mtime=0),
            r"is compressed by gzip, not what its name says; name it x\.csv\.gz",
        ),
        ("x.jsonl", gzip.compress(b"{}", mtime=0), r"name it x\.jsonl\.gz"),
        ("x.parquet", gzip.compress(b"a", mtime=0), r"is compressed by gzip"),
        ("x.csv", b"\x28\xb5\x2f\xfd0000", r"is compressed by Zstandard, not what its name says; name it x.csv.zst"),
        ("x.csv", b"PK\x03\x04xl/workbook", r"is a ZIP archive"),
        ("x.jsonl", b"PAR1....PAR1", r"is a Parquet file, not what its name says; name it x\.parquet"),
        ("x.csv", b"\x93NUMPY...", r"is a NumPy array, .*name it x\.npy"),
        ("x.npy", b"PK\x03\x04", r"is a ZIP archive .*name it x\.npz"),
        ("x.csv", b"\0\0\n\0\n", r"holds a NUL byte at offset 0, line 1, .*write the file again"),
        ("x.csv", b"a,b\nx\0y,1\nz,2\n", r"holds a NUL byte at offset 5, line 2, .*take them out"),
        ("x.tsv", b"a\tb\n1\t2\n" * 3 + b"1\t\0\n", r"holds a NUL byte at offset 26, line 7"),
        ("x.tsv", b"SQLite format 3\0", r"is an SQLite database, .*convert"),
        ("x.csv", "a\n1\n".encode("utf-32"), r"is UTF-32; say --encoding utf-32"),
        ("x.csv", b"a,b\r1,2\r3,4\r", r"lines end in a carriage return alone; convert it"),
        ("x.csv", b"sep=;\na;b\n1;2\n", r"first line, 'sep=;', is for Excel alone; remove it, and say --delimiter ';'"),
        ("x.csv", b"a,,\n1,2,3\n", r"columns 2, 3 of the header have no name; name or remove them"),
        ("x.npz", b"PK\x01 nothing", r"cannot be read"),
        ("x.xlsx", b"1", r"unknown suffix '\.xlsx'; give one of \.csv"),
        ("x.csv.gz", b"1", "cannot be decompressed .*name it .csv"),
        ("x.jsonl.xz", b'{"a": 1}', "cannot be decompressed .*name it .jsonl"),
        ("x.tsv.bz2", b"a\tb\n1\t2", "cannot be decompressed .*name it .tsv"),
        ("x.csv.gz", b"\x1f\x8b\x08\0\0", "cannot be decompressed .*copy or write it again"),
        ("x.csv.zst", b"1", r"cannot be decompressed \(it is not Zstandard\); name it \.csv"),
        ("x.npy.gz", b"1", r"unknown suffix '\.gz'.*decompress"),
        ("x", b"1", r"unknown suffix '\(none\)'"),
        ("x.json", b"[]", r"unknown suffix '\.json'.*write one object a line"),
        ("x.feather", b"ARROW1", r"write it as Parquet"),
        ("x.pkl", b"1", r"a pickle is not read"),
        ("x.txt", b"1", r"name it \.csv or \.tsv"),
    ],
)
def test_broken_files_are_named_with_the_place(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, says)


@pytest.mark.parametrize("name", ["x.csv.gz", "x.csv.bz2", "x.jsonl.xz", "x.npy", "x.npz", "sparse.npz", "x.parquet"])
def test_a_byte_that_is_damaged_is_refused_or_changes_a_value(tmp_path, name):
    """Whatever a reader raises of a damaged file is said in one line."""
    path = tmp_path / name
    frame = pl.DataFrame({"v": [[float(i), 2.5] for i in range(40)], "s": [f"a{i % 7}" for i in range(40)]})
    text = frame["s"].to_frame().write_csv().encode() if ".csv" in name else frame.write_ndjson().encode()
    match name:
        case "x.csv.gz":
            path.write_bytes(gzip.compress(text))
        case "x.csv.bz2":
            path.write_bytes(bz2.compress(text))
        case "x.jsonl.xz":
            path.write_bytes(lzma.compress(text))
        case "x.npy":
            np.save(path, np.ones((30, 4)))
        case "x.npz":
            np.savez_compressed(path, v=np.arange(120.0).reshape(30, 4), s=np.arange(30))
        case "sparse.npz":
            scipy.sparse.save_npz(path, scipy.sparse.random(30, 20, 0.3, format="csr", random_state=0))
        case _:
            frame.write_parquet(path)
    whole = path.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 150)):
        damaged = bytearray(whole)
        damaged[place] ^= 0x55
        path.write_bytes(damaged)
        with contextlib.suppress(InputError, FailureError):
            table = open_table(path)
            column = table.columns[0]
            table.matrix() if isinstance(table, SparseNpz) else table.column(column)
            table.take([0, table.n - 1])


def test_an_open_quote_is_named_by_its_line(tmp_path):
    (tmp_path / "x.csv").write_text('a,b\n1,x\n2,"open\n3,y\n')
    with pytest.raises(InputError, match=r"the row at line 3 has 2 fields|a quote at line 3 is left open"):
        open_table(tmp_path / "x.csv").column("b")


def test_a_column_without_a_name_keeps_it(tmp_path):
    """A table that a program wrote with its row numbers: `,a,b`."""
    (tmp_path / "x.csv").write_text(",a,b\n0,x,y\n1,z,w\n")
    assert open_table(tmp_path / "x.csv").take([1]).to_dict(as_series=False) == {"": [1], "a": ["z"], "b": ["w"]}


def test_json_lines_with_a_byte_order_mark(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'\xef\xbb\xbf{"a": 1.50}\r\n{"a": 2}\r\n')
    table = open_table(tmp_path / "x.jsonl")
    assert table.column("a").to_list() == [1.5, 2]
    assert table.lines(np.array([0])) == [b'{"a": 1.50}']


def test_missing_file_and_folder(tmp_path):
    (tmp_path / "pool.csv").write_text("a\n1\n")
    refused(tmp_path / "pol.csv", r"no such file; did you mean 'pool\.csv'\?")
    refused(tmp_path / "nowhere" / "x.csv", "no such file")
    for name in ("https://a.org/x.csv", "s3://a/x.parquet"):
        refused(name, "no such file; download it first")
    refused("-", "no such file; write what comes in to a file first")
    refused(tmp_path, "is a folder")


def test_unknown_column_offers_the_nearest(tmp_path, pool):
    table = open_table(write_table(pool, tmp_path / "pool.csv"))
    for read in (table.column, table.numbers, table.texts, table.vectors, table.labels, table.ids, table.dtype):
        with pytest.raises(InputError, match=r"has no column 'prise'; did you mean 'price'\?"):
            read("prise")
    with pytest.raises(InputError, match="has no column 'qqqqqq'; it has id, n, price"):
        table.column("qqqqqq")


def test_rows_out_of_range(tmp_path, pool):
    table = open_table(write_table(pool, tmp_path / "pool.csv"))
    for rows in ([50], [-1]):
        with pytest.raises(InputError, match=r"names row -?\d+; .* has rows 0\.\.49"):
            table.take(rows)
    with pytest.raises(InputError, match="give a list of row numbers"):
        table.take([0.5])


@pytest.mark.parametrize("cut", [4, 5, 20, 100, -1, -4, -9])
def test_truncated_parquet(tmp_path, pool, cut):
    path = write_table(pool, tmp_path / "pool.parquet")
    path.write_bytes(path.read_bytes()[:cut])
    refused(path, "truncated")


def test_corrupt_parquet_never_ends_in_anything_but_one_line(tmp_path, pool):
    path = write_table(pool, tmp_path / "pool.parquet")
    sound = path.read_bytes()
    rng = np.random.default_rng(0)
    messages = []
    for _ in range(150):
        raw = bytearray(sound)
        at = int(rng.integers(4, len(raw) - 4))
        raw[at : at + 8] = rng.bytes(8)
        path.write_bytes(raw[: len(sound)][:-4] + b"PAR1")
        try:
            table = open_table(path)
            table.take(range(table.n))
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 30
    assert not [text for text in messages if "\n" in text or len(text) > 400]


@pytest.mark.parametrize("keep", [0.2, 0.9])
def test_truncated_arrays(tmp_path, keep):
    X = np.random.default_rng(0).standard_normal((100, 8))
    np.save(tmp_path / "x.npy", X)
    np.savez(tmp_path / "x.npz", X=X)
    for name in ("x.npy", "x.npz"):
        path = tmp_path / name
        path.write_bytes(path.read_bytes()[: int(path.stat().st_size * keep)])
    refused(tmp_path / "x.npy", "truncated")
    refused(tmp_path / "x.npz", "cannot be read")


def test_npz_with_a_flipped_byte(tmp_path):
    np.savez(tmp_path / "x.npz", X=np.zeros((100, 8)))
    raw = bytearray((tmp_path / "x.npz").read_bytes())
    raw[3000] ^= 1
    (tmp_path / "x.npz").write_bytes(raw)
    refused(tmp_path / "x.npz", "cannot be read: Bad CRC", "X")


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.zeros((2, 3, 4)), r"3 dimensions, shape \(2, 3, 4\); give \(n, d\)"),
        (np.array(3.0), "0 dimensions"),
        (np.array([{}, None], dtype=object), "holds Python objects"),
        (np.zeros((3, 2), complex), "dtype complex128; save real numbers"),
        (np.zeros(3, [("a", "f4")]), "save real numbers"),
        (np.zeros((0, 4)), "no rows"),
        (np.zeros((3, 0)), "empty vector"),
        (np.array([[1.0, 2.0], [3.0, np.inf]]), "row 1, column 1 is infinite"),
        (np.array([1.0, 2.0]), r"shape \(2,\); give \(n, d\), for one column use reshape"),
    ],
)
def test_arrays_that_cannot_be_used(tmp_path, array, says):
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    refused(tmp_path / "x.npy", says, "value" if array.shape == (2,) and array.dtype != object else "vector")


def test_npz_of_unequal_lengths(tmp_path):
    np.savez(tmp_path / "x.npz", X=np.zeros((3, 2)), y=np.zeros(4))
    refused(tmp_path / "x.npz", r"differ in their number of rows \(X \(3, 2\), y \(4,\)\)")
    np.savez(tmp_path / "x.npz", X=np.zeros((3, 2)), note=np.array(1))
    refused(tmp_path / "x.npz", r"note \(\)")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
@pytest.mark.parametrize(
    ("vectors", "says"),
    [
        ([[1.0, 2.0], [1.0]], "row 1 has 1 values, row 0 has 2"),
        ([[1.0, 2.0], None], "row 1 is empty"),
        ([[1.0, 2.0], [3.0, None]], "row 1, column 1 is empty|row 1 is '"),
        ([[], []], "row 0 is an empty vector"),
    ],
)
def test_vectors_that_cannot_be_used(tmp_path, suffix, vectors, says):
    frame = pl.DataFrame({"v": pl.Series(vectors, dtype=pl.List(pl.Float64)), "i": range(len(vectors))})
    refused(write_table(frame, tmp_path / f"x{suffix}"), says, "v")


def test_vectors_with_nan_name_row_and_column(tmp_path):
    path = write_table(pl.DataFrame({"v": [[1.0, 2.0], [3.0, float("nan")]]}), tmp_path / "x.parquet")
    refused(path, "column 'v' at row 1, column 1 is NaN", "v")


def test_text_that_is_no_vector(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('v,w\n"[1, 2]",a\n"[1, two]",b\n')
    refused(path, r"column 'v' at row 1 is '\[1, two\]'; give a list of numbers", "v")
    refused(path, "column 'w' at row 0 is 'a'; give a list of numbers", "w")
    path.write_text('v\n"[1, 2]"\n"[1, 2-3]"\n')
    refused(path, "column 'v' at row 1 is not a list of numbers", "v")
    write_table(pl.DataFrame({"v": [["a"], ["b"]], "n": [1, 2]}), tmp_path / "x.parquet")
    refused(tmp_path / "x.parquet", "give a column of lists of numbers", "v")
    refused(tmp_path / "x.parquet", "give a column of lists of numbers", "n")


@pytest.mark.parametrize(
    ("how", "column", "says"),
    [
        ("numbers", "hole", r"column 'hole' at row 1 is empty \(2 such rows\); fill it, or leave such rows out"),
        ("labels", "hole", "row 1 is empty"),
        ("ids", "hole", "row 1 is empty"),
        ("numbers", "mixed", "column 'mixed' at row 2 is 'n/a', which is not a number"),
        ("numbers", "wild", "column 'wild' at row 1 is NaN"),
    ],
)
def test_cells_that_cannot_be_used(tmp_path, how, column, says):
    path = tmp_path / "x.csv"
    path.write_text("hole,mixed,wild\n1,1,1.5\n,2,nan\n,n/a,2\n")
    refused(path, says, column, how)


def test_nested_columns_are_not_keys_or_text(tmp_path):
    path = write_table(pl.DataFrame({"v": [[1.0], [2.0]]}), tmp_path / "x.parquet")
    for how in ("numbers", "ids", "texts"):
        refused(path, "column 'v' holds List", "v", how)
    refused(path, "column 'v' holds nested values; give a column of names or numbers", "v", "labels")


def test_bare_quotes(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text('a,b\n1,2\n5" pipe,3\n4,"x ""y"" z"\n')
    table = open_table(path)
    assert table.column("a").to_list() == ["1", '5" pipe', "4"]
    assert table.take([1, 2]).rows() == [('5" pipe', "3"), ("4", 'x "y" z')]
    assert text_faults.quotes_inside(path, ",")
    path.write_text('a,b\n1,"2"x\n')
    refused(path, "line 2 has text after the closing quote of a field", "b", "column")
    path.write_text('a,b\n1,"x\n""y"",\nz"\n"q",2\n')
    assert not text_faults.quotes_inside(path, ",")


def test_marks_line_ends_and_trailing_blank_lines(tmp_path):
    path = tmp_path / "x.csv"
    for text in ("a,b\r\n1,2\r\n\r\n", "\ufeffa,b\n1,2", "\n\na,b\n1,2\n\n\n"):
        path.write_bytes(text.encode())
        table = open_table(path)
        assert (table.n, table.columns, table.take([0]).rows()) == (1, ["a", "b"], [(1, 2)])
    path.write_text("a\n1\n\n3\n\n")
    table = open_table(path)
    assert table.n == 3, "in a file of one column a blank line between rows is an empty cell"
    assert table.column("a").to_list() == [1, None, 3]


cell = st.text(st.sampled_from('ab ,"\n\té'), max_size=6)


grid = st.integers(1, 4).flatmap(lambda w: st.lists(st.lists(cell, min_size=w, max_size=w), min_size=2, max_size=8))


@given(grid, st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=120)
def test_quick_count_is_that_of_the_csv_module(tmp_path, rows, data):
    """Any regular file is counted without the slow walk; any irregular one is refused or walked."""
    rows[0] = [f"c{i}" for i in range(len(rows[0]))]
    out = io.StringIO()
    ragged = data.draw(st.booleans())
    if ragged:
        rows[-1] = [*rows[-1], "extra"]
    quoting = data.draw(st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]))
    csv.writer(out, lineterminator=data.draw(st.sampled_from(["\n", "\r\n"])), quoting=quoting).writerows(rows)
    path = tmp_path / "x.csv"
    path.write_bytes(out.getvalue().encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_faults, "_BLOCK", data.draw(st.sampled_from([1, 3, 7, 1 << 20])))
        if ragged:
            with pytest.raises(InputError, match=r"the row at line \d+ has"):
                text_faults.check_csv(path, ",")
            return
        header, n, _ = text_faults.check_csv(path, ",")
    assert header == rows[0]
    assert n == len(rows) - 1
    texts = [open_table(path).column(name).cast(pl.String).fill_null("") for name in header]
    assert [list(values) for values in zip(*texts, strict=True)] == rows[1:]


@pytest.mark.parametrize("text", ["é" * 9, "日本" * 5, "a😀b" * 4])
def test_utf8_is_checked_across_blocks(tmp_path, text, monkeypatch):
    path = tmp_path / "x.csv"
    for block in range(1, 6):
        monkeypatch.setattr(text_faults, "_BLOCK", block)
        path.write_bytes(b"a\n" + text.encode() + b"\n")
        text_faults.check_utf8(path)
        path.write_bytes(b"a\n" + text.encode() + b"\n\xff")
        with pytest.raises(InputError, match=rf"byte 0xff at offset {len(text.encode()) + 3}, line 3"):
            text_faults.check_utf8(path)


def test_memory_of_a_second_pass_is_bounded(tmp_path):
    """Picking from a file whose columns do not fit: 80 MB of text under a limit that only blocks of it fit."""
    path = tmp_path / "x.parquet"
    rng = np.random.default_rng(0)
    letters = np.frombuffer(rng.integers(97, 123, 80_000_000).astype(np.uint8).tobytes(), "S1000")
    pl.DataFrame({"i": np.arange(80_000), "t": [t.decode() for t in letters]}).write_parquet(path, row_group_size=2000)
    code = textwrap.dedent("""
        import resource, sys
        import numpy as np
        from kofn.io.opening import open_table
        from kofn.io import Table
        table = open_table(sys.argv[1])
        table.numbers("i")
        base = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        frame = table.take(np.arange(0, 80_000, 800)[::-1])
        assert frame["i"].to_list() == list(range(0, 80_000, 800))[::-1]
        print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - base) / 1024)
    """)
    environment = {**os.environ, "POLARS_MAX_THREADS": "2"}  # blocks are read ahead for each thread
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 60


def test_arrays_of_whole_numbers_are_floats_that_hold_them(tmp_path):
    for value, kind in ((2**24, np.float32), (2**24 + 1, np.float64)):
        np.save(tmp_path / "x.npy", np.array([[value, -1], [0, 0]]))
        X = open_table(tmp_path / "x.npy").vectors("vector")
        assert X.dtype == kind
        assert X[0].tolist() == [value, -1]
    np.save(tmp_path / "x.npy", np.array([[-(2**63), 0]]))
    with pytest.raises(InputError, match="holds numbers up to 9223372036854775808, beyond what floats hold apart"):
        open_table(tmp_path / "x.npy").vectors("vector")
