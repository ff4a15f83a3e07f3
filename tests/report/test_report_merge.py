"""The report of merged models: what resists is named, figures match the plan, and a real browser shows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import browser as chrome
import numpy as np
import pytest
from pages import DRAWN, LOOKS, check_frame, read, stands

import kofn
from kofn.combination import measures_by_layer
from kofn.core.plans import Blend

NAMES = ("embed.weight", *(f"layers.{at}.mlp.weight" for at in range(6)), "head.weight")


def fine_tune(seed: int, agree: tuple[int, ...] = (0, 1, 5)) -> dict[str, np.ndarray]:
    """Changes shared by all in some layers and of its own in the others."""
    shared, own = np.random.default_rng(99), np.random.default_rng(seed)
    out = {}
    for name in NAMES:
        common, mine = shared.normal(size=(20, 20)), own.normal(size=(20, 20))
        number = int(name.split(".")[1]) if name.startswith("layers") else None
        out[name] = common if number is None or number in agree else mine
    return out


@pytest.fixture(scope="module")
def plan() -> Blend:
    base = {name: np.zeros((20, 20)) for name in NAMES}
    blend: Blend = kofn.combine(
        [fine_tune(seed) for seed in range(3)],
        base=base,
        weights=[2, 1, 1],
        method="task_arithmetic",
        options={"measure": True},
    )
    return blend


def test_layers_that_resist_are_named(plan: Blend, tmp_path: Path) -> None:
    rows = measures_by_layer(plan.info["measures"])
    assert [row["layer"] for row in rows] == ["before", 0, 1, 2, 3, 4, 5, "after"]
    assert [row["kept"] < 0.9 for row in rows] == [False, False, False, True, True, True, False, False]
    seen = read(plan, tmp_path / "r.html")
    check_frame(seen)
    assert "3 of 8 layers resist: layer 2, layer 3, layer 4." in seen.text
    assert "5 of 8" in seen.text
    assert "The tensors that resist most" in seen.text


def test_members_that_agree_merge_well(tmp_path: Path) -> None:
    members = [fine_tune(seed, agree=tuple(range(6))) for seed in range(2)]
    blend = kofn.combine(members, options={"measure": True})
    assert "Every layer merges well" in read(blend, tmp_path / "r.html").text


@pytest.mark.parametrize(
    ("members", "given"),
    [
        ([np.ones(3)], {}),
        ([np.ones(3), np.zeros(3)], {"options": {"measure": True}}),
        ([{"w": np.zeros(0), "n": np.array([1])}] * 2, {"options": {"measure": True}}),
        ([{"w": np.ones(2)}] * 14, {"options": {"measure": True}}),
        ([{"w": np.ones(2)}, {"w": np.zeros(2)}], {"weights": [2, -1]}),
    ],
)
def test_small_and_odd_blends(members: Any, given: dict[str, Any], tmp_path: Path) -> None:
    check_frame(read(kofn.combine(members, **given), tmp_path / "r.html"))


def test_names_of_tensors_stay_text(tmp_path: Path) -> None:
    name = "<script>window.hacked=1</script>"
    blend = kofn.combine([{name: np.ones(2)}, {name: np.zeros(2)}], options={"measure": True})
    seen = read(blend, tmp_path / "r.html")
    assert name in seen.text


@pytest.mark.parametrize(("width", "scheme"), LOOKS)
def test_it_stands_in_a_browser(plan: Blend, width: int, scheme: str, tab: chrome.Browser, tmp_path: Path) -> None:
    read(plan, tmp_path / "r.html", command="kofn combine a/ b/ -o merged/")
    stands(tab, tmp_path / "r.html", width, scheme)


def test_every_chart_is_drawn(plan: Blend, tab: chrome.Browser, tmp_path: Path) -> None:
    read(plan, tmp_path / "r.html")
    page = tab.open(tmp_path / "r.html")
    drawn = dict(page.run(DRAWN))
    assert drawn.keys() >= {"What each counts for", "Variance kept", "Signs that agree", "What each layer lost"}
    assert all(count > 0 for count in drawn.values())
