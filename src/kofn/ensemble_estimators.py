"""scikit-learn's doors to ensembles: estimators that fit models, or take fitted ones, and blend their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, clone, is_classifier, is_regressor
from sklearn.metrics import accuracy_score, r2_score
from sklearn.model_selection import KFold, StratifiedKFold, check_cv
from sklearn.utils import Tags, _safe_indexing, check_random_state, get_tags, indexable
from sklearn.utils.metaestimators import _BaseComposition, available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import _num_samples, check_is_fitted, column_or_1d, validate_data

from kofn.combination import blend_predictions
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.verbs import combine


def _classifies(ensemble: Any) -> bool:
    return bool(is_classifier(_models(ensemble.estimators)[0][1]))


def _models(estimators: Any) -> list[tuple[str, Any]]:
    """The models with their names: as they are given, or after their classes.

    Raises:
        InputError: none, two of one name, what is no estimator, or classifiers beside regressors.
    """
    if isinstance(estimators, str) or not isinstance(estimators, Sequence) or not len(estimators):
        raise InputError("estimators: give a list of models, or of (name, model)")
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
        if not hasattr(model, "fit") or not hasattr(model, "predict"):
            raise InputError(f"estimators: {name!r} is {type(model).__name__}, which cannot fit and predict")
    kinds = [is_classifier(model) for _, model in models]
    if any(kind != kinds[0] for kind in kinds):
        odd = models[kinds.index(not kinds[0])][0]
        raise InputError(f"estimators mixes classifiers and regressors: {odd!r} is unlike {models[0][0]!r}")
    return models


def _refuse_shape(X: Any) -> None:
    """Refuse, in scikit-learn's words, rows that are no rows, or have nothing in them; the models check the rest."""
    shape: Any = getattr(X, "shape", ())
    if len(shape) == 1:
        raise InputError(
            f"X: expected 2D array, got one of shape {shape} instead. Reshape your data by X.reshape(1, -1)"
        )
    if len(shape) == 2 and not shape[0]:
        raise InputError(f"X: 0 sample(s) (shape={tuple(shape)}) while a minimum of 1 is required.")
    if len(shape) == 2 and not shape[1]:
        raise InputError(f"X: 0 feature(s) (shape={tuple(shape)}) while a minimum of 1 is required.")


