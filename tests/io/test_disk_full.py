"""No disk is left where a pool's vectors are written: the folder is named, not the files that are read."""

from __future__ import annotations

import resource
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import kofn
from kofn.core.checks import FailureError, InputError
from kofn.selection import near_duplicates_by_cells

X = np.random.default_rng(0).normal(size=(900, 4))
COLUMNS = ["a", "b", "c", "d"]


@pytest.fixture
def little_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files of which none may grow beyond 10,000 bytes."""
    room = tmp_path / "room"
    room.mkdir()
    pl.DataFrame(X, schema=COLUMNS).write_csv(tmp_path / "x.csv")
    monkeypatch.setattr("tempfile.tempdir", str(room))
    limit, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))
    try:
        yield room
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize(
    "write",
    [
        lambda folder: kofn.Pool.open(folder / "x.csv", columns=COLUMNS),
        lambda _folder: kofn.Pool.open(pl.DataFrame({"x": X}).lazy(), vectors="x"),
        lambda _folder: near_duplicates_by_cells(X, 0.9, cells=3, probes=2),
    ],
)
def test_the_folder_is_named_and_nothing_left(write: Callable[[Path], Any], little_room: Path) -> None:
    with pytest.raises(FailureError, match=r"room: the pool's vectors cannot be written there \(.*\); set TMPDIR to"):
        write(little_room.parent)
    assert not list(little_room.iterdir())


def test_what_cannot_be_read_is_said_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pl.DataFrame({"x": X.astype(np.float32)}).write_parquet(path)
    pool = kofn.Pool.open(path, vectors="x")
    path.unlink()
    with pytest.raises(InputError, match=r"x\.parquet has vanished since the pool was opened; put it back"):
        kofn.select(pool, k=3, method="two_round_greedy", seed=0)
