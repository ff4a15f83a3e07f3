"""Facility location on a device picks what it picks on the processor, with the same gains to the last bit."""

from __future__ import annotations

import os
import signal
from typing import Any

import numpy as np
import pytest
from device_pools import DEVICE, KINDS, drawn
from refusals import refused

import kofn
from kofn.core.plans import Selection
from kofn.objectives.facility_location import FacilityLocation
from kofn.selection import lazy_greedy

torch = pytest.importorskip("torch")

from kofn.objectives import _device_facility_location as there  # noqa: E402

METRICS = ("euclidean", "sqeuclidean", "cosine", "rbf")
N, D = 36, 4
WHERE: tuple[dict[str, Any], ...] = (
    {"k": 12},
    {"k": 9, "include": [30, 2], "exclude": [0, 7]},
    {"k": 9, "start": [3]},
    {"k": 12, "groups": np.arange(N) % 3, "quotas": {0: (6, None), 1: (1, 2)}},
    {"budget": 30, "costs": np.arange(N) % 5 + 1},
    {"budget": 20, "costs": np.arange(N) % 4, "k": 8},
    {"k": 10, "weights": np.array([0, 1e-60, 1, 2, 5e7, 1])[np.arange(N) % 6]},
    {"k": N},
)


def step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Small pools are looked at as a whole; large ones lazily, in batches, mostly from above, by what changed."""
    for name, value in (("_SOON", 0), ("_BATCH", 3), ("_CLOSE", 2), ("_BOTH_SIDES", 4)):
        monkeypatch.setattr(there, name, value)


def same(plan: Selection, other: Selection) -> bool:
    return (
        plan.indices.tolist() == other.indices.tolist()
        and plan.gains.tobytes() == other.gains.tobytes()
        and plan.value == other.value
        and plan.guarantee == other.guarantee
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_picks_gains_and_value_are_those_of_the_processor(
    kind: str, metric: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    X, first = drawn(kind, 1, N, D), KINDS.index(kind) + METRICS.index(metric)
    if first % 2:
        step_by_step(monkeypatch)
    for number in range(first, first + 2):
        where = WHERE[number % len(WHERE)]
        plain = lazy_greedy(X, metric=metric, **where)
        plan = lazy_greedy(X, metric=metric, device=DEVICE, **where)
        assert same(plan, plain), (where, plan.indices, plain.indices)
        assert plain.bound is None or plan.bound is not None
        assert plan.bound is None or plan.bound >= plan.value
        assert plan.info["distance_evals"] > 0


@pytest.mark.parametrize("metric", METRICS)
def test_what_is_known_of_gains_encloses_them_at_every_step(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    step_by_step(monkeypatch)
    X = drawn("close together", 2, 40, 4)
    f: Any = there.DeviceFacilityLocation(X, metric=metric, device=DEVICE)
    g = FacilityLocation(X, metric=metric)
    open_items = np.ones(40, bool)
    for _ in range(6):
        item = f.best(open_items)
        exact = g.exact_gains(np.arange(40))
        assert item == np.flatnonzero(open_items)[np.argmax(exact[open_items])]
        fresh = (f._told == f._picks).numpy()
        assert (f._in_units(f._least)[fresh] <= exact[fresh]).all()
        assert (exact <= f._in_units(f._most)).all()
        assert (exact <= f.ceilings()).all()
        assert (np.abs(f.gains(np.arange(40)) - exact) <= f.tolerance).all()
        assert f.add(item) == g.add(item)
        assert (f.nearest == g.nearest).all()
        open_items[item] = False


def test_few_pairs_are_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters leave each other's candidates as they are: lazy steps follow what changed, and do not start afresh."""
    monkeypatch.setattr(there, "_SOON", 0)
    rng = np.random.default_rng(0)
    X = (10 * rng.normal(size=(9, 8))[np.arange(270) % 9] + rng.normal(size=(270, 8))).astype(np.float32)
    monkeypatch.setattr(there, "_BATCH", 32)
    plan = lazy_greedy(X, k=30, device=DEVICE)
    assert same(plan, lazy_greedy(X, k=30))
    assert plan.info["distance_evals"] < 12 * 270**2


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_tensors_of_every_precision_are_taken(dtype: str) -> None:
    X = torch.tensor(drawn("gaussian", 3, 40, 6)).to(getattr(torch, dtype))
    assert same(kofn.select(X, k=5, device=DEVICE), kofn.select(X, k=5))


def test_blocks_and_memory_change_nothing() -> None:
    X = drawn("grid", 4, 300, 4)
    plain = lazy_greedy(X, k=9)
    assert same(lazy_greedy(X, k=9, device=DEVICE, max_memory="3MB"), plain)
    refused(lambda: lazy_greedy(X, k=9, device=DEVICE, max_memory="500kB"), "max_memory=500000 is too little for")


def test_what_a_device_does_not_take_is_refused() -> None:
    import scipy.sparse

    X = scipy.sparse.random(30, 8, 0.5, format="csr", random_state=0)
    refused(lambda: lazy_greedy(X, metric="cosine", k=2, device=DEVICE), "X is a sparse matrix, and a device compares")

    class Count:
        n = 5

        def gains(self, candidates: Any) -> Any:
            return np.ones(len(candidates))

        add = value = len

    refused(lambda: lazy_greedy(np.ones((5, 2)), objective=Count(), k=2, device=DEVICE), "objective=Count is an object")


def test_no_time_gives_k_valid_picks() -> None:
    X = drawn("gaussian", 5, 200, 4)
    plan = lazy_greedy(X, k=30, device=DEVICE, time_limit=1e-9, include=[7], exclude=[3])
    assert plan.status == "stopped"
    assert plan.guarantee is None
    picks = plan.indices.tolist()
    assert len(set(picks)) == 30
    assert 7 in picks
    assert 3 not in picks


def test_an_interrupt_within_a_step_gives_the_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between two blocks of one look at the pool."""
    X = drawn("gaussian", 6, 300, 4)
    plain = lazy_greedy(X, k=6)
    monkeypatch.setattr(there, "_SOON", 0)
    catches_up = there.DeviceFacilityLocation._catch_up
    pressed: list[int] = []

    def catch_up(self: Any, *arguments: Any, **words: Any) -> None:
        if self._picks == 3 and not pressed:
            pressed.append(1)
            os.kill(os.getpid(), signal.SIGINT)
        catches_up(self, *arguments, **words)

    monkeypatch.setattr(there.DeviceFacilityLocation, "_catch_up", catch_up)
    plan = lazy_greedy(X, k=6, device=DEVICE, max_memory="3MB")
    assert plan.status == "stopped"
    assert pressed
    assert 3 <= plan.info["found_in_time"] == len(plan) < 6
    assert plan.indices.tolist() == plain.indices[: len(plan)].tolist()
