"""Which group the next batch of training data comes from, by a bandit whose reward is the group's loss."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError, shown
from kofn.core.plans import Allocation
from kofn.core.stepper import Event, Example, Stepper, stepper


def _example(rng: np.random.Generator) -> Example:
    groups = int(rng.integers(2, 6))
    smoothing = None if rng.random() < 0.5 else float(rng.choice([0.0, 0.9]))
    rate = None if rng.random() < 0.5 else 0.5

    def event(mixing: OnlineDataMixing, rng: np.random.Generator) -> Event:
        if mixing.waiting:
            return Event("tell", (float(rng.integers(0, 5)),))
        if rng.random() < 0.3:
            return Event("tell", ({int(group): float(rng.integers(0, 5)) for group in rng.permutation(groups)[:2]},))
        return Event("ask")

    return Example(
        lambda seed: OnlineDataMixing(groups, smoothing=smoothing, rate=rate, seed=seed),
        event=event,
        refused=(
            (Event("tell", (1.0,)), "no group is waiting"),
            (Event("tell", ({groups: 1.0},)), f"group {groups}"),
            (Event("tell", ({0: -1.0},)), "it must be >= 0"),
            (Event("tell", ({},)), "no loss"),
        ),
    )


@stepper(
    "allocate",
    paper=(205, "auer2002"),
    cost="O(groups) a batch",
    exact="the exploration floor; with smoothing=None the regret of EXP3, O(sqrt(T K ln K)), on losses / scale in 0..1",
    events=("ask", "tell"),
    aliases=("ODM", "online data mixing", "EXP3", "data mixture", "domain weights"),
    draws=_example,
)
class OnlineDataMixing(Stepper[Allocation]):
    """Online data mixing: draw each batch's group by a bandit that goes where the training loss is high.

    The groups (sources, domains, languages) are the arms of EXP3, the reward of a draw is the loss of its batch before
    the model learns from it. Rewards are divided by the chance of the draw. Each group keeps a chance of at least
    eps = min(1/K, sqrt(ln K / (K t))) at step t, so that a group whose loss has changed is seen again.

    Args:
        groups: how many groups there are, K.
        smoothing: share of the old reward in the moving average, from 0 to below 1; None sums all rewards, as plain
            EXP3 does. Sums never forget; with an average shares return to equal ones as eps falls, unless `rate` is
            given.
        rate: factor of the rewards in the exponent, > 0; default the eps of the step before, as in the paper.
        scale: what a loss is divided by, > 0: the largest loss that is to be expected, for the regret of EXP3.
        seed: whole number; the same seed and the same losses draw the same groups.

    `ask()` draws the group of the next batch, and draws no other until `tell(loss)` reports the batch's mean loss.
    Where a batch is drawn from several groups by `shares`, `tell({group: loss, ...})` reports them without an `ask`.
    `shares` are the chances of the next draw, `rewards` the groups' rewards, `counts` how often each was reported,
    `steps` counts the reports, `floor` is eps.

    Cost: O(K) a batch and O(K) memory.

    Guarantee: every share is at least `floor`. A high loss is taken for something to learn; a group whose loss is high
    because it is noise gets its draws all the same.

    References:
        Albalak, Pan, Raffel & Wang 2023, "Efficient Online Data Mixing For Language Model Pre-Training", arXiv
        2312.02406, algorithm 1. Auer, Cesa-Bianchi, Freund & Schapire 2002, "The Nonstochastic Multiarmed Bandit
        Problem", SIAM J. Computing 32 (EXP3).

    Examples:
        >>> from kofn.allocation import OnlineDataMixing
        >>> mixing = OnlineDataMixing(3, smoothing=None, seed=0)
        >>> for _ in range(300):
        ...     group = mixing.ask()
        ...     mixing.tell([0.2, 0.9, 0.4][group])
        >>> mixing.shares.round(2).tolist(), round(mixing.floor, 3)
        ([0.04, 0.92, 0.05], 0.035)
        >>> mixing.plan.amounts.argmax()
        np.int64(1)
    """

    state: ClassVar = {
        "rewards": "groups",
        "shares": "groups",
        "counts": "groups",
        "totals": "groups",
        "steps": "",
        "waiting_group": "",
        "rng": "",
    }
    states_no_value = True

    def __init__(
        self,
        groups: int,
        *,
        smoothing: float | None = 0.9,
        rate: float | None = None,
        scale: float = 1.0,
        seed: int = 0,
    ) -> None:
        self.groups = checks.count(groups, "groups", least=2)
        self.smoothing = smoothing if smoothing is None else checks.fraction(smoothing, "smoothing")
        if self.smoothing == 1:
            raise InputError("smoothing=1: nothing new would count; give a number below 1, or None for sums")
        self.rate = rate if rate is None else float(checks.number(rate, "rate"))
        self.scale = float(checks.number(scale, "scale"))
        for name, value in (("rate", self.rate), ("scale", self.scale)):
            if value == 0:
                raise InputError(f"{name}=0: give a number above 0")
        super().__init__(
            groups=self.groups,
            smoothing=self.smoothing,
            rate=self.rate,
            scale=self.scale,
            seed=checks.entropy(seed, "seed"),
        )
        # A stream of its own: losses drawn by default_rng(seed) elsewhere must not go with the draws here.
        self._rng = np.random.default_rng([self.seed, 205])
        self.rewards: Floats = np.zeros(self.groups)
        self.shares: Floats = np.full(self.groups, 1 / self.groups)
        self.counts: Ints = np.zeros(self.groups, np.int64)
        self._totals: Floats = np.zeros(self.groups)
        self.steps = 0
        # The group whose loss is awaited; -1 for none.
        self._waiting_group = -1

    @property
    def waiting(self) -> bool:
        """Whether the loss of the group from the last `ask` is still to be reported."""
        return self._waiting_group >= 0

    @property
    def floor(self) -> float:
        """The least share that a group has now, eps."""
        return self._floor(self.steps + 1)

    def _floor(self, step: int) -> float:
        return min(1 / self.groups, math.sqrt(math.log(self.groups) / (self.groups * max(step, 1))))

    def ask(self) -> int:
        """The group of the next batch."""
        if not self.waiting:
            reached = np.cumsum(self.shares)
            self._waiting_group = int(np.searchsorted(reached, self._rng.random() * reached[-1], side="right"))
        return self._waiting_group

    def tell(self, losses: Any) -> None:
        """Report the mean loss of the batch from the group asked, or {group: loss} of a batch from several groups.

        Raises:
            InputError: a loss below 0 or not finite, a group that is not there, or a loss alone without an `ask`.
        """
        reported = self._read(losses)
        rewards = self.rewards.copy()
        for group, loss in reported.items():
            reward = loss / self.scale / self.shares[group]
            rewards[group] = rewards[group] + reward if self.smoothing is None else self._average(group, reward)
            if not math.isfinite(rewards[group]):
                raise InputError(f"losses[{group}]={loss:g}: too large for scale={self.scale:g}; give a larger scale")
        for group, loss in reported.items():
            self.counts[group] += 1
            self._totals[group] += loss
        self.rewards = rewards
        self.steps += 1
        self._waiting_group = -1
        self.shares = self._shares_now()

    def _average(self, group: int, reward: float) -> float:
        assert self.smoothing is not None
        return float(self.smoothing * self.rewards[group] + (1 - self.smoothing) * reward)

    def _read(self, losses: Any) -> dict[int, float]:
        if not isinstance(losses, Mapping):
            if not self.waiting:
                raise InputError("tell: no group is waiting for its loss; call ask() first, or tell({group: loss})")
            losses = {self._waiting_group: losses}
        if not losses:
            raise InputError("losses has no loss; give {group: loss} of at least one group")
        read = {}
        for group, loss in losses.items():
            if not checks.is_finite(group) or not float(group).is_integer() or not 0 <= group < self.groups:
                raise InputError(f"losses has a group {shown(group)}; groups are 0 to {self.groups - 1}")
            read[int(group)] = float(checks.number(loss, f"losses[{int(group)}]"))
        return read

    def _shares_now(self) -> Floats:
        """The chances of the next draw: a softmax of the rewards, mixed with equal chances."""
        rate = self._floor(self.steps) if self.rate is None else self.rate
        weight = np.exp(rate * (self.rewards - self.rewards.max()))
        floor = self.floor
        shares = (1 - self.groups * floor) * weight / weight.sum() + floor
        return np.asarray(shares / shares.sum())

    def _plan(self) -> Allocation:
        """`amounts` are the shares of the next draw, `values` each group's mean loss so far, NaN before any."""
        with np.errstate(invalid="ignore", divide="ignore"):
            mean_loss = np.where(self.counts > 0, self._totals / self.counts, np.nan)
        return Allocation(
            n=self.groups,
            amounts=self.shares.copy(),
            values=mean_loss,
            sense="max",
            additive=False,
            info={
                "floor": self.floor,
                "rewards": self.rewards.copy(),
                "counts": self.counts.copy(),
                "steps": self.steps,
            },
        )
