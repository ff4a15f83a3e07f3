"""The models of an ensemble: named, fitted out of fold, and asked for what they predict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from sklearn.base import clone, is_classifier, is_regressor
from sklearn.model_selection import GroupKFold, KFold, StratifiedGroupKFold, StratifiedKFold, check_cv
from sklearn.utils import _safe_indexing, check_array
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, column_or_1d, has_fit_parameter

from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError, refuse_nonfinite, shown
from kofn.core.plans import Blend

Model = tuple[str, Any]


def models_of(estimators: Any) -> list[tuple[str, Any]]:
    """The models with their names: as they are given, or after their classes.

    Raises:
        InputError: none, two of one name, what is no estimator, or classifiers beside regressors.
    """
    if isinstance(estimators, str) or not isinstance(estimators, Sequence) or not len(estimators):
        known = " (of a dictionary its items, list(models.items()))" if isinstance(estimators, Mapping) else ""
        raise InputError(f"estimators={shown(estimators)}: give a list of models, or of (name, model){known}")
    pairs = [item if isinstance(item, tuple) and len(item) == 2 else ("", item) for item in estimators]
    models: list[tuple[str, Any]] = [(name, model) for name, model in pairs if isinstance(name, str) and name]
    if len(models) < len(pairs):
        names = [type(item).__name__.lower() for item in estimators]
        models = [
            (name if names.count(name) == 1 else f"{name}-{names[: position + 1].count(name)}", model)
            for position, (name, model) in enumerate(zip(names, estimators, strict=True))
        ]
    for name, model in models:
        if [other for other, _ in models].count(name) > 1:
            raise InputError(f"estimators has the name {name!r} twice; give each model its own")
        if isinstance(model, type):
            raise InputError(f"estimators: {name!r} is the class {model.__name__}; give a model, {model.__name__}()")
        if not hasattr(model, "fit") or not hasattr(model, "predict"):
            raise InputError(
                f"estimators: {name!r} is {type(model).__name__}, which cannot fit and predict; give a model, or leave "
                "it out"
            )
    kinds = [is_classifier(model) for _, model in models]
    if any(kind != kinds[0] for kind in kinds):
        odd = models[kinds.index(not kinds[0])][0]
        raise InputError(f"estimators mixes classifiers and regressors: {odd!r} is unlike {models[0][0]!r}")
    return models


def refuse_shape(X: Any) -> None:
    """Refuse, in scikit-learn's words, rows that are no rows, or have nothing in them; the models check the rest."""
    shape: Any = getattr(X, "shape", None)
    if shape == () or X is None or np.isscalar(X):
        raise InputError(f"X={shown(X)}: give rows, (n, d)")
    if isinstance(X, list | tuple):
        widths = [len(row) if hasattr(row, "__len__") and not isinstance(row, str) else 1 for row in X]
        odd = next((i for i, width in enumerate(widths) if width != widths[0]), None)
        if odd is not None:
            raise InputError(f"X: row {odd} has {widths[odd]} values, row 0 has {widths[0]}; give each row as many")
    shape = () if shape is None else shape
    if len(shape) == 1:
        raise InputError(
            f"X: expected 2D array, got one of shape {shape} instead. Reshape your data by X.reshape(1, -1)"
        )
    if len(shape) == 2 and not shape[0]:
        raise InputError(f"X: 0 sample(s) (shape={tuple(shape)}) while a minimum of 1 is required.")
    if len(shape) == 2 and not shape[1]:
        raise InputError(f"X: 0 feature(s) (shape={tuple(shape)}) while a minimum of 1 is required.")


