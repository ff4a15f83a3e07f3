"""Neighbour graphs whose rows are found by tasks: the graph of threads, whoever finds which rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp

import kofn
from kofn.core.runtime import Control, Stopped
from kofn.engines.local import Local
from kofn.laws.engines import Shuffled
from kofn.neighbors import knn_graph
from kofn.neighbors.graphs import _cells, _found_rows, _sparse_graph

X = np.random.default_rng(0).integers(0, 6, (300, 4)).astype(np.float64)


def rows_of(kind: str) -> tuple[Any, dict[str, Any]]:
    if kind == "sparse":
        return sp.csr_array(X), {"metric": "cosine"}
    if kind == "usearch":
        pytest.importorskip("usearch")
    return X, {"engine": kind}


@pytest.mark.parametrize("kind", ["exact", "cells", "usearch", "sparse"])
def test_the_graph_is_that_of_threads(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_found_rows, "_OF_TASK", 300 * 4 * 40)
    monkeypatch.setattr(_found_rows, "_COORDINATES", 160)
    monkeypatch.setattr(_cells, "_CELL", 20)
    monkeypatch.setattr(_cells, "_OF_TASK", 3)
    monkeypatch.setattr(_sparse_graph, "_ROWS_AT_ONCE", 15)
    rows, words = rows_of(kind)
    whole = knn_graph(rows, 9, **words)
    for engine in (Local(2), Shuffled(1)):
        graph = knn_graph(rows, 9, tasks=engine, **words)
        assert engine.tasks >= 4
        np.testing.assert_array_equal(graph.indices, whole.indices)
        np.testing.assert_array_equal(graph.distances, whole.distances)
        np.testing.assert_array_equal(graph.missed, whole.missed)
        assert (graph.slack, graph.recall) == (whole.slack, whole.recall)


@pytest.mark.parametrize("kind", ["exact", "cells", "usearch", "sparse"])
def test_the_work_can_be_stopped(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sparse_graph, "_ROWS_AT_ONCE", 15)

    class Late(Control):
        asked = 0

        def stopped(self) -> bool:
            self.asked += 1
            return self.asked > 4

    rows, words = rows_of(kind)
    with pytest.raises(Stopped):
        knn_graph(rows, 9, tasks=Local(1), control=Late(), **words)


@pytest.mark.parametrize("kind", ["exact", "cells", "usearch", "sparse"])
def test_sparse_greedy_picks_the_same_rows(kind: str) -> None:
    rows, words = rows_of(kind)
    call: dict[str, Any] = {"k": 5, "method": "sparse_greedy", "n_neighbors": 9, "metric": "cosine"}
    call |= {"neighbors": words["engine"]} if "engine" in words else {}
    here, there = (
        kofn.select(rows[np.abs(X).sum(axis=1) > 0], engine=engine, **call) for engine in (None, Shuffled(2))
    )
    assert here.equals(there)
    assert there.info["engine"]["tasks"] >= 1
    assert "engine" not in here.info
