"""How many ranks each low-rank update may have while a global budget of ranks falls (AdaLoRA)."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.plans import Allocation
from kofn.core.stepper import Event, Example, Stepper, stepper


def _example(rng: np.random.Generator) -> Example:
    ranks = rng.integers(1, 5, int(rng.integers(1, 5)))
    total = int(ranks.sum())
    budget = int(rng.integers(1, total + 1))

    def event(_: RankBudget, rng: np.random.Generator) -> Event:
        return Event("step", (rng.integers(0, 5, total).astype(np.float64),))

    return Example(
        lambda _seed: RankBudget(ranks, budget, steps=12, warmup=2, final=3, every=2),
        event=event,
        refused=(
            (Event("step", (np.ones(total + 1),)), f"{total} directions"),
            (Event("step", (np.full(total, -1.0),)), "scores at row 0"),
            (Event("step", (np.full(total, np.nan),)), "scores"),
        ),
    )


@stepper(
    "allocate",
    paper=372,
    cost="O(n log n) a step for n directions, O(n) memory",
    exact="the directions of the highest scores, as many as the budget of the step, ties to the lowest",
    events=("step",),
    aliases=("AdaLoRA", "adaptive LoRA rank", "rank allocation", "rank budget"),
    draws=_example,
)
class RankBudget(Stepper[Allocation]):
    """Rank budget that falls while training: keep the directions of the highest scores over all matrices.

    Each matrix has an update of a few directions (singular triplets). At each step of training `step(scores)` takes a
    score of every direction. The budget stays at all of them for `warmup` steps, falls along a cubic and is at `budget`
    for the last `final` steps. Every few steps the directions of the highest scores are kept, whichever matrix they
    belong to; one that was dropped comes back where its score does.

    Args:
        ranks: (matrices,) how many directions each matrix starts with.
        budget: how many all matrices have together at the end.
        steps: steps of training.
        warmup: steps before the budget falls.
        final: steps at the end during which the kept directions no longer change.
        every: steps between two choices.

    `active` (n,) says which directions are kept, in the order of the matrices; `current_budget` how many may be kept,
    `count` how many steps were taken, `choosing` whether the last step chose anew.

    Cost: a sort of n scores where it chooses, else O(n).

    Guarantee: `active` has exactly `current_budget` directions after each choice, and `budget` of them from the first
    of the `final` steps on. That the highest scores matter most is the scores' affair.

    References:
        Zhang, Chen, Bukharin, Karampatziakis, He, Cheng, Chen & Zhao 2023, "Adaptive Budget Allocation for
        Parameter-Efficient Fine-Tuning", ICLR, arXiv 2303.10512: the schedule of section 3.3.
        `kofn.nn.AdaptiveRanks` scores directions as the paper does and masks a torch model.

    Examples:
        >>> from kofn.allocation import RankBudget
        >>> ranks = RankBudget([2, 2], budget=2, steps=6, final=2)
        >>> for _ in range(6):
        ...     ranks.step([3.0, 2.0, 1.0, 0.5])
        >>> ranks.active.tolist(), ranks.plan.amounts.tolist()
        ([True, True, False, False], [2, 0])
    """

    state: ClassVar = {"active": "n", "scores": "n", "count": "", "current_budget": "", "choosing": ""}

    def __init__(self, ranks: Any, budget: int, *, steps: int, warmup: int = 0, final: int = 0, every: int = 1) -> None:
        self.ranks: Ints = _whole_ranks(ranks)
        self.n = int(self.ranks.sum())
        self.budget = checks.count(budget, "budget")
        if self.budget > self.n:
            raise InfeasibleError(
                f"budget={self.budget} of {self.n} directions: no more can be kept than ranks have together; lower it "
                f"by {self.budget - self.n} or give larger ranks"
            )
        self.steps = checks.count(steps, "steps")
        self.warmup = checks.count(warmup, "warmup", least=0)
        self.final = checks.count(final, "final", least=0)
        self.every = checks.count(every, "every")
        if self.warmup + self.final >= self.steps:
            raise InputError(
                f"warmup={self.warmup} and final={self.final} leave none of steps={self.steps} for the budget to fall; "
                "give more steps"
            )
        super().__init__(
            ranks=self.ranks,
            budget=self.budget,
            steps=self.steps,
            warmup=self.warmup,
            final=self.final,
            every=self.every,
        )
        self.matrix: Ints = np.repeat(np.arange(len(self.ranks)), self.ranks)
        self.active: NDArray[np.bool_] = np.ones(self.n, bool)
        self.scores: Floats = np.zeros(self.n)
        self.count, self.current_budget, self.choosing = 0, self.n, False

    @property
    def settled(self) -> bool:
        """Whether the last steps have begun, during which scores no longer count."""
        return self.count > self.steps - self.final

    def schedule(self, step: int) -> int:
        """The budget at a step, which are counted from 1."""
        if step <= self.warmup:
            return self.n
        left = 1 - (step - self.warmup) / (self.steps - self.final - self.warmup)
        return int((self.n - self.budget) * max(left, 0.0) ** 3 + self.budget)

    def step(self, scores: Any) -> None:
        """Take one step of training, with a score of each direction, in the order of the matrices.

        Raises:
            InputError: scores that are negative, not finite or of another length.
        """
        given = checks.vector(scores, "scores").astype(np.float64)
        if len(given) != self.n:
            raise InputError(f"scores has {len(given)} values for {self.n} directions; give one for each")
        if given.min() < 0:
            row = int(given.argmin())
            raise InputError(f"scores at row {row} is {given[row]:g}; give scores of 0 or more")
        was_settled = self.settled
        self.count += 1
        self.current_budget = self.schedule(self.count)
        first_settled = self.settled and not was_settled
        falls = self.count > self.warmup and not self.settled and self.count % self.every == 0
        self.choosing = falls or first_settled
        if self.choosing:
            self.scores = given
            order = np.argsort(-given, kind="stable")
            self.active = np.zeros(self.n, bool)
            self.active[order[: self.current_budget]] = True

    def _plan(self) -> Allocation:
        """`amounts` are the matrices' ranks, `values` the summed scores that they keep, of the last choice."""
        kept = np.bincount(self.matrix, np.where(self.active, self.scores, 0.0), len(self.ranks))
        amounts = np.bincount(self.matrix, self.active, len(self.ranks)).astype(np.int64)
        return Allocation(
            n=len(self.ranks),
            amounts=amounts,
            values=kept,
            value=float(kept.sum()),
            sense="max",
            bounds=np.stack([np.zeros_like(self.ranks), self.ranks], axis=1),
            used={"ranks": int(amounts.sum())},
            budget={"ranks": max(self.current_budget, int(amounts.sum()))},
            info={"step": self.count, "final_budget": self.budget},
        )


def _whole_ranks(ranks: Any) -> Ints:
    given = checks.vector(ranks, "ranks")
    whole = given.astype(np.int64)
    if len(whole) == 0 or (whole != given).any() or whole.min() < 1:
        raise InputError("ranks: give a whole number of 1 or more for each matrix")
    return whole
