"""Laws of the best hyperparameters: recovered from sweeps of a known law, edges left out and told, and refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from refusals import refused

from kofn.allocation import HyperparameterLaw, fit_hyperparameter_law
from kofn.allocation.scaling_laws._sweeps import sweeps_of
from kofn.core.checks import KofnWarning

SIZES, TOKENS = np.geomspace(1e7, 1e9, 4), np.geomspace(1e9, 3e10, 4)
RATES, BATCHES = np.geomspace(1e-4, 1e-1, 10), np.geomspace(2e4, 3e6, 6)


def best_rate(N: Any, D: Any) -> Any:
    return 1.79 * np.asarray(N) ** -0.713 * np.asarray(D) ** 0.307


def best_batch(D: Any) -> Any:
    return 0.58 * np.asarray(D) ** 0.571


def sweeps(rates: Any = RATES, batches: Any = BATCHES, noise: float = 0.0, seed: int = 0) -> Any:
    """Runs of a surface that is no quadratic: steeper above the best rate than below, and rotated."""
    N, D, rate, batch = (axis.ravel() for axis in np.meshgrid(SIZES, TOKENS, rates, batches))
    x, y = np.log(rate / best_rate(N, D)), np.log(batch / best_batch(D))
    loss = 2 + 30 / N**0.2 + 0.02 * x**2 + 0.002 * np.maximum(x, 0) ** 3 + 0.01 * y**2 - 0.008 * x * y
    return N, D, {"rate": rate, "batch": batch}, loss * np.exp(noise * np.random.default_rng(seed).normal(size=len(N)))


def test_the_law_of_sweeps_is_found_again_beyond_them() -> None:
    law = fit_hyperparameter_law(*sweeps(noise=2e-4), resamples=20)
    assert isinstance(law, HyperparameterLaw)
    size, tokens = 3e9, 1e11
    best, interval, exponents = law.best(size, tokens), law.interval(size, tokens), law.exponents()
    assert best["rate"][0] == pytest.approx(best_rate(size, tokens), rel=0.15)
    assert best["batch"][0] == pytest.approx(best_batch(tokens), rel=0.25)
    for name, value in best.items():
        low, high = interval[name]
        assert low[0] <= value[0] <= high[0]
    assert exponents["rate"]["parameters"][0] - 0.05 < -0.713 < exponents["rate"]["parameters"][1] + 0.05
    # The batch does not depend on the size, and its interval says so.
    assert abs(law.coefficients["batch"]["parameters"]) < 0.05
    assert law.coefficients["batch"]["tokens"] == pytest.approx(0.571, abs=0.06)


def test_without_a_surface_the_best_run_counts() -> None:
    N, D, values, loss = sweeps()
    few = fit_hyperparameter_law(N, D, {"rate": values["rate"]}, np.where(values["batch"] == BATCHES[3], loss, np.inf))
    for (size, tokens), rate in zip(few.sweeps, few.optima["rate"], strict=True):
        rows = (size == N) & (tokens == D) & (values["batch"] == BATCHES[3])
        step = RATES[1] / RATES[0]
        assert 1 / step <= rate / values["rate"][rows][loss[rows].argmin()] <= step
    # A star of five runs is fewer than a surface of two takes: the optimum is the best of them, an end tells nothing.
    rate, batch = np.array([1.0, 2.0, 4.0, 2.0, 2.0]), np.array([8.0, 8.0, 8.0, 4.0, 2.0])
    star = sweeps_of(np.ones(5), np.ones(5), {"rate": rate, "batch": batch}, np.array([5.0, 3.0, 4.0, 2.0, 6.0]))
    assert (star.optima["rate"].tolist(), star.optima["batch"].round(9).tolist()) == ([2.0], [4.0])
    assert (star.edges["rate"], star.edges["batch"]) == (0, 0)
    ends = sweeps_of(np.ones(5), np.ones(5), {"rate": rate, "batch": batch}, np.array([1.0, 3.0, 4.0, 2.0, 6.0]))
    assert (ends.edges["rate"], ends.edges["batch"]) == (1, 1)
    assert np.isnan(ends.optima["rate"]).all()


def test_a_sweep_whose_best_is_at_an_end_does_not_count() -> None:
    N, D, values, loss = sweeps(rates=RATES[:7])
    with pytest.warns(KofnWarning, match=r"rate: in \d+ of 16 sweeps the best run has the least or the largest value"):
        law = fit_hyperparameter_law(N, D, values, loss, resamples=3)
    out = ~np.isfinite(law.optima["rate"])
    assert 0 < out.sum() < 12
    truth = best_rate(*law.sweeps.T)
    assert truth[out].min() > RATES[5]
    assert law.optima["rate"][~out] == pytest.approx(truth[~out], rel=0.3)


def test_what_the_sweeps_do_not_support_is_told() -> None:
    law = fit_hyperparameter_law(*sweeps(), resamples=5)
    with pytest.warns(KofnWarning, match="tokens=1e\\+12 is 33 times the largest measured"):
        law.best(1e9, 1e12)
    N, D, values, loss = sweeps()
    # Sizes and tokens that grow together tell no exponents apart.
    line = np.isclose(np.log(N / SIZES[0]) / np.log(100), np.log(D / TOKENS[0]) / np.log(30))
    with pytest.warns(KofnWarning, match="lie nearly on one line"):
        bound = fit_hyperparameter_law(
            N[line], D[line], {name: column[line] for name, column in values.items()}, loss[line], resamples=3
        )
    low, high = bound.interval(1e9, 1e9)["rate"]
    assert (low[0], high[0]) == (0, np.inf)


def test_refusals() -> None:
    N, D, values, loss = sweeps()
    two = (SIZES[0] == N) & (TOKENS[2] > D)
    few = {name: column[two] for name, column in values.items()}
    law = fit_hyperparameter_law(N, D, values, loss, resamples=0)
    for call, says in (
        (lambda: fit_hyperparameter_law(N, D, {}, loss), "hyperparameters={}: give a name and the runs' values"),
        (lambda: fit_hyperparameter_law(N, D, {"tokens": D}, loss), "hyperparameters has 'tokens', which is an"),
        (lambda: fit_hyperparameter_law(N, D, {"rate": -values["rate"]}, loss), "give numbers above 0"),
        (lambda: fit_hyperparameter_law(N, D, values, loss[:7]), "values"),
        (lambda: fit_hyperparameter_law(N, D, values, np.full(len(N), np.inf)), "every run diverged"),
        (lambda: fit_hyperparameter_law(N, D, {"rate": np.ones(len(N))}, loss), "no sweep varies rate"),
        (lambda: fit_hyperparameter_law(N[two], D[two], few, loss[two]), "2 of 2 sweeps bound the best rate"),
        (lambda: fit_hyperparameter_law(np.ones(len(N)), D, values, loss), "parameters has 1 different values"),
        (lambda: fit_hyperparameter_law(N, D, values, loss, resamples=0).exponents(), "resamples=0: an interval takes"),
        (
            lambda: fit_hyperparameter_law(N, D, values, np.full(len(N), 2.5)),
            "losses are all 2.5: no value of rate, batch",
        ),
        (lambda: fit_hyperparameter_law(N, D, values, ["low"] * len(N)), "losses has dtype"),
        (lambda: law.best("all", [1e9]), "parameters has dtype"),
        (lambda: law.best([], []), "parameters is empty"),
        (lambda: law.best([1e9], []), "tokens is empty"),
        (lambda: law.interval([1e9] * 2, [1e9] * 3), "shapes differ: parameters (2,), tokens (3,)"),
        (lambda: fit_hyperparameter_law(N, D, values, [[1.0]]), "losses has shape (1, 1)"),
    ):
        refused(call, says)
