"""Calls on which the laws hold: of pools on which compiled code and threads run."""

from __future__ import annotations

import pytest
from law_runs import keeps_laws_at_size, rounded

SCORES = rounded(2100, 10)


@pytest.mark.parametrize(
    ("capacity", "per_item", "overflow"), [(190, 1, "reroute"), (300, 2, "reroute"), (150, 2, "drop")]
)
def test_capped_routing_at_size(capacity: int, per_item: int, overflow: str) -> None:
    given = {"scores": SCORES, "capacity": capacity, "per_item": per_item}
    keeps_laws_at_size("capped_routing", given, {"overflow": overflow})
