"""A classifier by name, learnt from the labelled rows of a pool, with probabilities that can be believed."""

from __future__ import annotations

import math
import re
import time
import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kofn.core import checks
from kofn.core.arrays import Floats, Ints
from kofn.core.checks import InputError, nearest

# Probabilities below this say no more than that a class is unlikely.
_LEAST = 1e-6
# Temperatures are tried over this range; at the upper end all classes are about as likely.
_TEMPERATURES = np.geomspace(0.25, 64.0, 65)
_FOLDS = 5
# Multiplications in a step of the classifier from which on its linear algebra gains by threads: with fewer they wait
# for each other, a hundred times as long on a busy machine.
_WORTH_THREADS = 10**8
# In less time than this nothing is learnt: libraries take as long to load.
_LEAST_SECONDS = 0.5
# Under a limit a classifier learns from so many rows first, then from so many times more while the time allows.
_FIRST_ROWS, _MORE = 200, 4
# How its time is taken to grow with its rows.
_GROWTH = 1.5


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of every row of a pool.

    Attributes:
        probabilities: (n, classes), calibrated.
        temperature: by which the logarithms of the classifier's own probabilities were divided; infinite where nothing
            could be calibrated, and then all classes are as likely.
        accuracy: on labelled rows that were kept from it; NaN where there were too few.
        rows: labelled rows that it learnt from.
    """

    probabilities: Floats
    temperature: float
    accuracy: float
    rows: int


def predict(
    model: Any,
    X: NDArray[Any],
    rows: Ints,
    y: NDArray[Any],
    seed: int,
    name: str = "model",
    seconds: float = math.inf,
) -> Prediction | None:
    """Learn from the labelled rows and predict all; None where the time does not suffice.

    The temperature is the one at which labelled rows that were kept from the classifier, fold by fold, were most
    likely. Classes with one row take no part in that. Where time is limited the classifier learns from as many rows
    of each class as fit into it, and is calibrated by fewer folds.

    Args:
        model: a classifier of scikit-learn, or its name.
        X: (n, d) all rows.
        rows: those with a label.
        y: their labels, of at least two classes.
        seed: of classifiers that draw, below 2^32; the folds are always the same.
        name: of the argument, for errors.
        seconds: that all this may take; one fit more is the most that it takes beyond them.

    Raises:
        InputError: a name that scikit-learn does not have, no probabilities, or a classifier that cannot learn from
            these rows.
    """
    if seconds < _LEAST_SECONDS:
        return None
    until = time.monotonic() + seconds
    classes, codes = np.unique(y, return_inverse=True)
    points = _scaled(X)
    learner = classifier(model, seed, name)
    with _threads(points.shape[1] * len(classes) * len(rows)):
        learnt = _learnt_until(until, learner, points, rows, codes, name)
        if learnt is None:
            return None
        probabilities, used = learnt
        counts = np.bincount(codes[used], minlength=len(classes))
        several = np.flatnonzero(counts[codes[used]] > 1)
        if len(np.unique(codes[used][several])) < 2:
            return Prediction(np.full_like(probabilities, 1 / len(classes)), np.inf, np.nan, len(used))
        kept, seen = _kept_from_it(learner, points[rows[used]], codes[used], several, len(classes), name, until)
    if not seen.any():
        return None
    kept, truth = kept[seen], codes[used][several[seen]]
    logs = np.log(np.maximum(kept, _LEAST))
    loss = [-np.log(_softmax(logs / t)[np.arange(len(truth)), truth]).mean() for t in _TEMPERATURES]
    temperature = float(_TEMPERATURES[int(np.argmin(loss))])
    calibrated = _softmax(np.log(np.maximum(probabilities, _LEAST)) / temperature)
    return Prediction(calibrated, temperature, float((kept.argmax(axis=1) == truth).mean()), len(used))


def _threads(multiplications: int) -> AbstractContextManager[Any]:
    """Linear algebra on one thread where a step of the classifier is small; after its libraries are loaded."""
    if multiplications >= _WORTH_THREADS:
        return nullcontext()
    from threadpoolctl import threadpool_limits

    limits: AbstractContextManager[Any] = threadpool_limits(1, "blas")
    return limits


def _learnt_until(
    until: float, learner: Any, points: Floats, rows: Ints, codes: Ints, name: str
) -> tuple[Floats, Ints] | None:
    """What a copy of the classifier says of all points, and which of the labelled rows it learnt from.

    Those are all, or as many as leave the time for two folds. None where no time is left.
    """
    n_classes = int(codes.max()) + 1
    if until == math.inf:
        return _fitted(learner, points[rows], codes, n_classes, points, name), np.arange(len(rows))
    order = _in_shares(codes)
    count = min(len(rows), max(_FIRST_ROWS, 2 * n_classes))
    while True:
        used = np.sort(order[:count])
        began = time.monotonic()
        probabilities = _fitted(learner, points[rows[used]], codes[used], n_classes, points, name)
        now = time.monotonic()
        if now >= until:
            return None
        more = min(len(rows), _MORE * count)
        longer = (now - began) * (more / count) ** _GROWTH
        if more == count or now + 3 * longer > until:
            return probabilities, used
        count = more


def _in_shares(codes: Ints) -> Ints:
    """An order of rows in which each beginning holds two rows of each class, and then the classes' shares of all."""
    order = np.random.default_rng(0).permutation(len(codes))
    position, share = np.empty(len(codes)), np.bincount(codes)
    for code in np.unique(codes):
        own = order[codes[order] == code]
        position[own] = (np.arange(len(own)) + 0.5) / share[code]
        position[own[:2]] = -1.0
    return np.argsort(position, kind="stable")


