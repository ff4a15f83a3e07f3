"""What merging methods are given beside their members: precisions, densities, cuts between layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.laws.inputs import Draw, seeded


def _fisher(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """Precisions of very different sizes, zeros among them, for every tensor of every member."""
    rng = seeded(draw)

    def precisions(member: Any) -> Any:
        if isinstance(member, Mapping):
            return {name: precisions(tensor) for name, tensor in member.items()}
        drawn: NDArray[np.float64] = 10.0 ** rng.integers(-6, 3, np.shape(member)) * rng.integers(
            0, 2, np.shape(member)
        )
        return drawn

    options["fisher"] = [precisions(member) for member in given["members"]]


def _density(draw: Draw, _given: Mapping[str, Any], options: dict[str, Any]) -> None:
    options["density"] = draw(st.sampled_from((0.01, 0.2, 0.5, 0.9, 1.0)))


def _cut(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    depth = sum(name.startswith("layers.") for name in given["members"][0])
    bottom = draw(st.integers(0, depth))
    options["bottom"], options["top"] = bottom, draw(st.integers(0, depth - bottom))
    options["transition"] = draw(st.integers(0, 2))


OPTIONS: dict[str, Callable[[Draw, Mapping[str, Any], dict[str, Any]], None]] = {
    "fisher": _fisher,
    "layer_swap bottom": _cut,
    **{f"{name} density": _density for name in ("dare", "pcb_merging", "ties")},
}
