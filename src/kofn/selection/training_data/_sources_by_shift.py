"""Whole sources of data to add to one's own, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.constraints import total
from kofn.core.draws import Draw
from kofn.core.helpers import helper
from kofn.core.plans import Selection
from kofn.core.registry import method

__all__ = ["shift_scores", "sources_by_shift"]

# A side of fewer rows is not halved: the classifier learns from all of its rows and is tried on the same ones.
_FEWEST_HALVED = 4


# Powers of two beyond which rows are rescaled before they are standardised.
_EXTREME = 100


@method(
    "select",
    draws=Draw(plain={"target": "a"}),
    cost="one logistic regression a source on at most 2 `n_rows` rows; one call of `score` a source tried",
    exact="the order of the measured shifts; a budget held exactly; no promise that a shift measures harm",
    paper=282,
)
def sources_by_shift(
    X: Any,
    *,
    groups: Any,
    y: Any = None,
    costs: Any = None,
    budget: float | None = None,
    score: Any = None,
    seed: int | None = None,
    target: Hashable = None,
    most: int | None = None,
    kind: Literal["classifier", "kl"] = "classifier",
    patience: int = 1,
    min_gain: float = 0.0,
    n_rows: int = 3000,
) -> Selection:
    """Add whole sources of rows to one's own in the order of their shift from it, and stop when the gain is spent.

    More rows help, but rows of another distribution can lower the accuracy, and that of the worst group. How well a
    classifier tells a source from the target predicts which sources to add first.

    Args:
        X: (n, d) the rows of all sources, the target among them.
        groups: (n,) the source of each row.
        y: (n,) classes; with them a shift of the classes, or of how they depend on X, counts as well.
        costs: (n,) cost of each row, default 1.
        budget: the total cost of the picked rows, the target's own included; a source that does not fit is left out
            whole and the next one is tried.
        score: callable that trains on some rows and rates the result: `score(rows)` with row numbers in, a number out,
            higher is better. It is called for the target alone and after each source that is added.
        seed: draws the rows that the shift is measured on; the same seed gives the same plan.
        target: one's own source: its label in `groups`. Its rows are picked first.
        most: add at most this many sources.
        kind: "classifier", the mean probability that a logistic regression assigns a source's unseen rows to it (0.5:
            no shift, 1: nothing in common); "kl", the divergence in bits by that classifier's odds.
        patience: with `score`, stop after this many sources in a row without a gain.
        min_gain: with `score`, a rating counts as a gain if it exceeds the best so far by more than this.
        n_rows: the most rows of a source, and of the target, that its shift is measured on.

    Returns:
        Selection of the rows, whole sources one after the other, the target's first. With `score`, the sources up to
        the best rating, which is `value`; without, all that fit, and `value` is NaN. `info["sources"]` lists
        their labels in order, `info["shift"]` every source's shift, `info["ratings"]` the score after each source
        tried.

    Raises:
        InputError: no target, a label that no row has, a score that is not a number. InfeasibleError: the target's
            own rows cost more than the budget.

    Costs a logistic regression a source, O(n_rows d) an iteration, and one call of `score` a source tried. The order is
    that of the measured shifts (equal ones by label); neither it nor the stop promises the best set of sources.

    References:
        Shen, Raji, Chen, "The Data Addition Dilemma", Machine Learning for Healthcare 2024.

    Examples:
        >>> import numpy as np
        >>> from kofn.selection import sources_by_shift
        >>> rng = np.random.default_rng(0)
        >>> X = rng.normal(size=(300, 2)) + np.repeat([0.0, 3.0, 0.5], 100)[:, None]
        >>> sources = np.repeat(["mine", "far", "near"], 100)
        >>> plan = sources_by_shift(X, groups=sources, target="mine", budget=200, seed=0)
        >>> plan.info["sources"], len(plan)
        (['mine', 'near'], 200)
    """
    if target is None:
        raise InputError("sources_by_shift needs target, the label in groups of your own source")
    limit = math.inf if most is None else checks.count(most, "most", least=0)
    patience = checks.count(patience, "patience")
    min_gain = float(checks.number(min_gain, "min_gain"))
    labels, codes, own = _labelled(groups, target)
    if score is not None and not callable(score):
        raise InputError(f"score={checks.shown(score)}: give a callable, score(rows) -> number")
    shift = shift_scores(X, groups=groups, y=y, target=target, kind=kind, n_rows=n_rows, seed=seed)
    others = [code for code in range(len(labels)) if code != own]
    order = [own, *sorted(others, key=lambda code: (shift[labels[code]], code))]
    sources = [_Source.of(labels[code], np.flatnonzero(codes == code), costs) for code in order]
    room = math.inf if budget is None else budget
    if sources[0].price > room:
        raise InfeasibleError(
            f"the rows of target={labels[own]!r} alone cost {sources[0].price:g}, over the budget of {budget:g} by "
            f"{sources[0].price - room:g}"
        )
    kept, ratings = _add_in_turn(sources, room, limit, score, patience, min_gain)
    picks = _rows_of(kept)
    unit = "rows" if costs is None else "costs"
    return Selection(
        n=len(X),
        indices=picks,
        gains=np.full(len(picks), math.nan),
        value=ratings[len(kept) - 1] if ratings else math.nan,
        used={unit: total([source.price for source in kept])},
        budget={} if budget is None else {unit: budget},
        objective="source_score" if score is not None else "",
        additive=False,
        info={
            "oracle_calls": len(ratings),
            "sources": [source.label for source in kept],
            "shift": shift,
            "ratings": ratings,
        },
    )


@dataclass(frozen=True, eq=False)
class _Source:
    """One source: its label, its rows and their total cost."""

    label: str
    rows: Ints
    price: float | int

    @classmethod
    def of(cls, label: str, rows: Ints, costs: Any) -> _Source:
        """The source of these rows; without costs, a row costs 1."""
        return cls(label, rows.astype(np.int64), len(rows) if costs is None else total(costs[rows]))


def _rows_of(sources: Sequence[_Source]) -> Ints:
    return np.concatenate([source.rows for source in sources])


def _add_in_turn(
    sources: Sequence[_Source],
    room: float,
    most: float,
    score: Callable[[Ints], Any] | None,
    patience: int,
    min_gain: float,
) -> tuple[list[_Source], list[float]]:
    """Add the sources to the first one in their order, at most `most` of them and within the budget `room`.

    Returns the sources up to the best rating (all added ones without `score`), and the rating after each source added.
    """
    added, best, waited = [sources[0]], 1, 0
    ratings = [] if score is None else [_rating(score, _rows_of(added))]
    for source in sources[1:]:
        if len(added) > most or waited >= patience:
            break
        if total([*(other.price for other in added), source.price]) > room:
            continue
        added.append(source)
        if score is None:
            best = len(added)
            continue
        ratings.append(_rating(score, _rows_of(added)))
        if ratings[-1] > ratings[best - 1] + min_gain:
            best, waited = len(added), 0
        else:
            waited += 1
    return added[:best], ratings


@helper
def shift_scores(
    X: ArrayLike,
    *,
    groups: ArrayLike,
    target: Hashable,
    y: ArrayLike | None = None,
    kind: Literal["classifier", "kl"] = "classifier",
    n_rows: int = 3000,
    seed: int | None = None,
) -> dict[str, float]:
    """Measure each source's shift from the target: how well a classifier tells its unseen rows from the target's.

    Each source and the target give equally many rows; a logistic regression on the standardised columns learns from one
    half and is tried on the source's rows of the other, and the other way round. With `y`, the columns are X, the
    class, and their products, so that a change of how the class depends on X shows where X and y alone look alike.

    Args:
        X: (n, d) rows of all sources.
        groups: (n,) source of each row.
        target: label of the source that the others are compared with.
        y: (n,) classes.
        kind: "classifier", mean probability of being from the source, 0.5 for no shift and 1 for a full one; "kl", mean
            log2 odds (probabilities clipped to 0.01..0.99), an estimate of the divergence in bits.
        n_rows: the most rows of each source.
        seed: whole number.

    Returns:
        {label: shift}, the target left out, in the order of the sorted labels.

    Raises:
        InputError: no row has the target's label, or an unknown `kind`.

    Cost: a logistic regression on at most 2 `n_rows` rows for each source. With fewer than 4 rows on a side the
    classifier is tried on the rows that it learnt from.

    References:
        Shen, Raji, Chen, "The Data Addition Dilemma", MLHC 2024 (its `score` heuristic).

    Examples:
        >>> import numpy as np
        >>> from kofn.selection import shift_scores
        >>> X = np.random.default_rng(0).normal(size=(400, 1)) + np.repeat([0.0, 0.0, 2.0, 9.0], 100)[:, None]
        >>> shifts = shift_scores(X, groups=np.repeat(list("tabc"), 100), target="t", seed=0)
        >>> [round(value, 1) for value in shifts.values()]
        [0.5, 0.7, 1.0]
    """
    X = checks.matrix(X)
    checks.choice(kind, "kind", ("classifier", "kl"))
    n_rows = checks.count(n_rows, "n_rows")
    sources = checks.groups(groups)
    checks.same_length(len(X), "X", "groups", len(sources))
    labels, codes, own = _labelled(sources, target)
    table = _columns(X.astype(np.float64), y)
    rng = np.random.default_rng(checks.entropy(seed))
    own_rows = rng.permutation(np.flatnonzero(codes == own))
    out: dict[str, float] = {}
    for code, label in enumerate(labels):
        if code != own:
            rows = rng.permutation(np.flatnonzero(codes == code))
            size = min(len(own_rows), len(rows), n_rows)
            chances = _chances(table[rows[:size]], table[own_rows[:size]])
            odds = np.clip(chances, 0.01, 0.99)
            out[label] = float(chances.mean() if kind == "classifier" else np.log2(odds / (1 - odds)).mean())
    return out


def _labelled(groups: Any, target: Hashable) -> tuple[list[str], Ints, int]:
    """The sorted labels, (n,) the code of each row's label, and the target's; a number equals its text as a label."""
    names, codes = np.unique(groups, return_inverse=True)
    labels = [str(name) for name in names.tolist()]
    if str(target) not in labels:
        raise InputError(
            f"target={checks.shown(target)}: no row of groups has that label{checks.nearest(str(target), labels)}"
        )
    return labels, codes, labels.index(str(target))


def _columns(X: Floats, y: Any) -> Floats:
    """X; with classes, X, indicators of all classes but one, and their products with X."""
    if y is None:
        return X
    classes = checks.groups(y, "y")
    checks.same_length(len(X), "X", "y", len(classes))
    known, code = np.unique(classes, return_inverse=True)
    flags = np.eye(len(known))[code][:, 1:]
    centred = X - X.mean(axis=0)
    return np.concatenate([X, flags, *(centred * flags[:, [column]] for column in range(flags.shape[1]))], axis=1)


def _chances(rows: Floats, own_rows: Floats) -> Floats:
    """(rows,) the probability that each of a source's rows is from it, by a classifier that has not seen the row."""
    from sklearn.linear_model import LogisticRegression

    both = np.concatenate([rows, own_rows])
    exponent = math.frexp(float(np.abs(both).max(initial=0.0)))[1]
    if abs(exponent) > _EXTREME:  # what is standardised has no unit, and squares of extreme numbers no value
        both = np.ldexp(both, -exponent)
    deviation = both.std(axis=0)
    # Constant columns carry no information and have no scale.
    scaled = (both - both.mean(axis=0))[:, deviation > 0] / deviation[deviation > 0]
    size = len(rows)
    if scaled.shape[1] == 0:
        return np.full(size, 0.5)
    half = np.arange(size) % 2 if size >= _FEWEST_HALVED else np.zeros(size)
    chances = np.empty(size)
    from_source = np.arange(2 * size) < size
    for side in np.unique(half):
        tried = half == side
        seen = np.tile(~tried, 2) if size >= _FEWEST_HALVED else np.ones(2 * size, bool)
        model = LogisticRegression(max_iter=1000).fit(scaled[seen], from_source[seen])
        chances[tried] = model.predict_proba(scaled[:size][tried])[:, 1]
    return chances


def _rating(score: Callable[[Ints], Any], rows: Ints) -> float:
    rating = score(rows)
    if not checks.is_number(rating) or not math.isfinite(rating):
        raise InputError(
            f"score gave {rating!r} for {len(rows)} rows; it must return a finite number, higher is better"
        )
    return float(rating)
