"""Calls on which the laws hold: of members large enough for threads."""

from __future__ import annotations

from typing import Any

from law_runs import keeps_laws_in_tasks, wide


def _based() -> dict[str, Any]:
    return {"members": wide(), "base": wide()[0] / 2}


def test_task_vectors_at_size() -> None:
    keeps_laws_in_tasks("task_arithmetic", _based(), {"scale": 0.7})
    keeps_laws_in_tasks("ties", _based(), {"density": 0.3})
    keeps_laws_in_tasks("dare", {**_based(), "seed": 0}, {"density": 0.3})
    keeps_laws_in_tasks("pcb_merging", _based())
    keeps_laws_in_tasks("arcee_fusion", {"members": wide()[:1], "base": wide()[0] / 2})


def test_layer_swap_at_size() -> None:
    members = [{"layers.0.w": row, "layers.1.w": row[:9]} for row in wide()]
    keeps_laws_in_tasks("layer_swap", {"members": members}, {"bottom": 1, "top": 0})
