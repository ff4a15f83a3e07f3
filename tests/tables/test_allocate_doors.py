"""A table of items in Python is answered as the command answers its file, by the same words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import run
from frames import KINDS, as_pandas

import kofn
from kofn.core.checks import InputError
from kofn.tables.allocate_doors import asks_of_items

CURVES = pl.DataFrame(
    {
        "layer": ["a", "b", "c", "d"],
        "params": [100, 200, 50, 150],
        "ms": [1, 2, 3, 1],
        "block": ["x", "x", "y", "y"],
        "2": [9.0, 5.0, 7.0, 3.0],
        "4": [4.0, 4.5, 2.0, 2.9],
        "8": [1.0, 4.4, 0.5, 0.1],
    }
)
STRATA = pl.DataFrame(
    {"stratum": ["n", "s", "w"], "people": [420, 70, 900], "sd": [24.5, 196.0, 3.5], "price": [2.0, 1.0, 1.5]}
)
CALLS: dict[str, tuple[pl.DataFrame, dict[str, Any], list[str]]] = {
    "levels": (
        CURVES,
        {"id": "layer", "size": "params", "columns": ["2", "4", "8"], "mean_budget": 4},
        ["--id", "layer", "--size", "params", "--columns", "2,4,8", "--mean-budget", "4"],
    ),
    "our words": (
        CURVES,
        {"ids": "layer", "sizes": "params", "columns": ["8", "2"], "mean_budget": 4},
        ["--id", "layer", "--size", "params", "--columns", "8,2", "--mean-budget", "4"],
    ),
    "levels by amount": (
        CURVES,
        {"ids": "layer", "costs": None, "weight": None, "levels": [2, 8], "budget": 20, "tie": "block"},
        ["--id", "layer", "--levels", "2,8", "--budget", "20", "--tie", "block"],
    ),
    "limits": (
        CURVES,
        {"id": "layer", "columns": ["2", "4", "8"], "budget": 18, "limits": {"ms": 24}, "min": 2, "max": "8"},
        ["--id", "layer", "--columns", "2,4,8", "--budget", "18", "--limit", "ms=24", "--min", "2", "--max", "8"],
    ),
    "quotas": (
        CURVES,
        {"id": "layer", "columns": ["2", "4", "8"], "budget": 18, "quotas": {"block": {"x": (None, 6)}}},
        ["--id", "layer", "--columns", "2,4,8", "--budget", "18", "--quota", "block=x:-6"],
    ),
    "scores": (
        STRATA,
        {"id": "stratum", "score": "sd", "cost": "price", "population": "people", "budget": 60, "method": "neyman"},
        [
            "--id",
            "stratum",
            "--score",
            "sd",
            "--cost",
            "price",
            "--population",
            "people",
            "--budget",
            "60",
            "-m",
            "neyman",
        ],
    ),
    "votes": (
        STRATA.select("stratum", "people"),
        {"ids": "stratum", "budget": 7, "method": "sainte_lague"},
        ["--id", "stratum", "--budget", "7", "-m", "sainte_lague"],
    ),
}


@pytest.mark.parametrize("kind", ["path", *KINDS])
@pytest.mark.parametrize("name", CALLS)
def test_amounts_of_a_table_are_the_command_s(
    name: str, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    frame, words, flags = CALLS[name]
    path = tmp_path / "items.csv"
    frame.write_csv(path)
    said = json.loads(run(capsys, "allocate", path, *flags, "--json")[1])
    plan = kofn.allocate(path if kind == "path" else KINDS[kind](frame), **words)
    assert plan.amounts.tolist() == said["amounts"]
    assert plan.value == pytest.approx(said["value"], rel=1e-12)
    assert plan.keys(np.arange(plan.n)).tolist() == frame[:, 0].to_list()


def test_a_pandas_index_names_the_items() -> None:
    frame = as_pandas(CURVES).set_index("layer")
    plan = kofn.allocate(frame, size="params", columns=["2", "4", "8"], mean_budget=4)
    assert plan.keys(np.arange(4)).tolist() == ["a", "b", "c", "d"]


def test_arrays_stand_beside_columns() -> None:
    named = kofn.allocate(CURVES, sizes="params", columns=["2", "4", "8"], mean_budget=4)
    given = kofn.allocate(CURVES, size=CURVES["params"].to_numpy(), columns=["2", "4", "8"], mean_budget=4)
    assert named.amounts.tolist() == given.amounts.tolist()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"columns": ["2", "4"], "sise": "params", "budget": 9}, "allocate has no argument 'sise'; did you mean 'siz"),
        ({"columns": ["2", "4"], "id": "layr", "budget": 9}, "curves has no column 'layr'; did you mean 'layer'"),
        ({"columns": ["2", "5"], "id": "layer", "budget": 9}, "curves has no column '5'"),
        ({"columns": [2, 4], "budget": 9}, "columns=[2, 4]: give names of columns"),
        ({"columns": ["2", "4"], "id": "layer", "ids": "layer", "budget": 9}, "id and ids are one word"),
        ({"score": "ms", "budget": 9}, "scores holds one number an item, and what it means is the method's"),
        ({"score": "ms", "budget": 9, "method": "dhondt", "lmits": 3}, "method='dhondt' has no option 'lmits'"),
        (
            {"score": "ms", "budget": 9, "method": "neyman", "population": "ms", "options": {"population": "ms"}},
            "population is given twice: flat and in options",
        ),
        ({"columns": ["2", "4"], "budget": 9, "min": "least"}, "min least: no number and no column of curves"),
    ],
)
def test_the_word_that_is_wrong_is_said(words: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as refused:
        kofn.allocate(CURVES, **words)
    assert said in str(refused.value)


def test_frames_of_curves_alone_are_read_as_arrays() -> None:
    frame = CURVES.select("layer", "params", "2", "4")
    assert not asks_of_items("auto", None, {"curves": frame, "ids": "layer", "sizes": "params"})
    assert asks_of_items("auto", None, {"curves": frame, "id": "layer"})
    assert asks_of_items("neyman", {"population": "people"}, {"curves": STRATA})


def test_words_of_arrays_are_hinted_at() -> None:
    with pytest.raises(InputError, match=r"has no option 'id'.*did you mean 'ids'"):
        kofn.allocate(scores=[5, 3], id=["a", "b"], budget=4, method="dhondt")
    with pytest.raises(InputError, match=r"no argument 'size'; did you mean 'sizes'"):
        kofn.allocate([[5.0, 3.0]], size=[2], budget=4)
