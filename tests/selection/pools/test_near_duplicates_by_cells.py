"""Near-duplicates by cells: those of a search through all rows as far as rows are compared, and what is missed said."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from refusals import refused
from scipy.stats import binomtest

from kofn.core.pools import ArrayPool, Fragment
from kofn.core.runtime import Control
from kofn.engines.local import Local
from kofn.laws.engines import Shuffled
from kofn.selection import near_duplicates, near_duplicates_by_cells
from kofn.selection.pools import _cells as cells
from kofn.selection.pools import _near_duplicates_by_cells as module
from kofn.selection.pools import _visit_kernels
from kofn.selection.pools._near_duplicates_by_cells import Recall, described
from kofn.selection.pools._settling import most_missed
from kofn.selection.training_data import _near_vectors

N, D = 700, 5
THRESHOLDS = {"cosine": 0.97, "euclidean": 0.85, "sqeuclidean": 0.97}


def rows(seed: int = 0) -> Any:
    """Loose groups, so that many near pairs lie in two cells, with equal rows and rows of zeros."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(90, D))[rng.integers(0, 90, N)] + rng.normal(scale=0.15, size=(N, D))
    X[rng.integers(0, N, 60)] = X[rng.integers(0, N, 60)]
    X[[3, 40]] = 0.0
    X[40, 1] = -0.0
    return X


def preferences(seed: int) -> dict[str, Any]:
    """Ties of scores, rows that stay or do not count, and a group that needs more rows than it would keep."""
    rng = np.random.default_rng(seed)
    return {
        "scores": rng.integers(0, 4, N),
        "costs": rng.integers(0, 3, N),
        "include": rng.choice(np.arange(100, N), 12, replace=False),
        "exclude": np.arange(50, 60),
        "groups": rng.choice(["a", "b"], N, p=[0.04, 0.96]),
        "quotas": {"a": (20, None)},
    }


def similarities(X: Any, metric: str) -> Any:
    """All pairs, in float64."""
    if metric == "cosine":
        unit = X / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-300)
        return unit @ unit.T
    squares = ((X[:, None] - X[None]) ** 2).sum(axis=2)
    mean = 2 * ((X - X.mean(axis=0)) ** 2).sum() / len(X)
    return 1 - (squares / mean if metric == "sqeuclidean" else np.sqrt(squares / mean))


@pytest.mark.parametrize("metric", THRESHOLDS)
@pytest.mark.parametrize("seed", range(3))
def test_where_all_cells_near_are_visited_it_is_the_search_through_all_rows(metric: str, seed: int) -> None:
    X, preferred = rows(seed), preferences(seed)
    if seed == 1:
        X = X.astype(np.float32)
    whole = near_duplicates(X, THRESHOLDS[metric], metric=metric, **preferred)
    parts = near_duplicates_by_cells(X, THRESHOLDS[metric], metric=metric, cells=9, probes=8, **preferred)
    assert 100 < (~whole.keep).sum() < N - 100
    np.testing.assert_array_equal(parts.keep, whole.keep)
    np.testing.assert_array_equal(parts.of < 0, parts.keep)
    assert parts.recall == Recall(True, 0, 0, 1.0, 1.0)
    assert parts.info["passes"] > 1, "rows that a dropped row stood for were looked at again"
    assert described(parts) == "no pair was missed"


@pytest.mark.parametrize("metric", THRESHOLDS)
def test_every_pair_is_verified_and_what_is_missed_is_counted(metric: str) -> None:
    X = rows(5)
    parts = near_duplicates_by_cells(X, THRESHOLDS[metric], metric=metric, cells=12, probes=0)
    exact = similarities(X, metric)
    dropped, kept = np.flatnonzero(~parts.keep), np.flatnonzero(parts.keep)
    assert parts.keep[parts.of[dropped]].all()
    pairs = exact[dropped, parts.of[dropped]]
    zeros = ~X[dropped].any(axis=1)
    np.testing.assert_allclose(parts.similarity[dropped][~zeros], pairs[~zeros], rtol=1e-9)
    assert (pairs[~zeros] >= THRESHOLDS[metric] - 1e-8).all()
    near = np.triu(exact[np.ix_(kept, kept)] >= THRESHOLDS[metric], 1).any(axis=0)
    recall = parts.recall
    assert (recall.exact, recall.looked, recall.missed) == (False, len(kept), near.sum())
    assert near.sum() > 0
    assert recall.share == pytest.approx(len(dropped) / (len(dropped) + near.sum()))
    assert f"{near.sum():,} are still near one" in described(parts)


