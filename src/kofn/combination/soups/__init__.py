"""Model soups: members and weights chosen by a score."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "evolved_mean": "_evolved_mean",
    "greedy_soup": "_greedy_soup",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
