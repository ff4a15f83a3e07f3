"""What rows to label are picked with, and what is said of them, follows from the benchmark's figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import kofn
from benchmarks import usefulness
from kofn.tables import labelling
from kofn.tables.labelling import Expected, default_method, expected

ROOT = Path(__file__).resolve().parents[2]
FIGURES = json.loads(usefulness.FIGURES.read_text(encoding="utf-8"))["usefulness"]


def test_the_table_follows_from_the_figures() -> None:
    rows = usefulness.expected(FIGURES["sets"])
    assert usefulness.LABELLING.read_text(encoding="utf-8") == usefulness.written(rows), (
        "run python -m benchmarks.usefulness"
    )
    assert {row["kind"] for row in rows} == {"text", "table", "any"}
    for row in rows:
        # Whatever the default is, something is said of it.
        assert row["default"] in row["points"]


def test_the_readme_shows_the_figures() -> None:
    assert usefulness.markdown(FIGURES["sets"]) in (ROOT / "README.md").read_text(encoding="utf-8")


def test_no_default_is_surely_below_random() -> None:
    for row in usefulness.expected(FIGURES["sets"]):
        points, half_width, *_ = row["points"][row["default"]]
        assert points + half_width > 0


def test_a_set_of_many_points_does_not_outvote_the_others() -> None:
    def row(part: str, points: float, beaten: float, kind: str = "table") -> dict[str, object]:
        own = [name for name, contender in usefulness.CONTENDERS.items() if contender.default]
        figures = {name: [0.0, 0.0, 0.0] for name in own}
        shares = {name: [0.5, 0.5, 0.5] for name in own}
        return {
            "kind": kind,
            "part": part,
            "size": 2_000,
            "points": figures | {"TypiClust": [points] * 3},
            "beaten": shares | {"TypiClust": [beaten] * 3, "ProbCover": [0.6] * 3},
        }

    assert usefulness.decided([row("chooses", 50.0, 0.9), row("chooses", 0.0, 0.2), row("chooses", 0.0, 0.2)]) == {
        (kind, rows): "ProbCover" for kind in usefulness.KINDS for rows in usefulness.ROWS_A_CLASS
    }
    # A kind's own sets overrule the others where they are sure and enough.
    measured = [row("chooses", 1.0, 0.2, "text") for _ in range(4)] + [row("chooses", 1.0, 0.9) for _ in range(3)]
    assert usefulness.decided(measured)["table", 1] == "TypiClust"
    assert usefulness.decided(measured[:6])["table", 1] == "ProbCover"


def test_the_nearest_size_is_taken() -> None:
    def points(pool: int, k: int) -> Expected | None:
        plan = kofn.Selection(n=pool, indices=np.arange(k), gains=np.ones(k), method="typiclust")
        return expected(plan, "table", 4)

    of = {(row["rows"], row["rows_a_class"]): row["points"]["typiclust"] for row in _rows("table")}
    sizes = sorted({rows for rows, _ in of})
    for pool, k, key in ((100, 4, (sizes[0], 1)), (3_000, 11, (sizes[0], 3)), (90_000, 4_000, (sizes[-1], 10))):
        found = points(pool, k)
        assert found is not None
        assert [found.points, found.half_width, found.lowest, found.highest] == of[key]
    assert points(2_000, 1) is None


def _rows(kind: str) -> list[dict[str, object]]:
    return [row for row in json.loads(Path(labelling.__file__).with_suffix(".json").read_text()) if row["kind"] == kind]


def test_picks_that_the_benchmark_does_not_have_promise_nothing() -> None:
    def named(method: str, objective: str = "", **options: object) -> Expected | None:
        plan = kofn.Selection(
            n=2_000, indices=np.arange(12), gains=np.ones(12), method=method, objective=objective, options=options
        )
        return expected(plan, "any", 4)

    plain, rbf = named("lazy_greedy", "facility_location"), named("lazy_greedy", "facility_location", metric="rbf")
    assert plain is not None
    assert rbf is not None
    assert plain != rbf
    assert named("random_sample") is None
    assert named("lazy_greedy", "graph_cut") is None
    assert default_method("any", 2_000, 3.0) in ("auto", "typiclust", "probability_cover", "farthest_first")


@pytest.mark.parametrize(
    ("points", "half_width", "verdict"),
    [
        (4.0, 3.9, "a gain over random rows is expected"),
        (0.4, 0.3, "a gain over random rows is expected"),
        (4.0, 4.1, "a gain over random rows is likely at this size, not sure"),
        (0.9, 4.1, "no gain over random rows expected at this size"),
        (-0.9, 4.1, "no gain over random rows expected at this size"),
        (-1.5, 4.1, "random rows did better at this size"),
    ],
)
def test_what_is_said_depends_on_the_interval(points: float, half_width: float, verdict: str) -> None:
    found = Expected(points, half_width, -5.0, 7.0, 6, "tables")
    assert found.verdict == verdict
    assert f"{points:+.1f} points of accuracy over random rows on 6 tables" in found.measured
    assert "by set -5.0 to +7.0" in found.measured
