"""Draws that no product is of: whole numbers are warned of by name, chains are refused with a remedy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kofn.combination import (
    GaussianDensity,
    consensus_monte_carlo,
    divide_and_conquer_fusion,
    gaussian_product,
    kernel_product,
)
from kofn.core.checks import InputError
from kofn.core.plans import Blend

DENSITIES = [GaussianDensity([0.0, 2.0], [[1.0, 0.0], [0.0, 2.0]])] * 2
METHODS: dict[str, Callable[[Any], Blend]] = {
    "consensus_monte_carlo": consensus_monte_carlo,
    "gaussian_product": lambda members: gaussian_product(members, seed=0),
    "kernel_product": lambda members: kernel_product(members, sweeps=2, seed=0),
    "divide_and_conquer_fusion": lambda members: divide_and_conquer_fusion(
        members, densities=DENSITIES, draws=50, seed=0
    ),
}


def _members(discrete: Any) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [{"mu": rng.normal(size=80), "count": discrete(rng.poisson(2.0, 80))} for _ in range(2)]


@pytest.mark.parametrize("name", METHODS)
def test_whole_numbers_are_warned_of_by_name(name: str) -> None:
    (warning,) = [text for text in METHODS[name](_members(np.asarray)).info["warnings"] if "whole number" in text]
    assert warning.startswith("every draw of 'count' is a whole number")
    assert "'mu'" not in warning


@pytest.mark.parametrize("kind", [np.float64, lambda draws: draws > 1])
def test_whole_numbers_are_seen_in_any_type(kind: Any) -> None:
    assert any("'count'" in text for text in consensus_monte_carlo(_members(kind)).info["warnings"])
    assert not any("whole" in text for text in consensus_monte_carlo(_members(lambda x: x + 0.5)).info["warnings"])
    half = [{**_members(np.asarray)[0]}, {**_members(lambda x: x + 0.5)[1]}]
    assert not any("whole" in text for text in consensus_monte_carlo(half).info["warnings"])


CHAINS = np.random.default_rng(0).normal(size=(4, 50, 3))
REFUSED: dict[str, tuple[Any, str]] = {
    "an array of chains": (
        CHAINS,
        r"shape \(4, 50, 3\), whose first axis is taken as draws; .* 4 chains of 50 draws, .*\.reshape\(-1, 3\)",
    ),
    "an archive's array of chains": (
        {"draws": CHAINS},
        r"'draws' \(4, 50, 3\) is taken as draws; .*\.reshape\(-1, 3\)",
    ),
    "a mapping of chains": (
        {"tau": CHAINS[:, :, 0], "mu": CHAINS},
        r"4 draws of 200 parameters; .*'tau' \(4, 50\) is taken as draws; .*\.reshape\(-1\)",
    ),
    "parameters as rows": (CHAINS[0].T, r"3 draws of 50 parameters; .*\(3, 50\) is taken as draws; .* the transpose"),
}


@pytest.mark.parametrize(("member", "says"), REFUSED.values(), ids=REFUSED)
def test_the_first_axis_is_told(member: Any, says: str) -> None:
    with pytest.raises(InputError, match=says):
        consensus_monte_carlo([member, member])
