"""The next rows to label: those that cover best what a classifier of the labelled rows is unsure of."""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Hashable
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import ArrayLike

from kofn.core import checks
from kofn.core.calls_ahead import CallAhead
from kofn.core.checks import InfeasibleError, InputError
from kofn.core.draws import Draw
from kofn.core.plans import Selection
from kofn.core.registry import method
from kofn.core.words import Resources, Where
from kofn.objectives.facility_location import FacilityLocation, refuse_memory
from kofn.selection.greedy._run import greedy
from kofn.selection.greedy._search import Search
from kofn.selection.labels._classifier import classifier, counts_of, predict
from kofn.selection.labels._labelled_rows import labelled_rows
from kofn.selection.labels._uncertainty import uncertainty

# The shares of a time limit by which the classifier must have learnt, and the labelled rows must have been added.
_LEARNT_BY, _ADDED_BY = 0.4, 0.7
# Pairs of a labelled row and a row that are looked at however little time there is.
_FEW_PAIRS = 1_000_000


class Round(Where, Resources, total=False):
    """What the picks of one round must obey, and what the work may take."""


def _refuse_ahead(ahead: CallAhead) -> None:
    """Refuse a `max_memory` that facility location in the kernel would not keep."""
    metric = "rbf" if ahead.options.get("bandwidth") is None else "sqeuclidean"
    refuse_memory(ahead.n, ahead.width, ahead.itemsize, metric, ahead.max_memory, ahead.n_threads)


