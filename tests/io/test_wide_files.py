"""Files of many columns, which are read as a whole for each column that is asked for, are read a few times only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kofn.io import formats, scanned
from kofn.io.opening import open_table
from kofn.io.vectors import pool_vectors

COLUMNS = 120
VALUES = np.random.default_rng(0).normal(size=(3, COLUMNS)).round(3)
NAMES = [f"gene{column}" for column in range(COLUMNS)]


@pytest.fixture(params=["csv", "jsonl"])
def wide(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"wide.{request.param}"
    rows = VALUES.tolist()
    if request.param == "csv":
        lines = [",".join(NAMES), *(",".join(map(str, row)) for row in rows)]
    else:
        lines = [json.dumps(dict(zip(NAMES, row, strict=True))) for row in rows]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_columns_are_read_together(wide: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collect, reads = scanned.collected, [0]

    def counted(scan: Any) -> Any:
        reads[0] += 1
        return collect(scan)

    monkeypatch.setattr(scanned, "collected", counted)
    monkeypatch.setattr(formats, "collected", counted)
    table = open_table(wide)
    order = np.random.default_rng(1).permutation(COLUMNS).tolist()
    for columns in (range(COLUMNS), order):
        read = [table.numbers(NAMES[column]).tolist() for column in columns]
        assert read == VALUES.T[list(columns)].tolist()
    assert reads[0] < COLUMNS / 3
    # Where rows are many, so many cells at most are held at a time.
    monkeypatch.setattr(scanned, "_CELLS_AHEAD", 30)
    table = open_table(wide)
    assert [table.numbers(name)[0] for name in NAMES] == VALUES[0].tolist()
    assert len(table._ahead) <= 10


def test_names_of_many_columns_are_found(wide: Path) -> None:
    table = open_table(wide)
    looked = [0]
    find = table._find

    def counted(name: str) -> str | None:
        looked[0] += 1
        return find(name)

    table._find = counted  # type: ignore[method-assign]
    assert table.named(NAMES) == tuple(NAMES)
    assert looked[0] <= 3 * COLUMNS
    assert pool_vectors(table, columns=NAMES).X.shape == (3, COLUMNS)


def test_names_of_categories_are_counted_by_their_column(tmp_path: Path) -> None:
    path = tmp_path / "odd.csv"
    path.write_text("a,a=b\nx,1.5\nb=y,2.5\nz,3.5\n", encoding="utf-8")
    how = pool_vectors(open_table(path), columns=["a", "a=b"]).how
    assert how == "columns a (3 names), a=b scaled to equal weight"
