"""Items that must share a bin or must not, by scores: brute force as the reference."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from command_line import refused, run

import kofn
from kofn.assignment import generalized_assignment
from kofn.core.checks import InfeasibleError, InputError


def best(scores: Any, capacity: Any, must: Any, cannot: Any, reserve: float | None, words: dict[str, Any]) -> float:
    """The largest total of all placements, -inf where there is none."""
    n, bins = scores.shape
    room = np.broadcast_to(capacity, bins)
    sizes, limits = np.asarray(words.get("sizes", np.zeros(n))), np.broadcast_to(words.get("limits", 0.0), bins)
    value = -math.inf
    for labels in itertools.product(range(-1 if reserve is not None else 0, bins), repeat=n):
        placed = np.array(labels)
        if any((np.bincount(placed[placed >= 0], minlength=bins) > room).tolist()):
            continue
        if any(sizes[placed == j].sum() > limits[j] for j in range(bins)):
            continue
        if any(labels[a] != labels[b] for a, b in must) or any(labels[a] == labels[b] >= 0 for a, b in cannot):
            continue
        value = max(value, sum(scores[i, j] if j >= 0 else reserve for i, j in enumerate(labels)))
    return value


@pytest.mark.parametrize("seed", range(24))
def test_links_are_held_at_the_largest_total(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, bins = 6, 3
    scores = rng.integers(-5, 6, (n, bins)).astype(float)
    scores[rng.random((n, bins)) < 0.1] = -np.inf
    pairs = [pair for pair in itertools.combinations(range(n), 2) if rng.random() < 0.3]
    links = {"must_link": pairs[:2], "cannot_link": pairs[2:5]}
    reserve = [None, -1.0][seed % 2]
    words: dict[str, Any] = {}
    if seed % 3 == 0:
        words = {"sizes": rng.integers(1, 4, n), "limits": [5, 6, 4]}
    expected = best(scores, 3, *links.values(), reserve, words)
    call = {"scores": scores, "capacity": 3, "reserve": reserve, **links, **words}
    if expected == -math.inf:
        with pytest.raises(InfeasibleError):
            kofn.assign(**call)
        return
    plan = kofn.assign(**call)
    assert (plan.method, plan.status) == ("generalized_assignment", "optimal")
    assert plan.value == pytest.approx(expected)
    placed = plan.labels.tolist()
    assert all(placed[a] == placed[b] for a, b in links["must_link"])
    assert not any(placed[a] == placed[b] >= 0 for a, b in links["cannot_link"])
    assert ("limits" in plan.used) == bool(words)


def test_links_that_no_placement_keeps_are_refused_by_name() -> None:
    scores = np.zeros((4, 2))
    with pytest.raises(InfeasibleError, match=r"must_link joins rows 0, 1, 2, and no bin .* holds them together"):
        generalized_assignment(scores, capacity=2, must_link=[[0, 1], [1, 2]])
    apart = [[0, 1], [1, 2], [0, 2]]
    with pytest.raises(InfeasibleError, match=r"no placement of whole items keeps cannot_link.*; drop a pair of"):
        generalized_assignment(scores, capacity=4, cannot_link=apart)
    with pytest.raises(
        InfeasibleError, match=r"keeps capacity and must_link together.*; raise capacity or drop a pair"
    ):
        generalized_assignment(np.zeros((6, 2)), capacity=3, must_link=[[0, 1], [2, 3], [4, 5]])
    with pytest.raises(InfeasibleError, match="cannot_link keeps rows 0 and 2 apart, must_link joins them"):
        generalized_assignment(scores, must_link=[[0, 1], [1, 2]], cannot_link=[[0, 2]])
    with pytest.raises(InputError, match="sizes need limits"):
        generalized_assignment(scores, sizes=[1, 1, 1, 1])
    with pytest.raises(InputError, match="limits need sizes"):
        generalized_assignment(scores, limits=3)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("time_limit", [None, 1e-6])
def test_rows_that_links_join_and_part_stay_out_with_a_reserve(seed: int, time_limit: float | None) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(-5, 9, (6, 3)).astype(float)
    must, cannot = [[0, 1], [1, 2]], [[0, 2], [3, 4]]
    links: dict[str, Any] = {"must_link": must, "cannot_link": cannot}
    plan = generalized_assignment(scores, capacity=2, reserve=-3.0, time_limit=time_limit, **links)
    assert plan.labels[:3].tolist() == [-1, -1, -1]
    wanted = best(scores, 2, must, cannot, -3.0, {})
    assert plan.value == wanted if time_limit is None else plan.value <= wanted <= plan.bound + 1e-9
    with pytest.raises(InfeasibleError, match="cannot_link keeps rows 0 and 2 apart, must_link joins them"):
        generalized_assignment(scores, capacity=2, **links)
    plan = generalized_assignment(
        [[-5, 3, -2], [-4, 4, 0]], capacity=[0, 1, 2], reserve=-3.0, must_link=[[1, 0]], cannot_link=[[0, 1]]
    )
    assert plan.value == -6


def test_a_quick_placement_holds_links() -> None:
    rng = np.random.default_rng(0)
    scores = rng.random((60, 6))
    must, cannot = [[0, 1], [2, 3]], [[i, i + 1] for i in range(10, 40)]
    plan = generalized_assignment(scores, capacity=12, must_link=must, cannot_link=cannot, time_limit=1e-6)
    placed = plan.labels
    assert np.bincount(placed, minlength=6).max() <= 12
    assert all(placed[a] == placed[b] for a, b in must)
    assert not any(placed[a] == placed[b] for a, b in cannot)
    assert plan.value <= plan.bound + 1e-9


def test_students_stay_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ranks.csv").write_text("student,P,Q\na,1,2\nb,1,2\nc,2,1\nd,1,2\n")
    Path("together.csv").write_text("x,y\na,c\n")
    Path("apart.csv").write_text("x,y\nb,d\n")
    call = ("assign", "ranks.csv", "--id", "student", "--scores", "--sense", "min", "--capacity", 3)
    code, text, err = run(capsys, *call, "--must-link", "together.csv", "--cannot-link", "apart.csv", "-o", "o.csv")
    assert code == 0, err
    assert "cost 6 (optimal)" in text
    placed = dict(pl.read_csv("o.csv").select("id", "bin").iter_rows())
    assert placed["a"] == placed["c"]
    assert placed["b"] != placed["d"]
    text = refused(capsys, *call, "--must-link", "apart.csv", "--cannot-link", "apart.csv")
    assert "must_link joins them" in text
