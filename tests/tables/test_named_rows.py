"""How `start`, `include` and `exclude` are read: tables by the names of their columns, arrays by their shape."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import run
from frames import KINDS

import kofn
from kofn import InputError
from kofn.core.checks import KofnWarning

N = 40
WORDS = ("start", "include", "exclude")
POOLS = {
    "texts": pl.DataFrame({"id": range(100, 100 + N), "text": [f"word{i % 7} thing{i % 5} x{i}" for i in range(N)]}),
    "numbers": pl.DataFrame({"id": range(100, 100 + N), "value": [(37 * i) % 101 / 7 for i in range(N)]}),
}


def picks(pool: str, word: str, value: Any, ids: Any = "id") -> list[Any]:
    asked: dict[str, Any] = {"k": 5, word: value, "ids": ids, "text": "text" if pool == "texts" else None}
    plan = kofn.select(POOLS[pool], **asked)
    return list(plan.keys(plan.indices).tolist())


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pool", POOLS)
def test_a_table_is_read_by_the_column_of_the_ids(pool: str, kind: str, word: str) -> None:
    table = KINDS[kind](pl.DataFrame({"score": [101, 102], "id": [105, 106]}))
    assert picks(pool, word, table) == picks(pool, word, [105, 106])


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("pool", POOLS)
def test_without_ids_a_table_is_read_by_our_row_numbers(pool: str, word: str) -> None:
    table = pl.DataFrame({"rank": [1, 2], "row": [5, 6]})
    assert picks(pool, word, table, None) == picks(pool, word, [5, 6], None)


def test_the_only_column_is_the_keys_whatever_its_name() -> None:
    assert picks("texts", "start", pl.DataFrame({"key": [105, 106]})) == picks("texts", "start", [105, 106])
    assert picks("texts", "start", POOLS["texts"].head(0)) == picks("texts", "start", [])


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize(
    ("table", "ids", "says"),
    [
        ({"rank": [1, 2], "row": [5, 6]}, "id", "has no column 'id'; give the column itself, as {}=frame['id']"),
        ({"key": [105], "score": [1]}, "id", "has no column 'id'; give the column itself, as {}=frame['key']"),
        ({"rank": [1, 2]}, "id", "has no column 'id'"),
        ({"id": [5, 6]}, None, "has no column 'row' of row numbers; say which column of both holds the ids with ids"),
    ],
)
@pytest.mark.parametrize("pool", POOLS)
def test_a_table_without_keys_is_refused(pool: str, word: str, table: dict[str, Any], ids: Any, says: str) -> None:
    with pytest.raises(InputError) as error:
        picks(pool, word, pl.DataFrame(table), ids)
    assert f"{word} {says.format(word)}" in str(error.value)


@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("ids", [None, np.arange(N)])
def test_several_columns_beside_an_array_are_refused(word: str, ids: Any) -> None:
    X = np.arange(N, dtype=float)[:, None] ** 2 % 17
    table = pl.DataFrame({"id": [5], "score": [1]})
    for value in (table, table.lazy(), table.to_dict(as_series=False)):
        with pytest.raises(InputError, match=f"{word} is a table of .*columns; give the one of"):
            kofn.select(X, k=5, ids=ids, **{word: value})
    with pytest.raises(InputError, match=rf"{word} has shape \(1, 2\); give one id or row number an item"):
        kofn.select(X, k=5, ids=ids, **{word: table.to_numpy()})
    alone = kofn.select(X, k=5, ids=ids, **{word: [5]})
    for value in (table.select("id"), np.array([[5]])):
        assert np.array_equal(kofn.select(X, k=5, ids=ids, **{word: value}).indices, alone.indices)


@pytest.mark.filterwarnings("always::kofn.core.checks.KofnWarning")
@pytest.mark.parametrize("word", WORDS)
@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_of_the_output_of_every_row_those_with_a_rank_are_taken(
    word: str, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    POOLS["texts"].write_csv("pool.csv")
    asked = ["select", "pool.csv", "--id", "id", "--text", "text"]
    every, few = f"every{suffix}", f"few{suffix}"
    for flags in (["--all", "-o", every], ["-o", few]):
        assert run(capsys, *asked, "-k", 3, *flags)[0] == 0
    more = [*asked, "-k", 6, "-o", "next.csv", f"--{word}"]
    code, _, err = run(capsys, *more, every)
    assert (code, err) == (0, f"kofn: warning: {word} {every} holds 40 rows, of which the 3 with a rank are taken\n")
    by_rank = Path("next.csv").read_text(encoding="utf-8")
    code, _, err = run(capsys, *more, few)
    assert (code, err) == (0, "")
    assert Path("next.csv").read_text(encoding="utf-8") == by_rank


@pytest.mark.parametrize("kind", ["polars", "lazy", "columns", "pandas"])
@pytest.mark.parametrize("pool", POOLS)
def test_of_a_table_of_every_row_in_memory_those_with_a_rank_are_taken(pool: str, kind: str) -> None:
    rank = [None] * N
    rank[5], rank[9] = 1, 2
    table = KINDS[kind](POOLS[pool].with_columns(rank=pl.Series(rank, dtype=pl.Int64)))
    with pytest.warns(KofnWarning, match="^start holds 40 rows, of which the 2 with a rank are taken"):
        answer = picks(pool, "start", table)
    assert answer == picks(pool, "start", [105, 109])
    # Its rows stand in another order than the pool's: without ids none of them is known.
    with pytest.raises(InputError, match="start has no column 'row' of row numbers"):
        picks(pool, "start", table, None)
