"""scikit-learn's doors to ensembles: estimators that fit models, or take fitted ones, and blend their predictions."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, is_classifier
from sklearn.metrics import accuracy_score, r2_score
from sklearn.utils import Tags, check_random_state, get_tags, indexable
from sklearn.utils.metaestimators import _BaseComposition, available_if
from sklearn.utils.validation import (
    _check_sample_weight,
    _num_samples,
    check_is_fitted,
    validate_data,
)

from kofn.combination import blend_predictions
from kofn.core.arrays import Array, Floats
from kofn.core.checks import InputError
from kofn.core.plans import Blend
from kofn.ensemble_models import (
    answers_of,
    average_weights,
    check_options,
    check_prefit,
    fitted,
    groups_of,
    models_of,
    numbered_classes,
    numbers_of,
    out_of_fold,
    predicted,
    refuse_shape,
    splits_of,
)
from kofn.verbs import combine


def _classifies(ensemble: Any) -> bool:
    return bool(is_classifier(models_of(ensemble.estimators)[0][1]))


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
    # The parameters that are words of the method; None leaves a word to it.
    _own: tuple[str, ...] = ()

    def _words(self) -> dict[str, Any]:
        """The words of the method that the estimator's own parameters stand for."""
        own = {name: getattr(self, name) for name in self._own}
        return {name: value for name, value in own.items() if value is not None}

    def _features(self, _X: Any) -> Floats | None:
        """(n, d) the rows as numbers, where members are chosen by them."""
        return None

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
            models = [get_tags(model) for _, model in models_of(self.estimators)]
        except InputError:
            return tags
        first = models[0]
        tags.estimator_type = first.estimator_type
        tags.classifier_tags, tags.regressor_tags = first.classifier_tags, first.regressor_tags
        tags.input_tags.sparse = all(model.input_tags.sparse for model in models)
        tags.input_tags.allow_nan = all(model.input_tags.allow_nan for model in models)
        tags.input_tags.categorical = all(model.input_tags.categorical for model in models)
        return tags

    def fit(self, X: Any, y: Any, sample_weight: Any = None, *, groups: Any = None) -> Self:
        """Predict every row by models that were not fitted on it, weigh them, and fit those of weight on all rows.

        With `prefit` the models are taken as they are, and X, y must be rows that they were not fitted on.

        Args:
            X: (n, d) the rows.
            y: (n,) their answers.
            sample_weight: (n,) how much each row counts, for the models, whose `fit` must take it, and for the blend.
            groups: (n,) the group of each row, such as its patient or day: rows of one group stay in one fold.
        """
        models = models_of(self.estimators)
        refuse_shape(X)
        (X,) = indexable(X)
        X, y = validate_data(self, X, y, skip_check_array=True)
        n = _num_samples(X)
        check_options(self.options, self._own)
        classifies = _classifies(self)
        answers = answers_of(y, n, classifies=classifies)
        if classifies:
            self.classes_, answers = numbered_classes(answers)
        weights = None
        if sample_weight is not None:
            weights = _check_sample_weight(sample_weight, X, dtype=np.float64, ensure_non_negative=True)
        groups = groups_of(groups, n)
        features = self._features(X)
        seed = check_random_state(self.random_state).randint(2**31 - 1)
        if self.prefit:
            for name, model in models:
                check_prefit(name, model, X)
            predictions = [predicted(name, model, X, classes=self._classes()) for name, model in models]
        else:
            splits = splits_of(self.cv, X, answers, groups, int(seed), classifies=classifies)
            predictions = out_of_fold(models, X, self._targets(answers), self._classes(), weights, splits)
        words: dict[str, Any] = {"loss": self.loss} if self.loss is not None else {}
        if self.quantile is not None:
            words["quantiles"] = [self.quantile]
        elif classifies:
            words["classes"] = list(range(len(self.classes_)))
            words.setdefault("loss", "log_loss")
        else:
            words.setdefault("loss", "rmse")
        names = np.array([name for name, _ in models])
        of_rows = {"row_weights": weights, "blocks": groups}
        options = {name: value for name, value in of_rows.items() if value is not None}
        if features is not None:
            words["X"] = features
        self.plan_: Blend = combine(
            predictions,
            y=answers,
            ids=names,
            seed=int(seed),
            method=self._method,
            options={**(self.options or {}), **options},
            **words,
            **self._words(),
        )
        if classifies:
            # The blend is of numbers of classes; people know these by name.
            info = {**self.plan_.info, "classes": self.classes_.tolist()}
            self.plan_ = dataclasses.replace(self.plan_, info=info)
        self.weights_: Floats = average_weights(self.plan_)
        used = self._used()
        self.estimators_ = {
            name: model if self.prefit else fitted(name, model, X, self._targets(answers), weights)
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

    def _blended(self, X: Any) -> Floats:
        check_is_fitted(self)
        refuse_shape(X)
        validate_data(self, X, reset=False, skip_check_array=True)
        n, classes, features = _num_samples(X), self._classes(), self._features(X)
        # Of what has no weight nothing is asked, nor read of its predictions.
        empty = np.zeros((n,) if classes is None else (n, len(classes)))
        members = [
            predicted(name, self.estimators_[name], X, classes) if name in self.estimators_ else empty
            for name in self._names()
        ]
        return blend_predictions(self.plan_, members, X=features)

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
        rounds: how many additions, each of the model that helps the mean most.
        sorted_start: begin with the best models alone, as many as together lose least.
        bags: how many searches, of each some of the models, whose weights are averaged.
        bag_share: the share of the models that each of several bags searches.
        folds: parts of the rows by which `plan_` judges the blend; 0 leaves that out.
        cv: how many folds predict one another, or a splitter of scikit-learn; each row must be in one test fold.
        prefit: the models are fitted already, on other rows than those of `fit`.
        options: other options of `ensemble_selection`, such as {"n_threads": 2}.
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
    _own = ("k", "rounds", "sorted_start", "bags", "bag_share", "folds")

    def __init__(
        self,
        estimators: Any,
        *,
        k: int | None = None,
        loss: str | None = None,
        quantile: float | None = None,
        rounds: int = 50,
        sorted_start: bool = False,
        bags: int = 1,
        bag_share: float = 0.5,
        folds: int = 5,
        cv: Any = 5,
        prefit: bool = False,
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimators = estimators
        self.k = k
        self.loss = loss
        self.quantile = quantile
        self.rounds = rounds
        self.sorted_start = sorted_start
        self.bags = bags
        self.bag_share = bag_share
        self.folds = folds
        self.cv = cv
        self.prefit = prefit
        self.options = options
        self.random_state = random_state


class Stacker(_Ensemble):
    """Fit models, and weigh their out-of-fold predictions as freely as cross-validation says (`stacking`).

    A classifier where the models are classifiers, which must give probabilities, else a regressor.

    Args:
        estimators: a list of models, or of (name, model).
        final: only this way of weighing: "simplex", "ridge" (of numbers) or "logistic" (of classes).
        loss: "log_loss", "brier", "rmse" or "mae"; default log_loss of classes, rmse of numbers.
        quantile: the quantile that the models predict; the loss is then its own.
        penalty: how much the weights are drawn towards equal ones, or shrunk; chosen by default.
        by_column: weights may differ by class.
        folds: parts of the rows by which the freedom is chosen; 0 takes weights on the simplex.
        cv: how many folds predict one another, or a splitter of scikit-learn; each row must be in one test fold.
        prefit: the models are fitted already, on other rows than those of `fit`.
        options: other options of `stacking`, such as {"time_limit": 60}.
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
    _own = ("final", "penalty", "by_column", "folds")

    def __init__(
        self,
        estimators: Any,
        *,
        final: str | None = None,
        loss: str | None = None,
        quantile: float | None = None,
        penalty: float | None = None,
        by_column: bool = False,
        folds: int = 5,
        cv: Any = 5,
        prefit: bool = False,
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimators = estimators
        self.final = final
        self.loss = loss
        self.quantile = quantile
        self.penalty = penalty
        self.by_column = by_column
        self.folds = folds
        self.cv = cv
        self.prefit = prefit
        self.options = options
        self.random_state = random_state


class DynamicSelector(_Ensemble):
    """Fit classifiers, and blend for each row those that were right on the rows near it (`dynamic_ensemble_selection`).

    Without a strategy the one that loses least by cross-validation is taken, among them blends that are the same for
    all rows. Rows are compared by all columns of X, which must be numbers.

    Args:
        estimators: a list of classifiers with probabilities, or of (name, classifier).
        strategy: only this one: "knora_e", "knora_u", "ola", "lca", "des_knn" or "meta_des".
        n_neighbors: how many rows are near a row; by default chosen, too.
        loss: "log_loss", "brier" or "accuracy"; default log_loss.
        standardize: give every column the same variance before rows are compared.
        folds: parts of the rows by which the strategy is chosen; 0 takes "knora_u" of 11 neighbours.
        cv: how many folds predict one another, or a splitter of scikit-learn; each row must be in one test fold.
        prefit: the classifiers are fitted already, on other rows than those of `fit`.
        options: other options of `dynamic_ensemble_selection`, such as {"time_limit": 60}.
        random_state: None, a whole number or a RandomState.

    Attributes:
        plan_: the `Blend`; `plan_.info["strategy"]` was chosen, `plan_.info["held_out"]` compares.
        weights_: (m,) the models' weights, the mean over rows.
        estimators_: {name: model} those that may be asked, fitted on all rows.
        classes_: the classes.
        n_features_in_: number of columns seen.

    Examples:
        >>> from sklearn.datasets import make_moons
        >>> from sklearn.linear_model import LogisticRegression
        >>> from sklearn.tree import DecisionTreeClassifier
        >>> from kofn import DynamicSelector
        >>> X, y = make_moons(200, noise=0.2, random_state=0)
        >>> models = [LogisticRegression(), DecisionTreeClassifier(max_depth=2, random_state=0)]
        >>> blend = DynamicSelector(models, strategy="knora_u", random_state=0).fit(X, y)
        >>> blend.score(X, y) > 0.9, blend.plan_.info["n_neighbors"]
        (True, 23)
    """

    _method = "dynamic_ensemble_selection"
    _own = ("strategy", "n_neighbors", "standardize", "folds")
    quantile = None

    def __init__(
        self,
        estimators: Any,
        *,
        strategy: str | None = None,
        n_neighbors: int | None = None,
        loss: str | None = None,
        standardize: bool = True,
        folds: int = 5,
        cv: Any = 5,
        prefit: bool = False,
        options: Mapping[str, Any] | None = None,
        random_state: Any = None,
    ) -> None:
        self.estimators = estimators
        self.strategy = strategy
        self.n_neighbors = n_neighbors
        self.loss = loss
        self.standardize = standardize
        self.folds = folds
        self.cv = cv
        self.prefit = prefit
        self.options = options
        self.random_state = random_state

    def __sklearn_tags__(self) -> Tags:
        """Those of the models; rows without a distance between them are not taken."""
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = tags.input_tags.allow_nan = False
        return tags

    def _features(self, X: Any) -> Floats:
        if not _classifies(self):
            raise InputError("estimators are regressors, of which none is right or wrong; use EnsembleSelector")
        return numbers_of(X, self)

    def _used(self) -> set[str] | None:
        return None if "row_weights" in self.plan_.info else super()._used()
