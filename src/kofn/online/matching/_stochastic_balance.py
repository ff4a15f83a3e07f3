"""Online matching with stochastic rewards: arrivals come one by one, and a match may fail."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.helpers import helper
from kofn.core.highs import linprog
from kofn.core.plans import Assignment
from kofn.core.stepper import Event, Example, Stepper, stepper

__all__ = ["StochasticBalance", "matching_bound"]


RULES = ("discounted", "least_load")


def _example(rng: np.random.Generator) -> Example:
    bins = int(rng.integers(1, 5))
    weights = rng.choice([0.5, 1.0, 2.0], bins) if rng.random() < 0.5 else None
    rule = RULES[rng.integers(2)]

    def event(balance: StochasticBalance, rng: np.random.Generator) -> Event:
        if balance.waiting:
            return Event("tell", (bool(rng.random() < 0.3),))
        return Event("ask", (rng.choice([0.0, 0.25, 0.5, 1.0], bins),))

    return Example(
        lambda _seed: StochasticBalance(bins, weights=weights, rule=rule),
        event=event,
        refused=(
            (Event("tell", (True,)), "no try is waiting"),
            (Event("ask", (np.full(bins, 1.5),)), "row 0 is 1.5"),
            (Event("ask", (np.zeros(bins + 1),)), f"{bins + 1}"),
        ),
    )


@stepper(
    "assign",
    paper=(140, "mehta2012"),
    cost="O(bins) an arrival; memory O(bins) and two numbers an arrival",
    exact="0.613 of the offline optimum in expectation, for equal vanishing chances by least load",
    events=("ask", "tell"),
    aliases=("online matching", "AdWords", "stochastic rewards"),
    draws=_example,
)
class StochasticBalance(Stepper[Assignment]):
    """Online matching with stochastic rewards: send each arrival to an unmatched bin by its chance and the bin's load.

    Bins (advertisers) are known and pay once, for their first success; arrivals (impressions) come one by one, and an
    attempt succeeds with a known probability. The load of a bin is the sum of the chances tried on it:
    balancing it hedges against later arrivals. Where chances are equal and vanishing, sending to the least load is
    0.613-competitive in the worst order of arrivals, against an offline algorithm that knows all arrivals but not the
    outcomes; sending to any bin is 0.5-competitive.

    Args:
        bins: how many bins.
        weights: (bins,) value of a bin's success, > 0; default 1.
        rule: "discounted", the largest chance x weight x exp(-load), ties to the lowest bin: the least load where
            chances and weights are equal; or "least_load" whatever they are. Least load alone is not competitive for
            unequal chances: it would send every arrival to a bin where success is nearly impossible. The paper proves
            0.611 for unequal vanishing chances with a discount of its own; for exp(-load) no ratio is proven.

    `ask(chances)` returns the bin for an arrival, or -1 if no allowed bin is left; `tell(success)` reports the outcome,
    before the next `ask`. `plan` holds all arrivals so far. `loads` and `matched` are the bins' state,
    `arrivals`, `attempts` and `successes` count.

    Cost: O(bins) an arrival; memory O(bins) and two numbers an arrival for the plan.

    References:
        Huang, Jiang, Shen, Song, Wu & Zhang 2023, Online Matching with Stochastic Rewards: Advanced Analyses Using
        Configuration Linear Programs (WINE, arXiv 2309.10289); the algorithm: Mehta & Panigrahi 2012 (FOCS).

    Examples:
        >>> from kofn.online import StochasticBalance
        >>> balance = StochasticBalance(2)
        >>> for success in (False, False, True):
        ...     print(balance.ask([0.5, 0.5]))
        ...     balance.tell(success)
        0
        1
        0
        >>> balance.ask([0.5, 0.0]), balance.plan.value, balance.plan.labels.tolist()
        (-1, 1.0, [0, 1, 0, -1])
    """

    state: ClassVar = {
        "loads": "bins",
        "matched": "bins",
        "sent": "arrivals",
        "chances": "arrivals",
        "won": "arrivals",
        "waiting": "",
        "attempts": "",
        "successes": "",
    }

    def __init__(self, bins: int, *, weights: Any = None, rule: str = "discounted") -> None:
        self.bins = checks.count(bins, "bins")
        self.rule = checks.choice(rule, "rule", RULES)
        self.weights: Floats = np.ones(self.bins)
        if weights is not None:
            self.weights = checks.weights(weights).astype(np.float64)
            checks.same_length(self.bins, "the matching", "weights", len(self.weights))
            if not self.weights.all():
                raise InputError(
                    f"weights at row {int(self.weights.argmin())} is 0; leave out bins that are worth nothing"
                )
        super().__init__(bins=self.bins, weights=None if weights is None else self.weights, rule=self.rule)
        self.loads: Floats = np.zeros(self.bins)
        self.matched: NDArray[np.bool_] = np.zeros(self.bins, bool)
        self.attempts = self.successes = 0
        self._sent: list[int] = []
        self._chances: list[float] = []
        self._won: list[bool] = []
        self._waiting = False

    @property
    def waiting(self) -> bool:
        """Whether the last attempt's outcome is still to be reported by `tell`."""
        return self._waiting

    @property
    def arrivals(self) -> int:
        """Number of arrivals."""
        return len(self._sent)

    def ask(self, chances: Any) -> int:
        """The bin for an arrival, or -1; `chances` (bins,) are its chances of success, 0 where it may not go.

        Raises:
            InputError: chances outside 0..1, not one a bin, or an attempt whose outcome is not reported yet.
        """
        if self._waiting:
            raise InputError(f"ask: how the try at bin {self._sent[-1]} went is not told yet; call tell(success) first")
        chance = checks.vector(chances, "chances")
        checks.same_length(self.bins, "the matching", "chances", len(chance))
        if chance.min() < 0 or chance.max() > 1:
            row = int((np.abs(chance - 0.5) > 0.5).argmax())
            raise InputError(f"chances at row {row} is {chance[row]:g}; give probabilities between 0 and 1")
        open_ = (chance > 0) & ~self.matched
        bin_ = -1
        if open_.any():
            wish = -self.loads if self.rule == "least_load" else chance * self.weights * np.exp(-self.loads)
            bin_ = int(np.where(open_, wish, -np.inf).argmax())
            self._waiting = True
            self.attempts += 1
        self._sent.append(bin_)
        self._chances.append(float(chance[bin_]) if bin_ >= 0 else 0.0)
        self._won.append(False)
        return bin_

    def tell(self, success: bool) -> None:
        """Report whether the last attempt succeeded: its chance is added to the bin's load."""
        checks.flag(success, "success")
        if not self._waiting:
            raise InputError("tell: no try is waiting for its outcome; call ask(chances) first")
        bin_ = self._sent[-1]
        self.loads[bin_] += self._chances[-1]
        self._won[-1] = bool(success)
        self.matched[bin_] |= success
        self.successes += int(success)
        self._waiting = False

    def _plan(self) -> Assignment:
        """All arrivals so far and where they were sent, `weights` the chances.

        `value` is the total weight of the matched bins, `bound` that of all bins; `info`: `loads`, and `won`, the
        arrivals that succeeded.
        """
        sent = np.array(self._sent, np.int64)
        placed = sent >= 0
        value = float(self.weights[self.matched].sum())
        best = float(self.weights.sum())
        return Assignment.from_pairs(
            np.flatnonzero(placed),
            sent[placed],
            np.array(self._chances, np.float64)[placed],
            n=len(sent),
            k=self.bins,
            value=value,
            sense="max",
            bound=best,
            status="optimal" if value == best else "approximate",
            objective="matched_weight",
            info={
                "attempts": self.attempts,
                "successes": self.successes,
                "loads": self.loads.tolist(),
                "won": np.flatnonzero(self._won).tolist(),
            },
        )


