"""A strategy for Flower whose rounds are aggregated by any method of `kofn.combine`; needs the package `flwr`.

`Combining` is Flower's `FedAvg` but for the step in which the clients' arrays become one: `method` says how. Clients
are sampled, and their metrics averaged, as there.

    strategy = Combining("ties", options={"density": 0.3})
    result = strategy.start(grid=grid, initial_arrays=arrays, num_rounds=3)  # in a ServerApp
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.verbs import combine

try:
    from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord
    from flwr.serverapp import Grid
    from flwr.serverapp.strategy import FedAvg
except ImportError as error:  # pragma: no cover
    raise ImportError("kofn.flower needs Flower: pip install 'kofn[flower]', or flwr") from error

__all__ = ["Combining"]


class Combining(FedAvg):
    """Flower's FedAvg whose aggregation is a method of `kofn.combine`.

    Args:
        method: the name of a method that blends state dicts, or a callable. Methods of task vectors get the arrays that
            the round began with as their `base`.
        options: the method's own options.
        **sampling: what `FedAvg` takes: fraction_train, min_train_nodes, weighted_by_key, ...

    After each round `plan` is its `Blend`: `plan.weights` and `plan.spread` by client, whose node is in `plan.ids`.
    Clients count by `weighted_by_key` where the method takes weights. The order of replies does not change the result.

    Raises:
        InputError: clients' arrays that differ in shapes (of names Flower sees to it), a method of something else.
    """

    def __init__(
        self,
        method: str | Callable[..., Any] = "weighted_mean",
        *,
        options: Mapping[str, Any] | None = None,
        **sampling: Any,
    ) -> None:
        super().__init__(**sampling)
        self.method, self.options = method, dict(options or {})
        self.plan: Blend | None = None
        self._began_with: dict[str, Any] | None = None

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """As Flower's; the arrays are kept as the base of the round."""
        self._began_with = _as_arrays(arrays)
        return list(super().configure_train(server_round, arrays, config, grid))

    def aggregate_train(
        self,
        server_round: int,  # noqa: ARG002
        replies: Iterable[Message],
    ) -> tuple[ArrayRecord | None, MetricRecord | None]:
        """The blend of the clients' arrays, and their metrics averaged as Flower does."""
        valid, _ = self._check_and_log_replies(replies, is_train=True)
        if not valid:
            return None, None
        valid = sorted(valid, key=lambda reply: int(reply.metadata.src_node_id))
        contents = [reply.content for reply in valid]
        members = [_as_arrays(next(iter(content.array_records.values()))) for content in contents]
        weights = [float(next(iter(content.metric_records.values()))[self.weighted_by_key]) for content in contents]
        nodes = [str(reply.metadata.src_node_id) for reply in valid]
        self.plan = blended(members, nodes, weights, self._began_with, self.method, self.options)
        kept = ArrayRecord({name: Array(np.asarray(tensor)) for name, tensor in self.plan.result.items()})
        return kept, self.train_metrics_aggr_fn(contents, self.weighted_by_key)


def blended(
    members: list[dict[str, Any]],
    nodes: list[str],
    weights: list[float],
    base: dict[str, Any] | None,
    method: str | Callable[..., Any],
    options: Mapping[str, Any],
) -> Blend:
    """The blend of clients' arrays by a method, with the words that it takes.

    Args:
        members: by client, arrays by name.
        nodes: what the clients are called.
        weights: how much each counts.
        base: the arrays that all of them began with.
        method: the name of a method, or a callable.
        options: the method's own options.

    Raises:
        InputError: the method takes no state dicts, or needs what a round does not have.
    """
    for node, member in zip(nodes, members, strict=True):
        for name, tensor in member.items():
            first = np.shape(members[0].get(name, ()))
            if np.shape(tensor) != first:
                raise InputError(
                    f"node {node}: array {name!r} has shape {np.shape(tensor)}, that of node {nodes[0]} {first}; have "
                    "all clients train the model that they were sent"
                )
    taken = _words_of(method)
    words: dict[str, Any] = {"weights": np.array(weights)} if "weights" in taken else {}
    if "base" in taken and base is not None:
        words["base"] = base
    of_models: Any = method
    plan: Blend = combine(members, method=of_models, ids=np.array(nodes), options=dict(options), **words)
    if not isinstance(plan.result, Mapping):
        raise InputError(f"method={method!r} gives {type(plan.result).__name__}, no arrays by name; give one of models")
    return plan


def _words_of(method: str | Callable[..., Any]) -> set[str]:
    """The arguments that a method takes."""
    from kofn import combination

    if callable(method):
        return set(inspect.signature(method).parameters)
    function = getattr(combination, method, None)
    return set() if function is None else set(inspect.signature(function).parameters)


def _as_arrays(record: ArrayRecord) -> dict[str, Any]:
    return {str(name): array.numpy() for name, array in record.items()}