def answers_of(y: Any, n: int, *, classifies: bool) -> Array:
    """(n,) the answers, numbers where the models are regressors.

    Raises:
        InputError: other answers than one a row, texts that are no numbers for regressors.
    """
    try:
        answers: Array = column_or_1d(y, warn=True)
    except ValueError as error:
        if "1d array" not in str(error):
            raise
        raise InputError(f"{str(error).rstrip('.')}; give (n,), one answer a row") from None
    if len(answers) != n:
        raise InputError(f"X has {n} rows, y has {len(answers)} values; give one a row")
    if classifies or answers.dtype.kind in "biuf":
        return answers
    try:
        return answers.astype(np.float64)
    except (TypeError, ValueError):
        odd = next(i for i, value in enumerate(answers.tolist()) if not _is_numeric(value))
        raise InputError(
            f"y at row {odd} is {shown(answers.tolist()[odd])}, which is no number, and estimators are regressors; "
            "give classifiers for classes"
        ) from None


def groups_of(groups: Any, n: int) -> Array | None:
    """(n,) the group of each row, where there are groups.

    Raises:
        InputError: other groups than one a row.
    """
    if groups is None:
        return None
    labels: Array = column_or_1d(groups, warn=True)
    if len(labels) != n:
        raise InputError(f"X has {n} rows, groups has {len(labels)} values; give one a row")
    return labels


def average_weights(plan: Blend) -> Floats:
    """(m,) the models' weights, the mean over rows where they have weights of their own."""
    weights = plan.weights
    return np.mean(list(weights.values()), axis=0) if isinstance(weights, Mapping) else np.asarray(weights)


def numbers_of(X: Any, estimator: Any) -> Floats:
    """(n, d) the rows as numbers, all finite.

    Raises:
        InputError: a text among them, or what is not finite, by its place.
    """
    try:
        features = check_array(X, dtype=np.float64, estimator=estimator, ensure_all_finite=False)
    except ValueError as error:
        if "could not convert" not in str(error):
            raise
        raise InputError(
            f"X: {error}; rows are compared by all columns, which must be numbers: encode the others, or leave them out"
        ) from None
    refuse_nonfinite(features, "X")
    return np.asarray(features)


def numbered_classes(answers: Array) -> tuple[Array, Array]:
    """The classes, sorted, and the number of each row's.

    Raises:
        InputError: one class alone.
    """
    check_classification_targets(answers)
    classes, numbers = np.unique(answers, return_inverse=True)
    if len(classes) < 2:
        raise InputError(f"y has one class ({classes.tolist()[0]!r}); give rows of at least two classes")
    return classes, numbers


