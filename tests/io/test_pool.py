"""Pools in files: the vectors of one file with all rows, read in fragments, and what is wrong with a file is said."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import kofn
from kofn.core.checks import InputError
from kofn.core.pools import ArrayPool, Fragment
from kofn.core.pools import Pool as Protocol
from kofn.io.batches import row_batches
from kofn.io.opening import open_table
from kofn.io.parquet import Parquet
from kofn.io.parquet_footer import row_groups
from kofn.io.pool import reopened
from kofn.io.vectors import column_vectors

ROWS, CUTS = 90, (0, 40, 40, 65, 90)


def frame() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "id": np.arange(ROWS) * 7,
            "make": rng.choice(["a", "b", "c"], ROWS),
            "price": rng.integers(0, 1000, ROWS),
            "vec": rng.normal(size=(ROWS, 4)).astype(np.float32),
        }
    )


def vectors_of(rows: pl.DataFrame) -> np.ndarray:
    return rows["vec"].to_numpy()


def save(rows: pl.DataFrame, path: Path) -> None:
    if path.suffix == ".parquet":
        rows.write_parquet(path, row_group_size=16)
    elif path.suffix == ".npy":
        np.save(path, vectors_of(rows))
    elif path.suffix == ".npz":
        np.savez(path, vec=vectors_of(rows))
    elif path.suffix == ".jsonl":
        rows.with_columns(pl.col("vec").arr.to_list()).write_ndjson(path)
    else:
        cells = ["[" + ", ".join(map(str, row)) + "]" for row in vectors_of(rows).tolist()]
        rows.with_columns(vec=pl.Series(cells, dtype=pl.String)).write_csv(path)


def folder_of(tmp_path: Path, suffix: str) -> Path:
    folder = tmp_path / "pool"
    folder.mkdir()
    for i, (start, stop) in enumerate(pairwise(CUTS)):
        if start < stop or suffix != ".jsonl":
            save(frame()[start:stop], folder / f"{i}{suffix}")
    return folder


def all_of(pool: kofn.Pool, part_rows: int | None = None) -> np.ndarray:
    return np.concatenate([pool.read(fragment) for fragment in pool.fragments(part_rows)])


@pytest.mark.parametrize("part_rows", [None, 1, 5, 16, 50, 1000])
@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".npz", ".jsonl", ".csv"])
def test_fragments_and_rows_are_those_of_one_file(tmp_path: Path, suffix: str, part_rows: int | None) -> None:
    # Vectors that are written as text are found by their name alone.
    pool = kofn.Pool.open(folder_of(tmp_path, suffix), vectors="vec" if suffix == ".csv" else None)
    X = vectors_of(frame())
    assert isinstance(pool, Protocol)
    assert (pool.n, pool.width) == X.shape
    assert pool.dtype == (np.float64 if suffix in (".jsonl", ".csv") else np.float32)
    read = all_of(pool, part_rows)
    assert read.dtype == pool.dtype
    assert np.array_equal(read.astype(np.float32), X)
    wanted = [89, 0, 39, 40, 64, 65, 0]
    assert np.array_equal(pool.take(wanted).astype(np.float32), X[wanted])
    assert pool.take([]).shape == (0, 4)


def test_columns_are_scaled_as_those_of_a_table(tmp_path: Path) -> None:
    pool = kofn.Pool.open(folder_of(tmp_path, ".parquet"), columns=["price", "make"])
    X, _ = column_vectors(frame().select("price", "make"))
    assert np.array_equal(all_of(pool, 7), X)
    named = kofn.Pool.open(tmp_path / "pool", columns=["price", "id"], categories=["id"])
    assert named.width == 1 + ROWS


def test_ids_columns_and_rows(tmp_path: Path) -> None:
    pool = kofn.Pool.open(str(folder_of(tmp_path, ".parquet") / "*.parquet"), vectors="vec", id="id")
    assert pool.ids.tolist() == frame()["id"].to_list()
    assert pool.rows([88, 1]).equals(frame()[[88, 1]])
    assert repr(pool) == "Pool(90 rows x 4, float32, 4 files)"


def test_frames_that_are_lazy_or_arrow_are_streamed_to_a_file(tmp_path: Path) -> None:
    made: set[Path] = set()
    for source in (frame(), frame().lazy().filter(pl.col("id") >= 0)):
        pool = kofn.Pool.open(source, vectors="vec", id="id", work=tmp_path)
        assert np.array_equal(all_of(pool, 11), vectors_of(frame()))
        assert pool.ids.tolist() == frame()["id"].to_list()
        made |= set(pool.files)
        del pool
    assert len(made) == 2
    assert not any(path.exists() for path in made), "what was written goes with the pool"


def test_an_arrow_table_is_a_pool(tmp_path: Path) -> None:
    class Stream:
        """What every Arrow table has."""

        def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
            return frame().__arrow_c_stream__(requested_schema)

    assert np.array_equal(all_of(kofn.Pool.open(Stream(), vectors="vec", work=tmp_path)), vectors_of(frame()))


def test_the_digest_is_of_names_sizes_times_and_columns(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ".parquet")
    digest = kofn.Pool.open(folder, vectors="vec").digest
    assert kofn.Pool.open(folder, vectors="vec").digest == digest
    assert kofn.Pool.open(str(folder / "*.parquet"), vectors="vec").digest == digest
    assert kofn.Pool.open(folder, columns=["price"]).digest != digest
    os.utime(folder / "0.parquet", ns=(1, 1))
    assert kofn.Pool.open(folder, vectors="vec").digest != digest


def counted(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, int]]:
    """Every run of rows that is decoded."""
    runs: list[tuple[str, int, int]] = []
    read = Parquet._read

    def counting(self: Parquet, run: Fragment, *columns: str) -> pl.DataFrame:
        if type(self) is Parquet:
            runs.append((self.path.name, run.first_row, run.rows))
        return read(self, run, *columns)

    monkeypatch.setattr(Parquet, "_read", counting)
    return runs


def test_a_row_group_is_decoded_once_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frame().write_parquet(tmp_path / "a.parquet", row_group_size=30)
    frame().write_parquet(tmp_path / "b.parquet", row_group_size=90)
    runs = counted(monkeypatch)
    for part_rows in (1, 7, 30, 45, 90):
        runs.clear()
        pool = kofn.Pool.open([tmp_path / "a.parquet", tmp_path / "b.parquet"], vectors="vec")
        assert len(all_of(pool, part_rows)) == 2 * ROWS
        assert sum(rows for _, _, rows in runs) == 2 * ROWS
        assert Counter(runs).most_common(1)[0][1] == 1
    for rows in (1, 8, 45, 1000):
        runs.clear()
        blocks = list(row_batches(tmp_path / "a.parquet", vectors="vec", rows=rows))
        assert max(map(len, blocks)) <= rows
        assert np.array_equal(np.concatenate(blocks), vectors_of(frame()))
        assert sum(count for _, _, count in runs) == ROWS
    runs.clear()
    open_table(tmp_path / "b.parquet").vectors("vec")
    assert [count for _, _, count in runs] == [90]


def test_a_large_row_group_is_decoded_in_halves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kofn.io.decoded_rows._HALVED_BYTES", 50 * 4 * 4)
    frame().write_parquet(tmp_path / "a.parquet", row_group_size=90)
    frame()[:50].write_parquet(tmp_path / "b.parquet", row_group_size=50)
    runs = counted(monkeypatch)
    pool = kofn.Pool.open([tmp_path / "a.parquet", tmp_path / "b.parquet"], vectors="vec")
    X = np.concatenate([vectors_of(frame()), vectors_of(frame()[:50])])
    for part_rows in (7, 13, 45):
        runs.clear()
        assert np.array_equal(all_of(pool, part_rows), X)
        assert runs == [("a.parquet", 0, 45), ("a.parquet", 45, 45), ("b.parquet", 0, 50)]
    assert np.array_equal(pool.take([89, 44, 45, 139]), X[[89, 44, 45, 139]])


def test_rows_are_taken_from_the_groups_that_hold_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kofn.io.parquet._RUN_ROWS", 10)
    monkeypatch.setattr("kofn.io.decoded_rows._RUN_ROWS", 10)
    frame().write_parquet(tmp_path / "a.parquet", row_group_size=10)
    pool = kofn.Pool.open(tmp_path / "a.parquet", vectors="vec")
    runs = counted(monkeypatch)
    pool.take([85, 3, 4, 81])
    pool.rows([85, 3, 4, 81])
    assert sorted(runs) == [("a.parquet", 0, 10)] * 2 + [("a.parquet", 80, 10)] * 2


def test_footers_say_how_many_rows_each_group_has(tmp_path: Path) -> None:
    for size in (1, 7, 90, 1000):
        frame().write_parquet(tmp_path / "a.parquet", row_group_size=size)
        groups = row_groups(tmp_path / "a.parquet")
        assert sum(group.rows for group in groups) == ROWS
        assert max(group.rows for group in groups) == min(size, ROWS)
        assert all(group.packed.keys() == {"id", "make", "price", "vec"} for group in groups)
    wide = pl.DataFrame({f"a long name of a column {i}": [1] for i in range(2000)})
    wide.write_parquet(tmp_path / "wide.parquet")
    assert len(row_groups(tmp_path / "wide.parquet")[0].sizes) == 2000


@pytest.mark.parametrize("damage", [b"", b"\x00" * 40, b"\xff" * 40, b"\x19\x5c" * 20])
def test_a_damaged_footer_is_one_line(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(b"PAR1" + damage + len(damage).to_bytes(4, "little") + b"PAR1")
    with pytest.raises(InputError, match=r"a\.parquet"):
        kofn.Pool.open(path, vectors="vec")


# What is wrong with a file, told with the file, its row there, and its row in the pool.


def test_a_value_that_is_not_finite_is_named_with_its_places(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ".parquet")
    X = vectors_of(frame()[40:65]).copy()
    X[3, 2] = np.inf
    frame()[40:65].with_columns(vec=X).write_parquet(folder / "2.parquet")
    pool = kofn.Pool.open(folder, vectors="vec")
    with pytest.raises(InputError, match=r"at row 43, column 2 is infinite; .*\(row 43 is row 3 of .*2\.parquet\)"):
        all_of(pool, 8)
    with pytest.raises(InputError, match="column 2 is infinite"):
        pool.take([43])
    assert len(pool.read(pool.fragments(5)[0])) == 4


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".csv"])
def test_vectors_of_another_length_or_none_are_named(tmp_path: Path, suffix: str) -> None:
    folder = tmp_path / "x"
    folder.mkdir()
    lists = [[1.0, 2.0]] * 5
    for name, cells, message in (
        ("a", [*lists[:4], [1.0]], r"at row 9 has 1 values, row 0 has 2.*\(row 9 is row 4 of .*1\."),
        ("b", [*lists[:4], None], r"at row 9 is empty.*\(row 9 is row 4 of .*1\."),
    ):
        for i, part in enumerate((lists, cells)):
            rows = pl.DataFrame({"vec": pl.Series(part, dtype=pl.List(pl.Float64)), "name": name})
            if suffix == ".csv":
                text = [None if cell is None else str(cell) for cell in part]
                rows.with_columns(vec=pl.Series(text, dtype=pl.String)).write_csv(folder / f"{i}.csv")
            elif suffix == ".jsonl":
                rows.write_ndjson(folder / f"{i}.jsonl")
            else:
                rows.write_parquet(folder / f"{i}.parquet")
        with pytest.raises(InputError, match=message):
            all_of(kofn.Pool.open(folder, vectors="vec"))


def test_ids_that_stand_in_two_files_are_named_with_both(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, ".parquet")
    frame()[65:].with_columns(id=pl.lit(7, pl.Int64)).write_parquet(folder / "3.parquet")
    with pytest.raises(
        InputError, match=r"7 stands at row 1 and at row 65 \(row 1 is row 1 of .*0\.parquet, row 65 is row 0 of .*3\.p"
    ):
        _ = kofn.Pool.open(folder, vectors="vec", id="id").ids


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_a_file_that_changes_between_passes_is_refused(tmp_path: Path, suffix: str) -> None:
    folder = folder_of(tmp_path, suffix)
    pool = kofn.Pool.open(folder)
    assert len(all_of(pool)) == ROWS
    last, path = pool.fragments(20)[-1], folder / f"3{suffix}"
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"3\.\w+ has changed from [\d,]+ to [\d,]+ bytes since the pool was opened"):
        pool.read(last)
    with pytest.raises(InputError, match="has changed from"):
        pool.take([89])
    path.write_bytes(whole)
    with pytest.raises(InputError, match="has changed at the same size"):
        pool.read(last)
    path.unlink()
    with pytest.raises(InputError, match=r"3\.\w+ has vanished since the pool was opened"):
        pool.read(last)
    assert len(pool.read(pool.fragments(20)[0])), "the other files are still read"


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"vectors": "vce"}, "no column 'vce'; did you mean 'vec'"),
        ({"vectors": "vec", "columns": ["price"]}, "given together"),
        ({"columns": ["price"], "categories": ["make"]}, "categories names 'make'"),
        ({"vectors": "make"}, "column 'make'"),
        ({"vectors": "vec", "id": "key"}, "no column 'key'"),
    ],
)
def test_what_is_asked_of_columns_must_fit(tmp_path: Path, how: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        all_of(kofn.Pool.open(folder_of(tmp_path, ".parquet"), **how))


@pytest.mark.parametrize("source", [np.ones((3, 2)), 7, None, {"a": 1}])
def test_what_is_no_source_is_refused(source: Any) -> None:
    with pytest.raises(InputError, match="source is a"):
        kofn.Pool.open(source)


def test_a_folder_for_temporary_files_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such folder"):
        kofn.Pool.open(frame(), work=tmp_path / "none")


def test_a_fragment_of_another_pool_is_refused(tmp_path: Path) -> None:
    pool = kofn.Pool.open(folder_of(tmp_path, ".npy"))
    with pytest.raises(InputError, match=r"rows 80\.\.99; the pool has rows 0\.\.89"):
        pool.read(Fragment("", 0, 80, 20))


_MEMORY = """
import resource, sys
import numpy as np
import kofn
from kofn.io.parquet import Parquet
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
pool = kofn.Pool.open(sys.argv[1], vectors="vec")
before, total, rows = peak(), 0.0, 0
for part in pool.fragments(10_000):
    block = pool.read(part)
    total += float(block[:, 0].sum(dtype=np.float64))
    rows += len(block)
