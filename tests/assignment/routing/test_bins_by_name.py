"""Capacities, minima and limits that carry the names of the bins are matched with them, in any order."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import kofn
from kofn.assignment import generalized_assignment
from kofn.core.checks import InputError

NAMES = ["net", "admin", "games"]
SCORES = pd.DataFrame(np.random.default_rng(0).random((12, 3)), columns=NAMES, index=[f"p{row}" for row in range(12)])
ROOM = [2, 3, 7]
NAMED = pd.Series(ROOM, index=NAMES)[::-1]
LONG = SCORES.rename_axis("package").reset_index().melt("package", var_name="bin", value_name="score")


@pytest.mark.parametrize("by_name", [NAMED, dict(NAMED)], ids=["series", "mapping"])
@pytest.mark.parametrize(
    ("word", "more"),
    [("capacity", {}), ("min_size", {"capacity": 12}), ("limits", {"sizes": np.ones(12)})],
)
def test_numbers_are_matched_with_bins_by_name(word: str, more: dict[str, Any], by_name: Any) -> None:
    def assign(numbers: Any) -> list[int]:
        words: dict[str, Any] = {"scores": SCORES, word: numbers, **more}
        labels: list[int] = kofn.assign(**words).labels.tolist()
        return labels

    assert assign(by_name) == assign(ROOM)
    assert assign(ROOM) != assign(ROOM[::-1])


def test_every_door_matches_them() -> None:
    wanted = generalized_assignment(SCORES, capacity=ROOM).value
    assert generalized_assignment(SCORES, capacity=NAMED).value == wanted
    assert kofn.assign(SCORES.reset_index(), scores=True, ids="index", capacity=NAMED).value == wanted
    assert kofn.assign(LONG, long=["package", "bin", "score"], capacity=NAMED).value == pytest.approx(wanted)
    plain = SCORES.to_numpy()
    numbered: Any
    for numbered in (pd.Series(ROOM[::-1], index=[2, 1, 0]), {2: 7, 0: 2, 1: 3}, pd.Series(ROOM), NAMED[::-1]):
        assert kofn.assign(scores=plain, capacity=numbered).value == wanted
    named: Any = {2: 6, 0: 4, 1: 5}
    grouped = kofn.assign(plain, k=3, capacity=named, seed=0)
    assert grouped.budget["capacity"].tolist() == [4, 5, 6]


@pytest.mark.parametrize(
    ("by_name", "words"),
    [
        (
            NAMED.rename({"games": "game"}),
            r"capacity names 'game', which is no bin; did you mean 'games'\?; the bins are",
        ),
        (dict(NAMED[:2]), "capacity has no number for the bin 'net'; give each bin its own"),
        (pd.Series([1, 2, 3], index=["net", "net", "games"]), "capacity names 'net' twice; name each bin once"),
    ],
)
def test_names_that_are_not_those_of_the_bins_are_refused(by_name: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        kofn.assign(scores=SCORES, capacity=by_name)
