"""A classifier by name, learnt from the labelled rows of a pool, with probabilities that can be believed."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping
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


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of every row of a pool.

    Attributes:
        probabilities: (n, classes), calibrated.
        temperature: by which the logarithms of the classifier's own probabilities were divided; infinite where nothing
            could be calibrated, and then all classes are as likely.
        accuracy: on labelled rows that were kept from it; NaN where there were too few.
    """

    probabilities: Floats
    temperature: float
    accuracy: float


def predict(model: Any, X: NDArray[Any], rows: Ints, y: NDArray[Any], seed: int, name: str = "model") -> Prediction:
    """Learn from the labelled rows and predict all.

    The temperature is the one at which labelled rows that were kept from the classifier, fold by fold, were most
    likely. Classes with one row take no part in that.

    Args:
        model: a classifier of scikit-learn, or its name.
        X: (n, d) all rows.
        rows: those with a label.
        y: their labels, of at least two classes.
        seed: of classifiers that draw, below 2^32; the folds are always the same.
        name: of the argument, for errors.

    Raises:
        InputError: a name that scikit-learn does not have, no probabilities, or a classifier that cannot learn from
            these rows.
    """
    classes, codes, counts = np.unique(y, return_inverse=True, return_counts=True)
    points = _scaled(X)
    learner = classifier(model, seed, name)
    probabilities = _fitted(learner, points[rows], codes, len(classes), points, name)
    several = np.flatnonzero(counts[codes] > 1)
    if len(np.unique(codes[several])) < 2:
        return Prediction(np.full_like(probabilities, 1 / len(classes)), np.inf, np.nan)
    kept = _kept_from_it(learner, points[rows], codes, several, len(classes), name)
    logs, truth = np.log(np.maximum(kept, _LEAST)), codes[several]
    loss = [-np.log(_softmax(logs / t)[np.arange(len(truth)), truth]).mean() for t in _TEMPERATURES]
    temperature = float(_TEMPERATURES[int(np.argmin(loss))])
    calibrated = _softmax(np.log(np.maximum(probabilities, _LEAST)) / temperature)
    return Prediction(calibrated, temperature, float((kept.argmax(axis=1) == truth).mean()))


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


def _kept_from_it(learner: Any, X: Floats, codes: Ints, rows: Ints, n_classes: int, name: str) -> Floats:
    """(len(rows), n_classes) probabilities of labelled rows by classifiers that did not see them."""
    from sklearn.model_selection import StratifiedKFold

    folds = int(min(_FOLDS, np.bincount(codes[rows])[np.unique(codes[rows])].max()))
    out = np.zeros((len(rows), n_classes))
    everyone = np.arange(len(codes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some classes have fewer rows than there are folds
        parts = list(StratifiedKFold(folds, shuffle=True, random_state=0).split(rows, codes[rows]))
    for _, left_out in parts:
        seen = np.setdiff1d(everyone, rows[left_out])
        out[left_out] = _fitted(learner, X[seen], codes[seen], n_classes, X[rows[left_out]], name)
    return out


def _softmax(logs: Floats) -> Floats:
    powers = np.exp(logs - logs.max(axis=1, keepdims=True))
    out: Floats = powers / powers.sum(axis=1, keepdims=True)
    return out


def counts_of(y: NDArray[Any]) -> Mapping[str, int]:
    """How many rows of each class, most first."""
    names, counts = np.unique(y, return_counts=True)
    order = np.argsort(-counts, kind="stable")
    return {str(names[index]): int(counts[index]) for index in order}
