"""The order in which a pool is scanned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from kofn.laws.inputs import Draw, Drawer


def _order(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    source = next(given[word] for word in ("X", "similarity", "scores") if word in given)
    n = source.shape[0] if hasattr(source, "shape") else len(source)
    if draw(st.booleans()):
        options["order"] = draw(st.permutations(range(n)))


OPTIONS: dict[str, Drawer] = {"order": _order}
