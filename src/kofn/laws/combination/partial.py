"""What partly merged networks are drawn with."""

from __future__ import annotations

from kofn.laws.combination.alignment import draw_inputs
from kofn.laws.inputs import Drawer

OPTIONS: dict[str, Drawer] = {"inputs": draw_inputs}
