"""Panels of judges: scores in the long form, one a row, as ballots, in one level or two."""

from __future__ import annotations

from kofn.core.lazy import attach

# Generated below this line by `make index`.
HOMES = {
    "long_ballots": "_long_ballots",
}
__getattr__, __dir__, __all__ = attach(__name__, HOMES)