taken = pool.take(np.arange(0, pool.n, 5_000))
print(rows, total, peak() - before)
"""


@pytest.mark.parametrize("suffix", [".parquet", ".npy"])
def test_memory_is_that_of_a_row_group_and_not_of_the_pool(tmp_path: Path, suffix: str) -> None:
    """150 MB in row groups of 13 MB: a group as it lies in the file and decoded, its copy, and 50 MB."""
    rng, total, n, d = np.random.default_rng(0), 0.0, 100_000, 128
    for i in range(3):
        X = rng.standard_normal((n, d), dtype=np.float32)
        total += float(X[:, 0].sum(dtype=np.float64))
        if suffix == ".npy":
            np.save(tmp_path / f"{i}.npy", X)
        else:
            pl.DataFrame({"vec": X}).write_parquet(tmp_path / f"{i}.parquet", row_group_size=25_000)
    paths = str(tmp_path / f"*{suffix}")
    script = _MEMORY if suffix == ".parquet" else _MEMORY.replace(', vectors="vec"', "")
    ran = subprocess.run([sys.executable, "-c", script, paths], capture_output=True, text=True, check=True)
    rows, summed, megabytes = ran.stdout.split()
    assert int(rows) == 3 * n
    assert float(summed) == pytest.approx(total, rel=1e-9)
    group = 25_000 * d * 4 / 2**20
    assert float(megabytes) < 3 * group + 50


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".jsonl"])
def test_a_file_whose_rows_change_with_size_and_time_kept_is_another_pool(tmp_path: Path, suffix: str) -> None:
    folder = folder_of(tmp_path, suffix)
    before = kofn.Pool.open(folder, vectors=None if suffix == ".npy" else "vec").digest
    path = folder / f"1{suffix}" if suffix == ".jsonl" else folder / f"0{suffix}"
    path = path if path.exists() else folder / f"0{suffix}"
    status, data = path.stat(), bytearray(path.read_bytes())
    position = data.index(b"0.", len(data) // 2) + 2 if suffix == ".jsonl" else len(data) // 3
    data[position] = data[position] ^ 1
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    pool = kofn.Pool.open(folder, vectors=None if suffix == ".npy" else "vec")
    assert pool.digest != before


def test_blocks_of_large_files_are_looked_at_from_the_first_bytes_to_the_last(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    np.save(path, np.zeros((1 << 18, 2), np.float32))
    size, kept = path.stat().st_size, os.stat(path).st_mtime_ns
    digests = {kofn.Pool.open(path).digest}
    for position in (200, size // 7, size * 3 // 7, size - 1):
        data = bytearray(path.read_bytes())
        data[position] = 1
        path.write_bytes(data)
        os.utime(path, ns=(kept, kept))
        digests.add(kofn.Pool.open(path).digest)
    assert len(digests) == 5


@pytest.mark.parametrize(
    ("source", "message"), [([], "no file is named"), (["a.npy", 3], "source holds 3, a int"), (b"ab", "source holds")]
)
def test_a_list_without_names_of_files_is_refused(source: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        kofn.Pool.open(source)


ASKED: dict[str, Any] = {"k": 4, "seed": 0, "method": "two_round_greedy"}


@pytest.mark.parametrize("method", ["two_round_greedy", "farthest_first", "auto"])
@pytest.mark.parametrize("opened_with", [True, False])
def test_the_ids_of_a_pool_are_those_of_the_plan(tmp_path: Path, method: str, opened_with: bool) -> None:
    pool = kofn.Pool.open(folder_of(tmp_path, ".parquet"), vectors="vec", id="id" if opened_with else None)
    named: dict[str, Any] = {} if opened_with else {"ids": "id"}
    plan = kofn.select(pool, k=4, method=method, seed=0, include=[14], exclude=[21, 28], **named)
    assert plan.ids is not None
    assert plan.ids.tolist() == frame()["id"].to_list()
    assert 2 in plan.indices
    assert not {3, 4} & set(plan.indices.tolist())
    with pytest.raises(InputError, match="include"):
        kofn.select(pool, k=4, method=method, seed=0, include=[3], **named)


def test_ids_that_are_given_beside_a_pool_go_first(tmp_path: Path) -> None:
    pool = kofn.Pool.open(folder_of(tmp_path, ".parquet"), vectors="vec", id="id")
    plan = kofn.select(pool, ids=np.arange(ROWS) + 1000, include=[1005], **ASKED)
    assert 5 in plan.indices
    for ids, message in (("idd", "'idd'.*id"), (np.arange(3), "ids has 3")):
        with pytest.raises(InputError, match=message):
            kofn.select(pool, ids=ids, **ASKED)
    assert kofn.select(kofn.Pool.open(tmp_path / "pool", vectors="vec"), **ASKED).ids is None
    with pytest.raises(InputError, match="ArrayPool, which has no columns; give one id an item"):
        kofn.select(ArrayPool(vectors_of(frame())), ids="id", **ASKED)


@pytest.mark.parametrize(
    ("id", "message"),
    [
        (pl.lit(7, pl.Int64), r"7 stands at row 1 and at row 65 \(.*0\.parquet, .*3\.parquet\)"),
        (pl.lit(None, pl.Int64), r"row 65 .*3\.parquet"),
    ],
)
def test_a_plan_of_a_pool_refuses_ids_that_name_no_row(tmp_path: Path, id: pl.Expr, message: str) -> None:
    folder = folder_of(tmp_path, ".parquet")
    frame()[65:].with_columns(id=id).write_parquet(folder / "3.parquet")
    for opened_with, named in (("id", {}), (None, {"ids": "id"})):
        with pytest.raises(InputError, match=message):
            kofn.select(kofn.Pool.open(folder, vectors="vec", id=opened_with), **named, **ASKED)


@pytest.mark.parametrize("suffix", [".parquet", ".npy", ".csv"])
def test_a_pool_goes_to_another_process_by_the_names_of_its_files(tmp_path: Path, suffix: str) -> None:
    save(frame(), tmp_path / f"a{suffix}")
    how: dict[str, Any] = {} if suffix == ".npy" else {"vectors": "vec"}
    pools = [kofn.Pool.open(tmp_path / f"a{suffix}", **how)]
    if suffix == ".csv":
        pools.append(kofn.Pool.open([tmp_path / "a.csv"], columns=["price", "make"]))
    for pool in pools:
        sent = pickle.dumps(pool)
        assert len(sent) < 1000
        there = pickle.loads(sent)
        assert there.digest == pool.digest
        assert np.array_equal(all_of(there, 16), all_of(pool, 16))
        assert np.array_equal(there.take([80, 2]), pool.take([80, 2]))
        assert pickle.loads(sent) is there, "it is opened once a process"
    with (tmp_path / f"a{suffix}").open("ab") as file:
        file.write(b"\n")
    sent = pickle.dumps(pools[0])
    reopened.cache_clear()
    with pytest.raises(InputError, match="has changed"):
        pickle.loads(sent)
    (tmp_path / f"a{suffix}").unlink()
    with pytest.raises(InputError, match=r"is not on node .*; keep the files where all nodes read them"):
        pickle.loads(sent)


def test_a_frame_is_the_same_pool_each_time(tmp_path: Path) -> None:
    """Its vectors go to another file in each process, whose name and time say nothing of them."""
    first, again = (kofn.Pool.open(frame(), vectors="vec", work=tmp_path) for _ in range(2))
    assert first.files != again.files
    assert first.digest == again.digest == ArrayPool(vectors_of(frame())).digest
    other = frame().with_columns(pl.col("vec").reverse())
    assert kofn.Pool.open(other, vectors="vec").digest != first.digest
    assert kofn.Pool.open(other.lazy(), vectors="vec").digest == kofn.Pool.open(other, vectors="vec").digest
