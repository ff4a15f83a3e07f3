"""What several laws read alike: distances, set functions, networks, levels, affinities, written out plainly.

Below the laws and below what draws calls, so that both may import it."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import dispatch
from kofn.core.arrays import Floats, Ints, Mask
from kofn.core.vocabulary import VOCABULARY
from kofn.laws.case import Case, broken, near

# The value of a set; the check of a plan; the best value of any plan of a call, None where there are too many.
Value = Callable[[Any], float]
Recount = Callable[[Case], None]
Optimum = Callable[[Case], float | None]


def agree(case: Case, label: str, reported: float, counted: float, scale: float = 0.0) -> None:
    """Raise where a number of the plan is not the recounted one, to the rounding of the inputs or of `scale`."""
    if not near(reported, counted, case.rtol, scale):
        raise broken(case, "recount", f"{label} is {reported!r}, recounted {counted!r}")


def accepted_words(case: Case) -> frozenset[str]:
    """The words that the case's method takes."""
    if not callable(case.method):
        return frozenset(dispatch.methods_of(case.verb)[case.plan.method].accepted)
    spec = getattr(case.method, "__kofn__", None)
    names = spec.entry().accepted if spec is not None else inspect.signature(case.method).parameters
    return frozenset(names) & VOCABULARY.keys()


def pairwise(X: NDArray[Any], metric: str) -> Floats:
    """(n, n) distances from differences, by SciPy."""
    from scipy.spatial.distance import cdist

    rows = np.asarray(X, np.float64)
    if metric == "cosine":
        sizes = np.sqrt((rows * rows).sum(axis=1))
        rows = rows / np.where(sizes > 0, sizes, 1.0)[:, None]
        # Rows of zeros share a direction of their own, at right angles to all others.
        rows = np.column_stack([rows, sizes == 0])
    squares: Floats = cdist(rows, rows, "sqeuclidean")
    if metric == "cosine":
        # 1 - cos is half the squared chord.
        return squares / 2
    return np.sqrt(squares) if metric == "euclidean" else squares


def distances(case: Case) -> Floats:
    """(n, n) distances that the call means."""
    words = case.words
    if "distances" in words:
        return np.asarray(words["distances"], np.float64)
    return pairwise(words["X"], words.get("metric", "euclidean"))


def item_weights(case: Case) -> Floats:
    """(n,) weights of the pool's items."""
    return np.asarray(case.words.get("weights", np.ones(case.n)), np.float64)


def member_weights(case: Case) -> Floats:
    """(m,) weights of the members as they are used: divided by their sum unless `normalize=False`."""
    count = len(case.words["members"]) if "members" in case.words else np.shape(case.words["rankings"])[1]
    given = np.asarray(case.words.get("weights", np.ones(count)), np.float64)
    return given / math.fsum(given.tolist()) if case.options.get("normalize", True) else given


@dataclass(frozen=True)
class SetFunction:
    """A set function written out plainly, and what may be expected of it.

    `scale` is the size of the terms that a value is summed from: below its rounding, differences are nothing.
    """

    name: str
    value: Callable[[Any], float]
    many: Callable[[Mask], Floats] | None = None
    scale: Callable[[Any], float] = lambda _picks: 0.0
    submodular: bool = True
    monotone: bool | None = True

    def values(self, masks: Mask) -> Floats:
        """The value of each set, given as rows of a mask."""
        if self.many is not None:
            return self.many(masks)
        return np.array([self.value(np.flatnonzero(mask)) for mask in masks])

    def is_monotone(self, n: int) -> bool:
        """Whether adding an item never lowers the value; looked at for every set where it depends on the numbers."""
        if self.monotone is not None:
            return self.monotone
        masks = (np.arange(2**n)[:, None] >> np.arange(n)) & 1 == 1
        values = self.values(masks)
        lifts = [values[masks[:, item]] - values[~masks[:, item]] for item in range(n)]
        return bool(min(float(lift.min()) for lift in lifts) >= -1e-12 * float(np.abs(values).max()))


def from_table(name: str, table: Floats, weights: Floats, kind: str) -> SetFunction:
    """A function read off a table: the sum of its entries, or its columns' "most", "least" or "radius" in each row."""
    empty = 0.0 if kind == "most" else math.inf
    join = np.maximum if kind == "most" else np.minimum

    def value(picks: Any) -> float:
        picks = np.asarray(picks, np.int64)
        if kind == "sum":
            return math.fsum(table[picks].tolist())
        if not len(picks):
            return empty
        nearest = join.reduce(table[:, picks], axis=1)
        return math.fsum((weights * nearest).tolist()) if kind != "radius" else float(nearest.max())

    def many(masks: Mask) -> Floats:
        if kind == "sum":
            # Entries of -inf may not be picked; where they are left out they count for nothing.
            return np.where(masks, table, 0.0).sum(axis=1)
        best = np.full((len(masks), len(table)), empty)
        for item in range(masks.shape[1]):
            best = np.where(masks[:, [item]], join(best, table[:, item]), best)
        if kind == "radius":
            out: Floats = best.max(axis=1)
            return out
        with np.errstate(invalid="ignore"):
            return best @ weights

    def scale(picks: Any) -> float:
        if kind == "sum":
            return math.fsum(np.abs(table[np.asarray(picks, np.int64)]).tolist())
        # Below the rounding of the largest distance, distances are nothing.
        return float(np.finfo(np.float64).eps * table.max()) if kind == "radius" else 0.0

    return SetFunction(name, value, many, scale, kind in ("sum", "most"), None if kind == "sum" else True)


