"""Columns of pandas, polars and Arrow: each gives the answer that the same numbers and names give, or is refused."""

from __future__ import annotations

import decimal
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import polars as pl
import pytest

import kofn
from kofn.core.checks import InputError
from kofn.core.checks.columnar import plain_arrow, plain_column
from kofn.io.frames import FrameTable

N = 12
AMOUNTS = (np.random.default_rng(0).permutation(N) + 1).tolist()
ROWS = np.random.default_rng(1).permutation(2 * N).reshape(N, 2)
TEXTS = [f"word{i} and word{i % 4} or other" for i in range(N)]
BIG = 2**60


def _arrow(made: Callable[[Any, Any], Any]) -> Callable[[list[int]], Any]:
    def column(values: list[int]) -> Any:
        pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install pyarrow)")
        return made(pyarrow, values)

    return column


def _pandas(dtype: str) -> Callable[[list[int]], Any]:
    def column(values: list[int]) -> Any:
        pandas = pytest.importorskip("pandas", reason="pandas is not installed")
        if "pyarrow" in dtype:
            pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install pyarrow)")
        return pandas.Series(values, dtype=dtype)

    return column


def _runs(pyarrow: Any, values: list[int]) -> Any:
    return pytest.importorskip(pyarrow.__name__ + ".compute").run_end_encode(pyarrow.array(values))


def _decimals(values: list[int]) -> list[decimal.Decimal]:
    return [decimal.Decimal(value) for value in values]


COLUMNS: dict[str, Callable[[list[int]], Any]] = {
    "polars": pl.Series,
    "polars Int128": lambda values: pl.Series(values, dtype=pl.Int128),
    "polars UInt64": lambda values: pl.Series(values, dtype=pl.UInt64),
    "polars Decimal": lambda values: pl.Series(_decimals(values), dtype=pl.Decimal(30, 2)),
    "Decimal": _decimals,
    "Fraction": lambda values: [Fraction(value) for value in values],
    "masked": np.ma.masked_array,
    "long doubles": lambda values: np.array(values, np.longdouble),
    "pandas Int64": _pandas("Int64"),
    "pandas Arrow": _pandas("int64[pyarrow]"),
    "arrow": _arrow(lambda pyarrow, values: pyarrow.array(values)),
    "arrow chunks": _arrow(lambda pyarrow, values: pyarrow.chunked_array([values[:5], values[5:]])),
    "arrow dictionary": _arrow(lambda pyarrow, values: pyarrow.array(values).dictionary_encode()),
    "arrow dictionaries": _arrow(
        lambda pyarrow, values: pyarrow.chunked_array(
            [pyarrow.array(part).dictionary_encode() for part in (values[:5], values[5:])]
        )
    ),
    "arrow runs": _arrow(_runs),
    "arrow decimal256": _arrow(
        lambda pyarrow, values: pyarrow.array(_decimals(values), pyarrow.decimal256(50, 2)),
    ),
}


def _same(ours: Any, theirs: Any) -> None:
    assert ours.indices.tolist() == theirs.indices.tolist()


@pytest.mark.parametrize("kind", COLUMNS)
def test_numbers_are_the_same_in_every_kind_of_column(kind: str) -> None:
    made = COLUMNS[kind]
    groups = [amount % 3 for amount in AMOUNTS]
    _same(kofn.select(scores=made(AMOUNTS), k=3), kofn.select(scores=AMOUNTS, k=3))
    _same(kofn.select(ROWS, costs=made(AMOUNTS), budget=9), kofn.select(ROWS, costs=AMOUNTS, budget=9))
    by_group: dict[str, Any] = {"quotas": {1: (2, 2)}, "k": 3}
    if kind not in ("long doubles",):
        _same(kofn.select(ROWS, groups=made(groups), **by_group), kofn.select(ROWS, groups=groups, **by_group))
    columns = {"a": ROWS[:, 0].tolist(), "b": ROWS[:, 1].tolist()}
    _same(
        kofn.select({name: made(values) for name, values in columns.items()}, columns=["a", "b"], k=3),
        kofn.select(columns, columns=["a", "b"], k=3),
    )


@pytest.mark.parametrize("kind", [kind for kind in COLUMNS if kind != "long doubles"])
def test_numbers_that_floats_do_not_hold_are_never_rounded_in_silence(kind: str) -> None:
    made, order = COLUMNS[kind], [3, 0, 7, 1, 11, 2, 10, 5, 4, 9, 6, 8]
    values = [BIG + step for step in order]
    with pytest.raises(InputError, match=r"double precision rounds to .*subtract the smallest first"):
        kofn.select(scores=made(values), k=3)
    table = {"a": made(values), "b": order}
    with pytest.raises(InputError, match="double precision rounds to"):
        kofn.select(table, columns=["b"], score="a", method="top_k", k=3)
    # Rows are compared by their distances, which are as those of the small numbers.
    _same(kofn.select(table, columns=["a"], k=3), kofn.select({"a": order}, columns=["a"], k=3))
    if kind in ("polars Int128", "polars Decimal", "Decimal", "Fraction", "arrow decimal256"):
        with pytest.raises(InputError, match="double precision rounds to"):
            kofn.select(ROWS, costs=made(values), budget=3 * BIG + 6)
    else:
        picks = kofn.select(ROWS, costs=made(values), budget=3 * BIG + 6).indices
        assert sum(values[row] for row in picks) <= 3 * BIG + 6
    spent = kofn.select(table, columns=["b"], cost="a", budget=3 * BIG + 6).indices
    assert sum(values[row] for row in spent) <= 3 * BIG + 6


