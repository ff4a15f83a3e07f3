"""Tables in memory are read as files are, and rows are given back as the kind that they came in."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from frames import KINDS
from scipy import sparse

import kofn
from kofn.core.checks import InputError
from kofn.core.checks.kinds import frame_kind, holds_texts
from kofn.io.frames import FrameTable, as_series, unordered

FRAME = pl.DataFrame(
    {
        "name": ["a", None, "c"],
        "count": [1, 2, None],
        "size": [1.5, None, 2.5],
        "when": pl.Series(["2024-01-01", None, "2024-03-01"]).str.to_datetime(),
        "emb": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]],
        "new": [True, None, False],
    }
)
WORD = {"name": "text", "count": "number", "size": "number", "when": "date", "emb": "vector", "new": "boolean"}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "file"])
def test_a_column_has_the_same_type_and_gaps_in_every_kind(kind: str) -> None:
    table = FrameTable(KINDS[kind](FRAME))
    assert frame_kind(KINDS[kind](FRAME)) is not None
    for name, word in WORD.items():
        assert table.dtype(name) == word, name
        assert table.column(name).null_count() == FRAME[name].null_count(), name
    assert table.vectors("emb").tolist() == FRAME["emb"].to_list()
    assert table.texts("name").to_list() == ["a", "", "c"]
    assert (table.n, table.columns) == (3, FRAME.columns)


def test_pandas_own_types_are_read() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(
        {
            "whole": pandas.array([1, None, 3], dtype="Int64"),
            "yes": pandas.array([True, None, False], dtype="boolean"),
            "kind": pandas.Categorical(["u", "v", None]),
            "level": pandas.Categorical([3, 1, 3]),
            "zoned": pandas.to_datetime(["2024-01-01", "2024-06-01", None]).tz_localize("Europe/Berlin"),
            "objects": np.array([np.array([1.0, 2.0]), np.array([3.0, 4.0]), None], dtype=object),
        }
    )
    table = FrameTable(frame)
    assert table.column("whole").to_list() == [1, None, 3]
    assert table.column("yes").to_list() == [True, None, False]
    assert table.column("kind").cast(pl.String).to_list() == ["u", "v", None]
    assert table.labels("level").tolist() == ["3", "1", "3"]
    assert table.dtype("level") == "text"  # a category is a name, however it is written
    zoned = table.column("zoned")
    assert str(zoned[0]) == "2023-12-31 23:00:00+00:00"
    assert zoned.null_count() == 1
    with pytest.raises(InputError, match="X column 'objects' at row 2 is empty"):
        table.vectors("objects")


def test_columns_of_a_dict_may_be_arrays_and_tensors() -> None:
    matrix = torch.arange(6, dtype=torch.bfloat16).reshape(3, 2).requires_grad_()
    table = FrameTable({"emb": matrix, "n": np.array([1, 2, 3], ">i4"), "t": ("a", "b", "c"), "r": range(3)})
    assert table.vectors("emb").tolist() == [[0, 1], [2, 3], [4, 5]]
    assert table.numbers("n").tolist() == [1, 2, 3]
    assert table.numbers("r").tolist() == [0, 1, 2]
    assert table.take([2, 0])["t"].to_list() == ["c", "a"]


class NoSequence:
    """What has a length and no items."""

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("frame", "column", "fault"),
    [
        ({"a": ["x", 1]}, "a", "several kinds, str .first at row 0. and int .first at row 1."),
        ({"a": [object(), object()]}, "a", "objects of type object"),
        ({"a": [[1.0], "x"]}, "a", "several kinds, list .first at row 0. and str .first at row 1."),
        ({"a": np.zeros((2, 2, 2))}, "a", r"shape \(2, 2, 2\); give \(n,\) or \(n, d\)"),
        ({"a": sparse.eye(3, format="csr")}, "a", "is a sparse matrix; give it alone as X"),
        ({"a": NoSequence()}, "a", "give a list of values, one a row"),
    ],
)
def test_columns_that_no_table_holds_are_named(frame: Any, column: str, fault: str) -> None:
    with pytest.raises(InputError, match=f"X column 'a' .*{fault}"):
        FrameTable(frame).column(column)


@pytest.mark.parametrize(
    ("frame", "fault"),
    [
        ({"a": [1, 2], "b": [1]}, "X column 'b' has 1 values and 'a' has 2"),
        ({"a": "text"}, "X column 'a' is a str; give one value a row"),
        ({"a": 3}, "X column 'a' is a int"),
        ({"a": {"b": 1}}, "X column 'a' is a dict; give one value a row"),
        ({"a": {1, 2}}, "X column 'a' is a set; give one value a row"),
        ({"a": []}, "X is empty: it has no rows"),
        (pl.DataFrame(), "X has no columns"),
    ],
)
def test_what_is_no_table_is_refused(frame: Any, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        FrameTable(frame)


def test_columns_of_one_name_are_refused() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    with pytest.raises(InputError, match="two columns named 'a'"):
        FrameTable(pandas.DataFrame([[1, 2]], columns=["a", "a"]))


def test_ragged_vectors_are_refused_by_row() -> None:
    with pytest.raises(InputError, match="X column 'emb' at row 1 has 1 values, row 0 has 2"):
        kofn.select({"emb": [[1.0, 2.0], [3.0]], "n": [1, 2]}, vectors="emb", k=1)


@pytest.mark.parametrize(
    ("query", "step"),
    [
        (lambda lazy: lazy.group_by("a").len(), "AGGREGATE"),
        (lambda lazy: lazy.unique(), "UNIQUE"),
        (lambda lazy: lazy.join(lazy, on="a"), "JOIN"),
        (lambda lazy: lazy.select(pl.col("a").shuffle()), "shuffle"),
        (lambda lazy: lazy.select(pl.col("a").sample(2)), "sample"),
        (lambda lazy: lazy.filter(pl.col("a") > 0).with_columns(b=1).sort("a").head(2), ""),
        (lambda lazy: lazy.group_by("a", maintain_order=True).len(), ""),
        (lambda lazy: lazy.group_by("a").len().sort("a"), ""),
    ],
)
def test_lazy_rows_without_an_order_are_told(query: Any, step: str) -> None:
    lazy = query(pl.LazyFrame({"a": [1, 2, 2]}))
    told_step = unordered(lazy)
    assert (step in told_step) if step else told_step == ""


def test_a_lazy_frame_without_an_order_needs_ids_by_which_its_rows_are_found_again() -> None:
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"key": np.repeat(np.arange(40), 2), "x": rng.normal(size=80), "y": rng.normal(size=80)})
    lazy = frame.lazy().group_by("key").agg(pl.col("x", "y").mean())
    with pytest.raises(InputError, match=r"rows come in no fixed order .*; sort it last, collect it first, or name a"):
        kofn.select(lazy, columns=["x", "y"], k=4)
    plan = kofn.select(lazy, columns=["x", "y"], ids="key", k=4)
    sorted_plan = kofn.select(lazy.sort("key"), columns=["x", "y"], ids="key", k=4)
    assert set(plan.picked_ids.tolist()) == set(sorted_plan.picked_ids.tolist())
    assert plan.take(lazy, ids="key").collect()["key"].to_list() == plan.picked_ids.tolist()


def test_a_lazy_query_is_made_once_for_the_columns_that_are_used() -> None:
    made: list[list[str]] = []

    def watched(frame: pl.DataFrame) -> pl.DataFrame:
        made.append(frame.columns)
        return frame

    lazy = pl.LazyFrame({"a": [1.0, 2.0, 9.0], "b": ["x", "y", "x"], "c": [1, 2, 3]}).map_batches(watched)
    kofn.select(lazy, columns=["a"], groups="b", quotas={"y": 1}, k=2)
    assert len(made) == 2  # the number of rows, and the columns


@pytest.mark.parametrize(
    ("value", "texts"),
    [
        (["a", None], True),
        (np.array(["a"]), True),
        (np.array(["a", float("nan")], object), True),
        (pl.Series(["a"]), True),
        ([None, None], False),
        (["a", 1], False),
        ([], False),
        ("abc", False),
        ([["a"]], False),
        (np.array([1.0]), False),
        ({"a": 1}, False),
        (b"abc", False),
    ],
)
def test_texts_are_told_from_anything_else(value: Any, texts: bool) -> None:
    assert holds_texts(value) is texts


def test_a_column_of_numbers_with_gaps_has_nulls() -> None:
    assert as_series("a", [1, None, 2.5]).to_list() == [1.0, None, 2.5]
    assert as_series("a", [1, float("nan")]).null_count() == 1
