"""Objectives of a selection: set functions with marginal gains, each importable from here."""

from __future__ import annotations

from kofn.objectives._table import exported, listed, load

__getattr__, __dir__, __all__ = load, listed, exported