def test_a_sample_states_what_is_missed_at_the_most(monkeypatch: pytest.MonkeyPatch) -> None:
    for looked, missed in ((2048, 0), (2048, 3), (50, 50)):
        # Of the two-sided interval at 90% the upper end is the one-sided limit at 95%.
        limit = binomtest(missed, looked).proportion_ci(0.9, method="exact").high
        assert most_missed(looked, missed) == pytest.approx(limit)
    monkeypatch.setattr(module, "_LOOKED_AT", 100)
    X = rows(5)
    whole = near_duplicates(X, 0.97)
    shares = []
    for seed in range(8):
        parts = near_duplicates_by_cells(X, 0.97, cells=12, probes=0, seed=seed)
        assert parts.recall.looked == 100
        assert parts.recall.lowest < parts.recall.share <= 1
        shares.append((~parts.keep).sum() / (~whole.keep).sum() >= parts.recall.lowest)
    assert all(shares)


def test_the_answer_is_the_same_on_every_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_FRAGMENT_ROWS", 90)
    X, preferred = rows(2), preferences(2)
    first = near_duplicates_by_cells(X, 0.97, cells=9, probes=2, n_threads=1, **preferred)
    for engine in (Local(3), Local(2 * N), Shuffled(seed=4)):
        other = near_duplicates_by_cells(X, 0.97, cells=9, probes=2, engine=engine, **preferred)
        for part in range(3):
            np.testing.assert_array_equal(first[part], other[part])
        assert first.recall == other.recall
        assert other.info["engine"]["name"] == engine.name


def test_no_more_than_a_fragment_is_read_and_the_file_goes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(module, "_FRAGMENT_ROWS", 64)
    largest = 0

    class Watched(ArrayPool):
        def read(self, fragment: Fragment) -> Any:
            nonlocal largest
            largest = max(largest, fragment.rows)
            assert list(tmp_path.iterdir()) or largest <= 64
            return super().read(fragment)

        def take(self, rows: Any) -> Any:
            raise AssertionError(f"{len(rows)} rows are read one by one")

    parts = near_duplicates_by_cells(Watched(rows()), 0.97, cells=9, work=tmp_path)
    np.testing.assert_array_equal(parts.keep, near_duplicates_by_cells(rows(), 0.97, cells=9).keep)
    assert largest == 64
    assert not list(tmp_path.iterdir())


def test_a_cell_that_is_far_too_large_is_split(monkeypatch: pytest.MonkeyPatch) -> None:
    X = rows()
    X[: N // 2] = 5 + 1e-3 * X[: N // 2]
    whole = near_duplicates(X, 0.995, metric="euclidean")
    monkeypatch.setattr(cells, "_BLOCK", 8)
    monkeypatch.setattr(cells, "_LARGEST", 1)
    parts = near_duplicates_by_cells(X, 0.995, metric="euclidean", cells=4, probes=40)
    assert parts.info["cells"] > 4
    np.testing.assert_array_equal(parts.keep, whole.keep)


def test_equal_rows_are_told_by_their_hashes_and_stand_for_one_another() -> None:
    X = np.repeat(np.arange(1.0, 4.0)[:, None], 4, axis=1)
    X = np.vstack([X, X, [[0.0, -0.0, 0.0, 0.0]], [[0.0] * 4]])
    parts = near_duplicates_by_cells(X, 0.9999, metric="euclidean", scores=[0, 0, 0, 1, 0, 0, 0, 0], include=[4, 1])
    assert parts.info["equal"] == 4
    assert parts.of.tolist() == [3, -1, -1, -1, -1, 2, -1, 6]
    assert parts.similarity[[0, 5, 7]].tolist() == [1.0, 1.0, 1.0]
    # Of rows that are dropped for another the copies are too.
    chain = near_duplicates_by_cells([[1.0, 0.0], [1.0, 0.01], [1.0, 0.01]], 0.99)
    assert chain.of.tolist() == [-1, 0, 0]
    assert chain.similarity[1] == chain.similarity[2] < 1


def test_without_a_row_that_counts_nothing_is_dropped() -> None:
    parts = near_duplicates_by_cells(np.ones((5, 2)), 0.9, exclude=np.arange(5))
    assert parts.keep.all()
    assert parts.recall.exact


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"metric": "manhattan"}, "metric='manhattan': near-duplicates are found by cosine"),
        ({"threshold": 1.5}, "threshold=1.5"),
        ({"cells": 0}, "cells=0"),
        ({"probes": -1}, "probes=-1"),
        ({"max_memory": "1KB"}, "max_memory=1KB: near-duplicates of 700 rows take about"),
        ({"work": "nowhere/at/all"}, "there is no such folder; make it first"),
    ],
)
def test_what_cannot_be_is_refused(how: dict[str, Any], says: str) -> None:
    refused(lambda: near_duplicates_by_cells(rows(), **how), says)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("scale", [1.0, 1e-300, 1e150, 1e300])
