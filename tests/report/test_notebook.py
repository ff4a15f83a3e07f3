"""What a notebook shows of a plan, and what `plan.plot()` draws of it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import browser
import numpy as np
import pytest
from refusals import refused

import kofn
from kofn.core.plans import Allocation, Assignment, Blend, Plan
from kofn.report._pictures import Bars, Curve, pictures

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3))
LOSSES = np.sort(RNG.random((9, 5)), axis=1)[:, ::-1]
PLANS: dict[str, Any] = {
    "greedy": kofn.select(X, k=12, groups=["a"] * 20 + ["b <i>"] * 40, quotas={"a": (2, 4), "b <i>": (1, None)}),
    "gains without the first": kofn.select(X, k=5, method="farthest_first", seed=0),
    "no gains": kofn.select(X, k=20, method="random_sample", seed=0),
    "one pick": kofn.select(X, k=1),
    "groups": kofn.assign(X, k=15, method="fasterpam", seed=0, ids=[f"row {i}" for i in range(60)]),
    "bins": kofn.assign(scores=X, capacity=[10, 20, 40], overflow="drop"),
    "soft": Assignment.from_pairs([0, 0, 1], [0, 1, 1], [0.25, 0.75, 1.0], n=3, k=2),
    "levels": kofn.allocate(LOSSES, budget=20),
    "amounts of two kinds": Allocation(n=2, amounts=np.ones((2, 3)), values=np.ones(2)),
    "members": kofn.combine([RNG.normal(size=5) for _ in range(4)], weights=[0.5, 0.3, 0.4, -0.2]),
    "a member alone": Blend(n=1, result=np.ones(2), form="none"),
    "ranking": kofn.combine(rankings=RNG.normal(size=(14, 6))),
}


@pytest.mark.parametrize("plan", PLANS.values(), ids=PLANS)
def test_is_small_whole_and_needs_no_script(plan: Plan) -> None:
    cell = plan._repr_html_()
    assert len(cell.encode()) < 20_000
    for word in ("<script", "<style", "http", 'class="card'):
        assert word not in cell, word
    assert type(plan).__name__ in cell
    assert plan.method.replace("_", " ") in cell
    assert "NaN" not in cell


def test_shows_the_curve_the_picks_and_the_quotas() -> None:
    curve, picks, quotas = pictures(PLANS["greedy"])
    assert isinstance(curve, Curve)
    assert isinstance(picks, Bars)
    assert isinstance(quotas, Bars)
    assert curve.values[-1] == 1.0
    assert (np.diff(curve.values) >= 0).all()
    assert picks.names[0] == f"1. {PLANS['greedy'].indices[0]}"
    assert picks.note == "and 2 more"
    used = PLANS["greedy"].used
    assert dict(zip(quotas.names, quotas.values, strict=True)) == {"a": used["quota a"], "b <i>": used["quota b <i>"]}
    cell = PLANS["greedy"]._repr_html_()
    assert "b &lt;i&gt;" in cell
    assert f"{used['quota a']} of at least 2 and at most 4" in cell
    assert f"{used['quota b <i>']} of at least 1" in cell
    assert f"{used['quota b <i>']} of at least 1 and" not in cell
    assert "<svg" in cell


def test_a_first_pick_without_a_gain_is_left_out_of_the_curve() -> None:
    curve, picks = pictures(PLANS["gains without the first"])
    assert isinstance(curve, Curve)
    assert (curve.first, len(curve.values)) == (2, 4)
    assert isinstance(picks, Bars)
    assert picks.words[0] == ""


def test_shows_groups_amounts_and_members() -> None:
    [groups] = pictures(PLANS["groups"])
    assert isinstance(groups, Bars)
    assert len(groups.values) == 10
    assert groups.note.startswith("the 10 largest of 15 groups, from ")
    assert all("row " in str(name) for name in groups.names)
    [bins] = pictures(PLANS["bins"])
    assert isinstance(bins, Bars)
    assert bins.most is not None
    assert bins.most.tolist() == [10, 20, 40]
    assert bins.words[0].endswith(" of 10")
    [soft] = pictures(PLANS["soft"])
    assert isinstance(soft, Bars)
    assert soft.values.tolist() == [0.25, 1.75]
    [levels] = pictures(PLANS["levels"])
    assert isinstance(levels, Bars)
    assert levels.values.tolist() == PLANS["levels"].amounts.tolist()
    weights, spread = pictures(PLANS["members"])
    assert isinstance(weights, Bars)
    assert weights.words[3] == "\N{MINUS SIGN}0.2"
    assert spread.title == "Distance to the blend"
    [ranking] = pictures(PLANS["ranking"])
    assert isinstance(ranking, Bars)
    assert (np.diff(ranking.values.round(12)) <= 0).all()  # ties to 12 digits, as the ranking has them
    assert ranking.note == "and 4 more"


@pytest.mark.parametrize("width", [390, 1280])
def test_fits_the_page_in_a_browser(tmp_path: Path, width: int) -> None:
    browser.require()
    page = tmp_path / "cells.html"
    cells = "".join(plan._repr_html_() for plan in PLANS.values())
    head = "<!doctype html><meta charset=utf-8><meta name=viewport content=width=device-width><title>cells</title>"
    page.write_text(f"{head}<body>{cells}", encoding="utf-8")
    with browser.Browser() as driver:
        tab = driver.open(page, width=width)
        assert tab.complaints() == []
        assert tab.run("document.documentElement.scrollWidth") <= width
        assert tab.run("document.querySelectorAll('.kofn-plan').length") == len(PLANS)


@pytest.mark.parametrize("name", [name for name in PLANS if name not in ("no gains", "one pick", "a member alone")])
def test_plot(name: str) -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = PLANS[name].plot()
    assert PLANS[name].headline() in axes.get_title()
    assert axes.lines or axes.patches
    _, own = pyplot.subplots()
    assert PLANS[name].plot(own) is own
    pyplot.close("all")


def test_plot_says_what_it_lacks(monkeypatch: Any) -> None:
    refused(PLANS["no gains"].plot, "this Selection of random_sample holds no figures to draw")
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    refused(PLANS["groups"].plot, "plan.plot needs matplotlib: pip install 'kofn[plot]'")
