"""Which whole sources of data to add to one's own, and when to stop."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.constraints import total
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method

__all__ = ["shift_scores", "sources_by_shift"]


KINDS = ("classifier", "kl")
# A classifier needs a row of each side to learn from and one to be tried on.
_FEWEST_HALVED = 4


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
    target: Any = None,
    most: int | None = None,
    kind: str = "classifier",
    patience: int = 1,
    min_gain: float = 0.0,
    n_rows: int = 3000,
) -> Selection:
    """Add whole sources of rows to one's own in the order of their shift from it, and stop when the gain is spent.

    More rows help, but rows of another distribution hurt: accuracy, and that of the worst group, can fall. How well a
    classifier tells a source from the target says beforehand which sources to add first.

    Args:
        X: (n, d) the rows of all sources, the target among them.
        groups: (n,) which source each row is from.
        y: (n,) classes; with them a shift of the labels, or of what the labels depend on, counts as well.
        costs: (n,) cost of each row, default 1.
        budget: what the picked rows may cost in all, the target's own included; a source that does not fit is left
            out whole and the next one is tried.
        score: callable that trains on some rows and rates the result: `score(rows)` with row numbers in, a number out,
            higher is better. It is called for the target alone and after each source that is added.
        seed: whole number, for the rows that the shift is measured on.
        target: the source that counts: its label in `groups`. Its rows are picked first.
        most: add at most this many sources.
        kind: "classifier", the mean probability that a logistic regression gives a source's unseen rows of being from
            it (0.5 is no shift, 1 none in common); "kl", the divergence in bits by that classifier's odds.
        patience: with `score`, stop after so many sources in a row that brought no gain.
        min_gain: with `score`, what counts as a gain over the best so far.
        n_rows: rows of a source, and of the target, that its shift is measured on at most.

    Returns:
        Selection of the rows, whole sources one after the other, the target's first. With `score`, the sources up to
        the best rating, which is `value`; without, all that fit, and `value` is NaN. `info["sources"]` names them in
        order, `info["shift"]` has every source's shift, `info["ratings"]` the score after each source tried.

    Raises:
        InputError: no target, a label that no row has, a score that is no number. InfeasibleError: the target's own
            rows cost more than the budget.

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
        raise InputError("sources_by_shift needs target, the label in groups of the source that counts")
    limit = math.inf if most is None else checks.count(most, "most", least=0)
    patience = checks.count(patience, "patience")
    min_gain = float(checks.number(min_gain, "min_gain"))
    names, codes = np.unique(groups, return_inverse=True)
    labels = [str(name) for name in names.tolist()]
    own = _code(target, labels)
    if score is not None and not callable(score):
        raise InputError(f"score={score!r}: give a callable, score(rows) -> number")
    shift = shift_scores(X, groups=groups, y=y, target=target, kind=kind, n_rows=n_rows, seed=seed)
    rows = [np.flatnonzero(codes == code).astype(np.int64) for code in range(len(labels))]
    prices: list[Any] = [len(mine) if costs is None else total(costs[mine]) for mine in rows]
    room = math.inf if budget is None else budget
    if prices[own] > room:
        raise InfeasibleError(
            f"the rows of target={labels[own]!r} alone cost {prices[own]:g}, over the budget of {budget:g} by "
            f"{prices[own] - room:g}"
        )

    chosen, ratings, best, waited = [own], [], 1, 0
    if score is not None:
        ratings.append(_rating(score, rows[own]))
    others = sorted((code for code in range(len(labels)) if code != own), key=lambda code: (shift[labels[code]], code))
    for code in others:
        if len(chosen) > limit or waited >= patience:
            break
        if total([prices[held] for held in [*chosen, code]]) > room:
            continue
        chosen.append(code)
        if score is None:
            best = len(chosen)
            continue
        ratings.append(_rating(score, np.concatenate([rows[held] for held in chosen])))
        if ratings[-1] > ratings[best - 1] + min_gain:
            best, waited = len(chosen), 0
        else:
            waited += 1
    kept = chosen[:best]
    picks = np.concatenate([rows[code] for code in kept])
    spent = total([prices[code] for code in kept])
    unit = "rows" if costs is None else "costs"
    return Selection(
        n=len(X),
        indices=picks,
        gains=np.full(len(picks), math.nan),
        value=ratings[best - 1] if ratings else math.nan,
        used={unit: spent},
        budget={} if budget is None else {unit: budget},
        objective="source_score" if score is not None else "",
        additive=False,
        info={
            "oracle_calls": len(ratings),
            "sources": [labels[code] for code in kept],
            "shift": shift,
            "ratings": ratings,
        },
    )


