"""Decentralised learning: nodes of a graph train on their own rows and average with their neighbours."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kofn.combination._sweep.blockwise import Sweep
from kofn.combination._sweep.members import open_members
from kofn.combination._sweep.merge import blend_in_memory
from kofn.combination.averaging._variance_corrected_mean import VarianceCorrectedMean
from kofn.combination.averaging._weighted_mean import WeightedMean
from kofn.combination.rules import Rule
from kofn.core import checks
from kofn.core.arrays import Array
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.core.stepper import Event, Example, Stepper, stepper
from kofn.io.torch_arrays import from_torch, is_torch

State = dict[str, Array]

_RULES: dict[str, type[Rule]] = {"mean": WeightedMean, "variance_corrected": VarianceCorrectedMean}
RULES = tuple(_RULES)


def _example(rng: np.random.Generator) -> Example:
    nodes = int(rng.integers(2, 5))
    line = [[other for other in (node - 1, node + 1) if 0 <= other < nodes] for node in range(nodes)]
    rule, own = RULES[rng.integers(2)], None if rng.random() < 0.5 else float(rng.choice([0.25, 0.5]))

    def model(rng: np.random.Generator) -> State:
        return {"weight": rng.integers(-3, 4, (2, 3)).astype(np.float64), "bias": rng.normal(size=2)}

    models = [model(rng) for _ in range(nodes)]

    def event(_gossip: GossipAveraging, rng: np.random.Generator) -> Event:
        node = int(rng.integers(nodes))
        if rng.random() < 0.5:
            return Event("tell", (node, model(rng)))
        return Event("step", () if rng.random() < 0.5 else ([node],))

    return Example(
        lambda _seed: GossipAveraging(line, models, rule=rule, own=own),
        event=event,
        events=8,
        refused=(
            (Event("tell", (nodes, models[0])), f"node={nodes}"),
            (Event("tell", (0, {"weight": np.ones((2, 3))})), "tell of node 0"),
            (Event("step", ([nodes],)), f"node={nodes}"),
        ),
    )


@stepper(
    "combine",
    paper=244,
    cost="O((nodes + 2 edges) d) a step; memory n models, twice for the time of a step",
    exact="every step is the exact average, or keeps the variance of each tensor exactly",
    events=("tell", "step"),
    aliases=("decentralised learning", "gossip", "consensus averaging", "variance correction"),
    draws=_example,
)
class GossipAveraging(Stepper[Blend]):
    """Models on the nodes of a graph; a step replaces each by the average of its own and its neighbours'.

    In a round every node trains its model and submits it (`tell`), then all nodes exchange models along the edges and
    average (`step`). Independently initialised models are uncorrelated: the plain mean of n of them has 1/n of their
    variance, and the averaged network passes hardly any signal. "variance_corrected" rescales each averaged tensor
    about its mean to the models' variance; once the models agree, both rules coincide.

    Args:
        graph: (n, n) symmetric table of zeros and ones, the adjacency matrix (the diagonal is ignored); or
            n lists of neighbours.
        models: n mappings name -> array (NumPy or torch) of one architecture, the initial models; copied.
        rule: "variance_corrected", or "mean".
        own: a node's weight of its own model, the rest shared equally by its neighbours; None weighs all equally.

    Attributes:
        models: n mappings name -> array, the current models.
        neighbours: n arrays, the neighbours of each node.
        steps: exchanges so far.
        sent: numbers (tensor entries) that nodes sent to a neighbour.

    A step costs O((nodes + 2 edges) d); memory n models, twice for the time of a step.

    >>> import numpy as np
    >>> line = [[1], [0, 2], [1]]
    >>> gossip = GossipAveraging(line, [{"w": np.array([x, 0.0])} for x in (0.0, 3.0, 6.0)], rule="mean")
    >>> gossip.step()
    >>> [float(model["w"][0]) for model in gossip.models], gossip.sent
    ([1.5, 3.0, 4.5], 8)

    References:
        Tian et al. 2024, Vanishing variance problem in fully decentralized neural-network systems (arXiv 2404.04616);
        which variance is kept follows the authors' code: each model's, by its weight in the average.
    """

    state: ClassVar = {"models": "nodes", "steps": "", "sent": ""}
    states_no_value = True

    def __init__(
        self,
        graph: Any,
        models: Sequence[Mapping[str, Any]],
        *,
        rule: str = "variance_corrected",
        own: float | None = None,
    ) -> None:
        self.rule = checks.choice(rule, "rule", RULES)
        self.own = None if own is None else checks.fraction(own, "own")
        # One row more tells a graph that is larger than the models.
        self.neighbours = _neighbours(graph, len(models) + 1)
        if len(models) != len(self.neighbours):
            raise InputError(
                f"models has {len(models)} entries for a graph of {len(self.neighbours)} nodes; give one each"
            )
        self.models = [_copied(model, f"model {node}") for node, model in enumerate(models)]
        open_members(self.models)  # refuses models that do not match, all differences at once
        super().__init__(
            graph=self.neighbours,
            models={name: array.shape for name, array in self.models[0].items()},
            rule=self.rule,
            own=self.own,
        )
        self.nodes = len(self.models)
        self.steps = self.sent = 0

    def tell(self, node: int, model: Mapping[str, Any]) -> None:
        """Replace a node's model by its trained one.

        Raises:
            InputError: no such node, a model of another architecture, NaN.
        """
        node = self._node(node)
        trained = _copied(model, f"model of node {node}")
        try:
            open_members([self.models[node], trained])
        except InputError as error:
            raise InputError(f"tell of node {node} (member 1 here; member 0 is what it held): {error}") from None
        self.models[node] = trained

    def step(self, nodes: Any = None) -> None:
        """Exchange models: the given nodes (default all) average with their neighbours simultaneously."""
        given = range(len(self.models)) if nodes is None else checks.as_array(nodes, "nodes").reshape(-1).tolist()
        averaged = {node: self._averaged(node) for node in map(self._node, given) if len(self.neighbours[node])}
        for node, model in averaged.items():
            self.models[node] = model
            self.sent += len(self.neighbours[node]) * sum(array.size for array in model.values())
        self.steps += 1

    def _plan(self) -> Blend:
        """The mean of all nodes' models; `spread` is each node's distance to it."""
        return _RULES[self.rule].method(self.models)

    def _set_state(self, state: Mapping[str, Any]) -> None:
        for node, model in enumerate(state["models"]):
            open_members([self.models[node], _copied(model, f"model of node {node}")])
        super()._set_state(state)

    def _averaged(self, node: int) -> State:
        around = self.neighbours[node]
        share = 1 / (1 + len(around)) if self.own is None else self.own
        weights = [share, *[(1 - share) / len(around)] * len(around)]
        # The public functions also measure and report, which costs more than blending a small model.
        pool = open_members([self.models[node], *(self.models[neighbour] for neighbour in around)])
        merge_rule = _RULES[self.rule]().bind(pool, weights)
        return dict(blend_in_memory(pool, Sweep(pool, dict.fromkeys(pool.first, merge_rule)))[1])

    def _node(self, node: Any) -> int:
        position = checks.count(node, "node", least=0)
        if position >= len(self.models):
            raise InputError(f"node={position}: the graph has nodes 0 to {len(self.models) - 1}")
        return position


def _neighbours(graph: Any, most: int) -> list[NDArray[np.int64]]:
    if (isinstance(graph, np.ndarray) and graph.ndim == 2) or checks.is_sparse(graph):
        table = np.asarray(checks.sound_sparse(graph, "graph").toarray() if checks.is_sparse(graph) else graph)
        if table.shape[0] != table.shape[1]:
            raise InputError(f"graph has shape {table.shape}; give (n, n), or n lists of neighbours")
        neighbours = [np.flatnonzero(row) for row in table != 0]
    else:
        with checks.reading("graph", graph, "(n, n), or n lists of neighbours"):
            neighbours = [np.unique(np.asarray(row, np.int64)) for row in itertools.islice(graph, most)]
    n = len(neighbours)
    if not n:
        raise InputError("graph is empty; give one node or more")
    for node, row in enumerate(neighbours):
        if len(row) and not 0 <= row[0] <= row[-1] < n:
            raise InputError(f"graph: node {node} has neighbours {row.tolist()}; nodes are 0 to {n - 1}")
    for node, row in enumerate(neighbours):
        for other in row.tolist():
            if node not in neighbours[other]:
                raise InputError(
                    f"graph: {other} is a neighbour of {node}, but not the other way round; edges go both ways"
                )
    return [row[row != node].astype(np.int64) for node, row in enumerate(neighbours)]


def _copied(model: Mapping[str, Any], label: str) -> State:
    if not isinstance(model, Mapping):
        raise InputError(f"{label} is {type(model).__name__}; give a mapping name -> array")
    copied = {name: np.array(from_torch(value) if is_torch(value) else value) for name, value in model.items()}
    for name, array in copied.items():
        if array.dtype.kind in "OUSMm":
            raise InputError(f"{label}: tensor {name!r} has dtype {array.dtype}; give numbers")
        if array.dtype.kind not in "iub" and not np.isfinite(array).all():
            raise InputError(f"{label}: tensor {name!r} has a NaN or infinity; repair it or leave the node out")
    return copied
