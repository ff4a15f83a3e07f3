"""Rounds of clients that each send one adapter."""

from __future__ import annotations

import numpy as np
from lora import SHAPES, factors, kind, mixed, network, refused, settings, updates

from kofn.federated import StackedAdapters
from kofn.io.adapters import Adapter


def test_rounds_move_the_weights_by_the_exact_sum() -> None:
    server = StackedAdapters(network())
    refused(lambda: server.plan, "no round yet")
    want = network()
    other = None
    for turn in range(4):
        clients = [
            Adapter(factors(dict.fromkeys(SHAPES, r), 10 * turn + r), settings(r=r, lora_alpha=4)) for r in (1, 2, 4)
        ]
        weights = [1.0, 2.0, 5.0]
        plan = server.tell(clients, weights)
        assert server.plan is plan
        for weight, client in zip(weights, clients, strict=True):
            for module, update in updates(client, client.config).items():
                want[f"{module}.weight"] = want[f"{module}.weight"] + weight / 8 * update
        if other is not None:
            other.tell(clients, weights)
        if turn == 1:
            other = StackedAdapters({name: np.zeros_like(array) for name, array in network().items()})
            other.load_state_dict(server.state_dict())
            assert other.plan.equals(server.plan)
    assert other is not None
    for name in want:
        np.testing.assert_allclose(server.base[name], want[name], atol=1e-12)
        assert other.base[name].tobytes() == server.base[name].tobytes()
    sizes = sum(a + b for a, b in SHAPES.values())
    assert (server.rounds, server.uploaded, server.downloaded) == (4, 4 * 7 * sizes, 4 * 3 * 7 * sizes)
    assert (other.rounds, other.uploaded, other.downloaded) == (4, server.uploaded, server.downloaded)


def test_a_round_that_is_refused_changes_nothing() -> None:
    server = StackedAdapters(network())
    server.tell([Adapter(*mixed()[0])])
    before = server.state_dict()
    refused(lambda: server.tell([Adapter(*mixed()[0]), Adapter(*kind("DoRA"))]), "DoRA rescales")
    refused(lambda: server.tell([Adapter(*mixed()[0])] * 2, [1, -1]), "weights at row 1 is -1")
    refused(lambda: server.tell([{"x.lora_A.weight": np.ones((1, 2)), "x.lora_B.weight": np.ones((2, 1))}]), "it lacks")
    after = server.state_dict()
    assert after["rounds"] == 1
    assert after["round"] is before["round"]
    assert all(after["base"][name].tobytes() == before["base"][name].tobytes() for name in before["base"])
    refused(lambda: StackedAdapters({}), "base is dict")
    refused(lambda: server.load_state_dict({"base": {}}), "state lacks 'schema'")
