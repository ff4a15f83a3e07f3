"""The report of routes to bins: its figures against independent counts, odd plans, how a real browser sees it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import browser as chrome
import numpy as np
import polars as pl
import pytest
from pages import LOOKS, check_frame, read, stands

import kofn
from kofn.core.plans import Assignment
from kofn.report import page, routing, write_report


def table_of(n: int = 60, bins: int = 5, seed: int = 0, holes: bool = True) -> Any:
    rng = np.random.default_rng(seed)
    scores = np.round(rng.normal(size=(n, bins)) + 2, 1)
    if holes:
        scores[rng.random((n, bins)) < 0.15] = -np.inf
    return scores


ROUTES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "reroute": ("capped_routing", {"capacity": 12}, {"overflow": "reroute"}),
    "drop": ("capped_routing", {"capacity": 9, "per_item": 2}, {"overflow": "drop"}),
    "balanced": ("balanced_assignment", {}, {}),
    "token": ("token_choice", {"per_item": 2}, {}),
}


def route(name: str, scores: Any) -> Assignment:
    method, given, options = ROUTES[name]
    return kofn.assign(scores=scores, method=method, options=options, **given)


@pytest.mark.parametrize("name", sorted(ROUTES))
@pytest.mark.parametrize("block", [7, 1 << 21])
def test_choices_are_what_a_plain_count_gives(name: str, block: int, monkeypatch: Any) -> None:
    monkeypatch.setattr(routing, "BLOCK_CELLS", block)
    scores = table_of()
    plan = route(name, scores)
    each = ROUTES[name][1].get("per_item", 1)
    ranks, asked, lost, forgone, empty = np.zeros(5), np.zeros(5), [], 0.0, 0
    for item, row in enumerate(scores):
        order = sorted(range(5), key=lambda j: (-row[j], j))
        listed = [j for j in order if row[j] > -np.inf]
        for j in listed[:each]:
            asked[j] += 1
        held = plan.bins[plan.indptr[item] : plan.indptr[item + 1]].tolist()
        for j in held:
            ranks[order.index(j)] += 1
        lost.append(sum(row[j] for j in order[: len(held)]) - sum(row[j] for j in held))
        forgone += sum(row[j] for j in listed[len(held) : each])
        empty += each - len(held)
    got = routing.choices(plan, scores)
    assert got.each == each
    np.testing.assert_array_equal(got.ranks, ranks)
    np.testing.assert_array_equal(got.asked, asked)
    np.testing.assert_allclose(got.lost, lost, atol=1e-9)
    assert got.forgone == pytest.approx(forgone)
    assert got.empty == empty


def test_shares_are_counted_by_their_mass() -> None:
    scores = table_of(40, 4, holes=False)
    plan = kofn.assign(scores=scores, margins=(np.ones(40), np.full(4, 10.0)))
    got = routing.choices(plan, scores)
    assert got.ranks.sum() == pytest.approx(40)
    np.testing.assert_allclose(got.asked, np.bincount(scores.argmax(axis=1), minlength=4))
    kept = sum(plan.weights[t] * scores[i, plan.bins[t]] for i in range(40) for t in range(*plan.indptr[i : i + 2]))
    assert got.lost.sum() == pytest.approx(scores.max(axis=1).sum() - kept)


def test_choices_of_a_huge_table_are_sampled(monkeypatch: Any) -> None:
    scores = table_of(3000, 6)
    plan = kofn.assign(scores=scores, method="capped_routing", capacity=450, options={"overflow": "reroute"})
    whole = routing.choices(plan, scores)
    monkeypatch.setattr(routing, "MAX_SCORES", 6000)
    part = routing.choices(plan, scores)
    assert len(part.items) == 1000
    assert part.asked is None
    np.testing.assert_array_equal(part.lost, whole.lost[part.items])


def test_a_report_of_routes_holds_everything(tmp_path: Path) -> None:
    scores = table_of(holes=False)
    plan = route("reroute", scores)
    seen = read(plan, tmp_path / "r.html", scores=scores, text=[f"token {i}" for i in range(60)])
    check_frame(seen)
    assert {a["aria-labelledby"] for a in seen.named("figure")} == {"sizes", "choices"}
    got = routing.choices(plan, scores)
    load = np.bincount(plan.bins, minlength=5)
    assert [int(v) for v in re.findall(r"(\d+) of 12 ", seen.text)] == load.tolist()
    assert [int(v) for v in re.findall(r"(\d+) wanted it first", seen.text)] == got.asked.astype(int).tolist()
    assert f"of the score lost {100 * got.lost.sum() / scores.max(axis=1).sum():.1f}%" in seen.text
    worst = int(got.lost.argmax())
    row = scores[worst]
    moved = seen.text[seen.text.index("Who gave up most") :]
    assert moved.index(f"row {worst} token {worst} score lost") < 200
    assert (
        f"went to bin {plan.labels[worst]} ({page.number(row[plan.labels[worst]], 3)}) wanted bin {row.argmax()}"
        in moved
    )
    assert "Every item has a bin." in seen.text


def test_what_was_dropped_is_shown(tmp_path: Path) -> None:
    scores = table_of()
    plan = route("drop", scores)
    seen = read(plan, tmp_path / "r.html", scores=scores)
    out = np.flatnonzero(np.diff(plan.indptr) == 0)
    assert f"{len(out)} placed nowhere" in seen.text
    assert "nowhere (dropped)" in seen.text
    got = routing.choices(plan, scores)
    first = got.ranks[:2].sum() / (got.ranks.sum() + got.empty)
    assert f"Of the places that items asked for, {page.percent(first)} are among their 2 first choices." in seen.text
    assert f"of the {len(out)} items that are placed nowhere" in seen.text
    best = out[np.argsort(-scores[out].max(axis=1), kind="stable")][0]
    assert f"first. row {best} dropped wanted bin {scores[best].argmax()}" in seen.text


def test_prices_stand_where_the_plan_has_them(tmp_path: Path) -> None:
    scores = table_of(holes=False)
    plan = route("balanced", scores)
    seen = read(plan, tmp_path / "r.html", scores=scores)
    told = seen.text[seen.text.index("What a place is worth") :]
    values = re.findall(r"bin \d ([\d.]+)", told)[:5]
    np.testing.assert_allclose([float(v) for v in values], plan.v, rtol=1e-3, atol=1e-6)
    assert "prices" not in {
        a["aria-labelledby"] for a in read(route("token", scores), tmp_path / "t.html").named("figure")
    }


def test_loads_count_items_whatever_the_gates(tmp_path: Path) -> None:
    """Capacities bound how many items a bin holds, not the sum of their gates."""
    scores = table_of(holes=False)
    plan = kofn.assign(scores=scores, method="expert_choice", capacity=20)
    seen = read(plan, tmp_path / "r.html", scores=scores)
    assert re.findall(r"(\d+) of 20 ", seen.text) == ["20"] * 5
    assert "wanted it first" not in seen.text  # bins chose, nobody asked the items
    assert f"{plan.info['unserved']:,} placed nowhere" in seen.text or plan.info["unserved"] == 0


def routes() -> dict[str, tuple[Assignment, dict[str, Any]]]:
    scores = table_of()
    plans = {name: (route(name, scores), {"scores": scores}) for name in sorted(ROUTES)}
    soft = table_of(holes=False)
    plans["soft"] = kofn.assign(scores=soft, margins=(np.ones(60), np.full(5, 12.0))), {"scores": soft}
    plans["bare"] = route("drop", scores), {}
    masked = scores.copy()
    masked[7] = -np.inf
    plans["masked"] = route("reroute", masked), {"scores": masked}
    wide = table_of(300, 90, holes=False)
    plans["wide"] = kofn.assign(scores=wide, method="balanced_assignment"), {"scores": wide}
    negative = table_of() - 9
    plans["negative"] = route("drop", negative), {"scores": negative}
    plans["couplings"] = Assignment.from_labels([0, 1], 2, objective="joint_entropy"), {}
    return plans


@pytest.mark.parametrize("name", sorted(routes()))
def test_small_and_odd_routes(name: str, tmp_path: Path) -> None:
    plan, given = routes()[name]
    seen = read(plan, tmp_path / "r.html", **given)
    check_frame(seen)
    assert f"{plan.n} items in {plan.k} bins" in seen.text
    assert "not a number" not in seen.text
    assert "\N{INFINITY}" not in seen.text


def test_bins_with_limits_are_as_full_as_their_sizes_say(tmp_path: Path) -> None:
    scores = pl.DataFrame({"a": [9.0, 7, 5, 3, 2], "b": [8.0, 1, 4, 3, 2]})
    plan = kofn.assign(
        scores=scores, sizes=[4.0, 3, 2, 1.5, 6], limits=[11.5, 7], reserve=0, method="generalized_assignment"
    )
    write_report(plan, tmp_path / "r.html", scores=scores)
    page = (tmp_path / "r.html").read_text()
    for used, limit in zip(plan.used["limits"], (11.5, 7), strict=True):
        assert f"{used:g} of {limit:g}" in page
    assert "What the sizes of each bin" in page
    assert "wanted it first" not in page
    assert f"{plan.used['limits'].sum():g} of 18.5 are filled in all" in page


# ---------------------------------------------------------------------------------------------------- a real browser


FULLY = "reroute"


@pytest.fixture(scope="module")
def written(tmp_path_factory: Any) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("routes")
    return {name: write_report(plan, folder / f"{name}.html", **given) for name, (plan, given) in routes().items()}


@pytest.mark.browser
@pytest.mark.parametrize(
    ("name", "width", "scheme"),
    [(name, *look) for name in sorted(routes()) for look in (LOOKS if name == FULLY else LOOKS[:1])],
)
def test_it_stands_in_a_browser(tab: chrome.Browser, written: Any, name: str, width: int, scheme: str) -> None:
    stands(tab, written[name], width, scheme)
