"""A budget split between demonstrations and pairs: the surface's own optimum, what pilots cannot tell, refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused

from kofn.allocation import annotation_split
from kofn.core.checks import InfeasibleError

DEMONSTRATIONS, PAIRS = (x.ravel() for x in np.meshgrid([0, 10, 40, 160], [0, 20, 80, 320]))


def surface(n: Any, m: Any, needed: float = 30.0) -> Any:
    counted = m * n / np.maximum(n + needed, 1e-9) if needed else m
    return 0.1 + 0.9 * (1 + n / 20) ** -0.3 * (1 + counted / 50) ** -0.4


@pytest.mark.parametrize(("needed", "cold"), [(30.0, True), (0.0, False)])
def test_the_split_is_the_surfaces_best(needed: float, cold: bool) -> None:
    losses = surface(DEMONSTRATIONS, PAIRS, needed)
    plan = annotation_split(DEMONSTRATIONS, PAIRS, losses, budget=1500, costs=(3.0, 1.0), resamples=2)
    best = min((surface(n, 1500 - 3 * n, needed), n) for n in range(501))
    assert surface(*plan.amounts, needed) == pytest.approx(best[0], rel=1e-4)
    assert plan.value == pytest.approx(best[0], rel=1e-3)
    assert plan.info["cold_start"] is cold
    assert plan.amounts.dtype == np.int64
    assert 3 * plan.amounts[0] + plan.amounts[1] == plan.used["budget"] <= 1500
    assert plan.value <= min(plan.info["only_demonstrations"], plan.info["only_pairs"])
    if cold:
        # Without a demonstration pairs bring nothing.
        assert plan.info["only_pairs"] == pytest.approx(surface(0, 0), rel=1e-2)


def test_what_runs_do_not_tell_is_told() -> None:
    rng = np.random.default_rng(1)
    plan = annotation_split(DEMONSTRATIONS, PAIRS, 0.5 + 0.2 * rng.random(16), budget=10_000, resamples=6)
    assert any("do not tell" in text for text in plan.info["warnings"])
    assert any("times the largest measured" in text for text in plan.info["warnings"])
    low, high = plan.info["split_between"]
    assert 0 <= low <= high <= 1


def test_refusals() -> None:
    n, m = DEMONSTRATIONS, PAIRS
    losses = surface(n, m)
    for call, says in (
        (lambda: annotation_split(n[:6], m[:6], losses[:6], budget=9), "pairs has 2 different values"),
        (lambda: annotation_split([1, 2, 3], [0, 1, 2], [1, 1, 1], budget=9), "losses has 3 runs, the law has 6"),
        (lambda: annotation_split(n, m, 1 - losses, budget=9), "losses at row 0 is 0; give numbers above 0, for a"),
        (lambda: annotation_split(-n, m, losses, budget=9), "demonstrations at row 3 is -160; give counts"),
        (lambda: annotation_split(n, m[:4], losses, budget=9), "pairs has 4 values"),
        (lambda: annotation_split(n, m, losses, budget=9, costs=(1, 0)), "costs=[1.0, 0.0]: give what"),
        (lambda: annotation_split(n, m, losses, budget=9, costs=(1, 1, 1)), "costs=[1.0, 1.0, 1.0]: give what"),
    ):
        refused(call, says)
    refused(
        lambda: annotation_split(n, m, losses, budget=1, costs=(2, 3)),
        "budget=1: nothing costs less than 2",
        InfeasibleError,
    )
