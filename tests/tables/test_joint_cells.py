"""Cells of several columns: so many rows of each, or each at its share, against all subsets of small pools."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

import kofn
from kofn.core.checks import InfeasibleError, InputError
from kofn.objectives import FacilityLocation

Capture = pytest.CaptureFixture[str]
CELLS = ("team", "position")


def pool(seed: int, n: int = 9) -> dict[str, list[Any]]:
    rng = np.random.default_rng(seed)
    names = {"team": rng.choice(["A", "B", "C"], n).tolist(), "position": rng.choice(["G", "F"], n).tolist()}
    return {"a": rng.normal(size=n).round(3).tolist(), "r": rng.normal(size=n).round(3).tolist(), **names}


def cells_of(frame: dict[str, list[Any]], rows: Any = None) -> Counter[Any]:
    every = list(zip(frame["team"], frame["position"], strict=True))
    return Counter(every if rows is None else [every[row] for row in rows])


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("most", [1, 2])
def test_so_many_rows_of_each_cell_as_by_hand(seed: int, most: int) -> None:
    frame = pool(seed)
    wanted = {cell: min(most, count) for cell, count in cells_of(frame).items()}
    plans = [kofn.select(frame, columns=["a", "r"], each={key: most}) for key in (CELLS, "team+position")]
    for plan in plans:
        assert dict(cells_of(frame, plan.indices)) == wanted
        assert len(plan) == sum(wanted.values())
    # The same as with a column of the cells' own names.
    joined = [f"{team},{position}" for team, position in zip(frame["team"], frame["position"], strict=True)]
    alone = kofn.select({**frame, "cell": joined}, columns=["a", "r"], each={"cell": most})
    assert plans[0].indices.tolist() == plans[1].indices.tolist() == alone.indices.tolist()
    assert plans[0].value == alone.value


@pytest.mark.parametrize("seed", range(12))
def test_cells_at_their_share_within_one_pick_and_within_reach_of_the_best(seed: int) -> None:
    frame, k = pool(seed), 4
    counts = cells_of(frame)
    plan = kofn.select(frame, columns=["a", "r"], proportional=[CELLS], k=k)
    n = len(frame["a"])
    low = {cell: k * count // n for cell, count in counts.items()}
    high = {cell: -(-k * count // n) for cell, count in counts.items()}

    def holds(rows: Any) -> bool:
        got = cells_of(frame, rows)
        return all(low[cell] <= got[cell] <= high[cell] for cell in counts)

    assert holds(plan.indices)
    X = np.array([frame["a"], frame["r"]]).T
    judge = FacilityLocation(X=(X - X.mean(0)) / X.std(0))
    best = max(judge.value(np.array(rows)) for rows in itertools.combinations(range(n), k) if holds(rows))
    assert plan.bound is not None
    assert judge.value(plan.indices) <= best * (1 + 1e-9)
    assert judge.value(plan.indices) >= best / 2


def test_cells_stand_beside_quotas_of_columns_and_of_other_cells() -> None:
    frame = pool(3, 24)
    quotas = {"team": {"A": (2, None)}}
    plan = kofn.select(frame, columns=["a", "r"], each={CELLS: 1}, quotas=quotas, k=6)
    assert set(cells_of(frame, plan.indices).values()) == {1}
    with pytest.raises(InfeasibleError, match="lower"):
        kofn.select(frame, columns=["a", "r"], each={CELLS: 1}, quotas={"team": {"A": (5, None)}}, k=6)


@pytest.mark.parametrize(
    ("word", "value", "message"),
    [
        ("each", {("team",): 1}, "give two columns or more, each once"),
        ("each", {("team", "team"): 1}, "give two columns or more, each once"),
        ("each", {("team", "side"): 1}, "no column 'side'"),
        ("each", {"team+side": 1}, r"no column 'team\+side'"),
        ("each", {3: 1}, "3 names no column"),
        ("proportional", [("team",)], "give two columns or more, each once"),
        ("proportional", [("team", "side")], "no column 'side'"),
        ("proportional", [("team", 3)], "give names of columns"),
        ("quotas", {3: {"A": (1, 2)}}, "3 names no column"),
    ],
)
def test_cells_of_columns_that_are_not_there_are_refused(word: str, value: Any, message: str) -> None:
    more = {} if word == "each" else {"k": 3}
    with pytest.raises(InputError, match=message):
        kofn.select(pool(0), columns=["a", "r"], **{word: value}, **more)


def test_the_command_takes_cells_and_a_column_whose_name_has_a_plus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    monkeypatch.chdir(tmp_path)
    frame = pool(5, 20)
    pl.DataFrame({**frame, "x+y": frame["team"]}).write_csv("pool.csv")
    call = ("select", "pool.csv", "--columns", "a,r")
    code, text, err = run(capsys, *call, "--each", "team+position=1")
    assert code == 0, err
    assert f"each team+position: 1 rows of each of {len(cells_of(frame))} groups" in text
    code, text, err = run(capsys, *call, "--proportional", "team+position", "-k", 7)
    assert code == 0, err
    assert "proportional team+position: " in text
    code, text, err = run(capsys, *call, "--each", "x+y=2", "--json")
    assert code == 0, err
    assert Counter(frame["team"][row] for row in json.loads(text)["picks"]) == {"A": 2, "B": 2, "C": 2}
    assert "both name 'team+position'" in refused(
        capsys, *call, "--each", "team+position=1", "--quota", "team+position=A,G:1-"
    )
    line = refused(capsys, *call, "--each", "team+position=1", "-k", 1)
    assert "--each team+position=1 do not go together" in line
