"""Farthest first: the search that looks again at as little as it can picks what the plain loop picks, bit for bit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from kofn.objectives.kcenter import distances_to
from kofn.selection import farthest_first
from kofn.selection.covering import _farthest_first as kcenter

METRICS = ("euclidean", "sqeuclidean", "cosine")


@pytest.fixture
def both(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The plan of the plain loop and that of the lazy search."""

    def ask(X: Any, **given: Any) -> tuple[Any, Any]:
        plans = []
        for small in (1 << 60, -1):
            monkeypatch.setattr(kcenter, "_SMALL", small)
            plans.append(farthest_first(X, **given))
        return plans[0], plans[1]

    return ask


def same(plain: Any, lazy: Any) -> None:
    assert lazy.indices.tolist() == plain.indices.tolist()
    assert np.array_equal(lazy.gains, plain.gains, equal_nan=True)
    assert (lazy.value, lazy.bound, lazy.status) == (plain.value, plain.bound, plain.status)


def rows(kind: str, n: int, d: int) -> np.ndarray:
    rng = np.random.default_rng(n + d)
    if kind == "grid":
        return rng.integers(-1, 2, (n, d)) / 3
    if kind == "copies":
        return np.repeat(rng.normal(size=(max(1, n // 5), d)), 5, axis=0)[:n]
    if kind == "rounded":
        return rng.normal(size=(n, d)).round(1).astype(np.float32)
    if kind == "clusters":
        return 20 * rng.normal(size=(7, d))[rng.integers(0, 7, n)] + rng.normal(size=(n, d))
    return rng.normal(size=(n, d))


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["normal", "grid", "copies", "rounded", "clusters"])
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (2, 3, 2), (40, 2, 40), (2500, 1, 60), (3000, 6, 90)])
def test_lazy_search_is_the_plain_loop(both: Any, metric: str, kind: str, n: int, d: int, k: int) -> None:
    n = 5 if kind == "copies" and n < 5 else n
    same(*both(rows(kind, n, d), k=k, metric=metric))


@pytest.mark.parametrize("metric", METRICS)
def test_both_are_the_loop_written_down(both: Any, metric: str) -> None:
    X = rows("normal", 1500, 5)
    squares = ((X[:, None] - X[None]) ** 2).sum(axis=-1)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    apart = {"euclidean": np.sqrt(squares), "sqeuclidean": squares, "cosine": 1 - unit @ unit.T}[metric]
    plain, lazy = both(X, k=50, metric=metric)
    same(plain, lazy)
    near = apart[plain.indices[0]]
    for item in plain.indices[1:]:
        assert near[item] == pytest.approx(near.max(), rel=1e-12)
        near = np.minimum(near, apart[item])
    assert lazy.value == pytest.approx(near.max(), rel=1e-9)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", ["normal", "grid"])
def test_under_constraints(both: Any, metric: str, kind: str) -> None:
    X = rows(kind, 2600, 3)
    groups = np.arange(2600) % 4
    costs = 1 + np.arange(2600) % 3
    for given in (
        {"k": 30, "groups": groups, "quotas": {0: (9, None), 1: (0, 2)}},
        {"k": 30, "include": [5, 2000], "exclude": np.arange(100, 1200), "start": [7]},
        {"budget": 60, "costs": costs},
        {"budget": 40, "costs": costs * 0.1, "k": 25, "groups": groups, "quotas": {2: (4, 6)}},
    ):
        same(*both(X, metric=metric, **given))


# Lengths of rows, by which "cosine" divides, neither overflow nor vanish in the middle of the range.
EXTREMES = [(m, s) for m in METRICS for s in (1e-139, 1e-20, 1e100, 1e148) if m != "cosine" or 1e-99 < s < 1e101]


@pytest.mark.parametrize(("metric", "scale"), EXTREMES)
def test_extreme_units(both: Any, metric: str, scale: float) -> None:
    same(*both(rows("clusters", 1200, 3) * scale, k=25, metric=metric))


def test_rows_of_zeros_have_a_direction_of_their_own(both: Any) -> None:
    X = rows("grid", 2000, 2)
    X[[3, 900, 1500]] = 0
    plain, lazy = both(X, k=12, metric="cosine", include=[900])
    same(plain, lazy)
    assert lazy.indices[0] == 900
    assert lazy.gains[1] == 1.0


@pytest.mark.parametrize("layout", ["fortran", "strided", "readonly", "float32"])
def test_layouts(both: Any, layout: str) -> None:
    X = rows("normal", 1500, 4)
    if layout == "fortran":
        X = np.asfortranarray(X)
    elif layout == "strided":
        X = np.repeat(X, 2, axis=0)[::2]
    elif layout == "readonly":
        X.flags.writeable = False
    else:
        X = X.astype(np.float32)
    same(*both(X, k=20))


def test_distances_do_not_depend_on_blocks_or_sides() -> None:
    X = rows("normal", 700, 37)
    for metric in METRICS:
        table = np.array([distances_to(X, x, metric) for x in X[:50]])
        assert np.array_equal(table[:, :50], table[:, :50].T)
        assert np.array_equal(np.array([distances_to(X[[7]], x, metric)[0] for x in X[:50]]), table[:, 7])
        assert (np.diag(table) == 0).all()


def test_more_picks_than_distances_are_kept_between(both: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kcenter, "_PAIRED", 16)
    same(*both(rows("clusters", 1500, 2), k=70))


@pytest.mark.parametrize("kind", ["clusters", "normal"])
def test_few_distances_are_looked_at_whatever_the_threads(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(kcenter, "_SMALL", -1)
    X, k = rows(kind, 20_000, 8), 200
    plans = [farthest_first(X, k=k, n_threads=threads) for threads in (1, 2, 4)]
    assert all(plan.equals(plans[0]) for plan in plans)
    assert len({plan.info["distance_evals"] for plan in plans}) == 1
    assert plans[0].info["distance_evals"] < 0.5 * len(X) * k
    assert plans[0].info["oracle_calls"] == -(-plans[0].info["distance_evals"] // len(X))


def test_a_far_cluster_costs_next_to_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Picks in one cluster are not compared with the items of the other."""
    monkeypatch.setattr(kcenter, "_SMALL", -1)
    rng = np.random.default_rng(0)
    X = np.concatenate([rng.normal(size=(500, 3)), 1e4 + 1e-3 * rng.normal(size=(20_000, 3))])
    assert farthest_first(X, k=100).info["distance_evals"] < 8 * len(X)


def test_time_limit(both: Any) -> None:
    plain, lazy = both(
        rows("normal", 2000, 3), k=50, time_limit=1e-9, groups=np.arange(2000) % 2, quotas={1: (3, None)}
    )
    same(plain, lazy)
    assert (lazy.status, len(lazy)) == ("stopped", 50)
