"""What a ranking hangs on: every rule, single judges left out by hand, groups of judges, weights that make a winner."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

import kofn
from kofn.combination import RuleComparison, compare_rules, group_ballots, winning_weights
from kofn.core.checks import InputError


def table(seed: int) -> Any:
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(5, 1)) + rng.normal(size=(5, 6))
    scores[rng.random(scores.shape) < 0.2] = np.nan
    return scores


@pytest.mark.parametrize("method", ["borda", "schulze", "threshold_rule", "kemeny", "plackett_luce"])
def test_leaving_a_judge_out_is_ranking_without_it(method: Any) -> None:
    scores, weights = table(3), np.array([1.0, 2, 1, 1, 3, 1])
    options = {"prior": 0.1} if method == "plackett_luce" else {}
    compared = compare_rules(scores, method=method, weights=weights, options=options)
    assert method in compared.winners
    for judge in range(6):
        kept = np.delete(np.arange(6), judge)
        plan = kofn.combine(rankings=scores[:, kept], weights=weights[kept], method=method, options=options)
        assert compared.without[judge] == np.flatnonzero(plan.ranks() == 1).tolist()


def test_every_rule_ranks_as_it_does_alone() -> None:
    scores = table(5)
    compared = compare_rules(scores)
    assert isinstance(compared, RuleComparison)
    for name, ranks in compared.ranks.items():
        method: Any = name
        alone = kofn.combine(rankings=scores, method=method)
        expected = alone.info.get("best_rank", alone.ranks())
        assert ranks.tolist() == expected.tolist()
    assert {*compared.ranks, *compared.left_out} == {
        entry.name
        for entry in kofn.methods("combine", given=("rankings",))
        if entry.path.startswith("kofn.combination.rankings.")
    }
    np.testing.assert_allclose(np.diag(compared.agreement), 1)
    assert compared.pairs[0, 1] == pytest.approx(1 - compared.pairs[1, 0])


def test_rules_that_rank_nothing_say_why() -> None:
    compared = compare_rules([[3.0, 3], [2, 1], [1, 2]])
    assert compared.left_out == {"bradley_terry": "perfect separation", "plackett_luce": "perfect separation"}
    apart = compare_rules([[3.0, np.nan], [2, np.nan], [np.nan, 1], [np.nan, 2]])
    assert apart.left_out["bradley_terry"] == "parts that were never compared"
    rng = np.random.default_rng(0)
    cycle = np.array([np.roll(np.arange(20.0), shift) for shift in range(20)])
    assert compare_rules(cycle).left_out["kemeny"] == "majorities tie 20 alternatives into a cycle"
    assert compare_rules(rng.random((4, 1))).without == []
    with pytest.raises(InputError, match="method='bordo': choose one of"):
        compare_rules(cycle, method="bordo")


def test_names_of_a_frame_are_its_judges() -> None:
    frame = pl.DataFrame({"acc": [3.0, 2, 1], "loss": [1.0, 2, 3], "f1": [3.0, 1, 2]})
    assert compare_rules(frame, lower="loss").winners["borda"] == [0]
    ballots = group_ballots(frame, {"a": ["acc", "loss"], "b": ["f1"]}, lower="loss")
    assert ballots["rankings"].to_dict(as_series=False) == {"a": [-1.0, -2.0, -3.0], "b": [-1.0, -3.0, -2.0]}


def test_a_group_counts_once_however_many_judges_it_has() -> None:
    scores = np.array([[9, 8, 7, 1], [1, 2, 3, 9], [5, 5, 5, 5]], float)
    groups = {"maths": [0, 1, 2], "code": [3]}
    assert kofn.combine(rankings=scores, method="copeland").result[0] == 0
    for rule in ("borda", "copeland", "kemeny"):
        method: Any = rule
        ballots = group_ballots(scores, groups, method=rule)
        assert kofn.combine(**ballots, method="borda").info["points"].tolist() == [0.5, 0.5, 0.5], method
    scores[0, 3] = np.nan
    assert group_ballots(scores, groups)["rankings"]["code"].is_nan().to_list() == [True, False, False]


@pytest.mark.parametrize(
    ("groups", "says"),
    [
        ({}, "groups is empty"),
        ({"a": []}, r"groups\['a'\] is empty"),
        ({"a": [0], "b": [0]}, "name judge 0 twice"),
        ({"a": ["x"]}, "has no column 'x'"),
        ({"a": [7]}, r"groups\['a'\] names column 7; give numbers from 0 to 1"),
    ],
)
def test_groups_that_are_none_are_refused(groups: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        group_ballots(np.ones((2, 2)), groups)


@pytest.mark.parametrize("seed", range(8))
def test_weights_make_a_winner_or_there_are_none(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.random((4, 4))
    for item in range(4):
        weights = winning_weights(scores, item)
        if weights is None:
            # No weights on a grid make it first either.
            grid = rng.dirichlet(np.ones(4), 300)
            others = [kofn.combine(rankings=scores, weights=row).info["points"] for row in grid[:20]]
            assert all(points[item] < points.max() for points in others)
            continue
        points = kofn.combine(rankings=scores, weights=weights).info["points"]
        assert points[item] >= points.max() - 1e-9
        equal = kofn.combine(rankings=scores).info["points"]
        if equal[item] == equal.max():
            assert weights == pytest.approx(np.full(4, 0.25))
    with pytest.raises(InputError, match="row 0, column 1 is missing"):
        winning_weights([[1.0, np.nan], [2.0, 3.0]], 0)
