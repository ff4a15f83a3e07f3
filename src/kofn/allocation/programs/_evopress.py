"""Levels for items whose losses do not add up: evolution by switches that keep the budget, judged on the whole."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.allocation._counts import total
from kofn.allocation._levels import sizes_and_levels
from kofn.allocation.knapsack._multiple_choice_knapsack import multiple_choice_knapsack
from kofn.core import checks
from kofn.core.arrays import Array, Floats, Ints
from kofn.core.checks import InputError, shown
from kofn.core.draws import Draw
from kofn.core.plans import Allocation
from kofn.core.registry import method
from kofn.core.runtime import Control
from kofn.core.words import Limits

# How often a switch is drawn anew where the first does not fit the budget, and how many switches a child has at most.
_DRAWS, _SWITCHES = 20, 3


@method(
    "allocate",
    draws=Draw(
        plain={"score": sum},
        options={
            "generations": (0, 3, 10),
            "offspring": (5, 8),
            "survivors": ((1,), (3, 1)),
            "begin": ("knapsack", "even"),
        },
        long=("generations",),
        silent=("duality",),
    ),
    cost="offspring + the survivors of each round, for each generation: so many calls of score",
    exact="the budget; the best of what was looked at, on most samples",
    paper=377,
    aliases=("EvoPress", "evolutionary search", "non-additive", "level switch", "dynamic compression"),
)
def evopress(
    curves: Any,
    *,
    score: Callable[..., float],
    budget: float | None = None,
    sizes: ArrayLike | None = None,
    levels: ArrayLike | None = None,
    mean_budget: float | None = None,
    generations: int = 100,
    offspring: int = 16,
    survivors: Sequence[int] = (4, 2, 1),
    samples: Sequence[int] | None = None,
    begin: Literal["knapsack", "even"] = "knapsack",
    seed: int | None = None,
    **limits: Unpack[Limits],
) -> Allocation:
    """Give each item one of its levels where only the whole tells the loss: by switches that never leave the budget.

    A child raises an item by a level and lowers others until the budget holds again, a few times. Children are judged
    in rounds, the fewer are left the more samples they are judged on; the parent takes part in the last round, so that
    it is only left for something better. No sum of losses is assumed.

    Args:
        curves: (n, L) loss of each item at each level, measured alone: where the search starts, and no more. All zero
            where nothing is known; `inf` is a level that the item may not have.
        score: the loss of a whole choice, called as score(amounts) with (n,) amounts, or with `samples` as
            score(amounts, samples); lower is better.
        budget: the total cost of all items, at most.
        sizes: (n,) cost of one unit of level for each item, >= 0, default 1.
        levels: (L,) or (n, L) amounts, >= 0, default 0..L-1.
        mean_budget: instead of `budget`, the total over the summed sizes.
        generations: parents, one after the other.
        offspring: children of each.
        survivors: how many children each round leaves; the last 1.
        samples: how many samples `score` is to take in each round, one number a round; the last is what the answer is
            judged on.
        begin: "knapsack", the better of the optimum of sums and the even choice; "even", as near to one level for all
            as the budget allows, as in the paper.

    Returns:
        An `Allocation`: `amounts`, `value` the score of the last parent on most samples, `values` the curves there.
        `info` has `path` (the score of each parent), `oracle_calls`, and `start_value`, the score that the search began
        with. `price` is None: no curve says what a unit is worth.

    Raises:
        InfeasibleError: even the cheapest levels cost more than the budget.
        InputError: survivors that do not fall to 1, samples of another number of rounds, a score that is no number.

    Cost: each generation calls `score` once for each child that a round looks at, and once for the parent.

    Guarantee: the budget as in `multiple_choice_knapsack`, of every child. For a loss that does add up the paper proves
    that the optimum is found in time; in general status "heuristic", or "stopped" by `time_limit`, with the best parent
    so far. `kofn.allocation.additivity` tells from a few measurements whether sums can be trusted instead.

    References:
        Sieberling, Kuznedelev, Kurtic & Alistarh 2025, "EvoPress: Towards Optimal Dynamic Model Compression via
        Evolutionary Search", ICML.

    Examples:
        >>> import numpy as np
        >>> from kofn.allocation import evopress
        >>> alone = np.array([[9.0, 4.0, 1.0], [5.0, 4.5, 4.4], [6.0, 3.0, 2.0]])
        >>> plan = evopress(alone, score=lambda amounts: float(abs(amounts - [0, 1, 2]).sum()), budget=3, seed=0)
        >>> plan.amounts.tolist(), plan.value
        ([0, 1, 2], 0.0)
    """
    checks.count(generations, "generations", least=0)
    checks.count(offspring, "offspring")
    rounds = _rounds(survivors, samples, offspring)
    rng = np.random.default_rng(seed)
    most = rounds[-1][1]
    with Control(**limits) as control:
        start_plan = multiple_choice_knapsack(
            curves, budget=budget, mean_budget=mean_budget, sizes=sizes, levels=levels
        )
        problem = _Choices.of(curves, sizes, levels, start_plan.budget["budget"])
        judge = _Judge(score, problem)
        parent, value = _first(begin, start_plan.info["level"], problem, judge, most)
        path, begun = [value], value
        for _ in range(generations):
            if control.stopped():
                break
            children = [problem.child(parent, rng) for _ in range(offspring)]
            parent, value = _next(parent, value, children, rounds, judge)
            path.append(value)
        stopped = len(path) <= generations
    rows, level = np.arange(problem.n), problem.columns(parent)
    cost = problem.cost[rows, parent]
    return Allocation(
        n=problem.n,
        amounts=problem.amounts[rows, level],
        values=curves.astype(np.float64)[rows, level],
        bounds=start_plan.bounds,
        value=value,
        sense="min",
        status="stopped" if stopped else "heuristic",
        used={"budget": int(cost.sum()) if cost.dtype.kind == "i" else math.fsum(cost.tolist())},
        budget=start_plan.budget,
        objective="score_of_levels",
        additive=False,
        info={"path": path, "start_value": begun, "oracle_calls": judge.calls, "level": level},
    )


def _rounds(survivors: Sequence[int], samples: Sequence[int] | None, offspring: int) -> list[tuple[int, int | None]]:
    """How many children each round leaves, and on how many samples it judges them."""
    left = [checks.count(number, "survivors") for number in survivors]
    if not left or left[-1] != 1 or any(a < b for a, b in zip([offspring, *left], left, strict=False)):
        raise InputError(
            f"survivors={shown(list(survivors))}: give falling numbers from offspring={offspring} to 1 at last"
        )
    if samples is None:
        return [(number, None) for number in left]
    counts = [checks.count(number, "samples") for number in samples]
    if len(counts) != len(left):
        raise InputError(f"samples={shown(list(samples))}: give one number for each of {len(left)} rounds of survivors")
    return list(zip(left, counts, strict=True))


@dataclass(frozen=True)
class _Choices:
    """The levels that each item may have, from the cheapest up, and what all may cost. A choice is (n,) rungs of these.

    Attributes:
        level: (n, L) the column of each rung.
        cost: (n, L) what it costs.
        rungs: (n,) how many the item has.
        amounts: (n, L) the amounts of the columns.
        limit: what a choice may cost.
    """

    level: Ints
    cost: NDArray[Any]
    rungs: Ints
    amounts: Array
    limit: float

    @classmethod
    def of(cls, curves: Array, sizes: Any, levels: Any, budget: float) -> _Choices:
        scale, amounts = sizes_and_levels(curves, sizes, levels)
        costs = scale[:, None] * amounts
        allowed = np.isfinite(curves)
        level = np.argsort(np.where(allowed, costs, np.inf), axis=1, kind="stable")
        whole = costs.dtype.kind == "i"
        limit = float(budget) if whole else budget * (1 + len(costs) * 2.0**-53)
        return cls(level, np.take_along_axis(costs, level, 1), allowed.sum(axis=1), amounts, limit)

    @property
    def n(self) -> int:
        """How many items."""
        return len(self.rungs)

    def columns(self, choice: Ints) -> Ints:
        """(n,) the columns of the curves that a choice takes."""
        return self.level[np.arange(self.n), choice]

    def spent(self, choice: Ints) -> float:
        """What a choice costs in all."""
        return total(self.cost[np.arange(self.n), choice])

    def of_columns(self, columns: Ints) -> Ints:
        """(n,) the choice that takes these columns."""
        return np.asarray((self.level == columns[:, None]).argmax(axis=1))

    def even(self) -> Ints:
        """(n,) as near to one level for all as the budget allows: from the cheapest, row after row one level up."""
        choice = np.zeros(self.n, np.int64)
        room = self.limit - self.spent(choice)
        for rung in range(1, self.cost.shape[1]):
            able = np.flatnonzero((self.rungs > rung) & (choice == rung - 1))
            more = np.cumsum((self.cost[able, rung] - self.cost[able, rung - 1]).astype(np.float64))
            able = able[more <= room]
            choice[able] = rung
            room -= float(more[len(able) - 1]) if len(able) else 0.0
        return choice

    def child(self, parent: Ints, rng: np.random.Generator) -> Ints:
        """A choice a few switches away, within the budget."""
        choice, room = parent.copy(), self.limit - self.spent(parent)
        for _ in range(min(int(rng.integers(1, _SWITCHES + 1)), int(rng.integers(1, _SWITCHES + 1)))):
            for _ in range(_DRAWS):
                switched = self._switched(choice, room, rng)
                if switched is not None:
                    choice, room = switched
                    break
        # Differences of rounded costs are no proof.
        return choice if self.spent(choice) <= self.limit else parent

    def _switched(self, choice: Ints, room: float, rng: np.random.Generator) -> tuple[Ints, float] | None:
        """One item a level up, others a level down until the budget holds; None where it does not."""
        item = int(rng.integers(self.n))
        if choice[item] + 1 >= self.rungs[item]:
            return None
        out = choice.copy()
        out[item] += 1
        room -= float(self.cost[item, out[item]] - self.cost[item, choice[item]])
        if room < 0:
            for other in rng.permutation(np.flatnonzero(choice > 0)).tolist():
                if other == item:
                    continue
                out[other] -= 1
                room += float(self.cost[other, choice[other]] - self.cost[other, out[other]])
                if room >= 0:
                    break
        return (out, room) if room >= 0 else None


@dataclass
class _Judge:
    """The user's score, which is asked for a choice on so many samples once."""

    score: Callable[..., float]
    problem: _Choices
    calls: int = 0
    known: dict[tuple[bytes, int | None], float] = field(default_factory=dict)

    def of(self, choice: Ints, samples: int | None) -> float:
        """The score of a choice."""
        key = (choice.tobytes(), samples)
        if key not in self.known:
            amounts = self.problem.amounts[np.arange(len(choice)), self.problem.columns(choice)]
            self.calls += 1
            answer = self.score(amounts) if samples is None else self.score(amounts, samples)
            if not checks.is_finite(np.asarray(answer).item() if np.ndim(answer) == 0 else answer):
                raise InputError(
                    f"score returned {shown(answer)} for amounts={shown(amounts.tolist())}; return a number"
                )
            self.known[key] = float(answer)
        return self.known[key]


def _first(begin: str, best_of_sums: Ints, problem: _Choices, judge: _Judge, samples: int | None) -> tuple[Ints, float]:
    """Where the search begins, and its score."""
    able = [problem.even()] + ([problem.of_columns(best_of_sums)] if begin == "knapsack" else [])
    return min(((choice, judge.of(choice, samples)) for choice in able), key=lambda pair: pair[1])


def _next(
    parent: Ints, value: float, children: list[Ints], rounds: list[tuple[int, int | None]], judge: _Judge
) -> tuple[Ints, float]:
    """The best child of the last round, or the parent where none is better; and its score."""
    for left, samples in rounds[:-1]:
        scores: Floats = np.array([judge.of(child, samples) for child in children])
        children = [children[i] for i in np.argsort(scores, kind="stable")[:left]]
    last = [(judge.of(child, rounds[-1][1]), child) for child in children]
    best, child = min(last, key=lambda pair: pair[0])
    return (child, best) if best < value else (parent, value)
