"""Pairs of item and annotator chosen together, and estimates of each annotator's accuracy."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.constraints import total
from kofn.core.draws import Draw
from kofn.core.helpers import helper
from kofn.core.plans import Selection
from kofn.core.registry import method

__all__ = ["annotator_accuracy", "annotator_pairs"]


@dataclass(frozen=True, eq=False)
class Annotators:
    """Estimates of the annotators and of the items, from the labels so far.

    Attributes:
        accuracy: (annotators,) posterior mean of the chance that a label of this annotator is right.
        deviation: (annotators,) its posterior standard deviation: wide for annotators with few labels.
        confusion: (annotators, classes, classes) chance of the label "column" where the truth is "row"; None for
            "accuracy".
        probabilities: (n, classes) of each item's class, the labels weighed by their annotators' accuracy.
        labels: (n,) the likeliest class, ties to the lowest; -1 for an item without labels and without a prior.
    """

    accuracy: Floats
    deviation: Floats
    confusion: Floats | None
    probabilities: Floats
    labels: Ints


@helper
def annotator_accuracy(
    labels: ArrayLike,
    *,
    classes: int | None = None,
    estimate: Literal["accuracy", "confusion"] = "accuracy",
    probabilities: ArrayLike | None = None,
    truth: ArrayLike | None = None,
    prior: tuple[float, float] = (3.0, 1.0),
    iterations: int = 100,
) -> Annotators:
    """Estimate each annotator's accuracy, and each item's class, from labels that disagree.

    Expectation-maximisation: the items' classes are estimated from labels weighed by their annotators' accuracy, the
    accuracies from how often an annotator's labels agree with those classes. "accuracy" has one number an annotator
    (wrong labels are spread evenly), "confusion" the table of Dawid and Skene, for annotators who mistake one class for
    another and have given enough labels to show it.

    Args:
        labels: (n, annotators) whole class numbers 0, 1, ..., with -1 or NaN where an annotator was not asked.
        classes: the number of classes; None takes it from the largest label.
        estimate: "accuracy" or "confusion".
        probabilities: (n, classes) a classifier's predictions, as the prior of each item; they make annotators
            comparable who never labelled the same item. Predict before the classifier learns these labels (or from
            folds without them): a classifier confirms the labels that it was trained on, right or wrong.
        truth: (n,) known classes, -1 where unknown: control items.
        prior: (right, wrong) numbers of labels that every annotator is credited with beforehand, right > wrong:
            otherwise all labels could as well mean their opposite.
        iterations: the most rounds of expectation-maximisation.

    Returns:
        Annotators.

    Raises:
        InputError: labels that are not class numbers, with row and column; a prior without right > wrong > 0.

    Costs O(n annotators classes) time an iteration, O(n classes) memory. Finds a local optimum of the likelihood.

    References:
        Herde, Huseljic, Sick, Calma, "A Survey on Cost Types, Interaction Schemes, and Annotator Performance Models in
        Selection Algorithms for Active Learning in Classification", 2021 (annotator performance models).
        Dawid, Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm", 1979.
        Raykar et al., "Learning from Crowds", JMLR 2010 (the classifier as prior).

    Examples:
        >>> from kofn.selection import annotator_accuracy
        >>> estimates = annotator_accuracy([[0, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, -1], [0, -1, 1]])
        >>> estimates.labels.tolist(), bool(estimates.accuracy[0] > estimates.accuracy[2])
        ([0, 1, 0, 1, 0], True)
    """
    checks.choice(estimate, "estimate", ("accuracy", "confusion"))
    iterations = checks.count(iterations, "iterations")
    if len(prior) != 2 or not all(checks.is_number(part) for part in prior) or not prior[0] > prior[1] > 0:
        raise InputError(f"prior={prior!r}: give (right, wrong) with right > wrong > 0")
    votes = _class_numbers(labels, "labels")
    n, n_annotators = votes.shape
    known = None if truth is None else _class_numbers(truth, "truth", dimensions=1)
    if known is not None:
        checks.same_length(n, "labels", "truth", len(known))
    table = None
    if probabilities is not None:
        from kofn.selection.labels._uncertainty import class_probabilities

        table = class_probabilities(probabilities)
        checks.same_length(n, "labels", "probabilities", len(table))
    n_classes = _number_of_classes(classes, votes, known, table)
    rows, annotators = np.nonzero(votes >= 0)
    given = _Labels(rows, annotators, votes[rows, annotators], n_annotators)
    # The prior is counted beside the labels; a class that the classifier rules out for an item stays possible.
    log_prior = np.zeros((n, n_classes)) if table is None else np.log(np.maximum(table, 1e-6))
    accuracy = np.full(n_annotators, prior[0] / (prior[0] + prior[1]))
    confusion = _even(accuracy, n_classes)
    counts = np.bincount(annotators, minlength=n_annotators).astype(np.float64)
    belief = np.empty((n, n_classes))
    for _ in range(iterations):
        belief = _beliefs(log_prior, confusion, given, known)
        right = np.bincount(annotators, belief[rows, given.classes], n_annotators)
        before, accuracy = accuracy, (prior[0] + right) / (sum(prior) + counts)
        confusion = _even(accuracy, n_classes) if estimate == "accuracy" else _confusion(belief, given, prior)
        if np.abs(accuracy - before).max() < 1e-9:
            break
    a, b = prior[0] + right, prior[1] + counts - right
    deviation = np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    best = belief.argmax(axis=1).astype(np.int64)
    if table is None:
        unlabelled = (votes < 0).all(axis=1) & (known < 0 if known is not None else True)
        best[unlabelled] = -1
    return Annotators(accuracy, deviation, confusion if estimate == "confusion" else None, belief, best)


@dataclass(frozen=True, eq=False)
class _Labels:
    """The labels given, one entry each: the item's row, the annotator and the class."""

    rows: Ints
    annotators: Ints
    classes: Ints
    n_annotators: int


