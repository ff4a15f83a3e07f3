"""Balanced averaging: heads that divide logits, temperatures against a grid and their definition, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from plain_networks import mlp, run_mlp
from refusals import refused, untested

from kofn.combination import balanced_mean, balancing_temperatures, weighted_mean
from kofn.combination.averaging import _balanced_mean as module

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))


def softmax(logits: np.ndarray) -> np.ndarray:
    raw = np.exp(logits - logits.max(axis=1, keepdims=True))
    return raw / raw.sum(axis=1, keepdims=True)


def test_temperatures_divide_logits_and_leave_the_body_to_the_mean() -> None:
    a, b = mlp((3, 6, 5, 4), 0), mlp((3, 6, 5, 4), 1)
    alone = balanced_mean([a], temperatures=[3.0], head="4.*").result
    np.testing.assert_allclose(run_mlp(alone, X), run_mlp(a, X) / 3, rtol=1e-12)
    blend = balanced_mean([a, b], temperatures=[1.0, 4.0], head=["4.weight", "4.bias"], weights=[1, 3])
    plain = weighted_mean([a, b], weights=[1, 3]).result
    for name in a:
        want = plain[name] if name[0] != "4" else 0.25 * a[name] + 0.75 * b[name] / 4
        np.testing.assert_allclose(blend.result[name], want, rtol=1e-14)
    same = balanced_mean([a, b], temperatures=[1.0, 1.0], head="4.*").result
    assert all(np.array_equal(same[name], weighted_mean([a, b]).result[name]) for name in a)


def test_without_labels_all_are_as_sure_as_the_least_sure() -> None:
    logits = [scale * RNG.normal(size=(300, 5)) for scale in (6.0, 1.0, 20.0)]
    temperatures = balancing_temperatures(logits)
    sure = [softmax(part / t).max(axis=1).mean() for part, t in zip(logits, temperatures, strict=True)]
    assert temperatures[1] == 1
    assert sure == pytest.approx([sure[1]] * 3, abs=1e-8)
    np.testing.assert_allclose(balancing_temperatures([logits[1], 7 * logits[1]]), [1, 7], rtol=1e-7)


def test_with_labels_each_has_the_temperature_of_least_log_loss() -> None:
    truth = RNG.normal(size=(400, 3))
    y = np.array([RNG.choice(3, p=row) for row in softmax(truth)])
    for scale in (0.2, 1.0, 9.0):
        [temperature] = balancing_temperatures([scale * truth], y=y)
        losses = [
            -np.log(softmax(scale * truth / (temperature * factor))[np.arange(400), y]).mean()
            for factor in (0.9, 0.99, 1.0, 1.01, 1.1)
        ]
        assert np.argmin(losses) == 2


def test_what_is_refused_says_why() -> None:
    a, b = mlp((3, 4, 2), 0), mlp((3, 4, 2), 1)
    good, flat = RNG.normal(size=(6, 2)), np.zeros((6, 2))
    y = good.argmax(axis=1)
    reached = {
        refused(lambda: balanced_mean([a, b], temperatures=[1, 0], head="2.*"), "temperatures of member 1 is 0"),
        refused(
            lambda: balanced_mean([a, b], temperatures=[1], head="2.*"), "temperatures has 1 values, members has 2"
        ),
        refused(lambda: balanced_mean([a, b], temperatures=[1, 2]), "temperatures need head: a pattern of the last"),
        refused(lambda: balanced_mean([a, b], temperatures=[1, 1], head="9.*"), "head='9.*' names no floating tensor"),
        refused(lambda: balanced_mean([a, b], temperatures=[1, 1], head=3), "head=3"),
        refused(lambda: balancing_temperatures([]), "logits are empty"),
        refused(lambda: balancing_temperatures([good, good[:5]]), "logits of member 1 have shape (5, 2)"),
        refused(lambda: balancing_temperatures([good[:, :1]]), "logits have 1 column; give one a class"),
        refused(lambda: balancing_temperatures([good, flat]), "logits of member 1 favour no class in any row"),
        refused(lambda: balancing_temperatures([good], y=y + 1), "give classes 0..1"),
        refused(lambda: balancing_temperatures([good], y=["a"] * 6), "y holds 'a', which is no number of a class"),
        refused(lambda: balancing_temperatures([good], y=y[:4]), "y"),
        refused(lambda: balancing_temperatures([good], y=1 - y), "logits of member 0 know nothing of y"),
        refused(lambda: balancing_temperatures([good], y=y), "logits of member 0 are right on every row by y"),
    }
    assert not untested(module, reached)
