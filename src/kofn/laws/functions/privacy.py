"""The private populations that the private methods are drawn with."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st

from kofn.laws.inputs import Draw, seeded


def _users(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    rng = seeded(draw)
    options["users"] = rng.normal(size=(draw(st.integers(1, 9)), np.asarray(given["X"]).shape[1]))


def _epsilon(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    options["epsilon"] = draw(st.sampled_from((0.1, 1.0, 50.0, math.inf)))


def _delta(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    if draw(st.booleans()):
        options["delta"] = draw(st.sampled_from((0.0, 1e-9, 0.01)))


OPTIONS: dict[str, Callable[[Draw, Mapping[str, Any], dict[str, Any]], None]] = {
    "users": _users,
    "epsilon": _epsilon,
    "delta": _delta,
}
