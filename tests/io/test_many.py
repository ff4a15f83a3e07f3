"""Several files as one table: all that is read of them is what is read of one file with the same rows."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from kofn.core.checks import InputError
from kofn.io.many import files_of, open_tables
from kofn.io.opening import open_table
from kofn.io.tables import Table, located

ROWS, CUTS = 60, [0, 25, 25, 33, 60]


def frame() -> pl.DataFrame:
    rng = np.random.default_rng(0)
    return pl.DataFrame(
        {
            "id": [f"{i:03}" for i in range(ROWS)],
            # Whole numbers in all files but the last, where a decimal and an empty cell make them others.
            "late": [str(i) for i in range(50)] + ["1.5", None] + ["7"] * 8,
            "word": ["3" if i < 40 else 'a, "b"' for i in range(ROWS)],
            "truth": [i % 3 == 0 for i in range(ROWS)],
            "vec": rng.normal(size=(ROWS, 3)).astype(np.float32).tolist(),
        },
        schema_overrides={"vec": pl.List(pl.Float32)},
    )


def as_text(rows: pl.DataFrame) -> pl.DataFrame:
    vectors = ["[" + ", ".join(map(str, cell)) + "]" for cell in rows["vec"].to_list()]
    return rows.with_columns(vec=pl.Series(vectors, dtype=pl.String))


def matrix(rows: pl.DataFrame) -> np.ndarray:
    return np.array(rows["vec"].to_list(), np.float32).reshape(len(rows), 3)


def packed(rows: pl.DataFrame, path: Path) -> None:
    with gzip.open(path, "wb") as file:
        file.write(as_text(rows).write_csv().encode())


WRITERS: dict[str, Callable[[pl.DataFrame, Path], object]] = {
    ".csv": lambda rows, path: as_text(rows).write_csv(path),
    ".tsv": lambda rows, path: as_text(rows).write_csv(path, separator="\t"),
    ".csv.gz": packed,
    ".parquet": lambda rows, path: rows.write_parquet(path, row_group_size=7),
    ".jsonl": lambda rows, path: rows.write_ndjson(path),
    ".npy": lambda rows, path: np.save(path, np.array(rows["vec"].to_list(), np.float32).reshape(len(rows), 3)),
    ".npz": lambda rows, path: np.savez(
        path,
        vec=np.array(rows["vec"].to_list(), np.float32).reshape(len(rows), 3),
        id=rows["id"].to_numpy().astype("U3"),
    ),
}


def written(folder: Path, suffix: str, cuts: list[int] = CUTS) -> tuple[Table, Table]:
    """The files as one table, and the one file with all rows."""
    rows = frame()
    for i, (start, stop) in enumerate(pairwise(cuts)):
        if start == stop and suffix == ".jsonl":
            continue
        WRITERS[suffix](rows[start:stop], folder / f"part-{i}{suffix}")
    WRITERS[suffix](rows, folder / f"all{suffix}")
    return open_tables([str(folder / f"part-*{suffix}")]), open_table(folder / f"all{suffix}")


@pytest.mark.parametrize("suffix", WRITERS)
def test_all_that_is_read_is_what_one_file_gives(tmp_path: Path, suffix: str) -> None:
    several, one = written(tmp_path, suffix)
    assert (several.n, several.columns, several.types) == (one.n, one.columns, one.types)
    for name in one.columns:
        assert several.dtype(name) == one.dtype(name)
        assert several.column(name).equals(one.column(name)), name
    wanted = [59, 0, 24, 25, 33, 32, 59]
    assert several.take(wanted).equals(one.take(wanted))
    name = "vector" if suffix == ".npy" else "vec"
    assert (several.vectors(name) == one.vectors(name)).all()
    assert pl.concat(list(several._blocks(name, 8))).equals(pl.concat(list(one._blocks(name, 8))))
    if "id" in one.columns:
        assert several.ids("id").tolist() == one.ids("id").tolist()
        assert several.labels("id").tolist() == one.labels("id").tolist()


def test_lines_stay_as_they_stand_in_their_files(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"x":  1.50}\n\n{"x": [1,  2], "y": null}\n')
    (tmp_path / "b.jsonl").write_text('{"y":"z",   "x": 3}')
    table = open_tables([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert table.columns == ["x", "y"]
    assert table.lines(np.array([2, 0, 1, 2])) == [
        b'{"y":"z",   "x": 3}',
        b'{"x":  1.50}',
        b'{"x": [1,  2], "y": null}',
        b'{"y":"z",   "x": 3}',
    ]


def test_a_folder_holds_its_tables_by_name_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b/2.csv", "a/1.csv", "c.csv.zst", "_SUCCESS", "notes.txt", ".hidden.csv", "_meta/x.csv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x\n1\n")
    assert [path.relative_to(tmp_path).as_posix() for path in files_of([tmp_path])] == [
        "a/1.csv",
        "b/2.csv",
        "c.csv.zst",
    ]


def test_a_name_with_marks_of_a_glob_is_the_file_that_is_called_so(tmp_path: Path) -> None:
    (tmp_path / "x[1].csv").write_text("x\n1\n")
    (tmp_path / "x1.csv").write_text("x\n2\n")
    assert open_tables([str(tmp_path / "x[1].csv")]).column("x").to_list() == [1]


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_folders_called_like_keys_make_columns(tmp_path: Path, suffix: str) -> None:
    rows = frame()
    for year, lang, part in (("2020", "de", rows[:10]), ("2021", "en", rows[10:30]), ("2021", "fr", rows[30:])):
        folder = tmp_path / f"year={year}" / f"lang={lang}"
        folder.mkdir(parents=True)
        WRITERS[suffix](part, folder / f"x{suffix}")
    for source in (str(tmp_path), str(tmp_path / "*" / "*" / f"*{suffix}")):
        table = open_tables([source])
        assert table.columns == [*rows.columns, "year", "lang"]
        assert table.column("year").to_list() == [2020] * 10 + [2021] * 50
        assert table.labels("lang").tolist() == ["de"] * 10 + ["en"] * 20 + ["fr"] * 30
        assert table.take([59, 0])["lang"].to_list() == ["fr", "de"]
        assert table.take([59, 0])["year"].to_list() == [2021, 2020]


def test_a_key_without_a_value_is_an_empty_cell(tmp_path: Path) -> None:
    for key in ("1", "__HIVE_DEFAULT_PARTITION__"):
        (tmp_path / f"k={key}").mkdir()
        pl.DataFrame({"x": [1.0]}).write_parquet(tmp_path / f"k={key}" / "a.parquet")
    assert open_tables([tmp_path]).column("k").to_list() == [1, None]


def test_numbers_of_several_types_are_read_in_the_wider_one(tmp_path: Path) -> None:
    pl.DataFrame({"x": [1, 2], "v": [[1.0], [2.0]]}, schema={"x": pl.Int32, "v": pl.List(pl.Float32)}).write_parquet(
        tmp_path / "a.parquet"
    )
    pl.DataFrame({"v": [[1.5]], "x": [0.5]}, schema={"v": pl.Array(pl.Float64, 1), "x": pl.Float32}).write_parquet(
        tmp_path / "b.parquet"
    )
    table = open_tables([tmp_path])
    assert table.column("x").to_list() == [1.0, 2.0, 0.5]
    assert table.vectors("v").tolist() == [[1.0], [2.0], [1.5]]
    assert table.vectors("v").dtype == np.float64
    assert table.take([2, 0])["v"].to_list() == [[1.5], [1.0]]


def save(path: Path, columns: dict[str, object]) -> None:
    pl.DataFrame(columns).write_parquet(path)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (
            {"x": [1], "y": [1]},
            {"x": [1]},
            r"b\.parquet has no column 'y', which .*a\.parquet has; write the files alike",
        ),
        ({"x": [1]}, {"x": [1], "y": [1]}, r"b\.parquet has a column 'y', which .*a\.parquet has not"),
        ({"x": [1]}, {"x": ["1"]}, r"column 'x' holds String in .*b\.parquet and Int64 in .*a\.parquet"),
        (
            {"x": pl.Series([[1.0, 2.0]], dtype=pl.Array(pl.Float32, 2))},
            {"x": pl.Series([[1.0]], dtype=pl.Array(pl.Float32, 1))},
            r"column 'x' holds Array\(Float32, shape=\(1,\)\) in .*b\.parquet and Array",
        ),
    ],
)
def test_files_that_are_unlike_are_named(
    tmp_path: Path, a: dict[str, object], b: dict[str, object], message: str
) -> None:
    save(tmp_path / "a.parquet", a)
    save(tmp_path / "b.parquet", b)
    with pytest.raises(InputError, match=message):
        open_tables([tmp_path])


def test_what_cannot_be_one_table_is_refused(tmp_path: Path) -> None:
    save(tmp_path / "a.parquet", {"x": [1]})
    with pytest.raises(InputError, match=r"a\.parquet is named twice"):
        open_tables([tmp_path / "a.parquet", str(tmp_path / "*.parquet")])
    (tmp_path / "b.csv").write_text("x\n1\n")
    with pytest.raises(InputError, match=r"nothing: no such file"):
        open_tables([tmp_path / "a.parquet", tmp_path / "nothing"])
    (tmp_path / "bare").write_text("x\n1\n")
    with pytest.raises(InputError, match=r"a\.parquet is \.parquet and .*bare has no suffix; name files of one kind"):
        open_tables([tmp_path / "a.parquet", tmp_path / "bare"])
    with pytest.raises(InputError, match=r"a\.parquet is \.parquet and .*b\.csv is \.csv; name files of one kind"):
        open_tables([tmp_path])
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match="none is a folder without a table in it"):
        open_tables([tmp_path / "none"])
    with pytest.raises(InputError, match=r"q\*\.csv: no file is called so; check the glob"):
        open_tables([str(tmp_path / "q*.csv")])
    with pytest.raises(InputError, match=r"s3://b/\*\.parquet: no file is called so; download it first"):
        open_tables(["s3://b/*.parquet"])
    with pytest.raises(InputError, match=r"missing\.csv: no such file"):
        open_tables([tmp_path / "b.csv", tmp_path / "missing.csv"])
    (tmp_path / "none" / "k=1").mkdir()
    (tmp_path / "none" / "k=1" / "x.jsonl").write_text('{"x": 1}\n')
    with pytest.raises(InputError, match=r"folders called k=\.\.\. make a column of Parquet, CSV and TSV files only"):
        open_tables([tmp_path / "none"])
    save(tmp_path / "none" / "k=1" / "x.parquet", {"x": [1]})
    save(tmp_path / "none" / "y.parquet", {"x": [1]})
    (tmp_path / "none" / "k=1" / "x.jsonl").unlink()
    with pytest.raises(InputError, match=r"x\.parquet is in a folder k=\.\.\., .*y\.parquet is not"):
        open_tables([tmp_path / "none"])


def test_no_file_has_a_row(tmp_path: Path) -> None:
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("x,y\n")
    with pytest.raises(InputError, match="no file of 2 has a row"):
        open_tables([tmp_path])


def test_arrays_of_unlike_shapes_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.ones((2, 3)))
    np.save(tmp_path / "b.npy", np.ones((2, 4)))
    with pytest.raises(InputError, match=r"b\.npy array 'vector' has shape \(2, 4\), float64, and .*a\.npy \(2, 3\)"):
        open_tables([tmp_path])


def test_errors_say_in_which_file_a_row_stands(tmp_path: Path) -> None:
    rows = frame()
    for i in range(2):
        part = rows[30 * i : 30 * i + 30]
        part = part.with_columns(n=pl.Series([1.0] * 29 + [None if i else 2.0]))
        part.write_parquet(tmp_path / f"{i}.parquet")
    table = open_tables([tmp_path])
    with pytest.raises(InputError, match=r"row 59 is empty.*\(row 59 is row 29 of .*1\.parquet\)"), located(table):
        table.numbers("n")


def test_zstandard_is_read_and_refused_where_it_is_damaged(tmp_path: Path) -> None:
    text = 'x,w\n1,"a\n\nb"\n2,ü\n'
    plain = tmp_path / "a.csv"
    plain.write_text(text)
    # polars writes no Zstandard; a frame of raw blocks is Zstandard too.
    body = text.encode()
    header = b"\x28\xb5\x2f\xfd" + bytes([0b00100000, len(body)])
    block = (1 | 0 << 1 | len(body) << 3).to_bytes(3, "little")
    (tmp_path / "b.csv.zst").write_bytes(header + block + body)
    assert open_table(tmp_path / "b.csv.zst").take([0, 1]).equals(open_table(plain).take([0, 1]))
    (tmp_path / "d.csv.zst").write_bytes(header + block + body[:5])
    with pytest.raises(InputError, match=r"d\.csv\.zst cannot be decompressed"):
        open_table(tmp_path / "d.csv.zst")


def test_a_part_that_is_damaged_in_the_middle_is_named(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for part in range(3):
        pl.DataFrame({"x": rng.random(3_000), "y": rng.random(3_000)}).write_parquet(tmp_path / f"part-{part}.parquet")
    damaged = tmp_path / "part-1.parquet"
    content = bytearray(damaged.read_bytes())
    content[200:20_000] = bytes(19_800)
    damaged.write_bytes(content)
    table = open_tables([tmp_path / "part-*.parquet"])
    for read in (lambda: table.column("x"), lambda: table.take([1, 4_000])):
        with pytest.raises(InputError, match=r"part-1\.parquet cannot be read"):
            read()
