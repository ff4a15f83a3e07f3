"""Votes between two as ballots: counted by hand, ranked as brute force ranks, refused where they would mislead."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import kofn
from kofn.combination import vote_ballots, win_ballots
from kofn.combination.rankings._pairs import Listed, overturned, preferences
from kofn.combination.rankings._votes import count_votes
from kofn.core.checks import InputError, compared_pair, refuse_wins, vote_columns
from kofn.core.checks.votes import VoteColumns
from kofn.core.checks.winners import side_of, sides_of

WINS = pd.DataFrame({"A": [0, 60, 8], "B": [90, 0, 9], "C": [2, 1, 0]}, index=["A", "B", "C"])


def against(wins: Any, order: Any) -> float:
    """The wins that an order turns round."""
    return sum(float(wins[below, above]) for above, below in itertools.combinations(order, 2))


@pytest.mark.parametrize("seed", range(20))
def test_kemeny_of_win_ballots_overturns_the_fewest_wins(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 7))
    wins = rng.integers(0, 20, (n, n)).astype(float) * (rng.random((n, n)) < 0.7)
    wins[0, 1] = 3
    ties = np.triu(rng.integers(0, 5, (n, n)), 1)
    wins[rng.integers(n), 0] = np.nan if n > 2 else wins[1, 0]
    plan = kofn.combine(**win_ballots(wins, ties + ties.T), method="kemeny")
    counted = np.nan_to_num(wins)
    np.fill_diagonal(counted, 0)
    best = min(against(counted, order) for order in itertools.permutations(range(n)))
    assert plan.status == "optimal"
    assert plan.value == best == against(counted, plan.result.tolist())


def test_borda_of_win_ballots_is_the_share_of_votes_won() -> None:
    ballots = win_ballots([[0, 3, 1], [1, 0, 0], [1, 2, 0]], [[0, 2, 0], [2, 0, 0], [0, 0, 0]])
    points = kofn.combine(**ballots, method="borda").info["points"]
    assert points.tolist() == pytest.approx([(3 + 1 + 1) / 8, (1 + 1) / 8, (1 + 2) / 4])


def test_a_head_to_head_table_is_ranked_by_its_majorities() -> None:
    for frame in (WINS, WINS[["C", "A", "B"]], WINS.loc[["B", "C", "A"]]):
        plan = kofn.combine(**win_ballots(frame), method="kemeny")
        assert plan.to_frame()["id"].to_list() == ["C", "A", "B"]
        assert plan.value == 60 + 2 + 1
    named = win_ballots(pl.DataFrame({name: WINS[name].tolist() for name in ["B", "C", "A"]}), ids=list("ABC"))
    assert kofn.combine(**named, method="kemeny").value == 60 + 2 + 1
    assert named["ids"] == ["A", "B", "C"]


@pytest.mark.parametrize("seed", range(6))
def test_votes_are_counted_as_by_hand(seed: int) -> None:
    rng = np.random.default_rng(seed)
    names = np.array(["ant", "bee", "cat", "dog"])
    n = 200
    first = rng.integers(0, 4, n)
    second = (first + rng.integers(1, 4, n)) % 4
    outcome = rng.integers(0, 3, n)
    wins, ties = np.zeros((4, 4)), np.zeros((4, 4))
    for i, j, won in zip(first, second, outcome, strict=True):
        if won == 0:
            ties[i, j] += 1
            ties[j, i] += 1
        else:
            wins[(i, j) if won == 1 else (j, i)] += 1
    by_name = np.where(outcome == 1, names[first], np.where(outcome == 2, names[second], "tie"))
    by_column = np.array(["tie (bothbad)", "model_a", "model_b"])[outcome]
    by_letter = np.array(["draw", "a", "B"])[outcome]
    for winner in (by_name, by_column, by_letter):
        frame = pl.DataFrame({"model_a": names[first], "model_b": names[second], "winner": winner})
        votes = count_votes(frame["model_a"], frame["model_b"], frame["winner"])
        assert votes.names == names.tolist()
        assert votes.wins.tolist() == wins.tolist()
        assert votes.ties.tolist() == ties.tolist()
        pandas = frame.to_dict(as_series=False)
        series = [pd.Series(pandas[name], name=name) for name in pandas]
        assert count_votes(*series).wins.tolist() == wins.tolist()
    whole = vote_ballots(names[first], names[second], by_name)
    counted = win_ballots(wins, ties, ids=names.tolist())
    assert whole["ids"] == counted["ids"]
    np.testing.assert_equal(whole["rankings"], counted["rankings"])
    assert whole["weights"].sum() == n


def test_votes_without_a_winner_or_against_oneself_are_left_out() -> None:
    votes = count_votes(["x", "x", None, "y", "z"], ["y", "y", "x", "x", "z"], ["x", None, "x", "x", "z"])
    assert votes.names == ["x", "y"]
    assert votes.wins.tolist() == [[0, 2], [0, 0]]
    assert (votes.left_out, votes.against_itself) == (3, 1)


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: win_ballots([[0, 1, 2], [1, 0, 2]]), r"wins has shape \(2, 3\); give \(n, n\)"),
        (lambda: win_ballots([[0]]), r"wins has shape \(1, 1\)"),
        (lambda: win_ballots([[0, -1], [1, 0]]), "wins at row 0, column 1 is -1; give how often"),
        (lambda: win_ballots([[0, np.inf], [1, 0]]), "wins at row 0, column 1 is inf"),
        (lambda: win_ballots([[5, 0], [np.nan, 5]]), "holds no win and no tie"),
        (lambda: win_ballots([[0, 1], [1, 0]], [[0, 1], [2, 0]]), "give a symmetric table"),
        (lambda: win_ballots([[0, 1], [1, 0]], np.zeros((3, 3))), r"ties has shape \(3, 3\)"),
        (lambda: win_ballots([[0, 1], [1, 0]], ids=["a"]), "wins has 2 rows|ids has 1"),
        (lambda: vote_ballots(["a"], ["b"], ["z"]), "winner at row 0 is 'z', which is neither 'a' nor 'b' nor a tie"),
        (lambda: vote_ballots(["a", "b"], ["b"], ["a", "b"]), "second has 1"),
        (lambda: vote_ballots([], [], []), "first has shape"),
        (lambda: vote_ballots(["a"], ["a"], ["a"]), "no two alternatives"),
    ],
)
def test_what_cannot_be_counted_is_refused(call: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        call()


@pytest.mark.parametrize("method", ["auto", "borda", "kemeny"])
def test_judges_called_as_what_they_judge_are_refused(method: Any) -> None:
    shuffled = WINS[["C", "A", "B"]]
    named = pl.DataFrame({"model": ["A", "B", "C"], **{name: WINS[name].tolist() for name in WINS}})
    for call in (
        lambda: kofn.combine(rankings=WINS, method=method),
        lambda: kofn.combine(rankings=shuffled, method=method),
        lambda: kofn.combine(rankings=named, ids="model", method=method),
        lambda: kofn.combine(rankings=named.drop("model"), ids=["C", "B", "A"], method=method),
    ):
        with pytest.raises(InputError, match=r"looks like a table of wins.*win_ballots\(frame\).*call them otherwise"):
            call()
    judged = WINS.rename(columns=lambda name: f"judge {name}")
    assert kofn.combine(rankings=judged, method="borda").to_frame()["id"].to_list() == ["A", "B", "C"]
    assert kofn.combine(rankings=WINS.to_numpy(), ids=list("ABC"), method="borda").n == 3


def test_columns_that_are_not_the_rows_are_judges() -> None:
    for judges, ids in ((["A", "B"], ["A", "B", "C"]), (["A", "B", "C", "D"], ["A", "B", "C"]), (["A"], ["A"])):
        refuse_wins(judges, ids, "")
    refuse_wins(["0", "1", "2"], [0, 1, 2], "")
    with pytest.raises(InputError, match="as its rows are"):
        refuse_wins(["7", "1"], [1, 7], "")


def test_a_frame_of_votes_is_told_how_to_be_counted() -> None:
    frame = pd.DataFrame(
        {
            "model_a": ["x", "y", "x"],
            "model_b": ["y", "z", "z"],
            "winner": ["model_a", "tie", "model_b"],
            "time": [1, 2, 3],
        }
    )
    for given in (frame, pl.from_dict(frame.to_dict("list"))):
        with pytest.raises(InputError, match=r"looks like votes, one a row \(model_a, model_b, winner\)") as refusal:
            kofn.combine(rankings=given)
        call = str(refusal.value).split("count them first: ")[1]
        plan = eval(call, {"kofn": kofn, "frame": given})
        assert set(plan.to_frame()["id"].to_list()) == {"x", "y", "z"}


@pytest.mark.parametrize("ids", [None, "model_a"])
@pytest.mark.parametrize(
    ("winner", "says"),
    [
        (
            [1, 1, 0, 1],
            "compares model_a and model_b row by row, and no column names the winner: winner at row 0 is 1; give",
        ),
        (
            [True, True, False, True],
            "names the winner: winner at row 0 is True; give a column that holds model_a, model_b or tie",
        ),
        (["a", "a", "cc", "a"], "winner at row 2 is 'cc', which is neither 'a' nor 'c' nor a tie"),
    ],
)
def test_a_frame_of_votes_without_names_of_winners_is_refused(ids: Any, winner: Any, says: str) -> None:
    frame = pd.DataFrame({"model_a": ["a", "a", "a", "a"], "model_b": ["b", "b", "c", "b"], "winner": winner})
    for given in (frame, pl.from_dict(frame.to_dict("list"))):
        with pytest.raises(InputError, match=says):
            kofn.combine(rankings=given, ids=ids)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"q": ["1", "2"], "l": ["x", "y"], "r": ["y", "z"], "won": ["x", "z"]}, VoteColumns("l", "r", "won")),
        ({"l": ["x", "y"], "won": ["left", "RIGHT"], "r": ["y", "z"]}, VoteColumns("l", "r", "won")),
        ({"l": ["x", "y"], "r": ["y", "x"], "vote": ["1", "tie"]}, VoteColumns("l", "r", "vote")),
        (
            {"A name": ["x", "y"], "B name": ["y", "x"], "which": ["a name", None]},
            VoteColumns("A name", "B name", "which"),
        ),
        ({"l": ["x", "y"], "r": ["y", "x"], "turn": ["1", "2"]}, None),
        ({"Winner": ["x"], "Loser": ["y"]}, VoteColumns("Winner", "Loser", None)),
        ({"model": ["x", "y"], "org": ["u", "u"], "note": ["fast", "slow"]}, None),
        ({"l": ["x", "y"], "r": ["y", "z"], "note": ["x", "good"]}, None),
        ({"l": ["x", "y"], "r": ["y", "z"], "note": ["tie", "tie"]}, None),
        ({"l": ["x", "y"], "r": ["u", "z"], "won": ["x", "z"]}, None),
    ],
)
def test_tables_of_votes_are_told_by_what_they_hold(columns: Any, expected: VoteColumns | None) -> None:
    assert vote_columns(columns) == expected


def test_a_table_of_pairs_without_a_winner_is_told() -> None:
    assert compared_pair({"l": ["x", "y", "z", "x"], "r": ["y", "z", "x", "z"]}) == ("l", "r")
    assert compared_pair({"model": ["x", "y", "z"], "base": ["x", "x", "x"]}) is None
    assert compared_pair({"model": ["x", "y", "z"], "also": ["x", "y", "z"]}) is None


def test_a_name_that_is_a_word_for_a_side_is_a_name() -> None:
    assert side_of("a", "b", "a", ("", "")) == 2
    assert side_of("b", "b", "a", ("", "")) == 1


@pytest.mark.parametrize("seed", range(8))
def test_judges_of_two_are_counted_as_all_others_are(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, m = int(rng.integers(2, 7)), 40
    ballots = rng.integers(0, 3, (m, n)).astype(float)
    for ballot in ballots:
        ballot[rng.permutation(n)[int(rng.integers(1, 4)) :]] = np.nan
    weights, order = rng.integers(0, 5, m).astype(float), rng.permutation(n)
    prefers, shares = np.zeros((n, n)), []
    for ballot, weight in zip(ballots, weights, strict=True):
        pairs = [(a, b) for a in range(n) for b in range(n) if ballot[a] > ballot[b]]
        for pair in pairs:
            prefers[pair] += weight
        position = np.argsort(order)
        shares.append(sum(position[a] > position[b] for a, b in pairs) / max(len(pairs), 1))
    assert preferences(Listed.of(ballots), weights, ballots.shape[1]).tolist() == prefers.tolist()
    assert overturned(Listed.of(ballots), order).tolist() == pytest.approx(shares)


LETTERS = [("a", "b"), ("A", "B"), ("first", "second"), ("left", "right"), ("1", "2")]


@pytest.mark.parametrize("names", LETTERS)
@pytest.mark.parametrize("seed", range(3))
def test_words_for_sides_that_are_names_are_read_in_one_way(names: tuple[str, str], seed: int) -> None:
    """The same votes, written by sides and by names, against models that are called otherwise."""
    rng = np.random.default_rng(seed)
    called = np.array([*names, "c", "d"])
    plain = np.array(["m0", "m1", "m2", "m3"])
    first = rng.integers(0, 4, 80)
    second = (first + rng.integers(1, 4, 80)) % 4
    outcome = rng.integers(0, 3, 80)
    won = np.where(outcome == 1, first, second)
    expected = count_votes(plain[first], plain[second], np.where(outcome == 0, "tie", plain[won]))
    by_side = count_votes(called[first], called[second], np.array(["tie", *names])[outcome])
    by_name = count_votes(called[first], called[second], np.where(outcome == 0, "tie", called[won]))
    order = [by_side.names.index(name) for name in called]
    for votes in (by_side, by_name):
        assert votes.wins[np.ix_(order, order)].tolist() == expected.wins.tolist()
        assert votes.ties[np.ix_(order, order)].tolist() == expected.ties.tolist()


@pytest.mark.parametrize("names", LETTERS)
def test_winners_that_may_be_sides_or_names_are_refused(names: tuple[str, str]) -> None:
    a, b = names
    with pytest.raises(InputError, match=f"the winner of '{b}' against '{a}' is '{a}'.*no row tells.*write 'first' or"):
        vote_ballots([a, b], [b, a], [a, a])
    mixed = ([b, "c", "c"], [a, "d", "d"], [a, a, "c"])
    with pytest.raises(InputError, match=f"other rows tell both .'{a}' of 'c' against 'd' and 'c' of 'c' against 'd'"):
        vote_ballots(*mixed)
    frame = pl.DataFrame({"model_a": [b, a], "model_b": [a, b], "winner": [a, "tie"]})
    with pytest.raises(InputError, match="write 'model_a' or 'model_b' or tie in every row"):
        vote_ballots(frame["model_a"], frame["model_b"], frame["winner"])
    with pytest.raises(InputError, match="the word for a tie"):
        vote_ballots(["none", "x"], ["x", "y"], ["none", "none"])


def test_words_that_agree_with_names_are_no_matter() -> None:
    assert count_votes(["a", "a", "c"], ["b", "b", "b"], ["a", "second", "tie"]).wins.tolist() == [
        [0, 1, 0],
        [1, 0, 0],
        [0, 0, 0],
    ]
    assert sides_of([("none", "x", "none"), ("x", "y", "tie")], ("", "")) == [1, 0]
