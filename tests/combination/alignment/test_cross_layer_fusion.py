"""Networks of unequal depth: matches of layers against brute force, and members that compute what they did."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from plain_networks import mlp, run_mlp, same_bits, shuffled
from refusals import refused, untested

from kofn.combination import cross_layer_fusion, match_layers, ot_fusion
from kofn.combination.alignment import _cross_layer_fusion as module
from kofn.combination.alignment._architectures import graph_of
from kofn.combination.alignment._units import shapes_of
from kofn.combination.partial._linear_chain import linear_chain

X = np.random.default_rng(0).normal(size=(60, 3))


@pytest.mark.parametrize("kind", ["real", "ties", "forbidden"])
def test_layers_are_matched_at_the_least_cost_of_all_in_order(kind: str) -> None:
    rng = np.random.default_rng(1)
    for rows, columns in itertools.product(range(1, 5), range(1, 10)):
        costs = rng.integers(0, 3, (rows, columns)).astype(float) if kind == "ties" else rng.random((rows, columns))
        if kind == "forbidden":
            costs[rng.random(costs.shape) < 0.2] = np.inf
        ways = list(itertools.combinations(range(columns), rows))
        totals = [sum(costs[i, j] for i, j in enumerate(way)) for way in ways]
        if not ways or not np.isfinite(min(totals)):
            refused(lambda costs=costs: match_layers(costs), "costs")
            continue
        order = match_layers(costs)
        assert (np.diff(order) > 0).all()
        assert costs[np.arange(rows), order].sum() == pytest.approx(min(totals), abs=1e-12)
        if kind == "ties":
            assert tuple(order.tolist()) == min(
                way for way, total in zip(ways, totals, strict=True) if total == min(totals)
            )


@pytest.mark.parametrize("activation", ["relu", "linear"])
def test_a_deepened_member_computes_what_it_did(activation: str) -> None:
    shallow, deep = mlp((3, 7, 4, 2), 0), mlp((3, 5, 6, 8, 6, 2), 1)
    chains = [linear_chain(graph_of(shapes_of(state), "auto"), "a test") for state in (shallow, deep)]
    for order in ([0, 1], [0, 3], [0, 2]):
        made = module._deepened(shallow, chains[0], deep, chains[1], np.array(order))
        assert list(made) == list(deep)
        out = made
        values = X
        for position, layer in enumerate(chains[1]):
            values = values @ out[layer.weight].T + out[layer.bias]
            if activation == "relu" and position < len(chains[1]) - 1:
                values = np.maximum(values, 0)
        want = X
        for position, layer in enumerate(chains[0]):
            want = want @ shallow[layer.weight].T + shallow[layer.bias]
            if activation == "relu" and position < len(chains[0]) - 1:
                want = np.maximum(want, 0)
        np.testing.assert_allclose(values, want, atol=1e-12)


def test_an_embedded_copy_is_recovered_whatever_the_order_of_units() -> None:
    shallow = mlp((3, 6, 5, 2), 2)
    names = list(shallow)
    deep = {name: shallow[name] for name in names[:2]}
    deep |= {"2.weight": np.eye(6), "2.bias": np.zeros(6)}
    deep |= {f"{int(name[0]) + 2}{name[1:]}": shallow[name] for name in names[2:]}
    for seed in range(3):
        blend = cross_layer_fusion([shuffled(shallow, seed), deep], inputs=X)
        np.testing.assert_allclose(run_mlp(blend.result, X), run_mlp(shallow, X), atol=1e-9)
        # The identity follows a layer of the same features, so that either may be the one that is matched.
        assert blend.info["layers"][0].tolist() in ([0, 2], [0, 1])
    other = shuffled(deep, 5)
    assert cross_layer_fusion([other, deep, shallow], inputs=X, reference=1).info["layers"][2].tolist() in (
        [0, 2],
        [0, 1],
    )


def test_of_one_depth_it_is_fusion_by_transport() -> None:
    members = [mlp((3, 6, 5, 2), 0), mlp((3, 8, 4, 2), 1)]
    for compare, words in (("activations", {"inputs": X}), ("weights", {})):
        ours = cross_layer_fusion(members, inputs=X, compare=compare, weights=[1, 2])
        assert same_bits(ours.result, ot_fusion(members, weights=[1, 2], **words).result)
        assert [order.tolist() for order in ours.info["layers"]] == [[0, 1], [0, 1]]
        assert ours.info["dissimilarity"][0] == pytest.approx(0, abs=1e-12)


def test_what_cannot_be_fused_is_refused() -> None:
    a, deep = mlp((3, 4, 2), 0), mlp((3, 4, 4, 2), 1)

    def fusing(*members: Any, **words: Any) -> Any:
        return lambda: cross_layer_fusion(list(members), **({"inputs": X} | words))

    bare = {name: array for name, array in deep.items() if "bias" not in name}
    reached = {
        refused(fusing(a, deep, activation="tanh"), "activation='tanh'"),
        refused(
            fusing(deep, {**a, "0.scale": np.ones(4)}), "member 1: tensor '0.scale' is of no layer that 'mlp' knows"
        ),
        refused(
            fusing(deep, {**a, "0.bias": np.ones(3)}), "member 1: tensor '0.bias' has shape (3,), and '0.weight' 4"
        ),
        refused(fusing(a, deep, compare="layers"), "compare='layers'"),
        refused(fusing(a, deep, reference=0), "reference=0 has 2 layers and member 1 has 3; give one of the deepest"),
        refused(fusing(deep, mlp((4, 4, 2), 0)), "member 1: tensor '0.weight' has 4 inputs and the reference 3"),
        refused(fusing(deep, mlp((3, 4, 5), 0)), "member 1: tensor '2.weight' has 5 outputs and the reference 2"),
        refused(fusing(a, bare), "tensor '0.bias' is a bias where the reference has none; give both or neither"),
        refused(fusing(a, deep, inputs=X[:, :2]), "inputs has 2 columns"),
        refused(lambda: match_layers(np.ones((3, 2))), "3 layers do not fit into 2 in order"),
        refused(lambda: match_layers([[1.0, np.nan]]), "costs at row 0, column 1 is nan"),
        refused(lambda: match_layers([[np.inf, 1.0], [1.0, np.inf]]), "costs allow no match of all rows in order"),
    }
    assert not untested(module, reached)
