"""`compare` runs every method that was named, or refuses in words."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused

import kofn

METHODS = ["lazy_greedy", "stochastic_greedy"]


def frame(**words: Any) -> Any:
    X = np.random.default_rng(0).normal(size=(20, 2))
    return kofn.compare("select", X, **{"k": 3, "methods": METHODS, **words})


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ({"seeds": 0}, "seeds=0 counts seeds, of which there must be one; the seed 0 is seeds=[0]"),
        ({"seeds": -2}, "seeds=-2 counts seeds"),
        ({"seeds": []}, "seeds=[] is empty"),
        ({"seeds": 0, "methods": ["lazy_greedy"]}, "seeds=0 counts seeds"),
        ({"methods": []}, "methods=[] is empty"),
        ({"k": []}, "k=[] is empty"),
    ],
)
def test_what_would_leave_out_every_run_is_refused(words: dict[str, Any], says: str) -> None:
    refused(lambda: frame(**words), says)


def test_every_method_has_its_rows() -> None:
    assert frame(seeds=[0])["method"].to_list() == METHODS
    assert frame(seeds=2, k=[2, 3])["method"].value_counts(sort=True)["count"].to_list() == [4, 2]