def _class_numbers(value: Any, name: str, *, dimensions: int = 2) -> Ints:
    array: Any = np.asarray(value)
    if array.ndim != dimensions or array.size == 0 or array.dtype.kind not in "iufb":
        shape = "(n, annotators)" if dimensions == 2 else "(n,)"
        raise InputError(f"{name} has shape {array.shape}, dtype {array.dtype}; give class numbers, shape {shape}")
    array = np.where(np.isnan(array), -1, array) if array.dtype.kind == "f" else array
    bad = (array < -1) | (array != np.floor(array)) | (array > 2**31)
    if bad.any():
        position = np.argwhere(bad)[0]
        where = f"row {position[0]}, column {position[1]}" if dimensions == 2 else f"row {position[0]}"
        raise InputError(
            f"{name} at {where} is {array[tuple(position)]}; give class numbers 0, 1, ..., -1 where missing"
        )
    return np.asarray(array, np.int64)


def _number_of_classes(classes: int | None, votes: Ints, known: Ints | None, table: Floats | None) -> int:
    """The number of classes, on which the labels, the truth and the classifier must agree."""
    seen = max(int(votes.max()), -1 if known is None else int(known.max())) + 1
    if seen == 0 and classes is None and table is None:
        raise InputError("labels holds no label at all; give one, or classes")
    count = table.shape[1] if table is not None else max(2, seen)
    if classes is not None:
        requested = checks.count(classes, "classes")
        if table is not None and requested != count:
            raise InputError(f"classes={requested}, but probabilities has {count} columns; they must agree")
        count = requested
    if seen > count:
        raise InputError(f"labels name class {seen - 1}, there are {count} classes (0..{count - 1}); raise classes")
    return count


