"""A small network in place of the second stage of a two-stage program, inside the programs that decide the first."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from kofn.allocation.programs._mixed_integer import Program
from kofn.allocation.programs._two_stage import TwoStageProgram
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import FailureError, InfeasibleError, InputError
from kofn.core.helpers import helper

__all__ = ["LearnedRecourse", "fit_recourse"]

_UNSOLVED = "learned: the solver gives no optimum of the network that keeps its units to 1e-6; fit it anew, or smaller"


@dataclass(frozen=True, eq=False)
class LearnedRecourse:
    """The second stage's cost as a network of one hidden layer of rectified units.

    Its inputs are x and u, and, where they are as many, their products item by item: linear in x where u is known, and
    in u where x is.

    Attributes:
        shape: (n, p), how many values x and u have.
        hidden: (units, inputs) weights of the units.
        shift: (units,) what is added there.
        out: (units,) weights of the answer.
        base: what is added to it.
        r2: share of the variance that it explains on samples which it was not fitted to.
        samples: how many second stages were solved to fit it.
    """

    shape: tuple[int, int]
    hidden: Floats
    shift: Floats
    out: Floats
    base: float
    r2: float = float("nan")
    samples: int = 0

    @property
    def products(self) -> bool:
        """Whether the products of x and u are inputs."""
        return self.shape[0] == self.shape[1]

    def predict(self, x: Any, u: Any) -> float:
        """The cost of the second stage that it expects."""
        units = np.maximum(self.hidden @ inputs(x, u) + self.shift, 0)
        return float(self.out @ units + self.base)

    def of_x(self, u: Floats) -> tuple[Floats, Floats]:
        """The units before they are rectified as weights (units, n) of x and constants, for a known u."""
        n, p = self.shape
        weights = self.hidden[:, :n].copy()
        if self.products:
            weights += self.hidden[:, n + p :] * u
        return weights, self.hidden[:, n : n + p] @ u + self.shift

    def of_u(self, x: Floats) -> tuple[Floats, Floats]:
        """Likewise as weights (units, p) of u, for a known x."""
        n, p = self.shape
        weights = self.hidden[:, n : n + p].copy()
        if self.products:
            weights += self.hidden[:, n + p :] * x
        return weights, self.hidden[:, :n] @ x + self.shift

    def main(self, stages: TwoStageProgram, known: list[Floats]) -> tuple[Floats, float]:
        """The best x by the network's costs at the values of u that are known, and that cost."""
        from scipy.sparse import block_array, csc_array, csr_array

        first = stages.first_stage()
        n, s = len(stages.c), len(known)
        rows: list[list[Any]] = [[first.A, csr_array((first.A.shape[0], 1)), *[None] * s]]
        high, low, least, most, whole = [first.high], [first.low], [], [], []
        for index, u in enumerate(known):
            weights, constant = self.of_x(u)
            unit = _Units.of(weights, constant, self.out / stages.unit, first.least, first.most)
            own: list[Any] = [None] * s
            own[index] = csr_array(unit.table)
            rows.append([csr_array(unit.inputs), None, *own])
            answer: list[Any] = [None] * s
            answer[index] = csr_array(unit.answer[None])
            rows.append([None, csr_array(np.full((1, 1), -1.0)), *answer])
            high += [unit.high, np.full(1, -self.base / stages.unit)]
            low += [np.full(len(unit.high), -np.inf), np.full(1, -np.inf)]
            least.append(unit.least)
            most.append(unit.most)
            whole.append(unit.whole)
        ends = (
            np.concatenate([first.least, [-np.inf], *least]),
            np.concatenate([first.most, [np.inf], *most]),
        )
        costs = np.r_[stages.c / stages.unit, 1.0, np.zeros(sum(map(len, whole)))]
        point, value = stages.solved(
            Program(
                c=costs,
                A=csc_array(block_array(rows, format="csc")),
                low=np.concatenate(low),
                high=np.concatenate(high),
                least=ends[0],
                most=ends[1],
                whole=np.concatenate([np.ones(n), [0], *whole]).astype(bool),
                matrix="learned",
            )
        )
        if value == math.inf:
            raise InfeasibleError("A: no x keeps its limits; widen high or bounds")
        if point is None:
            raise FailureError(_UNSOLVED)
        return point[:n], value * stages.unit

    def adversary(self, stages: TwoStageProgram, x: Floats) -> tuple[Floats, float]:
        """The u at which the network's cost is highest, and that cost."""
        from scipy.sparse import csc_array

        if stages.scenarios is not None:
            options = np.asarray(stages.scenarios)
            costs = [self.predict(x, u) for u in options]
            return options[int(np.argmax(costs))], float(max(costs))
        p = stages.uncertain
        weights, constant = self.of_u(x)
        # Minus the network is minimised.
        unit = _Units.of(weights, constant, -self.out / stages.unit, np.zeros(p), np.ones(p))
        table = np.block([[unit.inputs, unit.table], [np.ones((1, p)), np.zeros((1, unit.table.shape[1]))]])
        point, _ = stages.solved(
            Program(
                c=np.r_[np.zeros(p), unit.answer],
                A=csc_array(table),
                low=np.full(len(table), -np.inf),
                high=np.r_[unit.high, float(stages.gamma or 0)],
                least=np.r_[np.zeros(p), unit.least],
                most=np.r_[np.ones(p), unit.most],
                whole=np.r_[np.zeros(p), unit.whole].astype(bool),
                matrix="learned",
            )
        )
        if point is None:
            raise FailureError(_UNSOLVED)
        u = np.clip(point[:p], 0, 1)
        return u, self.predict(x, u)


