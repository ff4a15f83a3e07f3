"""Borda over judges who rate only some, against counting pair by pair and SciPy's Kendall."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

import kofn
from kofn.combination import borda, merge_points
from kofn.combination.rankings import _borda as rankings
from kofn.combination.rankings._borda import points_of
from kofn.combination.rankings._electorate import Electorate
from kofn.core.checks import InputError
from kofn.core.plans import Plan

SCORE = st.one_of(st.integers(-2, 2).map(float), st.just(math.nan))


def ranked(ballots: Any, **words: Any) -> Any:
    """`borda` of a table with one row a judge."""
    return borda(np.asarray(ballots).T, **words)


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
    blend = ranked(table, weights=weights)
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
    blend = ranked(table)
    np.testing.assert_allclose(blend.info["points"], slow_points(table, np.ones(m)), atol=1e-12)
    assert blend.spread.tolist() == pytest.approx(slow_spread(table, blend.result))


def test_spread_is_kendalls_distance() -> None:
    from scipy.stats import kendalltau

    table = np.random.default_rng(0).normal(size=(5, 400))
    blend = ranked(table)
    place = np.argsort(blend.result)
    taus = [kendalltau(row, -place).statistic for row in table]
    np.testing.assert_allclose(blend.spread, [(1 - tau) / 2 for tau in taus], rtol=1e-12)


@given(table=tables(st.integers(-2, 2).map(float)))
@settings(deadline=None)
def test_complete_ballots_give_the_classical_count(table: np.ndarray) -> None:
    from scipy.stats import rankdata

    m, n = table.shape
    count = sum(rankdata(row) - 1 for row in table)
    blend = ranked(table)
    if n > 1:
        np.testing.assert_allclose(blend.info["points"] * (n - 1) * m, count, atol=1e-9)
        assert blend.result.tolist() == sorted(range(n), key=lambda j: -count[j])


@given(table=tables())
@settings(deadline=None)
def test_every_ballot_averages_a_half(table: np.ndarray) -> None:
    for row in table:
        rated = ~np.isnan(row)
        if rated.sum() > 1:
            assert np.mean(ranked(row[None]).info["points"][rated]) == pytest.approx(0.5)


@given(row=arrays(float, st.integers(2, 6), elements=st.integers(0, 3).map(float)), data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_cut_ballot_is_right_on_average(row: np.ndarray, data: st.DataObject) -> None:
    """The equality of the docstring: averaged over all subsets of one size that hold j, the share of j is unchanged."""
    n = len(row)
    size = data.draw(st.integers(2, n))
    whole = ranked(row[None]).info["points"]
    for j in range(n):
        shares = []
        for subset in itertools.combinations(range(n), size):
            if j in subset:
                cut = np.full(n, np.nan)
                cut[list(subset)] = row[list(subset)]
                shares.append(ranked(cut[None]).info["points"][j])
        assert np.mean(shares) == pytest.approx(whole[j])


@given(table=tables(), data=st.data())
@settings(deadline=None)
def test_relabelling_relabels(table: np.ndarray, data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(table.shape[1]))))
    judges = np.array(data.draw(st.permutations(range(table.shape[0]))))
    plain, moved = ranked(table), ranked(table[judges][:, order])
    np.testing.assert_allclose(moved.info["points"], plain.info["points"][order], atol=1e-12)
    if len(np.unique(plain.info["points"].round(9))) == table.shape[1]:
        assert order[moved.result].tolist() == plain.result.tolist()
        np.testing.assert_allclose(moved.spread, plain.spread[judges])


@given(table=tables(), seed=st.integers(0, 9))
@settings(deadline=None, max_examples=200)
def test_unanimity_between_alternatives_of_the_same_judges(table: np.ndarray, seed: int) -> None:
    blend = ranked(table, weights=weights_for(table, seed) + 1)
    place = np.argsort(blend.result)
    for a, b in itertools.permutations(range(table.shape[1]), 2):
        same = (np.isnan(table[:, a]) == np.isnan(table[:, b])).all()
        rated = ~np.isnan(table[:, a])
        if same and rated.any() and (table[rated, a] > table[rated, b]).all():
            assert place[a] < place[b]


def test_pairwise_unanimity_fails_on_partial_ballots() -> None:
    x = math.nan
    table = [[2, 1, x], [1, x, 2], [1, x, 2], [x, 2, 1], [x, 2, 1]]
    blend = ranked(table)
    assert blend.info["points"].tolist() == pytest.approx([1 / 3, 2 / 3, 1 / 2])


@given(table=tables(), data=st.data())
@settings(deadline=None)
def test_statistics_merge_over_any_partition(table: np.ndarray, data: st.DataObject) -> None:
    m = len(table)
    weights = weights_for(table, data.draw(st.integers(0, 9))) + 1
    label = np.array(data.draw(st.lists(st.integers(0, 2), min_size=m, max_size=m)))
    groups = [np.flatnonzero(label == part) for part in data.draw(st.permutations(range(3)))]
    parts = [ranked(table[group], weights=weights[group]).statistic for group in groups if len(group)]
    merged = merge_points(parts[0], merge_points(*parts[1:])) if len(parts) > 1 else merge_points(*parts)
    whole = ranked(table, weights=weights)
    np.testing.assert_allclose(points_of(merged), whole.info["points"], atol=1e-10)


def test_the_mean_of_points_is_another_thing() -> None:
    table = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    parts = [ranked(table[:2]), ranked(table[2:])]
    merged = points_of(merge_points(*(part.statistic for part in parts)))
    assert merged.tolist() == pytest.approx([2 / 3, 1 / 3])
    assert np.mean([part.info["points"] for part in parts], axis=0).tolist() == [0.5, 0.5]


@given(table=tables(), seed=st.integers(0, 9))
@settings(deadline=None)
def test_the_points_minimise_the_value(table: np.ndarray, seed: int) -> None:
    weights = weights_for(table, seed)
    blend = ranked(table, weights=weights)
    shares = [ranked(row[None]).info["points"] for row in table]

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
    heavy, many = ranked(table, weights=[3, 1]), ranked(np.repeat(table, [3, 1], axis=0))
    assert heavy.info["points"].tolist() == pytest.approx(many.info["points"].tolist())
    assert heavy.value == pytest.approx(many.value)
    dropped = ranked(table, weights=[0, 1])
    assert dropped.info["points"].tolist() == ranked(table[1:]).info["points"].tolist()


def test_ties_go_to_the_lowest_index_though_sums_round() -> None:
    rng = np.random.default_rng(0)
    base = np.array([rng.permutation(7) for _ in range(30)], float)
    twins = np.concatenate([base, base], axis=1)  # alternatives 7..13 are scored as 0..6 are
    result = ranked(twins[rng.permutation(30)]).result.tolist()
    assert [j - 7 for j in result if j >= 7] == [j for j in result if j < 7]
    assert all(result.index(j) < result.index(j + 7) for j in range(7))
    thirds = [[0, 1, 2, 3], [3, np.nan, 0, 1], [1, 0, np.nan, 2]]
    assert ranked(thirds).info["points"].round(12)[0] == pytest.approx((0 + 1 + 0.5) / 3)


def test_who_was_never_compared() -> None:
    x = math.nan
    blend = ranked([[5, x, 1, x, x], [x, 9, x, x, x], [4, x, 2, x, x]])
    assert blend.info["never_compared"] == [1, 3, 4]
    assert blend.result.tolist() == [0, 2, 1, 3, 4]
    assert blend.spread.tolist() == [0.0, 0.0, 0.0]
    assert np.isnan(blend.info["points"][[1, 3, 4]]).all()
    assert np.isfinite(blend.value)


@pytest.mark.parametrize(
    ("table", "weights", "says"),
    [
        ([[1, np.inf]], None, "rankings at row 1, column 0 is infinite"),
        ([[1, 2], [np.nan, np.nan]], None, "judge 1 rated nothing"),
        ([1, 2], None, r"shape \(2,\)"),
        ([["a", "b"]], None, "rankings"),
        ([[1, 2]], [-1], "weights at row 0 is -1"),
        ([[1, 2]], [0], "all zero"),
        ([[1, 2]], [1, 2], "weights has 2 values"),
        (np.empty((3, 0)), None, r"shape \(0, 3\)"),
    ],
)
def test_what_is_refused(table: Any, weights: Any, says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        ranked(table, weights=weights)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="empty"):
        merge_points()
    with pytest.raises(InputError, match="statistic 1 has 3 alternatives, statistic 0 has 2"):
        merge_points(ranked([[1, 2]]).statistic, ranked([[1, 2, 3]]).statistic)


def test_plans_frames_and_the_verb(tmp_path: Path) -> None:
    table = np.array([[3.0, np.nan, 1.0], [2.0, 5.0, np.nan]])
    blend = kofn.combine(rankings=table.T, ids=["x", "y", "z"])
    assert blend.method == "borda"
    assert blend.to_frame()["id"].to_list() == ["y", "x", "z"]
    assert Plan.load(blend.save(tmp_path / "p.npz")).equals(blend)


BOARD = {"mmlu": [70.0, 71.0, 68.0, 69.0], "gsm": [60.0, None, 85.0, 50.0], "ppl": [5.1, 4.9, 5.5, 6.0]}
MODELS = ["alpha", "beta", "gamma", "delta"]


def _frames() -> dict[str, tuple[Any, dict[str, Any]]]:
    import pandas
    import polars

    return {
        "polars, a column of names": (polars.DataFrame({"model": MODELS, **BOARD}), {"ids": "model"}),
        "pandas, a column of names": (pandas.DataFrame({"model": MODELS, **BOARD}), {"ids": "model"}),
        "pandas, an index of names": (pandas.DataFrame(BOARD, index=MODELS), {}),
        "polars, ids beside": (polars.DataFrame(BOARD), {"ids": MODELS}),
    }


@pytest.mark.parametrize("kind", _frames())
def test_a_frame_has_one_row_an_alternative_and_names_its_judges(kind: str) -> None:
    frame, words = _frames()[kind]
    table = np.array(list(BOARD.values()), float).T
    plain = kofn.combine(rankings=table, ids=MODELS)
    blend = kofn.combine(rankings=frame, **words)
    assert blend.info["judges"] == list(BOARD)
    assert blend.to_frame()["id"].to_list() == plain.to_frame()["id"].to_list() == ["gamma", "alpha", "beta", "delta"]
    turned = table * [1, 1, -1]
    by_name = kofn.combine(rankings=frame, lower="ppl", **words)
    by_number = kofn.combine(rankings=table, lower=[2], ids=MODELS)
    want = kofn.combine(rankings=turned, ids=MODELS)
    for other in (by_name, by_number):
        assert other.result.tolist() == want.result.tolist()
        assert other.info["points"].tolist() == want.info["points"].tolist()
    assert want.to_frame()["id"][0] == "beta"
    committee = kofn.select(rankings=frame, k=1, method="multiwinner", lower=["ppl"], **words)
    assert committee.indices.tolist() == kofn.select(rankings=turned, k=1).indices.tolist()


def test_judges_and_names_that_are_none_are_refused() -> None:
    frame, words = _frames()["polars, a column of names"]
    with pytest.raises(InputError, match="lower='pl': rankings has no such column; did you mean 'ppl'"):
        kofn.combine(rankings=frame, lower=["ppl", "pl"], **words)
    with pytest.raises(InputError, match="text in 'model'; if that names the rows say ids='model'"):
        kofn.combine(rankings=frame)
    with pytest.raises(InputError, match="lower names row 3"):
        kofn.combine(rankings=np.ones((4, 3)), lower=[3])


def test_equal_points_share_a_rank_and_scores_are_counted() -> None:
    x = math.nan
    frame = kofn.combine(rankings=[[3.0, 3.0], [1.0, 1.0], [2.0, 2.0], [2.0, 2.0], [x, x], [0.0, x]]).to_frame()
    assert frame["rank"].to_list() == [1, 2, 2, 4, 5, 6]
    assert frame["index"].to_list() == [0, 2, 3, 1, 5, 4]
    assert frame["rated"].to_list() == [2, 2, 2, 2, 1, 0]
    # What one judge compared may stand anywhere among those that were compared, what nobody compared nowhere.
    assert frame.select("rank_low", "rank_high").rows()[-2:] == [(1, 5), (0, 0)]


@pytest.mark.parametrize("seed", range(4))
def test_intervals_are_quantiles_of_the_ranks_of_drawn_panels(seed: int) -> None:
    """Against ranking every panel by itself, from the same draws."""
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 5, (6, 7)).astype(float)
    table[rng.random(table.shape) < 0.25] = np.nan
    table[0] = np.nan_to_num(table[0])
    weights = rng.integers(1, 4, 7).astype(float)
    blend = borda(table, weights=weights)
    counts = np.empty((1000, 7))
    judges = Electorate(table.T).canonical(weights).judges
    counts[:, judges] = np.random.default_rng(0).multinomial(7, np.full(7, 1 / 7), size=1000)
    low, high = [[] for _ in range(6)], [[] for _ in range(6)]
    for count in counts:
        points = slow_points(table.T, weights * count).round(9)
        for item in np.flatnonzero(~np.isnan(points)).tolist():
            low[item].append(1 + int((points > points[item]).sum()))
            high[item].append(int((points >= points[item]).sum()))
    compared = (~np.isnan(table) & ((~np.isnan(table)).sum(axis=0) > 1)).sum(axis=1)
    for item in range(6):
        if compared[item] > 1:
            assert blend.info["rank_low"][item] == np.quantile(low[item], 0.025, method="inverted_cdf")
            assert blend.info["rank_high"][item] == np.quantile(high[item], 0.975, method="inverted_cdf")


def test_intervals_cover_the_ranks_of_a_larger_panel() -> None:
    """From 12 judges of 20 alternatives, the ranks of 1,000 judges are within nearly all intervals."""
    rng = np.random.default_rng(5)
    inside = []
    for _ in range(20):
        worth = rng.normal(size=20)
        everybody = worth[:, None] + rng.normal(size=(20, 1000))
        blend = borda(everybody[:, :12])
        true = borda(everybody).ranks()
        inside.append((blend.info["rank_low"] <= true) & (true <= blend.info["rank_high"]))
    assert 0.9 < np.mean(inside) < 0.99


def test_many_alternatives_have_no_intervals() -> None:
    assert "rank_low" not in borda(np.random.default_rng(0).random((2001, 2))).info


LEADERBOARD = {"model": ["a", "b", "c"], "arc": [0.5, 0.6, 0.4], "ppl": [3.0, 2.0, 9.0]}


def boards(tmp_path: Path) -> Iterator[Any]:
    """A leaderboard as everything that holds a table."""
    frame = pl.DataFrame(LEADERBOARD)
    yield from (LEADERBOARD, {name: np.array(column) for name, column in LEADERBOARD.items()}, frame)
    for suffix in ("csv", "parquet"):
        path = tmp_path / f"board.{suffix}"
        getattr(frame, f"write_{suffix}")(path)
        yield from (path, str(path))


def test_a_leaderboard_is_ranked_whatever_holds_it(tmp_path: Path) -> None:
    """By position and by name, with the judges' and the alternatives' names, as the frame of its numbers is."""
    want = kofn.combine(rankings=pl.DataFrame(LEADERBOARD).drop("model"), ids=LEADERBOARD["model"], lower=["ppl"])
    for board in boards(tmp_path):
        for call in ({"rankings": board}, {"members": board}):
            plan = kofn.combine(**call, ids="model", lower=["ppl"])
            assert plan.to_frame().equals(want.to_frame())
            assert plan.info["judges"] == ["arc", "ppl"]
        one = kofn.combine(board, columns="arc", ids="model", method="kemeny")
        assert one.info["judges"] == ["arc"]
        assert one.to_frame()["id"].to_list() == ["b", "a", "c"]
    assert kofn.combine({"x": [1, 2, 3], "y": [2, 1, 3]}).result.tolist() == [2, 0, 1]


def test_what_is_no_leaderboard_is_refused_in_words_of_python(tmp_path: Path) -> None:
    for call, match in (
        (lambda: kofn.combine(LEADERBOARD, ids="modl"), r"rankings has no column 'modl'; did you mean 'model'"),
        (lambda: kofn.combine(LEADERBOARD, columns=["acc"]), r"rankings has no column 'acc'"),
        (lambda: kofn.combine(LEADERBOARD, rankings=LEADERBOARD), "members and rankings are both given"),
        (lambda: kofn.combine({"m": ["x", "y"], "n": ["u", "v"]}), "no numeric columns to take as judges' scores"),
        (lambda: kofn.combine(tmp_path / "none.csv"), r"none\.csv: no such file"),
        (lambda: kofn.combine({"w": np.ones((2, 2)), "v": np.ones((2, 2))}), "members=dict: give a list"),
        (lambda: kofn.combine({"w": np.ones(2)}), "members=dict: give a list"),
    ):
        with pytest.raises(InputError, match=match):
            call()


@pytest.mark.parametrize(
    ("method", "words"),
    [("borda", "differ from the ranking's by a weighted sum of squares of"), ("kemeny", "overturns preferences")],
)
def test_a_rankings_report_names_what_it_counts_and_its_judges(method: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "r.html"
    kofn.combine(LEADERBOARD, ids="model", lower=["ppl"], method=method).report(path)
    text = re.sub(r"<[^>]+>", " ", path.read_text(encoding="utf-8"))
    assert words in text
    assert "0 is full agreement" in text
    assert "The loss is" not in text
    assert re.search(r"lower is better for\s+ppl", text)
    assert "option lower" not in text
