"""Networks merged in part, and by layers: against least squares and the paths walked by hand."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from plain_networks import llama, mlp, run_mlp, same_bits, shuffled
from refusals import refused

from kofn.combination import permute, pleas
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
