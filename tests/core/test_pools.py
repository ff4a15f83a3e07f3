"""Pools in fragments: every row once, in order, cut by the layout and `part_rows` alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kofn.core.checks import InputError
from kofn.core.pools import ArrayPool, Pool, Unit, cut, joined

UNITS = st.lists(st.integers(0, 30), min_size=1, max_size=12).map(
    lambda sizes: [Unit(f"file {i // 2}", i % 2, rows) for i, rows in enumerate(sizes)]
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(UNITS, st.integers(1, 25))
def test_fragments_are_all_rows_once_in_order(units: list[Unit], part_rows: int) -> None:
    fragments = cut(units, part_rows)
    rows = [row for fragment in fragments for row in range(fragment.first_row, fragment.stop)]
    assert rows == list(range(sum(unit.rows for unit in units)))
    assert all(1 <= fragment.rows <= part_rows for fragment in fragments)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(UNITS, st.integers(1, 25))
def test_large_units_are_cut_evenly_and_small_ones_are_joined_whole(units: list[Unit], part_rows: int) -> None:
    borders = np.cumsum([0, *(unit.rows for unit in units)]).tolist()
    for fragment in cut(units, part_rows):
        inside = [(a, b) for a, b in pairwise(borders) if a < fragment.stop and b > fragment.first_row]
        if len(inside) > 1:
            assert fragment.first_row in borders
            assert fragment.stop in borders
        ((low, high), *more) = inside
        if not more and high - low > part_rows:
            assert fragment.rows >= (high - low) // -(-(high - low) // part_rows)
    runs = joined(units, part_rows)
    for first, second in pairwise(runs):
        following = next(
            unit.rows for unit, low in zip(units, borders, strict=False) if low == second.first_row and unit.rows
        )
        assert first.rows + following > part_rows


def test_a_fragment_says_where_it_begins() -> None:
    units = [Unit("a", 0, 3), Unit("a", 1, 9), Unit("b", 0, 2), Unit("b", 1, 2)]
    assert [(f.source, f.part, f.first_row, f.rows) for f in cut(units, 5)] == [
        ("a", 0, 0, 3),
        ("a", 1, 3, 5),
        ("a", 1, 8, 4),
        ("b", 0, 12, 4),
    ]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_pool_in_memory(dtype: type) -> None:
    X = np.random.default_rng(0).normal(size=(100, 3)).astype(dtype)
    pool = ArrayPool(X)
    assert isinstance(pool, Pool)
    assert (pool.n, pool.width, pool.dtype) == (100, 3, dtype)
    parts = [pool.read(fragment) for fragment in pool.fragments(part_rows=7)]
    assert max(map(len, parts)) <= 7
    assert (np.concatenate(parts) == X).all()
    assert (pool.take([99, 0, 50, 0]) == X[[99, 0, 50, 0]]).all()
    assert pool.take([]).shape == (0, 3)
    assert pool.digest == ArrayPool(X.copy()).digest
    X[99, 2] += 1
    assert pool.digest != ArrayPool(X).digest


@pytest.mark.parametrize(
    ("rows", "message"),
    [([0, 5], r"row 5; the pool has rows 0\.\.4"), ([-1], "row -1"), ([0.5], "row numbers"), ([[0]], "row numbers")],
)
def test_rows_that_are_not_there_are_refused(rows: list[float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ArrayPool(np.ones((5, 2))).take(rows)


def test_part_rows_must_be_a_count() -> None:
    with pytest.raises(InputError, match="part_rows=0"):
        ArrayPool(np.ones((5, 2))).fragments(part_rows=0)
