"""Auxiliary-loss-free load balancing: a bias per bin that affects the choice of bins, never the gates."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from kofn.assignment.routing._scores import affinities, best_bins, log_affinity, routes, score_table, weigh
from kofn.core import checks
from kofn.core.arrays import Floats
from kofn.core.checks import InputError
from kofn.core.plans import Assignment
from kofn.core.stepper import Event, Example, Stepper, stepper

AFFINITIES = ("sigmoid", "softmax")
GATES = ("share", "raw", "ones")


def _example(rng: np.random.Generator) -> Example:
    bins = int(rng.integers(2, 5))
    per_item, gamma = int(rng.integers(1, bins + 1)), float(rng.choice([0.0, 0.05, 0.5]))
    affinity, gates = AFFINITIES[rng.integers(2)], GATES[rng.integers(3)]

    def event(_router: BiasRouter, rng: np.random.Generator) -> Event:
        if rng.random() < 0.4:
            return Event("tell", (rng.integers(0, 9, bins).astype(np.float64),))
        # Few distinct values, so that bins tie, and some unlisted bins.
        scores = rng.integers(-2, 3, (int(rng.integers(1, 7)), bins)).astype(np.float64)
        scores[:, 1:][rng.random((len(scores), bins - 1)) < 0.2] = -np.inf
        return Event("ask", (scores,))

    return Example(
        lambda _seed: BiasRouter(bins, per_item=per_item, gamma=gamma, affinity=affinity, gates=gates),
        event=event,
        refused=(
            (Event("tell", ([1.0] * (bins + 1),)), f"one load >= 0 for each of the {bins} bins"),
            (Event("ask", (np.zeros((2, bins + 1)),)), f"this router has {bins}"),
        ),
    )


@stepper(
    "assign",
    paper=295,
    cost="O(n bins) a batch",
    exact="exactly per_item bins an item; loads even out over batches",
    events=("ask", "tell"),
    aliases=("auxiliary-loss-free load balancing", "MoE router", "DeepSeek-V3"),
    draws=_example,
)
class BiasRouter(Stepper[Assignment]):
    """Token choice with a bias per bin, lowered by `gamma` after a batch that overloads the bin and raised otherwise.

    The bias is added to the affinities only when bins are chosen; gates use the unbiased affinities.

    Args:
        bins: number of bins.
        per_item: how many bins an item goes to.
        gamma: step of the biases after each batch. Affinities lie in 0..1, so 0.001 moves a bin from last to first
            within a thousand batches.
        affinity: "sigmoid" of each score (DeepSeek-V3) or "softmax" over the bins.
        gates: the weight of each route: its "share" of the affinities of the item's bins, the "raw" affinity or "ones".

    `ask(scores)` routes a batch, `tell(loads)` updates the biases from its loads (summed over all machines, if there
    are several); `update(scores)` does both. `plan` is the last plan, `bias` the current biases, `steps` the number of
    updates. With gamma = 0 this is `token_choice`.

    Margins: every item goes to exactly `per_item` bins; loads are not limited within a batch; they even out
    over similar batches, up to the effect of one step of gamma.

    Cost: O(n bins) per batch, O(bins) per update.

    References:
        DeepSeek-AI 2024, DeepSeek-V3 Technical Report (arXiv 2412.19437), section 2.1.2, equations 12-16; Wang, Gao,
        Zhao, Sun & Dai 2024, Auxiliary-Loss-Free Load Balancing (arXiv 2408.15664), algorithm 1.

    Examples:
        >>> import numpy as np
        >>> router = BiasRouter(bins=2, gamma=0.05)
        >>> scores = np.array([[1.0, 0.8], [1.0, 0.1], [1.0, 0.7], [1.0, 0.0]])
        >>> router.ask(scores).labels.tolist()
        [0, 0, 0, 0]
        >>> for _ in range(3):
        ...     plan = router.update(scores)
        >>> router.ask(scores).labels.tolist(), router.bias.round(2).tolist()
        ([1, 0, 1, 0], [-0.05, 0.05])
    """

    state: ClassVar = {"bias": "bins", "steps": "", "batch": ""}

    def __init__(
        self, bins: int, *, per_item: int = 1, gamma: float = 0.001, affinity: str = "sigmoid", gates: str = "share"
    ) -> None:
        self.bins = checks.count(bins, "bins")
        self.per_item = checks.count(per_item, "per_item")
        if self.per_item > self.bins:
            raise InputError(f"per_item={per_item} of {bins} bins; ask for per_item <= {bins}")
        self.gamma = float(checks.number(gamma, "gamma"))
        self.affinity = checks.choice(affinity, "affinity", AFFINITIES)
        self.gates = checks.choice(gates, "gates", GATES)
        super().__init__(
            bins=self.bins, per_item=self.per_item, gamma=self.gamma, affinity=self.affinity, gates=self.gates
        )
        self.bias: Floats = np.zeros(self.bins)
        self.steps = 0
        # Fields of the last batch's plan.
        self._batch: dict[str, Any] | None = None

    def _plan(self) -> Assignment:
        """The plan of the last batch."""
        if self._batch is None:
            raise InputError("plan: no batch was routed yet; call ask(scores) first")
        return Assignment(**self._batch)

    def ask(self, scores: Any) -> Assignment:
        """Route a batch (n, bins) of router scores, -inf where an item does not list a bin; the biases stay.

        `value` is the sum of the affinities of all routes, `bound` the same without biases.
        """
        scores = score_table(checks.scores(scores))
        n, bins = scores.shape
        if bins != self.bins:
            raise InputError(f"scores has {bins} bins, this router has {self.bins}; give one column for each bin")
        felt = affinities(scores, self.affinity)
        wish = felt + self.bias
        chosen = np.sort(best_bins(wish, self.per_item), axis=1)
        rows, slots = np.nonzero(chosen >= 0)
        columns = chosen[rows, slots]
        value = float(felt[rows, columns].sum())
        unbiased = best_bins(felt, self.per_item)
        most = np.take_along_axis(felt, np.maximum(unbiased, 0), axis=1)[unbiased >= 0].sum()
        best = max(value, float(most))
        self._batch = dict(
            **routes(
                n, bins, rows, columns, weigh(log_affinity(scores, rows, columns, self.affinity), rows, self.gates)
            ),
            value=value,
            sense="max",
            bound=best,
            status="optimal" if best == value else "heuristic",
            objective="routed_affinity",
            info={
                "unfilled": n * self.per_item - len(rows),
                "steps": self.steps,
                "violation": violation(np.bincount(columns, minlength=bins)),
            },
        )
        return Assignment(**self._batch)

    def tell(self, loads: Any) -> None:
        """Move each bias by gamma: up if the bin's load was below the mean, down if above."""
        values = checks.vector(loads, "loads").astype(np.float64)
        if len(values) != self.bins or (values < 0).any():
            raise InputError(f"loads={loads!r}: give one load >= 0 for each of the {self.bins} bins")
        self.bias = self.bias + self.gamma * np.sign(values.mean() - values)
        self.steps += 1

    def update(self, scores: Any) -> Assignment:
        """Route a batch, then update the biases from its loads."""
        plan = self.ask(scores)
        self.tell(np.bincount(plan.bins, minlength=self.bins))
        return plan


def violation(loads: Any) -> float:
    """Excess of the largest load over the mean load, relative to the mean (MaxVio): 0 for equal loads."""
    values = np.asarray(loads, np.float64)
    return float(values.max() / values.mean() - 1) if values.sum() else 0.0
