"""`fastclara` over parts: pools of files, matrices and sparse rows, on any engine; no part is cut by who reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from refusals import refused

import kofn
from kofn.assignment import fastclara
from kofn.core.pools import ArrayPool, Fragment
from kofn.engines.local import Local
from kofn.laws.engines import Shuffled
from kofn.objectives.similarity import pairwise_distances

X = (np.random.default_rng(0).normal(size=(700, 5)) + np.repeat(np.arange(7), 100)[:, None] * 3).astype(np.float32)


class Read(ArrayPool):
    """Counts what is read, and is never read as a whole."""

    rows = 0
    digest = "known"

    def read(self, fragment: Fragment) -> Any:
        assert fragment.rows < self.n
        self.rows += fragment.rows
        return super().read(fragment)


@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("weighted", [False, True])
def test_a_pool_in_parts_has_the_groups_of_the_array(metric: Any, weighted: bool) -> None:
    weights = np.random.default_rng(1).random(700) if weighted else None
    words: dict[str, Any] = {"k": 7, "metric": metric, "weights": weights, "seed": 0}
    whole, pool = fastclara(X, **words), Read(X)
    plan = fastclara(pool, part_rows=90, **words)
    assert plan.info["parts"] == 8
    assert pool.rows == 5 * 700, "once for each sample"
    np.testing.assert_array_equal(plan.medoids, whole.medoids)
    np.testing.assert_array_equal(plan.labels, whole.labels)
    near = pairwise_distances(X.astype(np.float64), metric)[:, plan.medoids]
    counts = np.ones(700) if weights is None else weights
    assert plan.value == pytest.approx(float(counts @ near.min(axis=1)), rel=1e-6)
    for engine in (Local(1), Local(2), Shuffled(4)):
        assert fastclara(Read(X), part_rows=90, engine=engine, **words).equals(plan)


def test_files_are_grouped_without_being_collected(tmp_path: Path) -> None:
    for part in range(3):
        pl.DataFrame({"x": X[part * 200 : part * 200 + 200]}).write_parquet(
            tmp_path / f"{part}.parquet", row_group_size=70
        )
    pool = kofn.Pool.open(tmp_path, vectors="x")
    plan = kofn.assign(pool, k=6, seed=0)
    assert plan.method == "fastclara"
    whole = kofn.assign(X[:600], k=6, seed=0, method="fastclara")
    assert plan.value == whole.value
    np.testing.assert_array_equal(plan.labels, whole.labels)
    assert kofn.assign(X[:600], k=6, seed=0, engine=Local(2)).method == "fastclara"


def test_a_start_is_kept_unless_a_sample_is_better() -> None:
    best = kofn.assign(X, k=7, method="fasterpam", seed=0)
    plan = fastclara(Read(X), k=7, seed=0, start=best.medoids, part_rows=300)
    assert plan.value == pytest.approx(best.value, rel=1e-6)
    assert len(plan.info["sample_losses"]) == 5


def test_time_that_is_up_leaves_every_row_with_its_medoid() -> None:
    plan = fastclara(Read(X), k=7, seed=0, part_rows=90, time_limit=1e-9)
    assert plan.status == "stopped"
    assert len(plan.info["sample_losses"]) == 1
    near = pairwise_distances(X.astype(np.float64))[:, plan.medoids]
    assert plan.value == pytest.approx(near.min(axis=1).sum(), rel=1e-6)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (
            lambda: fastclara(ArrayPool(np.repeat(X[:3], 200, axis=0)), k=4),
            "k=4 groups of 600 items, 3 of them distinct",
        ),
        (lambda: fastclara(Read(X), k=701), "k=701 of 700 items"),
        (lambda: fastclara(Read(X), k=2, metric="precomputed"), "a pool has vectors, not distances"),
        (lambda: fastclara(X, k=2, part_rows=0), "part_rows=0: ask for at least 1"),
        (
            lambda: kofn.assign(X, k=2, method="pam", engine=Local(2)),
            "runs on this machine only; leave engine out, or use",
        ),
    ],
)
def test_what_cannot_be_grouped_in_parts_is_refused(call: Any, says: str) -> None:
    refused(call, says)
