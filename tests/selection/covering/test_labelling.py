"""TypiClust and ProbCover against their papers' rules written out plainly."""

from __future__ import annotations

import numpy as np
import pytest

import kofn
from kofn.core import runtime
from kofn.core.checks import InputError
from kofn.objectives.similarity import geometry
from kofn.selection import probability_cover, typiclust
from kofn.selection.covering import _nearness


def groups(sizes, seed=0):
    """Groups of rows far from each other."""
    rng = np.random.default_rng(seed)
    return np.concatenate([100.0 * at + rng.normal(size=(size, 2)) for at, size in enumerate(sizes)])


def plain_typiclust(X, labels, k, labelled=(), neighbors=5, min_size=5):
    """The authors' loop, with the clusters given."""
    labels = np.array(labels)
    sizes = np.bincount(labels)
    known = np.bincount(labels[list(labelled)], minlength=len(sizes))
    labels[list(labelled)] = -1
    order = sorted((c for c in range(len(sizes)) if sizes[c] > min_size), key=lambda c: (known[c], -sizes[c], c))
    picks = []
    for turn in range(k):
        rows = np.flatnonzero(labels == order[turn % len(order)])
        count = min(neighbors, len(rows) // 2)
        apart = np.sqrt(((X[rows][:, None] - X[rows][None]) ** 2).sum(axis=2))
        spread = np.sort(apart, axis=1)[:, 1 : count + 1].mean(axis=1) if count else np.zeros(len(rows))
        picks.append(int(rows[spread.argmin()]))
        labels[picks[-1]] = -1
    return picks


@pytest.mark.parametrize(
    ("sizes", "k", "start"), [((40, 25, 60), 3, ()), ((40, 25, 60), 3, (2, 3, 70)), ((9, 90), 2, ())]
)
def test_typiclust_is_the_authors_rule(sizes, k, start):
    X = groups(sizes)
    labels = _nearness.kmeans(geometry(X), k + len(start), np.random.default_rng(1), 1, lambda: None)
    for neighbors in (5, 20):
        plan = typiclust(X, k=k + len(start), start=list(start) or None, neighbors=neighbors, seed=1)
        assert plan.indices.tolist() == [*start, *plain_typiclust(X, labels, k, start, neighbors)]
    assert typiclust(X, k=k, seed=1).indices.tolist() == typiclust(X, k=k, neighbors=20, seed=1).indices.tolist()


def test_rows_of_a_cluster_are_measured_anew_after_each_pick():
    X = np.random.default_rng(3).normal(size=(700, 3)).round(1)
    labels = _nearness.kmeans(geometry(X), 500, np.random.default_rng(0), 1, lambda: None)
    plan = typiclust(X, k=620, seed=0, min_size=1, neighbors=2)
    usual = plain_typiclust(X, labels, 300, neighbors=2, min_size=1)
    assert plan.indices.tolist()[:300] == usual


def test_many_picks_from_one_cluster_of_copies():
    X = np.zeros((300, 4))
    assert sorted(typiclust(X, k=120, seed=0).indices.tolist()) == list(range(120))


def test_small_clusters_wait_for_the_large_ones():
    X = groups((30, 3, 30))
    plan = typiclust(X, k=3, seed=0)
    assert not set(plan.indices[:2].tolist()) & {30, 31, 32}
    # All rows can still be picked.
    assert len(typiclust(X, k=63, seed=0)) == 63


def test_constraints_of_typiclust_hold():
    X = groups((30, 30))
    plan = typiclust(X, k=6, groups=["a"] * 30 + ["b"] * 30, quotas={"a": (5, 5)}, exclude=[0, 1], seed=0)
    assert plan.used["quota a"] == 5
    assert not {0, 1} & set(plan.indices.tolist())


def test_kmeans_finds_far_groups_and_threads_change_nothing():
    X = groups((50, 80, 20, 33))
    labels = _nearness.kmeans(geometry(X), 4, np.random.default_rng(0), 1, lambda: None)
    assert [len(np.unique(labels[at : at + size])) for at, size in ((0, 50), (50, 80), (130, 20), (150, 33))] == [1] * 4
    assert np.array_equal(labels, _nearness.kmeans(geometry(X), 4, np.random.default_rng(0), 2, lambda: None))
    X = np.random.default_rng(0).normal(size=(20_000, 8)).astype(np.float32)
    one, two = (_nearness.kmeans(geometry(X), 7, np.random.default_rng(0), threads, lambda: None) for threads in (1, 2))
    assert np.array_equal(one, two)
    assert len(np.unique(one)) == 7


def plain_cover(X, k, radius):
    inside = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=2)) < radius
    np.fill_diagonal(inside, True)
    covered, picks, gains = np.zeros(len(X), bool), [], []
    for _ in range(k):
        gain = (inside & ~covered).sum(axis=1)
        gain[picks] = -1
        picks.append(int(gain.argmax()))
        gains.append(int(gain.max()))
        covered |= inside[picks[-1]]
    return picks, gains


