"""X in other units is the same question: answers follow the unit, or the rows are refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

import kofn
from kofn.objectives.information import LogDeterminantConditionalGain
from kofn.selection.streams import DynamicSelection, SieveStreaming

X = np.random.default_rng(0).normal(size=(40, 3))
METHODS: dict[str, dict[str, Any]] = {
    "lazy_greedy": {},
    "naive_greedy": {},
    "sparse_greedy": {},
    "sampled_greedy": {"seed": 0, "reference": 20},
    "farthest_first": {},
    "gist": {},
}


@pytest.mark.parametrize("power", [-300, -200, -160, -100, -30, 30, 100, 155, 200, 300])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
@pytest.mark.parametrize("method", METHODS)
def test_picks_do_not_depend_on_the_unit(method: str, metric: Any, power: int) -> None:
    asked: Any = {"k": 4, "method": method, "metric": metric, **METHODS[method]}
    plain = kofn.select(X, **asked)
    scaled_rows = X * float(f"1e{power}")
    squares = metric == "sqeuclidean" or (metric == "euclidean" and method in ("farthest_first", "gist"))
    if squares and not -140 < power < 150:
        with pytest.raises(kofn.InputError, match=f"squares float64 cannot hold; multiply X by 1e{-power}"):
            kofn.select(scaled_rows, **asked)
        return
    plan = kofn.select(scaled_rows, **asked)
    np.testing.assert_array_equal(plan.indices, plain.indices)
    assert plan.status == plain.status
    unit = float(f"1e{power}") ** {"euclidean": 1, "sqeuclidean": 2, "cosine": 0}[metric]
    assert plan.value / unit == pytest.approx(plain.value, rel=1e-5)
    if plain.bound is not None:
        assert plan.bound / unit == pytest.approx(plain.bound, rel=1e-5)


@pytest.mark.parametrize("seed", range(40))
def test_what_is_conditioned_keeps_its_digits_at_large_scales(seed: int) -> None:
    """Subtracting what the private rows explain from products of 1e9 left 7 digits, and a bound below the optimum."""
    rng = np.random.default_rng(seed)
    rows = rng.integers(-4, 5, size=(5, 2)) * 1e4
    private = rng.integers(-4, 5, size=(2, 2)) * 1e4
    asked: Any = {"X": rows, "private": private, "objective": "log_determinant_conditional_gain"}
    objective = LogDeterminantConditionalGain(rows, private=private)
    plan = kofn.select(**asked, k=3)
    best = max(objective.value(np.array(picks)) for picks in itertools.combinations(range(5), 3))
    assert plan.value <= best * (1 + 1e-12)
    assert plan.bound is not None
    assert plan.bound >= best * (1 - 1e-12)


@pytest.mark.parametrize("kernel", ["linear", "cosine"])
@pytest.mark.parametrize("nu", [0.0, 0.6, 1.0])
def test_a_conditioned_kernel_is_the_textbook_one(kernel: Any, nu: float) -> None:
    private, unit = np.random.default_rng(1).normal(size=(5, 3)), np.eye(5)
    F, Q = X[:8], private
    if kernel == "cosine":
        # (1 + cos) / 2 is the inner product of directions with one coordinate more, over two.
        F, Q = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (F, Q))
        F, Q = (np.column_stack([rows, np.ones(len(rows))]) / 2**0.5 for rows in (F, Q))
    left = F @ F.T - nu**2 * F @ Q.T @ np.linalg.inv(Q @ Q.T + unit) @ Q @ F.T
    objective = LogDeterminantConditionalGain(X[:8], private=private, nu=nu, kernel=kernel)
    wanted = np.linalg.slogdet(left + np.eye(8))[1]
    assert objective.value(np.arange(8)) == pytest.approx(wanted)
    assert objective.value(np.arange(8)) == pytest.approx(sum(objective.add(item) for item in range(8)))


@pytest.mark.parametrize("power", [-30, -25, 25, 30])
@pytest.mark.parametrize("metric", ["euclidean", "sqeuclidean", "cosine"])
def test_subpools_of_float32_do_not_depend_on_the_unit(metric: Any, power: int) -> None:
    rows = X.astype(np.float32)
    y = np.where(np.arange(40) < 4, "a", "?")
    asked: Any = {"k": 5, "method": "anchored_subpool", "metric": metric, "y": y, "unlabelled": "?", "seed": 0}
    asked["n_neighbors"] = 2
    # A power of 2 near that of 10 leaves the digits as they are.
    unit = np.float32(2.0 ** round(power / np.log10(2)))
    assert kofn.select(rows * unit, **asked).indices.tolist() == kofn.select(rows, **asked).indices.tolist()


@pytest.mark.parametrize("power", [-310, -300, -200, 200, 300])
def test_streams_take_distances_at_any_scale(power: int) -> None:
    """Squares of numbers beyond 1e154 were infinite, and the value NaN."""
    scaled_rows, unit = X * float(f"1e{power}"), float(f"1e{power}")
    if power == -310:
        with pytest.raises(kofn.InputError, match=r"add up to .* so that this sum is between 1e-300 and 1e\+303"):
            kofn.select(scaled_rows, k=3, method="sieve_streaming", seed=0)
        return
    plan = kofn.select(scaled_rows, k=3, method="sieve_streaming", seed=0)
    far = np.linalg.norm(X - X.mean(axis=0), axis=1)
    apart = np.linalg.norm(X[:, None] - X[plan.indices], axis=2).min(axis=1)
    wanted = np.maximum(far - apart, 0).sum()
    assert plan.value / unit == pytest.approx(wanted)
    assert plan.bound is not None
    assert wanted <= plan.bound / unit <= wanted / plan.guarantee
    stream = SieveStreaming(3, reference=X)
    stream.insert(None, scaled_rows if power > 0 else X)
    assert np.isfinite(stream.plan.value)
    with pytest.raises(kofn.InputError, match=rf"X has .* squares float64 cannot hold; multiply X by 1e{-power}"):
        kofn.select(scaled_rows, k=3, method="sieve_streaming", metric="sqeuclidean", seed=0)
    for stepper in (SieveStreaming, DynamicSelection):
        with pytest.raises(kofn.InputError, match=r"reference has .* float64 cannot hold"):
            stepper(3, reference=scaled_rows, metric="sqeuclidean")


def test_numbers_at_the_ends_of_float64_are_compared() -> None:
    assert kofn.select(X[:20] * 1e-310, k=3).indices.tolist() == kofn.select(X[:20], k=3).indices.tolist()
    with pytest.raises(kofn.InputError, match="sums of whose distances float64 cannot hold; multiply X by 1e-10"):
        kofn.select(X[:20] * 4e307, k=3)


@pytest.mark.parametrize(
    ("rows", "more"),
    [
        (X * 1e155, {"objective": "log_determinant"}),
        (csr_array(X * 1e300), {"objective": "log_determinant"}),
        (X * 1e155, {"objective": "log_determinant_conditional_gain", "private": X[:2]}),
    ],
)
def test_products_that_float64_cannot_hold_are_refused_by_name(rows: Any, more: Any) -> None:
    with pytest.raises(kofn.InputError, match=r"X has entries up to .* squares float64 cannot hold; multiply X by 1e-"):
        kofn.select(rows, k=4, **more)
