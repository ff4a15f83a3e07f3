"""The work that a call is said to take beforehand is about the work that it counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import sparse

import kofn
from kofn.assignment import _work
from kofn.cli import estimate
from kofn.objectives.similarity import pairwise_distances


def blobs(n: int, d: int = 6) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    centres = 4 * rng.normal(size=(7, d))
    return (centres[rng.integers(0, 7, n)] + rng.normal(size=(n, d))).astype(np.float32)


@pytest.mark.parametrize("n", [500, 2500, 21_000])
@pytest.mark.parametrize("k", [3, 40])
def test_fastclara_computes_the_distances_that_are_counted_beforehand(n: int, k: int) -> None:
    X = blobs(n)
    for options in ({}, {"n_samples": 2}, {"sample_size": 200}):
        plan = kofn.assign(X, k=k, method="fastclara", seed=0, **options)
        work = _work.work_of_fastclara(n, options=options, call={"X": X, "k": k})
        assert work.pairs == pytest.approx(plan.info["distance_evals"], rel=0.01)


@pytest.mark.parametrize("n", [1500, 3000])
@pytest.mark.parametrize("k", [1, 3, 60])
@pytest.mark.parametrize("room", [None, "1MB"])
def test_fasterpam_looks_at_about_as_many_pairs(n: int, k: int, room: str | None) -> None:
    X = blobs(n)
    given: dict[str, Any] = {"k": k} if room is None else {"k": k, "max_memory": room}
    plan = kofn.assign(X, method="fasterpam", seed=0, **given)
    work = _work.work_of_fasterpam(n, options={}, call={"X": X, **given})
    assert 1 / 3 <= work.pairs / plan.info["distance_evals"] <= 3
    assert 1 / 3 <= work.steps / plan.info["swap_evaluations"] <= 3


def test_distances_that_are_given_take_no_distances() -> None:
    table = pairwise_distances(blobs(900))
    work = _work.work_of_fasterpam(900, options={}, call={"distances": table, "k": 5})
    assert work.pairs == 0 < work.steps


@pytest.mark.parametrize("n", [700, 4000, 21_000])
def test_pamk_groups_a_sample_for_each_k_and_then_all_rows(n: int) -> None:
    X = blobs(n)
    options = {"k_max": 8, "sample_size": 600}
    plan = kofn.assign(X, k="auto", seed=0, **options)
    work = _work.work_of_pamk(n, options=options, call={"X": X})
    assert 1 / 3 <= work.pairs / plan.info["distance_evals"] <= 3
    wider = _work.work_of_pamk(n, options={**options, "k_max": 16}, call={"X": X})
    assert wider.steps > work.steps


@pytest.mark.parametrize(
    ("call", "n"),
    [
        ({"k": 10}, 8_000),
        ({"k": 10}, 300_000),
        ({"k": 10, "method": "fastclara"}, 70_000),
        ({"method": "pamk"}, 50_000),
    ],
)
def test_estimates_by_work_time_no_large_sample(monkeypatch: pytest.MonkeyPatch, call: dict[str, Any], n: int) -> None:
    """The time of a look beforehand does not grow with the pool, nor with what a large sample would take."""
    sizes: list[int] = []
    sampled = estimate._run_sample

    def counted(*arguments: Any, **words: Any) -> Any:
        sizes.append(arguments[-1])
        return sampled(*arguments, **words)

    monkeypatch.setattr(estimate, "_run_sample", counted)
    words = {"X": blobs(5_000), **{word: value for word, value in call.items() if word != "method"}}
    told = estimate.beforehand("assign", call.get("method", "auto"), {}, words, n)
    assert sizes == [300]
    assert "by its cost" in told["seconds"]


@pytest.mark.parametrize("n", [400, 40_000])
def test_the_number_of_groups_is_looked_for_beforehand_too(n: int) -> None:
    words = {"X": blobs(min(n, 5_000)), "k": "auto"}
    assert estimate.beforehand("assign", "auto", {}, words, n)["method"] == "pamk"
    with pytest.raises(kofn.InputError, match="method='fasterpam' needs a number"):
        estimate.beforehand("assign", "fasterpam", {}, words, n)


def test_a_step_from_one_way_to_another_is_no_growth() -> None:
    assert estimate.growth({300: 0.5}) == 2
    assert estimate.growth({300: 1.0, 600: 4.0}) == pytest.approx(2)
    assert estimate.growth({300: 1.0, 600: 2.0, 1200: 16.0}) == pytest.approx(1.5)
    assert estimate.growth({300: 1.0, 600: 3.0, 1200: 12.0}) == pytest.approx(2)
    assert estimate.growth({300: 1.0, 600: 0.1}) == 1


def test_sparse_rows_count_their_entries() -> None:
    X = sparse.random_array((400, 9_000), density=0.001, rng=np.random.default_rng(0), format="csr")
    work = _work.work_of_fastclara(400, options={}, call={"X": X, "k": 3})
    dense = _work.work_of_fastclara(400, options={}, call={"X": np.broadcast_to(np.zeros(9_000), (400, 9_000)), "k": 3})
    assert work.steps < dense.steps / 2
    told = estimate.beforehand("assign", "auto", {}, {"X": X, "k": 3, "metric": "cosine"})
    assert told["method"] == "fastclara"
