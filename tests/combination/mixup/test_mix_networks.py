"""Mixed networks: copies come back, aligned pairs compute what lies between, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from plain_networks import mlp, run_mlp, same_bits, shuffled
from refusals import refused, untested

from kofn.combination import mix_networks, weight_matching
from kofn.combination.mixup import _mix_networks as module

NETS = [mlp((3, 6, 5, 2), seed) for seed in range(6)]
Y = np.array(["a", "b"] * 3)
X = np.random.default_rng(0).normal(size=(20, 3))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_network_mixed_with_its_own_copy_is_itself(dtype: Any) -> None:
    net = mlp((3, 6, 5, 2), 9, dtype=dtype)
    mixed = mix_networks([net, shuffled(net, 1)], [0, 1], pairs="cross_class", seed=0)
    assert same_bits(mixed.X[0], net)
    assert same_bits(mixed.X[1], shuffled(net, 1))
    apart = mix_networks([net, shuffled(net, 1)], [0, 1], pairs="cross_class", align="none", ratio=0.5, seed=0)
    assert not np.allclose(apart.X[0]["0.weight"], net["0.weight"])


def test_pairs_are_blended_after_matching() -> None:
    mixed = mix_networks(NETS, Y, ratio=("uniform", 0.2, 0.9), seed=1)
    plain = mix_networks(NETS, Y, ratio=("uniform", 0.2, 0.9), align="none", seed=1)
    np.testing.assert_array_equal(mixed.second, plain.second)
    np.testing.assert_allclose(mixed.labels.sum(axis=1), 1, rtol=1e-15)
    for i, (first, second, share) in enumerate(zip(mixed.first, mixed.second, mixed.ratios, strict=True)):
        for name in NETS[0]:
            want = share * NETS[first][name] + (1 - share) * NETS[second][name]
            np.testing.assert_allclose(plain.X[i][name], want, atol=1e-12)
        if first != second:
            want = weight_matching([NETS[first], NETS[second]], weights=[share, 1 - share]).result
            assert all(np.allclose(mixed.X[i][name], want[name], atol=1e-6) for name in want)
    numbers = np.arange(6.0)
    np.testing.assert_allclose(
        mixed.mix(numbers), mixed.ratios * numbers[mixed.first] + (1 - mixed.ratios) * numbers[mixed.second]
    )


def test_shuffled_units_change_nothing_of_what_is_computed() -> None:
    words: dict[str, Any] = {"ratio": 0.6, "draws": 4, "seed": 2}
    turned, straight = mix_networks(NETS, Y, align="random", **words), mix_networks(NETS, Y, **words)
    for a, b in zip(turned.X, straight.X, strict=True):
        assert not np.array_equal(a["0.weight"], b["0.weight"])
        np.testing.assert_allclose(run_mlp(a, X), run_mlp(b, X), atol=1e-5)


def test_whole_numbers_and_refusals() -> None:
    counted = [{**net, "4.num_batches_tracked": np.array(seed)} for seed, net in enumerate(NETS[:2])]
    counted = [{**net, "4.running_mean": np.zeros(2)} for net in counted]
    words = {"architecture": {"0": [("0.weight", 0), ("0.bias", 0), ("2.weight", 1)]}}
    mixed = mix_networks(counted, [0, 1], pairs="cross_class", seed=0, **words)
    assert [int(state["4.num_batches_tracked"]) for state in mixed.X] == [0, 1]
    reached = {
        refused(lambda: mix_networks(NETS, Y, align="units"), "align='units'"),
        refused(lambda: mix_networks(NETS, Y[:2]), "y has 2 values, members has 6 rows"),
        refused(lambda: mix_networks(NETS, Y, labels="both"), "labels='both'"),
        refused(lambda: mix_networks(list(X), np.arange(20)), "mix_networks needs networks"),
        refused(lambda: mix_networks([*NETS[:1], mlp((3, 7, 5, 2), 0)], [0, 1]), "0.weight"),
    }
    assert not untested(module, reached)