def test_ties_few_rows_and_any_scale(scale: float) -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        n, d = int(rng.integers(1, 40)), int(rng.integers(1, 5))
        X = scale * (rng.integers(-2, 3, (n, d)) if seed % 2 else rng.normal(size=(n, d)))
        X[seed % n :] = X[seed % n] if seed % 7 == 0 else X[seed % n :]
        threshold, metric = float(rng.choice([0.0, 0.3, 0.9, 1.0])), str(rng.choice(sorted(THRESHOLDS)))
        include = rng.choice(n, int(rng.integers(0, min(4, n) + 1)), replace=False)
        asked: dict[str, Any] = {"metric": metric, "include": include}
        whole = near_duplicates(X, threshold, **asked)
        parts = near_duplicates_by_cells(X, threshold, cells=1 + seed % 5, probes=9, n_threads=1, **asked)
        np.testing.assert_array_equal(parts.keep, whole.keep)
        assert parts.keep[parts.of[~parts.keep]].all()


@pytest.mark.parametrize("step", [1, 9, 20, 30])
def test_it_can_be_interrupted_anywhere_and_leaves_no_file(
    step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = 0

    def pressed(_control: Control, _done: int) -> None:
        nonlocal steps
        steps += 1
        if steps == step:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Control, "step", pressed)
    with pytest.raises(KeyboardInterrupt):
        near_duplicates_by_cells(rows(), 0.97, cells=9, probes=1, work=tmp_path, n_threads=1)
    assert steps == step
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("metric", _near_vectors.METRICS)
@pytest.mark.parametrize("forced", [0, 3])
def test_pairs_of_a_block_are_settled_alike_together_and_row_by_row(
    metric: str, forced: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        kinds = int(rng.integers(2, 60))
        rows = rng.normal(size=(kinds, 5))[rng.integers(0, kinds, 200)]
        rows += rng.normal(size=rows.shape) * rng.choice([0.0, 0.05, 0.3])
        answers = []
        for few in (-1, 10**6):
            monkeypatch.setattr(_near_vectors, "_FEW", few)
            answers.append(_near_vectors.near_vectors(rows, 0.9, metric, forced))
        for one, other in zip(*answers, strict=True):
            np.testing.assert_array_equal(one, other)
        assert (answers[0][0] >= 0).any()


def test_the_cells_to_visit_are_the_nearest_beyond_the_plane_between_centres() -> None:
    rng = np.random.default_rng(0)
    products = np.round(rng.normal(size=(40, 9)), 1).astype(np.float32)
    halves, apart = rng.random(9).astype(np.float32), (1 + rng.random(9)).astype(np.float32)
    within = rng.choice([-np.inf, 0.0, 0.5, 9.0], 40)
    for room in (0, 1, 3, 8):
        visits = np.empty((40, room), np.int32)
        more = _visit_kernels.visits(products, halves, apart, within, 2, visits)
        beyond = (halves - products - (halves[2] - products[:, 2])[:, None]) / apart
        beyond[:, 2] = np.inf
        for row, far in enumerate(beyond):
            near = [j for j in np.argsort(far, kind="stable").tolist() if far[j] <= within[row]]
            assert visits[row].tolist() == [*near[:room], *[-1] * (room - len(near))]
        assert more == ((beyond <= within[:, None]).sum(axis=1) > room).sum()