@dataclass(frozen=True, eq=False)
class _Units:
    """Rectified units as limits of a program that minimises answer @ units.

    A unit of positive weight is above both of its arms, which minimising brings it down to. One of negative weight
    takes a binary that says which arm it is on.
    """

    inputs: Floats
    table: Floats
    high: Floats
    answer: Floats
    least: Floats
    most: Floats
    whole: Floats

    @classmethod
    def of(cls, weights: Floats, constant: Floats, out: Floats, low: Floats, high: Floats) -> _Units:
        positive, negative = np.maximum(weights, 0), np.minimum(weights, 0)
        highest = positive @ high + negative @ low + constant
        lowest = positive @ low + negative @ high + constant
        units, falling = len(out), np.flatnonzero(out < 0)
        eye, k = np.eye(units), len(falling)
        # unit >= arm; of falling ones also unit <= arm - lowest (1 - on) and unit <= highest on.
        on = np.eye(k)
        down, up = np.minimum(lowest[falling], 0), np.maximum(highest[falling], 0)
        table = np.block(
            [
                [-eye, np.zeros((units, k))],
                [eye[falling], -down[:, None] * on],
                [eye[falling], -up[:, None] * on],
            ]
        )
        return cls(
            inputs=np.vstack([weights, -weights[falling], np.zeros((k, weights.shape[1]))]),
            table=table,
            high=np.concatenate([-constant, constant[falling] - down, np.zeros(k)]),
            answer=np.r_[out, np.zeros(k)],
            least=np.zeros(units + k),
            most=np.r_[np.maximum(highest, 0), np.ones(k)],
            whole=np.r_[np.zeros(units), np.ones(k)],
        )


def inputs(x: Any, u: Any) -> Floats:
    """What the network sees of x and u."""
    first, second = np.asarray(x, np.float64), np.asarray(u, np.float64)
    parts = [first, second, first * second] if len(first) == len(second) else [first, second]
    return np.concatenate(parts)