def shift_scores(
    X: Any,
    *,
    groups: Any,
    target: Any,
    y: Any = None,
    kind: str = "classifier",
    n_rows: int = 3000,
    seed: int | None = None,
) -> dict[str, float]:
    """How far each source is from the target: how well a classifier tells its unseen rows from the target's.

    Each source and the target give equally many rows; a logistic regression on the standardised columns learns from one
    half and is tried on the source's rows of the other, and the other way round. With `y`, the columns are X, the
    class, and their products, so that a change of what the class depends on shows where X and y alone look alike.

    Args:
        X: (n, d) rows of all sources.
        groups: (n,) source of each row.
        target: label of the source that the others are held against.
        y: (n,) classes.
        kind: "classifier", mean probability of being from the source, 0.5 for none and 1 for full shift; "kl", mean
            log2 odds (probabilities held to 0.01..0.99), an estimate of the divergence in bits.
        n_rows: rows of each at most.
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
        >>> found = shift_scores(X, groups=np.repeat(list("tabc"), 100), target="t", seed=0)
        >>> [round(value, 1) for value in found.values()]
        [0.5, 0.7, 1.0]
    """
    X = checks.matrix(X)
    checks.choice(kind, "kind", KINDS)
    n_rows = checks.count(n_rows, "n_rows")
    sources = checks.groups(groups)
    checks.same_length(len(X), "X", "groups", len(sources))
    names, codes = np.unique(sources, return_inverse=True)
    labels = [str(name) for name in names.tolist()]
    own = _code(target, labels)
    table = _columns(X.astype(np.float64), y)
    rng = np.random.default_rng(checks.entropy(seed))
    mine = rng.permutation(np.flatnonzero(codes == own))
    out: dict[str, float] = {}
    for code, label in enumerate(labels):
        if code != own:
            theirs = rng.permutation(np.flatnonzero(codes == code))
            size = min(len(mine), len(theirs), n_rows)
            chances = _told_apart(table[theirs[:size]], table[mine[:size]])
            odds = np.clip(chances, 0.01, 0.99)
            out[label] = float(chances.mean() if kind == "classifier" else np.log2(odds / (1 - odds)).mean())
    return out


def _code(target: Any, labels: Sequence[str]) -> int:
    """The number of the target's label; numbers and their text are the same label."""
    if str(target) not in labels:
        raise InputError(f"target={target!r}: no row of groups has that label{checks.nearest(str(target), labels)}")
    return labels.index(str(target))


def _columns(X: Floats, y: Any) -> Floats:
    """X, or X, the classes but one, and their products."""
    if y is None:
        return X
    classes = checks.groups(y, "y")
    checks.same_length(len(X), "X", "y", len(classes))
    known, code = np.unique(classes, return_inverse=True)
    flags = np.eye(len(known))[code][:, 1:]
    centred = X - X.mean(axis=0)
    return np.concatenate([X, flags, *(centred * flags[:, [column]] for column in range(flags.shape[1]))], axis=1)


def _told_apart(theirs: Floats, mine: Floats) -> Floats:
    """(rows,) the probability that each of a source's rows is from it, by a classifier that has not seen the row."""
    from sklearn.linear_model import LogisticRegression

    both = np.concatenate([theirs, mine])
    deviation = both.std(axis=0)
    # Constant columns tell nothing and have no scale.
    scaled = (both - both.mean(axis=0))[:, deviation > 0] / deviation[deviation > 0]
    size = len(theirs)
    if scaled.shape[1] == 0:
        return np.full(size, 0.5)
    half = np.arange(size) % 2 if size >= _FEWEST_HALVED else np.zeros(size)
    chances = np.empty(size)
    is_theirs = np.arange(2 * size) < size
    for side in np.unique(half):
        tried = half == side
        seen = np.tile(~tried, 2) if size >= _FEWEST_HALVED else np.ones(2 * size, bool)
        model = LogisticRegression(max_iter=1000).fit(scaled[seen], is_theirs[seen])
        chances[tried] = model.predict_proba(scaled[:size][tried])[:, 1]
    return chances


def _rating(score: Any, rows: Ints) -> float:
    told = score(rows)
    if not checks.is_number(told) or not math.isfinite(told):
        raise InputError(f"score gave {told!r} for {len(rows)} rows; it must return a finite number, higher is better")
    return float(told)
