"""Rows come one after another, and each is paid for or passed over at once: labels under a budget, drift or not."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.checks import InputError
from kofn.core.plans import Selection
from kofn.core.stepper import Event, Example, Stepper, stepper

STRATEGIES = ("variable", "randomized_variable", "split", "fixed", "random")
# budget * seen is a float product: a whole label may come out a rounding error above.
_ROUNDING = 1e-9


def _example(rng: np.random.Generator) -> Example:
    strategy = STRATEGIES[rng.integers(len(STRATEGIES))]
    budget = float(rng.choice([0.3, 0.5, 1.0]))

    def event(query: StreamQuery, rng: np.random.Generator) -> Event:
        asked = query.plan.indices
        if len(asked) and rng.random() < 0.3:
            return Event("tell", options={"refused": rng.choice(asked, 1)})
        return Event("ask", (rng.dirichlet([1.0, 1.0, 1.0], int(rng.integers(1, 6))),))

    return Example(
        lambda seed: StreamQuery(budget, strategy=strategy, window=8, seed=seed),
        event=event,
        refused=(
            (Event("tell", options={"refused": [3]}), "row 3, which was not asked about"),
            (Event("ask", ([[0.7, 0.7]],)), "row 0"),
        ),
    )


@stepper(
    "select",
    paper=15,
    cost="O(classes) a row; memory O(labels)",
    exact="spent <= ceil(budget * seen) at any moment; no promise on accuracy",
    events=("ask", "tell"),
    aliases=("online active learning", "selective sampling", "label budget", "concept drift"),
    draws=_example,
)
class StreamQuery(Stepper[Selection]):
    """Decide, as each row arrives, whether to pay for its label, within a share of the rows seen so far.

    A row is asked about where the classifier's confidence in it (its highest class probability) is below a threshold:

    - "variable": the threshold falls by `step` when a row is asked about and rises by `step` when one that could
      have been is not, so that it finds its own level wherever the classifier stands.
    - "randomized_variable": the threshold is multiplied by a normal draw of mean 1 and standard deviation `deviation`
      each time, so that confident rows are asked about now and then and drift far from the boundary is noticed.
    - "split": a `share` of the rows is asked about at random with probability `budget`, the others as "variable".
    - "fixed": the threshold stays; the default is 1/classes + budget (1 - 1/classes).
    - "random": at random, whatever the confidence, at the rate of the budget.

    The budget is kept twice over. At any moment `spent <= ceil(budget * seen)`: this is exact. And a label is bought
    only while the forgetful estimate of recent spending u/window is below `budget`, where u <- u (1 - 1/window) + 1
    for a label and u (1 - 1/window) otherwise: what was saved in quiet times is not all spent at once. A threshold that
    finds its own level asks about half of what it may, so that budgets above a half are not spent whole.

    Args:
        budget: share of the rows that may be asked about, in (0, 1].
        strategy: one of the above.
        threshold: where it starts; None is 1, for "fixed" as above.
        step: how fast the threshold moves, in (0, 1).
        deviation: of the random factor, > 0.
        share: of the rows that "split" decides at random, in [0, 1].
        window: rows that the estimate of recent spending remembers.
        seed: whole number.

    Attributes:
        seen: rows so far. spent: labels asked for and not refused. threshold: where it stands (None for "fixed" before
        the first row). recent: the estimate u of labels in the last `window` rows.

    Raises:
        InputError: a budget outside (0, 1] or of less than one label in a window, other bad settings; from `ask`,
            rows that are no probabilities, each with its row; from `tell`, rows that were not asked about.

    Costs O(classes) time a row; memory O(spent). The same rows in batches of any size give the same answers; a restored
    state goes on bit for bit. No promise on accuracy.

    References:
        Cacciarelli, Kulahci, "Active learning for data streams: a survey", Machine Learning 2024.
        Zliobaite, Bifet, Pfahringer, Holmes, "Active Learning with Drifting Streaming Data", IEEE TNNLS 2014.

    Examples:
        >>> from kofn.selection import StreamQuery
        >>> query = StreamQuery(0.5, window=10)
        >>> query.ask([[0.6, 0.4], [0.99, 0.01], [0.55, 0.45], [0.8, 0.2]]).tolist()
        [True, False, True, False]
        >>> query.spent, query.plan.indices.tolist()
        (2, [0, 2])
    """

    state: ClassVar = {
        "threshold": "",
        "seen": "",
        "spent": "",
        "recent": "",
        "classes": "",
        "asked": "spent",
        "rng": "",
    }
    states_no_value = True

    def __init__(
        self,
        budget: float,
        *,
        strategy: str = "variable",
        threshold: float | None = None,
        step: float = 0.01,
        deviation: float = 1.0,
        share: float = 0.2,
        window: int = 100,
        seed: int | None = None,
    ) -> None:
        self.budget = checks.fraction(budget, "budget")
        self.window = checks.count(window, "window")
        if self.budget * self.window < 1 - _ROUNDING:
            least = f"use window >= {math.ceil(1 / self.budget)} or raise the budget" if self.budget else "raise it"
            raise InputError(f"budget={budget!r} is less than one label in window={window} rows; {least}")
        self.strategy = checks.choice(strategy, "strategy", STRATEGIES)
        if threshold is not None and (not checks.is_number(threshold) or not 0 < threshold < math.inf):
            raise InputError(f"threshold={threshold!r}: give a number above 0")
        if not checks.is_number(step) or not 0 < step < 1:
            raise InputError(f"step={step!r}: give a number between 0 and 1")
        if not checks.is_number(deviation) or not 0 < deviation < math.inf:
            raise InputError(f"deviation={deviation!r}: give a number above 0")
        self.step, self.deviation = float(step), float(deviation)
        self.share = checks.fraction(share, "share")
        start = None if strategy == "fixed" else 1.0
        self.threshold: float | None = start if threshold is None else float(threshold)
        super().__init__(
            budget=self.budget,
            strategy=self.strategy,
            threshold=self.threshold,
            step=self.step,
            deviation=self.deviation,
            share=self.share,
            window=self.window,
            seed=checks.entropy(seed),
        )
        self.seen = 0
        self.spent = 0
        self.recent = 0.0
        self._rng = np.random.default_rng(self.seed)
        self._asked: dict[int, float] = {}
        self._classes: int | None = None

    def ask(self, probabilities: Any) -> NDArray[np.bool_]:
        """(m,) True for the rows whose labels to pay for, of rows that arrive now, in their order.

        Args:
            probabilities: (m, classes) class probabilities, or (m,) confidences >= 0 of your own, low where a label
                is worth most.
        """
        confidence = self._confidence(probabilities)
        # One draw a row whatever the decision, so that the batch size does not change the answers.
        draws = self._draws(len(confidence))
        wanted = np.zeros(len(confidence), bool)
        for row, (confident, draw) in enumerate(zip(confidence.tolist(), draws, strict=True)):
            wanted[row] = self._decide(confident, draw)
        return wanted

    def tell(self, *, refused: Any) -> None:
        """Take back what was asked and not answered: positions (as in `plan.indices`) whose labels were not given.

        Their price is not charged and they leave the plan.
        """
        positions = checks.as_array(refused, "refused").reshape(-1)
        if len(positions) and positions.dtype.kind not in "iu":
            raise InputError(f"refused holds {positions[0]!r}; give positions of plan.indices")
        rows: list[int] = positions.tolist()
        unknown = [row for row in rows if row not in self._asked]
        if unknown or len(set(rows)) < len(rows):
            named = f"row {unknown[0]}, which was not asked about" if unknown else "a row twice"
            raise InputError(f"refused names {named}; give positions of plan.indices")
        for row in rows:
            del self._asked[row]
            self.spent -= 1
            self.recent = max(0.0, self.recent - (1 - 1 / self.window) ** (self.seen - row - 1))

    def _plan(self) -> Selection:
        """The rows asked about, of all seen, in the order they came; `gains` are 1 - confidence."""
        return Selection(
            n=self.seen,
            indices=np.array(list(self._asked), np.int64),
            gains=1.0 - np.array(list(self._asked.values()), np.float64),
            status="heuristic",
            used={"labels": self.spent},
            budget={"labels": self._limit()},
        )

    def _limit(self) -> int:
        return math.ceil(self.budget * self.seen - _ROUNDING)

    def _confidence(self, value: Any) -> NDArray[np.float64]:
        from kofn.selection.labels._uncertainty import class_probabilities

        if checks.as_array(value, "probabilities").ndim == 1:
            confidence = checks.vector(value, "probabilities").astype(np.float64)
            if confidence.min() < 0:
                row = int(confidence.argmin())
                raise InputError(f"probabilities at row {row} is {confidence[row]:g}; give confidences >= 0")
            if self.strategy == "fixed" and self.threshold is None:
                raise InputError("strategy='fixed' needs a threshold where confidences are given, not probabilities")
            return confidence
        table = class_probabilities(value)
        if self._classes is None:
            self._classes = table.shape[1]
        if table.shape[1] != self._classes:
            raise InputError(
                f"probabilities has {table.shape[1]} columns, the batches before had {self._classes}; keep one column "
                "a class for the whole stream"
            )
        if self.threshold is None:
            self.threshold = 1 / self._classes + self.budget * (1 - 1 / self._classes)
        return np.asarray(table.max(axis=1))

    def _draws(self, count: int) -> list[tuple[float, float]] | list[None]:
        if self.strategy == "randomized_variable":
            return [(factor, 0.0) for factor in self._rng.normal(1.0, self.deviation, count).tolist()]
        if self.strategy in ("split", "random"):
            return [(by_chance, at_rate) for by_chance, at_rate in self._rng.random((count, 2)).tolist()]
        return [None] * count

    def _decide(self, confidence: float, draw: tuple[float, float] | None) -> bool:
        self.seen += 1
        room = self.spent < self._limit() and self.recent < self.budget * self.window
        self.recent *= 1 - 1 / self.window
        if not (room and self._wanted(confidence, draw)):
            return False
        self._asked[self.seen - 1] = confidence
        self.spent += 1
        self.recent += 1
        return True

    def _wanted(self, confidence: float, draw: tuple[float, float] | None) -> bool:
        """Whether the strategy wants this label, given that it can be paid for."""
        threshold = self.threshold
        assert threshold is not None
        if self.strategy == "fixed":
            return confidence < threshold
        if self.strategy == "random":
            assert draw is not None
            # The unspent credit is the probability of spending it, which keeps the rate at the budget.
            return draw[0] < self.budget * self.seen - self.spent
        if self.strategy == "split":
            assert draw is not None
            if draw[0] < self.share:
                return draw[1] < self.budget
        factor = draw[0] if self.strategy == "randomized_variable" and draw is not None else 1.0
        wanted = confidence < threshold * factor
        self.threshold = threshold * (1 - self.step if wanted else 1 + self.step)
        return wanted
