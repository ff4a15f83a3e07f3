"""Rank aggregation: one ranking from many judges."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "Votes": "_votes",
    "borda": "_borda",
    "bradley_terry": "_bradley_terry",
    "count_votes": "_votes",
    "kemeny": "_kemeny",
    "merge_points": "_borda",
    "vote_ballots": "_votes",
    "win_ballots": "_votes",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
