"""Policies that name the state to be reached at each stage, trained by the duals of reaching it (TS-DDR)."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Unpack

import numpy as np
from numpy.typing import ArrayLike

from kofn.allocation.programs._staged import StagedProgram
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.plans import Allocation
from kofn.core.runtime import Control
from kofn.core.words import Limits

__all__ = ["TargetPolicy", "fit_target_policy"]

# Adam's averages.
_FIRST, _SECOND, _SMALL = 0.9, 0.999, 1e-8
# Share of the past in the running mean of inflows that the policy sees.
_PAST = 0.7


@dataclass(eq=False)
class TargetPolicy:
    """Targets of the states from what has flowed in so far: a network of one hidden layer, or linear without one.

    Attributes:
        program: the program over stages.
        stages: how many.
        centre, scale: (k,) of the inflows that it was fitted to.
        weights: of the layers, each with its constants as the last row.
        path: mean cost of each batch while it was trained.
    """

    program: StagedProgram
    stages: int
    centre: Floats
    scale: Floats
    weights: list[Floats]
    path: list[float]

    def targets(self, inflows: ArrayLike) -> Floats:
        """(stages, k) the target of each stage, from the inflows up to it."""
        return self._forward(self._features(self.program.inflows(inflows)))[-1]

    def plan(self, inflows: ArrayLike) -> Allocation:
        """What the policy does along these inflows, a stage after the other, each knowing what flowed in so far.

        Returns:
            An `Allocation` of the stages: `amounts` (stages, m) the controls, `values` what they cost, `value` their
            sum with what the last state saves. `info` has "states", "targets" and "missed".

        Raises:
            InputError: inflows of another number of stages.
        """
        flow = self.program.inflows(inflows)
        if len(flow) != self.stages:
            raise InputError(f"inflows has {len(flow)} stages, the policy {self.stages}; give as many")
        targets = self.targets(flow)
        state, costs, states, controls, missed = self.program.start, [], [], [], 0.0
        terminal = 0.0
        for stage in range(self.stages):
            end = stage == self.stages - 1
            step = self.program.solve(
                flow[stage : stage + 1], targets[stage : stage + 1], start=state, first=stage, last=end
            )
            state = step.states[0]
            costs.append(float(step.costs[0]))
            states.append(state)
            controls.append(step.controls[0])
            missed += step.missed
            terminal = step.terminal
        return Allocation(
            n=self.stages,
            amounts=np.stack(controls),
            values=np.array(costs),
            value=float(np.sum(costs) + terminal),
            sense="min",
            additive=False,
            status="heuristic",
            method="TargetPolicy",
            info={"states": np.stack(states), "targets": targets, "missed": missed},
        )

    def _features(self, flow: Floats) -> Floats:
        """(stages, features): which stage it is, the inflow, a running mean of those before."""
        seen = (flow - self.centre) / self.scale
        past = np.zeros_like(seen)
        for stage in range(1, len(seen)):
            past[stage] = _PAST * past[stage - 1] + (1 - _PAST) * seen[stage - 1]
        return np.hstack([np.eye(self.stages)[: len(seen)], seen, past])

    def _forward(self, features: Floats) -> list[Floats]:
        """The activations of each layer, the targets last."""
        layers = [features]
        for weight in self.weights[:-1]:
            layers.append(np.tanh(layers[-1] @ weight[:-1] + weight[-1]))
        ends = self.program.state_bounds
        share = 1 / (1 + np.exp(-(layers[-1] @ self.weights[-1][:-1] + self.weights[-1][-1])))
        layers.append(ends[:, 0] + (ends[:, 1] - ends[:, 0]) * share)
        return layers

    def gradient(self, inflows: ArrayLike) -> tuple[float, list[Floats]]:
        """The cost along these inflows, and its gradient in the weights: the duals of the targets, led back."""
        features = self._features(self.program.inflows(inflows))
        layers = self._forward(features)
        answer = self.program.solve(inflows, layers[-1])
        ends = self.program.state_bounds
        span = ends[:, 1] - ends[:, 0]
        share = (layers[-1] - ends[:, 0]) / span
        back = answer.duals * span * share * (1 - share)
        slopes: list[Floats] = []
        for layer, weight in zip(reversed(layers[:-1]), reversed(self.weights), strict=True):
            slopes.append(np.vstack([layer.T @ back, back.sum(axis=0)]))
            back = (back @ weight[:-1].T) * (1 - layer**2)
        penalty = self.program.penalty * answer.missed
        return answer.total + penalty, slopes[::-1]


@helper
def fit_target_policy(
    program: StagedProgram,
    inflows: Any,
    *,
    hidden: int = 16,
    epochs: int = 5,
    batch: int = 4,
    rate: float = 0.03,
    seed: int = 0,
    **limits: Unpack[Limits],
) -> TargetPolicy:
    """Train a policy for a program over stages by the duals of its targets.

    The policy names the state to be reached at each stage, from what flowed in so far. Forward, the program of all
    stages is solved with the states tied to those targets; backward, the duals of the ties are the gradient in the
    targets. What it does keeps all limits, whatever its targets: they only draw.

    Args:
        program: the program over stages.
        inflows: (scenarios, stages, k) to train on.
        hidden: units of the hidden layer; 0 for linear targets.
        epochs: passes over the scenarios.
        batch: scenarios of a step.
        rate: of Adam, falling to nothing along a cosine.
        seed: whole number.
        limits: `time_limit` in seconds and `progress`.

    Returns:
        A `TargetPolicy`; `plan(inflows)` runs it.

    Raises:
        InputError: inflows that are not (scenarios, stages, k).
        InfeasibleError: a scenario for which no controls keep the limits.

    Cost: a linear program of all stages for each scenario and pass.

    Guarantee: every limit is kept. The gradient is that of the program whose future inflows are known, where it has
    one: the policy is trained for targets that it is then alone to follow.

    References:
        Rosemberg, Street, Valladão & Van Hentenryck 2024, "Efficiently Training Deep-Learning Parametric Policies using
        Lagrangian Duality", arXiv 2405.14973.

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import StagedProgram, fit_target_policy
        >>> store = StagedProgram(
        ...     cost=[0, 5, 0], effect=[[-1, 0, -1]], rows=[[1, 1, 0]], low=[2], high=[2], state_bounds=[[0, 4]],
        ...     control_bounds=[[0, 9]] * 3, start=[1], terminal=[0], penalty=100,
        ... )
        >>> flow = np.random.default_rng(0).uniform(0, 3, (10, 3, 1))
        >>> policy = fit_target_policy(store, flow, hidden=0, epochs=2)
        >>> policy.plan(flow[0]).amounts.shape
        (3, 3)
    """
    flow = checks.as_float(checks.as_array(inflows, "inflows"), "inflows").astype(np.float64)
    if flow.ndim != 3 or not len(flow) or flow.shape[2] != len(program.start):
        raise InputError(f"inflows has shape {flow.shape}; give (scenarios, stages, {len(program.start)})")
    checks.refuse_nonfinite(flow, "inflows")
    stages, k = flow.shape[1:]
    rng = np.random.default_rng(checks.entropy(seed))
    widths = [stages + 2 * k, *([hidden] if checks.count(hidden, "hidden", least=0) else []), k]
    weights = [
        np.vstack([rng.normal(size=(high, low)) * high**-0.5, np.zeros(low)])
        for high, low in itertools.pairwise(widths)
    ]
    spread = flow.reshape(-1, k).std(axis=0)
    policy = TargetPolicy(
        program, stages, flow.reshape(-1, k).mean(axis=0), np.where(spread > 0, spread, 1.0), weights, []
    )
    adam = _Adam([np.zeros_like(weight) for weight in weights], [np.zeros_like(weight) for weight in weights])
    size, passes = checks.count(batch, "batch"), checks.count(epochs, "epochs")
    steps = passes * -(-len(flow) // size)
    with Control(**limits) as control:
        for _ in range(passes):
            order = rng.permutation(len(flow))
            for begin in range(0, len(flow), size):
                if control.stopped():
                    return policy
                rows = order[begin : begin + size]
                gradients = [policy.gradient(flow[row]) for row in rows]
                policy.path.append(float(np.mean([cost for cost, _ in gradients])))
                mean = [np.mean(parts, axis=0) for parts in zip(*(slopes for _, slopes in gradients), strict=True)]
                now = rate * (0.5 + 0.5 * np.cos(np.pi * len(policy.path) / steps))
                policy.weights = adam.step(policy.weights, mean, now)
    return policy


@dataclass
class _Adam:
    first: list[Floats]
    second: list[Floats]
    count: int = 0

    def step(self, weights: list[Floats], slopes: list[Floats], rate: float) -> list[Floats]:
        """The weights after a step."""
        self.count += 1
        self.first = [_FIRST * a + (1 - _FIRST) * g for a, g in zip(self.first, slopes, strict=True)]
        self.second = [_SECOND * a + (1 - _SECOND) * g * g for a, g in zip(self.second, slopes, strict=True)]
        out = []
        for weight, first, second in zip(weights, self.first, self.second, strict=True):
            size = np.sqrt(second / (1 - _SECOND**self.count)) + _SMALL
            out.append(weight - rate * first / (1 - _FIRST**self.count) / size)
        return out