@pytest.mark.parametrize("kind", ["polars", "pandas Int64", "pandas Arrow", "arrow"])
def test_labels_that_are_filled_in_part_stay_apart(kind: str) -> None:
    X = np.arange(10.0)[:, None]
    some = COLUMNS[kind]([BIG + 1, BIG + 2, BIG + 1, *[None] * 7])  # type: ignore[list-item]
    labels = kofn.assign(X, y=some, method="laplacian_shot").labels
    assert labels[:3].tolist() == [0, 1, 0]


def _tensors(pyarrow: Any) -> Any:
    return pyarrow.FixedShapeTensorArray.from_numpy_ndarray(ROWS.astype(np.float32))


LISTS: dict[str, Callable[[Any], Any]] = {
    "views": lambda pyarrow: pyarrow.array(ROWS.tolist(), pyarrow.list_view(pyarrow.int64())),
    "halves": lambda pyarrow: pyarrow.FixedSizeListArray.from_arrays(pyarrow.array(ROWS.ravel().astype(np.float16)), 2),
    "decimals": lambda pyarrow: pyarrow.array([_decimals(row) for row in ROWS.tolist()]),
    "tensors": _tensors,
    "dictionaries": lambda pyarrow: pyarrow.FixedSizeListArray.from_arrays(
        pyarrow.array(ROWS.ravel()).dictionary_encode(), 2
    ),
}


@pytest.mark.parametrize("kind", LISTS)
def test_vectors_are_the_same_in_every_kind_of_list(kind: str) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install pyarrow)")
    column = LISTS[kind](pyarrow)
    expected = kofn.select(ROWS, k=3)
    _same(kofn.select(pyarrow.table({"v": column}), vectors="v", k=3), expected)
    _same(kofn.select(pyarrow.chunked_array([column[:3], column[3:]]), k=3), expected)
    _same(kofn.select(pyarrow.table({"v": column}).slice(2), vectors="v", k=3), kofn.select(ROWS[2:], k=3))


def test_lists_of_booleans_and_wide_numbers_are_vectors() -> None:
    odd = (ROWS % 2).astype(bool)
    _same(kofn.select(pl.DataFrame({"v": odd.tolist()}), vectors="v", k=3), kofn.select(odd, k=3))
    wide = pl.Series(ROWS.tolist(), dtype=pl.List(pl.Int128))
    _same(kofn.select(wide, k=3), kofn.select(ROWS, k=3))
    decimals = pl.Series([[2**24 + 1, 0], [2**24, 0], [0, 0]], dtype=pl.List(pl.Decimal(12, 1)))
    assert FrameTable({"v": decimals}).vectors("v")[:, 0].tolist() == [2**24 + 1, 2**24, 0]


@pytest.mark.parametrize("encode", ["dictionary_encode", "run_end_encode", "string_view"])
def test_texts_are_the_same_in_every_kind_of_column(encode: str) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install pyarrow)")
    compute = pytest.importorskip("pyarrow.compute")
    column = pyarrow.array(TEXTS)
    column = column.cast(pyarrow.string_view()) if encode == "string_view" else getattr(compute, encode)(column)
    _same(kofn.select(column, k=3), kofn.select(TEXTS, k=3))
    _same(kofn.select(pyarrow.table({"t": column}), text="t", k=3), kofn.select({"t": TEXTS}, text="t", k=3))
    one: dict[str, Any] = {"quotas": {TEXTS[5]: (1, 1)}, "k": 2, "include": [TEXTS[3]]}
    _same(kofn.select(ROWS, groups=column, ids=column, **one), kofn.select(ROWS, groups=TEXTS, ids=TEXTS, **one))


def test_numpy_texts_of_any_length_are_groups() -> None:
    texts = np.array(TEXTS, np.dtypes.StringDType())
    one: dict[str, Any] = {"quotas": {TEXTS[5]: (1, 1)}, "k": 2}
    _same(kofn.select(ROWS, groups=texts, **one), kofn.select(ROWS, groups=TEXTS, **one))


def test_what_is_no_number_in_arrow_is_refused_where_it_is_used() -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed (pip install pyarrow)")
    spans = pyarrow.array([pyarrow.MonthDayNano([1, 2, 3])] * 3)
    table = pyarrow.table({"a": [1, 2, 9], "span": spans})
    assert kofn.select(table, columns=["a"], k=1).indices.tolist() == [1]
    with pytest.raises(InputError, match="'span' holds Arrow's month_day_nano_interval; give numbers, texts"):
        kofn.select(table, columns=["span"], k=1)
    with pytest.raises(InputError, match=r"holds Arrow's .*union"):
        plain_arrow(pyarrow.UnionArray.from_sparse(pyarrow.array([0], pyarrow.int8()), [pyarrow.array([1])]), "X")


def test_small_numbers_with_missing_ones_stay_as_they_are() -> None:
    small = pl.Series([1, None, 3])
    assert plain_column(small, "scores") is small
    wide = plain_column(pl.Series([BIG + 1, None]), "scores")
    assert wide.dtype == object
    assert wide.tolist() == [BIG + 1, None]


def test_a_missing_key_is_refused_in_words() -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    with pytest.raises(InputError, match="ids at row 1 is missing"):
        kofn.select(np.arange(3.0)[:, None], ids=pandas.Series([True, None, False], dtype="boolean"), k=1)
