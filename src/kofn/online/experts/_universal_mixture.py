"""Wealth divided over investment strategies so that no constant mix of them ends far ahead."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.plans import Allocation
from kofn.core.stepper import Event, Example, Stepper, stepper

# Fewer nodes an axis than this would integrate too few rounds to be worth it: mixes are drawn instead.
_FEWEST_NODES = 8
# Rules of more nodes take long to compute.
_MOST_NODES = 500
_RETURNS = (0.5, 0.9, 1.0, 1.2, 2.0)


def _best_constant_mix(events: Sequence[Event]) -> float:
    """Log-wealth of the best constant mix in hindsight, by Cover's multiplicative updates."""
    rounds = np.array([event.arguments[0] for event in events if event.name == "tell"])
    if not len(rounds):
        return 0.0
    mix = np.full(rounds.shape[1], 1 / rounds.shape[1])
    for _ in range(400):
        mix = mix * (rounds / (rounds @ mix)[:, None]).mean(axis=0)
    return float(np.log(rounds @ (mix / mix.sum())).sum())


def _example(rng: np.random.Generator) -> Example:
    m = int(rng.integers(1, 4))
    acceleration = float(rng.choice([1.0, 1.0, 3.0]))
    return Example(
        lambda seed: UniversalMixture(m, acceleration=acceleration, mixes=300, seed=seed),
        event=lambda _mixture, rng: Event("tell", (rng.choice(_RETURNS, m),)) if rng.random() < 0.8 else Event("ask"),
        refused=((Event("tell", (np.zeros(m),)), "above 0"), (Event("tell", (np.ones(m + 1),)), f"{m + 1}")),
        optimum=_best_constant_mix,
    )


