"""What `kofn.combine` says of a table, a path or a state dict in place of members: what to give or to call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pytest

import kofn
from kofn.core.checks import InputError

BOARD = {"model": ["a", "b", "c"], "mmlu": [0.3, 0.5, 0.9], "arc": [0.2, 0.8, 0.7]}


@pytest.mark.parametrize("make", [pl.DataFrame, pd.DataFrame, lambda board: pl.DataFrame(board).lazy(), dict])
def test_a_table_in_the_place_of_members_is_ranked(make: Any) -> None:
    plan = kofn.combine(make(BOARD), ids="model")
    assert plan.method == "borda"
    assert plan.equals(kofn.combine(rankings=pd.DataFrame(BOARD), ids="model"))


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ("recipe.yaml", r"kofn\.combination\.merge_recipe\('recipe\.yaml', out=\.\.\.\)"),
        (Path("r.toml"), r"merge_recipe\('r\.toml'"),
        ("board.csv", "board.csv: no such file"),
        ("model/", r"one path alone is members=\['model/'\]"),
        ({"w": np.ones(2)}, "one state dict alone goes in a list, a table of scores is given as rankings="),
        (3, "members=int: give a list"),
    ],
)
def test_a_single_thing_is_told_what_it_may_be(members: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        kofn.combine(members)


def test_what_a_recipe_is_told_to_call_runs_it(tmp_path: Path) -> None:
    from safetensors.numpy import save_file

    for name, value in (("a", 1.0), ("b", 3.0)):
        save_file({"w": np.full(2, value, np.float32)}, tmp_path / f"{name}.safetensors")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("method: weighted_mean\nmembers: [a.safetensors, b.safetensors]\n")
    with pytest.raises(InputError, match="merge_recipe"):
        kofn.combine(str(recipe))
    kofn.combination.merge_recipe(str(recipe), out=tmp_path / "merged.safetensors")
    assert (tmp_path / "merged.safetensors").exists()
