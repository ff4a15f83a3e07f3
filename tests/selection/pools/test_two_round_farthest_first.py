"""k-center from core-sets of a pool's parts: near farthest first, its promises, and the same for any engine."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from law_runs import keeps_laws_at_size
from refusals import refused

import kofn
from kofn.core.checks import InfeasibleError
from kofn.core.pools import ArrayPool, Fragment
from kofn.engines.local import Local
from kofn.laws.engines import Shuffled
from kofn.objectives.kcenter import distances_to
from kofn.selection import farthest_first, two_round_farthest_first

_RNG = np.random.default_rng(5)
X = (_RNG.normal(size=(40, 8))[_RNG.integers(40, size=3000)] * 3 + _RNG.normal(size=(3000, 8))).astype(np.float32)
METRICS = ["euclidean", "sqeuclidean", "cosine"]


def radius_of(points: Any, picks: Any, metric: str) -> float:
    return float(np.min([distances_to(points, points[pick], metric) for pick in picks], axis=0).max())


@pytest.mark.parametrize("metric", METRICS)
def test_a_pool_of_one_part_has_the_picks_of_farthest_first(metric: Any) -> None:
    one, plain = two_round_farthest_first(X, k=15, metric=metric), farthest_first(X, k=15, metric=metric)
    np.testing.assert_array_equal(one.indices, plain.indices)
    np.testing.assert_array_equal(one.gains, plain.gains)
    assert (one.value, one.bound) == (plain.value, plain.bound)


@pytest.mark.parametrize("metric", METRICS)
def test_the_radius_is_that_of_all_rows_and_core_sets_bound_it(metric: Any) -> None:
    plan = two_round_farthest_first(X, k=15, metric=metric, part_rows=250)
    assert plan.value == radius_of(X, plan.indices, metric)
    assert plan.info["parts"] == 12
    assert plan.info["candidates"] == 12 * 30
    more = two_round_farthest_first(X, k=15, metric=metric, part_rows=250, mu=8)
    assert more.info["core_radius"] < plan.info["core_radius"]
    assert plan.value <= 1.3 * farthest_first(X, k=15, metric=metric).value


@pytest.mark.parametrize(("metric", "most"), [("euclidean", 4), ("sqeuclidean", 16), ("cosine", 16)])
def test_no_instance_is_worse_than_promised(metric: Any, most: float) -> None:
    worst = 0.0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        few = np.round(rng.normal(size=(9, 2)) * rng.choice([1, 3], (9, 1)), 1) + 1e-3
        best = min(radius_of(few, picks, metric) for picks in itertools.combinations(range(9), 3))
        plan = two_round_farthest_first(few, k=3, metric=metric, part_rows=3, mu=1)
        assert plan.value is not None
        assert plan.bound is not None
        assert plan.bound <= best * (1 + 1e-12)
        assert plan.guarantee == 1 / most
        worst = max(worst, plan.value / best if best else 1.0)
    assert 1 < worst <= most


def test_files_and_engines_give_the_same_plan(tmp_path: Path) -> None:
    for part in range(3):
        pl.DataFrame({"x": X[part * 1000 : part * 1000 + 1000]}).write_parquet(tmp_path / f"{part}.parquet")
    pool = kofn.Pool.open(tmp_path, vectors="x")
    words: dict[str, Any] = {"k": 9, "part_rows": 500, "include": [2999, 4], "exclude": range(100, 300)}
    plan = two_round_farthest_first(pool, **words)
    assert plan.indices[:2].tolist() == [2999, 4]
    assert plan.guarantee is None
    assert not set(plan.indices.tolist()) & set(range(100, 300))
    for engine in (Local(1), Local(3), Shuffled(1)):
        assert two_round_farthest_first(pool, engine=engine, **words).equals(plan)
    assert kofn.select(X, method="two_round_farthest_first", **words).indices.tolist() == plan.indices.tolist()


def test_laws_hold_beyond_a_handful_of_rows() -> None:
    keeps_laws_at_size("two_round_farthest_first", {"X": X[:400], "k": 6}, {"part_rows": 90})


def test_a_run_that_was_killed_goes_on(tmp_path: Path) -> None:
    class Death(BaseException):
        pass

    class Killed(ArrayPool):
        reads, most = 0, 7

        def read(self, fragment: Fragment) -> Any:
            self.reads += 1
            if self.reads > self.most:
                raise Death
            return super().read(fragment)

    words: dict[str, Any] = {"k": 9, "part_rows": 250, "engine": Local(1), "work": tmp_path}
    pool = Killed(X)
    # The digest of a pool in memory reads it too.
    assert pool.digest
    pool.reads = 0
    with pytest.raises(Death):
        two_round_farthest_first(pool, **words)
    pool.most = 10**6
    again = two_round_farthest_first(pool, **words)
    assert again.info["reused"] == 7
    whole = two_round_farthest_first(pool, k=9, part_rows=250)
    np.testing.assert_array_equal(again.indices, whole.indices)
    np.testing.assert_array_equal(again.gains, whole.gains)
    assert (again.value, again.bound) == (whole.value, whole.bound)
    refused(lambda: two_round_farthest_first(pool, **{**words, "k": 8}), "was begun with k=9, this call has k=8")


def test_time_that_is_up_leaves_k_valid_rows() -> None:
    plan = two_round_farthest_first(X, k=9, part_rows=5, time_limit=1e-9, exclude=[0, 1])
    assert (plan.status, plan.bound, len(set(plan.indices.tolist()))) == ("stopped", None, 9)
    assert not {0, 1} & set(plan.indices.tolist())


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"k": 3, "mu": 0}, "mu=0: ask for at least 1"),
        ({"k": 3, "part_rows": 0}, "part_rows=0: ask for at least 1"),
        ({"k": 3, "metric": "rbf"}, "compares rows by distances"),
    ],
)
def test_what_cannot_be_is_refused(words: dict[str, Any], says: str) -> None:
    refused(lambda: two_round_farthest_first(X, **words), says)


def test_more_picks_than_rows_are_refused() -> None:
    with pytest.raises(InfeasibleError, match="k=3001 of 3000 items"):
        two_round_farthest_first(X, k=3001)
