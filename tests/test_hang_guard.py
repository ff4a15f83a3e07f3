"""The clock that ends a test which hangs."""

from __future__ import annotations

import faulthandler
import time
from typing import Any

import hang_guard
import pytest


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    kept: dict[str, Any] = {"now": 0.0, "set": []}

    def later(seconds: float, **given: Any) -> None:
        assert given == {"file": 2, "exit": True}
        kept["set"].append(kept["now"] + seconds)

    monkeypatch.setattr(time, "monotonic", lambda: kept["now"])
    monkeypatch.setattr(faulthandler, "dump_traceback_later", later)
    return kept


def _begin(guard: hang_guard.HangGuard) -> None:
    protocol = guard.pytest_runtest_protocol()
    next(protocol)
    with pytest.raises(StopIteration):
        protocol.send(None)


def test_every_test_has_its_ten_minutes_but_for_half_a_one(clock: dict[str, Any]) -> None:
    guard = hang_guard.HangGuard(2)
    for clock["now"] in range(0, 100, 7):
        _begin(guard)
        left = clock["set"][-1] - clock["now"]
        assert hang_guard.SECONDS - hang_guard.EVERY <= left <= hang_guard.SECONDS
    assert len(clock["set"]) < 5


def test_a_failure_after_which_pytest_stops_the_clock_sets_it_anew(clock: dict[str, Any]) -> None:
    guard = hang_guard.HangGuard(2)
    _begin(guard)
    guard.pytest_exception_interact()
    _begin(guard)
    assert len(clock["set"]) == 2
