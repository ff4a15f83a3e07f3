"""Frames whose headers are whole numbers: a column is named by its number or by the text of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

import kofn
from kofn.core.checks import InputError

RNG = np.random.default_rng(0)
WORDS = np.array(["red", "car", "bus", "green", "tree", "house", "old", "new"])
POOL = pd.DataFrame(
    {
        0: [f"row{row}" for row in range(30)],
        1: list("abc") * 10,
        2: RNG.integers(1, 9, 30),
        3: RNG.random(30),
        4: [" ".join(RNG.choice(WORDS, 4)) for _ in range(30)],
    }
)
NUMBERS = pd.DataFrame(RNG.random((20, 4)))
CALLS: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({"text": 4, "k": 3}, {"text": "4", "k": 3}),
    ({"text": np.int64(4), "k": 3, "ids": 0}, {"text": "4", "k": 3, "ids": "0"}),
    ({"columns": [2, 3], "k": 3}, {"columns": ["2", "3"], "k": 3}),
    ({"columns": 3, "k": 3}, {"columns": "3", "k": 3}),
    ({"text": 4, "each": {1: 1}}, {"text": "4", "each": {"1": 1}}),
    ({"text": 4, "costs": 2, "budget": 9}, {"text": "4", "costs": "2", "budget": 9}),
    ({"text": 4, "k": 6, "quotas": {1: {"a": 3}}}, {"text": "4", "k": 6, "quotas": {"1": {"a": 3}}}),
    ({"text": 4, "k": 6, "groups": 1, "quotas": {"a": 3}}, {"text": "4", "k": 6, "quotas": {"1": {"a": 3}}}),
    ({"text": 4, "k": 6, "proportional": [1]}, {"text": "4", "k": 6, "proportional": ["1"]}),
    ({"text": 4, "weights": list(range(1, 31)), "k": 3}, {"text": "4", "weights": np.arange(1.0, 31), "k": 3}),
]


@pytest.mark.parametrize(("by_number", "by_text"), CALLS)
def test_a_number_names_a_column_as_its_text_does(by_number: dict[str, Any], by_text: dict[str, Any]) -> None:
    picks, wanted = kofn.select(POOL, **by_number), kofn.select(POOL, **by_text)
    assert picks.indices.tolist() == wanted.indices.tolist()
    assert picks.keys(picks.indices).tolist() == wanted.keys(wanted.indices).tolist()


def test_cells_are_named_by_numbers() -> None:
    text: Any = 4
    assert 3 in kofn.select(POOL, text=text, k=6, quotas={(1, 0): {("a", "row3"): (1, 1)}}).indices


def test_frames_of_numbers_alone() -> None:
    cheap: Any = 3
    two: Any = [1, 2]
    assert kofn.select(NUMBERS, k=3, columns=two).indices.tolist() == (
        kofn.select(NUMBERS, k=3, columns=["1", "2"]).indices.tolist()
    )
    picks = kofn.select(NUMBERS, costs=cheap, budget=1.0)
    assert picks.indices.tolist() == kofn.select(NUMBERS, costs="3", budget=1.0).indices.tolist()
    column: Any
    for column in (0, "0"):
        keys = kofn.select(NUMBERS, k=3, ids=column)
        assert keys.keys(keys.indices).tolist() == NUMBERS[0][keys.indices].tolist()
        assert keys.indices.tolist() == kofn.select(NUMBERS[[1, 2, 3]], k=3).indices.tolist()


def test_numbers_that_head_no_column_are_refused() -> None:
    words: dict[str, Any]
    for words in ({"text": 9}, {"columns": [1, 9]}, {"text": 4, "costs": 9, "budget": 3}):
        with pytest.raises(InputError, match="X has no column '9'; it has 0, 1, 2, 3, 4"):
            kofn.select(POOL, **words)
    # Where headers are texts a number is none.
    named: Any = 4
    with pytest.raises(InputError, match="text=4: give the name of a column"):
        kofn.select(POOL.rename(columns=str), text=named, k=3)
