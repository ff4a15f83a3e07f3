"""Rounds of Flower whose clients are blended by methods of `kofn.combine`: its own records, and its own simulation."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

flower = pytest.importorskip("flwr.app", reason="flwr is not installed")

from flwr.app import Array, ArrayRecord, Message, MetricRecord, RecordDict  # noqa: E402
from flwr.serverapp.strategy import FedAvg  # noqa: E402

import kofn  # noqa: E402
from kofn.core.checks import InputError  # noqa: E402
from kofn.flower import Combining  # noqa: E402

START = {"w": np.zeros((2, 3), np.float32), "b": np.ones(4, np.float32)}
EXAMPLES = (10, 30, 20)


def clients() -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(0)
    return [
        {name: START[name] + rng.normal(size=START[name].shape).astype(np.float32) for name in START} for _ in "abc"
    ]


def record(arrays: dict[str, np.ndarray]) -> ArrayRecord:
    return ArrayRecord({name: Array(values) for name, values in arrays.items()})


def replies(order: Any = (0, 1, 2), longer: str | None = None) -> list[Any]:
    """What three nodes send back; `longer` is an array of which the last sends more."""
    out = []
    for client in order:
        arrays = clients()[client]
        if longer is not None and client == 2:
            arrays[longer] = np.tile(arrays[longer], 2)
        metrics = MetricRecord({"num-examples": EXAMPLES[client], "loss": float(client)})
        content = RecordDict({"arrays": record(arrays), "metrics": metrics})
        metadata = SimpleNamespace(src_node_id=client + 7)
        # Messages are made inside of a run of Flower only.
        out.append(SimpleNamespace(content=content, metadata=metadata, has_error=lambda: False))
    return out


def arrays_of(made: ArrayRecord | None) -> dict[str, np.ndarray]:
    assert made is not None
    return {name: array.numpy() for name, array in made.items()}


def begun(*words: Any, **more: Any) -> Combining:
    """A strategy at the start of a round."""
    strategy = Combining(*words, fraction_train=0.0, fraction_evaluate=0.0, **more)
    assert list(strategy.configure_train(1, record(START), None, None)) == []  # type: ignore[arg-type]
    return strategy


def test_the_weighted_mean_is_flowers_own() -> None:
    strategy = begun()
    made, metrics = strategy.aggregate_train(1, replies())
    own, their_metrics = FedAvg().aggregate_train(1, replies())
    for name, values in arrays_of(own).items():
        np.testing.assert_allclose(arrays_of(made)[name], values, rtol=1e-6)
        assert arrays_of(made)[name].dtype == np.float32
    assert metrics == their_metrics
    assert strategy.plan is not None
    assert strategy.plan.ids is not None
    assert strategy.plan.ids.tolist() == ["7", "8", "9"]
    np.testing.assert_allclose(strategy.plan.weights, np.array(EXAMPLES) / 60)


@pytest.mark.parametrize(("method", "options"), [("ties", {"density": 0.5}), ("slerp", {}), ("task_arithmetic", {})])
def test_other_methods_are_those_of_combine(method: str, options: dict[str, float]) -> None:
    if method == "slerp":
        with pytest.raises(InputError, match="slerp"):
            begun(method).aggregate_train(1, replies())
        return
    made, _ = begun(method, options=options).aggregate_train(1, replies())
    words = {"weights": np.array(EXAMPLES, float)}
    plan = kofn.combine(clients(), base=START, method=method, options=options, **words)
    for name, values in arrays_of(made).items():
        np.testing.assert_array_equal(values, plan.result[name])


def test_the_order_of_replies_changes_nothing_and_odd_clients_are_refused() -> None:
    one, other = (arrays_of(begun().aggregate_train(1, replies(order))[0]) for order in ((0, 1, 2), (2, 0, 1)))
    for name in START:
        np.testing.assert_array_equal(one[name], other[name])
    assert begun().aggregate_train(1, []) == (None, None)
    with pytest.raises(InputError, match=r"node 9: array 'b' has shape \(8,\), that of node 7 \(4,\)"):
        begun().aggregate_train(1, replies(longer="b"))
    with pytest.raises(InputError, match="no_such"):
        begun("no_such").aggregate_train(1, replies())


def test_a_simulation_of_flower_runs_on_it() -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    from flwr.clientapp import ClientApp
    from flwr.serverapp import ServerApp
    from flwr.simulation import run_simulation

    client, server, seen = ClientApp(), ServerApp(), {}

    @client.train()
    def train(message: Message, context: Any) -> Message:
        number = int(context.node_config["partition-id"])
        arrays = next(iter(message.content.array_records.values()))
        moved = record({name: array.numpy() + number for name, array in arrays.items()})
        metrics = MetricRecord({"num-examples": 1 + number})
        return Message(RecordDict({"arrays": moved, "metrics": metrics}), reply_to=message)

    @server.main()
    def main(grid: Any, context: Any) -> None:
        strategy = Combining(fraction_evaluate=0.0, min_train_nodes=3, min_available_nodes=3)
        seen["arrays"] = strategy.start(grid=grid, initial_arrays=record(START), num_rounds=2).arrays
        seen["plan"] = strategy.plan

    run_simulation(server, client, num_supernodes=3, backend_config={"client_resources": {"num_cpus": 1}})
    # A round adds (0 + 1 * 2 + 2 * 3) / (1 + 2 + 3).
    for name, values in arrays_of(seen["arrays"]).items():
        np.testing.assert_allclose(values, START[name] + 2 * 8 / 6, rtol=1e-6)
    assert seen["plan"].n == 3
