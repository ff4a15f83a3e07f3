"""Borda over judges who rate only some, against counting pair by pair and SciPy's Kendall."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import kofn
from kofn.combination import borda, merge_points
from kofn.combination.rankings import _borda as rankings
from kofn.combination.rankings._borda import points_of
from kofn.core.checks import InputError
from kofn.core.plans import Plan

SCORE = st.one_of(st.integers(-2, 2).map(float), st.just(math.nan))


@st.composite
def tables(draw: st.DrawFn, score: st.SearchStrategy[float] = SCORE, most: int = 7) -> np.ndarray:
    shape = draw(st.tuples(st.integers(1, 6), st.integers(1, most)))
    table = draw(arrays(float, shape, elements=score))
    silent = np.isnan(table).all(axis=1)
    table[silent, 0] = 0.0
    return table


def slow_points(table: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Every judge, every pair."""
    earned, heard = np.zeros(table.shape[1]), np.zeros(table.shape[1])
    for row, weight in zip(table, weights, strict=True):
        rated = [j for j in range(len(row)) if not math.isnan(row[j])]
        for j in rated:
            others = [row[l] for l in rated if l != j]
            if others:
                share = sum(1.0 if row[j] > other else 0.5 if row[j] == other else 0.0 for other in others)
                earned[j] += weight * share / len(others)
                heard[j] += weight
    return np.array([e / h if h else math.nan for e, h in zip(earned, heard, strict=True)])


def slow_spread(table: np.ndarray, order: np.ndarray) -> list[float]:
    spread = []
    for row in table:
        against = pairs = 0
        for first, second in itertools.combinations(order, 2):
            if row[first] > row[second] or row[first] < row[second]:
                pairs += 1
                against += bool(row[first] < row[second])
        spread.append(against / pairs if pairs else 0.0)
    return spread


def weights_for(table: np.ndarray, seed: int) -> np.ndarray:
    weights = np.random.default_rng(seed).integers(0, 4, len(table)).astype(float)
    return weights if weights.any() else weights + 1


@given(table=tables(), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=200)
def test_agrees_with_counting(table: np.ndarray, seed: int) -> None:
    weights = weights_for(table, seed)
    blend = borda(table, weights=weights)
    points = slow_points(table, weights)
    np.testing.assert_allclose(blend.info["points"], points, atol=1e-12)
    key = [-round(p, 9) if not math.isnan(p) else math.inf for p in points]
    assert blend.result.tolist() == sorted(range(len(points)), key=lambda j: key[j])
    assert blend.spread.tolist() == pytest.approx(slow_spread(table, blend.result))
    assert blend.info["never_compared"] == [j for j, p in enumerate(points) if math.isnan(p)]
    assert blend.form == "order"
    assert blend.result.dtype == np.int64
    np.testing.assert_allclose(blend.weights, weights / weights.sum())


