"""Numbers near the least that float64 holds: as the same ones times a power of two, or refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.sparse as sp
from refusals import refused

import kofn
from kofn.core.plans import Selection
from kofn.objectives import FacilityLocation, _sources, facility_location

TINY = [-900, -970, -1000, -1018]
SEARCHES = ["lazy_greedy", "naive_greedy", "threshold_greedy", "stochastic_greedy"]


def whole(seed: int) -> tuple[Any, Any, Any]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 5, (6, 6)).astype(float), rng.integers(0, 4, 6), rng.integers(1, 4, 6).astype(float)


def agree(call: Callable[[float], Any], factor: float) -> None:
    """The call's answer for tiny numbers is that for the same numbers as they are, multiplied."""
    plain, tiny = call(1.0), call(factor)
    assert tiny.value / factor == plain.value
    assert tiny.status == plain.status
    if plain.bound is not None:
        assert tiny.bound / factor == pytest.approx(plain.bound, rel=1e-12)
    if isinstance(plain, Selection):
        assert tiny.indices.tolist() == plain.indices.tolist()


@pytest.mark.parametrize("power", TINY)
@pytest.mark.parametrize("method", SEARCHES)
def test_similarities_and_weights(method: str, power: int) -> None:
    given: dict[str, Any] = {"method": method} | ({"seed": 0} if method == "stochastic_greedy" else {})
    for seed in range(2):
        S, costs, weights = whole(seed)
        budget = {"costs": costs, "budget": 5} | given
        for table in (S, sp.csc_array(S)):
            agree(lambda f, S=table: kofn.select(similarity=S * f, k=3, **given), 2.0**power)
            agree(lambda f, S=table, budget=budget: kofn.select(similarity=S * f, **budget), 2.0**power)
            agree(lambda f, S=table, w=weights: kofn.select(similarity=S, weights=w * f, k=3, **given), 2.0**power)
            # The factor in equal parts.
            agree(lambda f, S=table, w=weights: kofn.select(similarity=S * f**0.5, weights=w * f**0.5, k=3), 2.0**power)


@pytest.mark.parametrize("power", TINY)
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_weights_of_rows_that_compiled_code_reads(power: int, kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facility_location, "is_small", lambda *_: False)
    X = np.random.default_rng(0).integers(-9, 10, (300, 3)).astype(kind)
    weights = np.random.default_rng(1).integers(0, 4, 300).astype(float)
    plain, tiny = FacilityLocation(X, weights=weights), FacilityLocation(X, weights=weights * 2.0**power)
    assert isinstance(plain._source, _sources.Rows)
    everyone = np.arange(300)
    for item in (7, 100, 250):
        assert (tiny.exact_gains(everyone) / 2.0**power == plain.exact_gains(everyone)).all()
        assert tiny.add(item) / 2.0**power == plain.add(item)


@pytest.mark.parametrize("power", TINY)
def test_scores_and_curves(power: int) -> None:
    for seed in range(2):
        S, costs, _ = whole(seed)
        scores, curves = S[0] - 1, np.sort(S[:, :3])[:, ::-1].copy()
        agree(lambda f, s=scores: kofn.select(scores=s * f, k=3), 2.0**power)
        agree(lambda f, s=scores, c=costs: kofn.select(scores=s * f, costs=c, budget=5), 2.0**power)
        agree(lambda f, S=S: kofn.assign(scores=(S[:, :3] - 2) * f, capacity=2), 2.0**power)
        agree(lambda f, c=curves: kofn.allocate(curves=c * f, budget=4), 2.0**power)


def test_what_float64_does_not_hold_is_refused() -> None:
    S, _, weights = whole(0)
    for table in (S, sp.csc_array(S)):
        refused(lambda S=table: kofn.select(similarity=S * 1e-310, k=2), "rescale both to at most 1")
        refused(lambda S=table: kofn.select(similarity=S * 1e-200, weights=weights * 1e-200, k=2), "rescale both")
    refused(lambda: kofn.select(X=S, weights=weights * 1e-312, k=2), "rescale the weights")
    # Where nothing counts, or some of it is large, nothing is lost.
    assert kofn.select(similarity=0 * S, k=2).value == 0
    S[0, 1] = 1e-310
    assert kofn.select(similarity=S, k=2).value == kofn.select(similarity=np.where(S < 1, 0, S), k=2).value
