"""Calls on which the laws hold: of pools on which compiled code and threads run."""

from __future__ import annotations

from law_runs import keeps_laws_at_size, rounded

X = rounded(1200, 4)


def test_sizes_at_size() -> None:
    keeps_laws_at_size("constrained_kmeans", {"X": X, "k": 12, "capacity": 110, "seed": 0}, {"min_size": 90})
    keeps_laws_at_size("constrained_kmedoids", {"X": X, "k": 12, "capacity": 102, "seed": 0}, {"min_size": 95})


def test_links_at_size() -> None:
    links = {"must_link": [[i, i + 600] for i in range(90)], "cannot_link": [[i, i + 7] for i in range(40)]}
    keeps_laws_at_size("constrained_kmeans", {"X": X, "k": 12, "capacity": 105, "seed": 0}, links)