@pytest.mark.parametrize(("run", "block", "m", "n"), [(4, 60, 9, 37), (64, 1 << 20, 40, 301), (2, 1, 3, 16)])
def test_the_merging_counts_what_pairs_count(run: int, block: int, m: int, n: int, monkeypatch) -> None:
    monkeypatch.setattr(rankings, "_RUN", run)
    monkeypatch.setattr(rankings, "_BLOCK", block)
    rng = np.random.default_rng(n)
    table = rng.integers(0, n // 2, (m, n)).astype(float)
    table[rng.random((m, n)) < 0.3] = np.nan
    table[0] = rng.permutation(n)
    blend = borda(table)
    np.testing.assert_allclose(blend.info["points"], slow_points(table, np.ones(m)), atol=1e-12)
    assert blend.spread.tolist() == pytest.approx(slow_spread(table, blend.result))


def test_spread_is_kendalls_distance() -> None:
    from scipy.stats import kendalltau

    table = np.random.default_rng(0).normal(size=(5, 400))
    blend = borda(table)
    place = np.argsort(blend.result)
    taus = [kendalltau(row, -place).statistic for row in table]
    np.testing.assert_allclose(blend.spread, [(1 - tau) / 2 for tau in taus], rtol=1e-12)


@given(table=tables(st.integers(-2, 2).map(float)))
@settings(deadline=None)
def test_complete_ballots_give_the_classical_count(table: np.ndarray) -> None:
    from scipy.stats import rankdata

    m, n = table.shape
    count = sum(rankdata(row) - 1 for row in table)
    blend = borda(table)
    if n > 1:
        np.testing.assert_allclose(blend.info["points"] * (n - 1) * m, count, atol=1e-9)
        assert blend.result.tolist() == sorted(range(n), key=lambda j: -count[j])


@given(table=tables())
@settings(deadline=None)
def test_every_ballot_averages_a_half(table: np.ndarray) -> None:
    for row in table:
        rated = ~np.isnan(row)
        if rated.sum() > 1:
            assert np.mean(borda(row[None]).info["points"][rated]) == pytest.approx(0.5)


@given(row=arrays(float, st.integers(2, 6), elements=st.integers(0, 3).map(float)), data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_cut_ballot_is_right_on_average(row: np.ndarray, data: st.DataObject) -> None:
    """The equality of the docstring: averaged over all subsets of one size that hold j, the share of j is unchanged."""
    n = len(row)
    size = data.draw(st.integers(2, n))
    whole = borda(row[None]).info["points"]
    for j in range(n):
        shares = []
        for subset in itertools.combinations(range(n), size):
            if j in subset:
                cut = np.full(n, np.nan)
                cut[list(subset)] = row[list(subset)]
                shares.append(borda(cut[None]).info["points"][j])
        assert np.mean(shares) == pytest.approx(whole[j])


@given(table=tables(), data=st.data())
@settings(deadline=None)
def test_relabelling_relabels(table: np.ndarray, data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(table.shape[1]))))
    judges = np.array(data.draw(st.permutations(range(table.shape[0]))))
    plain, moved = borda(table), borda(table[judges][:, order])
    np.testing.assert_allclose(moved.info["points"], plain.info["points"][order], atol=1e-12)
    if len(np.unique(plain.info["points"].round(9))) == table.shape[1]:
        assert order[moved.result].tolist() == plain.result.tolist()
        np.testing.assert_allclose(moved.spread, plain.spread[judges])


@given(table=tables(), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=200)
def test_unanimity_between_alternatives_of_the_same_judges(table: np.ndarray, seed: int) -> None:
    blend = borda(table, weights=weights_for(table, seed) + 1)
    place = np.argsort(blend.result)
    for a, b in itertools.permutations(range(table.shape[1]), 2):
        same = (np.isnan(table[:, a]) == np.isnan(table[:, b])).all()
        rated = ~np.isnan(table[:, a])
        if same and rated.any() and (table[rated, a] > table[rated, b]).all():
            assert place[a] < place[b]


def test_pairwise_unanimity_fails_on_partial_ballots() -> None:
    x = math.nan
    table = [[2, 1, x], [1, x, 2], [1, x, 2], [x, 2, 1], [x, 2, 1]]
    blend = borda(table)
    assert blend.info["points"].tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 2])


@given(table=tables(), data=st.data())
@settings(deadline=None)
def test_statistics_merge_over_any_partition(table: np.ndarray, data: st.DataObject) -> None:
    m = len(table)
    weights = weights_for(table, data.draw(st.integers(0, 9))) + 1
    label = np.array(data.draw(st.lists(st.integers(0, 2), min_size=m, max_size=m)))
    groups = [np.flatnonzero(label == part) for part in data.draw(st.permutations(range(3)))]
    parts = [borda(table[group], weights=weights[group]).statistic for group in groups if len(group)]
    merged = merge_points(parts[0], merge_points(*parts[1:])) if len(parts) > 1 else merge_points(*parts)
    whole = borda(table, weights=weights)
    np.testing.assert_allclose(points_of(merged), whole.info["points"], atol=1e-10)


def test_the_mean_of_points_is_another_thing() -> None:
    table = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    parts = [borda(table[:2]), borda(table[2:])]
    merged = points_of(merge_points(*(part.statistic for part in parts)))
    assert merged.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert np.mean([part.info["points"] for part in parts], axis=0).tolist() == [0.5, 0.5]