@pytest.mark.parametrize("radius", [0.0, 0.3, 1.0, 3.0])
def test_probability_cover_is_greedy_cover(radius):
    X = np.random.default_rng(0).normal(size=(150, 3))
    plan = probability_cover(X, k=25, radius=radius)
    picks, gains = plain_cover(X, 25, radius)
    assert plan.indices.tolist() == picks
    assert plan.gains.tolist() == gains
    assert plan.value == sum(gains) <= plan.bound <= 150
    assert probability_cover(X, k=5, radius=radius).indices.tolist() == picks[:5]


def test_the_radius_by_purity():
    X = groups((40, 40))
    plan = probability_cover(X, k=2, seed=0)
    labels = np.repeat([0, 1], 40)
    apart = np.sqrt(((X[:, None] - X[None]) ** 2).sum(axis=2))

    def share(radius):
        return np.mean([len(set(labels[apart[i] < radius])) == 1 for i in range(80)])

    assert share(plan.info["radius"]) >= 0.95
    assert share(plan.info["radius"] * 1.05) < 0.95
    assert plan.value == 80


def test_cosine_radius_is_one_less_the_cosine():
    X = np.array([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0], [0.0, 3.0]])
    plan = probability_cover(X, k=2, radius=0.3, metric="cosine")
    assert plan.indices.tolist() == [0, 2] or plan.value == 4
    assert probability_cover(X, k=1, radius=0.28, metric="cosine").value == 2


def test_bad_options_are_refused():
    X = groups((5, 5))
    for method, options, words in (
        ("typiclust", {"neighbors": 0}, "neighbors=0"),
        ("typiclust", {"min_size": -1}, "min_size=-1"),
        ("probability_cover", {"radius": -1.0}, "radius=-1"),
        ("probability_cover", {"purity": 1.5}, "purity=1.5"),
    ):
        with pytest.raises(InputError, match=words):
            kofn.select(X, k=2, method=method, options=options)


@pytest.mark.parametrize("pick", [typiclust, probability_cover])
@pytest.mark.parametrize("words", [{}, {"include": [7, 3]}, {"groups": [0, 1] * 1000, "quotas": {1: (9, None)}}])
def test_once_the_time_is_up_no_more_rows_are_compared(pick, words, monkeypatch):
    compared, X = [], np.random.default_rng(0).normal(size=(2000, 4))
    plain = _nearness.distances
    monkeypatch.setattr(runtime, "_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(_nearness, "distances", lambda *call: compared.append(1) or plain(*call))
    plan = pick(X, k=20, seed=0, time_limit=1e-9, **words)
    assert plan.status == "stopped"
    assert len(set(plan.indices.tolist())) == 20
    assert set(words.get("include", [])) <= set(plan.indices.tolist())
    assert "quotas" not in words or (plan.indices % 2).sum() >= 9
    assert len(compared) <= 1
    assert np.isnan(plan.value)
    assert plan.bound is None


def test_balls_that_the_clock_cuts_short_state_what_they_could_count(monkeypatch):
    X = np.random.default_rng(0).normal(size=(2000, 4))
    whole = probability_cover(X, k=20, radius=0.7)
    left = iter([False] * 30)
    monkeypatch.setattr(runtime.Control, "stopped", lambda self: next(left, True))
    plan = probability_cover(X, k=20, radius=0.7, time_limit=1e9)
    counted = int(np.isnan(plan.gains).argmax()) if np.isnan(plan.gains).any() else 20
    found = next(t for t in range(20) if plan.indices[t] != whole.indices[t])
    assert plan.status == "stopped"
    assert 0 < found < 20
    assert plan.gains[: min(found, counted)].tolist() == whole.gains[: min(found, counted)].tolist()
    assert np.isnan(plan.value) == (counted < 20)
    assert len(set(plan.indices.tolist())) == 20
