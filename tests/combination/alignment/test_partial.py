"""Networks merged in part, and by layers: against least squares and the paths walked by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from plain_networks import State, llama, mlp, run_mlp, same_bits, shuffled
from refusals import refused

import kofn
from kofn.combination import layerwise_barriers, layerwise_mean, permute, pleas
from kofn.io.tensors import Checkpoint


def test_at_size_two_both_networks_stay_whole() -> None:
    a, b = mlp((4, 9, 7, 3), 0), mlp((4, 9, 7, 3), 1)
    X, probes = (np.random.default_rng(seed).normal(size=(80, 4)) for seed in (0, 1))
    blend = pleas([a, b], inputs=X, size=2.0)
    assert blend.info["merged"] == {"0": 0, "2": 0}
    assert np.allclose(run_mlp(blend.result, probes), (run_mlp(a, probes) + run_mlp(b, probes)) / 2, atol=1e-12)
    left = np.sort(blend.result["0.weight"], axis=0)
    assert np.array_equal(left, np.sort(np.vstack([a["0.weight"], b["0.weight"]]), axis=0))
    assert max(blend.info["errors"]) < 1e-25


def test_the_size_is_kept_to_and_the_error_falls_with_it() -> None:
    a, b = mlp((6, 24, 20, 4), 0), mlp((6, 24, 20, 4), 1)
    X, probes = (np.random.default_rng(seed).normal(size=(400, 6)) for seed in (0, 1))
    want = (run_mlp(a, probes) + run_mlp(b, probes)) / 2
    plain = sum(array.size for array in a.values())
    errors = []
    for size in (1.0, 1.2, 1.5, 1.8, 2.0):
        blend = pleas([a, b], inputs=X, size=size)
        used = sum(int(np.count_nonzero(array)) for array in blend.result.values())
        assert used == round(blend.info["size"] * plain) <= size * plain
        assert blend.info["stored"] * plain == sum(array.size for array in blend.result.values())
        errors.append(np.square(run_mlp(blend.result, probes) - want).mean())
    assert errors == sorted(errors, reverse=True)
    even = pleas([a, b], inputs=X, size=1.5, fractions="even")
    assert even.info["merged"]["0"] / 24 == pytest.approx(even.info["merged"]["2"] / 20, abs=0.06)
    assert even.info["size"] <= 1.5
    by_hand = pleas([a, b], inputs=X, fractions={"0": 0.5, "2": 1.0})
    assert by_hand.info["merged"] == {"0": 12, "2": 20}


def test_the_layers_are_the_least_squares() -> None:
    a, b = mlp((5, 12, 3), 0), mlp((5, 12, 3), 1)
    X = np.random.default_rng(0).normal(size=(200, 5))
    blend = pleas([a, b], inputs=X, ridge=0.0)
    ours, theirs = blend.transforms["0"]
    ha, hb = (np.maximum(X @ s["0.weight"].T + s["0.bias"], 0) for s in (a, b))
    Z = np.column_stack([(ha[:, ours] + hb[:, theirs]) / 2, np.ones(200)])
    best = np.linalg.lstsq(Z, (run_mlp(a, X) + run_mlp(b, X)) / 2, rcond=None)[0]
    assert np.allclose(blend.result["2.weight"], best[:-1].T, atol=1e-5)
    assert np.allclose(blend.result["2.bias"], best[-1], atol=1e-5)
    # Much ridge leaves the permuted average.
    kept = pleas([a, b], inputs=X, ridge=1e12).result
    turned_b = permute(b, {"0": theirs[np.argsort(ours)]})
    assert np.allclose(kept["2.weight"], ((a["2.weight"] + turned_b["2.weight"]) / 2)[:, ours], atol=1e-9)


def test_partial_merging_of_a_permuted_copy_gives_it_back() -> None:
    a = mlp((5, 14, 10, 3), 0)
    X = np.random.default_rng(0).normal(size=(100, 5))
    for match, features in itertools.product(("activations", "weights"), ("members", "merged")):
        blend = pleas([a, shuffled(a, 1)], inputs=X, match=match, features=features)
        assert np.allclose(run_mlp(blend.result, X), run_mlp(a, X), atol=1e-9)


def test_partial_merging_refuses() -> None:
    a = mlp((5, 14, 10, 3), 0)
    X = np.ones((10, 5))
    refused(lambda: pleas([a], inputs=X), "pleas merges two members, not 1")
    refused(lambda: pleas([a, a], inputs=X, size=2.5), "size=2.5")
    refused(lambda: pleas([a, a], inputs=X, ridge=-1), "ridge=-1")
    refused(
        lambda: pleas([a, a], inputs=X, fractions={"0": 1}), "give the share of units to merge for each of ['0', '2']"
    )
    normed = {"0.weight": a["0.weight"], "1.weight": np.ones(14), "2.weight": a["2.weight"]}
    refused(
        lambda: pleas([normed, normed], inputs=X), "pleas runs plain chains of linear layers, and tensor '1.weight'"
    )
    refused(lambda: pleas([llama(0), llama(1)], inputs=X), "this one is 'llama'")


def test_partial_merging_writes_its_result(tmp_path: Any) -> None:
    a, b = mlp((5, 14, 3), 0), mlp((5, 14, 3), 1)
    X = np.random.default_rng(0).normal(size=(100, 5))
    blend = pleas([a, b], inputs=X, size=1.5, out=tmp_path / "out.safetensors")
    written = Checkpoint.open(tmp_path / "out.safetensors").arrays()
    assert same_bits({name: np.asarray(written[name]) for name in blend.result}, dict(blend.result))


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
