"""`plan.take`: the picked rows, in the order picked, as the kind that they came in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from command_line import make_pool
from frames import KINDS
from scipy import sparse

import kofn
from kofn.core.checks import InputError

POOL = make_pool(30)
X = np.stack(POOL["emb"].to_numpy())
PLAN = kofn.select(POOL, vectors="emb", ids="key", k=4)
WANTED = PLAN.picked_ids.tolist()


def keys_of(rows: Any) -> list[str]:
    if isinstance(rows, pl.LazyFrame):
        rows = rows.collect()
    if getattr(getattr(rows, "index", None), "name", None) == "key":
        return list(rows.index)
    column = rows["key"]
    return column.to_pylist() if hasattr(column, "to_pylist") else list(column)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_gives_a_frame_of_its_kind(kind: str) -> None:
    data = KINDS[kind](POOL)
    rows = PLAN.take(data)
    assert keys_of(rows) == WANTED
    assert isinstance(rows, pl.DataFrame if kind == "file" else type(data))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "file"])
def test_rows_are_found_by_their_ids_wherever_they_stand(kind: str) -> None:
    others = POOL.with_columns(pl.col("key") + "x")
    shuffled = pl.concat([POOL, others]).sample(fraction=1.0, shuffle=True, seed=3)
    assert keys_of(PLAN.take(KINDS[kind](shuffled), ids="key")) == WANTED


def test_the_index_of_a_pandas_frame_may_hold_the_ids() -> None:
    frame = KINDS["pandas"](POOL.sample(fraction=1.0, shuffle=True, seed=3)).set_index("key")
    assert keys_of(PLAN.take(frame, ids="key")) == WANTED


def test_a_lazy_frame_stays_lazy_with_its_columns() -> None:
    rows = PLAN.take(POOL.lazy())
    assert isinstance(rows, pl.LazyFrame)
    assert rows.collect_schema() == POOL.schema


def test_series_lists_and_arrays_keep_their_kind(tmp_path: Path) -> None:
    names = POOL["key"].to_list()
    assert PLAN.take(names) == WANTED
    assert PLAN.take(tuple(names)) == tuple(WANTED)
    assert PLAN.take(POOL["key"]).to_list() == WANTED
    assert PLAN.take(np.array(names)).tolist() == WANTED
    assert PLAN.take({"a": names, "b": X})["a"] == WANTED
    np.save(tmp_path / "x.npy", X)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    assert (PLAN.take(mapped) == X[PLAN.indices]).all()
    assert kofn.select(mapped, k=4).indices.tolist() == PLAN.indices.tolist()


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "bsr", "dia"])
def test_sparse_rows_stay_sparse(kind: str) -> None:
    rows = PLAN.take(sparse.csr_array(X).asformat(kind))
    assert sparse.issparse(rows)
    assert (rows.toarray() == X[PLAN.indices]).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.int64])
def test_a_tensor_keeps_dtype_device_and_gradient(dtype: torch.dtype) -> None:
    tensor = torch.tensor(X).to(dtype).requires_grad_(dtype.is_floating_point)
    rows = PLAN.take(tensor)
    assert rows.dtype == dtype
    assert rows.device == tensor.device
    assert rows.requires_grad == tensor.requires_grad
    assert torch.equal(rows, tensor[PLAN.indices.tolist()])


def test_torch_data_sets_are_picked_from_and_sampled_by_a_plan() -> None:
    class Numbered(torch.utils.data.Dataset):
        def __len__(self) -> int:
            return len(POOL)

        def __getitem__(self, row: int) -> int:
            return row

    rows = PLAN.indices.tolist()
    subset = PLAN.take(Numbered())
    assert isinstance(subset, torch.utils.data.Subset)
    assert list(subset) == rows
    assert list(torch.utils.data.Subset(Numbered(), PLAN)) == rows
    loader = torch.utils.data.DataLoader(Numbered(), sampler=PLAN, batch_size=3)
    assert torch.cat(list(loader)).tolist() == rows
    assert torch.cat(list(loaded(Numbered()))).tolist() == rows


def loaded(data: Any) -> Any:
    batches = torch.utils.data.BatchSampler(PLAN, batch_size=3, drop_last=False)
    return torch.utils.data.DataLoader(data, batch_sampler=batches)


@pytest.mark.parametrize(
    ("data", "fault"),
    [
        (POOL.head(3), "data has 3 rows, and the plan is of 30"),
        (X[:3], "data has 3 rows"),
        ("abc", "data='abc': give the rows"),
        (3, "data: a int that cannot be read"),
        ({"a": [1] * 30, "b": [1]}, "data: a dict that cannot be read"),
    ],
)
def test_what_has_no_such_rows_is_refused(data: Any, fault: str) -> None:
    with pytest.raises(InputError, match=fault):
        PLAN.take(data)


def test_ids_that_are_not_there_are_refused() -> None:
    with pytest.raises(InputError, match=r"the plan names 'r0.*', which no row has as its id"):
        PLAN.take(POOL.filter(pl.col("key") != WANTED[0]), ids="key")
    with pytest.raises(InputError, match="X has no column 'kye'; did you mean 'key'"):
        PLAN.take(POOL, ids="kye")
    with pytest.raises(InputError, match="the plan has no ids"):
        kofn.select(X, k=2).take(POOL, ids="key")
    with pytest.raises(InputError, match="ids='key' names a column, and data is a list"):
        PLAN.take(POOL["key"].to_list(), ids="key")
    # What a lazy query will give is not known when it is asked for.
    assert keys_of(PLAN.take(POOL.lazy().filter(~pl.col("key").is_in(WANTED[:2])), ids="key")) == WANTED[2:]


def test_a_file_of_other_rows_is_refused(tmp_path: Path) -> None:
    POOL.head(5).write_parquet(tmp_path / "few.parquet")
    with pytest.raises(InputError, match="data has 5 rows, and the plan is of 30"):
        PLAN.take(tmp_path / "few.parquet")


@pytest.mark.parametrize("numbers", [True, False])
def test_rows_are_found_by_the_ids_that_a_frame_holds(numbers: bool) -> None:
    ids = np.arange(100, 130) if numbers else np.array([f"r{i}" for i in range(30)])
    frame = pl.DataFrame({"id": ids, "v": np.random.default_rng(0).normal(size=30)})
    plan = kofn.select(frame, columns=["v"], ids="id", k=4)
    moved = frame.reverse()
    for data in (frame, moved, moved.to_dict(as_series=False)):
        taken = plan.take(data)
        assert list(taken["id"]) == plan.picked_ids.tolist()
    # Where no column holds them, rows are those of the plan's numbers.
    assert plan.take(moved.drop("id"))["v"].to_list() == moved["v"].gather(plan.indices).to_list()
    twice = moved.with_columns(other=pl.Series(np.roll(ids, 3)))
    with pytest.raises(InputError, match="both hold the plan's ids, in different orders"):
        plan.take(twice)
    pandas = pytest.importorskip("pandas")
    by_index = pandas.DataFrame({"v": moved["v"].to_numpy()}, index=moved["id"].to_numpy())
    assert plan.take(by_index).index.tolist() == plan.picked_ids.tolist()
