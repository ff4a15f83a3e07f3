"""Values on which Python, NumPy, polars or torch fail in their own way: each is refused by its word, in one line."""

from __future__ import annotations

import datetime
import decimal
import fractions
import uuid
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import scipy.sparse
import torch

import kofn
from kofn.core.checks import InputError, KofnError

RNG = np.random.default_rng(0)
X, CURVES = RNG.normal(size=(20, 3)), RNG.random((6, 3))
PLAN = kofn.select(X, k=5)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: kofn.allocate(CURVES, budget=1, levels=[2, (4,), 3]), "levels is ragged"),
        (
            lambda: kofn.allocate(np.full((2, 3), 1e308), budget=2),
            "whose sum overflows",
        ),
        (lambda: kofn.assign(X, k=2, seed=10**5000), "seed has more than 4096 bits"),
        (lambda: kofn.select(X, k=2, method="random_sample", seed=10**5000), "seed has more than 4096 bits"),
        (
            lambda: kofn.combine([{"a": np.ones(2)}] * 2, skip=range(10**9)),
            r"skip=range\(0, 10+\): give a text or a list, of which each is a text",
        ),
        (lambda: kofn.combine([{"a": np.ones(2)}] * 2, only={"a": 1}), "only"),
        (lambda: kofn.select(X, k=2, method="gist", utility=np.ones(8)), "utility: .* lacks gains"),
        (lambda: kofn.select(X, k=2, objective=np.eye(8)), "objective=ndarray lacks gains"),
        (lambda: PLAN.prefix("a"), "t='a': give a whole number of picks"),
        (lambda: PLAN.prefix(None), "t=None: give a whole number of picks"),
        (lambda: PLAN.prefix(1.5), "t=1.5: give a whole number of picks"),
        (lambda: PLAN.save(None), "path=None: give the name of a file"),
        (lambda: PLAN.save(3.5), "path=3.5: give the name of a file"),
        (lambda: PLAN.save("a\0b"), "give the name of a file"),
        (lambda: PLAN.verify(None), "problem=None: give a problem"),
        (lambda: kofn.select(X, k=2, ids=np.arange(20).astype("m8")), "without a unit"),
        (lambda: kofn.select(X, k=2, ids=np.arange(20).astype("m8[Y]")), "no fixed time"),
        (lambda: kofn.select(X, k=2, ids=np.array(["2020", "NaT"] * 10, "M8[Y]")), "ids at row 1 is missing"),
    ],
)
def test_it_is_refused_in_one_line(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        call()
    assert "\n" not in str(caught.value)


def test_tensors_without_values_are_refused() -> None:
    import torch

    for tensor in (torch.eye(9).to_sparse(), torch.empty(9, 9, device="meta")):
        with pytest.raises(InputError, match=r"sparse|meta"):
            kofn.select(tensor, k=2)
        for members in ([tensor, torch.eye(9)], [{"w": tensor}, {"w": torch.eye(9)}]):
            with pytest.raises(InputError, match=r"sparse|meta"):
                kofn.combine(members)


def test_lazy_frames_are_collected_once() -> None:
    frame = pl.DataFrame(X, schema=["a", "b", "c"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert kofn.select(frame.lazy(), k=3).indices.tolist() == kofn.select(X, k=3).indices.tolist()
        groups = pl.LazyFrame({"g": ["x", "y"] * 10})
        plan = kofn.select(X, k=3, groups=groups, quotas={"g": {"x": (3, None)}})
        assert (plan.indices % 2 == 0).all()


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns"])
def test_ids_that_are_dates_have_a_unit_of_tables(unit: str) -> None:
    keys = np.arange(20).astype(f"M8[{unit}]")
    plan = kofn.select(X, k=2, ids=keys)
    assert plan.to_frame()["id"].dtype.is_temporal()
    assert set(plan.picked_ids.astype(f"M8[{unit}]")) <= set(keys)
    if unit not in "YM":
        assert kofn.select(X, k=2, ids=np.arange(20).astype(f"m8[{unit}]")).to_frame().height == 2


KEYS: dict[str, Callable[[int], Any]] = {
    "uuid": lambda i: uuid.UUID(int=i),
    "date": lambda i: datetime.date(2020, 1, 1 + i),
    "datetime": lambda i: datetime.datetime(2020, 1, 1, i, tzinfo=datetime.UTC),
    "time": lambda i: datetime.time(i),
    "timedelta": lambda i: datetime.timedelta(hours=-i, microseconds=i),
    "decimal": lambda i: decimal.Decimal(f"{i}.10"),
    "fraction": lambda i: fractions.Fraction(i + 1, 7),
    "path": lambda i: Path("folder") / str(i),
    "bytes": lambda i: bytes([i]),
}


@pytest.mark.parametrize("kind", KEYS)
def test_keys_of_any_kind_come_back_as_they_were(kind: str, tmp_path: Path) -> None:
    keys = np.empty(20, object)
    keys[:] = [KEYS[kind](i) for i in range(20)]
    plan = kofn.select(X, k=4, ids=keys)
    loaded = kofn.core.plans.Plan.load(plan.save(tmp_path / "plan.npz"))
    assert loaded.equals(plan)
    assert [type(key) for key in loaded.picked_ids] == [type(key) for key in plan.picked_ids]
    assert loaded.picked_ids.tolist() == plan.picked_ids.tolist()


@pytest.mark.parametrize(("k", "count"), [(5, 5), (5.0, 5), (np.float32(0.1), 20), (0.1, 20), (1.0, 200), (1, 1)])
def test_a_selector_takes_a_number_or_a_share(k: Any, count: int) -> None:
    rows = RNG.normal(size=(200, 3))
    assert len(kofn.Selector(k=k).fit(rows).plan_) == count


@pytest.mark.parametrize("k", [1.5, 0.0, 0, -0.1, True, "5", None, np.nan, np.inf, np.array([1, 2])])
def test_a_selector_refuses_what_is_neither(k: Any) -> None:
    with pytest.raises(InputError, match="give a whole number of rows, or a share"):
        kofn.Selector(k=k).fit(X)


WHOLE: dict[str, tuple[str, dict[str, Any]]] = {
    "pamk": ("assign", {"k_min": 2.0}),
    "fastclara": ("assign", {"k": 2, "n_samples": 2.0}),
    "fastclarans": ("assign", {"k": 2, "n_local": 2.0}),
    "constrained_kmeans": ("assign", {"k": 2, "n_init": np.float64(2)}),
    "dynmsc": ("assign", {"k_max": np.int8(3)}),
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_numbers_of_any_type_are_whole_numbers(name: str) -> None:
    verb, given = WHOLE[name]
    X = np.random.default_rng(0).normal(size=(30, 2))
    call = getattr(kofn, verb)
    plain = {word: int(value) for word, value in given.items()}
    assert call(X, method=name, seed=0, **given).equals(call(X, method=name, seed=0, **plain))


ODD: dict[str, tuple[Callable[[], Any], str]] = {
    "a duration": (lambda: kofn.select(np.eye(4), k=2, method="gist", lam=np.timedelta64(1, "D")), "lam="),
    "a date column": (
        lambda: kofn.select(pl.DataFrame({"d": [datetime.date(2026, 1, 1)] * 3, "x": [1.0, 2, 3]}), k=1),
        "X has no column of vectors; say what the rows are compared by: columns=['A', 'B'] (such as d,x)",
    ),
    "costs beyond integers": (
        lambda: kofn.select(np.eye(3), budget=4, costs=np.array([2**63, 1, 2], np.uint64)),
        "costs at row 0 is 9223372036854775808; give whole numbers below 2^63",
    ),
    "weights beyond sums": (lambda: kofn.select(np.eye(8), k=2, weights=np.full(8, 1e308)), "weights add up to inf"),
    "records as labels": (
        lambda: kofn.select(np.eye(3), k=1, y=np.zeros(3, [("a", int)]), method="anchored_subpool"),
        "y has dtype [('a', '<i8')]; give one label an item",
    ),
    "a nested tensor": (
        lambda: kofn.select(torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]), k=1),
        "X",
    ),
    "linked rows in huge units": (
        lambda: kofn.assign([[1e20, -1e20], [-1e20, -2e20]], k=2, must_link=[[0, 1]], method="constrained_kmedoids"),
        "",
    ),
}


@pytest.mark.parametrize(("call", "says"), ODD.values(), ids=ODD)
def test_odd_values_are_refused_in_words(call: Callable[[], Any], says: str) -> None:
    with pytest.raises(KofnError) as caught:
        call()
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "60 seconds" not in str(caught.value)


def test_expert_choice_of_a_huge_factor_takes_every_item() -> None:
    scores = np.random.default_rng(0).normal(size=(6, 2))
    plan = kofn.assign(scores=scores, method="expert_choice", capacity_factor=1e30)
    assert np.bincount(plan.bins).tolist() == [6, 6]


@pytest.mark.parametrize("scale", [1e-170, 1e170])
def test_relevance_is_the_same_of_sparse_and_dense_rows_in_any_unit(scale: float) -> None:
    A = np.array([[1, 0], [1, 0.01], [0.8, 0.6], [0, 1]]) * scale
    call: dict[str, Any] = {"k": 2, "method": "marginal_relevance", "queries": [[1, 0.2]], "balance": 0.7}
    dense, sparse = (kofn.select(rows, **call).indices.tolist() for rows in (A, scipy.sparse.csr_array(A)))
    assert dense == sparse == [1, 2]
