"""FastCLARA and FastCLARANS: samples of items and of swaps, against FasterPAM, exhaustion and their own counters."""

from __future__ import annotations

import math
import weakref
from typing import Any

import numpy as np
import pytest

import kofn
from kofn.assignment import _medoids_in_parts, fastclara, fastclarans, fasterpam
from kofn.assignment.medoids import _inits, _sources, _swaps
from kofn.core.checks import InputError
from kofn.objectives.similarity import pairwise_distances


def groups(rng: np.random.Generator, n: int, d: int = 6, centres: int = 12) -> Any:
    middles = 2 * rng.normal(size=(centres, d))
    return (middles[rng.integers(centres, size=n)] + 0.7 * rng.normal(size=(n, d))).astype(np.float32)


def loss(D: Any, medoids: Any, weights: Any = None) -> float:
    near = np.asarray(D, np.float64)[:, list(medoids)].min(axis=1)
    return math.fsum(near * (1 if weights is None else weights))


def best_swap(D: Any, medoids: Any) -> float:
    medoids = list(medoids)
    outside = set(range(len(D))) - set(medoids)
    return min(loss(D, [*medoids[:m], j, *medoids[m + 1 :]]) for m in range(len(medoids)) for j in outside)


@pytest.fixture(params=[False, True], ids=["numpy", "compiled"])
def path(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Force one of the two paths, whatever the size."""
    monkeypatch.setattr(_swaps, "worth_compiling", lambda *_: request.param)
    return bool(request.param)


@pytest.mark.parametrize("run", [fastclara, fastclarans])
@pytest.mark.parametrize("k", [1, 2, 9])
def test_value_and_labels_are_of_all_items(run: Any, k: int, path: bool) -> None:
    rng = np.random.default_rng(k)
    X = groups(rng, 600)
    D = pairwise_distances(X.astype(np.float64))
    weights = rng.integers(0, 4, 600).astype(float)
    for given in ({"X": X}, {"distances": D}, {"X": X, "max_memory": 10_000}):
        plan = run(**given, k=k, weights=weights, seed=3)
        assert plan.value == pytest.approx(loss(D, plan.medoids, weights), rel=1e-6)
        assert len(set(plan.medoids.tolist())) == k
        assert plan.labels[plan.medoids].tolist() == list(range(k))
        near = D[:, plan.medoids]
        assert near[np.arange(600), plan.labels] == pytest.approx(near.min(axis=1), rel=1e-5)
        assert run(**given, k=k, weights=weights, seed=3).equals(plan)


def test_a_sample_of_all_items_is_fasterpam() -> None:
    X = groups(np.random.default_rng(0), 300)
    D = pairwise_distances(X)
    plan = fastclara(distances=D, k=8, seed=5, sample_size=300, n_samples=1)
    rng = np.random.default_rng(5)
    rng.choice(300, 300, replace=False)
    begin = _inits.lab(_sources.Matrix(D), 8, np.ones(300), rng)
    assert plan.medoids.tolist() == fasterpam(distances=D, k=8, start=begin).medoids.tolist()


def test_samples_hold_the_best_medoids_and_losses_are_of_all_items() -> None:
    X = groups(np.random.default_rng(1), 2000)
    D = pairwise_distances(X)
    plan = fastclara(X, k=6, seed=0, n_samples=4)
    assert plan.info["sample_size"] == 80 + 4 * 6
    assert len(plan.info["sample_losses"]) == 4
    assert plan.value == pytest.approx(min(plan.info["sample_losses"]), rel=1e-6)
    best = fasterpam(distances=D, k=6, seed=0)
    kept = fastclara(X, k=6, seed=0, start=best)
    assert kept.medoids.tolist() == best.medoids.tolist()
    # A sample that is little but the best medoids finds them again.
    small = fastclara(X, k=6, seed=0, start=best, sample_size=6, n_samples=1)
    assert small.info["sample_losses"][0] == pytest.approx(best.value, rel=1e-5)


def test_distances_of_one_sample_are_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    make, made = _medoids_in_parts.pairwise_distances, []

    def recorded(*arguments: Any, **words: Any) -> Any:
        assert all(table() is None for table in made)
        table = make(*arguments, **words)
        made.append(weakref.ref(table))
        return table

    monkeypatch.setattr(_medoids_in_parts, "pairwise_distances", recorded)
    fastclara(np.random.default_rng(0).normal(size=(200, 2)), k=3, sample_size=20, seed=0)
    assert len(made) == 5


def test_clara_looks_at_few_distances() -> None:
    n, k = 5000, 10
    X = groups(np.random.default_rng(2), n)
    plan = fastclara(X, k=k, seed=0, max_memory=10_000)
    size = 80 + 4 * k
    assert plan.info["distance_evals"] == 5 * (size * size + n * k)
    assert plan.status == "heuristic"


def test_samples_shrink_with_the_memory() -> None:
    X = np.random.default_rng(0).normal(size=(20_000, 2)).astype(np.float32)
    sizes = [fastclara(X, k=3, seed=0, n_samples=1, max_memory=m).info["sample_size"] for m in (None, 800_000, 1)]
    assert sizes == [4_000, 316, 92]


def test_larger_samples_and_clarans_come_close_to_fasterpam() -> None:
    ratios: dict[str, list[float]] = {"small": [], "large": [], "clarans": []}
    for seed in range(5):
        X = groups(np.random.default_rng(seed), 3000, centres=25)
        D = pairwise_distances(X)
        full = fasterpam(distances=D, k=25, seed=seed).value
        small = fastclara(distances=D, k=25, seed=seed)
        for name, plan in {
            "small": small,
            "large": fastclara(distances=D, k=25, seed=seed, sample_size=1500),
            "clarans": fastclarans(distances=D, k=25, seed=seed, start=small),
        }.items():
            ratios[name].append(plan.value / full)
    means = {name: float(np.mean(values)) for name, values in ratios.items()}
    assert means["clarans"] < 1.01
    assert means["large"] < 1.04
    assert means["small"] > means["large"]


def test_clarans_over_all_items_is_swap_optimal(path: bool) -> None:
    rng = np.random.default_rng(4)
    for seed in range(10):
        D = pairwise_distances(rng.normal(size=(40, 3)))
        plan = fastclarans(distances=D, k=4, seed=seed, n_local=1, max_neighbor=1.0)
        assert plan.status == "local"
        assert best_swap(D, plan.medoids) >= plan.value * (1 - 1e-9)


def test_clarans_stops_after_so_many_failures(path: bool) -> None:
    n, k = 4000, 5
    X = groups(np.random.default_rng(5), n)
    D = pairwise_distances(X)
    best = fasterpam(distances=D, k=k, seed=0)
    plan = fastclarans(distances=D, k=k, seed=0, start=best, n_local=1, max_neighbor=0.1)
    assert plan.info["swaps"] == 0
    assert 400 - k <= plan.info["candidates"] <= 400
    assert plan.medoids.tolist() == best.medoids.tolist()
    assert plan.status == "heuristic"
    more = fastclarans(distances=D, k=k, seed=0, max_neighbor=0.1, n_local=3)
    assert len(more.info["local_losses"]) == 3
    assert more.value == pytest.approx(min(more.info["local_losses"]), rel=1e-6)
    # One look at a candidate judges all k swaps that it can make: work counts candidates, whatever k is.
    assert more.info["swap_evaluations"] == more.info["candidates"] * n


@pytest.mark.parametrize("run", [fastclara, fastclarans])
def test_same_answer_for_any_number_of_threads(run: Any) -> None:
    X = groups(np.random.default_rng(6), 3000)
    for metric in ("euclidean", "sqeuclidean", "cosine"):
        plans = [run(X, k=7, metric=metric, seed=0, max_memory=10_000, n_threads=threads) for threads in (1, 2, 4)]
        assert all(plan.equals(plans[0]) for plan in plans)


@pytest.mark.parametrize("run", [fastclara, fastclarans])
def test_limits_return_a_valid_plan(run: Any) -> None:
    X = groups(np.random.default_rng(7), 500)
    plan = run(X, k=9, seed=0, time_limit=1e-9)
    assert plan.status == "stopped"
    assert plan.value == pytest.approx(loss(pairwise_distances(X), plan.medoids), rel=1e-5)


MEDOIDS = ["constrained_kmedoids", "fastclara", "fastclarans", "fastermsc", "fasterpam", "fastpam1", "pam"]


@pytest.mark.parametrize("name", MEDOIDS)
@pytest.mark.parametrize("times", [4, 400])
def test_more_groups_than_distinct_items_are_refused(name: str, times: int) -> None:
    X = np.repeat([[0.0], [1.0], [5.0]], times, axis=0)
    X[0] = -0.0  # the same number
    for given in ({"X": X}, {"distances": np.abs(X - X.T)}):
        with pytest.raises(InputError, match=f"k=5 groups of {3 * times} items, 3 of them distinct; ask for k <= 3"):
            kofn.assign(**given, k=5, method=name, seed=0)
        assert np.unique(kofn.assign(**given, k=3, method=name, seed=0).medoids // times).tolist() == [0, 1, 2]


def test_distinct_items_are_counted_far_enough() -> None:
    rng = np.random.default_rng(0)
    X = rng.integers(0, 12, (3000, 2)).astype(np.float32)
    true = len(np.unique(X, axis=0))
    rare = np.concatenate([np.zeros((5000, 2)), rng.normal(size=(7, 2))])[rng.permutation(5007)]
    for rows, count in ((X, true), (rare, 8)):
        for most in (1, 5, count - 1, count, count + 1, 10 * count):
            assert _sources.differing(rows, None, most) == min(most, count)
            some = rows[::5]
            far = np.abs(some[:, None] - some).sum(axis=2)
            assert _sources.differing(None, far, most) == min(most, len(np.unique(some, axis=0)))


@pytest.mark.parametrize("name", ["fastclara", "fastclarans", "fasterpam", "pam"])
def test_items_at_distance_zero_that_differ_are_counted_and_no_group_is_empty(name: str) -> None:
    """A dissimilarity may be 0 between items that differ towards others; each of them may then be a medoid."""
    D = np.array([[0, 0, 0, 5.0], [0, 0, 0, 6], [0, 0, 0, 7], [5, 6, 7, 0]])
    plan = kofn.assign(distances=D, k=3, method=name, seed=0)
    assert plan.value == 0
    assert plan.info["distinct_medoids"] == 2
    assert (np.bincount(plan.labels, minlength=3) > 0).all()
    assert "distinct_medoids" not in kofn.assign(distances=D + 1 - np.eye(4), k=3, method=name, seed=0).info


@pytest.mark.parametrize(
    ("run", "arguments", "says"),
    [
        (fastclara, {"k": 2, "sample_size": 1}, "sample_size=1: ask for at least 2"),
        (fastclara, {"k": 2, "n_samples": 0}, "n_samples=0"),
        (fastclarans, {"k": 2, "n_local": 0}, "n_local=0"),
        (fastclarans, {"k": 2, "max_neighbor": 1.5}, "max_neighbor=1.5"),
        *[
            (run, arguments, says)
            for run in (fastclara, fastclarans)
            for arguments, says in (
                ({"k": 4}, "k=4 of 3 items"),
                ({"k": 2, "start": [0]}, "start has 1 medoids, k=2"),
                ({"k": 1, "distances": [[1.0, 1.0], [1.0, 0.0]], "X": None}, "distances at row 0, column 0 is 1"),
                ({"k": 1, "distances": np.zeros((3, 3))}, "X and distances are both given"),
                ({"k": 1, "distances": [[0.0, 1.0], [2.0, 0.0]], "X": None}, "distances is not symmetric"),
                ({"k": 1, "distances": [[0.0, -1.0], [-1.0, 0.0]], "X": None}, "row 0, column 1 is -1"),
            )
        ],
    ],
)
def test_bad_input_is_named(run: Any, arguments: dict[str, Any], says: str) -> None:
    arguments = {"X": [[0.0], [1.0], [5.0]], **arguments}
    with pytest.raises(InputError, match=says):
        run(**{name: value for name, value in arguments.items() if value is not None})


def test_large_asymmetry_is_found_in_any_tile() -> None:
    n = 600
    X = np.random.default_rng(8).normal(size=(n, 2))
    for i, j in ((0, 599), (599, 0), (300, 299), (511, 513)):
        D = pairwise_distances(X)
        D[i, j] += 1
        low, high = max(i, j), min(i, j)
        with pytest.raises(
            InputError, match=rf"not symmetric: \({low}, {high}\) is|not symmetric: \({high}, {low}\) is"
        ):
            fasterpam(distances=D, k=2)
