"""Who is asked about what: item and annotator chosen together, and how good each annotator is."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.constraints import total
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method

__all__ = ["annotator_accuracy", "annotator_pairs"]

ESTIMATES = ("accuracy", "confusion")


@dataclass(frozen=True, eq=False)
class Annotators:
    """What the labels so far say of the annotators and of the items.

    Attributes:
        accuracy: (annotators,) posterior mean of the chance that a label of theirs is right.
        deviation: (annotators,) its posterior standard deviation: wide for those who have said little.
        confusion: (annotators, classes, classes) chance of saying column where the truth is row; None for "accuracy".
        probabilities: (n, classes) what each item is, all labels weighed by who gave them.
        labels: (n,) the likeliest class, ties to the lowest; -1 where nobody said anything and no prior was given.
    """

    accuracy: Floats
    deviation: Floats
    confusion: Floats | None
    probabilities: Floats
    labels: Ints


def annotator_accuracy(
    labels: Any,
    *,
    classes: int | None = None,
    estimate: str = "accuracy",
    probabilities: Any = None,
    truth: Any = None,
    prior: tuple[float, float] = (3.0, 1.0),
    iterations: int = 100,
) -> Annotators:
    """Estimate each annotator's accuracy, and what the items are, from labels that disagree.

    Expectation-maximisation: the items' classes are weighed by who voted for them, the annotators by how often they
    said what the items are. "accuracy" has one number an annotator (wrong labels are spread evenly), "confusion" the
    whole table of Dawid and Skene, for those who mistake one class for another and have given labels enough to show it.

    Args:
        labels: (n, annotators) whole class numbers 0, 1, ..., with -1 or NaN where an annotator was not asked.
        classes: how many there are; None takes the largest number seen.
        estimate: "accuracy" or "confusion".
        probabilities: (n, classes) what a classifier holds of the items, as the prior of each; with it annotators can
            be compared who never labelled the same item. Give what it held before it learned these labels (or from
            folds without them): a classifier confirms what it has learned, whoever said it.
        truth: (n,) known classes, -1 where unknown: control items.
        prior: (right, wrong) labels that every annotator is credited with beforehand. It must favour right, or all
            labels could as well mean their opposite.
        iterations: at most.

    Returns:
        Annotators.

    Raises:
        InputError: labels that are no class numbers, with row and column; a prior that does not favour right.

    Costs O(n annotators classes) time an iteration, O(n classes) memory. Finds a local optimum of the likelihood.

    References:
        Herde, Huseljic, Sick, Calma, "A Survey on Cost Types, Interaction Schemes, and Annotator Performance Models in
        Selection Algorithms for Active Learning in Classification", 2021 (annotator performance models).
        Dawid, Skene, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm", 1979.
        Raykar et al., "Learning from Crowds", JMLR 2010 (the classifier as prior).

    Examples:
        >>> from kofn.selection import annotator_accuracy
        >>> found = annotator_accuracy([[0, 0, 1], [1, 1, 1], [0, 0, 1], [1, 1, -1], [0, -1, 1]])
        >>> found.labels.tolist(), bool(found.accuracy[0] > found.accuracy[2])
        ([0, 1, 0, 1, 0], True)
    """
    checks.choice(estimate, "estimate", ESTIMATES)
    iterations = checks.count(iterations, "iterations")
    if len(prior) != 2 or not all(checks.is_number(part) for part in prior) or not prior[0] > prior[1] > 0:
        raise InputError(f"prior={prior!r}: give (right, wrong) with right > wrong > 0")
    said = _class_numbers(labels, "labels")
    n, people = said.shape
    known = None if truth is None else _class_numbers(truth, "truth", dimensions=1)
    if known is not None:
        checks.same_length(n, "labels", "truth", len(known))
    table = None
    if probabilities is not None:
        from kofn.selection.labels._uncertainty import class_probabilities

        table = class_probabilities(probabilities)
        checks.same_length(n, "labels", "probabilities", len(table))
    count = _how_many(classes, said, known, table)
    rows, who = np.nonzero(said >= 0)
    what = said[rows, who]
    # The prior is counted beside the labels; an item that a classifier rules out is kept possible.
    log_prior = np.zeros((n, count)) if table is None else np.log(np.maximum(table, 1e-6))
    accuracy = np.full(people, prior[0] / (prior[0] + prior[1]))
    confusion = _even(accuracy, count)
    asked = np.bincount(who, minlength=people).astype(np.float64)
    belief = np.empty((n, count))
    for _ in range(iterations):
        belief = _beliefs(log_prior, confusion, rows, who, what, known)
        right = np.bincount(who, belief[rows, what], people)
        before, accuracy = accuracy, (prior[0] + right) / (sum(prior) + asked)
        if estimate == "accuracy":
            confusion = _even(accuracy, count)
        else:
            confusion = _confusion(belief, rows, who, what, people, prior)
        if np.abs(accuracy - before).max() < 1e-9:
            break
    a, b = prior[0] + right, prior[1] + asked - right
    deviation = np.sqrt(a * b / ((a + b) ** 2 * (a + b + 1)))
    best = belief.argmax(axis=1).astype(np.int64)
    if table is None:
        silent = (said < 0).all(axis=1) & (known < 0 if known is not None else True)
        best[silent] = -1
    return Annotators(accuracy, deviation, confusion if estimate == "confusion" else None, belief, best)


def _class_numbers(value: Any, name: str, *, dimensions: int = 2) -> Ints:
    array: Any = np.asarray(value)
    if array.ndim != dimensions or array.size == 0 or array.dtype.kind not in "iufb":
        shape = "(n, annotators)" if dimensions == 2 else "(n,)"
        raise InputError(f"{name} has shape {array.shape}, dtype {array.dtype}; give class numbers, shape {shape}")
    array = np.where(np.isnan(array), -1, array) if array.dtype.kind == "f" else array
    bad = (array < -1) | (array != np.floor(array)) | (array > 2**31)
    if bad.any():
        place = np.argwhere(bad)[0]
        where = f"row {place[0]}, column {place[1]}" if dimensions == 2 else f"row {place[0]}"
        raise InputError(f"{name} at {where} is {array[tuple(place)]}; give class numbers 0, 1, ..., -1 where missing")
    return np.asarray(array, np.int64)


def _how_many(classes: int | None, said: Ints, known: Ints | None, table: Floats | None) -> int:
    """The number of classes, which the labels, the truth and the classifier must agree on."""
    seen = max(int(said.max()), -1 if known is None else int(known.max())) + 1
    if seen == 0 and classes is None and table is None:
        raise InputError("labels holds no label at all; give one, or classes")
    count = table.shape[1] if table is not None else max(2, seen)
    if classes is not None:
        asked = checks.count(classes, "classes")
        if table is not None and asked != count:
            raise InputError(f"classes={asked}, but probabilities has {count} columns; they must agree")
        count = asked
    if seen > count:
        raise InputError(f"labels name class {seen - 1}, there are {count} classes (0..{count - 1}); raise classes")
    return count


def _even(accuracy: Floats, count: int) -> Floats:
    """(annotators, classes, classes) tables of those who are wrong evenly."""
    wrong = (1 - accuracy) / max(1, count - 1)
    table = np.repeat(wrong[:, None], count * count, axis=1).reshape(-1, count, count)
    table[:, np.arange(count), np.arange(count)] = accuracy[:, None]
    return table


def _confusion(belief: Floats, rows: Ints, who: Ints, what: Ints, people: int, prior: tuple[float, float]) -> Floats:
    """Posterior mean of each table, the prior spread over each of its rows."""
    count = belief.shape[1]
    table = np.zeros((people, count, count))
    np.add.at(table, (who[:, None], np.arange(count), what[:, None]), belief[rows])
    table += prior[1] / max(1, count - 1) * (1 - np.eye(count)) + prior[0] * np.eye(count)
    return np.asarray(table / table.sum(axis=2, keepdims=True))


def _beliefs(log_prior: Floats, confusion: Floats, rows: Ints, who: Ints, what: Ints, known: Ints | None) -> Floats:
    """(n, classes) what each item is, given what the annotators are."""
    logs = log_prior.copy()
    np.add.at(logs, rows, np.log(confusion[who, :, what]))
    belief = np.exp(logs - logs.max(axis=1, keepdims=True))
    belief /= belief.sum(axis=1, keepdims=True)
    if known is not None:
        sure = np.flatnonzero(known >= 0)
        belief[sure] = 0.0
        belief[sure, known[sure]] = 1.0
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
    """Choose which item goes to which annotator, together: the most utility that a budget for labels buys.

    Choosing the item first and then the annotator (or always the cheapest, or always the best) pays expert prices for
    easy labels or takes cheap labels that are wrong. Here an entry of the table is a pair, its score what its label is
    worth (the item's uncertainty times what the annotator's accuracy makes of it) and its cost what that annotator
    takes. A price on money is raised until what every item would buy on its own fits the budget.

    Args:
        scores: (items, annotators) worth of each pair; -inf where the annotator is not to be asked.
        costs: (annotators,) price of a label, or (items, annotators), or flat.
        budget: money to spend.
        per_item: annotators an item is given to, at most (default 1).
        exclude: pairs that may not be picked, as flat positions `item * annotators + annotator`: those already asked.
        price_steps: halvings in which the price is searched; fewer are faster and leave a wider bound.

    Returns:
        Selection over the table's entries, best bargain first: `np.unravel_index(plan.indices, plan.info["shape"])`.
        `value` is the sum of scores, `bound` the most any choice could reach, `prices["costs"]` what one more unit of
        money would bring. Pairs of score 0 or less are never bought.

    Raises:
        InputError: costs of another shape, negative costs. InfeasibleError: a budget below the cheapest label;
            nothing left to ask.

    Costs O(n a log a) time for each of at most `price_steps` prices, O(n a) memory. The value is at least half of the
    optimum once the price is found to rounding, as the default steps do: what fits and the one label that no longer
    does are together worth the relaxation. `bound` holds for any number of steps.

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
    # What rounding takes from the bound may not put it below what was reached.
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
        # A pair worth nothing or dearer than the whole budget is in no best choice.
        self.useful = open_pairs & (value > 0) & (price <= limit)
        # An item that has none asks for no sorting either.
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
        # Above the best bargain only what is free is bought.
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
        """What the items buy where money costs `rate`; at ties the cheaper pair, then the lower annotator."""
        net = np.where(self.useful, self.value - rate * self.price, -np.inf)[self.entries]
        if self.per_item == 1:
            top = net.max(axis=1, keepdims=True)
            bills = np.where(net == top, self.price[self.entries], np.inf)
            places = bills.argmin(axis=1)[:, None]
        else:
            places = np.lexsort((self.price[self.entries], -net), axis=1)[:, : self.per_item]
        kept = np.take_along_axis(net, places, axis=1) > 0
        return np.take_along_axis(self.entries, places, axis=1)[kept]

    def fits(self, picks: Ints) -> bool:
        return bool(total(self.price[picks]) <= self.limit)

    def worth(self, picks: Ints) -> float:
        return math.fsum(self.value[picks].tolist())

    def relaxed(self, rate: float, picks: Ints) -> float:
        """What the items gain at this price, and the budget at that price: no choice is worth more."""
        net = self.value[picks] - rate * self.price[picks]
        return math.fsum([*net.tolist(), rate * float(self.limit)])

    def stepped(self, cheap: Ints, dear: Ints) -> Ints:
        """From what fits towards what just does not, item by item and pair by pair, as far as the money goes.

        Both are worth the same at the price between them, and so is every step: the first that does not fit brings the
        relaxation to its budget.
        """
        width = self.shape[1]
        held = set(cheap.tolist())
        left = self.limit - total(self.price[cheap])
        new, old = np.setdiff1d(dear, cheap), np.setdiff1d(cheap, dear)
        for entry in new.tolist():
            swaps = [other for other in old.tolist() if other // width == entry // width and other in held]
            freed = self.price[swaps[0]] if swaps else 0
            extra = self.price[entry] - freed
            if extra <= left and extra >= 0:
                held.difference_update(swaps[:1])
                held.add(entry)
                left -= extra
        return self._affordable(sorted(held), cheap)

    def topped_up(self, picks: Ints) -> Ints:
        """What money is left buys the best bargains that it can, for items that have room."""
        room = np.full(self.shape[0], self.per_item)
        np.subtract.at(room, picks // self.shape[1], 1)
        held = picks.tolist()
        useful = self.useful.copy()
        useful[picks] = False
        left = self.limit - total(self.price[picks])
        rest = np.flatnonzero(useful & (self.price <= left))
        for entry in self.ordered(rest).tolist():
            if self.price[entry] <= left and room[entry // self.shape[1]] > 0:
                held.append(entry)
                room[entry // self.shape[1]] -= 1
                left -= self.price[entry]
        return self._affordable(held, picks)

    def _affordable(self, picks: list[int], otherwise: Ints) -> Ints:
        """The picks, unless the running sum's rounding let through what the exact sum does not."""
        found = np.array(picks, np.int64)
        return found if self.fits(found) else otherwise

    def ordered(self, picks: Ints) -> Ints:
        """Best bargain first, then the dearer, then the lower position."""
        bills = self.price[picks].astype(np.float64)
        with np.errstate(divide="ignore"):
            bargain = np.where(bills > 0, self.value[picks] / np.where(bills > 0, bills, 1), np.inf)
        return np.asarray(picks[np.lexsort((picks, -self.value[picks], -bargain))], np.int64)
