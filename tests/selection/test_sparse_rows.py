"""Sparse rows are picked as the same rows are when they are dense, and are never made dense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse

import kofn
from kofn.core.checks import InputError
from kofn.objectives import GraphCut, LogDeterminant, SaturatedCoverage


def rows(n: int = 240, d: int = 50, seed: int = 0) -> Any:
    """Rows of a few positive entries, with copies and rows of zeros."""
    X = sparse.random_array((n, d), density=0.08, rng=np.random.default_rng(seed), format="csr")
    return sparse.vstack([X, X[:6] * 2, sparse.csr_array((3, d))], format="csr")


def overlapping(n: int = 249, d: int = 50) -> Any:
    """Rows every two of which share a column: else the rounding of dense rows decides who of the unlike is nearer."""
    X = sparse.random_array((n, d), density=0.4, rng=np.random.default_rng(1), format="csr")
    return sparse.csr_array(X)


QUERIES = rows(8, seed=5)[:8]
CALLS: dict[str, dict[str, Any]] = {
    "graph_cut": {"objective": "graph_cut", "metric": "cosine"},
    "graph_cut, weighted": {"objective": "graph_cut(lam=2)", "metric": "cosine", "weights": np.arange(249) % 4},
    "saturated_coverage": {"objective": "saturated_coverage(alpha=0.05)", "metric": "cosine"},
    "log_determinant": {"objective": "log_determinant"},
    "log_determinant, cosine": {"objective": "log_determinant(kernel='cosine', shift=0.1)"},
    "log_determinant, likely": {"objective": "log_determinant(kernel='cosine', shift=0)"},
    "sum": {"objective": "facility_location + 2 * graph_cut", "metric": "cosine"},
    "typiclust": {"method": "typiclust", "metric": "cosine", "seed": 0},
    "typiclust, labelled": {"method": "typiclust", "metric": "cosine", "seed": 1, "start": [3, 80], "neighbors": 4},
    "probability_cover": {"method": "probability_cover", "metric": "cosine", "seed": 0},
    "probability_cover, radius": {"method": "probability_cover", "metric": "cosine", "radius": 0.7, "start": [9]},
    "probability_cover, all": {"method": "probability_cover", "metric": "cosine", "radius": 1.1},
    "rds_plus": {"method": "rds_plus", "queries": QUERIES},
    "rds_plus, tasks": {"method": "rds_plus", "queries": QUERIES, "tasks": list("aabbccaa")},
    "marginal_relevance": {"method": "marginal_relevance", "queries": QUERIES},
}


_NEEDS_OVERLAP = ("typiclust", "typiclust, labelled", "probability_cover", "log_determinant, likely")


@pytest.mark.parametrize("name", list(CALLS))
def test_picks_are_those_of_dense_rows(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    X, asked = overlapping() if name in _NEEDS_OVERLAP else rows(), CALLS[name]
    dense = {word: value.toarray() if sparse.issparse(value) else value for word, value in asked.items()}
    expected = kofn.select(X.toarray(), k=12, **dense)
    calls: list[tuple[int, ...]] = []
    whole = sparse.csr_array.toarray

    def counted(matrix: Any, *arguments: Any, **options: Any) -> Any:
        calls.append(matrix.shape)
        return whole(matrix, *arguments, **options)

    monkeypatch.setattr(sparse.csr_array, "toarray", counted)
    found = kofn.select(X, k=12, **asked)
    assert found.indices.tolist() == expected.indices.tolist()
    np.testing.assert_allclose(found.gains, expected.gains, rtol=1e-6, atol=1e-9)
    assert X.shape not in calls
    for n_threads in (1, 2):
        if "rds" in name or "marginal" in name:
            break
        assert kofn.select(X, k=12, n_threads=n_threads, **asked).indices.tolist() == found.indices.tolist()


@pytest.mark.parametrize("made", [GraphCut, SaturatedCoverage, LogDeterminant])
def test_values_are_those_of_dense_rows(made: Any) -> None:
    X = rows()
    options = {} if made is LogDeterminant else {"metric": "cosine"}
    one, other = made(X, **options), made(X.toarray(), **options)
    picks = np.array([3, 17, 240, 248, 60])
    assert one.value(picks) == pytest.approx(other.value(picks), rel=1e-9)
    for item in picks.tolist():
        np.testing.assert_allclose(one.gains(np.arange(249)), other.gains(np.arange(249)), rtol=1e-9, atol=1e-9)
        assert one.add(item) == pytest.approx(other.add(item), rel=1e-9, abs=1e-9)


def test_gains_of_sparse_rows_never_rise() -> None:
    X = rows(300)
    for objective in (SaturatedCoverage(X, metric="cosine", alpha=0.02), GraphCut(X, metric="cosine", lam=0.7)):
        before = objective.gains(np.arange(309))
        for item in (5, 200, 1, 308):
            objective.add(item)
            after = objective.gains(np.arange(309))
            assert (after <= before).all()
            before = after


REFUSED: dict[str, tuple[Any, str]] = {
    "metric of a cut": (
        lambda X: kofn.select(X, k=3, objective="graph_cut"),
        "metric='cosine' .of facility_location, gr",
    ),
    "metric of a cover": (lambda X: SaturatedCoverage(X), "compared by metric='cosine', not 'euclidean'"),
    "kernel": (lambda X: LogDeterminant(X, kernel="rbf"), "say kernel='linear' or 'cosine'"),
    "memory": (lambda X: GraphCut(X, metric="cosine", max_memory=9), "give at least"),
    "balls": (lambda X: kofn.select(X, k=3, method="probability_cover"), "metric='cosine'"),
    "typical rows": (lambda X: kofn.select(X, k=3, method="typiclust", metric="euclidean"), "metric='cosine'"),
    "width": (
        lambda X: kofn.select(X, k=3, method="rds_plus", queries=QUERIES[:, :9]),
        "queries have 9 columns",
    ),
    "dense alone": (lambda X: kofn.select(X, k=3, method="gist"), "give a dense array"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_refusals(name: str) -> None:
    call, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        call(rows())


@pytest.mark.parametrize("method", ["auto", "lazy_greedy", "stochastic_greedy", "threshold_greedy"])
def test_picks_beyond_what_covers_every_row_gain_nothing(method: Any) -> None:
    pools = [
        [[1.0, 0], [1, 0], [0, 1], [0, 1]],
        [[1.0, 0]],
        np.ones((5, 2)),
        np.zeros((3, 2)),
        [[0, 0], [0, 0], [1, 0]],
    ]
    for pool in map(np.asarray, pools):
        for k in range(1, len(pool) + 1):
            asked: dict[str, Any] = {"k": k, "metric": "cosine", "method": method, "seed": 0}
            asked = {word: value for word, value in asked.items() if word != "seed" or method == "stochastic_greedy"}
            plan = kofn.select(sparse.csr_array(pool * 1.0), **asked)
            assert len(plan) == k
            if method == "lazy_greedy":
                assert plan.indices.tolist() == kofn.select(pool * 1.0, **asked).indices.tolist()


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "lil", "dok", "bsr", "dia"])
def test_every_kind_of_sparse_matrix_is_taken(kind: Any) -> None:
    X = sparse.random_array((12, 6), density=0.5, rng=np.random.default_rng(0))
    expected = kofn.select(X.tocsr(), k=3, metric="cosine").indices.tolist()
    assert kofn.select(X.asformat(kind), k=3, metric="cosine").indices.tolist() == expected
    assert kofn.select(sparse.csr_matrix(X).asformat(kind), k=3, metric="cosine").indices.tolist() == expected
    with pytest.raises(InputError, match="X has dtype complex128; give numbers"):
        kofn.select((X * 1j).asformat(kind), k=3, metric="cosine")


def test_shares_of_negative_products_are_of_rows_that_can_be_picked() -> None:
    from kofn.selection import marginal_relevance

    rows, words = -np.abs(np.random.default_rng(0).normal(size=(8, 3))), {"queries": [[1.0, 1, 1]], "balance": 0.5}
    alone = marginal_relevance(rows, k=5, relevance="product", **words)
    beside = marginal_relevance(np.vstack([rows, [[1e3, 0, 0]]]), k=5, relevance="product", exclude=[8], **words)
    assert alone.indices.tolist() == beside.indices.tolist()
    np.testing.assert_allclose(alone.info["relevance"], beside.info["relevance"])
    sums = rows.sum(axis=1)
    np.testing.assert_allclose(alone.info["relevance"], (sums / -sums.min())[alone.indices])


@pytest.mark.parametrize("words", [{}, {"quotas": {"b": (3, 3)}, "groups": list("ab") * 20}, {"balance": 1.0}])
def test_the_most_relevant_rows_make_up_the_number_after_a_stop(words: dict[str, Any]) -> None:
    from kofn.selection import marginal_relevance

    X = np.random.default_rng(1).normal(size=(40, 4))
    plan = marginal_relevance(X, k=8, queries=X[:1], time_limit=1e-9, **words)
    assert plan.status == "stopped"
    assert plan.info["filled_by"] == "by their relevance"
    likeness = X @ X[0] / np.linalg.norm(X, axis=1)
    likeness[plan.indices[: plan.info["found_in_time"]]] = np.inf
    groups = np.array(words.get("groups", ["a"] * 40))
    for group in np.unique(groups):
        rows = np.flatnonzero(groups == group)
        picked = rows[np.isin(rows, plan.indices)]
        best = rows[np.argsort(-likeness[rows])][: len(picked)]
        assert sorted(picked) == sorted(best), "the most relevant of the group"
    if "quotas" in words:
        assert (groups[plan.indices] == "b").sum() == 3
