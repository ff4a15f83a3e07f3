"""Rank aggregation: one ranking from many judges."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "RuleComparison": "_sensitivity",
    "Votes": "_votes",
    "baldwin": "_copeland",
    "borda": "_borda",
    "bradley_terry": "_bradley_terry",
    "compare_rules": "_sensitivity",
    "copeland": "_copeland",
    "count_votes": "_votes",
    "dowdall": "_dowdall",
    "group_ballots": "_sensitivity",
    "kemeny": "_kemeny",
    "merge_points": "_borda",
    "minimax": "_copeland",
    "order_strengths": "_plackett_luce",
    "plackett_luce": "_plackett_luce",
    "plurality": "_dowdall",
    "ranked_pairs": "_copeland",
    "schulze": "_copeland",
    "threshold_rule": "_dowdall",
    "vote_ballots": "_votes",
    "win_ballots": "_votes",
    "win_strengths": "_votes",
    "winning_weights": "_sensitivity",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
