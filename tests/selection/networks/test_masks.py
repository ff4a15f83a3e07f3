"""topk_mask against brute force and its laws on tables, and the torch form against it, gradients and loss included."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import kofn
from kofn import nn
from kofn.core.checks import InfeasibleError, InputError
from kofn.laws import LAWS, Case
from kofn.selection import topk_mask


def best(table: np.ndarray, most: int, per_item: int, capacity: list[int]) -> float:
    """The largest sum of at most `most` finite entries within the limits of rows or columns: exactly `most` if many."""
    places = [place for place in np.ndindex(table.shape) if table[place] > -np.inf]
    top = -np.inf
    for chosen in itertools.combinations(places, most):
        rows = np.bincount([i for i, _ in chosen], minlength=len(table))
        columns = np.bincount([j for _, j in chosen], minlength=table.shape[1])
        if (rows <= per_item).all() and (columns <= capacity).all():
            top = max(top, sum(table[place] for place in chosen))
    return top


@pytest.mark.parametrize("seed", range(20))
def test_masks_against_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(-3, 4, (3, 4)).astype(float)
    table[rng.random((3, 4)) < 0.2] = -np.inf
    limit = {"per_item": int(rng.integers(1, 4))} if seed % 2 else {"capacity": rng.integers(0, 3, 4)}
    alone = topk_mask(table, **limit)
    mask = alone.mask.reshape(3, 4)
    finite = table > -np.inf
    if "per_item" in limit:
        assert mask.sum(axis=1).tolist() == np.minimum(finite.sum(axis=1), limit["per_item"]).tolist()
    else:
        assert mask.sum(axis=0).tolist() == np.minimum(finite.sum(axis=0), limit["capacity"]).tolist()
    per_item, capacity = limit.get("per_item", 4), list(limit.get("capacity", [3] * 4))
    assert alone.value == best(table, len(alone), per_item, capacity) == alone.bound
    total = len(alone) - 1
    if total > 0:
        plan = topk_mask(table, k=total, **limit)
        assert len(plan) == total
        assert plan.value == best(table, total, per_item, capacity)
        assert set(plan.indices.tolist()) <= set(alone.indices.tolist())


def test_ties_go_to_the_lowest_entry_and_order_is_by_score() -> None:
    table = np.array([[1.0, 2.0, 2.0], [2.0, 3.0, 2.0]])
    assert topk_mask(table, k=3).indices.tolist() == [4, 1, 2]
    assert topk_mask(table, per_item=1).indices.tolist() == [4, 1]
    assert topk_mask(table, capacity=[1, 0, 1]).indices.tolist() == [2, 3]
    assert topk_mask(table, k=4).info["shape"] == (2, 3)
    assert topk_mask([3.0, 1.0, 2.0], k=2).indices.tolist() == [0, 2]


@st.composite
def tables(draw: st.DrawFn) -> dict:
    rows, bins = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    values = draw(st.lists(st.integers(-3, 3), min_size=rows * bins, max_size=rows * bins))
    table = np.array(values, float).reshape(rows, bins)
    for place in draw(st.lists(st.integers(0, rows * bins - 1), max_size=rows * bins - 1, unique=True)):
        table.ravel()[place] = -np.inf
    kind = draw(st.sampled_from(("k", "per_item", "capacity")))
    most = {"k": int((table > -np.inf).sum()), "per_item": bins, "capacity": rows}[kind]
    return {"scores": table, kind: draw(st.integers(min(1, most), most))}


@settings(max_examples=80, deadline=None, database=None, derandomize=True)
@given(call=tables())
def test_laws_on_tables(call: dict) -> None:
    case = Case.of("select", "topk_mask", call)
    for law in ("fields", "feasible", "recount", "saved", "same-again", "ids", "untouched"):
        LAWS[law](case)
    if "k" in call and np.isfinite(call["scores"]).all():
        best = np.sort(call["scores"].ravel())[::-1][: call["k"]]
        assert case.plan.value == pytest.approx(math.fsum(best.tolist()))
        assert case.plan.status == "optimal"


@pytest.mark.parametrize(
    ("call", "says"),
    [
        ({}, "give k"),
        ({"per_item": 1, "capacity": 1}, "per_item and capacity limit rows and columns at once"),
        ({"capacity": [1, 2]}, "capacity has 2 values, scores has 3 columns"),
    ],
)
def test_refusals(call: dict, says: str) -> None:
    table = np.arange(6.0).reshape(2, 3)
    with pytest.raises(InputError, match=says):
        topk_mask(table, **call)
    with pytest.raises(InputError, match=says):
        nn.topk_mask(
            torch.tensor(table),
            **{name: torch.tensor(value) if isinstance(value, list) else value for name, value in call.items()},
        )


def test_more_than_may_be_kept_is_infeasible() -> None:
    table = np.array([[1.0, -np.inf], [2.0, 3.0]])
    with pytest.raises(InfeasibleError, match="k=4, but only 3 of 4 entries may be kept"):
        kofn.select(scores=table, k=4, method="topk_mask")
    with pytest.raises(InfeasibleError, match="k=3, but only 2 of 4 entries"):
        topk_mask(table, k=3, per_item=1)
    with pytest.raises(InfeasibleError, match="k=4, but only 3 of 4 entries"):
        nn.topk_mask(torch.tensor(table), k=4)