def classifier(model: Any, seed: int, name: str = "model") -> Any:
    """An unfitted classifier of scikit-learn, its draws seeded.

    Args:
        model: the classifier, or its name: "random_forest", "RandomForestClassifier".
        seed: for classifiers that draw.
        name: of the argument, for errors.
    """
    from sklearn.base import clone

    if isinstance(model, str):
        learner = _named(model, name)
    elif callable(getattr(model, "fit", None)) and callable(getattr(model, "get_params", None)):
        learner = clone(model)
    else:
        raise InputError(
            f"{name}={checks.shown(model)}: give a classifier of scikit-learn or its name, such as 'random_forest'"
        )
    if not hasattr(learner, "predict_proba"):
        raise InputError(
            f"{name}={model if isinstance(model, str) else type(model).__name__}: it gives no probabilities; take one "
            "with predict_proba, such as logistic_regression, or wrap it in sklearn.calibration.CalibratedClassifierCV"
        )
    if "random_state" in learner.get_params():
        learner.set_params(random_state=seed)
    return learner


def _named(model: str, name: str) -> Any:
    if model == "logistic_regression":
        from sklearn.linear_model import LogisticRegression

        return LogisticRegression(max_iter=1_000)
    from sklearn.utils import all_estimators

    classifiers = {short_name(label): made for label, made in all_estimators(type_filter="classifier")}
    made = classifiers.get(short_name(model))
    if made is None:
        raise InputError(
            f"{name}={model!r}: scikit-learn has no such classifier{nearest(short_name(model), classifiers)}"
        )
    try:
        return made()
    except TypeError:
        raise InputError(
            f"{name}={model!r} is built from other classifiers; give it as an object from Python"
        ) from None


def short_name(label: str) -> str:
    """RandomForestClassifier as random_forest; names in that form stay as they are."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", label).lower()
    return words.removesuffix("_classifier")


def _scaled(X: NDArray[Any]) -> Floats:
    """Rows around their mean, in units of their mean distance to it: a penalty means the same for any data."""
    points = np.asarray(X, np.float64)
    points = points - points.mean(axis=0)
    size = float(np.sqrt((points * points).mean()))
    return points / size if size else points


def _fitted(learner: Any, X: Floats, codes: Ints, n_classes: int, asked: Floats, name: str) -> Floats:
    """(len(asked), n_classes) probabilities of a copy of the classifier that learnt from these rows."""
    from sklearn.base import clone

    out = np.zeros((len(asked), n_classes))
    present = np.unique(codes)
    if len(present) == 1:
        out[:, present] = 1.0
        return out
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted = clone(learner).fit(X, codes)
            out[:, fitted.classes_] = fitted.predict_proba(asked)
    except (ValueError, TypeError, AttributeError) as error:
        why = " ".join(str(error).split())[:160]
        raise InputError(f"{name}: {type(learner).__name__} cannot learn from these rows ({why})") from None
    return np.nan_to_num(out)


def _kept_from_it(
    learner: Any, X: Floats, codes: Ints, rows: Ints, n_classes: int, name: str, until: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """(len(rows), n_classes) probabilities of labelled rows by classifiers that did not see them, and which rows have
    them: those of the folds for which there was time."""
    from sklearn.model_selection import StratifiedKFold

    folds = int(min(_FOLDS, np.bincount(codes[rows])[np.unique(codes[rows])].max()))
    out, done = np.zeros((len(rows), n_classes)), np.zeros(len(rows), bool)
    everyone = np.arange(len(codes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some classes have fewer rows than there are folds
        parts = list(StratifiedKFold(folds, shuffle=True, random_state=0).split(rows, codes[rows]))
    took = 0.0
    for _, left_out in parts:
        began = time.monotonic()
        if began + took > until:
            break
        seen = np.setdiff1d(everyone, rows[left_out])
        out[left_out] = _fitted(learner, X[seen], codes[seen], n_classes, X[rows[left_out]], name)
        done[left_out] = True
        took = time.monotonic() - began
    return out, done


def _softmax(logs: Floats) -> Floats:
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    out: Floats = powers / powers.sum(axis=1, keepdims=True)
    return out


def counts_of(y: NDArray[Any]) -> Mapping[str, int]:
    """How many rows of each class, most first."""
    names, counts = np.unique(y, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {str(names[index]): int(counts[index]) for index in order}