# Objectives of plans whose amounts are levels of the curves.
OF_LEVELS = ("curves", "weighted_error", "score_of_levels")


def of_units(objective: str | None) -> bool:
    """Whether amounts are whole units that add up to the budget exactly."""
    return objective is not None and (objective == "squared_remainders" or objective.startswith("quotients_by_"))


@dataclass(frozen=True)
class Levels:
    """What `allocate` was asked: worth and exact cost of each level of each item, and the budget."""

    amounts: NDArray[Any]
    curves: Floats
    costs: NDArray[Any]
    budget: Fraction
    whole: bool
    sense: str

    @classmethod
    def of(cls, case: Case) -> Levels:
        """Read the call as the vocabulary defines it."""
        options = case.options
        curves = np.asarray(case.words["curves"])
        n, width = curves.shape
        levels = np.broadcast_to(np.asarray(options.get("levels", np.arange(width))), (n, width))
        sizes = np.asarray(options.get("sizes", np.ones(n, np.int64)))
        costs = sizes[:, None] * levels
        if "budget" in case.words:
            budget = Fraction(case.words["budget"])
        else:
            # A mean as written in decimals: 0.29 of 100 is 29.
            budget = Fraction(repr(options["mean_budget"])) * sum(Fraction(size.item()) for size in sizes)
        whole = bool((costs == np.floor(costs)).all())
        sense, table = options.get("sense", "min"), curves.astype(np.float64)
        if "bounds" in case.words:
            ends = np.broadcast_to(np.asarray(case.words["bounds"], np.float64), (n, 2))
            table[(levels < ends[:, :1]) | (levels > ends[:, 1:])] = -math.inf if sense == "max" else math.inf
        return cls(levels, table, costs, budget, whole, sense)

    def level(self, item: int, amount: Any, value: float) -> int | None:
        """The column with this amount and value, or None."""
        matches = np.flatnonzero((self.amounts[item] == amount) & (self.curves[item] == value))
        return int(matches[0]) if len(matches) else None

    def spent(self, amounts: NDArray[Any]) -> list[Any]:
        """The cost of each item's amount, as a Python number."""
        columns = [int(np.flatnonzero(self.amounts[i] == amount)[0]) for i, amount in enumerate(amounts)]
        return [self.costs[item, column].item() for item, column in enumerate(columns)]

    @property
    def limit(self) -> Fraction:
        """The budget with its only tolerance, the rounding of a float sum."""
        slack = Fraction(1) if self.whole else 1 + len(self.curves) * Fraction(float(np.finfo(float).eps))
        return self.budget * slack


def flat(member: Any) -> Floats:
    """All numbers of an array or a state dict in one float64 row, names in order."""
    if isinstance(member, Mapping):
        parts = [np.asarray(member[name]).astype(np.float64).ravel() for name in sorted(member)]
        return np.concatenate(parts) if parts else np.zeros(0)
    return np.asarray(member).astype(np.float64).ravel()


HIDDEN = ("hidden.weight", "hidden.bias", "out.weight")


def forward(member: Mapping[str, Any], inputs: Floats) -> Floats:
    """The function of a two-layer network whose tensors are named as in HIDDEN."""
    weight, bias, out = (np.asarray(member[name], np.float64) for name in HIDDEN)
    return np.maximum(inputs @ weight.T + bias, 0.0) @ out.T


def permuted(member: Mapping[str, Any], order: NDArray[np.int64]) -> dict[str, Any]:
    """The same function with its hidden units in another order."""
    weight, bias, out = (np.asarray(member[name]) for name in HIDDEN)
    return {HIDDEN[0]: weight[order], HIDDEN[1]: bias[order], HIDDEN[2]: out[:, order]}


def affinities(case: Case) -> Floats:
    """(n, bins) what the plan's items and bins rank by; -inf where an item does not list a bin."""
    table = np.asarray(case.words["scores"], np.float64)
    kind = case.plan.options.get("affinity", "none")
    if kind == "none":
        return table
    out = np.full(table.shape, -np.inf)
    for i, row in enumerate(table.tolist()):
        listed = [j for j, score in enumerate(row) if score > -math.inf]
        top = max((row[j] for j in listed), default=0.0)
        total = math.fsum(math.exp(row[j] - top) for j in listed)
        for j in listed:
            out[i, j] = math.exp(row[j] - top) / total if kind == "softmax" else sigmoid(row[j])
    return out


def sigmoid(score: float) -> float:
    """1 / (1 + exp(-score))."""
    return 1 / (1 + math.exp(-score)) if score > -700 else 0.0


def group_members(case: Case) -> list[Ints]:
    """The items of each group; none is empty, and every item is in one."""
    labels = case.plan.labels
    members = [np.flatnonzero(labels == group) for group in range(case.plan.k)]
    for group, rows in enumerate(members):
        if not len(rows):
            raise broken(case, "recount", f"group {group} is empty")
    if (labels < 0).any():
        raise broken(case, "recount", f"item {int((labels < 0).argmax())} is in no group")
    return members