@helper
def matching_bound(chances: Any, weights: Any = None) -> float:
    """Upper bound on the expected value of any algorithm, even one that knows all arrivals beforehand: the matching LP.

    Args:
        chances: (arrivals, bins) chance of success of each arrival at each bin, 0 where it may not go.
        weights: (bins,) value of a bin's success; default 1.

    Returns:
        The largest sum of weight x chance x share over shares of arrivals that sum to at most 1 an arrival and whose
        chances sum to at most 1 a bin. It is above the stochastic benchmark of the competitive ratios.

    Raises:
        InputError: chances outside 0..1, weights that are not one a bin.

    Cost: a linear program of one variable for each positive chance, by HiGHS.

    References:
        Mehta & Panigrahi 2012, Online Matching with Stochastic Rewards (FOCS).

    Examples:
        >>> from kofn.online import matching_bound
        >>> round(matching_bound([[0.5, 0.5], [0.5, 0.0], [0.5, 0.0]]), 9)
        1.5
    """
    from scipy.sparse import coo_array, vstack

    table = checks.matrix(chances, "chances").astype(np.float64)
    if table.min() < 0 or table.max() > 1:
        row, column = np.argwhere((table < 0) | (table > 1))[0]
        raise InputError(f"chances at row {row}, column {column} is {table[row, column]:g}; give probabilities")
    worth = np.ones(table.shape[1]) if weights is None else checks.weights(weights).astype(np.float64)
    checks.same_length(table.shape[1], "the matching", "weights", len(worth))
    rows, columns = np.nonzero(table)
    chance, entry = table[rows, columns], np.arange(len(rows))
    if not len(rows):
        return 0.0
    limits: Any = vstack(
        [
            coo_array((np.ones(len(rows)), (rows, entry)), (table.shape[0], len(rows))),
            coo_array((chance, (columns, entry)), (table.shape[1], len(rows))),
        ]
    )
    solution = linprog(-chance * worth[columns], A_ub=limits.tocsr(), b_ub=np.ones(sum(table.shape)))
    return -float(solution.fun or 0.0)
