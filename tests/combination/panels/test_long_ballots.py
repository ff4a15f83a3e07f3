"""Scores in the long form as ballots: what counts in two levels, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import kofn
from kofn.combination import long_ballots


def test_only_the_order_within_an_instance_counts() -> None:
    rng = np.random.default_rng(1)
    system, task, item = (part.ravel() for part in np.meshgrid(range(5), range(3), range(8), indexing="ij"))
    names = [f"s{code}" for code in system]
    score = rng.normal(size=len(system))
    plan = kofn.combine(**long_ballots(names, task, score, item))
    bent = np.exp(score) * 10.0 ** item[::1] + 1e6 * task
    again = kofn.combine(**long_ballots(names, task, bent, item))
    np.testing.assert_array_equal(plan.info["points"], again.info["points"])
    turned = kofn.combine(**long_ballots(names, task, np.where(task == 1, -score, score), item, lower=["1"]))
    np.testing.assert_array_equal(plan.info["points"], turned.info["points"])


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "twice": (
        {"judge": ["j", "j", "j", "j"]},
        "score at row 2 is a second one of system a, judge j .the first is at row 0",
    ),
    "no number": ({"score": ["x", 1, 2, 3]}, "score"),
    "infinite": ({"score": [1, 2, np.inf, 3]}, "score at row 2 is inf"),
    "too few": ({"judge": ["j", "k"]}, "judge has 2 values, score has 4 rows"),
    "no judge": ({"lower": "m"}, "lower names 'm', which is no judge"),
    "nobody to compare": ({"item": [1, 2, 3, 4]}, "judge 'j' has no item that two systems have a score of"),
    "no rule": ({"item": [1, 1, 1, 1], "method": "best"}, "method='best'"),
}


@pytest.mark.parametrize(("words", "says"), REFUSED.values(), ids=REFUSED)
def test_refusals(words: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {
        "system": ["a", "b", "a", "b"],
        "judge": ["j", "j", "k", "k"],
        "score": [1.0, 2.0, 3.0, 4.0],
    }
    with pytest.raises(kofn.InputError, match=says):
        long_ballots(**{**given, **words})


def test_missing_scores_are_not_given() -> None:
    ballots = long_ballots(["a", "b", "c", "a"], ["j", "j", "j", "k"], [1.0, None, 2.0, np.nan])
    assert ballots["rankings"].to_dict(as_series=False)["j"] == pytest.approx([1.0, np.nan, 2.0], nan_ok=True)
