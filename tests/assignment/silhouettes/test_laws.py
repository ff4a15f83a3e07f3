"""Calls on which the laws hold: of pools on which compiled code and threads run."""

from __future__ import annotations

from law_runs import copies, keeps_laws_at_size, rounded


def test_fastermsc_at_size() -> None:
    keeps_laws_at_size("fastermsc", {"X": rounded(500, 4), "k": 5, "seed": 1})
    keeps_laws_at_size("fastermsc", {"X": copies(), "k": 9, "seed": 3})
    # Row by row.
    keeps_laws_at_size("fastermsc", {"X": rounded(500, 4), "k": 5, "seed": 1, "max_memory": "100kB"})


def test_pamk_at_size() -> None:
    keeps_laws_at_size("pamk", {"X": rounded(500, 4), "seed": 1}, {"k_max": 6})


def test_dynmsc_at_size() -> None:
    keeps_laws_at_size("dynmsc", {"X": rounded(900, 4), "seed": 0}, {"k_max": 6})
