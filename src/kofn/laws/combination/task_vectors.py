"""Cuts between the layers of two experts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

from kofn.laws.inputs import Draw, Drawer


def _cut(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    depth = sum(name.startswith("layers.") for name in given["members"][0])
    bottom = draw(st.integers(0, depth))
    options["bottom"], options["top"] = bottom, draw(st.integers(0, depth - bottom))
    options["transition"] = draw(st.integers(0, 2))


OPTIONS: dict[str, Drawer] = {"bottom": _cut}
