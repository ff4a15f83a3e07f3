"""Rank aggregation: one ranking from many judges."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "Votes": "_votes",
    "baldwin": "_copeland",
    "borda": "_borda",
    "bradley_terry": "_bradley_terry",
    "copeland": "_copeland",
    "count_votes": "_votes",
    "dowdall": "_dowdall",
    "kemeny": "_kemeny",
    "merge_points": "_borda",
    "minimax": "_copeland",
    "plackett_luce": "_plackett_luce",
    "plurality": "_dowdall",
    "schulze": "_copeland",
    "threshold": "_dowdall",
    "vote_ballots": "_votes",
    "win_ballots": "_votes",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
