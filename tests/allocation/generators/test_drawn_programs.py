"""Drawn families of programs: points that keep them, sizes that grow, and the same program from the same seed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused

from kofn.allocation import DrawnProgram, balans, drawn_program

KINDS: Any = ("set_cover", "independent_set", "combinatorial_auction", "facility_location")
HARDNESSES: Any = ("easy", "medium", "hard")


@pytest.mark.parametrize("kind", KINDS)
def test_a_known_point_keeps_each_program(kind: Any) -> None:
    sizes = []
    for hardness in HARDNESSES:
        program = drawn_program(kind, hardness, seed=5)
        again = drawn_program(kind, hardness, seed=5)
        assert isinstance(again, DrawnProgram)
        assert (program.A != again.A).nnz == 0
        assert (program.c == again.c).all()
        other = drawn_program(kind, hardness, seed=6).A
        assert other.shape != program.A.shape or (other != program.A).nnz > 0
        point = np.ones(len(program.c)) if kind == "set_cover" else np.zeros(len(program.c))
        if kind == "facility_location":
            facilities = int(program.integrality.sum())
            # All open, and everybody served by each in proportion to its capacity.
            capacity = -program.A.toarray()[(len(program.c) - facilities) // facilities :][:facilities, :facilities]
            point[:facilities] = 1
            share = np.diag(capacity) / np.trace(capacity)
            point[facilities:] = np.repeat(share, (len(point) - facilities) // facilities)
        rows = program.A @ point
        assert (rows >= program.low - 1e-9).all()
        assert (rows <= program.high + 1e-9).all()
        assert (point <= program.bounds[:, 1]).all()
        sizes.append(program.A.shape)
    assert sizes[0] < sizes[1] < sizes[2]


def test_words_are_those_of_a_search_and_an_unknown_family_is_refused() -> None:
    program = drawn_program("combinatorial_auction", seed=2)
    plan = balans(**program.words, iterations=1)
    assert plan.value == pytest.approx(float(program.c @ plan.amounts))
    bad: Any = "knapsack"
    refused(lambda: drawn_program(bad), "kind='knapsack'")
    refused(lambda: drawn_program("set_cover", bad), "hardness='knapsack'")