@method(
    "select",
    traits=("sandwich",),
    refuse_ahead=_refuse_ahead,
    draws=Draw(
        compiled=True,
        units={"bandwidth": "input"},
        plain={"y": np.array([0, 1, -1, -1, -1, -1])},
        options={
            "kind": ("margin", "entropy", "least_confident"),
            "bandwidth": (0.25, 1.0, 4.0),
            "unlabelled": "in rounds",
        },
    ),
    cost="a fit of the classifier and five more for its calibration, then as lazy_greedy; O(n d) memory",
    exact="greedy for the uncertainty that is left uncovered; >= (1 - 1/e) of the optimum where only k binds",
    paper=1001,
    aliases=("active learning", "in rounds", "which rows to label next", "uherding"),
)
def uncertainty_herding(
    X: Any,
    *,
    y: Any = None,
    weights: ArrayLike | None = None,
    seed: int | None = None,
    model: Any = "logistic_regression",
    kind: Literal["margin", "entropy", "least_confident"] = "margin",
    bandwidth: float | None = None,
    unlabelled: Hashable = -1,
    **words: Unpack[Round],
) -> Selection:
    """Pick the next rows to label: those that cover best what a classifier of the labelled rows is unsure of.

    Args:
        X: vectors (n, d), labelled rows and others.
        y: (n,) labels, `unlabelled` where a row has none; labels are classes, also where they are numbers. Without a
            label (or without y) all rows count alike: the first round.
        weights: (n,) how much each row counts beside the doubt about it, >= 0, default 1.
        model: a classifier of scikit-learn by name ("logistic_regression", "random_forest", ...), or one itself, that
            learns from the labelled rows and says how unsure it is of each row. "none": all rows count alike, and
            only what the labelled rows cover is left out.
        kind: of the uncertainty, as in `uncertainty`.
        bandwidth: of the kernel exp(-distance^2 / (2 bandwidth^2)), > 0; default as in facility location.
        unlabelled: the value in y of rows without a label, default -1.
        start: open rows to begin from; `include` likewise. Labelled rows are none: they are never picked, count as
            covered, and take nothing of k, budget or quotas.

    Returns:
        Selection of open rows in the order picked. `gains` is the uncertainty that each covers anew, `value` their sum;
        `info["labels"]` counts the labelled rows of each class, `info["uncertainty"]` is (n,), `info["accuracy"]` the
        classifier's on labelled rows that were kept from it, `info["temperature"]` what calibrated it,
        `info["learnt_from"]` how many labelled rows it learnt from: under `time_limit` as many as fit into 0.4 of it,
        and 0 where none do, so that all rows count alike. Where it is sure of every row, all count alike too, and
        `info["sure"]` is True.

    Raises:
        InputError: every row is labelled, `unlabelled` without y, or the classifier cannot learn from these rows.
        InfeasibleError: k above the number of rows without a label, or constraints that cannot be met together.

    The classifier's probabilities are calibrated by one temperature, at which labelled rows that were kept from it fold
    by fold are most likely (the paper: the least calibration error). While no two classes have two rows there is
    nothing to calibrate by, and all rows count alike; so it is with one class. The paper's radius falls with the least
    distance of two labelled rows; here the bandwidth stays.

    Costs six fits of the classifier, one pass for each labelled row and then those of `lazy_greedy`; O(n d) memory.

    References:
        Bae, Oliveira, Sutherland, "Uncertainty Herding: One Active Learning Method for All Label Budgets", ICLR 2025.

    Examples:
        >>> from kofn.selection import uncertainty_herding
        >>> X = [[0.0], [0.2], [2.1], [2.3], [2.5], [5.0], [5.2]]
        >>> plan = uncertainty_herding(X, y=["a", "?", "?", "?", "?", "b", "?"], k=1, unlabelled="?")
        >>> plan.indices.tolist(), plan.info["labels"]
        ([3], {'a': 1, 'b': 1})
    """
    checks.choice(kind, "kind", ("margin", "entropy", "least_confident"))
    n = len(X)
    if y is None and unlabelled != -1:
        raise InputError(f"unlabelled={checks.shown(unlabelled)}: give y, whose value it is")
    labelled = np.zeros(n, bool) if y is None else labelled_rows(y, unlabelled)
    rows, left = np.flatnonzero(labelled), n - int(labelled.sum())
    _refuse_labelled(words, labelled)
    excluded = labelled.copy()
    if words.get("exclude") is not None:
        excluded[np.asarray(words["exclude"], np.int64)] = True
    k = words.get("k")
    if labelled.any() and k is not None and k > n - excluded.sum() and words.get("budget") is None:
        also = f", of which {left - (n - excluded.sum())} are excluded" if excluded.sum() > len(rows) else ""
        raise InfeasibleError(
            f"k={k}, but {left:,} of {n:,} rows have no label yet{also}; ask for k <= {n - excluded.sum()}"
        )
    began, limit = time.monotonic(), words.get("time_limit")
    seconds = math.inf if limit is None else limit
    doubt, learnt = np.ones(n), {"temperature": math.nan, "accuracy": math.nan}
    known = np.zeros(0) if y is None else y[rows]
    named = isinstance(model, str)
    learns = not (model is None or (named and model == "none"))
    if learns and len(np.unique(known)) > 1:
        drawn = int(np.random.default_rng(seed).integers(2**31))
        predicted = predict(model, X, rows, known, drawn, seconds=seconds * _LEARNT_BY)
        learnt["learnt_from"] = 0 if predicted is None else predicted.rows
        if predicted is not None:
            learnt |= {"temperature": predicted.temperature, "accuracy": predicted.accuracy}
            doubt = uncertainty(predicted.probabilities, kind=kind)
    elif learns and not (named and model == "logistic_regression"):
        classifier(model, 0)  # what is no classifier is refused in the first round already
    heavy = np.ones(n) if weights is None else np.asarray(weights, np.float64)
    if not (doubt * heavy)[~labelled].any():
        # A classifier that is sure of all rows tells none of them apart.
        doubt, learnt = np.ones(n), {**learnt, "sure": True}
    memory: Any = words.get("max_memory")
    objective = FacilityLocation(
        X,
        metric="rbf",
        weights=doubt * heavy,
        bandwidth=bandwidth,
        max_memory=memory,
        n_threads=words.get("n_threads"),
    )
    valued = True
    for position, row in enumerate(rows.tolist()):
        if position * X.shape[0] > _FEW_PAIRS and time.monotonic() - began > seconds * _ADDED_BY:
            valued = False
            break
        objective.add(row)
    if limit is not None:
        words["time_limit"] = max(0.0, limit - (time.monotonic() - began))
    plan = greedy({**words, "X": X, "objective": objective, "exclude": np.flatnonzero(excluded)}, Search)
    info = {**plan.info, **learnt, "labels": dict(counts_of(known)), "uncertainty": doubt}
    if not valued:
        # What labelled rows cover that were not looked at would have to be taken off.
        plan = dataclasses.replace(plan, value=math.nan, bound=None, gains=np.full(len(plan), math.nan))
    return dataclasses.replace(plan, objective="uncertainty_coverage", info=info)


def _refuse_labelled(words: Any, labelled: Any) -> None:
    """Refuse rows to begin from that have a label already."""
    for word in ("include", "start"):
        given = words.get(word)
        if given is not None and labelled[given].any():
            row = int(np.asarray(given)[labelled[given]][0])
            raise InputError(f"{word} names row {row}, which has a label; labelled rows count as covered already")
