"""Networks merged in part, and by layers: against least squares and the paths walked by hand."""

from __future__ import annotations

import numpy as np
import pytest
from plain_networks import State, mlp, same_bits
from refusals import refused

import kofn
from kofn.combination import layerwise_barriers, layerwise_mean


def test_some_layers_are_averaged_and_the_others_kept() -> None:
    members = [mlp((3, 4, 4, 2), seed) for seed in range(3)]
    blend = layerwise_mean(members, weights=[1, 2, 1], layers=["2.*", "4.bias"], keep=1)
    assert blend.form == "elementwise"
    for name in members[0]:
        want = members[1][name]
        if name in ("2.weight", "2.bias", "4.bias"):
            want = 0.25 * members[0][name] + 0.5 * members[1][name] + 0.25 * members[2][name]
        assert np.allclose(blend.result[name], want, atol=1e-15)
    assert blend.info["copied"] == ["0.bias", "0.weight", "4.weight"]
    assert blend.weights.tolist() == [0.25, 0.5, 0.25]
    assert same_bits(layerwise_mean(members).result, kofn.combine(members, method="weighted_mean").result)
    refused(lambda: layerwise_mean(members, layers="9.*"), "layers='9.*' names no tensor; there is '0.weight'")
    refused(lambda: layerwise_mean(members, keep=3), "keep=3")


def test_barriers_are_those_of_the_paths() -> None:
    a, b = mlp((3, 4, 4, 2), 0), mlp((3, 4, 4, 2), 1)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(40, 3)), rng.normal(size=(40, 2))

    def linear(state: State) -> float:
        out = X
        for stem in ("0", "2", "4"):
            out = out @ state[f"{stem}.weight"].T + state[f"{stem}.bias"]
        return float(np.square(out - y).mean())

    rows = layerwise_barriers(a, b, linear, points=9, cumulative=True)
    assert [row.name for row in rows] == ["0", "2", "4", "first 2", "all"]
    # A deep linear network under squared loss is convex in each of its layers.
    assert all(row.bulge <= 1e-12 for row in rows[:3])
    middle = {**a, **{name: (a[name] + b[name]) / 2 for name in ("2.weight", "2.bias")}}
    assert rows[1].losses[0, 4] == pytest.approx(linear(middle))
    assert rows[-1].losses[0, -1] == pytest.approx(rows[-1].ends[1])
    path = [linear({n: (1 - t) * a[n] + t * b[n] for n in a}) for t in np.linspace(0, 1, 9)]
    line = np.linspace(linear(a), linear(b), 9)
    assert rows[-1].barrier == pytest.approx((path - line)[1:-1].max())
    named = layerwise_barriers(a, b, linear, layers={"ends": ["0.*", "4.*"]})
    assert [row.name for row in named] == ["ends", "all"]
    assert named[0].tensors == ("0.weight", "0.bias", "4.weight", "4.bias")
    refused(lambda: layerwise_barriers(a, b, linear, layers={"x": "9.*"}), "layers: 'x' names no tensor")
    refused(lambda: layerwise_barriers(a, b, linear, points=2), "points=2")