@stepper(
    "allocate",
    paper=(34, "cover1991"),
    cost="O(mixes x strategies) a round",
    exact="log-wealth within (m - 1) ln(T + 1) of the best constant mix, on every path, for `exact_rounds`",
    events=("ask", "tell"),
    aliases=("universal portfolio", "ensemble of portfolios", "online portfolio selection", "strategy mixture"),
    draws=_example,
)
class UniversalMixture(Stepper[Allocation]):
    """Universal mixture of strategies: each constant mix of them invests a share, and the wealth is their sum.

    The weight of strategy i is the mean of its weight over all constant mixes, each weighted by the wealth it would
    have by now. No model of the market is assumed: on any path of returns log-wealth is at most (m - 1) ln(T + 1) below
    that of the best constant mix, which is at least as good as the best strategy, and in the long run often better,
    since it rebalances.

    Args:
        strategies: how many strategies, m.
        acceleration: power of the wealth that mixes are weighted by, >= 1: above 1 the weights lean to mixes that are
            ahead, without the guarantee.
        mixes: how many constant mixes are followed. Where Gauss nodes of at least 8 an axis fit into it (m up to 5 for
            the default) integrals are exact for `exact_rounds` rounds, else mixes are drawn at random.
        seed: whole number, for the mixes that are drawn.

    `ask()` gives the (m,) weights of the next round; `tell(returns)` reports each strategy's return in it: wealth after
    over wealth before. `log_wealth` is the mixture's, `rounds` counts.

    Cost: O(mixes x m) a round and as much memory.

    Guarantee: status "approximate" while integrals are exact and acceleration is 1: `plan.bound` is above the
    log-wealth of any constant mix. Costs of trading are not counted.

    References:
        Lam 2024, "Ensembling Portfolio Strategies for Long-Term Investments", arXiv 2406.03652 (mixtures over mixes of
        strategies; that its accelerated form is a power of the wealth is this library's reading). Cover 1991,
        "Universal Portfolios", Mathematical Finance 1; Blum & Kalai 1999 for the bound.

    Examples:
        >>> from kofn.online import UniversalMixture
        >>> mixture = UniversalMixture(2)
        >>> for _ in range(50):
        ...     mixture.tell([2.0, 1.0])
        ...     mixture.tell([0.5, 1.0])
        >>> mixture.ask().round(2).tolist(), round(mixture.log_wealth, 2), mixture.plan.values.round(9).tolist()
        ([0.5, 0.5], 4.9, [0.0, 0.0])
    """

    state: ClassVar = {
        "points": "mixes strategies",
        "wealth": "mixes",
        "alone": "strategies",
        "log_wealth": "",
        "rounds": "",
    }

    def __init__(self, strategies: int, *, acceleration: float = 1.0, mixes: int = 10_000, seed: int = 0) -> None:
        self.strategies = checks.count(strategies, "strategies")
        self.acceleration = float(checks.number(acceleration, "acceleration"))
        if self.acceleration < 1:
            raise InputError(f"acceleration={self.acceleration:g}: give a number of at least 1")
        self._asked_mixes = checks.count(mixes, "mixes", least=2)
        super().__init__(
            strategies=self.strategies,
            acceleration=self.acceleration,
            mixes=self._asked_mixes,
            seed=checks.entropy(seed, "seed"),
        )
        self._place_mixes()
        # Log-wealth of each constant mix, and of each strategy alone.
        self._wealth: Floats = np.zeros(self.mixes)
        self._alone: Floats = np.zeros(self.strategies)
        self.log_wealth = 0.0
        self.rounds = 0

    def _place_mixes(self) -> None:
        """The mixes, and the log of the share of the simplex that each stands for."""
        m, asked = self.strategies, self._asked_mixes
        nodes = min(math.floor(asked ** (1 / (m - 1)) + 1e-9), _MOST_NODES) if m > 1 else 1
        if m > 1 and nodes < _FEWEST_NODES:
            self._points: Floats = np.random.default_rng(self.seed).dirichlet(np.ones(m), asked)
            self._log_share: Floats = np.full(asked, -math.log(asked))
            self.exact_rounds = 0
        else:
            self._points, self._log_share = _simplex_nodes(m, nodes)
            # Wealth after T rounds is a polynomial of degree T in the mix; a single strategy leaves nothing to mix.
            self.exact_rounds = 2 * nodes - 1 if m > 1 else 2**53
        self.mixes = len(self._points)

    def ask(self) -> Floats:
        """(m,) weights of the next round."""
        lead = self._log_share + self.acceleration * self._wealth
        grown = np.exp(lead - lead.max())
        weights: Floats = grown @ self._points
        return np.asarray(weights / weights.sum())

    def tell(self, returns: Any) -> None:
        """Take the (m,) returns of the strategies in this round, wealth after over wealth before, > 0."""
        factor = checks.vector(returns, "returns").astype(np.float64)
        checks.same_length(self.strategies, "strategies", "returns", len(factor))
        if factor.min() <= 0:
            row = int(factor.argmin())
            raise InputError(f"returns at row {row} is {factor[row]:g}; give wealth after over wealth before, above 0")
        self.log_wealth += math.log(float(self.ask() @ factor))
        self._wealth = self._wealth + np.log(self._points @ factor)
        self._alone = self._alone + np.log(factor)
        self.rounds += 1

    def _plan(self) -> Allocation:
        """`amounts` are the weights of the next round, `values` each strategy's log-wealth, `value` the mixture's."""
        proven = self.acceleration == 1 and self.rounds <= self.exact_rounds
        return Allocation(
            n=self.strategies,
            amounts=self.ask(),
            values=self._alone.copy(),
            value=self.log_wealth,
            sense="max",
            additive=False,
            bound=self.log_wealth + (self.strategies - 1) * math.log(self.rounds + 1) if proven else None,
            status="approximate" if proven else "heuristic",
            objective="log_wealth",
            info={"rounds": self.rounds, "best_strategy": int(self._alone.argmax())},
        )


def _simplex_nodes(m: int, nodes: int) -> tuple[Floats, Floats]:
    """Points of the simplex and logs of weights that integrate polynomials of degree 2 nodes - 1 exactly.

    Sticks are broken one after the other, each by a Gauss rule for what the rest of the simplex weighs.
    """
    from scipy.special import roots_jacobi

    points, log_weight, rest = np.zeros((1, m)), np.zeros(1), np.ones(1)
    for axis in range(m - 1):
        # The share x that is broken off leaves (1 - x) to the power of the axes that are left.
        raw, weight = roots_jacobi(nodes, m - 2 - axis, 0)
        share = (1 + raw) / 2
        grown = np.repeat(points, nodes, axis=0)
        grown[:, axis] = np.outer(rest, share).ravel()
        points = grown
        log_weight = np.add.outer(log_weight, np.log(weight / weight.sum())).ravel()
        rest = np.outer(rest, 1 - share).ravel()
    points[:, m - 1] = rest
    return points, log_weight