def _even(accuracy: Floats, n_classes: int) -> Floats:
    """(annotators, classes, classes) confusion tables in which all wrong classes are equally likely."""
    wrong = (1 - accuracy) / max(1, n_classes - 1)
    table = np.repeat(wrong[:, None], n_classes * n_classes, axis=1).reshape(-1, n_classes, n_classes)
    table[:, np.arange(n_classes), np.arange(n_classes)] = accuracy[:, None]
    return table


def _confusion(belief: Floats, given: _Labels, prior: tuple[float, float]) -> Floats:
    """Posterior mean of each annotator's confusion table, the prior spread over each of its rows."""
    n_classes = belief.shape[1]
    table = np.zeros((given.n_annotators, n_classes, n_classes))
    np.add.at(table, (given.annotators[:, None], np.arange(n_classes), given.classes[:, None]), belief[given.rows])
    table += prior[1] / max(1, n_classes - 1) * (1 - np.eye(n_classes)) + prior[0] * np.eye(n_classes)
    return np.asarray(table / table.sum(axis=2, keepdims=True))


def _beliefs(log_prior: Floats, confusion: Floats, given: _Labels, known: Ints | None) -> Floats:
    """(n, classes) probabilities of each item's class, given the annotators' confusion tables."""
    logs = log_prior.copy()
    np.add.at(logs, given.rows, np.log(confusion[given.annotators, :, given.classes]))
    belief = np.exp(logs - logs.max(axis=1, keepdims=True))
    belief /= belief.sum(axis=1, keepdims=True)
    if known is not None:
        control = np.flatnonzero(known >= 0)
        belief[control] = 0.0
        belief[control, known[control]] = 1.0
    return np.asarray(belief)


@method(
    "select",
    draws=Draw(
        kinds={"scores": "table", "costs": "entry", "per_item": "any"},
        plain={"scores": [[3.0, 1.0], [2.0, 5.0], [4.0, 0.5]]},
    ),
    cost="O(n a log a) time for n items and a annotators, price_steps times at most; O(n a) memory",
    exact="at least half of the optimum, with a bound; optimal where the budget is met to the cent or does not bind",
    paper=30,
    # Its answer are entries of a table, which are no rows of a file.
    python_only=True,
)
def annotator_pairs(
    scores: Any,
    *,
    costs: Any,
    budget: float,
    per_item: int = 1,
    exclude: Any = None,
    price_steps: int = 100,
) -> Selection:
    """Choose pairs of item and annotator together, for the most utility that a budget for labels buys.

    Choosing the item first and then the annotator (or always the cheapest, or always the best) pays expert prices for
    easy labels or takes cheap labels that are wrong. Here an entry of the table is a pair: its score is the worth of
    the label (the item's uncertainty, discounted by the annotator's accuracy), its cost the annotator's price. A price
    on money is raised until the pairs that every item would buy on its own fit the budget.

    Args:
        scores: (items, annotators) worth of each pair; -inf where the annotator must not get the item.
        costs: (annotators,) price of a label, or (items, annotators), or flat.
        per_item: the most annotators of an item, default 1.
        exclude: pairs that must not be picked, such as those labelled already, as flat positions
            `item * annotators + annotator`.
        price_steps: halvings in the search for the price; fewer are faster and leave a wider bound.

    Returns:
        Selection over the table's entries, best bargain first: `np.unravel_index(plan.indices, plan.info["shape"])`.
        `value` is the sum of scores, `bound` an upper bound for any choice, `prices["costs"]` the worth of one more
        unit of money. Pairs of score 0 or less are never bought.

    Raises:
        InputError: costs of another shape, negative costs. InfeasibleError: a budget below the cheapest label;
            no pair left to choose.

    Costs O(n a log a) time for each of at most `price_steps` prices, O(n a) memory. The value is at least half of the
    optimum once the price is found to rounding, as with the default steps: the labels that fit and the first one that
    does not are together worth the relaxation. `bound` holds for any number of steps.

    References:
        Herde, Huseljic, Sick, Calma, "A Survey on Cost Types, Interaction Schemes, and Annotator Performance Models in
        Selection Algorithms for Active Learning in Classification", 2021.
        Huang, Chen, Mu, Zhou, "Cost-Effective Active Learning from Diverse Labelers", IJCAI 2017 (utility over cost).
        Sinha, Zoltners, "The Multiple-Choice Knapsack Problem", Operations Research 1979.

    Examples:
        >>> import numpy as np
        >>> from kofn.selection import annotator_pairs
        >>> plan = annotator_pairs([[9.0, 6.0], [5.0, 4.0], [1.0, 0.5]], costs=[4.0, 1.0], budget=5.0)
        >>> np.stack(np.unravel_index(plan.indices, plan.info["shape"]), axis=1).tolist()
        [[1, 1], [0, 0]]
    """
    table = np.asarray(scores)
    if table.ndim != 2:
        raise InputError(f"scores has shape {table.shape}; give (items, annotators)")
    value, price = table.astype(np.float64).reshape(-1), np.asarray(costs)
    limit = math.floor(budget) if price.dtype.kind == "i" else budget * (1 + value.size * np.finfo(np.float64).eps)
    open_pairs = np.isfinite(value)
    if exclude is not None:
        open_pairs[exclude] = False
    if not open_pairs.any():
        raise InfeasibleError("exclude and -inf leave no pair of scores to ask about; exclude fewer")
    if price[open_pairs].min() > limit:
        raise InfeasibleError(
            f"budget={budget:g} buys no label: the cheapest costs {price[open_pairs].min():g}; raise the budget"
        )
    market = _Market(value, price, table.shape, min(per_item, table.shape[1]), limit, open_pairs)
    picks, bound, rate = market.buy(checks.count(price_steps, "price_steps"))
    gains = value[picks]
    worth = math.fsum(gains.tolist())
    # Rounding must not push the bound below the value reached.
    bound = max(worth, bound)
    exact = bound - worth <= 1e-12 * max(abs(bound), 1e-300)
    return Selection(
        n=value.size,
        indices=picks,
        gains=gains,
        value=worth,
        bound=worth if exact else bound,
        status="optimal" if exact else "approximate",
        used={"costs": total(price[picks])},
        budget={"costs": budget},
        prices={"costs": rate},
        objective="modular",
        info={"shape": table.shape, "oracle_calls": int(open_pairs.sum())},
    )


