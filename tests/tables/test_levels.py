"""`kofn.allocate` of a frame of curves: levels and sizes by the names of the columns, as the command reads them."""

from __future__ import annotations

from typing import Any

import pandas as pd
import polars as pl
import pytest

import kofn
from kofn.core.checks import InputError

CURVES = {
    "layer": ["q", "k", "v", "mlp"],
    "params": [1000, 1000, 2000, 4000],
    "8": [0.01, 0.05, 0.1, None],
    "2": [0.9, 0.5, 2.0, 1.0],
    "3": [0.4, None, 1.0, 0.6],
    "4": [0.1, 0.2, 0.5, 0.3],
}


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_columns_called_by_numbers_are_levels_and_one_may_be_the_sizes(make: Any) -> None:
    plan = kofn.allocate(make(CURVES), ids="layer", sizes="params", mean_budget=4)
    assert plan.amounts.tolist() == [4, 4, 4, 4]
    assert plan.value == pytest.approx(1.1)
    assert plan.ids.tolist() == CURVES["layer"]
    plain = make({name: column for name, column in CURVES.items() if name not in ("layer", "params")})
    assert kofn.allocate(plain, sizes=CURVES["params"], mean_budget=4).amounts.tolist() == [4, 4, 4, 4]


@pytest.mark.parametrize("make", [pd.DataFrame, pl.DataFrame])
def test_a_column_of_numbers_that_is_no_level_is_refused(make: Any) -> None:
    with pytest.raises(
        InputError, match=r"'params' holds numbers and is not named like the levels .*say sizes='params'"
    ):
        kofn.allocate(make(CURVES), ids="layer", mean_budget=4)
    with pytest.raises(InputError, match=r"'block' holds numbers .* \(8,2,3,4\); name the levels") as refused:
        kofn.allocate(make({**CURVES, "block": [0, 0, 1, 1]}), ids="layer", sizes="params", mean_budget=4)
    assert "sizes" not in str(refused.value)
    with pytest.raises(InputError, match="sizes='parms': curves has no such column; did you mean 'params'"):
        kofn.allocate(make(CURVES), ids="layer", sizes="parms", mean_budget=4)


@pytest.mark.parametrize("gap", [2.0, None])
def test_frames_without_names_are_arrays(gap: float | None) -> None:
    frame = pd.DataFrame([[0.5, 1.0, gap], [3.0, 2.0, 1.0]])
    assert kofn.allocate(frame, budget=3).amounts.tolist() == [0, 2]
    assert kofn.allocate(pl.DataFrame({"low": [1.0, 2.0], "high": [0.0, 1.5]}), budget=1).amounts.tolist() == [1, 0]


def test_the_number_by_which_names_differ_is_the_level() -> None:
    frame = pl.DataFrame({"name": ["a", "b"], "8 bits": [1.0, 3.0], "2 bits": [9.0, 4.0], "4 bits": [5.0, 3.5]})
    plan = kofn.allocate(frame, ids="name", mean_budget=5)
    assert plan.amounts.tolist() == [8, 2]
    assert plan.used["budget"] == plan.budget["budget"] == 10
    # Parameters of families are no levels, whatever the columns are called.
    parameters = pl.DataFrame({"p1": [1.0, 1.0, 1.0], "p2": [1.0, 3.0, 9.0]})
    assert kofn.allocate(parameters, budget=4, method="water_filling", family="log").amounts.tolist() == [3, 1, 0]
