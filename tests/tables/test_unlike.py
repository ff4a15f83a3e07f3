"""Columns of numbers that are unlike the others."""

from __future__ import annotations

import numpy as np
import pytest

from kofn.tables.unlike import name_rows, of_another_kind, of_no_series, of_the_row, unlike_line


def test_names() -> None:
    assert of_no_series(["2", "4", "8", "block"]) == ["block"]
    assert of_no_series(["ana", "bob", "e1"]) == of_no_series([]) == []
    assert of_the_row(["arc", "user_id", "# Params (B)", "Average", "identity"]) == [
        "user_id",
        "# Params (B)",
        "Average",
    ]


@pytest.mark.parametrize("scale", [1.0, 1e-3])
def test_scores_of_one_kind_are_not_doubted(scale: float) -> None:
    rng = np.random.default_rng(0)
    names = ["ana", "bob", "cem"]
    assert of_another_kind(names, scale * rng.normal(size=(9, 3))) == {}
    assert of_another_kind(names, rng.integers(0, 5, (9, 3)).astype(float)) == {}
    one_empty = np.where([True, False, False], -np.inf, rng.random((9, 3)))
    assert of_another_kind(names, one_empty) == {}
    assert of_another_kind(names[:1], rng.random((9, 1))) == {}


def test_names_of_rows() -> None:
    assert name_rows("anything", np.arange(3, 9))
    assert name_rows("user_id", np.array([5.0, 2.0, 9.0]))
    assert not name_rows("price", np.array([5.0, 2.0, 9.0]))
    assert not name_rows("id", np.array([1.0, np.nan, 3.0]))
    assert not name_rows("id", np.array([0.5, 1.5, 2.5]))


def test_a_line_leaves_something_over() -> None:
    assert unlike_line(["n", "size"], ["n", "size"], "bin") == unlike_line(["ana"], [], "bin") == []