class _Market:
    """Items that each buy their best `per_item` pairs at a price on money."""

    def __init__(
        self,
        value: Floats,
        price: NDArray[Any],
        shape: tuple[int, ...],
        per_item: int,
        limit: float | int,
        open_pairs: NDArray[np.bool_],
    ) -> None:
        self.value, self.price, self.shape, self.per_item, self.limit = value, price, shape, per_item, limit
        # A pair worth nothing or dearer than the whole budget is in no optimal choice.
        self.useful = open_pairs & (value > 0) & (price <= limit)
        # Items without a useful pair need no sorting.
        self.items = np.flatnonzero(self.useful.reshape(shape).any(axis=1))
        self.entries = self.items[:, None] * shape[1] + np.arange(shape[1])

    def buy(self, steps: int) -> tuple[Ints, float, float]:
        """The pairs bought, best bargain first; an upper bound on the value of any choice; the price of money."""
        if not len(self.items):
            return np.empty(0, np.int64), 0.0, 0.0
        low, dear = 0.0, self.wishes(0.0)
        if self.fits(dear):
            return self.ordered(dear), self.worth(dear), 0.0
        paid = self.price[self.useful] > 0
        # Above the rate of the best bargain only free pairs are bought.
        high = float(np.max(self.value[self.useful][paid] / self.price[self.useful][paid])) * 2
        cheap = self.wishes(high)
        for _ in range(steps):
            middle = (low + high) / 2
            if not low < middle < high or total(self.price[cheap]) == self.limit:
                break
            wished = self.wishes(middle)
            if self.fits(wished):
                high, cheap = middle, wished
            else:
                low, dear = middle, wished
        bound = min(self.relaxed(low, dear), self.relaxed(high, cheap))
        best = self.topped_up(self.stepped(cheap, dear))
        single = np.flatnonzero(self.useful)[[self.value[self.useful].argmax()]]
        if self.worth(single) > self.worth(best):
            best = self.topped_up(single)
        return self.ordered(best), bound, high

    def wishes(self, rate: float) -> Ints:
        """The pairs that the items buy where money costs `rate`; at ties the cheaper pair, then the lower annotator."""
        net = np.where(self.useful, self.value - rate * self.price, -np.inf)[self.entries]
        if self.per_item == 1:
            top = net.max(axis=1, keepdims=True)
            bills = np.where(net == top, self.price[self.entries], np.inf)
            columns = bills.argmin(axis=1)[:, None]
        else:
            columns = np.lexsort((self.price[self.entries], -net), axis=1)[:, : self.per_item]
        kept = np.take_along_axis(net, columns, axis=1) > 0
        return np.take_along_axis(self.entries, columns, axis=1)[kept]

    def fits(self, picks: Ints) -> bool:
        """True where the budget pays for the pairs."""
        return bool(total(self.price[picks]) <= self.limit)

    def worth(self, picks: Ints) -> float:
        """The summed scores of the pairs."""
        return math.fsum(self.value[picks].tolist())

    def relaxed(self, rate: float, picks: Ints) -> float:
        """The items' net gains at this rate plus the budget's worth at it: an upper bound for any choice."""
        net = self.value[picks] - rate * self.price[picks]
        return math.fsum([*net.tolist(), rate * float(self.limit)])

    def stepped(self, cheap: Ints, dear: Ints) -> Ints:
        """Move from the choice that fits towards the one that just does not, pair by pair, as far as the money goes.

        At the price between the two both are worth the same, and so is every step; the first step that does not fit
        brings the relaxation to its budget.
        """
        width = self.shape[1]
        picked = set(cheap.tolist())
        left = self.limit - total(self.price[cheap])
        new, old = np.setdiff1d(dear, cheap), np.setdiff1d(cheap, dear)
        for entry in new.tolist():
            swaps = [other for other in old.tolist() if other // width == entry // width and other in picked]
            freed = self.price[swaps[0]] if swaps else 0
            extra = self.price[entry] - freed
            if extra <= left and extra >= 0:
                picked.difference_update(swaps[:1])
                picked.add(entry)
                left -= extra
        return self._affordable(sorted(picked), cheap)

    def topped_up(self, picks: Ints) -> Ints:
        """Spend the money left on the best bargains that it buys, for items below `per_item` pairs."""
        room = np.full(self.shape[0], self.per_item)
        np.subtract.at(room, picks // self.shape[1], 1)
        picked = picks.tolist()
        useful = self.useful.copy()
        useful[picks] = False
        left = self.limit - total(self.price[picks])
        rest = np.flatnonzero(useful & (self.price <= left))
        for entry in self.ordered(rest).tolist():
            if self.price[entry] <= left and room[entry // self.shape[1]] > 0:
                picked.append(entry)
                room[entry // self.shape[1]] -= 1
                left -= self.price[entry]
        return self._affordable(picked, picks)

    def _affordable(self, picks: list[int], otherwise: Ints) -> Ints:
        """The picks, or `otherwise` where their exact sum is above the budget although the running sum was not."""
        chosen = np.array(picks, np.int64)
        return chosen if self.fits(chosen) else otherwise

    def ordered(self, picks: Ints) -> Ints:
        """Best bargain first; at ties the pair of the higher score, then the lower position."""
        bills = self.price[picks].astype(np.float64)
        with np.errstate(divide="ignore"):
            bargain = np.where(bills > 0, self.value[picks] / np.where(bills > 0, bills, 1), np.inf)
        return np.asarray(picks[np.lexsort((picks, -self.value[picks], -bargain))], np.int64)
