"""Black-box scores of regions, asked for again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from kofn.core.arrays import Floats
from kofn.laws.case import Case
from kofn.laws.inputs import Draw, Drawer, seeded
from kofn.laws.words import (
    Value,
)


def _regions(case: Case) -> Value:
    score = case.words["score"]

    def value(picks: Any) -> float:
        mask = np.zeros((1, case.n), bool)
        mask[0, np.asarray(picks, np.int64)] = True
        return float(np.asarray(score(mask))[0])

    return value


def _draw_regions(draw: Draw, given: Mapping[str, Any], options: dict[str, Any]) -> None:
    """A score of sets of regions that neither rises always nor falls always, and how the search looks at it."""
    n = len(given["X"])
    rng = seeded(draw)
    joint = rng.integers(-2, 5, (n, n)).astype(np.float64)

    def score(masks: NDArray[np.bool_]) -> Floats:
        rows = masks.astype(np.float64)
        return np.asarray(np.einsum("mi,ij,mj->m", rows, joint, rows))

    given["score"] = score  # type: ignore[index]
    options["pending"] = draw(st.sampled_from((1, 2, 8)))


FUNCTIONS: dict[str, Callable[[Case], Value]] = {"region_score": _regions}
OPTIONS: dict[str, Drawer] = {"pending": _draw_regions}