class _Ensemble(_BaseComposition, BaseEstimator):
    """Models fitted out of fold, a plan of their predictions, and the models of weight fitted on all rows."""

    estimators: Any
    loss: str | None
    quantile: float | None
    cv: Any
    prefit: bool
    options: Mapping[str, Any] | None
    random_state: Any
    _method: Any = ""  # the verbs' types know each method by its own literal

    def _words(self) -> dict[str, Any]:
        """The words of the method that the estimator's own parameters stand for."""
        return {}

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The parameters, with those of named models as `name__parameter`."""
        params: dict[str, Any] = self._get_params("estimators", deep=deep)
        return params

    def set_params(self, **params: Any) -> Self:
        """Set parameters, also those of named models, as `name__parameter`."""
        self._set_params("estimators", **params)
        return self

    def __sklearn_tags__(self) -> Tags:
        """Those of the models: what the ensemble is, and what input all of them take."""
        tags: Tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        try:
            models = [get_tags(model) for _, model in _models(self.estimators)]
        except InputError:
            return tags
        first = models[0]
        tags.estimator_type = first.estimator_type
        tags.classifier_tags, tags.regressor_tags = first.classifier_tags, first.regressor_tags
        tags.input_tags.sparse = all(model.input_tags.sparse for model in models)
        tags.input_tags.allow_nan = all(model.input_tags.allow_nan for model in models)
        tags.input_tags.categorical = all(model.input_tags.categorical for model in models)
        return tags

    def fit(self, X: Any, y: Any) -> Self:
        """Predict every row by models that were not fitted on it, weigh them, and fit those of weight on all rows.

        With `prefit` the models are taken as they are, and X, y must be rows that they were not fitted on.
        """
        models = _models(self.estimators)
        _refuse_shape(X)
        (X,) = indexable(X)
        X, y = validate_data(self, X, y, skip_check_array=True)
        n = _num_samples(X)
        answers = column_or_1d(y, warn=True)
        if len(answers) != n:
            raise InputError(f"X has {n} rows, y has {len(answers)} values; give one a row")
        classifies = _classifies(self)
        if classifies:
            check_classification_targets(answers)
            self.classes_, answers = np.unique(answers, return_inverse=True)
            if len(self.classes_) < 2:
                raise InputError(f"y has one class ({self.classes_[0]!r}); give rows of at least two classes")
        elif answers.dtype.kind not in "biuf":
            answers = answers.astype(np.float64)
        if self.prefit:
            for name, model in models:
                _check_prefit(name, model)
            predictions = [_predicted(name, model, X, classes=self._classes()) for name, model in models]
        else:
            predictions = self._out_of_fold(models, X, answers, n)
        words: dict[str, Any] = {"loss": self.loss} if self.loss is not None else {}
        if self.quantile is not None:
            words["quantiles"] = [self.quantile]
        elif classifies:
            words["classes"] = list(range(len(self.classes_)))
            words.setdefault("loss", "log_loss")
        else:
            words.setdefault("loss", "rmse")
        names = np.array([name for name, _ in models])
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        self.plan_: Blend = combine(
            predictions,
            y=answers,
            ids=names,
            seed=int(seed),
            method=self._method,
            options=self.options,
            **words,
            **self._words(),
        )
        self.weights_: Floats = _average_weights(self.plan_)
        used = self._used()
        self.estimators_ = {
            name: model if self.prefit else clone(model).fit(X, self._targets(answers))
            for name, model in models
            if used is None or name in used
        }
        return self

    def _used(self) -> set[str] | None:
        """The models that the blend needs; None for all of them."""
        return {name for name, weight in zip(self._names(), self.weights_, strict=True) if weight != 0}

    def _names(self) -> list[str]:
        """The models' names, in order."""
        return [str(name) for name in self.plan_.keys(np.arange(self.plan_.n))]

    def _classes(self) -> Array | None:
        return self.classes_ if hasattr(self, "classes_") else None

    def _targets(self, answers: Array) -> Array:
        """What models are fitted to: classes by their own names."""
        return self.classes_[answers] if hasattr(self, "classes_") else answers

    def _out_of_fold(self, models: list[tuple[str, Any]], X: Any, answers: Array, n: int) -> list[Floats]:
        """Predictions of every row by models that were fitted on other rows."""
        targets = self._targets(answers)
        classes = self._classes()
        width = () if classes is None else (len(classes),)
        out = [np.full((n, *width), np.nan) for _ in models]
        for train, test in self._splits(X, answers, n):
            rows, known = _safe_indexing(X, train), targets[train]
            for predicted, (name, model) in zip(out, models, strict=True):
                if classes is not None and len(np.unique(known)) < 2:
                    raise InputError(
                        f"a fold of cv={self.cv!r} has rows of one class alone; give fewer folds, or more rows"
                    )
                fitted = clone(model).fit(rows, known)
                predicted[test] = _predicted(name, fitted, _safe_indexing(X, test), classes)
        return out

    def _splits(self, X: Any, answers: Array, n: int) -> Any:
        if not isinstance(self.cv, int | np.integer) or isinstance(self.cv, bool):
            return check_cv(self.cv, answers, classifier=_classifies(self)).split(X, answers)
        if n < 2 or self.cv < 2:
            raise InputError(f"n_samples={n}, cv={self.cv}: give at least 2 rows and 2 folds")
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        if not _classifies(self):
            return KFold(min(self.cv, n), shuffle=True, random_state=seed).split(X)
        fewest = int(np.bincount(answers).min())
        folds = max(2, min(int(self.cv), fewest))
        if fewest < 2:
            return KFold(min(folds, n), shuffle=True, random_state=seed).split(X)
        return StratifiedKFold(folds, shuffle=True, random_state=seed).split(np.zeros(n), answers)

    def _blended(self, X: Any) -> Floats:
        check_is_fitted(self)
        _refuse_shape(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        n, classes = _num_samples(X), self._classes()
        # Of what has no weight nothing is asked, nor read of its predictions.
        empty = np.zeros((n,) if classes is None else (n, len(classes)))
        members = [
            _predicted(name, self.estimators_[name], X, classes) if name in self.estimators_ else empty
            for name in self._names()
        ]
        return blend_predictions(self.plan_, members)

    @available_if(_classifies)
    def predict_proba(self, X: Any) -> Floats:
        """(n, classes) the blended probabilities, in the order of `classes_`."""
        return self._blended(X)

    def predict(self, X: Any) -> NDArray[Any]:
        """(n,) the most likely class of each row, or its blended number."""
        blend = self._blended(X)
        return self.classes_[blend.argmax(axis=1)] if hasattr(self, "classes_") else blend

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """The share of rows that are right, or R^2 of numbers."""
        rate = accuracy_score if _classifies(self) else r2_score
        return float(rate(y, self.predict(X), sample_weight=sample_weight))


class EnsembleSelector(_Ensemble):
    """Fit models, and blend the few whose mean out-of-fold prediction loses least (`ensemble_selection`).

    A classifier where the models are classifiers, which must give probabilities, else a regressor.

    Args:
        estimators: a list of models, or of (name, model).
        k: at most so many of them; all by default.
        loss: "log_loss", "brier", "accuracy", "rmse" or "mae"; default log_loss of classes, rmse of numbers.
        quantile: the quantile that the models predict; the loss is then its own.
        cv: how many folds predict one another, or a splitter of scikit-learn; each row must be in one test fold.
        prefit: the models are fitted already, on other rows than those of `fit`.
        options: other options of `ensemble_selection`, such as {"rounds": 100, "bags": 20}.
        random_state: None, a whole number or a RandomState.

    Attributes:
        plan_: the `Blend`; `plan_.info["held_out"]` compares it with the best model and the plain mean.
        weights_: (m,) the models' weights.
        estimators_: {name: model} those of weight, fitted on all rows.
        classes_: the classes, of a classifier.
        n_features_in_: number of columns seen.

    Examples:
        >>> from sklearn.datasets import load_iris
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.naive_bayes import GaussianNB
        >>> from kofn import EnsembleSelector
        >>> X, y = load_iris(return_X_y=True)
        >>> blend = EnsembleSelector([LogisticRegression(max_iter=500), GaussianNB()], random_state=0).fit(X, y)
        >>> blend.predict_proba(X[:2]).shape, sorted(blend.estimators_)
        ((2, 3), ['gaussiannb', 'logisticregression'])
    """

    _method = "ensemble_selection"

    def __init__(
        self,
        estimators: Any,
        *,
        k: int | None = None,
        loss: str | None = None,
        quantile: float | None = None,
        cv: Any = 5,
        prefit: bool = False,
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimators = estimators
        self.k = k
        self.loss = loss
        self.quantile = quantile
        self.cv = cv
        self.prefit = prefit
        self.options = options
        self.random_state = random_state

    def _words(self) -> dict[str, Any]:
        return {} if self.k is None else {"k": self.k}


class Stacker(_Ensemble):
    """Fit models, and weigh their out-of-fold predictions as freely as cross-validation says (`stacking`).

    A classifier where the models are classifiers, which must give probabilities, else a regressor.

    Args:
        estimators: a list of models, or of (name, model).
        final: only this way of weighing: "simplex", "ridge" (of numbers) or "logistic" (of classes).
        loss: "log_loss", "brier", "rmse" or "mae"; default log_loss of classes, rmse of numbers.
        quantile: the quantile that the models predict; the loss is then its own.
        cv: how many folds predict one another, or a splitter of scikit-learn; each row must be in one test fold.
        prefit: the models are fitted already, on other rows than those of `fit`.
        options: other options of `stacking`, such as {"folds": 10}.
        random_state: None, a whole number or a RandomState.

    Attributes:
        plan_: the `Blend`; `plan_.info["held_out"]` compares it with the best model and the plain mean.
        weights_: (m,) the models' weights.
        estimators_: {name: model} those of weight, fitted on all rows.
        classes_: the classes, of a classifier.
        n_features_in_: number of columns seen.

    Examples:
        >>> from sklearn.datasets import load_diabetes
        >>> from sklearn.linear_model import Ridge
        >>> from sklearn.neighbors import KNeighborsRegressor
        >>> from kofn import Stacker
        >>> X, y = load_diabetes(return_X_y=True)
        >>> stack = Stacker([("ridge", Ridge(0.1)), ("near", KNeighborsRegressor(20))], random_state=0).fit(X, y)
        >>> stack.score(X, y) > 0.5, sorted(stack.estimators_)
        (True, ['near', 'ridge'])
    """

    _method = "stacking"

    def __init__(
        self,
        estimators: Any,
        *,
        final: str | None = None,
        loss: str | None = None,
        quantile: float | None = None,
        cv: Any = 5,
        prefit: bool = False,
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimators = estimators
        self.final = final
        self.loss = loss
        self.quantile = quantile
        self.cv = cv
        self.prefit = prefit
        self.options = options
        self.random_state = random_state

    def _words(self) -> dict[str, Any]:
        return {} if self.final is None else {"final": self.final}


def _average_weights(plan: Blend) -> Floats:
    weights = plan.weights
    return np.mean(list(weights.values()), axis=0) if isinstance(weights, Mapping) else np.asarray(weights)


def _check_prefit(name: str, model: Any) -> None:
    """Refuse a model that is not fitted, by name."""
    try:
        check_is_fitted(model)
    except Exception as error:
        raise InputError(f"prefit=True, but {name!r} is not fitted ({type(error).__name__}); fit it first") from None


def _predicted(name: str, model: Any, X: Any, classes: Array | None) -> Floats:
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
            f"estimators: {name!r} was fitted on class {strange[0]!r}, which y does not have; leave it out"
        )
    out = np.zeros((len(chances), len(classes)))
    out[:, np.searchsorted(classes, model.classes_)] = chances
    return out