@helper
def fit_recourse(stages: TwoStageProgram, *, samples: int = 500, units: int = 16, seed: int = 0) -> LearnedRecourse:
    """Fit a network to second stages solved at drawn x and u.

    Args:
        stages: the program, whose x are zeros and ones.
        samples: second stages that HiGHS solves; a fifth of them is only judged on.
        units: of the hidden layer.
        seed: whole number.

    Returns:
        A `LearnedRecourse` with `r2` on the samples that it was not fitted to.

    Raises:
        InfeasibleError: a drawn x leaves no second stage.
        InputError: too few samples to fit and judge.

    Cost: `samples` programs, then seconds of fitting.

    Guarantee: none; look at `r2`.

    References:
        Dumouchelle, Julien, Kurtz & Khalil 2024, "Neur2RO: Neural Two-Stage Robust Optimization", ICLR, arXiv
        2310.04345. Theirs is fitted to many programs at once; this one to the program at hand.

    Examples:
        >>> from kofn.allocation import fit_recourse, two_stage_knapsack
        >>> stages = two_stage_knapsack(
        ...     [9, 8, 7], [6, 2, 5], [4, 3, 3], outsourcing=[8, 7, 6], repair_weights=[2, 1, 2], capacity=8, gamma=1
        ... )
        >>> fit_recourse(stages, samples=60, units=8).samples
        60
    """
    from sklearn.neural_network import MLPRegressor

    if checks.count(samples, "samples") < 20:
        raise InputError(f"samples={samples}: too few to fit and to judge; give 20 or more")
    if tuple(stages.bounds) != (0, 1):
        raise InputError(f"stages has bounds {stages.bounds} of x; a network is fitted to zeros and ones")
    rng = np.random.default_rng(checks.entropy(seed))
    drawn = [(_drawn_x(stages, rng), _drawn_u(stages, rng)) for _ in range(samples)]
    X = np.stack([inputs(x, u) for x, u in drawn])
    y = np.array([stages.recourse(x, u)[0] for x, u in drawn]) / stages.unit
    cut = samples - samples // 5
    centre, scale = float(y[:cut].mean()), float(y[:cut].std()) or 1.0
    network = MLPRegressor(
        hidden_layer_sizes=(checks.count(units, "units"),),
        solver="lbfgs",
        alpha=1e-3,
        max_iter=1000,
        random_state=seed % 2**32,
    )
    network.fit(X[:cut], (y[:cut] - centre) / scale)
    judged = network.predict(X[cut:]) * scale + centre
    spread = float(((y[cut:] - y[cut:].mean()) ** 2).sum()) or 1.0
    return LearnedRecourse(
        shape=(len(stages.c), stages.uncertain),
        hidden=network.coefs_[0].T,
        shift=network.intercepts_[0],
        out=network.coefs_[1][:, 0] * scale * stages.unit,
        base=float(network.intercepts_[1][0] * scale + centre) * stages.unit,
        r2=1 - float(((judged - y[cut:]) ** 2).sum()) / spread,
        samples=samples,
    )


def _drawn_x(stages: TwoStageProgram, rng: np.random.Generator) -> Floats:
    """Zeros and ones of a drawn density, without those that the first stage's limits rule out."""
    x = (rng.random(len(stages.c)) < rng.random()).astype(np.float64)
    first = stages.first_stage()
    while (first.A @ x > first.high).any() and x.any():
        x[rng.choice(np.flatnonzero(x))] = 0.0
    return x


def _drawn_u(stages: TwoStageProgram, rng: np.random.Generator) -> Floats:
    if stages.scenarios is not None:
        options = np.asarray(stages.scenarios)
        return np.asarray(options[rng.integers(len(options))])
    p, gamma = stages.uncertain, float(stages.gamma or 0)
    u = np.zeros(p)
    # Corners of the set mostly, where the worst is, and points within it.
    whole = min(p, int(gamma))
    order = rng.permutation(p)
    u[order[:whole]] = 1.0
    if whole < p:
        u[order[whole]] = min(1.0, gamma - whole)
    return u if rng.random() < 0.7 else u * rng.random(p)
