"""Budgets of several clients paced through repeated second-price auctions, with or without coordination."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError, shown
from kofn.core.plans import Allocation
from kofn.core.stepper import Event, Example, Stepper, stepper

COORDINATIONS = ("hybrid", "coordinated", "independent")


def _example(rng: np.random.Generator) -> Example:
    clients = int(rng.integers(1, 4))
    budgets = rng.choice([0.5, 2.0, 6.0], clients)
    coordination = COORDINATIONS[rng.integers(3)]

    def event(pacing: CoordinatedPacing, rng: np.random.Generator) -> Event:
        if not pacing.waiting:
            return Event("ask", (rng.choice([0.0, 0.5, 1.0], clients),))
        bids = pacing.bids
        best = int(bids.argmax())
        if bids[best] == 0 or rng.random() < 0.4:
            return Event("tell", (-1,))
        others = np.delete(bids, best).max(initial=0.0)
        return Event("tell", (best, float(max(others, rng.random() * bids[best]))))

    return Example(
        lambda _seed: CoordinatedPacing(budgets, 20, coordination=coordination),
        event=event,
        refused=(
            (Event("tell", (-1,)), "no bids are waiting"),
            (Event("ask", (np.full(clients, -1.0),)), "is -1"),
            (Event("ask", (np.ones(clients + 1),)), f"{clients + 1}"),
        ),
    )


@stepper(
    "allocate",
    paper=214,
    cost="O(clients) an auction",
    exact="no client spends more than its budget; the multipliers follow the budgets at a rate of 1 / sqrt(horizon)",
    events=("ask", "tell"),
    aliases=("budget pacing", "second-price auction", "bidding agency", "coordinated bidding", "dual descent"),
    draws=_example,
)
class CoordinatedPacing(Stepper[Allocation]):
    """Pace budgets through repeated second-price auctions: each client bids value / (1 + multiplier).

    A client's multiplier rises when it spends more than budget / horizon in an auction and falls when it spends less:
    dual descent for the budget. An agency that bids for several clients enters one of them into each auction only, so
    that they do not raise each other's price.

    Args:
        budgets: (clients,) what each may spend in all, > 0.
        horizon: how many auctions the budgets are for.
        coordination: who enters: "hybrid", the client whose bid would be highest if all bid by themselves, with a bid
            that is never below that one, so that whoever would win alone wins, for no more; "coordinated", the client
            whose own paced bid is highest, which may cost one client what another gains; "independent", all.
        rate: step of the multipliers, > 0, in units of the budget for an auction; default 1 / sqrt(horizon).

    `ask(values)` takes (clients,) values of winning the auction and returns the bids, 0 for who does not enter;
    `tell(winner, price)` reports the client that won and the price it pays, `tell(-1)` that none did. `left` is what
    each may still spend, `multipliers` their paces, `bids` those of the last `ask`, `auctions` counts.

    Cost: O(clients) an auction, and O(clients) memory.

    Guarantee: a bid is never above what is left, so that no budget is exceeded, in any rounding. Under "hybrid" each
    client's utility is, on every path of values and outside bids, at least that of independent pacing with the same
    steps: who would win alone enters and bids no less, pays no more, and only what it has saved pays for further wins.

    References:
        Chen, Wang, Duan, Sun, Chen, Yan & Deng 2023, "Coordinated Dynamic Bidding in Repeated Second-Price Auctions
        with Budgets", ICML (arXiv 2306.07709). Like the paper's, the hybrid rule follows the
        multipliers of independent pacing beside its own; that further wins are paid from savings is this library's, and
        makes the comparison hold on every path, not on average alone.

    Examples:
        >>> from kofn.online import CoordinatedPacing
        >>> pacing = CoordinatedPacing([10.0, 5.0], horizon=100)
        >>> pacing.ask([0.8, 0.6]).tolist()
        [0.8, 0.0]
        >>> pacing.tell(0, 0.5)
        >>> pacing.ask([0.8, 0.8]).round(3).tolist(), pacing.left.tolist()
        ([0.0, 0.8], [9.5, 5.0])
    """

    state: ClassVar = {
        "left": "clients",
        "multipliers": "clients",
        "alone": "clients",
        "alone_left": "clients",
        "values": "clients",
        "bids": "clients",
        "utility": "clients",
        "wins": "clients",
        "waiting": "",
        "auctions": "",
    }

    def __init__(self, budgets: Any, horizon: int, *, coordination: str = "hybrid", rate: float | None = None) -> None:
        self.budgets: Floats = checks.vector(budgets, "budgets").astype(np.float64)
        if self.budgets.min() <= 0:
            row = int(self.budgets.argmin())
            raise InputError(f"budgets at row {row} is {self.budgets[row]:g}; leave out a client that has none")
        self.clients = len(self.budgets)
        self.horizon = checks.count(horizon, "horizon")
        self.coordination = checks.choice(coordination, "coordination", COORDINATIONS)
        self.rate = 1 / math.sqrt(self.horizon) if rate is None else float(checks.number(rate, "rate"))
        if self.rate == 0:
            raise InputError("rate=0: the multipliers would not move; give a number above 0")
        super().__init__(budgets=self.budgets, horizon=self.horizon, coordination=self.coordination, rate=self.rate)
        self._share = self.budgets / self.horizon
        self.left: Floats = self.budgets.copy()
        self.multipliers: Floats = np.zeros(self.clients)
        # What independent pacing would have come to: its multipliers and what it would have left.
        self._alone: Floats = np.zeros(self.clients)
        self._alone_left: Floats = self.budgets.copy()
        self._values: Floats = np.zeros(self.clients)
        self.bids: Floats = np.zeros(self.clients)
        self._utility: Floats = np.zeros(self.clients)
        self._wins: Ints = np.zeros(self.clients, np.int64)
        self._waiting = False
        self.auctions = 0

    @property
    def waiting(self) -> bool:
        """Whether how the last auction went is still to be reported."""
        return self._waiting

    def ask(self, values: Any) -> Floats:
        """(clients,) bids for an auction whose winning is worth `values`; 0 for who does not enter.

        Raises:
            InputError: values below 0, not one a client, or an auction whose outcome is not reported yet.
        """
        if self._waiting:
            raise InputError("ask: how the last auction went is not told yet; call tell(winner, price) first")
        worth = checks.vector(values, "values").astype(np.float64)
        checks.same_length(self.clients, "budgets", "values", len(worth))
        if worth.min() < 0:
            row = int(worth.argmin())
            raise InputError(f"values at row {row} is {worth[row]:g}; give what winning is worth, >= 0")
        self._values = worth
        paced = np.minimum(worth / (1 + self.multipliers), self.left)
        if self.coordination == "independent":
            self.bids = paced
        else:
            ranked = paced
            if self.coordination == "hybrid":
                ranked = self._alone_bids()
                # What independent pacing would have left by now stays untouched by bids above its own.
                saved = np.maximum(ranked, np.minimum(paced, self.left - self._alone_left))
                paced = np.minimum(saved, self.left)
            first = _first(ranked, paced)
            self.bids = np.where(np.arange(self.clients) == first, paced, 0.0)
        self._waiting = True
        return self.bids.copy()

    def tell(self, winner: int, price: float = 0.0) -> None:
        """Report which client won and what it pays; -1 where none did.

        Raises:
            InputError: no bids are waiting, a client that did not bid, or a price above its bid.
        """
        if not self._waiting:
            raise InputError("tell: no bids are waiting for an outcome; call ask(values) first")
        if not checks.is_finite(winner) or not float(winner).is_integer() or not -1 <= winner < self.clients:
            raise InputError(f"winner={shown(winner)}: give a client, 0 to {self.clients - 1}, or -1 for none")
        client, paid = int(winner), float(checks.number(price, "price"))
        if client >= 0 and self.bids[client] == 0:
            raise InputError(f"winner={client}: that client did not bid in this auction")
        if paid > (self.bids[client] if client >= 0 else 0.0):
            bid = f"client {client} bid {self.bids[client]:g}" if client >= 0 else "nobody won"
            raise InputError(f"price={paid:g}: {bid}; a second price is not above the winner's bid")
        spent = np.zeros(self.clients)
        if client >= 0:
            spent[client] = paid
            self.left[client] -= paid
            self._utility[client] += self._values[client] - paid
            self._wins[client] += 1
        if self.coordination == "hybrid":
            self._follow_alone(client, paid)
        self.multipliers = self._stepped(self.multipliers, spent)
        if self.coordination == "hybrid":
            # A bid is never below that of independent pacing.
            self.multipliers = np.minimum(self.multipliers, self._alone)
        self._waiting = False
        self.auctions += 1

    def _stepped(self, multipliers: Floats, spent: Floats) -> Floats:
        return np.asarray(np.maximum(multipliers + self.rate * (spent / self._share - 1), 0.0))

    def _alone_bids(self) -> Floats:
        return np.asarray(np.minimum(self._values / (1 + self._alone), self._alone_left))

    def _follow_alone(self, client: int, paid: float) -> None:
        """What independent pacing would have spent here.

        Nothing where none of ours won, since the one that entered bid no less than any would have bid alone. Else the
        price was the highest bid outside, and the highest of ours would have paid the more of it and our second.
        """
        bids, spent = self._alone_bids(), np.zeros(self.clients)
        first = int(bids.argmax())
        if client >= 0 and bids[first] >= paid:
            spent[first] = min(max(paid, float(np.delete(bids, first).max(initial=0.0))), self._alone_left[first])
            self._alone_left = self._alone_left - spent
        self._alone = self._stepped(self._alone, spent)

    def _plan(self) -> Allocation:
        """`amounts` is what each client spent, `values` what it won less what it paid, `value` their sum."""
        spent = self.budgets - self.left
        return Allocation(
            n=self.clients,
            amounts=spent,
            values=self._utility.copy(),
            bounds=np.stack([np.zeros(self.clients), self.budgets], axis=1),
            value=math.fsum(self._utility.tolist()),
            sense="max",
            objective="utility_of_clients",
            used={"budget": math.fsum(spent.tolist())},
            budget={"budget": math.fsum(self.budgets.tolist())},
            info={"multipliers": self.multipliers.copy(), "wins": self._wins.copy(), "auctions": self.auctions},
        )


def _first(ranked: Floats, paced: Floats) -> int:
    """Who enters: the first by rank; where no ranked bid is above 0, by its own."""
    return int((ranked if ranked.max() > 0 else paced).argmax())
