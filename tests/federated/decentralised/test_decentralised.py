"""Gossip on graphs against matrices of weights, variances against their formula, and states that go on."""

from __future__ import annotations

import pickle
from functools import partial
from typing import Any

import numpy as np
import pytest
import scipy.sparse
import torch
from refusals import refused, untested

from kofn.combination import variance_corrected_mean
from kofn.federated import GossipAveraging
from kofn.federated.decentralised import _gossip_averaging as decentralised
from kofn.io.torch_arrays import from_torch


def ring(n: int) -> list[list[int]]:
    return [[(node - 1) % n, (node + 1) % n] for node in range(n)]


def random_graph(n: int, seed: int) -> np.ndarray:
    table = np.triu(np.random.default_rng(seed).random((n, n)) < 0.4, 1)
    return (table | table.T).astype(float)


def nets(n: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [{"w": rng.normal(size=(20, 30)), "b": rng.normal(size=20) + 3} for _ in range(n)]


@pytest.mark.parametrize("own", [None, 0.25, 0.0])
@pytest.mark.parametrize("seed", range(3))
def test_the_mean_is_a_product_with_a_matrix(seed: int, own: float | None) -> None:
    n = 7
    graph, models = random_graph(n, seed), nets(n, seed)
    gossip = GossipAveraging(graph, models, rule="mean", own=own)
    mixing = np.zeros((n, n))
    for node in range(n):
        around = np.flatnonzero(graph[node])
        share = 1 / (1 + len(around)) if own is None else own
        mixing[node, around] = (1 - share) / max(1, len(around))
        mixing[node, node] = share if len(around) else 1
    wanted = {name: np.stack([model[name] for model in models]) for name in models[0]}
    for _ in range(3):
        gossip.step()
        wanted = {name: np.tensordot(mixing, value, 1) for name, value in wanted.items()}
    for name, value in wanted.items():
        assert np.allclose(np.stack([model[name] for model in gossip.models]), value)
    assert (gossip.steps, gossip.sent) == (3, 3 * int(graph.sum()) * 620)


def test_variance_vanishes_and_is_kept() -> None:
    models = nets(16)
    full = np.ones((16, 16))
    plain, kept = (GossipAveraging(full, models, rule=rule) for rule in ("mean", "variance_corrected"))
    plain.step()
    kept.step()
    for name in ("w", "b"):
        before = np.mean([model[name].var() for model in models])
        assert 0.5 / 16 < plain.models[0][name].var() / before < 2 / 16
        assert np.isclose(kept.models[0][name].var(), before)
        assert np.isclose(kept.models[0][name].mean(), plain.models[0][name].mean())
    # Once all agree neither rule changes a thing.
    now = kept.models[0]["w"].copy()
    kept.step()
    assert np.allclose(kept.models[5]["w"], now)


def test_own_weight_decides_which_variance_is_kept() -> None:
    """As in the authors' code: own x own variance + (1 - own) x the mean of the neighbours'."""
    models = nets(3)
    models[0]["w"] *= 3
    gossip = GossipAveraging([[1, 2], [0], [0]], models, own=0.25)
    gossip.step(0)
    wanted = 0.25 * models[0]["w"].var() + 0.375 * (models[1]["w"].var() + models[2]["w"].var())
    assert np.isclose(gossip.models[0]["w"].var(), wanted)
    assert np.array_equal(gossip.models[1]["w"], models[1]["w"])


def test_nodes_average_what_they_had_before_the_step() -> None:
    models = [{"w": np.array([float(value)])} for value in (0, 4, 8)]
    together, one_by_one = (GossipAveraging([[1], [0, 2], [1]], models, rule="mean") for _ in range(2))
    together.step([0, 1])
    one_by_one.step(0)
    one_by_one.step(1)
    assert [float(model["w"][0]) for model in together.models] == [2, 4, 8]
    assert [float(model["w"][0]) for model in one_by_one.models] == [2, 14 / 3, 8]


def test_lonely_nodes_keep_their_model_and_copies_stay_bit_for_bit() -> None:
    model = nets(1)[0]
    gossip = GossipAveraging([[1], [0], []], [model, model, nets(1, 5)[0]])
    for _ in range(4):
        gossip.step()
    assert np.array_equal(gossip.models[0]["w"], model["w"])
    assert np.array_equal(gossip.models[2]["w"], nets(1, 5)[0]["w"])


def test_graphs_may_be_lists_tables_or_sparse() -> None:
    table = random_graph(9, 1)
    lists = [np.flatnonzero(row).tolist() for row in table]
    made = [
        GossipAveraging(graph, nets(9)) for graph in (table, lists, scipy.sparse.csr_matrix(table), table + np.eye(9))
    ]
    for one in made:
        one.step()
        assert [row.tolist() for row in one.neighbours] == lists
        assert all(np.array_equal(a["w"], b["w"]) for a, b in zip(one.models, made[0].models, strict=True))


def test_a_saved_state_goes_on_bit_for_bit() -> None:
    gossip = GossipAveraging(ring(6), nets(6))
    gossip.step()
    state = pickle.loads(pickle.dumps(gossip.state_dict()))
    other = GossipAveraging(ring(6), nets(6, 4))
    other.load_state_dict(state)
    for one in (gossip, other):
        one.tell(2, nets(1, 9)[0])
        one.step([1, 2])
        one.step()
    assert (other.steps, other.sent) == (gossip.steps, gossip.sent)
    for a, b in zip(gossip.models, other.models, strict=True):
        assert all(np.array_equal(a[name], b[name]) for name in a)
    assert gossip.plan.equals(other.plan)


def test_told_models_are_copied_and_may_be_torch() -> None:
    linear = torch.nn.Linear(3, 2).to(torch.bfloat16)
    gossip = GossipAveraging([[1], [0]], [linear.state_dict()] * 2)
    told = {name: value + 1 for name, value in linear.state_dict().items()}
    gossip.tell(1, told)
    told["weight"].zero_()
    gossip.step()
    assert gossip.models[0]["weight"].dtype.name == "bfloat16"
    wanted = from_torch(linear.weight).astype(np.float32) + 0.5
    assert np.allclose(gossip.models[0]["weight"].astype(np.float32), wanted, atol=0.02)


def test_plan_is_the_average_of_all_nodes() -> None:
    gossip = GossipAveraging(ring(5), nets(5))
    plan = gossip.plan
    wanted = variance_corrected_mean(gossip.models)
    assert np.array_equal(plan.result["w"], wanted.result["w"])
    before = plan.spread.mean()
    for _ in range(40):
        gossip.step()
    assert gossip.plan.spread.max() < 0.01 * before


def test_bad_input_is_refused() -> None:
    make, models = GossipAveraging, nets(2)
    gossip: Any = make([[1], [0]], models)
    cases = [
        (partial(make, [[1], [0]], models, rule="median"), "rule"),
        (partial(make, [[1], [0]], models, own=2), "own"),
        (partial(make, [[1], [0]], models[:1]), "models has 1 entries for a graph of 2"),
        (partial(make, [], []), "graph is empty"),
        (partial(make, np.ones((2, 3)), models), "shape (2, 3)"),
        (partial(make, [[1], [2]], models), "nodes are 0 to 1"),
        (partial(make, [[1], []], models), "both ways"),
        (partial(make, [[1], [0]], [models[0], 5]), "models[1]=5: give a mapping"),
        (partial(make, [[1], [0]], [models[0], {"w": models[0]["w"]}]), "lacks tensor 'b'"),
        (partial(gossip.tell, 2, models[0]), "node=2"),
        (partial(gossip.tell, 0, 5), "is int; give a mapping"),
        (partial(gossip.tell, 0, {"w": models[0]["w"]}), "tell of node 0"),
        (partial(gossip.tell, 0, {**models[0], "b": np.full(20, np.nan)}), "model of node 0: tensor 'b' has a NaN"),
        (partial(gossip.tell, 0, {**models[0], "b": None}), "tensor 'b' has dtype object; give numbers"),
        (partial(gossip.step, 7), "node=7"),
        (partial(gossip.load_state_dict, {}), "lacks 'schema'"),
    ]
    reached = {refused(call, says) for call, says in cases}
    assert not untested(decentralised, reached)
    assert np.array_equal(gossip.models[0]["w"], models[0]["w"])