def _is_numeric(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def check_options(options: Any, own: Sequence[str]) -> None:
    """Refuse options that are no mapping, and those that are parameters of the estimator's own."""
    if options is not None and not isinstance(options, Mapping):
        raise InputError(
            f"options={shown(options)}: give a mapping of the method's options, such as {{'n_threads': 2}}"
        )
    for name in options or {}:
        if name in own or name in ("loss", "seed"):
            word = "random_state" if name == "seed" else name
            raise InputError(f"options names {name!r}, which the estimator has of its own; give it as {word}")


def check_prefit(name: str, model: Any, X: Any) -> None:
    """Refuse a model that is not fitted, or on other columns than X has, by name."""
    try:
        check_is_fitted(model)
    except Exception as error:
        raise InputError(f"prefit=True, but {name!r} is not fitted ({type(error).__name__}); fit it first") from None
    shape: Any = getattr(X, "shape", ())
    width = getattr(model, "n_features_in_", None)
    if width is not None and len(shape) == 2 and shape[1] != width:
        raise InputError(
            f"prefit=True, but {name!r} was fitted on {width} columns and X has {shape[1]}; give its columns"
        )


def predicted(name: str, model: Any, X: Any, classes: Array | None) -> Floats:
    """A model's predictions: numbers, or the probability of each of the classes, none for one that it never saw.

    Raises:
        InputError: a classifier without probabilities, or one of classes that y does not have.
    """
    if classes is None:
        if not is_regressor(model) and is_classifier(model):
            raise InputError(f"estimators: {name!r} is a classifier among regressors; leave it out")
        return np.asarray(model.predict(X), np.float64).reshape(-1)
    if not hasattr(model, "predict_proba"):
        raise InputError(
            f"estimators: {name!r} ({type(model).__name__}) has no predict_proba; wrap it in CalibratedClassifierCV"
        )
    chances = np.asarray(model.predict_proba(X), np.float64)
    strange = [label for label in model.classes_.tolist() if label not in set(classes.tolist())]
    if strange:
        raise InputError(
            f"estimators: {name!r} was fitted on class {strange[0]!r}, which y does not have (its classes: "
            f"{shown(classes.tolist())}); give y that class's rows or its names of classes, or leave the model out"
        )
    out = np.zeros((len(chances), len(classes)))
    out[:, np.searchsorted(classes, model.classes_)] = chances
    return out


def fitted(name: str, model: Any, X: Any, targets: Array, weights: Floats | None) -> Any:
    """A copy of a model, fitted to rows under their weights.

    Raises:
        InputError: weights of rows, which the model's fit does not take.
    """
    if weights is None:
        return clone(model).fit(X, targets)
    if not has_fit_parameter(model, "sample_weight"):
        raise InputError(
            f"sample_weight is given, but {name!r} ({type(model).__name__}) does not take it; leave the model out, or "
            "sample_weight"
        )
    return clone(model).fit(X, targets, sample_weight=weights)


def out_of_fold(
    models: Sequence[Model],
    X: Any,
    targets: Array,
    classes: Array | None,
    weights: Floats | None,
    splits: Iterable[tuple[Any, Any]],
) -> list[Floats]:
    """Predictions of every row by models that were fitted on other rows.

    Raises:
        InputError: a fold whose other rows are of one class, rows that are in no test fold or in several.
    """
    width = () if classes is None else (len(classes),)
    out = [np.full((len(targets), *width), np.nan) for _ in models]
    splits = list(splits)
    times = np.zeros(len(targets), np.int64)
    for _, test in splits:
        np.add.at(times, test, 1)
    if (times != 1).any():
        row = int((times != 1).argmax())
        raise InputError(
            f"cv has row {row} in {times[row]} test folds ({int((times != 1).sum())} rows are not in one); give a "
            "splitter that tests each row once, such as KFold"
        )
    for train, test in splits:
        rows, known = _safe_indexing(X, train), targets[train]
        shares = None if weights is None else weights[train]
        if classes is not None and len(np.unique(known if shares is None else known[shares > 0])) < 2:
            raise InputError("a fold of cv has rows of one class alone beside it; give fewer folds, or more rows")
        for prediction, (name, model) in zip(out, models, strict=True):
            prediction[test] = predicted(
                name, fitted(name, model, rows, known, shares), _safe_indexing(X, test), classes
            )
    return out


def splits_of(cv: Any, X: Any, answers: Array, groups: Any, seed: int, *, classifies: bool) -> Iterable[Any]:
    """Pairs of the rows that models are fitted on and those that they then predict.

    Args:
        cv: how many folds, or a splitter of scikit-learn, or the pairs.
        X: the rows.
        answers: (n,) the number of each row's class, or its answer.
        groups: (n,) the group of each row, of which none is in two folds; or None.
        seed: draws the folds.
        classifies: whether the answers are of classes.

    Raises:
        InputError: too few rows, folds or groups.
    """
    n = len(answers)
    if not isinstance(cv, int | np.integer) or isinstance(cv, bool):
        return check_cv(cv, answers, classifier=classifies).split(X, answers, groups)
    if n < 2 or cv < 2:
        raise InputError(f"n_samples={n}, cv={cv}: give at least 2 rows and 2 folds")
    zeros = np.zeros(n)
    if groups is not None:
        count = len(np.unique(groups))
        if count < 2:
            raise InputError("groups has one group; folds that keep groups together need at least two")
        kind = StratifiedGroupKFold if classifies else GroupKFold
        return kind(min(cv, count), shuffle=True, random_state=seed).split(zeros, answers, groups)
    fewest = int(np.bincount(answers).min()) if classifies else 0
    if fewest < 2:
        folds = max(2, min(cv, fewest)) if classifies else cv
        return KFold(min(folds, n), shuffle=True, random_state=seed).split(zeros)
    return StratifiedKFold(max(2, min(cv, fewest)), shuffle=True, random_state=seed).split(zeros, answers)