@given(table=tables(), seed=st.integers(0, 9))
@settings(deadline=None)
def test_the_points_minimise_the_value(table: np.ndarray, seed: int) -> None:
    weights = weights_for(table, seed)
    blend = borda(table, weights=weights)
    shares = [borda(row[None]).info["points"] for row in table]

    def cost(points: np.ndarray) -> float:
        off = [np.nansum(np.square(share - points)) for share in shares]
        return float(weights / weights.sum() @ off)

    points = blend.info["points"]
    assert blend.value == pytest.approx(cost(points), abs=1e-12)
    rng = np.random.default_rng(seed)
    for _ in range(5):
        assert cost(points + 0.1 * rng.normal(size=len(points))) >= blend.value - 1e-12


def test_a_weight_is_that_many_judges() -> None:
    table = np.array([[3.0, 2.0, np.nan], [1.0, 2.0, 3.0]])
    heavy, many = borda(table, weights=[3, 1]), borda(np.repeat(table, [3, 1], axis=0))
    assert heavy.info["points"].tolist() == pytest.approx(many.info["points"].tolist())
    assert heavy.value == pytest.approx(many.value)
    dropped = borda(table, weights=[0, 1])
    assert dropped.info["points"].tolist() == borda(table[1:]).info["points"].tolist()


def test_ties_go_to_the_lowest_index_though_sums_round() -> None:
    rng = np.random.default_rng(0)
    base = np.array([rng.permutation(7) for _ in range(30)], float)
    twins = np.concatenate([base, base], axis=1)  # alternatives 7..13 are scored as 0..6 are
    result = borda(twins[rng.permutation(30)]).result.tolist()
    assert [j - 7 for j in result if j >= 7] == [j for j in result if j < 7]
    assert all(result.index(j) < result.index(j + 7) for j in range(7))
    thirds = [[0, 1, 2, 3], [3, np.nan, 0, 1], [1, 0, np.nan, 2]]
    assert borda(thirds).info["points"].round(12)[0] == pytest.approx((0 + 1 + 0.5) / 3)


def test_who_was_never_compared() -> None:
    x = math.nan
    blend = borda([[5, x, 1, x, x], [x, 9, x, x, x], [4, x, 2, x, x]])
    assert blend.info["never_compared"] == [1, 3, 4]
    assert blend.result.tolist() == [0, 2, 1, 3, 4]
    assert blend.spread.tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(blend.info["points"][[1, 3, 4]]).all()
    assert np.isfinite(blend.value)


@pytest.mark.parametrize(
    ("table", "weights", "says"),
    [
        ([[1, np.inf]], None, "rankings at row 0, column 1 is infinite"),
        ([[1, 2], [np.nan, np.nan]], None, "judge 1 rated nothing"),
        ([1, 2], None, r"shape \(2,\)"),
        ([["a", "b"]], None, "rankings"),
        ([[1, 2]], [-1], "weights at row 0 is -1"),
        ([[1, 2]], [0], "all zero"),
        ([[1, 2]], [1, 2], "weights has 2 values"),
        (np.empty((0, 3)), None, r"shape \(0, 3\)"),
    ],
)
def test_what_is_refused(table: Any, weights: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        borda(table, weights=weights)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="empty"):
        merge_points()
    with pytest.raises(InputError, match="statistic 1 has 3 alternatives, statistic 0 has 2"):
        merge_points(borda([[1, 2]]).statistic, borda([[1, 2, 3]]).statistic)


def test_plans_frames_and_the_verb(tmp_path: Path) -> None:
    table = np.array([[3.0, np.nan, 1.0], [2.0, 5.0, np.nan]])
    blend = kofn.combine(rankings=table, ids=["x", "y", "z"])
    assert blend.method == "borda"
    assert blend.to_frame()["id"].to_list() == ["y", "x", "z"]
    assert Plan.load(blend.save(tmp_path / "p.npz")).equals(blend)
