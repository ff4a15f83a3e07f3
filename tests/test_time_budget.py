"""The budget of the tests is kept however many methods there are, and a run that overdraws it fails."""

from __future__ import annotations

import pytest
import time_budget
from time_budget import FEWEST, LAW_CALLS, MOST, PARTS


@pytest.fixture(autouse=True)
def _ordinary_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time_budget, "DEEP", 0)


@pytest.mark.parametrize("pairs", [500, 1500, 4000])
def test_calls_are_shared_among_the_pairs(pairs: int) -> None:
    calls = [time_budget.law_calls(position, pairs) for position in range(pairs)]
    assert min(calls) >= FEWEST
    assert max(calls) == MOST
    # Beyond the budget lie only the floor of the many and the part that is held closely.
    assert sum(calls) <= max(LAW_CALLS, FEWEST * pairs) + MOST * -(-pairs // PARTS)


def test_every_pair_has_its_day(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[int] = set()
    for day in range(700_000, 700_000 + PARTS):
        monkeypatch.setattr(time_budget, "DAY", day)
        seen |= {position for position in range(4000) if time_budget.law_calls(position, 4000) == MOST}
    assert len(seen) == 4000


def test_a_deep_run_has_no_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "1")
    monkeypatch.setattr(time_budget, "DEEP", 2000)
    assert time_budget.law_calls(3, 4000) == 2000
    assert not time_budget.overdrawn(1e6)


def test_only_the_checks_fail_for_time(monkeypatch: pytest.MonkeyPatch) -> None:
    late = time_budget.SECONDS * time_budget.SLOWER_MACHINES + 1
    monkeypatch.delenv("CI", raising=False)
    assert not time_budget.overdrawn(late)
    monkeypatch.setenv("CI", "true")
    assert time_budget.overdrawn(late)
    assert not time_budget.overdrawn(time_budget.SECONDS)
