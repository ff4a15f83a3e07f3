"""Columns of text that name classes, told apart from keys, notes and answers."""

from __future__ import annotations

import pytest

from kofn.core.checks import InputError
from kofn.tables.class_ballots import voting

KEYS = ["a", "b", "c", "d"]
FIRST, SECOND = ["cat", "dog", "cat", "cat"], ["dog", "dog", "", "cat"]


def test_columns_that_name_the_same_classes_vote() -> None:
    notes = ["blurred", "", "blurred", "dark"]
    assert voting({"key": KEYS, "m": FIRST, "note": notes, "n": SECOND}, named=False) == ["m", "n"]
    assert voting({"key": KEYS, "m": FIRST, "note": notes}, named=False) == []
    assert voting({"m": FIRST, "note": notes}, named=True) == ["m", "note"]


def test_answers_are_no_votes() -> None:
    with pytest.raises(InputError, match="if it holds the answers, say --label target, if all vote, say --columns"):
        voting({"m": FIRST, "n": SECOND, "target": FIRST}, named=False)
